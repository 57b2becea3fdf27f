"""What of a directory is not read, in words: links, hidden files, and where no file matches at all.

Hidden files are told of once for each source and then known to be left out. Releases before this
one have read them, and so has a run that was asked to: a mirror must not take them for gone unsaid.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from contextframe_beam.connectors.json_files.listing import Listing

#: The name under which it is kept, among the states of partitions, that hidden files are left out.
HIDDEN = "hidden"

_LEFT_OUT = {"left_out": True}
_MOST_KINDS = 4


def left_out(listing: Listing, states: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Returns what was left out although the pattern means it, each with what to do about it.

    Args:
        listing: The files.
        states: The states of the source; hidden files are no news when one says so.
    """
    found = []
    if listing.outside:
        some = _some(listing.outside, "link to a folder", "links to folders", "lead")
        advice = "such links are not followed: give their folders as sources of their own"
        found.append((f"{some} out of the directory", advice))
    if listing.unnamed:
        some = _some(listing.unnamed, "object", "objects", "have")
        found.append((f"{some} a key that ends in a slash", "such keys are not read: copy them"))
    if listing.hidden and states.get(HIDDEN) != _LEFT_OUT:
        advice = (
            "such files are read with hidden=True. Documents that an earlier run made "
            "of them are kept by this run, and deleted by the next mirror"
        )
        found.append(
            (f"{_some(listing.hidden, 'hidden file', 'hidden files', 'were')} left out", advice)
        )
    return found


def state_after(
    listing: Listing, with_hidden: bool, states: Mapping[str, Any]
) -> dict[str, Any] | None:
    """Returns what is kept of this among the states; None where nothing was kept and need be."""
    if listing.hidden:
        return dict(_LEFT_OUT)
    if with_hidden and HIDDEN in states:
        return {"left_out": False}
    return states.get(HIDDEN)


def described(names: Iterable[str]) -> str:
    """Returns which kinds of files there are, and how to have them read.

    Args:
        names: The paths of files below the directory, with slashes.
    """
    kinds: Counter[str] = Counter()
    for name in names:
        path = PurePosixPath(name)
        kind = f"*{path.suffix}" if path.suffix and path.stem else path.name
        kinds[f"**/{kind}" if len(path.parts) > 1 else kind] += 1
    if not kinds:
        return "there is no file in it"
    shown = ", ".join(f"{count:,} {kind}" for kind, count in kinds.most_common(_MOST_KINDS))
    more = f" and {len(kinds) - _MOST_KINDS} kinds more" if len(kinds) > _MOST_KINDS else ""
    best = max(kinds, key=lambda kind: (".json" in kind or ".ndjson" in kind, kinds[kind]))
    return f"there are {shown}{more}; the pattern {best!r} would match some"


_SINGULAR = {"were": "was", "have": "has", "lead": "leads"}


def _some(paths: Sequence[str], one: str, several: str, verb: str) -> str:
    if len(paths) == 1:
        return f"1 {one}, {printable(paths[0])}, {_SINGULAR[verb]}"
    return f"{len(paths):,} {several}, such as {printable(paths[0])}, {verb}"


def printable(path: str) -> str:
    """Returns a path as text that can be stored: Linux allows file names that are no Unicode."""
    if path.isascii():
        return path
    return path.encode(errors="surrogateescape").decode(errors="backslashreplace")
