"""A changed mapping is noticed by the next run of a source that reads only what changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from contextframe_beam import FrameDataset, FrameRecord
from contextframe_beam.connectors import FieldMapper, IncrementalConnector
from contextframe_beam.pipelines.ingest import ingest

NOTICED = "the mapping of {} has changed since its documents were made"


class Notes(IncrementalConnector):
    """Notes with titles by an older mapping."""

    identity_args = ()
    version = 1

    def __init__(self, mapper: FieldMapper | None = None) -> None:
        super().__init__()
        self.mapper = mapper or FieldMapper()

    def _full_sync(self) -> list[dict[str, Any]]:
        return [{"id": "a", "text": "one", "heading": "A"}]

    def _incremental_sync(self, since: str) -> list[dict[str, Any]]:
        return []

    def map_to_frame_record(self, item: dict[str, Any]) -> FrameRecord:
        return self.mapper.map(item)


@pytest.fixture
def kb(tmp_path: Path) -> str:
    return str(tmp_path / "kb.lance")


def test_an_unchanged_mapping_says_nothing(kb, caplog):
    for _ in range(3):
        ingest(Notes(), kb)
    assert "mapping" not in caplog.text


def test_another_mapper_is_said_until_all_documents_were_made_with_it(kb, caplog):
    other = FieldMapper(title="heading")
    ingest(Notes(), kb)
    for _ in range(2):
        caplog.clear()
        ingest(Notes(other), kb)
        assert NOTICED.format("Notes") in caplog.text
        assert "`full` applies it to all of them" in caplog.text
    caplog.clear()
    ingest(Notes(other), kb, full=True)
    ingest(Notes(other), kb)
    assert "mapping" not in caplog.text
    (stored,) = FrameDataset.open(kb)
    assert stored.title == "A"


def test_changed_code_is_said(kb, caplog, monkeypatch):
    ingest(Notes(), kb)
    monkeypatch.setattr(Notes, "version", 2)
    ingest(Notes(), kb)
    assert NOTICED.format("Notes") in caplog.text


def test_other_enrichers_are_said(kb, caplog):
    ingest(Notes(), kb)
    ingest(Notes(), kb, enrichers=[Tag()])
    assert NOTICED.format("Notes") in caplog.text


class Tag:
    """Adds a tag."""

    version = 1

    def enrich(self, record: FrameRecord, item: Any) -> FrameRecord:
        record.metadata["tags"] = ["new"]
        return record
