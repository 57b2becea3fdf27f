"""Addresses: joined, compared by origin, and shown without secrets.

An origin is the scheme, host and port of an address. Credentials are bound to one.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl, quote, unquote_plus, urlencode, urljoin, urlsplit, urlunsplit

from urllib3.exceptions import LocationParseError
from urllib3.util import Url, parse_url

from contextframe_beam.connectors.plain_secrets import STARS, looks_secret
from contextframe_beam.connectors.secrets import redact
from contextframe_beam.errors import ConfigError, ConnectorError

_PORTS = {"http": 80, "https": 443}
_AMPERSAND = re.compile(r"&(?:amp|#38|#x26);", re.I)
_LINE_BREAK = re.compile(r"[\t\r\n]")


def parsed(url: str) -> Url:
    """Returns the parts of an address, as the code that opens connections sees them.

    Raises:
        ConnectorError: it is no address of HTTP.
    """
    try:
        parts = parse_url(url)
    except LocationParseError:
        parts = Url()
    if parts.scheme not in _PORTS or not parts.host:
        raise ConnectorError(
            f"{shown(url)!r} is not an address of HTTP; only http:// and https:// are opened"
        )
    return parts


@lru_cache(maxsize=1024)
def origin_of(url: str) -> str:
    """Returns `https://host:443` for an address.

    Raises:
        ConnectorError: it is no address of HTTP.
    """
    parts = parsed(url)
    host = (parts.host or "").rstrip(".")
    return f"{parts.scheme}://{host}:{parts.port or _PORTS[parts.scheme or '']}"


def checked_base(url: str) -> str:
    """Returns the address that a client is made for, without a slash at its end.

    Raises:
        ConfigError: it is no address of HTTP, or it holds a password, a query or a fragment.
    """
    try:
        parts = parsed(url)
    except ConnectorError as error:
        message = str(error)
    else:
        if parts.auth is None and parts.query is None and parts.fragment is None:
            return url.strip().rstrip("/")
        message = (
            f"base_url is {shown(url)!r}; write it without user, query and fragment, and give "
            "credentials as auth"
        )
    raise ConfigError(message)


def joined(base: str, url: str) -> str:
    """Returns `url` as an absolute address.

    `items` is below the base, `/items` at the root of its host, `?page=2` the base itself with
    that query.

    Raises:
        ConnectorError: it is no address.
    """
    if not url or url.startswith("?"):
        return base + url
    try:
        return urljoin(base + "/", url)
    except ValueError:
        pass
    raise ConnectorError(f"{redact(url)!r} is not an address")


def linked(url: str, link: str) -> str:
    """Returns an address that an answer names as an absolute one.

    Read is what servers write: relative to the answer or to its scheme, with `&amp;` for `&`, with
    blanks, a fragment, capitals in scheme and host, or the port that the scheme has anyway.

    Args:
        url: The address of the answer.
        link: What it says; what is no address stays as it is.
    """
    text = _AMPERSAND.sub("&", _LINE_BREAK.sub("", link.strip())).replace(" ", "%20")
    try:
        parts = urlsplit(urljoin(url, text))
        user, at, host = parts.netloc.rpartition("@")
        host = host.lower()
        if parts.scheme in _PORTS:
            host = host.removesuffix(f":{_PORTS[parts.scheme]}")
    except ValueError:
        return link
    return urlunsplit(parts._replace(netloc=f"{user}{at}{host}", fragment=""))


def at_own(url: str, base: str, names: Collection[str], others: Collection[str]) -> str:
    """Returns an address of our server as we ask for it, under its own name.

    Servers behind a proxy often do not know the scheme, the port or the name by which they are
    asked, and write their own into links. Any other server's address stays as it is.

    Args:
        url: The address.
        base: An address of our server.
        names: Origins that are other names of it.
        others: Origins that are other servers, whatever they look like.

    Raises:
        ConnectorError: it is no address of HTTP.
    """
    here, there = parsed(base), parsed(url)
    own, origin = origin_of(base), origin_of(url)
    if origin == own or origin in others:
        return url
    port = int(own.rpartition(":")[2])
    is_alike = here.host == there.host and there.port in (None, port, *_PORTS.values())
    if not is_alike and origin not in names:
        return url
    parts = urlsplit(base)
    return urlunsplit(urlsplit(url)._replace(scheme=parts.scheme, netloc=parts.netloc))


def encoded_pairs(params: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Returns names and values as a query or a form has them.

    None is left out, lists repeat the name, True is `true`.
    """
    pairs: list[tuple[str, str]] = []
    for name, value in params.items():
        values = value if isinstance(value, list | tuple) else [value]
        pairs.extend((name, _text(one)) for one in values if one is not None)
    return pairs


def with_query(url: str, params: Mapping[str, Any]) -> str:
    """Returns the address with `params` in its query, each in place of what had its name."""
    pairs = encoded_pairs(params)
    if not pairs:
        return url
    base = without_query(url, {name for name, _ in pairs})
    parts = urlsplit(base)
    added = urlencode(pairs, safe=":,/@", quote_via=quote)
    return urlunsplit(parts._replace(query=f"{parts.query}&{added}" if parts.query else added))


def without_query(url: str, names: Iterable[str]) -> str:
    """Returns the address without the parameters of these names; the others stay as written."""
    gone = set(names)
    parts = urlsplit(url)
    kept = [
        piece
        for piece in parts.query.split("&")
        if piece and unquote_plus(piece.partition("=")[0]) not in gone
    ]
    return urlunsplit(parts._replace(query="&".join(kept)))


def shown(url: str) -> str:
    """Returns the address as a message may show it: no secret, no user, no long query."""
    # First, because a secret is not found any more in the form that it is written in below.
    url = redact(url)
    try:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
        names = [
            (name, STARS if looks_secret(name) or len(value) > 100 else redact(value))
            for name, value in parse_qsl(parts.query, keep_blank_values=True)
        ]
    except ValueError:
        return url.partition("?")[0]
    query = urlencode(names, safe="*[]:,/@", quote_via=quote)
    return redact(urlunsplit((parts.scheme, host, parts.path, query, "")))


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
