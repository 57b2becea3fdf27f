"""GitHubConnector: issues, pull requests, comments, reviews, discussions, releases and files."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any, ClassVar
from urllib.parse import urlsplit

from contextframe_beam.connectors.attachments import MOST_BYTES, Attachments
from contextframe_beam.connectors.files.item import FileItem
from contextframe_beam.connectors.files.listing import FileTooLargeError
from contextframe_beam.connectors.github.files import (
    Selection,
    has_parser,
    is_media,
    lfs_of,
    text_of,
)
from contextframe_beam.connectors.github.pages import Reading, RepositoryPages
from contextframe_beam.connectors.github.records import (
    GitFile,
    context_of,
    id_of_file,
    place_of,
    readers_of,
    readers_of_repository,
    record_of,
)
from contextframe_beam.connectors.github.repositories import (
    Choice,
    LeftOutError,
)
from contextframe_beam.connectors.hosted import read_alone
from contextframe_beam.connectors.http import HttpError, HttpRequest
from contextframe_beam.connectors.kinds import PaginatedConnector
from contextframe_beam.connectors.page import DocumentVersion, Page, Partition
from contextframe_beam.errors import ConfigError, RecordError, nearest
from contextframe_beam.frames.record import Deletion, FrameRecord

RESOURCES = (
    *("files", "issues", "pulls", "comments", "reviews", "discussions", "releases", "wiki"),
    "commits",
)
USUAL_RESOURCES = ("files", "issues", "pulls", "comments", "reviews", "releases")
_COMMENTS = ("documents", "inline", "none")
_PUBLIC = "https://api.github.com"
_HEADERS = {
    "Accept": "application/vnd.github+json",
    "X-GitHub-Api-Version": "2022-11-28",
}
_RAW = "application/vnd.github.raw+json"
# A used-up quota is filled again within the hour.
_LONGEST_WAIT = 3900.0
_FILES_IN_A_PAGE = 1000
_MOST_NUMBERS = 2000
_EMPTY = 409
_SHA = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
# The address of a repository, as people copy it.
_ADDRESS = re.compile(r"https?://[^/]+/([^/]+/[^/]+?)(?:\.git)?/?\Z")


class GitHubConnector(PaginatedConnector):
    """Repositories of GitHub: issues, pull requests, comments, reviews, releases and files.

    A record's unique_id is `github:<number of the repository>/<kind>/<id>`, so that it stays when a
    repository is renamed. Texts are GitHub's Markdown as it is. Its readers are `anyone` where the
    repository is public, else `github-repo:<number>`: those who may read the repository.

    Args:
        repositories: Which repositories, as in `acme/app`; `acme/*` means all of an owner. Without
            repositories and organizations, all that the token may read.
        organizations: Organizations or people all of whose repositories are read.
        resources: What is read: `files`, `issues`, `pulls`, `comments`, `reviews`, `discussions`,
            `releases`, `wiki`, `commits`.
        branch: The branch whose files are read; by default that of the repository.
        paths: Which files, as in `docs/**`; all by default.
        exclude_paths: Files to leave out, as in `vendor/**` or `*.min.js`.
        include: Which of the repositories that were found, as in `acme/app*`; all by default.
        exclude: Repositories to leave out, as in `acme/old*`.
        archived: Read archived repositories as well. Those that are named are always read.
        forks: Read forks as well. Those that are named are always read.
        comments: Whether comments are `documents` of their own, `inline` in the text of what they
            comment, or `none`. Inline, they take a request for each issue that has some.
        attachments: What becomes of files without text of their own, such as PDFs and images:
            `none`, `metadata` (their names and sizes), `text` or `bytes`. By default `text` where
            the parsers of documents are installed.
        max_attachment_bytes: Of larger files only metadata is read.
        token: A personal access token, or one of OAuth.
        tokens: Several tokens that take turns, each with its own quota.
        app_id: The id of a GitHub App, in place of a token.
        private_key: The private key of the app, PEM.
        installation_id: The installation of the app; by default its only one.
        base_url: The address of the API; `https://HOST/api/v3` for GitHub Enterprise.
        max_wait: How many seconds of waiting GitHub may ask for at a time.
        max_in_flight: How many requests one process keeps open.

    Raises:
        ConfigError: an argument makes no sense.
    """

    identity_args: ClassVar[tuple[str, ...] | None] = (
        *("base_url", "repositories", "organizations", "resources", "branch", "paths"),
        *("exclude_paths", "include", "exclude", "archived", "forks"),
    )
    gives_files = True
    version: ClassVar[str] = "1"
    _maps_by: ClassVar[tuple[str, ...]] = ("attachments", "max_attachment_bytes")

    def __init__(
        self,
        repositories: Sequence[str] = (),
        organizations: Sequence[str] = (),
        resources: Sequence[str] = USUAL_RESOURCES,
        branch: str | None = None,
        paths: Sequence[str] = (),
        exclude_paths: Sequence[str] = (),
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        archived: bool = False,
        forks: bool = False,
        comments: str = "documents",
        attachments: str | None = None,
        max_attachment_bytes: int = MOST_BYTES,
        token: str | None = None,
        tokens: Sequence[str] = (),
        app_id: str | None = None,
        private_key: str | None = None,
        installation_id: str | None = None,
        base_url: str = _PUBLIC,
        max_wait: float = _LONGEST_WAIT,
        max_in_flight: int = 8,
    ) -> None:
        super().__init__()
        self._choice = Choice(
            [_ADDRESS.sub(r"\1", one) for one in _listed(repositories)],
            _listed(organizations),
            _listed(include),
            _listed(exclude),
            archived,
            forks,
            is_app=app_id is not None,
        )
        self.resources, self.branch = _listed(resources), branch
        chosen = Attachments.of(attachments, max_attachment_bytes)
        self.attachments, self.max_attachment_bytes = chosen.choice, chosen.most_bytes
        self.comments = comments
        self.app_id, self.base_url = app_id, base_url
        self._installation = installation_id
        self.max_in_flight = self.files_at_once = max(1, max_in_flight)
        self._check()
        auth = _auth(token, _listed(tokens), app_id, private_key, installation_id)
        self._has_account = auth is not None
        if not auth and not self._choice.repositories and not self._choice.organizations:
            raise ConfigError(
                "give repositories or organizations, or a token whose repositories are all read"
            )
        self.http = self.http_client(
            base_url,
            auth=auth,
            headers=_HEADERS,
            max_wait=max_wait,
            pool_size=2 * self.max_in_flight,
        )
        parts = urlsplit(base_url)
        self._web = f"{parts.scheme}://{parts.netloc.removeprefix('api.')}"
        self._pages = RepositoryPages(
            self.http,
            Reading(
                frozenset(self.resources),
                comments,
                Selection(_listed(paths), _listed(exclude_paths)),
                self.attachments != "none",
                self._web,
                f"{base_url.rstrip('/').removesuffix('/v3')}/graphql",
                self.max_in_flight,
            ),
        )

    def _check(self) -> None:
        for name in self.resources:
            if name not in RESOURCES:
                hint = nearest(name, RESOURCES) or f"; resources are {', '.join(RESOURCES)}"
                raise ConfigError(f"there is no resource {name!r}{hint}")
        if self.comments not in _COMMENTS:
            raise ConfigError(
                f"comments is {self.comments!r}; it must be one of {', '.join(_COMMENTS)}"
            )

    def authenticate(self) -> bool:
        """Says what an account without a token cannot do; the first request shows the rest."""
        if not self._has_account:
            self.logger.warning(
                "%s: without a token GitHub answers 60 requests an hour, and has no discussions; "
                "give one, as in token=env:GITHUB_TOKEN",
                self.name,
            )
        self.authenticated = True
        return True

    def account_id(self) -> str:
        """Returns whose repositories are read, where none are named and no owner is.

        Raises:
            HttpError: GitHub does not accept the token.
        """
        if self._choice.repositories or self._choice.organizations:
            return ""
        if self.app_id is not None:
            return f"app {self.app_id} {self._installation or ''}".rstrip()
        try:
            return f"user {self.http.send(HttpRequest('GET', 'user')).json().get('id')}"
        except HttpError as error:
            if not error.is_unreadable:
                raise
            return ""  # a token of GitHub Actions is nobody's

    def access(self) -> list[str]:
        """Returns the account, the repositories that it may read, and what is read of each."""
        told = [self._account()] if self._has_account else ["no account: 60 requests an hour"]
        for one in self._found():
            kind = "private" if one.get("private") else "public"
            parts = ", ".join(name.partition("/")[2] for name, _ in self._parts_of(one))
            told.append(f"{one['full_name']} ({kind}): {parts}")
        return told

    def partitions(
        self,
        resume_from: Mapping[str, Any] | None = None,
        made_with: str = "",
        anew: bool = False,
    ) -> Iterator[Partition]:
        """Yields a partition for each list of each repository.

        Args:
            resume_from: The states that an earlier run left.
            made_with: What documents of files are made with.
            anew: Whether all files are read again.

        Raises:
            ConnectorError: GitHub refuses the token, or an owner has no repositories.
        """
        began = datetime.now(timezone.utc).isoformat()
        states = resume_from or {}
        found = list(self._found())
        numbers: dict[str, int] = {}
        if len(found) <= _MOST_NUMBERS:
            numbers = {str(one["full_name"]).lower(): one["id"] for one in found}
        for one in found:
            repository = {
                "id": one["id"],
                "name": one["full_name"],
                "url": one.get("html_url") or f"{self._web}/{one['full_name']}",
                "branch": self.branch or one.get("default_branch") or "HEAD",
                "topics": one.get("topics") or [],
                "readers": readers_of_repository(one),
                "numbers": numbers,
            }
            for name, what in self._parts_of(one):
                state = states.get(name)
                state = dict(state) if isinstance(state, Mapping) else {}
                if state.get("readers", 0) != repository["readers"]:
                    state = {}  # all that is stored of it gets other readers
                params = {"what": what, "repository": repository, "state": state, "began": began}
                if what == "files":
                    as_now = {
                        "pushed_at": one.get("pushed_at"),
                        "branch": repository["branch"],
                        "made_with": made_with,
                    }
                    params["now"] = as_now
                    if as_now["made_with"] != state.get("made_with") or anew:
                        params["state"] = {}
                    elif as_now.items() <= state.items() and as_now["pushed_at"]:
                        continue
                yield Partition(name, params)

    def fetch_page(self, partition: Partition, cursor: Any) -> Page:
        """Returns a page of a list of a repository.

        Raises:
            ConnectorError: GitHub cannot be asked, or refuses the token.
        """
        try:
            page = self._pages.page(partition, cursor)
            if page.state is not None:
                page.state["readers"] = partition.params["repository"].get("readers")
            return page
        except (HttpError, LeftOutError) as error:
            if isinstance(error, HttpError) and error.status == _EMPTY:
                return Page([], state={})
            if isinstance(error, HttpError) and not error.is_unreadable:
                raise
            params = partition.params
            return self.skip(f"{params['repository']['name']}: {params['what']}", error)

    def document_version(self, item: Any) -> DocumentVersion | None:
        """Returns the id of a file and the sha of its content, which need not be fetched again."""
        if not isinstance(item, FileItem):
            return None
        version = f"{item.get('sha')}\n{context_of(item)}"
        return DocumentVersion(id_of_file(item), version, place_of(item), readers_of(item))

    def is_file(self, item: Any) -> bool:
        """Returns whether an item is a file, which a run parses."""
        return isinstance(item, FileItem) or (
            isinstance(item, Mapping) and item.get("_kind") == "file"
        )

    def own_document(self, item: FileItem, most: int) -> tuple[Any, bytes] | None:
        """Returns what a file becomes without a parser, and what tells it from others.

        Args:
            item: The file.
            most: How many bytes it may have.

        Raises:
            ConnectorError: it cannot be read.
        """
        path, size = str(item["path"]), item.get("size")
        is_large = isinstance(size, int) and size > self.max_attachment_bytes
        is_known = has_parser(path) or is_media(path)
        if is_large or (is_known and self.attachments == "metadata"):
            return GitFile(), b"metadata"
        if is_media(path) and self.attachments == "text":
            return GitFile(), b"metadata"
        data = self.read_file(item, most)
        if lfs := lfs_of(data):
            return GitFile(lfs=lfs), data
        if len(data) > self.max_attachment_bytes:
            return GitFile(), b"metadata"
        if has_parser(path) and self.attachments == "text":
            item.handle = data  # for the parser, which reads it next
            return None
        text = None if is_known else text_of(data)
        if text is not None:
            return GitFile(text), data
        return GitFile(data=data if self.attachments == "bytes" else None), data

    def read_file(self, item: FileItem, most: int) -> bytes:
        """Returns the bytes of a file.

        Raises:
            FileTooLargeError: it has more than `most`.
            ConnectorError: it is gone, or the account may not read it.
        """
        if isinstance(item.handle, bytes):
            data, item.handle = item.handle, None
            return data
        repository = item["_repository"]
        if not _SHA.fullmatch(str(item.get("sha"))):
            raise RecordError("the file has no sha; give one that this connector has read")
        url = f"repos/{repository['name']}/git/blobs/{item['sha']}"
        data = self.http.send(HttpRequest("GET", url, headers={"Accept": _RAW})).body
        item["size"] = len(data)
        if len(data) > most:
            raise FileTooLargeError(len(data), most)
        return data

    def map_to_frame_record(self, item: dict[str, Any]) -> FrameRecord | Deletion:
        """Turns an item into a record, and a file that is gone into its deletion.

        Raises:
            RecordError: the item is not from this connector, or lacks what names it.
        """
        if not isinstance(item, Mapping):
            raise RecordError(f"an item of GitHub is an object, not {type(item).__name__}")
        if item.get("_kind") == "file" and getattr(item, "document", None) is None:
            item = item if isinstance(item, FileItem) else FileItem.of(item)
            id_of_file(item)
            read_alone(self, item)
        return record_of(item)

    def _found(self) -> Iterator[dict[str, Any]]:
        return self._choice.found(self.http, self.max_in_flight, self.skip)

    def _parts_of(self, one: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """Yields the partitions of a repository, each with what it reads."""
        wanted = set(self.resources)
        has_issues = one.get("has_issues") is not False
        # Pull requests come with their reviews, or else with the issues, where there are some.
        with_issues = "pulls" in wanted and "reviews" not in wanted and has_issues
        parts = {
            "files": "files" in wanted,
            "issues": has_issues and ("issues" in wanted or with_issues),
            "comments": "comments" in wanted and self.comments == "documents",
            "pulls": "reviews" in wanted or ("pulls" in wanted and not with_issues),
            "review-comments": "reviews" in wanted,
            "discussions": "discussions" in wanted and one.get("has_discussions", True),
            "releases": "releases" in wanted,
            "wiki": "wiki" in wanted and one.get("has_wiki", True),
            "commits": "commits" in wanted,
        }
        for what, is_read in parts.items():
            if is_read:
                yield f"{one['id']}/{what}", what

    def _account(self) -> str:
        if self.app_id is not None:
            return f"the GitHub App {self.app_id}"
        response = self.http.send(HttpRequest("GET", "user"))
        told = response.json()
        scopes = response.headers.get("X-OAuth-Scopes")
        may = f", scopes: {scopes}" if scopes else ""
        left = response.headers.get("X-RateLimit-Remaining")
        quota = f", {left} requests left this hour" if left else ""
        return f"{told.get('login')}{may}{quota}"


def _auth(
    token: str | None,
    tokens: list[str],
    app_id: str | None,
    private_key: str | None,
    installation_id: str | None,
) -> dict[str, Any] | None:
    """Returns the settings of the account; None without one."""
    if sum((token is not None, bool(tokens), app_id is not None)) > 1:
        raise ConfigError("give one of token, tokens and app_id")
    if (app_id is None) != (private_key is None):
        raise ConfigError("a GitHub App needs app_id and private_key")
    if tokens:
        return {"type": "tokens", "tokens": tokens}
    if token is not None:
        return {"type": "bearer", "token": token}
    if app_id is None:
        return None
    app = {"type": "github_app", "app_id": app_id, "private_key": private_key}
    return app if installation_id is None else {**app, "installation_id": installation_id}


def _listed(value: Sequence[str]) -> list[str]:
    return [value] if isinstance(value, str) else list(value)
