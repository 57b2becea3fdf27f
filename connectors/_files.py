"""Files in a directory, on a local disk or behind an fsspec URL: listed, and read in ranges.

Local files go through the operating system's own calls, because an abstraction would cost more
than reading a small file does.
"""

from __future__ import annotations

import fnmatch
import glob
import gzip
import os
import re
import stat
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime, timezone
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from contextframe_beam.connectors.secrets import redact, without_url_password
from contextframe_beam.errors import ConfigError, ConnectorError

#: What concerns one file only; other errors mean that the disk or the network is in trouble.
UNREADABLE = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)

_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs"}
_REMOTE_TIMES = ("LastModified", "last_modified", "mtime", "updated", "modified", "created")


@dataclass(frozen=True, slots=True)
class FileInfo:
    """One file of a listing.

    Attributes:
        path: Its absolute path or its URL.
        size: In bytes; 0 for what cannot be read.
        modified_at: When it was last changed, ISO 8601 with its offset, where that is known: the
            same text on machines of all time zones.
    """

    path: str
    size: int
    modified_at: str | None


class Files(Protocol):
    """The files below one directory."""

    root: Path | str
    is_remote: bool

    def check(self) -> None:
        """Verifies that the directory is there and can be listed.

        Raises:
            ConnectorError: it is not; the message says what to do.
        """

    def list(self, pattern: str) -> list[FileInfo]:
        """Returns the files that match a pattern such as `**/*.json`, sorted by path.

        Raises:
            ConnectorError: a folder on the way cannot be listed.
        """

    def reader(self, info: FileInfo) -> Any:
        """Opens a file as a context that gives `read(offset, size) -> bytes`."""

    def open(self, path: str) -> BinaryIO:
        """Opens a file to be read from its beginning."""

    def contents(
        self, infos: Sequence[FileInfo], limit: int
    ) -> Iterator[tuple[FileInfo, bytes | Exception]]:
        """Yields what is in each file, unzipped if its name ends in `.gz`, or why it cannot be had.

        Args:
            infos: The files.
            limit: Larger contents, in bytes, are an error and are not held.
        """


def files_in(directory: str | os.PathLike[str]) -> Files:
    """Returns access to a directory, given as a path or a URL.

    Raises:
        ConfigError: the URL is of a kind that nothing installed can read.
    """
    text = os.fspath(directory)
    if text.startswith("file://"):
        text = text[len("file://") :]
    if "://" in text or "::" in text:
        return _RemoteFiles(text)
    if not text:
        raise ConfigError("directory is empty; use '.' for the current one")
    return _LocalFiles(Path(os.path.abspath(os.path.expanduser(text))))


def reason_of(error: BaseException) -> str:
    """Returns what an error says, without the number and path that the system adds."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return redact(str(error) or type(error).__name__)


class _LocalFiles:
    is_remote = False

    def __init__(self, root: Path) -> None:
        self.root: Path | str = root

    def check(self) -> None:
        if not os.path.exists(self.root):
            raise ConnectorError(f"Directory not found: {self.root}; check the path")
        if not os.path.isdir(self.root):
            raise ConnectorError(
                f"Not a directory: {self.root}; give its folder, and its name as the pattern"
            )
        _entries(str(self.root))

    def list(self, pattern: str) -> list[FileInfo]:
        parts = [part for part in pattern.split("/") if part not in ("", ".")]
        if parts[-1:] == ["**"]:
            parts.append("*")
        found = {entry.path: entry for entry in _matching(str(self.root), parts)}
        return [_local_info(found[path]) for path in sorted(found)]

    @contextmanager
    def reader(self, info: FileInfo) -> Iterator[Callable[[int, int], bytes]]:
        handle, _ = _open_regular(info.path)
        try:
            yield lambda offset, size: os.pread(handle, size, offset)
        finally:
            os.close(handle)

    def open(self, path: str) -> BinaryIO:
        return os.fdopen(_open_regular(path)[0], "rb")

    def contents(
        self, infos: Sequence[FileInfo], limit: int
    ) -> Iterator[tuple[FileInfo, bytes | Exception]]:
        for info in infos:
            content: bytes | Exception
            try:
                handle, status = _open_regular(info.path)
                info = FileInfo(info.path, status.st_size, _iso(status.st_mtime))
                with os.fdopen(handle, "rb", 0 if status.st_size <= limit else -1) as file:
                    content = _whole(file, info, limit)
            except (*UNREADABLE, EOFError, zlib.error, gzip.BadGzipFile, ConnectorError) as error:
                content = error
            yield info, content


class _RemoteFiles:
    is_remote = True

    def __init__(self, url: str) -> None:
        import fsspec

        try:
            self._fs, self._path = fsspec.core.url_to_fs(url)
        except ImportError as error:
            extra = _EXTRAS.get(url.partition(":")[0])
            install = f"contextframe-beam[{extra}]" if extra else "the package named above"
            raise ConfigError(f"{_shown(url)}: {error}; run: pip install '{install}'") from error
        except ValueError as error:
            raise ConfigError(f"{_shown(url)}: {error}; use a path, s3:// or gs://") from error
        self._path = self._path.rstrip("/")
        self.root: Path | str = url.rstrip("/")
        self._shown = _shown(str(self.root))

    def check(self) -> None:
        try:
            self._fs.invalidate_cache()
            exists, is_folder = self._fs.exists(self._path), self._fs.isdir(self._path)
        except Exception as error:
            raise ConnectorError(
                f"{self._shown} cannot be listed: {reason_of(error)}; "
                "check the address and the credentials"
            ) from error
        if not exists:
            raise ConnectorError(f"Directory not found: {self._shown}; check the URL")
        if not is_folder:
            raise ConnectorError(
                f"Not a directory: {self._shown}; give its folder, and its name as the pattern"
            )

    def list(self, pattern: str) -> list[FileInfo]:
        try:
            self._fs.invalidate_cache()
            found = self._fs.glob(f"{glob.escape(self._path)}/{pattern}", detail=True)
        except OSError as error:
            raise ConnectorError(
                f"{self._shown} cannot be listed: {reason_of(error)}; "
                "check the address and the credentials"
            ) from error
        return [
            FileInfo(self._fs.unstrip_protocol(name), int(info.get("size") or 0), _time_of(info))
            for name, info in sorted(found.items())
            if info.get("type") != "directory"
        ]

    @contextmanager
    def reader(self, info: FileInfo) -> Iterator[Callable[[int, int], bytes]]:
        def read(offset: int, size: int) -> bytes:
            # Object stores refuse a range that begins after the end.
            end = min(offset + size, info.size)
            if offset >= end:
                return b""
            data: bytes = self._fs.cat_file(info.path, start=offset, end=end)
            return data

        yield read

    def open(self, path: str) -> BinaryIO:
        file: BinaryIO = self._fs.open(path, "rb")
        return file

    def contents(
        self, infos: Sequence[FileInfo], limit: int
    ) -> Iterator[tuple[FileInfo, bytes | Exception]]:
        names = {info.path: self._fs._strip_protocol(info.path) for info in infos}
        wanted = [names[info.path] for info in infos if info.size <= limit]
        # Many small files at once: one after the other would wait for the network each time.
        found = self._fs.cat(wanted, on_error="return") if wanted else {}
        if isinstance(found, bytes):
            found = {wanted[0]: found}
        for info in infos:
            content = found.pop(names[info.path], None)
            if content is None:
                yield info, _too_large(info.size, limit)
            elif isinstance(content, bytes):
                try:
                    yield info, _whole(BytesIO(content), info, limit)
                except (EOFError, zlib.error, gzip.BadGzipFile, ConnectorError) as error:
                    yield info, error
            elif isinstance(content, UNREADABLE):
                yield info, content
            else:
                raise content


def _whole(file: BinaryIO, info: FileInfo, limit: int) -> bytes:
    if info.path.endswith(".gz"):
        with gzip.GzipFile(fileobj=file) as unzipped:
            data = unzipped.read(limit + 1)
    elif info.size > limit:
        raise _too_large(info.size, limit)
    else:
        data = file.read()
    if len(data) > limit:
        raise _too_large(len(data), limit)
    return data


def _too_large(size: int, limit: int) -> ConnectorError:
    return ConnectorError(
        f"it has {size} bytes or more, the limit is {limit}; split it into JSON Lines, or raise "
        "max_document_bytes if memory allows"
    )


def _open_regular(path: str) -> tuple[int, os.stat_result]:
    # Without O_NONBLOCK, opening a named pipe waits for somebody to write to it.
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    status = os.fstat(handle)
    if not stat.S_ISREG(status.st_mode):
        os.close(handle)
        raise PermissionError(0, "not a regular file", path)
    return handle, status


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise ConnectorError(
            f"{folder} cannot be listed: {error.strerror}; make it readable, or choose a "
            "directory and pattern that leave it out"
        ) from error


def _matching(folder: str, parts: list[str]) -> Iterator[os.DirEntry[str]]:
    """Yields the entries that match, one part of the pattern for each level of folders.

    `Path.glob` would pass over a folder that it may not list without a word.
    """
    first, rest = parts[0], parts[1:]
    if first == "**":
        yield from _matching(folder, rest)
        for entry in _entries(folder):
            # Links are not followed here: one that leads upwards would never end.
            if entry.is_dir(follow_symlinks=False):
                yield from _matching(entry.path, parts)
        return
    matches = re.compile(fnmatch.translate(first)).match
    for entry in _entries(folder):
        if matches(entry.name):
            if not rest:
                if not entry.is_dir():
                    yield entry
            elif entry.is_dir():
                yield from _matching(entry.path, rest)


def _local_info(entry: os.DirEntry[str]) -> FileInfo:
    try:
        status = entry.stat()
    except OSError:
        return FileInfo(entry.path, 0, None)
    readable = stat.S_ISREG(status.st_mode) and os.access(
        entry.path, os.R_OK, effective_ids=os.access in os.supports_effective_ids
    )
    return FileInfo(entry.path, status.st_size if readable else 0, _iso(status.st_mtime))


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat()


def _shown(url: str) -> str:
    return redact(without_url_password(url))


def _time_of(info: dict[str, Any]) -> str | None:
    for name in _REMOTE_TIMES:
        value = info.get(name)
        if isinstance(value, datetime) and value.tzinfo is None:
            return value.replace(tzinfo=timezone.utc).isoformat()
        if isinstance(value, date):
            return value.isoformat()
        if isinstance(value, int | float):
            return _iso(value)
        if isinstance(value, str):
            return value
    return None
