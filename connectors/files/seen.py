"""What an earlier run saw of a folder: which files it read as they are, and which failed."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from contextframe_beam.connectors.files.listing import FileInfo
from contextframe_beam.frames.times import when
from contextframe_beam.store.runs import Marks

_LOGGER = logging.getLogger(__name__)

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
    settled = ((info, changed_at(info)) for info in infos)
    marks.add(_name(info) for info, at in settled if at is not None and at < began - _SETTLED_AFTER)
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
    """Returns when a file was changed; None where that is not known."""
    return when(info.modified_at)


def changed_within(info: FileInfo, since: str | None, until: str | None) -> bool:
    """Tells whether a file was changed in a range of time; one of unknown time may have been.

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
