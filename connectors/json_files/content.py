"""Which bytes of a file are JSON, and the parts in which a large file is read."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, BinaryIO, cast

import orjson

from contextframe_beam.connectors.files.listing import FileInfo, Files, ReadAt, printable
from contextframe_beam.connectors.json_files.lines import (
    BLOCK_BYTES,
    Lines,
    Readable,
    holds_numbers,
    parse_lines,
)
from contextframe_beam.connectors.page import Partition
from contextframe_beam.errors import ConnectorError

#: So much of the beginning of a file tells what it is.
HEAD_BYTES = 256 << 10

# Also when programs that rotate logs have added to the name: events.jsonl.1, events.jsonl-20260131.
_NAME_OF_LINES = re.compile(r"\.(jsonl|ndjson|jsonlines)([.\-_]|\Z)", re.IGNORECASE)
_BOM = b"\xef\xbb\xbf"


def _zstd(file: BinaryIO) -> Any:
    import pyarrow

    return pyarrow.CompressedInputStream(pyarrow.PythonFile(file, mode="r"), "zstd")


_COMPRESSIONS: tuple[tuple[bytes, str, Callable[[BinaryIO], Any]], ...] = (
    (b"\x1f\x8b", "gzip", lambda file: gzip.GzipFile(fileobj=file)),
    (b"BZh", "bzip2", bz2.BZ2File),
    (b"\xfd7zXZ\x00", "xz", lzma.LZMAFile),
    (b"\x28\xb5\x2f\xfd", "zstd", _zstd),
)
_UNPACK = "unpack it into the directory"
_OTHERS = (
    (0, b"PK\x03\x04", "a ZIP archive", _UNPACK),
    (0, b"PK\x05\x06", "an empty ZIP archive", _UNPACK),
    (257, b"ustar", "a tar archive", _UNPACK),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive", _UNPACK),
    (0, b"Rar!", "a RAR archive", _UNPACK),
    (0, b"\x04\x22\x4d\x18", "compressed with lz4", "decompress it first"),
    (0, b"PAR1", "Parquet", "read it with the connector parquet"),
    (0, b"ARROW1", "Arrow", "read it with the connector arrow"),
    (0, b"Obj\x01", "Avro", "write its rows as JSON Lines first"),
    (0, b"ORC", "ORC", "write its rows as JSON Lines first"),
    (0, b"SQLite format 3\x00", "an SQLite database", "write its rows as JSON Lines first"),
    (0, b"%PDF-", "a PDF", "choose a pattern that leaves it out"),
    (0, b"\x89PNG", "an image", "choose a pattern that leaves it out"),
    (0, b"\xff\xd8\xff", "an image", "choose a pattern that leaves it out"),
)


def names_lines(name: str) -> bool:
    """Returns whether a file's name says that each of its lines is a document."""
    return _NAME_OF_LINES.search(name) is not None


def is_compressed(head: bytes) -> bool:
    """Returns whether a file begins as one that can be decompressed here."""
    return any(head.startswith(magic) for magic, _, _ in _COMPRESSIONS)


def holds_lines(head: bytes) -> bool:
    """Returns whether each line of a file is a document, by the first bytes of it.

    One of its first two lines is a whole object then, and something comes after it. A compressed
    file is what it holds.
    """
    if head[:1] != b"{" and is_compressed(head):
        try:
            head = decompressed(head, io.BytesIO(head)).read(HEAD_BYTES // 4)
        except ConnectorError:  # cut off, which a beginning is; the file itself is read later
            return False
    lines = head.removeprefix(_BOM).lstrip().split(b"\n", 2)
    return any(map(bytes.strip, lines[1:])) and any(map(_is_object, lines[:2]))


def decompressed(head: bytes, file: BinaryIO) -> Readable:
    """Returns what is in a file, decompressed where it is compressed.

    Args:
        head: Its first bytes.
        file: The file, at its beginning.

    Raises:
        ConnectorError: it is of a format that holds no JSON; the message names it. Reading raises
            it where the compressed data is damaged.
    """
    require_readable(head)
    for magic, name, opened in _COMPRESSIONS:
        if head.startswith(magic):
            return _Decompressed(opened(file), name)
    return file


def require_readable(head: bytes) -> None:
    """Verifies that a file is not of another format, by its first bytes.

    Raises:
        ConnectorError: it is; the message names it and says what to do.
    """
    for offset, magic, name, advice in _OTHERS:
        if head[offset:].startswith(magic):
            raise ConnectorError(f"it is {name}, which is not read; {advice}")


def stream_of(read: ReadAt, step: int) -> io.BufferedReader:
    """Returns a file that is read in ranges as one that is read from its beginning.

    Args:
        read: Gives bytes of the file.
        step: How many bytes to read at once.
    """
    return io.BufferedReader(_Ranges(read), step)


class _Ranges(io.RawIOBase):
    def __init__(self, read: ReadAt) -> None:
        self._read = read
        self._at = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._read(self._at, len(buffer))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


class _Decompressed:
    """Compressed data that is itself damaged, rather than the disk or the network."""

    def __init__(self, file: Any, name: str) -> None:
        self._file = file
        self._name = name
        self._is_checked = False

    def read(self, size: int, /) -> bytes:
        try:
            data = cast(bytes, self._file.read(size))
        except ConnectorError:
            raise
        except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile, ValueError) as error:
            raise self._damaged(error) from error
        except OSError as error:
            # Of the decompressors themselves; those of the system have a number.
            if type(error) is not OSError or error.errno is not None:
                raise
            raise self._damaged(error) from error
        if not self._is_checked:
            require_readable(data)
            self._is_checked = True
        return data

    def _damaged(self, error: Exception) -> ConnectorError:
        return ConnectorError(f"its {self._name} data is damaged or cut off: {error}")


def _is_object(line: bytes) -> bool:
    if not line.lstrip().startswith(b"{"):
        return False
    try:
        return type(orjson.loads(line)) is dict
    except orjson.JSONDecodeError:
        return False


FILES_IN_A_GROUP = 200
# A small source is cut smaller than is best for reading, because an enricher may take a second for
# each document, and then several workers want something to do.
LEAST_BLOCKS = 16
SMALLEST_BLOCK_BYTES = 64 << 10
# A large source is cut larger, as long as many workers get several blocks each: columns cost less
# for each document in batches of thousands (4.2 us in blocks of 1 MiB, 3.9 us in those of 4 MiB).
LARGEST_BLOCK_BYTES = 4 << 20
MANY_BLOCKS = 64
# What a run that commits as it goes commits at once of one file, at least.
PART_BYTES = 8 << 20
GROUP_BYTES = 32 << 20
# How a file is read: as a whole, from its beginning, or in blocks in any order.
_WHOLE, _STREAM, _LINES, _NUMBERED_LINES = "whole", "stream", "lines", "numbered lines"


def partitions_of(
    files: Files, infos: Sequence[FileInfo], id_field: str, max_line_bytes: int
) -> Iterator[Partition]:
    """Yields partitions with their numbers of blocks: parts of a file of lines, or a group.

    Args:
        files: Access to the files.
        infos: Those to read.
        id_field: The field that identifies a line.
        max_line_bytes: The length of the longest line that is read.
    """

    def is_numbered(head: bytes) -> bool:
        lines = Lines(head[: head.rfind(b"\n") + 1], 0)
        return holds_numbers(parse_lines(lines, "", "", None, max_line_bytes)[0], id_field)

    lines = sum(info.size for info in infos if _may_be_lines(info))
    block_bytes = max(
        min(BLOCK_BYTES, max(-(-lines // LEAST_BLOCKS), SMALLEST_BLOCK_BYTES)),
        min(LARGEST_BLOCK_BYTES, lines // MANY_BLOCKS),
    )
    shapes = list(_shapes(files, infos, block_bytes, is_numbered))
    count = sum(shape == _WHOLE for _, shape in shapes)
    group_files = min(FILES_IN_A_GROUP, -(-count // LEAST_BLOCKS))
    group: list[FileInfo] = []
    size = 0
    for info, shape in shapes:
        if shape in (_LINES, _NUMBERED_LINES):
            yield from _parts_of(info, block_bytes, shape == _NUMBERED_LINES)
            continue
        if shape != _WHOLE:
            packed = _packed(info)
            params = {"file": packed, "stream": True}
            yield Partition(printable(info.path), params, content=packed)
            continue
        if group and (len(group) == group_files or size + info.size > GROUP_BYTES):
            yield _grouped(group)
            group, size = [], 0
        group.append(info)
        size += info.size
    if group:
        yield _grouped(group)


def name_of(path: str) -> str:
    """Returns the name of a file for people."""
    return printable(path.rpartition("/")[2])


def _shapes(
    files: Files,
    infos: Sequence[FileInfo],
    block_bytes: int,
    is_numbered: Callable[[bytes], bool],
) -> Iterator[tuple[FileInfo, str]]:
    """Yields each file with how it is read: as a whole, from its beginning, or in blocks."""
    # A file of one block is recognised when it is read. To look into each of them before would
    # cost a request for each object of a store.
    asked = [info for info in infos if info.size > block_bytes and _may_be_lines(info)]
    heads = zip(asked, files.heads(asked, HEAD_BYTES), strict=True)
    looked_at, head = next(heads, (None, None))
    for info in infos:
        shape = _STREAM if names_lines(name_of(info.path)) else _WHOLE
        if info is looked_at:
            shape = shape if head is None else _shape_of(head, shape)
            if shape == _LINES and is_numbered(head or b""):
                shape = _NUMBERED_LINES
            looked_at, head = next(heads, (None, None))
        yield info, shape


def _may_be_lines(info: FileInfo) -> bool:
    return info.size > BLOCK_BYTES or names_lines(name_of(info.path))


def _shape_of(head: bytes, otherwise: str) -> str:
    """Returns how a file is read that begins so."""
    try:
        require_readable(head)
    except ConnectorError:
        return _STREAM  # which says what it is, whatever its size
    is_lines = otherwise == _STREAM or holds_lines(head)
    if is_compressed(head):
        return _STREAM if is_lines else _WHOLE
    return _LINES if is_lines else _WHOLE


def _packed(info: FileInfo) -> list[Any]:
    return [info.path, info.size, info.modified_at]


def _parts_of(info: FileInfo, block_bytes: int, numbered: bool) -> Iterator[Partition]:
    """Yields the parts of a file of lines, with their numbers of blocks.

    Where a part begins and ends depends on the file alone, so that a run which is continued finds
    the parts again that are done, whatever other files came meanwhile.
    """
    name, packed = printable(info.path), _packed(info)
    for start in range(0, info.size, PART_BYTES):
        stop = min(start + PART_BYTES, info.size)
        blocks = -(-(stop - start) // block_bytes)
        params = {
            "file": packed,
            "version": info.version,
            "numbered": numbered,
            "start": start,
            "stop": stop,
            # All of one size: with a short one at the end of each part, and blocks given out in
            # turn, one of two workers would get all that are long.
            "block_bytes": -(-(stop - start) // blocks),
        }
        is_whole = info.size <= PART_BYTES
        part = name if is_whole else f"{name}, bytes {start} to {stop}"
        yield Partition(part, params, content=packed, blocks=blocks)


def _grouped(infos: list[FileInfo]) -> Partition:
    name = printable(infos[0].path)
    if len(infos) > 1:
        name = f"{name} and {len(infos) - 1} more"
    packed = [_packed(info) for info in infos]
    return Partition(name, {"files": packed}, content=packed)
