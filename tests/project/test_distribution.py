"""What is published: the wheel and the source distribution hold the package and work alone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from contextframe_beam.templates import find_template
from tests.support.cli_helpers import ROOT, write_documents
from tests.templates.test_templates import NAMES, files_in

PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
BUILD = [*PIP, "wheel", "--no-deps", "--no-build-isolation", "-w"]
NOT_COPIED = (".*", "build", "*.egg-info", "__pycache__")
# One process builds.
pytestmark = pytest.mark.xdist_group("distribution")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The wheel, the source distribution, and the wheel that is made of that, by these names."""
    folder = tmp_path_factory.mktemp("built")
    checkout = folder / "checkout"
    # Building leaves metadata behind, in which other tests would find each connector again.
    shutil.copytree(ROOT, checkout, symlinks=True, ignore=shutil.ignore_patterns(*NOT_COPIED))
    code = f"from setuptools.build_meta import build_sdist; build_sdist({str(folder)!r})"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    subprocess.run([sys.executable, "-c", code], check=True, cwd=checkout, **quiet)
    (sdist,) = folder.glob("*.tar.gz")
    subprocess.run([*BUILD, folder / "wheel", checkout], check=True)
    subprocess.run([*BUILD, folder / "of-sdist", sdist], check=True)
    (wheel,) = (folder / "wheel").iterdir()
    (again,) = (folder / "of-sdist").iterdir()
    return {"wheel": wheel, "sdist": sdist, "wheel of the sdist": again}


def contents(wheel: Path) -> dict[str, bytes]:
    """Returns what a wheel installs."""
    with zipfile.ZipFile(wheel) as archive:
        return {
            name: archive.read(name)
            for name in archive.namelist()
            if ".dist-info/" not in name and not name.endswith("/")
        }


def test_the_wheel_holds_every_module_and_nothing_beside_the_package(
    built: dict[str, Path],
) -> None:
    found = contents(built["wheel"])
    assert {name.partition("/")[0] for name in found} == {"contextframe_beam"}
    links = ("connectors", "transforms", "pipelines", "templates")
    modules = {path.name for path in (ROOT / "contextframe_beam").glob("*.py")}
    for link in links:
        modules |= {str(path.relative_to(ROOT)) for path in (ROOT / link).rglob("*.py")}
    assert {f"contextframe_beam/{name}" for name in modules} <= set(found)


def test_a_wheel_of_the_source_distribution_is_the_same(built: dict[str, Path]) -> None:
    assert contents(built["wheel of the sdist"]) == contents(built["wheel"])


def test_the_source_distribution_holds_what_it_is_tested_with(built: dict[str, Path]) -> None:
    with tarfile.open(built["sdist"]) as archive:
        names = {one.name.partition("/")[2] for one in archive if one.isfile()}
    assert {
        "Makefile",
        "constraints.txt",
        "tests/project/test_distribution.py",
        "docs/index.md",
    } <= names


@pytest.mark.soak
def test_each_works_in_a_clean_environment(built: dict[str, Path], tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    scripts = tmp_path / "venv" / "bin"
    install = [*PIP, "--python", scripts / "python", "install", "-c", ROOT / "constraints.txt"]
    docs = write_documents(tmp_path / "docs", {"a.json": {"id": 1, "content": "columnar files"}})
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}

    def run(*arguments: object) -> str:
        command = [scripts / "contextframe-beam", *map(str, arguments)]
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    for kind in ("wheel", "sdist"):
        # The second one finds what it needs installed already.
        subprocess.run([*install, built[kind]], check=True, cwd=tmp_path)
        kb = tmp_path / f"{kind}.lance"
        for workers in (1, 2):
            more = ("--json", "--workers", workers)
            receipt = json.loads(run("ingest", "json", "--directory", docs, "--to", kb, *more))
            assert receipt["rows_written"] == 2 - workers
        assert "columnar files" in run("search", kb, "columnar")
        assert set(NAMES) <= set(run("templates", "list").split())
        for name in NAMES:
            run("templates", "write", name, tmp_path / kind / name)
            assert files_in(tmp_path / kind / name) == sorted(find_template(name).files)
        remove = [*PIP, "--python", scripts / "python", "uninstall", "-y", "contextframe-beam"]
        subprocess.run(remove, check=True)
