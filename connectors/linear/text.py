"""What Linear's Markdown refers to: addresses in Linear, people, and uploaded files.

Linear gives Markdown, so a text stays as it is. A mention of an issue, a project, a document or a
person is a link to it. What stands in code refers to nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple
from urllib.parse import unquote

from contextframe_beam.connectors.markdown import without_code

# The names in addresses end with a letter or a digit; what follows is of the sentence around them.
_NAME = r"[\w%](?:[\w%.~-]*[^\W_])?"
_ADDRESS = re.compile(
    rf"https?://linear\.app/(?P<workspace>[\w-]+)/"
    rf"(?P<kind>issue|project|document|initiative|profiles)/(?P<name>{_NAME})",
    re.I,
)
_HANDLE = re.compile(rf"(?<![\w/@.`-])@(?P<name>{_NAME})(?![\w@/])")
_LINK = re.compile(r"https?://\S+")
_IDENTIFIER = re.compile(r"[A-Z0-9]+-[0-9]{1,9}\Z", re.I)
#: Addresses of documents, projects and initiatives end with what names them for ever.
_SLUG = re.compile(r"(?:.*-)?([0-9a-f]{8,})\Z", re.I)
_UPLOAD_END = r"[^\s<>()\[\]\"'`?#]+"


class Target(NamedTuple):
    """What an address in Linear leads to.

    Attributes:
        kind: issue, project, document or initiative.
        name: The identifier of an issue in capitals, else the end of the address.
        address: The address, without what follows the name.
    """

    kind: str
    name: str
    address: str


class Upload(NamedTuple):
    """A file that was uploaded to Linear.

    Attributes:
        address: Where it is; it needs the account's credentials.
        name: What the text calls it.
        is_image: Whether the text shows it as an image.
    """

    address: str
    name: str
    is_image: bool = False


def targets(text: str, workspace: str) -> list[Target]:
    """Returns what the addresses in a text lead to, each once, in order.

    Args:
        text: Linear's Markdown.
        workspace: The name of the workspace in addresses; those of others lead elsewhere. Empty for
            any.
    """
    found: dict[tuple[str, str], Target] = {}
    for match in _addresses(text, workspace):
        kind, name = match["kind"].lower(), unquote(match["name"])
        slug = _SLUG.match(name)
        if kind == "issue" and _IDENTIFIER.match(name):
            name = name.upper()
        elif kind in ("project", "document", "initiative") and slug:
            name = slug[1].lower()
        else:
            continue
        found.setdefault((kind, name), Target(kind, name, match[0]))
    return list(found.values())


def profiles(text: str, workspace: str) -> list[str]:
    """Returns the names in the addresses of people, each once, in order.

    Args:
        text: Linear's Markdown.
        workspace: The name of the workspace in addresses.
    """
    found = _addresses(text, workspace)
    names = [unquote(one["name"]) for one in found if one["kind"].lower() == "profiles"]
    return list(dict.fromkeys(names))


def handles(text: str) -> list[str]:
    """Returns the names after an @, each once, in order; they need not be of people."""
    shown = _LINK.sub(" ", without_code(text))
    return list(dict.fromkeys(match["name"] for match in _HANDLE.finditer(shown)))


def uploads(text: str, host: str) -> list[Upload]:
    """Returns the files in a text that were uploaded to Linear, each once, in order.

    Args:
        text: Linear's Markdown.
        host: The address before their paths, https://uploads.linear.app.
    """
    pattern = re.compile(
        rf"(?:(?P<image>!)?\[(?P<label>(?:[^\[\]\\]|\\.)*)\]\(\s*<?)?"
        rf"(?P<address>{re.escape(host.rstrip('/'))}/{_UPLOAD_END})",
        re.I,
    )
    found: dict[str, Upload] = {}
    for match in pattern.finditer(without_code(text)):
        address = match["address"].rstrip(".,;:!*_~|/")
        label = re.sub(r"\\(.)", r"\1", match["label"] or "").strip()
        last = unquote(address.rpartition("/")[2])
        known = found.get(address)
        if known is None or (known.name == last and label):
            found[address] = Upload(address, label or last, match["image"] is not None)
    return list(found.values())


def relationships(
    text: str, workspace: str, links: Mapping[str, str], known: Mapping[str, str], own: str
) -> list[dict[str, Any]]:
    """Returns the relationships of a text.

    Args:
        text: Linear's Markdown.
        workspace: The name of the workspace in addresses.
        links: The ids of documents by the addresses that lead to them. What is not among them is
            referred to by its address.
        known: The ids of people by the names, in small letters, that texts have for them.
        own: The document's own id, which it does not refer to.
    """
    referred = dict.fromkeys(
        links.get(one.address, one.address) for one in targets(text, workspace)
    )
    people = [known.get(one.lower(), one) for one in profiles(text, workspace)]
    people += [known[one.lower()] for one in handles(text) if one.lower() in known]
    return [
        *({"relationship_type": "reference", "target_id": one} for one in referred if one != own),
        *(
            {"relationship_type": "mentions", "target_id": f"linear:user/{one}"}
            for one in dict.fromkeys(people)
        ),
    ]


def _addresses(text: str, workspace: str) -> Iterator[re.Match[str]]:
    for match in _ADDRESS.finditer(without_code(text)):
        if not workspace or match["workspace"].lower() == workspace.lower():
            yield match
