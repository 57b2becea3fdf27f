"""The folders that are read, and where each file stands among them.

A change of Google Drive tells a file as it is now, and nothing of what is below a folder. So the
folders are kept from run to run: their paths, and what is no longer below them, come from here.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from contextframe_beam.connectors.files.listing import Exclusion, Match, match_names, parts_of

#: More folders are not kept in a state; then each run lists them.
MOST_KEPT = 100_000

#: The folders of all feeds together take no more in a state, which has a limit of its own.
MOST_TEXT = 12 << 20

#: What lies directly in what is shared with an account, and in no folder that it sees.
SHARED = "shared"


@dataclass(frozen=True)
class Folder:
    """A folder.

    Attributes:
        name: Its name.
        parent: The id of the folder that it is in; "" at the top of what is read.
        mark: What is another one when who may read it changes.
    """

    name: str
    parent: str
    mark: str = ""


class Wanted:
    """Which files are wanted, by their paths.

    Args:
        include: Patterns of paths, as in `guide/**` or `**/*.pdf`; all by default.
        exclude: What is left out: a pattern with a slash is one of paths, another one of names.
    """

    def __init__(self, include: Sequence[str], exclude: Sequence[str]) -> None:
        self._include = [parts_of(one) for one in include]
        self._exclusion = Exclusion(exclude)

    def has_file(self, names: Sequence[str]) -> bool:
        """Returns whether a file is wanted; its folders are already known to be.

        Args:
            names: Those of the folders on the way to it, without the top, and its own.
        """
        known = not self._include or any(
            match_names(one, names) is not Match.NO for one in self._include
        )
        return known and not self._exclusion.leaves_out(names)

    def has_folder(self, names: Sequence[str]) -> bool:
        """Returns whether what is in a folder may be wanted; those above it are known to be."""
        return not names or not self._exclusion.leaves_out(names)


class Folders:
    """Folders by their ids.

    Args:
        known: The folders.
    """

    def __init__(self, known: Mapping[str, Folder] | None = None) -> None:
        self.known: dict[str, Folder] = dict(known or {})
        self._paths: dict[str, tuple[str, ...]] = {}

    @classmethod
    def unpacked(cls, text: Any) -> Folders | None:
        """Returns the folders that a state holds; None where it holds none."""
        if not isinstance(text, str):
            return None
        try:
            rows = json.loads(zlib.decompress(base64.b85decode(text)))
            ids = [row[0] for row in rows]
            return cls(
                {
                    identifier: Folder(name, ids[parent] if isinstance(parent, int) else parent, m)
                    for identifier, name, parent, m in rows
                }
            )
        except (ValueError, LookupError, TypeError, zlib.error):  # edited by hand
            return None

    def packed(self, most: int = MOST_TEXT) -> str | None:
        """Returns the folders as text for a state; None where they are too many.

        Args:
            most: How long the text may be.
        """
        if len(self.known) > MOST_KEPT:
            return None
        places = {identifier: number for number, identifier in enumerate(self.known)}
        rows = [
            [identifier, one.name, places.get(one.parent, one.parent), one.mark]
            for identifier, one in self.known.items()
        ]
        text = json.dumps(rows, separators=(",", ":"), ensure_ascii=False)
        data = base64.b85encode(zlib.compress(text.encode("utf-8", "surrogatepass"))).decode()
        return data if len(data) <= most else None

    def __contains__(self, identifier: object) -> bool:
        return identifier in self.known

    def __len__(self) -> int:
        return len(self.known)

    def path(self, identifier: str) -> tuple[str, ...]:
        """Returns the names on the way to a folder, with its own, the top first."""
        found = self._paths.get(identifier)
        if found is None:
            names: list[str] = []
            at, seen = identifier, set[str]()
            while at in self.known and at not in seen:
                seen.add(at)
                names.append(self.known[at].name)
                at = self.known[at].parent
            found = self._paths[identifier] = tuple(reversed(names))
        return found

    def marks(self, identifier: str) -> tuple[str, ...]:
        """Returns what changes when who may read what is in a folder may change."""
        at, seen = identifier, set[str]()
        marks = []
        while at in self.known and at not in seen:
            seen.add(at)
            marks.append(self.known[at].mark)
            at = self.known[at].parent
        return tuple(marks)

    def nearest_marked(self, identifier: str) -> str | None:
        """Returns the folder itself or the nearest one above that has a mark."""
        at, seen = identifier, set[str]()
        while at in self.known and at not in seen:
            if self.known[at].mark:
                return at
            seen.add(at)
            at = self.known[at].parent
        return None

    def below(self, tops: Iterable[str]) -> Iterator[str]:
        """Yields folders and those below them, each once."""
        children: dict[str, list[str]] = {}
        for identifier, one in self.known.items():
            children.setdefault(one.parent, []).append(identifier)
        waiting, seen = list(tops), set[str]()
        while waiting:
            at = waiting.pop()
            if at in seen or at not in self.known:
                continue
            seen.add(at)
            yield at
            waiting += children.get(at, ())

    def reaching(self, tops: Iterable[str], has: Callable[[Sequence[str]], bool]) -> Folders:
        """Returns those folders that are below tops, with the tops.

        Args:
            tops: The ids of folders that are read with all below them.
            has: Says of the names on the way to a folder, without the top, whether it is wanted.
        """
        children: dict[str, list[str]] = {}
        for identifier, one in self.known.items():
            children.setdefault(one.parent, []).append(identifier)
        kept: dict[str, Folder] = {}
        waiting: list[tuple[str, tuple[str, ...]]] = []
        for top in tops:
            if top in self.known and top not in kept:
                kept[top] = self.known[top]
                waiting.append((top, ()))
        while waiting:
            at, names = waiting.pop()
            for child in children.get(at, ()):
                own = (*names, self.known[child].name)
                if child not in kept and has(own):
                    kept[child] = self.known[child]
                    waiting.append((child, own))
        return Folders(kept)


@dataclass(frozen=True)
class Difference:
    """What became of folders between two runs.

    Attributes:
        gone: Those that are no longer read.
        come: Those that are read for the first time.
        shared: Those of whose files others may be readers now.
        moved: Others whose path is another one.
    """

    gone: list[str]
    come: list[str]
    shared: list[str]
    moved: list[str]

    @classmethod
    def between(cls, before: Folders, now: Folders) -> Difference:
        """Returns what became of the folders of one run in the next."""
        gone = [one for one in before.known if one not in now]
        come = [one for one in now.known if one not in before]
        kept = [one for one in now.known if one in before]
        shared = [one for one in kept if before.marks(one) != now.marks(one)]
        moved = [one for one in kept if before.path(one) != now.path(one)]
        return cls(gone, come, shared, [one for one in moved if one not in set(shared)])
