"""NotionConnector: pages, rows of data sources, comments and files of a workspace of Notion.

A run lists what was edited, which costs a request for each hundred. Content is fetched afterwards,
and only of what the dataset does not hold in the version that the list names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any, ClassVar

from contextframe_beam.connectors.attachments import (
    MOST_BYTES,
    Attachments,
    media_type,
)
from contextframe_beam.connectors.cursors import seconds_of
from contextframe_beam.connectors.files.item import FileItem, GoneError
from contextframe_beam.connectors.hosted import HostedConnector, HostedFiles
from contextframe_beam.connectors.http.auth import token_or_refresh
from contextframe_beam.connectors.notion.listing import Choice, Listing
from contextframe_beam.connectors.notion.properties import title_of
from contextframe_beam.connectors.notion.reading import (
    DocumentReader,
    How,
    NotionDocument,
)
from contextframe_beam.connectors.notion.rich_text import opened
from contextframe_beam.connectors.notion.scope import Scope, find_root
from contextframe_beam.connectors.notion.workspace import (
    MARKDOWN_VERSION,
    NotionError,
    Workspace,
    parent_of,
)
from contextframe_beam.connectors.page import DocumentVersion, Page, Partition, Place, Window
from contextframe_beam.errors import ConfigError, RecordError
from contextframe_beam.frames.record import Deletion, FrameRecord

#: The version of the API whose answers this reads.
API_VERSION = "2025-09-03"

_ADDRESS = "https://api.notion.com"
_RESOURCES = ("pages", "rows", "comments")
_COMMENTS = ("documents", "inline", "none")
# Notion allows three a second on average, and refuses some already at that.
_PER_SECOND = 2.5
# What an item has beside that which is read of it.
_CONTENT_KINDS = ("page", "row", "comment", "data_source")
_NEEDS = (
    "Notion needs the token of an integration (token, best as env:NOTION_TOKEN), or "
    "client_id, client_secret and refresh_token"
)


class NotionConnector(HostedConnector):
    """Pages, rows of databases, comments and files of a Notion workspace.

    It reads what the integration was given access to. A record's unique_id is `notion:page/<id>`
    for pages and rows, `notion:comment/<id>`, `notion:data_source/<id>` or
    `notion:attachment/<id>`.

    Args:
        token: The token of an internal integration, or an access token of OAuth.
        client_id: Instead of a token: the id of a public integration.
        client_secret: Its secret.
        refresh_token: The refresh token of a user who agreed.
        roots: Pages, databases or data sources, by id or address; they are read with all below
            them. By default all that the integration sees.
        workspace: The name or id of the workspace that the token has to be of. A dataset needs it
            that holds several workspaces, each wholly.
        exclude: What is left out with all below it: ids or addresses, or patterns of titles such as
            `Archive*`.
        resources: What is read: `pages`, `rows`, `comments`; by default all of them.
        comments: `documents` makes a document of each comment, `inline` puts them below the text of
            their page, `none` leaves them out.
        block_comments: Ask for the comments on single blocks as well: one request for each block.
        attachments: What becomes of files: `none`, `metadata` (their names, with their page),
            `text` or `bytes`. By default `text` where the parsers of documents are installed.
        max_attachment_bytes: Of larger files only metadata is read.
        properties: The names of the properties that become metadata; `all` by default, or `none`.
        markdown: `blocks` makes the text here of all blocks; `endpoint` takes Notion's own
            Markdown, which costs one request a page and leaves out some blocks.
        max_depth: How deep blocks may lie in blocks.
        trash: Read what is in the trash as well, where Notion still shows it.
        check_known: In each later run, ask for some of the pages that are known, 5 % and at least
            100 of them, and delete those in the trash or no longer shared. It costs a request each.
        lookback: How long before the last edit seen a run looks again, since the search of Notion
            shows edits some minutes late.
        notion_version: The version of the API.
        requests_per_second: How many requests are sent, by all workers together.
        max_wait: How many seconds of waiting Notion may ask for, for one request.
        base_url: The address of the API.

    Raises:
        ConfigError: an argument makes no sense, or there are no credentials.
    """

    identity_args: ClassVar[tuple[str, ...] | None] = (
        *("roots", "workspace", "exclude", "resources", "trash"),
    )
    version: ClassVar[str] = "1"
    max_in_flight = 4
    #: Content is waited for most of the time.
    files_at_once = 4
    _not_read: ClassVar[frozenset[str]] = frozenset(
        ("path", "size", "modified_at", "version", "digest", "collection", "collection_id")
    )
    _maps_by: ClassVar[tuple[str, ...]] = (
        *("attachments", "max_attachment_bytes", "comments", "block_comments", "properties"),
        *("markdown", "max_depth", "resources"),
    )

    def __init__(
        self,
        token: str | None = None,
        client_id: str | None = None,
        client_secret: str | None = None,
        refresh_token: str | None = None,
        roots: Sequence[str] = (),
        workspace: str | None = None,
        exclude: Sequence[str] = (),
        resources: Sequence[str] = _RESOURCES,
        comments: str = "documents",
        block_comments: bool = False,
        attachments: str | None = None,
        max_attachment_bytes: int = MOST_BYTES,
        properties: Sequence[str] = ("all",),
        markdown: str = "blocks",
        max_depth: int = 50,
        trash: bool = False,
        check_known: bool = False,
        lookback: str = "15m",
        notion_version: str = API_VERSION,
        requests_per_second: float = _PER_SECOND,
        max_wait: float = 300,
        base_url: str = _ADDRESS,
    ) -> None:
        super().__init__()
        roots, exclude = _several(roots), _several(exclude)
        self.resources = frozenset(_several(resources))
        if not self.resources <= set(_RESOURCES) or not self.resources:
            raise ConfigError(
                f"resources is {', '.join(sorted(self.resources)) or 'empty'}; "
                f"give one or more of {', '.join(_RESOURCES)}"
            )
        if comments not in _COMMENTS:
            raise ConfigError(f"comments is {comments!r}; it is one of {', '.join(_COMMENTS)}")
        if markdown not in ("blocks", "endpoint"):
            raise ConfigError(f"markdown is {markdown!r}; it is blocks or endpoint")
        if max_depth < 1 or not requests_per_second > 0:
            raise ConfigError(
                f"max_depth and requests_per_second are more than 0, not {max_depth} and "
                f"{requests_per_second}"
            )
        if notion_version < API_VERSION:
            raise ConfigError(f"notion_version is {notion_version!r}; give {API_VERSION} or later")
        if block_comments and markdown == "endpoint":
            raise ConfigError("block_comments needs markdown: blocks, which tells the blocks")
        self.scope = Scope(roots, exclude)
        self.trash, self.workspace = trash, workspace
        choice = Choice(
            self.scope,
            "pages" in self.resources,
            "rows" in self.resources,
            trash,
            _duration(lookback),
            check_known,
        )
        wanted = frozenset(_several(properties))
        if "comments" not in self.resources:
            comments = "none"
        self._how = How(
            Attachments.of(attachments, max_attachment_bytes),
            comments,
            block_comments,
            markdown == "blocks",
            None if "all" in wanted else wanted - {"none"},
        )
        self.token, self.client_id, self.base_url = token, client_id, base_url
        client = self.http_client(
            base_url,
            auth=token_or_refresh(
                _NEEDS,
                *(token, client_id, client_secret, refresh_token),
                token_url=f"{base_url.rstrip('/')}/v1/oauth/token",
                client_auth="basic",
                token_body="json",
                token_headers={"Notion-Version": MARKDOWN_VERSION},
            ),
            budget={"per_second": requests_per_second, "burst": 1},
            max_wait=max_wait,
        )
        self._workspace = Workspace(client, notion_version, max_depth, self.skip)
        self._listing = Listing(self._workspace, choice)
        self._reader = DocumentReader(self._workspace, self._how, self._count_unknown, self.skip)
        self._files = HostedFiles(
            self._how.attachments, self._reader.fresh_address, self.http_client
        )
        self._began = ""
        self._me: dict[str, Any] = {}
        self._bot: Mapping[str, Any] = {}

    def authenticate(self) -> bool:
        """Asks who the integration is.

        Raises:
            HttpError: Notion does not accept the token.
        """
        self._me = self._workspace.me()
        bot = self._me.get("bot")
        self._bot = bot if isinstance(bot, Mapping) else {}
        named = (self._bot.get("workspace_name"), self._bot.get("workspace_id"))
        if self.workspace is not None and self.workspace not in named:
            raise ConfigError(
                f"the token is of the workspace {named[0]} ({named[1]}), and not of "
                f"{self.workspace!r}; give the token of that one"
            )
        self.authenticated = True
        return True

    def account_id(self) -> str:
        """Returns the id of the workspace, unless roots say what is read."""
        return "" if self.scope.roots else str(self._bot.get("workspace_id") or "")

    def access(self) -> list[str]:
        """Returns the integration's name, what it sees, and which capabilities it lacks."""
        workspace = self._bot.get("workspace_name")
        told = [f"integration {self._me.get('name')} in {workspace or 'its workspace'}"]
        pages = self._workspace.search("page", None)
        more = " or more" if pages.following else ""
        top = [one for one in pages.results if parent_of(one) is None]
        told.append(f"{len(pages.results)}{more} pages and rows")
        told += [f"page {title_of(one) or 'Untitled'} and what is below it" for one in top]
        for source in self._listing.sources():
            told.append(f"data source {title_of(source) or 'Untitled'}")
        if self._how.comments != "none" and pages.results:
            try:
                next(iter(self._workspace.comments(str(pages.results[0].get("id")))), None)
            except NotionError as error:
                told.append(f"no comments: {error}")
        return told

    def partitions(self, resume_from: Mapping[str, Any] | None = None) -> Iterator[Partition]:
        """Yields the pages outside of databases, and each data source.

        Args:
            resume_from: The states that an earlier run left; empty to read everything.
        """
        for root in self.scope.roots:
            try:
                find_root(self._workspace, root)
            except NotionError as error:
                if error.status not in (400, 403, 404):
                    raise
                self.skip(root, error)
        yield from self._listing.partitions(resume_from or {})

    def fetch_page(self, partition: Partition, cursor: Any) -> Page:
        """Returns up to a hundred pages or rows that were edited, without their content.

        Args:
            partition: One of `partitions()`.
            cursor: None for the first answer, then that of the answer before.
        """
        self._begin_run(partition.params.get("began"))
        try:
            return self._listing.page(partition, cursor)
        except NotionError as error:
            if error.status in (403, 404) and "source" in partition.params:
                return self.skip(f"data source {partition.params['name']}", error)
            raise

    def sync_documents_stream(self) -> Iterator[dict[str, Any]]:  # type: ignore[override]
        """Yields all documents with their content, and what is inside of them after each."""
        for item in super().sync_documents_stream():
            assert isinstance(item, FileItem)
            if item["kind"] in _CONTENT_KINDS:
                try:
                    item.document = self._reader.read(item)
                except GoneError:
                    continue
            yield item
            yield from item.parts

    def document_version(self, item: Any) -> DocumentVersion | None:
        """Returns the id of the document that an item is, and when it was last edited.

        Comments have no version, since they come whole.
        """
        version = item.get("version")
        return DocumentVersion(
            _unique_id(item),
            version if isinstance(version, str) else None,
            _place_of(item),
            _readers_of(item),
        )

    def own_document(self, item: FileItem, most: int) -> tuple[Any, bytes] | None:
        """Returns what an item becomes; None for a file that a parser makes a document of.

        Args:
            item: The item.
            most: How many bytes a file may have.

        Raises:
            GoneError: it is not there any more.
            HttpError: Notion refuses it.
        """
        kind = item.get("kind")
        if kind == "gone":
            # With a page go its comments and its files.
            item.windows.append(Window(str(item["path"])))
            return NotionDocument(""), b"gone"
        if kind != "attachment":
            document = self._reader.read(item)
            return document, document.content
        made = self._files.begin(item, most)
        if made is None:
            return None
        return NotionDocument("", data=made.data), made.content

    def map_to_frame_record(self, item: dict[str, Any]) -> FrameRecord | Deletion:
        """Turns an item into a record, and what is in the trash into its deletion.

        Raises:
            RecordError: the item is not from this connector.
            ContextFrameError: outside of a run, where it is read here: it cannot be.
        """
        if not isinstance(item, FileItem):
            item = FileItem.of(item)
        unique_id = _unique_id(item)
        if item["kind"] == "gone":
            return Deletion(unique_id)
        if item.document is None:
            self._read_alone(item)
        document = item.document
        is_file = item["kind"] == "attachment"
        metadata: dict[str, Any] = dict(document.metadata)
        if is_file:
            stated = {name: one for name, one in metadata.items() if name != "attachments"}
            metadata = {
                **({"properties": stated} if stated else {}),
                "title": str(item.get("name")),
                "file_size": item.get("size"),
                "uri": opened(str(item.get("block") or item.get("page"))),
                "relationships": [
                    {
                        "relationship_type": "parent",
                        "target_id": f"notion:page/{item.get('page')}",
                    }
                ],
            }
        for name in ("collection", "collection_id"):
            if isinstance(item.get(name), str) and item[name]:
                metadata[name] = item[name]
        metadata |= {"source": "notion", "kind": item["kind"]}
        data = getattr(document, "data", None)
        changed = item.get("modified_at")
        return FrameRecord(
            document.text,
            metadata,
            "document",
            unique_id,
            changed if isinstance(changed, str) else None,
            raw_data=data,
            raw_data_type=None if data is None else media_type(str(item.get("name"))),
            place=_place_of(item),
            readers=_readers_of(item),
        )

    def source_identity(self, sync_kwargs: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Returns the class, and what is read of a workspace, however it was written."""
        identity = super().source_identity()
        arguments: dict[str, Any] = dict(self.scope.identity)
        if self.resources != set(_RESOURCES):
            arguments["resources"] = sorted(self.resources)
        if self.trash:
            arguments["trash"] = True
        if self.workspace is not None:
            arguments["workspace"] = self.workspace
        identity["arguments"] = arguments
        return identity

    def _begin_run(self, began: str | None) -> None:
        """Forgets what an earlier run in this process has learned, once for each run."""
        with self._lock:
            if began is None or began == self._began:
                return
            self._began = began
        self._workspace.forget()
        self._reader.begin()
        self._alone.clear()


def _duration(text: str) -> timedelta:
    try:
        return timedelta(seconds=seconds_of(text))
    except ValueError as error:
        raise ConfigError(f"lookback: {error}") from None


def _several(given: Sequence[str] | str) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given)


def _unique_id(item: Mapping[str, Any]) -> str:
    own, path = item.get("id"), item.get("path")
    if isinstance(own, str) and own.startswith("notion:"):
        return own
    if not isinstance(path, str) or item.get("kind") not in (*_CONTENT_KINDS, "attachment", "gone"):
        raise RecordError("the item has no path and kind; give one that this connector listed")
    return f"notion:{path}"


def _readers_of(item: Any) -> list[str] | None:
    """Returns `anyone` for a page that is published; Notion does not tell who may read others."""
    return ["anyone"] if item.get("is_public") is True else None


def _place_of(item: Mapping[str, Any]) -> Place | None:
    """Returns where a document lies: a row in its data source, a comment or a file in its page."""
    kind, source, page = (item.get(name) for name in ("kind", "collection_id", "page"))
    if kind == "row" and isinstance(source, str) and source:
        return Place(f"data_source/{source}", item.get("modified_at"))
    if kind in ("comment", "attachment") and isinstance(page, str):
        return Place(f"page/{page}")
    return None
