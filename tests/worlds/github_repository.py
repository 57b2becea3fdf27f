"""A repository of the world of GitHub: what it holds, and the changes that a test makes.

Times are whole seconds, as GitHub's are, and each change is one second after the last.
"""

from __future__ import annotations

import difflib
import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

#: 2026-01-01T00:00:00Z
BEGINNING = 1_767_225_600


def blob_sha(data: bytes) -> str:
    """Returns the name that Git gives to the contents of a file."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class Clock:
    """The world's time, which only changes move."""

    def __init__(self) -> None:
        self.seconds = BEGINNING

    def now(self) -> str:
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.seconds))

    def tick(self) -> str:
        self.seconds += 1
        return self.now()


@dataclass
class Entry:
    """A file, a link or a submodule in a commit."""

    data: bytes
    mode: str = "100644"

    @property
    def kind(self) -> str:
        return "commit" if self.mode == "160000" else "blob"

    @property
    def sha(self) -> str:
        return blob_sha(self.data)


@dataclass
class Commit:
    """A commit with all files that it has."""

    sha: str
    files: dict[str, Entry]
    at: str
    message: str
    parents: list[str]


@dataclass
class Repository:
    """A repository.

    Attributes:
        number: Its id, which stays when it is renamed.
        name: `owner/name`.
        clock: The world's.
        blocked: Whether it is answered 451.
    """

    number: int
    name: str
    clock: Clock
    private: bool = False
    archived: bool = False
    fork: bool = False
    blocked: bool = False
    has_issues: bool = True
    topics: list[str] = field(default_factory=list)
    branch: str = "main"
    pushed_at: str | None = None
    issues: dict[int, dict[str, Any]] = field(default_factory=dict)
    comments: dict[int, dict[str, Any]] = field(default_factory=dict)
    reviews: dict[int, dict[str, Any]] = field(default_factory=dict)
    review_comments: dict[int, dict[str, Any]] = field(default_factory=dict)
    releases: dict[int, dict[str, Any]] = field(default_factory=dict)
    discussions: dict[int, dict[str, Any]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    commits: dict[str, Commit] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    moved_issues: dict[int, str] = field(default_factory=dict)
    last_number: int = 0

    def add_issue(self, title: str, body: str | None = "", pull: bool = False, **more: Any) -> int:
        """Opens an issue or a pull request; returns its number."""
        self.last_number = number = self.last_number + 1
        at = self.clock.tick()
        self.issues[number] = {
            "number": number,
            "title": title,
            "body": body,
            "user": "alice",
            "state": "open",
            "labels": [],
            "assignees": [],
            "milestone": None,
            "created_at": at,
            "updated_at": at,
            "pull": pull,
            **more,
        }
        return number

    def edit_issue(self, number: int, **values: Any) -> None:
        """Changes some values of an issue."""
        self.issues[number].update(values, updated_at=self.clock.tick())

    def delete_issue(self, number: int) -> None:
        """Deletes an issue with its comments, which leaves no trace in any listing."""
        del self.issues[number]
        for kept in (self.comments, self.reviews, self.review_comments):
            for one in [key for key, value in kept.items() if value["issue"] == number]:
                del kept[one]

    def transfer_issue(self, number: int, to: Repository) -> int:
        """Moves an issue to another repository; the old address leads there."""
        issue = self.issues[number]
        moved = to.add_issue(issue["title"], issue["body"])
        self.delete_issue(number)
        self.moved_issues[number] = f"/repos/{to.name}/issues/{moved}"
        return moved

    def add_comment(self, issue: int, body: str | None, user: str | None = "bob") -> int:
        """Comments an issue or pull request, which counts as a change of it."""
        made = self._added(self.comments, 1000, issue=issue, body=body, user=user)
        self.issues[issue]["updated_at"] = self.clock.now()
        return made

    def add_review(self, pull: int, body: str, state: str = "APPROVED") -> int:
        """Reviews a pull request, which counts as a change of it."""
        made = self._added(self.reviews, 2000, issue=pull, body=body, user="carol", state=state)
        self.issues[pull]["updated_at"] = self.clock.now()
        return made

    def add_review_comment(self, pull: int, body: str, reply_to: int | None = None) -> int:
        """Comments a line of a pull request."""
        made = self._added(
            self.review_comments, 3000, issue=pull, body=body, user="bob", reply_to=reply_to
        )
        self.issues[pull]["updated_at"] = self.clock.now()
        return made

    def add_release(self, tag: str, body: str | None = "") -> int:
        """Publishes a release."""
        return self._added(self.releases, 4000, issue=0, body=body, user="alice", tag=tag)

    def add_discussion(self, title: str, body: str) -> int:
        """Opens a discussion; its numbers are those of issues."""
        self.last_number = number = self.last_number + 1
        at = self.clock.tick()
        self.discussions[number] = {
            "number": number,
            "title": title,
            "body": body,
            "comments": [],
            "created_at": at,
            "updated_at": at,
        }
        return number

    def add_discussion_comment(self, number: int, body: str, to: int | None = None) -> int:
        """Comments a discussion, or replies to a comment of it; returns the comment's id."""
        discussion = self.discussions[number]
        at = discussion["updated_at"] = self.clock.tick()
        count = sum(1 + len(one["replies"]) for one in discussion["comments"])
        comment = {"id": number * 10_000 + count, "body": body, "at": at, "replies": []}
        found = [one for one in discussion["comments"] if one["id"] == to]
        (found[0]["replies"] if found else discussion["comments"]).append(comment)
        return int(comment["id"])

    def delete_discussion_comment(self, number: int, comment: int) -> None:
        """Deletes a comment of a discussion, which counts as a change of it."""
        discussion = self.discussions[number]
        discussion["comments"] = [one for one in discussion["comments"] if one["id"] != comment]
        discussion["updated_at"] = self.clock.tick()

    def edit(self, kept: dict[int, dict[str, Any]], number: int, **values: Any) -> None:
        """Changes a comment, a review or a release."""
        kept[number].update(values, updated_at=self.clock.tick())

    def commit(
        self,
        files: Mapping[str, bytes | str | Entry | None],
        message: str = "change",
        branch: str | None = None,
    ) -> str:
        """Commits changes of files on top of a branch; None removes a file. Returns its sha."""
        head = self.branches.get(branch or self.branch)
        before = self.commits[head].files if head else {}
        return self._committed(before, files, [head] if head else [], message, branch)

    def force_push(self, files: Mapping[str, bytes | str | None], keep_old: bool = False) -> str:
        """Puts another history in the place of the branch's last commit."""
        head = self.commits[self.branches[self.branch]]
        base = self.commits[head.parents[0]] if head.parents else None
        if not keep_old:
            del self.commits[head.sha]
        before = base.files if base else {}
        return self._committed(before, files, head.parents, "rewritten", None)

    def head(self, ref: str) -> Commit | None:
        """Returns the commit of a branch, of HEAD or of a sha."""
        name = self.branch if ref == "HEAD" else ref
        return self.commits.get(self.branches.get(name, ref))

    def is_ancestor(self, old: str, new: str) -> bool:
        """Returns whether a commit is in the history of another."""
        waiting = [new]
        while waiting:
            one = waiting.pop()
            if one == old:
                return True
            waiting += self.commits[one].parents if one in self.commits else ()
        return False

    def _committed(
        self,
        before: Mapping[str, Entry],
        changes: Mapping[str, bytes | str | Entry | None],
        parents: list[str],
        message: str,
        branch: str | None,
    ) -> str:
        at = self.pushed_at = self.clock.tick()
        files = dict(before)
        for path, data in changes.items():
            if data is None:
                del files[path]
            else:
                text = data.encode() if isinstance(data, str) else data
                files[path] = text if isinstance(text, Entry) else Entry(text)
        for one in files.values():
            self.blobs[one.sha] = one.data
        sha = hashlib.sha1(f"{self.number} {at} {parents}".encode()).hexdigest()
        self.commits[sha] = Commit(sha, files, at, message, list(parents))
        self.branches[branch or self.branch] = sha
        return sha

    def _added(self, kept: dict[int, dict[str, Any]], first: int, **values: Any) -> int:
        at = self.clock.tick()
        number = max(kept, default=first) + 1
        kept[number] = {"id": number, "created_at": at, "updated_at": at, **values}
        return number


def renamed(files: Mapping[str, Entry], others: Mapping[str, Entry]) -> dict[str, str]:
    """Returns the old name of each file that is new under its name and has the same content."""
    gone = {entry.sha: path for path, entry in files.items() if path not in others}
    return {
        path: gone[entry.sha]
        for path, entry in others.items()
        if path not in files and entry.sha in gone
    }


def patch_of(before: Entry | None, after: Entry | None) -> str | None:
    """Returns the difference of two files as GitHub shows it; None for what is not text."""
    lines: list[list[str]] = []
    for one in (before, after):
        if one is None:
            lines.append([])
        elif one.kind == "commit":
            lines.append([f"Subproject commit {one.sha}"])
        elif b"\0" in one.data:
            return None
        else:
            told = one.data.decode().split("\n")
            lines.append(told[:-1] if not told[-1] else [*told[:-1], told[-1] + "\n\\ No newline"])
    shown = list(difflib.unified_diff(*lines, lineterm="", n=3))[2:]
    return "\n".join(shown).replace("\\ No newline", "\\ No newline at end of file")


#: Changes a repository in some way, for tables of cases.
Change = Callable[[Repository], object]
