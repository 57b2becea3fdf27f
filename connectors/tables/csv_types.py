"""Types of the columns of a CSV file: stated by a user, never guessed; and what could be stated.

Values of a CSV file are texts. Which of them are numbers nobody can tell from some rows: the id
007 is none, and a column of numbers may hold `n/a` in its last row. So a column has a type only if
it is stated, and then a value that is not of the type is an error.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from contextframe_beam.errors import ConfigError, nearest

#: The types by their names.
TYPES: Mapping[str, pa.DataType] = {
    "text": pa.string(),
    "int64": pa.int64(),
    "float64": pa.float64(),
    "bool": pa.bool_(),
    "date": pa.date32(),
    "timestamp": pa.timestamp("us", "UTC"),
}
_OFFSET = r"[T ].*(Z|[+-]\d\d(:?\d\d)?)$"
_DAY = r"^\d{4}-\d\d-\d\d$"
_LOOKS: tuple[tuple[str, str], ...] = (
    # What is written as numbers are: an id such as 007, or a telephone number, is not.
    ("int64", r"-?(0|[1-9]\d{0,17})"),
    ("float64", r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?"),
    ("bool", r"(?i:true|false)"),
    ("date", r"\d{4}-\d\d-\d\d"),
    ("timestamp", r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d{1,6})?)?(Z|[+-]\d\d:?\d\d)?"),
)


def stated_types(types: Sequence[str] | Mapping[str, str]) -> dict[str, str]:
    """Returns the names of types by columns.

    Args:
        types: Texts such as `price:float64`, or columns with their types.

    Raises:
        ConfigError: there is no such type, or a text is not of this form.
    """
    if isinstance(types, str):
        types = [one.strip() for one in types.split(",") if one.strip()]
    if not isinstance(types, Mapping):
        # An equals sign does as well, because env:int64 would name a secret.
        pairs = [one.rpartition(":" if ":" in one else "=") for one in types]
        wrong = next((one for one, (name, _, _) in zip(types, pairs, strict=True) if not name), "")
        if wrong:
            raise ConfigError(f"types has {wrong!r}; write a column and its type, as price:float64")
        types = {name: kind for name, _, kind in pairs}
    for name, kind in types.items():
        if kind not in TYPES:
            known = ", ".join(TYPES)
            raise ConfigError(
                f"types says that {name} is {kind!r}{nearest(str(kind), TYPES)} "
                f"(there are: {known})"
            )
    return dict(types)


def typed(column: pa.Array, kind: str) -> tuple[pa.Array, list[int]]:
    """Returns texts as values of a type, and the places of those that are none.

    Args:
        column: The texts.
        kind: A name in `TYPES`. A time without an offset is taken as UTC.
    """
    wanted = TYPES[kind]
    if kind == "timestamp":
        days = pc.fill_null(pc.match_substring_regex(column, _DAY), False)
        column = pc.if_else(
            days, pc.binary_join_element_wise(column, pa.scalar("T00:00:00"), ""), column
        )
        has_offset = pc.fill_null(pc.match_substring_regex(column, _OFFSET), True)
        column = pc.if_else(
            has_offset, column, pc.binary_join_element_wise(column, pa.scalar("Z"), "")
        )
    bad: list[int] = []
    found = _converted(column, wanted, 0, bad)
    return (found[0] if len(found) == 1 else pa.concat_arrays(found)), bad


def looks_like(column: pa.Array) -> str:
    """Returns the type that all texts of a column look like; "" if they look like text."""
    values = column.drop_null()
    if not len(values):
        return ""
    for kind, pattern in _LOOKS:
        if pc.all(pc.match_substring_regex(values, f"^(?:{pattern})$")).as_py():
            return kind
    return ""


def sounds_like_id(name: str) -> bool:
    """Returns whether a column has the name of ids, which stay texts whatever they look like."""
    pattern = r"(^|[_\W])(id|key|code|zip|phone|uuid|number|no)($|[_\W])"
    return re.search(pattern, name.lower()) is not None


def _converted(column: pa.Array, kind: pa.DataType, start: int, bad: list[int]) -> list[pa.Array]:
    try:
        return [column.cast(kind)]
    except pa.ArrowInvalid:
        if len(column) == 1:
            bad.append(start)
            return [pa.nulls(1, kind)]
    middle = len(column) // 2
    return [
        *_converted(column.slice(0, middle), kind, start, bad),
        *_converted(column.slice(middle), kind, start + middle, bad),
    ]
