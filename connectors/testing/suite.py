"""The checks as a suite of tests, run live or against recorded answers."""

from __future__ import annotations

import json
import os
import re
import unittest
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from contextframe_beam.connectors.base import BaseConnector
from contextframe_beam.connectors.http.transport import WatchedPool, WatchedTLSPool
from contextframe_beam.connectors.plain_secrets import looks_secret
from contextframe_beam.connectors.secrets import redact
from contextframe_beam.connectors.testing import checks
from contextframe_beam.connectors.testing.subject import (
    LIMIT,
    Failed,
    NotApplicable,
    Outcome,
    Status,
    Subject,
)
from contextframe_beam.errors import ConfigError, ConnectorError

Check = Callable[[Subject], str]

#: Each check by its name, in the order in which they are run.
CHECKS: Mapping[str, Check] = {
    check.__name__: check
    for check in (
        checks.authenticates,
        checks.refuses_wrong_credentials,
        checks.travels_without_secrets,
        checks.refuses_unknown_options,
        checks.splits_read_each_item_once,
        checks.same_item_same_uuid,
        checks.survives_odd_values,
        checks.errors_become_dead_letters,
        checks.second_run_reads_nothing,
        checks.interrupted_run_resumes,
        checks.memory_stays_bounded,
    )
}

_WITHOUT_SOURCE = (checks.refuses_unknown_options.__name__,)


def run_checks(subject: Subject, names: Iterable[str] = tuple(CHECKS)) -> list[Outcome]:
    """Runs checks and returns the outcome of each; it never raises.

    If the source refuses the connector, the checks that read it are not run.

    Args:
        subject: The connector under test.
        names: The checks to run; all by default.
    """
    outcomes: list[Outcome] = []
    refused = False
    for name in names:
        if refused and name not in _WITHOUT_SOURCE:
            outcomes.append(Outcome(name, Status.NOT_APPLICABLE, "it does not authenticate"))
            continue
        outcomes.append(run_check(subject, name))
        if name == checks.authenticates.__name__:
            refused = outcomes[-1].status is Status.FAILED
    return outcomes


def run_check(subject: Subject, name: str) -> Outcome:
    """Runs one check; any exception counts as a failure of the connector."""
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
    """The checks as tests for pytest; a subclass makes the connector.

    A check that does not apply to a source is skipped with the reason. With unittest, derive from
    `unittest.TestCase` too.
    """

    #: The arguments of `sync_documents`.
    sync_kwargs: ClassVar[Mapping[str, Any]] = {}
    #: The most items that a check reads.
    limit: ClassVar[int] = LIMIT

    def connector(self) -> BaseConnector:
        """Makes the connector, with the right credentials."""
        raise NotImplementedError(f"{type(self).__name__} has no connector(self): return one")

    def with_wrong_credentials(self) -> BaseConnector | None:
        """Makes it with wrong credentials; unless overridden, its secrets become nonsense."""
        return self.subject().with_nonsense()

    def with_unreadable_item(self) -> BaseConnector | None:
        """Makes it for a source with an unreadable item; None if there is no such source."""
        return None

    def subject(self) -> Subject:
        """Returns the connector and its settings for the checks."""
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
            # pytest understands it too, and need not be installed.
            raise unittest.SkipTest(outcome.reason)
        if outcome.status is Status.FAILED:
            text = f"{outcome.reason}\nTo fix it: {outcome.mend}"
            raise AssertionError(text) from outcome.error


SCRUBBED = "SCRUBBED"

# Names of credentials beside those that `looks_secret` knows.
_CREDENTIALS = re.compile(
    r"(?:^|_)(?:assertion|client_id|code|code_verifier|otp|pin|session|session_id|sid|signature"
    r"|state|user|username|login|email|device_code|user_code|jwt|auth)$"
)
_HEADERS = frozenset(
    {"authorization", "cookie", "set-cookie", "proxy-authorization", "www-authenticate", "location"}
)


@contextmanager
def recorded(path: str | os.PathLike[str], *, again: bool = False) -> Iterator[None]:
    """Records the requests in the block if `path` does not exist; plays them back if it does.

    A request that was not recorded is refused. The order does not matter, so connectors may use
    several threads. Worker processes are not recorded, so test in one process.

    Args:
        path: The YAML file; look into it before you commit it.
        again: Replace an earlier recording.

    Raises:
        ConfigError: vcrpy is not installed.
        ConnectorError: a request in the block was not recorded.
    """
    try:
        import vcr
        from vcr.errors import CannotOverwriteExistingCassetteException as NotRecorded
        from vcr.stubs import urllib3_stubs as stubs
    except ImportError:
        raise ConfigError("recording needs vcrpy; install contextframe-beam[testing]") from None
    target = Path(path)
    if again:
        target.unlink(missing_ok=True)
    recorder = vcr.VCR(
        record_mode="once",
        match_on=("method", "scheme", "host", "port", "path", "query", "body"),
        decode_compressed_response=True,
        before_record_request=scrubbed_request,
        before_record_response=scrubbed_response,
        custom_patches=(
            (WatchedPool, "ConnectionCls", stubs.VCRRequestsHTTPConnection),
            (WatchedTLSPool, "ConnectionCls", stubs.VCRRequestsHTTPSConnection),
        ),
    )
    with recorder.use_cassette(str(target), allow_playback_repeats=target.exists()):
        try:
            yield
        except NotRecorded as error:
            asked = error.failed_request
            raise ConnectorError(
                f"{target} does not hold {asked.method} {redact(asked.uri)}; delete it, or say "
                "again=True, to record it again"
            ) from None


def scrubbed_request(request: Any) -> Any:
    """Returns a vcrpy request without credentials; replayed requests are matched by it too."""
    request.uri = _scrubbed_url(request.uri)
    request.headers = {
        name: SCRUBBED if _is_secret_header(name) else redact(str(value))
        for name, value in request.headers.items()
    }
    if request.body:
        request.body = _scrubbed_body(request.body)
    return request


def scrubbed_response(response: dict[str, Any]) -> dict[str, Any]:
    """Returns a vcrpy answer without tokens."""
    body = _scrubbed_body(response["body"]["string"] or b"")
    headers = {
        name: [_scrubbed_header(name, value) for value in values]
        for name, values in response["headers"].items()
    }
    for name in list(headers):
        if name.lower() == "content-length":
            headers[name] = [str(len(body))]
    return {**response, "headers": headers, "body": {"string": body}}


def _is_secret(name: str) -> bool:
    snake = name.replace("-", "_").lower()
    return looks_secret(name) or _CREDENTIALS.search(snake) is not None


def _is_secret_header(name: str) -> bool:
    return name.lower() in _HEADERS - {"location"} or _is_secret(name)


def _scrubbed_header(name: str, value: str) -> str:
    if name.lower() == "location":
        return _scrubbed_url(value)
    if name.lower() == "set-cookie":
        return re.sub(r"=[^;]*", f"={SCRUBBED}", value, count=1)
    return SCRUBBED if _is_secret_header(name) else redact(value)


def _scrubbed_url(url: str) -> str:
    parts = urlsplit(url)
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    query = urlencode([(k, SCRUBBED if _is_secret(k) else redact(v)) for k, v in pairs])
    path = redact(parts.path)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, path, query, ""))


def _scrubbed_body(body: bytes | str) -> bytes:
    data = body.encode() if isinstance(body, str) else bytes(body)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return data
    try:
        value = json.loads(text)
    except ValueError:
        pairs = parse_qsl(text, keep_blank_values=True, strict_parsing=False)
        if pairs and any(_is_secret(name) for name, _ in pairs):
            text = urlencode([(k, SCRUBBED if _is_secret(k) else v) for k, v in pairs])
        return redact(text).encode()
    scrubbed = _scrubbed(value)
    return redact(text if scrubbed == value else json.dumps(scrubbed)).encode()


def _scrubbed(value: Any) -> Any:
    """Returns a JSON value without the texts under secret names."""
    if isinstance(value, dict):
        return {
            key: SCRUBBED if isinstance(one, str) and looks_secret(str(key)) else _scrubbed(one)
            for key, one in value.items()
        }
    return [_scrubbed(one) for one in value] if isinstance(value, list) else value
