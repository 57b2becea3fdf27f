"""GitHub's lists of a repository: how each is asked for, and how later runs ask for changes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from contextframe_beam.connectors.cursors import clamped_cursor, moved_back, recent
from contextframe_beam.connectors.http import HttpResponse
from contextframe_beam.errors import ConnectorError

#: The most that GitHub gives.
PER_PAGE = 100
#: With fewer than this, a page that takes GitHub too long is an error.
FEWEST_PER_PAGE = 10

#: Sends a request for a page; None where nothing changed since the entity tag.
Send = Callable[[str, str | None, bool], "HttpResponse | None"]


@dataclass(frozen=True)
class ListOf:
    """A list of a repository.

    Attributes:
        path: Its path below the repository.
        params: Its parameters.
        order: How pages follow: `oldest` change first with `since`; `newest` change first, which
            ends at what is known; `all`, which is read whole each time.
        changed: Returns when an item was changed.
    """

    path: str
    params: Mapping[str, Any] = field(default_factory=dict)
    order: str = "oldest"
    changed: Callable[[Mapping[str, Any]], Any] = lambda item: item.get("updated_at")


_OLDEST_FIRST = {"sort": "updated", "direction": "asc"}


def _committed(item: Mapping[str, Any]) -> Any:
    return ((item.get("commit") or {}).get("committer") or {}).get("date")


#: The lists by the names of their partitions.
LISTS: Mapping[str, ListOf] = {
    "issues": ListOf("issues", {"state": "all", **_OLDEST_FIRST}),
    "comments": ListOf("issues/comments", _OLDEST_FIRST),
    "review-comments": ListOf("pulls/comments", _OLDEST_FIRST),
    "pulls": ListOf(
        "pulls", {"state": "all", "sort": "updated", "direction": "desc"}, order="newest"
    ),
    "releases": ListOf("releases", order="all"),
    "commits": ListOf("commits", changed=_committed),
}


@dataclass
class ListPage:
    """A page of a list.

    Attributes:
        items: Its items, as GitHub gave them.
        cursor: The next page; None on the last.
        state: What the next run needs, on the last page.
        is_whole: Whether it is all of the list. One of several pages may have missed an item that
            moved across their border.
    """

    items: list[dict[str, Any]]
    cursor: dict[str, Any] | None = None
    state: dict[str, Any] | None = None
    is_whole: bool = False


def list_page(
    one: ListOf,
    url: str,
    known: Mapping[str, Any],
    cursor: Mapping[str, Any] | None,
    began: datetime,
    send: Send,
    more: Mapping[str, Any] | None = None,
) -> ListPage:
    """Reads a page of a list.

    Args:
        one: The list.
        url: The address of the repository.
        known: The state that an earlier run left.
        cursor: The cursor of the page before; None for the first page.
        began: When the run began. A state is no later, so that the next run reads what changes
            while this one reads.
        send: Sends a request: its address, an entity tag that is known, and whether an answer that
            takes GitHub too long is an error. It then returns None.
        more: Further parameters.

    Raises:
        ConnectorError: GitHub gave no list.
    """
    at = dict(cursor or {})
    since, reached = known.get("since"), at.get("newest") or known.get("since")
    size = int(at.get("per_page", PER_PAGE))
    address = at.get("url") or first_url(one, url, since, size, more)
    response = send(address, None if cursor else known.get("etag"), size <= FEWEST_PER_PAGE)
    if response is None:
        # The list begins again: a page of another size begins elsewhere. What was read of it comes
        # again, or is left out where the list is by time.
        from_here = reached if one.order == "oldest" else since
        again = first_url(one, url, from_here, size // 2, more)
        return ListPage([], {**at, "url": again, "newest": reached, "per_page": size // 2})
    if response.status == 304:
        return ListPage([], state=dict(known))
    items = response.json()
    if not isinstance(items, list):
        raise ConnectorError(f"{response.url} gave no list; check base_url")
    times = [text for text in map(one.changed, items) if isinstance(text, str)]
    newest = max([*times, *([reached] if reached else [])], default=None)
    following = response.links().get("next")
    at = {**at, "url": following, "newest": newest, "per_page": size}
    if cursor is None:
        at["etag"] = response.headers.get("ETag")
    if one.order != "all":
        named = [(_name(item), str(one.changed(item))) for item in items]
        at["recent"] = recent(at.get("recent", {}), named, newest, began)
    if one.order == "newest" and since:
        later = [item for item in items if str(one.changed(item)) >= moved_back(since)]
        following = following if len(later) == len(items) else None
        items = later
    read = known.get("recent") or {}
    items = [item for item in items if read.get(_name(item)) != one.changed(item)]
    if following:
        return ListPage(items, at)
    state: dict[str, Any] = {}
    if newest and one.order != "all":
        state = {"since": clamped_cursor(newest, began), "recent": at["recent"]}
    # The next run asks the same. Where it is not by the newest, one page has to be all of it.
    is_same = one.order != "oldest" or state.get("since") == since
    if is_same and at.get("etag") and (cursor is None or one.order == "newest"):
        state["etag"] = at["etag"]
    return ListPage(items, state=state, is_whole=cursor is None and one.order == "all")


def _name(item: Mapping[str, Any]) -> str:
    return str(item.get("number") or item.get("id") or item.get("sha"))


def first_url(
    one: ListOf, url: str, since: str | None, size: int, more: Mapping[str, Any] | None = None
) -> str:
    """Returns the address of the first page of a list.

    Args:
        one: The list.
        url: The address of the repository.
        since: From when changes are asked for; None for all.
        size: How many items a page has.
        more: Further parameters.
    """
    query = {**one.params, **(more or {}), "per_page": size}
    if since and one.order == "oldest":
        query["since"] = moved_back(since)
    return f"{url}/{one.path}?{urlencode(query)}"
