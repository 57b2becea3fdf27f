"""`make demo`: the main job on the metadata of the installed packages."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from contextframe_beam import FrameDataset
from tests.support.cli_helpers import cli, cli_process, environment, without_progress
from tools import demo

PACKAGES = [
    {
        "name": "Big_App",
        "version": "1.0",
        "summary": "An app",
        "description": "# Big app\n\nIt needs the small ones.",
        "keywords": ["app", "big"],
        "author_email": "Ada <ada@example.org>",
        "requires_dist": [
            "small.lib>=1",
            "small-lib<3; python_version < '3.11'",
            "other (>=2)",
            "absent",
            "docs-tool ; extra == 'docs'",
        ],
    },
    {"name": "small-lib", "version": "2", "requires_dist": ["other"], "description": "Small."},
    {"name": "Other", "version": "3", "summary": "Only a summary"},
    {"name": "docs-tool", "version": "4"},
]


def test_each_package_is_a_document_whose_requirements_join(tmp_path: Path) -> None:
    folder, kb = tmp_path / "packages", tmp_path / "kb.lance"
    assert demo.write_documents(PACKAGES, folder) == 4
    app = json.loads((folder / "big-app.json").read_text())
    assert app["content"].startswith("# Big app")
    assert [Path(one["target_id"]).name for one in app["relationships"]] == [
        "small-lib.json",
        "other.json",
    ]
    assert cli("ingest", "json", "--directory", folder, "--to", kb).code == 0
    assert demo.most_required(str(kb)) == [
        ("Other", ["Big_App", "small-lib"]),
        ("small-lib", ["Big_App"]),
    ]
    record = FrameDataset.open(str(kb)).get(f"json_file:{folder}/big-app.json")
    assert record is not None
    assert record.metadata["author"] == "Ada <ada@example.org>"
    assert record.metadata["tags"] == ["app", "big"]


def test_the_whole_demo(tmp_path: Path) -> None:
    for _ in range(2):  # what an earlier demo left is replaced
        result = cli_process(module="tools.demo", cwd=tmp_path)
        assert (result.code, without_progress(result.err)) == (0, "")
        out = result.out
        count = len(list((tmp_path / "build/demo/packages").glob("*.json")))
        assert f"{count} documents in build/demo/packages" in out
        assert (
            "$ contextframe-beam ingest json --directory build/demo/packages "
            "--to build/demo/kb.lance --enrich keywords\n"
            f"wrote {count} documents (version 1 of build/demo/kb.lance" in out
        )
        assert "apache-beam" in out[out.index("$ contextframe-beam search") :]
        assert f"nothing changed: {count} documents are stored already, none was written" in out
    dataset = FrameDataset.open(str(tmp_path / "build/demo/kb.lance"))
    assert len(dataset) == count
    assert [version.counts.get("written") for version in dataset.history()] == [count, None, 0]
    assert all(record.context["keywords"] for record in dataset if record.text_content)
    assert os.listdir(tmp_path) == ["build"]


def test_an_environment_without_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pip.py").write_text("raise SystemExit(1)")
    path = environment()["PYTHONPATH"]
    with_pip = {demo.canonical(one["name"]) for one in demo.installed_packages()}
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{path}")
    without = {demo.canonical(one["name"]) for one in demo.installed_packages()}
    assert {"apache-beam", "pylance"} <= with_pip & without


def test_the_demo_stops_where_a_step_fails(tmp_path: Path) -> None:
    (tmp_path / "build").write_text("in the way")
    result = cli_process(module="tools.demo", cwd=tmp_path)
    assert result.code == 1
    assert result.err.startswith("Error: the demo cannot go on: ") and "build" in result.err
    assert result.err.count("\n") == 1
