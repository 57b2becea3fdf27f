"""A workspace of Linear: its teams and people, and what addresses in texts lead to.

Names and addresses are asked for when a text needs them, and remembered for the run.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from contextframe_beam.connectors.http import HttpError, Queries, QueryError
from contextframe_beam.connectors.linear.queries import (
    COUNTS,
    FOUND,
    ISSUE,
    OWNERS,
    OWNERS_AT_ONCE,
    PEOPLE,
    PROJECTS,
    TEAMS,
    VIEWER,
)
from contextframe_beam.connectors.linear.text import Target

_REMEMBERED = 20_000
#: Codes of errors that say of a list that the account, or its plan, may not have it.
UNREADABLE = frozenset({"FORBIDDEN", "FEATURE_NOT_ACCESSIBLE", "ENTITY_NOT_FOUND", "NOT_FOUND"})
# And of one issue that there is none.
_ABSENT = UNREADABLE | {"INPUT_ERROR"}


class Workspace:
    """Asks what lists do not tell.

    Args:
        queries: Asks Linear.
    """

    def __init__(self, queries: Queries) -> None:
        self._queries = queries
        self._lock = threading.Lock()
        self.forget()

    def forget(self) -> None:
        """Forgets names and addresses, which may be others in the next run."""
        with self._lock:
            self._people: dict[str, str] | None = None
            self._ids: OrderedDict[Target, str | None] = OrderedDict()

    def viewer(self) -> dict[str, Any]:
        """Returns the account, `viewer`, and its workspace, `organization`."""
        return self._queries.data(VIEWER)

    def teams(self) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Returns the workspace, and all of its teams that the account may read."""
        first = self._queries.data(TEAMS, {"after": None})
        found = self._queries.nodes(TEAMS, {}, "teams", first["teams"])
        return first["organization"], sorted(found, key=lambda one: str(one.get("key")))

    def counts(self) -> dict[str, int]:
        """Returns how many issues each team has, by its id."""
        found = self._queries.nodes(COUNTS, {}, "teams")
        return {str(one["id"]): int(one.get("issueCount") or 0) for one in found}

    def projects(self, names: Sequence[str]) -> dict[str, list[str]]:
        """Returns the ids of projects, by what each was asked for by.

        Args:
            names: Names, ids, or addresses or their ends.
        """
        ends = [one.rstrip("/").rpartition("/")[2] for one in names]
        slugs = [one.rpartition("-")[2] for one in ends]
        ways = [{"name": {"in": list(names)}}, {"id": {"in": ends}}, {"slugId": {"in": slugs}}]
        asked = {"filter": {"or": ways}}
        found = list(self._queries.nodes(PROJECTS, asked, "projects"))
        return {
            name: [
                str(one["id"])
                for one in found
                if one.get("name") == name or one["id"] == end or one.get("slugId") == slug
            ]
            for name, end, slug in zip(names, ends, slugs, strict=True)
        }

    def owners(self, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Returns what comments are on that are on no issue, by the id of each comment."""
        found: dict[str, dict[str, Any]] = {}
        for start in range(0, len(ids), OWNERS_AT_ONCE):
            asked = {"ids": list(ids[start : start + OWNERS_AT_ONCE])}
            for one in self._queries.nodes(OWNERS, asked, "comments"):
                found[str(one.pop("id"))] = one
        return found

    def people(self) -> Mapping[str, str]:
        """Returns the ids of people by their names in texts, in small letters."""
        with self._lock:
            if self._people is None:
                found = list(self._queries.nodes(PEOPLE, {}, "users"))
                # An address may have a full name; the name in the application is what counts.
                self._people = {
                    str(one[name]).lower(): str(one["id"])
                    for name in ("name", "displayName")
                    for one in found
                    if one.get(name)
                }
            return self._people

    def ids(self, targets: Iterable[Target]) -> dict[str, str]:
        """Returns the ids of documents by the addresses that lead to them, as far as there are.

        Those of a page are asked for together.
        """
        wanted = list(dict.fromkeys(targets))
        with self._lock:
            unknown = [one for one in wanted if one not in self._ids]
        by_kind: dict[str, list[Target]] = {}
        for one in unknown:
            by_kind.setdefault(one.kind, []).append(one)
        found = {kind: self._found(kind, own) for kind, own in by_kind.items()}
        with self._lock:
            self._ids.update({one: found[one.kind].get(one.name) for one in unknown})
            answer = {one.address: id for one in wanted if (id := self._ids.get(one)) is not None}
            while len(self._ids) > _REMEMBERED:
                self._ids.popitem(last=False)
        return answer

    def _found(self, kind: str, targets: Sequence[Target]) -> dict[str, str]:
        names = list(dict.fromkeys(one.name for one in targets))
        asked: dict[str, Any] = {"slugId": {"in": names}}
        if kind == "issue":
            by_team: dict[str, list[float]] = {}
            for name in names:
                key, _, number = name.rpartition("-")
                by_team.setdefault(key, []).append(float(number))
            each = [{"team": {"key": {"eq": k}}, "number": {"in": n}} for k, n in by_team.items()]
            asked = {"or": each}
        nodes = self._queries.nodes(FOUND[kind], {"filter": asked}, f"{kind}s")
        field = "identifier" if kind == "issue" else "slugId"
        found = {
            (str(one[field]).upper() if kind == "issue" else str(one[field]).lower()): (
                f"linear:{kind}/{one['id']}"
            )
            for one in nodes
        }
        if kind == "issue":
            found |= {name: id for name in names if name not in found and (id := self._moved(name))}
        return found

    def _moved(self, identifier: str) -> str | None:
        """Returns the id of an issue that has another identifier now; None if there is none."""
        try:
            found = self._queries.data(ISSUE, {"id": identifier}).get("issue")
        except QueryError as error:
            if not all(one.code in _ABSENT for one in error.faults):
                raise
            return None
        except HttpError as error:
            if not error.is_of_one:
                raise
            return None
        return f"linear:issue/{found['id']}" if isinstance(found, Mapping) else None
