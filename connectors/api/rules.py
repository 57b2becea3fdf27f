"""What a configuration says about answers: which are errors, tried again, renewed, or passed over.

The rules of a resource come before those of the whole configuration. What the usual judge knows to
wait for comes before what may be passed over, so that nothing is passed over for a rate limit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from contextframe_beam.connectors.api.config import AnswerRule, AnswerRules, RetryRule
from contextframe_beam.connectors.api.filters import condition_of
from contextframe_beam.connectors.bounds import seconds_of
from contextframe_beam.connectors.http.errors import HttpError, PassedOverError, TokenExpiredError
from contextframe_beam.connectors.http.judges import Judge, not_ready, usual
from contextframe_beam.connectors.http.request import HttpResponse
from contextframe_beam.connectors.http.retry import Verdict, Wait
from contextframe_beam.errors import ConnectorError


def judge_of(*sections: AnswerRules) -> Judge:
    """Returns the judge that the rules of some sections make, the first section's first."""
    renew = [_meets(rule) for one in sections for rule in one.renew_when]
    retry = [(_meets(rule), _wait_of(rule)) for one in sections for rule in one.retry_when]
    refuse = [_meets(rule) for one in sections for rule in one.error_when]
    ignore = [_meets(rule) for one in sections for rule in one.ignore_when]

    def judge(response: HttpResponse) -> Verdict:
        if _any(renew, response):
            return _told(response, TokenExpiredError, "renew_when says that the token expired")
        for meets, wait in retry:
            if meets(response):
                return wait
        if _any(refuse, response):
            return _told(response, HttpError, "error_when says that this is an error")
        verdict = not_ready(response) or usual(response)
        if not isinstance(verdict, Wait) and _any(ignore, response):
            return _told(response, PassedOverError, "ignore_when passes this over")
        return verdict

    return judge


def _any(rules: Sequence[Callable[[HttpResponse], bool]], response: HttpResponse) -> bool:
    return any(meets(response) for meets in rules)


def _told(response: HttpResponse, kind: type[HttpError], why: str) -> HttpError:
    excerpt = response.excerpt()
    error = response.refused(f"({excerpt}); {why}" if excerpt else f"; {why}")
    return kind(str(error), response.status)


def _wait_of(rule: RetryRule) -> Wait:
    seconds = None if rule.wait is None else seconds_of(rule.wait)
    shared = seconds is not None
    return Wait(seconds, "retry_when says to ask again", doubles=shared, shared=shared)


def _meets(rule: AnswerRule) -> Callable[[HttpResponse], bool]:
    """Returns the function that tells whether an answer meets a rule."""
    given = rule.status if isinstance(rule.status, list) else [rule.status]
    statuses = None if rule.status is None else frozenset(map(str, given))
    text = None if rule.text is None else rule.text.casefold()
    condition = None if rule.field is None else condition_of(rule)

    def meets(response: HttpResponse) -> bool:
        status = str(response.status)
        if statuses is not None and not statuses & {status, f"{status[0]}xx"}:
            return False
        if text is not None and text not in response.body.decode("utf-8", "replace").casefold():
            return False
        return condition is None or condition(_data(response))

    return meets


def _data(response: HttpResponse) -> Any:
    try:
        return response.json()
    except ConnectorError:
        return None
