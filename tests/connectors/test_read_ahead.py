"""Reading ahead: many requests at once, each page once, in order, and no more than needed."""

import threading

import pytest

from contextframe_beam.connectors.ahead import read_ahead
from contextframe_beam.connectors.kinds import (
    BatchConnector,
    PaginatedConnector,
    StreamingConnector,
)
from contextframe_beam.connectors.page import Page
from contextframe_beam.connectors.read.source import Source
from contextframe_beam.errors import ConnectorError


def items_of(pages):
    return [item for page in pages for item in page.items]


def read(connector, sync_kwargs=None):
    """Everything that a source gives, without its header."""
    connector.ensure_authenticated()
    return [page for page in Source(connector, sync_kwargs).pages() if page.partition]


def results_of(tasks, read_task, ahead):
    """What three threads read of tasks that give (task, number) for twenty numbers each."""
    return read_ahead(
        range(tasks),
        read_task,
        threads=3,
        ahead=ahead,
        key=lambda task: task,
        is_last=lambda result: result[1] == 19,
    )


class Two(PaginatedConnector):
    def partitions(self):
        return ["x", "y"]


class Counted(PaginatedConnector):
    total = 4

    def count_pages(self, partition):
        return self.total


class Batches(BatchConnector):
    def _fetch_batch(self, start, end):
        return list(range(start, end))


def test_as_many_requests_as_allowed_are_under_way_at_once():
    together = threading.Barrier(5)

    class Waiting(PaginatedConnector):
        max_in_flight = 5

        def partitions(self):
            return list("abcde")

        def fetch_page(self, partition, cursor):
            together.wait(timeout=60)
            return Page([partition.id], next_cursor=(cursor or 0) + 1 if cursor != 3 else None)

    assert len(items_of(read(Waiting()))) == 20


def test_pages_of_one_partition_come_in_order_whoever_is_first():
    later = threading.Event()

    class Unordered(Counted):
        total = 8

        def fetch_page(self, partition, number):
            if number == 0:
                later.wait(timeout=60)
            if number == 5:
                later.set()
            return Page([number])

    assert items_of(read(Unordered())) == list(range(8))


def test_a_slow_partition_does_not_hold_up_the_others():
    others_read = threading.Event()

    class OneSlow(Two):
        def fetch_page(self, partition, cursor):
            if partition.id == "x":
                others_read.wait(timeout=60)
            return Page([partition.id])

    pages = Source(OneSlow()).pages()
    assert next(pages).items == ["y"]
    others_read.set()
    assert next(pages).items == ["x"]


def test_what_is_claimed_is_read_and_nothing_else():
    for limit in range(11):
        fetched = []

        class Watched(BatchConnector):
            def _fetch_batch(self, start, end, fetched=fetched):
                fetched.append(start)
                return [start]

        source = Source(Watched(batch_size=1, max_workers=3), {"total_items": 10})
        claimed = []

        def claim(block, limit=limit, claimed=claimed):
            if block >= limit:
                return False
            claimed.append(block)
            return True

        (piece, _) = source.plan()
        given = [one.page.items[0] for one in source.read_blocks(piece, claim)]
        assert given == claimed == sorted(fetched) == list(range(min(limit, 10)))


def test_what_is_read_ahead_is_bounded():
    lock = threading.Lock()
    outside = most = 0

    def read_task(task):
        nonlocal outside, most
        for number in range(20):
            with lock:
                outside += 1
                most = max(most, outside)
            yield task, number

    found = []
    for result in results_of(30, read_task, ahead=4):
        found.append(result)
        with lock:
            outside -= 1
    assert len(found) == 600
    # Of each task that is being read: one result waits, one is being fetched.
    assert most <= 4 * 2 + 1
    for task in range(30):
        assert [number for one, number in found if one == task] == list(range(20))


def test_partitions_of_one_length_come_to_their_end_together_where_the_consumer_is_the_slower():
    changed = threading.Condition()
    read_of, used_of = [0] * 6, [0] * 6

    def read_task(task):
        for number in range(20):
            with changed:
                read_of[task] += 1
                changed.notify_all()
            yield task, number

    for task, _ in results_of(6, read_task, ahead=6):
        used_of[task] += 1
        with changed:
            # The consumer is so slow that every task has a result for it again.
            assert changed.wait_for(
                lambda: all(
                    read >= min(used + 1, 20) for read, used in zip(read_of, used_of, strict=True)
                ),
                timeout=60,
            )
        assert max(used_of) - min(used_of) <= 2
    assert used_of == [20] * 6


def test_tasks_are_taken_no_sooner_than_there_is_room():
    taken = []

    def tasks():
        for number in range(100):
            taken.append(number)
            yield number

    results = read_ahead(
        tasks(),
        lambda one: iter([one]),
        threads=2,
        ahead=4,
        key=lambda _: None,
        is_last=lambda _: True,
    )
    for number in range(100):
        assert next(results) == number
        assert len(taken) <= number + 4


def test_after_a_failure_nothing_more_is_begun():
    begun = []
    release = threading.Event()

    class Failing(BatchConnector):
        def _fetch_batch(self, start, end):
            begun.append(start)
            if start == 2:
                raise ValueError("gone")
            release.wait(timeout=60)
            return []

    connector = Failing(batch_size=1, max_workers=3)
    with pytest.raises(ConnectorError, match="items 2 to 3: ValueError: gone"):
        read(connector, {"total_items": 1000})
    before = threading.active_count()
    release.set()
    for thread in threading.enumerate():
        if thread.name.startswith("read-ahead"):
            thread.join(timeout=60)
    assert threading.active_count() <= before
    assert len(begun) <= 3


def test_a_reader_that_is_given_up_leaves_no_thread_behind():
    pages = Source(Batches(batch_size=1, max_workers=4), {"total_items": 1000}).pages()
    next(pages)
    pages.close()
    for thread in threading.enumerate():
        if thread.name.startswith("read-ahead"):
            thread.join(timeout=60)
            assert not thread.is_alive()


def test_only_one_thread_is_used_for_a_connector_that_is_not_made_for_more():
    threads = set()

    class Single(StreamingConnector):
        def sync_documents_stream(self):
            threads.add(threading.current_thread())
            yield 1

    read(Single())
    assert threads == {threading.current_thread()}
