"""Runs a job with a display, handles interrupts, and cleans up after a failure.

A local job runs in its own thread while the main thread shows its progress and listens for
interrupts. However it ends, the report about it comes from the dataset.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable
from contextlib import redirect_stdout, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from contextframe_beam.connectors.read import runtime
from contextframe_beam.errors import CommitError, ConfigError, ContextFrameError, UnknownCommitError
from contextframe_beam.pipelines import logs
from contextframe_beam.pipelines.job import Job, dead_letters_beside
from contextframe_beam.pipelines.process import InterruptedRunError, Settings, import_beam
from contextframe_beam.pipelines.progress import display, scratch_folder, watching
from contextframe_beam.pipelines.runners.worker_processes import end_all
from contextframe_beam.store import writer

if TYPE_CHECKING:
    from contextframe_beam.store.state import CommitReceipt

_LOGGER = logging.getLogger(__name__)

#: Seconds to wait for a commit under way, and for workers and writers that should stop.
COMMIT_PATIENCE = 60.0
STOP_PATIENCE = 10.0
_LOOK_EVERY = 0.1

T = TypeVar("T")


def run_job(
    job: Job,
    start: Callable[[Job], CommitReceipt],
    settings: Settings,
    quiet: bool,
    strict: bool = False,
) -> CommitReceipt:
    """Runs a job to its end.

    Args:
        job: What to run.
        start: Does the whole job and returns the receipt, unless its run was already committed.
        settings: The settings of this process, with its interrupts.
        quiet: Do not show progress.
        strict: Whether an incomplete run counts as an error in the history.

    Raises:
        InterruptedRunError: it was interrupted, and not committed.
        UnknownCommitError: the object store does not say whether it was committed.
        Exception: any other failure; it was not committed.
    """
    from contextframe_beam.pipelines.history import recorded
    from contextframe_beam.pipelines.runners.options import is_local

    run = _run_here if is_local(job.runner) else _run_elsewhere
    # The output of connectors must not get into the result.
    with redirect_stdout(sys.stderr), logs.shared_with_workers(settings):
        return recorded(job, lambda: run(job, start, settings, quiet), strict)


def run_upkeep(work: Callable[[], T], settings: Settings, name: str = "") -> T:
    """Does work that does not change documents, so an interrupt leaves nothing to undo.

    Args:
        work: The work.
        settings: How this process is interrupted.
        name: What its progress is shown under; "" for no progress.

    Raises:
        InterruptedRunError: it was interrupted.
    """
    import_beam()
    with (
        redirect_stdout(sys.stderr),
        logs.shared_with_workers(settings),
        scratch_folder() as folder,
    ):
        try:
            with (
                display(name, not name, settings) as shown,
                watching(shown, lambda: ("starting", runtime.totals(folder))),
            ):
                return work()
        except KeyboardInterrupt:
            settings.abandoned = True
            _stop_everything()
            raise InterruptedRunError(
                "interrupted; the documents are as they were, do it again"
            ) from None


def _run_here(
    job: Job, start: Callable[[Job], CommitReceipt], settings: Settings, quiet: bool
) -> CommitReceipt:
    existed = os.path.lexists(job.to)
    settings.interrupts.postpone()
    asked = settings.interrupts.asked
    with scratch_folder() as folder:
        task = _Task(job, start)
        try:
            with display(job.connector.name, quiet, settings) as shown:
                while not task.ended.wait(_LOOK_EVERY) and not asked.is_set():
                    shown.show(runtime.totals(folder))
        except KeyboardInterrupt:  # if the signals were not taken over
            asked.set()
        if asked.is_set() and not task.ended.is_set():
            settings.abandoned = True
            _stop_everything()
            ended_with: BaseException = InterruptedRunError(_interrupted(job, folder))
        elif task.error is None:
            return task.result
        else:
            ended_with = task.error
        if not task.is_new:
            raise ended_with
        return _told_by_dataset(job, folder, existed, ended_with)


def _run_elsewhere(
    job: Job, start: Callable[[Job], CommitReceipt], settings: Settings, quiet: bool
) -> CommitReceipt:
    # Not before Beam is imported.
    from contextframe_beam.pipelines.runners.options import how_far, pipeline_options, starts_engine

    try:
        with (
            scratch_folder(runtime.FOLDER_VARIABLE) as folder,
            display(f"{job.connector.name} on {job.runner}", quiet, settings) as shown,
            logs.without_beam(settings),
            watching(shown, lambda: how_far(folder)),
        ):
            return _committed(job) or start(job)
    except KeyboardInterrupt:
        receipt = _receipt(job)
        if receipt is not None:
            return replace(receipt, already_committed=False)
        options = pipeline_options(job.runner, job.workers, job.beam_args)
        goes_on = (
            f"The {job.runner} that this command started ends with it"
            if starts_engine(options, job.runner)
            else f"{job.runner} may go on with it: stop it there if it should not"
        )
        raise InterruptedRunError(
            f"interrupted; run {job.id} is not committed so far{_kept_of(job)}. {goes_on}"
        ) from None


class _Task:
    """A job in a thread that does not keep the process from ending.

    Attributes:
        ended: Set when there is a result or an error.
        is_new: Whether the dataset had no run with this id when it started.
    """

    result: CommitReceipt
    error: BaseException | None = None

    def __init__(self, job: Job, start: Callable[[Job], CommitReceipt]) -> None:
        self.ended = threading.Event()
        self.is_new = False
        self._job, self._start = job, start
        threading.Thread(target=self._run, name="run", daemon=True).start()

    def _run(self) -> None:
        try:
            earlier = _committed(self._job)
            self.is_new = earlier is None
            self.result = earlier or self._start(self._job)
        except BaseException as error:
            self.error = error
        finally:
            self.ended.set()


def _stop_everything() -> None:
    """Ends everything that could still write or commit, in this process and in the workers."""
    from contextframe_beam.store.transaction import stop_commits
    from contextframe_beam.store.writer import abort_all

    stop_commits(COMMIT_PATIENCE)
    end_all(STOP_PATIENCE)
    aborting = threading.Thread(target=abort_all, daemon=True)
    aborting.start()
    aborting.join(STOP_PATIENCE)


def _death_of_worker() -> CommitError | None:
    # This is loaded only in a run that has started workers.
    processes = sys.modules.get("contextframe_beam.pipelines.runners.local")
    death = processes.death_of_worker(1.0) if processes is not None else None
    return None if death is None else CommitError(death)


def _told_by_dataset(job: Job, folder: str, existed: bool, error: BaseException) -> CommitReceipt:
    """Returns the receipt of a run that was committed although it failed, or else cleans up."""
    if isinstance(error, ConfigError):
        raise error
    if not isinstance(error, ContextFrameError):
        error = _death_of_worker() or error
    try:
        receipt = _receipt(job)
    except ContextFrameError as failure:
        if isinstance(error, UnknownCommitError):
            raise error from failure
        raise UnknownCommitError(
            f"{error}. Whether run {job.id} was committed before cannot be seen: {failure}"
        ) from error
    # With an unknown outcome, a request under way may still name the files.
    if not isinstance(error, UnknownCommitError):
        # Files in a version are kept: they belong to a commit of this process, or of another one
        # with the same run id.
        writer.delete_noted(folder, job.storage_options)
        _remove_pieces(job)
        if receipt is None and not existed:
            _remove_empty(job.to)
    if receipt is not None:
        _LOGGER.warning("the run was committed before this happened: %s", error)
        return replace(receipt, already_committed=False)
    raise error


def _committed(job: Job) -> CommitReceipt | None:
    from contextframe_beam.pipelines.ingest import committed

    return committed(job)


def _receipt(job: Job) -> CommitReceipt | None:
    from contextframe_beam.transforms.guards import committed_receipt

    return committed_receipt(job.address, job.id, job.source)


def _interrupted(job: Job, folder: str) -> str:
    # Only a backfill makes a note of each commit that it begins.
    kept = _kept_of(job) if writer.current(folder) is not None else ""
    return f"interrupted{kept}" if kept else "interrupted; nothing was committed"


def _kept_of(job: Job) -> str:
    """Returns what a backfill has already committed, as text; empty if nothing."""
    from contextframe_beam.store.files import open_dataset
    from contextframe_beam.store.state import read_states

    try:
        dataset = open_dataset(job.address)
        state = read_states(dataset).get(job.source) if dataset is not None else None
    except ContextFrameError as error:
        return f"; what run {job.id} has committed cannot be seen: {error}"
    if state is None or state.backfill.get("run_id") != job.id:
        return ""
    last = state.run(state.backfill.get("last", ""))
    rows = f" with {last.rows_written:,} documents written" if last is not None else ""
    commits = int(state.backfill.get("commits", 0))
    return (
        f"; {commits:,} {'commit' if commits == 1 else 'commits'} of run {job.id}{rows} stay, "
        "and the same command goes on from there"
    )


def _remove_pieces(job: Job) -> None:
    from contextframe_beam.transforms.letters import remove_pieces

    with suppress(OSError):
        remove_pieces(job.letters, job.id, job.storage_options)
        os.rmdir(dead_letters_beside(job.to))  # fails, as it should, if it contains letters


def _remove_empty(path: str) -> None:
    """Removes the folders of a local dataset that was never made, if nothing is in them."""
    for folder, _, _ in os.walk(path, topdown=False):
        with suppress(OSError):
            os.rmdir(folder)
