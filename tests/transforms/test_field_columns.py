"""Runs into datasets with columns of fields, which others make and drop meanwhile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lance
import pytest

from contextframe_beam import FrameDataset, FrameRecord
from contextframe_beam.errors import CommitError, ConfigError, SchemaError
from contextframe_beam.frames.fields import parse_fields
from contextframe_beam.frames.record import uuid_of
from contextframe_beam.pipelines.embed import embed
from contextframe_beam.pipelines.ingest import ingest
from contextframe_beam.transforms.commit import commit_run
from contextframe_beam.transforms.written import Written
from tests.support.cli_helpers import letters_of
from tests.support.pipeline_helpers import (
    EMBED_DIM,
    OTHER,
    begin,
    commit,
    data_files,
    document,
    documents,
    named_files,
    write,
)

PRICE, TEAM = parse_fields("price:float64"), parse_fields("team")


def item(name: Any, text: str | None = None, **metadata: Any) -> dict[str, Any]:
    return {"id": name, "text": text, "metadata": metadata}


def priced(name: Any, price: Any, **more: Any) -> FrameRecord:
    return document(name, metadata={"price": price, **more})


def part_of(name: Any, number: int = 0) -> FrameRecord:
    parent = f"doc:{name}"
    return FrameRecord("part", {}, unique_id=f"{parent}#{number}", parent=uuid_of(parent))


def values(to: Path, field: str = "price") -> dict[str, Any]:
    """Returns the values of a column by the id of the row, without `doc:`."""
    rows = lance.dataset(str(to)).to_table(
        columns=["uri", f"x_f_{field}"], filter="x_state IS NULL"
    )
    return {
        row["uri"].removeprefix("doc:"): row[f"x_f_{field}"]
        for row in sorted(rows.to_pylist(), key=lambda row: str(row["uri"]))
    }


@pytest.fixture
def kb(tmp_path: Path) -> Path:
    return tmp_path / "kb.lance"


class TestRuns:
    def test_make_columns_and_later_ones_go_on_with_them(self, kb):
        columns = {"price": "float64", "team": "text"}
        first = ingest(documents(item(1, price=5, team="red"), item(2)), str(kb), columns=columns)
        assert first.rows_written == 2
        ingest(documents(item(2, price=7, team="blue"), item(3, price=None)), str(kb))
        assert values(kb) == {"1": 5.0, "2": 7.0, "3": None}
        [found] = FrameDataset.open(str(kb)).search("text", where="price > 5 AND team = 'blue'")
        assert found.metadata["price"] == 7

    def test_fill_a_new_column_for_what_is_stored_and_make_no_document_again(self, kb):
        items = [item(1, price=5), item(2, price="n/a")]
        ingest(documents(*items), str(kb))
        receipt = ingest(documents(items[0]), str(kb), columns=["price:float64"])
        assert (receipt.rows_written, receipt.rows_unchanged) == (0, 1)
        assert values(kb) == {"1": 5.0, "2": None}

    def test_make_dead_letters_of_values_that_do_not_fit_with_the_parts_of_a_document(self, kb):
        text = "# One\n\nfirst\n\n# Two\n\nsecond"
        source = documents(item("good", text, price=5), item("bad", text, price="dear"))
        settings = {"columns": ["price:float64"], "chunk": "markdown", "chunk_tokens": 16}
        receipt = ingest(source, str(kb), **settings)
        assert (receipt.rows_written, receipt.failed) == (1, 1)
        assert values(kb) == {"good": 5.0, "good#chunk=0": 5.0}
        [letter] = letters_of(kb)
        assert (letter["stage"], letter["item"]) == ("encode", source.pages["part-1"][0][0])
        assert letter["message"].startswith("metadata['price'] is 'dear', and the column price")

    def test_refuse_what_cannot_be_a_column_before_they_read(self, kb):
        commit(kb, 1)
        ingest(documents(2), str(kb), columns=["price:float64"])
        with pytest.raises(ConfigError, match="title is a column of every frame"):
            ingest(documents(3), str(kb), columns=["title"])
        with pytest.raises(SchemaError, match="holds float64, and text is asked for"):
            ingest(documents(3), str(kb), columns=["price"])

    def test_that_overwrite_keep_the_columns(self, kb):
        ingest(documents(item(1, price=5)), str(kb), columns=["price:float64"])
        again = documents(item(1, price=7, team="red"))
        ingest(again, str(kb), columns=["team"], mode="overwrite")
        assert (values(kb), values(kb, "team")) == ({"1": 7.0}, {"1": "red"})

    def test_that_are_dry_make_none(self, kb):
        ingest(documents(1), str(kb))
        ingest(documents(2), str(kb), columns=["team"], dry_run=True)
        assert FrameDataset.open(str(kb)).columns == {}

    def test_store_rows_with_the_same_digests_as_without_columns(self, kb, tmp_path):
        other = tmp_path / "other.lance"
        source = documents(item(1, "# One\n\nfirst", price=5), item(2, team="red"))
        ingest(source, str(kb), columns=["price:int64", "team"], chunk="markdown")
        ingest(source, str(other), chunk="markdown")
        digests = [
            lance.dataset(str(one)).to_table(columns=["x_digest"], filter="x_state IS NULL")
            for one in (kb, other)
        ]
        assert digests[0].equals(digests[1])


def add(kb: Path) -> None:
    FrameDataset.open(str(kb)).add_columns(["price:float64", "labels:list"])


class TestBesides:
    """What happens to columns while a run reads and writes."""

    @pytest.mark.parametrize("version", ["2.0", "2.1", "2.2"])
    def test_columns_that_are_added_are_filled_for_its_rows_and_their_chunks(self, kb, version):
        commit(kb, priced(1, 1), run_id="first")
        started = begin(kb, "second", storage_version=version)
        written = write(started, priced(2, 2, labels=["a"]), part_of(2), priced(3, "n/a"))
        add(kb)
        commit_run(started, written)
        assert values(kb) == {"1": 1.0, "2": 2.0, "2#0": 2.0, "3": None}
        assert values(kb, "labels")["2#0"] == ["a"]
        assert data_files(kb) == named_files(kb)

    def test_so_they_are_where_a_document_occurs_twice(self, kb):
        commit(kb, priced(1, 1), run_id="first")
        started = begin(kb, "second", fields=TEAM)
        rows = [document(2, timestamp=f"2026-01-0{n}", metadata={"price": n}) for n in (1, 2)]
        written = write(started, *rows, priced(3, 3, team="red"))
        add(kb)
        commit_run(started, written)
        assert values(kb) == {"1": 1.0, "2": 2.0, "3": 3.0}
        assert values(kb, "team") == {"1": None, "2": None, "3": "red"}

    @pytest.mark.parametrize("doubled", [False, True])
    def test_a_column_that_is_dropped_is_gone(self, kb, doubled):
        commit(kb, priced(1, 1, team="red"), run_id="first")
        started = begin(kb, "second", fields=TEAM)
        early = write(started, priced(2, 2, team="red"), *([priced(2, 2)] if doubled else []))
        FrameDataset.open(str(kb)).drop_columns(["team"])
        late = write(started, priced(3, 3, team="blue"))
        commit_run(started, Written.sum([early, late]))
        dataset = FrameDataset.open(str(kb))
        assert {one.metadata["price"] for one in dataset} == {1, 2, 3}
        assert dataset.columns == {}

    @pytest.mark.parametrize("other", ["team:list", "colour:text"])
    def test_a_column_never_has_what_a_file_has_of_one_that_was_dropped(self, kb, other):
        commit(kb, priced(1, 1), run_id="first")
        started = begin(kb, "second", fields=TEAM)
        written = write(started, priced(2, 2, team="red"))
        dataset = FrameDataset.open(str(kb))
        dataset.drop_columns(["team"])
        dataset.add_columns(other)
        with pytest.raises(CommitError, match="run it again"):
            commit_run(started, written)

    @pytest.mark.parametrize("columns", [TEAM, PRICE + TEAM])
    def test_a_first_run_that_another_overtook_with_other_columns_is_done_again(self, kb, columns):
        started = begin(kb, "late", fields=columns)
        written = write(started, priced(2, 2, team="red"), source=OTHER)
        ingest(documents(item(1, price=1)), str(kb), columns=["price:float64"], embed_dim=EMBED_DIM)
        with pytest.raises(CommitError, match="run it again"):
            commit_run(started, written)
        started = begin(kb, "again", fields=columns)
        commit_run(started, write(started, priced(2, 2, team="red"), source=OTHER))
        assert (values(kb)["2"], values(kb, "team")) == (2.0, {"1": None, "2": "red"})

    def test_a_first_run_that_another_overtook_has_its_rows_filled(self, kb):
        started = begin(kb, "late")
        written = write(started, priced(2, 2), source=OTHER)
        ingest(documents(item(1, price=1)), str(kb), columns=["price:float64"], embed_dim=EMBED_DIM)
        commit_run(started, written)
        assert values(kb) == {"1": 1.0, "2": 2.0}


class TestVectors:
    @pytest.mark.sample(2)
    @pytest.mark.parametrize("version", ["2.0", "2.1", "2.2"])
    def test_of_another_dimension_leave_the_columns(self, kb, version):
        source = documents(item(1, "# One\n\nfirst", price=1, labels=["a"]))
        columns = {"price": "int64", "labels": "list"}
        ingest(source, str(kb), columns=columns, storage_version=version)
        # The dataset has no vectors yet, and those of this run are of another length.
        again = documents(item(2, "# Two\n\nsecond", price=2, labels=["b"]))
        ingest(again, str(kb), embed="hash:8")
        embed(str(kb), "hash:16")
        assert values(kb) == {"1": 1, "2": 2, "2#chunk=0": 2}
        assert values(kb, "labels") == {"1": ["a"], "2": ["b"], "2#chunk=0": ["b"]}
        found = FrameDataset.open(str(kb)).search("second", vector=True, where="price = 2")
        assert [one.unique_id for one in found] == ["doc:2#chunk=0"]
