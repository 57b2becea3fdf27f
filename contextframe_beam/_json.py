"""JSON values as the text that is stored, exact in both directions.

orjson does the work; it is not enough alone, because it writes NaN as null and refuses integers
beyond 64 bits. Reading goes through the standard library, which keeps such integers.
"""

from __future__ import annotations

import json
import math
from decimal import Decimal
from pathlib import PurePath
from typing import Any

import orjson

from contextframe_beam.errors import RecordError

# A dataclass would be written with its NaN as null.
_OPTIONS = orjson.OPT_PASSTHROUGH_DATACLASS
# What orjson writes at most; deeper values would also fail to be read from a deep stack.
_MAX_DEPTH = 250
# How much of the way to a value is shown.
_MAX_PLACE = 80


def dump_json(value: Any, where: str) -> str:
    """Returns compact JSON for `value`.

    Dates, times and UUIDs become ISO text, decimals and paths text, enumerations their values,
    tuples lists.

    Args:
        value: Any JSON value.
        where: How an error names the value, as in `metadata['author']`.

    Raises:
        RecordError: `value` holds something that JSON cannot express; the message says where.
    """
    try:
        text = orjson.dumps(value, default=_text_of, option=_OPTIONS)
    except TypeError:
        return _dump_slowly(value, where)
    if b"null" in text:
        check_json(value, where)
    return text.decode()


def load_json(text: str) -> Any:
    """Returns the value of JSON text, integers of any size included."""
    return json.loads(text)


def _text_of(value: Any) -> str:
    if isinstance(value, Decimal | PurePath):
        return str(value)
    raise TypeError(type(value).__name__)


def check_json(value: Any, where: str, depth: int = 0) -> None:
    """Finds what JSON cannot express.

    Raises:
        RecordError: the message says where in `value` it is, and what.
    """
    if isinstance(value, str):
        if not value.isascii():
            _check_unicode(value, where)
    elif isinstance(value, dict):
        _check_depth(depth, where)
        for key, inner in value.items():
            if not isinstance(key, str):
                raise RecordError(
                    f"{where} has the key {key!r} ({type(key).__name__}); JSON keys are text"
                )
            place = f"{where}[{key!r}]"
            if not key.isascii():
                _check_unicode(key, f"the key of {place}")
            check_json(inner, place, depth + 1)
    elif isinstance(value, list | tuple):
        _check_depth(depth, where)
        for index, inner in enumerate(value):
            check_json(inner, f"{where}[{index}]", depth + 1)
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise RecordError(f"{where} is {value}; JSON has no such number, use None")
    elif not isinstance(value, int | None):
        try:
            orjson.dumps(value, default=_text_of, option=_OPTIONS)
        except TypeError as error:
            raise RecordError(
                f"{where} is a {type(value).__name__}, which JSON cannot hold; "
                "convert it to text, numbers, lists or dicts"
            ) from error


def _check_depth(depth: int, where: str) -> None:
    if depth >= _MAX_DEPTH:
        place = where if len(where) <= _MAX_PLACE else f"{where[:_MAX_PLACE]}..."
        raise RecordError(
            f"{place} is nested more than {_MAX_DEPTH} levels deep, or holds itself; flatten it"
        )


def _check_unicode(text: str, where: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise RecordError(
            f"{where} holds a lone surrogate at character {error.start}, which is not Unicode "
            "text; decode the source with errors='replace' or remove it"
        ) from error


def _dump_slowly(value: Any, where: str) -> str:
    check_json(value, where)
    try:
        return json.dumps(
            value, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_slow_text_of
        )
    except (TypeError, ValueError) as error:
        raise RecordError(f"{where} cannot be stored as JSON: {error}") from error


def _slow_text_of(value: Any) -> Any:
    # Only whole values come here that orjson knows and json does not (dates, UUIDs, ...).
    return orjson.loads(orjson.dumps(value, default=_text_of, option=_OPTIONS))


def is_unicode(text: str) -> bool:
    """Tells whether a text can be stored: one with half of a surrogate pair cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def lone_surrogate(record: Any) -> RecordError:
    """Returns the error that says where a record holds a lone surrogate."""
    places: dict[str, Any] = {
        name: getattr(record, name)
        for name in ("text_content", "unique_id", "timestamp", "raw_data_type", "metadata")
    }
    try:
        for where, value in places.items():
            check_json(value, where)
    except RecordError as error:
        return error
    return RecordError("the record holds text that is not Unicode")
