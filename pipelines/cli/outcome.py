"""What commands tell of a run in words, and how they say numbers, sizes and times."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from contextframe_beam.store.state import CommitReceipt

_UNITS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


@dataclass(frozen=True)
class Outcome:
    """A committed run, as the command line tells of it.

    Attributes:
        receipt: What was committed.
        to: The dataset.
        dead_letters: Where the failed items are; None when none failed.
        seconds: How long it took.
        left_out: The part of the source that was not looked at; empty if unknown.
        unindexed: How many vectors the dataset holds without an index that would pay; 0 otherwise.
        dry_run: Whether all was only counted.
        scattered: How many small files the dataset has that a compaction would join; 0 if few.
    """

    receipt: CommitReceipt
    to: str
    dead_letters: str | None
    seconds: float
    left_out: str = ""
    dry_run: bool = False
    unindexed: int = 0
    scattered: int = 0

    def to_json(self) -> str:
        """Returns one JSON object on one line."""
        told = self.receipt.values()
        del told["start"]  # nobody but the run itself knows the others
        return json.dumps(
            {
                **told,
                "to": self.to,
                "dead_letters": self.dead_letters,
                "seconds": round(self.seconds, 3),
                **({"dry_run": True} if self.dry_run else {}),
                **({"vectors_without_index": self.unindexed} if self.unindexed else {}),
                **({"small_files": self.scattered} if self.scattered else {}),
            }
        )

    def text(self) -> str:
        """Returns a few lines for people."""
        receipt = self.receipt
        if self.dry_run:
            return self._counted()
        if not receipt.version:
            return f"nothing to write: the source gave no items, and {self.to} was not made"
        lines = [f"{self._done()} (version {receipt.version} of {self.to}, {self.seconds:.1f} s)"]
        if receipt.work:
            lines.append(receipt.work)
        if receipt.failed:
            lines.append(receipt.what_failed(self.dead_letters))
        if receipt.partial:
            lines.append(f"partial: {'; '.join(receipt.what_is_partial)}")
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
        if self.scattered:
            lines.append(
                f"{self.scattered:,} small data files slow down reading; "
                f"`contextframe-beam compact {self.to}` joins them"
            )
        if self.unindexed:
            lines.append(
                f"{self.unindexed:,} vectors are compared one by one in each search; "
                f"`contextframe-beam index {self.to} --vector` makes that faster"
            )
        return "\n".join(lines)

    def _counted(self) -> str:
        one = self.receipt
        parts = [count_documents(one.documents)]
        if one.rows_unchanged:
            parts[0] += f" ({one.rows_unchanged:,} of them unchanged)"
        if one.chunks:
            parts.append(count_chunks(one.chunks))
        if one.texts_embedded or one.texts_reused:
            texts = "1 text" if one.texts_embedded == 1 else f"{one.texts_embedded:,} texts"
            parts.append(f"{texts} to embed, with about {one.tokens:,} tokens")
        if one.texts_reused:
            have = "text has" if one.texts_reused == 1 else "texts have"
            parts.append(f"{one.texts_reused:,} {have} a vector already")
        if one.skipped:
            parts.append(f"{one.skipped:,} skipped, of types that nothing reads")
        if one.failed:
            parts.append(one.what_failed())
        return f"dry run: {', '.join(parts)}; nothing was written ({self.seconds:.1f} s)"

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
        parts = [f"wrote {count_documents(one.rows_written)}"] if one.rows_written else []
        if one.rows_replaced:
            new = one.rows_written - one.rows_replaced
            # One document may replace several, where a run in mode append has doubled its key.
            added = f"{new:,} new, " if new > 0 else ""
            parts[0] += f" ({added}{one.rows_replaced:,} replaced)"
        if one.rows_deleted:
            deleted = f"{one.rows_deleted:,}" if parts else count_documents(one.rows_deleted)
            parts.append(f"deleted {deleted}")
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


def count_chunks(count: int) -> str:
    """Returns a number of chunks in words."""
    return "1 chunk" if count == 1 else f"{count:,} chunks"


def _files(count: int) -> str:
    return "1 data file" if count == 1 else f"{count:,} data files"


def in_bytes(count: float) -> str:
    """Returns a size in words, as in `9.1 kB`."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:,.0f} {unit}" if unit == "bytes" else f"{count:,.1f} {unit}"
        count /= 1000
    return f"{count:,.1f} TB"


def ago(time: str, now: datetime | None = None) -> str:
    """Returns how long ago a time is, as in `3 h ago`."""
    from contextframe_beam.store.history import time_of

    passed = ((now or datetime.now(timezone.utc)) - time_of(time)).total_seconds()
    return f"{took(max(passed, 0), rough=True)} ago"


def took(seconds: float | None, rough: bool = False) -> str:
    """Returns a length of time in words: `0.9 s`, `4 min 10 s`, `3 d`; "" if it is unknown.

    Args:
        seconds: The length.
        rough: Whether the largest unit suffices.
    """
    if seconds is None:
        return ""
    if seconds < 60:
        return f"{seconds:.0f} s" if rough else f"{seconds:.1f} s"
    for place, (length, unit) in enumerate(_UNITS):
        whole, rest = divmod(int(seconds), length)
        if not whole:
            continue
        smaller, name = _UNITS[place + 1]
        more = f" {rest // smaller} {name}" if not rough and rest // smaller else ""
        return f"{whole} {unit}{more}"
    return ""
