"""What a run leaves in the hands of whoever started it."""

from __future__ import annotations

from dataclasses import dataclass

from contextframe_beam.reasons import FailureReason


@dataclass(frozen=True)
class CommitReceipt:
    """A committed run.

    Attributes:
        version: The dataset version that the run made; 0 where there was nothing to make it of.
        run_id: The run.
        mode: create, append, overwrite, upsert or mirror.
        rows_written: Documents written.
        rows_replaced: Documents that were stored before and were replaced.
        rows_deleted: Documents deleted without a successor.
        rows_unchanged: Documents that are stored as they are already, and were not written.
        rows_dropped: Items that were left out for another one of the same id and run.
        sharing: Items that share an id with others, and no time says which one is newer.
        shared_ids: How many ids these have; one item of each was kept.
        failed: Items that went to the dead letters.
        fragments: Data files added.
        bytes: Their size.
        partial: Why what was read may not be all that was asked for; no state of the source moved
            then, and a mirror deleted nothing that it did not see. Empty where all is known.
        kept: Why a mirror did not delete all that it did not see; empty where it did.
        reasons: Why items failed, the reasons of most of them first.
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
    sharing: int = 0
    shared_ids: int = 0
    failed: int = 0
    fragments: int = 0
    bytes: int = 0
    partial: tuple[str, ...] = ()
    kept: str = ""
    reasons: tuple[FailureReason, ...] = ()
    already_committed: bool = False

    @property
    def is_incomplete(self) -> bool:
        """Whether items failed, or what was read may not be all that was asked for."""
        return bool(self.failed or self.partial)

    def what_failed(self, dead_letters: str | None = None) -> str:
        """Returns in words how many items failed, and where they are kept if that is given."""
        items = "1 item" if self.failed == 1 else f"{self.failed:,} items"
        return f"{items} failed{f', kept in {dead_letters}' if dead_letters else ''}"

    def what_is_missing(self, dead_letters: str | None = None) -> str:
        """Returns in lines what is missing from the run, and why; empty where nothing is.

        Args:
            dead_letters: Where the failed items are.
        """
        lines = []
        if self.failed:
            lines.append(f"{self.what_failed(dead_letters)}{':' if self.reasons else ''}")
            lines += [f"  {reason}" for reason in self.reasons]
            others = self.failed - sum(reason.count for reason in self.reasons)
            if self.reasons and others > 0:
                lines.append(f"  other reasons ({others:,} items)")
        if self.partial:
            lines.append(
                f"run {self.run_id} is partial: what was read may not be all, so no sync state "
                "moved, and nothing was deleted because the run did not see it:"
            )
            lines += [f"  {reason}" for reason in self.partial]
        return "\n".join(lines)
