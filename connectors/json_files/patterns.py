"""Patterns such as `**/*.json`: which names they mean, and which of these are hidden.

A pattern is matched part by part, against the names on the way to a file, whether it lies on a disk
or is a key of an object store. `*`, `?` and `[...]` stand for characters of one name, and `**` for
any number of folders. As in a shell, none of them means a name that begins with a dot: such a part
of a pattern begins with a dot itself.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Sequence
from enum import Enum
from functools import lru_cache
from pathlib import PurePosixPath

from contextframe_beam.errors import ConfigError

#: Stands for any number of folders.
ANY_FOLDERS = "**"


class Match(Enum):
    """What a name is to a pattern."""

    NO = 0
    HIDDEN = 1
    YES = 2


def parts_of(pattern: str) -> list[str]:
    """Returns what a pattern says of each name on the way to a file.

    Raises:
        ConfigError: it does not name files below the directory.
    """
    if not pattern or pattern.startswith("/") or ".." in PurePosixPath(pattern).parts:
        raise ConfigError(
            f"pattern {pattern!r} must name files below the directory, as in '**/*.json'"
        )
    parts = [part for part in pattern.split("/") if part not in ("", ".")]
    if parts[-1:] == [ANY_FOLDERS]:
        parts.append("*")
    if not parts:
        raise ConfigError(f"pattern {pattern!r} names no file; give one such as '*.json'")
    return parts


def match_name(part: str, name: str) -> Match:
    """Tells whether one name is what one part of a pattern means."""
    if part == ANY_FOLDERS:
        return Match.HIDDEN if name.startswith(".") else Match.YES
    if part == name:
        return Match.YES
    if not _compiled(part)(name):
        return Match.NO
    return Match.HIDDEN if name.startswith(".") and not part.startswith(".") else Match.YES


def match_names(parts: Sequence[str], names: Sequence[str]) -> Match:
    """Tells whether the names on the way to a file are what the parts of a pattern mean."""
    if not parts or not names:
        return Match.YES if not parts and not names else Match.NO
    first, rest = parts[0], parts[1:]
    if first != ANY_FOLDERS:
        found = match_name(first, names[0])
        return found if found is Match.NO else _worse(found, match_names(rest, names[1:]))
    best, passed = Match.NO, Match.YES
    for start, name in enumerate(names):
        found = _worse(passed, match_names(rest, names[start:]))
        if found.value > best.value:
            best = found
        if best is Match.YES:
            break
        passed = _worse(passed, match_name(ANY_FOLDERS, name))
    return best


def fixed_folders(parts: Sequence[str]) -> int:
    """Returns how many folders a pattern names letter by letter before its first other part."""
    for count, part in enumerate(parts[:-1]):
        if any(character in part for character in "*?["):
            return count
    return len(parts) - 1


def _worse(one: Match, other: Match) -> Match:
    return one if one.value <= other.value else other


@lru_cache(maxsize=256)
def _compiled(part: str) -> Callable[[str], re.Match[str] | None]:
    return re.compile(fnmatch.translate(part)).match
