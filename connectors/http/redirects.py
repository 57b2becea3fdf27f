"""Where a redirect leads, and what of a request goes along.

Browsers make a GET of a POST that is redirected, and a GET without the body asks for everything.
So a body goes along where sending it twice does no harm. Elsewhere the redirect is refused, with
the address to write instead.
"""

from __future__ import annotations

import dataclasses
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from contextframe_beam.connectors import secrets
from contextframe_beam.connectors.http import urls
from contextframe_beam.connectors.http.failure import named
from contextframe_beam.connectors.http.request import HttpRequest, HttpResponse
from contextframe_beam.connectors.plain_secrets import looks_secret
from contextframe_beam.errors import ConnectorError

STATUSES = frozenset({301, 302, 303, 307, 308})


def redirected(request: HttpRequest, response: HttpResponse, url: str) -> HttpRequest:
    """Returns the request that follows a redirect.

    Args:
        request: What was asked, without credentials.
        response: The redirect.
        url: Where it leads, absolute.

    Raises:
        ConnectorError: the body would be lost, or the address is none.
    """
    origin = urls.origin_of(url)
    target = urls.with_query(request.url, request.params)
    is_same = _same_place(target, url)
    query = urlsplit(target).query
    if is_same and query and not urlsplit(url).query:
        url = f"{url}?{query}"
    along = dataclasses.replace(request, url=url, params={})
    has_body = request.json is not None or request.form is not None
    if has_body and origin != urls.origin_of(request.url):
        raise _refusal(
            request,
            response,
            url,
            "another server, which gets neither bodies nor credentials; if the API is there, write "
            f"base_url: {_base_of(url)}",
        )
    if request.method in ("GET", "HEAD") or response.status in (307, 308):
        return along
    if response.status == 303 and not is_same:
        # The body was taken; its result is there.
        return dataclasses.replace(along, method="GET", json=None, form=None)
    if request.repeatable:
        return along
    if has_body:
        raise _refusal(
            request,
            response,
            url,
            f"and its body is not sent a second time; ask for {urls.shown(url)} instead, or say "
            "with safe_to_repeat that it only reads",
        )
    return dataclasses.replace(along, method="GET")


def without_secrets(request: HttpRequest) -> HttpRequest:
    """Returns the request as another origin may see it: a link may carry what we sent before.

    Raises:
        ConnectorError: it has a body, or a secret in its path.
    """

    def told(name: str, value: Any) -> bool:
        return looks_secret(name) or secrets.redact(str(value)) != str(value)

    # Here names do not count: signed addresses have parameters such as X-Amz-Security-Token.
    query = parse_qsl(urlsplit(request.url).query, keep_blank_values=True)
    ours = [name for name, value in query if secrets.redact(value) != value]
    bare = dataclasses.replace(
        request,
        url=urls.without_query(request.url, ours) if ours else request.url,
        headers={k: v for k, v in request.headers.items() if not told(k, v)},
        params={k: v for k, v in request.params.items() if not told(k, v)},
    )
    path = urlsplit(bare.url).path
    if bare.json is not None or bare.form is not None or secrets.redact(path) != path:
        raise ConnectorError(
            f"{named(request)} is at another server, which gets neither bodies nor credentials; "
            "only plain requests are sent there"
        )
    return bare


def _same_place(one: str, other: str) -> bool:
    """Tells whether two addresses differ by no more than scheme, port, query and a last slash."""
    first, second = urlsplit(one), urlsplit(other)
    return first.hostname == second.hostname and unquote(first.path).rstrip("/") == unquote(
        second.path
    ).rstrip("/")


def _base_of(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def _refusal(request: HttpRequest, response: HttpResponse, url: str, why: str) -> ConnectorError:
    return ConnectorError(
        secrets.redact(
            f"{named(request)} was redirected ({response.status}) to {urls.shown(url)}, {why}"
        )
    )
