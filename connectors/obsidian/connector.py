"""ObsidianConnector: the notes, canvases and attachments of a vault.

Files are listed, remembered and read as the `files` connector does. Notes and canvases are parsed
here, because what they become depends on the names in the vault; attachments have parsers.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any, ClassVar

from xxhash import xxh3_128_digest, xxh3_128_hexdigest

from contextframe_beam.connectors.attachments import MOST_BYTES, Attachments, media_type
from contextframe_beam.connectors.files.connector import FilesConnector
from contextframe_beam.connectors.files.item import FileItem
from contextframe_beam.connectors.files.listing import (
    Exclusion,
    FileInfo,
    match_names,
    parts_of,
    printable,
    reason_of,
)
from contextframe_beam.connectors.files.listing import Match as Matching
from contextframe_beam.connectors.files.seen import (
    SEEN_FILES,
    Earlier,
    changed_within,
    mark_of,
    require_same_folder,
    seen_state,
)
from contextframe_beam.connectors.identity import jsonable
from contextframe_beam.connectors.obsidian.canvas import parse_canvas
from contextframe_beam.connectors.obsidian.note import (
    Note,
    parse_note,
    split_properties,
)
from contextframe_beam.connectors.obsidian.records import (
    VaultDocument,
    link_address,
    opens,
    told_of,
    told_of_section,
)
from contextframe_beam.connectors.obsidian.sections import Embeds, sections_of, within
from contextframe_beam.connectors.obsidian.vault import (
    SETTING_FILES,
    Settings,
    VaultIndex,
    ids_of,
    normal,
)
from contextframe_beam.connectors.page import DocumentVersion, Page, Partition, Place, Window
from contextframe_beam.connectors.read.reader import PlannedRun
from contextframe_beam.errors import ConfigError, ConnectorError, ContextFrameError, RecordError
from contextframe_beam.frames.record import Deletion, FrameRecord

_HEAD_BYTES = 64 << 10
_MOST_NAMES_HANDED_ON = 200_000
_GONE_IN_A_GROUP = 5000
_MOST_BYTES_ALONE = 1 << 30
_KINDS = ("note", "section", "canvas", "base", "metadata", "text", "bytes", "gone")
# The latest vaults that this process has read from, by digest.
_INDEXES: dict[str, VaultIndex] = {}
_INDEXES_KEPT = 4


class ObsidianConnector(FilesConnector):
    """Notes of an Obsidian vault with properties, tags and links, canvases and attachments.

    A record's unique_id is `obsidian:<vault>/<path>`. Links are `reference` relationships, embeds
    `child`. What is gone from the vault is deleted by every run.

    Args:
        vault: The folder of the vault: a path, or a URL such as `s3://bucket/notes`.
        include: Which files, as in `Projects/**`; all by default.
        exclude: What to leave out, as in `Archive/**` or `*.excalidraw.md`. Hidden files and
            folders, such as `.obsidian` and `.trash`, are always left out.
        ignore_filters: Leave out what the vault's own setting "Excluded files" means.
        templates: Read the notes in the folder of templates as well.
        daily_notes: Read daily notes.
        attachments: What becomes of other files: `none`, `metadata` (their names and sizes),
            `text` or `bytes`. By default `text` where the parsers of documents are installed.
        max_attachment_bytes: Of larger attachments only metadata is read.
        canvas: Read canvases.
        bases: Read bases, as YAML.
        dataview: Take inline fields such as `key:: value` for properties.
        vault_name: The name of the vault in ids and addresses; by default that of its folder.
        id_property: A property that names a note, such as `id`, so that it stays the same document
            when it is renamed.
        embeds: `link` leaves embeds links; `inline` puts the text of embedded notes in their place.
        split: `note` makes one document of a note; `heading` makes one of each section below a
            heading, and opens all notes in each run.

    Raises:
        ConfigError: an argument makes no sense.
    """

    identity_args: ClassVar[tuple[str, ...] | None] = ("vault_name", "include", "exclude")
    version: ClassVar[str] = "1"
    _maps_by: ClassVar[tuple[str, ...]] = (
        *("attachments", "dataview", "embeds", "id_property", "split", "vault_name"),
    )

    def __init__(
        self,
        vault: str | os.PathLike[str],
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        ignore_filters: bool = True,
        templates: bool = False,
        daily_notes: bool = True,
        attachments: str | None = None,
        max_attachment_bytes: int = MOST_BYTES,
        canvas: bool = True,
        bases: bool = False,
        dataview: bool = True,
        vault_name: str | None = None,
        id_property: str | None = None,
        embeds: str = "link",
        split: str = "note",
    ) -> None:
        super().__init__(vault, name="obsidian")
        self.include = (include,) if isinstance(include, str) else tuple(include)
        self.exclude = (exclude,) if isinstance(exclude, str) else tuple(exclude)
        self._include = [parts_of(one) for one in self.include]
        self._left_out = Exclusion(self.exclude)
        name = vault_name or str(self.directory).rstrip("/").rpartition("/")[2]
        if not name or "/" in name or not name.isprintable():
            raise ConfigError(
                f"the name of the vault would be {name!r}; give vault_name, without slashes"
            )
        self.vault_name = normal(name)
        self.ignore_filters, self.templates, self.daily_notes = (
            ignore_filters,
            templates,
            daily_notes,
        )
        self._vault_settings: Settings | None = None
        self._attachments = Attachments.of(attachments, max_attachment_bytes)
        self.canvas, self.bases, self.dataview = canvas, bases, dataview
        self.id_property = id_property
        for name, given, choices in (
            ("embeds", embeds, ("link", "inline")),
            ("split", split, ("note", "heading")),
        ):
            if given not in choices:
                raise ConfigError(f"{name} is {given!r}; it is {' or '.join(choices)}")
        self._inlines, self._splits = embeds == "inline", split == "heading"

    def own_document(self, item: FileItem, most: int) -> tuple[Any, bytes] | None:
        """Returns what a file becomes, and what tells it from others; None for parsers' files.

        Args:
            item: The file.
            most: How many bytes it may have.

        Raises:
            ConnectorError: it is larger, or changes all the time.
            RecordError: it is not UTF-8, or no canvas.
            OSError: it cannot be read.
        """
        kind = item.get("kind")
        if kind == "text":
            return None
        if kind == "gone":
            # With a note go its sections.
            item.windows.append(Window(self._id_of(item)))
            return VaultDocument(""), b"gone"
        if kind == "section":
            own = [item[name] for name in ("id", "text", "targets")]
            return VaultDocument(str(item["text"])), json.dumps(own).encode()
        if kind == "metadata":
            return VaultDocument(""), f"metadata {item['size']}".encode()
        data = self.read_file(item, most)
        if kind == "bytes":
            return VaultDocument("", data=data), data
        path = normal(str(item["path"]))
        text = _decoded(data, path)
        if kind == "base":
            note = Note(f"```yaml\n{text.rstrip()}\n```")
        elif kind == "canvas":
            note = parse_canvas(text)
        else:
            note = parse_note(text, self.dataview)
        index = self._index_of(item)
        targets = tuple(index.resolve(one.target, path) for one in note.links)
        inline: list[str] = []
        embeds = Embeds(
            lambda one: self._embedded(one, most, inline),
            lambda target, source: index.resolve(target, source),
            link_address,
        )
        shown = len(note.body)
        if self._splits and kind == "note":
            item.parts += self._sections(item, note, index, embeds)
            # What stands under headings is in the sections.
            shown = sections_of(note.body)[0].end
        body = embeds.body(note.body[:shown], within(note.links, 0, shown), path)
        if kind == "note":
            item.windows.append(Window(self._id_of(item)))
        # A note with an id of its own is the same document at another path, with another address.
        told = "\0".join([path, *(self._target_id(index, one) if one else "" for one in targets)])
        told = "\0".join([told, *inline])
        content = xxh3_128_digest(data) + told.encode("utf-8", "surrogatepass")
        return VaultDocument(body, note, targets), content

    def map_to_frame_record(self, item: dict[str, Any]) -> FrameRecord | Deletion:  # type: ignore[override]
        """Turns a file of the vault into a record, and one that is gone into its deletion.

        Raises:
            RecordError: the item is not from this connector, or its file cannot be read.
        """
        if not isinstance(item, FileItem):
            item = FileItem.of(item)
        if not isinstance(item.get("path"), str) or item.get("kind") not in _KINDS:
            raise RecordError("the item has no path and kind; give one that this connector listed")
        if item["kind"] == "gone":
            return Deletion(self._id_of(item))
        if item.document is None:
            self._read_alone(item)
        document = item.document
        path = normal(str(item["path"]))
        name = path.rpartition("/")[2]
        stem, _, ending = name.rpartition(".")
        is_note = isinstance(document, VaultDocument) and document.note is not None
        metadata: dict[str, Any] = {
            "title": (stem if is_note else name) or name,
            "uri": opens(self.vault_name, path),
            "collection": self.vault_name,
            "source": "obsidian",
            "kind": item["kind"] if is_note else "attachment",
            "source_file": path,
            "source_type": ending.lower(),
            "file_size": item["size"],
        }
        data = None
        if item["kind"] == "section":
            # A section has no time and no size of its own, and so stays as it is with its text.
            metadata |= told_of_section(item)
            del metadata["file_size"]
        elif isinstance(document, VaultDocument):
            data = document.data
            index = self._index_of(item)
            metadata.update(told_of(document, path, lambda one: self._target_id(index, one)))
        elif document is not None:
            stated = {key: one for key, one in document.metadata.items() if key != "attachments"}
            if stated:
                metadata["properties"] = stated
        return FrameRecord(
            document.text,
            metadata,
            "document",
            self._id_of(item),
            None if item["kind"] == "section" else item["modified_at"],
            raw_data=data,
            raw_data_type=None if data is None else media_type(name),
            place=self._place_of(item),
        )

    def source_identity(self, sync_kwargs: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Returns the class, the name of the vault, and what is read of it."""
        identity = super().source_identity()
        arguments: dict[str, Any] = {"vault_name": self.vault_name}
        for name in ("include", "exclude"):
            if getattr(self, name):
                arguments[name] = sorted(set(getattr(self, name)))
        identity["arguments"] = jsonable(arguments)
        return identity

    def document_version(self, item: Any) -> DocumentVersion | None:
        """Returns the id of a document and its place; its version is that of its bytes."""
        return DocumentVersion(self._id_of(item), None, self._place_of(item))

    def _place_of(self, item: Mapping[str, Any]) -> Place | None:
        """Returns where a document lies: a section in its note."""
        note = item.get("note")
        return Place(note) if item.get("kind") == "section" and isinstance(note, str) else None

    def _embedded(self, path: str, most: int, read: list[str]) -> str | None:
        """Returns the text of a note that another one shows; None where it is not to be read."""
        if not self._inlines:
            return None
        if self._vault_settings is None:
            self._vault_settings = self._settings()
        if self._kind_of(FileInfo(path, 0, None), self._vault_settings) != "note":
            return None
        try:
            text = _decoded(self.read_file(FileItem(path), most), path)
        except (OSError, ConnectorError, RecordError):
            return None
        read.append(xxh3_128_hexdigest(text.encode()))
        return text

    def _sections(
        self, item: FileItem, note: Note, index: VaultIndex, embeds: Embeds
    ) -> Iterator[FileItem]:
        """Yields the sections of a note below its headings."""
        path, whole = normal(str(item["path"])), self._id_of(item)
        seen: dict[str, int] = {}
        for section in sections_of(note.body):
            if not section.path:
                continue
            links = within(note.links, section.start, section.end)
            targets = [(one, index.resolve(one.target, path)) for one in links]
            name = "#".join(section.path)
            number = seen[name] = seen.get(name, 0) + 1
            yield FileItem(
                item["path"],
                item["size"],
                item["modified_at"],
                kind="section",
                id=printable(f"{whole}#{name}" + (f"#{number}" if number > 1 else "")),
                note=whole,
                headings=list(section.path),
                text=embeds.body(note.body[section.start : section.end], links, path).strip(),
                targets=[
                    ["child" if one.is_embed else "reference", self._target_id(index, target)]
                    for one, target in targets
                    if target is not None
                ],
            )

    def _read_alone(self, item: FileItem) -> None:
        try:
            made = self.own_document(item, _MOST_BYTES_ALONE)
        except ContextFrameError:
            raise
        except (OSError, ValueError) as error:
            raise RecordError(f"the file cannot be read: {reason_of(error)}") from error
        item.document = self._parsed(item) if made is None else made[0]

    def _id_of(self, item: Mapping[str, Any]) -> str:
        return str(item.get("id") or f"obsidian:{self.vault_name}/{normal(str(item['path']))}")

    def _target_id(self, index: VaultIndex, path: str) -> str:
        own = index.about.get(path, ([], ""))[1]
        return f"obsidian:{self.vault_name}/{own or path}"

    def _index_of(self, item: FileItem) -> VaultIndex:
        """Returns the names in the vault: as they were planned with, else as they are now."""
        digest = str(item.get("vault_index") or "")
        if digest not in _INDEXES:
            infos = self._listed().files
            _keep(digest, self._indexed(infos, self._heads(infos)))
        return _INDEXES[digest]

    def _indexed(
        self, infos: Sequence[FileInfo], about: dict[str, tuple[list[str], str]]
    ) -> VaultIndex:
        return VaultIndex([printable(normal(info.path)) for info in infos], about)

    def _heads(self, infos: Sequence[FileInfo]) -> dict[str, tuple[list[str], str]]:
        """Reads the other names and the ids that notes give themselves."""
        notes = [info for info in infos if info.path.lower().endswith(".md")]
        found: dict[str, tuple[list[str], str]] = {}
        there = [self._info_of(FileItem(one.path, handle=_packed(one))) for one in notes]
        for info, head in zip(notes, self._files.heads(there, _HEAD_BYTES), strict=True):
            if head is None or not head.startswith((b"---", b"\xef\xbb\xbf---")):
                continue
            if not self.id_property and b"alias" not in head:
                continue
            properties = split_properties(head.decode("utf-8", "replace"))[0]
            own = properties.get(self.id_property) if self.id_property else None
            names = Note("", properties).aliases
            if names or own not in (None, ""):
                found[printable(normal(info.path))] = (names, "" if own is None else str(own))
        return found

    def _kind_of(self, info: FileInfo, settings: Settings) -> str | None:
        """Returns how a file is read; None where it is left out."""
        path = info.path
        names = path.split("/")
        if self._include and all(match_names(one, names) is Matching.NO for one in self._include):
            return None
        if self._left_out.leaves_out_some(names):
            return None
        if self.ignore_filters and settings.ignores(path):
            return None
        if not self.templates and settings.is_template(path):
            return None
        ending = os.path.splitext(path)[1].lower().removeprefix(".")
        if ending == "md":
            return "note" if self.daily_notes or not settings.is_daily(path) else None
        if ending == "canvas":
            return "canvas" if self.canvas else None
        if ending == "base":
            return "base" if self.bases else None
        return self._attachments.of_file(path, info.size)

    def _settings(self) -> Settings:
        infos = [FileInfo(self._files.address_of(one), 0, None) for one in SETTING_FILES]
        found = zip(SETTING_FILES, self._files.contents(infos, 1 << 20), strict=True)
        return Settings.of({path: data for path, (_, data) in found if isinstance(data, bytes)})

    def plan(self, run: PlannedRun) -> Iterator[Partition]:
        """Yields groups of files, as `FilesConnector` does, and those that are gone.

        Raises:
            ConnectorError: there is no note, as in the folder of a disk that is not mounted.
        """
        began = datetime.now(timezone.utc)
        states, is_remote = run.known_states, self._files.is_remote
        listing = self._listed()
        settings = self._settings()
        kinds = {info.path: self._kind_of(info, settings) for info in listing.files}
        found = [info for info in listing.files if kinds[info.path] is not None]
        if not found:
            raise ConnectorError(
                f"there is nothing to read in {self._where}: {self._nothing_there(listing.files)}"
            )
        if not run.anew:
            require_same_folder(found, self._where, states)
        self._tell(listing)
        before = _Before(states)
        earlier = Earlier({} if run.anew else states, run.made_with)
        marks = {info.path: mark_of(info, is_remote) for info in found}
        about = self._known(listing.files, before, Earlier(states, before.settings), is_remote)
        index = self._indexed(listing.files, about)
        digest = index.digest
        _keep(digest, index)
        # Which notes an embed shows is known once it is read, so that any change opens all of them.
        contents = xxh3_128_hexdigest("\n".join(sorted(marks.values())).encode("utf-8", "replace"))
        ids = ids_of(kinds, self.vault_name, about)
        now = {ids[info.path]: info.path for info in found}
        run.narrowed = ""
        run.reached = {
            SEEN_FILES: {
                **seen_state(found, began, run.made_with, self._where, is_remote),
                "index": digest,
                "documents": VaultIndex(sorted(now), about).pack(),
                "id_property": self.id_property or "",
                **({"contents": contents} if self._inlines else {}),
            }
        }
        gone = sorted(set(before.ids) - set(now))
        if run.since is not None or run.until is not None:
            found = [one for one in found if changed_within(one, run.since, run.until)]
            gone = []
        groups: dict[str, list[FileInfo]] = {"stored": [], "skipped": [], "new": []}
        for info in found:
            mark = marks[info.path]
            kind = kinds[info.path]
            leads_as_before = digest == before.digest or not _has_links(kind)
            if kind == "note":
                shows_as_before = not self._inlines or contents == before.contents
                leads_as_before = leads_as_before and shows_as_before and not self._splits
            if earlier.is_skipped(mark):
                groups["skipped"].append(info)
            elif earlier.is_stored(mark) and leads_as_before:
                groups["stored"].append(info)
            else:
                groups["new"].append(info)
        shared = {"digest": digest}
        if len(index.paths) <= _MOST_NAMES_HANDED_ON:
            shared["index"] = index.pack()
        more = {info.path: [kinds[info.path], ids[info.path]] for info in found}
        for partition in self._grouped(groups, run.made_with):
            told = [more[one[0]] for one in partition.params["files"]]
            params = {**partition.params, **shared, "more": told}
            yield Partition(partition.id, params, [partition.content, digest, told])
        for start in range(0, len(gone), _GONE_IN_A_GROUP):
            some = gone[start : start + _GONE_IN_A_GROUP]
            yield Partition(f"gone: {printable(some[0])}", {"gone": some}, some)

    def _known(
        self, infos: Sequence[FileInfo], before: _Before, earlier: Earlier, is_remote: bool
    ) -> dict[str, tuple[list[str], str]]:
        """Returns what notes say of their names; only those that changed are opened."""
        same = before.id_property == (self.id_property or "")
        known = {
            printable(normal(info.path)): mark_of(info, is_remote)
            for info in infos
            if same and earlier.is_stored(mark_of(info, is_remote))
        }
        about = {path: one for path, one in before.about.items() if path in known}
        changed = [info for info in infos if printable(normal(info.path)) not in known]
        return {**about, **self._heads(changed)}

    def _nothing_there(self, files: Sequence[FileInfo]) -> str:
        if files:
            return f"include, exclude and the vault's settings leave out all {len(files):,} files"
        return "it is empty; is the disk mounted, and is it the folder that Obsidian opens?"

    def read_part(self, partition: Partition, block: int) -> Iterator[Page]:
        """Yields a page of files without opening them, or of what is gone."""
        params = partition.params
        if "gone" in params:
            prefix = f"obsidian:{self.vault_name}/"
            items = [
                FileItem(printable(one.removeprefix(prefix)), 0, None, kind="gone", id=one)
                for one in params["gone"]
            ]
            yield Page(items, position=partition.id, state={})
            return
        if "index" in params and params["digest"] not in _INDEXES:
            _keep(params["digest"], VaultIndex.unpack(params["index"]))
        for page in super().read_part(partition, block):
            for item, (kind, identifier) in zip(page.items, params["more"], strict=True):
                item.update(kind=kind, id=printable(identifier), vault_index=params["digest"])
            yield page


class _Before:
    """What an earlier run left beside the marks of files."""

    def __init__(self, states: Mapping[str, Any]) -> None:
        whole = states.get(SEEN_FILES)
        whole = whole if isinstance(whole, Mapping) else {}
        self.settings = str(whole.get("settings", ""))
        self.digest = whole.get("index")
        self.id_property = str(whole.get("id_property", ""))
        self.contents = str(whole.get("contents", ""))
        self.ids: list[str] = []
        self.about: dict[str, tuple[list[str], str]] = {}
        if whole.get("documents"):
            try:
                index = VaultIndex.unpack(str(whole["documents"]))
            except ValueError:  # edited by hand: nothing is known then
                return
            self.ids, self.about = index.paths, index.about


def _keep(digest: str, index: VaultIndex) -> None:
    while len(_INDEXES) >= _INDEXES_KEPT:
        _INDEXES.pop(next(iter(_INDEXES)), None)
    _INDEXES[digest] = index


def _has_links(kind: str | None) -> bool:
    return kind in ("note", "canvas")


def _packed(info: FileInfo) -> list[Any]:
    return [info.path, info.size, info.modified_at, info.version]


def _decoded(data: bytes, path: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RecordError(
            f"{path} is not UTF-8 at byte {error.start}; save it as UTF-8, as Obsidian does"
        ) from error
