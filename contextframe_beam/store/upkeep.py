"""Upkeep of a dataset: compacts files, cleans up old versions, edits states."""

from __future__ import annotations

import difflib
import json
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from typing import Any

import lance
import pyarrow as pa
import pyarrow.compute as pc
from lance import optimize
from lance.file import LanceFileSession
from lance.fragment import FragmentMetadata
from lance.optimize import Compaction

from contextframe_beam.errors import ConcurrentRunError, ConfigError, DatasetError
from contextframe_beam.frames.schema import embed_dim_of
from contextframe_beam.store.address import Address, first_line
from contextframe_beam.store.files import (
    Destination,
    WrittenFragment,
    delete_files,
    despite_removals,
    open_dataset,
)
from contextframe_beam.store.rows import remove_keys
from contextframe_beam.store.schema import indices_of_fields
from contextframe_beam.store.state import CommitReceipt, SourceState, read_states, state_rows
from contextframe_beam.store.transaction import (
    Pending,
    change,
    changing,
    commit_update,
)
from contextframe_beam.store.vector_index import update_vector_index, vector_index
from contextframe_beam.store.versions import cleaning_up, indexing, missing_dataset, open_newest
from contextframe_beam.store.writer import MAX_BYTES_PER_FRAGMENT, MAX_ROWS_PER_FRAGMENT, write_rows

_KEY = "uuid"

# Lance's type information lacks the methods that read these from JSON.
_CompactionTask: Any = optimize.CompactionTask
_RewriteResult: Any = optimize.RewriteResult


def plan_tasks(dataset: lance.LanceDataset, target_rows: int = MAX_ROWS_PER_FRAGMENT) -> list[str]:
    """Returns the tasks of a compaction as JSON; any machine can do any of them.

    Args:
        dataset: The dataset.
        target_rows: The number of rows that a fragment should have.
    """
    plan: Any = Compaction.plan(
        dataset,
        {
            "target_rows_per_fragment": target_rows,
            "max_bytes_per_file": MAX_BYTES_PER_FRAGMENT,
        },
    )
    return [task.json() for task in plan.tasks]


def do_task(at: Address, task: str) -> str:
    """Writes the new files of a task, invisible for now, and returns their commit data as JSON.

    Raises:
        DatasetError: the files cannot be written, or the version of the plan is gone.
    """
    planned = _CompactionTask.from_json(task)
    dataset = open_dataset(at, planned.read_version)
    if dataset is None:
        raise missing_dataset(at.uri)
    try:
        return str(planned.execute(dataset).json())
    except (OSError, ValueError) as error:
        raise DatasetError(
            f"cannot rewrite fragments of {at.uri}: {first_line(error)}; the dataset is as it was. "
            "Check space and permissions there"
        ) from error


def commit_tasks(at: Address, results: Iterable[str]) -> int:
    """Replaces the old fragments with the rewritten ones, in one transaction.

    Fragments that a run has changed meanwhile are left out: their rewritten files are out of date,
    and are deleted. A second call with the same results does nothing.

    Returns:
        The number of replaced fragments.

    Raises:
        ConcurrentRunError: runs kept coming first.
        UnknownCommitError: the object store does not say whether it was committed.
        DatasetError: it cannot be committed; the dataset is as it was.
    """
    written = list(results)
    # A task that was executed twice counts once.
    unique = {_originals(result): result for result in written}
    committed: list[str] = []

    def build(_: list[WrittenFragment]) -> Pending[int] | int:
        dataset = open_newest(at)
        stored = {_described(fragment.metadata) for fragment in dataset.get_fragments()}
        fitting = [result for originals, result in unique.items() if stored.issuperset(originals)]
        if not fitting:
            return 0
        results = [_RewriteResult.from_json(one) for one in fitting]

        def commit() -> lance.LanceDataset:
            Compaction.commit(dataset, results)
            committed.extend(fitting)
            return dataset

        removed = sum(len(_originals(one)) for one in fitting)
        return Pending(lambda: changing(at.uri, commit), lambda _: removed)

    files = [new for one in written for new in _rewritten(one)]
    replaced = change(at, build, files=files)
    if committed:
        needless = [new for one in written if one not in committed for new in _rewritten(one)]
        delete_files(at, needless)
    return replaced


def _rewritten(result: str) -> list[WrittenFragment]:
    """Returns the fragments that a task wrote."""
    return [
        WrittenFragment.of(FragmentMetadata.from_json(json.dumps(fragment)))
        for fragment in json.loads(result)["new_fragments"]
    ]


def _originals(result: str) -> tuple[str, ...]:
    """Returns the fragments that a task rewrote, as they were then."""
    return tuple(
        _described(FragmentMetadata.from_json(json.dumps(fragment)))
        for fragment in json.loads(result)["original_fragments"]
    )


def _described(fragment: FragmentMetadata) -> str:
    return json.dumps(fragment.to_json(), sort_keys=True)


def indices_behind(dataset: lance.LanceDataset) -> list[str]:
    """Returns the names of indices that do not know all rows."""
    names = [str(index.name) for index in dataset.describe_indices()]
    return [
        name for name in names if dataset.stats.index_stats(name).get("num_unindexed_fragments", 0)
    ]


def update_indices(at: Address) -> list[str]:
    """Adds new rows to the existing indices, and returns the names of these indices.

    Raises:
        ConcurrentRunError: other commits kept coming first.
        UnknownCommitError: the object store does not say whether it was committed.
        DatasetError: an index cannot be written.
    """
    return _update(at, indices_behind)


def update_index(at: Address, name: str) -> list[str]:
    """Brings rows into one index, which may be gone or up to date by now; see `update_indices`."""
    return _update(at, lambda dataset: [one for one in indices_behind(dataset) if one == name])


def small_files(dataset: lance.LanceDataset) -> int:
    """Returns how many small data files a compaction would join; 0 if they are too few to matter.

    Nothing is read for it but the manifest.
    """
    small = sum(one.count_rows() < _SMALL_ROWS for one in dataset.get_fragments())
    return small if small >= _MANY_FILES else 0


def _update(at: Address, choose: Callable[[lance.LanceDataset], list[str]]) -> list[str]:
    def build(_: list[WrittenFragment]) -> Pending[list[str]] | list[str]:
        dataset = open_newest(at)
        behind = choose(dataset)
        if not behind:
            return behind

        def commit() -> lance.LanceDataset:
            if not indices_of_fields(dataset) and vector_index(dataset) is None:
                return _updated(dataset, behind)
            with indexing(at) as newest:
                there = {index.name for index in newest.describe_indices()}
                return _updated(newest, [name for name in behind if name in there])

        return Pending(lambda: changing(at.uri, commit), lambda _: behind)

    return change(at, build)


def _updated(dataset: lance.LanceDataset, behind: Sequence[str]) -> lance.LanceDataset:
    index = vector_index(dataset)
    others = [name for name in behind if index is None or name != index.name]
    if others:
        dataset.optimize.optimize_indices(index_names=others)
    if index is not None and index.name in behind:
        update_vector_index(dataset, index.name)
    return dataset


def make_key_index(at: Address) -> bool:
    """Makes the index that small upserts use to find the rows that they replace.

    Returns:
        Whether it is new.
    """

    def build(_: list[WrittenFragment]) -> Pending[bool] | bool:
        dataset = open_newest(at)
        if any(_KEY in index.field_names for index in dataset.describe_indices()):
            return False

        def commit() -> lance.LanceDataset:
            dataset.create_scalar_index(_KEY, "BTREE")
            return dataset

        return Pending(lambda: changing(at.uri, commit), lambda _: True)

    return change(at, build)


# A file of fewer rows is small, and so many of them take longer to open than to read.
_SMALL_ROWS = 10_000
_MANY_FILES = 100

KEEP = timedelta(days=7)

#: Files outside of all versions are younger than this while a run is writing them.
SAFE_AGE = timedelta(days=1)

# The folders of files that belong to transactions.
_FOLDERS = ("data/", "_deletions/", "_indices/")


@dataclass(frozen=True)
class CleanupReceipt:
    """The result of a cleanup, or of its dry run.

    Attributes:
        versions: Removed versions.
        files: Removed files that only those versions had.
        lost_files: Removed files that were in no version.
        bytes: The size of all these files.
        dry_run: Whether it only counted.
    """

    versions: int
    files: int
    lost_files: int
    bytes: int
    dry_run: bool


def cleanup(
    at: Address,
    keep: timedelta = KEEP,
    lost_after: timedelta = KEEP,
    *,
    no_writers: bool = False,
    dry_run: bool = False,
) -> CleanupReceipt:
    """Removes old versions, and old files of killed runs.

    The newest version and versions with a tag always stay.

    Args:
        at: The dataset.
        keep: Versions younger than this stay.
        lost_after: Older files that are in no version are removed; at most seven days. A run that
            lasts longer would lose its files and could not be committed.
        no_writers: Promises that nobody is writing; this allows a `lost_after` of less than a day.
        dry_run: Only count.

    Raises:
        ConfigError: the ages are dangerous.
        ConcurrentRunError: a rollback is under way.
        DatasetError: there is no dataset, or its files cannot be listed or deleted.
    """
    if keep < timedelta() or lost_after < timedelta():
        raise ConfigError("an age is negative; give one such as 7d")
    if lost_after < SAFE_AGE and not no_writers:
        raise ConfigError(
            f"files that are younger than {SAFE_AGE.days} day may belong to a run under way, and "
            f"{lost_after} would remove them; give at least 1d, or promise that nobody is "
            "writing (no_writers=True)"
        )
    if lost_after > KEEP:
        raise ConfigError(
            f"Lance always removes files that are in no version after {KEEP.days} days; "
            f"give at most {KEEP.days}d for lost files"
        )
    dataset = open_newest(at)
    try:
        before = datetime.now(timezone.utc) - lost_after
        lost = despite_removals(lambda: _lost_files(dataset, before, at))
        # Lance would take a period of 0 for its default of two weeks.
        age = max(keep, timedelta(microseconds=1))
        if dry_run:
            stats = despite_removals(
                lambda: dataset.explain_cleanup_old_versions(
                    age, error_if_tagged_old_versions=False
                )
            ).stats
        else:
            _delete(at, lost["path"].to_pylist())
            with cleaning_up(dataset, at):
                stats = despite_removals(
                    lambda: dataset.cleanup_old_versions(age, error_if_tagged_old_versions=False)
                )
    except (OSError, ValueError) as error:
        raise DatasetError(
            f"cannot clean up {at.uri}: {first_line(error)}; its newest version is as it was. "
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


def _lost_files(dataset: lance.LanceDataset, before: datetime, at: Address) -> pa.Table:
    """Returns the path and size of files that are in no version and older than `before`."""
    if dataset.branches.list():
        # The versions of clones use files of this dataset but are not in its own list; Lance's own
        # cleanup knows them.
        return pa.table({"path": pa.array([], pa.string()), "size_bytes": pa.array([], pa.int64())})
    # In this order, so that files of commits in between are in a version.
    files = dataset.all_files().read_all()
    named = {
        _owner(path)
        for batch in open_newest(at).tracked_files()
        for path in pc.unique(batch.column("path").cast(pa.string())).to_pylist()
    }
    limit = pa.scalar(before, files.schema.field("last_modified").type)
    old = files.filter(pc.less(files["last_modified"], limit)).select(["path", "size_bytes"])
    lost = [
        path.startswith(_FOLDERS) and _owner(path) not in named for path in old["path"].to_pylist()
    ]
    return old.filter(pa.array(lost, pa.bool_()))


def _owner(path: str) -> str:
    """Returns the common name of a file and those beside it.

    For an index that is its folder, and for a data file its name without the ending, because a
    folder of that name may contain its raw data.
    """
    folder, _, rest = path.partition("/")
    first = rest.partition("/")[0]
    return f"{folder}/{first.removesuffix('.lance')}"


def _delete(at: Address, paths: list[str]) -> None:
    if paths:
        session = LanceFileSession(at.uri, dict(at.storage_options) if at.storage_options else None)
        for path in paths:
            session.delete_file(path)


#: The mode of a manual change among a source's runs.
MODE = "state"

_KEYS = ("source", "name", "last_run", "partitions", "backfill")


def export_state(state: SourceState) -> dict[str, Any]:
    """Returns the editable part of a state and its source, for `parse_states`.

    `last_run` prevents setting it after another run has continued from it.
    """
    exported = {
        "source": state.source,
        "name": state.name,
        "last_run": state.runs[-1].run_id if state.runs else None,
        "partitions": dict(state.partitions),
    }
    if state.backfill:
        exported["backfill"] = dict(state.backfill)
    return exported


def parse_states(text: str, where: str) -> list[dict[str, Any]]:
    """Reads exported states, one or a list of them.

    Args:
        text: JSON.
        where: Its origin, for messages.

    Raises:
        ConfigError: it is not JSON, or not an exported state; the message names the line.
    """
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(
            f"{where}, line {error.lineno}, column {error.colno}: it is not JSON: {error.msg}"
        ) from None
    found = value if isinstance(value, list) else [value]
    for one in found:
        problem, near = _problem(one)
        if problem:
            raise ConfigError(f"{where}, line {_line_of(text, near)}: {problem}")
    if not found:
        raise ConfigError(f"{where}, line 1: there is no state in it")
    return found


def set_states(at: Address, states: Sequence[Mapping[str, Any]]) -> int:
    """Sets exported states, all in one transaction.

    Args:
        at: The dataset.
        states: The result of `parse_states`.

    Returns:
        The new version.

    Raises:
        ConfigError: a source is unknown.
        ConcurrentRunError: a run has continued from the exported state.
    """
    given = {str(one["source"]): one for one in states}

    def edit(state: SourceState) -> SourceState:
        one = given[state.source]
        last = state.runs[-1].run_id if state.runs else None
        if "last_run" in one and one["last_run"] != last:
            raise ConcurrentRunError(
                f"run {last} of {state.name or state.source} was committed since this state was "
                "shown; nothing was set, show it again and edit that"
            )
        return replace(
            state, partitions=dict(one["partitions"]), backfill=dict(one.get("backfill") or {})
        )

    return _edit(at, list(given), edit)


def reset_state(
    at: Address,
    sources: Iterable[str],
    partitions: Sequence[str] = (),
) -> int:
    """Forgets the state of sources, so that their next run reads everything.

    Args:
        at: The dataset.
        sources: The ids of the sources.
        partitions: Forget these partitions only.

    Returns:
        The new version.

    Raises:
        ConfigError: a source or partition is unknown.
    """

    def edit(state: SourceState) -> SourceState:
        if not partitions:
            return state.forgotten()
        for name in partitions:
            if name not in state.partitions:
                near = difflib.get_close_matches(name, state.partitions, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise ConfigError(
                    f"{state.name or state.source} has no state of a partition {name!r}{hint}"
                )
        kept = {name: one for name, one in state.partitions.items() if name not in partitions}
        return replace(state, partitions=kept)

    return _edit(at, list(sources), edit)


def find_source(states: Mapping[str, SourceState], asked: str) -> SourceState:
    """Returns the source with an id, the beginning of an id, or a connector's name.

    Raises:
        ConfigError: there is no such source, or there are several.
    """
    found = [one for one in states.values() if asked in (one.source, one.name)]
    found = found or [one for one in states.values() if asked and one.source.startswith(asked)]
    if len(found) == 1:
        return found[0]
    known = found or list(states.values())
    listed = ", ".join(f"{one.source} ({one.name})" for one in known) or "none"
    what = "several sources are called" if found else "no source is called"
    raise ConfigError(f"{what} {asked}; there are: {listed}")


def _edit(
    at: Address,
    sources: Sequence[str],
    edit: Callable[[SourceState], SourceState],
) -> int:
    """Replaces the state rows of sources, and decides again if the dataset has changed."""
    run_id = f"state-{uuid.uuid4().hex[:12]}"

    def build(written: list[WrittenFragment]) -> Pending[int] | int:
        dataset = open_newest(at)
        states = read_states(dataset)
        before = [find_source(states, source) for source in sources]
        summary = CommitReceipt(
            run_id,
            MODE,
            datetime.now(timezone.utc).isoformat(timespec="seconds"),
            int(dataset.version) + 1,
        )
        after = [edit(state).after(summary, {}) for state in before]
        rows = state_rows(after, anchor=False, embed_dim=embed_dim_of(dataset.schema))
        written += write_rows(Destination(at.uri, at.storage_options), [rows])
        removal = remove_keys(dataset, pa.array([state.key for state in before]))
        properties = {"contextframe.run_id": run_id, "contextframe.mode": MODE}
        return Pending(
            lambda: commit_update(dataset, removal, written, properties=properties, at=at),
            lambda committed: int(committed.version),
        )

    return change(at, build)


def _problem(value: Any) -> tuple[str, str | None]:
    """Returns the problem of an exported state, and the nearest key."""
    if not isinstance(value, Mapping):
        return f"a state is a JSON object, and this is a {type(value).__name__}", None
    for key in value:
        if key not in _KEYS:
            near = difflib.get_close_matches(key, _KEYS, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(_KEYS)}"
            return f"unknown key {key!r}; {hint}", key
    if not isinstance(value.get("source"), str) or not value["source"]:
        return "a state needs the `source` that it is of, as text", "source"
    for key in ("partitions", "backfill"):
        inner = value.get(key, None if key == "partitions" else {})
        if not isinstance(inner, Mapping):
            return f"`{key}` is a JSON object with the state of each partition by its name", key
    for name, state in value["partitions"].items():
        if not isinstance(state, Mapping):
            return f"the state of {name!r} is a JSON object, and this is {json.dumps(state)}", name
        if not name:
            return "a partition has a name", name
    return "", None


def _line_of(text: str, key: str | None) -> int:
    place = 0 if key is None else max(text.find(json.dumps(key)), text.find(f'"{key}"'), 0)
    return text.count("\n", 0, place) + 1
