"""All checks, and the ways to run them: at once, or as the test methods of a class."""

from __future__ import annotations

import unittest
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

from contextframe_beam.connectors.base import BaseConnector
from contextframe_beam.connectors.secrets import redact
from contextframe_beam.connectors.testing import access, mapping, reading
from contextframe_beam.connectors.testing.outcome import Failed, NotApplicable, Outcome, Status
from contextframe_beam.connectors.testing.subject import LIMIT, Subject

Check = Callable[[Subject], str]

#: Each check by its name, in the order in which they are run.
CHECKS: Mapping[str, Check] = {
    check.__name__: check
    for check in (
        access.authenticates,
        access.refuses_wrong_credentials,
        access.travels_without_secrets,
        access.refuses_unknown_options,
        reading.splits_read_each_item_once,
        mapping.same_item_same_uuid,
        mapping.survives_odd_values,
        mapping.errors_become_dead_letters,
        reading.second_run_reads_nothing,
        reading.interrupted_run_resumes,
        reading.memory_stays_bounded,
    )
}

_WITHOUT_SOURCE = (access.refuses_unknown_options.__name__,)


def run_checks(subject: Subject, names: Iterable[str] = tuple(CHECKS)) -> list[Outcome]:
    """Runs checks and returns how each ended; nothing is raised.

    Where the source refuses the connector, the checks that read it are not run.

    Args:
        subject: The connector under test.
        names: Which checks; all unless given.
    """
    outcomes: list[Outcome] = []
    refused = False
    for name in names:
        if refused and name not in _WITHOUT_SOURCE:
            outcomes.append(Outcome(name, Status.NOT_APPLICABLE, "it does not authenticate"))
            continue
        outcomes.append(run_check(subject, name))
        if name == access.authenticates.__name__:
            refused = outcomes[-1].status is Status.FAILED
    return outcomes


def run_check(subject: Subject, name: str) -> Outcome:
    """Runs one check; an error that it meets is a failure of the connector."""
    try:
        return Outcome(name, Status.PASSED, redact(CHECKS[name](subject)))
    except NotApplicable as nothing:
        return Outcome(name, Status.NOT_APPLICABLE, redact(str(nothing)))
    except Failed as failure:
        return Outcome(name, Status.FAILED, redact(failure.reason), failure.mend)
    except Exception as error:
        return Outcome(
            name,
            Status.FAILED,
            redact(f"it raised {type(error).__name__}: {error}"),
            "see where it was raised: in the traceback",
            error,
        )


class ConnectorTests:
    """What every connector must do, as tests for pytest; a subclass says how it is made.

    A check that cannot tell anything about a source is skipped with the reason. With unittest,
    derive from `unittest.TestCase` as well.
    """

    #: The arguments of `sync_documents`.
    sync_kwargs: ClassVar[Mapping[str, Any]] = {}
    #: The most items that a check reads.
    limit: ClassVar[int] = LIMIT

    def connector(self) -> BaseConnector:
        """Makes the connector, with credentials that are right."""
        raise NotImplementedError(f"{type(self).__name__} has no connector(self): return one")

    def with_wrong_credentials(self) -> BaseConnector | None:
        """Makes it with wrong credentials; unless overridden, its secrets become nonsense."""
        return self.subject().with_nonsense()

    def with_unreadable_item(self) -> BaseConnector | None:
        """Makes it for a source that has an item that cannot be read; None if there is none."""
        return None

    def subject(self) -> Subject:
        """Returns what the checks are run on."""
        return Subject(
            self.connector,
            wrong=self.with_wrong_credentials,
            broken=self.with_unreadable_item,
            sync_kwargs=self.sync_kwargs,
            limit=self.limit,
        )

    def test_authenticates(self) -> None:
        self._check("authenticates")

    def test_refuses_wrong_credentials(self) -> None:
        self._check("refuses_wrong_credentials")

    def test_travels_without_secrets(self) -> None:
        self._check("travels_without_secrets")

    def test_refuses_unknown_options(self) -> None:
        self._check("refuses_unknown_options")

    def test_splits_read_each_item_once(self) -> None:
        self._check("splits_read_each_item_once")

    def test_same_item_same_uuid(self) -> None:
        self._check("same_item_same_uuid")

    def test_survives_odd_values(self) -> None:
        self._check("survives_odd_values")

    def test_errors_become_dead_letters(self) -> None:
        self._check("errors_become_dead_letters")

    def test_second_run_reads_nothing(self) -> None:
        self._check("second_run_reads_nothing")

    def test_interrupted_run_resumes(self) -> None:
        self._check("interrupted_run_resumes")

    def test_memory_stays_bounded(self) -> None:
        self._check("memory_stays_bounded")

    def _check(self, name: str) -> None:
        outcome = run_check(self.subject(), name)
        if outcome.status is Status.NOT_APPLICABLE:
            # pytest heeds it as well, and need not be there.
            raise unittest.SkipTest(outcome.reason)
        if outcome.status is Status.FAILED:
            text = f"{outcome.reason}\nTo mend it: {outcome.mend}"
            raise AssertionError(text) from outcome.error
