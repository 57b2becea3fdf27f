"""A dataset as tables of Arrow, pandas and Polars, and in notebooks."""

from __future__ import annotations

import html
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from IPython.core.interactiveshell import InteractiveShell

from contextframe_beam import FrameDataset, FrameRecord
from contextframe_beam.errors import ConfigError
from contextframe_beam.frames.html import definition_list, table
from contextframe_beam.pipelines import progress
from contextframe_beam.pipelines.process import Settings
from contextframe_beam.store.receipt import CommitReceipt
from tests.support.cli_helpers import ROOT, cli

NOTEBOOK = ROOT / "docs" / "notebooks" / "first-steps.ipynb"
SCRIPT = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> FrameDataset:
    folder = tmp_path_factory.mktemp("tables")
    (folder / "docs").mkdir()
    for name in ("a", "b"):
        (folder / "docs" / f"{name}.md").write_text(f"# {name}\n\n{'word ' * 200}\n\n{SCRIPT}")
    kb = folder / "kb.lance"
    done = cli("ingest", "files", "--directory", folder / "docs", "--to", kb, "--embed", "hash:8")
    assert done.code == 0
    return FrameDataset.open(str(kb))


def test_tables_hold_documents_only(dataset):
    assert dataset.contents.chunks >= 2
    arrow = dataset.to_arrow()
    assert arrow.num_rows == 2 and arrow.schema == dataset.schema
    assert set(arrow["title"].to_pylist()) == {"a", "b"}


def test_columns_and_rows_are_chosen(dataset):
    chosen = dataset.to_arrow(["title"], where="title = 'b'")
    assert chosen.to_pydict() == {"title": ["b"]}
    with pytest.raises(ConfigError, match="titel"):
        dataset.to_arrow(["titel"])


def test_frames_of_pandas_and_polars_hold_the_same(dataset):
    columns = ["title", "uri"]
    wanted = dataset.to_arrow(columns).to_pydict()
    assert dataset.to_pandas(columns).to_dict("list") == wanted
    assert dataset.to_polars(columns).to_dict(as_series=False) == wanted


def test_a_missing_library_is_named(dataset, monkeypatch):
    monkeypatch.setitem(sys.modules, "polars", None)
    with pytest.raises(ConfigError, match="pip install polars"):
        dataset.to_polars()


def test_a_dataset_shows_its_contents_and_runs(dataset):
    shown = dataset._repr_html_()
    assert html.escape(str(dataset.contents)) in shown
    assert "by hash:8" in shown and "files" in shown and "upsert" in shown


def test_a_record_and_a_receipt_show_their_facts():
    record = FrameRecord("text", unique_id="a", metadata={"author": "Ada"})
    shown = record._repr_html_()
    assert "Ada" in shown and "text" in shown
    assert "nightly" in CommitReceipt("nightly", rows_written=1200)._repr_html_()
    assert "1,200" in CommitReceipt("nightly", rows_written=1200)._repr_html_()


def test_text_is_escaped():
    record = FrameRecord(SCRIPT, unique_id=SCRIPT, metadata={SCRIPT: SCRIPT})
    shown = (
        record._repr_html_(),
        definition_list({SCRIPT: SCRIPT}),
        table([SCRIPT], [[SCRIPT]]),
        CommitReceipt(SCRIPT)._repr_html_(),
    )
    assert not any("<script" in one for one in shown)


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)
    found = InteractiveShell.instance()
    # What tells a notebook from IPython on a terminal.
    monkeypatch.setattr(found, "kernel", object(), raising=False)
    yield found
    InteractiveShell.clear_instance()


def test_the_notebook_of_the_documentation_runs(shell, capsys):
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    shown = []
    for cell in cells:
        if cell["cell_type"] == "code":
            done = shell.run_cell("".join(cell["source"]), silent=False)
            done.raise_error()
            formatted, _ = shell.display_formatter.format(done.result)
            shown.append(formatted)
    receipt, dataset, hit, frame = shown[1:]
    assert ">2</td>" in receipt["text/html"]
    assert "2 documents" in dataset["text/html"]
    assert "Pears" in hit["text/html"]
    assert "stones.md" in frame["text/html"]
    assert os.path.isdir("kb.lance")


def test_progress_updates_a_line_below_the_cell(shell, monkeypatch):
    lines: list[str] = []
    with progress.display("docs", False, Settings()) as shown:
        assert type(shown).__name__ == "_InNotebook"
        updates = []
        monkeypatch.setattr(
            "IPython.display.display", lambda text, **_: lines.append(text.data) or Handle(updates)
        )
        for items in (1, 2):
            shown.show({"items": items, "rows": 0, "unchanged": 0, "failures": 0})
    assert [one.partition(" items")[0] for one in [*lines, *updates]] == ["docs: 1", "docs: 2"]


class Handle:
    """A line of a notebook's output."""

    def __init__(self, updates: list[str]) -> None:
        self.updates = updates

    def update(self, text: Any) -> None:
        self.updates.append(text.data)
