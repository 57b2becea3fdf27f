"""What an answer means where its status does not say it: ready-made judges.

A judge looks at an answer and returns nothing (its status says all), a `Wait` before the request is
sent again, or the error to raise. A client asks `usual`, unless it is given a judge of its own,
which may ask it as well:

    def judge(response):
        if response.status == 409:
            return Wait(5, "an export is under way")
        return usual(response)
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from contextframe_beam.connectors.http.errors import HttpError
from contextframe_beam.connectors.http.request import HttpResponse
from contextframe_beam.connectors.http.retry import Verdict, Wait
from contextframe_beam.errors import ConnectorError

Judge: TypeAlias = Callable[[HttpResponse], Verdict]

# GitHub asks for at least a minute; others say nothing, and seconds often do.
_SECONDARY_SECONDS = 60.0
_LIMIT_SECONDS = 2.0
# An error is short; further down there may be documents that speak of limits.
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
    """Judges as most APIs mean it: all judges of this file but `not_ready`."""
    verdict = None
    for judge in (rate_limited, not_ok, graphql_errors, cut_off):
        verdict = judge(response)
        if verdict is not None:
            break
    if isinstance(verdict, Wait) and not response.sent.repeatable:
        return None if response.status >= 400 else response.refused(f"with {verdict.reason}")
    return verdict


def rate_limited(response: HttpResponse) -> Verdict:
    """Waits where a 400 or 403 speaks of a rate limit.

    GitHub's secondary limit is a 403 although quota is left (wait a minute, then twice as long
    each time); Google's is a 403 with the reason rateLimitExceeded, Linear's a 400 RATELIMITED.
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
    """Refuses a success whose body says `ok: false` or `success: false` with an error, as Slack's.

    Where the error is a rate limit, or one that passes, it waits.
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
    """Refuses an answer that has the errors of GraphQL and no data.

    Errors that pass (a timeout, a rate limit) are waited for. When that does not help and there is
    data beside them, the answer is used as it is: which errors matter is for the reader to say.
    """
    if response.status not in (200, 400, 403) or b'"errors"' not in response.body:
        return None
    data = _json(response)
    errors = data.get("errors") if isinstance(data, Mapping) else None
    if not isinstance(errors, list) or not errors or not isinstance(errors[0], Mapping):
        return None
    if "data" not in data and set(data) - {"errors", "extensions"}:
        return None  # an API of another kind that has errors beside its records
    verdict = _refusal(response, errors)
    if isinstance(verdict, Wait):
        has_data = data.get("data") is not None
        return Wait(verdict.seconds, verdict.reason, verdict.doubles, verdict.shared, has_data)
    return verdict if data.get("data") is None and response.status == 200 else None


def cut_off(response: HttpResponse) -> Verdict:
    """Asks again for JSON that ends too early where nothing but its end tells how long it is."""
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
    """Asks again for what a server took on but has not done (202), when `Retry-After` says."""
    if response.status != 202:
        return None
    return Wait(reason="no content yet; ask again later")


def expired(response: HttpResponse) -> bool:
    """Tells whether a refusal says that a token expired, whatever its status."""
    challenge = response.headers.get("WWW-Authenticate") or ""
    return _EXPIRED.search(challenge) is not None or (
        _EXPIRED.search(_beginning(response)) is not None
    )


def _refusal(response: HttpResponse, told: Any) -> Wait | HttpError:
    """Returns what an error in a body means: to wait, or an error."""
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
    """Returns the texts and codes of errors, those inside `extensions` and `errors` as well."""
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
