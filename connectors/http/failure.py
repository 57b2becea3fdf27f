"""The error for a request that is given up: what was asked, what was answered, and what to do."""

from __future__ import annotations

from contextframe_beam.connectors import secrets
from contextframe_beam.connectors.http import urls
from contextframe_beam.connectors.http.errors import HttpError
from contextframe_beam.connectors.http.request import HttpRequest, HttpResponse, reason_of
from contextframe_beam.connectors.http.retry import Verdict, Wait
from contextframe_beam.connectors.http.transport import Broken

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
    """Returns the error for a request that is given up, with the last answer if there was one.

    Args:
        request: The request.
        result: What became of it the last time.
        refusal: The last answer.
        verdict: What was judged of it.
        refused: The seconds that the server asked for in vain, and how many it may ask for.
        tries: How often it was sent, and how many seconds that took.
        own: Whether it was sent to the server of the client, with its credentials.
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
    return HttpError(secrets.redact(f"{named(request)} {problem}{times}{hint}"), status)


def named(request: HttpRequest) -> str:
    """Returns a request as messages name it."""
    return f"{request.method} {urls.shown(urls.with_query(request.url, request.params))}"


def _advice(status: int) -> str:
    if status in _ADVICE:
        return _ADVICE[status]
    if 400 <= status < 500:
        return "the server does not accept the request; check it against the API's documentation"
    return "the server fails; try again later" if status >= 500 else ""
