"""LinearConnector: issues, comments, projects, documents and initiatives of a workspace."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any, ClassVar

from contextframe_beam.connectors.attachments import MOST_BYTES, Attachments
from contextframe_beam.connectors.files.item import FileItem
from contextframe_beam.connectors.hosted import HostedConnector, HostedFiles, read_alone
from contextframe_beam.connectors.http import HttpClient, HttpError, HttpResponse, QueryError
from contextframe_beam.connectors.http.credentials import KeyAuth
from contextframe_beam.connectors.http.queries import Queries
from contextframe_beam.connectors.http.request import logger, origin_of
from contextframe_beam.connectors.http.retry import Verdict
from contextframe_beam.connectors.linear.answers import TokenPlacement, cost_of, judged
from contextframe_beam.connectors.linear.pages import LinearPages, Reading
from contextframe_beam.connectors.linear.queries import LARGEST_PAGE, RESOURCES
from contextframe_beam.connectors.linear.records import UploadedFile, id_of, place_of, record_of
from contextframe_beam.connectors.linear.scope import Choice, readers_of_team
from contextframe_beam.connectors.linear.workspace import UNREADABLE, Workspace
from contextframe_beam.connectors.page import DocumentVersion, Page, Partition
from contextframe_beam.errors import ConfigError, RecordError, nearest
from contextframe_beam.frames.record import Deletion, FrameRecord

_ADDRESS = "https://api.linear.app"
_UPLOADS = "https://uploads.linear.app"
_COMMENTS = ("documents", "inline", "none")
# A limit is filled again within the hour.
_LONGEST_WAIT = 3900.0


class LinearConnector(HostedConnector):
    """Issues, comments, projects, their updates, documents and initiatives of a Linear workspace.

    A record's unique_id is `linear:<kind>/<id>`, such as `linear:issue/<uuid>`, so that it stays
    when an issue moves to another team. Texts are Linear's Markdown as it is.

    Args:
        token: A personal API key, or an access token of OAuth.
        client_id: Instead of a token: the id of an OAuth application.
        client_secret: Its secret.
        refresh_token: The refresh token of a user who agreed; without one, the application reads
            for itself.
        teams: The keys of teams whose content is read, as in `ENG`; by default all that the
            account may read.
        projects: Projects to which it is narrowed: their names, addresses or ids.
        states: States that issues have to be in, by name or type: `In Progress`, `completed`.
        include: Patterns of keys or names of teams, of which one has to match, as in `Eng*`.
        exclude: Patterns of keys or names of teams that are left out.
        resources: What is read: `issues`, `comments`, `projects`, `project_updates`, `documents`,
            `initiatives`, `initiative_updates`; by default all of them.
        comments: `documents` makes a document of each comment, `inline` puts those on issues into
            the text of the issue, `none` leaves them out.
        attachments: What becomes of files that were uploaded into texts: `none`, `metadata` (their
            names), `text` or `bytes`. By default `text` where the parsers of documents are
            installed.
        max_attachment_bytes: Of larger files only metadata is read.
        archived: Read what is archived as well.
        page_size: How many issues are asked for at once. Linear counts the points that a query may
            cost; a page that costs too much is halved.
        max_wait: How many seconds of waiting Linear may ask for, for one request.
        base_url: The address of the API.
        uploads_url: The address of uploaded files.

    Raises:
        ConfigError: an argument makes no sense, or there are no credentials.
    """

    identity_args: ClassVar[tuple[str, ...] | None] = (
        *("base_url", "teams", "projects", "states", "include", "exclude", "resources"),
        "archived",
    )
    version: ClassVar[str] = "1"
    max_in_flight = 4
    #: Files are waited for most of the time.
    files_at_once = 4
    _maps_by: ClassVar[tuple[str, ...]] = ("attachments", "max_attachment_bytes", "comments")

    def __init__(
        self,
        token: str | None = None,
        client_id: str | None = None,
        client_secret: str | None = None,
        refresh_token: str | None = None,
        teams: Sequence[str] = (),
        projects: Sequence[str] = (),
        states: Sequence[str] = (),
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        resources: Sequence[str] = tuple(RESOURCES),
        comments: str = "documents",
        attachments: str | None = None,
        max_attachment_bytes: int = MOST_BYTES,
        archived: bool = True,
        page_size: int = 25,
        max_wait: float = _LONGEST_WAIT,
        base_url: str = _ADDRESS,
        uploads_url: str = _UPLOADS,
    ) -> None:
        super().__init__()
        self.resources, self.comments, self.page_size = _several(resources), comments, page_size
        self.base_url, self.uploads_url = base_url, uploads_url
        self._check()
        chosen = Attachments.of(attachments, max_attachment_bytes)
        self.attachments, self.max_attachment_bytes = chosen.choice, chosen.most_bytes
        self._choice = Choice(
            _several(teams),
            _several(include),
            _several(exclude),
            _several(projects),
            _several(states),
            archived,
        )
        settings = _auth(token, client_id, client_secret, refresh_token, base_url)
        self.http = self.http_client(
            base_url, auth=settings, max_wait=max_wait, judge=self._judged, pool_size=8
        )
        if token is not None:
            self.http.auth = KeyAuth(token, TokenPlacement())
        queries = Queries(self.http)
        self._workspace = Workspace(queries)
        with_comments = comments if "comments" in self.resources else "none"
        how = Reading(self._choice, with_comments, chosen, uploads_url, page_size)
        self._pages = LinearPages(queries, self._workspace, how)
        self._files = HostedFiles(chosen, lambda item: item.get("_address"), self._file_client)
        self._began = ""
        self._account: dict[str, Any] = {}

    def _check(self) -> None:
        for name in self.resources:
            if name not in RESOURCES:
                hint = nearest(name, RESOURCES) or f"; resources are {', '.join(RESOURCES)}"
                raise ConfigError(f"there is no resource {name!r}{hint}")
        if not self.resources:
            raise ConfigError(f"resources is empty; give one or more of {', '.join(RESOURCES)}")
        if self.comments not in _COMMENTS:
            raise ConfigError(
                f"comments is {self.comments!r}; it must be one of {', '.join(_COMMENTS)}"
            )
        if not 1 <= self.page_size <= LARGEST_PAGE:
            raise ConfigError(f"page_size is {self.page_size}; give 1 to {LARGEST_PAGE}")

    def authenticate(self) -> bool:
        """Asks who the account is.

        Raises:
            HttpError: Linear does not accept the key or token.
        """
        self._account = self._workspace.viewer()
        self.authenticated = True
        return True

    def account_id(self) -> str:
        """Returns the id of the workspace, which the key alone says."""
        return str(self._account["organization"].get("id") or "")

    def access(self) -> list[str]:
        """Returns the account, and the teams that it may read, with their numbers of issues."""
        viewer, workspace = self._account["viewer"], self._account["organization"]
        told = [f"{viewer.get('name')} in the workspace {workspace.get('name')}"]
        counts = self._workspace.counts()
        _, teams = self._workspace.teams()
        for one in self._choice.teams_of(teams, self.skip):
            count, kind = counts.get(one["id"], 0), one.get("visibility")
            issues = "1 issue" if count == 1 else f"{count:,} issues"
            told.append(f"team {one.get('key')} {one.get('name')} ({kind}): {issues}")
        return told

    def partitions(self, resume_from: Mapping[str, Any] | None = None) -> Iterator[Partition]:
        """Yields the issues of each team, and each other list.

        A partition whose content other people may read now is read anew.

        Args:
            resume_from: The states that an earlier run left; empty to read everything.

        Raises:
            ConnectorError: Linear refuses the key or token.
        """
        began = datetime.now(timezone.utc).isoformat()
        self._begin_run(began)
        workspace, found = self._workspace.teams()
        id = str(workspace["id"])
        readers = {str(one["id"]): readers_of_team(one, id) for one in found}
        teams = self._choice.teams_of(found, self.skip)
        chosen = sorted(one["id"] for one in teams) if self._choice.narrows_teams else None
        common = {
            "workspace": {"id": id, "key": str(workspace.get("urlKey") or "")},
            "chosen": chosen,
            "projects": self._chosen_projects(),
            "began": began,
            "is_later": bool(resume_from),
        }
        parts = [(f"issues/{one['id']}", "issues", str(one["id"])) for one in teams]
        parts += [(name, name, "") for name in RESOURCES if name != "issues"]
        for name, what, team in parts:
            if what not in self.resources or (what == "comments" and self.comments == "none"):
                continue
            open_to = {team: readers[team]} if team else readers
            state = (resume_from or {}).get(name)
            state = dict(state) if isinstance(state, Mapping) else {}
            before = state.get("open_to") or {}
            is_anew = any(open_to.get(one) != who for one, who in before.items())
            params = {
                **common,
                "what": what,
                "team": team or None,
                "open_to": open_to,
                "state": {} if is_anew else state,
            }
            yield Partition(name, params)

    def fetch_page(self, partition: Partition, cursor: Any) -> Page:
        """Returns a page of a list.

        Raises:
            ConnectorError: Linear cannot be asked, or refuses the key or token.
        """
        self._begin_run(partition.params["began"])
        try:
            return self._pages.page(partition, cursor, self.name)
        except (HttpError, QueryError) as error:
            if isinstance(error, HttpError):
                is_left_out = error.is_unreadable
            else:
                is_left_out = bool(error.faults) and all(
                    one.code in UNREADABLE for one in error.faults
                )
            if not is_left_out:
                raise
            return self.skip(partition.id, error)

    def document_version(self, item: Any) -> DocumentVersion | None:
        """Returns the id of a file and its address, at which an upload stays the same for ever."""
        if not isinstance(item, FileItem):
            return None
        context = "\n".join(str(item.get(name)) for name in ("_address", "name", "collection"))
        return DocumentVersion(id_of(item), context, place_of(item), item.get("_readers"))

    def is_file(self, item: Any) -> bool:
        """Returns whether an item is a file, which a run parses."""
        return isinstance(item, FileItem) or (
            isinstance(item, Mapping) and item.get("_kind") == "file"
        )

    def own_document(self, item: FileItem, most: int) -> tuple[Any, bytes] | None:
        """Returns what a file becomes that no parser reads; None for one that a parser reads.

        Args:
            item: The file.
            most: How many bytes it may have.

        Raises:
            GoneError: it is not there any more.
            HttpError: Linear refuses it.
        """
        made = self._files.begin(item, most)
        return None if made is None else (UploadedFile(made.data), made.content)

    def map_to_frame_record(self, item: dict[str, Any]) -> FrameRecord | Deletion:
        """Turns an item into a record, and one that is in the trash into its deletion.

        Raises:
            RecordError: the item is not from this connector, or lacks what names it.
        """
        if not isinstance(item, Mapping):
            raise RecordError(f"an item of Linear is an object, not {type(item).__name__}")
        if item.get("_kind") == "file" and getattr(item, "document", None) is None:
            item = item if isinstance(item, FileItem) else FileItem.of(item)
            id_of(item)
            read_alone(self, item)
        return record_of(item)

    def source_identity(self, sync_kwargs: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Returns the class, and what is read of a workspace, however it was written."""
        identity = super().source_identity(sync_kwargs)
        told = identity["arguments"]
        for name, value in list(told.items()):
            if isinstance(value, list):
                told[name] = sorted(set(map(str, value)))
        if set(self.resources) == set(RESOURCES):
            told.pop("resources", None)
        return identity

    def _judged(self, response: HttpResponse) -> Verdict:
        """Judges an answer, and counts what it has cost."""
        if cost := cost_of(response):
            logger.debug("the query has cost %d points", cost)
            with self._lock:
                self.add_stats(complexity=cost)
        return judged(response)

    def _chosen_projects(self) -> list[str] | None:
        """Returns the ids of the projects to which it is narrowed; None where it is not."""
        names = self._choice.projects
        if not names:
            return None
        found = self._workspace.projects(names)
        for name, ids in found.items():
            if not ids:
                self.skip(f"project {name}", "there is none that the account may read")
        return sorted({one for ids in found.values() for one in ids})

    def _file_client(self, origin: str, **settings: Any) -> HttpClient:
        """Makes a client for uploaded files, which need the same credentials as the API."""
        client = self.http_client(origin, **settings)
        if origin == origin_of(self.uploads_url):
            client.auth = self.http.auth
        return client

    def _begin_run(self, began: str) -> None:
        """Forgets what an earlier run in this process has learned, once for each run."""
        with self._lock:
            if began == self._began:
                return
            self._began = began
        self._workspace.forget()


def _auth(
    token: str | None,
    client_id: str | None,
    client_secret: str | None,
    refresh_token: str | None,
    base_url: str,
) -> dict[str, Any] | None:
    """Returns the settings of OAuth; None where there is a key or token.

    Raises:
        ConfigError: there are no credentials, or two kinds of them.
    """
    is_oauth = client_id is not None and client_secret is not None
    if (token is not None) == is_oauth or (refresh_token is not None and not is_oauth):
        raise ConfigError(
            "Linear needs a personal API key or a token (token, best as env:LINEAR_KEY), or "
            "client_id and client_secret, with or without refresh_token"
        )
    if token is not None:
        return None
    common = {
        "token_url": f"{base_url.rstrip('/')}/oauth/token",
        "client_id": client_id,
        "client_secret": client_secret,
        "client_auth": "post",
    }
    if refresh_token is None:
        return {"type": "oauth2_client_credentials", "scope": "read", **common}
    renewed = {"refresh_token": refresh_token, "rotates": True}
    return {"type": "oauth2_refresh_token", **renewed, **common}


def _several(given: Sequence[str] | str) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given)
