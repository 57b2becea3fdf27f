"""One resource of an API: its requests, and the records in its answers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from contextframe_beam.connectors import secrets
from contextframe_beam.connectors.api.answer import (
    ROOT,
    Answer,
    error_in,
    guess_records,
    records_at,
    with_columns,
)
from contextframe_beam.connectors.api.config import ApiConfig, Resource, paginator_of
from contextframe_beam.connectors.api.detect import Detect, Found
from contextframe_beam.connectors.api.expression import Known
from contextframe_beam.connectors.api.fields import about_record, changes_of, kept_by
from contextframe_beam.connectors.api.graphql import (
    faults_in,
    is_query,
    list_around,
    refused,
    unread_lists,
    with_failed_nodes,
)
from contextframe_beam.connectors.api.incremental import Scope, request_value, resumed
from contextframe_beam.connectors.api.mapping import (
    PARENT,
    RESOURCE,
    FieldCondition,
    ResourceMapper,
    judge_of,
)
from contextframe_beam.connectors.api.paginate import GraphQL, Paginator, Place
from contextframe_beam.connectors.api.template import NOTHING, filled, template
from contextframe_beam.connectors.cursors import is_before, within
from contextframe_beam.connectors.http import request as urls
from contextframe_beam.connectors.http.request import HttpRequest, HttpResponse
from contextframe_beam.connectors.mapper import as_text, lookup
from contextframe_beam.connectors.record_mapper import quoted
from contextframe_beam.errors import ConfigError, ConnectorError

_NO_CONTENT = (204, 205)
# Comments and fragments may come before it.
_MUTATION = re.compile(r"^\s*mutation\b", re.M)


class Endpoint:
    """A resource, with the settings of the whole configuration that concern it.

    Args:
        config: The configuration.
        resource: The resource.
        url: Its address; by default made from `base_url` and `path`.
        paginator: The paginator, unless the resource has its own.
        marked: Whether its records get the name of their resource.
    """

    def __init__(
        self,
        config: ApiConfig,
        resource: Resource,
        url: str | None = None,
        paginator: Paginator | None = None,
        marked: bool = True,
    ) -> None:
        self.resource = resource
        self.marked = marked
        self.paginator = (
            paginator_of(resource.paginator)
            or paginator
            or paginator_of(config.paginator)
            or Detect()
        )
        self.incremental = resource.incremental
        #: How many times a run reads it: for its documents, and for each resource below it.
        self.passes = max(_passes(config, resource), 1)
        self._url = url or below(config.base_url, resource.path or resource.name)
        # The client resolves references to secrets when it sends them.
        self._params = secrets.referenced({**config.params, **resource.params})
        self._headers = secrets.referenced(dict(resource.headers))
        self._body = secrets.referenced(resource.body)
        self._form = secrets.referenced(resource.form)
        sent = [self._params, self._headers, self._body, self._form]
        self._has_secrets = _has_reference(sent)
        self._base = config.base_url
        self._origin = urls.origin_of(config.base_url)
        self._names = frozenset(map(urls.origin_of, config.same_server))
        self._others = frozenset(map(urls.origin_of, config.allowed_origins))
        self._settings = secrets.referenced(dict(config.settings))
        self._changes = changes_of(resource)
        self._filters = [
            kept_by(one) if isinstance(one, str) else about_record(FieldCondition(one))
            for one in resource.filters
        ]
        self._is_deleted = resource.deleted and FieldCondition(resource.deleted)
        self._mapper = ResourceMapper(resource.mapping, "", resource.name, lambda _: "")
        self._judge = judge_of(resource, config)
        self._safe = resource.safe_to_repeat
        asks = isinstance(resource.body, Mapping) and is_query(resource.body.get("query"))
        if self._safe is None:
            # A resource is read page after page, run after run: every request can be repeated.
            self._safe = not _is_mutation(resource.body)
        asks = asks or is_query(resource.params.get("query"))
        self._is_graphql = isinstance(self.paginator, GraphQL) or asks
        #: Whether the API itself leaves out older records.
        self.asks_since = bool(
            self.incremental and (self.incremental.param or "since" in resource.uses)
        )

    def request(self, scope: Scope, cursor: Any = None) -> HttpRequest:
        """Returns the request for a partition; a paginator adds the token of a page.

        Args:
            scope: What is read.
            cursor: The value of the placeholder `{= cursor }`.

        Raises:
            ConfigError: a value for the address is missing.
            SecretError: a secret cannot be resolved.
        """
        known = {**self.known(scope), "cursor": cursor}
        incremental = self.incremental
        resource = self.resource
        request = HttpRequest(
            resource.method,
            self._address(known),
            params=filled(self._params, known),
            headers=_headers(filled(self._headers, known)),
            json=_optional(filled(self._body, known)),
            form=_optional(filled(self._form, known)),
            safe_to_repeat=self._safe,
            judge=self._judge,
        )
        if incremental is not None:
            for param, name in ((incremental.param, "since"), (incremental.until_param, "until")):
                if param is not None and known[name] is not None:
                    request = Place.of(param).put(request, known[name])
        return request

    def known(self, scope: Scope) -> dict[str, Any]:
        """Returns the values that placeholders stand for, by the names of their roots.

        Args:
            scope: What is read.
        """
        since = scope.since
        if self.incremental is not None and since is not None and not scope.ends_are_written:
            since = request_value(since, self.incremental)
        return {
            "settings": self._settings,
            "parent": scope.parent,
            "each": scope.each,
            "since": since,
            "until": scope.until,
            "now": scope.now,
        }

    def for_origin(self, request: HttpRequest) -> HttpRequest:
        """Returns the request as it is for the server of `base_url`, without secrets for others.

        Raises:
            ConnectorError: its body holds secrets.
        """
        url = urls.at_own(request.url, self._base, self._names, self._others)
        if url != request.url:
            request = replace(request, url=url)
        if not self._has_secrets or urls.origin_of(request.url) == self._origin:
            return request
        if _has_reference([request.json, request.form]):
            raise ConnectorError(
                f"{urls.shown(request.url)} is not at {self._origin}, so the secrets in the body "
                "of the request are not sent to it; change base_url, or leave them out"
            )
        headers = {k: v for k, v in request.headers.items() if not _has_reference(v)}
        params = {k: v for k, v in request.params.items() if not _has_reference(v)}
        return replace(request, headers=headers, params=params)

    def answer(self, response: HttpResponse) -> Answer:
        """Returns the answer in a response.

        Raises:
            ConnectorError: it is not JSON, or holds the errors of a GraphQL query.
        """
        data = None
        if response.status not in _NO_CONTENT:
            data = response.json()
            self._refuse_errors(data)
        sent = response.sent
        asked = {
            name: value
            for given in (sent.params, sent.form, sent.json)
            if isinstance(given, Mapping)
            for name, value in given.items()
        }
        return Answer(
            data,
            response.headers,
            response.links(),
            response.absolute(""),
            response.status,
            asked,
            size=len(response.body),
        )

    def records(self, answer: Answer, place: str = "") -> tuple[str, list[Any]]:
        """Returns the path of the records of an answer, and the records.

        They are unchanged, except that rows that are lists become objects if their columns are
        named. With `partial: keep`, a node that a GraphQL server could not give is a `FailedNode`.

        Args:
            answer: The answer.
            place: The path of the records on an earlier page of the same partition.

        Returns:
            The path of the records, empty if no record shows it, and the records.

        Raises:
            ConnectorError: the records are missing, or there is an error in their place.
        """
        data = answer.data
        if answer.status in _NO_CONTENT:
            return place, []
        if place == ROOT and isinstance(data, Mapping):
            problem = error_in(data) or f"it has {', '.join(map(repr, map(str, data)))}"
            raise ConnectorError(
                f"the answer is an object, where the first page was a list of records: {problem}"
            )
        path = self.resource.records or place
        try:
            if path:
                records = records_at(data, path, is_known=True)
            else:
                path, records = guess_records(data)
        except ConnectorError as error:
            problem = error_in(data)
            if not problem:
                raise
            raise ConnectorError(f"the API answered with an error: {problem}; {error}") from None
        if not records:
            problem = error_in(data)
            if problem:
                raise ConnectorError(f"the API answered with an error: {problem}")
        faults = faults_in(data) if self._is_graphql else []
        if faults:
            records = with_failed_nodes(data, records, faults)
        is_told = bool(records) or path != ROOT or isinstance(data, list)
        return path if is_told else "", with_columns(data, path.rstrip("?"), records)

    def unread(self, answer: Answer, token: Any) -> str:
        """Returns why an answer may be incomplete; empty if there is no sign of that.

        Args:
            answer: The answer.
            token: The token of its page, or of the next page, which may show how it is paged.
        """
        paginator = token.paginator if isinstance(token, Found) else self.paginator
        if not self._is_graphql and not isinstance(paginator, GraphQL):
            return ""
        place = self.resource.records or guess_records(answer.data)[0]
        if isinstance(paginator, GraphQL):
            place = paginator.page_info
        lists = unread_lists(answer.data, list_around(place))
        if not lists:
            return ""
        name = self.resource.name
        several = len(lists) > 1
        return (
            f"{' and '.join(lists)} {'go' if several else 'goes'} on after what the query "
            f"asks for; read {'them as resources' if several else 'it as a resource'} of "
            f"{'their' if several else 'its'} own (parent: {name}), or ask for more at once"
        )

    def identifies(self, records: list[Any]) -> bool:
        """Returns whether records have ids, judged by the first one."""
        first = records[0] if records else None
        return isinstance(first, Mapping) and self._mapper.unique_id(first) is not None

    def keeps(self, item: Mapping[str, Any], scope: Scope, known: Known) -> bool:
        """Returns whether a record becomes a document.

        Args:
            item: The record.
            scope: What is read.
            known: What placeholders stand for, from `known`.
        """
        incremental, since, bounds = self.incremental, scope.since, scope.bounds
        if incremental is not None:
            value = lookup(item, incremental.field)
            if bounds:
                ends = bounds.get("since"), bounds.get("until")
                if not within(value, *ends, incremental.reading):
                    return False
            elif not self.asks_since and since is not None:
                begin = since if scope.ends_are_written else resumed(since, incremental)
                if is_before(value, begin, incremental.reading):
                    return False
        if self._is_deleted and self._is_deleted(item):
            return True
        return all(condition(item, known) for condition in self._filters)

    def complete(self, item: dict[str, Any], known: Known) -> None:
        """Adds the fields of `add_fields` to a record.

        Args:
            item: The record.
            known: What placeholders stand for, from `known`.

        Raises:
            ExpressionError: a value cannot be computed.
        """
        self._changes.add(item, known)

    def strip(self, items: list[dict[str, Any]]) -> None:
        """Removes the fields of `remove_fields` from records."""
        if self._changes.removed:
            for item in items:
                self._changes.remove(item)

    def chooses(self, scope: Scope) -> bool:
        """Returns whether `keeps` can leave out records of a partition."""
        if self._filters or scope.bounds is not None:
            return True
        return self.incremental is not None and not self.asks_since

    def mark(self, items: list[dict[str, Any]], parent: Mapping[str, Any] | None) -> None:
        """Adds to records the name of their resource, and their parent."""
        if not self.marked:
            return
        name = self.resource.name
        for item in items:
            if RESOURCE in item or PARENT in item:
                # A field of the API with this name is kept under another name.
                for own in (RESOURCE, PARENT):
                    if own in item:
                        item[f"record{own}"] = item.pop(own)
            item[RESOURCE] = name
        if parent is not None:
            for item in items:
                item[PARENT] = dict(parent)

    def _address(self, known: Known) -> str:
        found = template(self._url) if "{" in self._url else None
        address = self._url if found is None else found.value(known, quoted)
        if address is NOTHING:
            assert found is not None
            empty = next(
                shown
                for shown, one in (part for part in found.parts if not isinstance(part, str))
                if one.value(known) is None
            )
            raise ConfigError(
                f"the path of {self.resource.name} has {empty}, which has no value yet; "
                "give incremental.start, or write it into params"
            )
        return str(address)

    def _refuse_errors(self, data: Any) -> None:
        faults = faults_in(data)
        if not faults or not (self._is_graphql or ("data" in data and data["data"] is None)):
            return
        if not data.get("data"):
            raise refused(faults)
        if self.resource.partial != "keep":
            hint = "; write `partial: keep` to keep the records that are not concerned"
            raise refused(faults, hint if any(fault.names_node for fault in faults) else "")


def _passes(config: ApiConfig, resource: Resource) -> int:
    below = [_passes(config, one) for one in config.resources if one.parent == resource.name]
    return int(resource.ingest) + sum(below)


def below(base: str, path: str) -> str:
    """Returns the address of a path below a base; the path may begin with a slash."""
    if "://" in path:
        return path
    if not path or path.startswith("?"):
        return urls.joined(base, path)
    return f"{base.rstrip('/')}/{path.lstrip('/')}"


def _is_mutation(body: Any) -> bool:
    query = body.get("query") if isinstance(body, Mapping) else None
    return isinstance(query, str) and _MUTATION.search(query) is not None


def _has_reference(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(map(_has_reference, value.values()))
    if isinstance(value, list | tuple):
        return any(map(_has_reference, value))
    return isinstance(value, secrets.SecretReference)


def _optional(value: Any) -> Any:
    return None if value is NOTHING else value


def _headers(values: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value if isinstance(value, str) else as_text(value) for name, value in values.items()
    }
