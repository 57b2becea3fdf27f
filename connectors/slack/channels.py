"""Which channels of a workspace are read, and who may read what is in them."""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from contextframe_beam.connectors.conversations import version_of
from contextframe_beam.connectors.slack.api import SlackApi, SlackError
from contextframe_beam.connectors.slack.mrkdwn import text_in
from contextframe_beam.connectors.slack.people import People
from contextframe_beam.errors import ConfigError, nearest

#: Channels by type, as Slack calls them: public and private ones, group and direct messages.
TYPES = ("public_channel", "private_channel", "mpim", "im")
PUBLIC, PRIVATE, GROUP, DIRECT = TYPES

# The names of people in group messages, and a number.
_GROUP = re.compile(r"mpdm-(.+)-\d+")
_ID = re.compile(r"[CGD][A-Z0-9]{6,}\Z")
# Slack asks for less than 1000.
_PAGE = 999
# More channels that the app is not in are named together.
_NAMED_ALONE = 20


@dataclass(frozen=True)
class Team:
    """The workspace, and who the token belongs to.

    Attributes:
        id: Its id.
        name: Its name.
        url: Its address, with a slash at the end.
        is_bot: Whether the token is a bot's, which reads only channels that it is in.
    """

    id: str
    name: str
    url: str
    is_bot: bool


@dataclass(frozen=True)
class Choice:
    """Which channels are read.

    Attributes:
        channels: Ids, names and patterns of names; all by default.
        exclude: The same, of those to leave out.
        types: Their types.
        archived: Whether archived ones are read.
        join: Whether the app joins public ones that it is not in.
    """

    channels: tuple[str, ...]
    exclude: tuple[str, ...]
    types: tuple[str, ...]
    archived: bool
    join: bool

    def __post_init__(self) -> None:
        for one in self.types:
            if one not in TYPES:
                hint = nearest(one, TYPES) or f"; types are {', '.join(TYPES)}"
                raise ConfigError(f"there is no type of channel {one!r}{hint}")
        if not self.types:
            raise ConfigError(f"types is empty; give one or more of {', '.join(TYPES)}")

    @property
    def ids(self) -> list[str]:
        """The ids among `channels`."""
        return [one for one in self.channels if _ID.match(one)]

    def names(self, channel: Mapping[str, Any]) -> bool:
        """Returns whether a channel was named, and not only meant by a pattern."""
        return any(matches(channel, one) for one in self.channels if not _is_pattern(one))

    def is_excluded(self, channel: Mapping[str, Any]) -> bool:
        """Returns whether a channel is to be left out."""
        return any(matches(channel, one) for one in self.exclude)


def found_channels(
    api: SlackApi,
    choice: Choice,
    team: Team,
    skip: Callable[[str, object], object],
    known: Container[str] | None = None,
) -> Iterator[dict[str, Any]]:
    """Yields the channels that are to be read.

    Public channels that the app is not in are named by a run that reads everything. A later run
    names those that it has read before.

    Args:
        api: Asks Slack.
        choice: Which of them.
        team: The workspace.
        skip: Is told of those that cannot be read, and why.
        known: The ids of those that an earlier run has read; None to read everything.

    Raises:
        SlackError: Slack refuses the token.
    """
    unseen = dict.fromkeys(choice.channels)
    outside: list[str] = []
    for channel in _listed(api, choice, skip):
        for pattern in choice.channels:
            if matches(channel, pattern):
                unseen.pop(pattern, None)
        if choice.is_excluded(channel) or not (choice.archived or not _is_archived(channel)):
            continue
        if _is_outside(channel, team) and not (choice.join and _joined(api, channel, skip)):
            is_told = known is None or channel["id"] in known or choice.names(channel)
            if is_told and (not choice.join or _is_archived(channel)):
                outside.append(label_of(channel))
            continue
        yield channel
    for pattern in unseen:
        if not _is_pattern(pattern) and pattern not in choice.ids:
            skip(pattern, "there is no such channel, or it is private and the app is not in it")
    why = "the app is not in it; invite it (/invite @app), set join, or name channels"
    for label in outside[:_NAMED_ALONE]:
        skip(label, why)
    if rest := outside[_NAMED_ALONE:]:
        skip(f"{len(rest):,} more channels", why.replace("in it", "in them", 1))


def matches(channel: Mapping[str, Any], pattern: str) -> bool:
    """Returns whether an id, a name or a pattern of names means a channel."""
    name = text_in(channel, "name")
    bare = pattern.removeprefix("#")
    return pattern == channel.get("id") or (bool(name) and fnmatchcase(name, bare))


def kind_of(channel: Mapping[str, Any]) -> str:
    """Returns the type of a channel."""
    if channel.get("is_im") is True:
        return DIRECT
    if channel.get("is_mpim") is True:
        return GROUP
    return PRIVATE if channel.get("is_private") is True else PUBLIC


def label_of(channel: Mapping[str, Any]) -> str:
    """Returns what people call a channel: `#general`, or `@ada, @bob` for their group messages."""
    name = text_in(channel, "name")
    group = _GROUP.fullmatch(name)
    if group is not None and kind_of(channel) == GROUP:
        return ", ".join(f"@{one}" for one in group[1].split("--"))
    return f"#{name}" if name else text_in(channel, "id")


@dataclass(frozen=True)
class Shared:
    """Who may read a channel.

    Attributes:
        readers: The readers.
        members: What is another one whenever people join or leave; "" where that is not asked.
    """

    readers: list[str]
    members: str = ""


def shared_with(
    channel: Mapping[str, Any],
    team: Team,
    people: People,
    by_member: bool,
    known: Mapping[str, Any],
) -> Shared:
    """Returns who may read a channel: the workspace, or those who are in it.

    Args:
        channel: The channel.
        team: The workspace.
        people: Tells who is in it.
        by_member: Whether the members of a private channel are named, or the channel itself.
        known: The state of the run before, whose readers are those of the same members.

    Raises:
        SlackError: Slack refuses the token.
    """
    if kind_of(channel) == PUBLIC:
        shared = channel.get("shared_team_ids")
        teams = {one for one in (shared if isinstance(shared, list) else ()) if one}
        return Shared(sorted(f"slack-team:{one}" for one in {team.id, *teams}))
    itself = Shared([f"slack-channel:{channel['id']}"])
    if not by_member:
        return itself
    try:
        members = people.members(str(channel["id"]))
    except SlackError as error:
        if not error.is_unreadable:
            raise
        return itself
    version = version_of(members)
    if version == known.get("members") and isinstance(known.get("readers"), list):
        return Shared(known["readers"], version)
    readers = people.readers(members)
    return Shared(readers, version) if readers else itself


def _listed(
    api: SlackApi, choice: Choice, skip: Callable[[str, object], object]
) -> Iterator[dict[str, Any]]:
    """Yields channels as Slack lists them; those that are named by ids are asked for."""
    seen: set[str] = set()
    for identifier in choice.ids:
        try:
            found = api.call("conversations.info", channel=identifier).get("channel")
        except SlackError as error:
            if not error.is_unreadable:
                raise
            skip(identifier, error)
            continue
        if isinstance(found, dict) and found.get("id") not in seen:
            seen.add(str(found.get("id")))
            yield found
    if choice.channels and len(choice.ids) == len(choice.channels):
        return
    for channel in _of_types(api, choice, skip):
        is_wanted = not choice.channels or any(matches(channel, one) for one in choice.channels)
        if is_wanted and channel.get("id") not in seen:
            seen.add(str(channel.get("id")))
            yield channel


def _of_types(
    api: SlackApi, choice: Choice, skip: Callable[[str, object], object]
) -> Iterator[dict[str, Any]]:
    def asked(types: Sequence[str]) -> Iterator[dict[str, Any]]:
        return api.all(
            "conversations.list",
            "channels",
            types=",".join(types),
            exclude_archived=None if choice.archived else True,
            limit=_PAGE,
        )

    try:
        yield from asked(choice.types)
        return
    except SlackError as error:
        if error.code != "missing_scope":
            raise
        if len(choice.types) == 1:
            skip(f"{choice.types[0]}s", error)
            return
    # The app may see some of the types.
    for one in choice.types:
        try:
            yield from asked([one])
        except SlackError as error:
            if error.code != "missing_scope":
                raise
            skip(f"{one}s", error)


def _is_archived(channel: Mapping[str, Any]) -> bool:
    return channel.get("is_archived") is True


def _is_outside(channel: Mapping[str, Any], team: Team) -> bool:
    """Returns whether a bot is not in a channel, and so cannot read it."""
    return team.is_bot and channel.get("is_member") is False and kind_of(channel) == PUBLIC


def _joined(
    api: SlackApi, channel: Mapping[str, Any], skip: Callable[[str, object], object]
) -> bool:
    if _is_archived(channel):
        return False
    try:
        api.call("conversations.join", channel=channel["id"])
    except SlackError as error:
        if not error.is_unreadable:
            raise
        skip(label_of(channel), error)
        return False
    return True


def _is_pattern(text: str) -> bool:
    return any(sign in text for sign in "*?[")
