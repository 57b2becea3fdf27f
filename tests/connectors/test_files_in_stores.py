"""The files connector over fsspec: real servers of S3 and GCS, and the same rows as from a disk."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import fsspec
import pytest

from contextframe_beam import FrameDataset
from contextframe_beam.connectors import FilesConnector
from contextframe_beam.pipelines.ingest import ingest
from tests.support.s3_server import BUCKET

FILES = {
    "a.md": b"# Alpha",
    "guide/b.html": b"<html><title>Beta</title><body><p>Text.</p></body></html>",
    "guide/what? [1]#%20.md": b"# Gamma",
    "guide/d.bin": b"\0" * 100_000,
    "drafts/e.md": b"# Epsilon",
}
TITLES = {
    "files:a.md": "Alpha",
    "files:guide/b.html": "Beta",
    "files:guide/what? [1]#%20.md": "Gamma",
}


@pytest.fixture(params=["s3", "gs"])
def place(request: Any, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of a folder in a store that any process finds."""
    if request.param == "s3":
        server = request.getfixturevalue("s3")
        for name, value in server.variables.items():
            monkeypatch.setenv(name, value)
        return f"s3://{BUCKET}/{uuid.uuid4().hex}/docs"
    gcsfs = pytest.importorskip("gcsfs")
    gcs = request.getfixturevalue("gcs")
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs.endpoint)
    monkeypatch.setitem(fsspec.config.conf, "gs", {"token": "anon"})
    gcsfs.GCSFileSystem.clear_instance_cache()
    return f"gs://frames/{uuid.uuid4().hex}/docs"


def put(place: str, files: dict[str, bytes]) -> None:
    store, path = fsspec.core.url_to_fs(place)
    for name, content in files.items():
        store.pipe_file(f"{path}/{name}", content)


def found(to: Path) -> dict[str, str]:
    return {str(record.unique_id): record.title for record in FrameDataset.open(str(to))}


def test_a_folder_in_a_store_becomes_documents_and_is_recognised(place, tmp_path):
    put(place, FILES)
    connector = FilesConnector(place, exclude=["drafts"])
    to = tmp_path / "kb.lance"
    receipt = ingest(connector, str(to), embed_dim=4)
    assert found(to) == TITLES
    assert (receipt.parsed, receipt.skipped) == (3, 1)
    again = ingest(connector, str(to), mode="mirror")
    assert (again.parsed, again.rows_unchanged, again.rows_deleted) == (0, 3, 0)
    put(place, {"a.md": b"# Another"})
    assert ingest(connector, str(to), mode="mirror").parsed == 1
    assert found(to)["files:a.md"] == "Another"


def test_a_copy_on_a_disk_is_recognised(place, tmp_path):
    put(place, FILES)
    to, copy = tmp_path / "kb.lance", tmp_path / "copy"
    ingest(FilesConnector(place), str(to), embed_dim=4)
    for name, content in FILES.items():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_bytes(content)
    receipt = ingest(FilesConnector(copy), str(to), mode="mirror")
    assert (receipt.parsed, receipt.rows_unchanged) == (0, 4)


def test_a_record_says_where_its_object_is(place, tmp_path):
    put(place, {"guide/b.html": b"<p>Text</p>"})
    to = tmp_path / "kb.lance"
    ingest(FilesConnector(place), str(to), embed_dim=4)
    (record,) = FrameDataset.open(str(to))
    assert record.metadata["source_url"] == f"{place}/guide/b.html"
    assert record.metadata["source_file"] == "guide/b.html"
