"""Own fields: names of metadata that a dataset also holds as typed columns, to filter and index by.

`price` of the type float64 is the column `x_f_price`. Its values are made of the row's
`custom_metadata`, which keeps what was given, so a record is read as if there were no such column,
no digest depends on it, and it can be made and dropped at any time. A chunk has the values of its
document where its own metadata has none.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, TypeAlias
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from contextframe_beam.errors import ConfigError, RecordError, SchemaError, nearest
from contextframe_beam.frames.schema import FIELD_PREFIX, FORMAT_COLUMNS
from contextframe_beam.frames.times import day_of, parse, when
from contextframe_beam.frames.values import is_unicode, null_array

__all__ = [
    "FIELD_TYPES",
    "Fields",
    "OwnField",
    "WhoseFields",
    "fields_in",
    "fields_of",
    "guess_type",
    "parse_fields",
    "with_fields",
]

#: The types that an own field may have.
FIELD_TYPES: Mapping[str, pa.DataType] = {
    "text": pa.string(),
    "int64": pa.int64(),
    "float64": pa.float64(),
    "bool": pa.bool_(),
    "timestamp": pa.timestamp("us", tz="UTC"),
    "date": pa.date32(),
    "list": pa.list_(pa.string()),
}

#: What holds for each type, for messages.
_HOLDS = {
    "text": "text",
    "int64": "whole numbers",
    "float64": "numbers",
    "bool": "true or false",
    "timestamp": "times such as 2026-01-31T08:00:00Z",
    "date": "days such as 2026-01-31",
    "list": "lists of text",
}

#: How an own field may be given: `{"price": "float64"}`, or `price:float64` and `team` for text.
Fields: TypeAlias = Mapping[str, str | None] | Iterable[str] | str | None

# Names of the frame, in any case: SQL does not tell them apart.
_TAKEN = frozenset(name.lower() for name in FORMAT_COLUMNS)
# Lance takes a dot for a part of a column; SQL names end with the others.
_UNSAFE = re.compile(r'[%.`"\x00-\x1f\x7f]')
_LONGEST = 200


@dataclass(frozen=True)
class OwnField:
    """A name of metadata and the type of its column.

    Attributes:
        name: The name in metadata.
        kind: One of `FIELD_TYPES`.
    """

    name: str
    kind: str = "text"

    def __post_init__(self) -> None:
        _check_name(self.name)
        if self.kind not in FIELD_TYPES:
            raise ConfigError(
                f"the column {self.name} has the type {self.kind!r}; choose one of "
                f"{', '.join(FIELD_TYPES)}{nearest(self.kind, FIELD_TYPES)}"
            )

    @property
    def column(self) -> str:
        """The name of its column."""
        escaped = _UNSAFE.sub(lambda found: f"%{ord(found[0]):02X}", self.name)
        return f"{FIELD_PREFIX}{escaped}"

    @property
    def sql(self) -> str:
        """Its column in a filter."""
        return f"`{self.column}`"

    @property
    def arrow(self) -> pa.Field:
        """Its column in a schema."""
        return pa.field(self.column, FIELD_TYPES[self.kind])

    @property
    def holds(self) -> str:
        """What its type holds, for people."""
        return _HOLDS[self.kind]

    def __str__(self) -> str:
        return f"{self.name}:{self.kind}"


def _check_name(name: object) -> None:
    if not isinstance(name, str) or not name.strip():
        raise ConfigError(f"{name!r} is no name of a column; give one as in price:float64")
    if not is_unicode(name) or len(name) > _LONGEST:
        raise ConfigError(
            f"{name[:40]!a} is no name of a column: it needs Unicode text of at most {_LONGEST} "
            "characters"
        )
    if name.lower() in _TAKEN:
        raise ConfigError(
            f"{name} is a column of every frame, so it cannot become one of your own; filter by "
            "it as it is, or map the field to another name"
        )
    if name.lower() == "timestamp":
        raise ConfigError(
            "timestamp is the time of the record itself; filter by its day, which is in the "
            "column updated_at, or map the field to another name"
        )
    if name.lower().startswith("x_"):
        raise ConfigError(
            f"{name} cannot become a column: names that begin with x_ are the dataset's own; map "
            "the field to another name"
        )


def parse_fields(given: Fields) -> tuple[OwnField, ...]:
    """Reads own fields as users give them.

    Args:
        given: `{"price": "float64"}`, or a text or texts such as `price:float64` and `team`, which
            is text. A name with a colon needs its type too.

    Raises:
        ConfigError: a type is unknown, a name cannot be a column, or has two types.
    """
    if given is None:
        return ()
    if isinstance(given, Mapping):
        found = [OwnField(name, kind or "text") for name, kind in given.items()]
    else:
        texts = [given] if isinstance(given, str) else list(given)
        found = [_parsed(text) for text in texts]
    known: dict[str, OwnField] = {}
    for one in found:
        other = known.setdefault(one.name, one)
        if other.kind != one.kind:
            raise ConfigError(f"the column {one.name} is given as {other.kind} and as {one.kind}")
    return tuple(known.values())


def _parsed(text: object) -> OwnField:
    if not isinstance(text, str):
        raise ConfigError(f"{text!r:.60} is no column; give one as in price:float64")
    name, colon, kind = text.rpartition(":")
    return OwnField(name.strip(), kind.strip()) if colon else OwnField(text.strip())


def fields_of(schema: pa.Schema) -> tuple[OwnField, ...]:
    """Returns the own fields of a dataset, in the order of its columns.

    Raises:
        SchemaError: one has a type that own fields do not have.
    """
    found = []
    for column in schema:
        if column.name.startswith(FIELD_PREFIX):
            name = unquote(column.name[len(FIELD_PREFIX) :])
            kinds = [kind for kind, one in FIELD_TYPES.items() if _is_same(column.type, one)]
            if not kinds:
                raise SchemaError(
                    f"column {column.name} is {column.type}, which no field of metadata can be; "
                    f"there are {', '.join(FIELD_TYPES)}. It was written by a newer release or "
                    "changed by hand"
                )
            found.append(OwnField(name, kinds[0]))
    return tuple(found)


def fields_in(fields: Iterable[OwnField]) -> pa.Schema:
    """Returns the columns of own fields."""
    return pa.schema([one.arrow for one in fields])


def _is_same(have: pa.DataType, want: pa.DataType) -> bool:
    if pa.types.is_list(want):
        return bool(pa.types.is_list(have)) and have.value_type == want.value_type
    return bool(have == want)


#: Gets the keys of documents, 16 bytes each, and returns the values that they have in a field, by
#: its name: at most one for each key, null for those that are unknown.
WhoseFields: TypeAlias = Callable[[pa.Array, OwnField], pa.Array]


def with_fields(
    rows: pa.RecordBatch, fields: Sequence[OwnField], whose: WhoseFields | None = None
) -> tuple[pa.RecordBatch, dict[int, RecordError]]:
    """Adds the columns of own fields to rows.

    Args:
        rows: At least `custom_metadata`, and `x_encoding`, `x_parent` and `uuid` where they have
            these.
        fields: The own fields.
        whose: Finds the values of documents that are not among the rows; by default these have
            none.

    Returns:
        The rows with the columns behind the others, and by the number of a row why a value of it
        does not fit; there the column is null.
    """
    if not fields:
        return rows, {}
    entries = _Entries(rows)
    documents = _documents_of(rows)
    columns, schema = list(rows.columns), rows.schema
    errors: dict[int, RecordError] = {}
    for one in fields:
        places, texts = entries.of(one.name)
        is_json = entries.is_json(one.name, places)
        values, misfits = _typed(texts, is_json, one.kind)
        for index in np.flatnonzero(misfits).tolist():
            text = texts[index].as_py()
            shown = text if is_json[index] else repr(text)
            errors.setdefault(int(places[index]), _misfit(one, shown))
        column = _spread(values, places, rows.num_rows)
        if documents is not None:
            column = _inherited(column, documents, rows, one, whose)
        columns.append(column)
        schema = schema.append(one.arrow)
    return pa.RecordBatch.from_arrays(columns, schema=schema), errors


def _misfit(field: OwnField, shown: str) -> RecordError:
    return RecordError(
        f"metadata[{field.name!r}] is {shown:.80}, and the column {field.name} holds "
        f"{field.holds}; correct it at the source or in the mapping, or drop the column"
    )


def _spread(values: pa.Array, places: _Places, count: int) -> pa.Array:
    """Returns so many values, with some at their places and nulls between."""
    if len(values) == values.null_count:
        return null_array(values.type, count)
    if len(values) == count:
        return values
    from_place = np.full(count, -1, np.int64)
    from_place[places] = np.arange(len(places))
    return values.take(pa.array(from_place, mask=from_place < 0))


_Places: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]
_Mask: TypeAlias = np.ndarray[Any, np.dtype[np.bool_]]


class _Entries:
    """The entries of `custom_metadata` of some rows, by name."""

    def __init__(self, rows: pa.RecordBatch) -> None:
        column = rows.column("custom_metadata")
        flat = column.flatten()
        self._keys, self._values = pc.struct_field(flat, "key"), pc.struct_field(flat, "value")
        self._rows = pc.list_parent_indices(column).to_numpy(zero_copy_only=False).astype(np.int64)
        self._notes: list[frozenset[str]] = []
        self._note_of: _Places | None = None
        if "x_encoding" in rows.schema.names:
            notes = rows.column("x_encoding").dictionary_encode(null_encoding="encode")
            self._notes = [frozenset(_json_names(one)) for one in notes.dictionary.to_pylist()]
            self._note_of = notes.indices.to_numpy(zero_copy_only=False).astype(np.int64)

    def of(self, name: str) -> tuple[_Places, pa.Array]:
        """Returns the rows that have an entry of a name, and its texts."""
        chosen = pc.and_(pc.equal(self._keys, name), self._values.is_valid()).fill_null(False)
        places = self._rows[chosen.to_numpy(zero_copy_only=False)]
        texts = self._values.filter(chosen)
        if len(places) > 1 and not (np.diff(places) > 0).all():
            # Others may have written a name twice; a reader gets the last.
            last = np.append(np.diff(places) > 0, True)
            places, texts = places[last], texts.filter(pa.array(last))
        return places, texts

    def is_json(self, name: str, places: _Places) -> _Mask:
        """Marks the rows whose entry is JSON; other entries are text as it is."""
        named = np.array([name in one for one in self._notes], np.bool_)
        if self._note_of is None or not named.any():
            return np.zeros(len(places), np.bool_)
        found: _Mask = named[self._note_of[places]]
        return found


def _json_names(note: str | None) -> Sequence[str]:
    try:
        found = json.loads(note or "{}").get("json", ())
    except (ValueError, AttributeError):
        return ()
    return found if isinstance(found, list) else ()


# How the usual texts of a type look, which Arrow converts in one go.
_USUAL = {
    "int64": r"^-?\d{1,18}$",
    "float64": r"^-?\d+(\.\d+)?([eE][+-]?\d{1,2})?$",
    "date": r"^\d{4}-\d\d-\d\d$",
    "timestamp": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?(Z|[+-]\d\d:\d\d)$",
}


def _typed(texts: pa.Array, is_json: _Mask, kind: str) -> tuple[pa.Array, _Mask]:
    """Returns texts as values of a type, null where they do not fit, and marks these."""
    nothing = np.zeros(len(texts), np.bool_)
    if kind == "text":
        if not is_json.any():
            return texts, nothing
        return pc.if_else(pa.array(is_json), None, texts), is_json
    arrow = FIELD_TYPES[kind]
    if kind in _USUAL:
        usual = pc.match_substring_regex(texts, _USUAL[kind])
        try:
            values = pc.if_else(usual, texts, None).cast(arrow)
        except pa.ArrowInvalid:  # a day that no month has
            usual, values = pa.array(nothing), pa.nulls(len(texts), arrow)
        others = np.flatnonzero(~usual.to_numpy(zero_copy_only=False))
        if not len(others):
            return values, nothing
    else:
        values, others = pa.nulls(len(texts), arrow), np.arange(len(texts))
    read = _READ[kind]
    known: dict[tuple[str, bool], Any] = {}
    found = []
    for one in zip(texts.take(pa.array(others)).to_pylist(), is_json[others].tolist(), strict=True):
        if one not in known:
            known[one] = read(*one)
        found.append(known[one])
    misfits = nothing
    misfits[others] = [one is None for one in found]
    made = pa.array(found, arrow)
    if len(others) == len(texts):
        return made, misfits
    places = np.arange(len(texts))
    places[others] = len(texts) + np.arange(len(others))
    return pa.concat_arrays([values, made]).take(pa.array(places)), misfits


_INTEGER = re.compile(r"[+-]?\d+(?:\.0*)?", re.ASCII)
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
_BOOLS = {"true": True, "1": True, "false": False, "0": False}


def _read_int(text: str, is_json: bool) -> int | None:
    if _INTEGER.fullmatch(text):
        value = int(text.partition(".")[0])
    else:
        number = _read_float(text, is_json)
        if number is None or not number.is_integer():
            return None
        value = int(number)
    return value if -(2**63) <= value < 2**63 else None


def _read_float(text: str, is_json: bool) -> float | None:
    if _NUMBER.fullmatch(text) is None:
        return None
    number = float(text)
    return number if abs(number) != float("inf") else None


def _read_bool(text: str, is_json: bool) -> bool | None:
    return _BOOLS.get(text.lower())


def _read_time(text: str, is_json: bool) -> datetime | None:
    return when(_plain(text, is_json))


def _read_day(text: str, is_json: bool) -> date | None:
    time = parse(_plain(text, is_json))
    return None if time is None else date.fromisoformat(day_of(time))


def _read_list(text: str, is_json: bool) -> list[str] | None:
    value = _plain(text, is_json)
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        return None
    return value


def _plain(text: str, is_json: bool) -> Any:
    return json.loads(text) if is_json else text


_READ: Mapping[str, Callable[[str, bool], Any]] = {
    "int64": _read_int,
    "float64": _read_float,
    "bool": _read_bool,
    "timestamp": _read_time,
    "date": _read_day,
    "list": _read_list,
}


@dataclass(frozen=True)
class _Documents:
    """The documents of the chunks among some rows.

    Attributes:
        chunks: The places of the chunks.
        keys: The keys of their documents.
        places: The places of their documents; -1 where these are not among the rows.
    """

    chunks: _Places
    keys: pa.Array
    places: _Places


def _documents_of(rows: pa.RecordBatch) -> _Documents | None:
    """Finds the documents of chunks, which stand before them; None without chunks."""
    if "x_parent" not in rows.schema.names:
        return None
    parents = rows.column("x_parent")
    if parents.null_count == len(parents):
        return None
    chunks = np.flatnonzero(parents.is_valid().to_numpy(zero_copy_only=False))
    keys = parents.take(pa.array(chunks))
    last: dict[bytes, int] = {}
    places = []
    for place, (key, parent) in enumerate(
        zip(rows.column("uuid").to_pylist(), parents.to_pylist(), strict=True)
    ):
        if parent is None:
            last[_bytes_of(key)] = place
        else:
            places.append(last.get(parent, -1))
    return _Documents(chunks, keys, np.array(places, np.int64))


def _bytes_of(key: str | None) -> bytes:
    try:
        return bytes.fromhex((key or "").replace("-", ""))
    except ValueError:  # others wrote it
        return b""


def _inherited(
    column: pa.Array,
    documents: _Documents,
    rows: pa.RecordBatch,
    field: OwnField,
    whose: WhoseFields | None,
) -> pa.Array:
    """Gives chunks without a value of their own that of their document."""
    places = np.arange(rows.num_rows)
    lacking = column.is_null().to_numpy(zero_copy_only=False)[documents.chunks]
    here = lacking & (documents.places >= 0)
    places[documents.chunks[here]] = documents.places[here]
    elsewhere = lacking & (documents.places < 0)
    if whose is None or not elsewhere.any():
        return column.take(pa.array(places))
    values = whose(documents.keys.filter(pa.array(elsewhere)), field)
    places[documents.chunks[elsewhere]] = rows.num_rows + np.arange(len(values))
    return pa.concat_arrays([column, values]).take(pa.array(places))


def guess_type(rows: pa.RecordBatch, name: str) -> str | None:
    """Returns the type that fits all values which rows have in a field; None if there are none."""
    entries = _Entries(rows)
    places, texts = entries.of(name)
    if not len(places):
        return None
    is_json = entries.is_json(name, places)
    kinds = ("int64", "float64", "bool", "list") if is_json.all() else ("date", "timestamp")
    for kind in kinds:
        # Times fit a day too, and numbers a bool, but not without a loss.
        loses = kind in _EXACT and not pc.all(pc.match_substring_regex(texts, _EXACT[kind])).as_py()
        if not loses and not _typed(texts, is_json, kind)[1].any():
            return kind
    return "text"


_EXACT = {"bool": "^(true|false)$", "date": _USUAL["date"]}
