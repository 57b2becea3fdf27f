"""What of a workspace is read, and who may read each part of it.

Both follow from where something lies: a comment on an issue, a document or a project, an issue in a
team, a project in several. Readers are containers whose members only Linear knows. An issue in a
private team has the reader `linear-team:<id>`; in a public one also the whole workspace has it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

#: Where what may lie in several kinds of things can lie, the nearest first.
_ABOVE: Mapping[str, tuple[tuple[str, str], ...]] = {
    "comment": (
        ("issue", "issue"),
        ("projectUpdate", "project_update"),
        ("initiativeUpdate", "initiative_update"),
        ("project", "project"),
        ("initiative", "initiative"),
        ("documentContent", "content"),
    ),
    "content": (
        ("document", "document"),
        ("issue", "issue"),
        ("project", "project"),
        ("initiative", "initiative"),
    ),
    "document": (
        ("issue", "issue"),
        ("project", "project"),
        ("initiative", "initiative"),
        ("team", "team"),
    ),
    "project_update": (("project", "project"),),
    "initiative_update": (("initiative", "initiative"),),
}


@dataclass(frozen=True)
class Choice:
    """What a user chose.

    Attributes:
        teams: Keys of teams; all where it is empty.
        include: Patterns of keys and names of teams, of which one has to match.
        exclude: Patterns of those that are left out.
        projects: Names, ids or addresses of projects.
        states: Names and types of states that issues have to be in.
        archived: Whether archived ones are read.
    """

    teams: Sequence[str] = ()
    include: Sequence[str] = ()
    exclude: Sequence[str] = ()
    projects: Sequence[str] = ()
    states: Sequence[str] = ()
    archived: bool = True

    @property
    def narrows_teams(self) -> bool:
        """Whether only some teams are read."""
        return bool(self.teams or self.include or self.exclude)

    def teams_of(
        self, found: Sequence[dict[str, Any]], skip: Callable[[str, object], object]
    ) -> list[dict[str, Any]]:
        """Returns those of the found teams that are read.

        Args:
            found: All that the account may read.
            skip: Is told of named ones that are not among them, and why.
        """
        wanted = {one.lower() for one in self.teams}
        known = {name.lower() for one in found for name in (one["key"], one["id"])}
        for one in self.teams:
            if one.lower() not in known:
                skip(f"team {one}", "there is none with this key that the account may read")
        return [one for one in found if self._is_wanted(one, wanted)]

    def _is_wanted(self, team: Mapping[str, Any], wanted: set[str]) -> bool:
        names = [str(team.get(name) or "").lower() for name in ("key", "name")]
        if wanted and not wanted & {*names[:1], str(team["id"]).lower()}:
            return False
        if self.include and not _matches(names, self.include):
            return False
        return not _matches(names, self.exclude)


@dataclass(frozen=True)
class Scope:
    """What one run reads.

    Attributes:
        choice: What the user chose.
        workspace: The id of the workspace.
        teams: The teams that the account may read, by their ids: who may read what is in each.
        chosen: The ids of the teams that are read; None for all.
        projects: The ids of the projects that are read; None for all.
    """

    choice: Choice
    workspace: str = ""
    teams: Mapping[str, Sequence[str]] = field(default_factory=dict)
    chosen: frozenset[str] | None = None
    projects: frozenset[str] | None = None

    def keeps(self, kind: str, node: Mapping[str, Any]) -> bool:
        """Returns whether something is read: it, and all that it lies in, is there and was chosen.

        Args:
            kind: What it is.
            node: It, as Linear gave it.
        """
        inside = [(kind, node), *above(kind, node)]
        if any(self._is_gone(one) for _, one in inside):
            return False
        last, holder = inside[-1]
        if last == "issue":
            return self._keeps_issue(holder)
        if last == "project":
            teams = {one["id"] for one in listed(holder.get("teams"))}
            is_in = self.chosen is None or bool(self.chosen & teams)
            return is_in and (self.projects is None or holder.get("id") in self.projects)
        if last in ("initiative", "team"):
            team = holder if last == "team" else holder.get("leadTeam")
            return self.projects is None and self._keeps_team(team)
        return self.chosen is None and self.projects is None

    def readers(self, kind: str, node: Mapping[str, Any]) -> list[str] | None:
        """Returns who may read something; None where that is not known.

        Args:
            kind: What it is.
            node: It, as Linear gave it.
        """
        last, holder = [(kind, node), *above(kind, node)][-1]
        found: set[str] = set()
        if last == "issue":
            found.update(self._of_team(holder.get("team")))
            if found:
                found.update(_shared_with(holder))
        elif last == "project":
            for team in listed(holder.get("teams")):
                found.update(self._of_team(team))
        elif last == "initiative":
            lead = holder.get("leadTeam")
            is_public = holder.get("visibility") == "public"
            found.update([self.everybody] if is_public else self._of_team(lead))
        elif last == "team":
            found.update(self._of_team(holder))
        return sorted(found) or None

    @property
    def everybody(self) -> str:
        """The reader that stands for all members of the workspace."""
        return f"linear-workspace:{self.workspace}"

    def _of_team(self, team: Any) -> Sequence[str]:
        return self.teams.get(str(team.get("id")), ()) if isinstance(team, Mapping) else ()

    def _is_gone(self, node: Mapping[str, Any]) -> bool:
        is_archived = node.get("archivedAt") is not None
        return node.get("trashed") is True or (is_archived and not self.choice.archived)

    def _keeps_issue(self, issue: Mapping[str, Any]) -> bool:
        project, state = issue.get("project"), issue.get("state")
        if not self._keeps_team(issue.get("team")):
            return False
        if self.projects is not None and (
            not isinstance(project, Mapping) or project.get("id") not in self.projects
        ):
            return False
        if not self.choice.states:
            return True
        told = state if isinstance(state, Mapping) else {}
        names = {str(told.get(name)).lower() for name in ("name", "type")}
        return bool(names & {one.lower() for one in self.choice.states})

    def _keeps_team(self, team: Any) -> bool:
        if self.chosen is None:
            return True
        return isinstance(team, Mapping) and team.get("id") in self.chosen


def readers_of_team(team: Mapping[str, Any], workspace: str) -> list[str]:
    """Returns who may read what is in a team.

    A restricted team is open to those of the private team that it lies in.

    Args:
        team: It, with its `visibility`.
        workspace: The id of the workspace.
    """
    readers = [f"linear-team:{team['id']}"]
    visibility, within = team.get("visibility"), team.get("restrictedBy")
    if visibility == "public":
        readers.append(f"linear-workspace:{workspace}")
    if visibility == "restricted" and isinstance(within, Mapping):
        readers.append(f"linear-team:{within.get('id')}")
    return sorted(readers)


def above(kind: str, node: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yields what something lies in, from the nearest; the text of a document is not one of them.

    Args:
        kind: What it is.
        node: It, as Linear gave it.
    """
    while True:
        found = (
            (inner, told)
            for name, inner in _ABOVE.get(kind, ())
            if isinstance(told := node.get(name), Mapping)
        )
        kind, node = next(found, ("", {}))
        if not kind:
            return
        if kind != "content":
            yield kind, node


def listed(value: Any) -> list[dict[str, Any]]:
    """Returns the items of a list inside of an item."""
    found = value.get("nodes") if isinstance(value, Mapping) else value
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def _shared_with(issue: Mapping[str, Any]) -> Iterator[str]:
    shared = issue.get("sharedAccess")
    for user in listed(shared.get("sharedWithUsers")) if isinstance(shared, Mapping) else ():
        email = user.get("email")
        yield f"user:{email.lower()}" if email else f"user:{user.get('id')}"


def _matches(names: Sequence[str], patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, one.lower()) for name in names for one in patterns)
