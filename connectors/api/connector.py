"""APIConnector: any HTTP API as a source, configured instead of programmed."""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

from contextframe_beam.connectors import identity as _identity
from contextframe_beam.connectors import secrets
from contextframe_beam.connectors.api.config import ApiConfig, Resource, paginator_of
from contextframe_beam.connectors.api.incremental import Scope
from contextframe_beam.connectors.api.load import load_config
from contextframe_beam.connectors.api.mapping import (
    RESOURCE,
    FieldCondition,
    ResourceMapper,
    page_style_columns,
    page_style_record,
)
from contextframe_beam.connectors.api.numbered import PageNumber
from contextframe_beam.connectors.api.pages import ApiPages
from contextframe_beam.connectors.api.plan import Planner
from contextframe_beam.connectors.api.resource import Endpoint, below
from contextframe_beam.connectors.cursors import Bounds, seconds_of
from contextframe_beam.connectors.http import request as urls
from contextframe_beam.connectors.http.client import HttpClient
from contextframe_beam.connectors.http.request import HttpError, HttpRequest, HttpResponse
from contextframe_beam.connectors.kinds import PaginatedConnector
from contextframe_beam.connectors.page import (
    DeadLetter,
    ListedFailures,
    Page,
    Partition,
    SourceInfo,
)
from contextframe_beam.connectors.read.readers import PagesReader
from contextframe_beam.connectors.read.source import Source
from contextframe_beam.errors import ConfigError, ConnectorError, NotAuthenticatedError, nearest
from contextframe_beam.frames.record import Deletion, FrameRecord

if TYPE_CHECKING:
    from contextframe_beam.connectors.item_columns import ItemColumns
    from contextframe_beam.frames.columns import FrameColumns

_ENDPOINT = "/api/v1/documents"
_AUTH_CHECK = "/api/v1/me"
_PAGE_STYLE = PageNumber(size=100, size_param="limit", stop_at_short_page=True)

_CONNECT_SECONDS = 10.0
_REFUSED = (401, 403, 407)


class APIConnector(PaginatedConnector):
    """Reads any HTTP API; its resources, pages, authentication and mapping are configured.

    Without resources, `sync_documents(endpoint, params)` reads one endpoint by page number
    (`page` and `limit`), as simple APIs expect.

    Args:
        base_url: Where the API is.
        api_key: A key that is sent as `Authorization: Bearer ...`, best as a reference (env:KEY).
        config: A YAML file with all other settings, or a dict of the same form.
        name: The name of the source; part of every unique_id.
        settings: Values for `{settings.name}` anywhere in the configuration.
        auth: How requests authenticate, as `{"type": "basic", ...}`.
        auth_check: An address that shows whether the API accepts the credentials; `/api/v1/me` if
            only an `api_key` is given. If it does not exist, the credentials are not checked.
        headers: Headers of all requests.
        params: Query parameters of all requests.
        paginator: How to get from page to page, as `{"type": "cursor", ...}`.
        resources: The resources to read, as a list of dicts.
        budget: How many requests may be sent, as `{"per_second": 5}`.
        cache: Keeps answers on disk, as `{"ttl": "1h"}`.
        retries: How often a request is repeated after an error that may pass.
        timeout: How long to wait for an answer to begin, in seconds or as in `"2m"`.
        total_timeout: How long a request may take with all its attempts.
        max_wait: The longest pause that the API may ask for.
        max_response_bytes: Larger answers are refused.
        ca_bundle: A file of certificates that servers are checked against.
        allowed_origins: Other origins (https://host:port) that links may lead to; they get no
            credentials.
        same_server: Origins that the API uses for itself in its links, such as its internal
            address at a gateway; such links are requested from `base_url`.
        max_in_flight: The largest number of open requests in one process; 16 by default.
        error_when: Answers that are errors although their status says otherwise, as
            `[{"field": "ok", "equals": false}]`; by `status`, by a `field` or by a `text`.
        retry_when: Answers after which the request is sent again, as `[{"status": 403, "text":
            "rate limit", "wait": "1m"}]`.
        renew_when: Answers after which the token is renewed, and the request sent again.
        ignore_when: Answers that are passed over as if there were no records, as
            `[{"status": 403}]`.

    Raises:
        ConfigError: the configuration cannot be read, or has a mistake.
    """

    _by_partition = ("max_items", "max_pages", "only")
    # The field of a record that says how it is mapped.
    _told_apart_by = RESOURCE

    def __init__(
        self,
        base_url: str | None = None,
        api_key: str | None = None,
        *,
        config: str | os.PathLike[str] | dict[str, Any] | None = None,
        name: str | None = None,
        settings: dict[str, Any] | None = None,
        auth: dict[str, Any] | None = None,
        auth_check: str | None = None,
        headers: dict[str, str] | None = None,
        params: dict[str, Any] | None = None,
        paginator: dict[str, Any] | str | None = None,
        resources: list[dict[str, Any]] | None = None,
        budget: dict[str, Any] | None = None,
        cache: dict[str, Any] | None = None,
        retries: int | None = None,
        timeout: float | str | None = None,
        total_timeout: float | str | None = None,
        max_wait: float | str | None = None,
        max_response_bytes: int | None = None,
        ca_bundle: str | None = None,
        allowed_origins: list[str] | None = None,
        same_server: list[str] | None = None,
        max_in_flight: int | None = None,
        error_when: list[dict[str, Any]] | None = None,
        retry_when: list[dict[str, Any]] | None = None,
        renew_when: list[dict[str, Any]] | None = None,
        ignore_when: list[dict[str, Any]] | None = None,
    ) -> None:
        super().__init__()
        given = {
            "base_url": base_url,
            "name": name,
            "settings": settings,
            "auth": auth,
            "auth_check": auth_check,
            "headers": headers,
            "params": params,
            "paginator": paginator,
            "resources": resources,
            "budget": budget,
            "cache": cache,
            "retries": retries,
            "timeout": timeout,
            "total_timeout": total_timeout,
            "max_wait": max_wait,
            "max_response_bytes": max_response_bytes,
            "ca_bundle": ca_bundle,
            "allowed_origins": allowed_origins,
            "same_server": same_server,
            "max_in_flight": max_in_flight,
            "error_when": error_when,
            "retry_when": retry_when,
            "renew_when": renew_when,
            "ignore_when": ignore_when,
        }
        if api_key is not None:
            if auth is not None:
                raise ConfigError("give either api_key or auth, not both")
            given["auth"] = {"type": "bearer", "token": api_key}
        own = {key: value for key, value in given.items() if value is not None}
        self._config, values = load_config(config, own)
        self.base_url = urls.checked_base(self._config.base_url)
        if self._config.auth_check is None and api_key is not None and not self._config.resources:
            values["auth_check"] = urljoin(self.base_url, _AUTH_CHECK)
        # The content of the file travels to the workers; the file itself stays here.
        travelling = secrets.referenced(values)
        self._arguments = ((), {"config": travelling})
        secrets.register_literals(travelling)
        self._auth_check = values.get("auth_check")
        self.max_in_flight = self._config.max_in_flight
        self.source_name = self._config.name or urlsplit(self.base_url).netloc.rpartition("@")[2]
        self._lock = threading.RLock()
        self._slots = threading.BoundedSemaphore(self.max_in_flight)
        self._http: HttpClient | None = None
        self._endpoints: dict[str, Endpoint] = {}
        self._examples: dict[str, Any] = {}
        self._mappers = {
            one.name: ResourceMapper(one.mapping, self.source_name, one.name, self._prefix_of)
            for one in self._config.resources
        }
        self._deleted = {
            one.name: FieldCondition(one.deleted) for one in self._config.resources if one.deleted
        }
        self._pages = ApiPages(
            self._endpoint_of, self._send, lambda name: self._mappers[name].unique_id
        )
        #: Whether the API itself (not a cache) has answered yet, even with an error.
        self.connected = False
        self._failures = ListedFailures()

    @property
    def config(self) -> ApiConfig:
        """The checked configuration; secrets in it are references."""
        return self._config

    def authenticate(self) -> bool:
        """Prepares the client, and requests `auth_check` to see if the credentials are accepted.

        Raises:
            ConnectorError: they are not, or the API cannot be reached. (It is a ValueError.)
            SecretError: a reference cannot be resolved.
        """
        self._client()
        if self._auth_check is not None:
            try:
                self._send(HttpRequest("GET", below(self.base_url, self._auth_check)))
            except HttpError as error:
                if error.status in _REFUSED:
                    raise ConnectorError(
                        f"Authentication failed: {error.status} ({error})"
                    ) from error
                if not 400 <= error.status < 500:
                    raise
                # An API without this address has not refused the credentials.
                self.logger.info("the credentials could not be checked: %s", error)
        self.authenticated = True
        return True

    def sync_documents(
        self,
        endpoint: str | None = None,
        params: dict[str, Any] | None = None,
        *,
        only: list[str] | None = None,
        max_pages: int | None = None,
        max_items: int | None = None,
    ) -> list[dict[str, Any]]:
        """Fetches the records of an endpoint, or of the configured resources.

        Args:
            endpoint: An address to read page by page; `/api/v1/documents` if there are no
                resources either.
            params: Its query parameters.
            only: The names of the resources to read; all by default.
            max_pages: The largest number of pages of each, for each record of a parent.
            max_items: The largest number of records of each, for each record of a parent.

        Raises:
            RuntimeError: `authenticate` was not called.
            ConnectorError: a page cannot be read.
        """
        return list(
            self.sync_documents_stream(
                endpoint, params, only=only, max_pages=max_pages, max_items=max_items
            )
        )

    def sync_documents_stream(  # type: ignore[override]
        self,
        endpoint: str | None = None,
        params: dict[str, Any] | None = None,
        *,
        only: list[str] | None = None,
        max_pages: int | None = None,
        max_items: int | None = None,
    ) -> Iterator[dict[str, Any]]:
        """Yields what `sync_documents` returns, one record after the other."""
        if not self.authenticated:
            raise NotAuthenticatedError("Not authenticated: call authenticate() first")
        found = self.partitions(
            endpoint, params, only=only, max_pages=max_pages, max_items=max_items
        )
        for page in self._pages_of(found):
            self._note(page.failures)
            yield from page.items

    def partitions(
        self,
        endpoint: str | None = None,
        params: dict[str, Any] | None = None,
        *,
        only: list[str] | None = None,
        max_pages: int | None = None,
        max_items: int | None = None,
        resume_from: Mapping[str, Any] | None = None,
        known_states: Mapping[str, Any] | None = None,
        since: str | None = None,
        until: str | None = None,
    ) -> Iterator[Partition]:
        """Yields one partition for each resource, record of a parent, or slice of time.

        Args:
            endpoint: As for `sync_documents`.
            params: As for `sync_documents`.
            only: As for `sync_documents`.
            max_pages: As for `sync_documents`.
            max_items: As for `sync_documents`.
            resume_from: The states that earlier runs reached, by the id of the partition.
            known_states: The same for a run that reads a range of time and does not begin there.
            since: Read only what changed at this time or later, ISO 8601.
            until: Read only what changed before this time.

        Raises:
            ConfigError: an argument makes no sense.
        """
        limits = {"max_pages": max_pages, "max_items": max_items}
        for name, most in limits.items():
            if most is not None and most < 1:
                raise ConfigError(f"{name} is {most}; it must be at least 1")
        run = uuid.uuid4().hex
        chosen = self._chosen(endpoint, params, only)
        bounds = Bounds.of(since, until)
        if not chosen:
            if bounds.given:
                raise ConfigError(
                    "an endpoint cannot be read by time; configure a resource with `incremental`"
                )
            address = endpoint or _ENDPOINT
            scope = Scope(
                run=run,
                endpoint=address,
                params=params,
                max_pages=max_pages,
                max_items=max_items,
                is_counted_first=True,
            )
            yield Partition(address, scope)
            return
        planner = Planner(
            self._config,
            run,
            known_states or resume_from or {},
            limits,
            self._mappers.__getitem__,
            self._items_of,
            bounds,
            self._examples,
        )
        for resource in chosen:
            planner.check_bounds(resource)
        for resource in chosen:
            yield from planner.partitions(resource)

    def count_pages(self, partition: Partition) -> int | None:
        """Returns the number of pages of a partition, if its first page shows it."""
        return self._counted_partition(partition)[1]

    def fetch_page(self, partition: Partition, cursor: Any) -> Page:
        """Returns one page of a partition."""
        return self._pages.fetch(partition, cursor)

    def map_to_frame_record(self, item: dict[str, Any]) -> FrameRecord | Deletion:
        """Turns a record into a frame, as its resource's `mapping` says, or into its deletion.

        Without resources: the text is `content`, all other fields are metadata, and the unique_id
        is `api:<id>`.
        """
        mapper = self._mappers.get(item.get(RESOURCE, ""))
        if mapper is None and len(self._mappers) == 1 and RESOURCE not in item:
            mapper = next(iter(self._mappers.values()))
        if mapper is None:
            return page_style_record(item)
        is_deleted = self._deleted.get(mapper.resource)
        if is_deleted is not None and is_deleted(item):
            record = mapper.map(item)
            return Deletion(record.unique_id, record.timestamp)
        return mapper.map(item)

    def map_columns(self, items: ItemColumns) -> FrameColumns:
        """Turns many records into frames at once, the same as `map_to_frame_record` makes.

        Raises:
            NotByColumns: they have to be mapped one by one.
        """
        from contextframe_beam.connectors.item_columns import marked
        from contextframe_beam.frames.columns import NotByColumns

        mapper = self._mappers.get(items.common(RESOURCE) or "")
        if mapper is None and len(self._mappers) == 1 and RESOURCE not in items.fields:
            mapper = next(iter(self._mappers.values()))
        if mapper is None:
            return page_style_columns(items)
        is_deleted = self._deleted.get(mapper.resource)
        deleted = [] if is_deleted is None else is_deleted.rows(items)
        if any(deleted):
            raise NotByColumns(marked(deleted))
        return mapper.map_columns(items)

    def get_stats(self) -> dict[str, Any]:
        """Returns the base class's numbers, and what failed."""
        return {**super().get_stats(), **self._failures.stats}

    def source_identity(self, sync_kwargs: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Returns what identifies this source.

        That is its name, or else `base_url` and what its resources request; and the endpoint, if
        one is read. Secrets are left out, and so are settings that only tune or narrow the reading.
        """
        config = self._config
        arguments: dict[str, Any] = {"name": config.name}
        if config.name is None:
            arguments = {
                "base_url": self.base_url,
                "params": _identity.jsonable(secrets.referenced(config.params)),
                "settings": _identity.jsonable(secrets.referenced(config.settings)),
                "resources": [_resource_identity(one) for one in config.resources],
            }
        reading = _identity.without_narrowing(sync_kwargs or {})
        sync = {key: value for key, value in reading.items() if value is not None}
        if not config.resources:
            sync.setdefault("endpoint", _ENDPOINT)
        identity = {
            "connector": _identity.class_path(type(self)),
            "arguments": {key: value for key, value in arguments.items() if value},
        }
        if sync:
            identity["sync"] = _identity.jsonable(secrets.referenced(sync))
        return identity

    def _chosen(
        self,
        endpoint: str | None,
        params: dict[str, Any] | None,
        names: Iterable[str] | None,
    ) -> list[Resource]:
        """Returns the resources to read; an empty list if an endpoint is read instead."""
        if endpoint is not None or not self._config.resources:
            if names:
                raise ConfigError("give either an endpoint or the names of resources, not both")
            return []
        if params:
            raise ConfigError("params go with an endpoint; resources have their own")
        if not names:
            return [one for one in self._config.resources if one.ingest]
        chosen = []
        for name in dict.fromkeys(names):
            resource = self._config.resource(name)
            if resource is None:
                known = [one.name for one in self._config.resources]
                hint = nearest(name, known) or f"; there are {', '.join(known)}"
                raise ConfigError(f"there is no resource {name!r}{hint}")
            chosen.append(resource)
        return chosen

    def _counted_partition(self, partition: Partition) -> tuple[Partition, int | None]:
        return self._pages.counted(partition)

    def _endpoint_of(self, scope: Scope) -> Endpoint:
        name = scope.resource
        if not name:
            # Made each time: it is cheap, and every set of parameters needs its own.
            resource = Resource(name="endpoint", params=dict(scope.params or {}))
            url = urls.joined(self.base_url, scope.endpoint)
            paginator = paginator_of(self._config.paginator) or _PAGE_STYLE
            return Endpoint(self._config, resource, url, paginator, marked=False)
        with self._lock:
            found = self._endpoints.get(name)
            if found is None:
                resource_named = self._config.resource(name)
                if resource_named is None:
                    raise ConfigError(f"there is no resource {name!r} in the configuration")
                found = self._endpoints[name] = Endpoint(self._config, resource_named)
            return found

    def _prefix_of(self, name: str) -> str:
        resource = self._config.resource(name)
        own = None if resource is None else resource.mapping.prefix
        return f"{self.source_name}:{name}#" if own is None else own

    def _items_of(self, partitions: Iterable[Partition]) -> Iterator[dict[str, Any]]:
        for page in self._pages_of(partitions):
            for letter in page.failures:
                # It becomes a dead letter when the resource itself is read.
                self.logger.warning("%s, %s: %s", page.partition, page.position, letter.message)
            yield from page.items

    def _page_name(self, partition: Partition, cursor: Any) -> str:
        return self._pages.page_name(partition, cursor)

    def _pages_of(self, partitions: Iterable[Partition]) -> Iterator[Page]:
        """Reads partitions in this process, several pages at once."""
        info = SourceInfo("", self.name)
        return Source(self, info=info, reader=PagesReader).pages_of(partitions)

    def _note(self, failures: list[DeadLetter]) -> None:
        for letter in failures:
            self.logger.warning("%s, %s: %s", letter.partition, letter.position, letter.message)
            self._failures.add(letter, "partition", "position")

    def _send(self, request: HttpRequest) -> HttpResponse:
        # Planning reads parents and counts pages at the same time, each with its own threads.
        with self._slots:
            try:
                response = self._client().send(request)
            except HttpError as error:
                self.connected = self.connected or error.status > 0
                raise
        self.connected = self.connected or not response.from_cache
        return response

    def _client(self) -> HttpClient:
        with self._lock:
            if self._http is None:
                self._http = self.http_client(self.base_url, **_client_settings(self._config))
            return self._http


def _client_settings(config: ApiConfig) -> dict[str, Any]:
    """Returns the arguments of the client for a configuration."""
    given: dict[str, Any] = {
        "retries": config.retries,
        "max_response_bytes": config.max_response_bytes,
        "ca_bundle": config.ca_bundle,
        "headers": config.headers,
        "pool_size": config.max_in_flight,
        "allowed_origins": config.allowed_origins,
        "same_server": config.same_server,
    }
    for name in ("timeout", "total_timeout", "max_wait"):
        duration = getattr(config, name)
        given[name] = None if duration is None else seconds_of(duration)
    if given["timeout"] is not None:
        given["timeout"] = (min(_CONNECT_SECONDS, given["timeout"]), given["timeout"])
    if config.budget is not None:
        given["budget"] = config.budget.model_dump(exclude_none=True)
    if config.cache is not None:
        given["cache"] = config.cache.model_dump(exclude_none=True)
    if config.auth is not None:
        given["auth"] = config.auth.model_dump(by_alias=True, exclude_unset=True)
    return {name: value for name, value in given.items() if value is not None}


def _resource_identity(resource: Resource) -> dict[str, Any]:
    asked = resource.model_dump(
        include={"name", "path", "method", "params", "body", "form", "parent", "each", "filters"},
        exclude_defaults=True,
    )
    found: dict[str, Any] = _identity.jsonable(secrets.referenced(asked))
    return found
