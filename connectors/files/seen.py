"""What an earlier run saw of a folder: which files it read, which failed, and where it was.

Files are remembered by marks of 8 bytes each, so that a state has room for half a million of them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from heapq import nsmallest
from typing import Any

from xxhash import xxh3_64_intdigest

from contextframe_beam.connectors.files.listing import FileInfo
from contextframe_beam.errors import ConfigError
from contextframe_beam.frames.times import when
from contextframe_beam.store.runs import Marks

_LOGGER = logging.getLogger(__name__)

#: So many files are enough to tell one folder from another.
_SAMPLE = 1000

#: The name under which the marks are kept among the states of partitions.
SEEN_FILES = "files"

#: Beyond so many files none is marked, and all are read each time.
MOST_FILES = 500_000

_SETTLED_AFTER = timedelta(seconds=10)


def marks_of(infos: Sequence[FileInfo], began: datetime) -> str:
    """Returns the marks of files, without those that changed shortly before `began`."""
    marks = Marks()
    if len(infos) > MOST_FILES:
        _LOGGER.warning(
            "%d files are more than the %d that are remembered; all are read each time",
            len(infos),
            MOST_FILES,
        )
        return marks.pack()
    marks.add(_name(info) for info in infos if _is_settled(info, began))
    return marks.pack()


def failed_state(infos: Iterable[FileInfo]) -> dict[str, Any]:
    """Returns the state of a partition with files that could not be read."""
    marks = Marks()
    marks.add(map(_name, infos))
    return {"failed": marks.pack()}


def unseen(infos: Sequence[FileInfo], states: Mapping[str, Any]) -> list[FileInfo]:
    """Returns the files that are to be read, by what earlier runs left.

    Args:
        infos: All files there are.
        states: The states of partitions: the marks of all files seen, and those of files that
            could not be read.
    """
    seen = _marks(states.get(SEEN_FILES), "seen")
    failed = [one for one in (_marks(state, "failed") for state in states.values()) if len(one)]
    return [
        info
        for info in infos
        if not _is_among(info, seen) or any(_is_among(info, one) for one in failed)
    ]


def changed_at(info: FileInfo) -> datetime | None:
    """Returns when a file was changed, or None if that is unknown."""
    return when(info.modified_at)


def changed_within(info: FileInfo, since: str | None, until: str | None) -> bool:
    """Returns whether a file was changed in a range of time; one of unknown time may have been.

    Args:
        info: The file.
        since: The beginning, included; None for that of all.
        until: The end, not included.
    """
    changed = changed_at(info)
    begin, end = when(since or ""), when(until or "")
    if changed is None:
        return True
    return (begin is None or changed >= begin) and (end is None or changed < end)


def mark_of(info: FileInfo, is_remote: bool) -> str:
    """Returns what stays the same as long as a file does, wherever its folder is.

    Args:
        info: The file, by its path in the folder.
        is_remote: Whether it is in an object store, whose versions are surer than times. Inodes
            are other ones where a folder was copied.
    """
    return f"{_name(info)}\n{info.version}" if is_remote else _name(info)


def outcome_state(failed: Iterable[str], skipped: Iterable[str]) -> dict[str, Any] | None:
    """Returns the state of a partition by what became of its files; None where all are stored.

    Args:
        failed: The marks of those that could not be read or parsed.
        skipped: Those of a type that nothing reads.
    """
    state = {}
    for key, names in (("failed", failed), ("skipped", skipped)):
        marks = Marks()
        marks.add(names)
        if len(marks):
            state[key] = marks.pack()
    return state or None


class Earlier:
    """What the states of a folder say that earlier runs saw.

    Args:
        states: The states of its partitions.
        settings: What this run makes documents of files with; under other settings than those of
            the earlier run, nothing that it did counts.
    """

    def __init__(self, states: Mapping[str, Any], settings: str) -> None:
        whole = states.get(SEEN_FILES)
        is_same = isinstance(whole, Mapping) and whole.get("settings", "") == settings
        self._seen, self._failed, self._skipped = Marks(), Marks(), Marks()
        if is_same:
            self._seen = _marks(whole, "seen")
            for state in states.values():
                self._failed.merge(_marks(state, "failed"))
                self._skipped.merge(_marks(state, "skipped"))

    def is_stored(self, mark: str) -> bool:
        """Returns whether a file was made a document as it is."""
        return mark in self._seen and mark not in self._failed and mark not in self._skipped

    def is_skipped(self, mark: str) -> bool:
        """Returns whether a file was skipped for its type as it is."""
        return mark in self._seen and mark in self._skipped


def seen_state(
    infos: Sequence[FileInfo], began: datetime, settings: str, directory: str, is_remote: bool
) -> dict[str, Any]:
    """Returns the state of a folder all of whose files were read.

    Args:
        infos: The files, by their paths in the folder.
        began: When the run began.
        settings: What it made documents with.
        directory: Where the folder is.
        is_remote: Whether it is in an object store.
    """
    seen = Marks()
    if len(infos) > MOST_FILES:
        _LOGGER.warning(
            "%d files are more than the %d that are remembered; all are read each time",
            len(infos),
            MOST_FILES,
        )
    else:
        seen.add(mark_of(info, is_remote) for info in infos if _is_settled(info, began))
    # The same ones wherever the folder is.
    some = nsmallest(_SAMPLE, infos, key=lambda info: xxh3_64_intdigest(_bytes_of(info.path)))
    names, sizes = Marks(), Marks()
    names.add(info.path for info in some)
    sizes.add(f"{info.path}\n{info.size}" for info in some)
    return {
        "seen": seen.pack(),
        "settings": settings,
        "directory": directory,
        "names": names.pack(),
        "sizes": sizes.pack(),
    }


def require_same_folder(
    infos: Sequence[FileInfo], directory: str, states: Mapping[str, Any]
) -> None:
    """Refuses another folder in the place of one whose files have the same ids.

    A folder that was moved or copied, and has changed a little, is the same one: of the names that
    it had before and still has, at least half belong to files of the same size.

    Args:
        infos: The files, by their paths in the folder.
        directory: Where the folder is.
        states: The states that an earlier run left.

    Raises:
        ConfigError: it is another folder.
    """
    before = states.get(SEEN_FILES)
    was = before.get("directory") if isinstance(before, Mapping) else None
    if not was or was == directory:
        return
    names, sizes = _marks(before, "names"), _marks(before, "sizes")
    common = [info for info in infos if info.path in names]
    same = [info for info in common if f"{info.path}\n{info.size}" in sizes]
    if not len(names) or (same and 2 * len(same) >= len(common)):
        return
    raise ConfigError(
        f"this dataset holds documents of another folder, {was}, and those of {directory} would "
        f"take their places: {len(common):,} of {len(names):,} names are in both, {len(same):,} "
        'with files of the same size. Give this folder a name of its own (name="..."), with which '
        "its ids begin; if it is the same folder at another place, full=True reads it as such"
    )


def _bytes_of(path: str) -> bytes:
    return path.encode("utf-8", "surrogatepass")


def _is_settled(info: FileInfo, began: datetime) -> bool:
    at = changed_at(info)
    return at is not None and at < began - _SETTLED_AFTER


def _marks(state: Any, key: str) -> Marks:
    packed = state.get(key, "") if isinstance(state, Mapping) else ""
    try:
        return Marks(packed)
    except (ValueError, AttributeError):  # edited by hand: nothing is known then
        return Marks()


def _is_among(info: FileInfo, marks: Marks) -> bool:
    return _name(info) in marks or _name_before(info) in marks


def _name(info: FileInfo) -> str:
    return f"{info.path}\n{info.size}\n{info.modified_at}"


def _name_before(info: FileInfo) -> str:
    """Returns the name that releases gave a local file which wrote local times without offset."""
    at = changed_at(info)
    local = at.astimezone().replace(tzinfo=None).isoformat() if at is not None else None
    return f"{info.path}\n{info.size}\n{local}"
