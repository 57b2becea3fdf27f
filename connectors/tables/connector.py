"""TableConnector: the rows of tables in files, wherever the files are, read as columns."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from itertools import groupby
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

import pyarrow as pa

from contextframe_beam.connectors.files.chosen import Choice
from contextframe_beam.connectors.files.listing import (
    UNREADABLE,
    FileChangedError,
    FileInfo,
    FileTooLargeError,
    Listing,
    described,
    reason_of,
)
from contextframe_beam.connectors.files.seen import failed_state
from contextframe_beam.connectors.files.stores import files_in
from contextframe_beam.connectors.identity import jsonable
from contextframe_beam.connectors.kinds import PartsConnector
from contextframe_beam.connectors.mapped import MappedConnector, stream_named
from contextframe_beam.connectors.page import DeadLetter, Page, Partition
from contextframe_beam.connectors.plain_secrets import without_credentials
from contextframe_beam.connectors.read.reader import PlannedRun
from contextframe_beam.connectors.record_mapper import RecordMapper
from contextframe_beam.connectors.tables.columns import (
    completed,
    leads_to,
    require_columns,
    unique_columns,
)
from contextframe_beam.connectors.tables.places import managed_by, placed, shown, texts_of
from contextframe_beam.connectors.tables.ranged import RangedFile
from contextframe_beam.connectors.tables.table_format import (
    PART_BYTES,
    Piece,
    Rows,
    TableFormat,
    Wanted,
)
from contextframe_beam.connectors.tables.where import Where
from contextframe_beam.errors import ConfigError, ConnectorError, NotAuthenticatedError

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from contextframe_beam.connectors.mapped import MappingOptions

    class TableOptions(MappingOptions, total=False):
        """The arguments of `TableConnector` beside the path."""

        filter: str
        skip_unchanged: bool
        hidden: bool


_REMOTE_BLOCKS_IN_FLIGHT = 8
_LOOKED_AT = 10_000
_FILES_ASKED = 20
_MOST_WHOLE_BYTES = 256 << 20
# A small source is cut smaller than is best for reading, so that several workers have something.
_LEAST_PIECES = 16
_SMALLEST_PIECE_BYTES = 64 << 10
_FILES_IN_A_GROUP = 200
_GROUP_BYTES = 32 << 20
_OPENED_AT_ONCE = 16
_KEPT_BYTES = 64 << 10
#: What concerns one file or one piece of it.
_OF_ONE_FILE = (
    *UNREADABLE,
    ConnectorError,
    ConfigError,
    pa.ArrowException,
    NotImplementedError,
    UnicodeError,  # in the names of columns
)


class TableConnector(MappedConnector, PartsConnector):
    """Tables in files: each row is a document.

    Folders in a path such as `year=2024/lang=en` become columns (as text), unless the files have
    columns of these names.

    A record's unique_id is the prefix and the id, where the prefix is `<connector>:<path>#` unless
    one is given. So a file that moves needs a `prefix` to keep its ids.

    Args:
        path: A file, a folder, or several files as in `notes/*.csv` and `s3://bucket/year=*/**`.
        filter: Which rows, as in `year >= 2024 AND lang IN ('en', 'de')`. What cannot hold such
            rows is not read.
        skip_unchanged: Leave out files whose time of change and size are the same as in an earlier
            run. A change of the mapping does not count: then read everything once (full=True).
        hidden: Also read hidden files and folders, whose names begin with a dot.
        **fields: Which column is the id, the text, and so on, as for any `MappedConnector`.

    Raises:
        ConfigError: an argument makes no sense.
    """

    identity_args: ClassVar[tuple[str, ...] | None] = ("path", "filter")
    by_time = True

    #: Set by the subclass before anything is read.
    _format: TableFormat

    #: Stated types of columns that paths tell.
    _text_types: Mapping[str, str] = MappingProxyType({})

    def __init__(
        self,
        path: str | os.PathLike[str],
        filter: str = "",
        skip_unchanged: bool = False,
        hidden: bool = False,
        **fields: Unpack[MappingOptions],
    ) -> None:
        super().__init__(**fields)
        directory, self.pattern = placed(path)
        self._takes_endings = not self.pattern
        literal = set("*[") if directory.startswith("http") else set("*?[")
        self._is_one = bool(self.pattern) and not literal & set(self.pattern)
        self.pattern = self.pattern or "**/*"
        self._files = files_in(directory)
        root = str(self._files.root)
        whole = root if self._takes_endings else f"{root.rstrip('/')}/{self.pattern}"
        self.path = without_credentials(whole)
        self.filter = filter
        self._where = Where(filter) if filter else None
        self.skip_unchanged = skip_unchanged
        self.hidden = hidden
        #: Reading an object store waits for the network; reading a disk uses the processor.
        self.max_in_flight = _REMOTE_BLOCKS_IN_FLIGHT if self._files.is_remote else 1
        self._defaults = {"prefix": f"{self.name}:{self.path}#"}

    def authenticate(self) -> bool:
        """Verifies that the files can be listed.

        Raises:
            ConnectorError: the folder is missing or not readable, or the one file is missing. (It
                is a ValueError.)
        """
        if not (self._is_one and self._files.is_remote):
            self._files.check()
        if self._is_one and not self._files.list(self.pattern, True).files:
            raise ConnectorError(self._nothing_found())
        self.authenticated = True
        return True

    def access(self) -> list[str]:
        """Returns which files are read, how the first one is written, and what its path tells."""
        found = self._listed()
        if not found:
            return []
        size = sum(info.size for info in found)
        count = f"{len(found):,} files" if len(found) > 1 else "1 file"
        lines = [f"{self.path}: {count}, {size:,} bytes"]
        first = found[0]
        name = shown(first).rpartition("/")[2]
        told = self._asked(first, self._format.told)
        if isinstance(told, Exception):
            told = [f"it cannot be read: {reason_of(told)}"]
        lines += [f"{name}: {one}" for one in told]
        texts = self._texts(first)
        if texts:
            lines.append(f"from the folders of its path: {', '.join(texts)}")
        without = self._without_id()
        if without:
            lines.append(f"no column is the id; {without}")
        return lines

    def fields(self) -> dict[str, str] | None:
        """Returns the columns of the first file that can be read, with their types."""
        for info in self._listed()[:_FILES_ASKED]:
            schema = self._schema_of(info)
            if schema is not None:
                found = {field.name: str(field.type) for field in schema}
                return {**dict.fromkeys(self._texts(info), "string"), **found}
        return None

    def sync_documents(self) -> list[dict[str, Any]]:
        """Loads all rows; unreadable ones are logged and counted (`get_stats`).

        Raises:
            NotAuthenticatedError: `authenticate` was not called.
            ConnectorError: a folder cannot be listed.
            ConfigError: a column that is named does not exist.
        """
        return list(self.sync_documents_stream())

    def sync_documents_stream(self) -> Iterator[dict[str, Any]]:
        """Yields what `sync_documents` returns, one row after the other."""
        if not self.authenticated:
            raise NotAuthenticatedError("Not authenticated: call authenticate() first")
        return super().sync_documents_stream()

    def source_identity(self, sync_kwargs: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Returns the class, the absolute path, and what else decides which documents there are."""
        identity = super().source_identity()
        arguments: dict[str, Any] = {"path": self.path}
        arguments |= {key: value for key, value in self._stated.items() if key in ("id", "prefix")}
        if self.filter:
            arguments["filter"] = self.filter
        identity["arguments"] = jsonable(arguments)
        return identity

    def plan(self, run: PlannedRun) -> Iterator[Partition]:
        """Yields partitions and their numbers of blocks: a part of a large file, or a group.

        Args:
            run: What the run asks for, and what the plan says beside its partitions.
        """
        choice = Choice(self.pattern, self.hidden, self.skip_unchanged, self._takes)
        found = choice.of(run, self._files, self.logger, self._nothing_found)
        if self._where is not None:
            listed = len(found)
            found = [info for info in found if self._where.may_hold(self._texts(info))]
            if len(found) < listed:
                self.logger.info("%d files cannot meet the filter", listed - len(found))
        self._require_columns(found)
        said = self._asked(found[0], self._format.said) if found else ""
        if isinstance(said, str) and said:
            self.logger.info("%s: %s", shown(found[0]), said)
        yield from self._partitions(found)

    def _listed(self) -> list[FileInfo]:
        return [
            one for one in self._files.list(self.pattern, self.hidden).files if self._takes(one)
        ]

    def _takes(self, info: FileInfo) -> bool:
        """Returns whether a file of a folder holds a table, by its name."""
        if not self._takes_endings:
            return True
        *folders, name = self._files.path_of(info.path).split("/")
        managed = managed_by(folders, name)
        if managed:
            raise ConfigError(
                f"{self.path} is a table of {managed}, whose files also hold rows that were "
                "deleted or replaced; write it as plain files first, or name files with a pattern"
            )
        # What programs write beside tables begins with an underscore: _SUCCESS, _temporary.
        if any(one.startswith("_") and "=" not in one for one in (*folders, name)):
            return False
        return name.lower().endswith(self._format.endings)

    def _texts(self, info: FileInfo) -> dict[str, str | None]:
        return texts_of(info.path, self.path)

    def _wanted(self, info: FileInfo) -> Wanted:
        stream = stream_named(info.path) if self._is_streams else ""
        return self._wanted_of(stream, self._texts(info))

    def _wanted_of(self, stream: str, texts: Mapping[str, str | None]) -> Wanted:
        mapper = self.mapper_of(stream)
        # A path may lead into a column, and a column's own name may have dots.
        parts = [path.split(".") for path in mapper.paths]
        columns = frozenset(
            ".".join(part[:count]) for part in parts for count in range(1, len(part) + 1)
        )
        return Wanted(columns, mapper.takes_all, self._where, texts, self._text_types)

    def _require_columns(self, infos: Sequence[FileInfo]) -> None:
        """Refuses names of columns that no file has, before anything is read."""
        by_stream: dict[str, list[FileInfo]] = {}
        for info in infos:
            stream = stream_named(info.path) if self._is_streams else ""
            by_stream.setdefault(stream, []).append(info)
        for stream, of_stream in by_stream.items():
            known: dict[str, None] = {}
            # The newest file may have columns that the first one lacks.
            asked = [*of_stream[:1], *of_stream[:0:-1]][:_FILES_ASKED]
            problem = ""
            for info in asked:
                schema = self._schema_of(info)
                if schema is None:
                    continue
                known.update(dict.fromkeys([*schema.names, *self._texts(info)]))
                problem = self._missing(stream, list(known))
                if not problem:
                    self._wanted(info).expression(schema)
                    break
            if problem:
                raise ConfigError(f"{self.path}: {problem}")

    def _missing(self, stream: str, known: Sequence[str]) -> str:
        """Returns which named column is missing among those that there are; "" if all are there."""
        named = dict(self._format.named)
        if self._where is not None:
            named["filter"] = self._where.columns
        return require_columns(self.mapper_of(stream), named, known)

    def _schema_of(self, info: FileInfo) -> pa.Schema | None:
        """Returns the columns of a file; None if it cannot be read, which its reading will say."""
        found = self._asked(info, self._format.schema)
        return None if isinstance(found, Exception) else found

    def _asked(
        self, info: FileInfo, ask: Callable[[RangedFile], Any], as_listed: bool = False
    ) -> Any:
        """Returns what a function finds out about a file, or the error that concerns it alone."""
        file: RangedFile | None = None
        try:
            with self._files.reader(info, as_listed) as (now, read):
                file = RangedFile(read, now.size)
                return ask(file)
        except Exception as error:
            return own_error(error, file)

    def _partitions(self, infos: Sequence[FileInfo]) -> Iterator[Partition]:
        total = sum(info.size for info in infos)
        size = PART_BYTES
        while size * _LEAST_PIECES > total and size > _SMALLEST_PIECE_BYTES:
            size //= 2
        large = [info for info in infos if info.size > size]
        small = [info for info in infos if info.size <= size]
        yield from self._large(large, size)
        most = min(_FILES_IN_A_GROUP, -(-len(small) // _LEAST_PIECES))
        group: list[FileInfo] = []
        held = 0
        for info in small:
            if group and (len(group) == most or held + info.size > _GROUP_BYTES):
                yield _grouped(group)
                group, held = [], 0
            group.append(info)
            held += info.size
        if group:
            yield _grouped(group)

    def _large(self, infos: Sequence[FileInfo], size: int) -> Iterator[Partition]:
        def cut(info: FileInfo) -> Sequence[Piece] | None:
            wanted = self._wanted(info)
            found = self._asked(
                info, lambda file: self._format.pieces(file, wanted, size), as_listed=True
            )
            # What is wrong with a file its reading will say.
            return None if isinstance(found, Exception) else found

        with ThreadPoolExecutor(_OPENED_AT_ONCE if self._files.is_remote else 1) as pool:
            for info, pieces in zip(infos, pool.map(cut, infos), strict=True):
                name, packed = shown(info), _packed(info)
                content = [name, *packed[1:]]
                params = {"file": packed, "version": info.version}
                if pieces is None:
                    self.logger.info("%s is read from its beginning by one worker", name)
                    yield Partition(name, params, content=content)
                    continue
                for _, group in groupby(pieces, lambda piece: piece.part):
                    part = list(group)
                    where = self._format.place_of(part[0].first, part[-1].stop)
                    params = {**params, "pieces": [asdict(one) for one in part]}
                    is_whole = part[0].part == pieces[-1].part == pieces[0].part
                    one = name if is_whole else f"{name}, {where}"
                    yield Partition(one, params, content=content, blocks=len(part))

    def read_part(self, partition: Partition, block: int) -> Iterator[Page]:
        """Yields the pages of a partition."""
        failed: list[FileInfo] = []
        pieces = partition.params.get("pieces")
        piece = None if pieces is None else Piece(**pieces[block])
        place = "" if piece is None else self._format.place_of(piece.first, piece.stop)
        for info, rows in self._rows_of(partition, piece):
            if isinstance(rows, Exception):
                page = Page(position=shown(info))
                page.failures.append(self._failure(rows, info, partition, place))
            else:
                page = self._page_of(rows, info, partition)
            if page.failures and info not in failed:
                failed.append(info)
            if failed and self.skip_unchanged:
                page.state = failed_state(failed)
            yield page

    def _rows_of(
        self, partition: Partition, piece: Piece | None
    ) -> Iterator[tuple[FileInfo, Rows | Exception]]:
        params = partition.params
        if "files" in params:
            infos = [FileInfo(*one) for one in params["files"]]
            for info, content in self._files.contents(infos, _MOST_WHOLE_BYTES):
                if isinstance(content, FileTooLargeError):
                    reason = f"{content}; run again when nothing writes to it"
                    yield info, ConnectorError(reason)
                elif isinstance(content, Exception):
                    yield info, content
                else:
                    yield from self._guarded(info, RangedFile.of(content), None)
            return
        info = FileInfo(*[*params["file"], params["version"]])
        try:
            with self._files.reader(info) as (_, read):
                asked = None if piece is None else piece.params
                yield from self._guarded(info, RangedFile(read, info.size), asked)
        except (*UNREADABLE, FileChangedError) as error:
            yield info, error

    def _guarded(
        self, info: FileInfo, file: RangedFile, piece: Any
    ) -> Iterator[tuple[FileInfo, Rows | Exception]]:
        """Yields the rows of a file or of a piece of it; an error of its own ends them."""
        wanted = self._wanted(info)
        try:
            for rows in self._format.rows(file, piece, wanted):
                origin = {"_file_path": shown(info), "_modified_at": info.modified_at}
                origin["_file_name"] = shown(info).rpartition("/")[2]
                origin[self.STREAM] = stream_named(info.path) if self._is_streams else None
                rows.table = completed(rows.table, wanted, origin)
                yield info, rows
        except Exception as error:
            yield info, own_error(error, file)

    def _page_of(self, rows: Rows, info: FileInfo, partition: Partition) -> Page:
        where = ", filtered" if self._where is not None else ""
        place = ", ".join(filter(None, [shown(info), rows.place]))
        page = Page(table=rows.table, position=f"{place}{where}", size=rows.size)
        if rows.note:
            self.logger.warning("%s: %s", shown(info), rows.note)
        for bad in rows.bad:
            error = ConnectorError(bad.reason)
            page.failures.append(self._failure(error, info, partition, bad.place, bad.data))
        return page

    def _failure(
        self,
        error: Exception,
        info: FileInfo,
        partition: Partition,
        place: str = "",
        data: bytes | None = None,
    ) -> DeadLetter:
        position = ", ".join(filter(None, [shown(info), place]))
        item: dict[str, Any] = {
            "_file_path": shown(info),
            "_modified_at": info.modified_at,
        }
        if data is not None:
            item["data"] = _text_of(data[:_KEPT_BYTES])
        reason = reason_of(error)
        if not isinstance(error, ConnectorError | ConfigError):
            hint = "" if isinstance(error, OSError) and error.errno else "; it may be damaged"
            reason = f"it cannot be read: {' '.join(reason.split())}{hint}"
        told = ConnectorError(f"{position}: {reason}")
        return DeadLetter.of("read", told, item, self.name, partition.id, position)

    def _nothing_found(self, listing: Listing | None = None) -> str:
        """Returns what is there instead if no file matches; otherwise ""."""
        if self._is_one and self._files.is_remote:
            # To look around in a store may take long, and on the web it would be impolite.
            found = self._files.list(self.pattern, True) if listing is None else listing
            return "" if found.files else f"there is no file {self.path}; check the address"
        files = (
            self._files.list(self.pattern, self.hidden).files if listing is None else listing.files
        )
        if any(map(self._takes, files)):
            return ""
        where = without_credentials(str(self._files.root))
        what = f"ends in {', '.join(self._format.endings)}"
        if not self._takes_endings:
            what = f"matches {self.pattern!r}"
        there = described(self._files.some(_LOOKED_AT), self._format.endings)
        return f"no file in {where} {what}; {there}"

    def _unsuitable(self, mode: str) -> str:
        """Returns why a run in a mode makes no sense, and what to do; "" if it does."""
        told = self._without_id() if mode in ("upsert", "mirror") else ""
        mapper = self.mapper_of()
        if told and mapper.id_paths != RecordMapper("", {}).id_paths:
            return ""  # the column that it names is missing, which is said before the rows are read
        return told and (
            f"the rows of {self.path} have no id, so {mode} cannot tell which document a row "
            "replaces. Name the column with id=..., or several that identify a row together; "
            f'{told}. Or add all rows with mode="append"'
        )

    def _without_id(self) -> str:
        """Returns which columns look unique, if none is the id; "" if there is one."""
        paths = () if self._is_streams else self.mapper_of().id_paths
        sample: pa.Table | None = None
        for names, sampled in self._seen() if paths else ():
            if any(leads_to(path, names) for path in paths):
                return ""
            sample = sampled() if sample is None else sample
        if sample is None:
            return ""
        unique = unique_columns(sample)
        return f"these look unique: {', '.join(unique)}" if unique else "none of them looks unique"

    def _seen(self) -> Iterator[tuple[list[str], Callable[[], pa.Table | None]]]:
        """Yields the columns of some files, each with a function that reads its first rows."""
        for info in self._listed()[:_FILES_ASKED]:
            schema = self._schema_of(info)
            if schema is not None:
                yield [*schema.names, *self._texts(info)], partial(self._sample_of, info)

    def _sample_of(self, info: FileInfo) -> pa.Table | None:
        """Returns the first rows of a file, with all columns that it has itself."""
        found = self._asked(info, lambda file: next(self._format.rows(file, None, Wanted()), None))
        return found.table if isinstance(found, Rows) else None


def own_error(error: Exception, file: RangedFile | None) -> Exception:
    """Returns an error that concerns a file alone; raises any other, as of a disk or a network.

    Args:
        error: What reading the file raised.
        file: The file, if it could be opened.
    """
    if file is not None and file.failure is not None:
        if not isinstance(file.failure, _OF_ONE_FILE):
            raise file.failure
        return file.failure
    # Arrow's own errors about damaged data are errors of the system without its number.
    is_arrows = file is not None and (
        isinstance(error, SystemError) or (isinstance(error, OSError) and error.errno is None)
    )
    if is_arrows or isinstance(error, _OF_ONE_FILE):
        return error
    raise error


def _packed(info: FileInfo) -> list[Any]:
    return [info.path, info.size, info.modified_at]


def _grouped(infos: list[FileInfo]) -> Partition:
    name = shown(infos[0])
    if len(infos) > 1:
        name = f"{name} and {len(infos) - 1} more"
    content = [[shown(info), *_packed(info)[1:]] for info in infos]
    return Partition(name, {"files": [_packed(info) for info in infos]}, content=content)


def _text_of(data: bytes) -> str | bytes:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data
