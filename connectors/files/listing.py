"""Lists the files of a directory, on a local disk or at an fsspec URL."""

from __future__ import annotations

import fnmatch
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from enum import Enum
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, Protocol, TypeAlias

from contextframe_beam.connectors.secrets import redact
from contextframe_beam.errors import ConfigError, ConnectorError

#: What concerns one file only; other errors mean that the disk or the network is in trouble.
UNREADABLE = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)

ReadAt: TypeAlias = Callable[[int, int], bytes]
"""`read(offset, size)` gives up to `size` bytes, fewer only at the end of the file."""


class FileChangedError(ConnectorError):
    """A file has changed since it was listed or opened."""


class FileTooLargeError(ConnectorError):
    """A file of more bytes than the limit."""

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(f"it has {size} bytes or more, the limit is {limit}")
        self.size = size


class Links(Enum):
    """Which links are followed; the others are counted.

    Attributes:
        FILES: Those to any file, and those to folders inside of the directory.
        INSIDE: Those to files and folders inside of the directory.
        ALL: All.
    """

    FILES = "files"
    INSIDE = "inside"
    ALL = "all"


@dataclass(frozen=True, slots=True)
class FileInfo:
    """One file of a listing.

    Attributes:
        path: Its absolute path or its URL.
        size: In bytes; 0 for what cannot be read.
        modified_at: When it was last changed, ISO 8601 with its offset, where that is known: the
            same text on machines of all time zones.
        version: Differs when the file has become another: inode and time of change on a disk, the
            etag or generation of an object store.
    """

    path: str
    size: int
    modified_at: str | None
    version: str = ""


@dataclass(slots=True)
class Listing:
    """The files that a pattern means.

    Attributes:
        files: Those that are read, sorted by path.
        hidden: The paths of those that would be read if hidden ones were.
        outside: Links that lead out of the directory and are not followed.
        unnamed: Keys of an object store that end in a slash although they hold something.
    """

    files: list[FileInfo] = field(default_factory=list)
    hidden: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)
    unnamed: list[str] = field(default_factory=list)


class Files(Protocol):
    """The files below one directory."""

    root: Path | str
    is_remote: bool

    def path_of(self, address: str) -> str:
        """Returns the path in the directory of a file of a listing."""

    def address_of(self, path: str) -> str:
        """Returns the address, as in a listing, of a path in the directory."""

    def check(self) -> None:
        """Verifies that the directory is there and can be listed.

        Raises:
            ConnectorError: it is not; the message says what to do.
        """

    def list(
        self,
        pattern: str,
        hidden: bool = False,
        links: Links = Links.FILES,
        exclusion: Exclusion | None = None,
    ) -> Listing:
        """Returns the files that match a pattern such as `**/*.json`.

        Args:
            pattern: What `parts_of` takes.
            hidden: Whether hidden files and folders are looked at as well.
            links: Which links are followed.
            exclusion: What is left out.

        Raises:
            ConnectorError: a folder on the way cannot be listed.
        """

    def some(self, limit: int) -> Iterator[str]:
        """Yields the paths of some files below the directory, hidden ones left out.

        Args:
            limit: How many files and folders to look at.
        """

    def reader(
        self, info: FileInfo, as_listed: bool = True
    ) -> AbstractContextManager[tuple[FileInfo, ReadAt]]:
        """Opens a file as a context that gives what it is, and bytes of this version of it alone.

        Args:
            info: The file.
            as_listed: Whether it must be the version that was listed; else it is the one that is
                there now.

        Raises:
            FileChangedError: it is another one, or becomes one while it is read.
        """

    def contents(
        self, infos: Sequence[FileInfo], limit: int
    ) -> Iterator[tuple[FileInfo, bytes | Exception]]:
        """Yields what is in each file, of one version of it, or why it cannot be had.

        Args:
            infos: The files.
            limit: Larger contents, in bytes, are an error and are not held.
        """

    def heads(self, infos: Sequence[FileInfo], size: int) -> Iterator[bytes | None]:
        """Yields the first bytes of each file; None where they cannot be had.

        Args:
            infos: The files.
            size: How many bytes.
        """


def reason_of(error: BaseException) -> str:
    """Returns what an error says, without the number and path that the system adds."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return redact(str(error) or type(error).__name__)


def utc_text(seconds: float) -> str:
    """Returns a time, in seconds since 1970, as text."""
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat()


def changed(before: FileInfo, now: FileInfo) -> FileChangedError:
    """Returns the error that says how a file has changed."""
    if now.size > before.size:
        how = f"it grew from {before.size} to {now.size} bytes"
    elif now.size < before.size:
        how = f"it had {before.size} bytes and has {now.size}"
    else:
        how = "it was written again"
    return FileChangedError(
        f"it changed after it was listed ({how}), and what it was cannot be read any more; "
        "run again to read it as it is"
    )


#: Stands for any number of folders.
ANY_FOLDERS = "**"


class Match(Enum):
    """What a name is to a pattern."""

    NO = 0
    HIDDEN = 1
    YES = 2


def parts_of(pattern: str) -> list[str]:
    """Returns what a pattern says of each name on the way to a file.

    Raises:
        ConfigError: it does not name files below the directory.
    """
    if not pattern or pattern.startswith("/") or ".." in PurePosixPath(pattern).parts:
        raise ConfigError(
            f"pattern {pattern!r} must name files below the directory, as in '**/*.json'"
        )
    parts = [part for part in pattern.split("/") if part not in ("", ".")]
    if parts[-1:] == [ANY_FOLDERS]:
        parts.append("*")
    if not parts:
        raise ConfigError(f"pattern {pattern!r} names no file; give one such as '*.json'")
    return parts


def match_name(part: str, name: str) -> Match:
    """Returns whether one name is what one part of a pattern means."""
    if part == ANY_FOLDERS:
        return Match.HIDDEN if name.startswith(".") else Match.YES
    if part == name:
        return Match.YES
    if not _compiled(part)(name):
        return Match.NO
    return Match.HIDDEN if name.startswith(".") and not part.startswith(".") else Match.YES


def match_names(parts: Sequence[str], names: Sequence[str]) -> Match:
    """Returns whether the names on the way to a file are what the parts of a pattern mean."""
    if not parts or not names:
        return Match.YES if not parts and not names else Match.NO
    first, rest = parts[0], parts[1:]
    if first != ANY_FOLDERS:
        found = match_name(first, names[0])
        return found if found is Match.NO else _worse(found, match_names(rest, names[1:]))
    best, passed = Match.NO, Match.YES
    for start, name in enumerate(names):
        found = _worse(passed, match_names(rest, names[start:]))
        if found.value > best.value:
            best = found
        if best is Match.YES:
            break
        passed = _worse(passed, match_name(ANY_FOLDERS, name))
    return best


def fixed_folders(parts: Sequence[str]) -> int:
    """Returns how many folders a pattern names letter by letter before its first other part."""
    for count, part in enumerate(parts[:-1]):
        if any(character in part for character in "*?["):
            return count
    return len(parts) - 1


class Exclusion:
    """What is left out of a directory: files, and folders with all that is in them.

    Args:
        patterns: Each with a slash is a pattern of paths below the directory; one without is a
            pattern of names, wherever they are.

    Raises:
        ConfigError: a pattern does not name anything below the directory.
    """

    def __init__(self, patterns: Iterable[str]) -> None:
        self._names: list[str] = []
        self._paths: list[list[str]] = []
        for pattern in patterns:
            parts = parts_of(pattern)
            if "/" in pattern.rstrip("/"):
                self._paths.append(parts)
            else:
                self._names.append(parts[0])

    def leaves_out(self, names: Sequence[str]) -> bool:
        """Returns whether a file or folder is left out, in a folder that is not.

        Args:
            names: Those on the way to it, from the directory on.
        """
        return any(match_name(one, names[-1]) is not Match.NO for one in self._names) or any(
            match_names(parts, names) is not Match.NO for parts in self._paths
        )

    def leaves_out_some(self, names: Sequence[str]) -> bool:
        """Returns whether a file or a folder on the way to it is left out."""
        return any(self.leaves_out(names[:count]) for count in range(1, len(names) + 1))


def _worse(one: Match, other: Match) -> Match:
    return one if one.value <= other.value else other


@lru_cache(maxsize=256)
def _compiled(part: str) -> Callable[[str], re.Match[str] | None]:
    return re.compile(fnmatch.translate(part)).match


#: The name under which it is kept, among the states of partitions, that hidden files are left out.
HIDDEN = "hidden"

_LEFT_OUT = {"left_out": True}
_MOST_KINDS = 4


def left_out(listing: Listing, states: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Returns what was left out although the pattern means it, each with what to do about it.

    Args:
        listing: The files.
        states: The states of the source; hidden files are no news when one says so.
    """
    found = []
    if listing.outside:
        some = some_of(listing.outside, "link to a folder", "links to folders", "lead")
        advice = "such links are not followed: give their folders as sources of their own"
        found.append((f"{some} out of the directory", advice))
    if listing.unnamed:
        some = some_of(listing.unnamed, "object", "objects", "have")
        found.append((f"{some} a key that ends in a slash", "such keys are not read: copy them"))
    if listing.hidden and states.get(HIDDEN) != _LEFT_OUT:
        advice = (
            "such files are read with hidden=True. Documents that an earlier run made "
            "of them are kept by this run, and deleted by the next mirror"
        )
        found.append(
            (f"{some_of(listing.hidden, 'hidden file', 'hidden files', 'were')} left out", advice)
        )
    return found


def state_after(
    listing: Listing, with_hidden: bool, states: Mapping[str, Any]
) -> dict[str, Any] | None:
    """Returns what is kept of this among the states; None where nothing was kept and need be."""
    if listing.hidden:
        return dict(_LEFT_OUT)
    if with_hidden and HIDDEN in states:
        return {"left_out": False}
    return states.get(HIDDEN)


def described(names: Iterable[str], best: Sequence[str] = ()) -> str:
    """Returns which kinds of files there are, and how to have them read.

    Args:
        names: The paths of files below the directory, with slashes.
        best: Endings of the files that are most likely meant; else those there are most of.
    """
    kinds: Counter[str] = Counter()
    for name in names:
        path = PurePosixPath(name)
        kind = f"*{path.suffix}" if path.suffix and path.stem else path.name
        kinds[f"**/{kind}" if len(path.parts) > 1 else kind] += 1
    if not kinds:
        return "there is no file in it"
    shown = ", ".join(f"{count:,} {kind}" for kind, count in kinds.most_common(_MOST_KINDS))
    more = f" and {len(kinds) - _MOST_KINDS} kinds more" if len(kinds) > _MOST_KINDS else ""
    meant = max(kinds, key=lambda kind: (any(one in kind for one in best), kinds[kind]))
    return f"there are {shown}{more}; the pattern {meant!r} would match some"


_SINGULAR = {"were": "was", "have": "has", "lead": "leads"}


def some_of(paths: Sequence[str], one: str, several: str, verb: str) -> str:
    """Returns in words how many paths there are, with one of them.

    Args:
        paths: The paths, at least one.
        one: What one of them is called.
        several: What several are called.
        verb: What is said of several: `were`, `have` or `lead`.
    """
    if len(paths) == 1:
        return f"1 {one}, {printable(paths[0])}, {_SINGULAR[verb]}"
    return f"{len(paths):,} {several}, such as {printable(paths[0])}, {verb}"


def printable(path: str) -> str:
    """Returns a path as text that can be stored: Linux allows file names that are no Unicode."""
    if path.isascii():
        return path
    return path.encode(errors="surrogateescape").decode(errors="backslashreplace")
