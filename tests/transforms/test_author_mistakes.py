"""Mistakes that authors of connectors and pipelines make: each is told in words, with its place."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest

from contextframe_beam import ContextFrameError, Deletion, FrameDataset, FrameRecord
from contextframe_beam.connectors import (
    BaseConnector,
    BatchConnector,
    FieldMapper,
    IncrementalConnector,
    Page,
    PaginatedConnector,
    StreamingConnector,
)
from contextframe_beam.connectors.identity import line_in, line_of, with_line
from contextframe_beam.connectors.page import DeadLetter, field_names
from contextframe_beam.connectors.read.source import Source
from contextframe_beam.connectors.read.transform import ReadFromConnector
from contextframe_beam.connectors.registry import build_connector
from contextframe_beam.errors import ConfigError, ConnectorError
from contextframe_beam.pipelines.ingest import ingest
from contextframe_beam.transforms import (
    Enrich,
    KeywordEnricher,
    MapToFrames,
    ToRecords,
    WriteDeadLetters,
    WriteToLance,
)
from contextframe_beam.transforms.enrich import checked_enrichers
from contextframe_beam.transforms.map import map_page
from tests.support.cli_helpers import assert_error, cli, letters_of


class Base(BaseConnector):
    def __init__(self, items: Any = ()) -> None:
        super().__init__()
        self.items = items

    def map_to_frame_record(self, item: Any) -> FrameRecord:
        return FrameRecord("text", unique_id=str(item["id"]))


class Gives(Base):
    def sync_documents(self) -> Any:
        return self.items


class Streams(Base, StreamingConnector):
    def sync_documents_stream(self) -> Any:
        return self.items


class Pages(Base, PaginatedConnector):
    def fetch_page(self, partition: Any, cursor: Any) -> Page:
        return Page(self.items)


class Batches(Base, BatchConnector):
    def total_items(self) -> int:
        return 3

    def _fetch_batch(self, start: int, end: int) -> Any:
        return self.items


class Changes(Base, IncrementalConnector):
    def _full_sync(self) -> Any:
        return self.items

    def _incremental_sync(self, since: str) -> Any:
        return self.items


# What a connector gives as its items.

KINDS = [Gives, Streams, Pages, Batches, Changes]
NO_ITEMS = [
    ("abc", "a str"),
    (b"abc", "a bytes"),
    ({"id": 1}, "a dict"),
    (5, "an int"),
    (True, "a bool"),
    (FrameRecord("x", unique_id="1"), "a FrameRecord"),
    (ValueError("x"), "a ValueError"),
    (dict, "the class dict"),
    (lambda: [], "a function"),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("given", "named"), NO_ITEMS, ids=[name for _, name in NO_ITEMS])
def test_what_holds_no_items_is_named(kind: type[Gives], given: Any, named: str) -> None:
    with pytest.raises(ConnectorError, match=rf"^{kind.__name__}: \w+ .*{named}; return a list of"):
        list(Source(kind(given)).pages())


@pytest.mark.parametrize("kind", [one for one in KINDS if one is not Pages])
def test_nothing_is_not_the_same_as_no_items(kind: type[Gives]) -> None:
    with pytest.raises(ConnectorError, match=r"None; return the items, \[\] when there are none"):
        list(Source(kind(None)).pages())
    assert [one for page in Source(kind([])).pages() for one in page.items] == []


def test_the_answer_of_an_api_is_told_where_its_list_is() -> None:
    with pytest.raises(ConnectorError, match=r"a dict; .* \(its field 'results' holds one\)"):
        list(Source(Gives({"count": 2, "results": [{"id": 1}]})).pages())


@pytest.mark.parametrize("items", [[{"id": 1}], ({"id": 1},), iter([{"id": 1}]), {1: 1}.keys()])
def test_whatever_else_holds_items_may_be_given(items: Iterable[Any]) -> None:
    assert sum(len(page.items) for page in Source(Gives(items)).pages()) == 1


# What is given as a connector.


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (Gives, r"the class Gives; give an object of it: Gives\(\.\.\.\)"),
        ("json", "the text 'json'; give a connector"),
        (None, "a NoneType, not a connector"),
        (FieldMapper(), "a FieldMapper, not a connector: derive its class from BaseConnector"),
        ([Gives()], "a list, not a connector"),
    ],
)
@pytest.mark.parametrize(
    "read", [ReadFromConnector, Source, lambda one: ingest(one, "never.lance")]
)
def test_what_is_no_connector_is_named(given: Any, said: str, read: Callable[[Any], Any]) -> None:
    with pytest.raises(ConfigError, match=said):
        read(given)
    assert not Path("never.lance").exists()


@pytest.mark.parametrize("cls", [Gives, FieldMapper])
def test_a_class_does_not_map(cls: type) -> None:
    with pytest.raises(ConfigError, match=rf"is the class {cls.__name__}; give {cls.__name__}\("):
        MapToFrames(cls)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (KeywordEnricher(), r"as a list, even a single one: \[KeywordEnricher\(\.\.\.\)\]"),
        (KeywordEnricher, r"as a list, even a single one: \[KeywordEnricher\(\.\.\.\)\]"),
        ([KeywordEnricher], r"a class; give an object of it: KeywordEnricher\("),
        ("keywords", "a list of objects as in .*, not 'keywords'"),
        (["keywords"], r"'keywords' is not an enricher: it has no method enrich\("),
        (None, "not NoneType"),
        (7, "not int"),
    ],
)
def test_what_is_no_list_of_enrichers_is_named(given: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Enrich(given)


def test_any_iterable_of_enrichers_will_do() -> None:
    assert len(checked_enrichers(one for one in [KeywordEnricher(), KeywordEnricher()])) == 2


# In which order the transforms stand.

STEPS: dict[str, Callable[[], beam.PTransform[Any, Any]]] = {
    "read": lambda: ReadFromConnector(Gives([{"id": 1}])),
    "map": lambda: MapToFrames(Gives()),
    "enrich": lambda: Enrich([KeywordEnricher()]),
    "records": ToRecords,
    "write": lambda: WriteToLance("never.lance"),
    "letters": lambda: WriteDeadLetters("never.jsonl"),
    "dicts": lambda: beam.Create([{"id": 1}]),
    "made": lambda: beam.Create([FrameRecord("x", unique_id="1")]),
    "untyped": lambda: beam.Map(lambda one: one),
}


def chained(names: str) -> beam.Pipeline:
    pipeline = beam.Pipeline(runner="FnApiRunner")
    step: Any = pipeline
    for number, name in enumerate(names.split()):
        step = step | f"{number} {name}" >> STEPS[name]()
    return pipeline


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ("read write", "WriteToLance takes FrameBatch .* and the step before it gives Page"),
        ("read enrich", "Enrich takes FrameBatch, and the step before it gives Page"),
        ("read records", "ToRecords takes FrameBatch, and the step before it gives Page"),
        ("read letters", "WriteDeadLetters takes FrameBatch, and the step before it gives Page"),
        ("read map map", "MapToFrames takes Page, and the step before it gives FrameBatch"),
        ("read map records map", "MapToFrames takes Page, .* gives FrameRecord"),
        ("read map records enrich", "Enrich takes FrameBatch, .* gives FrameRecord"),
        ("read map write write", "WriteToLance takes .* gives CommitReceipt"),
        ("read map letters enrich", "Enrich takes FrameBatch, .* gives DeadLetterReport"),
        ("made enrich", "Enrich takes FrameBatch, .* gives FrameRecord"),
        ("dicts map", "MapToFrames takes Page, .* gives Dict"),
        ("map", "MapToFrames cannot begin a pipeline"),
        ("enrich", "Enrich cannot begin a pipeline"),
        ("write", "WriteToLance cannot begin a pipeline"),
        ("letters", "WriteDeadLetters cannot begin a pipeline"),
        ("read read", "ReadFromConnector begins a pipeline"),
        ("read map read", "ReadFromConnector begins a pipeline"),
    ],
)
def test_a_wrong_order_is_refused_before_anything_runs(names: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        chained(names)


@pytest.mark.parametrize(
    "names",
    [
        "read map enrich enrich records",
        "read map records write",
        "read map letters",
        "made write",
        "dicts write",
        "read untyped map untyped enrich untyped write",
    ],
)
def test_a_right_order_is_let_through(names: str) -> None:
    chained(names)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ("read untyped enrich", "Enrich takes FrameBatch, and the step before it gives Page"),
        ("read untyped records", "ToRecords takes FrameBatch, and the step before it gives Page"),
        ("made untyped map", "MapToFrames takes Page, and the step before it gives FrameRecord"),
    ],
)
def test_where_no_type_is_known_the_elements_tell(names: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        chained(names).run()


# Where in the author's file it happened.

AUTHORS = """
from contextframe_beam.connectors.base import BaseConnector
from contextframe_beam.frames.record import FrameRecord


class Base(BaseConnector):
    def __init__(self):
        super().__init__()

    def sync_documents(self):
        return [{"id": number, "name": "n", "zip": 1} for number in range(3)]

    def map_to_frame_record(self, item):
        return FrameRecord("text", unique_id=str(item["id"]))


class NoHost(Base):
    def __init__(self):
        self.host = {}["host"]


class NoRoute(Base):
    def __init__(self):
        raise RuntimeError("no route")


class Refuses(Base):
    def __init__(self):
        raise ValueError("a host is missing")


class NoLogin(Base):
    def authenticate(self):
        return [][3]


class NoRead(Base):
    def sync_documents(self):
        return [1 / 0]


class NoMore(Base):
    def sync_documents_stream(self):
        yield {"id": 1}
        raise LookupError("gone")


class NoTitle(Base):
    def map_to_frame_record(self, item):
        return self.titled(item)

    def titled(self, item):
        return item["title"]
"""


def line(text: str) -> int:
    return 1 + next(n for n, one in enumerate(AUTHORS.splitlines()) if text in one)


@pytest.fixture
def authors(tmp_path: Path) -> Path:
    (tmp_path / "crm.py").write_text(AUTHORS)
    return tmp_path / "crm.py"


@pytest.mark.parametrize(
    ("name", "code", "said", "text"),
    [
        ("NoHost", 2, "NoHost cannot be made: KeyError: 'host'", 'self.host = {}["host"]'),
        ("NoRoute", 2, "NoRoute cannot be made: RuntimeError: no route", 'Error("no route")'),
        ("Refuses", 2, "Refuses: a host is missing", 'ValueError("a host'),
        ("NoLogin", 1, "authentication failed: IndexError: list index", "return [][3]"),
        ("NoRead", 1, "ZeroDivisionError: division by zero", "return [1 / 0]"),
        ("NoMore", 1, "item 1: LookupError: gone", 'LookupError("gone")'),
        ("NoTitle", 1, "an item with id, name, zip: 'title', at crm.py", 'return item["title"]'),
    ],
)
def test_an_error_of_an_author_is_told_with_its_line(
    name: str, code: int, said: str, text: str, authors: Path, kb: Path
) -> None:
    result = cli("ingest", f"{authors}:{name}", "--to", kb)
    assert_error(result, code, said, f"crm.py, line {line(text)}")


def test_the_reason_of_many_items_is_said_once(authors: Path, kb: Path) -> None:
    result = cli("ingest", f"{authors}:NoTitle", "--to", kb)
    assert result.err.count("'title'") == 1
    assert "(KeyError, 3 items)" in result.err
    assert len(letters_of(kb)) == 3


def test_a_connector_that_cannot_be_made_by_text_says_why() -> None:
    class Odd(Gives):
        def __init__(self) -> None:
            raise OSError(2, "no such device")

    with pytest.raises(ConfigError, match=r"Odd cannot be made: FileNotFoundError: .*no such dev"):
        build_connector(Odd, {})


def failing(function: Callable[[], Any]) -> BaseException:
    with pytest.raises(Exception) as raised:
        function()
    return raised.value


def test_the_line_is_the_authors_and_not_that_of_what_the_author_called() -> None:
    import json

    error = failing(lambda: json.loads("{"))
    here = f"{Path(__file__).name}, line "
    assert line_of(error).startswith(here)
    assert with_line(error).startswith("JSONDecodeError: ")
    assert with_line(error).endswith(f"({line_of(error)})")


def test_an_error_of_our_own_code_has_no_line_of_anybody() -> None:
    letter = map_page(Page([5]), FieldMapper().map).failures[0]
    assert letter.line == ""
    assert line_in(letter.traceback) == ""


def test_a_letter_tells_the_line_that_its_traceback_holds() -> None:
    def mapped(item: Mapping[str, Any]) -> FrameRecord | Deletion:
        raise KeyError(item["id"])

    (letter,) = map_page(Page([{"id": "x"}]), mapped).failures
    assert letter.line.startswith(f"{Path(__file__).name}, line ")
    assert DeadLetter.from_json(letter.to_json()).line == letter.line


@pytest.mark.parametrize(
    ("item", "said"),
    [
        ({"id": 1, "name": "x"}, "id, name"),
        ({}, ""),
        ("text", ""),
        ([1], ""),
        (None, ""),
        ({str(n): n for n in range(20)}, "0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 and 8 more"),
        ({"n" * 60: 1}, "n" * 40 + "..."),
        ({1: 2}, "1"),
    ],
)
def test_the_fields_of_an_item(item: Any, said: str) -> None:
    assert field_names(item) == said


def test_an_exception_that_cannot_be_printed_hides_nothing() -> None:
    class Silent(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no words")

    class Speechless(Gives):
        def sync_documents(self) -> Iterator[Any]:
            raise Silent

    with pytest.raises(ContextFrameError, match=r"Speechless: .* Silent"):
        list(Source(Speechless()).pages())
    assert sys.exc_info() == (None, None, None)


def test_a_class_that_is_written_anew_is_not_taken_for_the_old_one(kb: Path) -> None:
    def written(text: str) -> BaseConnector:
        class Notebook(Base):
            def sync_documents(self) -> list[dict[str, Any]]:
                return [{"id": 1}]

            def map_to_frame_record(self, item: Any) -> FrameRecord:
                return FrameRecord(text, unique_id="1")

        return Notebook()

    for text in ("the first try", "the second try"):
        ingest(written(text), str(kb))
        assert [one.text_content for one in FrameDataset.open(str(kb))] == [text]
