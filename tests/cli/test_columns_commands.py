"""`columns`, `index --column` and `--where`, from the command line."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from contextframe_beam import FrameDataset
from tests.support.cli_helpers import assert_error, cli, lines, write_documents

ITEMS = (
    {"id": "1", "text": "The ferry leaves.", "price": 5, "team": "red"},
    {"id": "2", "text": "The ferry comes.", "price": 7.5, "team": "red", "labels": ["a"]},
    {"id": "3", "text": "The ferry waits.", "price": "n/a", "team": "blue"},
)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_documents(tmp_path_factory.mktemp("in"), {"a.jsonl": lines(ITEMS)})


def ingest(source: Path, kb: Path, *more: str) -> Any:
    arguments = ("--directory", source, "--pattern", "*.jsonl", "--id-field", "id", "--to", kb)
    return cli("ingest", "json", *arguments, *more)


def found(kb: Path, where: str) -> list[str]:
    hits = cli("search", kb, "ferry", "--where", where, "--json").json
    return sorted(str(hit["unique_id"])[-1] for hit in hits)


def test_columns_are_added_listed_asked_indexed_and_dropped(source, tmp_path):
    kb = tmp_path / "kb.lance"
    assert ingest(source, kb).code == 0
    assert cli("columns", "list", kb).out.startswith(f"no field of {kb} is a column; `contextframe")

    added = cli("columns", "add", kb, "price:float64", "team")
    assert (
        added.out == f"added price:float64 (2 filled), team:text (3 filled) (version 2 of {kb})\n"
    )
    assert re.search(
        r"Warning: 1 value of price does not fit, and is null.*3: metadata\['price'\] is 'n/a'",
        added.err,
    )
    assert "has these columns already" in cli("columns", "add", kb, "team").out
    assert found(kb, "price > 5 AND team = 'red'") == ["2"]

    made = cli("index", kb, "--column", "price", "--column", "team")
    assert (
        made.out
        == f"made the index of price (BTREE) in {kb}\nmade the index of team (BTREE) in {kb}\n"
    )
    assert cli("index", kb, "--column", "price", "--json").json == {"price": None}
    assert cli("columns", "list", kb, "--json").json == [
        {"name": "price", "type": "float64", "filled": 2, "index": "BTree"},
        {"name": "team", "type": "text", "filled": 3, "index": "BTree"},
    ]
    assert re.search(r"price +float64 +2 +BTree", cli("inspect", kb).out)
    counted = cli("inspect", kb, "--where", "team = 'red'")
    assert counted.out == "2 of 3 documents and chunks fulfil team = 'red'\n"

    assert cli("columns", "drop", kb, "price").code == 0
    assert_error(
        cli("search", kb, "ferry", "--where", "price > 5"),
        2,
        f"price is in the metadata of documents, and is no column; `contextframe-beam columns add "
        f"{kb} price:text` makes it one",
    )
    assert [one.metadata["price"] for one in FrameDataset.open(str(kb))] == [5, 7.5, "n/a"]


def test_a_run_makes_columns_and_keeps_what_does_not_fit_apart(source, tmp_path):
    kb = tmp_path / "kb.lance"
    result = ingest(source, kb, "--column", "price:float64", "--column", "labels:list", "--json")
    assert (result.json["rows_written"], result.json["failed"]) == (2, 1)
    assert found(kb, "array_has(labels, 'a') OR price = 5") == ["1", "2"]
    added = cli("columns", "add", kb, "team", "--json")
    assert json.loads(added.out)["filled"] == {"team": 2}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("columns", "add", "KB", "price:number"), "the type 'number'; choose one of text, int64"),
        (("columns", "add", "KB", "author"), "author is a column of every frame"),
        (("columns", "drop", "KB", "price"), "has no own column price; it has none"),
        (("columns", "add", "KB"), "Missing argument 'NAME[:TYPE]...'"),
        (("columns", "list", "KB"), "there is no dataset at"),
        (("index", "KB", "--column", "price", "--vector"), "give one"),
        (("index", "KB", "--column", "price", "--language", "de"), "give one"),
    ],
)
def test_what_cannot_be_done_is_told(tmp_path, arguments, said):
    kb = tmp_path / "kb.lance"
    if said != "there is no dataset at":
        FrameDataset.create(str(kb), embed_dim=4)
    result = cli(*(kb if one == "KB" else one for one in arguments))
    assert result.code in (1, 2)
    assert said in result.err
