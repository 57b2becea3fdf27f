"""Encodes records that are columns as rows; the rows are those of `encode_records`, bit by bit.

The layout is described in `encode.py`, and what is not done in Arrow is done by its code. Two
things are made row by row, because Arrow cannot: uuids, and digests of the rows as JSON, whose text
Arrow puts together. A batch with a record that cannot be stored is not encoded here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from contextframe_beam.errors import RecordError
from contextframe_beam.frames.columns import (
    MISSING,
    Cells,
    FrameColumns,
    Links,
    Mask,
    NotByColumns,
    Rows,
    filled,
)
from contextframe_beam.frames.encode_links import relationships_of
from contextframe_beam.frames.encode_notes import ColumnNotes
from contextframe_beam.frames.encode_units import (
    as_units,
    digest_ends,
    embedded,
    parent_keys,
    parent_links,
    rows_at,
)
from contextframe_beam.frames.fields import OwnField, with_fields
from contextframe_beam.frames.fit_columns import (
    are_positions,
    are_texts,
    authors_of,
    days_of,
    fitted,
)
from contextframe_beam.frames.json_columns import (
    Fragment,
    digests_of,
    json_lists,
    objects_as_json,
    uuids_of,
    values_as_json,
)
from contextframe_beam.frames.layout import MetadataLayout
from contextframe_beam.frames.record import ANCHOR_KEY, RESERVED, FrameRecord, title_of
from contextframe_beam.frames.schema import (
    FIT,
    KEY_VALUE,
    RECORD_TYPES,
    fit_texts,
    frame_schema_of,
)
from contextframe_beam.frames.values import null_array

__all__ = ["Contents", "contents_of", "encode_columns"]

_UUIDS = r"\A[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\z"
# How often rows are left out and the others tried again.
_MOST_ROUNDS = 8


def encode_columns(
    columns: FrameColumns,
    *,
    embed_dim: int,
    source: str | None,
    fields: Sequence[OwnField] = (),
) -> tuple[pa.RecordBatch, Mask]:
    """Encodes records as one batch of rows in the order of `frame_schema`, then of own fields.

    Args:
        columns: The records.
        embed_dim: The vector length of the dataset.
        source: The value of the column `x_source`.
        fields: The own fields of the dataset.

    Returns:
        The rows, and which documents are not among them: these have to be encoded as single
        records, which may refuse them.

    Raises:
        NotByColumns: all of them have to be.
    """

    def encoded(given: FrameColumns) -> tuple[pa.RecordBatch, Mask]:
        rows = _Encoder(given).batch(embed_dim, source)
        chunks = given.chunks
        if chunks is not None and chunks.columns.count:
            try:
                others = _Encoder(chunks.columns).batch(embed_dim, source)
            except NotByColumns as reason:
                raise NotByColumns(_documents_of(chunks.owners, reason.rows, given.count)) from None
            rows = as_units(rows, others, chunks.owners, given.order)
        rows, misfits = with_fields(rows, fields)
        refused = np.zeros(given.count, np.bool_)
        if misfits:
            refused[given.owners[list(misfits)]] = True
            rows = rows_at([rows], np.flatnonzero(~refused[given.owners]))
        return rows, refused

    return _without_odd(columns, encoded)


@dataclass(frozen=True)
class Contents:
    """What records are, before anything is made of their texts.

    Attributes:
        keys: Their uuids.
        titles: Their titles.
        digests: The digests of their rows.
    """

    keys: pa.Array
    titles: pa.Array
    digests: pa.Array


def contents_of(records: FrameColumns) -> tuple[Contents, Mask]:
    """Returns the keys, titles and digests of records as they are.

    Returns:
        Those of the records, and which records are not among them: these have to be looked at as
        single ones.

    Raises:
        NotByColumns: all of them have to be.
    """

    def contents(given: FrameColumns) -> tuple[Contents, Mask]:
        columns = _Encoder(given).columns
        # A title that is there only because a row needs one is none of the record.
        made = pc.and_(given.unique_ids.is_null(), pc.equal(columns["title"], columns["uri"]))
        titles = pc.if_else(made, "", columns["title"])
        found = Contents(columns["uuid"], titles, columns["x_digest"])
        return found, np.zeros(given.count, np.bool_)

    return _without_odd(records, contents)


_Made = TypeVar("_Made")


def _without_odd(
    columns: FrameColumns, make: Callable[[FrameColumns], tuple[_Made, Mask]]
) -> tuple[_Made, Mask]:
    """Makes something of records, and leaves out those that are no way for all to go.

    Args:
        columns: The records.
        make: Makes it of them; it may leave out some more.
    """
    total = columns.count
    kept = np.arange(total)
    for _ in range(_MOST_ROUNDS):
        try:
            made, refused = make(columns)
        except NotByColumns as reason:
            if reason.rows is None or reason.rows.all():
                raise
            places = np.flatnonzero(~reason.rows)
            kept, columns = kept[places], columns.take(places)
        except (RecordError, UnicodeError, orjson.JSONEncodeError, pa.ArrowInvalid):
            break
        else:
            return made, ~np.isin(np.arange(total), kept[~refused])
    raise NotByColumns


def _documents_of(owners: Rows, chunks: Mask | None, count: int) -> Mask | None:
    """Returns the documents of some chunks."""
    if chunks is None:
        return None
    found = np.zeros(count, np.bool_)
    found[owners[chunks]] = True
    return found


class _Encoder:
    """Turns columns into those of rows.

    Attributes:
        columns: Each column of the rows that has values.
    """

    def __init__(self, records: FrameColumns) -> None:
        self.columns: dict[str, pa.Array] = {}
        self._records = records
        self._count = records.count
        self._metadata = records.metadata
        # The text in `custom_metadata`, by name; null in rows without it.
        self._entries: dict[str, pa.Array] = {}
        # What the digest sees of each name, as JSON; null in rows without the name.
        self._hashed: dict[str, Fragment] = {}
        # The rows that do not have a name.
        self._missing = {
            name: cells.missing
            for name, cells in self._metadata.items()
            if cells.missing is not None
        }
        self._notes = ColumnNotes(self._count)
        self._require_plain()
        for name in sorted(self._metadata):
            self._lay_out(name, self._metadata[name])
        if records.links is not None and "relationships" not in self._metadata:
            self._relationships(records.links)
        if records.parents is not None:
            self.columns["x_parent"] = parent_keys(records.parents)
            self.columns["relationships"], seen = parent_links(records.parents)
            self._hashed["relationships"] = seen
        self._timestamps()
        self._titles()
        self._identify()

    def batch(self, embed_dim: int, source: str | None) -> pa.RecordBatch:
        """Returns the rows in the order of `frame_schema`."""
        schema = frame_schema_of(embed_dim)
        self.columns["custom_metadata"] = _custom_metadata(self._entries, self._count)
        if source is not None:
            self.columns["x_source"] = pa.repeat(pa.scalar(source, pa.string()), self._count)
        vectors = self.columns.get("vector")
        if vectors is not None and vectors.type != schema.field("vector").type:
            raise NotByColumns
        arrays = [
            self.columns[field.name]
            if field.name in self.columns
            else null_array(field.type, self._count)
            for field in schema
        ]
        return pa.RecordBatch.from_arrays(arrays, schema=schema)

    def _require_plain(self) -> None:
        """Leaves everything that may be refused to the encoder of records."""
        ids, names = self._records.unique_ids, self._metadata
        is_known = (
            self._count
            and self._records.record_type in RECORD_TYPES
            and all(isinstance(name, str) for name in names)
        )
        if not is_known:
            raise NotByColumns
        odd = pc.or_(pc.equal(ids, ""), pc.starts_with(ids, RESERVED)).fill_null(False)
        if pc.any(odd).as_py():
            raise NotByColumns(np.asarray(odd, np.bool_))
        try:
            "".join(names).encode()
        except UnicodeEncodeError:
            raise NotByColumns from None

    def _lay_out(self, name: str, cells: Cells) -> None:
        """Lays out one name of the metadata."""
        values, fit = cells.values, FIT.get(name)
        if name == "timestamp":
            self._own_timestamps(cells)
        if name == "relationships":
            self._own_relationships(cells)
            return
        if cells.missing is not None and cells.missing.all():
            return  # no row has it, so no digest has its name
        if name == "uuid":
            self._own_keys(cells)
            return
        if isinstance(values, pa.Array):
            kind = values.type
            if pa.types.is_null(kind):
                values, kind = values.cast(pa.string()), pa.string()
            if pa.types.is_string(kind):
                self._text(name, values, cells.missing, fit)
                return
            if fit is None and (made := values_as_json(values)) is not None:
                self._json(name, made, cells)
                return
            if fit is fit_texts and are_texts(values):
                self._texts(name, values, cells)
                return
            if fit is FIT["position"] and cells.missing is None and are_positions(values):
                self.columns[name] = values.cast(pa.int32())
                self._hashed[name] = Fragment(values.cast(pa.string()))
                return
        if fit in (None, FIT["author"]) and (made := _objects_as_json(name, cells)) is not None:
            self._json(name, made, cells)
            if fit is not None:
                self.columns[name] = authors_of(cells)
            return
        self._any(name, cells)

    def _text(self, name: str, values: pa.Array, missing: Mask | None, fit: Any) -> None:
        """Lays out text; null has the note `null`, and counts as empty text."""
        self._nulls(name, values, missing)
        self._hashed[name] = Fragment.of_text(filled(values, ""), missing)
        if fit is None:
            self._entries[name] = values
            return
        column, rest = fitted(fit, values)
        self.columns[name] = column
        if rest is not None:
            self._entries[name] = rest

    def _own_timestamps(self, cells: Cells) -> None:
        """Keeps the time of a record apart from metadata of that name."""
        there = np.ones(self._count, np.bool_) if cells.missing is None else ~cells.missing
        self._notes.put_times(self._times(), there)

    def _times(self) -> list[str | None]:
        times = self._records.timestamps
        return [None] * self._count if times is None else list(times.to_pylist())

    def _identities(self) -> list[FrameRecord]:
        """Returns the ids and times of rows as records."""
        ids = self._records.unique_ids.to_pylist()
        return [
            FrameRecord(None, {}, unique_id=one, timestamp=time)
            for one, time in zip(ids, self._times(), strict=True)
        ]

    def _own_keys(self, cells: Cells) -> None:
        """Takes the keys of rows from their metadata, as far as they have any."""
        keys: Any = cells.values
        ids = self._records.unique_ids
        is_known = cells.is_text and not keys.null_count
        if is_known and pc.all(pc.match_substring_regex(keys, _UUIDS)).as_py():
            self.columns["uuid"] = keys
            self._hashed["uuid"] = Fragment.of_text(keys)
        else:
            self._any("uuid", cells)
            keys = self.columns["uuid"]
        odd = pc.equal(keys, ANCHOR_KEY).fill_null(False)
        if pc.any(odd).as_py():
            raise NotByColumns(np.asarray(odd, np.bool_))
        # Otherwise a reader would think that it was made from the unique_id.
        both = np.flatnonzero(pc.and_(keys.is_valid(), ids.is_valid()))
        places = pa.array(both)
        same = np.asarray(pc.equal(keys.take(places), uuids_of(ids.take(places))), np.bool_)
        self._notes.add("given", "uuid", both[same].tolist())

    def _nulls(self, name: str, values: pa.Array, missing: Mask | None) -> None:
        if values.null_count:
            nulls = np.asarray(values.is_null(), np.bool_)
            self._notes.put("null", name, nulls if missing is None else nulls & ~missing)

    def _json(self, name: str, texts: pa.Array, cells: Cells) -> None:
        """Lays out values that are kept as JSON."""
        self._nulls(name, texts, cells.missing)
        there = np.asarray(texts.is_valid(), np.bool_) if texts.null_count else None
        self._notes.put("json", name, there)
        self._hashed[name] = Fragment.of_text(filled(texts, ""), cells.missing)
        self._entries[name] = texts

    def _texts(self, name: str, values: pa.Array, cells: Cells) -> None:
        """Lays out lists of texts."""
        self._nulls(name, values, cells.missing)
        self.columns[name] = values
        self._hashed[name] = Fragment(json_lists(values), cells.missing)

    def _any(self, name: str, cells: Cells) -> None:
        """Lays out values of any kinds, by the code that lays out those of records."""
        records = self._identities() if name in ("relationships", "timestamp") else ()
        layout = MetadataLayout.of_name(
            name, cells.to_list(MISSING), self._notes, self._count, records
        )
        if layout.errors:
            raise NotByColumns(np.isin(np.arange(self._count), list(layout.errors)))
        if name in layout.columns:
            self.columns[name] = _array(layout.columns[name], _type_of(name))
        if name in layout.entries:
            self._entries[name] = _array(layout.entries[name], pa.string())
        (hashed,) = layout.hashed
        texts = [None if one is None else orjson.dumps(one).decode() for one in hashed]
        self._hashed[name] = Fragment(pa.array(texts, pa.string()), cells.missing)

    def _own_relationships(self, cells: Cells) -> None:
        """Lays out relationships of the source's own, with those made of fields in other rows."""
        links = self._records.links
        if links is not None:
            made = links.by_row()
            cells = Cells.of([made.get(row, own) for row, own in enumerate(cells.to_list(MISSING))])
            self._missing.pop("relationships", None)
            if cells.missing is not None:
                self._missing["relationships"] = cells.missing
        if cells.missing is None or not cells.missing.all():
            self._any("relationships", cells)

    def _relationships(self, links: Links) -> None:
        laid_out = relationships_of(links, self._records.unique_ids)
        without = laid_out.without
        self.columns["relationships"] = laid_out.column
        self._hashed["relationships"] = laid_out.seen
        if without.any():
            self._missing["relationships"] = without
        self._notes.put("targets", None, ~without)

    def _timestamps(self) -> None:
        timestamps = self._records.timestamps
        if timestamps is None or timestamps.null_count == self._count:
            return
        own_times = self._entries.get("timestamp")
        if own_times is not None:
            missing = self._missing.get("timestamp", np.zeros(self._count, np.bool_))
            timestamps = pc.if_else(pa.array(missing), timestamps, own_times)
        self._entries["timestamp"] = timestamps
        days = self.columns.get("updated_at")
        if days is not None and not days.null_count:
            return
        days = pa.nulls(self._count, pa.string()) if days is None else days
        made = days_of(self._records.timestamps)
        own = self._metadata.get("updated_at")
        filled_in = np.asarray(pc.and_(days.is_null(), made.is_valid()), np.bool_)
        self.columns["updated_at"] = pc.coalesce(days, made)
        if own is None:
            self._notes.put("made", "updated_at", filled_in)
        elif own.missing is not None:
            self._notes.put("made", "updated_at", filled_in & own.missing)

    def _titles(self) -> None:
        titles = self.columns.get("title", pa.nulls(self._count, pa.string()))
        if not titles.null_count:
            return
        rows = np.asarray(titles.is_null(), np.bool_)
        places = pa.array(np.flatnonzero(rows))
        texts, ids = self._records.texts.take(places), self._records.unique_ids.take(places)
        made = pa.array(map(title_of, texts.to_pylist(), ids.to_pylist()), pa.string())
        self.columns["title"] = pc.replace_with_mask(titles, pa.array(rows), made)
        own = self._metadata.get("title")
        if own is None:
            self._notes.put("made", "title", rows)
        elif own.missing is not None:
            self._notes.put("made", "title", rows & own.missing)

    def _require_contents(self, rows: Mask) -> None:
        """Leaves rows without an id that hold nothing else by which they could be told apart."""
        without = pc.equal(self._records.texts, "").fill_null(True)
        if "uuid" in self.columns:
            without = pc.and_(without, self.columns["uuid"].is_null())
        nothing = rows & np.asarray(without, np.bool_)
        if nothing.any():
            raise NotByColumns(nothing)

    def _identify(self) -> None:
        """Gives each row its digest, id and key."""
        records, columns = self._records, self.columns
        ids = records.unique_ids
        unnamed = np.asarray(ids.is_null(), np.bool_)
        if unnamed.any():
            self._require_contents(unnamed)
        self._notes.put("made", "uri", unnamed)
        columns["text_content"] = records.texts
        columns["record_type"] = pa.repeat(pa.scalar(records.record_type), self._count)
        heads, notes = self._notes.heads(sorted(self._hashed), self._missing, records.record_type)
        if notes is not None:
            columns["x_encoding"] = notes
        timestamps = records.timestamps
        if timestamps is None:
            timestamps = pa.nulls(self._count, pa.string())
        fragments = [
            heads,
            Fragment.of_nullable(timestamps),
            Fragment.of_nullable(ids),
            Fragment.of_nullable(records.texts),
            *(self._hashed[name] for name in sorted(self._hashed)),
        ]
        columns.update(embedded(records))
        if records.origins is not None:
            columns["x_origin"] = records.origins
        ends = digest_ends(records)
        columns["x_digest"] = digests = digests_of(fragments, ends)
        if unnamed.any():
            # What was made of a record, such as its vector, does not make it another one.
            contents = digests if ends is None else digests_of(fragments)
            which, titles = pa.array(unnamed), columns["title"]
            names = [f"content:{one.hex()}" for one in contents.filter(which).to_pylist()]
            ids = pc.replace_with_mask(ids, which, pa.array(names, pa.string()))
            untitled = pc.and_(pc.equal(titles, ""), which)
            columns["title"] = pc.if_else(untitled, ids, titles)
        columns["uri"] = ids
        own = columns.get("uuid")
        if own is None or own.null_count:
            made = uuids_of(ids)
            columns["uuid"] = made if own is None else pc.coalesce(own, made)


def _objects_as_json(name: str, cells: Cells) -> pa.Array | None:
    try:
        return objects_as_json(name, cells)
    except RecordError:
        return None  # it is told of which row


def _custom_metadata(entries: dict[str, pa.Array], count: int) -> pa.Array:
    """Returns the column `custom_metadata`; nulls are left out."""
    names = sorted(entries)
    if not names:
        return pa.ListArray.from_arrays(
            pa.array([0] * (count + 1), pa.int32()), pa.array([], KEY_VALUE)
        )
    width = len(names)
    # From one name after the other to one row after the other.
    order = np.arange(width * count, dtype=np.int64).reshape(width, count).T.reshape(-1)
    columns = [entries[name] for name in names]
    widths = np.full(count, width, np.int64)
    keys = np.tile(np.arange(width, dtype=np.int32), count)
    if any(column.null_count for column in columns):
        there = np.stack([np.asarray(column.is_valid(), np.bool_) for column in columns], axis=1)
        widths = there.sum(axis=1)
        order, keys = order[there.reshape(-1)], keys[there.reshape(-1)]
    values = pa.concat_arrays(columns).take(pa.array(order))
    ends = np.concatenate([[0], np.cumsum(widths)]).astype(np.int32)
    pairs = [pa.array(names, pa.string()).take(pa.array(keys)), values]
    return pa.ListArray.from_arrays(
        pa.array(ends), pa.StructArray.from_arrays(pairs, fields=list(KEY_VALUE))
    )


def _array(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """Returns values as a column.

    Raises:
        NotByColumns: some hold text that is not Unicode.
    """
    try:
        return pa.array(values, kind)
    except UnicodeEncodeError:
        raise NotByColumns(np.array([not _fits(one, kind) for one in values], np.bool_)) from None


def _fits(value: Any, kind: pa.DataType) -> bool:
    try:
        return pa.array([value], kind) is not None
    except UnicodeEncodeError:
        return False


def _type_of(name: str) -> pa.DataType:
    return frame_schema_of(1).field(name).type
