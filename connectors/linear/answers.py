"""What Linear's answers mean: limits, refusals and queries that cost too much.

Linear refuses with status 400, or with 200 and no data; the code of an error says what it is.

Sources: https://linear.app/developers/rate-limiting and https://linear.app/developers/graphql.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import Any

from contextframe_beam.connectors.http import HttpResponse, Wait
from contextframe_beam.connectors.http.credentials import Placement
from contextframe_beam.connectors.http.judges import usual
from contextframe_beam.connectors.http.queries import Fault, faults_in, refused
from contextframe_beam.connectors.http.request import HttpRequest, TokenExpiredError
from contextframe_beam.connectors.http.retry import Verdict, answered_at, seconds_until
from contextframe_beam.errors import ConnectorError

_KEY = "lin_api_"
_NOT_ACCEPTED = "AUTHENTICATION_ERROR"
_LIMITED = "RATELIMITED"
_TOO_COMPLEX = re.compile(r"too complex|complexity .*(?:exceed|limit|maximum)", re.I)
_AMOUNTS = ("Remaining", "Limit")
# Where no header says more; each further wait is twice as long.
_LIMIT_SECONDS = 2.0


class TooComplexError(ConnectorError):
    """A query that costs more than Linear allows; one for fewer nodes may not."""


class TokenPlacement(Placement):
    """Personal keys stand alone in the header Authorization, and tokens of OAuth after `Bearer`."""

    def put(self, request: HttpRequest, value: str) -> HttpRequest:
        """Returns the request with the key or the token."""
        prefix = "" if value.startswith(_KEY) else self.prefix
        return request.with_header(self.name, prefix + value)


def judged(response: HttpResponse) -> Verdict:
    """Judges an answer by the codes of its errors; data beside errors is the reader's to judge."""
    answer = _json(response)
    faults = faults_in(answer)
    codes = {one.code for one in faults}
    if _LIMITED in codes:
        seconds = _until_reset(response)
        is_told = seconds is not None
        wait = seconds if is_told else _LIMIT_SECONDS
        return Wait(wait, "Linear's limit", doubles=not is_told, shared=True)
    if _NOT_ACCEPTED in codes:
        why = "Linear does not accept the key or token: it is wrong, has ended or was revoked"
        return TokenExpiredError(f"{refused(faults, where=response.url)}; {why}", response.status)
    if any(_TOO_COMPLEX.search(one.text) for one in faults):
        return TooComplexError(str(refused(faults, where=response.url)))
    verdict = usual(response)
    has_data = isinstance(answer, Mapping) and answer.get("data") is not None
    if faults and not has_data and not isinstance(verdict, Wait) and response.status < 500:
        return refused(faults, where=response.url)
    return verdict


def cost_of(response: HttpResponse) -> int:
    """Returns the points that a query has cost; 0 where the answer does not tell."""
    told = (response.headers.get("X-Complexity") or "").strip()
    return int(told) if told.isascii() and told.isdecimal() else 0


def failed_nodes(faults: list[Fault], field: str) -> dict[int, Fault]:
    """Returns the errors that concern one node of a list each, by the number of the node.

    Args:
        faults: The errors beside the data.
        field: The list.

    Raises:
        QueryError: an error concerns more than a node.
    """
    found: dict[int, Fault] = {}
    for one in faults:
        path = one.path
        if path[:2] != (field, "nodes") or len(path) < 3 or not isinstance(path[2], int):
            raise refused(faults)
        found.setdefault(path[2], one)
    return found


def _until_reset(response: HttpResponse) -> float | None:
    """Returns the seconds until the limit of which least is left is lifted, if headers tell."""
    headers = response.headers
    now = answered_at(headers, time.time())
    found = []
    for name in ("Requests", "Endpoint-Requests", "Complexity"):
        wait = seconds_until(headers.get(f"X-RateLimit-{name}-Reset") or "", now)
        if wait is not None:
            left, most = (_number(headers.get(f"X-RateLimit-{name}-{one}")) for one in _AMOUNTS)
            found.append((left / most if most else left, wait))
    return min(found)[1] if found else None


def _number(text: str | None) -> float:
    is_one = text is not None and re.fullmatch(r"[0-9]+(?:\.[0-9]+)?", text.strip())
    return float(text or 0) if is_one else 0.0


def _json(response: HttpResponse) -> Any:
    if b'"errors"' not in response.body:
        return None
    try:
        return response.json()
    except ConnectorError:
        return None
