"""Files that a service keeps on another host, such as Notion's at signed addresses.

They are read in ranges, each from a client of its host. A signed address lives for an hour and
anybody could use it, so none is kept: a file is asked for its address when it is read.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

from contextframe_beam.connectors.attachments import Attachments, RemoteFile
from contextframe_beam.connectors.files.item import FileItem, GoneError
from contextframe_beam.connectors.files.listing import FileTooLargeError
from contextframe_beam.connectors.http.client import HttpClient
from contextframe_beam.connectors.http.request import HttpError, origin_of
from contextframe_beam.connectors.kinds import PaginatedConnector
from contextframe_beam.errors import RecordError
from contextframe_beam.frames.values import is_unicode

_HEAD_BYTES = 256 << 10
# Documents that are kept where items are mapped outside of runs.
_KEPT_ALONE = 32
# How hosts refuse an address whose time is over.
_EXPIRED = frozenset({400, 401, 403, 410})


class Taken(NamedTuple):
    """What is kept of a file that no parser reads.

    Attributes:
        data: Its bytes; None where it is too large.
        content: Bytes that differ whenever this does.
    """

    data: bytes | None
    content: bytes


class HostedFiles:
    """Reads the files that items of the kind `attachment` are.

    Args:
        attachments: What becomes of files.
        fresh: Returns an address at which a file can be read now; None where it is gone.
        client: Makes a client for a host, with further settings.
    """

    def __init__(
        self,
        attachments: Attachments,
        fresh: Callable[[Mapping[str, Any]], str | None],
        client: Callable[..., HttpClient],
    ) -> None:
        self._attachments = attachments
        self._fresh = fresh
        self._client = client
        self._lock = threading.Lock()
        self._clients: dict[str, HttpClient] = {}

    def begin(self, item: FileItem, most: int) -> Taken | None:
        """Returns what is kept of a file; None for one that a parser makes a document of.

        Raises:
            GoneError: it is not in its page any more.
            HttpError: it cannot be had.
        """
        limit = min(most, self._attachments.most_bytes)
        try:
            file = self._begun(item)
            item["size"] = file.size
            if file.size is not None and file.size > limit:
                raise FileTooLargeError(file.size, limit)
            if item.get("how") == "text":
                item.handle = file
                return None
            data = file.read(limit)
        except FileTooLargeError as error:
            item["size"], item.handle = error.size, None
            return Taken(None, f"metadata {error.size}".encode())
        item["size"], item.handle = len(data), None
        return Taken(data, data)

    def head(self, item: FileItem, size: int) -> bytes:
        """Returns the first bytes of a file.

        Raises:
            HttpError: it cannot be had.
        """
        return self._file(item).head(size)

    def read(self, item: FileItem, most: int) -> bytes:
        """Returns the bytes of a file.

        Raises:
            FileTooLargeError: it has more than `most`, or than attachments may have.
            HttpError: it cannot be had.
        """
        data = self._file(item).read(min(most, self._attachments.most_bytes))
        item["size"], item.handle = len(data), None
        return data

    def _file(self, item: FileItem) -> RemoteFile:
        """Returns the file that an item is, as far as it was read."""
        if isinstance(item.handle, RemoteFile):
            return item.handle
        return self._at(item.handle if isinstance(item.handle, str) else self._again(item))

    def _begun(self, item: FileItem) -> RemoteFile:
        """Reads the first bytes of a file; at a new address where the former one expired."""
        file = self._file(item)
        try:
            file.head(_HEAD_BYTES)
        except HttpError as error:
            if error.status not in _EXPIRED:
                raise
            file = self._at(self._again(item))
            file.head(_HEAD_BYTES)
        return file

    def _again(self, item: FileItem) -> str:
        address = self._fresh(item)
        if address is None:
            raise GoneError(f"{item.get('name')} is not there any more")
        return address

    def _at(self, address: str) -> RemoteFile:
        """Returns the file at an address."""
        origin = origin_of(address)
        with self._lock:
            if origin not in self._clients:
                most = max(self._attachments.most_bytes, _HEAD_BYTES)
                self._clients[origin] = self._client(origin, max_response_bytes=most)
            return RemoteFile(self._clients[origin], address)


class HostedConnector(PaginatedConnector):
    """A connector that gives files, which its `_files` reads: a `HostedFiles`, or one like it."""

    gives_files = True
    _files: Any

    #: What items have that may be another value when the same item is mapped again.
    _not_read: ClassVar[frozenset[str]] = frozenset(("size", "modified_at", "digest"))

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._unknown: set[str] = set()
        # Documents that were read outside of runs.
        self._alone: dict[str, Any] = {}

    def read_head(self, item: FileItem, size: int) -> bytes:
        """Returns the first bytes of a file.

        Raises:
            HttpError: it cannot be had.
        """
        head: bytes = self._files.head(item, size)
        return head

    def read_file(self, item: FileItem, most: int) -> bytes:
        """Returns the bytes of a file.

        Raises:
            FileTooLargeError: it has more than `most`.
            HttpError: it cannot be had.
        """
        data: bytes = self._files.read(item, most)
        return data

    def _read_alone(self, item: FileItem) -> None:
        """Reads an item outside of a run; whoever maps it again gets the same document."""
        told = {name: item[name] for name in sorted(item) if name not in self._not_read}
        read_alone(self, item, self._alone, json.dumps(told, default=str))

    def _count_unknown(self, form: str, count: int) -> None:
        """Counts markup that is not known, and tells of each form once."""
        with self._lock:
            self.add_stats(unknown_markup=count)
            if form in self._unknown:
                return
            self._unknown.add(form)
        self.logger.warning("%s: %s is not known here, and stands as plain text", self.name, form)


def read_alone(
    connector: Any, item: FileItem, kept: dict[str, Any] | None = None, key: str = ""
) -> None:
    """Gives an item its document outside of a run, which would have read it before.

    Args:
        connector: Whose item it is.
        item: The item.
        kept: The last documents by their keys, so that whoever maps an item again gets the same.
        key: The key of this one.

    Raises:
        RecordError: the file is too large, or the item is not from this connector.
        ContextFrameError: it cannot be read.
    """
    from contextframe_beam.parsers import Parsing

    if kept is not None and key in kept:
        item.document = kept[key]
        return
    parsing = Parsing()
    most = parsing.limits.max_file_bytes
    try:
        made = connector.own_document(item, most)
        if made is not None:
            item.document = made[0]
        else:
            name = str(item.get("name") or item["path"])
            if not is_unicode(name):
                raise RecordError(f"the name of the file, {name!a:.80}, is not Unicode text")
            item.document = parsing.pool.parse(name, connector.read_file(item, most))
    except (FileTooLargeError, KeyError) as error:
        raise RecordError(f"the file cannot be read: {error}") from error
    if kept is not None:
        kept[key] = item.document
        if len(kept) > _KEPT_ALONE:
            kept.pop(next(iter(kept)))
