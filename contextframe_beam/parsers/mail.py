"""E-mail: who wrote to whom, the text, and the names of what is attached."""

from __future__ import annotations

import email
import email.errors
import email.policy
import email.utils
import re
from collections.abc import Iterator
from email.header import decode_header
from email.message import Message
from typing import Any

from contextframe_beam.frames.document import Document
from contextframe_beam.parsers.clean import line
from contextframe_beam.parsers.contract import Limits, ParseError, in_words
from contextframe_beam.parsers.encodings import decoded
from contextframe_beam.parsers.text import as_metadata
from contextframe_beam.parsers.web_page import declared_charset, page

_FIELD = re.compile(rb"\A(?:From [^\n]*\n)?[!-9;-~]+[ \t]*:")
_LONGEST_FIELD = 256 * 1024


class MailParser:
    """Reads a message (RFC 5322); messages inside it follow, attachments are named."""

    version = "1"
    suffixes = (".eml", ".mht", ".mhtml")

    def parse(self, data: bytes, name: str, limits: Limits) -> Document:
        """Returns the text of a message."""
        data = data.removeprefix(b"\xef\xbb\xbf").lstrip(b"\r\n")
        if not data.strip():
            raise ParseError("it is empty")
        if not _FIELD.match(data[:4096]):
            raise ParseError("it is not an e-mail: it begins with no header")
        _check_depth(data, limits)
        message = email.message_from_bytes(data, policy=email.policy.compat32)
        attachments: list[str] = []
        text = "\n\n".join(_blocks(message, attachments, limits.max_nesting))
        date = _date(message)
        return Document(
            text,
            title=_header(message, "Subject") or None,
            metadata=as_metadata(
                {
                    "author": _people(message, "From"),
                    "to": _people(message, "To"),
                    "cc": _people(message, "Cc"),
                    "created_at": date,
                    "message_id": _header(message, "Message-ID"),
                    "tags": _header(message, "Keywords"),
                    "attachments": attachments,
                }
            ),
        )


def _check_depth(data: bytes, limits: Limits) -> None:
    """Refuses parts in parts before they are read, which the library does by recursion."""
    nested = len(re.findall(rb"(?im)^content-type:[ \t]*message/", data))
    multiparts = len(set(re.findall(rb"(?im)\bboundary\s*=\s*\"?([^\"\s;]{1,200})", data)))
    if nested + multiparts <= limits.max_nesting:
        return
    depth = _depth(email.message_from_bytes(data, policy=email.policy.compat32), limits)
    if depth > limits.max_nesting:
        raise ParseError(f"its parts are nested more than {limits.max_nesting} deep")


def _depth(message: Message, limits: Limits) -> int:
    deepest, waiting = 0, [(message, 0)]
    while waiting and deepest <= limits.max_nesting:
        one, depth = waiting.pop()
        deepest = max(deepest, depth)
        if one.is_multipart():
            waiting += [(part, depth + 1) for part in _parts(one)]
    return deepest


def _check_fields(part: Message) -> None:
    """Refuses fields so long that taking them apart would last, as no mailer writes them."""
    for name, value in part.raw_items():
        if len(value) > _LONGEST_FIELD:
            raise ParseError(f"its field {name[:40]} is longer than {in_words(_LONGEST_FIELD)}")


def _parts(message: Message) -> list[Message]:
    payload = message.get_payload()
    return [one for one in payload if isinstance(one, Message)] if isinstance(payload, list) else []


def _blocks(message: Message, attachments: list[str], depth: int) -> Iterator[str]:
    """Yields the head and the text of a message, and of those that it holds."""
    _check_fields(message)
    subject = _header(message, "Subject")
    if subject:
        yield f"# {subject}"
    head = [(name, _people(message, name)) for name in ("From", "To", "Cc")]
    head.append(("Date", _header(message, "Date")))
    lines = [f"{name}: {value}" for name, value in head if value]
    if lines:
        yield "  \n".join(lines)
    own: list[str] = []
    yield from _body(message, own, depth)
    if own:
        yield "Attachments:\n" + "\n".join(f"- {one}" for one in own)
        attachments += own


def _body(part: Message, attachments: list[str], depth: int) -> Iterator[str]:
    _check_fields(part)
    kind = part.get_content_type()
    if depth < 0:
        raise ParseError("its parts are nested too deep")
    name = _file_name(part)
    if kind == "message/rfc822":
        if name:
            attachments.append(name)
        for one in _parts(part):
            yield from _blocks(one, attachments, depth - 1)
    elif name or part.get_content_disposition() == "attachment":
        attachments.append(name or "(without a name)")
    elif kind == "multipart/alternative":
        chosen = _alternative(_parts(part))
        if chosen is not None:
            yield from _body(chosen, attachments, depth - 1)
    elif part.is_multipart():
        for one in _parts(part):
            yield from _body(one, attachments, depth - 1)
    elif part.get_content_maintype() == "text":
        text = _text(part, kind)
        if text:
            yield text


def _alternative(parts: list[Message]) -> Message | None:
    """Returns the form of a text to take: plain, unless it is empty or missing."""
    for kind in ("text/plain", "text/html"):
        for one in parts:
            if one.get_content_type() == kind and str(one.get_payload()).strip():
                return one
    return parts[-1] if parts else None


def _text(part: Message, kind: str) -> str:
    data = part.get_payload(decode=True)
    if not isinstance(data, bytes) or not data.strip():
        return ""
    charset = part.get_content_charset()
    if kind == "text/html":
        return page(decoded(data, charset or declared_charset(data))).text
    return decoded(data, charset).replace("\r\n", "\n").strip()


def _file_name(part: Message) -> str:
    try:
        name = part.get_filename()
    except (LookupError, ValueError, TypeError):
        return "(without a name)"
    return _decoded_header(name, part.get_content_charset()) if name else ""


def _header(message: Message, name: str) -> str:
    value: Any = message.get(name)
    return _decoded_header(value, message.get_content_charset()) if value is not None else ""


def _decoded_header(value: Any, declared: str | None) -> str:
    """Returns a header as text: encoded words (RFC 2047), or raw bytes in the text's encoding."""
    try:
        pieces = decode_header(value)
    except (ValueError, LookupError, email.errors.HeaderParseError):
        pieces = [(str(value), None)]
    text = ""
    for piece, charset in pieces:
        raw = piece.encode("utf-8", "surrogateescape") if isinstance(piece, str) else piece
        if charset in (None, "unknown-8bit"):
            charset = declared
        text += decoded(raw, charset) if raw else ""
    return line(text)


def _people(message: Message, name: str) -> str:
    charset = message.get_content_charset()
    people = [_decoded_header(one, charset) for one in message.get_all(name, [])]
    return ", ".join(filter(None, people))


def _date(message: Message) -> str | None:
    try:
        return email.utils.parsedate_to_datetime(str(message.get("Date"))).isoformat()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
