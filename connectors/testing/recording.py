"""Recorded HTTP: a service is asked once, and tests play its answers back without a network.

vcrpy records what goes through urllib3, requests and `http_client`. What is written is scrubbed
first: headers, parameters, bodies and answers that hold credentials, and every secret that this
process has used, wherever it stands.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from contextframe_beam.connectors.http._deadline import WatchedPool, WatchedTLSPool
from contextframe_beam.connectors.plain_secrets import looks_secret
from contextframe_beam.connectors.secrets import redact
from contextframe_beam.errors import ConfigError, ConnectorError

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
    """Records the requests made inside where `path` does not exist; plays them back where it does.

    A request that was not recorded is refused. The order does not matter, so connectors may ask
    from several threads; worker processes are not recorded, so test in one process.

    Args:
        path: The YAML file to keep; look into it once before it is committed.
        again: Record anew, whatever was recorded.

    Raises:
        ConfigError: vcrpy is not installed.
        ConnectorError: a request inside was not recorded.
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
                "again=True, to record anew"
            ) from None


def scrubbed_request(request: Any) -> Any:
    """Returns a request of vcrpy's without credentials; also what a replayed one is matched by."""
    request.uri = _scrubbed_url(request.uri)
    request.headers = {
        name: SCRUBBED if _is_secret_header(name) else redact(str(value))
        for name, value in request.headers.items()
    }
    if request.body:
        request.body = _scrubbed_body(request.body)
    return request


def scrubbed_response(response: dict[str, Any]) -> dict[str, Any]:
    """Returns an answer of vcrpy's without tokens."""
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
    """Returns a JSON value without the texts that stand under names of secrets."""
    if isinstance(value, dict):
        return {
            key: SCRUBBED if isinstance(one, str) and looks_secret(str(key)) else _scrubbed(one)
            for key, one in value.items()
        }
    return [_scrubbed(one) for one in value] if isinstance(value, list) else value
