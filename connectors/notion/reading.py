"""What is asked of a workspace for one document, and what the document becomes.

A page is read with its blocks, its long properties and its comments; comments and files that are
documents of their own are its parts.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from contextframe_beam.connectors.attachments import Attachments, without_signature
from contextframe_beam.connectors.files.item import FileItem, GoneError
from contextframe_beam.connectors.notion.blocks import (
    CHILDREN,
    blocks_to_markdown,
    file_name,
    name_in,
)
from contextframe_beam.connectors.notion.properties import (
    Properties,
    file_properties,
    long_properties,
    tags_of,
    title_of,
)
from contextframe_beam.connectors.notion.rich_text import (
    Found,
    RichText,
    page_id,
    page_in,
)
from contextframe_beam.connectors.notion.workspace import NotionError, Workspace, parent_of
from contextframe_beam.errors import RecordError
from contextframe_beam.frames.place import Window

_ADDRESS = re.compile(r"https?://[^\s<>()\"']+")


@dataclass(frozen=True)
class NotionDocument:
    """What a page, a row, a comment, a data source or a file becomes.

    Attributes:
        text: Its Markdown.
        metadata: What is said of it, with its relationships.
        data: The bytes of a file.
    """

    text: str
    metadata: dict[str, Any] = field(default_factory=dict)
    data: bytes | None = None

    @property
    def content(self) -> bytes:
        """Bytes that differ whenever the document does, but for its file."""
        told = json.dumps([self.text, self.metadata], sort_keys=True, default=str)
        return told.encode("utf-8", "surrogatepass")


@dataclass(frozen=True)
class How:
    """How documents are made.

    Attributes:
        attachments: What becomes of files.
        comments: `documents`, `inline` or `none`.
        block_comments: Whether comments on single blocks are asked for as well.
        with_blocks: Whether the Markdown is made here of blocks, or by Notion.
        properties: The names of the properties that are taken; None for all of them.
    """

    attachments: Attachments
    comments: str
    block_comments: bool
    with_blocks: bool
    properties: frozenset[str] | None


class DocumentReader:
    """Reads one document at a time, from any thread.

    Args:
        workspace: Is asked.
        how: How documents are made.
        count_unknown: Is told of each form that is not known, and how often it occurred.
        skip: Is told of a document that is gone, and why.
    """

    def __init__(
        self,
        workspace: Workspace,
        how: How,
        count_unknown: Callable[[str, int], None],
        skip: Callable[[str, object], object],
    ) -> None:
        self._workspace = workspace
        self._how = how
        self._count_unknown = count_unknown
        self._skip = skip
        self._names = _Names(workspace)
        self._lock = threading.Lock()
        self._without_comments = ""

    def begin(self) -> None:
        """Begins a run, in which the integration may do other things than in the one before."""
        with self._lock:
            self._without_comments = ""

    def read(self, item: FileItem) -> NotionDocument:
        """Reads what an item is, and sets its parts.

        Raises:
            GoneError: it is not there any more, or may no longer be seen.
            RecordError: the item is not one that the connector gave.
            NotionError: it cannot be read.
        """
        read = {
            "page": self._page,
            "row": self._page,
            "comment": self._comment,
            "data_source": self._data_source,
        }.get(str(item.get("kind")))
        told = _object_in(item)
        if read is None or not isinstance(told, dict):
            raise RecordError("the item has no kind and object; give one that this connector gave")
        try:
            return read(item, told)
        except NotionError as error:
            if not error.is_missing:
                raise
            name = f"{item['kind']} {title_of(told) or told.get('id')}"
            self._skip(name, error)
            raise GoneError(f"{name}: {error}") from error

    def fresh_address(self, item: Mapping[str, Any]) -> str | None:
        """Returns a new signed address of a file, whose former one expired."""
        block, page, name = item.get("block"), item.get("page"), item.get("name")
        if isinstance(block, str):
            return _address_in(self._workspace.block(block))
        for _, one in file_properties(self._workspace.page(str(page))):
            if one.get("name") == name:
                return _hosted(one)
        return None

    def _page(self, item: FileItem, page: dict[str, Any]) -> NotionDocument:
        found = Found()
        identifier = _id_of(page)
        text, blocks = self._text_of(identifier, found)
        page = self._with_long_properties(page)
        properties = Properties(self._names, found).values(
            page.get("properties"), self._how.properties
        )
        comments = self._comments_of(item, identifier, blocks)
        if comments and self._how.comments == "inline":
            text = "\n\n".join(filter(None, [text, self._inline(comments, found)]))
        metadata: dict[str, Any] = {
            **_known(page),
            "title": title_of(page) or "Untitled",
            "author": self._person(page.get("created_by")),
            "edited_by": self._person(page.get("last_edited_by")),
            "tags": tags_of(page),
            "properties": properties,
            "in_trash": True if page.get("in_trash") is True else None,
        }
        attachments = list(self._attachments(item, page, blocks, comments, found))
        metadata["attachments"] = attachments
        metadata["relationships"] = self._relationships(page, found)
        self._tell(found)
        if self._how.comments == "documents":
            item.parts += self._comment_items(identifier, comments)
        if not item.narrowed:
            # All comments and files of the page are known now, so that others are gone.
            item.windows.append(Window(f"page/{identifier}"))
        return NotionDocument(text, _filled(metadata))

    def _text_of(self, identifier: str, found: Found) -> tuple[str, list[dict[str, Any]]]:
        if self._how.with_blocks:
            blocks = self._workspace.tree(identifier)
            return blocks_to_markdown(blocks, self._names, found), blocks
        told = self._workspace.markdown(identifier)
        text = told.get("markdown")
        left_out = told.get("unknown_block_ids")
        count = len(left_out) if isinstance(left_out, list) else 0
        if count or told.get("truncated") is True:
            found.unknown["block that Notion's Markdown leaves out"] += max(count, 1)
        text = text if isinstance(text, str) else ""
        return without_signatures(text, found), []

    def _with_long_properties(self, page: dict[str, Any]) -> dict[str, Any]:
        """Returns a page with all parts of its properties, of which an answer shows but 25."""
        wanted = self._how.properties
        whole = dict(page.get("properties") or {})
        for name, identifier, kind in long_properties(page):
            if kind != "title" and wanted is not None and name not in wanted:
                continue
            parts = self._workspace.property_items(_id_of(page), identifier)
            whole[name] = {**whole[name], kind: [one[kind] for one in parts if one.get(kind)]}
        return {**page, "properties": whole}

    def _comments_of(
        self, item: FileItem, identifier: str, blocks: list[dict[str, Any]]
    ) -> list[dict[str, Any]]:
        if self._how.comments == "none" or self._without_comments:
            item.narrowed = self._without_comments
            return []
        asked = [identifier]
        if self._how.block_comments:
            asked += [str(one.get("id")) for one in _all_blocks(blocks) if one.get("id")]
        comments: dict[str, dict[str, Any]] = {}
        try:
            for one in asked:
                for comment in self._comments_on(one, is_page=one == identifier):
                    comments.setdefault(_id_of(comment), comment)
        except NotionError as error:
            if not error.is_restricted:
                raise
            with self._lock:
                if not self._without_comments:
                    self._without_comments = (
                        "the integration may not read comments; give it that capability, or leave "
                        "them out of resources"
                    )
                    self._skip("comments", error)
            item.narrowed = self._without_comments
        return list(comments.values())

    def _comments_on(self, identifier: str, is_page: bool) -> list[dict[str, Any]]:
        try:
            return list(self._workspace.comments(identifier))
        except NotionError as error:
            # A block may go while its page is read, and with it its comments.
            if is_page or not error.is_missing:
                raise
            return []

    def _inline(self, comments: list[dict[str, Any]], found: Found) -> str:
        rich = RichText(self._names, found)
        lines = ["## Comments"]
        for one in comments:
            author = self._person(one.get("created_by")) or "Somebody"
            text = rich.markdown(one.get("rich_text")).replace("\n", "\n  ")
            lines.append(f"- {author}, {str(one.get('created_time', ''))[:16]}: {text}")
        return lines[0] + "\n\n" + "\n".join(lines[1:])

    def _comment_items(self, page: str, comments: list[dict[str, Any]]) -> Iterator[FileItem]:
        threads: dict[str, str] = {}
        for one in comments:
            identifier = _id_of(one)
            first = threads.setdefault(str(one.get("discussion_id")), identifier)
            yield FileItem(
                f"comment/{identifier}",
                modified_at=one.get("last_edited_time"),
                kind="comment",
                object=cleaned(one),
                page=page,
                thread=first,
            )

    def _comment(self, item: FileItem, comment: dict[str, Any]) -> NotionDocument:
        found = Found()
        text = RichText(self._names, found).markdown(comment.get("rich_text"), at_start=True)
        identifier, page, thread = _id_of(comment), item.get("page"), item.get("thread")
        parent = (
            f"notion:page/{page}" if thread in (identifier, None) else f"notion:comment/{thread}"
        )
        name = comment.get("display_name")
        shown = name.get("resolved_name") if isinstance(name, Mapping) else None
        files = comment.get("attachments")
        block = parent_of(comment)
        metadata = {
            **_known(comment),
            "author": self._person(comment.get("created_by"), shown),
            "uri": f"https://www.notion.so/{str(page).replace('-', '')}?d="
            f"{str(comment.get('discussion_id')).replace('-', '')}",
            "discussion_id": comment.get("discussion_id"),
            "block_id": block[1] if block is not None and block[0] == "block" else None,
            "attachments": [
                {"type": one.get("category")}
                for one in (files if isinstance(files, list) else ())
                if isinstance(one, Mapping)
            ],
            "relationships": [_relationship("parent", parent), *_told(found)],
        }
        self._tell(found)
        return NotionDocument(text, _filled(metadata))

    def _data_source(self, item: FileItem, source: dict[str, Any]) -> NotionDocument:
        """Returns what people wrote of a table, and which properties its rows have."""
        found = Found()
        text = RichText(self._names, found).markdown(source.get("description"), at_start=True)
        properties = source.get("properties")
        told = properties if isinstance(properties, Mapping) else {}
        lines = [
            f"- {name}: {one.get('type')}"
            + (f", {one['description']}" if isinstance(one.get("description"), str) else "")
            for name, one in told.items()
            if isinstance(one, Mapping)
        ]
        text = "\n\n".join(filter(None, [text, "\n".join(lines)]))
        above = parent_of({"parent": source.get("database_parent")}) or parent_of(source)
        if above is not None and above[0] == "block":
            above = self._workspace.page_of(*above)
        metadata = {
            **_known(source),
            "title": title_of(source) or "Untitled",
            "author": self._person(source.get("created_by")),
            "relationships": [
                *([_relationship("parent", _unique(*above))] if above is not None else ()),
                *_told(found),
            ],
        }
        self._tell(found)
        return NotionDocument(text, _filled(metadata))

    def _relationships(self, page: Mapping[str, Any], found: Found) -> list[dict[str, Any]]:
        own = _unique("page", _id_of(page))
        above = parent_of(page)
        if above is not None and above[0] == "block":
            above = self._workspace.page_of(*above)
        for block in found.blocks:
            origin = self._workspace.page_of("block", block)
            if origin is not None:
                found.references[_unique(*origin)] = None
        found.references.pop(own, None)
        parent = [_relationship("parent", _unique(*above))] if above is not None else []
        return [*parent, *_told(found)]

    def _attachments(
        self,
        item: FileItem,
        page: Mapping[str, Any],
        blocks: list[dict[str, Any]],
        comments: list[dict[str, Any]],
        found: Found,
    ) -> Iterator[dict[str, Any]]:
        """Yields what is known of the files of a page; those to be read become its parts."""
        if self._how.attachments.choice == "none":
            return
        identifier = _id_of(page)
        for block in found.files:
            inner = _id_of(block)
            name = file_name(block)
            told: dict[str, Any] = {"name": name, "type": block.get("type"), "block_id": inner}
            address = _address_in(block)
            self._part_of(item, inner, name, address, block, page=identifier, block=inner)
            yield told if address is not None else {**told, "uri": _external_in(block)}
        in_properties = [
            one
            for one in file_properties(page)
            if self._how.properties is None or self._takes(page, one[0])
        ]
        hosted = any(one.get("type") == "file" for _, one in in_properties)
        if hosted and self._how.attachments.choice in ("text", "bytes"):
            # The addresses that the list gave are signed, and were not kept.
            in_properties = list(file_properties(self._workspace.page(identifier)))
        seen: dict[str, int] = {}
        for property_id, one in in_properties:
            name = str(one.get("name") or "file")
            address = _hosted(one)
            number = seen[name] = seen.get(name, 0) + 1
            key = f"{identifier}/{property_id}/{name}" + (f"/{number}" if number > 1 else "")
            self._part_of(item, key, name, address, page, page=identifier)
            told = {"name": name, "type": "property"}
            yield told if address is not None else {**told, "uri": _external(one)}
        for comment in comments:
            files = comment.get("attachments")
            for place, one in enumerate(files if isinstance(files, list) else ()):
                address = _hosted({"type": "file", **one}) if isinstance(one, Mapping) else None
                if address is not None:
                    name = name_in(address) or f"{one.get('category')}"
                    key = f"{_id_of(comment)}/{place + 1}"
                    self._part_of(item, key, name, address, comment, page=identifier)
                    yield {"name": name, "type": "comment", "comment_id": _id_of(comment)}

    def _takes(self, page: Mapping[str, Any], property_id: str) -> bool:
        properties = page.get("properties")
        told = properties.items() if isinstance(properties, Mapping) else ()
        names = {
            name for name, one in told if isinstance(one, Mapping) and one.get("id") == property_id
        }
        return bool(names & (self._how.properties or frozenset()))

    def _part_of(
        self,
        item: FileItem,
        key: str,
        name: str,
        address: str | None,
        holder: Mapping[str, Any],
        **where: Any,
    ) -> None:
        how = self._how.attachments.of_file(name)
        if address is None or how not in ("text", "bytes"):
            return
        item.parts.append(
            FileItem(
                f"attachment/{key}/{name}",
                modified_at=holder.get("last_edited_time"),
                handle=address,
                kind="attachment",
                id=f"notion:attachment/{key}",
                how=how,
                name=name,
                # The path of the address has an id of the upload in it.
                version=without_signature(address),
                **where,
            )
        )

    def _person(self, person: Any, shown: Any = None) -> str | None:
        if isinstance(shown, str) and shown:
            return shown
        if not isinstance(person, Mapping):
            return None
        if isinstance(person.get("name"), str) and person["name"]:
            return str(person["name"])
        identifier = page_id(str(person.get("id")))
        return (self._names.user(identifier) or identifier) if identifier else None

    def _tell(self, found: Found) -> None:
        for form, count in found.unknown.items():
            self._count_unknown(form, count)


class _Names:
    """Tells names as the workspace does; what it refuses stays an id."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace

    def user(self, identifier: str) -> str | None:
        return self._workspace.user(identifier)

    def page(self, identifier: str) -> str | None:
        return self._workspace.title(identifier)


def cleaned(told: Any) -> Any:
    """Returns an object of Notion whose signed addresses have lost their signatures."""
    if isinstance(told, dict):
        return {name: cleaned(one) for name, one in told.items() if name != "expiry_time"}
    if isinstance(told, list):
        return [cleaned(one) for one in told]
    if isinstance(told, str) and told.startswith(("https://", "http://")) and "?" in told:
        return without_signature(told)
    return told


def without_signatures(text: str, found: Found) -> str:
    """Returns Notion's own Markdown without signed addresses; the pages it links to are noted."""

    def plain(match: Any) -> str:
        address = str(match[0])
        identifier = page_in(address)
        if identifier is not None:
            found.references[_unique("page", identifier)] = None
        return without_signature(address)

    return _ADDRESS.sub(plain, text)


def _object_in(item: Mapping[str, Any]) -> Any:
    """Returns the object of Notion that an item has: as it is, or as the text of its JSON."""
    told = item.get("object")
    try:
        return json.loads(told) if isinstance(told, str) else told
    except ValueError:
        return None


def _known(told: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what all objects of Notion say of themselves."""
    icon = told.get("icon")
    return {
        "uri": told.get("url"),
        "created_at": told.get("created_time"),
        "icon": icon.get("emoji") if isinstance(icon, Mapping) else None,
        "public_url": told.get("public_url"),
    }


def _told(found: Found) -> list[dict[str, Any]]:
    references = [one for one in found.references if one not in found.children]
    return [
        *(_relationship("child", one) for one in found.children),
        *(_relationship("reference", one) for one in references),
        *(_relationship("mentions", _unique("user", one)) for one in found.mentions),
    ]


def _relationship(kind: str, target: str) -> dict[str, Any]:
    return {"relationship_type": kind, "target_id": target}


def _unique(kind: str, identifier: str) -> str:
    return f"notion:{kind}/{identifier}"


def _id_of(told: Mapping[str, Any]) -> str:
    identifier = page_id(str(told.get("id")))
    if identifier is None:
        raise RecordError(f"{told.get('object') or 'an object'} of Notion has no id")
    return identifier


def _all_blocks(blocks: Any) -> Iterator[Mapping[str, Any]]:
    for block in blocks if isinstance(blocks, list) else ():
        yield block
        yield from _all_blocks(block.get(CHILDREN))


def _address_in(block: Mapping[str, Any]) -> str | None:
    told = block.get(str(block.get("type")))
    return _hosted(told) if isinstance(told, Mapping) else None


def _external_in(block: Mapping[str, Any]) -> str | None:
    told = block.get(str(block.get("type")))
    return _external(told) if isinstance(told, Mapping) else None


def _hosted(told: Mapping[str, Any]) -> str | None:
    """Returns the signed address of a file that Notion keeps; None for others."""
    file = told.get("file")
    url = file.get("url") if isinstance(file, Mapping) and told.get("type") == "file" else None
    return url if isinstance(url, str) else None


def _external(told: Mapping[str, Any]) -> str | None:
    external = told.get("external")
    url = external.get("url") if isinstance(external, Mapping) else None
    return without_signature(url) if isinstance(url, str) else None


def _filled(metadata: dict[str, Any]) -> dict[str, Any]:
    return {name: one for name, one in metadata.items() if one not in (None, "", [], {})}
