"""Checks of how a source is read: in pieces, again, after an interruption, and in little memory."""

from __future__ import annotations

import contextlib
import pickle
import tracemalloc
from collections import Counter
from typing import Any

from contextframe_beam.connectors._ways_by_block import BatchesReader
from contextframe_beam.connectors._ways_by_item import ListReader
from contextframe_beam.connectors.testing.outcome import Failed, NotApplicable
from contextframe_beam.connectors.testing.subject import Reading, Subject, blocks_of, fingerprints

# An odd number, so that ranges begin and end elsewhere than they did.
_OTHER_BATCH = 7
#: What reading may hold beside its pages, in bytes: connections, threads, parsers.
_ALLOWANCE = 1 << 20


def splits_read_each_item_once(subject: Subject) -> str:
    """Read in pieces by several workers, each item comes once; so it does in a plain loop."""
    whole = fingerprints(subject.whole().items)
    doubled = sum(count - 1 for count in whole.values() if count > 1)
    if doubled:
        raise Failed(
            f"{doubled} items come twice",
            "let the ranges of _fetch_batch(start, end) leave out `end`, and pages not overlap",
        )
    readers = [subject.source(), subject.source()]
    blocks = list(blocks_of(readers[0], workers=3))
    pieces: Counter[str] = Counter()
    for number, (chunk, block) in enumerate(reversed(blocks)):
        for fetched in readers[number % 2].read_blocks(chunk, _only(block), block):
            pieces += fingerprints(fetched.page.items)
    _compare(whole, pieces, f"read in {len(blocks)} pieces by two workers")
    reader = readers[0]._reader
    if isinstance(reader, BatchesReader):
        connector: Any = subject.opened()
        connector.batch_size = _OTHER_BATCH
        found = fingerprints(subject.read(connector).items)
        _compare(whole, found, f"read in ranges of {_OTHER_BATCH}")
    if not isinstance(reader, ListReader) and not subject.first.states:
        listed = subject.opened().sync_documents(**subject.sync_kwargs)
        _compare(whole, fingerprints(listed), "given by sync_documents")
    return f"{len(subject.first.items):,} items in {len(blocks)} pieces, each once"


def second_run_reads_nothing(subject: Subject) -> str:
    """A run that begins where the last one ended finds nothing, as nothing changed."""
    first = subject.whole()
    if not first.states:
        raise NotApplicable(
            "it keeps no state, so each run reads everything; write _incremental_sync(self, since) "
            "on IncrementalConnector, or give the last Page of a partition a state"
        )
    second = subject.read(states=first.states)
    newest = max(filter(None, map(subject.time_of, first.items)), default=None)
    if second.items and any(subject.time_of(one) != newest or not newest for one in second.items):
        raise Failed(
            f"the second run reads {len(second.items):,} items of {len(first.items):,}, though "
            "nothing changed",
            "ask the source for what changed after the state of the last run, and leave out what "
            "is not later",
        )
    if second.items:
        # Others of that very moment may have come since, so asking for them again is right.
        return f"the second run reads the {len(second.items)} items of the last moment again"
    return "the second run reads nothing"


def interrupted_run_resumes(subject: Subject) -> str:
    """What an interrupted run did not commit is read by the next one."""
    whole = subject.whole()
    _begin(subject)
    again = subject.read()
    _compare(
        fingerprints(whole.items),
        fingerprints(again.items),
        "read again after a run that was interrupted",
        "keep the state in the Page (or let IncrementalConnector do it), so that it is committed "
        "with the data; a file or a variable that is written while reading is ahead of the data",
    )
    if not whole.states:
        return "after an interruption everything is read again"
    part = _states_of_half(subject)
    rest = subject.read(states=part.states)
    kept = fingerprints(part.items) | fingerprints(rest.items)
    _compare(
        fingerprints(whole.items),
        kept,
        f"read in two runs, of which the first reached {len(part.states)} states",
        "give a state only with the last page of its partition, and of that partition alone",
    )
    return f"{len(part.items):,} items before the interruption and {len(rest.items):,} after it"


def memory_stays_bounded(subject: Subject) -> str:
    """Reading holds some pages and not the source."""
    source = subject.source()
    if isinstance(source._reader, ListReader):
        raise NotApplicable(
            "sync_documents gives a list, which is held whole; for a large source write "
            "sync_documents_stream(self) and yield the items"
        )
    tracemalloc.start()
    try:
        read = total = largest = 0
        before = held = tracemalloc.get_traced_memory()[0]
        for page in source.pages():
            # Nobody keeps the page, so what is still there afterwards is held by the source.
            size = _size_of(page.items)
            total += size
            largest = max(largest, size)
            read += len(page.items)
            page.items = []
            held = max(held, tracemalloc.get_traced_memory()[0])
            if read >= subject.limit:
                break
    finally:
        tracemalloc.stop()
    allowed = _ALLOWANCE + (source._reader.ahead + 4) * largest
    if total < 2 * allowed:
        raise NotApplicable(
            f"{read:,} items of {total / 1e6:.1f} MB are too few to tell; it takes "
            f"{2 * allowed / 1e6:.1f} MB"
        )
    if held - before > allowed:
        raise Failed(
            f"reading {total / 1e6:.1f} MB of items holds {(held - before) / 1e6:.1f} MB at once",
            "yield items as they come, and keep no list of what was read",
        )
    return f"reading {total / 1e6:.1f} MB of items holds {(held - before) / 1e6:.1f} MB"


def _only(wanted: int) -> Any:
    return lambda block: block == wanted


def _compare(
    whole: Counter[str],
    found: Counter[str],
    how: str,
    mend: str = "let a page or range depend on its number alone, and not on what was read before",
) -> None:
    missing, more = (whole - found).total(), (found - whole).total()
    if missing or more:
        raise Failed(f"{how}, {missing:,} items are missing and {more:,} are too many", mend)


def _begin(subject: Subject) -> None:
    """Begins a run and ends it after its first items, as a crash would."""
    pages = iter(subject.source().pages())
    for page in pages:
        if page.items:
            break
    close = getattr(pages, "close", None)
    if close is not None:
        with contextlib.suppress(Exception):
            close()


def _states_of_half(subject: Subject) -> Reading:
    """Reads until half of the states were reached, and keeps the items of those partitions."""
    wanted = max(len(subject.first.states) // 2, 1)
    items: dict[str, list[Any]] = {}
    reading = Reading()
    for page in subject.source().pages():
        items.setdefault(page.partition, []).extend(page.items)
        if page.state is not None and page.partition:
            reading.states[page.partition] = page.state
            if len(reading.states) == wanted:
                break
    reading.items = [one for name in reading.states for one in items[name]]
    return reading


def _size_of(items: list[Any]) -> int:
    """Returns about how many bytes items take in memory."""
    return 3 * len(pickle.dumps(items))
