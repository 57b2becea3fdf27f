"""Texts of a configuration with values in them: `contacts/{parent.id}`, `"{= shift(now, '-1d') }"`.

`{root.name}` stands for a value, and `{= ... }` for the value of an expression. A text that is one
placeholder becomes the value itself; around others, values are written as text. Other braces, such
as those of a GraphQL query, stay as they are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from contextframe_beam.connectors.api.expression import (
    Expression,
    ExpressionError,
    Known,
    read_in,
)
from contextframe_beam.connectors.mapper import as_text, lookup
from contextframe_beam.connectors.secrets import SecretReference

#: What requests can use.
OF_REQUESTS = ("settings", "parent", "each", "since", "until", "now", "cursor")
#: What the fields and filters of records can use.
OF_RECORDS = ("record", *OF_REQUESTS[:-1])
#: What the next page can be computed from.
OF_PAGES = ("response", "headers", "records", "cursor")
#: What rules about answers can use.
OF_ANSWERS = ("response", "headers", "status")

#: Stands for a value that is missing; the key that holds it is left out.
NOTHING: Any = object()

_PLACEHOLDER = re.compile(
    r"\{(?:(?P<expression>=)|(?P<path>(?:settings|parent|each|record|response)(?:\.[\w@$-]+)+"
    r"|since|until|now)\})"
)


@dataclass(frozen=True, slots=True)
class Template:
    """A text with placeholders.

    Attributes:
        parts: Its texts, and the expressions between them, each with its own text.
    """

    parts: tuple[str | tuple[str, Expression], ...]

    @property
    def expressions(self) -> list[Expression]:
        """The expressions in it."""
        return [one[1] for one in self.parts if not isinstance(one, str)]

    def value(self, known: Known, write: Callable[[Any], str | None] = as_text) -> Any:
        """Returns its value; `NOTHING` if a value is missing.

        Args:
            known: The values by the names of their roots.
            write: Writes a value that stands beside text.

        Raises:
            ExpressionError: an expression cannot be computed.
        """
        if len(self.parts) == 1 and not isinstance(self.parts[0], str):
            value = self.parts[0][1].value(known)
            return NOTHING if value is None else value
        texts = []
        for one in self.parts:
            if isinstance(one, str):
                texts.append(one)
                continue
            value = one[1].value(known)
            if value is None:
                return NOTHING
            if isinstance(value, SecretReference):
                raise ExpressionError(
                    f"a secret stands alone, and {one[0]} is beside other text; auth has a prefix "
                    "for such texts"
                )
            texts.append(write(value) or "")
        return "".join(texts)

    def partly(self, known: Known, roots: Sequence[str]) -> str | Any:
        """Returns its text with the placeholders filled that need some roots only."""
        if all(one.roots <= set(roots) for one in self.expressions):
            return self.value(known)
        texts = []
        for one in self.parts:
            if isinstance(one, str) or not one[1].roots or not one[1].roots <= set(roots):
                texts.append(one if isinstance(one, str) else one[0])
                continue
            value = Template((one,)).value(known)
            if value is NOTHING:
                return NOTHING
            texts.append(Template(("", one)).value(known))
        return "".join(texts)


@lru_cache(maxsize=4096)
def template(text: str) -> Template | None:
    """Returns the template in a text; None if it has no placeholders.

    Raises:
        ExpressionError: a placeholder holds something that is no expression.
    """
    parts: list[str | tuple[str, Expression]] = []
    end = 0
    while (match := _PLACEHOLDER.search(text, end)) is not None:
        if match.start() > end:
            parts.append(text[end : match.start()])
        begin, end = match.start(), match.end()
        if match["path"] is not None:
            expression = _path(match["path"])
        else:
            expression, end = read_in(text, end)
            rest = text[end:]
            end += len(rest) - len(rest.lstrip())
            if not text.startswith("}", end):
                found = (
                    f"{text[end : end + 20]!r} was not expected"
                    if rest.strip()
                    else ("} is missing at its end")
                )
                raise ExpressionError(f"{found}, at character {end + 1} of {text!r}")
            end += 1
        parts.append((text[begin:end], expression))
    if not any(not isinstance(one, str) for one in parts):
        return None
    if end < len(text):
        parts.append(text[end:])
    return Template(tuple(parts))


def filled(value: Any, known: Known) -> Any:
    """Returns a value with its placeholders filled; a key is left out if its value is missing.

    Raises:
        ExpressionError: an expression cannot be computed.
    """
    return changed(value, lambda one: one.value(known))


def changed(value: Any, change: Callable[[Template], Any]) -> Any:
    """Returns a value of JSON in which each template is replaced by what a function returns."""
    if isinstance(value, SecretReference):
        return value
    if isinstance(value, str):
        found = template(value) if "{" in value else None
        return value if found is None else change(found)
    if isinstance(value, Mapping):
        made = {key: changed(one, change) for key, one in value.items()}
        return {key: one for key, one in made.items() if one is not NOTHING}
    if isinstance(value, list | tuple):
        return [one for one in (changed(e, change) for e in value) if one is not NOTHING]
    return value


def paths_in(*values: Any) -> set[tuple[str, ...]]:
    """Returns the places that the templates in some values read: roots, and names below them.

    Raises:
        ExpressionError: a placeholder holds something that is no expression.
    """
    return {path for one in values for text in _texts(one) for path in _paths(text)}


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from _texts(one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _texts(one)


def _paths(text: str) -> Iterator[tuple[str, ...]]:
    found = template(text) if "{" in text else None
    for one in () if found is None else found.expressions:
        yield from one.paths


def _path(text: str) -> Expression:
    root, _, below = text.partition(".")
    path = (root, *below.split(".")) if below else (root,)

    def value(known: Known) -> Any:
        return lookup(known.get(root), below) if below else known.get(root)

    return Expression(text, frozenset([path]), value)
