"""What sources can do: streams, ranges, changes, pages; each also in a plain loop."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contextframe_beam.connectors import (
    BatchConnector,
    IncrementalConnector,
    Page,
    PaginatedConnector,
    Partition,
    StreamingConnector,
)
from contextframe_beam.errors import ConfigError, ConnectorError


class Numbers(BatchConnector):
    """Knows its size; some ranges may fail."""

    def __init__(self, total: int, batch_size: int = 100, max_workers: int = 4, bad: int = -1):
        super().__init__(batch_size=batch_size, max_workers=max_workers)
        self.total, self.bad = total, bad

    def total_items(self) -> int:
        return self.total

    def _fetch_batch(self, start: int, end: int) -> list[dict[str, Any]]:
        if start <= self.bad < end:
            raise OSError("connection reset")
        return [{"id": number} for number in range(start, end)]


@given(total=st.integers(0, 50), batch_size=st.integers(1, 20), max_workers=st.integers(1, 3))
def test_ranges_give_each_item_once_and_in_order(total, batch_size, max_workers):
    documents = Numbers(total, batch_size, max_workers).sync_documents()
    assert [document["id"] for document in documents] == list(range(total))


def test_a_total_may_be_given():
    assert len(Numbers(1000).sync_documents(total_items=5)) == 5


def test_ranges_are_fetched_at_the_same_time():
    both = threading.Barrier(2, timeout=30)

    class Waiting(BatchConnector):
        def _fetch_batch(self, start: int, end: int) -> list[dict[str, Any]]:
            both.wait()
            return [{"id": start}]

    assert len(Waiting(batch_size=1, max_workers=2).sync_documents(total_items=2)) == 2


def test_a_failing_range_is_named_and_nothing_swallowed(capsys):
    place = "Numbers: partition all, items 10 to 20"
    with pytest.raises(ConnectorError, match=f"{place}: OSError: connection reset"):
        Numbers(100, batch_size=10, bad=13).sync_documents()
    assert capsys.readouterr() == ("", "")


def test_what_is_not_written_or_makes_no_sense_says_so():
    with pytest.raises(ConnectorError, match="give total_items=N, or write total_items"):
        BatchConnector().sync_documents()
    with pytest.raises(ConnectorError, match="no own _fetch_batch"):
        BatchConnector().sync_documents(total_items=1)
    with pytest.raises(ConfigError, match="at least 1, not 0 and 4"):
        BatchConnector(batch_size=0)
    with pytest.raises(ConnectorError, match="no own sync_documents_stream"):
        StreamingConnector().sync_documents()
    with pytest.raises(ConnectorError, match="no own fetch_page"):
        PaginatedConnector().sync_documents()
    with pytest.raises(ConnectorError, match="no own _full_sync"):
        IncrementalConnector().sync_documents()

    class Forgetful(BatchConnector):
        def _fetch_batch(self, start: int, end: int) -> Any:
            pass

    with pytest.raises(ConnectorError, match="items 0 to 1: _fetch_batch returned None"):
        Forgetful().sync_documents(total_items=1)


class Changes(IncrementalConnector):
    """Records what it was asked for; its statistics hold what JSON cannot."""

    def __init__(self, state_file: Any = None):
        super().__init__(state_file)
        self.asked: list[str | None] = []

    def get_stats(self) -> dict[str, Any]:
        return {**super().get_stats(), "at": datetime(2024, 1, 2), "path": Path("x"), (1, 2): 3}

    def _full_sync(self) -> list[dict[str, Any]]:
        self.asked.append(None)
        return [{"id": 1}, {"id": 2}]

    def _incremental_sync(self, since: str) -> list[dict[str, Any]]:
        self.asked.append(since)
        return [{"id": 2}]


def test_the_second_run_asks_for_changes_since_the_first_began(tmp_path):
    state_file = tmp_path / "deep" / "state.json"
    before = datetime.now(timezone.utc)
    first = Changes(str(state_file))
    assert len(first.sync_documents()) == 2
    state = json.loads(state_file.read_text())
    assert before <= datetime.fromisoformat(state["last_sync"]) <= datetime.now(timezone.utc)
    assert state["stats"]["at"] == "2024-01-02 00:00:00"

    second = Changes(state_file)
    assert second.last_sync == state["last_sync"]
    assert len(second.sync_documents()) == 1
    asked = datetime.fromisoformat(second.asked[0])
    assert asked == datetime.fromisoformat(state["last_sync"]) - timedelta(minutes=10)
    assert len(second.sync_documents(full_sync=True)) == 2
    assert [path.name for path in state_file.parent.iterdir()] == ["state.json"]


def test_without_a_state_file_one_object_remembers():
    connector = Changes()
    connector.sync_documents()
    connector.sync_documents()
    assert connector.asked[0] is None and connector.asked[1] is not None


def test_a_failing_run_leaves_the_state_as_it_was(tmp_path):
    class Failing(Changes):
        def _incremental_sync(self, since: str) -> Any:
            yield {"id": 1}
            raise OSError("cut off")

    state_file = tmp_path / "state.json"
    Changes(state_file).sync_documents()
    before = state_file.read_bytes()
    with pytest.raises(ConnectorError, match="item 1: OSError: cut off"):
        Failing(state_file).sync_documents()
    assert state_file.read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff"])
def test_a_broken_state_file_says_what_to_do(tmp_path, content):
    state_file = tmp_path / "state.json"
    state_file.write_bytes(content)
    with pytest.raises(ConnectorError, match=r"state.json cannot be read .*; delete it"):
        Changes(state_file)


def test_a_state_that_cannot_be_written_says_so(tmp_path):
    (tmp_path / "file").write_text("")
    connector = Changes()
    connector.state_file = tmp_path / "file" / "state.json"
    with pytest.raises(ConnectorError, match="the state cannot be written"):
        connector.sync_documents()


class Channels(PaginatedConnector):
    """Pages of two items by partition; cursors as given."""

    def __init__(self, channels: dict[str, int], counted: bool = False):
        super().__init__()
        self.channels, self.counted = channels, counted

    def partitions(self, only: str | None = None) -> Iterable[Partition | str]:
        for name in self.channels:
            if only in (None, name):
                yield name

    def count_pages(self, partition: Partition) -> int | None:
        return self.channels[partition.id] if self.counted else None

    def fetch_page(self, partition: Partition, cursor: Any) -> Page:
        number = (cursor if self.counted else (cursor or {}).get("page")) or 0
        items = [{"id": f"{partition.id}-{number}-{i}"} for i in range(2)]
        more = not self.counted and number + 1 < self.channels[partition.id]
        return Page(items, next_cursor={"page": number + 1} if more else None)


@pytest.mark.parametrize("counted", [False, True])
def test_all_pages_of_all_partitions_are_read(counted):
    items = Channels({"a": 3, "b": 1}, counted).sync_documents()
    assert [item["id"] for item in items] == [
        *(f"a-{page}-{i}" for page in range(3) for i in range(2)),
        "b-0-0",
        "b-0-1",
    ]


def test_partitions_take_the_arguments_of_sync_documents():
    assert len(Channels({"a": 3, "b": 1}).sync_documents(only="b")) == 2


@pytest.mark.parametrize("found", [None, "general"])
def test_partitions_that_are_no_list_of_names_are_refused_in_a_plain_loop(found):
    class Wrong(Channels):
        def partitions(self) -> Any:
            return found

    with pytest.raises(ConnectorError, match=r"partitions\(\) returned .*; return a list of names"):
        Wrong({}).sync_documents()


def test_a_subclass_may_call_the_plain_loop_that_it_overrides():
    class Marking(Channels):
        def sync_documents_stream(self, **kwargs: Any) -> Any:
            for item in super().sync_documents_stream(**kwargs):
                yield {**item, "marked": True}

    assert all(item["marked"] for item in Marking({"a": 2}).sync_documents())


def test_a_source_without_parts_has_one_partition():
    class Whole(PaginatedConnector):
        def fetch_page(self, partition: Partition, cursor: Any) -> Page:
            return Page([{"partition": partition.id}])

    assert Whole().sync_documents() == [{"partition": "all"}]
    with pytest.raises(TypeError, match="unexpected keyword argument 'x'"):
        Whole().sync_documents(x=1)


@pytest.mark.parametrize("cursors", ["aa", "aba", "abcb"])
def test_a_cursor_that_comes_twice_ends_the_run(cursors):
    class Circling(PaginatedConnector):
        calls = 0

        def fetch_page(self, partition: Partition, cursor: Any) -> Page:
            given = cursors[self.calls % len(cursors)]
            self.calls += 1
            return Page([{"id": 1}], next_cursor={"after": given})

    with pytest.raises(ConnectorError, match=r"partition all, .* gave the cursor .* a second time"):
        Circling().sync_documents()


def test_a_page_that_cannot_be_fetched_is_named():
    class Failing(Channels):
        def fetch_page(self, partition: Partition, cursor: Any) -> Page:
            if cursor:
                raise OSError("timed out")
            return super().fetch_page(partition, cursor)

    with pytest.raises(ConnectorError, match=r"partition a, page \{'page': 1\}: OSError: timed"):
        Failing({"a": 2}).sync_documents()

    class Listing(Channels):
        def fetch_page(self, partition: Partition, cursor: Any) -> Any:
            return []

    with pytest.raises(ConnectorError, match="fetch_page returned a list; return a Page"):
        Listing({"a": 2}).sync_documents()
