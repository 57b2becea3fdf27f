"""What a file holds, told by its content: how it is compressed, one document or one on each line.

A name says only that there are lines in it, as `.jsonl` does: such a file may have one line, or
none yet. Whatever else it is called, a file is what is in it.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import re
import zlib
from collections.abc import Callable
from typing import Any, BinaryIO, cast

import orjson

from contextframe_beam.connectors._jsonl import Readable
from contextframe_beam.connectors.json_files.listing import ReadAt
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
    (0, b"PAR1", "Parquet", "write its rows as JSON Lines first"),
    (0, b"ARROW1", "Arrow", "write its rows as JSON Lines first"),
    (0, b"Obj\x01", "Avro", "write its rows as JSON Lines first"),
    (0, b"ORC", "ORC", "write its rows as JSON Lines first"),
    (0, b"SQLite format 3\x00", "an SQLite database", "write its rows as JSON Lines first"),
    (0, b"%PDF-", "a PDF", "choose a pattern that leaves it out"),
    (0, b"\x89PNG", "an image", "choose a pattern that leaves it out"),
    (0, b"\xff\xd8\xff", "an image", "choose a pattern that leaves it out"),
)


def names_lines(name: str) -> bool:
    """Tells whether a file's name says that each of its lines is a document."""
    return _NAME_OF_LINES.search(name) is not None


def is_compressed(head: bytes) -> bool:
    """Tells whether a file begins as one that can be decompressed here."""
    return any(head.startswith(magic) for magic, _, _ in _COMPRESSIONS)


def holds_lines(head: bytes) -> bool:
    """Tells whether each line of a file is a document, by the first bytes of it.

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
    """Compressed data of which an error says that it is damaged, and not the disk or network."""

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
