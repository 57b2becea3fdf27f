"""FilesConnector: the documents of a folder, on this machine or in an object store.

The connector lists and reads files and says what became of them in earlier runs; parsers make
documents of their bytes in the workers that map them.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any, ClassVar

from contextframe_beam.connectors.files.item import FileItem
from contextframe_beam.connectors.files.listing import (
    Exclusion,
    FileInfo,
    Links,
    Listing,
    described,
    parts_of,
    printable,
    reason_of,
    some_of,
)
from contextframe_beam.connectors.files.seen import (
    SEEN_FILES,
    Earlier,
    changed_within,
    mark_of,
    require_same_folder,
    seen_state,
)
from contextframe_beam.connectors.files.stores import files_in
from contextframe_beam.connectors.identity import jsonable
from contextframe_beam.connectors.kinds import PartsConnector
from contextframe_beam.connectors.page import DocumentVersion, Page, Partition
from contextframe_beam.connectors.plain_secrets import without_credentials
from contextframe_beam.connectors.read.reader import PlannedRun
from contextframe_beam.errors import (
    ConfigError,
    ContextFrameError,
    NotAuthenticatedError,
    RecordError,
)
from contextframe_beam.frames.document import Document
from contextframe_beam.frames.record import FrameRecord

# Where no file matches, so many are looked at to say what is there.
_LOOKED_AT = 10_000
_REMOTE_FILES_AT_ONCE = 8
# A group is what one worker reads at a time. Of a small folder groups are smaller, so that several
# workers have something to do: a PDF may take seconds.
_FILES_IN_A_GROUP = 200
_GROUP_BYTES = 32 << 20
_LEAST_GROUPS = 16
_SMALLEST_GROUP_BYTES = 64 << 10
# Nothing is read of files that are as they were.
_UNCHANGED_IN_A_GROUP = 5000

# Datasets, and what runs write beside them.
_OURS = ("*.lance", "*.lance.*", "*.dead-letters")

_NAME = re.compile(r"[^\s:#/]+")
_HEADING = re.compile(r"^#{1,6}[ \t]+(\S.*?)[ \t#]*$", re.MULTILINE)
_HEAD_OF_TEXT = 4096


class FilesConnector(PartsConnector):
    """Documents in a folder: Markdown, HTML, PDF, Office, e-mail, source code and other files.

    An item is a `FileItem`: the file's `path` in the folder, its `size` and `modified_at`, and,
    once it was read, the digest of its bytes. A record's unique_id is `files:<path>`, and so the
    same wherever the folder is.

    Args:
        directory: A path (`~` and relative ones work), or a URL such as `s3://bucket/folder`.
        pattern: Which files, as in `*.md`, `**/*.pdf` (all folders below) or `guide/**`.
        exclude: What to leave out. One without a slash is a name in any folder, as in `*.png` or
            `node_modules`; one with a slash is a path, as in `drafts/*.md`. A folder is left out
            with all that is in it.
        name: What ids begin with. Folders that go into one dataset need different names; a folder
            that is moved keeps its own.
        hidden: Read hidden files and folders as well, whose names begin with a dot.
        follow_links: Follow links out of the folder as well. Without it they are counted.

    Raises:
        ConfigError: an argument makes no sense.
    """

    # The directory is not among them: the same folder at another place is the same source, so that
    # it goes on where it was. `require_same_folder` tells it from others.
    identity_args: ClassVar[tuple[str, ...] | None] = ("name", "pattern", "exclude")
    gives_files = True
    by_time = True
    version: ClassVar[str] = "1"
    # No argument changes what a file becomes, but for its id.
    _maps_by: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        directory: str | os.PathLike[str],
        pattern: str = "**/*",
        exclude: Sequence[str] = (),
        name: str = "files",
        hidden: bool = False,
        follow_links: bool = False,
    ) -> None:
        super().__init__()
        parts_of(pattern)
        if not _NAME.fullmatch(name):
            raise ConfigError(
                f"name is {name!r}; ids begin with it, as in handbook:guide/a.md, so it has a sign "
                "and no space, colon, slash or number sign"
            )
        self.exclude = (exclude,) if isinstance(exclude, str) else tuple(exclude)
        self._exclusion = Exclusion((*self.exclude, *_OURS))
        self._files = files_in(directory)
        self.directory = self._files.root
        self._where = without_credentials(str(self.directory))
        self.pattern = pattern
        self.source_name = name
        self.hidden = hidden
        self.follow_links = follow_links
        #: Reading an object store waits for a network; reading a disk only works.
        self.files_at_once = _REMOTE_FILES_AT_ONCE if self._files.is_remote else 1

    def authenticate(self) -> bool:
        """Verifies that the directory can be listed.

        Raises:
            ConnectorError: it is missing, not a directory, or not readable. (It is a ValueError.)
        """
        self._files.check()
        self.authenticated = True
        return True

    def sync_documents(self) -> list[dict[str, Any]]:
        """Lists all files.

        Raises:
            NotAuthenticatedError: `authenticate` was not called.
            ConnectorError: a folder cannot be listed.
        """
        return list(self.sync_documents_stream())

    def sync_documents_stream(self) -> Iterator[dict[str, Any]]:
        """Yields what `sync_documents` returns, one file after the other."""
        if not self.authenticated:
            raise NotAuthenticatedError("Not authenticated: call authenticate() first")
        return super().sync_documents_stream()

    def document_version(self, item: Any) -> DocumentVersion | None:
        """Returns the id of the document that a file is; its version is that of its bytes."""
        return DocumentVersion(self._id_of(item), None)

    def read_file(self, item: FileItem, most: int) -> bytes:
        """Returns the bytes of a file, as it is when it is opened.

        Raises:
            FileTooLargeError: it has more than `most`.
            ConnectorError: it changes all the time.
            OSError: it cannot be read.
        """
        ((now, data),) = self._files.contents([self._info_of(item)], most)
        if isinstance(data, Exception):
            raise data
        item["size"], item["modified_at"] = len(data), now.modified_at
        return data

    def read_head(self, item: FileItem, size: int) -> bytes:
        """Returns the first bytes of a file.

        Raises:
            OSError: it cannot be read.
        """
        (head,) = self._files.heads([self._info_of(item)], size)
        # Whoever asks then reads it whole, which says why it cannot be had.
        return b"" if head is None else head

    def map_to_frame_record(self, item: dict[str, Any]) -> FrameRecord:
        """Turns a file into a record.

        The text is that of the parsed document. The title is the one that the file states, else its
        first heading, else its name. What else the file states becomes metadata, with the file's
        path as `source_file`, its ending as `source_type`, its size, and its address as
        `source_url` where it is in an object store.

        Raises:
            RecordError: the item is not from this connector, or its file cannot be read.
            ContextFrameError: outside of a run, where the file is parsed here: it cannot be.
        """
        if not isinstance(item, FileItem):
            item = FileItem.of(item)
        if not isinstance(item.get("path"), str) or not item["path"]:
            raise RecordError("the item has no path; give one that this connector has listed")
        document = item.document if item.document is not None else self._parsed(item)
        path = str(item["path"])
        name = path.rpartition("/")[2]
        stated = dict(document.metadata)
        # A file may be a copy of another one that states the same, and each has a row of its own.
        if "uuid" in stated:
            stated["stated_uuid"] = stated.pop("uuid")
        changed = stated.pop("modified_at", None)
        if changed:
            stated.setdefault("updated_at", changed)
        metadata = {
            **stated,
            "title": document.title or _first_heading(document) or name,
            "source_file": path,
            "file_size": item["size"],
        }
        ending = os.path.splitext(name)[1].lower().removeprefix(".")
        if ending:
            metadata["source_type"] = ending
        if self._files.is_remote:
            metadata["source_url"] = f"{self._where}/{path}"
        return FrameRecord(
            document.text, metadata, "document", self._id_of(item), item["modified_at"]
        )

    def source_identity(self, sync_kwargs: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Returns the class, the name, the pattern and what is left out."""
        identity = super().source_identity()
        arguments: dict[str, Any] = {"name": self.source_name, "pattern": self.pattern}
        if self.exclude:
            arguments["exclude"] = sorted(set(self.exclude))
        identity["arguments"] = jsonable(arguments)
        return identity

    def _id_of(self, item: Mapping[str, Any]) -> str:
        return f"{self.source_name}:{item['path']}"

    def _info_of(self, item: FileItem) -> FileInfo:
        if item.handle is None and (
            item["path"].startswith("/") or ".." in item["path"].split("/")
        ):
            raise RecordError(f"{item['path']} leads out of the folder")
        told = [item["path"], item["size"] or 0, item["modified_at"], ""]
        path, size, modified_at, version = item.handle or told
        return FileInfo(self._files.address_of(path), size, modified_at, version)

    def _parsed(self, item: FileItem) -> Document:
        """Parses a file outside of a run, which would have parsed it before."""
        from contextframe_beam.parsers import Parsing

        parsing = Parsing()
        try:
            data = self.read_file(item, parsing.limits.max_file_bytes)
            return parsing.pool.parse(str(item["path"]), data)
        except ContextFrameError:
            raise
        except (OSError, ValueError) as error:
            raise RecordError(f"the file cannot be read: {reason_of(error)}") from error

    def _listed(self) -> Listing:
        """Returns the files, by their paths in the folder."""
        links = Links.ALL if self.follow_links else Links.INSIDE
        listing = self._files.list(self.pattern, self.hidden, links, self._exclusion)
        listing.files = [
            replace(info, path=self._files.path_of(info.path)) for info in listing.files
        ]
        return listing

    def plan(self, run: PlannedRun) -> Iterator[Partition]:
        """Yields groups of files, each of one block.

        Args:
            run: What the run asks for, and what the plan says beside its partitions.
        """
        began = datetime.now(timezone.utc)
        states = run.known_states
        listing = self._listed()
        found, is_remote = listing.files, self._files.is_remote
        where = self._where
        if not run.anew:
            require_same_folder(found, where, states)
        self._tell(listing)
        # Files that did not change are still part of the folder.
        run.narrowed = ""
        run.reached = {SEEN_FILES: seen_state(found, began, run.made_with, where, is_remote)}
        if run.since is not None or run.until is not None:
            found = [info for info in found if changed_within(info, run.since, run.until)]
        earlier = Earlier({} if run.anew else states, run.made_with)
        marked = [(info, mark_of(info, is_remote)) for info in found]
        groups: dict[str, list[FileInfo]] = {"stored": [], "skipped": [], "new": []}
        for info, mark in marked:
            if earlier.is_stored(mark):
                groups["stored"].append(info)
            elif earlier.is_skipped(mark):
                groups["skipped"].append(info)
            else:
                groups["new"].append(info)
        yield from self._grouped(groups, run.made_with)

    def _grouped(
        self, groups: Mapping[str, Sequence[FileInfo]], made_with: str
    ) -> Iterator[Partition]:
        """Yields the partitions of files that are `stored`, `skipped` and `new`."""
        for kind in ("stored", "skipped"):
            infos = groups[kind]
            for start in range(0, len(infos), _UNCHANGED_IN_A_GROUP):
                yield _grouped(infos[start : start + _UNCHANGED_IN_A_GROUP], kind, made_with)
        for group in _groups_of(groups["new"]):
            yield _grouped(group, "new", made_with)

    def _tell(self, listing: Listing) -> None:
        """Logs what was left out although the pattern means it."""
        told = (
            (listing.outside, "link", "links", "lead", "out of the directory, not followed"),
            (listing.hidden, "hidden file", "hidden files", "were", "left out"),
            (listing.unnamed, "object", "objects", "have", "a key that ends in a slash"),
        )
        if not listing.files:
            self.logger.warning("%s", self._nothing_found(listing))
        for paths, one, several, verb, what in told:
            if paths:
                # That of hidden files is what everybody expects.
                level = logging.INFO if paths is listing.hidden else logging.WARNING
                self.logger.log(level, "%s %s", some_of(paths, one, several, verb), what)

    def _nothing_found(self, listing: Listing | None = None) -> str:
        """Returns what is there instead where no file matches the pattern; "" where one does."""
        listing = listing or self._listed()
        if listing.files:
            return ""
        there = described(self._files.some(_LOOKED_AT))
        return f"no file in {self._where} matches {self.pattern!r}; {there}"

    def read_part(self, partition: Partition, block: int) -> Iterator[Page]:
        """Yields a page of files without opening them."""
        kind = partition.params["kind"]
        items = [self._item_of(FileInfo(*one), kind) for one in partition.params["files"]]
        # Filled in when they are parsed.
        yield Page(items, position=partition.id, state={})

    def _item_of(self, info: FileInfo, kind: str) -> FileItem:
        return FileItem(
            printable(info.path),
            info.size,
            info.modified_at,
            handle=[info.path, info.size, info.modified_at, info.version],
            mark=mark_of(info, self._files.is_remote),
            is_stored=kind == "stored",
            is_skipped=kind == "skipped",
            address=f"{self._where.rstrip('/')}/{printable(info.path)}",
        )


def _first_heading(document: Any) -> str | None:
    if document.headings:
        title: str = document.headings[0].title
        return title
    head = document.text[:_HEAD_OF_TEXT]
    if head.startswith("```"):  # source code, where such a line is a comment
        return None
    found = _HEADING.search(head)
    return found[1] if found else None


def _grouped(infos: Sequence[FileInfo], kind: str, made_with: str) -> Partition:
    name = printable(infos[0].path)
    if len(infos) > 1:
        name = f"{name} and {len(infos) - 1} more"
    packed = [[info.path, info.size, info.modified_at, info.version] for info in infos]
    # A run that commits as it goes, and goes on with other settings, begins again.
    content = [made_with, packed]
    return Partition(name, {"files": packed, "kind": kind}, content=content)


def _groups_of(infos: Sequence[FileInfo]) -> Iterator[list[FileInfo]]:
    """Yields the files that one worker reads and parses at a time."""
    most = min(_FILES_IN_A_GROUP, -(-len(infos) // _LEAST_GROUPS))
    total = sum(info.size for info in infos)
    most_bytes = min(_GROUP_BYTES, max(total // _LEAST_GROUPS, _SMALLEST_GROUP_BYTES))
    group: list[FileInfo] = []
    size = 0
    for info in infos:
        if group and (len(group) >= most or size + info.size > most_bytes):
            yield group
            group, size = [], 0
        group.append(info)
        size += info.size
    if group:
        yield group
