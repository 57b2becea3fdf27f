"""Comments on files of Google Drive, and the replies to them: documents of their own, or inline."""

from __future__ import annotations

import html
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from xxhash import xxh3_128_hexdigest

from contextframe_beam.connectors.markdown import apart, indented, quoted


def comment_items(file: Mapping[str, Any], comments: Sequence[Mapping[str, Any]]) -> Iterator[Any]:
    """Yields the comments on a file and the replies to them as items.

    Args:
        file: The item of the file.
        comments: As Drive tells them.
    """
    known = {name: file[name] for name in ("feed", "folder", "readers")}
    about = json.loads(str(file["file"]))
    for comment in comments:
        first = f"{file['id']}/{comment.get('id')}"
        for one in [comment, *_replies(comment)]:
            is_reply = one is not comment
            told = {name: value for name, value in one.items() if name != "replies"}
            if not is_reply and not _text(told.get("content")):
                continue
            yield {
                **known,
                "kind": "comment",
                "id": f"{first}/{one.get('id')}" if is_reply else first,
                "parent": f"comment/{first}" if is_reply else f"file/{file['id']}",
                "on": file["id"],
                "uri": _address(_text(about.get("webViewLink")), str(comment.get("id"))),
                "comment": told,
                "version": xxh3_128_hexdigest(json.dumps(told, sort_keys=True).encode()),
            }


def comment_text(comment: Mapping[str, Any]) -> str:
    """Returns the text of a comment or a reply, below what it is about."""
    about = comment.get("quotedFileContent")
    quote = html.unescape(_text(about.get("value"))) if isinstance(about, Mapping) else ""
    return apart(quoted(quote.strip()), _text(comment.get("content")).strip())


def comment_metadata(comment: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what is told of a comment or a reply."""
    author = comment.get("author")
    return {
        "author": _name(author) if isinstance(author, Mapping) else None,
        "created_at": comment.get("createdTime"),
        "resolved": True if comment.get("resolved") is True else None,
        "action": comment.get("action"),
    }


def mentioned(comment: Mapping[str, Any]) -> list[str]:
    """Returns the addresses of the people that a comment mentions."""
    found = comment.get("mentionedEmailAddresses")
    return [one for one in found if isinstance(one, str)] if isinstance(found, list) else []


def comments_inline(comments: Sequence[Mapping[str, Any]]) -> str:
    """Returns comments as a list below the text of their file; "" without any."""
    lines = []
    for comment in comments:
        for one in [comment, *_replies(comment)]:
            author = _name(one.get("author") or {}) or "Somebody"
            said = f"{author}, {_text(one.get('createdTime'))[:16]}: {comment_text(one)}"
            depth = 0 if one is comment else 2
            lines.append(" " * depth + "- " + indented(said, depth + 2))
    return "## Comments\n\n" + "\n".join(lines) if lines else ""


def _replies(comment: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Returns the replies that say something; some only resolve a comment."""
    found = comment.get("replies")
    return [
        one
        for one in (found if isinstance(found, list) else ())
        if isinstance(one, Mapping) and one.get("deleted") is not True and _text(one.get("content"))
    ]


def _address(file: str, comment: str) -> str | None:
    if not file:
        return None
    return f"{file}{'&' if '?' in file else '?'}disco={comment}"


def _name(person: Mapping[str, Any]) -> str | None:
    return _text(person.get("displayName")) or _text(person.get("emailAddress")) or None


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
