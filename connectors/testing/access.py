"""Checks of how a connector is made, how it authenticates, and how it travels to a worker."""

from __future__ import annotations

import base64
import itertools
import json
import os
import pickle
import uuid

from contextframe_beam.connectors import secrets
from contextframe_beam.connectors._identity import named_arguments
from contextframe_beam.connectors._ways import choose_reader
from contextframe_beam.connectors.base import BaseConnector
from contextframe_beam.connectors.testing.outcome import Failed, NotApplicable
from contextframe_beam.connectors.testing.subject import Subject
from contextframe_beam.errors import ConfigError

_UNKNOWN = "no_such_option"


def authenticates(subject: Subject) -> str:
    """`authenticate` returns True with the right credentials."""
    connector = subject.make()
    accepted = connector.authenticate(**connector._asked_by_authenticate())
    if accepted is not True:
        raise Failed(
            f"authenticate() returned {accepted!r}",
            "return True when the source accepts; raise, or return False, when it does not",
        )
    return "authenticate() returned True"


def refuses_wrong_credentials(subject: Subject) -> str:
    """Wrong credentials are an error, at the latest when the first item is read."""
    wrong = subject.wrong()
    if wrong is None:
        raise NotApplicable("none of its arguments is a secret")
    try:
        wrong.ensure_authenticated()
        read = sum(len(page.items) for page in itertools.islice(subject.source(wrong).pages(), 2))
    except Exception as error:
        return f"they are refused: {type(error).__name__}: {error}"[:250]
    raise Failed(
        f"it authenticated with wrong credentials and read {read} items",
        "let authenticate() ask the source for something that needs the credentials, and raise or "
        "return False when it refuses",
    )


def travels_without_secrets(subject: Subject) -> str:
    """It pickles, as it must to reach a worker, and nothing of it shows a secret."""
    named: list[str] = []

    def by_reference(value: str) -> str:
        if isinstance(value, secrets.SecretReference):
            return value.reference
        named.append(f"CONTEXTFRAME_TEST_{uuid.uuid4().hex}")
        os.environ[named[-1]] = value
        return f"env:{named[-1]}"

    values = subject.secret_values()
    try:
        connector = subject.rebuilt(by_reference) or subject.make()
        if values:
            _authenticated_by_reference(connector)
        travelled = _travelled(connector)
        again = pickle.loads(travelled)
        if again.source_id(subject.sync_kwargs) != connector.source_id(subject.sync_kwargs):
            raise Failed(
                "after travelling it is another source",
                "let source_identity depend on the constructor's arguments alone, and not on "
                "time, chance or memory addresses",
            )
        shown = {
            "its pickle": travelled,
            "its repr": repr(connector).encode(),
            "its identity": json.dumps(connector.source_identity(subject.sync_kwargs)).encode(),
            "its statistics": json.dumps(connector.get_stats(), default=str).encode(),
        }
        for where, data in shown.items():
            if any(value.encode() in data or _encoded(value) in data for value in values):
                raise Failed(
                    f"{where} holds a secret",
                    "keep secrets as the constructor's arguments, and use them where they are "
                    "needed; do not write __reduce__, __getstate__ or __repr__ of your own",
                )
    finally:
        for name in named:
            os.environ.pop(name, None)
    return f"{len(values)} secrets stay behind their references" if values else "it travels"


def refuses_unknown_options(subject: Subject) -> str:
    """A misspelt option is an error before anything is read."""
    connector = subject.make()
    kind = type(connector)
    arguments = {**named_arguments(kind, *connector._arguments), _UNKNOWN: "x"}
    mend = "name the arguments in the signature; take **kwargs only to pass them on to a base class"
    try:
        kind(**arguments)
    except (ConfigError, TypeError):
        pass
    else:
        raise Failed(f"the constructor takes {_UNKNOWN}='x' and says nothing", mend)
    try:
        choose_reader(connector, {**subject.sync_kwargs, _UNKNOWN: "x"})
    except ConfigError:
        return "the constructor and the reading refuse them"
    raise Failed(f"reading takes {_UNKNOWN}='x' and says nothing", mend)


def _authenticated_by_reference(connector: BaseConnector) -> None:
    try:
        connector.ensure_authenticated()
    except Exception as error:
        raise Failed(
            f"with a reference (env:NAME) in the place of its secrets it fails: {error}",
            "use the attribute when it is needed (self.token), and resolved(self.headers) for "
            "arguments that hold references inside",
        ) from None


def _travelled(connector: BaseConnector) -> bytes:
    try:
        return pickle.dumps(connector)
    except Exception as error:
        raise Failed(
            f"it cannot be pickled: {type(error).__name__}: {error}",
            "take plain values as constructor arguments, and make sessions, locks and open files "
            "of them in the constructor; define the class at the top of a module",
        ) from None


def _encoded(value: str) -> bytes:
    return base64.b64encode(value.encode())
