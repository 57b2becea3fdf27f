"""What items of Linear become: records, with the ids and the metadata of each kind.

An item is what Linear's API gave, its inner lists as lists. Beside it stands what was found out
while it was read: `_kind`; `_readers`; `_in`, the kind and id of what it lies in; `_links` and
`_people`, the ids of what its texts refer to; `_workspace`, the name of the workspace in addresses.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

from contextframe_beam.connectors.attachments import media_type
from contextframe_beam.connectors.linear.scope import listed
from contextframe_beam.connectors.linear.text import relationships
from contextframe_beam.connectors.markdown import apart, quoted
from contextframe_beam.connectors.page import Place
from contextframe_beam.errors import RecordError
from contextframe_beam.frames.record import Deletion, FrameRecord

#: The kinds of documents, beside files.
KINDS = (
    *("issue", "comment", "project", "project_update", "document", "initiative"),
    "initiative_update",
)
# A point in an order has 29 digits, and 12 bytes have no more.
_POINT_BYTES = 12


@dataclass(frozen=True)
class UploadedFile:
    """A file that no parser reads.

    Attributes:
        data: Its bytes, where they are kept.
        text: Its text, of which there is none.
        metadata: What it states of itself, which is nothing.
    """

    data: bytes | None
    text: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)


def record_of(item: Mapping[str, Any]) -> FrameRecord | Deletion:
    """Returns the record of an item, or the deletion of one that is gone.

    Raises:
        RecordError: the item is not from this connector, or lacks what names it.
    """
    kind = item.get("_kind")
    if kind == "gone":
        return Deletion(_text(item.get("_of")) or None, _text(item.get("updatedAt")) or None)
    if kind == "file":
        return _file(item)
    if kind not in KINDS:
        raise RecordError("the item has no _kind of Linear's; give one that this connector read")
    told = _MADE[kind](item)
    related = [*_parents(item), *_related(item)]
    metadata = _given({**_common(item), **told})
    if "archived_at" in metadata:
        metadata["status"] = "archived"
    if related:
        metadata["relationships"] = related
    return FrameRecord(
        text_of(item),
        metadata,
        "document",
        id_of(item),
        _text(item.get("updatedAt")) or _text(item.get("createdAt")) or None,
        place=place_of(item),
        readers=_readers(item),
    )


def id_of(item: Mapping[str, Any]) -> str:
    """Returns the id of an item.

    Raises:
        RecordError: the item is not from this connector.
    """
    if item.get("_kind") == "file":
        path = _text(item.get("path"))
        if not path.startswith("attachment/"):
            raise RecordError("the file has no path; give one that this connector has read")
        return f"linear:{path}"
    own = _text(item.get("id"))
    if not own:
        raise RecordError(f"the {item.get('_kind')} has no id")
    return f"linear:{item.get('_kind')}/{own}"


def text_of(item: Mapping[str, Any]) -> str:
    """Returns the text of an item, with the comments that were put into it."""
    parts = [_text(item.get(name)) for name in ("description", "body", "content")]
    parts.insert(0, quoted(_text(item.get("quotedText"))))
    for one in listed(item.get("_comments")):
        who, at = _author(one) or "unknown", _text(one.get("createdAt"))
        parts.append(f"---\n\n**{who}**, {at}:\n\n{text_of(one)}")
    return apart(*parts)


def texts_of(item: Mapping[str, Any]) -> str:
    """Returns all of an item in which there may be addresses, mentions and files."""
    return text_of({**item, "quotedText": None})


def place_of(item: Mapping[str, Any]) -> Place | None:
    """Returns where an item lies among those that are known completely of what it lies in."""
    if item.get("_kind") == "file":
        return Place(_text(item.get("_list")) or "files", point_of(_text(item.get("_owner"))))
    if item.get("_kind") == "comment" and (holder := _holder(item)):
        return Place("comments", point_of(holder))
    return None


def point_of(unique_id: str) -> int:
    """Returns the point at which lies what belongs to a document."""
    digest = hashlib.sha256(unique_id.encode("utf-8", "replace")).digest()
    return int.from_bytes(digest[:_POINT_BYTES], "big")


def _issue(item: Mapping[str, Any]) -> dict[str, Any]:
    cycle = item.get("cycle")
    cycle = cycle if isinstance(cycle, Mapping) else {}
    number = cycle.get("number")
    name = f"Cycle {number:g}" if isinstance(number, int | float) else ""
    identifier = _text(item.get("identifier"))
    return {
        "title": f"{identifier} {_text(item.get('title'))}".strip(),
        "identifier": identifier,
        "previous_identifiers": _texts(item.get("previousIdentifiers")),
        "status": _at(item, "state", "name"),
        "state": _at(item, "state", "name"),
        "state_type": _at(item, "state", "type"),
        **_priority(item),
        "assignee": _at(item, "assignee", "name"),
        "tags": [_text(one.get("name")) for one in listed(item.get("labels"))],
        "project": _at(item, "project", "name"),
        "project_id": _at(item, "project", "id"),
        "milestone": _at(item, "projectMilestone", "name"),
        "cycle": _text(cycle.get("name")) or name,
        "due_date": _text(item.get("dueDate")),
        "estimate": _number(item.get("estimate")),
        "completed_at": _text(item.get("completedAt")),
        "canceled_at": _text(item.get("canceledAt")),
        "collection": _at(item, "team", "name"),
        "collection_id": _at(item, "team", "id"),
        "links": _links(item.get("attachments"), "title"),
    }


def _comment(item: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "edited_at": _text(item.get("editedAt")),
        "resolved_at": _text(item.get("resolvedAt")),
        "issue": _text(item.get("_identifier")),
        **_collection(item),
    }


def _project(item: Mapping[str, Any]) -> dict[str, Any]:
    teams = listed(item.get("teams"))
    told = {
        "title": _text(item.get("name")) or "Untitled",
        "status": _at(item, "status", "name"),
        "state": _at(item, "status", "name"),
        "state_type": _at(item, "status", "type"),
        **_priority(item),
        "lead": _at(item, "lead", "name"),
        "tags": [_text(one.get("name")) for one in listed(item.get("labels"))],
        "teams": [_text(one.get("key")) for one in teams],
        "health": _text(item.get("health")),
        "start_date": _text(item.get("startDate")),
        "target_date": _text(item.get("targetDate")),
        "completed_at": _text(item.get("completedAt")),
        "canceled_at": _text(item.get("canceledAt")),
        "links": _links(item.get("externalLinks"), "label"),
    }
    if len(teams) == 1:
        told |= {
            "collection": _text(teams[0].get("name")),
            "collection_id": _text(teams[0].get("id")),
        }
    return told


def _update(item: Mapping[str, Any]) -> dict[str, Any]:
    name = _text(item.get("_name"))
    day = _text(item.get("createdAt"))[:10]
    return {
        "title": f"{name}: update of {day}" if name else f"Update of {day}",
        "health": _text(item.get("health")),
        "edited_at": _text(item.get("editedAt")),
        **_collection(item),
    }


def _document(item: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "title": _text(item.get("title")) or "Untitled",
        "updated_by": _at(item, "updatedBy", "name"),
        **_collection(item),
    }


def _initiative(item: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "title": _text(item.get("name")) or "Untitled",
        "status": _text(item.get("status")),
        "owner": _at(item, "owner", "name"),
        "health": _text(item.get("health")),
        "target_date": _text(item.get("targetDate")),
        "started_at": _text(item.get("startedAt")),
        "completed_at": _text(item.get("completedAt")),
        "collection": _at(item, "leadTeam", "name"),
        "collection_id": _at(item, "leadTeam", "id"),
        "links": _links(item.get("links"), "label"),
    }


_MADE = {
    "issue": _issue,
    "comment": _comment,
    "project": _project,
    "project_update": _update,
    "document": _document,
    "initiative": _initiative,
    "initiative_update": _update,
}


def _file(item: Mapping[str, Any]) -> FrameRecord:
    own = id_of(item)
    document = getattr(item, "document", None)
    if document is None:
        raise RecordError(f"{own} was not read; a run reads files before it maps them")
    size, owner = item.get("size"), _text(item.get("_owner"))
    stated = {name: one for name, one in document.metadata.items() if name != "attachments"}
    told = {
        "title": _text(item.get("name")),
        "uri": _text(item.get("_address")),
        "file_size": size if isinstance(size, int) else None,
        "properties": stated,
        "source": "linear",
        "kind": "attachment",
        "collection": _text(item.get("collection")),
        "collection_id": _text(item.get("collection_id")),
        "relationships": [{"relationship_type": "parent", "target_id": owner}] if owner else [],
    }
    data = getattr(document, "data", None)
    return FrameRecord(
        document.text,
        _given(told),
        "document",
        own,
        _text(item.get("modified_at")) or None,
        raw_data=data,
        raw_data_type=None if data is None else media_type(_text(item.get("name"))),
        place=place_of(item),
        readers=_readers(item),
    )


def _common(item: Mapping[str, Any]) -> dict[str, Any]:
    files = [dict(one) for one in listed(item.get("_files"))]
    return {
        "author": _author(item),
        "uri": _text(item.get("url")),
        "created_at": _text(item.get("createdAt")),
        "archived_at": _text(item.get("archivedAt")),
        "attachments": files,
        "source": "linear",
        "kind": item["_kind"],
    }


def _author(item: Mapping[str, Any]) -> str:
    for name in ("creator", "user"):
        if told := _at(item, name, "name"):
            return told
    if told := _at(item, "externalUserCreator", "name") or _at(item, "externalUser", "name"):
        return told
    return _at(item, "botActor", "userDisplayName") or _at(item, "botActor", "name")


def _parents(item: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    targets: list[str] = []
    if before := _text(item.get("parentId")):
        targets = [f"linear:comment/{before}"]
    elif holder := _holder(item):
        targets = [holder]
    elif item["_kind"] == "issue" and (above := _at(item, "parent", "id")):
        targets = [f"linear:issue/{above}"]
    elif item["_kind"] == "initiative" and (above := _at(item, "parentInitiative", "id")):
        targets = [f"linear:initiative/{above}"]
    elif item["_kind"] == "project":
        found = listed(item.get("initiatives"))
        targets = [f"linear:initiative/{one['id']}" for one in found if _text(one.get("id"))]
    for target in targets:
        yield {"relationship_type": "parent", "target_id": target}


def _related(item: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yields what an item refers to: relations, links, and what is in its text."""
    seen: set[tuple[str, str]] = set()
    for relation in listed(item.get("relations")):
        if other := _at(relation, "relatedIssue", "id"):
            target, kind = f"linear:issue/{other}", _text(relation.get("type"))
            seen.add(("reference", target))
            yield _reference(target, {"kind": kind})
    for name, label in (("attachments", "title"), ("externalLinks", "label"), ("links", "label")):
        for link in listed(item.get(name)):
            target = _text(link.get("url"))
            if target and ("reference", target) not in seen:
                seen.add(("reference", target))
                yield _reference(target, {"title": _text(link.get(label))})
    links, people = item.get("_links"), item.get("_people")
    found = relationships(
        texts_of(item),
        _text(item.get("_workspace")),
        links if isinstance(links, Mapping) else {},
        people if isinstance(people, Mapping) else {},
        id_of(item),
    )
    for one in found:
        if (one["relationship_type"], one["target_id"]) not in seen:
            yield one


def _reference(target: str, metadata: Mapping[str, str]) -> dict[str, Any]:
    told = _given(metadata)
    made: dict[str, Any] = {"relationship_type": "reference", "target_id": target}
    return {**made, "metadata": told} if told else made


def _holder(item: Mapping[str, Any]) -> str:
    """Returns the id of what an item lies in: of a comment its issue, of an update its project."""
    holder = item.get("_in")
    if not isinstance(holder, list) or len(holder) != 2 or not all(map(_text, holder)):
        return ""
    return f"linear:{holder[0]}/{holder[1]}"


def _collection(item: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _text(item.get(name)) for name in ("collection", "collection_id")}


def _readers(item: Mapping[str, Any]) -> list[str] | None:
    return _texts(item.get("_readers")) or None


def _links(value: Any, name: str) -> list[dict[str, Any]]:
    made = (
        _given({"title": _text(one.get(name)), "url": _text(one.get("url"))})
        for one in listed(value)
    )
    return [one for one in made if one]


def _priority(item: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "priority": _number(item.get("priority")),
        "priority_label": _text(item.get("priorityLabel")),
    }


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: one for name, one in values.items() if one not in (None, "", [], {})}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _texts(value: Any) -> list[str]:
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []


def _number(value: Any) -> int | float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        return None
    return int(value) if value == int(value) else value


def _at(item: Mapping[str, Any], name: str, field: str) -> str:
    inner = item.get(name)
    return _text(inner.get(field)) if isinstance(inner, Mapping) else ""
