"""Which data files the processes of a run have finished, so that a failed run can be cleaned up.

A file that no transaction names costs space for days, until Lance's own cleanup finds it. Whoever
starts the processes of a run names a folder in their environment; each of them notes its files
there. Without that folder noting does nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from contextframe_beam.address import StorageOptions
from contextframe_beam.fragments import WrittenFragment

#: Names the folder, to the processes that a run starts.
FOLDER_VARIABLE = "CONTEXTFRAME_JOURNAL"

_CURRENT = "current"


def note(uri: str, fragments: Iterable[WrittenFragment]) -> None:
    """Notes that this process has finished files of the dataset at `uri`."""
    folder = os.environ.get(FOLDER_VARIABLE)
    if not folder:
        return
    lines = [
        json.dumps([uri, fragment.metadata, fragment.rows, fragment.size]) + "\n"
        for fragment in fragments
    ]
    # The folder may be gone, or another machine's: then nobody is there to clean up.
    with (
        contextlib.suppress(OSError),
        open(Path(folder) / f"{os.getpid()}.files", "a", encoding="utf-8") as file,
    ):
        file.writelines(lines)


def begin(run_id: str) -> None:
    """Begins the next transaction of a run that commits as it goes: what was noted is committed."""
    folder = os.environ.get(FOLDER_VARIABLE)
    if not folder:
        return
    for path in Path(folder).glob("*.files"):
        path.unlink()
    (Path(folder) / _CURRENT).write_text(run_id, encoding="utf-8")


def current(folder: str) -> str | None:
    """Returns the run id of the transaction under way, of a run that commits as it goes."""
    try:
        return (Path(folder) / _CURRENT).read_text(encoding="utf-8") or None
    except OSError:
        return None


def delete_noted(folder: str, storage_options: StorageOptions = None) -> None:
    """Deletes noted files that no version names; for a run that can no longer be committed."""
    from contextframe_beam.address import Address
    from contextframe_beam.fragments import WrittenFragment, delete_files

    noted: dict[str, list[WrittenFragment]] = {}
    for path in Path(folder).glob("*.files"):
        for line in path.read_text(encoding="utf-8").splitlines():
            # The last line of a process that was killed may be cut off.
            with contextlib.suppress(ValueError):
                uri, metadata, rows, size = json.loads(line)
                noted.setdefault(uri, []).append(WrittenFragment(metadata, rows, size))
    for uri, fragments in noted.items():
        delete_files(Address(uri, storage_options), fragments)
