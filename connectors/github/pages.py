"""The pages of a repository's lists: what each partition reads, page after page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from contextframe_beam.connectors.cursors import clamped_cursor, moved_back, recent
from contextframe_beam.connectors.files.item import FileItem
from contextframe_beam.connectors.github.discussions import discussion_page
from contextframe_beam.connectors.github.files import (
    Changes,
    Git,
    Selection,
    has_parser,
    is_media,
)
from contextframe_beam.connectors.github.lists import LISTS, list_page
from contextframe_beam.connectors.github.repositories import (
    LeftOutError,
    TooSlowError,
    judged_page,
)
from contextframe_beam.connectors.github.wiki import read_wiki
from contextframe_beam.connectors.http import (
    HttpClient,
    HttpError,
    HttpRequest,
    HttpResponse,
    Queries,
)
from contextframe_beam.connectors.http.request import logger
from contextframe_beam.connectors.page import Page, Partition, Window
from contextframe_beam.errors import ConnectorError

_FILES_IN_A_PAGE = 1000
_TOO_LARGE = (422, 500, 502, 503, 504)


@dataclass(frozen=True)
class Reading:
    """What is read of a repository, and how.

    Attributes:
        resources: The names of what is read.
        comments: documents, inline or none.
        wanted: The files that are wanted.
        media: Whether files without text are wanted.
        web: The address that people open, without a path.
        graphql: The address of GraphQL.
        at_once: How many requests may be open.
    """

    resources: frozenset[str]
    comments: str
    wanted: Selection
    media: bool
    web: str
    graphql: str
    at_once: int


class RepositoryPages:
    """Reads the partitions of repositories.

    Args:
        http: Asks GitHub.
        how: What is read.
    """

    def __init__(self, http: HttpClient, how: Reading) -> None:
        self._http = http
        self._how = how
        # What files of a repository changed, from its first page to its last.
        self._changes: dict[str, Changes] = {}

    def page(self, partition: Partition, cursor: Any) -> Page:
        """Returns a page of a partition.

        Raises:
            LeftOutError: it cannot be read, while others can.
            ConnectorError: GitHub cannot be asked, or refuses the token.
        """
        read = {
            "files": self._files_page,
            "discussions": self._discussions_page,
            "wiki": self._wiki_page,
        }.get(partition.params["what"], self._list_page)
        return read(partition, cursor)

    def _list_page(self, partition: Partition, cursor: Any) -> Page:
        params = partition.params
        what, repository = params["what"], params["repository"]
        one = LISTS[what]
        page = list_page(
            one,
            self._http.absolute(f"repos/{repository['name']}"),
            params["state"],
            cursor,
            datetime.fromisoformat(params["began"]),
            self._asked_for,
            {"sha": repository["branch"]} if what == "commits" else None,
        )
        items = [
            {**item, "_kind": kind, "_repository": repository}
            for item in page.items
            if (kind := self._kind_of(item, what)) is not None
        ]
        if what in ("issues", "pulls") and self._how.comments == "inline":
            self._put_comments(items, repository)
        windows: list[Window] = []
        if what == "pulls":
            items = items if "pulls" in self._how.resources else []
            if "reviews" in self._how.resources:
                items += self._reviews(page.items, repository)
                name = f"{repository['id']}/reviews"
                windows = [Window(name, one["number"], one["number"]) for one in page.items]
        if what == "releases" and page.is_whole:
            windows = [Window(f"{repository['id']}/releases")]
        return Page(items, next_cursor=page.cursor, state=page.state, windows=windows)

    def _kind_of(self, item: Mapping[str, Any], what: str) -> str | None:
        """Returns the kind of an item of a list; None where it is read elsewhere, or not at all."""
        if what != "issues":
            return what.removesuffix("s")
        is_pull = "pull_request" in item
        wanted = set(self._how.resources)
        if is_pull:
            return "pull" if "pulls" in wanted and "reviews" not in wanted else None
        return "issue" if "issues" in wanted else None

    def _reviews(
        self, pulls: Sequence[Mapping[str, Any]], repository: Mapping[str, Any]
    ) -> Iterator[dict[str, Any]]:
        """Yields the reviews of pull requests, which are asked for together."""
        urls = [f"repos/{repository['name']}/pulls/{one['number']}/reviews" for one in pulls]
        for reviews in self._lists(urls):
            for review in reviews:
                yield {**review, "_kind": "review", "_repository": repository}

    def _put_comments(self, items: Sequence[dict[str, Any]], repository: Mapping[str, Any]) -> None:
        """Puts comments into the items that they belong to."""
        # A list of pull requests does not say how many comments each has.
        some = [one for one in items if one.get("comments") != 0]
        urls = [f"repos/{repository['name']}/issues/{one['number']}/comments" for one in some]
        for item, comments in zip(some, self._lists(urls), strict=True):
            item["_comments"] = comments

    def _lists(self, urls: Sequence[str]) -> Iterator[list[dict[str, Any]]]:
        """Yields whole lists, whose first pages are asked for together."""
        asked = [HttpRequest("GET", f"{one}?per_page=100") for one in urls]
        for answer in self._http.all(asked, at_once=self._how.at_once):
            found = list(answer.json())
            while following := answer.links().get("next"):
                answer = self._http.send(HttpRequest("GET", following))
                found += answer.json()
            yield found

    def _asked_for(self, url: str, tag: str | None, is_smallest: bool) -> HttpResponse | None:
        """Sends a request for a page of a list; None where it takes GitHub too long."""
        headers = {} if tag is None else {"If-None-Match": tag}
        judge = None if is_smallest else judged_page
        try:
            return self._http.send(HttpRequest("GET", url, headers=headers, judge=judge))
        except TooSlowError:
            logger.info("GitHub takes too long for a page of %s; asking for half", url)
            return None

    def _files_page(self, partition: Partition, cursor: Any) -> Page:
        params = partition.params
        repository = params["repository"]
        changes = self._changes.get(partition.id) if cursor else None
        start = cursor["at"] if changes else 0
        if changes is None:
            changes = self._changed_files(params)
            self._changes[partition.id] = changes
        end = start + _FILES_IN_A_PAGE
        items: list[Any] = [
            FileItem(one.path, one.size, _kind="file", sha=one.sha, _repository=repository)
            for one in changes.files[start:end]
            if self._how.media or not (has_parser(one.path) or is_media(one.path))
        ]
        if end < len(changes.files):
            return Page(items, next_cursor={"at": end, "commit": changes.commit})
        self._changes.pop(partition.id, None)
        gone = {"_kind": "gone", "_repository": repository}
        items += [{**gone, "_path": path} for path in changes.gone]
        state = {**params["now"], "commit": changes.commit}
        windows = [Window(f"{repository['id']}/files")] if changes.whole else []
        return Page(items, state=state, windows=windows)

    def _changed_files(self, params: Mapping[str, Any]) -> Changes:
        repository, state = params["repository"], params["state"]
        git = Git(lambda path, **query: self._asked(repository, path, query), self._how.wanted)
        branch = repository["branch"]
        known = state.get("commit") if state.get("branch") == branch else None
        changes = git.since(str(known), branch) if known else git.all(branch)
        if changes is None:
            raise LeftOutError(f"there is no branch {branch}")
        return changes

    def _asked(self, repository: Mapping[str, Any], path: str, query: Mapping[str, Any]) -> Any:
        """Returns JSON from below a repository; None where it is not there."""
        request = HttpRequest("GET", f"repos/{repository['name']}/{path}", query)
        try:
            return self._http.send(request).json()
        except HttpError as error:
            # A comparison may be too much for GitHub.
            is_too_large = path.startswith("compare/") and error.status in _TOO_LARGE
            if error.status != 404 and not is_too_large:
                raise
            return None

    def _discussions_page(self, partition: Partition, cursor: Any) -> Page:
        params = partition.params
        repository, known = params["repository"], params["state"]
        if self._http.auth is None:
            raise LeftOutError("a list of discussions needs a token")
        owner, _, name = repository["name"].partition("/")
        at = dict(cursor or {})
        since = known.get("since")
        page = discussion_page(
            self._queried,
            owner,
            name,
            at.get("after"),
            since and moved_back(since),
            known.get("recent") or {},
        )
        if page is None:
            raise LeftOutError("the account may not see them")
        items: list[dict[str, Any]] = []
        windows: list[Window] = []
        for discussion, comments in page.discussions:
            told = {"_comments": comments} if self._how.comments == "inline" else {}
            kinds = {"_kind": "discussion", "_repository": repository}
            items.append({**discussion, **told, **kinds})
            if "comments" in self._how.resources and self._how.comments == "documents":
                kind = {"_kind": "discussion-comment", "_repository": repository}
                items += [{**one, **kind} for one in comments]
                number = discussion["number"]
                name = f"{repository['id']}/discussion-comments"
                windows.append(Window(name, number, number))
        began = datetime.fromisoformat(params["began"])
        newest = max(page.changed.values(), default=None)
        at["newest"] = at.get("newest") or newest or since
        at["recent"] = recent(at.get("recent", {}), page.changed.items(), at["newest"], began)
        if page.cursor:
            return Page(items, next_cursor={**at, "after": page.cursor}, windows=windows)
        state: dict[str, Any] = {}
        if at["newest"]:
            state = {"since": clamped_cursor(at["newest"], began), "recent": at["recent"]}
        return Page(items, state=state, windows=windows)

    def _wiki_page(self, partition: Partition, cursor: Any) -> Page:
        params = partition.params
        repository, state = params["repository"], params["state"]
        signed = self._http.auth.apply(HttpRequest("GET", "")) if self._http.auth else None
        url = f"{self._how.web}/{repository['name']}.wiki.git"
        account = None if signed is None else signed.header("Authorization")
        try:
            wiki = read_wiki(url, account, state.get("commit"))
        except ConnectorError as error:
            raise LeftOutError(str(error)) from error
        if wiki.pages is None:
            return Page([], state=dict(state))
        items: list[dict[str, Any]] = [
            {"_kind": "wiki", "_repository": repository, "_path": path, "body": text}
            for path, text in wiki.pages.items()
        ]
        windows = [Window(f"{repository['id']}/wiki")]
        return Page(items, state={"commit": wiki.commit}, windows=windows)

    def _queried(self, query: str, variables: Mapping[str, Any]) -> Mapping[str, Any]:
        return Queries(self._http, self._how.graphql).data(query, variables)
