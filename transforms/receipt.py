"""What a run leaves in the hands of whoever started it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class CommitReceipt:
    """A committed run.

    Attributes:
        version: The dataset version that the run made.
        run_id: The run.
        mode: create, append, overwrite, upsert or mirror.
        rows_written: Documents written.
        rows_replaced: Documents that were stored before and were replaced.
        rows_deleted: Documents deleted without a successor.
        rows_unchanged: Documents that are stored as they are already, and were not written.
        rows_dropped: Documents that another one of the same key and run outdated.
        failed: Items that went to the dead letters.
        fragments: Data files added.
        bytes: Their size.
        partial: Why what was read may not be all that was asked for; no state of the source moved
            then, and a mirror deleted nothing that it did not see. Empty where all is known.
        kept: Why a mirror deleted nothing that it did not see; empty where it could.
        already_committed: The run had been committed before; nothing was done now.
    """

    version: int
    run_id: str
    mode: str
    rows_written: int = 0
    rows_replaced: int = 0
    rows_deleted: int = 0
    rows_unchanged: int = 0
    rows_dropped: int = 0
    failed: int = 0
    fragments: int = 0
    bytes: int = 0
    partial: tuple[str, ...] = ()
    kept: str = ""
    already_committed: bool = False
