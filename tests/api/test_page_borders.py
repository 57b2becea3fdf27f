"""Records that slip over the borders of pages, because others are deleted while they are read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from contextframe_beam import FrameDataset
from contextframe_beam.connectors.api import APIConnector
from contextframe_beam.connectors.api.paginate import is_counted
from contextframe_beam.pipelines.ingest import ingest
from tests.support.small_server import Got, serving

SIZE = 5


class Shelf:
    """A source of records that changes at the moments that a test names.

    Attributes:
        records: The ids of its records, in order.
        before: What happens before a page is given, by the place of its first record.
    """

    def __init__(self, n: int) -> None:
        self.records = list(range(n))
        self.before: dict[int, Any] = {}

    def page(self, start: int) -> list[dict[str, Any]]:
        self.before.pop(start, lambda: None)()
        found = self.records[start : start + SIZE]
        return [{"id": number, "text": f"Record {number}."} for number in found]

    def take_out(self, number: int) -> None:
        self.records.remove(number)

    def put_in(self, number: int) -> None:
        self.records.append(number)


def by_page(shelf: Shelf, got: Got) -> Any:
    return {"items": shelf.page(got.number("page", 1) * SIZE - SIZE)}


def by_page_with_a_total(shelf: Shelf, got: Got) -> Any:
    return {**by_page(shelf, got), "total": len(shelf.records)}


def by_offset(shelf: Shelf, got: Got) -> Any:
    return {"items": shelf.page(got.number("offset", 0))}


def by_link(shelf: Shelf, got: Got) -> Any:
    page = got.number("page", 1)
    items = shelf.page(page * SIZE - SIZE)
    following = f"/things?page={page + 1}" if page * SIZE < len(shelf.records) else None
    return {"items": items, "next": following}


def by_cursor(shelf: Shelf, got: Got) -> Any:
    last = got.number("after", -1)
    shelf.before.pop(last + 1, lambda: None)()
    start = next((at for at, one in enumerate(shelf.records) if one > last), len(shelf.records))
    items = shelf.page(start)
    more = start + SIZE < len(shelf.records)
    return {"items": items, "next": str(items[-1]["id"]) if more else None}


KINDS: dict[str, tuple[Any, Any]] = {
    "page": (by_page, "page"),
    "total": (by_page_with_a_total, "page"),
    "offset": (by_offset, {"type": "offset", "size": SIZE}),
    "link": (by_link, None),
}


@contextmanager
def mirrored(shelf: Shelf, kind: Any, to: Path) -> Iterator[Any]:
    """Gives what mirrors the shelf into a dataset and returns the receipt."""
    answer, paginator = kind
    resource: dict[str, Any] = {"name": "things"}
    if paginator is not None:
        resource["paginator"] = paginator
    with serving(lambda got: answer(shelf, got)) as server:

        def mirror() -> Any:
            api = APIConnector(server.url, name="shelf", resources=[resource], retries=0)
            new: Mapping[str, Any] = {} if to.exists() else {"embed_dim": 4}
            return ingest(api, str(to), mode="mirror", **new)

        yield mirror


def stored(to: Path) -> list[int]:
    ids = [str(record.unique_id) for record in FrameDataset.open(str(to))]
    return sorted(int(one.rpartition("#")[2]) for one in ids)


@pytest.mark.sample(2)
@pytest.mark.parametrize("kind", ["page", "offset", "link"])
def test_a_live_record_that_slipped_over_a_border_is_not_deleted(kind, tmp_path):
    shelf, kb = Shelf(23), tmp_path / "kb.lance"
    with mirrored(shelf, KINDS[kind], kb) as mirror:
        mirror()
        # Record 10 is the first of page 3, and on page 2 once record 1 is gone.
        shelf.before[10] = lambda: shelf.take_out(1)
        receipt = mirror()
        assert (
            receipt.rows_deleted == 0 and "1 document was missed for the first time" in receipt.kept
        )
        assert stored(kb) == list(range(23))
        receipt = mirror()
        assert receipt.rows_deleted == 0 and stored(kb) == list(range(23))
        receipt = mirror()
        assert receipt.rows_deleted == 1 and receipt.kept == ""
        assert stored(kb) == shelf.records


def test_nor_where_another_record_comes_in_so_that_no_total_tells(tmp_path):
    shelf, kb = Shelf(23), tmp_path / "kb.lance"

    def change() -> None:
        shelf.take_out(1)
        shelf.put_in(99)

    with mirrored(shelf, KINDS["total"], kb) as mirror:
        mirror()
        shelf.before[20] = change
        receipt = mirror()
        assert receipt.partial == () and receipt.rows_deleted == 0
        assert set(shelf.records) <= set(stored(kb))


def test_a_total_that_tells_of_it_makes_the_run_partial(tmp_path):
    shelf, kb = Shelf(23), tmp_path / "kb.lance"
    with mirrored(shelf, KINDS["total"], kb) as mirror:
        mirror()
        shelf.before[20] = lambda: shelf.take_out(1)
        receipt = mirror()
        assert receipt.rows_deleted == 0 and stored(kb) == list(range(23))
        (reason,) = receipt.partial
        assert reason.startswith("things: the API stated 23 records, and later 22")


@pytest.mark.sample(2)
@pytest.mark.parametrize("kind", ["page", "total", "offset", "link"])
def test_what_is_gone_is_deleted_by_the_second_run_that_misses_it(kind, tmp_path):
    shelf, kb = Shelf(23), tmp_path / "kb.lance"
    with mirrored(shelf, KINDS[kind], kb) as mirror:
        mirror()
        for number in (3, 11, 22):
            shelf.take_out(number)
        receipt = mirror()
        assert receipt.rows_deleted == 0 and "3 documents were missed" in receipt.kept
        shelf.put_in(11)
        receipt = mirror()
        assert receipt.rows_deleted == 2 and receipt.kept == ""
        assert stored(kb) == sorted(shelf.records)
        assert mirror().rows_deleted == 0


def test_behind_a_cursor_nothing_slips_so_it_is_deleted_at_once(tmp_path):
    shelf, kb = Shelf(23), tmp_path / "kb.lance"
    cursors = {"type": "cursor", "cursor": "next", "param": "after"}
    with mirrored(shelf, (by_cursor, cursors), kb) as mirror:
        mirror()
        shelf.before[10] = lambda: shelf.take_out(1)
        assert mirror().rows_deleted == 0
        assert mirror().rows_deleted == 1
        assert stored(kb) == shelf.records


def test_nor_on_a_page_that_is_known_to_be_the_only_one(tmp_path):
    shelf, kb = Shelf(4), tmp_path / "kb.lance"
    with mirrored(shelf, KINDS["total"], kb) as mirror:
        mirror()
        shelf.take_out(1)
        assert mirror().rows_deleted == 1
        assert stored(kb) == shelf.records


@pytest.mark.parametrize(
    ("name", "value", "is_one"),
    [
        ("page", 2, True),
        ("page", "2", True),
        ("pageNumber", 2, True),
        ("page[number]", "2", True),
        ("_page", "2", True),
        ("offset", 100, True),
        ("$skip", 100, True),
        ("startAt", 100, True),
        ("gsroffset", 10, True),
        ("per_page", 100, False),
        ("page_size", 100, False),
        ("page", "eyJpZCI6MTB9", False),
        ("cursor", 100, False),
        ("page_token", 100, False),
        ("limit", 100, False),
        ("start_cursor", 1, False),
    ],
)
def test_what_counts_from_the_front(name, value, is_one):
    assert is_counted(name, value) is is_one
