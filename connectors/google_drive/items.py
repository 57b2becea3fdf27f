"""Items of Google Drive: which of its files are read, and as what.

An item is known before its content is: by its id, its version, the folder that it is in, and who
may read it. So what the dataset holds already is not asked for again.
"""

from __future__ import annotations

import json
import mimetypes
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from xxhash import xxh3_128_hexdigest, xxh3_128_intdigest

from contextframe_beam.connectors.attachments import Attachments
from contextframe_beam.connectors.files.item import FileItem
from contextframe_beam.connectors.google_drive.account import FOLDER, SHORTCUT
from contextframe_beam.connectors.google_drive.folders import SHARED, Wanted
from contextframe_beam.connectors.google_drive.sharing import Readers
from contextframe_beam.connectors.page import Place, Window

_APPS = "application/vnd.google-apps."
#: The documents of Google's editors, by media type: their kind, and what they are as a file.
EDITED = {
    f"{_APPS}document": ("document", ".docx"),
    f"{_APPS}spreadsheet": ("spreadsheet", ".xlsx"),
    f"{_APPS}presentation": ("presentation", ".pptx"),
}
#: The media type of each of these files.
OFFICE = {
    ending: f"application/vnd.openxmlformats-officedocument.{name}"
    for ending, name in (
        (".docx", "wordprocessingml.document"),
        (".xlsx", "spreadsheetml.sheet"),
        (".pptx", "presentationml.presentation"),
    )
}
_ENDINGS = {
    **{kind: ending for ending, kind in OFFICE.items()},
    "text/markdown": ".md",
    "text/plain": ".txt",
    "application/pdf": ".pdf",
    "application/msword": ".doc",
    "message/rfc822": ".eml",
}
# What decides what a record tells of a file, beside its content and its folder.
_TOLD = (
    *("id", "name", "mimeType", "createdTime", "modifiedTime", "starred", "description"),
    *("webViewLink", "owners", "lastModifyingUser", "size", "shortcutDetails", "capabilities"),
)
# Points of places have 29 digits before the decimal point.
_POINT_BITS = 96


@dataclass(frozen=True)
class Feed:
    """A part of Drive that has changes of its own: a shared drive, or what an account sees.

    Attributes:
        id: Its name in states and places.
        name: What it is called, for people.
        drive: The id of the shared drive; None for what an account owns or was given.
        subject: Whose account reads it; "" for the account itself.
        is_whole: Whether all of it is read, and not only some folders.
        tops: The folders that are read, with all below them.
    """

    id: str
    name: str
    drive: str | None
    subject: str
    is_whole: bool
    tops: tuple[str, ...] = ()

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> Feed:
        """Returns the feed from the parameters of a partition."""
        told = params["feed"]
        return cls(**{**told, "tops": tuple(told["tops"])})

    @property
    def params(self) -> dict[str, Any]:
        """The feed as JSON values."""
        return {**asdict(self), "tops": list(self.tops)}

    @property
    def home(self) -> str:
        """The id of the account's My Drive, if that is read; otherwise ""."""
        is_own = self.is_whole and not self.drive and self.tops[:1] not in ((), (SHARED,))
        return self.tops[0] if is_own else ""

    def place(self, folder: str, file: str) -> Place:
        """Returns the place of a file, and of the comments on it."""
        return Place(f"{self.id}/{folder}", point_of(file))

    def window(self, file: str) -> Window:
        """Returns what holds a file and its comments, in whatever folder they were."""
        return Window(self.id, point_of(file), point_of(file), below=True)


def point_of(file: str) -> int:
    """Returns the point of a file in its folder."""
    return int(xxh3_128_intdigest(file.encode()) >> (128 - _POINT_BITS))


@dataclass(frozen=True)
class Spot:
    """A folder, as far as its files need it.

    Attributes:
        names: Those on the way to it, with its own, the top first.
        readers: Who may read what is in it and has no permissions of its own.
    """

    names: tuple[str, ...]
    readers: Readers = None

    @classmethod
    def of(cls, told: Sequence[Any]) -> Spot:
        """Returns the spot from JSON values."""
        return cls(tuple(told[0]), told[1])

    @property
    def values(self) -> list[Any]:
        """The spot as JSON values."""
        return [list(self.names), self.readers]


@dataclass(frozen=True)
class Taken:
    """Which files are taken, and as what.

    Attributes:
        wanted: By their paths.
        mime_types: Their media types; all where empty.
        export: What documents of the editors become: `markdown`, `text` or `office`.
        attachments: What becomes of other files.
        comments: `documents`, `inline` or `none`.
    """

    wanted: Wanted
    mime_types: frozenset[str]
    export: str
    attachments: Attachments
    comments: str

    #: Drawings, forms and sites, of which no text can be had, are told by their metadata.
    kinds: ClassVar[dict[str, str]] = {f"{_APPS}shortcut": "shortcut", f"{_APPS}folder": "folder"}

    def item(
        self, file: Mapping[str, Any], feed: Feed, folder: str, spot: Spot, readers: Readers
    ) -> FileItem | None:
        """Returns a file as an item; None where it is not to be read.

        Args:
            file: As Drive tells it.
            feed: What it was found in.
            folder: The id of its folder.
            spot: The folder.
            readers: Who may read it.
        """
        kind, name = str(file.get("mimeType")), str(file.get("name"))
        names = (*spot.names[1:], name)
        if kind == FOLDER or not self.wanted.has_file(names):
            return None
        if self.mime_types and kind not in self.mime_types:
            return None
        size = file.get("size")
        how = self._how(file, self._parsed_name(name, kind))
        if how is None:
            return None
        path = "/".join((*spot.names[1:], self._parsed_name(name, kind)))
        told = {one: file[one] for one in _TOLD if one in file}
        return FileItem(
            path,
            int(size) if isinstance(size, str) and size.isdigit() and how != "export" else None,
            _text(file.get("modifiedTime")),
            kind=self._kind(kind),
            id=str(file.get("id")),
            how=how,
            feed=feed.id,
            subject=feed.subject,
            folder=folder,
            collection="/".join(spot.names),
            readers=readers,
            digest_told=_text(file.get("md5Checksum")),
            # As text it takes a tenth of the memory of its many small parts.
            file=json.dumps(told, separators=(",", ":"), ensure_ascii=False),
            version=self._version(file, told),
        )

    def takes_comments(self, item: Mapping[str, Any]) -> bool:
        """Returns whether the comments on an item are documents of their own."""
        return self.comments == "documents" and item.get("kind") != "shortcut"

    def _kind(self, kind: str) -> str:
        known = EDITED.get(kind, ("", ""))[0] or self.kinds.get(kind)
        return known or (kind.removeprefix(_APPS) if kind.startswith(_APPS) else "file")

    def _how(self, file: Mapping[str, Any], name: str) -> str | None:
        """Returns how the content of a file is had; None where the file is left out."""
        kind, size = str(file.get("mimeType")), str(file.get("size", ""))
        if kind == SHORTCUT or (kind.startswith(_APPS) and kind not in EDITED):
            return "metadata"
        how = "export" if kind in EDITED else self.attachments.of_file(name)
        may = file.get("capabilities")
        if how in (None, "metadata"):
            return how
        if isinstance(may, Mapping) and may.get("canDownload") is False:
            return "refused"
        is_large = size.isdigit() and int(size) > self.attachments.most_bytes
        return "large" if is_large and how != "export" else how

    def _parsed_name(self, name: str, kind: str) -> str:
        """Returns the name of a file with an ending by which a parser knows it."""
        if kind in EDITED and self.export == "office":
            return f"{name}{EDITED[kind][1]}"
        ending = _ENDINGS.get(kind) or (mimetypes.guess_extension(kind) or "" if kind else "")
        has_one = mimetypes.guess_type(name)[0] is not None or "." in name[1:]
        return name if kind.startswith(_APPS) or has_one else f"{name}{ending}"

    def _version(self, file: Mapping[str, Any], told: Mapping[str, Any]) -> str:
        """Returns what is another one when the content or what is told of a file is.

        No time moves when a file is shared, moved or restored, and `version` does with each of
        them, so neither of them alone tells that the content is another one.
        """
        content = file.get("md5Checksum") or file.get("headRevisionId") or file.get("modifiedTime")
        if self.comments == "inline":
            content = f"{content} {file.get('version')}"
        text = json.dumps(told, sort_keys=True, ensure_ascii=False)
        return f"{content} {xxh3_128_hexdigest(text.encode('utf-8', 'surrogatepass'))}"


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
