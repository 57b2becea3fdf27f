"""Whether a JSON value that somebody else may have written has the types that it should have."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def loaded(text: str) -> Any:
    """Returns the value of JSON text.

    Raises:
        ValueError: it is no JSON, or too deep to be read.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def of_type(value: Any, kind: type, where: str) -> Any:
    """Returns a value, if it is of a type; a bool is no int.

    Raises:
        TypeError: it is of another; the message says where.
    """
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise TypeError(f"{where} is {_shown(value)}, not {_NAMES.get(kind, kind.__name__)}")
    return value


def mapping_of(value: Any, where: str) -> Mapping[str, Any]:
    """Returns a JSON object, empty for null.

    Raises:
        TypeError: it is something else.
    """
    found: Mapping[str, Any] = of_type({} if value is None else value, dict, where)
    return found


def _shown(value: Any) -> str:
    text = f"{value!r:.40}" if isinstance(value, str | int | float | None) else type(value).__name__
    return _NAMES.get(type(value), text) if isinstance(value, dict | list) else text


_NAMES = {dict: "an object", list: "a list", str: "text", int: "a whole number"}
