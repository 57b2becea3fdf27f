"""The receipt of a run, in words for people and as JSON for scripts."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from contextframe_beam.state import CommitReceipt


@dataclass(frozen=True)
class Outcome:
    """A committed run, as the command line tells of it.

    Attributes:
        receipt: What was committed.
        to: The dataset.
        dead_letters: Where the failed items are; None when none failed.
        seconds: How long it took.
        left_out: What of the source was not looked at; empty where that is not known.
    """

    receipt: CommitReceipt
    to: str
    dead_letters: str | None
    seconds: float
    left_out: str = ""

    def to_json(self) -> str:
        """Returns one JSON object on one line."""
        told = asdict(self.receipt)
        del told["start"]  # nobody but the run itself knows the others
        return json.dumps(
            {
                **told,
                "to": self.to,
                "dead_letters": self.dead_letters,
                "seconds": round(self.seconds, 3),
            }
        )

    def text(self) -> str:
        """Returns a few lines for people."""
        receipt = self.receipt
        if not receipt.version:
            return f"nothing to write: the source gave no items, and {self.to} was not made"
        lines = [f"{self._done()} (version {receipt.version} of {self.to}, {self.seconds:.1f} s)"]
        if receipt.failed:
            lines.append(receipt.what_failed(self.dead_letters))
        if receipt.partial:
            lines.append("partial: what was read may not be all; no sync state moved")
        if receipt.sharing:
            ids = "1 id" if receipt.shared_ids == 1 else f"{receipt.shared_ids:,} ids"
            lines.append(
                f"{receipt.sharing:,} items share {ids}, and no time says which is newer; one of "
                "each was kept"
            )
        if receipt.kept:
            what = "not all" if receipt.rows_deleted else "nothing"
            lines.append(f"{what} was deleted that the run did not see, because {receipt.kept}")
        size = ""
        if receipt.bytes:
            size = f", {in_bytes(receipt.bytes)} in {_files(receipt.fragments)}"
        lines.append(f"run {receipt.run_id}, mode {receipt.mode}{size}")
        if self.left_out and not receipt.already_committed:
            lines.append(self.left_out)
        return "\n".join(lines)

    def _done(self) -> str:
        one = self.receipt
        if one.already_committed:
            return "this run was committed before, and nothing was done now"
        if not one.rows_written and not one.rows_deleted:
            if one.rows_unchanged:
                stored = count_documents(one.rows_unchanged, "is stored", "are stored")
                return f"nothing changed: {stored} already, none was written"
            others = "other " if one.failed else ""
            return f"nothing to write: the source gave no {others}items"
        parts = [f"wrote {count_documents(one.rows_written)}"]
        if one.rows_replaced:
            new = one.rows_written - one.rows_replaced
            # One document may replace several, where a run in mode append has doubled its key.
            added = f"{new:,} new, " if new >= 0 else ""
            parts[0] += f" ({added}{one.rows_replaced:,} replaced)"
        if one.rows_deleted:
            parts.append(f"deleted {one.rows_deleted:,}")
        if one.rows_unchanged:
            parts.append(f"{one.rows_unchanged:,} unchanged")
        older = one.rows_dropped - (one.sharing - one.shared_ids)
        if older:
            parts.append(f"{older:,} left out for a newer one of the same id")
        return ", ".join(parts)


def existing(path: str) -> str | None:
    """Returns a local path as it is if there is such a file; an address without looking."""
    return path if "://" in path or os.path.exists(path) else None


def count_documents(count: int, one: str = "", several: str = "") -> str:
    """Returns a number of documents in words, with what is said of one or of several."""
    return f"1 document {one}".rstrip() if count == 1 else f"{count:,} documents {several}".rstrip()


def _files(count: int) -> str:
    return "1 data file" if count == 1 else f"{count:,} data files"


def in_bytes(count: float) -> str:
    """Returns a size in words, as in `9.1 kB`."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:,.0f} {unit}" if unit == "bytes" else f"{count:,.1f} {unit}"
        count /= 1000
    return f"{count:,.1f} TB"
