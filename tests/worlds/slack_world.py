"""A workspace of Slack as an app sees it.

Requests and answers are checked against the types of Slack's own client, blocks against those of
its package of blocks. The world is faithful in what a connector trips over: every answer is 200;
messages come newest first and without replies; the parent comes first on each page of replies; a
reply moves `latest_reply` of its parent and no more; what was deleted is not there, or a tombstone
above its replies; pages that are empty and go on; limits for each method; channels without the app;
scopes; tokens that end after hours; files that need a token and lead to a login page without.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from decimal import Decimal
from email.utils import formatdate
from typing import Any

from tests.worlds.described import Answer, Asked, Window, World
from tests.worlds.slack_description import (
    DESCRIPTION,
    arguments,
    cursor_of,
    ok,
    page_of,
    refused,
    told_by,
)

TOKEN = "xoxb-reader-0123456789"
TEAM = "T0000WORLD"
#: Requests a minute, as Slack's tiers have them.
TIERS = {
    "conversations.list": 20,
    "users.list": 20,
    "usergroups.list": 20,
    "conversations.history": 50,
    "conversations.replies": 50,
    "conversations.join": 50,
    "conversations.info": 50,
    "users.info": 100,
    "files.info": 100,
    "conversations.members": 100,
}
SCOPES = frozenset(
    (
        *("channels:history", "channels:read", "groups:history", "groups:read", "im:history"),
        *("im:read", "mpim:history", "mpim:read", "users:read", "users:read.email", "files:read"),
        *("usergroups:read", "channels:join"),
    )
)
_NEEDED = {
    **{f"conversations.{name}": "channel" for name in ("history", "info", "join", "members")},
    **{"conversations.replies": "ts", "users.info": "user"},
}
_PREFIXES = {"im": "im", "mpim": "mpim", "private_channel": "groups", "public_channel": "channels"}
_MOST = 999


class SlackWorld(World):
    """A workspace, which a test fills and edits.

    Attributes:
        now: Seconds since 1970, by the workspace's clock; each change moves it seven seconds.
        channels: Channels by their ids.
        messages: Messages and replies of each channel, by their ts.
        members: The people of each channel, by their ids.
        people: Users by their ids.
        groups: Groups of users.
        scopes: What the app may do.
        tokens: The tokens that are accepted.
        ended: Tokens whose time is over.
        limits: The limit of each method, where limits are on.
        empty: Methods whose lists begin with an empty page.
        largest: The most objects of a page of messages.
        files: The bytes of files by the id.
        is_bot: Whether the token is a bot's, which reads no channel without the app.
    """

    description = DESCRIPTION

    def __init__(self, now: float = 1_767_600_000) -> None:
        self.now = Decimal(str(now))
        self.channels: dict[str, dict[str, Any]] = {}
        self.messages: dict[str, dict[str, dict[str, Any]]] = {}
        self.members: dict[str, list[str]] = {}
        self.people: dict[str, dict[str, Any]] = {}
        self.hidden_people: dict[str, dict[str, Any]] = {}
        self.groups: list[dict[str, Any]] = []
        self.scopes = set(SCOPES)
        self.tokens = {TOKEN}
        self.ended: set[str] = set()
        self.limits: dict[str, Window] = {}
        self.empty: set[str] = set()
        self.largest = _MOST
        self.files: dict[str, bytes] = {}
        self.is_bot = True
        self.refresh_token = "xoxe-1-first-refresh-token"
        self._number = 0
        self._lists: dict[str, tuple[int, list[str]]] = {}
        self._changes = 0
        super().__init__()
        self.ada = self.user("Ada")
        self.bob = self.user("Bob")

    @property
    def api(self) -> str:
        """The address of the API."""
        return f"{self.url}/api/"

    def user(self, name: str, listed: bool = True, **more: Any) -> str:
        """Adds a person and returns the id; one who is not listed is of another workspace."""
        identifier = self._next("U")
        profile = {
            "display_name": name,
            "real_name": f"{name} Lovelace",
            "email": f"{name}@Acme.test",
            "team": TEAM,
        }
        told = {
            "id": identifier,
            "team_id": TEAM if listed else "T0000OTHER",
            "name": name.lower(),
            "deleted": False,
            "real_name": f"{name} Lovelace",
            "profile": profile,
            "is_bot": False,
            **more,
        }
        (self.people if listed else self.hidden_people)[identifier] = told
        return identifier

    def channel(
        self,
        name: str,
        kind: str = "public_channel",
        member: bool = True,
        members: Sequence[str] = (),
        **more: Any,
    ) -> str:
        """Adds a channel and returns its id.

        Args:
            name: Its name.
            kind: `public_channel`, `private_channel`, `im` or `mpim`.
            member: Whether the app is in it.
            members: The people in it.
            **more: What else it has: `is_archived=True`.
        """
        identifier = self._next({"im": "D", "public_channel": "C"}.get(kind, "G"))
        told: dict[str, Any] = {
            "id": identifier,
            "created": int(self.now),
            "is_archived": False,
            "is_im": kind == "im",
            "is_org_shared": False,
            "context_team_id": TEAM,
        }
        if kind == "im":
            told |= {"user": members[0], "is_user_deleted": False, "priority": 0}
        else:
            told |= {
                "name": name,
                "name_normalized": name,
                "is_channel": kind == "public_channel",
                "is_group": kind == "private_channel",
                "is_mpim": kind == "mpim",
                "is_private": kind != "public_channel",
                "is_member": member,
                "is_ext_shared": False,
                "shared_team_ids": [TEAM],
                "topic": {"value": "", "creator": "", "last_set": 0},
                "purpose": {"value": "", "creator": "", "last_set": 0},
                "num_members": len(members),
            }
        self.channels[identifier] = {**told, **more}
        self.messages[identifier] = {}
        self.members[identifier] = list(members)
        self._changes += 1
        return identifier

    def say(
        self,
        channel: str,
        text: str,
        user: str | None = None,
        thread: str | None = None,
        ts: str | None = None,
        **more: Any,
    ) -> str:
        """Adds a message, or a reply, and returns its ts.

        Args:
            channel: The id of its channel.
            text: In the markup of Slack.
            user: Who wrote it; Ada by default.
            thread: The ts of the message that it replies to.
            ts: Its ts; by default the workspace's clock.
            **more: What else it has: `blocks=[...]`, `subtype="thread_broadcast"`.
        """
        ts = ts or self._tick()
        told: dict[str, Any] = {
            "type": "message",
            "user": user or self.ada,
            "text": text,
            "ts": ts,
            "team": TEAM,
            **more,
        }
        if told.get("subtype") == "bot_message":
            del told["user"]
        if thread is not None:
            told |= {"thread_ts": thread, "parent_user_id": self.ada}
        self.messages[channel][ts] = told
        if thread is not None:
            self._count_replies(channel, thread)
        self._changes += 1
        return ts

    def edit(self, channel: str, ts: str, text: str) -> None:
        """Changes the text of a message."""
        told = self.messages[channel][ts]
        told |= {"text": text, "edited": {"user": told.get("user", self.ada), "ts": self._tick()}}
        told.pop("blocks", None)
        self._changes += 1

    def delete(self, channel: str, ts: str) -> None:
        """Deletes a message; above replies stays a tombstone."""
        self._tick()
        told = self.messages[channel].pop(ts)
        thread = told.get("thread_ts")
        if thread == ts:
            kept = ("type", "ts", "thread_ts", "reply_count", "reply_users", "latest_reply")
            self.messages[channel][ts] = {
                **{name: told[name] for name in kept},
                "subtype": "tombstone",
                "hidden": True,
                "text": "This message was deleted.",
                "user": "USLACKBOT",
            }
        elif thread is not None:
            self._count_replies(channel, thread)
        self._changes += 1

    def react(self, channel: str, ts: str, name: str, *users: str) -> None:
        """Adds a reaction to a message."""
        told = self.messages[channel][ts]
        one = {"name": name, "users": list(users), "count": len(users)}
        told["reactions"] = [*told.get("reactions", ()), one]
        self._changes += 1

    def upload(self, name: str, data: bytes, **more: Any) -> dict[str, Any]:
        """Keeps a file, and returns what a message says of it."""
        identifier = self._next("F")
        self.files[identifier] = data
        ending = name.rpartition(".")[2]
        private = f"{self.url}/files-pri/{TEAM}-{identifier}"
        return {
            "id": identifier,
            "created": int(self.now),
            "timestamp": int(self.now),
            "name": name,
            "title": name,
            "mimetype": f"application/{ending}",
            "filetype": ending,
            "user": self.ada,
            "mode": "hosted",
            "is_external": False,
            "size": len(data),
            "url_private": f"{private}/{name}",
            "url_private_download": f"{private}/download/{name}",
            "permalink": f"https://acme.slack.test/files/{self.ada}/{identifier}/{name}",
            "permalink_public": f"https://slack-files.test/{TEAM}-{identifier}-5ecre7",
            **more,
        }

    @contextmanager
    def limited(self, tiers: Mapping[str, int] = TIERS, seconds: float = 60.0) -> Iterator[None]:
        """Switches on the limits of Slack, for each method apart."""
        self.limits = {name: Window(count, seconds) for name, count in tiers.items()}
        yield
        self.limits = {}

    def sent(self, method: str) -> int:
        """Returns how many requests called a method."""
        return sum(one.asked.path == f"/api/{method}" for one in self.served)

    def unknown(self, asked: Asked) -> Answer:
        """Answers a request that the description does not have."""
        return refused("unknown_method", req_method=asked.path)

    def beside(self, asked: Asked) -> Answer | None:
        """Answers a renewal of a token, and requests for files."""
        if asked.path == "/api/oauth.v2.access":
            return self._renewed(asked)
        if asked.path.startswith("/files-pri/"):
            return self._file(asked)
        if asked.path == "/login":
            return Answer(headers={"Content-Type": "text/html"}, body=b"<html>Sign in</html>")
        return None

    def answer(self, asked: Asked) -> Answer:
        """Answers a request."""
        method = asked.path.removeprefix("/api/")
        limit = self.limits.get(method)
        wait = limit.wait() if limit else 0.0
        if wait:
            headers = {"Retry-After": str(math.ceil(wait))}
            return Answer(429, headers, {"ok": False, "error": "ratelimited"})
        given = arguments(asked)
        token = asked.bearer or given.get("token", "")
        if token in self.ended:
            return refused("token_expired")
        if token not in self.tokens:
            return refused("invalid_auth")
        needed = _NEEDED.get(method)
        if needed is not None and not given.get(needed):
            return refused("invalid_arguments")
        answer: Answer = {
            "auth.test": self._auth_test,
            "conversations.list": self._conversations,
            "conversations.info": self._info,
            "conversations.history": self._history,
            "conversations.replies": self._replies,
            "conversations.members": self._members,
            "conversations.join": self._join,
            "users.list": self._users,
            "users.info": self._user,
            "usergroups.list": self._groups,
            "files.info": self._file_info,
        }[method](given)
        answer.headers.setdefault("x-oauth-scopes", ",".join(sorted(self.scopes)))
        # The workspace has a clock of its own.
        answer.headers["Date"] = formatdate(float(self.now), usegmt=True)
        return answer

    def _auth_test(self, _: Mapping[str, str]) -> Answer:
        bot = {"bot_id": "B0000READER", "is_enterprise_install": False} if self.is_bot else {}
        return ok(
            url="https://acme.slack.test/",
            team="Acme",
            user="reader",
            team_id=TEAM,
            user_id="U0000READER",
            **bot,
        )

    def _conversations(self, given: Mapping[str, str]) -> Answer:
        types = given.get("types", "public_channel").split(",")
        for one in types:
            if missing := self._lacks(f"{_PREFIXES[one]}:read"):
                return missing
        found = [
            one
            for one in self.channels.values()
            if kind_of(one) in types
            and not (one["is_archived"] and given.get("exclude_archived") == "true")
            # A private channel without the app is not there for it.
            and (kind_of(one) == "public_channel" or one.get("is_member", True))
        ]
        return self._listed("conversations.list", "channels", found, given, 1000)

    def _info(self, given: Mapping[str, str]) -> Answer:
        found = self.channels.get(given["channel"])
        if found is None or (found.get("is_private") and not found.get("is_member")):
            return refused("channel_not_found")
        return self._lacks(f"{_PREFIXES[kind_of(found)]}:read") or ok(channel=_without_count(found))

    def _join(self, given: Mapping[str, str]) -> Answer:
        found = self.channels.get(given["channel"])
        if missing := self._lacks("channels:join"):
            return missing
        if found is None:
            return refused("channel_not_found")
        if found["is_archived"]:
            return refused("is_archived")
        found["is_member"] = True
        return ok(channel=_without_count(found))

    def _members(self, given: Mapping[str, str]) -> Answer:
        if (refusal := self._unread(given["channel"], "read")) is not None:
            return refusal
        return self._listed(
            "conversations.members", "members", self.members[given["channel"]], given, _MOST
        )

    def _users(self, given: Mapping[str, str]) -> Answer:
        missing = self._lacks("users:read")
        if missing:
            return missing
        people = [self._shown(one) for one in self.people.values()]
        return self._listed("users.list", "members", people, given, 1000, cache_ts=int(self.now))

    def _user(self, given: Mapping[str, str]) -> Answer:
        found = self.people.get(given["user"]) or self.hidden_people.get(given["user"])
        if missing := self._lacks("users:read"):
            return missing
        return ok(user=self._shown(found)) if found else refused("user_not_found")

    def _file_info(self, given: Mapping[str, str]) -> Answer:
        told = (one for said in self.messages.values() for one in said.values())
        files = (file for one in told for file in one.get("files", ()))
        found = next((file for file in files if file["id"] == given["file"]), None)
        if missing := self._lacks("files:read"):
            return missing
        return ok(file=found) if found else refused("file_not_found")

    def _groups(self, _: Mapping[str, str]) -> Answer:
        return self._lacks("usergroups:read") or ok(usergroups=self.groups)

    def _history(self, given: Mapping[str, str]) -> Answer:
        channel = given["channel"]
        if (refusal := self._unread(channel, "history")) is not None:
            return refusal
        messages = self.messages[channel]
        cursor = given.get("cursor", "")
        size = min(int(given.get("limit", 100)), self.largest)
        if not cursor and "conversations.history" in self.empty:
            return page_of("messages", [], cursor_of("next_ts:9999999999.999999"), ok=True)
        until = Decimal(told_by(cursor).removeprefix("next_ts:")) if cursor else None
        order = self._order(channel)
        start = 0
        if until is not None:
            start = _first(order, lambda ts: Decimal(ts) <= until)
        elif given.get("latest"):
            latest, inclusive = Decimal(given["latest"]), given.get("inclusive") == "true"
            start = _first(
                order, lambda ts: Decimal(ts) < latest or (inclusive and Decimal(ts) == latest)
            )
        found = order[start : start + size]
        following = order[start + size : start + size + 1]
        if given.get("oldest"):
            oldest, inclusive = Decimal(given["oldest"]), given.get("inclusive") == "true"
            is_in = [
                Decimal(one) > oldest or (inclusive and Decimal(one) == oldest)
                for one in [*found, *following]
            ]
            found = [ts for ts, inside in zip(found, is_in, strict=False) if inside]
            following = following if is_in and all(is_in) else []
        pinned = cursor_of(f"next_ts:{following[0]}") if following else ""
        return page_of("messages", [messages[ts] for ts in found], pinned, pin_count=0)

    def _replies(self, given: Mapping[str, str]) -> Answer:
        channel, thread = given["channel"], given["ts"]
        if (refusal := self._unread(channel, "history")) is not None:
            return refusal
        parent = self.messages[channel].get(thread)
        if parent is None:
            return refused("thread_not_found")
        size = min(int(given.get("limit", 1000)), self.largest)
        oldest = Decimal(given.get("oldest") or 0)
        replies = [
            one
            for one in self._replies_of(channel, thread)
            if Decimal(one["ts"]) > oldest
            or (given.get("inclusive") == "true" and Decimal(one["ts"]) == oldest)
        ]
        start = int(told_by(given["cursor"])) if given.get("cursor") else 0
        if not given.get("cursor") and "conversations.replies" in self.empty:
            return page_of("messages", [parent], cursor_of("0"))
        rest = replies[start : start + max(size - 1, 1)]
        end = start + len(rest)
        following = cursor_of(str(end)) if end < len(replies) else ""
        return page_of("messages", [parent, *rest], following)

    def _listed(
        self,
        method: str,
        name: str,
        found: Sequence[Any],
        given: Mapping[str, str],
        most: int,
        **more: Any,
    ) -> Answer:
        size = min(int(given.get("limit") or most), most)
        cursor = given.get("cursor", "")
        start = int(told_by(cursor)) if cursor else 0
        end = start if not cursor and method in self.empty else start + size
        following = cursor_of(str(end)) if end < len(found) else ""
        answer = page_of(name, list(found[start:end]), following, **more)
        answer.body.pop("has_more")
        return answer

    def _unread(self, channel: str, what: str) -> Answer | None:
        found = self.channels.get(channel)
        if found is None or (found.get("is_private") and not found.get("is_member", True)):
            return refused("channel_not_found")
        kind = kind_of(found)
        if missing := self._lacks(f"{_PREFIXES[kind]}:{what}"):
            return missing
        is_out = not found.get("is_member", True)
        return refused("not_in_channel") if is_out and self.is_bot and what == "history" else None

    def _lacks(self, scope: str) -> Answer | None:
        if scope in self.scopes:
            return None
        told = {"needed": scope, "provided": ",".join(sorted(self.scopes))}
        return refused("missing_scope", **told)

    def _shown(self, person: Mapping[str, Any]) -> dict[str, Any]:
        hidden = set() if "users:read.email" in self.scopes else {"email"}
        profile = {n: v for n, v in person["profile"].items() if n not in hidden}
        return {**person, "profile": profile}

    def _renewed(self, asked: Asked) -> Answer:
        body = asked.body or {}
        if body.get("refresh_token") != self.refresh_token:
            return refused("invalid_refresh_token")
        if (body.get("client_id"), body.get("client_secret")) != ("1.2", "secret-of-the-app"):
            return refused("bad_client_secret")
        self._number += 1
        self.ended |= self.tokens
        token = f"xoxe.xoxb-1-token-{self._number:08d}"
        self.tokens = {token}
        self.refresh_token = f"xoxe-1-refresh-token-{self._number:08d}"
        return ok(
            access_token=token,
            refresh_token=self.refresh_token,
            token_type="bot",
            expires_in=43200,
            scope="channels:history",
        )

    def _file(self, asked: Asked) -> Answer:
        identifier = asked.path.split("/")[2].removeprefix(f"{TEAM}-")
        if asked.bearer not in self.tokens or "files:read" not in self.scopes:
            return Answer(302, {"Location": f"{self.url}/login?redir={asked.path}"})
        data = self.files.get(identifier)
        if data is None:
            return Answer(404, {"Content-Type": "text/html"}, b"<html>Not found</html>")
        kind = {"Content-Type": "application/octet-stream", "ETag": f'"{identifier}"'}
        told = asked.headers.get("range", "")
        if not told.startswith("bytes="):
            return Answer(200, kind, data)
        first, last = (int(one) for one in told.removeprefix("bytes=").split("-"))
        if first >= len(data):
            return Answer(416, {"Content-Range": f"bytes */{len(data)}"}, b"")
        part = data[first : last + 1]
        where = f"bytes {first}-{first + len(part) - 1}/{len(data)}"
        return Answer(206, {**kind, "Content-Range": where}, part)

    def _order(self, channel: str) -> list[str]:
        """Returns the ts of what a channel shows, the newest first."""
        kept = self._lists.get(channel)
        if kept is None or kept[0] != self._changes:
            shown = [
                ts
                for ts, one in self.messages[channel].items()
                if one.get("thread_ts") in (None, ts) or one.get("subtype") == "thread_broadcast"
            ]
            kept = self._lists[channel] = (self._changes, sorted(shown, key=Decimal, reverse=True))
        return kept[1]

    def _replies_of(self, channel: str, thread: str) -> list[dict[str, Any]]:
        found = [
            one
            for ts, one in self.messages[channel].items()
            if one.get("thread_ts") == thread and ts != thread
        ]
        return sorted(found, key=lambda one: Decimal(one["ts"]))

    def _count_replies(self, channel: str, thread: str) -> None:
        parent = self.messages[channel].get(thread)
        if parent is None:
            return
        replies = self._replies_of(channel, thread)
        if not replies:
            if parent.get("subtype") == "tombstone":
                del self.messages[channel][thread]
            for name in ("thread_ts", "reply_count", "reply_users", "latest_reply"):
                parent.pop(name, None)
            return
        parent |= {
            "thread_ts": thread,
            "reply_count": len(replies),
            "reply_users": list(dict.fromkeys(one.get("user", "") for one in replies)),
            "latest_reply": replies[-1]["ts"],
        }

    def _next(self, letter: str) -> str:
        self._number += 1
        return f"{letter}0{self._number:07d}"

    def _tick(self, seconds: float = 7) -> str:
        self.now += Decimal(str(seconds))
        self._number += 1
        return f"{int(self.now)}.{self._number % 1_000_000:06d}"


def kind_of(channel: Mapping[str, Any]) -> str:
    """Returns the type of a channel, as lists name it."""
    if channel.get("is_im"):
        return "im"
    if channel.get("is_mpim"):
        return "mpim"
    return "private_channel" if channel.get("is_private") else "public_channel"


def _without_count(channel: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a channel as Slack shows it where nobody asks how many are in it."""
    return {name: one for name, one in channel.items() if name != "num_members"}


def _first(order: Sequence[str], is_in: Any) -> int:
    """Returns the first place of a sorted list at which something is so, and stays so."""
    low, high = 0, len(order)
    while low < high:
        middle = (low + high) // 2
        if is_in(order[middle]):
            high = middle
        else:
            low = middle + 1
    return low
