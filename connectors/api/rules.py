"""Conditions on values and answers in a configuration: rules, filters, and expressions."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import BeforeValidator, Field, model_validator

from contextframe_beam.connectors.api.expression import ExpressionError, read
from contextframe_beam.connectors.api.template import OF_ANSWERS, OF_PAGES, OF_RECORDS
from contextframe_beam.connectors.http.section import Section, wrong
from contextframe_beam.connectors.http.settings import Duration


def condition(roots: tuple[str, ...]) -> Any:
    """Returns the type of an expression that can use some roots."""

    def check(value: Any) -> Any:
        if isinstance(value, str):
            try:
                refuse_unknown(read(value).paths, roots, ())
            except ExpressionError as error:
                raise wrong((), f"is not an expression: {error}") from None
        return value

    return Annotated[str, BeforeValidator(check)]


if TYPE_CHECKING:
    RecordExpression = str
    AnswerExpression = str
    PageExpression = str
else:
    #: An expression about a record.
    RecordExpression = condition(OF_RECORDS)
    #: An expression about an answer.
    AnswerExpression = condition(OF_ANSWERS)
    #: An expression about a page.
    PageExpression = condition(OF_PAGES)


def refuse_unknown(
    paths: Iterable[tuple[str, ...]], roots: tuple[str, ...], at: tuple[str | int, ...]
) -> None:
    """Refuses paths that begin with other names than the known roots.

    Args:
        paths: The paths.
        roots: The known roots.
        at: The keys that lead to the setting.

    Raises:
        PydanticCustomError: a root is unknown.
    """
    for path in paths:
        if path[0] not in roots:
            raise wrong(
                at,
                f"uses {'.'.join(path)}, but only {', '.join(roots)} have values here",
                name=path[0],
                known=list(roots),
            )


_ABOUT_FIELD = {"equals", "not_equals", "one_of", "none_of", "matches", "exists"}

_Rule = TypeVar("_Rule")


def _as_rules(value: Any) -> Any:
    rules = value if isinstance(value, list) else [value]
    return [
        {"status": one} if isinstance(one, int | str) and not isinstance(one, bool) else one
        for one in rules
    ]


#: Rules. A single rule needs no list, and a status alone is a rule.
Rules = Annotated[list[_Rule], BeforeValidator(_as_rules)]
Status = Annotated[int, Field(ge=100, le=599)] | Literal["2xx", "3xx", "4xx", "5xx"]
Statuses = Status | list[Status]


class Condition(Section):
    """A condition on a value; everything that is given must hold."""

    _needs_condition: ClassVar[bool] = True

    field: str | None
    """The path of the value."""
    equals: Any = None
    """The value is this."""
    not_equals: Any = None
    """The value is not this."""
    one_of: list[Any] | None = None
    """The value is one of these."""
    none_of: list[Any] | None = None
    """The value is not one of these."""
    matches: str | None = None
    """The value, as text, contains a match of this regular expression."""
    exists: bool | None = None
    """true: the field exists and is not null; false: it does not exist, or is null."""

    @model_validator(mode="after")
    def _check(self) -> Condition:
        if self._needs_condition and self.model_fields_set <= {"field"}:
            raise wrong(
                (), "has no condition; give equals, not_equals, one_of, none_of, matches or exists"
            )
        try:
            re.compile(self.matches or "")
        except re.error as error:
            raise wrong(("matches",), f"is not a regular expression: {error}") from None
        return self


class Filter(Condition):
    """A condition that a record must meet to become a document; everything given must hold."""

    field: str
    """The path of the value in a record."""


class AnswerRule(Condition):
    """The answers of an API that a rule is about; everything that is given must hold."""

    _needs_condition: ClassVar[bool] = False

    status: Statuses | None = None
    """The HTTP status, or a list of them; 4xx and 5xx stand for all statuses of that kind."""
    field: str | None = None
    """The path of a value in the body; without equals and the like, any value but false will do."""
    text: str | None = None
    """A text that the body contains, in upper or lower case; give a status too if records may also
    contain it."""
    when: AnswerExpression | None = None
    """An expression about response, headers (their names in lower case) and status that holds."""

    @model_validator(mode="after")
    def _check_rule(self) -> AnswerRule:
        if all(one is None for one in (self.status, self.field, self.text, self.when)):
            raise wrong((), "has no condition; give status, field, text or when")
        if self.field is None and self.model_fields_set & _ABOUT_FIELD:
            raise wrong((), "has a condition about a value; give the field that holds it")
        return self


class RetryRule(AnswerRule):
    """Answers after which the request is sent again."""

    wait: Duration | None = None
    """How long to wait first, unless the answer says it; each further wait is twice as long. By
    default a short time, which counts as one of the `retries`."""


class AnswerRules(Section):
    """What answers mean when their status does not say it."""

    error_when: Rules[AnswerRule] = Field(default_factory=list)
    """Answers that are errors although their status says otherwise, such as
    {field: ok, equals: false}."""
    retry_when: Rules[RetryRule] = Field(default_factory=list)
    """Answers after which the request is sent again, such as {status: 403, text: rate limit}."""
    renew_when: Rules[AnswerRule] = Field(default_factory=list)
    """Answers after which the token is renewed, and the request sent again."""
    ignore_when: Rules[AnswerRule] = Field(default_factory=list)
    """Answers that are passed over as if there were no records, such as {status: [403, 451]}.
    Documents that they would have held are not deleted, unless the status is 404 or 410."""


class Deleted(Filter):
    """When a record counts as deleted; a field alone means any value except false and 0."""

    _needs_condition: ClassVar[bool] = False
