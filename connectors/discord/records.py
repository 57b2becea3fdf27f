"""What messages become: items with what is needed of them, and records of these.

An item holds the messages of one document as Discord told them, without what nobody sees and
without signatures of addresses, and the names of what they mention. So it needs no request to
become a record.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

from contextframe_beam.connectors.attachments import (
    Attachments,
    media_type,
    without_signature,
)
from contextframe_beam.connectors.conversations import (
    DAY,
    DOCUMENTS,
    MESSAGE,
    THREAD,
    Documents,
    Said,
    changed_at,
    metadata_of,
    point_of_time,
    title_in,
    transcript,
    version_of,
)
from contextframe_beam.connectors.discord.markup import (
    SYSTEM_TYPES,
    Found,
    Markup,
    addressed,
    author_of,
    emoji_name,
    mentioned,
    person_name,
    unsigned,
)
from contextframe_beam.connectors.discord.servers import id_in, listed, point_of_id
from contextframe_beam.connectors.files.item import FileItem
from contextframe_beam.connectors.page import Place
from contextframe_beam.errors import RecordError
from contextframe_beam.frames.record import FrameRecord
from contextframe_beam.frames.times import when

#: The address that people open.
WEB = "https://discord.com/channels"

#: The message that a thread was started from, as the thread tells it.
STARTER_TYPE = 21
_REPLY, _FORWARD = 0, 1

# Parts of a message by which it has something to show.
_SHOWN = (
    *("content", "embeds", "attachments", "components", "poll", "sticker_items", "stickers"),
    "message_snapshots",
)
_KEPT = (
    *("id", "type", "author", "timestamp", "edited_timestamp", "pinned", "reactions"),
    *("message_reference", "referenced_message", "interaction", *_SHOWN),
)
# Nobody sees these, or they are signed and lead to copies.
_DROPPED = frozenset(
    (
        *("proxy_url", "proxy_icon_url", "icon_url", "placeholder", "placeholder_version"),
        *("thumbnail", "waveform", "burst_colors", "count_details", "me", "me_burst", "thread"),
        *("avatar", "avatar_decoration_data", "banner", "primary_guild", "collectibles"),
        *("public_flags", "flags", "discriminator", "clan", "accent_color"),
    )
)


def is_shown(message: Mapping[str, Any]) -> bool:
    """Returns whether a message has something that people see."""
    if message.get("type") in SYSTEM_TYPES:
        return False
    if message.get("type") == STARTER_TYPE:
        return isinstance(message.get("referenced_message"), Mapping)
    return any(message.get(name) for name in _SHOWN)


def is_by_program(message: Mapping[str, Any]) -> bool:
    """Returns whether a bot or a webhook sent a message."""
    author = message.get("author")
    is_bot = isinstance(author, Mapping) and author.get("bot") is True
    return is_bot or bool(message.get("webhook_id"))


def point_of_message(message: Mapping[str, Any]) -> Decimal:
    """Returns when a message was sent, in seconds since 1970.

    Raises:
        RecordError: it has no id.
    """
    identifier = id_in(message, "id")
    if not identifier:
        raise RecordError("a message of the item has no id; give one that Discord told")
    return point_of_id(identifier)


def id_of(item: Mapping[str, Any]) -> str:
    """Returns the id of the document that an item is.

    Raises:
        RecordError: the item is not from this connector.
    """
    own = item.get("id")
    if not isinstance(own, str) or not own.startswith("discord:"):
        raise RecordError("the item has no id of Discord; give one that this connector has read")
    return own


def where_in(item: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns where the messages of an item are.

    Raises:
        RecordError: the item is not from this connector.
    """
    where = item.get("where")
    where = where if isinstance(where, Mapping) else {}
    parts = [where.get("server"), where.get("channel"), where.get("thread", where.get("channel"))]
    if not all(isinstance(one, Mapping) and id_in(one, "id") and one.get("name") for one in parts):
        raise RecordError("the item tells no server and channel; give one that was read")
    return where


def holder_in(where: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns the thread, or else the channel, that messages are in."""
    holder: Mapping[str, Any] = where.get("thread") or where["channel"]
    return holder


def place_in(where: Mapping[str, Any]) -> str:
    """Returns the part of the source that documents of a channel or a thread lie in."""
    channel, thread = where["channel"], where.get("thread")
    return f"channel/{channel['id']}" + (f"/threads/{thread['id']}" if thread else "")


def item_of(
    messages: Sequence[Mapping[str, Any]],
    kind: str,
    documents: Documents,
    where: Mapping[str, Any],
    names: Mapping[str, str],
    threads: Mapping[str, str],
) -> dict[str, Any]:
    """Returns the item of a document.

    Args:
        messages: Its messages, the oldest first.
        kind: message, conversation, day or thread.
        documents: How messages become documents.
        where: The server, the channel and the thread that they are in.
        names: The names of the roles and the channels of the server by their ids.
        threads: Those of threads that are mentioned.
    """
    first = messages[0]
    holder = holder_in(where)
    name = documents.name_of(first["id"], point_of_message(first))
    own = f"{holder['id']}" if kind == THREAD else f"{holder['id']}/{name}"
    kept = [_kept(one) for one in messages]
    server = where["server"]["id"]
    places = {place for one in kept for place in addressed(one)}
    return {
        "id": f"discord:{kind}/{own}",
        "kind": kind,
        "where": where,
        "names": dict(_names_in(kept, names, threads)),
        # A channel that the server does not list is a thread.
        "threads": sorted(one for guild, one in places if guild == server and one not in names),
        "messages": kept,
    }


def files_of(
    messages: Iterable[Mapping[str, Any]], item: Mapping[str, Any], attachments: Attachments
) -> Iterator[FileItem]:
    """Yields the files of the messages of an item that are read.

    Args:
        messages: The messages as Discord told them, with signed addresses.
        item: Their item.
        attachments: What becomes of files.
    """
    where = item["where"]
    for message in messages:
        if message.get("type") == STARTER_TYPE:
            continue  # the message is in the channel, with its files
        for one in _attachments_in(message):
            name, identifier = str(one.get("filename") or "file"), id_in(one, "id")
            size = one.get("size") if isinstance(one.get("size"), int) else None
            how = attachments.of_file(name, size)
            if how not in ("text", "bytes") or not identifier:
                continue
            yield FileItem(
                f"attachment/{identifier}/{name}",
                size,
                str(message.get("timestamp") or "") or None,
                one.get("url"),
                kind="attachment",
                id=f"discord:attachment/{identifier}",
                how=how,
                name=name,
                where=where,
                message=message["id"],
                parent=item["id"],
                about=one.get("description"),
                author=author_of(message),
                # A file never changes; what is told of it beside may.
                version=version_of(identifier, item["id"], _told_of(where), author_of(message)),
            )


def record_of(
    item: Mapping[str, Any], documents: Documents, found: Found, threads_are_documents: bool
) -> FrameRecord:
    """Returns the record of an item.

    Args:
        item: One that `item_of` made.
        documents: How messages become documents.
        found: Where is noted what is not known in their text.
        threads_are_documents: Whether a thread is a document.

    Raises:
        RecordError: the item is not from this connector.
    """
    own, where = id_of(item), where_in(item)
    kind, messages = item.get("kind"), listed(item.get("messages"))
    if kind not in DOCUMENTS or not messages:
        raise RecordError("the item has no messages; give one that this connector has read")
    names = item.get("names")
    markup = Markup(names if isinstance(names, Mapping) else {}, found)
    said = [_said(one, markup) for one in messages]
    text = transcript(said, documents)
    holder = holder_in(where)
    first = messages[0]
    if first.get("type") == 19:
        # Its text begins with what it replies to.
        begin = Markup(names if isinstance(names, Mapping) else {}).message({**first, "type": 0})
    else:
        begin = said[0].text
    metadata = {
        "title": _title(kind, where, begin, documents, said[0].point),
        **metadata_of(said),
        **_told_of(where),
        "source": "discord",
        "kind": kind,
        "uri": f"{WEB}/{where['server']['id']}/{holder['id']}"
        + ("" if kind == THREAD else f"/{first['id']}"),
    }
    if reactions := _reactions(messages):
        metadata["reactions"] = reactions
    if any(one.get("pinned") is True for one in messages):
        metadata["pinned"] = True
    if files := [_file_told(one) for message in messages for one in _attachments_in(message)]:
        metadata["attachments"] = files
    related = list(_relationships(item, messages, found, threads_are_documents))
    if related:
        metadata["relationships"] = related
    return FrameRecord(
        text,
        metadata,
        "document",
        own,
        changed_at(said),
        place=Place(place_in(where), point_of_message(first)),
        readers=where.get("readers"),
    )


def file_record(item: FileItem) -> FrameRecord:
    """Returns the record of a file that was read.

    Raises:
        RecordError: it was not read.
    """
    own, where, document = id_of(item), where_in(item), item.document
    if document is None:
        raise RecordError("the file was not read; a run reads files before it maps them")
    holder = holder_in(where)
    stated = {name: one for name, one in document.metadata.items() if name != "attachments"}
    metadata = {
        **({"properties": stated} if stated else {}),
        "title": str(item["name"]),
        "author": item.get("author"),
        "file_size": item.get("size"),
        **_told_of(where),
        "source": "discord",
        "kind": "attachment",
        "uri": f"{WEB}/{where['server']['id']}/{holder['id']}/{item['message']}",
        "relationships": [{"relationship_type": "parent", "target_id": item["parent"]}],
    }
    if item.get("about"):
        metadata["description"] = item["about"]
    data = getattr(document, "data", None)
    return FrameRecord(
        document.text,
        {name: value for name, value in metadata.items() if value not in (None, "")},
        "document",
        own,
        item.get("modified_at"),
        raw_data=data,
        raw_data_type=None if data is None else media_type(str(item["name"])),
        place=place_of_file(item),
        readers=where.get("readers"),
    )


def place_of_file(item: Mapping[str, Any]) -> Place:
    """Returns the place of a file, which is that of its message."""
    return Place(place_in(where_in(item)), point_of_message({"id": item.get("message")}))


def attachment_in(message: Mapping[str, Any], identifier: str) -> str | None:
    """Returns the address of a file of a message, as Discord has just told it."""
    for one in _attachments_in(message):
        if one.get("id") == identifier and isinstance(one.get("url"), str):
            return str(one["url"])
    return None


def _said(message: Mapping[str, Any], markup: Markup) -> Said:
    """Returns a message, ready to be written."""
    before = message.get("referenced_message")
    if message.get("type") == STARTER_TYPE and isinstance(before, Mapping):
        return _said({**before, "type": 0}, markup)
    edited = when(str(message.get("edited_timestamp") or ""))
    return Said(
        point_of_message(message),
        author_of(message),
        markup.message(message),
        None if edited is None else point_of_time(edited),
    )


def _title(
    kind: Any, where: Mapping[str, Any], text: str, documents: Documents, point: Decimal
) -> str:
    holder = holder_in(where)
    if kind == THREAD:
        return str(holder["name"])
    if kind == DAY:
        return f"#{holder['name']}, {documents.day_of(point)}"
    return title_in(text, f"#{holder['name']}")


def _told_of(where: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the metadata that all documents of a channel or a thread share."""
    channel, thread = where["channel"], where.get("thread") or {}
    told = {
        "collection": f"{where['server']['name']} / #{channel['name']}",
        "collection_id": channel["id"],
        "thread": thread.get("name"),
        "tags": thread.get("tags"),
        "locked": thread.get("locked"),
    }
    return {name: value for name, value in told.items() if value}


def _relationships(
    item: Mapping[str, Any],
    messages: Sequence[Mapping[str, Any]],
    found: Found,
    threads_are_documents: bool,
) -> Iterator[dict[str, Any]]:
    where, own = item["where"], str(item["id"])
    thread = where.get("thread")
    targets: dict[tuple[str, str], None] = {}
    if item["kind"] == THREAD:
        targets["parent", f"discord:channel/{where['channel']['id']}"] = None
    elif item["kind"] == MESSAGE and (reply := _referred(messages[0], _REPLY)):
        targets["parent", f"discord:message/{'/'.join(reply)}"] = None
    elif thread:
        targets["parent", f"discord:thread/{thread['id']}"] = None
    for message in messages:
        if forwarded := _referred(message, _FORWARD):
            targets["reference", f"discord:message/{'/'.join(forwarded)}"] = None
    for channel, message_id in found.addresses:
        is_thread = threads_are_documents and channel in item.get("threads", ())
        kind = "thread" if is_thread else "message" if message_id else "channel"
        target = f"{channel}/{message_id}" if kind == "message" else channel
        targets["reference", f"discord:{kind}/{target}"] = None
    people = {id_in(one, "id") for m in messages for one in listed(m.get("mentions"))}
    for person in [*found.people, *sorted(people - set(found.people))]:
        if person:
            targets["mentions", f"discord:user/{person}"] = None
    for kind, target in targets:
        if target != own:
            yield {"relationship_type": kind, "target_id": target}


def _referred(message: Mapping[str, Any], kind: int) -> tuple[str, str] | None:
    """Returns the channel and the message that one refers to: as a reply, or as a forward."""
    told = message.get("message_reference")
    if not isinstance(told, Mapping) or told.get("type", _REPLY) != kind:
        return None
    if kind == _REPLY and message.get("type") != 19:
        return None
    found = id_in(told, "channel_id"), id_in(told, "message_id")
    return found if all(found) else None


def _reactions(messages: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for message in messages:
        for one in listed(message.get("reactions")):
            emoji, count = one.get("emoji"), one.get("count")
            if isinstance(emoji, Mapping) and isinstance(count, int):
                name = emoji_name(emoji)
                counts[name] = counts.get(name, 0) + count
    return counts


def _attachments_in(message: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yields the files of a message, and of what it forwards."""
    yield from listed(message.get("attachments"))
    for one in listed(message.get("message_snapshots")):
        inner = one.get("message")
        if isinstance(inner, Mapping):
            yield from listed(inner.get("attachments"))


def _file_told(told: Mapping[str, Any]) -> dict[str, Any]:
    names = {"id": "id", "filename": "name", "content_type": "type", "size": "size"}
    return {name: told[key] for key, name in names.items() if told.get(key) is not None}


def _kept(message: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what is needed of a message, without what is signed."""
    kept = {name: _cleaned(message[name]) for name in _KEPT if message.get(name)}
    kept["type"] = message.get("type", 0)
    if kept["type"] == 19 and "referenced_message" in message:
        kept.setdefault("referenced_message", None)
    if people := listed(message.get("mentions")):
        kept["mentions"] = [{"id": one.get("id"), "name": person_name(one)} for one in people]
    before = kept.get("referenced_message")
    if isinstance(before, dict):
        whole = message["referenced_message"]
        kept["referenced_message"] = _kept({**whole, "referenced_message": None})
    return kept


def _cleaned(told: Any) -> Any:
    if isinstance(told, Mapping):
        return {
            name: without_signature(one)
            if name == "url" and isinstance(one, str)
            else _cleaned(one)
            for name, one in told.items()
            if name not in _DROPPED and one not in (None, [], "")
        }
    if isinstance(told, list):
        return [_cleaned(one) for one in told]
    return unsigned(told) if isinstance(told, str) else told


def _names_in(
    messages: Sequence[Mapping[str, Any]], names: Mapping[str, str], threads: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    """Yields the names of what messages mention, by their ids."""
    for message in messages:
        for person in _people_in(message):
            yield id_in(person, "id"), person.get("name") or person_name(person)
        for kind, identifier in mentioned(message):
            name = names.get(identifier) or threads.get(identifier)
            if kind != "user" and name:
                yield identifier, name


def _people_in(message: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield from listed(message.get("mentions"))
    for inner in (
        message.get("referenced_message"),
        *(one.get("message") for one in listed(message.get("message_snapshots"))),
    ):
        if isinstance(inner, Mapping):
            yield from listed(inner.get("mentions"))
