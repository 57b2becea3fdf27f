"""`make demo`: the main job on the documentation of the installed packages."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from importlib.metadata import PathDistribution
from pathlib import Path, PurePath

import pytest

from contextframe_beam import FrameDataset
from tests.support.cli_helpers import cli_process, without_progress
from tools import demo

README = "# Reads\n\n" + "It reads large files in pieces, and small ones at once. " * 3
METADATA = "Metadata-Version: 2.1\nName: Big_App\nVersion: 1.0\n"


def package(folder: Path, metadata: str, files: Mapping[str, str]) -> PathDistribution:
    """Returns an installed package with these files."""
    info = folder / "big_app-1.0.dist-info"
    told = {f"{info.name}/METADATA": metadata, **files}
    for name, text in told.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    (info / "RECORD").write_text("".join(f"{name},,\n" for name in told))
    return PathDistribution(info)


def copied(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_readme_guides_and_licences_of_a_package_are_copied(tmp_path: Path) -> None:
    metadata = f"{METADATA}Description-Content-Type: text/markdown; charset=UTF-8\n\n{README}"
    files = {
        "big_app/guide/first.md": "# First steps",
        "big_app-1.0.dist-info/licenses/LICENSE": "Do what you like.",
        "big_app/templates/page.html": "{{ title }}",
        "big_app/app.py": "print()",
    }
    app = package(tmp_path / "site", metadata, files)
    kinds = demo.copy_documents([app], tmp_path / "docs")
    assert copied(tmp_path / "docs") >= {
        f"big-app/{name}" for name in ("README.md", "first.md", "LICENSE")
    }
    assert not [name for name in copied(tmp_path / "docs") if name.endswith(("page.html", ".py"))]
    assert (tmp_path / "docs/big-app/README.md").read_text().strip() == README.strip()
    assert kinds["READMEs"] == 1 and kinds["guides"] >= 1 and kinds["licences"] >= 1


def test_copies_have_the_times_of_the_files(tmp_path: Path) -> None:
    app = package(tmp_path / "site", f"{METADATA}\n{README}", {"big_app/first.md": "# First"})
    for path in (tmp_path / "site").rglob("*"):
        os.utime(path, (1_700_000_000, 1_700_000_000))
    demo.copy_documents([app], tmp_path / "docs")
    for name in ("README.rst", "first.md"):
        assert (tmp_path / "docs/big-app" / name).stat().st_mtime == 1_700_000_000


def test_a_package_without_a_readme_has_none(tmp_path: Path) -> None:
    app = package(tmp_path / "site", f"{METADATA}\nUNKNOWN\n", {})
    assert not demo.write_readme(app, tmp_path / "docs")
    assert not (tmp_path / "docs").exists()


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("app/README.md", "guides"),
        ("app/manual.pdf", "guides"),
        ("app-1.dist-info/licenses/LICENSE", "licences"),
        ("app-1.dist-info/COPYING.txt", "licences"),
        ("app-1.dist-info/METADATA", ""),
        ("app/license.py", ""),
        ("app/tests/readme.md", ""),
        ("app/templates/page.html", ""),
    ],
)
def test_a_file_is_a_guide_or_a_licence_or_left_out(path: str, kind: str) -> None:
    assert demo.kind_of(PurePath(path)) == kind


@pytest.mark.soak  # continuous integration runs it with each change
def test_the_whole_demo(tmp_path: Path) -> None:
    (tmp_path / "build/demo/docs/earlier").mkdir(parents=True)  # is replaced
    result = cli_process(module="tools.demo", cwd=tmp_path)
    assert (result.code, without_progress(result.err)) == (0, "")
    out = result.out
    told = re.search(r"^(\d+) files in build/demo/docs \(", out, re.MULTILINE)
    assert told is not None
    count = int(told[1])
    first, second = re.findall(r"^\d.* documents, .*$", out, re.MULTILINE)
    assert first.startswith(f"{count} documents, {count} parsed, ")
    assert second.startswith(f"{count - 1} documents, 1 parsed, ")
    assert int(re.findall(r"(\d+) texts? embedded", second)[0]) <= 3
    assert f"--chunk markdown --embed wordllama\nwrote {count} documents (version 1 of" in out
    assert "wrote 1 document (1 replaced), deleted 1, " in out
    assert "Beam YAML Error Handling" in out[out.index("--hybrid") :]
    assert (
        "files:apache-beam/README.md#chunk=" in out[out.index("search build/demo/kb.lance okapi") :]
    )
    ids = {record.unique_id for record in FrameDataset.open(str(tmp_path / "build/demo/kb.lance"))}
    assert f"files:{demo.CHANGED}" in ids
    assert not [one for one in ids if one and one.startswith(f"files:{demo.REMOVED}")]
    assert os.listdir(tmp_path) == ["build"]


def test_the_demo_stops_where_a_step_fails(tmp_path: Path) -> None:
    (tmp_path / "build").write_text("in the way")
    result = cli_process(module="tools.demo", cwd=tmp_path)
    assert result.code == 1
    assert result.err.startswith("Error: the demo cannot go on: ") and "build" in result.err
    assert result.err.count("\n") == 1
