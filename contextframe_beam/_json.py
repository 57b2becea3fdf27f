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


def dump_json(value: Any, where: str) -> str:
    """Returns compact JSON for `value`.

    Dates, times and UUIDs become ISO text, decimals and paths text, tuples lists.

    Args:
        value: Any JSON value.
        where: How an error names the value, as in `metadata['author']`.

    Raises:
        RecordError: `value` holds something that JSON cannot express; the message says where.
    """
    try:
        text = orjson.dumps(value, default=_text_of)
    except (TypeError, orjson.JSONEncodeError):
        return _dump_slowly(value, where)
    if b"null" in text:
        _refuse_what_json_cannot_hold(value, where)
    return text.decode()


def load_json(text: str) -> Any:
    """Returns the value of JSON text, integers of any size included."""
    return json.loads(text)


def _text_of(value: Any) -> str:
    if isinstance(value, Decimal | PurePath):
        return str(value)
    raise TypeError(type(value).__name__)


def _dump_slowly(value: Any, where: str) -> str:
    try:
        _refuse_what_json_cannot_hold(value, where)
        text = json.dumps(
            value, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_slow_text_of
        )
        text.encode()
    except UnicodeEncodeError as error:
        raise RecordError(f"{where} holds text that is not Unicode: {error.reason}") from error
    except RecursionError as error:
        raise RecordError(f"{where} is nested too deeply for JSON") from error
    except (TypeError, ValueError) as error:
        raise RecordError(f"{where} cannot be stored as JSON: {error}") from error
    return text


def _slow_text_of(value: Any) -> Any:
    # Only whole values come here that orjson knows and json does not (dates, UUIDs, ...).
    return orjson.loads(orjson.dumps(value, default=_text_of))


def _refuse_what_json_cannot_hold(value: Any, where: str) -> None:
    if isinstance(value, dict):
        for key, inner in value.items():
            if not isinstance(key, str):
                raise RecordError(
                    f"{where} has the key {key!r} ({type(key).__name__}); JSON keys are text"
                )
            _refuse_what_json_cannot_hold(inner, f"{where}[{key!r}]")
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            _refuse_what_json_cannot_hold(inner, f"{where}[{index}]")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise RecordError(f"{where} is {value}; JSON has no such number, use None")
    elif not isinstance(value, str | int | None):
        try:
            orjson.dumps(value, default=_text_of)
        except (TypeError, orjson.JSONEncodeError) as error:
            raise RecordError(
                f"{where} is a {type(value).__name__}, which JSON cannot hold; "
                "convert it to text, numbers, lists or dicts in map_to_frame_record"
            ) from error
