"""The files of a folder on this machine: how they are found, and read in one version."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from contextframe_beam.connectors.files.listing import (
    ANY_FOLDERS,
    UNREADABLE,
    Exclusion,
    FileInfo,
    FileTooLargeError,
    Links,
    Listing,
    Match,
    ReadAt,
    changed,
    match_name,
    parts_of,
    utc_text,
)
from contextframe_beam.errors import ConnectorError

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

    def path_of(self, address: str) -> str:
        """As `Files` says."""
        return address.removeprefix(os.path.join(self.root, ""))

    def address_of(self, path: str) -> str:
        """As `Files` says."""
        return os.path.join(self.root, path)

    def check(self) -> None:
        """As `Files` says."""
        if not os.path.exists(self.root):
            raise ConnectorError(f"Directory not found: {self.root}; check the path")
        if not os.path.isdir(self.root):
            raise ConnectorError(
                f"Not a directory: {self.root}; give its folder, and its name as the pattern"
            )
        _entries(_Walk(str(self.root)).root)

    def list(
        self,
        pattern: str,
        hidden: bool = False,
        links: Links = Links.FILES,
        exclusion: Exclusion | None = None,
    ) -> Listing:
        """As `Files` says."""
        walk = _Walk(str(self.root), hidden, links, exclusion)
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
                    raise FileTooLargeError(now.size, limit)
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
        outside: The links that lead out of the root and are not followed.
    """

    def __init__(
        self,
        root: str,
        with_hidden: bool = False,
        links: Links = Links.FILES,
        exclusion: Exclusion | None = None,
    ) -> None:
        self.found: set[str] = set()
        self.hidden: set[str] = set()
        self.outside: set[str] = set()
        real = os.path.realpath(root)
        self.root = _Folder(root, real, frozenset({real}))
        self._with_hidden = with_hidden
        self._links = links
        self._exclusion = exclusion
        self._start = len(os.path.join(root, ""))
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
            if match is Match.NO or self._is_excluded(entry):
                continue
            if entry.is_dir():
                if first == ANY_FOLDERS:
                    self._descend(folder, folder.below(entry, is_hidden), parts)
                elif rest and self._leads_out(entry):
                    self.outside.add(entry.path)
                elif rest:
                    self.go(folder.below(entry, is_hidden), rest)
            elif first != ANY_FOLDERS and not rest:
                if is_hidden:
                    self.hidden.add(entry.path)
                elif self._leads_out(entry):
                    self.outside.add(entry.path)
                else:
                    self.found.add(entry.path)

    def _is_excluded(self, entry: os.DirEntry[str]) -> bool:
        if self._exclusion is None:
            return False
        return self._exclusion.leaves_out(entry.path[self._start :].split(os.sep))

    def _leads_out(self, entry: os.DirEntry[str]) -> bool:
        """Returns whether it is a link that is not followed because it leads out of the root."""
        if self._links is not Links.INSIDE or not entry.is_symlink():
            return False
        return not self._is_inside(os.path.realpath(entry.path))

    def _is_inside(self, real: str) -> bool:
        return os.path.commonpath([real, self.root.real]) == self.root.real

    def _descend(self, folder: _Folder, below: _Folder, parts: Sequence[str]) -> None:
        if below.links > folder.links:
            if below.is_hidden:
                return
            if self._links is not Links.ALL and not self._is_inside(below.real):
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
    """Returns whether a file was written so shortly before that its time need not show it again."""
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
