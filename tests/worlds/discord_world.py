"""A Discord whose requests and answers are checked against Discord's own description.

Faithful in: pages that are newest first, whichever way they go; 64-bit ids made of times;
`last_message_id` that names a deleted message; threads that are active or archived, public or
private, joined or not, and are listed by their archive times; posts of forums; a message and its
thread with one id; permissions by roles and overwrites, with 403 where a channel cannot be seen,
and no messages where its history cannot; the message content intent; signed addresses of files;
limits by bucket and channel, by all requests, and of a shared resource.
"""

from __future__ import annotations

import bisect
import re
import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from tests.worlds.described import Answer, Asked, World
from tests.worlds.discord_limits import Limits
from tests.worlds.file_host import FileHost
from tests.worlds.openapi import OpenApi

TOKEN = "bot.token.of-the-world"
#: The path below which the vendor's server has version 10 of its API.
BASE = "/api/v10"
#: Milliseconds since 1970 at which ids begin.
EPOCH = 1_420_070_400_000

TEXT, VOICE, CATEGORY, NEWS, STAGE, FORUM, MEDIA = 0, 2, 4, 5, 13, 15, 16
NEWS_THREAD, PUBLIC_THREAD, PRIVATE_THREAD = 10, 11, 12
THREADS = (NEWS_THREAD, PUBLIC_THREAD, PRIVATE_THREAD)
VIEW, HISTORY, MANAGE_THREADS, ADMINISTRATOR = 1 << 10, 1 << 16, 1 << 34, 1 << 3
EVERYONE = VIEW | HISTORY
CONTENT_INTENT = 1 << 19

DISCORD = OpenApi.read("discord.openapi.json")
# Channels of media are described in words only.
_KINDS = DISCORD.document["components"]["schemas"]["ChannelTypes"]["oneOf"]
_KINDS.append({"title": "GUILD_MEDIA", "const": MEDIA})
_CHANNEL = DISCORD.document["components"]["schemas"]["GuildChannelResponse"]
_CHANNEL["properties"]["type"]["enum"].append(MEDIA)

# So are forwarded messages.
_REFERENCES = DISCORD.document["components"]["schemas"]["MessageReferenceType"]["oneOf"]
_REFERENCES.append({"title": "FORWARD", "const": 1})
# Discord's clients write booleans of a query as 1 as well.
_COUNTS = DISCORD.document["paths"]["/guilds/{guild_id}"]["get"]["parameters"][0]
_COUNTS["schema"] = {"enum": ["true", "false", "1", "0"]}

_AGENT = re.compile(r"DiscordBot \(https?://\S+,? [^)]+\).*")
_GUILD, _CHANNELS = "/guilds/{guild_id}", "/channels/{channel_id}"
_ARCHIVED = f"{_CHANNELS}/threads/archived/"
_JOINED = f"{_CHANNELS}/users/@me/threads/archived/private"


class Discord(World):
    """A server of some guilds.

    Attributes:
        now: Its time in seconds since 1970, which each change moves by one.
        guilds: Each by its id.
        channels: The channels and threads by their ids, as they are answered.
        messages: The messages of each channel by their ids.
        users: Each by name.
        intent: Whether the bot may read the content of messages.
        limits: How many requests are answered.
        gone: Channels that answer 404, while lists still show them.
        files: The host of files.
        invalid: How many answers were 401, 403 or 429.
    """

    description = DISCORD

    def __init__(self) -> None:
        self.now = time.time() - 3600
        self._number = self._signed = 0
        self.guilds: dict[str, dict[str, Any]] = {}
        self.channels: dict[str, dict[str, Any]] = {}
        self.messages: dict[str, dict[str, dict[str, Any]]] = {}
        self.users: dict[str, dict[str, Any]] = {}
        self.intent = True
        self.limits = Limits()
        self.gone: set[str] = set()
        self.invalid = 0
        self.files = FileHost("hm")
        self.bot = self.user("reader", bot=True)
        self.user("owner")
        self.bot_roles: dict[str, list[str]] = {}
        self.pinned_at: dict[str, str] = {}
        self._order: dict[str, list[int]] = {}
        super().__init__()

    @property
    def base_url(self) -> str:
        """The address of the API."""
        return self.url + BASE

    def close(self) -> None:
        self.files.close()
        super().close()

    # What people do.

    def user(self, name: str, **more: Any) -> str:
        """Adds a user, and returns its id; the same for the same name."""
        if name not in self.users:
            told = {
                "id": self.snowflake(1_500_000_000 + len(self.users)),
                "username": name,
                "global_name": name.capitalize(),
                "discriminator": "0",
                **more,
            }
            self.users[name] = DISCORD.filled(DISCORD.schema("UserResponse"), told)
        return str(self.users[name]["id"])

    def guild(self, name: str, permissions: int = EVERYONE) -> str:
        """Adds a guild, where everyone has these permissions, and returns its id."""
        identifier = self.snowflake(1_500_000_000 + len(self.guilds))
        told = {"id": identifier, "name": name, "owner_id": self.user("owner"), "roles": []}
        schema = DISCORD.schema("GuildWithCountsResponse")
        self.guilds[identifier] = DISCORD.filled(schema, told)
        self.role(identifier, "@everyone", permissions, identifier)
        self.bot_roles[identifier] = []
        return identifier

    def role(self, guild: str, name: str, permissions: int = 0, known_as: str = "") -> str:
        """Adds a role, and returns its id."""
        identifier = known_as or self.snowflake()
        told = {"id": identifier, "name": name, "permissions": str(permissions)}
        schema = DISCORD.schema("GuildRoleResponse")
        self.guilds[guild]["roles"].append(DISCORD.filled(schema, told))
        return identifier

    def channel(self, guild: str, name: str, kind: int = TEXT, **more: Any) -> str:
        """Adds a channel, and returns its id."""
        identifier = self.snowflake(more.pop("at", self.now - 86_400))
        told: dict[str, Any] = {
            "id": identifier,
            "type": kind,
            "flags": 0,
            "guild_id": guild,
            "name": name,
            "position": len(self.channels),
            "permission_overwrites": [],
            "last_message_id": None,
            **more,
        }
        if kind in (FORUM, MEDIA):
            told["available_tags"] = [
                {
                    "id": self.snowflake(),
                    "name": one,
                    "moderated": False,
                    "emoji_id": None,
                    "emoji_name": None,
                }
                for one in told.get("available_tags", ())
            ]
        self.channels[identifier] = told
        self.messages[identifier] = {}
        self._order[identifier] = []
        return identifier

    def overwrite(
        self, channel: str, of: str, allow: int = 0, deny: int = 0, kind: int = 0
    ) -> None:
        """Sets the permissions of a role (kind 0) or a user (kind 1) in a channel."""
        told = self.channels[channel]["permission_overwrites"]
        told[:] = [one for one in told if one["id"] != of]
        told.append({"id": of, "type": kind, "allow": str(allow), "deny": str(deny)})

    def message(self, channel: str, content: str = "", author: str = "ana", **more: Any) -> str:
        """Adds a message, and returns its id.

        Args:
            channel: The id of its channel or thread.
            content: What was written.
            author: The name of a user.
            **more: Other fields of it, `id` and `at` (seconds since 1970) among them.
        """
        self.user(author)
        at = more.pop("at", None)
        if at is None:
            self.now += 1
            at = self.now
        identifier = str(more.pop("id", "") or self.snowflake(at))
        told = {"id": identifier, "content": content, "author": author, **more}
        self.messages[channel][identifier] = told
        bisect.insort(self._order[channel], int(identifier))
        where = self.channels[channel]
        if not where["last_message_id"] or int(identifier) > int(where["last_message_id"]):
            where["last_message_id"] = identifier
        if where["type"] in THREADS:
            where["message_count"] += 1
            where["total_message_sent"] += 1
            if where["thread_metadata"]["archived"]:
                self.unarchive(channel)
        return identifier

    def edit(self, channel: str, message: str, **values: Any) -> None:
        """Changes fields of a message."""
        self.now += 1
        self.messages[channel][message] |= {"edited_timestamp": iso(self.now), **values}

    def delete(self, channel: str, message: str) -> None:
        """Deletes a message; its channel goes on naming it as its last one."""
        del self.messages[channel][message]
        self._order[channel].remove(int(message))

    def pin(self, channel: str, message: str) -> None:
        """Pins a message, which moves no time of it."""
        self.now += 1
        self.messages[channel][message]["pinned"] = True
        self.pinned_at[message] = iso(self.now)
        self.channels[channel]["last_pin_timestamp"] = iso(self.now)

    def thread(
        self,
        channel: str,
        name: str,
        starter: str = "",
        kind: int = PUBLIC_THREAD,
        joined: bool = False,
        tags: Sequence[str] = (),
        at: float | None = None,
    ) -> str:
        """Adds a thread, and returns its id.

        Args:
            channel: Its channel.
            name: Its name.
            starter: The id of the message that it was started from.
            kind: The type of channel that it is.
            joined: Whether the bot is a member.
            tags: The names of tags of the forum.
            at: When, in seconds since 1970.
        """
        self.now += 1
        above = self.channels[channel]
        known = {one["name"]: one["id"] for one in above.get("available_tags", ())}
        identifier = starter or self.snowflake(at)
        self.channels[identifier] = {
            "id": identifier,
            "type": kind,
            "flags": 0,
            "guild_id": above["guild_id"],
            "parent_id": channel,
            "name": name,
            "owner_id": self.user("ana"),
            "message_count": 0,
            "member_count": 1,
            "total_message_sent": 0,
            "last_message_id": None,
            "thread_metadata": {
                "archived": False,
                "archive_timestamp": iso(self.now),
                "auto_archive_duration": 1440,
                "locked": False,
                "create_timestamp": iso(self.now),
            },
            "_joined": joined,
        }
        if above["type"] in (FORUM, MEDIA):
            above["last_message_id"] = identifier
            self.channels[identifier]["applied_tags"] = [known[one] for one in tags]
        self.messages[identifier] = {}
        self._order[identifier] = []
        if starter:
            self.messages[channel][starter]["thread"] = identifier
            reference = {"type": 0, "channel_id": channel, "message_id": starter}
            self.message(identifier, type=21, message_reference=reference, at=at)
        return identifier

    def post(
        self, forum: str, name: str, content: str, tags: Sequence[str] = (), **more: Any
    ) -> str:
        """Adds a post of a forum with its first message, and returns its id."""
        identifier = self.thread(forum, name, tags=tags, at=more.pop("at", None))
        self.message(identifier, content, id=identifier, **more)
        return identifier

    def archive(self, thread: str, at: float | None = None) -> None:
        """Archives a thread."""
        self.now += 1
        told = self.channels[thread]["thread_metadata"]
        told |= {"archived": True, "archive_timestamp": iso(at or self.now)}

    def unarchive(self, thread: str) -> None:
        """Makes an archived thread active again."""
        told = self.channels[thread]["thread_metadata"]
        told |= {"archived": False, "archive_timestamp": iso(self.now)}

    def remove(self, channel: str) -> None:
        """Deletes a channel or thread."""
        for kept in (self.channels, self.messages, self._order):
            kept.pop(channel)

    def upload(self, channel: str, name: str, data: bytes, **more: Any) -> dict[str, Any]:
        """Adds a file, and returns the attachment that a message has of it."""
        identifier = self.snowflake()
        path = f"/attachments/{channel}/{identifier}/{name}"
        self.files.files[path] = data
        url = f"upload:{path}"
        sizes = {"id": identifier, "filename": name, "size": len(data)}
        return {**sizes, "url": url, "proxy_url": url, **more}

    def snowflake(self, at: float | None = None) -> str:
        """Returns a new id of the time `at`, in seconds since 1970."""
        self._number += 1
        return str((round((at or self.now) * 1000) - EPOCH << 22) + self._number % 4096)

    # What Discord answers.

    def described_path(self, path: str) -> str:
        return path.removeprefix(BASE) if path.startswith(f"{BASE}/") else "/no/version" + path

    def unknown(self, asked: Asked) -> Answer:
        return _refused(404, 0, "404: Not Found")

    def answer(self, asked: Asked) -> Answer:
        if not _AGENT.fullmatch(asked.headers.get("user-agent", "")):
            self.problems.append(f"{asked}: User-Agent names no bot")
        answer = self.limits.refused(asked)
        if answer is None and asked.headers.get("authorization") != f"Bot {TOKEN}":
            answer = _refused(401, 0, "401: Unauthorized")
        answer = answer or self._content(asked)
        if answer.status in (401, 403, 429):
            self.invalid += 1
        answer.headers |= {"Content-Type": "application/json", **self.limits.told(asked)}
        return answer

    def _content(self, asked: Asked) -> Answer:
        at, query = asked.template, asked.query
        if at == "/users/@me":
            schema = DISCORD.schema("UserPIIResponse")
            return Answer(body=DISCORD.filled(schema, self.users["reader"]))
        if at.endswith("/applications/@me"):
            told = {
                "id": self.bot,
                "name": "reader",
                "flags": self.intent * CONTENT_INTENT,
                "owner": self.users["owner"],
                "bot_public": True,
                "bot_require_code_grant": False,
            }
            return Answer(body=DISCORD.filled(DISCORD.schema("PrivateApplicationResponse"), told))
        if at == "/users/@me/guilds":
            return self._my_guilds(query)
        if at.startswith(_GUILD):
            guild = asked.params["guild_id"]
            if guild not in self.guilds:
                return _refused(404, 10004, "Unknown Guild")
            return self._of_guild(at.removeprefix(_GUILD), guild, asked.params)
        channel = asked.params["channel_id"]
        if channel not in self.channels or channel in self.gone:
            return _refused(404, 10003, "Unknown Channel")
        may = self._may(channel)
        if not may & VIEW:
            return _refused(403, 50001, "Missing Access")
        if at == _CHANNELS:
            return Answer(body=self._shown_channel(channel))
        if at.startswith(_ARCHIVED) or at == _JOINED:
            return self._archived(at, channel, may, query)
        known = self.messages[channel] if may & HISTORY else {}
        if at.endswith("/pins"):
            return self._pins(channel, known, query)
        if at.endswith("/{message_id}"):
            found = known.get(asked.params["message_id"])
            if found is None:
                return _refused(404, 10008, "Unknown Message")
            return Answer(body=self._shown(channel, found))
        return Answer(body=self._listed(channel, known, query))

    def _my_guilds(self, query: Mapping[str, str]) -> Answer:
        after = int(query.get("after") or 0)
        found = [one for one in sorted(self.guilds, key=int) if int(one) > after]
        schema = DISCORD.schema("MyGuildResponse")
        body = [
            DISCORD.filled(
                schema,
                {"id": one, "name": self.guilds[one]["name"], "permissions": str(EVERYONE)},
            )
            for one in found[: int(query.get("limit") or 200)]
        ]
        return Answer(body=body)

    def _of_guild(self, at: str, guild: str, params: Mapping[str, str]) -> Answer:
        inside = [k for k, one in self.channels.items() if one["guild_id"] == guild]
        if at == "/channels":
            found = [one for one in inside if self.channels[one]["type"] not in THREADS]
            return Answer(body=list(map(self._shown_channel, found)))
        if at == "/threads/active":
            found = [
                one
                for one in inside
                if self.channels[one]["type"] in THREADS
                and not self.channels[one]["thread_metadata"]["archived"]
                and self._may(one) & VIEW
            ]
            return Answer(body=self._threads(found, False))
        if at == "/members/{user_id}":
            named = {str(one["id"]): one for one in self.users.values()}
            told = {"user": named[params["user_id"]], "joined_at": iso(1_500_000_000)}
            told["roles"] = self.bot_roles[guild]
            return Answer(body=DISCORD.filled(DISCORD.schema("GuildMemberResponse"), told))
        return Answer(body=self.guilds[guild])

    def _archived(self, at: str, channel: str, may: int, query: Mapping[str, str]) -> Answer:
        is_private = not at.endswith("/public")
        if at == f"{_ARCHIVED}private" and not may & MANAGE_THREADS:
            return _refused(403, 50013, "Missing Permissions")
        if not may & HISTORY:
            return _refused(403, 50013, "Missing Permissions")
        found = [
            one
            for one in self.channels.values()
            if one.get("parent_id") == channel
            and one["type"] in THREADS
            and one["thread_metadata"]["archived"]
            and (one["type"] == PRIVATE_THREAD) == is_private
            and (at != _JOINED or one["_joined"])
        ]
        before = query.get("before")
        if at == _JOINED:
            found.sort(key=lambda one: -int(one["id"]))
            if before:
                found = [one for one in found if int(one["id"]) < int(before)]
        else:
            found.sort(key=_archive_time, reverse=True)
            if before:
                until = datetime.fromisoformat(before.replace("Z", "+00:00"))
                found = [one for one in found if _archive_time(one) < until]
        limit = int(query.get("limit") or 50)
        return Answer(body=self._threads([one["id"] for one in found[:limit]], len(found) > limit))

    def _threads(self, found: Sequence[str], has_more: bool) -> dict[str, Any]:
        joined = [one for one in found if self.channels[one]["_joined"]]
        members = [
            {"id": one, "user_id": self.bot, "join_timestamp": iso(self.now), "flags": 0}
            for one in joined
        ]
        shown = list(map(self._shown_channel, found))
        return {"threads": shown, "members": members, "has_more": has_more}

    def _listed(
        self, channel: str, known: Mapping[str, Any], query: Mapping[str, str]
    ) -> list[dict[str, Any]]:
        order = self._order[channel] if known else []
        limit = int(query.get("limit") or 50)
        if "after" in query:
            start = bisect.bisect_right(order, int(query["after"]))
            found = order[start : start + limit]
        else:
            end = bisect.bisect_left(order, int(query.get("before") or 1 << 63))
            found = order[max(end - limit, 0) : end]
        return [self._shown(channel, known[str(one)]) for one in reversed(found)]

    def _pins(self, channel: str, known: Mapping[str, Any], query: Mapping[str, str]) -> Answer:
        pinned = sorted(
            (self.pinned_at[one], one) for one in known if known[one].get("pinned") is True
        )
        before = query.get("before")
        found = [one for one in reversed(pinned) if not before or one[0] < before]
        limit = int(query.get("limit") or 50)
        items = [
            {"pinned_at": at, "message": self._shown(channel, known[one])}
            for at, one in found[:limit]
        ]
        return Answer(body={"items": items, "has_more": len(found) > limit})

    def _shown_channel(self, channel: str) -> dict[str, Any]:
        told = self.channels[channel]
        return {name: value for name, value in told.items() if not name.startswith("_")}

    def _shown(self, channel: str, told: Mapping[str, Any]) -> dict[str, Any]:
        """Returns a message as it is answered."""
        author = self.users[told["author"]]
        shown: dict[str, Any] = {
            "type": 0,
            "channel_id": channel,
            "mentions": [],
            "mention_roles": [],
            "mention_everyone": False,
            "attachments": [],
            "embeds": [],
            "components": [],
            "timestamp": iso((int(told["id"]) >> 22) / 1000 + EPOCH / 1000),
            "edited_timestamp": None,
            "flags": 0,
            "pinned": False,
            "tts": False,
            **told,
            "author": author,
        }
        shown["mentions"] = [self.users[one] for one in shown["mentions"]]
        if thread := shown.get("thread"):
            shown["thread"] = self._shown_channel(thread)
        reference = shown.get("message_reference")
        if reference and reference["type"] == 0 and shown["type"] in (19, 21):
            above = reference["channel_id"]
            found = self.messages.get(above, {}).get(reference.get("message_id"))
            shown["referenced_message"] = None
            if found is not None:
                quoted = self._shown(above, {**found, "message_reference": None})
                drop = ("message_reference", "thread", "reactions")
                shown["referenced_message"] = {k: v for k, v in quoted.items() if k not in drop}
        elif reference is None:
            shown.pop("message_reference", None)
        if (
            not self.intent
            and author["id"] != self.bot
            and "reader" not in told.get("mentions", ())
        ):
            shown |= {"content": "", "embeds": [], "attachments": [], "components": []}
            shown.pop("poll", None)
        return dict(self._signed_in(shown))

    def _signed_in(self, told: Any) -> Any:
        if isinstance(told, dict):
            return {name: self._signed_in(one) for name, one in told.items()}
        if isinstance(told, list):
            return [self._signed_in(one) for one in told]
        if isinstance(told, str) and told.startswith("upload:"):
            self._signed += 1
            path = told.removeprefix("upload:")
            until = int(self.now) + 86_400
            return f"{self.files.url}{path}?ex={until:x}&is={until:x}&hm=sig{self._signed:08d}"
        return told

    def _may(self, channel: str) -> int:
        """Returns the permissions of the bot in a channel."""
        told = self.channels[channel]
        guild = told["guild_id"]
        above = self.channels.get(told.get("parent_id") or "", {})
        if told["type"] in THREADS:
            if told["type"] == PRIVATE_THREAD and not told["_joined"]:
                may = self._may(told["parent_id"])
                return may if may & MANAGE_THREADS else 0
            told = above
        roles = {one["id"]: int(one["permissions"]) for one in self.guilds[guild]["roles"]}
        own = self.bot_roles[guild]
        may = roles[guild]
        for one in own:
            may |= roles[one]
        if may & ADMINISTRATOR:
            return -1
        rules = {one["id"]: one for one in told["permission_overwrites"]}
        for group in ([guild], own, [self.bot]):
            found = [rules[one] for one in group if one in rules]
            for one in found:
                may &= ~int(one["deny"])
            for one in found:
                may |= int(one["allow"])
        return may


def iso(seconds: float) -> str:
    """Returns a time as Discord writes it."""
    time = datetime.fromtimestamp(round(seconds, 6), timezone.utc)
    return time.strftime("%Y-%m-%dT%H:%M:%S.%f+00:00")


def _archive_time(thread: Mapping[str, Any]) -> datetime:
    return datetime.fromisoformat(thread["thread_metadata"]["archive_timestamp"])


def _refused(status: int, code: int, message: str) -> Answer:
    return Answer(status, body={"message": message, "code": code})
