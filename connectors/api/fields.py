"""Changes to the records of a resource: the fields that they get and lose, and their filters."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from contextframe_beam.connectors.api.config import Resource
from contextframe_beam.connectors.api.expression import Known, read
from contextframe_beam.connectors.api.template import NOTHING, filled

#: Tests a record, with the values of the other roots.
RecordTest = Callable[[Mapping[str, Any], Known], bool]


@dataclass(frozen=True, slots=True)
class Changes:
    """What is added to records, and what is removed from them.

    Attributes:
        added: The steps of the paths that are set, each with its value with placeholders.
        removed: The steps of the paths that are removed; `*` stands for any name or element.
    """

    added: Sequence[tuple[Sequence[str], Any]]
    removed: Sequence[Sequence[str]]

    def add(self, item: dict[str, Any], known: Known) -> None:
        """Adds the fields to a record, in their order; each can use those before it.

        A field whose value is null or missing becomes null.

        Args:
            item: The record.
            known: The values of the other roots.

        Raises:
            ExpressionError: a value cannot be computed.
        """
        told = {**known, "record": item}
        for steps, value in self.added:
            made = filled(value, told)
            _set(item, steps, None if made is NOTHING else made)

    def remove(self, item: dict[str, Any]) -> None:
        """Removes the fields from a record; those that it does not have are passed over."""
        for steps in self.removed:
            _remove(item, steps)


def changes_of(resource: Resource) -> Changes:
    """Returns the changes to the records of a resource."""
    return Changes(
        [(path.split("."), value) for path, value in resource.add_fields.items()],
        [path.split(".") for path in resource.remove_fields],
    )


def kept_by(condition: str) -> RecordTest:
    """Returns the test that an expression makes of a record."""
    expression = read(condition)
    return lambda item, known: bool(expression.value({**known, "record": item}))


def about_record(condition: Callable[[Any], bool]) -> RecordTest:
    """Returns the test that a condition on a field makes of a record."""
    return lambda item, known: condition(item)


def _set(item: dict[str, Any], steps: Sequence[str], value: Any) -> None:
    for step in steps[:-1]:
        inner = item.get(step)
        if not isinstance(inner, dict):
            inner = item[step] = {}
        item = inner
    item[steps[-1]] = value


def _remove(value: Any, steps: Sequence[str]) -> None:
    step, rest = steps[0], steps[1:]
    if isinstance(value, list):
        for one in _elements(value, step):
            _remove(one, rest) if rest else value.remove(one)
    elif isinstance(value, dict):
        for name in list(value) if step == "*" else [step]:
            if name in value:
                _remove(value[name], rest) if rest else value.pop(name)


def _elements(values: list[Any], step: str) -> list[Any]:
    if step == "*":
        return list(values)
    return values[int(step) : int(step) + 1] if step.isdecimal() else []
