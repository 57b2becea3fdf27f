"""FieldMapper: from a source's item to a record, by the names of its fields.

Most sources differ only in the names of their fields. A mapper states the names once. It is a
plain value, so it can be an argument of a connector, be compared, and travel to a worker.
"""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta, timezone
from functools import lru_cache
from typing import Any

from contextframe_beam.connectors.item_json import encode_item
from contextframe_beam.errors import RecordError
from contextframe_beam.frames.record import FrameRecord
from contextframe_beam.frames.times import parse

#: The fields that text is taken from, where nobody says which, and where it has no structure.
PLAIN_TEXTS = ("content", "text", "body", "description")
_TEXT_FIELDS = frozenset((*PLAIN_TEXTS, "blocks", "sections"))
_PLACEHOLDER = re.compile(r"\{\{|\}\}|\{([^{}]+)\}")
_DIGIT = re.compile(r"\d")
_HEADING = re.compile(r"heading(?:_?([1-6]))?\Z")
_TAG_NAMES = ("name", "label", "title", "id")
#: The fields in which an object that is a reference has its id.
TARGET_NAMES = ("id", "target_id", "uri", "url", "name")
_TIME_NAMES = (
    "updated_at",
    "modified_at",
    "updated",
    "updatedAt",
    "modified",
    "modifiedAt",
    "last_modified",
    "lastModified",
    "created_at",
)
# The identity of a mapper with default names, from when sources got their ids.
_FIRST_TIME_NAMES = ("updated_at", "modified_at", "created_at")
_NOTHING: Any = object()


@dataclass(frozen=True, slots=True)
class FieldMapper:
    r"""Maps items to records; every part is optional.

    A path names a field: `title`, or `author.name` inside an object, `files.0.url` inside a list;
    `authors.name` of a list of objects gives the list of their names. A field that has dots in its
    own name comes first. If several paths are allowed, the first with a value counts.

    Attributes:
        prefix: Put before the id, as in `api:4711`; "" for none.
        id: Path(s) of the id of the item.
        title: Path(s) of the title.
        text: Path of the text, or a template of several paths such as `"# {title}\n\n{body}"`; None
            takes it from the usual fields, as `extract_text_content` does.
        timestamp: Path(s) of the time of the last change, in any form that can be read in one
            way: ISO 8601, RFC 2822, or seconds, milliseconds or microseconds since 1970.
        tags: Path of the tags: a list, a list of objects with names, or text with commas.
        relationships: Whether parent, references and tags become relationships, as
            `build_relationships` says.
        metadata: Which fields become metadata: names with their paths, or paths alone; None takes
            all except the texts and fields that begin with `_`.
        constants: Metadata that every record gets, such as `{"source": "api"}`.
        record_type: The type of the records.
    """

    prefix: str = ""
    id: str | tuple[str, ...] = ("id", "_id", "uuid")
    title: str | tuple[str, ...] = ("title", "name", "subject")
    text: str | None = None
    timestamp: str | tuple[str, ...] = field(
        default=_TIME_NAMES, metadata={"identity": _FIRST_TIME_NAMES}
    )
    tags: str = "tags"
    relationships: bool = True
    metadata: Mapping[str, str] | tuple[str, ...] | None = None
    constants: Mapping[str, Any] = field(default_factory=dict)
    record_type: str = "document"

    def map(self, item: Mapping[str, Any]) -> FrameRecord:
        """Returns the record of an item.

        Missing and null fields are left out. Any other value becomes text, or stays as it is in
        the metadata.

        Raises:
            RecordError: `item` is not an object.
        """
        if not _is_object(item):
            raise RecordError(
                f"an item is an object of fields, not {kind_of(item)}; unpack it first"
            )
        metadata = {**self._selected(item), **self.constants}
        title = as_text(first(item, self.title)).strip()
        if title:
            metadata["title"] = title
        tags = names(lookup(item, self.tags), separator=",")
        if tags:
            metadata["tags"] = tags
        if self.relationships:
            relationships = self.build_relationships(item, tags)
            if relationships:
                own = metadata.get("relationships")
                metadata["relationships"] = [
                    *(own if isinstance(own, list) else ()),
                    *relationships,
                ]
        return FrameRecord(
            text_content=self._text(item),
            metadata=metadata,
            record_type=self.record_type,
            unique_id=self._unique_id(item),
            timestamp=_time_of(item, self.timestamp),
        )

    @staticmethod
    def extract_text_content(item: Mapping[str, Any]) -> str:
        """Returns the text of an item, its parts separated by empty lines.

        It comes from `blocks` (objects with `type` and `content`: texts, paragraphs, headings, list
        items, and code between fences), or else from `sections` (objects with `title` and
        `content`), or else from the fields content, text, body and description.
        """
        blocks, sections = item.get("blocks"), item.get("sections")
        if isinstance(blocks, list | tuple) and blocks:
            parts = [_block_text(block) for block in blocks]
        elif isinstance(sections, list | tuple) and sections:
            parts = [part for section in sections for part in _section_texts(section)]
        else:
            parts = [as_text(item.get(name)) for name in PLAIN_TEXTS if item.get(name)]
        return "\n\n".join(part for part in parts if part)

    @staticmethod
    def build_relationships(
        item: Mapping[str, Any], tags: list[str] | None = None
    ) -> list[dict[str, Any]]:
        """Returns the relationships of an item: its parent_id, its references, its tags.

        Args:
            item: The item.
            tags: The names of its tags, if they are not in its field `tags`.
        """
        found = []
        parent = item.get("parent_id")
        if parent:
            found.append(_relationship("parent", as_text(parent), {"source": "hierarchy"}))
        for target in names(item.get("references"), TARGET_NAMES):
            found.append(_relationship("reference", target, {"source": "explicit_reference"}))
        if tags is None:
            tags = names(item.get("tags"), separator=",")
        for tag in tags:
            found.append(_relationship("tagged_with", f"tag:{tag}", {"tag_name": tag}))
        return found

    def _unique_id(self, item: Mapping[str, Any]) -> str | None:
        identifier = as_text(first(item, self.id))
        if not identifier:
            return None
        return f"{self.prefix}:{identifier}" if self.prefix else identifier

    def _text(self, item: Mapping[str, Any]) -> str:
        if self.text is None:
            return self.extract_text_content(item)
        if "{" in self.text:
            parts = template_parts(self.text)
            return "".join(
                literal if path is None else literal + as_text(lookup(item, path))
                for literal, path in parts
            ).strip()
        return as_text(lookup(item, self.text))

    def _selected(self, item: Mapping[str, Any]) -> dict[str, Any]:
        if self.metadata is None:
            hidden = hidden_names(self.text)
            return {
                name: value if value.__class__ is not bytes else as_metadata(value)
                for name, value in zip(map(str, item), item.values(), strict=True)
                if name not in hidden and name[:1] != "_"
            }
        if isinstance(self.metadata, Mapping):
            wanted = self.metadata
        else:
            wanted = {path: path for path in self.metadata}
        found = ((name, lookup(item, path, _NOTHING)) for name, path in wanted.items())
        return {name: as_metadata(value) for name, value in found if value is not _NOTHING}


def hidden_names(text: str | None) -> Set[str]:
    """Returns the fields that do not become metadata, because the text is made of them.

    Args:
        text: Where the text is, as `FieldMapper.text`.
    """
    return _TEXT_FIELDS if text is None else {text}


def as_metadata(value: Any) -> Any:
    """Returns a value as metadata can hold it: bytes as Base64 text, as JSON has them."""
    return b64encode(value).decode("ascii") if value.__class__ is bytes else value


@lru_cache(maxsize=256)
def template_parts(template: str) -> tuple[tuple[str, str | None], ...]:
    """Returns the parts of a template: text, and the path whose value follows, if any.

    A doubled brace stands for one brace.
    """
    parts: list[tuple[str, str | None]] = []
    end, literal = 0, ""
    for match in _PLACEHOLDER.finditer(template):
        literal += template[end : match.start()]
        end = match.end()
        if match[1] is None:
            literal += match[0][0]
        else:
            parts.append((literal, match[1].strip()))
            literal = ""
    return (*parts, (literal + template[end:], None))


def lookup(item: Any, path: str, default: Any = None) -> Any:
    """Returns the value at a dotted path, or `default` if there is no such place."""
    if _is_object(item):
        if path in item:
            return item[path]
        head, dot, rest = path.partition(".")
        while dot:
            if head in item:
                return lookup(item[head], rest, default)
            longer, dot, rest = rest.partition(".")
            head = f"{head}.{longer}"
        return default
    if isinstance(item, list | tuple):
        head, _, rest = path.partition(".")
        if head.isdecimal():
            if int(head) >= len(item):
                return default
            return lookup(item[int(head)], rest, default) if rest else item[int(head)]
        found = [lookup(element, path, _NOTHING) for element in item]
        return [value for value in found if value is not _NOTHING] or default
    return default


def first(item: Any, paths: str | tuple[str, ...]) -> Any:
    """Returns the first value at one of the paths that is not null or empty text, or else None."""
    for path in (paths,) if isinstance(paths, str) else paths:
        value = lookup(item, path)
        if value is not None and value != "":
            return value
    return None


def kind_of(value: Any) -> str:
    """Returns the kind of a value, in the words of JSON: `null`, `a number`, `a list`."""
    if value is None:
        return "null"
    kinds = (
        (bool, "true or false"),
        (int | float, "a number"),
        (str, "text"),
        (list | tuple, "a list"),
        (Mapping, "an object"),
    )
    known = next((word for kind, word in kinds if isinstance(value, kind)), "")
    return known or f"a {type(value).__name__}"


def as_text(value: Any) -> str:
    """Returns a value as text: "" for null, JSON for objects and lists."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Mapping | list | tuple):
        try:
            return json.dumps(value, ensure_ascii=False, default=str, skipkeys=True)
        except (TypeError, ValueError, RecursionError):
            return json.dumps(encode_item(value), ensure_ascii=False)
    try:
        return str(value)
    except ValueError:
        return hex(value)  # an integer with more digits than Python prints


def as_timestamp(value: Any) -> str | None:
    """Returns a time as ISO 8601 text.

    Text that is already ISO 8601 stays as it is, and so does text that is not a time or can be read
    in two ways. A number that is not a time gives None.
    """
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, str) and value[4:5] == "-":
        return value
    time = parse(value)
    if time is None or time.form.pattern[:3] in ("%Y-", "%Y%", "%G-", "%GW"):
        return value if isinstance(value, str) else None
    rounded = datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(
        microseconds=round(time.at * 10**6)
    )
    return rounded.isoformat()


def _time_of(item: Mapping[str, Any], paths: str | tuple[str, ...]) -> str | None:
    """Returns the first time at one of the paths; a flag, a name or the like does not count."""
    values = (lookup(item, path) for path in ((paths,) if isinstance(paths, str) else paths))
    found = [time for time in map(as_timestamp, values) if time]
    # If there is nothing better, text without a digit stays as it is: "yesterday".
    return next((time for time in found if _DIGIT.search(time)), next(iter(found), None))


def names(
    value: Any, keys: tuple[str, ...] = _TAG_NAMES, separator: str | None = None
) -> list[str]:
    """Returns the names in a value, without repetitions.

    Args:
        value: A name, an object that has one, or a list of these.
        keys: The fields in which an object may have its name.
        separator: What separates several names in one text.
    """
    if value is None:
        return []
    if isinstance(value, str) and separator:
        value = value.split(separator)
    elif isinstance(value, set | frozenset):
        value = sorted(value, key=str)
    elif not isinstance(value, list | tuple):
        value = [value]
    texts = (as_text(_name_of(element, keys)).strip() for element in value)
    return list(dict.fromkeys(text for text in texts if text))


def _is_object(value: Any) -> bool:
    # Nearly all are dictionaries, and a check of an abstract class takes several times as long.
    return value.__class__ is dict or isinstance(value, Mapping)


def _name_of(value: Any, keys: tuple[str, ...]) -> Any:
    name = first(value, keys) if isinstance(value, Mapping) else None
    return value if name is None else name


def _relationship(kind: str, target: str, metadata: dict[str, Any]) -> dict[str, Any]:
    return {"relationship_type": kind, "target_id": target, "metadata": metadata}


def _block_text(block: Any) -> str:
    if isinstance(block, str):
        return block
    if not isinstance(block, Mapping):
        return ""
    kind, content = as_text(block.get("type")), _content(block.get("content"))
    if not content:
        return ""
    if kind == "code":
        fence = "```"
        while fence in content:
            fence += "`"
        return f"{fence}\n{content}\n{fence}"
    heading = _HEADING.match(kind)
    if heading:
        level = heading[1] or as_text(block.get("level"))
        return f"{'#' * (int(level) if level in tuple('123456') else 1)} {content}"
    if kind.endswith("list_item"):
        return f"- {content}"
    return content if kind in ("text", "paragraph", "quote", "") else ""


def _section_texts(section: Any) -> Iterator[str]:
    if isinstance(section, Mapping):
        if section.get("title"):
            yield f"# {as_text(section['title'])}"
        yield _content(section.get("content"))
    else:
        yield as_text(section)


def _content(value: Any) -> str:
    """Returns the text of a block's content; a list holds the pieces of one paragraph."""
    if isinstance(value, list | tuple):
        return "".join(
            as_text(first(piece, ("text", "content", "plain_text")))
            if isinstance(piece, Mapping)
            else as_text(piece)
            for piece in value
        )
    return as_text(value)
