"""The text of a record that has none: its fields, a line each, as `name: value`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from contextframe_beam.connectors.mapper import as_text

if TYPE_CHECKING:
    import pyarrow as pa

    from contextframe_beam.connectors.item_columns import ItemColumns

__all__ = ["described", "described_columns"]


def described(item: Mapping[str, Any], fields: Sequence[str]) -> str:
    """Returns the fields of a record that have a value, a line each.

    Args:
        item: The record; names that begin with an underscore are left out.
        fields: The names that come first, in this order; others follow in that of the alphabet.
    """
    texts = ((name, as_text(item.get(name))) for name in _ordered(item, fields))
    return "\n".join(f"{name}: {text}" for name, text in texts if text)


def described_columns(items: ItemColumns, fields: Sequence[str]) -> pa.Array:
    """Returns the same for many records at once, as `described` does for one."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from contextframe_beam.connectors.item_columns import texts_of, without_empty
    from contextframe_beam.frames.columns import filled

    lines = [pa.array([""] * items.count, pa.string())]
    for name in _ordered(items.fields, fields):
        texts = without_empty(texts_of(items.fields[name], items.nowhere))
        lines.append(filled(pc.binary_join_element_wise(f"\n{name}: ", texts, ""), ""))
    # Each line begins with an end of line, and the first one needs none.
    return pc.utf8_slice_codeunits(pc.binary_join_element_wise(*lines, ""), 1)


def _ordered(names: Mapping[str, Any], fields: Sequence[str]) -> list[str]:
    first = [name for name in fields if name in names]
    rest = sorted(set(names).difference(fields))
    return [name for name in (*first, *rest) if name[:1] != "_"]
