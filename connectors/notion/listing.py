"""Lists of a workspace: its parts, what was edited in each, and what is gone.

A list costs a request for each hundred pages and tells no content. Pages outside of databases come
from Notion's search, the rows of a data source from a query, which tells all rows since a time. A
search may leave pages out, so that it never shows that one is gone.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from email.utils import parsedate_to_datetime
from typing import Any
from uuid import UUID

from contextframe_beam.connectors.cursors import clamped_cursor, text_of
from contextframe_beam.connectors.files.item import FileItem
from contextframe_beam.connectors.notion.properties import title_of
from contextframe_beam.connectors.notion.reading import cleaned
from contextframe_beam.connectors.notion.rich_text import page_id
from contextframe_beam.connectors.notion.scope import Scope
from contextframe_beam.connectors.notion.workspace import (
    Listed,
    NotionError,
    Workspace,
    parent_of,
)
from contextframe_beam.connectors.page import Page, Partition, Window
from contextframe_beam.frames.times import when

#: The partition of pages outside of databases.
SEARCH = "pages"

#: The partition of pages that are asked for one by one, whether they are gone.
KNOWN = "known"

# Times of edits are in whole minutes: until the next one has passed, there may be another edit.
_SETTLED_AFTER = timedelta(minutes=2)
# So many known pages are asked for in a run, at least, and this part of all of them.
_LEAST_ASKED, _PART_ASKED = 100, 20
_ASKED_TOGETHER = 25


@dataclass(frozen=True)
class Choice:
    """What is read of a workspace.

    Attributes:
        scope: The roots, and what is left out.
        pages: Whether pages outside of databases are read.
        rows: Whether rows are read.
        trash: Whether what is in the trash is a document, and no deletion.
        lookback: How long before the last edit seen a list begins.
        check_known: Whether some of the known pages are asked for.
    """

    scope: Scope
    pages: bool
    rows: bool
    trash: bool
    lookback: timedelta
    check_known: bool


class Listing:
    """Lists what is to be read.

    Args:
        workspace: Is asked.
        choice: What is read.
    """

    def __init__(self, workspace: Workspace, choice: Choice) -> None:
        self._workspace = workspace
        self._choice = choice
        self._seen: dict[str, set[bytes]] = {}

    def partitions(self, states: Mapping[str, Any]) -> Iterator[Partition]:
        """Yields the parts of the workspace.

        Args:
            states: What an earlier run reached in each; empty to read everything.
        """
        began = datetime.now(timezone.utc)
        sources = list(self.sources())
        yield self._partition(SEARCH, {"sources": [one["id"] for one in sources]}, states, began)
        for source in sources if self._choice.rows else ():
            if not self._choice.scope.is_all and not self._choice.scope.has(
                source, self._workspace
            ):
                continue
            params = {"source": source["id"], "object": cleaned(source), "name": title_of(source)}
            yield self._partition(f"data_source/{source['id']}", params, states, began)
        if self._choice.check_known and states:
            ids, following = _share_of(states)
            yield Partition(KNOWN, {"ids": ids, "following": following}, content=ids)

    def sources(self) -> Iterator[dict[str, Any]]:
        """Yields the data sources that the integration sees."""
        cursor: str | None = None
        seen: set[str] = set()
        while True:
            listed = self._workspace.search("data_source", cursor)
            for one in listed.results:
                identifier = page_id(str(one.get("id")))
                if identifier is None or identifier in seen or one.get("in_trash") is True:
                    continue
                seen.add(identifier)
                self._workspace.remember(one)
                yield {**one, "id": identifier}
            if listed.following is None or listed.following == cursor:
                return
            cursor = listed.following

    def page(self, partition: Partition, cursor: Mapping[str, Any] | None) -> Page:
        """Returns the items of one answer.

        Args:
            partition: One of `partitions()`.
            cursor: None for the first answer, then that of the answer before.

        Raises:
            NotionError: the list is refused.
        """
        if partition.id == KNOWN:
            return self._gone(partition, int((cursor or {}).get("at", 0)))
        params, at = partition.params, dict(cursor or {})
        try:
            listed = self._list(params, at)
        except NotionError as error:
            if error.code == "validation_error" and at.get("cursor") and not at.get("again"):
                # A cursor lives for some hours only. The list begins again, once.
                return self.page(partition, {"again": True})
            raise
        items = [
            item
            for found in listed.results
            if (item := self._item(found, params, listed.at)) is not None
        ]
        if "source" in params and not at.get("cursor") and not at.get("trash"):
            items.insert(0, _source_item(params, listed.at))
        newest = max([at.get("newest") or "", *map(edited, listed.results)])
        return self._paged(partition, at, listed, items, newest)

    def _paged(
        self,
        partition: Partition,
        at: Mapping[str, Any],
        listed: Listed,
        items: list[FileItem],
        newest: str,
    ) -> Page:
        params, since = partition.params, partition.params["since"] or ""
        is_search = "source" not in params
        is_past = is_search and any(edited(one) < since for one in listed.results)
        page = Page(items)
        kept = {name: at[name] for name in ("again", "trash") if name in at}
        self._note(partition, items, is_first=not at.get("cursor") and not at.get("trash"))
        if listed.following and not is_past:
            page.next_cursor = {**kept, "cursor": listed.following, "newest": newest}
        elif self._choice.trash and not is_search and "trash" not in at:
            page.next_cursor = {"trash": True, "newest": newest}
        else:
            page.state = self._state(partition, newest)
            if not is_search:
                # A query tells all rows since a time, so that others of that time are gone.
                page.windows = [Window(partition.id, params["since"])]
        if listed.is_cut:
            page.partial = (
                f"Notion gave not all of {params.get('name') or 'the search'}, which has more "
                "than it gives at once; split the database"
            )
        return page

    def _partition(
        self, name: str, params: dict[str, Any], states: Mapping[str, Any], began: datetime
    ) -> Partition:
        state = states.get(name)
        state = state if isinstance(state, Mapping) else {}
        reached = state.get("since")
        time = when(reached) if isinstance(reached, str) else None
        since = None if time is None else _minute(time - self._choice.lookback)
        known = {"known": state["known"]} if since and state.get("known") else {}
        return Partition(
            name, {**params, **known, "since": since, "reached": reached, "began": text_of(began)}
        )

    def _state(self, partition: Partition, newest: str) -> dict[str, Any]:
        """Returns the state after a partition: the newest edit, not later than the run's begin."""
        params = partition.params
        newest = max(newest, params.get("reached") or "")
        state: dict[str, Any] = {"since": None}
        if newest:
            began = when(params["began"])
            assert began is not None
            state = {"since": clamped_cursor(newest, began)}
        if self._choice.check_known:
            seen = self._seen.pop(partition.id, set())
            state["known"] = _packed(seen | _unpacked(params.get("known")))
        elif "known" in params:
            state["known"] = params["known"]
        return state

    def _note(self, partition: Partition, items: list[FileItem], is_first: bool) -> None:
        if not self._choice.check_known:
            return
        if is_first:
            self._seen[partition.id] = set()
        self._seen[partition.id] |= {
            UUID(one["path"].partition("/")[2]).bytes
            for one in items
            if one["kind"] in ("page", "row")
        }

    def _list(self, params: Mapping[str, Any], at: Mapping[str, Any]) -> Listed:
        if "source" not in params:
            return self._workspace.search("page", at.get("cursor"))
        return self._workspace.query(
            params["source"], params["since"], at.get("cursor"), bool(at.get("trash"))
        )

    def _gone(self, partition: Partition, start: int) -> Page:
        """Asks for known pages, and returns those that are in the trash or not to be seen."""
        ids = _texts(partition.params["ids"])
        page = Page([])
        windows = []
        for identifier in ids[start : start + _ASKED_TOGETHER]:
            try:
                found = self._workspace.page(identifier)
            except NotionError as error:
                if not error.is_missing:
                    raise
                found = {"in_trash": True}
            if found.get("in_trash") is True and not self._choice.trash:
                page.items.append(FileItem(f"page/{identifier}", kind="gone"))
                # With a page go its comments and its files.
                windows.append(Window(f"page/{identifier}"))
        page.windows = windows
        if start + _ASKED_TOGETHER < len(ids):
            page.next_cursor = {"at": start + _ASKED_TOGETHER}
        else:
            page.state = {"following": partition.params["following"]}
        return page

    def _item(
        self, found: Mapping[str, Any], params: Mapping[str, Any], at: str
    ) -> FileItem | None:
        """Returns a page or row as an item; None for one that is not to be read here."""
        identifier = page_id(str(found.get("id")))
        if found.get("object") != "page" or identifier is None or "properties" not in found:
            return None
        choice, above = self._choice, parent_of(found)
        is_row = above is not None and above[0] in ("data_source", "database")
        if "source" not in params:
            if params["since"] and edited(found) < params["since"]:
                return None
            # Rows of a data source that is listed are read there; others were shared one by one.
            if is_row and above is not None and above[1] in params["sources"]:
                return None
            if not choice.scope.is_all and not choice.scope.has(found, self._workspace):
                return None
        elif choice.scope.leaves_out(found):
            return None
        if not (choice.rows if is_row else choice.pages):
            return None
        if not is_row:
            self._workspace.remember(found)
        is_gone = found.get("in_trash") is True or found.get("archived") is True
        kind = "gone" if is_gone and not choice.trash else "row" if is_row else "page"
        more = (
            {"collection": params["name"], "collection_id": params["source"]}
            if "source" in params
            else {}
        )
        return FileItem(
            f"page/{identifier}",
            modified_at=edited(found),
            # Edits of nested blocks, comments and files show only where a page is read.
            is_anew=params["since"] is None,
            kind=kind,
            # As text it takes a tenth of the memory of its many small parts.
            object=json.dumps(cleaned(dict(found)), separators=(",", ":")),
            version=_version(edited(found), at),
            is_public=isinstance(found.get("public_url"), str),
            **more,
        )


def edited(found: Mapping[str, Any]) -> str:
    """Returns when an object was last edited, in whole minutes; "" where it does not tell."""
    told = found.get("last_edited_time")
    return told if isinstance(told, str) else ""


def _source_item(params: Mapping[str, Any], at: str) -> FileItem:
    told = params["object"]
    return FileItem(
        f"data_source/{params['source']}",
        modified_at=edited(told) or None,
        is_anew=params["since"] is None,
        kind="data_source",
        object=told,
        version=_version(edited(told), at),
    )


def _version(last: str, at: str) -> str:
    """Returns the version of a page: its minute, or one of its own while that may go on.

    Args:
        last: When it was last edited, in whole minutes.
        at: The header Date of the list that says so.
    """
    time = when(last)
    try:
        now = parsedate_to_datetime(at)
    except ValueError:
        now = datetime.now(timezone.utc)
    if time is not None and now.astimezone(timezone.utc) - time >= _SETTLED_AFTER:
        return last
    return f"{last} as of {now.isoformat()}"


def _minute(time: datetime) -> str:
    return time.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:00.000Z")


def _share_of(states: Mapping[str, Any]) -> tuple[str, int]:
    """Returns the known pages that are asked for in this run, and where the next one begins."""
    packed = [one.get("known") for one in states.values() if isinstance(one, Mapping)]
    known = sorted(set().union(*map(_unpacked, packed)))
    before = states.get(KNOWN)
    start = before.get("following") if isinstance(before, Mapping) else 0
    start = start if isinstance(start, int) and start < len(known) else 0
    end = start + max(_LEAST_ASKED, len(known) // _PART_ASKED)
    return _packed(set(known[start:end])), end if end < len(known) else 0


def _packed(ids: set[bytes]) -> str:
    return base64.b64encode(b"".join(sorted(ids))).decode()


def _unpacked(packed: Any) -> set[bytes]:
    try:
        data = base64.b64decode(packed) if isinstance(packed, str) else b""
    except ValueError:  # edited by hand: nothing is known then
        return set()
    return {data[at : at + 16] for at in range(0, len(data) - len(data) % 16, 16)}


def _texts(packed: str) -> list[str]:
    return [str(UUID(bytes=one)) for one in sorted(_unpacked(packed))]
