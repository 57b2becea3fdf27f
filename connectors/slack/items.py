"""Items of the connector: the ids, places and readers of the records that they become."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from contextframe_beam.connectors.conversations import DOCUMENTS
from contextframe_beam.connectors.files.item import FileItem
from contextframe_beam.connectors.page import Place
from contextframe_beam.errors import RecordError

#: The kind of an item that is a file.
ATTACHMENT = "attachment"

#: The kind of an item that is gone, while its replies may be there.
GONE = "gone"


def parts_of(channel: str) -> str:
    """Returns the name of the place of replies and files of a channel."""
    return f"{channel}/parts"


def id_of_item(item: Mapping[str, Any]) -> str:
    """Returns the unique_id of what an item becomes.

    Raises:
        RecordError: the item is not one that this connector gave.
    """
    own, path, channel, kind = (item.get(name) for name in ("id", "path", "channel", "kind"))
    known = isinstance(channel, Mapping) and all(
        isinstance(channel.get(name), str) and channel[name] for name in ("id", "label", "kind")
    )
    if not known or kind not in (*DOCUMENTS, GONE, ATTACHMENT):
        raise RecordError("the item has no channel and kind; give one that this connector gave")
    if kind == ATTACHMENT and isinstance(own, str) and own.startswith("slack:file/"):
        return own
    if not isinstance(path, str) or not path or kind == ATTACHMENT:
        raise RecordError("the item has no path; give one that this connector gave")
    return f"slack:{path}"


def place_of_item(item: Mapping[str, Any]) -> Place:
    """Returns where a document lies: in its channel, or among what belongs to messages of it."""
    channel = str(item["channel"]["id"])
    is_part = item.get("kind") == ATTACHMENT or item.get("is_part") is True
    return Place(parts_of(channel) if is_part else channel, item.get("point"))


def readers_of_item(item: Mapping[str, Any]) -> list[str] | None:
    """Returns who may read what an item becomes."""
    readers = item["channel"].get("readers")
    return list(readers) if isinstance(readers, list) else None


def metadata_of_file(item: FileItem, told: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what is said of a file: by its message, and by itself."""
    stated = {name: one for name, one in told.items() if name != "attachments"}
    named = {
        "title": item.get("title") or item.get("name"),
        "author": item.get("author"),
        "uri": item.get("uri"),
        "file_size": item.get("size"),
        "created_at": item.get("modified_at"),
        "properties": stated,
    }
    return {
        **{name: one for name, one in named.items() if one not in (None, "", {})},
        "relationships": [
            {"relationship_type": "parent", "target_id": f"slack:{item.get('parent')}"}
        ],
    }
