"""What the columns of rows hold of values that are columns: the counterpart of `FIT`, in Arrow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from contextframe_beam.frames.columns import Cells
from contextframe_beam.frames.encode import day_of_timestamp
from contextframe_beam.frames.schema import (
    COLLECTION_ID_TYPES,
    FIT,
    VERSION_FORM,
    fit_date,
    fit_text,
    fit_texts,
    fit_title,
    is_date,
)

__all__ = ["are_positions", "are_texts", "authors_of", "days_of", "fitted"]

_Fitted = tuple[pa.Array, pa.Array | None]


def fitted(fit: Callable[[Any], Any], texts: pa.Array) -> _Fitted:
    """Returns what a column can hold of texts, and what it cannot, if there is any.

    Args:
        fit: What says it of one value, as in `FIT`.
        texts: The texts, or null.
    """
    return _FITTED[fit](texts)


def authors_of(cells: Cells) -> pa.Array:
    """Returns the names of authors that are objects."""
    values = cells.values
    if isinstance(values, pa.StructArray):
        named = [field.name for field in values.type]
        if named.count("name") == 1 and pa.types.is_string(values.type.field("name").type):
            return values.flatten()[named.index("name")]
    return pa.array(map(FIT["author"], cells.to_list()), pa.string())


def are_texts(values: pa.Array) -> bool:
    """Returns whether values are lists of texts, without nulls inside."""
    kind = values.type
    return bool(
        pa.types.is_list(kind)
        and pa.types.is_string(kind.value_type)
        and not values.flatten().null_count
    )


def are_positions(values: pa.Array) -> bool:
    """Returns whether values are whole numbers that the column `position` holds, without nulls."""
    if not pa.types.is_integer(values.type) or values.null_count:
        return False
    ends = pc.min_max(values).as_py()
    return bool(ends["min"] >= 0 and ends["max"] < 2**31)


def days_of(timestamps: pa.Array) -> pa.Array:
    """Returns the dates of timestamps, as written there."""
    days = _days(timestamps)
    if days.null_count == timestamps.null_count:
        return days
    return pa.array(map(day_of_timestamp, timestamps.to_pylist()), pa.string())


def _days(texts: pa.Array) -> pa.Array:
    """Returns the dates that ISO texts begin with; null for other texts."""
    heads = pc.utf8_slice_codeunits(texts, 0, 10).dictionary_encode()
    days = [one if is_date(one) else None for one in heads.dictionary.to_pylist()]
    return pa.array(days, pa.string()).take(heads.indices)


def _fitted_date(values: pa.Array) -> _Fitted:
    days = _days(values)
    whole = pc.equal(values, days)
    return days, pc.if_else(pc.fill_null(whole, False), pa.scalar(None, pa.string()), values)


def _where(values: pa.Array, fits: pa.Array) -> _Fitted:
    """Returns the values that fit, and the others."""
    nothing = pa.scalar(None, pa.string())
    if pc.all(pc.or_(pc.fill_null(fits, False), values.is_null())).as_py():
        return values, None
    return pc.if_else(fits, values, nothing), pc.if_else(fits, nothing, values)


_FITTED: dict[Any, Callable[[pa.Array], _Fitted]] = {
    fit_text: lambda values: (values, None),
    FIT["author"]: lambda values: (values, None),
    fit_title: lambda values: _where(values, pc.not_equal(values, "")),
    fit_date: _fitted_date,
    fit_texts: lambda values: (pa.nulls(len(values), pa.list_(pa.string())), values),
    FIT["position"]: lambda values: (pa.nulls(len(values), pa.int32()), values),
    FIT["version"]: lambda values: _where(
        values, pc.match_substring_regex(values, rf"\A{VERSION_FORM}\z")
    ),
    FIT["collection_id_type"]: lambda values: _where(
        values, pc.is_in(values, value_set=pa.array(COLLECTION_ID_TYPES))
    ),
}
