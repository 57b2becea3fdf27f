"""What GitHub's Markdown refers to: #12, owner/name#12, whole addresses, and @people.

GitHub stores Markdown, so a text stays as it is. What it refers to becomes relationships. Code and
comments are no text to GitHub, and what stands in them refers to nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from contextframe_beam.connectors.markdown import without_code

_NAME = r"[A-Za-z0-9](?:-?[A-Za-z0-9]){0,38}"
_REPOSITORY = rf"{_NAME}/[A-Za-z0-9._-]{{1,100}}"
_KINDS = {"issues": "issue", "pull": "issue", "discussions": "discussion"}

_REFERENCE = re.compile(
    rf"(?:\b(?P<closes>clos(?:e|es|ed)|fix(?:es|ed)?|resolv(?:e|es|ed))\b:?[ \t]+)?"
    rf"(?:https?://(?P<host>[\w.:-]+)/(?P<there>{_REPOSITORY})/(?P<kind>issues|pull|discussions)/"
    rf"(?P<at>[0-9]{{1,9}})(?![A-Za-z0-9])"
    rf"|(?<![^\W_])(?<![/.#&-])(?P<other>{_REPOSITORY})#(?P<its>[0-9]{{1,9}})(?![A-Za-z0-9])"
    rf"|(?<![^\W_])(?<![/#&-])(?:#|GH-)(?P<own>[0-9]{{1,9}})(?![A-Za-z0-9]))",
    re.I,
)
_MENTION = re.compile(rf"(?<![\w/@.`-])@(?P<login>{_NAME}(?:/[A-Za-z0-9_-]{{1,100}})?)(?![\w@-])")
_LINK = re.compile(r"https?://\S+")


@dataclass(frozen=True)
class Referred:
    """What a text refers to.

    Attributes:
        repository: `owner/name`; empty for the text's own.
        kind: issue (which pull requests are too) or discussion.
        number: Its number there.
        closes: Whether the text says that it closes it.
    """

    repository: str
    kind: str
    number: int
    closes: bool = False


def references(text: str, host: str) -> list[Referred]:
    """Returns what a text refers to, each once, in order.

    Args:
        text: GitHub's Markdown.
        host: The host whose addresses are of GitHub, such as github.com.
    """
    found: dict[tuple[str, str, int], Referred] = {}
    for match in _REFERENCE.finditer(without_code(text)):
        if match["host"] and match["host"].lower() != host.lower():
            continue
        number = int(match["at"] or match["its"] or match["own"])
        if not number:
            continue
        name = match["there"] or match["other"] or ""
        kind = _KINDS[match["kind"].lower()] if match["kind"] else "issue"
        key = (name.lower(), kind, number)
        before = found.get(key)
        closes = bool(match["closes"]) or (before is not None and before.closes)
        found[key] = Referred(name if before is None else before.repository, kind, number, closes)
    return list(found.values())


def mentions(text: str) -> list[str]:
    """Returns the people and teams that a text mentions, each once, without the @."""
    without_links = _LINK.sub(" ", without_code(text))
    return list(
        {one["login"].lower(): one["login"] for one in _MENTION.finditer(without_links)}.values()
    )


def relationships(
    text: str | None,
    number: int,
    name: str,
    numbers: Mapping[str, int],
    host: str,
    parents: Iterable[str] = (),
    own: str = "",
) -> list[dict[str, Any]]:
    """Returns the relationships of a text.

    Args:
        text: GitHub's Markdown, or None.
        number: The number of its repository.
        name: The repository's name.
        numbers: The numbers of the repositories that are read as well, by their names in small
            letters. What is in others is referred to by its address.
        host: The host of addresses.
        parents: The ids that it belongs to.
        own: Its own id, which it does not refer to.
    """
    made = [{"relationship_type": "parent", "target_id": parent} for parent in parents]
    referred: dict[str, dict[str, Any]] = {}
    for one in references(text or "", host):
        target = _target(one, number, name, numbers, host)
        if target == own:
            continue
        relation = referred.setdefault(
            target, {"relationship_type": "reference", "target_id": target}
        )
        if one.closes:
            relation["metadata"] = {"closes": True}
    people = [
        {"relationship_type": "mentions", "target_id": f"github:user/{login.lower()}"}
        for login in mentions(text or "")
    ]
    return [*made, *referred.values(), *people]


def _target(one: Referred, number: int, name: str, numbers: Mapping[str, int], host: str) -> str:
    known = {**numbers, name.lower(): number}
    there = number if not one.repository else known.get(one.repository.lower())
    if there is not None:
        return f"github:{there}/{one.kind}/{one.number}"
    folder = "issues" if one.kind == "issue" else "discussions"
    return f"https://{host}/{one.repository}/{folder}/{one.number}"
