"""Items of Google Drive become records."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from contextframe_beam.connectors.google_drive.comments import (
    comment_metadata,
    comment_text,
    mentioned,
)
from contextframe_beam.connectors.google_drive.editors import linked_files
from contextframe_beam.connectors.google_drive.items import point_of
from contextframe_beam.connectors.page import Place
from contextframe_beam.errors import RecordError
from contextframe_beam.frames.record import FrameRecord

# Ids have some 44 signs, and those of comments stand behind that of their file.
_ID = re.compile(r"[\w-]{1,80}(?:/[\w-]{1,80}){0,2}", re.ASCII)
_PLACE = re.compile(r"(?:user|drive)/[^/\s]{1,300}/[\w-]{1,80}", re.ASCII)


@dataclass(frozen=True)
class DriveDocument:
    """What is made of the content of a file.

    Attributes:
        text: Its Markdown.
        data: Its bytes, where they are kept.
        data_type: The media type of the bytes.
        left_out: Why there is no text although there is content; "" otherwise.
        metadata: What the content itself states.
    """

    text: str
    data: bytes | None = None
    data_type: str | None = None
    left_out: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def content(self) -> bytes:
        """Bytes that differ whenever the document does."""
        head = f"{self.left_out}\0{self.text}".encode("utf-8", "surrogatepass")
        return head if self.data is None else head + b"\0" + self.data


def id_of(item: Mapping[str, Any]) -> str:
    """Returns the unique_id of the document that an item is.

    Raises:
        RecordError: the item is not from this connector.
    """
    told = [item.get(name) for name in ("id", "kind", "feed", "folder")]
    identifier, kind, feed, folder = (one if isinstance(one, str) else "" for one in told)
    is_named = kind == "comment" or (kind and isinstance(item.get("path"), str))
    is_placed = _PLACE.fullmatch(f"{feed}/{folder}") is not None
    if not (is_named and is_placed and _ID.fullmatch(identifier)):
        raise RecordError(
            "the item has no id, kind, feed and folder; give one that this connector read"
        )
    return f"google-drive:{'comment' if kind == 'comment' else 'file'}/{identifier}"


def place_of(item: Mapping[str, Any]) -> Place:
    """Returns where a document lies: in a folder, where comments are beside their file."""
    file = str(item.get("on") or item["id"])
    return Place(f"{item['feed']}/{item['folder']}", point_of(file))


def comment_record(item: Mapping[str, Any]) -> FrameRecord:
    """Returns the record of a comment or a reply.

    Raises:
        RecordError: the item is not from this connector.
    """
    unique_id, told = id_of(item), item.get("comment")
    if not isinstance(told, Mapping):
        raise RecordError("the comment has no content; give one that this connector read")
    metadata = {
        **comment_metadata(told),
        "uri": item.get("uri"),
        "source": "google-drive",
        "kind": "comment",
        "relationships": [
            _relationship("parent", f"google-drive:{item.get('parent')}"),
            *(_relationship("mentions", f"google-drive:user/{one}") for one in mentioned(told)),
        ],
    }
    return FrameRecord(
        comment_text(told),
        _filled(metadata),
        "document",
        unique_id,
        _text(told.get("modifiedTime")) or None,
        place=place_of(item),
        readers=item.get("readers"),
    )


def file_record(item: Mapping[str, Any], document: Any) -> FrameRecord:
    """Returns the record of a file.

    Args:
        item: The item.
        document: What its content became: a `DriveDocument`, or what a parser made of it.

    Raises:
        RecordError: the item is not from this connector.
    """
    unique_id = id_of(item)
    told = _told(item)
    text = document.text
    stated = {
        name: value
        for name, value in document.metadata.items()
        if name not in ("uuid", "title", "modified_at", "author", "created_at")
    }
    metadata = {
        **stated,
        "title": _text(told.get("name")) or "Untitled",
        "author": _first_name(told.get("owners")) or _name(told.get("lastModifyingUser")),
        "edited_by": _name(told.get("lastModifyingUser")),
        "uri": _text(told.get("webViewLink")),
        "created_at": _text(told.get("createdTime")),
        "tags": ["starred"] if told.get("starred") is True else None,
        "description": _text(told.get("description")),
        "collection": item.get("collection"),
        "collection_id": item.get("folder"),
        "source": "google-drive",
        "kind": item["kind"],
        "mime_type": _text(told.get("mimeType")),
        "file_size": item.get("size"),
        "text_left_out": getattr(document, "left_out", ""),
        "relationships": _relationships(item, told, text),
    }
    data = getattr(document, "data", None)
    return FrameRecord(
        text,
        _filled(metadata),
        "document",
        unique_id,
        _text(told.get("modifiedTime")) or None,
        raw_data=data,
        raw_data_type=None if data is None else document.data_type,
        place=place_of(item),
        readers=item.get("readers"),
    )


def _told(item: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what Drive told of a file."""
    try:
        found = json.loads(item["file"])
    except (KeyError, TypeError, ValueError):
        found = None
    if not isinstance(found, dict):
        raise RecordError("the file has nothing told; give one that this connector read")
    return found


def _relationships(
    item: Mapping[str, Any], told: Mapping[str, Any], text: str
) -> list[dict[str, str]]:
    own, target = item["id"], told.get("shortcutDetails")
    to = [str(target["targetId"])] if isinstance(target, Mapping) and "targetId" in target else []
    found = dict.fromkeys([*to, *linked_files(text)])
    return [
        _relationship("parent", f"google-drive:file/{item.get('folder')}"),
        *(_relationship("reference", f"google-drive:file/{one}") for one in found if one != own),
    ]


def _relationship(kind: str, target: str) -> dict[str, str]:
    return {"relationship_type": kind, "target_id": target}


def _filled(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value not in (None, "", [], {})}


def _first_name(people: Any) -> str | None:
    return _name(people[0]) if isinstance(people, list) and people else None


def _name(person: Any) -> str | None:
    if not isinstance(person, Mapping):
        return None
    return _text(person.get("displayName")) or _text(person.get("emailAddress")) or None


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
