"""The receipt of a run: what was committed, in numbers and in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from operator import attrgetter
from typing import Any

from contextframe_beam.frames.html import definition_list
from contextframe_beam.frames.values import of_type
from contextframe_beam.store.runs import FailureReason, Reasons

__all__ = ["WORK", "CommitReceipt"]

#: The numbers of a receipt about work on documents; 0 in other runs.
WORK = (
    "documents",
    "parsed",
    "chunks",
    "texts_embedded",
    "texts_reused",
    "tokens",
    "requests",
    "stale",
    "skipped",
    "readers_changed",
    "moved",
)


@dataclass(frozen=True)
class CommitReceipt:
    """The receipt of a committed run: it is returned to the caller, and kept in the source's state.

    Attributes:
        run_id: The id of the run.
        mode: create, append, overwrite, upsert or mirror.
        at: When it was committed, ISO 8601 in UTC; empty if nothing was committed.
        version: The dataset version that it made; 0 if there was nothing to make one from.
        rows_written: Written documents.
        rows_replaced: Stored documents that were replaced.
        rows_deleted: Documents that were deleted without a successor.
        rows_unchanged: Documents that are already stored as they are, and were not written.
        rows_dropped: Items that were left out because the run has another one with the same id.
        sharing: Items that share an id with others, without a time that shows which one is newer.
        shared_ids: The number of their ids; one item of each was kept.
        failed: Items that went to the dead letters.
        fragments: Data files added.
        bytes: Their size.
        partial: Why records may be missing; then no state of the source moved, and a mirror did not
            delete unseen documents. Empty if nothing is missing.
        unread: Those of these reasons that name parts of the source which could not be read. Where
            there are no others, the states of the other parts moved.
        kept: Why a mirror did not delete all unseen documents; empty if it did.
        reasons: Why items failed, the most frequent reasons first.
        start: Which of several starts with this run id was committed.
        documents: Documents that were parsed or cut into chunks, or recognised before that.
        parsed: The documents among them whose bytes were read and parsed.
        chunks: Written chunks; they do not count as documents.
        texts_embedded: Texts that an embedder made vectors of.
        texts_reused: Texts whose vectors were known from before.
        tokens: Tokens of the texts that were embedded, as the embedder counts them.
        requests: Requests that were sent to embed them.
        stale: Failed documents, which stay as they were stored before.
        skipped: Items of types without a parser.
        readers_changed: Unchanged documents that others may read now; that was written into their
            rows.
        moved: Unchanged documents that are in another collection now, which was written as well.
        already_committed: Whether the run had been committed before, so that nothing was done now.
    """

    run_id: str
    mode: str = ""
    at: str = ""
    version: int = 0
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
    unread: tuple[str, ...] = ()
    kept: str = ""
    reasons: tuple[FailureReason, ...] = ()
    start: str = ""
    documents: int = 0
    parsed: int = 0
    chunks: int = 0
    texts_embedded: int = 0
    texts_reused: int = 0
    tokens: int = 0
    requests: int = 0
    stale: int = 0
    skipped: int = 0
    readers_changed: int = 0
    moved: int = 0
    already_committed: bool = False

    #: The stored names of these attributes.
    written = property(attrgetter("rows_written"))
    replaced = property(attrgetter("rows_replaced"))
    deleted = property(attrgetter("rows_deleted"))
    unchanged = property(attrgetter("rows_unchanged"))
    dropped = property(attrgetter("rows_dropped"))

    def values(self) -> dict[str, Any]:
        """Returns all attributes; those in `WORK` only if any of them is not 0."""
        values = asdict(self)
        if any(values[name] for name in WORK):
            return values
        return {name: value for name, value in values.items() if name not in WORK}

    def facts(self) -> dict[str, Any]:
        """Returns the facts about the run by their stored names."""
        values = self.values()
        del values["already_committed"]  # depends on who asks
        return {name.removeprefix("rows_"): value for name, value in values.items()}

    @property
    def counts(self) -> dict[str, int]:
        """The numbers of documents, items and files, by their stored names."""
        said = (name for name in _COUNTED if name not in WORK or getattr(self, name))
        return {name.removeprefix("rows_"): getattr(self, name) for name in said}

    @property
    def work(self) -> str:
        """The work on documents, as in `165 documents, 7,471 chunks, 7,471 texts embedded`.

        Empty if no document was parsed, chunked or embedded, and none is stale or skipped.
        """
        if not any(getattr(self, name) for name in WORK if name != "documents"):
            return ""
        words = ((getattr(self, name), one, many) for name, one, many in _WORDS)
        return ", ".join(f"{n:,} {one if n == 1 else many}" for n, one, many in words if n)

    def _repr_html_(self) -> str:
        told = {name: count for name, count in self.counts.items() if count}
        about = {"Run": self.run_id, "Mode": self.mode, "Committed": self.at}
        version = {"Version": self.version or "nothing was committed"}
        return definition_list({**about, **version, **told, "Missing": self.what_is_missing()})

    def with_earlier(self, earlier: CommitReceipt) -> CommitReceipt:
        """Returns the receipt with the counts and reasons of an earlier commit of the run added."""
        sums = {name: getattr(self, name) + getattr(earlier, name) for name in _COUNTED}
        partial = tuple(sorted({*earlier.partial, *self.partial}))
        unread = tuple(sorted({*earlier.unread, *self.unread}))
        reasons = Reasons([*earlier.reasons, *self.reasons]).most()
        return replace(self, **sums, partial=partial, unread=unread, reasons=reasons)

    def to_json(self) -> dict[str, Any]:
        """Returns the stored form; earlier releases ignore new fields."""
        said_only = {
            "sharing",
            "shared_ids",
            "partial",
            "unread",
            "kept",
            "reasons",
            "start",
            *WORK,
        }
        return {name: one for name, one in self.facts().items() if one or name not in said_only}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> CommitReceipt:
        """Reads the stored form of any release; unknown fields are left out."""
        of_type(value, dict, "a run")
        read: dict[str, Any] = {}
        for one in fields(cls):
            name = one.name.removeprefix("rows_")
            if name in value and name != "already_committed":
                kind = int if one.default == 0 else list if one.default == () else str
                read[one.name] = of_type(value[name], kind, f"a run's {name}")
        for name in ("partial", "unread"):
            read[name] = tuple(of_type(one, str, "a reason") for one in read.get(name, []))
        read["reasons"] = tuple(map(FailureReason.from_json, read.get("reasons", [])))
        return cls(**read)

    @property
    def is_incomplete(self) -> bool:
        """Whether items failed, or records may be missing."""
        return bool(self.failed or self.partial)

    @property
    def moves_state(self) -> bool:
        """Whether the states of what was read to its end moved."""
        return set(self.partial) <= set(self.unread)

    @property
    def what_is_partial(self) -> tuple[str, str]:
        """What may be missing from a partial run, and which states stayed, in words."""
        if self.moves_state:
            return "parts of the source could not be read", "their sync state did not move"
        return "what was read may not be all", "no sync state moved"

    def what_failed(self, dead_letters: str | None = None) -> str:
        """Returns in words how many items failed, and where they are kept if the file is given."""
        items = "1 item" if self.failed == 1 else f"{self.failed:,} items"
        return f"{items} failed{f', kept in {dead_letters}' if dead_letters else ''}"

    def what_is_missing(self, dead_letters: str | None = None) -> str:
        """Returns in lines what is missing from the run, and why; empty if nothing is missing.

        Args:
            dead_letters: The file with the failed items.
        """
        lines = []
        if self.failed:
            lines.append(f"{self.what_failed(dead_letters)}{':' if self.reasons else ''}")
            lines += [f"  {reason}" for reason in self.reasons]
            others = self.failed - sum(reason.count for reason in self.reasons)
            if self.reasons and others > 0:
                lines.append(f"  other reasons ({others:,} items)")
        if self.partial:
            what, stayed = self.what_is_partial
            kept = "nothing was deleted because the run did not see it"
            if self.moves_state:
                kept = "nothing of them was deleted"
            lines.append(f"run {self.run_id} is partial: {what}, so {stayed}, and {kept}:")
            lines += [f"  {reason}" for reason in self.partial]
        return "\n".join(lines)


_WORDS = (
    ("documents", "document", "documents"),
    ("parsed", "parsed", "parsed"),
    ("chunks", "chunk", "chunks"),
    ("texts_embedded", "text embedded", "texts embedded"),
    ("texts_reused", "text known before", "texts known before"),
    ("tokens", "token", "tokens"),
    ("requests", "request", "requests"),
    ("stale", "stale (stays as it was)", "stale (stay as they were)"),
    ("skipped", "skipped (nothing reads its type)", "skipped (nothing reads their type)"),
    ("readers_changed", "document with other readers", "documents with other readers"),
    ("moved", "document in another collection", "documents in other collections"),
)

_COUNTED = tuple(
    one.name for one in fields(CommitReceipt) if type(one.default) is int and one.name != "version"
)
