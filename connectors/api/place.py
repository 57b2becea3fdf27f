"""Where in a request a value goes: query, header, JSON body, form field or path."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote

from contextframe_beam.connectors.http.request import HttpRequest

# Parameters that count pages or records from the front.
_COUNTED = re.compile(
    r"(?!per|itemsper|rowsper).*page(?:number|no|num|index)?|p|pg|.*offset|.*skip|from"
    r"|start(?:at|index|row|record)?"
)

WHERE = ("query", "header", "body", "form", "path")

#: A name alone is a query parameter; `header:X-Page`, `body:variables.after` say where else.
PATTERN = rf"^(?:(?:{'|'.join(WHERE)}):)?[^\s:]+$"


@dataclass(frozen=True, slots=True)
class Place:
    """A place in a request.

    Attributes:
        where: query, header, body, form or path.
        name: The parameter, header or field; in a body a dotted path such as `variables.after`;
            in a path the name of a placeholder, as in `/items/{page}`.
    """

    where: str
    name: str

    @classmethod
    def of(cls, text: str) -> Place:
        """Reads `page`, `header:X-Page`, `body:variables.after`, `form:page` or `path:page`."""
        where, colon, name = text.partition(":")
        return cls(where, name) if colon and where in WHERE else cls("query", text)

    def put(self, request: HttpRequest, value: Any) -> HttpRequest:
        """Returns the request with a value at this place."""
        if self.where == "query":
            return replace(request, params={**request.params, self.name: value})
        if self.where == "header":
            return replace(request, headers={**request.headers, self.name: str(value)})
        if self.where == "body":
            return replace(request, json=_with(request.json, self.name.split("."), value))
        if self.where == "form":
            return replace(request, form={**(request.form or {}), self.name: value})
        return replace(request, url=request.url.replace(f"{{{self.name}}}", quoted(value)))


def without_placeholder(request: HttpRequest, place: Place) -> HttpRequest:
    """Returns the request without a path's placeholder and the slash before it."""
    if place.where != "path":
        return request
    url = re.sub(rf"/?\{{{re.escape(place.name)}\}}", "", request.url)
    return replace(request, url=url)


def is_counted(name: str, value: Any) -> bool:
    """Tells whether a parameter says how many pages or records lie before what it asks for."""
    plain = re.sub(r"[^a-z]", "", name.lower())
    return _COUNTED.fullmatch(plain) is not None and re.fullmatch(r"\d+", str(value)) is not None


def quoted(value: Any) -> str:
    """Returns a value as one segment of a URL's path."""
    text = quote(str(value), safe="")
    # A segment of dots alone would name another folder.
    return text.replace(".", "%2E") if text in (".", "..") else text


def _with(body: Any, names: list[str], value: Any) -> dict[str, Any]:
    changed = dict(body) if isinstance(body, Mapping) else {}
    if len(names) == 1:
        changed[names[0]] = value
    else:
        changed[names[0]] = _with(changed.get(names[0]), names[1:], value)
    return changed
