"""Documents with chunks and vectors on engines: the dataset that the in-process runner gives."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import lance

from contextframe_beam import FrameDataset
from contextframe_beam.connectors.files.connector import FilesConnector
from contextframe_beam.pipelines.ingest import ingest
from tests.support.engines import EACH_ENGINE, Running, engine, engines

__all__ = ["engine", "engines"]

SETTINGS: dict[str, Any] = {"chunk": "markdown", "chunk_tokens": 40, "embed": "hash:16"}


def text_of(sections: int, word: str) -> str:
    """Returns a document of so many sections, each long enough for a chunk of its own."""
    return "\n\n".join(
        f"# Part {number} of {word}\n\n" + f"{word} {number} is told here. " * 6
        for number in range(sections)
    )


def write(folder: Path, name: str, text: str, at: int) -> None:
    """Writes a file as if it had been written at a time of its own, long ago."""
    (folder / name).write_text(text)
    os.utime(folder / name, (1_700_000_000 + at, 1_700_000_000 + at))


def rows_of(kb: Path) -> Any:
    columns = ["uuid", "text_content", "title", "vector", "x_parent", "x_digest", "x_embedder"]
    table = lance.dataset(str(kb)).to_table(columns, filter="x_state IS NULL")
    return table.sort_by([("uuid", "ascending")])


def counts_of(receipt: Any) -> tuple[int, ...]:
    return (
        receipt.documents,
        receipt.parsed,
        receipt.chunks,
        receipt.texts_embedded + receipt.texts_reused,
        receipt.rows_written,
        receipt.rows_deleted,
        receipt.rows_unchanged,
        receipt.stale,
        receipt.failed,
    )


@EACH_ENGINE
def test_chunks_come_stay_and_go_with_their_document_as_in_process(
    engine: Running, tmp_path: Path
) -> None:
    folder = tmp_path / "docs"
    folder.mkdir()
    for number in range(6):
        write(folder, f"{number}.md", text_of(5, f"word{number}"), number)
    (folder / "broken.pdf").write_bytes(b"%PDF-1.4 cut off")
    how = {"runner": engine.runner, "beam_args": engine.arguments()}

    def compare(run_id: str, mode: str) -> Any:
        receipts = []
        for name, more in {"here": {}, "engine": how}.items():
            receipts.append(
                ingest(
                    FilesConnector(str(folder)),
                    str(tmp_path / f"{name}.lance"),
                    mode=mode,
                    run_id=run_id,
                    **SETTINGS,
                    **more,
                )
            )
        assert counts_of(receipts[1]) == counts_of(receipts[0])
        assert rows_of(tmp_path / "engine.lance").equals(rows_of(tmp_path / "here.lance"))
        return receipts[1]

    first = compare("first", "upsert")
    assert (first.parsed, first.failed) == (6, 1)
    assert first.chunks >= 6 * 5
    again = compare("again", "mirror")
    assert (again.parsed, again.texts_embedded, again.rows_written) == (0, 0, 0)
    write(folder, "0.md", text_of(2, "word0"), 100)
    (folder / "5.md").unlink()
    changed = compare("changed", "mirror")
    assert (changed.parsed, changed.texts_embedded, changed.rows_deleted) == (1, 0, 1)
    parents = {row.parent for row in FrameDataset.open(str(tmp_path / "engine.lance"))}
    documents = {row.uuid for row in FrameDataset.open(str(tmp_path / "engine.lance"))}
    assert parents - {None} <= documents
