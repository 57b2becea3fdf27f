"""JSONFileConnector: JSON documents and JSON Lines in a directory, local or in an object store.

A file is one document, or has one on each line; its content decides, or a name such as `*.jsonl`.
Files of lines are read in blocks, so that one large file keeps all workers busy. Compressed files
are decompressed. Anything unreadable becomes a dead letter, and the rest goes on.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from contextframe_beam.connectors.files.chosen import Choice
from contextframe_beam.connectors.files.listing import (
    UNREADABLE,
    FileChangedError,
    FileInfo,
    FileTooLargeError,
    Listing,
    described,
    parts_of,
    printable,
    reason_of,
)
from contextframe_beam.connectors.files.seen import failed_state
from contextframe_beam.connectors.files.stores import files_in
from contextframe_beam.connectors.identity import jsonable
from contextframe_beam.connectors.json_files.content import (
    decompressed,
    holds_lines,
    is_compressed,
    name_of,
    partitions_of,
    require_readable,
    stream_of,
)
from contextframe_beam.connectors.json_files.lines import (
    BLOCK_BYTES,
    CACHED_BYTES,
    KEPT_WHOLE_BYTES,
    RESERVED,
    BadDocument,
    Lines,
    free_names,
    holds_numbers,
    id_text,
    lines_of_block,
    lines_of_stream,
    parse_document,
    parse_lines,
    tell_apart,
    text_of,
)
from contextframe_beam.connectors.kinds import PartsConnector
from contextframe_beam.connectors.mapped import MappedConnector, stream_named
from contextframe_beam.connectors.mapper import FieldMapper
from contextframe_beam.connectors.page import DeadLetter, Page, Partition
from contextframe_beam.connectors.plain_secrets import without_credentials
from contextframe_beam.connectors.read.reader import PlannedRun
from contextframe_beam.errors import ConfigError, ConnectorError, NotAuthenticatedError
from contextframe_beam.frames.record import FrameRecord

if TYPE_CHECKING:
    import pyarrow as pa
    from typing_extensions import Unpack

    from contextframe_beam.connectors.item_columns import ItemColumns
    from contextframe_beam.connectors.mapped import MappingOptions
    from contextframe_beam.connectors.record_mapper import RecordMapper
    from contextframe_beam.frames.columns import FrameColumns

_ITEMS_IN_A_PAGE = 1000
# Columns cost work for each page. The rest of a block goes with the page before it, because a few
# rows cost as much as many.
_ROWS_IN_A_PAGE = 4096
# If no file matches, this many are examined to say what is there.
_LOOKED_AT = 10_000
_NAMES = (".json", ".ndjson")
_REMOTE_BLOCKS_IN_FLIGHT = 8
_ADVICE = "; split it into JSON Lines, or raise max_document_bytes if memory allows"
_TEXT_FIELDS = ("text", "body", "description", "message")


class JSONFileConnector(MappedConnector, PartsConnector):
    """JSON files (one document each) and JSON Lines (one per line) in a directory.

    Each item is the document with `_file_path`, `_file_name` and `_modified_at`, and for a line
    its byte offset as `_line_offset` (`byte 31` instead of 31 if that may be another line's id).
    A field of the document with one of these names is kept as `document_file_path` and so on.
    Fields that begin with an underscore do not become metadata.

    A record's unique_id is `json_file:<path>` for a file, and `json_file:<path>#<id>` for a line,
    with the byte offset in place of an id that is missing or null. With a `prefix` it is the prefix
    and the id instead, wherever the file is.

    With any of the arguments `text`, `title`, `timestamp`, `tags` and `mapping`, fields are mapped
    as an API's are. Without them, as `map_to_frame_record` says.

    Args:
        directory: A path (`~` and relative ones work), or a URL such as `s3://bucket/folder`.
        pattern: Which files, as in `*.json`, `**/*.jsonl` (all folders below) or `2024/*.json.gz`.
        id_field: The same as `id`.
        max_line_bytes: Longer lines become dead letters; memory is bounded by it.
        max_document_bytes: Larger files of one document become dead letters.
        skip_unchanged: Leave out files whose time of change and size are the same as in an earlier
            run. Files that could not be read, or that changed less than ten seconds before the run,
            are read again. Documents that failed after reading are not read again, and a change of
            the mapping or an enricher does not count: then read everything once (full=True).
        hidden: Also read hidden files and folders, whose names begin with a dot. Without it, hidden
            names are read only if the pattern has a name that begins with a dot.
        **fields: Which field is the id, the text, and so on, as for any `MappedConnector`.

    Raises:
        ConfigError: an argument makes no sense.
    """

    identity_args: ClassVar[tuple[str, ...] | None] = ("directory", "pattern", "id_field")
    by_time = True

    def __init__(
        self,
        directory: str | os.PathLike[str],
        pattern: str = "*.json",
        id_field: str = "id",
        max_line_bytes: int = 64 << 20,
        max_document_bytes: int = 256 << 20,
        skip_unchanged: bool = False,
        hidden: bool = False,
        **fields: Unpack[MappingOptions],
    ) -> None:
        super().__init__(**fields)
        for name, value in (
            ("max_line_bytes", max_line_bytes),
            ("max_document_bytes", max_document_bytes),
        ):
            if value < 1:
                raise ConfigError(f"{name} is {value}; it must be at least 1")
        parts_of(pattern)
        self._files = files_in(directory)
        self.directory = self._files.root
        self.pattern = pattern
        self._decide_ids(id_field)
        self.max_line_bytes = max_line_bytes
        self.max_document_bytes = max_document_bytes
        self.skip_unchanged = skip_unchanged
        self.hidden = hidden
        #: Reading an object store waits for the network; reading a disk uses the processor.
        self.max_in_flight = _REMOTE_BLOCKS_IN_FLIGHT if self._files.is_remote else 1

    def authenticate(self) -> bool:
        """Verifies that the directory can be listed.

        Raises:
            ConnectorError: it is missing, not a directory, or not readable. (It is a ValueError.)
        """
        self._files.check()
        self.authenticated = True
        return True

    def sync_documents(self, pattern: str | None = None) -> list[dict[str, Any]]:
        """Loads all documents; unreadable ones are logged and counted (`get_stats`).

        Args:
            pattern: Which files, in place of the connector's own pattern.

        Raises:
            RuntimeError: `authenticate` was not called.
            ConnectorError: a folder cannot be listed.
        """
        return list(self.sync_documents_stream(pattern))

    def sync_documents_stream(self, pattern: str | None = None) -> Iterator[dict[str, Any]]:
        """Yields what `sync_documents` returns, one document after the other."""
        if not self.authenticated:
            raise NotAuthenticatedError("Not authenticated: call authenticate() first")
        return super().sync_documents_stream(**({} if pattern is None else {"pattern": pattern}))

    def map_to_frame_record(self, item: dict[str, Any]) -> FrameRecord:
        """Turns a document into a record.

        The text is `content`, or else the first existing field of `text`, `body`, `description`
        and `message`. All fields except `content`, `text` and those that begin with an underscore
        become metadata. If the arguments say which fields are what, they decide.
        """
        if self._is_mapped:
            return self._mapped(item)
        text = _usual_text(item)
        # Copying and removing is twice as fast as choosing key by key.
        metadata = item.copy()
        path = metadata.pop("_file_path")
        file_name = metadata.pop("_file_name", None)
        modified_at = metadata.pop("_modified_at", None)
        offset = metadata.pop("_line_offset", None)
        metadata.pop("content", None)
        metadata.pop("text", None)
        if "\0_" in "\0" + "\0".join(metadata):
            metadata = {key: value for key, value in metadata.items() if key[:1] != "_"}
        metadata.setdefault("source", "json_file")
        metadata.setdefault("file_path", path)
        metadata.setdefault("file_name", file_name)
        metadata.setdefault("modified_at", modified_at)
        unique_id = f"json_file:{path}"
        if offset is not None:
            identifier = item.get(self.id_field)
            if identifier.__class__ is not str:
                identifier = id_text(identifier)
            unique_id = f"{unique_id}#{identifier or offset}"
        return FrameRecord(text, metadata, "document", unique_id, modified_at)

    def map_columns(self, items: ItemColumns) -> FrameColumns:
        """Turns many documents into records at once, the same as `map_to_frame_record` makes.

        Raises:
            NotByColumns: they have to be mapped one by one.
        """
        from contextframe_beam.connectors.json_files.columns import usual_records

        if self._is_mapped:
            return self._mapped_columns(items)
        return usual_records(items, self.id_field, _usual_text)

    def _decide_ids(self, id_field: str) -> None:
        """Decides what the id of a line is, and whether fields are mapped as arguments say."""
        stated = self._stated.get("id")
        if stated is not None and id_field not in ("id", stated):
            raise ConfigError(
                f"id is {stated!r} and id_field is {id_field!r}, which means the same; give one"
            )
        paths = [stated or id_field] if isinstance(stated or id_field, str) else list(stated or ())
        self._ids: str | list[str] = paths[0] if len(paths) == 1 else paths
        # Lines with ids of several fields, or inside of objects, never look like an offset.
        is_plain = isinstance(self._ids, str) and not set("{.") & set(self._ids)
        self.id_field = str(self._ids) if is_plain else ""
        self._is_mapped = bool(self._mappings or self._own.keys() - {"id"} or not is_plain)

    def _mapped(self, item: dict[str, Any]) -> FrameRecord:
        place, offset = str(item.get("_file_path", "")), item.get("_line_offset")
        mapper = self._mapper_at(place)
        record = mapper.map(item)
        if mapper.prefix and record.unique_id is not None:
            return record
        own = mapper.id_text(item)
        if offset is not None and not own:
            own = str(offset) if self.id_field else f"byte {str(offset).removeprefix('byte ')}"
        # A file of one document is named by its path, unless its id was asked for.
        is_named = offset is not None or "id" in self._stated
        record.unique_id = f"json_file:{place}#{own}" if own and is_named else f"json_file:{place}"
        return record

    def _mapper_at(self, place: str) -> RecordMapper:
        times = (*FieldMapper().timestamp, "_modified_at")
        stream = stream_named(place) if self._is_streams else ""
        return self.mapper_of(stream, id=self._ids, timestamp=times)

    def _mapped_columns(self, items: ItemColumns) -> FrameColumns:
        """Maps documents as `_mapped` does one."""
        from contextframe_beam.connectors.json_files.columns import named_records

        place = str(items.common("_file_path")) if self._is_streams else ""
        return named_records(
            self._mapper_at(place),
            items,
            is_asked="id" in self._stated,
            is_plain=bool(self.id_field),
        )

    def unmapped(self, names: Sequence[str]) -> list[str]:
        """Returns which fields become no part of a frame; those that reading adds do not count."""
        own = [name for name in names if name not in RESERVED]
        if self._is_mapped:
            return super().unmapped(own)
        return [name for name in own if name[:1] == "_"]

    def source_identity(self, sync_kwargs: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Returns the class, the absolute directory, the pattern and the id field."""
        identity = super().source_identity()
        arguments = {
            "directory": str(self.directory),
            "pattern": (sync_kwargs or {}).get("pattern") or self.pattern,
            "id_field": self._ids,
        }
        if "prefix" in self._stated:
            arguments["prefix"] = self._stated["prefix"]
        identity["arguments"] = jsonable(arguments)
        return identity

    def plan(self, run: PlannedRun, pattern: str | None = None) -> Iterator[Partition]:
        """Yields partitions and their numbers of blocks: parts of a file of lines, or a group.

        Args:
            run: What the run asks for, and what the plan says beside its partitions.
            pattern: Which files, in place of the connector's own pattern.
        """
        pattern = pattern or self.pattern
        choice = Choice(pattern, self.hidden, self.skip_unchanged)
        found = choice.of(
            run, self._files, self.logger, lambda listing: self._nothing_found(pattern, listing)
        )
        yield from partitions_of(self._files, found, self.id_field, self.max_line_bytes)

    def _nothing_found(self, pattern: str | None = None, listing: Listing | None = None) -> str:
        """Returns what is there instead if no file matches the pattern; otherwise ""."""
        pattern = pattern or self.pattern
        listing = listing or self._files.list(pattern, self.hidden)
        if listing.files:
            return ""
        where = without_credentials(str(self.directory))
        there = described(self._files.some(_LOOKED_AT), _NAMES)
        return f"no file in {where} matches {pattern!r}; {there}"

    def read_part(self, partition: Partition, block: int) -> Iterator[Page]:
        """Yields the pages of one block."""
        params = partition.params
        if "files" in params:
            yield from self._read_group(partition, [FileInfo(*one) for one in params["files"]])
            return
        info = FileInfo(*[*params["file"], params.get("version", "")])
        path, name = printable(info.path), name_of(info.path)
        items: list[dict[str, Any]] = []
        rows: pa.Table | None = None
        failures: list[DeadLetter] = []
        size = 0
        # Whether other lines of the file may have numbers as ids; unknown at its beginning.
        numbered = params.get("numbered")
        chunks = self._streamed(info) if params.get("stream") else self._block(info, block, params)
        for now, lines in chunks:
            table = None
            if numbered is not None and self._is_ours:
                table = self._table_of(lines, path, name, now.modified_at)
            if table is not None:
                if items or failures:
                    yield self._page(items, failures, size, info)
                    items, failures, size = [], [], 0
                joined = table if rows is None else _joined(rows, table)
                if joined is None:
                    assert rows is not None
                    yield _page_of_table(rows, size)
                    joined, size = table, 0
                rows, size = joined, size + lines.size
                while rows.num_rows >= 2 * _ROWS_IN_A_PAGE:
                    yield _page_of_table(rows[:_ROWS_IN_A_PAGE], size)
                    rows, size = rows[_ROWS_IN_A_PAGE:], 0
                continue
            if rows is not None:
                yield _page_of_table(rows, size)
                rows, size = None, 0
            found, bad = parse_lines(lines, path, name, now.modified_at, self.max_line_bytes)
            if numbered:
                tell_apart(found, self.id_field, are_all=False)
            items += found
            failures += [self._failure(one, partition, info, one.offset) for one in bad]
            size += lines.size
            if numbered is None:
                if size < BLOCK_BYTES:
                    continue
                numbered = holds_numbers(items, self.id_field)
                if numbered:
                    tell_apart(items, self.id_field, are_all=False)
            while len(items) >= _ITEMS_IN_A_PAGE:
                yield self._page(items[:_ITEMS_IN_A_PAGE], failures, size, info)
                items, failures, size = items[_ITEMS_IN_A_PAGE:], [], 0
        if rows is not None:
            yield _page_of_table(rows, size)
            return
        if numbered is None:
            tell_apart(items, self.id_field, are_all=True)
        while len(items) > _ITEMS_IN_A_PAGE:
            yield _page_of(items[:_ITEMS_IN_A_PAGE], [], 0)
            items = items[_ITEMS_IN_A_PAGE:]
        yield self._page(items, failures, size, info)

    @property
    def _is_ours(self) -> bool:
        """Whether lines are mapped by columns, because nobody wrote another mapping."""
        own = type(self).map_to_frame_record is JSONFileConnector.map_to_frame_record
        return own and "map_to_frame_record" not in vars(self)

    def _table_of(
        self, lines: Lines, path: str, name: str, modified_at: str | None
    ) -> pa.Table | None:
        """Returns lines as a table; None if they have to be items."""
        from contextframe_beam.connectors.json_files.columns import table_of_lines

        place = {"_file_path": path, "_file_name": name, "_modified_at": modified_at}
        return table_of_lines(lines, place, self.id_field, self.max_line_bytes)

    def _page(
        self, items: list[dict[str, Any]], failures: list[DeadLetter], size: int, info: FileInfo
    ) -> Page:
        page = _page_of(items, failures, size)
        page.state = self._failed_state([info] if failures else [])
        return page

    def _failed_state(self, infos: list[FileInfo]) -> dict[str, Any] | None:
        """Returns a state that makes the next run read the unreadable files again."""
        if not infos or not self.skip_unchanged:
            return None
        return failed_state(infos)

    def _block(
        self, info: FileInfo, block: int, params: Mapping[str, Any]
    ) -> Iterator[tuple[FileInfo, Lines]]:
        """Yields the lines of one block of a file, in its listed version."""
        block_bytes = params["block_bytes"]
        start = params["start"] + block * block_bytes
        stop = min(start + block_bytes, params["stop"])
        # One request for a remote block; pieces that fit the cache for a local one, larger ones if
        # columns are made of them, which costs as much for few rows as for many.
        step = min(block_bytes, BLOCK_BYTES if self._is_ours else CACHED_BYTES)
        if self._files.is_remote:
            step = block_bytes
        first = start
        try:
            with self._files.reader(info) as (now, read):
                for first in range(start, stop, step):
                    last = min(first + step, stop)
                    yield now, lines_of_block(read, first, last, self.max_line_bytes)
        except (*UNREADABLE, FileChangedError) as error:
            yield info, _unreadable(first, error)

    def _streamed(self, info: FileInfo) -> Iterator[tuple[FileInfo, Lines]]:
        """Yields the lines of a file from its beginning, in its present version."""
        step = BLOCK_BYTES if self._files.is_remote else CACHED_BYTES
        end = 0
        try:
            with self._files.reader(info, as_listed=False) as (now, read):
                file = stream_of(read, step)
                content = decompressed(file.peek(), file)
                for lines in lines_of_stream(content, self.max_line_bytes, step):
                    end = lines.offset + len(lines.data)
                    yield now, lines
        except (*UNREADABLE, ConnectorError) as error:
            yield info, _unreadable(end, error)

    def _read_group(self, partition: Partition, infos: list[FileInfo]) -> Iterator[Page]:
        page = Page([], position=partition.id)
        failed: list[FileInfo] = []
        for info, content in self._files.contents(infos, self.max_document_bytes):
            data = b"" if isinstance(content, Exception) else content
            page.size += len(data)
            try:
                if isinstance(content, Exception):
                    raise content
                items, bad = self._documents_in(data, info)
            except (*UNREADABLE, ConnectorError) as error:
                advice = _ADVICE if isinstance(error, FileTooLargeError) else ""
                reason = ConnectorError(f"{reason_of(error)}{advice}")
                letter = BadDocument(0, data[:KEPT_WHOLE_BYTES], reason)
                page.failures.append(self._failure(letter, partition, info))
                failed.append(info)
                continue
            page.items += items
            page.failures += [self._failure(one, partition, info, one.offset) for one in bad]
            if bad:
                failed.append(info)
            while len(page.items) > _ITEMS_IN_A_PAGE:
                rest = page.items[_ITEMS_IN_A_PAGE:]
                del page.items[_ITEMS_IN_A_PAGE:]
                yield page
                page = Page(rest, position=partition.id)
        page.state = self._failed_state(failed)
        yield page

    def _documents_in(
        self, data: bytes, info: FileInfo
    ) -> tuple[list[dict[str, Any]], list[BadDocument]]:
        """Returns the content of a file: one document, or those of its lines and the bad lines."""
        limit = self.max_document_bytes
        if data[:1] != b"{":
            require_readable(data)
            if is_compressed(data):
                data = decompressed(data, io.BytesIO(data)).read(limit + 1)
            if len(data) > limit:
                raise FileTooLargeError(len(data), limit)
        path, name = printable(info.path), name_of(info.path)
        if holds_lines(data):
            lines = Lines(data, 0)
            items, bad = parse_lines(lines, path, name, info.modified_at, self.max_line_bytes)
            tell_apart(items, self.id_field, are_all=True)
            return items, bad
        item = parse_document(data)
        free_names(item)
        item["_file_path"] = path
        item["_file_name"] = name
        item["_modified_at"] = info.modified_at
        return [item], []

    def _failure(
        self, bad: BadDocument, partition: Partition, info: FileInfo, offset: int | None = None
    ) -> DeadLetter:
        position = printable(info.path)
        item: dict[str, Any] = {
            "_file_path": position,
            "_file_name": name_of(info.path),
            "_modified_at": info.modified_at,
            "data": text_of(bad.data),
        }
        if offset is not None:
            item["_line_offset"] = offset
            position = f"{position}, byte {offset}"
        error = ConnectorError(f"{position}: {bad.error}")
        return DeadLetter.of("read", error, item, self.name, partition.id, position)


def _usual_text(item: Mapping[str, Any]) -> str | None:
    """Returns the text of a document, where no argument says where it is."""
    text: Any = item.get("content", "")
    if not text:
        for name in _TEXT_FIELDS:
            if item.get(name) is not None:
                text = str(item[name])
                break
    if text is None or text.__class__ is str:
        return text
    # An empty list or object has no content; a number does.
    return "" if text in ([], {}) else str(text)


def _page_of(items: list[dict[str, Any]], failures: list[DeadLetter], size: int) -> Page:
    position = f"byte {items[0]['_line_offset']}" if items else ""
    return Page(items, position=position, failures=failures, size=size)


def _joined(before: pa.Table, found: pa.Table) -> pa.Table | None:
    """Returns the rows of two tables; None if their columns are of different types."""
    import pyarrow as pa

    try:
        return pa.concat_tables([before, found], promote_options="default")
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return None


def _page_of_table(rows: pa.Table, size: int) -> Page:
    return Page(table=rows, position=f"byte {rows['_line_offset'][0].as_py()}", size=size)


def _unreadable(offset: int, error: Exception) -> Lines:
    reason = reason_of(error)
    if not isinstance(error, ConnectorError):
        reason = f"it cannot be read: {reason}"
    return Lines(b"", offset, [BadDocument(offset, b"", ConnectorError(reason))])
