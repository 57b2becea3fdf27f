"""What is known of the files in a directory, on a local disk or behind an fsspec URL."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Protocol, TypeAlias

from contextframe_beam.connectors.secrets import redact
from contextframe_beam.errors import ConnectorError

#: What concerns one file only; other errors mean that the disk or the network is in trouble.
UNREADABLE = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)

ReadAt: TypeAlias = Callable[[int, int], bytes]
"""`read(offset, size)` gives up to `size` bytes, fewer only at the end of the file."""


class FileChangedError(ConnectorError):
    """A file is no longer the one that was listed, or was opened."""


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
        outside: Links to folders outside of the directory, which are not followed.
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

    def check(self) -> None:
        """Verifies that the directory is there and can be listed.

        Raises:
            ConnectorError: it is not; the message says what to do.
        """

    def list(self, pattern: str, hidden: bool = False) -> Listing:
        """Returns the files that match a pattern such as `**/*.json`.

        Args:
            pattern: As `patterns.py` says.
            hidden: Whether hidden files and folders are looked at as well.

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
        how = "it was written anew"
    return FileChangedError(
        f"it changed after it was listed ({how}), and what it was cannot be read any more; "
        "run again to read it as it is"
    )


def too_large(size: int, limit: int) -> ConnectorError:
    """Returns the error for a document of more bytes than the limit."""
    return ConnectorError(
        f"it has {size} bytes or more, the limit is {limit}; split it into JSON Lines, or raise "
        "max_document_bytes if memory allows"
    )
