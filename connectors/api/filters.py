"""Conditions that a configuration sets on the fields of a record or of an answer."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from contextframe_beam.connectors.api.config import Condition
from contextframe_beam.connectors.mapper import as_text, lookup

_NO = ("false", "0", "no")
_MISSING: Any = object()


def condition_of(settings: Condition) -> Callable[[Any], bool]:
    """Returns the function that tells whether a record meets a condition."""
    given = settings.model_fields_set
    pattern = re.compile(settings.matches) if settings.matches is not None else None
    none_of = settings.none_of or ()
    bare = given <= {"field"}

    def holds(item: Any) -> bool:
        value = lookup(item, settings.field or "", _MISSING)
        there = value is not _MISSING and value is not None
        if bare:
            return there and bool(value) and as_text(value).lower() not in _NO
        if settings.exists is not None and there is not settings.exists:
            return False
        value = value if there else None
        if "equals" in given and not _same(value, settings.equals):
            return False
        if "not_equals" in given and _same(value, settings.not_equals):
            return False
        if settings.one_of is not None and not any(_same(value, one) for one in settings.one_of):
            return False
        if any(_same(value, one) for one in none_of):
            return False
        return pattern is None or pattern.search(as_text(value)) is not None

    return holds


def _same(left: Any, right: Any) -> bool:
    # True is not 1 to whoever writes a filter.
    return isinstance(left, bool) is isinstance(right, bool) and bool(left == right)
