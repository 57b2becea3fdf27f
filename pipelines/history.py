"""Records each run in the history beside its dataset, however it ends."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from typing import Any

import contextframe_beam
from contextframe_beam.connectors.base import BaseConnector
from contextframe_beam.connectors.identity import registered_name, source_file
from contextframe_beam.connectors.secrets import redact, redacted
from contextframe_beam.errors import ContextFrameError, UnknownCommitError
from contextframe_beam.pipelines.job import Job, settings
from contextframe_beam.pipelines.monitoring import Monitors
from contextframe_beam.pipelines.process import (
    DONE,
    FAILED,
    INCOMPLETE,
    WRONG_USAGE,
    InterruptedRunError,
)
from contextframe_beam.pipelines.runners.errors import report_of
from contextframe_beam.store import history
from contextframe_beam.store.address import Address, absolute
from contextframe_beam.store.files import open_dataset
from contextframe_beam.store.history import History, RunRecord, ended
from contextframe_beam.store.receipt import CommitReceipt
from contextframe_beam.store.runs import own_mark
from contextframe_beam.store.state import read_states
from contextframe_beam.transforms.enrich import enricher_spec

_LOGGER = logging.getLogger(__name__)


def recorded(job: Job, work: Callable[[], CommitReceipt], strict: bool = False) -> CommitReceipt:
    """Does the work of a job, records it in the history of the dataset, and tells monitors of it.

    A run that only counts is not recorded.

    Args:
        job: The job.
        work: Runs it to its end.
        strict: Whether an incomplete run counts as an error for the command line.

    Raises:
        ConfigError: a monitor of the job cannot be told.
    """
    if job.dry_run or not isinstance(job.connector, BaseConnector):
        return work()
    kept, monitors = History(job.address), Monitors(job.metrics, job.lineage, job.to)

    def tell(record: RunRecord) -> str:
        monitors.tell(record)
        return kept.write(record)

    begun = _begun(job)
    tell(begun)
    try:
        receipt = work()
    except BaseException as error:
        tell(_failed(begun, error))  # most likely for the same reason, where it cannot be told
        raise
    lost = tell(_done(begun, job, receipt, strict))
    if lost:
        _LOGGER.warning("%s", lost)
    return receipt


def runs_of(address: Address, run_id: str | None = None) -> list[RunRecord]:
    """Returns the runs into a dataset, the newest one first.

    They are those of its history, and committed runs that only the dataset knows.

    Args:
        address: The dataset; it need not exist.
        run_id: Only this run, each of its starts.

    Raises:
        DatasetError: the dataset or its history cannot be read.
    """
    records = History(address).records(run_id=run_id)
    dataset = open_dataset(address)
    committed = (
        []
        if dataset is None
        else [
            RunRecord.of_receipt(run, state.source, state.name)
            for state in read_states(dataset).values()
            for run in state.runs
            if run_id in (None, run.run_id)
        ]
    )
    return history.joined(records, committed)


def _begun(job: Job) -> RunRecord:
    return RunRecord(
        job.id,
        history.present(),
        connector=redact(job.connector.name),
        source=_told(lambda: job.source) or "",
        mode=job.mode,
        spec=_spec_of(type(job.connector)),
        arguments=_clean(job.connector.shown_arguments()),
        reading=_clean(job.reading),
        settings=_clean(_chosen(job)),
        mapping=_told(lambda: job.mapping) or "",
        release=contextframe_beam.__version__,
        mark=own_mark(),
    )


def _done(record: RunRecord, job: Job, receipt: CommitReceipt, strict: bool) -> RunRecord:
    outcome = history.COMMITTED if receipt.version else history.NOTHING
    if receipt.already_committed:
        outcome = history.REPEATED
    return ended(
        record,
        outcome,
        exit_code=INCOMPLETE if strict and receipt.is_incomplete else DONE,
        counts=receipt.to_json() if receipt.version else {},
        dead_letters=redact(absolute(job.letters)) if receipt.failed else "",
    )


def _failed(record: RunRecord, error: BaseException) -> RunRecord:
    if isinstance(error, InterruptedRunError | KeyboardInterrupt):
        outcome = history.INTERRUPTED
    elif isinstance(error, UnknownCommitError):
        outcome = history.UNKNOWN
    else:
        outcome = history.FAILED
    report = report_of(error)
    name = type(error).__name__
    said = report.message if isinstance(error, ContextFrameError) else f"{name}: {report.message}"
    code = WRONG_USAGE if report.wrong_usage else FAILED
    return ended(record, outcome, error=redact(said), exit_code=code)


def _spec_of(cls: type) -> str:
    file = source_file(cls)
    where = cls.__module__ if file is None else os.path.abspath(file[0])
    return registered_name(cls) or f"{where}:{cls.__qualname__}"


def _chosen(job: Job) -> dict[str, Any]:
    """Returns the settings of a job that are not the default, except secret ones."""
    told: dict[str, Any] = {}
    for one in settings():
        value = getattr(job, one.name)
        own = one.name in ("connector", "to", "mode", "run_id", "enrichers", "bounds")
        same = value == one.default or str(value) == str(one.default)
        if own or not one.repr or same or not value:
            continue
        told[one.name] = value
    if job.enrichers:
        told["enrichers"] = [enricher_spec(one) for one in job.enrichers]
    told.update(job.range.given)
    return told


def _clean(values: Any) -> dict[str, Any]:
    """Returns values as JSON, without secrets."""
    cleaned: dict[str, Any] = redacted(
        json.loads(json.dumps(values, default=_as_text, skipkeys=True))
    )
    return cleaned


def _as_text(value: Any) -> str:
    return os.fspath(value) if isinstance(value, os.PathLike) else str(value)


def _told(call: Callable[[], str]) -> str | None:
    """Returns what a call says, or None where it fails: the run itself will say why."""
    try:
        return call()
    except Exception:
        return None
