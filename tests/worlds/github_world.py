"""A GitHub whose requests and answers are checked against GitHub's own descriptions.

Faithful in: Link headers below /repositories/{number}, with `after` for issues; ETags, of which a
304 costs no quota; limits by token and resource; secondary limits; 301 of what was renamed, 404 of
what an account may not see, 409 of an empty repository, 410 of issues that are switched off, 451;
issues that hold pull requests; `since` that includes its second; truncated trees; comparisons of at
most 300 files, with renames; installation tokens that expire; and discussions in GraphQL.
"""

from __future__ import annotations

import base64
import hashlib
import os
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from joserfc import jwt
from joserfc.jwk import RSAKey

from tests.worlds.described import Answer, Asked, Together, World, etag_of
from tests.worlds.github_repository import Clock, Commit, Repository, patch_of, renamed
from tests.worlds.github_shapes import REST, Shapes, connection, tree_sha
from tests.worlds.graphql import GraphQL

GRAPHQL = GraphQL.read("github.graphql")
REPO = "/repos/{owner}/{repo}"
MOST_COMPARED = 300
#: The parameters that say where in a list a page begins.
_PLACES = ("page", "after", "per_page")
# The links of issues go on by a cursor, which the description leaves out.
REST.document["paths"][f"{REPO}/issues"]["get"]["parameters"].append(
    {"name": "after", "in": "query", "schema": {"type": "string"}}
)


class GitHub(Shapes, World):
    """A server of some repositories.

    Attributes:
        clock: Its time, which changes move.
        quota: How many requests a token has in `quota_seconds`, for each resource.
        token_life: How many seconds an installation token lives.
        token_requests: After how many requests it ends; 0 for never.
        most_in_tree: Larger trees are truncated.
        slow_above: Larger pages take too long.
        most_compared: Comparisons of more files fail.
    """

    description = Together(REST, GRAPHQL)

    def __init__(self) -> None:
        self.clock = Clock()
        self.repositories: dict[int, Repository] = {}
        self.renamed: dict[str, int] = {}
        self.tokens: dict[str, Mapping[str, Any]] = {"ghp_all": {"login": "alice"}}
        self.quota, self.quota_seconds = 5000, 3600.0
        self.token_life, self.token_requests = 3600.0, 0
        self.most_in_tree = 100_000
        self.slow_above = 100
        self.most_compared = 1000
        self.app_id = "77"
        #: The folder of the bare Git repositories of wikis, by the path of their address.
        self.wikis: Path | None = None
        self._latest: tuple[Any, list[Any]] = None, []
        self._spent: dict[tuple[str, str], tuple[int, float]] = {}
        self._key: RSAKey | None = None
        super().__init__()

    @property
    def private_key(self) -> str:
        """The private key of the app, PEM."""
        if self._key is None:
            self._key = RSAKey.generate_key(2048)
        return self._key.as_pem(private=True).decode()

    def add(self, name: str, **values: Any) -> Repository:
        """Adds a repository."""
        number = 11 + len(self.repositories)
        self.repositories[number] = Repository(number, name, self.clock, **values)
        return self.repositories[number]

    def rename(self, repository: Repository, name: str) -> None:
        """Gives a repository another name or owner; the old one leads to it."""
        self.renamed[repository.name] = repository.number
        repository.name = name

    def described_path(self, path: str) -> str:
        parts = path.split("/", 3)
        if parts[1] != "repositories" or len(parts) < 3 or not parts[2].isdigit():
            return path
        repository = self.repositories.get(int(parts[2]))
        name = repository.name if repository else "no/one"
        return "/".join(["/repos", name, *parts[3:]])

    def unknown(self, asked: Asked) -> Answer:
        return refused(404, "Not Found")

    def beside(self, asked: Asked) -> Answer | None:
        if ".wiki.git/" not in asked.path:
            return None
        if self.wikis is None:
            return refused(404, "Not Found")
        told = {
            "GIT_PROJECT_ROOT": str(self.wikis),
            "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": asked.path,
            "QUERY_STRING": urlencode(asked.query),
            "REQUEST_METHOD": asked.method,
            "CONTENT_TYPE": asked.headers.get("content-type", ""),
            "HTTP_CONTENT_ENCODING": asked.headers.get("content-encoding", ""),
            "GIT_PROTOCOL": asked.headers.get("git-protocol", ""),
        }
        done = subprocess.run(
            ["git", "http-backend"], input=asked.data, env=os.environ | told, capture_output=True
        )
        head, _, body = done.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
        return Answer(int(headers.pop("Status", "200")[:3]), headers, body)

    def answer(self, asked: Asked) -> Answer:
        if asked.template.startswith("/app"):
            return self._for_the_app(asked)
        token = asked.bearer
        account = self.tokens.get(token)
        if token and (account is None or self._has_ended(account)):
            return refused(401, "Bad credentials")
        resource = "graphql" if asked.template == "/graphql" else "core"
        limit = self.quota if token else min(60, self.quota)
        used, reset = self._spent.get((token, resource), (0, 0.0))
        if reset < time.time():
            used, reset = 0, time.time() + self.quota_seconds
        if used >= limit:
            told = _limits(limit, limit, reset, resource)
            return refused(403, "API rate limit exceeded for user ID 1.", **told)
        answer = self._content(asked, account)
        if answer.status == 200 and asked.method == "GET":
            tag = f"W/{etag_of(answer.data.hex())}"
            if asked.headers.get("if-none-match") == tag:
                answer = Answer(304)
            answer.headers["ETag"] = tag
        if answer.status != 304:
            used += 1
        self._spent[token, resource] = used, reset
        answer.headers |= _limits(limit, used, reset, resource)
        return answer

    def _has_ended(self, account: Mapping[str, Any]) -> bool:
        if "left" in account and isinstance(account, dict):
            account["left"] -= 1
            if account["left"] < 0:
                return True
        return bool(account.get("expires", float("inf")) < time.time())

    def _for_the_app(self, asked: Asked) -> Answer:
        assert self._key is not None, "ask for `private_key` first"
        try:
            claims = jwt.decode(asked.bearer, self._key, algorithms=["RS256"]).claims
        except Exception:
            return refused(401, "A JSON web token could not be decoded")
        if str(claims.get("iss")) != self.app_id:
            return refused(401, "Integration not found")
        if not claims["iat"] <= time.time() < claims["exp"] <= claims["iat"] + 660:
            return refused(401, "'Expiration time' claim ('exp') is too far in the future")
        if asked.template == "/app/installations":
            one = REST.answer_schema("get", asked.template)["items"]
            return Answer(body=[REST.filled(one, {"id": 5, "app_id": 77})])
        if asked.template == "/app":
            return Answer(body=self._filled(asked, {"slug": "reader", "name": "Reader"}))
        if asked.params["installation_id"] != "5":
            return refused(404, "Not Found")
        ends = time.time() + self.token_life
        name = f"ghs_{hashlib.sha1(str(len(self.tokens)).encode()).hexdigest()}"
        self.tokens[name] = {"login": "", "expires": ends}
        if self.token_requests:
            self.tokens[name] = {**self.tokens[name], "left": self.token_requests}
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(ends))
        return Answer(201, body={"token": name, "expires_at": at, "permissions": {}})

    def _content(self, asked: Asked, account: Mapping[str, Any] | None) -> Answer:
        template = asked.template
        if template == "/graphql":
            return self._graphql(asked, account)
        if template == "/rate_limit":
            now = int(time.time() + self.quota_seconds)
            left = {"limit": self.quota, "remaining": self.quota, "reset": now, "used": 0}
            named = {"core": left, "graphql": left, "search": left}
            return Answer(body=self._filled(asked, {"resources": named, "rate": left}))
        if template == "/user":
            if not account or not account["login"]:
                return refused(403, "Resource not accessible by integration")
            return Answer(
                headers={"X-OAuth-Scopes": account.get("scopes", "repo")},
                body=self._filled(
                    asked, {"login": account["login"], "id": sum(map(ord, account["login"]))}
                ),
            )
        if template in ("/orgs/{org}/repos", "/users/{username}/repos"):
            owner = asked.params.get("org") or asked.params["username"]
            mine = [one for one in self._seen(account) if one.name.startswith(f"{owner}/")]
            return self._listed(asked, mine, self._repository)
        if template in ("/user/repos", "/installation/repositories"):
            seen = self._seen(account)
            answer = self._listed(asked, seen, lambda one: self._repository(one, "repository"))
            if template == "/user/repos":
                return answer
            answer.body = {"total_count": len(seen), "repositories": answer.body}
            return answer
        name = f"{asked.params['owner']}/{asked.params['repo']}"
        if name in self.renamed:
            return self._moved(asked, f"/repositories/{self.renamed[name]}")
        found = [one for one in self._seen(account) if one.name == name]
        if not found:
            return refused(404, "Not Found")
        if found[0].blocked:
            return refused(451, "Repository access blocked")
        return self._of(found[0], asked, template.removeprefix(REPO))

    def _seen(self, account: Mapping[str, Any] | None) -> list[Repository]:
        """Returns the repositories that an account may see."""
        only = (account or {}).get("repositories")
        return [
            one
            for one in self.repositories.values()
            if (not one.private or account) and (only is None or one.name in only)
        ]

    def _moved(self, asked: Asked, to: str) -> Answer:
        rest = "/".join(asked.path.split("/")[4:])
        query = f"?{urlencode(asked.query)}" if asked.query else ""
        url = f"{self.url}{to}" + (f"/{rest}" if rest else "") + query
        body = {"message": "Moved Permanently", "url": url, "documentation_url": "https://x.test"}
        return Answer(301, {"Location": url}, body)

    def _of(self, repository: Repository, asked: Asked, rest: str) -> Answer:
        number = int(asked.params.get("issue_number") or asked.params.get("pull_number") or 0)
        issues = list(repository.issues.values())
        if rest == "":
            return Answer(body=self._repository(repository, "full-repository"))
        if rest == "/issues" and not repository.has_issues:
            return refused(410, "Issues are disabled for this repo")
        if rest == "/issues":
            return self._listed(asked, issues, self._issue_of(repository), cursors=True)
        if rest == "/issues/{issue_number}":
            if number in repository.moved_issues:
                url = f"{self.url}{repository.moved_issues[number]}"
                return Answer(301, {"Location": url}, {"message": "Moved", "url": url})
            found = repository.issues.get(number)
            return Answer(body=self._issue_of(repository)(found)) if found else self.unknown(asked)
        if rest in ("/pulls", "/issues/comments", "/pulls/comments", "/releases"):
            kept, made = {
                "/pulls": ([one for one in issues if one["pull"]], self._pull_of),
                "/issues/comments": (repository.comments.values(), self._comment_of),
                "/pulls/comments": (repository.review_comments.values(), self._line_comment_of),
                "/releases": (repository.releases.values(), self._release_of),
            }[rest]
            return self._listed(asked, kept, made(repository))
        if rest in ("/issues/{issue_number}/comments", "/pulls/{pull_number}/reviews"):
            kept = repository.comments if "comments" in rest else repository.reviews
            made = self._comment_of if "comments" in rest else self._review_of
            mine = [one for one in kept.values() if one["issue"] == number]
            return self._listed(asked, mine, made(repository), is_ordered=True)
        if rest == "/pulls/{pull_number}":
            found = repository.issues.get(number)
            if not found or not found["pull"]:
                return self.unknown(asked)
            return Answer(body=self._pull_of(repository, "pull-request")(found))
        if not repository.commits:
            return refused(409, "Git Repository is empty.")
        return self._git(repository, asked, rest)

    def _git(self, repository: Repository, asked: Asked, rest: str) -> Answer:
        if rest == "/git/trees/{tree_sha}":
            return self._tree(repository, asked)
        if rest == "/git/blobs/{file_sha}":
            sha = asked.params["file_sha"]
            data = repository.blobs.get(sha)
            if data is None:
                return self.unknown(asked)
            if "raw" in asked.headers.get("accept", ""):
                return Answer(body=data, headers={"Content-Type": "application/vnd.github.raw"})
            text = base64.encodebytes(data).decode()
            told = {"sha": sha, "size": len(data), "content": text, "encoding": "base64"}
            return Answer(body=self._filled(asked, told))
        if rest == "/compare/{basehead}":
            return self._compared(repository, asked)
        if rest == "/commits":
            head = repository.head(asked.query.get("sha", "HEAD"))
            found: list[Commit] = []
            while head:
                found.append(head)
                head = repository.commits.get(head.parents[0]) if head.parents else None
            since = asked.query.get("since", "")
            kept = [one for one in found if one.at >= since]
            return self._listed(asked, kept, self._commit_of(repository), is_ordered=True)
        if rest == "/branches/{branch}":
            head = repository.head(asked.params["branch"])
            if head is None:
                return self.unknown(asked)
            told = {"name": asked.params["branch"], "commit": self._commit_of(repository)(head)}
            return Answer(body=self._filled(asked, told))
        if rest == "/commits/{ref}":
            head = repository.head(asked.params["ref"])
            if head is None:
                return refused(422, "No commit found for SHA")
            return Answer(body=self._commit_of(repository)(head))
        raise AssertionError(f"the world answers nothing at {rest}")

    def _tree(self, repository: Repository, asked: Asked) -> Answer:
        name = asked.params["tree_sha"]
        commit, below = repository.head(name), ""
        if commit is None and name.startswith("tree-"):
            sha, _, below = base64.urlsafe_b64decode(name[5:]).decode().partition(" ")
            commit = repository.commits.get(sha)
        if commit is None:
            return self.unknown(asked)
        entries: dict[str, dict[str, Any]] = {}
        for path, entry in sorted(commit.files.items()):
            if not path.startswith(below):
                continue
            names = path[len(below) :].split("/")
            for depth in range(1, len(names)):
                folder = "/".join(names[:depth])
                sha = tree_sha(commit, f"{below}{folder}/")
                told = {"path": folder, "mode": "040000", "type": "tree", "sha": sha}
                entries.setdefault(folder, told)
            told = {"path": path[len(below) :], "mode": entry.mode, "type": entry.kind}
            more = {"size": len(entry.data)} if entry.kind == "blob" else {}
            entries[told["path"]] = {**told, **more, "sha": entry.sha}
        if "recursive" not in asked.query:
            entries = {path: one for path, one in entries.items() if "/" not in path}
        kept = list(entries.values())
        most = self.most_in_tree if "recursive" in asked.query else len(kept)
        # A branch or a commit is answered with the commit's own sha.
        sha = name if below else commit.sha
        told = {"sha": sha, "url": self.url, "tree": kept[:most], "truncated": len(kept) > most}
        return Answer(body=told)

    def _compared(self, repository: Repository, asked: Asked) -> Answer:
        old, _, new = asked.params["basehead"].partition("...")
        before, after = repository.commits.get(old), repository.head(new)
        if before is None or after is None:
            return self.unknown(asked)
        is_ahead = repository.is_ancestor(before.sha, after.sha)
        is_behind = repository.is_ancestor(after.sha, before.sha)
        status = "ahead" if is_ahead else "behind" if is_behind else "diverged"
        status = "identical" if before is after else status
        moved = renamed(before.files, after.files)
        files = []
        for path in sorted({*before.files, *after.files}):
            was, now = before.files.get(path), after.files.get(path)
            if (was and now and was.sha == now.sha) or path in moved.values():
                continue
            kind = "modified" if was and now else "added" if now else "removed"
            told = {"sha": (now or was).sha, "filename": path, "status": kind}
            patch = patch_of(was, now)
            if patch is not None:
                told["patch"] = patch
            if path in moved:
                told |= {"status": "renamed", "previous_filename": moved[path]}
            files.append(REST.filled(REST.schema("diff-entry"), told))
        made = self._commit_of(repository)
        if len(files) > self.most_compared:
            return refused(500, "This diff is taking too long to generate.")
        commits, at = [], after
        while at is not before and at.parents and is_ahead:
            commits.insert(0, made(at))
            at = repository.commits[at.parents[0]]
        told = {
            "status": status,
            "total_commits": len(commits),
            "base_commit": made(before),
            "merge_base_commit": made(before),
            "commits": commits[-250:],
            "files": files[:MOST_COMPARED],
        }
        return Answer(body=self._filled(asked, told))

    def _listed(
        self,
        asked: Asked,
        found: Iterable[Any],
        made: Callable[[Any], Any],
        cursors: bool = False,
        is_ordered: bool = False,
    ) -> Answer:
        query, kept = asked.query, list(found)
        if int(query.get("per_page", 30)) > self.slow_above:
            return refused(502, "Server Error")
        if kept and isinstance(kept[0], dict) and not is_ordered:
            # The pages of a large list are asked for one after the other.
            chosen = {name: one for name, one in query.items() if name not in _PLACES}
            key = (asked.template, asked.params, chosen, self.clock.seconds, len(kept))
            if self._latest[0] != key:
                self._latest = key, _selected(kept, query)
            kept = self._latest[1]
        size = min(int(query.get("per_page", 30)), 100)
        start = (int(query.get("page", 1)) - 1) * size
        if "after" in query:
            start = int(base64.urlsafe_b64decode(query["after"]))
        links = {}
        if start + size < len(kept):
            following = {"page": start // size + 2}
            if cursors:
                cursor = base64.urlsafe_b64encode(str(start + size).encode()).decode()
                following = {"after": cursor, **following}
            base = {name: one for name, one in query.items() if name not in ("page", "after")}
            path = asked.path
            if asked.template.startswith(REPO):
                name = f"{asked.params['owner']}/{asked.params['repo']}"
                number = next(n for n, r in self.repositories.items() if r.name == name)
                rest = self.described_path(path).split("/", 4)[4:]
                path = "/".join([f"/repositories/{number}", *rest])
            url = f"{self.url}{path}?{urlencode({**base, **following})}"
            links = {"Link": f'<{url}>; rel="next"'}
        return Answer(headers=links, body=[made(one) for one in kept[start : start + size]])

    def _filled(self, asked: Asked, values: Any = None) -> Any:
        return REST.filled(REST.answer_schema(asked.method, asked.template), values or {})

    def _graphql(self, asked: Asked, account: Mapping[str, Any] | None) -> Answer:
        if account is None:
            return refused(401, "This endpoint requires you to be authenticated.")

        def repository(owner: str, name: str, **_: Any) -> Any:
            found = [one for one in self._seen(account) if one.name == f"{owner}/{name}"]
            return {"discussions": _discussions_of(found[0])} if found else None

        def node(id: str) -> Any:
            made = [self._discussions(one) for one in self._seen(account)]
            each = [one for some in made for one in some]
            each += [comment for one in each for comment in one["_comments"]]
            return next((one for one in each if one["id"] == id), None)

        def _discussions_of(one: Repository) -> Callable[..., Any]:
            return connection(
                sorted(self._discussions(one), key=lambda d: d["updatedAt"], reverse=True)
            )

        now = time.time() + self.quota_seconds
        reset = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now))
        limits = {"cost": 1, "remaining": self.quota, "resetAt": reset, "limit": self.quota}
        root = {"repository": repository, "node": node, "rateLimit": limits}
        return Answer(body=GRAPHQL.run(asked.body, root))


def refused(status: int, message: str, **headers: Any) -> Answer:
    """Returns an answer as GitHub refuses."""
    url = "https://docs.github.com/rest"
    body = {"message": message, "documentation_url": url, "status": str(status)}
    return Answer(status, headers, body)


def secondary(retry_after: int | None = None) -> Answer:
    """Returns the answer of a secondary limit."""
    told = {} if retry_after is None else {"Retry-After": retry_after}
    return refused(403, "You have exceeded a secondary rate limit. Please wait.", **told)


def _limits(limit: int, used: int, reset: float, resource: str) -> dict[str, Any]:
    return {
        "X-RateLimit-Limit": limit,
        "X-RateLimit-Remaining": limit - used,
        "X-RateLimit-Reset": int(reset) + 1,
        "X-RateLimit-Used": used,
        "X-RateLimit-Resource": resource,
    }


def _selected(found: list[dict[str, Any]], query: Mapping[str, str]) -> list[dict[str, Any]]:
    if "since" in query:
        found = [one for one in found if one["updated_at"] >= query["since"]]
    state = query.get("state", "open")
    if state != "all":
        found = [one for one in found if one.get("state", state) == state or "title" not in one]
    by = "updated_at" if query.get("sort") == "updated" else "created_at"
    # Reading and changing go on at the same time, so equal times have a fixed order.
    ordered = sorted(found, key=lambda one: (one[by], one.get("number", one.get("id", 0))))
    return ordered if query.get("direction", "desc") == "asc" else ordered[::-1]
