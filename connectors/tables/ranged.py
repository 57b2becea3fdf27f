"""RangedFile: a file that is read by ranges of bytes, in the form in which Arrow reads files."""

from __future__ import annotations

import io
import os
from typing import Any

from contextframe_beam.connectors.files.listing import ReadAt
from contextframe_beam.connectors.json_files.content import decompressed, stream_of


class RangedFile(io.RawIOBase):
    """A file of one version, which can be read at any place.

    Args:
        read: Gives bytes of the file.
        size: How many bytes it has.
        step: How many bytes to read at once when it is read from its beginning.

    Attributes:
        failure: What reading bytes failed with, which tells trouble with a disk or a network from
            bytes that are damaged.
    """

    def __init__(self, read: ReadAt, size: int, step: int = 1 << 20) -> None:
        self._read = read
        self.failure: Exception | None = None
        self.size = size
        self.step = step
        self._at = 0

    @classmethod
    def of(cls, data: bytes) -> RangedFile:
        """Returns bytes as such a file."""
        return cls(lambda offset, size: data[offset : offset + size], len(data))

    def read_at(self, offset: int, size: int) -> bytes:
        """Returns the bytes at a place, fewer only at the end of the file."""
        try:
            return self._read(offset, size)
        except Exception as error:
            self.failure = error
            raise

    def head(self, size: int) -> bytes:
        """Returns the first bytes."""
        return self.read_at(0, min(size, self.size))

    def readable(self) -> bool:
        """Returns True: it can be read."""
        return True

    def seekable(self) -> bool:
        """Returns True: it can be read at any place."""
        return True

    def tell(self) -> int:
        """Returns where the next byte is read."""
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Goes to a place."""
        begin = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self.size}[whence]
        self._at = max(begin + offset, 0)
        return self._at

    def read(self, size: int | None = -1, /) -> bytes:
        """Returns the next bytes, fewer only at the end of the file."""
        left = max(self.size - self._at, 0)
        wanted = left if size is None or size < 0 else min(size, left)
        data = self.read_at(self._at, wanted) if wanted else b""
        self._at += len(data)
        return data

    def readinto(self, buffer: memoryview | bytearray, /) -> int:  # type: ignore[override]
        """Reads into a buffer."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def unpacked(file: RangedFile) -> io.BufferedReader:
    """Returns what is in a file from its beginning, decompressed where it is compressed.

    Raises:
        ConnectorError: it is of a format that holds no rows; the message names it. Reading raises
            it where the compressed data is damaged.
    """
    stream = stream_of(file.read_at, file.step)
    return io.BufferedReader(_Plain(decompressed(file.head(512), stream)), file.step)


class _Plain(io.RawIOBase):
    """What is decompressed, as a file that Python can buffer."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)
