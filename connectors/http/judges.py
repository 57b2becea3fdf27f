"""Judges an answer: success, a redirect, a wait, or an error."""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias
from urllib.parse import parse_qsl, unquote, urlsplit

from contextframe_beam.connectors import secrets
from contextframe_beam.connectors.http import request as urls
from contextframe_beam.connectors.http.request import (
    BodyTooLargeError,
    HttpError,
    HttpRequest,
    HttpResponse,
    reason_of,
)
from contextframe_beam.connectors.http.retry import Verdict, Wait, stated_wait
from contextframe_beam.connectors.http.transport import Broken
from contextframe_beam.connectors.plain_secrets import looks_secret
from contextframe_beam.errors import ConnectorError

Judge: TypeAlias = Callable[[HttpResponse], Verdict]

# GitHub asks for at least a minute. Others do not say, and seconds are often enough.
_SECONDARY_SECONDS = 60.0
_LIMIT_SECONDS = 2.0
# An error is short; a longer body may contain documents that speak of limits.
_BEGINNING = 4096
_SHOWN_ERRORS = 3
_SHOWN_TEXT = 200

_LIMIT = re.compile(
    r"rate[ _-]?limit(?:s|ing)?[ _-]?(?:(?:is|was|has been|have been)[ _])?(?:exceed|reached|hit)"
    r"|(?:exceed|reach|hit)\w* [\w' -]{0,40}rate[ _-]?limit"
    r"|\brate[ _-]?limited\b|too[ _-]many[ _-]requests|\bthrottled\b|abuse[ _-]detection",
    re.I,
)
_SECONDARY = re.compile(r"secondary[ _-]rate|abuse[ _-]detection", re.I)
_PASSING = re.compile(
    r"(?<![a-z])(?:timed?[ _-]?out|internal_error|service[ _-]?unavailable|try again later)"
    r"(?![a-z])",
    re.I,
)
_EXPIRED = re.compile(
    r"(?:expired|invalid|revoked)[ _-]?(?:access|auth\w*|bearer|security|session|id|oauth)?[ _-]?"
    r"(?:token|jwt|session|credentials)"
    r"|(?:token|jwt|session|credentials)[\w' -]{0,30}[ _-]?"
    r"(?:expired|invalid|revoked|not valid|no longer valid)",
    re.I,
)
_SAYS_NO = re.compile(rb'"(?:ok|success)"\s*:\s*false')
_ERROR_NAMES = ("error", "errors", "message", "error_message", "msg", "detail", "description")
_ERROR_PARTS = ("message", "msg", "description", "detail", "type", "code")
_CODES = ("code", "type", "reason", "status")


def usual(response: HttpResponse) -> Verdict:
    """Applies all judges of this file except `not_ready`, which suits most APIs."""
    verdict = None
    for judge in (rate_limited, not_ok, graphql_errors, cut_off):
        verdict = judge(response)
        if verdict is not None:
            break
    if isinstance(verdict, Wait) and not response.sent.repeatable:
        return None if response.status >= 400 else response.refused(f"with {verdict.reason}")
    return verdict


def rate_limited(response: HttpResponse) -> Verdict:
    """Waits if a 400 or 403 speaks of a rate limit.

    GitHub's secondary limit is a 403 although there is quota left (wait a minute, then twice as
    long each time). Google sends a 403 with the reason rateLimitExceeded, Linear a 400 RATELIMITED.
    """
    if response.status not in (400, 403, 429):
        return None
    text = _beginning(response)
    if _SECONDARY.search(text):
        return Wait(_SECONDARY_SECONDS, "a secondary rate limit", doubles=True, shared=True)
    if response.status == 429 or not _LIMIT.search(text):
        return None
    return Wait(_LIMIT_SECONDS, "a rate limit", doubles=True, shared=True)


def not_ok(response: HttpResponse) -> Verdict:
    """Refuses a success whose body has `ok: false` or `success: false` and an error, as in Slack.

    It waits if the error is a rate limit or is temporary.
    """
    if response.status >= 300 or not _SAYS_NO.search(response.body[:_BEGINNING]):
        return None
    data = _json(response)
    if not isinstance(data, Mapping) or (
        data.get("ok") is not False and data.get("success") is not False
    ):
        return None
    told = next((data[name] for name in _ERROR_NAMES if data.get(name)), None)
    return None if told is None else _refusal(response, told)


def graphql_errors(response: HttpResponse) -> Verdict:
    """Refuses an answer with GraphQL errors and no data.

    It waits if the errors are temporary (a timeout, a rate limit). If that does not help and there
    is data beside them, the answer is used as it is, and the reader decides which errors matter.
    """
    # From its end, which Python does four times as fast as from its beginning.
    if response.status not in (200, 400, 403) or response.body.rfind(b'"errors"') < 0:
        return None
    data = _json(response)
    errors = data.get("errors") if isinstance(data, Mapping) else None
    if not isinstance(errors, list) or not errors or not isinstance(errors[0], Mapping):
        return None
    if "data" not in data and set(data) - {"errors", "extensions"}:
        return None  # another kind of API, with errors beside its records
    verdict = _refusal(response, errors)
    if isinstance(verdict, Wait):
        has_data = data.get("data") is not None
        return Wait(verdict.seconds, verdict.reason, verdict.doubles, verdict.shared, has_data)
    return verdict if data.get("data") is None and response.status == 200 else None


def cut_off(response: HttpResponse) -> Verdict:
    """Asks again for JSON that ends too early, if the answer does not state its length."""
    headers = response.headers
    if (
        response.status != 200
        or "Content-Length" in headers
        or "Transfer-Encoding" in headers
        or "json" not in (headers.get("Content-Type") or "")
    ):
        return None
    try:
        response.json()
    except ConnectorError as error:
        if "is cut off" in str(error):
            return Wait(reason="a body that ends in the middle")
    return None


def not_ready(response: HttpResponse) -> Verdict:
    """Asks again after a 202 (accepted but not done), when `Retry-After` says."""
    if response.status != 202:
        return None
    return Wait(reason="no content yet; ask again later")


def expired(response: HttpResponse) -> bool:
    """Returns whether a refusal, with any status, says that a token expired."""
    challenge = response.headers.get("WWW-Authenticate") or ""
    return _EXPIRED.search(challenge) is not None or (
        _EXPIRED.search(_beginning(response)) is not None
    )


def _refusal(response: HttpResponse, told: Any) -> Wait | HttpError:
    """Returns a wait or an exception for an error in a body."""
    everything = " ".join(_words(told))
    if _LIMIT.search(everything):
        return Wait(_LIMIT_SECONDS, "a rate limit", doubles=True, shared=True)
    if _PASSING.search(everything):
        return Wait(reason="an error that passes")
    return response.refused(f"with errors: {_shown(told)}")


def _shown(told: Any) -> str:
    errors = told if isinstance(told, list) else [told]
    texts = []
    for one in errors[:_SHOWN_ERRORS]:
        if isinstance(one, Mapping):
            one = next((one[name] for name in _ERROR_PARTS if one.get(name)), dict(one))
        texts.append(str(one)[:_SHOWN_TEXT])
    more = len(errors) - _SHOWN_ERRORS
    return "; ".join(texts) + (f" and {more} more" if more > 0 else "")


def _words(told: Any) -> list[str]:
    """Returns the texts and codes of errors, including those inside `extensions` and `errors`."""
    if isinstance(told, str):
        return [told]
    if isinstance(told, list):
        return [word for one in told for word in _words(one)]
    if not isinstance(told, Mapping):
        return []
    found = [value for name in (*_CODES, *_ERROR_PARTS) if isinstance(value := told.get(name), str)]
    return found + _words(told.get("extensions")) + _words(told.get("errors"))


def _beginning(response: HttpResponse) -> str:
    return response.body[:_BEGINNING].decode("utf-8", "replace")


def _json(response: HttpResponse) -> Any:
    try:
        return response.json()
    except ConnectorError:
        return None


_ADVICE = {
    400: "check the parameters",
    401: "the server does not accept the credentials",
    402: "the account's plan or credit does not cover this",
    403: "the account may not read this",
    404: "check the address",
    405: "the address does not take this method",
    407: "the proxy asks for credentials; give them in its address",
    410: "it is gone for good; take the address out, or look for its successor",
    413: "the body of the request is too large; ask for less at once",
    414: "the address is too long; ask for less at once",
    415: "the server does not take this kind of body",
    422: "the server understands the request, but not its values; check parameters and body",
    429: "set a budget, or raise retries and max_wait",
    431: "the headers of the request are too large",
    451: "the server may not give this out for legal reasons; leave it out, or ask its operator",
}


def failure(
    request: HttpRequest,
    result: HttpResponse | Broken,
    refusal: HttpResponse | None,
    verdict: Verdict,
    *,
    refused: tuple[float, float] | None,
    tries: tuple[int, float],
    own: bool,
) -> HttpError:
    """Returns the exception for a request that is given up, with the last answer if there was one.

    Args:
        request: The request.
        result: The result of the last attempt.
        refusal: The last answer.
        verdict: The judge's verdict on it.
        refused: The wait in seconds that we refused the server, and the most that it may ask for.
        tries: The number of attempts, and the seconds that they took.
        own: Whether it was sent to the client's own server, with its credentials.
    """
    problem = f"{result.problem}" if isinstance(result, Broken) else ""
    status = 0
    hints = []
    if refusal is not None:
        status = refusal.status
        problem += f"{', after it ' if problem else ''}answered {reason_of(status)}"
        excerpt = refusal.excerpt()
        problem += f" ({excerpt})" if excerpt else ""
        hints = [_advice(status)]
        if not own and status in (401, 403, 407):
            origin = urls.origin_of(request.url)
            hints = [
                "it got no credentials, because it is not at base_url; if it is the same server, "
                f"write same_server: [{origin}] in place of allowed_origins, or base_url: {origin}"
            ]
    if isinstance(verdict, Wait):
        hints = [verdict.reason, _ADVICE[429] if verdict.shared else ""]
    if refused is not None:
        asked, most = refused
        hints = [f"the server asks to wait {asked:.0f} s more, and max_wait is {most:g} s"]
    number, seconds = tries
    times = f" after {number} attempts in {seconds:.1f} s" if number > 1 else ""
    hint = "; ".join(["", *filter(None, hints)])
    message = secrets.redact(f"{named(request)} {problem}{times}{hint}")
    if isinstance(result, Broken) and result.too_large:
        return BodyTooLargeError(message, result.too_large)
    stated = refusal and stated_wait(refusal.status, refusal.headers, time.time())
    is_limit = refused is not None or isinstance(verdict, Wait) or stated is not None
    return HttpError(message, status, is_limit)


def named(request: HttpRequest) -> str:
    """Returns the name of a request for messages."""
    return f"{request.method} {urls.shown(urls.with_query(request.url, request.params))}"


def _advice(status: int) -> str:
    if status in _ADVICE:
        return _ADVICE[status]
    if 400 <= status < 500:
        return "the server does not accept the request; check it against the API's documentation"
    return "the server fails; try again later" if status >= 500 else ""


STATUSES = frozenset({301, 302, 303, 307, 308})


def redirected(request: HttpRequest, response: HttpResponse, url: str) -> HttpRequest:
    """Returns the request that follows a redirect.

    Args:
        request: The request, without credentials.
        response: The redirect.
        url: Where it leads, absolute.

    Raises:
        ConnectorError: the body would be lost, or the address is not valid.
    """
    origin = urls.origin_of(url)
    target = urls.with_query(request.url, request.params)
    is_same = _same_place(target, url)
    query = urlsplit(target).query
    if is_same and query and not urlsplit(url).query:
        url = f"{url}?{query}"
    along = dataclasses.replace(request, url=url, params={})
    has_body = request.json is not None or request.form is not None
    if has_body and origin != urls.origin_of(request.url):
        raise _redirect_refused(
            request,
            response,
            url,
            "another server, which gets neither bodies nor credentials; if the API is there, write "
            f"base_url: {_base_of(url)}",
        )
    if request.method in ("GET", "HEAD") or response.status in (307, 308):
        return along
    if response.status == 303 and not is_same:
        # The server accepted the body; its result is at the new address.
        return dataclasses.replace(along, method="GET", json=None, form=None)
    if request.repeatable:
        return along
    if has_body:
        raise _redirect_refused(
            request,
            response,
            url,
            f"and its body is not sent a second time; ask for {urls.shown(url)} instead, or say "
            "with safe_to_repeat that it only reads",
        )
    return dataclasses.replace(along, method="GET")


def without_secrets(request: HttpRequest) -> HttpRequest:
    """Returns the request without our secrets, for another origin: a link may contain them.

    Raises:
        ConnectorError: it has a body, or a secret in its path.
    """

    def told(name: str, value: Any) -> bool:
        return looks_secret(name) or secrets.redact(str(value)) != str(value)

    # Only values count here: signed addresses have parameters such as X-Amz-Security-Token.
    query = parse_qsl(urlsplit(request.url).query, keep_blank_values=True)
    ours = [name for name, value in query if secrets.redact(value) != value]
    bare = dataclasses.replace(
        request,
        url=urls.without_query(request.url, ours) if ours else request.url,
        headers={k: v for k, v in request.headers.items() if not told(k, v)},
        params={k: v for k, v in request.params.items() if not told(k, v)},
    )
    path = urlsplit(bare.url).path
    if bare.json is not None or bare.form is not None or secrets.redact(path) != path:
        raise ConnectorError(
            f"{named(request)} is at another server, which gets neither bodies nor credentials; "
            "only plain requests are sent there"
        )
    return bare


def _same_place(one: str, other: str) -> bool:
    """Returns whether two addresses differ only in scheme, port, query and a last slash."""
    first, second = urlsplit(one), urlsplit(other)
    return first.hostname == second.hostname and unquote(first.path).rstrip("/") == unquote(
        second.path
    ).rstrip("/")


def _base_of(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def _redirect_refused(
    request: HttpRequest, response: HttpResponse, url: str, why: str
) -> ConnectorError:
    return ConnectorError(
        secrets.redact(
            f"{named(request)} was redirected ({response.status}) to {urls.shown(url)}, {why}"
        )
    )
