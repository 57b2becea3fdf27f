"""replay: the dead letters of a run are tried again, each until it succeeds once.

An item that failed after it was read is taken from its letter, as the source gave it then. What
could not be read or parsed is read again from its partition. All of it is one run in the mode
upsert, in one transaction. A stored item that is older than what the dataset holds now is left out.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import apache_beam as beam
import lance

from contextframe_beam.connectors.base import BaseConnector
from contextframe_beam.connectors.page import DeadLetter, Page, SourceInfo
from contextframe_beam.connectors.read.source import Chosen, Source
from contextframe_beam.connectors.read.transform import ReadFromConnector
from contextframe_beam.connectors.registry import build_connector, load_connector_class
from contextframe_beam.errors import ConfigError, TooManyFailures
from contextframe_beam.frames.record import Deletion
from contextframe_beam.pipelines.history import recorded
from contextframe_beam.pipelines.ingest import committed, partitions_of, run_pipeline, state_of
from contextframe_beam.pipelines.job import Job, default_dead_letters
from contextframe_beam.store.address import Address, is_local
from contextframe_beam.store.files import open_dataset, reading
from contextframe_beam.store.filters import sql_literal
from contextframe_beam.store.history import History, RunRecord, time_of
from contextframe_beam.store.receipt import CommitReceipt
from contextframe_beam.store.runs import NO_CHANGE, FailureReason, Reasons
from contextframe_beam.store.versions import history_of, open_version
from contextframe_beam.transforms.elements import document_key
from contextframe_beam.transforms.enrich import load_enrichers
from contextframe_beam.transforms.letters import read_letters, replace_letters

#: The stages whose items have to be read again, since their letters do not hold them.
READ_AGAIN = ("read", "parse")

_SECRET = "***"
_SUPERSEDED = "superseded"
_PARTITION = "letters"
_AT_ONCE = 1000
_NARROWED = "it only tries letters again"


@dataclass
class Replayed:
    """What became of the letters of a run.

    Attributes:
        receipt: The receipt of the run that tried them; None if there were none to try.
        letters: How many were tried.
        succeeded: How many of them succeeded.
        superseded: How many were left out, because the dataset holds something newer.
        path: Their file.
        reasons: Why letters failed again, at most ten reasons.
    """

    receipt: CommitReceipt | None
    letters: int = 0
    succeeded: int = 0
    superseded: int = 0
    path: str = ""
    reasons: list[str] = field(default_factory=list)


@dataclass
class _Letters:
    """The letters of a file that are still to be tried.

    Attributes:
        path: The file.
        lines: All lines of it, as JSON values.
        open: The indices of the lines to be tried.
    """

    path: str
    lines: list[dict[str, Any]] = field(default_factory=list)
    open: list[int] = field(default_factory=list)

    def letter(self, index: int) -> DeadLetter:
        return DeadLetter.from_json(json.dumps(self.lines[index]))


def replay(
    to: str,
    run_id: str,
    letters: str | None = None,
    connector: BaseConnector | None = None,
    arguments: Mapping[str, Any] | None = None,
    storage_options: Mapping[str, str] | None = None,
    **settings: Any,
) -> Replayed:
    """Tries the dead letters of a run again, and marks those that succeed.

    Args:
        to: The dataset.
        run_id: The run.
        letters: The file with its letters; by default the one that its history names.
        connector: What the run read; by default it is made again by the history, which keeps no
            plain secrets.
        arguments: Arguments of that connector in place of those in the history.
        storage_options: Credentials and settings of the dataset's object store.
        **settings: Other settings of `ingest`, such as `enrichers`; by default those of the run.

    Returns:
        What became of the letters.

    Raises:
        ConfigError: there is no such run or file, or the connector cannot be made again.
        ContextFrameError: the run failed; the dataset and the letters are as they were.
    """
    address = Address(to, storage_options)
    record = next(iter(History(address).records(run_id=run_id)), None)
    if record is None and (connector is None or letters is None):
        raise ConfigError(
            f"the history of {to} has no run {run_id}; `contextframe-beam history {to}` lists the "
            "runs. Of a run without history give the connector and the file of its letters, "
            "from Python"
        )
    path = letters or (record.dead_letters if record else "") or default_dead_letters(to, run_id)
    if letters and is_local(letters) and not os.path.exists(letters):
        raise ConfigError(f"there is no file {letters}; correct `letters`")
    found = _letters_of(path, run_id, storage_options)
    if not found.open:
        return Replayed(None, path=path)
    if connector is None:
        assert record is not None
        connector = _connector_of(record, arguments or {})
        settings = {**_settings_of(record), **settings}
        settings.setdefault("sync_kwargs", dict(record.reading))
    job = Job(
        connector,
        to,
        mode="upsert",
        run_id=_run_id(run_id, found),
        storage_options=storage_options,
        max_failures="100%",
        **settings,
    )
    return _tried(job, run_id, found)


def _letters_of(path: str, run_id: str, options: Mapping[str, str] | None) -> _Letters:
    found = _Letters(path, read_letters(path, options))
    found.open = [
        index
        for index, line in enumerate(found.lines)
        if line.get("run_id") == run_id and not line.get("replayed")
    ]
    return found


def _run_id(run_id: str, letters: _Letters) -> str:
    """Returns an id that stays the same as long as the same letters are to be tried.

    A replay that is killed after its commit is so found committed.
    """
    told = json.dumps([letters.lines[index] for index in letters.open], sort_keys=True)
    return f"{run_id[:400]}-replay-{hashlib.sha256(told.encode()).hexdigest()[:12]}"


def _connector_of(record: RunRecord, given: Mapping[str, Any]) -> BaseConnector:
    arguments = {**record.arguments, **given}
    hidden = sorted(name for name, value in arguments.items() if _SECRET in json.dumps(value))
    if hidden:
        raise ConfigError(
            f"run {record.run_id} was given {', '.join(hidden)} in plain text, which no history "
            f"keeps; give it with --argument {hidden[0]}=env:NAME"
        )
    if "<locals>" in record.spec or record.spec.startswith("__main__:"):
        raise ConfigError(
            f"the connector {record.spec} of run {record.run_id} cannot be found from outside of "
            "its program; use contextframe_beam.pipelines.replay.replay there, with `connector`"
        )
    return build_connector(load_connector_class(record.spec), arguments)


def _settings_of(record: RunRecord) -> dict[str, Any]:
    told = dict(record.settings)
    kept = ("parsers", "max_file_bytes", "max_unpacked_bytes", "parse_timeout", "chunk", "embed")
    settings: dict[str, Any] = {name: told[name] for name in kept if name in told}
    for name in ("max_file_bytes", "max_unpacked_bytes"):
        if name in settings:
            settings[name] = int(settings[name])
    settings["enrichers"] = load_enrichers(told.get("enrichers", ()))
    return settings


def _tried(job: Job, run_id: str, letters: _Letters) -> Replayed:
    job.connector.ensure_authenticated()
    receipt = committed(job)
    again, pages, superseded = _sorted(job, letters)
    if receipt is None and (again or pages):
        known = partitions_of(state_of(job))
        source = _LettersAgain(tuple(pages), _reading(job, again, known) if again else None)
        with suppress(TooManyFailures):  # all failed again, as their letters say
            receipt = recorded(
                job,
                lambda: run_pipeline(
                    job, job.id, job.letters, source, lambda now: partitions_of(now) == known
                ),
            )
    letters_again = read_letters(job.letters, job.storage_options)
    failed = _failed_again(letters_again)
    succeeded = 0
    for index in letters.open:
        letter = letters.letter(index)
        if index in superseded:
            letters.lines[index]["replayed"] = _SUPERSEDED
        elif not failed & {_place(index), (letter.partition, letter.position)}:
            letters.lines[index]["replayed"] = job.id
            succeeded += 1
        else:
            # Gives the next attempt an id of its own.
            letters.lines[index]["tried"] = job.id
    replace_letters(letters.path, letters.lines, job.storage_options)
    reasons = Reasons(
        FailureReason.of(one["error_type"], one["message"], one["stage"]) for one in letters_again
    )
    return Replayed(
        receipt,
        len(letters.open),
        succeeded,
        len(superseded),
        letters.path,
        list(map(str, reasons.most())),
    )


def _sorted(job: Job, letters: _Letters) -> tuple[list[DeadLetter], list[Page], set[int]]:
    """Returns letters to be read again, pages of stored items, and which letters are superseded."""
    again: list[DeadLetter] = []
    info = SourceInfo(job.source, job.connector.name, job.connector.source_identity(job.reading))
    stored: dict[int, tuple[DeadLetter, Any]] = {}
    for index in letters.open:
        letter = letters.letter(index)
        if letter.stage in READ_AGAIN or job.connector.gives_files:
            again.append(letter)
        else:
            stored[index] = letter, letter.original_item()
    superseded = _superseded(job, stored)
    pages = [
        Page([item], None, *_place(index), source=info, narrowed=_NARROWED)
        for index, (_, item) in stored.items()
        if index not in superseded
    ]
    return again, pages, superseded


def _place(index: int) -> tuple[str, str]:
    """Returns the partition and the position under which the item of a letter is tried."""
    return _PARTITION, f"line {index + 1}"


def _failed_again(letters: Iterable[Mapping[str, Any]]) -> set[tuple[str, str]]:
    """Returns the places of the letters of the run that tried others."""
    found = set()
    for line in letters:
        position = str(line.get("position"))
        if line.get("partition") == _PARTITION:
            position = position.removesuffix("[0]")
        found.add((str(line.get("partition")), position))
    return found


def _reading(job: Job, again: Iterable[DeadLetter], known: Mapping[str, Any]) -> ReadFromConnector:
    """Returns what reads the partitions of letters again, or all of the source.

    Files are recognised where they did not change, and a changed plan may have other partitions.
    """
    made: dict[str, Any] = {"made_with": job.made_with.hex(), **job.reading}
    if job.connector.gives_files:
        return ReadFromConnector(job.connector, False, known, **made)
    wanted = {letter.partition for letter in again}
    parts = [
        part
        for part in Source(job.connector, job.reading, full_sync=True).parts()
        if part.id in wanted
    ]
    if {part.id for part in parts} != wanted:
        return ReadFromConnector(job.connector, True, **made)
    return ReadFromConnector(job.connector, True, chosen=Chosen(tuple(parts), NO_CHANGE), **made)


class _LettersAgain(beam.PTransform[Any, beam.PCollection[Page]]):
    """Pages of stored items, and of what is read again."""

    def __init__(self, pages: tuple[Page, ...], again: ReadFromConnector | None) -> None:
        super().__init__()
        self._pages = pages
        self._again = again

    def expand(self, pipeline: Any) -> beam.PCollection[Page]:
        parts = [pipeline | "Stored" >> beam.Create(self._pages).with_output_types(Page)]
        if self._again is not None:
            parts.append(pipeline | "Again" >> self._again)
        together: beam.PCollection[Page] = parts | beam.Flatten()
        return together


def _superseded(job: Job, stored: Mapping[int, tuple[DeadLetter, Any]]) -> set[int]:
    """Returns the letters whose documents were stored, changed or deleted after they failed."""
    dataset = open_dataset(job.address)
    if dataset is None or not stored:
        return set()
    keys: dict[int, bytes] = {}
    for index, (_, item) in stored.items():
        try:
            made = job.connector.map_to_frame_record(item)
        except Exception:
            continue  # it fails again, and says why
        key = UUID(made.key).bytes if isinstance(made, Deletion) else document_key(made)
        if key is not None:
            keys[index] = key
    versions = history_of(dataset)
    now = _digests(dataset, keys.values())
    found = set()
    before: dict[int, dict[bytes, bytes]] = {}
    for index, key in keys.items():
        failed = time_of(stored[index][0].time)
        version = max((one.version for one in versions if one.at <= failed), default=0)
        if not version and versions[0].version > 1:
            # What was stored then is not known any more.
            if key in now:
                found.add(index)
            continue
        if version and version not in before:
            before[version] = _digests(open_version(job.address, version), keys.values())
        if before.get(version, {}).get(key) != now.get(key):
            found.add(index)
    return found


def _digests(dataset: lance.LanceDataset, keys: Iterable[bytes]) -> dict[bytes, bytes]:
    """Returns the digests of stored documents by their keys."""
    texts = sorted({str(UUID(bytes=key)) for key in keys})
    found: dict[bytes, bytes] = {}
    with reading(dataset.uri):
        for start in range(0, len(texts), _AT_ONCE):
            some = ", ".join(map(sql_literal, texts[start : start + _AT_ONCE]))
            rows = dataset.to_table(columns=["uuid", "x_digest"], filter=f"uuid IN ({some})")
            for row in rows.to_pylist():
                found[UUID(row["uuid"]).bytes] = row["x_digest"] or b""
    return found
