"""The history of runs: one small object for each run, beside the dataset, also of runs that failed.

The objects are in the folder `DATASET.runs`. Object stores cannot append, so a run writes its own
object when it begins, and again when it ends. Their names begin with the time of the beginning, so
that a listing is in order and the oldest ones are found without reading any.

The history tells people what happened. Nothing decides by it: what was committed is in the dataset.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import datetime, timedelta, timezone
from typing import Any

from contextframe_beam.errors import ConfigError, DatasetError
from contextframe_beam.frames.values import of_type
from contextframe_beam.store.address import Address, filesystem_of, first_line, is_local
from contextframe_beam.store.receipt import CommitReceipt
from contextframe_beam.store.runs import file_name_of, is_gone, own_mark

_LOGGER = logging.getLogger(__name__)

#: How many runs are remembered; the oldest ones are removed when another one ends.
KEPT = 500

#: How a run ended. Without one of these it is under way, or its process died.
COMMITTED, NOTHING, REPEATED = "committed", "nothing to do", "committed before"
FAILED, INTERRUPTED, UNKNOWN = "failed", "interrupted", "outcome unknown"

#: What is shown of a run without an end.
RUNNING, DIED, NO_END = "running", "died", "no end known"

_SUCCESSES = (COMMITTED, NOTHING, REPEATED)
_TIME = "%Y%m%dT%H%M%S%fZ"
_AT_ONCE = 16


@dataclass(frozen=True)
class RunRecord:
    """A run as its history tells of it.

    Attributes:
        run_id: The id of the run. A run that was started again has a record for each start.
        began: When it began, ISO 8601 in UTC.
        ended: When it ended; empty before that, and for a run that died.
        outcome: How it ended, one of the constants of this module; empty before that.
        exit_code: What the command line returns at such an end; None before that.
        connector: The connector's name.
        spec: How the connector's class is found: a registered name, or where it is.
        source: The source's id; empty if it could not be told.
        mode: The mode of writing.
        arguments: The arguments of the connector, without secrets.
        reading: The arguments of its `sync_documents`, without secrets.
        settings: The settings of the run that are not the default, without secrets.
        mapping: A digest of how items become documents; empty if it is unknown.
        error: The type and the message of the error that ended it; empty without one.
        counts: The facts of its receipt; empty if nothing was committed.
        dead_letters: Where its failed items are; empty if none failed.
        release: The release of contextframe-beam.
        mark: The mark of its process.
    """

    run_id: str
    began: str
    ended: str = ""
    outcome: str = ""
    exit_code: int | None = None
    connector: str = ""
    spec: str = ""
    source: str = ""
    mode: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    reading: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    mapping: str = ""
    error: str = ""
    counts: Mapping[str, Any] = field(default_factory=dict)
    dead_letters: str = ""
    release: str = ""
    mark: str = ""

    @property
    def state(self) -> str:
        """Its outcome, or what is known of a run without one.

        A run has died if its process was on this machine and is gone. For other machines, the end
        of a run is not known.
        """
        if self.outcome:
            return self.outcome
        return DIED if is_gone(self.mark) else RUNNING if _here(self.mark) else NO_END

    @property
    def succeeded(self) -> bool:
        """Whether it did what it should."""
        return self.outcome in _SUCCESSES

    @property
    def seconds(self) -> float | None:
        """How long it took; None if its end is unknown."""
        if not self.ended:
            return None
        return (time_of(self.ended) - time_of(self.began)).total_seconds()

    @property
    def receipt(self) -> CommitReceipt | None:
        """Its receipt; None if nothing was committed."""
        return CommitReceipt.from_json(self.counts) if self.counts else None

    def to_json(self) -> str:
        """Returns its stored form."""
        return json.dumps(asdict(self), ensure_ascii=True, default=str)

    @classmethod
    def from_json(cls, text: str | bytes) -> RunRecord:
        """Reads its stored form; unknown fields are left out.

        Raises:
            ValueError: the text is not a record.
        """
        value = of_type(json.loads(text), dict, "it")
        read: dict[str, Any] = {}
        for one in fields(cls):
            if value.get(one.name) is not None:
                kind = {"exit_code": int, **dict.fromkeys(_OBJECTS, dict)}.get(one.name, str)
                read[one.name] = of_type(value[one.name], kind, one.name)
        record = cls(**{"run_id": "", "began": "", **read})
        time_of(record.began)
        return record

    @classmethod
    def of_receipt(cls, receipt: CommitReceipt, source: str, connector: str) -> RunRecord:
        """Returns the record of a committed run that only the dataset knows."""
        return cls(
            receipt.run_id,
            receipt.at,
            receipt.at,
            COMMITTED,
            connector=connector,
            source=source,
            mode=receipt.mode,
            counts=receipt.to_json(),
        )


_OBJECTS = ("arguments", "reading", "settings", "counts")


def time_of(text: str) -> datetime:
    """Returns a time of a record.

    Raises:
        ValueError: it is not ISO 8601, or has no zone.
    """
    time = datetime.fromisoformat(text)
    if time.tzinfo is None:
        raise ValueError(f"{text} has no time zone")
    return time.astimezone(timezone.utc)


def _here(mark: str) -> bool:
    return mark.partition("-")[0] == own_mark().partition("-")[0]


class History:
    """The history of the runs into one dataset, which need not exist yet.

    Args:
        address: The dataset.
    """

    def __init__(self, address: Address) -> None:
        self._address = address
        self.folder = f"{address.uri.rstrip('/')}.runs"

    def write(self, record: RunRecord) -> str:
        """Writes the record of a run, or replaces it.

        Returns:
            Why it cannot be written, which ends no run; empty if it was.
        """
        try:
            filesystem, folder = self._open()
            if is_local(self.folder):
                filesystem.makedirs(folder, exist_ok=True)
            elif not filesystem.exists(folder.lstrip("/").partition("/")[0]):
                # Some stores would make a bucket that is only misspelt.
                return f"the history of the run cannot be written: there is no {self.folder}"
            filesystem.pipe_file(f"{folder}/{_name_of(record)}", record.to_json().encode())
            if record.ended:
                self._remove_oldest()
        except Exception as error:  # clients of object stores have their own errors
            reason = first_line(error)
            return f"the history of the run cannot be written to {self.folder}: {reason}"
        return ""

    def records(self, last: int | None = None, run_id: str | None = None) -> list[RunRecord]:
        """Returns the records of the last runs, the newest one first.

        Args:
            last: At most so many; all by default.
            run_id: Only those of this run, which are found without reading others.

        Raises:
            DatasetError: the history cannot be read.
        """
        try:
            filesystem, _ = self._open()
            ending = ".json" if run_id is None else f"-{file_name_of(run_id)}.json"
            chosen = [name for name in self._names() if name.endswith(ending)]
            names = sorted(chosen, reverse=True)[:last]
            with ThreadPoolExecutor(max_workers=_AT_ONCE) as pool:
                found = list(pool.map(lambda name: _read(filesystem, name), names))
        except ConfigError:
            raise
        except Exception as error:
            raise DatasetError(
                f"cannot read the history in {self.folder}: {first_line(error)}"
            ) from error
        records = [one for one in found if one and run_id in (None, one.run_id)]
        return sorted(records, key=lambda one: one.began, reverse=True)

    def _open(self) -> tuple[Any, str]:
        return filesystem_of(self.folder, self._address.storage_options)

    def _names(self) -> list[str]:
        filesystem, folder = self._open()
        filesystem.invalidate_cache(folder)
        try:
            found = filesystem.ls(folder, detail=False)
        except FileNotFoundError:
            return []
        return [str(one) for one in found if str(one).endswith(".json")]

    def _remove_oldest(self) -> None:
        filesystem, _ = self._open()
        for name in sorted(self._names())[:-KEPT]:
            try:
                filesystem.rm_file(name)
            except FileNotFoundError:
                continue  # another run has removed it


def _name_of(record: RunRecord) -> str:
    return f"{time_of(record.began).strftime(_TIME)}-{file_name_of(record.run_id)}.json"


def _read(filesystem: Any, name: str) -> RunRecord | None:
    try:
        return RunRecord.from_json(filesystem.cat_file(name))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        _LOGGER.warning("%s is no record of a run (%s) and is left out", name, error)
        return None


@dataclass(frozen=True)
class SourceStatus:
    """How the runs of one source are doing.

    Attributes:
        source: The source's id.
        connector: The connector's name.
        succeeded: When a run last succeeded, ISO 8601; empty if none has.
        last: The last run that is known.
        is_late: Whether the last success is longer ago than allowed.
        is_failing: Whether the last run that ended did not succeed.
    """

    source: str
    connector: str
    succeeded: str
    last: RunRecord
    is_late: bool
    is_failing: bool

    @property
    def is_well(self) -> bool:
        """Whether it is neither late nor failing."""
        return not (self.is_late or self.is_failing)


def statuses(
    records: Iterable[RunRecord], max_age: timedelta | None = None, now: datetime | None = None
) -> list[SourceStatus]:
    """Returns how each source is doing, in the order of their names.

    Args:
        records: The runs of all sources.
        max_age: How long ago the last success may be; any time by default.
        now: The present time, for tests.
    """
    now = now or datetime.now(timezone.utc)
    by_source: dict[str, list[RunRecord]] = {}
    for record in sorted(records, key=lambda one: one.began, reverse=True):
        by_source.setdefault(record.source or record.connector, []).append(record)
    found = []
    for own in by_source.values():
        success = next((one for one in own if one.succeeded), None)
        ended = next((one for one in own if one.state != RUNNING), None)
        since = now - time_of(success.ended) if success else None
        found.append(
            SourceStatus(
                own[0].source,
                next((one.connector for one in own if one.connector), ""),
                success.ended if success else "",
                own[0],
                max_age is not None and (since is None or since > max_age),
                ended is not None and not ended.succeeded,
            )
        )
    return sorted(found, key=lambda one: (one.connector, one.source))


def joined(records: Iterable[RunRecord], committed: Iterable[RunRecord]) -> list[RunRecord]:
    """Returns records with those of committed runs that have none, the newest one first.

    A run that a pipeline of one's own made has no record, and old ones are removed.

    Args:
        records: From a history.
        committed: Made of the receipts in the dataset.
    """
    records = list(records)
    known = {(one.run_id, one.source) for one in records if one.counts}
    others = [one for one in committed if (one.run_id, one.source) not in known and one.began]
    return sorted([*records, *others], key=lambda one: one.began, reverse=True)


def ended(record: RunRecord, outcome: str, **told: Any) -> RunRecord:
    """Returns the record of a run at its end, which is now."""
    return replace(record, ended=present(), outcome=outcome, **told)


def present() -> str:
    """Returns the present time as records have it."""
    return datetime.now(timezone.utc).isoformat(timespec="microseconds")
