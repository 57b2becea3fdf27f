"""Queries of GraphQL: sends them, refuses answers with errors, and follows lists to their end.

Answers and errors have the form of the specification (section 7, Response), and lists in pages that
of Relay (`pageInfo`, `nodes` or `edges`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from contextframe_beam.connectors.http.client import HttpClient
from contextframe_beam.connectors.http.request import HttpRequest
from contextframe_beam.connectors.mapper import as_text, lookup
from contextframe_beam.connectors.secrets import redact
from contextframe_beam.errors import ConnectorError

__all__ = ["Fault", "Path", "Queries", "QueryError", "faults_in", "refused"]

_SHOWN_ERRORS = 3

Path = tuple[str | int, ...]


class QueryError(ConnectorError):
    """An answer with errors.

    Attributes:
        faults: The errors; the code of one may say what it is, such as NOT_FOUND.
    """

    def __init__(self, message: str, faults: Sequence[Fault] = ()) -> None:
        super().__init__(message)
        self.faults = tuple(faults)


class Queries:
    """Sends queries to one address.

    Args:
        http: The client.
        url: The address; relative ones are below the client's base.
    """

    def __init__(self, http: HttpClient, url: str = "graphql") -> None:
        self._http = http
        self._url = url

    def data(self, query: str, variables: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Returns the data of an answer.

        Args:
            query: Text that only reads; it is sent again after an error that may pass.
            variables: Its variables.

        Raises:
            QueryError: the answer has errors, even beside data.
            ConnectorError: it has no data.
        """
        data, faults = self.partial(query, variables)
        if faults:
            raise refused(faults, where=self._http.absolute(self._url))
        return data

    def partial(
        self, query: str, variables: Mapping[str, Any] | None = None
    ) -> tuple[dict[str, Any], list[Fault]]:
        """Returns the data of an answer, and the errors beside it.

        Args:
            query: Text that only reads; it is sent again after an error that may pass.
            variables: Its variables.

        Raises:
            QueryError: the answer has errors and no data.
            ConnectorError: it has no data.
        """
        asked = {"query": query, "variables": dict(variables or {})}
        request = HttpRequest("POST", self._url, json=asked, safe_to_repeat=True)
        response = self._http.send(request)
        answer = response.json()
        faults = faults_in(answer)
        data = answer.get("data") if isinstance(answer, Mapping) else None
        if isinstance(data, dict):
            return data, faults
        if faults:
            raise refused(faults, where=response.url)
        raise response.error("has no data, and no errors either; check the address")

    def nodes(
        self,
        query: str,
        variables: Mapping[str, Any],
        path: str,
        first: Mapping[str, Any] | None = None,
        variable: str = "after",
    ) -> Iterator[Any]:
        """Yields the nodes of a list to its end.

        Args:
            query: Asks for a page of the list.
            variables: Its variables, without the cursor.
            path: Where the list is in the data: `node.comments`.
            first: The first page, if it is known from another answer.
            variable: The variable that takes the cursor.

        Raises:
            ConnectorError: an answer has errors or no list, or the list would never end.
        """
        page: Any = first
        cursor, seen = None, set[str]()
        while True:
            if page is None:
                page = lookup(self.data(query, {**variables, variable: cursor}), path)
            info = page.get("pageInfo") if isinstance(page, Mapping) else None
            if not isinstance(info, Mapping):
                raise ConnectorError(
                    f"a query has no list with pageInfo at {path} ({redact(str(dict(variables)))})"
                )
            yield from (node for node in _nodes(page) if node is not None)
            if not info.get("hasNextPage"):
                return
            cursor = as_text(info.get("endCursor"))
            if not cursor or cursor in seen:
                raise ConnectorError(
                    f"the list at {path} goes on, but gave "
                    + (f"the cursor {cursor} a second time" if cursor else "no cursor")
                    + f"; let its query ask for endCursor, and take the cursor as ${variable}"
                )
            seen.add(cursor)
            page = None


def _nodes(page: Mapping[str, Any]) -> list[Any]:
    nodes = page.get("nodes")
    if isinstance(nodes, list):
        return nodes
    edges = page.get("edges")
    found = edges if isinstance(edges, list) else []
    return [edge.get("node") for edge in found if isinstance(edge, Mapping)]


@dataclass(frozen=True, slots=True)
class Fault:
    """One of the `errors` of an answer.

    Attributes:
        text: What it says.
        path: Where in `data` it happened; empty if unknown.
        code: Its kind in capitals, such as FORBIDDEN or TIMEOUT; "" if unknown.
    """

    text: str
    path: Path = ()
    code: str = ""

    @property
    def names_node(self) -> bool:
        """Whether it is about one element of a list."""
        return any(isinstance(step, int) for step in self.path)

    def __str__(self) -> str:
        kind = f" ({self.code})" if self.code and self.code not in self.text.upper() else ""
        where = f"{'.'.join(map(str, self.path))}: " if self.path else ""
        return f"{where}{self.text}{kind}"


def faults_in(data: Any) -> list[Fault]:
    """Returns the errors in an answer."""
    errors = data.get("errors") if isinstance(data, Mapping) else None
    return [_fault(one) for one in errors] if isinstance(errors, list) else []


def refused(faults: Sequence[Fault], hint: str = "", where: str = "the API") -> QueryError:
    """Returns the exception for a run that cannot go on because of these errors.

    Args:
        faults: The errors.
        hint: What to do about them.
        where: What answered.
    """
    more = f" and {len(faults) - _SHOWN_ERRORS} more" if len(faults) > _SHOWN_ERRORS else ""
    shown = "; ".join(map(str, faults[:_SHOWN_ERRORS]))
    return QueryError(redact(f"{where} answered with errors: {shown}{more}{hint}"), faults)


def _fault(error: Any) -> Fault:
    if not isinstance(error, Mapping):
        return Fault(as_text(error))
    extensions = error.get("extensions")
    details = extensions if isinstance(extensions, Mapping) else {}
    codes = (error.get("type"), error.get("code"), details.get("code"), details.get("type"))
    code = next((one for one in codes if isinstance(one, str) and one), "")
    path = error.get("path")
    steps = path if isinstance(path, list) else []
    # Some servers begin a path at the answer, and some write list indexes as text.
    known = [
        int(step) if isinstance(step, str) and step.isdecimal() else step
        for step in (steps[1:] if steps[:1] == ["data"] else steps)
        if isinstance(step, str | int)
    ]
    return Fault(as_text(error.get("message")) or as_text(error), tuple(known), code.upper())
