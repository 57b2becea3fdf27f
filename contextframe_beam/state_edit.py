"""Changing a source's state by hand: exported as JSON, edited, set again, or reset.

A change is committed like a run: it replaces the state row, so a run that read from the state
before meets it and is refused, and it is listed among the source's runs.
"""

from __future__ import annotations

import difflib
import json
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

import pyarrow as pa

from contextframe_beam.address import Address, StorageOptions
from contextframe_beam.errors import ConcurrentRunError, ConfigError
from contextframe_beam.fragments import Destination, WrittenFragment
from contextframe_beam.history import open_newest
from contextframe_beam.removal import remove_keys
from contextframe_beam.schema import embed_dim_of
from contextframe_beam.state import CommitReceipt, SourceState, read_states, state_rows
from contextframe_beam.transaction import Pending, change, commit_update
from contextframe_beam.writer import write_rows

#: The mode of a change by hand among a source's runs.
MODE = "state"

_KEYS = ("source", "name", "last_run", "partitions", "backfill")


def export_state(state: SourceState) -> dict[str, Any]:
    """Returns what `parse_states` reads: the part of a state that can be changed, and its source.

    `last_run` guards against setting it again after another run went on from it.
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
        where: Where it is from, for messages.

    Raises:
        ConfigError: it is no JSON, or not what was exported; the message names the line.
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


def set_states(
    uri: str, states: Sequence[Mapping[str, Any]], storage_options: StorageOptions = None
) -> int:
    """Sets exported states, all in one transaction.

    Args:
        uri: The dataset.
        states: What `parse_states` gave.
        storage_options: Of the dataset.

    Returns:
        The version that it made.

    Raises:
        ConfigError: a source is not known.
        ConcurrentRunError: a run went on from the state that was exported.
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

    return _edit(uri, list(given), edit, storage_options)


def reset_state(
    uri: str,
    sources: Iterable[str],
    partitions: Sequence[str] = (),
    storage_options: StorageOptions = None,
) -> int:
    """Forgets what sources had reached, so that their next run reads everything.

    Args:
        uri: The dataset.
        sources: The ids of the sources.
        partitions: Forget these partitions only.
        storage_options: Of the dataset.

    Returns:
        The version that it made.

    Raises:
        ConfigError: a source or partition is not known.
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

    return _edit(uri, list(sources), edit, storage_options)


def find_source(states: Mapping[str, SourceState], asked: str) -> SourceState:
    """Returns the source that is meant by an id, the beginning of one, or a connector's name.

    Raises:
        ConfigError: there is none, or there are several.
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
    uri: str,
    sources: Sequence[str],
    edit: Callable[[SourceState], SourceState],
    storage_options: StorageOptions,
) -> int:
    """Replaces the state rows of sources, decided anew from the newest version where need be."""
    run_id = f"state-{uuid.uuid4().hex[:12]}"

    def build(written: list[WrittenFragment]) -> Pending[int] | int:
        dataset = open_newest(uri, storage_options)
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
        written += write_rows(Destination(uri, storage_options), [rows])
        removal = remove_keys(dataset, pa.array([state.key for state in before]))
        properties = {"contextframe.run_id": run_id, "contextframe.mode": MODE}
        return Pending(
            lambda: commit_update(
                dataset, removal, written, properties=properties, storage_options=storage_options
            ),
            lambda committed: int(committed.version),
        )

    return change(Address(uri, storage_options), build)


def _problem(value: Any) -> tuple[str, str | None]:
    """Returns what is wrong with an exported state, and the key near which it is."""
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
