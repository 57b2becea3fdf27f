"""Who may read a channel: by the permissions of roles and the exceptions that a channel makes.

A member may what any of its roles may. A channel takes from that, and then gives, first for
everyone, then for roles, and last for single members.

Source: https://discord.com/developers/docs/topics/permissions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

ADMINISTRATOR = 1 << 3
VIEW_CHANNEL = 1 << 10
READ_HISTORY = 1 << 16
CONNECT = 1 << 20

#: What a permission is called where people set it.
PERMISSIONS = {
    VIEW_CHANNEL: "View Channels",
    READ_HISTORY: "Read Message History",
    CONNECT: "Connect",
}

_VOICE = (2, 13)
_ROLE, _MEMBER = 0, 1


@dataclass(frozen=True)
class Rule:
    """The exception that a channel makes for a role or a member.

    Attributes:
        allow: The permissions that it gives.
        deny: Those that it takes.
    """

    allow: int = 0
    deny: int = 0

    def on(self, may: int) -> int:
        """Returns permissions after it."""
        return may & ~self.deny | self.allow


_NO_RULE = Rule()


@dataclass(frozen=True)
class Rules:
    """The exceptions of a channel.

    Attributes:
        everyone: That for all members.
        roles: Those for roles, by their ids.
        members: Those for members.
    """

    everyone: Rule
    roles: Mapping[str, Rule]
    members: Mapping[str, Rule]

    @classmethod
    def of(cls, channel: Mapping[str, Any], server: str) -> Rules | None:
        """Returns those of a channel; None where it does not tell them.

        Args:
            channel: As Discord tells it.
            server: The id of the server, which is also that of the role of everyone.
        """
        told = channel.get("permission_overwrites")
        if not isinstance(told, list):
            return None
        groups: tuple[dict[str, Rule], dict[str, Rule]] = ({}, {})
        for one in told:
            if not isinstance(one, Mapping) or one.get("type") not in (_ROLE, _MEMBER):
                return None
            allow, deny = bits_of(one.get("allow")), bits_of(one.get("deny"))
            if allow is None or deny is None:
                return None
            groups[one["type"]][str(one.get("id"))] = Rule(allow, deny)
        roles, members = groups
        return cls(roles.pop(server, _NO_RULE), roles, members)


def bits_of(told: Any) -> int | None:
    """Returns permissions, which Discord writes as the text of a number."""
    text = str(told)
    return int(text) if text.isascii() and text.isdecimal() else None


def needed(channel: Mapping[str, Any]) -> int:
    """Returns the permissions that reading a channel needs."""
    return VIEW_CHANNEL | READ_HISTORY | (CONNECT if channel.get("type") in _VOICE else 0)


def permissions_of(
    roles: Mapping[str, int], server: str, own: Iterable[str], member: str, rules: Rules
) -> int:
    """Returns what a member may do in a channel.

    Args:
        roles: The permissions of all roles of the server, by their ids.
        server: The id of the server.
        own: The roles of the member.
        member: Its id.
        rules: The exceptions of the channel.
    """
    own = list(own)
    may = roles.get(server, 0)
    for role in own:
        may |= roles.get(role, 0)
    if may & ADMINISTRATOR:
        return -1
    may = rules.everyone.on(may)
    several = [rules.roles.get(role, _NO_RULE) for role in own]
    deny = allow = 0
    for one in several:
        deny, allow = deny | one.deny, allow | one.allow
    return rules.members.get(member, _NO_RULE).on(may & ~deny | allow)


def missing(may: int, need: int) -> str:
    """Returns the names of needed permissions that are missing; "" if none is."""
    return ", ".join(name for bit, name in PERMISSIONS.items() if need & bit & ~may)


def readers_of(
    channel: Mapping[str, Any], server: str, owner: str, roles: Mapping[str, int]
) -> list[str]:
    """Returns who may read a channel.

    `discord-channel:<id>` always stands for those who see it. Beside it stand the whole server or
    the roles and members of whom that is certain: one role may read what another one hides.

    Args:
        channel: As Discord tells it.
        server: The id of the server.
        owner: The id of its owner, or "".
        roles: The permissions of all its roles, by their ids; empty where they are not known.
    """
    found = [f"discord-channel:{channel.get('id')}"]
    rules, need = Rules.of(channel, server), needed(channel)
    if rules is None or server not in roles:
        return found
    base = roles[server]
    # A member without a permission would be among those of a role that has it.
    excludes = any(one.deny & need for one in rules.members.values())
    hidden = 0
    for one in rules.roles.values():
        hidden |= one.deny
    # What every member may, whichever roles it has.
    certain = -1 if base & ADMINISTRATOR else rules.everyone.on(base) & ~hidden
    if not excludes and not need & ~certain:
        return [*found, f"discord-guild:{server}"]
    for role, own in roles.items():
        if role == server:
            continue
        if (base | own) & ADMINISTRATOR:
            found.append(f"discord-role:{role}")
        elif not excludes:
            rule = rules.roles.get(role, _NO_RULE)
            others = 0
            for name, one in rules.roles.items():
                others |= one.deny if name != role else 0
            may = rule.on(rules.everyone.on(base | own)) & ~(others & ~rule.allow)
            if not need & ~may:
                found.append(f"discord-role:{role}")
    for member, rule in rules.members.items():
        if not need & ~rule.on(certain):
            found.append(f"user:{member}")
    if owner:
        found.append(f"user:{owner}")
    return sorted(set(found))
