"""Items of a source as JSON values, and back, so that a letter can be replayed.

Whatever a source gives can be kept: what JSON does not have becomes an object with one key, and of
what nobody can write down at least its text is kept.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Mapping
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

from contextframe_beam.connectors.secrets import redact, without_known

_FIELDS_SHOWN = 12
_FIELD_LIMIT = 40
_DEPTH_LIMIT = 150
_DECIMAL_BITS = 14_000

# Each of these types becomes an object with one key, `{"__bytes__": "aGk="}`.
_ENCODERS: dict[type, tuple[str, Any]] = {
    bytes: ("__bytes__", lambda value: base64.b64encode(value).decode("ascii")),
    datetime: ("__datetime__", datetime.isoformat),
    date: ("__date__", date.isoformat),
    time: ("__time__", time.isoformat),
    Decimal: ("__decimal__", str),
    UUID: ("__uuid__", str),
    float: ("__float__", str),
}
_DECODERS: dict[str, Any] = {
    "__bytes__": base64.b64decode,
    "__datetime__": datetime.fromisoformat,
    "__date__": date.fromisoformat,
    "__time__": time.fromisoformat,
    "__decimal__": Decimal,
    "__uuid__": UUID,
    "__float__": float,
    "__tuple__": lambda values: tuple(decode_item(value) for value in values),
    "__set__": lambda values: {_decode_key(value) for value in values},
    "__dict__": lambda pairs: {_decode_key(key): decode_item(value) for key, value in pairs},
    "__int__": lambda digits: int(digits, 16),
}
_MARKS = frozenset(_DECODERS) | {"__repr__"}


def field_names(item: Any) -> str:
    """Returns the names of an item's fields for a message; "" if it has no fields."""
    if not isinstance(item, Mapping) or not item:
        return ""
    names = [str(name) for name in item]
    more = len(names) - _FIELDS_SHOWN
    shown = [
        name if len(name) <= _FIELD_LIMIT else f"{name[:_FIELD_LIMIT]}..."
        for name in names[:_FIELDS_SHOWN]
    ]
    return redact(", ".join(shown) + (f" and {more} more" if more > 0 else ""))


def encode_item(item: Any, clean: Callable[[str], str] = without_known) -> Any:
    """Returns `item` as JSON values without secrets, so that `decode_item` gives it back.

    JSON values stay as they are. Bytes, dates, decimals, uuids, tuples, sets, NaN and objects with
    keys other than text become an object with one key (`{"__bytes__": "aGk="}`). Anything else, and
    values deeper than 150 levels, are kept as `{"__repr__": ...}`.

    Args:
        item: Any value.
        clean: A function for each text; by default it removes the secrets that this process used.
    """
    return _encode(item, 0, clean)


def decode_item(value: Any) -> Any:
    """Returns the original of `encode_item`, except for secrets and `{"__repr__": ...}`."""
    if isinstance(value, list):
        return [decode_item(element) for element in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        ((mark, content),) = value.items()
        if mark in _DECODERS:
            return _DECODERS[mark](content)
    return {key: decode_item(element) for key, element in value.items()}


def _decode_key(value: Any) -> Any:
    key = decode_item(value)
    # A value with only a repr stays a dict, which cannot be a key or a member of a set.
    return key["__repr__"] if isinstance(key, dict) else key


def _encode(value: Any, depth: int, clean: Callable[[str], str]) -> Any:
    kind = type(value)
    if value is None or kind is bool:
        return value
    if kind is int:
        # Python refuses to print integers of more than 4300 digits.
        return value if value.bit_length() < _DECIMAL_BITS else {"__int__": hex(value)}
    if kind is str:
        return clean(value)
    if kind is float and math.isfinite(value):
        return value
    if depth >= _DEPTH_LIMIT:
        return {"__repr__": clean(_safe_repr(value))}
    depth += 1
    if kind is list:
        return [_encode(element, depth, clean) for element in value]
    if kind is dict:
        plain = all(type(key) is str for key in value)
        if plain and not (len(value) == 1 and next(iter(value)) in _MARKS):
            return {clean(key): _encode(element, depth, clean) for key, element in value.items()}
        pairs = [
            [_encode(key, depth, clean), _encode(element, depth, clean)]
            for key, element in value.items()
        ]
        return {"__dict__": pairs}
    if kind is tuple:
        return {"__tuple__": [_encode(element, depth, clean) for element in value]}
    if kind is set:
        return {"__set__": [_encode(element, depth, clean) for element in value]}
    if kind in _ENCODERS:
        mark, encode = _ENCODERS[kind]
        return {mark: encode(value)}
    if isinstance(value, str):
        return clean(str.__str__(value))
    base: Any
    for base in (dict, list, tuple, int, float, bytes):
        if isinstance(value, base):
            return _encode(base(value), depth, clean)
    return {"__repr__": clean(_safe_repr(value))}


def _safe_repr(value: Any) -> str:
    try:
        return repr(value)
    except Exception as error:
        return f"<{type_name(value)} whose repr raises {type(error).__name__}>"


def type_name(value: object) -> str:
    """Returns the whole name of a value's type, without the module of what Python has built in."""
    kind = type(value)
    if kind.__module__ == "builtins":
        return kind.__qualname__
    return f"{kind.__module__}.{kind.__qualname__}"
