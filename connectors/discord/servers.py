"""What there is to read: servers, their channels and active threads, and which of them are wanted.

Discord calls a server a guild. A server tells all its channels, also those that the bot may not
see, and all its active threads that it may.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any

from contextframe_beam.connectors.discord.access import bits_of, readers_of
from contextframe_beam.connectors.http import HttpClient, HttpError, HttpRequest
from contextframe_beam.errors import ConnectorError

#: Types of channels: those with messages, those with threads, and those that hold others.
WITH_MESSAGES = frozenset({0, 2, 5, 13})
WITH_THREADS = frozenset({0, 5, 15, 16})
FORUMS = frozenset({15, 16})
CATEGORY = 4
PRIVATE_THREAD = 12

#: The moment at which ids begin, in milliseconds since 1970.
_FIRST_MILLISECOND = 1_420_070_400_000
# An address of a server, and of a channel in it.
_ADDRESS = re.compile(r"https?://(?:\w+\.)?discord\.com/channels/(\d+)(?:/(\d+))?(?:/\d+)?/?\Z")
_SERVERS_IN_A_PAGE = 200

Skip = Callable[[str, object], Any]


def point_of_id(identifier: str | int) -> Decimal:
    """Returns the moment of an id, in seconds since 1970."""
    return Decimal((int(identifier) >> 22) + _FIRST_MILLISECOND).scaleb(-3)


def id_at(point: Decimal) -> int:
    """Returns the least id of a moment; ids before it are those of earlier ones."""
    return max(int(point * 1000) - _FIRST_MILLISECOND, 0) << 22


def id_in(told: Mapping[str, Any], name: str) -> str:
    """Returns an id that Discord told; "" where it tells none."""
    value = told.get(name)
    return value if isinstance(value, str) and value.isascii() and value.isdecimal() else ""


@dataclass(frozen=True)
class Server:
    """A server, as the bot sees it.

    Attributes:
        id: Its id.
        name: Its name.
        owner: The id of its owner.
        roles: The permissions of its roles by their ids; without those that are not told.
        names: The names of its roles and channels by their ids.
        channels: Its channels, as Discord tells them.
        active: Its active threads.
    """

    id: str
    name: str
    owner: str = ""
    roles: Mapping[str, int] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)
    channels: Sequence[Mapping[str, Any]] = ()
    active: Sequence[Mapping[str, Any]] = ()

    def readers(self, channel: Mapping[str, Any]) -> list[str]:
        """Returns who may read a channel."""
        return readers_of(channel, self.id, self.owner, self.roles)

    def path_of(self, channel: Mapping[str, Any]) -> str:
        """Returns `category/name` of a channel, or its name alone."""
        above = self._categories.get(id_in(channel, "parent_id"), "")
        name = str(channel.get("name") or "")
        return f"{above}/{name}" if above else name

    @cached_property
    def _categories(self) -> dict[str, str]:
        return {
            id_in(one, "id"): str(one.get("name"))
            for one in self.channels
            if one.get("type") == CATEGORY
        }


class Servers:
    """The servers and channels that are wanted.

    Args:
        http: Asks Discord.
        servers: Ids, names or patterns of names; empty for all.
        channels: Ids, names, `category/name`, or patterns of these; empty for all.
        exclude: The same, of channels that are left out.
        skip: Names what cannot be read.
    """

    def __init__(
        self,
        http: HttpClient,
        servers: Sequence[str],
        channels: Sequence[str],
        exclude: Sequence[str],
        skip: Skip,
    ) -> None:
        self._http = http
        self._wanted = [_ADDRESS.sub(r"\1", one.strip()) for one in servers]
        self._channels = [_plain(one) for one in channels]
        self._exclude = [_plain(one) for one in exclude]
        self._skip = skip
        #: Whether `all` could read all that are wanted.
        self.are_all_read = False

    @property
    def chosen(self) -> dict[str, list[str]]:
        """What is wanted, in one form and order."""
        return {
            "guilds": sorted(self._wanted),
            "channels": sorted(self._channels),
            "exclude": sorted(self._exclude),
        }

    @property
    def are_named(self) -> bool:
        """Whether ids say which servers are wanted."""
        return bool(self._wanted) and all(one.isdecimal() for one in self._wanted)

    def all(self) -> Iterator[Server]:
        """Yields the wanted servers.

        Raises:
            ConnectorError: the bot is in none of them, or Discord cannot be asked.
        """
        self.are_all_read = True
        met: set[str] = set()
        count = 0
        for identifier in self._ids():
            server = self._server(identifier)
            if server is not None:
                count += 1
                met |= self._met(server)
                yield server
        if not count:
            which = "no server" if not self._wanted else f"none of {', '.join(self._wanted)}"
            raise ConnectorError(
                f"the bot is in {which}; open its address for invitations (Installation, in the "
                "developer portal) as somebody who manages the server"
            )
        for one in self._channels:
            if one not in met:
                self._skip(f"channel {one}", "no server that is read has such a channel")

    def channels_of(self, server: Server) -> Iterator[Mapping[str, Any]]:
        """Yields the wanted channels of a server."""
        for one in server.channels:
            if one.get("type") not in WITH_MESSAGES | WITH_THREADS or not id_in(one, "id"):
                continue
            names = _names_of(server, one)
            if self._channels and not any(_matches(names, known) for known in self._channels):
                continue
            if not any(_matches(names, known) for known in self._exclude):
                yield one

    def _ids(self) -> Iterator[str]:
        patterns = [one for one in self._wanted if not one.isdecimal()]
        yield from dict.fromkeys(one for one in self._wanted if one.isdecimal())
        if not patterns and self._wanted:
            return
        met: set[str] = set()
        after = ""
        while True:
            params = {"limit": _SERVERS_IN_A_PAGE, **({"after": after} if after else {})}
            response = self._http.send(HttpRequest("GET", "users/@me/guilds", params=params))
            found = [one for one in listed(response.json()) if id_in(one, "id")]
            for one in found:
                name = str(one.get("name") or "").lower()
                hits = {known for known in patterns if fnmatchcase(name, known.lower())}
                met |= hits
                if (hits or not self._wanted) and one["id"] not in self._wanted:
                    yield one["id"]
            newest = max((one["id"] for one in found), key=int, default="")
            if len(found) < _SERVERS_IN_A_PAGE or newest == after:
                break
            after = newest
        for wanted in patterns:
            if wanted not in met:
                self.are_all_read = False
                self._skip(f"server {wanted}", "the bot is in no such server")

    def _server(self, identifier: str) -> Server | None:
        """Returns a server with its channels and active threads; None for one left out."""
        paths = ("", "/channels", "/threads/active")
        asked = [HttpRequest("GET", f"guilds/{identifier}{path}") for path in paths]
        try:
            told, channels, active = (one.json() for one in self._http.all(asked))
        except HttpError as error:
            if not error.is_unreadable:
                raise
            self.are_all_read = False
            self._skip(f"server {identifier}", f"the bot is not in it ({error.status})")
            return None
        told = told if isinstance(told, Mapping) else {}
        roles = [one for one in listed(told.get("roles")) if id_in(one, "id")]
        # Each bot has a role of its own, and no person has it.
        of_people = [one for one in roles if not _is_of_bot(one)]
        found = listed(channels)
        threads = active.get("threads") if isinstance(active, Mapping) else None
        return Server(
            identifier,
            str(told.get("name") or identifier),
            id_in(told, "owner_id"),
            {
                one["id"]: may
                for one in of_people
                if (may := bits_of(one.get("permissions"))) is not None
            },
            {
                one["id"]: str(one.get("name") or one["id"]).removeprefix("@")
                for one in (*roles, *found)
                if id_in(one, "id")
            },
            found,
            listed(threads),
        )

    def _met(self, server: Server) -> set[str]:
        names = [_names_of(server, one) for one in server.channels]
        return {one for one in self._channels if any(_matches(its, one) for its in names)}


def listed(told: Any) -> list[Mapping[str, Any]]:
    """Returns the objects of a list that Discord told."""
    found = told if isinstance(told, list) else []
    return [one for one in found if isinstance(one, Mapping)]


def _is_of_bot(role: Mapping[str, Any]) -> bool:
    tags = role.get("tags")
    return isinstance(tags, Mapping) and bool(tags.get("bot_id"))


def _names_of(server: Server, channel: Mapping[str, Any]) -> tuple[str, ...]:
    path = server.path_of(channel).lower()
    return id_in(channel, "id"), path.rpartition("/")[2], path


def _matches(names: Sequence[str], known: str) -> bool:
    return any(fnmatchcase(name, known) for name in names)


def _plain(name: str) -> str:
    return _ADDRESS.sub(r"\2", name.strip()).removeprefix("#").lower()
