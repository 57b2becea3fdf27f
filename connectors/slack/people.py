"""What ids of a workspace stand for: people, groups and channels, each asked for once a run."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from contextframe_beam.connectors.slack.api import SlackApi, SlackError
from contextframe_beam.connectors.slack.mrkdwn import text_in

# So many people are listed; of a larger workspace only those who wrote are asked for.
_LISTED_PAGES = 25
_PEOPLE_IN_A_PAGE = 200
_MEMBERS_IN_A_PAGE = 999
_WRITER_OF_TOMBSTONES = "USLACKBOT"


class People:
    """Tells names, and who is in a channel. What cannot be found out stays an id.

    Args:
        api: Asks Slack.
        tell: Is told once of what the app may not ask for.
    """

    def __init__(self, api: SlackApi, tell: Callable[[str], object]) -> None:
        self._api = api
        self._tell = tell
        self._lock = threading.RLock()
        self.forget()

    def forget(self) -> None:
        """Forgets all names, which may be others in the next run."""
        with self._lock:
            self._users: dict[str, tuple[str, str, bool]] | None = None
            self._groups: dict[str, str] | None = None
            self._channels: dict[str, str | None] = {}
            self._refused: set[str] = set()

    def user(self, identifier: str) -> str | None:
        """Returns the name of a person or a bot, as others see it."""
        if identifier == _WRITER_OF_TOMBSTONES:
            return "Slackbot"
        return self._user(identifier)[0] or None

    def group(self, identifier: str) -> str | None:
        """Returns the handle of a group of people."""
        with self._lock:
            if self._groups is None:
                self._groups = dict(self._listed_groups())
            return self._groups.get(identifier)

    def channel(self, identifier: str) -> str | None:
        """Returns the name of a channel."""
        with self._lock:
            if identifier not in self._channels:
                found = self._asked("conversations.info", "channel", channel=identifier)
                self._channels[identifier] = text_in(found, "name") or None
            return self._channels[identifier]

    def remember(self, channels: Mapping[str, str]) -> None:
        """Remembers the names of channels, so that nobody has to ask for them."""
        with self._lock:
            self._channels.update(channels)

    def members(self, channel: str) -> list[str]:
        """Returns the ids of those who are in a channel, in order.

        Raises:
            SlackError: the app may not ask.
        """
        members: list[str] = []
        for page in self._api.pages(
            "conversations.members", channel=channel, limit=_MEMBERS_IN_A_PAGE
        ):
            members += [one for one in page.get("members") or () if isinstance(one, str)]
        return sorted(members)

    def readers(self, members: Iterable[str]) -> list[str]:
        """Returns people as readers: `user:ana@example.com`, or `user:U123`; bots are left out."""
        told = {one: self._user(one) for one in members}
        return sorted(
            {f"user:{mail or one}" for one, (_, mail, is_bot) in told.items() if not is_bot}
        )

    def _user(self, identifier: str) -> tuple[str, str, bool]:
        """Returns the name of a person, the address, and whether it is a bot."""
        with self._lock:
            if self._users is None:
                self._users = dict(self._listed_users())
            known = self._users.get(identifier)
            if known is None:
                found = self._asked("users.info", "user", user=identifier)
                known = self._users[identifier] = _known(found)
            return known

    def _listed_users(self) -> Iterator[tuple[str, tuple[str, str, bool]]]:
        try:
            pages = self._api.pages("users.list", limit=_PEOPLE_IN_A_PAGE)
            for _, page in zip(range(_LISTED_PAGES), pages, strict=False):
                for one in page.get("members") or ():
                    if isinstance(one, Mapping):
                        yield text_in(one, "id"), _known(one)
        except SlackError as error:
            self._leave("users.list", error)

    def _listed_groups(self) -> Iterator[tuple[str, str]]:
        try:
            for one in self._api.all("usergroups.list", "usergroups"):
                yield text_in(one, "id"), text_in(one, "handle") or text_in(one, "name")
        except SlackError as error:
            self._leave("usergroups.list", error)

    def _asked(self, method: str, name: str, **arguments: Any) -> Mapping[str, Any]:
        """Returns an object; an empty one where the app may not see it."""
        if method in self._refused:
            return {}
        try:
            found = self._api.call(method, **arguments).get(name)
        except SlackError as error:
            if error.code == "missing_scope":
                self._refused.add(method)
            self._leave(method, error)
            return {}
        return found if isinstance(found, Mapping) else {}

    def _leave(self, method: str, error: SlackError) -> None:
        """Passes over what only concerns names.

        Raises:
            SlackError: Slack refuses the token itself.
        """
        if not error.is_unreadable:
            raise error
        if error.code == "missing_scope":
            self._tell(f"{method}: {error}. Ids stand in the place of names")


def _known(told: Mapping[str, Any]) -> tuple[str, str, bool]:
    profile = told.get("profile")
    profile = profile if isinstance(profile, Mapping) else {}
    names = (
        text_in(profile, "display_name"),
        text_in(profile, "real_name"),
        text_in(told, "real_name"),
        text_in(told, "name"),
    )
    name = next((one.strip() for one in names if one.strip()), "")
    return name, text_in(profile, "email").strip().lower(), told.get("is_bot") is True
