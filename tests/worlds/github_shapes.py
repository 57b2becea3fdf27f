"""What the world of GitHub shows of its repositories: the JSON of REST and the nodes of GraphQL."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tests.worlds.github_repository import Clock, Commit, Repository
from tests.worlds.openapi import OpenApi

REST = OpenApi.read("github.openapi.json", greedy=("path", "ref", "basehead"), error="basic-error")


class Shapes:
    """Makes what GitHub shows of what a repository holds.

    Attributes:
        url: The address of the world.
        clock: Its time.
    """

    url: str
    clock: Clock

    def _repository(self, one: Repository, schema: str = "minimal-repository") -> dict[str, Any]:
        owner, _, name = one.name.partition("/")
        told = {
            "id": one.number,
            "name": name,
            "full_name": one.name,
            "private": one.private,
            "fork": one.fork,
            "archived": one.archived,
            "owner": _user(owner),
            "html_url": f"https://github.com/{one.name}",
            "default_branch": one.branch,
            "pushed_at": one.pushed_at or "2026-01-01T00:00:00Z",
            "updated_at": self.clock.now(),
            "created_at": "2025-01-01T00:00:00Z",
            "topics": one.topics,
            "description": "An app",
            "has_issues": one.has_issues,
            "has_discussions": True,
            "has_wiki": True,
            "visibility": "private" if one.private else "public",
        }
        return dict(REST.filled(REST.schema(schema), told))

    def _issue_of(self, repository: Repository) -> Callable[[Mapping[str, Any]], Any]:
        def made(issue: Mapping[str, Any]) -> Any:
            kind = "pull" if issue["pull"] else "issues"
            url = f"https://github.com/{repository.name}/{kind}/{issue['number']}"
            told = _issue_values(issue, url)
            told["comments"] = sum(
                one["issue"] == issue["number"] for one in repository.comments.values()
            )
            if issue["pull"]:
                told["draft"] = False
                told["pull_request"] = {
                    "url": f"{self.url}/repos/{repository.name}/pulls/{issue['number']}",
                    "html_url": url,
                    "diff_url": f"{url}.diff",
                    "patch_url": f"{url}.patch",
                    "merged_at": issue.get("merged_at"),
                }
            return REST.filled(REST.schema("issue"), told)

        return made

    def _pull_of(
        self, repository: Repository, schema: str = "pull-request-simple"
    ) -> Callable[[Mapping[str, Any]], Any]:
        def made(issue: Mapping[str, Any]) -> Any:
            url = f"https://github.com/{repository.name}/pull/{issue['number']}"
            told = _issue_values(issue, url) | {
                "draft": False,
                "merged_at": issue.get("merged_at"),
                "head": {"label": "alice:work", "ref": "work", "sha": "1" * 40},
                "base": {"label": "acme:main", "ref": "main", "sha": "2" * 40},
                "requested_reviewers": [],
            }
            return REST.filled(REST.schema(schema), told)

        return made

    def _comment_of(self, repository: Repository) -> Callable[[Mapping[str, Any]], Any]:
        def made(one: Mapping[str, Any]) -> Any:
            number = one["issue"]
            url = f"https://github.com/{repository.name}/issues/{number}#issuecomment-{one['id']}"
            told = _common(one, url)
            told["issue_url"] = f"{self.url}/repos/{repository.name}/issues/{number}"
            return REST.filled(REST.schema("issue-comment"), told)

        return made

    def _line_comment_of(self, repository: Repository) -> Callable[[Mapping[str, Any]], Any]:
        def made(one: Mapping[str, Any]) -> Any:
            url = (
                f"https://github.com/{repository.name}/pull/{one['issue']}#discussion_r{one['id']}"
            )
            told = _common(one, url) | {
                "pull_request_url": f"{self.url}/repos/{repository.name}/pulls/{one['issue']}",
                "path": "src/app.py",
                "line": 3,
                "diff_hunk": "@@ -1,3 +1,3 @@\n-old\n+new",
            }
            if one["reply_to"]:
                told["in_reply_to_id"] = one["reply_to"]
            return REST.filled(REST.schema("pull-request-review-comment"), told)

        return made

    def _review_of(self, repository: Repository) -> Callable[[Mapping[str, Any]], Any]:
        def made(one: Mapping[str, Any]) -> Any:
            number = one["issue"]
            url = (
                f"https://github.com/{repository.name}/pull/{number}#pullrequestreview-{one['id']}"
            )
            told = _common(one, url) | {
                "state": one["state"],
                "submitted_at": one["updated_at"],
                "pull_request_url": f"{self.url}/repos/{repository.name}/pulls/{number}",
            }
            return REST.filled(REST.schema("pull-request-review"), told)

        return made

    def _release_of(self, repository: Repository) -> Callable[[Mapping[str, Any]], Any]:
        def made(one: Mapping[str, Any]) -> Any:
            url = f"https://github.com/{repository.name}/releases/tag/{one['tag']}"
            told = _common(one, url) | {
                "tag_name": one["tag"],
                "name": None,
                "author": _user("alice"),
                "published_at": one["created_at"],
            }
            return REST.filled(REST.schema("release"), told)

        return made

    def _commit_of(self, repository: Repository) -> Callable[[Commit], Any]:
        def made(one: Commit) -> Any:
            person = {"name": "Alice", "email": "alice@x.test", "date": one.at}
            told = {
                "sha": one.sha,
                "html_url": f"https://github.com/{repository.name}/commit/{one.sha}",
                "commit": {
                    "message": one.message,
                    "author": person,
                    "committer": person,
                    "tree": {"sha": tree_sha(one, ""), "url": "https://x.test/t"},
                },
                "author": _user("alice"),
                "parents": [],
            }
            return REST.filled(REST.schema("commit"), told)

        return made

    def _discussions(self, repository: Repository) -> list[dict[str, Any]]:
        def comment(one: Mapping[str, Any]) -> dict[str, Any]:
            return {
                "__typename": "DiscussionComment",
                "id": f"DC_{one['id']}",
                "databaseId": one["id"],
                "body": one["body"],
                "createdAt": one["at"],
                "updatedAt": one["at"],
                "author": {"__typename": "User", "login": "bob"},
                "replies": connection([comment(reply) for reply in one.get("replies", ())]),
            }

        found = []
        for one in repository.discussions.values():
            comments = [comment(each) for each in one["comments"]]
            found.append(
                {
                    "__typename": "Discussion",
                    "id": f"D_{repository.number}_{one['number']}",
                    "databaseId": one["number"],
                    "number": one["number"],
                    "title": one["title"],
                    "body": one["body"],
                    "url": f"https://github.com/{repository.name}/discussions/{one['number']}",
                    "createdAt": one["created_at"],
                    "updatedAt": one["updated_at"],
                    "author": {"__typename": "User", "login": "alice"},
                    "category": {"name": "Ideas"},
                    "comments": connection(comments),
                    "labels": connection([{"name": "idea"}]),
                    "_comments": comments,
                }
            )
        return found


def tree_sha(commit: Commit, folder: str) -> str:
    """Returns the name of the tree of a folder, which says what it is of."""
    return f"tree-{base64.urlsafe_b64encode(f'{commit.sha} {folder}'.encode()).decode()}"


def _user(login: str | None) -> dict[str, Any] | None:
    if login is None:
        return None
    told = {"login": login, "id": sum(map(ord, login)), "html_url": f"https://github.com/{login}"}
    return dict(REST.filled(REST.schema("simple-user"), told))


def _common(one: Mapping[str, Any], url: str) -> dict[str, Any]:
    names = ("id", "body", "created_at", "updated_at")
    told = {name: one[name] for name in names}
    return told | {"user": _user(one["user"]), "html_url": url, "node_id": f"N_{one['id']}"}


def _issue_values(issue: Mapping[str, Any], url: str) -> dict[str, Any]:
    names = ("number", "title", "body", "state", "created_at", "updated_at")
    return {name: issue[name] for name in names} | {
        "id": 100_000 + issue["number"],
        "node_id": f"I_{issue['number']}",
        "user": _user(issue["user"]),
        "html_url": url,
        "labels": [_label(name) for name in issue["labels"]],
        "assignees": [_user(login) for login in issue["assignees"]],
        "milestone": issue["milestone"]
        and REST.filled(REST.schema("nullable-milestone"), {"title": issue["milestone"]}),
    }


def _label(name: str) -> dict[str, Any]:
    told = {"id": 1, "node_id": "L_1", "url": "https://x.test/l", "color": "f00", "default": False}
    return {**told, "name": name, "description": None}


def connection(found: Sequence[Any]) -> Callable[..., Any]:
    """Returns the resolver of a connection over what was found."""

    def page(first: int | None = None, after: str | None = None, **_: Any) -> dict[str, Any]:
        start = int(after or 0)
        end = start + (first or 10)
        part = list(found[start:end])
        more = {"hasNextPage": end < len(found), "endCursor": str(end) if part else None}
        return {"nodes": part, "pageInfo": more, "totalCount": len(found)}

    return page
