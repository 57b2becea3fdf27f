"""Where files of JSON are: on this machine or in an object store, read as they were listed."""

from __future__ import annotations

import os
import stat
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import date, datetime, timezone
from itertools import islice
from pathlib import Path
from typing import Any

from contextframe_beam.connectors.json_files.listing import (
    ANY_FOLDERS,
    UNREADABLE,
    FileChangedError,
    FileInfo,
    Listing,
    Match,
    ReadAt,
    changed,
    fixed_folders,
    match_name,
    match_names,
    parts_of,
    reason_of,
    too_large,
    utc_text,
)
from contextframe_beam.connectors.secrets import redact
from contextframe_beam.errors import ConfigError, ConnectorError

_ATTEMPTS = 3
# Kernels before 6.13 give the same time to writes of one tick of their clock, which is up to 10 ms.
_TICK_NS = 20_000_000


class LocalFiles:
    """The files below a folder.

    Args:
        root: The folder, an absolute path.
    """

    is_remote = False

    def __init__(self, root: Path) -> None:
        self.root: Path | str = root

    def check(self) -> None:
        """As `Files` says."""
        if not os.path.exists(self.root):
            raise ConnectorError(f"Directory not found: {self.root}; check the path")
        if not os.path.isdir(self.root):
            raise ConnectorError(
                f"Not a directory: {self.root}; give its folder, and its name as the pattern"
            )
        _entries(_Walk(str(self.root), False).root)

    def list(self, pattern: str, hidden: bool = False) -> Listing:
        """As `Files` says."""
        walk = _Walk(str(self.root), hidden)
        walk.go(walk.root, parts_of(pattern))
        files = [_listed(path) for path in sorted(walk.found)]
        now = time.time_ns()
        if any(_is_young(info, now) for info in files):
            time.sleep(_TICK_NS / 1e9)
            files = [_listed(info.path) if _is_young(info, now) else info for info in files]
        return Listing(
            files,
            sorted(walk.hidden - walk.found),
            sorted(walk.outside),
        )

    def some(self, limit: int) -> Iterator[str]:
        """As `Files` says."""
        left = limit
        for folder, folders, names in os.walk(self.root):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            below = os.path.relpath(folder, self.root)
            for name in names[: max(left, 0)]:
                if not name.startswith("."):
                    yield os.path.normpath(os.path.join(below, name))
            left -= len(names) + len(folders)
            if left <= 0:
                return

    @contextmanager
    def reader(self, info: FileInfo, as_listed: bool = True) -> Iterator[tuple[FileInfo, ReadAt]]:
        """As `Files` says."""
        handle, status = _open_regular(info.path)
        try:
            if as_listed:
                now = _opened(info.path, status)
                _require_same(info, now)
            else:
                now = _opened(info.path, _settled(handle, status))

            def read(offset: int, size: int) -> bytes:
                data = os.pread(handle, size, offset)
                # Whoever writes into a file changes its time: so these bytes are of that version.
                _require_same(now, _opened(info.path, os.fstat(handle)))
                return data

            yield now, read
        finally:
            os.close(handle)

    def contents(
        self, infos: Sequence[FileInfo], limit: int
    ) -> Iterator[tuple[FileInfo, bytes | Exception]]:
        """As `Files` says."""
        for info in infos:
            try:
                yield self._whole(info, limit)
            except (*UNREADABLE, ConnectorError) as error:
                yield info, error

    def heads(self, infos: Sequence[FileInfo], size: int) -> Iterator[bytes | None]:
        """As `Files` says."""
        for info in infos:
            try:
                handle, _ = _open_regular(info.path)
            except UNREADABLE:
                yield None
                continue
            try:
                yield os.pread(handle, size, 0)
            finally:
                os.close(handle)

    def _whole(self, info: FileInfo, limit: int) -> tuple[FileInfo, bytes]:
        for _ in range(_ATTEMPTS):
            handle, before = _open_regular(info.path)
            try:
                before = _settled(handle, before)
                now = _opened(info.path, before)
                if now.size > limit:
                    raise too_large(now.size, limit)
                data = os.read(handle, now.size)
                while 0 < len(data) < now.size and (more := os.read(handle, now.size)):
                    data += more
                after = os.fstat(handle)
            finally:
                os.close(handle)
            if (before.st_mtime_ns, now.size) == (after.st_mtime_ns, after.st_size):
                return now, data
        raise changed(now, _opened(info.path, after))


@dataclass(frozen=True)
class _Folder:
    """A folder on the way to files.

    Attributes:
        path: As it was come to.
        real: Its path without links.
        above: The real paths of the folders on the way to it, and its own.
        links: How many links to folders are among them.
        is_hidden: Whether what is in it is left out.
    """

    path: str
    real: str
    above: frozenset[str]
    links: int = 0
    is_hidden: bool = False

    def below(self, entry: os.DirEntry[str], is_hidden: bool) -> _Folder:
        is_link = entry.is_symlink()
        real = os.path.realpath(entry.path) if is_link else os.path.join(self.real, entry.name)
        return _Folder(entry.path, real, self.above | {real}, self.links + is_link, is_hidden)


class _Walk:
    """Finds the files that a pattern means, one part of it for each level of folders.

    `Path.glob` would pass over a folder that it may not list without a word.

    Attributes:
        found: The paths of the files.
        hidden: The paths of those that are left out because they, or a folder above, are hidden.
        outside: The links to folders outside of the root that `**` met.
    """

    def __init__(self, root: str, with_hidden: bool) -> None:
        self.found: set[str] = set()
        self.hidden: set[str] = set()
        self.outside: set[str] = set()
        real = os.path.realpath(root)
        self.root = _Folder(root, real, frozenset({real}))
        self._with_hidden = with_hidden
        self._entered: set[tuple[str, int]] = set()

    def go(self, folder: _Folder, parts: Sequence[str]) -> None:
        """Looks through a folder for what is left of the pattern."""
        first, rest = parts[0], parts[1:]
        if first == ANY_FOLDERS:
            self.go(folder, rest)
            self._entered.add((folder.real, len(parts)))
        for entry in _entries(folder):
            match = match_name(first, entry.name)
            is_hidden = folder.is_hidden or (match is Match.HIDDEN and not self._with_hidden)
            if match is Match.NO:
                continue
            if entry.is_dir():
                if first == ANY_FOLDERS:
                    self._descend(folder, folder.below(entry, is_hidden), parts)
                elif rest:
                    self.go(folder.below(entry, is_hidden), rest)
            elif first != ANY_FOLDERS and not rest:
                if is_hidden:
                    self.hidden.add(entry.path)
                else:
                    self.found.add(entry.path)

    def _descend(self, folder: _Folder, below: _Folder, parts: Sequence[str]) -> None:
        if below.links > folder.links:
            if below.is_hidden:
                return
            if os.path.commonpath([below.real, self.root.real]) != self.root.real:
                self.outside.add(below.path)
                return
        # A link back to a folder above has no end. Links behind links are followed to what was not
        # seen yet: ten folders that link to each other can be gone through in millions of ways.
        seen = below.links > 1 and (below.real, len(parts)) in self._entered
        if below.real not in folder.above and not seen:
            self.go(below, parts)


def _entries(folder: _Folder) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder.path) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        if folder.is_hidden:
            return []
        raise ConnectorError(
            f"{folder.path} cannot be listed: {error.strerror}; make it readable, or choose a "
            "directory and pattern that leave it out"
        ) from error


def _listed(path: str) -> FileInfo:
    try:
        status = os.stat(path)
    except OSError:
        return FileInfo(path, 0, None)
    info = _opened(path, status)
    readable = stat.S_ISREG(status.st_mode) and os.access(
        path, os.R_OK, effective_ids=os.access in os.supports_effective_ids
    )
    return info if readable else FileInfo(path, 0, info.modified_at, info.version)


def _is_young(info: FileInfo, now: int) -> bool:
    """Tells whether a file was written so shortly before that its time need not show it again."""
    return bool(info.version) and 0 <= now - int(info.version.split()[1]) < _TICK_NS


def _settled(handle: int, status: os.stat_result) -> os.stat_result:
    """Returns what an open file is, at a time after which each write shows in it."""
    for _ in range(_ATTEMPTS):
        if not 0 <= time.time_ns() - status.st_mtime_ns < _TICK_NS:
            break
        time.sleep(_TICK_NS / 1e9)
        status = os.fstat(handle)
    return status


def _open_regular(path: str) -> tuple[int, os.stat_result]:
    # Without O_NONBLOCK, opening a named pipe waits for somebody to write to it.
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    status = os.fstat(handle)
    if not stat.S_ISREG(status.st_mode):
        os.close(handle)
        raise PermissionError(0, "not a regular file", path)
    return handle, status


def _opened(path: str, status: os.stat_result) -> FileInfo:
    version = f"{status.st_ino} {status.st_mtime_ns}"
    return FileInfo(path, status.st_size, utc_text(status.st_mtime), version)


def _require_same(before: FileInfo, now: FileInfo) -> None:
    if (before.size, before.version) != (now.size, now.version):
        raise changed(before, now)


_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs"}
_TIMES = ("LastModified", "last_modified", "mtime", "updated", "modified", "created")
_VERSIONS = ("generation", "ETag", "etag", "e_tag", "md5Hash", "content_md5")
_REQUESTS_AT_ONCE = 16


class StoreFiles:
    """The files below a URL.

    Args:
        url: The folder.

    Raises:
        ConfigError: nothing installed can read such a URL.
    """

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
        """As `Files` says."""
        try:
            self._fs.invalidate_cache()
            exists, is_folder = self._fs.exists(self._path), self._fs.isdir(self._path)
        except Exception as error:
            raise self._unlisted(error) from error
        if not exists:
            raise ConnectorError(f"Directory not found: {self._shown}; check the URL")
        if not is_folder:
            raise ConnectorError(
                f"Not a directory: {self._shown}; give its folder, and its name as the pattern"
            )

    def list(self, pattern: str, hidden: bool = False) -> Listing:
        """As `Files` says."""
        parts = parts_of(pattern)
        try:
            self._fs.invalidate_cache()
            found = dict(self._below(parts))
        except OSError as error:
            raise self._unlisted(error) from error
        listing = Listing()
        for name, info in sorted(found.items()):
            names = name[len(self._path) + 1 :].split("/")
            path = self._fs.unstrip_protocol(name)
            if not names[-1]:
                # What some programs put in place of a folder is empty.
                if info.get("size") and match_names(parts, names[:-1]) is Match.YES:
                    listing.unnamed.append(path)
                continue
            match = match_names(parts, names)
            if match is Match.YES or (match is Match.HIDDEN and hidden):
                listing.files.append(_info_of(path, info))
            elif match is Match.HIDDEN:
                listing.hidden.append(path)
        return listing

    def some(self, limit: int) -> Iterator[str]:
        """As `Files` says."""
        left = limit
        folders = deque([self._path])
        while folders and left > 0:
            for info in islice(self._entries(folders.popleft()), left):
                left -= 1
                name = info["name"].rstrip("/")
                if name.rpartition("/")[2].startswith("."):
                    continue
                if info.get("type") == "directory":
                    folders.append(name)
                else:
                    yield name[len(self._path) + 1 :]
            # Each folder is a request.
            left -= limit // 100

    @contextmanager
    def reader(self, info: FileInfo, as_listed: bool = True) -> Iterator[tuple[FileInfo, ReadAt]]:
        """As `Files` says."""
        now = info

        def read(offset: int, size: int) -> bytes:
            nonlocal now
            try:
                return self._range(now, offset, size)
            except FileChangedError:
                if as_listed or offset:
                    raise
            now = self._info(info)
            return self._range(now, offset, size)

        yield now, read

    def contents(
        self, infos: Sequence[FileInfo], limit: int
    ) -> Iterator[tuple[FileInfo, bytes | Exception]]:
        """As `Files` says."""

        def whole(info: FileInfo) -> bytes | Exception:
            if info.size > limit:
                return too_large(info.size, limit)
            try:
                return self._get(info.path)
            except UNREADABLE as error:
                return error

        # Many small files at once: one after the other would wait for the network each time.
        with ThreadPoolExecutor(_REQUESTS_AT_ONCE) as pool:
            yield from zip(infos, pool.map(whole, infos), strict=True)

    def heads(self, infos: Sequence[FileInfo], size: int) -> Iterator[bytes | None]:
        """As `Files` says."""

        def head(info: FileInfo) -> bytes | None:
            try:
                with self.reader(info) as (_, read):
                    return read(0, size)
            except (*UNREADABLE, FileChangedError):
                return None

        with ThreadPoolExecutor(_REQUESTS_AT_ONCE) as pool:
            for first in range(0, len(infos), _REQUESTS_AT_ONCE):
                yield from pool.map(head, infos[first : first + _REQUESTS_AT_ONCE])

    def _below(self, parts: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yields the names and descriptions of objects among which are all that match."""
        fixed = fixed_folders(parts)
        folders = ["/".join([self._path, *parts[:fixed]])]
        rest = list(parts[fixed:])
        while rest and rest[0] != ANY_FOLDERS:
            first, rest = rest[0], rest[1:]
            below = []
            for folder in folders:
                for info in self._entries(folder):
                    name = info["name"]
                    if info.get("type") != "directory":
                        if not rest:
                            yield name, info
                    elif match_name(first, name.rstrip("/").rpartition("/")[2]) is not Match.NO:
                        below.append(name.rstrip("/"))
            folders = below
        if rest:
            for folder in folders:
                for name, info in self._fs.find(folder, detail=True).items():
                    if info.get("type") != "directory":
                        yield name, info

    def _entries(self, folder: str) -> Iterator[dict[str, Any]]:
        with suppress(FileNotFoundError):
            yield from self._fs.ls(folder, detail=True)

    def _name(self, path: str) -> str:
        # Not _strip_protocol, which would take off a slash at the end, and more.
        name: str = path
        for protocol in _protocols(self._fs):
            name = name.removeprefix(f"{protocol}://")
        return name

    def _info(self, info: FileInfo) -> FileInfo:
        self._fs.invalidate_cache()
        return _info_of(info.path, self._fs.info(self._name(info.path)))

    def _range(self, info: FileInfo, start: int, size: int) -> bytes:
        """Reads bytes of one version of an object."""
        # Object stores refuse a range that begins after the end.
        end = min(start + size, info.size)
        if start >= end:
            return b""
        name = self._name(info.path)
        if "s3" in _protocols(self._fs) and info.version:
            return self._from_s3(name, info, Range=f"bytes={start}-{end - 1}", IfMatch=info.version)
        pins = {}
        if "gs" in _protocols(self._fs) and info.version:
            pins["generation"] = info.version
        try:
            data: bytes = self._fs.cat_file(name, start=start, end=end, **pins)
        except FileNotFoundError:
            if pins and self._fs.exists(name):
                raise changed(info, self._info(info)) from None
            raise
        if not pins:
            now = self._info(info)
            if (now.size, now.version) != (info.size, info.version):
                raise changed(info, now)
        return data

    def _get(self, path: str) -> bytes:
        """Reads an object by one request, and so one version of it."""
        name = self._name(path)
        if "s3" in _protocols(self._fs):
            return self._from_s3(name, None)
        data: bytes = self._fs.cat_file(name)
        return data

    def _from_s3(self, name: str, info: FileInfo | None, **conditions: str) -> bytes:
        from s3fs.core import S3_RETRYABLE_ERRORS

        bucket, key, _ = self._fs.split_path(name)
        for left in reversed(range(self._fs.retries)):
            try:
                answer = self._fs.call_s3("get_object", Bucket=bucket, Key=key, **conditions)
                return _body(self._fs, answer)
            except S3_RETRYABLE_ERRORS:  # while the body came; others are tried again by call_s3
                if not left:
                    raise
            except OSError as error:
                if info is not None and "pre-condition" in str(error):
                    raise changed(info, self._info(info)) from error
                raise
        raise AssertionError("unreachable")

    def _unlisted(self, error: Exception) -> ConnectorError:
        return ConnectorError(
            f"{self._shown} cannot be listed: {reason_of(error)}; "
            "check the address and the credentials"
        )


def _body(fs: Any, answer: dict[str, Any]) -> bytes:
    from fsspec.asyn import sync

    async def read() -> bytes:
        body = answer["Body"]
        try:
            data: bytes = await body.read()
            return data
        finally:
            body.close()

    data: bytes = sync(fs.loop, read)
    return data


def _protocols(fs: Any) -> tuple[str, ...]:
    return (fs.protocol,) if isinstance(fs.protocol, str) else tuple(fs.protocol)


def _info_of(path: str, info: dict[str, Any]) -> FileInfo:
    modified_at = _time_of(info)
    version = next((str(info[name]) for name in _VERSIONS if info.get(name)), modified_at)
    return FileInfo(path, int(info.get("size") or 0), modified_at, version or "")


def _shown(url: str) -> str:
    return redact(url)


def _time_of(info: dict[str, Any]) -> str | None:
    for name in _TIMES:
        value = info.get(name)
        if isinstance(value, datetime) and value.tzinfo is None:
            return value.replace(tzinfo=timezone.utc).isoformat()
        if isinstance(value, date):
            return value.isoformat()
        if isinstance(value, int | float):
            return utc_text(value)
        if isinstance(value, str):
            return value
    return None
