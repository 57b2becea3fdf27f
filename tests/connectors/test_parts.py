"""Sources of parts whose pages come as a stream, and what becomes of the states of parts."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import lance
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contextframe_beam import FrameRecord
from contextframe_beam.connectors import DeadLetter, Page, Partition, PartsConnector, PlannedRun
from contextframe_beam.connectors.read.source import Source
from contextframe_beam.errors import ConfigError, ConnectorError
from contextframe_beam.pipelines.ingest import ingest
from contextframe_beam.pipelines.ingest import partitions_of as states_in
from contextframe_beam.store.state import read_states

LOGS: dict[str, list[str]] = {}


class Logs(PartsConnector):
    """Reads lines that were added; the part of a day is another one each run."""

    def __init__(self, pages: int = 2, is_merging: bool = False):
        super().__init__()
        self.pages, self.is_merging = pages, is_merging

    def plan(self, run: PlannedRun, only: str | None = None) -> Iterator[Partition]:
        reached = max((state["lines"] for state in run.resume_from.values()), default=0)
        for name, lines in LOGS.items():
            if len(lines) > reached and only in (None, name):
                yield Partition(f"{name} from {reached}", {"log": name, "begin": reached})

    def read_part(self, partition: Partition, block: int) -> Iterator[Page]:
        log, begin = partition.params["log"], partition.params["begin"]
        for number in range(begin, len(LOGS[log]), self.pages):
            lines = LOGS[log][number : number + self.pages]
            items = [
                {"id": f"{log}:{number + one}", "line": line} for one, line in enumerate(lines)
            ]
            yield Page(items, state={"lines": number + len(lines)})

    def merge_states(self, states: Mapping[str, Any]) -> dict[str, Any]:
        if not self.is_merging:
            return super().merge_states(states)
        return {"all": {"lines": max(one["lines"] for one in states.values())}}

    def map_to_frame_record(self, item: dict[str, Any]) -> FrameRecord:
        return FrameRecord(item["line"], unique_id=item["id"])


@pytest.fixture(autouse=True)
def logs() -> Iterator[None]:
    LOGS.update(web=["a", "b", "c", "d", "e"])
    yield
    LOGS.clear()


@given(lines=st.integers(0, 9), pages=st.integers(1, 4))
def test_every_page_comes_once_and_the_last_state_with_the_last_page(lines: int, pages: int):
    LOGS["web"] = [str(number) for number in range(lines)]
    found = [page for page in Source(Logs(pages)).pages() if page.partition]
    assert [item["line"] for page in found for item in page.items] == LOGS["web"]
    expected = [None] * (len(found) - 1) + [{"lines": lines}] if lines else []
    assert [page.state for page in found] == expected
    assert sum(page.finished for page in found) == min(lines, 1)


@pytest.mark.parametrize("is_merging", [False, True])
def test_states_of_many_parts_become_one_where_a_class_merges_them(
    tmp_path: Path, is_merging: bool
):
    kb = str(tmp_path / "kb.lance")
    written = []
    for count in (5, 6, 8):
        LOGS["web"] = [str(number) for number in range(count)]
        written.append(ingest(Logs(is_merging=is_merging), kb, embed_dim=4).rows_written)
    assert written == [5, 1, 2]
    (state,) = read_states(lance.dataset(kb)).values()
    merged = {"all": {"lines": 6}, "web from 6": {"lines": 8}}
    apart = {"web from 0": {"lines": 5}, "web from 5": {"lines": 6}, "web from 6": {"lines": 8}}
    assert states_in(state) == (merged if is_merging else apart)


def test_a_run_that_reads_on_deletes_nothing_that_it_did_not_see(tmp_path: Path):
    kb = str(tmp_path / "kb.lance")
    for count in (5, 6):
        LOGS["web"] = [str(number) for number in range(count)]
        assert ingest(Logs(), kb, mode="mirror", embed_dim=4).deleted == 0
    assert lance.dataset(kb).count_rows("x_state IS NULL") == 6


def test_a_range_of_time_is_asked_of_those_only_that_heed_it():
    asked = []

    class ByTime(Logs):
        by_time = True

        def plan(self, run: PlannedRun, only: str | None = None) -> Iterator[Partition]:
            asked.append((run.since, run.until))
            return super().plan(run, only)

    from contextframe_beam.connectors.cursors import Bounds

    bounds = Bounds.of(since="2026-01-01T00:00:00+00:00")
    list(Source(ByTime(), bounds=bounds).pages())
    assert asked == [("2026-01-01T00:00:00+00:00", None)]
    with pytest.raises(ConfigError, match="cannot be read by time"):
        Source(Logs(), bounds=bounds)


def test_arguments_of_the_plan_select_a_part():
    LOGS["mail"] = ["x"]
    assert [item["line"] for item in Logs().sync_documents(only="mail")] == ["x"]
    with pytest.raises(ConfigError, match="no argument 'olny' to read with; did you mean only"):
        Source(Logs(), {"olny": "mail"})


def test_blocks_of_a_part_are_read_apart():
    class Cut(PartsConnector):
        def plan(self, run: PlannedRun) -> list[Partition]:
            return [Partition("web", blocks=3)]

        def read_part(self, partition: Partition, block: int) -> Iterator[Page]:
            yield Page([block])

    pages = [page for page in Source(Cut()).pages() if page.partition]
    assert [(page.items, page.finished) for page in pages] == [([0], 1), ([1], 1), ([2], 1)]


def test_items_that_fail_are_told_in_a_plain_loop(caplog: pytest.LogCaptureFixture):
    class Failing(PartsConnector):
        def read_part(self, partition: Partition, block: int) -> Iterator[Page]:
            bad = DeadLetter.of("read", ValueError("torn"), {}, "failing", "all", "line 2")
            yield Page([{"id": 1}], failures=[bad])

    caplog.set_level(logging.WARNING)
    connector = Failing()
    assert connector.sync_documents() == [{"id": 1}]
    assert connector.get_stats()["failures"] == [{"position": "line 2", "message": "torn"}]
    assert "skipped torn" in caplog.text


def test_what_is_written_wrongly_says_so():
    wrong: list[tuple[Any, str]] = [
        (lambda self, run: None, r"plan\(\) returned None; return a list of names"),
        (lambda self, run: [3], r"plan\(\) gave a int"),
        (lambda self, run: ["a", "a"], r"plan\(\) gave 'a' twice"),
    ]
    for plan, message in wrong:
        with pytest.raises(ConnectorError, match=message):
            list(Source(type("Wrong", (Logs,), {"plan": plan})()).pages())
    part = {"read_part": lambda self, partition, block: [[{"id": 1}]]}
    with pytest.raises(ConnectorError, match="read_part gave a list; give Page objects"):
        list(Source(type("Wrong", (Logs,), part)()).pages())
    with pytest.raises(ConnectorError, match="no own read_part"):
        list(functools.partial(PartsConnector().read_part, Partition("all"), 0)())
