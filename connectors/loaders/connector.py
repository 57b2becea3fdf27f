"""LoaderConnector: what loaders of documents have in common, whatever library they are of.

A loader is an object that gives documents: texts with metadata. It knows neither changes nor
deletions, and hardly ever gives its documents ids. So each file gets a loader of its own: files are
read in parallel, those that have not changed are left out, and what a file no longer holds goes.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any, ClassVar, NamedTuple

from xxhash import xxh3_64_hexdigest

from contextframe_beam.connectors import secrets
from contextframe_beam.connectors.files.listing import FileInfo, Files, described, printable
from contextframe_beam.connectors.files.seen import (
    SEEN_FILES,
    Earlier,
    changed_within,
    mark_of,
    outcome_state,
    require_same_folder,
    seen_state,
)
from contextframe_beam.connectors.files.stores import files_in
from contextframe_beam.connectors.kinds import PartsConnector
from contextframe_beam.connectors.loaders.objects import build, find, plain, with_file
from contextframe_beam.connectors.page import DeadLetter, Page, Partition, Place, Window
from contextframe_beam.connectors.plain_secrets import without_credentials
from contextframe_beam.connectors.read.reader import PlannedRun
from contextframe_beam.connectors.tables.places import placed
from contextframe_beam.errors import ConfigError, ConnectorError, ContextFrameError, RecordError
from contextframe_beam.frames.record import FrameRecord

__all__ = ["Loaded", "LoaderConnector", "built"]

_DOCUMENTS_IN_A_PAGE = 100
_FILES_IN_A_GROUP = 50
_LEAST_GROUPS = 16
_MOST_REMOTE_BYTES = 256 << 20
_LOOKED_AT = 10_000
_WHOLE = "documents"
# What loaders call the place that a document is from.
_SOURCES = ("source", "file_path", "url", "path", "file_name")
# Where in a file a document is; more than one may be there.
_PLACES = ("page", "row", "seq_num")
# The form of ids that a library makes up for each document.
_MADE_UP = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[1-8][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}\Z")


class Loaded(NamedTuple):
    """A document of a loader.

    Attributes:
        text: Its text.
        metadata: What the loader says of it.
        id: Its id, if it has one.
    """

    text: str
    metadata: Mapping[str, Any]
    id: Any = None


class LoaderConnector(PartsConnector):
    """Reads documents by loaders of another library.

    Args:
        loader: The class, as `package.module:Class`.
        args: Its arguments. An argument may be an object: `{"class": "package.module:Class",
            "args": {...}}`; without `args` it is the class itself. References to secrets are looked
            up when a loader is made.
        files: Which files it reads, each by a loader of its own, as in `site/**/*.html`. The path
            stands where `{file}` is among the arguments, else in the argument that takes a path.
            Without it one loader gives all documents.
        prefix: What ids begin with; by default the name of the library.

    Raises:
        ConfigError: an argument makes no sense, or there is no such class.
    """

    by_time = True
    version: ClassVar[str] = "1"

    def __init__(
        self,
        loader: str,
        args: Mapping[str, Any] | None = None,
        files: str | None = None,
        prefix: str | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(args, Mapping | None):
            raise ConfigError(f"args is a {type(args).__name__}; give an object, as in JSON")
        self.loader = loader
        self.args = dict(args or {})
        self.files = files
        self.prefix = prefix or self.name
        self._class = find(loader)
        if not callable(self._class):
            raise ConfigError(f"{loader} is no class, and cannot be made a loader of")
        self._files: Files | None = None
        self._pattern = ""
        if files is not None:
            directory, self._pattern = placed(files)
            self._pattern = self._pattern or "**/*"
            self._files = files_in(directory)
            self._shown_root = _shown_root(files, self._pattern)

    @abstractmethod
    def _load(self, path: str | None) -> Iterable[Loaded]:
        """Makes a loader and returns its documents.

        Args:
            path: The file that it reads, if it reads one.
        """

    def authenticate(self) -> bool:
        """Verifies that the folder of the files can be listed.

        Raises:
            ConnectorError: it is missing, or not readable.
        """
        if self._files is not None:
            self._files.check()
        self.authenticated = True
        return True

    def access(self) -> list[str]:
        """Returns the loader, and how many files it reads."""
        told = [f"loader {self.loader}"]
        if self._files is not None:
            found = self._listed(self._files)
            told.append(f"{len(found):,} files match {self.files}")
        return told

    def plan(self, run: PlannedRun) -> Iterator[Partition]:
        """Yields groups of files, or the one loader of all documents.

        Args:
            run: What the run asks for, and what the plan says beside its parts.
        """
        files = self._files
        if files is None:
            if run.since is not None or run.until is not None:
                raise ConfigError(f"{self.loader} gives all documents; it knows no range of time")
            run.narrowed = ""
            yield Partition(_WHOLE)
            return
        began = datetime.now(timezone.utc)
        found = self._listed(files)
        if not found:
            self.logger.warning("%s", self._nothing_found())
        where = without_credentials(str(files.root))
        if not run.anew:
            require_same_folder(found, where, run.known_states)
        run.reached = {SEEN_FILES: seen_state(found, began, run.made_with, where, files.is_remote)}
        listed = len(found)
        if run.since is not None or run.until is not None:
            found = [info for info in found if changed_within(info, run.since, run.until)]
        earlier = Earlier({} if run.anew else run.resume_from, run.made_with)
        found = [one for one in found if not earlier.is_stored(mark_of(one, files.is_remote))]
        left_out = listed - len(found)
        run.narrowed = f"{left_out:,} files that did not change were not read" if left_out else ""
        size = max(1, min(_FILES_IN_A_GROUP, -(-len(found) // _LEAST_GROUPS)))
        for start in range(0, len(found), size):
            group = found[start : start + size]
            name = printable(files.path_of(group[0].path))
            more = f" and {len(group) - 1} more" if len(group) > 1 else ""
            packed = [
                [self._shown(files, one), one.path, one.size, one.modified_at, one.version]
                for one in group
            ]
            yield Partition(f"{name}{more}", {"files": packed}, content=[run.made_with, packed])

    def read_part(self, partition: Partition, block: int) -> Iterator[Page]:
        """Yields the documents of a group of files, or of the one loader.

        Raises:
            ConnectorError: the one loader failed.
        """
        if self._files is None:
            yield from self._whole()
            return
        failed: list[str] = []
        for file, *packed in partition.params["files"]:
            info = FileInfo(*packed)
            try:
                yield from self._pages_of(self._files, info, file)
            except ContextFrameError as error:
                if isinstance(error, ConfigError):
                    raise
                failed.append(mark_of(info, self._files.is_remote))
                yield self._failed(error, info, partition)
            except Exception as error:
                failed.append(mark_of(info, self._files.is_remote))
                yield self._failed(error, info, partition)
        yield Page(state=outcome_state(failed, ()))

    def map_to_frame_record(self, item: dict[str, Any]) -> FrameRecord:
        """Turns a document of a loader into a record.

        Raises:
            RecordError: the item is not from this connector.
        """
        if not isinstance(item, Mapping) or not isinstance(item.get("id"), str):
            raise RecordError("the item has no id; give one that this connector has read")
        metadata = dict(item["metadata"]) if isinstance(item.get("metadata"), Mapping) else {}
        # Names that say what a row is are its own; a loader's uuid is not the key of a row.
        if "uuid" in metadata:
            metadata["stated_uuid"] = metadata.pop("uuid")
        file, place = item.get("file"), None
        if isinstance(file, str):
            metadata.setdefault("source_file", file)
            ending = os.path.splitext(file)[1].lower().removeprefix(".")
            if ending:
                metadata.setdefault("source_type", ending)
            place = Place(file)
        changed = item.get("modified_at")
        return FrameRecord(
            item.get("text"),
            metadata,
            "document",
            item["id"],
            changed if isinstance(changed, str) else None,
            place=place,
        )

    def _listed(self, files: Files) -> list[FileInfo]:
        return files.list(self._pattern, False).files

    def _nothing_found(self) -> str:
        """Returns what is there instead, if no file matches; otherwise ""."""
        files = self._files
        if files is None or self._listed(files):
            return ""
        where = without_credentials(str(files.root))
        return f"no file in {where} matches {self._pattern!r}; {described(files.some(_LOOKED_AT))}"

    def _whole(self) -> Iterator[Page]:
        counted: Counter[str] = Counter()
        items: list[Any] = []
        try:
            for one in self._load(None):
                items.append(self._item(one, self._source_of(one), counted))
                if len(items) == _DOCUMENTS_IN_A_PAGE:
                    yield Page(items)
                    items = []
        except ContextFrameError:
            raise
        except Exception as error:
            raise ConnectorError(
                secrets.redact(f"{self.loader} failed: {type(error).__name__}: {error}")
            ) from error
        yield Page(items)

    def _source_of(self, one: Loaded) -> str:
        """Returns what names where a document is from; a name alone may be in several places."""
        told = (one.metadata.get(name) for name in _SOURCES)
        source = next((text for text in told if isinstance(text, str) and text), "")
        if "://" in source or os.path.isabs(source):
            return printable(without_credentials(source))
        identity = self.source_identity()["arguments"]
        settings = xxh3_64_hexdigest(json.dumps(identity, sort_keys=True).encode())[:8]
        return f"{settings}/{printable(source)}" if source else settings

    def _shown(self, files: Files, info: FileInfo) -> str:
        """Returns the path of a file as it was asked for, which ids begin with."""
        return printable(without_credentials(f"{self._shown_root}{files.path_of(info.path)}"))

    def _pages_of(self, files: Files, info: FileInfo, file: str) -> Iterator[Page]:
        """Yields the documents of a file, and at last that there are no others of it."""
        counted: Counter[str] = Counter()
        items: list[Any] = []
        with _local(files, info) as here:
            for one in self._load(here):
                item = self._item(one, file, counted)
                item |= {"file": file, "modified_at": info.modified_at}
                if here != info.path:
                    item["metadata"] = _replaced(item["metadata"], here, info.path)
                items.append(item)
                if len(items) == _DOCUMENTS_IN_A_PAGE:
                    yield Page(items, position=file)
                    items = []
        yield Page(items, position=file, windows=[Window(file)])

    def _item(self, one: Loaded, source: str, counted: Counter[str]) -> dict[str, Any]:
        metadata = plain(one.metadata)
        own = one.id if isinstance(one.id, str) and one.id and not _MADE_UP.match(one.id) else ""
        place = next(
            (f"#{name}={metadata[name]}" for name in _PLACES if type(metadata.get(name)) is int), ""
        )
        named = f"{self.prefix}:{own or source + place}"
        number = counted[named]
        counted[named] += 1
        if number:
            named += f".{number}" if place or own else f"#{number}"
        return {"id": named, "text": one.text, "metadata": metadata}

    def _failed(self, error: Exception, info: FileInfo, partition: Partition) -> Page:
        path = printable(without_credentials(info.path))
        item = {"file": path, "modified_at": info.modified_at}
        letter = DeadLetter.of("read", error, item, self.name, partition.id, path)
        return Page(failures=[letter], position=path)


def _shown_root(files: str, pattern: str) -> str:
    """Returns what stands before the pattern, as it was written, so that ids begin with it."""
    root = files.removesuffix(pattern) if files.endswith(pattern) else f"{files}/"
    if "://" in root or "::" in root:
        return f"{root.rstrip('/')}/"
    root = os.path.normpath(os.path.expanduser(root)) if root else "."
    return "" if root == "." else f"{root.rstrip('/')}/"


def built(given: Mapping[str, Any], path: str | None) -> tuple[dict[str, Any], bool]:
    """Returns arguments with their objects and secrets, and whether the path stands among them."""
    args, is_placed = with_file(secrets.resolved(given), path)
    return build(args), is_placed and path is not None


class _local:
    """Gives the path of a file on this machine, as a context; a remote one is copied.

    Args:
        files: Where it is.
        info: The file.

    Raises:
        ConnectorError: it cannot be read.
    """

    def __init__(self, files: Files, info: FileInfo) -> None:
        self._files, self._info = files, info
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def __enter__(self) -> str:
        if not self._files.is_remote:
            return self._info.path
        ((_, data),) = self._files.contents([self._info], _MOST_REMOTE_BYTES)
        if isinstance(data, Exception):
            raise ConnectorError(f"it cannot be read: {data}") from data
        self._folder = tempfile.TemporaryDirectory()
        name = self._info.path.rstrip("/").rpartition("/")[2] or "file"
        path = os.path.join(self._folder.name, name)
        with open(path, "wb") as file:
            file.write(data)
        return path

    def __exit__(self, *_: object) -> None:
        if self._folder is not None:
            self._folder.cleanup()


def _replaced(value: Any, text: str, by: str) -> Any:
    """Returns metadata with the address of a file in place of that of its copy."""
    if isinstance(value, str):
        return value.replace(text, by)
    if isinstance(value, Mapping):
        return {name: _replaced(one, text, by) for name, one in value.items()}
    if isinstance(value, Sequence):
        return [_replaced(one, text, by) for one in value]
    return value
