"""Every split of every restriction, at every position, reads each item exactly once."""

import io
import json
import threading
from itertools import product
from types import SimpleNamespace

import apache_beam as beam
import pytest
from apache_beam.io.restriction_trackers import OffsetRange, OffsetRestrictionTracker
from apache_beam.runners.portability.fn_api_runner import FnApiRunner, fn_runner
from apache_beam.runners.sdf_utils import RestrictionTrackerView, ThreadsafeRestrictionTracker
from apache_beam.testing.util import assert_that
from apache_beam.transforms.environments import EmbeddedPythonGrpcEnvironment
from hypothesis import given, settings
from hypothesis import strategies as st

from contextframe_beam.connectors import json_file
from contextframe_beam.connectors.base import BaseConnector
from contextframe_beam.connectors.json_file import JSONFileConnector
from contextframe_beam.connectors.json_files import content
from contextframe_beam.connectors.json_files import lines as _jsonl
from contextframe_beam.connectors.kinds import (
    BatchConnector,
    IncrementalConnector,
    PaginatedConnector,
    StreamingConnector,
)
from contextframe_beam.connectors.page import Page, Partition
from contextframe_beam.connectors.read.source import PlanChunk, Source
from contextframe_beam.connectors.read.transform import ReadFromConnector, _Opener, _ReadDoFn
from tests.support.laws import examples

FRACTIONS = (0.0, 0.3, 0.5, 0.8, 1.0)


class Cursors(PaginatedConnector):
    """Partitions that only a cursor can walk; one of them is empty."""

    pages = (("a", 1), ("b", 3), ("c", 0), ("d", 2), ("e", 1))

    def partitions(self):
        return [name for name, _ in self.pages]

    def fetch_page(self, partition, cursor):
        at = cursor or 0
        count = dict(self.pages)[partition.id]
        items = [f"{partition.id}{at}{n}" for n in range(2)] if at < count else []
        return Page(items, next_cursor=at + 1 if at + 1 < count else None)


class OneAtATime(Cursors):
    """The same for a connector whose requests must not overlap."""

    max_in_flight = 1


class Numbered(Cursors):
    """Partitions whose pages are counted, each page a block of its own."""

    def count_pages(self, partition):
        return dict(self.pages)[partition.id]


class Mixed(Numbered):
    """Only some partitions can count their pages."""

    max_in_flight = 2

    def count_pages(self, partition):
        return None if partition.id == "b" else super().count_pages(partition)


class Batches(BatchConnector):
    def __init__(self, total):
        super().__init__(batch_size=2)
        self.total = total

    def total_items(self):
        return self.total

    def _fetch_batch(self, start, end):
        return list(range(start, end))


class Stream(StreamingConnector):
    def sync_documents_stream(self):
        yield from range(1201)


class Changes(IncrementalConnector):
    def _full_sync(self):
        return list(range(1000))

    def _incremental_sync(self, since):
        raise AssertionError("there is no state")


class Simple(BaseConnector):
    def sync_documents(self):
        return list(range(7))


@pytest.fixture
def connector(request, tmp_path, monkeypatch):
    """The connector that a parameter names; files are cut into small blocks."""
    monkeypatch.setattr(json_file, "BLOCK_BYTES", 8)
    monkeypatch.setattr(content, "BLOCK_BYTES", 8)
    monkeypatch.setattr(json_file, "CACHED_BYTES", 3)
    monkeypatch.setattr(content, "FILES_IN_A_GROUP", 2)
    monkeypatch.setattr(json_file, "_ITEMS_IN_A_PAGE", 2)
    made = request.param(tmp_path)
    made.authenticate()
    return made


def lines(folder):
    (folder / "a.jsonl").write_text('{"a": 1}\n\n{"a": "two and more"}\r\n{}\n{"b":1}\n{"c":2}')
    (folder / "b.jsonl").write_text("")
    (folder / "c.jsonl").write_text('{"d": 1}\nbroken\n')
    return JSONFileConnector(folder, "*.jsonl")


def documents(folder):
    for number in range(5):
        (folder / f"{number}.json").write_text(json.dumps({"number": number}))
    (folder / "6.json").write_text("broken")
    return JSONFileConnector(folder)


KINDS = [
    pytest.param(lambda _: Cursors(), id="cursors"),
    pytest.param(lambda _: OneAtATime(), id="one-at-a-time"),
    pytest.param(lambda _: Numbered(), id="numbered"),
    pytest.param(lambda _: Mixed(), id="mixed"),
    pytest.param(lambda _: Batches(9), id="batches"),
    pytest.param(lambda _: Batches(0), id="no-batches"),
    pytest.param(lambda _: Stream(), id="stream"),
    pytest.param(lambda _: Changes(), id="changes"),
    pytest.param(lambda _: Simple(), id="simple"),
    pytest.param(lines, id="lines"),
    pytest.param(documents, id="documents"),
]
every_kind = pytest.mark.parametrize("connector", KINDS, indirect=True)


def everything(source):
    return contents(source.pages())


def contents(pages):
    """What must be the same however a source is split: items, failures, states, finished blocks."""
    found = SimpleNamespace(items=[], failures=[], states=[], finished=0, planned=0)
    for page in pages:
        found.items += [json.dumps(item, sort_keys=True) for item in page.items]
        found.failures += [letter.position for letter in page.failures]
        found.states += [sorted(page.state)] if page.state else []
        found.finished += page.finished
        found.planned += page.planned
    found.items.sort()
    found.failures.sort()
    return found


def run_with_splits(dofn, chunk, restriction, splits):
    """Reads a restriction, split after some pages; then the rest that was split off, and so on.

    Args:
        dofn: The DoFn that reads.
        chunk: Its element.
        restriction: The range of blocks.
        splits: For each restriction in turn, after how many pages it is split, and where.
    """
    tracker = ThreadsafeRestrictionTracker(OffsetRestrictionTracker(restriction))
    reading = dofn.process(chunk, RestrictionTrackerView(tracker))
    pages, residual = [], None
    (after, fraction), *others = splits or [(None, None)]
    for page in reading:
        pages.append(page)
        if len(pages) == after:
            _, residual = tracker.try_split(fraction) or (None, None)
    if after == 0:
        raise AssertionError("a split before the first page needs a reader that has not begun")
    tracker.check_done()
    if residual is not None:
        pages += run_with_splits(dofn, chunk, residual, others)
    return pages


def split_before_reading(dofn, chunk, restriction, fraction):
    tracker = ThreadsafeRestrictionTracker(OffsetRestrictionTracker(restriction))
    split = tracker.try_split(fraction)
    pages = list(dofn.process(chunk, RestrictionTrackerView(tracker)))
    tracker.check_done()
    if split is not None:
        pages += run_with_splits(dofn, chunk, split[1], [])
    return pages


def reader(connector):
    return _ReadDoFn(_Opener(connector, {}, False, {}, Source(connector).info))


@every_kind
def test_the_header_announces_as_many_blocks_as_are_finished(connector):
    found = everything(Source(connector))
    assert found.planned == found.finished > 0


@every_kind
@pytest.mark.parametrize("workers", range(1, 8))
def test_every_initial_split_reads_everything_once(connector, workers):
    source = Source(connector)
    dofn = reader(connector)
    pieces = list(source.plan(workers))
    pages = []
    for piece in pieces:
        pages += run_with_splits(dofn, piece, OffsetRange(piece.start, piece.stop), [])
    assert contents(pages) == everything(source)
    assert pieces[-1].header.planned == sum(piece.stop - piece.start for piece in pieces[:-1])


@every_kind
def test_any_two_ranges_of_a_plan_read_everything_once(connector):
    source = Source(connector)
    dofn = reader(connector)
    whole = whole_plan(source)
    for middle in range(whole.stop + 1):
        pages = run_with_splits(dofn, whole, OffsetRange(0, middle), [])
        pages += run_with_splits(dofn, whole, OffsetRange(middle, whole.stop), [])
        assert without_header(source) == contents(pages)


@every_kind
@pytest.mark.parametrize("fraction", FRACTIONS)
def test_every_dynamic_split_reads_everything_once(connector, fraction):
    source = Source(connector)
    dofn = reader(connector)
    whole = whole_plan(source)
    blocks = OffsetRange(0, whole.stop)
    expected = without_header(source)
    assert contents(split_before_reading(dofn, whole, blocks, fraction)) == expected
    pages = len(list(source.pages()))
    for after in range(1, pages + 1):
        found = run_with_splits(dofn, whole, blocks, [(after, fraction)])
        assert contents(found) == expected


@every_kind
def test_what_was_split_off_can_be_split_again(connector):
    source = Source(connector)
    dofn = reader(connector)
    whole = whole_plan(source)
    expected = without_header(source)
    for splits in product(product((1, 2, 3), (0.0, 0.5)), repeat=2):
        found = run_with_splits(dofn, whole, OffsetRange(0, whole.stop), list(splits))
        assert contents(found) == expected


@pytest.mark.parametrize("connector", [lambda _: Batches(20)], indirect=True)
def test_a_split_takes_blocks_away_that_nobody_has_claimed(connector):
    connector.max_workers = 1
    dofn = reader(connector)
    whole = whole_plan(Source(connector))
    tracker = ThreadsafeRestrictionTracker(OffsetRestrictionTracker(OffsetRange(0, 10)))
    reading = dofn.process(whole, RestrictionTrackerView(tracker))
    assert next(reading).items == [0, 1]
    primary, residual = tracker.try_split(0)
    assert (primary, residual) == (OffsetRange(0, 1), OffsetRange(1, 10))
    assert list(reading) == []


def test_the_header_is_read_once_and_cannot_be_split():
    source = Source(Simple())
    header = list(source.plan())[-1]
    tracker = ThreadsafeRestrictionTracker(OffsetRestrictionTracker(OffsetRange(0, 1)))
    pages = reader(source.connector).process(header, RestrictionTrackerView(tracker))
    assert next(pages).planned == 1
    assert tracker.try_split(0.5) is None
    assert list(pages) == []
    tracker.check_done()


def whole_plan(source):
    """The plan in one piece."""
    parts, total = [], 0
    for piece in source.plan():
        for part in piece.parts:
            if part not in parts:
                parts.append(part)
                total += part.blocks
    return PlanChunk(tuple(parts), 0, total)


def without_header(source):
    found = everything(source)
    found.planned = 0
    return found


class Gated(BatchConnector):
    """Lets a test decide when the next batch may be read."""

    gate = None

    def total_items(self):
        return 12

    def _fetch_batch(self, start, end):
        Gated.gate.acquire(timeout=60)
        return list(range(start, end))


@pytest.mark.sample
@pytest.mark.parametrize("after", range(5))
@pytest.mark.parametrize("fraction", [0.0, 0.5, 0.9])
def test_the_runner_splits_a_running_bundle(after, fraction):
    Gated.gate = threading.Semaphore(0)
    asked = []

    def split(_):
        for _ in range(after):
            Gated.gate.release()
        asked.append((yield fraction))
        for _ in range(100):
            Gated.gate.release()

    def check(pages):
        found = contents(pages)
        assert found.planned == found.finished == 6
        assert found.items == sorted(map(str, range(12)))

    # The runner splits only workers that it talks to over gRPC.
    runner = FnApiRunner(default_environment=EmbeddedPythonGrpcEnvironment())
    with fn_runner.split_manager("Read/Read", split), beam.Pipeline(runner) as pipeline:
        pages = pipeline | "Read" >> ReadFromConnector(Gated(batch_size=2, max_workers=1))
        assert_that(pages, check)
    assert any(asked)


# Lines of any content, ended in any way a file may be.
ANY_TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\n\r"), max_size=12)
LINE = st.one_of(
    st.just(b""),
    st.just(b"  "),
    st.builds(lambda text: json.dumps({"t": text}, ensure_ascii=False).encode(), ANY_TEXT),
    st.builds(lambda number: json.dumps({"n": number}).encode(), st.integers()),
    ANY_TEXT.map(str.encode),
)
FILE = st.builds(
    lambda bom, lines, newline, last: bom + newline.join(lines) + last,
    st.sampled_from([b"", b"\xef\xbb\xbf"]),
    st.lists(LINE, max_size=8),
    st.sampled_from([b"\n", b"\r\n"]),
    st.sampled_from([b"", b"\n", b"\r\n"]),
)


def parsed(data, ranges, longest):
    """What is read of a file in these ranges: items, and where the bad lines begin."""

    def read(offset, size):
        return data[offset : offset + size]

    items, bad = [], []
    for start, stop in ranges:
        block = _jsonl.lines_of_block(read, start, stop, longest)
        some, worse = _jsonl.parse_lines(block, "p", "n", "m", longest)
        items += some
        bad += [(one.offset, one.data, str(one.error)) for one in worse]
    return items, bad


def read_plainly(data, longest):
    """The same, by the simplest program that could do it."""
    items, bad, offset = [], [], 0
    for line in data.split(b"\n"):
        began = offset
        offset += len(line) + 1
        if len(line) > longest:
            bad.append(began)
            continue
        line = line.removeprefix(b"\xef\xbb\xbf")
        if not line.strip():
            continue
        try:
            value = json.loads(line.decode())
        except ValueError:
            value = None
        if isinstance(value, dict):
            items.append({**value, "_line_offset": began})
        else:
            bad.append(began)
    return items, bad


def without_file(items):
    names = ("_file_path", "_file_name", "_modified_at")
    return [{key: item[key] for key in item if key not in names} for item in items]


@settings(max_examples=examples(400), deadline=None)
@given(FILE, st.integers(1, 40), st.sampled_from([7, 20, 1000]), st.integers(1, 30))
def test_blocks_of_any_size_hold_each_line_once(data, size, longest, tail):
    ranges = [(start, min(start + size, len(data))) for start in range(0, len(data), size)]
    with pytest.MonkeyPatch.context() as patch:
        # What is read beyond a block must not matter.
        patch.setattr(_jsonl, "_TAIL_BYTES", tail)
        patch.setattr(_jsonl, "_LONGEST_READ", 2 * tail + 1)
        items, bad = parsed(data, ranges, longest)
    expected_items, expected_bad = read_plainly(data, longest)
    assert without_file(items) == expected_items
    assert [offset for offset, _, _ in bad] == expected_bad
    assert (items, bad) == parsed(data, [(0, len(data))], longest)


@settings(max_examples=examples(200), deadline=None)
@given(FILE, st.integers(1, 40), st.sampled_from([7, 20, 1000]))
def test_a_stream_of_any_pieces_holds_each_line_once(data, size, longest):
    items, bad = [], []
    for lines_read in _jsonl.lines_of_stream(io.BytesIO(data), longest, size):
        some, worse = _jsonl.parse_lines(lines_read, "p", "n", "m", longest)
        items += some
        bad += [one.offset for one in worse]
    expected_items, expected_bad = read_plainly(data, longest)
    assert without_file(items) == expected_items
    assert bad == expected_bad


@pytest.mark.sample(10)
@pytest.mark.parametrize("blocks", range(1, 30))
def test_partitions_and_block_ranges_travel_in_pieces(blocks):
    class Counted(Numbered):
        pages = (("a", blocks), ("b", 3), ("c", 30))

    for workers in range(1, 40):
        pieces = list(Source(Counted()).plan(workers))[:-1]
        read = [
            (piece.parts[0].partition, index)
            for piece in pieces
            for index in range(piece.start, piece.stop)
        ]
        # All are as long as the longest has to be; only the last one may be shorter.
        *lengths, last = (piece.stop - piece.start for piece in pieces)
        assert set(lengths) <= {-(-(blocks + 33) // workers)}
        assert 0 < last <= -(-(blocks + 33) // workers)
        assert len(read) == blocks + 33
        assert all(isinstance(one, Partition) for one, _ in read)
