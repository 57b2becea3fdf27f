"""The pages of Linear's lists: what each partition reads, and what comes with what changed.

What changed comes with all comments on it. So those of an issue that was moved, restored or trashed
are right as well, although nothing says that they changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from contextframe_beam.connectors.attachments import Attachments
from contextframe_beam.connectors.cursors import clamped_cursor, moved_back, recent
from contextframe_beam.connectors.files.item import FileItem
from contextframe_beam.connectors.http import Queries
from contextframe_beam.connectors.http.queries import Fault
from contextframe_beam.connectors.http.request import logger
from contextframe_beam.connectors.linear.answers import TooComplexError, failed_nodes
from contextframe_beam.connectors.linear.queries import (
    COMMENTED,
    KINDS,
    LARGEST_PAGE,
    RESOURCES,
    Resource,
    rest_query,
)
from contextframe_beam.connectors.linear.records import point_of, texts_of
from contextframe_beam.connectors.linear.scope import Choice, Scope, above, listed
from contextframe_beam.connectors.linear.text import handles, profiles, targets, uploads
from contextframe_beam.connectors.linear.workspace import Workspace
from contextframe_beam.connectors.page import DeadLetter, Page, Partition, Window
from contextframe_beam.errors import ConnectorError, RecordError

# A change shows as late as its transaction ends.
_LATE = timedelta(seconds=2)
# A query costs by what it may give, and most runs for changes find little: they ask for a fifth.
_SHARE = 5


@dataclass(frozen=True)
class Reading:
    """What is read, and how.

    Attributes:
        choice: What the user chose.
        comments: documents, inline or none.
        attachments: What becomes of uploaded files.
        uploads: The address before the paths of uploaded files.
        page_size: How many issues are asked for at once.
    """

    choice: Choice
    comments: str
    attachments: Attachments
    uploads: str
    page_size: int

    @property
    def reads_files(self) -> bool:
        """Whether uploaded files become documents."""
        return self.attachments.choice in ("text", "bytes")


class LinearPages:
    """Reads the partitions of a workspace.

    Args:
        queries: Asks Linear.
        workspace: Tells names, and what addresses lead to.
        how: What is read.
    """

    def __init__(self, queries: Queries, workspace: Workspace, how: Reading) -> None:
        self._queries = queries
        self._workspace = workspace
        self._how = how

    def page(self, partition: Partition, cursor: Any, connector: str) -> Page:
        """Returns a page of a partition.

        Args:
            partition: The partition.
            cursor: The cursor of the page before; None for the first.
            connector: The connector's name, for dead letters.

        Raises:
            ConnectorError: Linear cannot be asked, or refuses it.
        """
        told = Part(partition.params, self._how)
        at = dict(cursor or {})
        listing, faults, most = self._asked(told, at)
        nodes, info = listing.get("nodes"), listing.get("pageInfo")
        if not isinstance(nodes, list) or not isinstance(info, Mapping):
            raise ConnectorError(f"Linear gave no {told.resource.field}; check base_url")
        failed = failed_nodes(faults, told.resource.field)
        given = [
            one
            for number, one in enumerate(nodes)
            if isinstance(one, dict) and number not in failed
        ]
        met: Mapping[str, str] = at.get("met") or {}
        new = [one for one in given if told.is_new(one) and met.get(one["id"]) != told.changed(one)]
        whole = [self._completed(one, told.resource.kind) for one in new]
        seen = whole if told.is_inline else given
        changed = [(str(one["id"]), told.changed(one)) for one in seen]
        page = self._made(whole, told)
        if failed:
            page.failures = [
                _letter(error, nodes[number], number, partition, connector)
                for number, error in failed.items()
            ]
            count = "1 item" if len(failed) == 1 else f"{len(failed)} items"
            page.unread = (f"{partition.id}: Linear could not give {count} of a page",)
        reached = [at.get("newest"), told.since, *(time for _, time in changed)]
        newest = max((one for one in reached if one), default=None)
        following = {
            "after": info.get("endCursor"),
            "from": at.get("from"),
            "most": most,
            "newest": newest,
            "recent": recent(at.get("recent", {}), changed, newest, told.began, _LATE),
            "met": {**(at.get("last") or {}), **dict(changed)},
            "last": dict(changed),
            "lacks": bool(failed) or at.get("lacks", False),
        }
        if info.get("hasNextPage"):
            page.next_cursor = following
        elif told.resource.sorts and at.get("after") is not None and at.get("newest"):
            # A cursor is an item, and one that was edited meanwhile stands at the end, behind all
            # that was not read. So what changed since the page before is asked for once more.
            page.next_cursor = {**following, "after": None, "from": at["newest"]}
        else:
            self._end(page, told, following)
        return page

    def _end(self, page: Page, told: Part, reached: Mapping[str, Any]) -> None:
        """Sets the state that the last page of a partition leaves; none if items were not given."""
        if reached["lacks"]:
            return
        page.state = {"open_to": told.open_to}
        if reached["newest"] is not None:
            since = clamped_cursor(reached["newest"], told.began)
            page.state |= {"since": since, "recent": reached["recent"]}
        if told.files and not told.is_incremental:
            page.windows = [*page.windows, Window(told.files)]

    def _asked(self, told: Part, at: Mapping[str, Any]) -> tuple[dict[str, Any], list[Fault], int]:
        """Returns a page of a list, the errors beside it, and how many the next page may have."""
        most = int(at.get("most") or min(self._how.page_size * told.resource.share, LARGEST_PAGE))
        size = max(1, most // _SHARE) if told.is_incremental and not at else most
        query = told.resource.query(told.with_comments)
        while True:
            variables = {
                "first": size,
                "after": at.get("after"),
                "archived": told.with_archived,
                "filter": told.filter(at.get("from")),
            }
            try:
                data, faults = self._queries.partial(query, variables)
            except TooComplexError:
                if size == 1:
                    raise
                size = most = size // 2
                logger.info("a page of %s costs Linear too much; asking for %d", told.what, size)
                continue
            listing = data.get(told.resource.field)
            return (listing if isinstance(listing, dict) else {}), faults, most

    def _completed(self, node: Mapping[str, Any], kind: str) -> dict[str, Any]:
        """Returns an item whose inner lists are whole lists, and no pages of them."""
        made: dict[str, Any] = {}
        for name, value in node.items():
            if isinstance(value, Mapping) and "pageInfo" in value:
                info = value.get("pageInfo") or {}
                found = [one for one in value.get("nodes") or () if one is not None]
                if info.get("hasNextPage"):
                    query, path = rest_query(kind, name)
                    rest = self._queries.nodes(
                        query, {"id": node["id"]}, path, {"nodes": [], "pageInfo": info}
                    )
                    found += rest
                made[name] = found
            elif isinstance(value, Mapping) and name in KINDS:
                made[name] = self._completed(value, KINDS[name])
            else:
                made[name] = value
        return made

    def _made(self, nodes: Sequence[dict[str, Any]], told: Part) -> Page:
        """Returns what becomes of the items of a list."""
        kind, scope = told.resource.kind, told.scope
        if kind == "comment":
            nodes = self._placed(nodes)
        items: list[dict[str, Any]] = []
        windows: list[Window] = []
        for node in nodes:
            comments = [{**one, **_on(kind, node)} for one in listed(node.pop("comments", None))]
            if not scope.keeps(kind, node):
                if told.is_incremental or node.get("trashed") is True:
                    gone = {"_kind": "gone", "_of": f"linear:{kind}/{node['id']}"}
                    items.append({**gone, "updatedAt": node.get("updatedAt")})
                    windows += told.windows(kind, node, comments)
                continue
            made = self._item(node, kind, told)
            items.append(made)
            if told.is_inline:
                made["_comments"] = [_without_containers(one, "comment") for one in comments]
            else:
                kept = (one for one in comments if scope.keeps("comment", one))
                items += [self._item(one, "comment", told) for one in kept]
            if told.is_incremental:
                windows += told.windows(kind, node, [])
        self._resolve(items, told)
        files = [file for item in items for file in self._files(item)]
        return Page([*items, *files], windows=windows)

    def _placed(self, comments: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Returns comments with what they are on."""
        alone = [one["id"] for one in comments if not isinstance(one.get("issue"), Mapping)]
        owners = self._workspace.owners(alone) if alone else {}
        return [
            {**one, **self._completed(owners.get(one["id"], {}), "comment")} for one in comments
        ]

    def _item(self, node: Mapping[str, Any], kind: str, told: Part) -> dict[str, Any]:
        """Returns an item of what Linear gave, with what follows from where it lies."""
        holders = list(above(kind, node))
        made = {
            **_without_containers(node, kind),
            "_kind": kind,
            "_readers": told.scope.readers(kind, node),
            "_workspace": told.workspace,
        }
        if not holders:
            return made
        nearest, holder = holders[0]
        if nearest != "team":
            made["_in"] = [nearest, holder.get("id")]
        made["_identifier"] = holder.get("identifier")
        made["_name"] = holder.get("name")
        last, container = holders[-1]
        group = container.get("team") if last == "issue" else container
        if isinstance(group, Mapping):
            made |= {"collection": group.get("name"), "collection_id": group.get("id")}
        return made

    def _resolve(self, items: Sequence[dict[str, Any]], told: Part) -> None:
        """Puts beside items what the addresses and names in their texts lead to."""
        texts = [("" if one["_kind"] == "gone" else texts_of(one)) for one in items]
        leads = [targets(text, told.workspace) for text in texts]
        named = [[*profiles(text, told.workspace), *handles(text)] for text in texts]
        ids = self._workspace.ids(one for each in leads for one in each) if any(leads) else {}
        people = self._workspace.people() if any(named) else {}
        for item, lead, names in zip(items, leads, named, strict=True):
            links = {one.address: ids[one.address] for one in lead if one.address in ids}
            known = {one.lower(): people[one.lower()] for one in names if one.lower() in people}
            if links:
                item["_links"] = links
            if known:
                item["_people"] = known

    def _files(self, item: dict[str, Any]) -> Iterator[FileItem]:
        """Yields the uploaded files of an item that become documents, and notes all of them."""
        attachments, host = self._how.attachments, self._how.uploads.rstrip("/")
        if item["_kind"] == "gone" or attachments.choice == "none":
            return
        found = uploads(texts_of(item), host)
        if found:
            item["_files"] = [{"name": one.name, "url": one.address} for one in found]
        team = item.get("team")
        group = team if item["_kind"] == "issue" and isinstance(team, Mapping) else {}
        for one in found:
            how = attachments.of_file(one.name)
            if how not in ("text", "bytes") or (how == "text" and one.is_image):
                continue
            yield FileItem(
                f"attachment/{item['id']}{one.address.removeprefix(host)}",
                _kind="file",
                name=one.name,
                how=how,
                _address=one.address,
                _owner=f"linear:{item['_kind']}/{item['id']}",
                _list=files_of(item["_kind"], group.get("id")),
                _readers=item.get("_readers"),
                collection=item.get("collection") or group.get("name"),
                collection_id=item.get("collection_id") or group.get("id"),
            )


class Part:
    """A partition, as its params tell it.

    Args:
        params: Those of the partition.
        how: What is read, and how.

    Attributes:
        what: The name of the resource.
        resource: The list.
        scope: What is read.
        since: What changed before this is known; None to read everything.
        began: When the run began.
        workspace: The name of the workspace in addresses.
        open_to: Who may read what is in each team, which the next run compares.
        is_incremental: Whether the dataset has what an earlier run has read, if not of this list.
    """

    def __init__(self, params: Mapping[str, Any], how: Reading) -> None:
        self.what: str = params["what"]
        self.resource: Resource = RESOURCES[self.what]
        self.workspace: str = params["workspace"]["key"]
        self.open_to: dict[str, Any] = params["open_to"]
        self.began = datetime.fromisoformat(params["began"])
        state: Mapping[str, Any] = params["state"]
        self.since: str | None = state.get("since")
        self.is_incremental: bool = params["is_later"]
        self._known: Mapping[str, str] = state.get("recent") or {}
        self._team: str | None = params.get("team")
        self._how = how
        chosen, projects = params["chosen"], params["projects"]
        self.scope = Scope(
            how.choice,
            params["workspace"]["id"],
            self.open_to,
            None if chosen is None else frozenset(chosen),
            None if projects is None else frozenset(projects),
        )

    @property
    def is_inline(self) -> bool:
        """Whether its items have comments in their text."""
        return self._how.comments == "inline" and self.resource.kind == "issue"

    @property
    def with_comments(self) -> bool:
        """Whether its items come with the comments on them."""
        return self.is_inline or (self.is_incremental and self._how.comments == "documents")

    @property
    def with_archived(self) -> bool:
        """Whether archived items are asked for: to be read, or since they may be known."""
        return self.is_incremental or self._how.choice.archived

    @property
    def files(self) -> str:
        """The part of the source that the files of its items are; empty where none are read."""
        return files_of(self.resource.kind, self._team) if self._how.reads_files else ""

    def is_new(self, node: Mapping[str, Any]) -> bool:
        """Returns whether an item is not known from an earlier run as it is."""
        return self.is_inline or self._known.get(str(node.get("id"))) != node.get("updatedAt")

    def changed(self, node: Mapping[str, Any]) -> str:
        """Returns when an item was changed, or a comment that stands in its text."""
        inner = listed(node.get("comments")) if self.is_inline else []
        return max(str(one.get("updatedAt") or "") for one in [node, *inner])

    def windows(
        self, kind: str, node: Mapping[str, Any], comments: Sequence[Mapping[str, Any]]
    ) -> Iterator[Window]:
        """Yields the parts of the source that hold what belongs to an item, all of it.

        Args:
            kind: What the item is.
            node: The item.
            comments: Comments on it whose files belong to it as well.
        """
        point = point_of(f"linear:{kind}/{node['id']}")
        if kind in COMMENTED and self._how.comments == "documents":
            yield Window("comments", point, point)
        if not self.files:
            return
        yield Window(self.files, point, point)
        for one in comments:
            point = point_of(f"linear:comment/{one['id']}")
            yield Window(files_of("comment"), point, point)

    def filter(self, start: str | None = None) -> dict[str, Any] | None:
        """Returns the filter of its list.

        What leaves the states or projects that were chosen has to be seen, and deleted. So a run
        for changes asks for all that changed.
        """
        made: dict[str, Any] = {}
        choice, scope, what = self._how.choice, self.scope, self.what
        if self._team is not None:
            made["team"] = {"id": {"eq": self._team}}
        if what == "comments" and self._how.comments == "inline":
            made["issue"] = {"null": True}
        elif what == "comments" and scope.chosen is not None:
            on_team = {"issue": {"team": {"id": {"in": sorted(scope.chosen)}}}}
            made["or"] = [on_team, {"issue": {"null": True}}]
        start = start or (moved_back(self.since, _LATE) if self.since is not None else None)
        if start is not None:
            later = {"updatedAt": {"gte": start}}
            made |= {"or": [later, {"comments": {"some": later}}]} if self.is_inline else later
        if not self.is_incremental:
            if what == "issues" and scope.projects is not None:
                made["project"] = {"id": {"in": sorted(scope.projects)}}
            if what == "issues" and choice.states:
                made["state"] = _in_states(choice.states)
            if what == "projects" and scope.projects is not None:
                made["id"] = {"in": sorted(scope.projects)}
            if what == "projects" and scope.chosen is not None:
                made["accessibleTeams"] = {"some": {"id": {"in": sorted(scope.chosen)}}}
        return made or None


def files_of(kind: str, team: Any = None) -> str:
    """Returns the part of the source that holds the files of a kind of items.

    Args:
        kind: What the files are in.
        team: The id of the team, for issues.
    """
    return f"files/{kind}/{team}" if team else f"files/{kind}"


def _in_states(states: Sequence[str]) -> dict[str, Any]:
    names = [{"name": {"eqIgnoreCase": one}} for one in states]
    return {"or": [*names, {"type": {"in": [one.lower() for one in states]}}]}


def _on(kind: str, node: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the fields by which a comment names what it is on."""
    if kind == "document":
        return {"documentContent": {"document": node}}
    return {next((name for name, one in KINDS.items() if one == kind), kind): node}


def _without_containers(node: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """Returns an item without what only told where it lies and who may read it."""
    left_out = {"sharedAccess", *(name for name in KINDS if kind != "issue" or name != "project")}
    return {name: one for name, one in node.items() if name not in left_out}


def _letter(
    error: Fault, node: Any, number: int, partition: Partition, connector: str
) -> DeadLetter:
    kind = RESOURCES[partition.params["what"]].kind
    item = {"kind": kind, "id": node.get("id") if isinstance(node, Mapping) else None}
    problem = RecordError(f"Linear could not give all of this {kind}: {error}")
    return DeadLetter.of("read", problem, item, connector, partition.id, str(number))
