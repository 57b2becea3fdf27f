"""Messages as Slack gives them: which count, what is kept of them, and what is their version."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

from contextframe_beam.connectors.attachments import without_signature
from contextframe_beam.connectors.conversations import version_of
from contextframe_beam.connectors.slack.mrkdwn import text_in

# What Slack itself writes of comings and goings.
_SYSTEM = frozenset(
    (
        *("channel_join", "channel_leave", "channel_archive", "channel_unarchive", "channel_name"),
        *("group_join", "group_leave", "group_archive", "group_unarchive", "group_name"),
        *("channel_convert_to_private", "channel_convert_to_public", "channel_posting_permissions"),
        *("bot_add", "bot_remove", "bot_enable", "bot_disable", "pinned_item", "unpinned_item"),
        *("app_conversation_join", "app_conversation_leave", "joiner_notification"),
        *("joiner_notification_for_inviter", "tabbed_canvas_updated", "channel_canvas_updated"),
    )
)
_KEPT = (
    *("type", "subtype", "hidden", "user", "bot_id", "username", "text", "blocks", "attachments"),
    *("ts", "thread_ts", "edited", "reactions", "reply_count", "latest_reply"),
)
_KEPT_OF_FILES = (
    *("id", "name", "title", "mimetype", "filetype", "size", "mode", "is_external", "user"),
    *("permalink", "url_private", "url_private_download", "timestamp", "edit_timestamp", "updated"),
)
_VERSION_OF_FILES = ("id", "name", "title", "mode", "size", "edit_timestamp", "updated")
# Pictures beside a text, whose addresses may be others each time.
_VOLATILE = frozenset(("thumb_url", "service_icon", "author_icon", "footer_icon"))


def ts_of(message: Mapping[str, Any]) -> str:
    """Returns the ts of a message: its name and its time, as text, since a float is inexact."""
    return text_in(message, "ts")


def point_of_ts(ts: str) -> Decimal | None:
    """Returns a ts as a point, exactly; None where it is none."""
    try:
        point = Decimal(ts)
    except InvalidOperation:
        return None
    return point if point.is_finite() else None


def at(message: Mapping[str, Any]) -> Decimal:
    """Returns when a message was sent."""
    return point_of_ts(ts_of(message)) or Decimal(0)


def thread_of(message: Mapping[str, Any]) -> str | None:
    """Returns the ts of the message that this one replies to; None of one that is no reply."""
    thread = text_in(message, "thread_ts")
    return thread if thread and thread != ts_of(message) else None


def replies_of(message: Mapping[str, Any]) -> int:
    """Returns how many replies a message has."""
    count = message.get("reply_count")
    return int(count) if isinstance(count, int | float) else 0


def is_tombstone(message: Mapping[str, Any]) -> bool:
    """Returns whether a message was deleted, and stands for its replies alone."""
    return message.get("subtype") == "tombstone"


def is_system(message: Mapping[str, Any]) -> bool:
    """Returns whether Slack itself wrote a message, of people who come and go."""
    return message.get("subtype") in _SYSTEM


def is_of_bot(message: Mapping[str, Any]) -> bool:
    """Returns whether a program wrote a message."""
    return bool(text_in(message, "bot_id")) or message.get("subtype") == "bot_message"


def files_of(message: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yields the files of a message."""
    files = message.get("files")
    for one in files if isinstance(files, list) else ():
        if isinstance(one, Mapping):
            yield one


def cleaned(message: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what is kept of a message, without signatures and public links to its files."""
    told = {name: message[name] for name in _KEPT if name in message}
    profile = message.get("bot_profile")
    if isinstance(profile, Mapping) and text_in(profile, "name"):
        told["bot_profile"] = {"name": profile["name"]}
    for name in ("blocks", "attachments"):
        if name in told:
            told[name] = _without(told[name])
    files = [{n: one[n] for n in _KEPT_OF_FILES if n in one} for one in files_of(message)]
    return {**told, "files": files} if files else told


def version_of_messages(messages: list[dict[str, Any]]) -> str:
    """Returns what is another one whenever messages, or what is known of their threads, change."""
    return version_of([_told(one) for one in messages])


def version_of_file(told: Mapping[str, Any], parent: str) -> str:
    """Returns what is another one whenever a file changes, or belongs to another document."""
    return version_of([told.get(name) for name in _VERSION_OF_FILES], parent)


def _told(message: Mapping[str, Any]) -> dict[str, Any]:
    edited = message.get("edited")
    reactions = message.get("reactions")
    return {
        **{name: message.get(name) for name in ("ts", "subtype", "text", "blocks", "username")},
        "edited": edited.get("ts") if isinstance(edited, Mapping) else None,
        "replies": [replies_of(message), message.get("latest_reply")],
        "reactions": [
            [one.get("name"), one.get("count")]
            for one in (reactions if isinstance(reactions, list) else ())
            if isinstance(one, Mapping)
        ],
        "files": [[one.get(name) for name in _VERSION_OF_FILES] for one in files_of(message)],
        "attachments": message.get("attachments"),
    }


def _without(told: Any, name: str = "") -> Any:
    """Returns blocks or attachments without signatures in the addresses of pictures."""
    if isinstance(told, Mapping):
        return {key: _without(one, key) for key, one in told.items() if key not in _VOLATILE}
    if isinstance(told, list):
        return [_without(one) for one in told]
    is_picture = name == "image_url" and isinstance(told, str)
    return without_signature(told) if is_picture else told
