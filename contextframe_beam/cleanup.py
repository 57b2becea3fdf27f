"""Removing what nobody needs: versions that are old, and files of attempts that were lost.

A file that no version names may belong to a run that is just under way. So only its age tells: a
file is removed when it is older than any run may last.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

import lance
import pyarrow as pa
import pyarrow.compute as pc
from lance.file import LanceFileSession

from contextframe_beam.address import StorageOptions
from contextframe_beam.errors import ConfigError, DatasetError
from contextframe_beam.exclusion import cleaning_up
from contextframe_beam.fragments import despite_removals, first_line
from contextframe_beam.history import open_newest

KEEP = timedelta(days=7)

#: Files that no version names are younger than this while a run is writing them.
SAFE_AGE = timedelta(days=1)

# Where files are that only transactions name.
_FOLDERS = ("data/", "_deletions/", "_indices/")


@dataclass(frozen=True)
class CleanupReceipt:
    """What was removed, or would be.

    Attributes:
        versions: Versions that are gone.
        files: Files that only they named.
        lost_files: Files that no version named.
        bytes: The size of all these files.
        dry_run: Whether nothing was removed.
    """

    versions: int
    files: int
    lost_files: int
    bytes: int
    dry_run: bool


def cleanup(
    uri: str,
    keep: timedelta = KEEP,
    lost_after: timedelta = KEEP,
    *,
    no_writers: bool = False,
    dry_run: bool = False,
    storage_options: StorageOptions = None,
) -> CleanupReceipt:
    """Removes old versions, and old files of runs that were killed.

    The newest version and those with a tag always stay.

    Args:
        uri: The dataset.
        keep: Versions younger than this stay.
        lost_after: Files that no version names are removed when they are older, seven days at
            most. A run that lasts longer would lose its files, and could not be committed.
        no_writers: Promises that nobody is writing, which allows a `lost_after` of less than a
            day.
        dry_run: Only count.
        storage_options: Credentials and settings of the object store.

    Raises:
        ConfigError: the ages are dangerous.
        ConcurrentRunError: a rollback is under way.
        DatasetError: there is no dataset, or its files cannot be listed or deleted.
    """
    if keep < timedelta() or lost_after < timedelta():
        raise ConfigError("an age is negative; give one such as 7d")
    if lost_after < SAFE_AGE and not no_writers:
        raise ConfigError(
            f"files that are younger than {SAFE_AGE.days} day may belong to a run that is under "
            f"way, and {lost_after} would remove them; give at least 1d, or say that nobody is "
            "writing (no_writers=True)"
        )
    if lost_after > KEEP:
        raise ConfigError(
            f"Lance removes files that no version names after {KEEP.days} days, whatever is asked; "
            f"give at most {KEEP.days}d for lost files"
        )
    dataset = open_newest(uri, storage_options)
    try:
        before = datetime.now(timezone.utc) - lost_after
        lost = despite_removals(lambda: _lost_files(dataset, before, storage_options))
        # Lance takes no time at all for its default of two weeks.
        age = max(keep, timedelta(microseconds=1))
        if dry_run:
            stats = despite_removals(
                lambda: dataset.explain_cleanup_old_versions(
                    age, error_if_tagged_old_versions=False
                )
            ).stats
        else:
            _delete(dataset.uri, lost["path"].to_pylist(), storage_options)
            with cleaning_up(dataset, storage_options):
                stats = despite_removals(
                    lambda: dataset.cleanup_old_versions(age, error_if_tagged_old_versions=False)
                )
    except (OSError, ValueError) as error:
        raise DatasetError(
            f"cannot clean up {uri}: {first_line(error)}; its newest version is as it was. "
            "Check permissions there"
        ) from error
    return CleanupReceipt(
        versions=int(stats.old_versions),
        files=int(
            stats.data_files_removed + stats.deletion_files_removed + stats.index_files_removed
        ),
        lost_files=lost.num_rows,
        bytes=int(stats.bytes_removed) + int(pc.sum(lost["size_bytes"]).as_py() or 0),
        dry_run=dry_run,
    )


def _lost_files(
    dataset: lance.LanceDataset, before: datetime, storage_options: StorageOptions
) -> pa.Table:
    """Returns path and size of files that no version names and that are older than `before`."""
    if dataset.branches.list():
        # Their versions name files of this dataset, and are not among its own; Lance's own cleanup
        # knows them.
        return pa.table({"path": pa.array([], pa.string()), "size_bytes": pa.array([], pa.int64())})
    # In this order: what is committed in between is named.
    files = dataset.all_files().read_all()
    named = {
        _owner(path)
        for batch in open_newest(dataset.uri, storage_options).tracked_files()
        for path in pc.unique(batch.column("path").cast(pa.string())).to_pylist()
    }
    limit = pa.scalar(before, files.schema.field("last_modified").type)
    old = files.filter(pc.less(files["last_modified"], limit)).select(["path", "size_bytes"])
    lost = [
        path.startswith(_FOLDERS) and _owner(path) not in named for path in old["path"].to_pylist()
    ]
    return old.filter(pa.array(lost, pa.bool_()))


def _owner(path: str) -> str:
    """Returns the name under which a file and those beside it are one.

    That is the folder of an index, and for a data file its name without the ending: raw data may
    lie in a folder of that name.
    """
    folder, _, rest = path.partition("/")
    first = rest.partition("/")[0]
    return f"{folder}/{first.removesuffix('.lance')}"


def _delete(uri: str, paths: list[str], storage_options: StorageOptions) -> None:
    if paths:
        session = LanceFileSession(uri, dict(storage_options) if storage_options else None)
        for path in paths:
            session.delete_file(path)
