"""How a connector is read: by the best of its methods, in blocks that are claimed first."""

import threading
from datetime import datetime, timedelta, timezone

import pytest

from contextframe_beam.connectors.base import BaseConnector
from contextframe_beam.connectors.kinds import (
    BatchConnector,
    IncrementalConnector,
    PaginatedConnector,
    StreamingConnector,
)
from contextframe_beam.connectors.page import DeadLetter, Page, Partition
from contextframe_beam.connectors.read.readers import choose_reader
from contextframe_beam.connectors.read.source import Source
from contextframe_beam.errors import ConfigError, ConnectorError


def items_of(pages):
    return [item for page in pages for item in page.items]


def read(connector, sync_kwargs=None, **options):
    """Everything that a source gives, without its header."""
    connector.ensure_authenticated()
    source = Source(connector, sync_kwargs, **options)
    return [page for page in source.pages() if page.partition]


# What a connector can do decides how it is read.


class Plain(BaseConnector):
    def sync_documents(self, prefix="p"):
        return [f"{prefix}{n}" for n in range(1001)]


class Streamed(Plain):
    def sync_documents_stream(self, prefix="s"):
        return (f"{prefix}{n}" for n in range(3))


class OfPages(Streamed):
    def partitions(self):
        return ["x", Partition("y", params={"deep": True})]

    def fetch_page(self, partition, cursor):
        return Page([partition.id])


class PageOfTheGuide(BaseConnector):
    """A batch connector as it is written in the guide: its own class, not one of ours."""

    def __init__(self, batch_size=100, max_workers=4):
        super().__init__()
        self.batch_size = batch_size
        self.max_workers = max_workers

    def sync_documents(self, total_items):
        raise AssertionError("the ranges are read one by one")

    def _fetch_batch(self, start, end):
        return list(range(start, end))


class OverridesAll(OfPages):
    """What a subclass writes anew comes before what it inherits."""

    def sync_documents(self, prefix="o"):
        return [prefix]


class BatchWithoutBatches(BatchConnector):
    def sync_documents(self):
        return ["whole"]


class KnowsItsTotal(PageOfTheGuide):
    def __init__(self):
        super().__init__(batch_size=2)
        self.total_items = 5


def test_a_list_is_read_in_pages_of_500_and_the_last_one_says_so():
    pages = read(Plain())
    assert [len(page.items) for page in pages] == [500, 500, 1]
    assert [page.finished for page in pages] == [0, 0, 1]
    assert [page.position for page in pages] == [
        "items 0 to 500",
        "items 500 to 1000",
        "items 1000 to 1001",
    ]


def test_a_full_last_page_is_followed_by_nothing():
    class Full(BaseConnector):
        def sync_documents(self):
            return list(range(1000))

    assert [(len(page.items), page.finished) for page in read(Full())] == [(500, 0), (500, 1)]


@pytest.mark.parametrize(
    ("connector", "kwargs", "items"),
    [
        (Streamed(), {}, ["s0", "s1", "s2"]),
        (OfPages(), {}, ["x", "y"]),
        (PageOfTheGuide(batch_size=2), {"total_items": 3}, [0, 1, 2]),
        (KnowsItsTotal(), {}, [0, 1, 2, 3, 4]),
        (KnowsItsTotal(), {"total_items": 1}, [0]),
        (OverridesAll(), {}, ["o"]),
        (BatchWithoutBatches(), {}, ["whole"]),
        (OfPages(), {"prefix": "z"}, ["z0", "z1", "z2"]),
    ],
)
def test_the_best_way_that_takes_the_arguments_is_taken(connector, kwargs, items):
    assert sorted(items_of(read(connector, kwargs))) == items


def test_a_stream_is_never_held_as_a_whole():
    given = []

    class Endless(StreamingConnector):
        def sync_documents_stream(self):
            while True:
                given.append(1)
                yield {}

    pages = Source(Endless()).pages()
    next(pages)
    assert len(given) == 501


def test_an_empty_source_finishes_its_block():
    class Empty(BaseConnector):
        def sync_documents(self):
            return []

    (page,) = read(Empty())
    assert (page.items, page.finished) == ([], 1)


def test_pages_say_which_source_they_are_of():
    connector = Plain()
    page = read(connector, {"prefix": "q"})[0]
    assert page.source.name == "Plain"
    assert page.source.source_id == connector.source_id({"prefix": "q"})
    assert page.source.identity == connector.source_identity({"prefix": "q"})


def test_the_header_of_the_plan_comes_last_and_counts_the_blocks():
    *_, header = Source(PageOfTheGuide(batch_size=2), {"total_items": 5}).pages()
    assert (header.planned, header.finished, header.items) == (3, 0, [])
    assert header.source.name == "PageOfTheGuide"


# Wrong arguments are refused before anything is read.


@pytest.mark.parametrize(
    ("connector", "kwargs", "message"),
    [
        (Plain(), {"prefx": 1}, "Plain: there is no argument 'prefx'.*did you mean prefix"),
        (Plain(), {"zzz": 1}, "no argument 'zzz' to read with; it takes prefix"),
        (BatchWithoutBatches(), {"a": 1}, "takes no arguments to read with, so not 'a'"),
        (PageOfTheGuide(), {}, "needs 'total_items' to read with; give total_items="),
        (BaseConnector(), {}, "does not say how to read: write sync_documents"),
        (PaginatedConnector(), {}, "does not say how to read"),
    ],
)
def test_wrong_arguments_are_refused_with_the_nearest_name(connector, kwargs, message):
    with pytest.raises(ConfigError, match=message):
        Source(connector, kwargs)


# Partitions.


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["a", "a"], "gave 'a' twice"),
        ([3], "gave a int"),
        (None, "returned None"),
        ("abc", "returned 'abc'; return a list"),
    ],
)
def test_partitions_must_be_names_that_occur_once(given, message):
    class Wrong(OfPages):
        def partitions(self):
            return given

    with pytest.raises(ConnectorError, match=message):
        list(Source(Wrong()).plan())


def test_a_source_without_partitions_has_one():
    class Undivided(PaginatedConnector):
        def fetch_page(self, partition, cursor):
            return Page([1])

    assert [page.partition for page in read(Undivided())] == ["all"]


def test_a_long_plan_is_made_in_chunks():
    class Many(OfPages):
        def partitions(self):
            return (str(number) for number in range(2500))

    source = Source(Many())
    pieces = list(source.plan(workers=2))
    assert all(len(piece.parts) <= 1000 for piece in pieces)
    assert pieces[-1].header.planned == 2500
    assert len(items_of(source.pages())) == 2500


def test_partitions_are_told_where_the_last_run_ended():
    class Resumed(OfPages):
        def partitions(self, resume_from):
            return [Partition(name, state) for name, state in resume_from.items()]

        def fetch_page(self, partition, cursor):
            return Page([partition.params])

    states = {"a": {"since": 1}}
    assert items_of(read(Resumed(), resume_from=states)) == [{"since": 1}]
    assert read(Resumed(), resume_from=states, full_sync=True) == []


# Cursors.


class Chained(PaginatedConnector):
    """Pages linked by cursors."""

    def fetch_page(self, partition, cursor):
        return Page([cursor], next_cursor={None: "a", "a": "b", "b": None}[cursor])


def test_cursors_are_followed_to_the_end():
    pages = read(Chained())
    assert items_of(pages) == [None, "a", "b"]
    assert [page.finished for page in pages] == [0, 0, 1]
    assert [page.position for page in pages] == ["first page", "page a", "page b"]


@pytest.mark.parametrize(
    "links",
    [
        {None: "a", "a": "a"},
        {None: "a", "a": "b", "b": "a"},
        {None: {"k": 1}, "{'k': 1}": {"k": 1}},
        {None: 1, "1": 2, "2": 3, "3": 1},
    ],
)
def test_a_cursor_that_comes_again_ends_reading(links):
    class Circular(PaginatedConnector):
        def fetch_page(self, partition, cursor):
            return Page(
                [], next_cursor=links[cursor if cursor in (None, "a", "b") else str(cursor)]
            )

    with pytest.raises(ConnectorError, match="a second time, so reading would never end"):
        read(Circular())


@pytest.mark.parametrize("answer", [None, [{"id": 1}]])
def test_fetch_page_must_return_a_page(answer):
    class Wrong(PaginatedConnector):
        def fetch_page(self, partition, cursor):
            return answer

    kind = type(answer).__name__
    with pytest.raises(ConnectorError, match=f"fetch_page returned a {kind}; return a Page"):
        read(Wrong())


def test_the_state_of_a_partition_comes_with_its_last_page():
    class Stated(PaginatedConnector):
        def fetch_page(self, partition, cursor):
            if cursor is None:
                return Page([1], next_cursor="b", state={"at": 1})
            return Page([2])

    assert [page.state for page in read(Stated())] == [None, {"at": 1}]


# Numbered pages.


class Counted(PaginatedConnector):
    total = 4

    def count_pages(self, partition):
        return self.total

    def fetch_page(self, partition, number):
        return Page([number], next_cursor=number + 1, state={"number": number})


def test_numbered_pages_are_blocks_and_only_the_last_one_has_the_state():
    class Exact(Counted):
        def fetch_page(self, partition, number):
            return Page([number], state={"number": number})

    pages = read(Exact())
    assert items_of(pages) == [0, 1, 2, 3]
    assert [page.finished for page in pages] == [1, 1, 1, 1]
    assert [page.state for page in pages] == [None, None, None, {"number": 3}]


def test_pages_beyond_a_total_that_is_too_small_are_read_all_the_same():
    class Grew(Counted):
        def fetch_page(self, partition, number):
            return Page([number], next_cursor=number + 1 if number < 6 else None)

    pages = read(Grew())
    assert items_of(pages) == list(range(7))
    assert sum(page.finished for page in pages) == 4


def test_a_counted_partition_without_pages_is_not_asked():
    class Nothing(Counted):
        total = 0

    (page,) = read(Nothing())
    assert (page.items, page.finished) == ([], 1)


@pytest.mark.parametrize("total", [-1, "12", 2.5, True])
def test_a_total_must_be_a_number(total):
    class Wrong(Counted):
        pass

    Wrong.total = total
    with pytest.raises(ConnectorError, match="must be a whole number, 0 or more"):
        read(Wrong())


def test_the_totals_of_many_partitions_are_asked_at_once():
    together = threading.Barrier(8)

    class Slow(Counted):
        def partitions(self):
            return [str(number) for number in range(16)]

        def count_pages(self, partition):
            together.wait(timeout=60)
            return 1

    *_, last = Source(Slow()).plan()
    assert last.header.planned == 16


# Batches.


@pytest.mark.parametrize("total", [-1, "12", None])
def test_a_total_of_items_must_be_a_number(total):
    class Wrong(BatchConnector):
        def total_items(self):
            return total

        def _fetch_batch(self, start, end):
            return []

    with pytest.raises(ConnectorError, match=r"total_items is .*; it must be a whole number"):
        read(Wrong())


def test_a_batch_may_be_short_but_not_missing():
    class Short(BatchConnector):
        def _fetch_batch(self, start, end):
            return [] if start else None

    with pytest.raises(ConnectorError, match="_fetch_batch returned None; return the items"):
        read(Short(), {"total_items": 300})


# What changed since the last run.


class Changing(IncrementalConnector):
    def _full_sync(self):
        return ["full"]

    def _incremental_sync(self, since):
        return [since]


def test_everything_is_read_first_and_then_what_changed():
    before = datetime.now(timezone.utc).isoformat()
    (page,) = read(Changing())
    assert page.items == ["full"]
    assert before <= page.state["since"] <= datetime.now(timezone.utc).isoformat()
    (later,) = read(Changing(), resume_from={"all": page.state})
    # Clocks may be ten minutes apart.
    since = datetime.fromisoformat(page.state["since"]) - timedelta(minutes=10)
    assert [datetime.fromisoformat(one) for one in later.items] == [since]
    assert later.state["since"] > page.state["since"]


def test_a_full_sync_can_be_asked_for():
    states = {"all": {"since": "2024"}}
    assert items_of(read(Changing(), resume_from=states, full_sync=True)) == ["full"]


@pytest.mark.parametrize("states", [{}, {"other": {"since": "2024"}}, {"all": {}}, {"all": None}])
def test_without_a_usable_state_everything_is_read(states):
    assert items_of(read(Changing(), resume_from=states)) == ["full"]


def test_the_state_is_taken_before_reading_begins():
    class Slow(Changing):
        def _full_sync(self):
            yield datetime.now(timezone.utc).isoformat()

    (page,) = read(Slow())
    assert page.state["since"] <= page.items[0]


def test_a_connector_that_does_it_by_itself_is_told_of_a_full_sync():
    class Own(BaseConnector):
        def sync_documents(self, full_sync=False):
            return [full_sync]

    assert items_of(read(Own())) == [False]
    assert items_of(read(Own(), full_sync=True)) == [True]


# Failures.


@pytest.mark.parametrize(
    ("base", "methods", "place"),
    [
        (BaseConnector, {"sync_documents": None}, "partition all, sync_documents"),
        (StreamingConnector, {"sync_documents_stream": None}, "partition all, sync_documents_"),
        (PaginatedConnector, {"fetch_page": None}, "partition all, first page"),
        (PaginatedConnector, {"fetch_page": None, "partitions": None}, "partitions()"),
        (
            PaginatedConnector,
            {"fetch_page": None, "count_pages": None},
            "partition all, count_pages()",
        ),
        (IncrementalConnector, {"_full_sync": None}, "partition all, _full_sync"),
        (BatchConnector, {"_fetch_batch": None, "total_items": 7}, "partition all, items 0 to 7"),
        (BatchConnector, {"_fetch_batch": None, "total_items": None}, "total_items()"),
    ],
)
def test_a_failure_names_connector_partition_position_and_cause(base, methods, place):
    def fail(*_):
        raise TimeoutError("no answer")

    connector = type("Failing", (base,), {name: value or fail for name, value in methods.items()})()
    with pytest.raises(ConnectorError) as raised:
        read(connector)
    assert str(raised.value).startswith(f"Failing: {place}")
    assert "TimeoutError: no answer (test_source.py, line " in str(raised.value)
    assert isinstance(raised.value.__cause__, TimeoutError)


def test_a_failure_in_the_middle_of_a_stream_names_the_item():
    class Breaks(StreamingConnector):
        def sync_documents_stream(self):
            yield from range(3)
            raise ValueError("broken pipe")

    with pytest.raises(ConnectorError, match="partition all, item 3: ValueError: broken pipe"):
        read(Breaks())


def test_no_secret_is_in_a_failure(monkeypatch):
    monkeypatch.setenv("READ_TOKEN", "hunter2-hunter2")

    class Leaking(PaginatedConnector):
        def __init__(self, token):
            super().__init__()
            self.token = token

        def fetch_page(self, partition, cursor):
            raise OSError(f"GET https://host/?token={self.token}")

    with pytest.raises(ConnectorError) as raised:
        read(Leaking("env:READ_TOKEN"))
    assert "hunter2" not in str(raised.value)
    # A runner prints the cause with the traceback.
    assert raised.value.__cause__ is None


def test_what_returns_none_is_told_apart_from_an_empty_source():
    class Unfinished(BaseConnector):
        def sync_documents(self):
            pass

    with pytest.raises(ConnectorError, match=r"sync_documents returned None; .*\[\]"):
        read(Unfinished())


def test_single_items_fail_inside_their_page():
    letter = DeadLetter.of("read", ValueError("odd"), {"id": 1}, "", "", "")

    class Partly(PaginatedConnector):
        def fetch_page(self, partition, cursor):
            return Page([1], failures=[letter])

    (page,) = read(Partly())
    (found,) = page.failures
    assert (found.connector, found.partition, found.position) == ("Partly", "all", "first page")


def test_a_page_that_a_connector_gives_twice_is_not_changed():
    kept = Page([1])

    class Cached(OfPages):
        def fetch_page(self, partition, cursor):
            return kept

    assert [page.finished for page in read(Cached())] == [1, 1]
    assert kept == Page([1])


def test_the_way_is_the_best_that_the_most_derived_class_offers():
    assert choose_reader(OfPages(), {}).__name__ == "PagesReader"
    assert choose_reader(OverridesAll(), {}).__name__ == "ListReader"
    assert choose_reader(Streamed(), {}).__name__ == "StreamReader"
    assert choose_reader(Changing(), {}).__name__ == "ChangesReader"
