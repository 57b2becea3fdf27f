"""What a release is made with: the image, the workflows, and the wheel in bare Pythons."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.support.cli_helpers import ROOT

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
VERSIONS = ("3.10", "3.11", "3.12", "3.13")
ACTIONLINT = "github.com/rhysd/actionlint/cmd/actionlint@v1.7.7"


def test_the_image_is_linted() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, ROOT / "Dockerfile"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_image_installs_extras_that_there_are() -> None:
    text = (ROOT / "Dockerfile").read_text()
    extras = text.partition("ARG EXTRAS=")[2].split()[0].split(",")
    setup = (ROOT / "setup.py").read_text()
    assert all(f'"{extra}": [' in setup for extra in extras)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_run_targets_that_there_are(path: Path) -> None:
    makefile = (ROOT / "Makefile").read_text()
    jobs = yaml.safe_load(path.read_text())["jobs"]
    runs = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    for words in (run.split() for run in runs if "make " in run):
        target = words[words.index("make") + 1]
        assert f"\n{target}:" in makefile


@pytest.mark.soak
@pytest.mark.skipif(shutil.which("go") is None, reason="no Go, with which actionlint is run")
def test_workflows_are_linted() -> None:
    done = subprocess.run(
        ["go", "run", ACTIONLINT, "-shellcheck=", *WORKFLOWS], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def interpreter(version: str) -> str | None:
    """Returns a Python of a version, from the path or from pyenv."""
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    found = [str(path) for path in root.glob(f"versions/{version}.*/bin/python")]
    for one in (*found, shutil.which(f"python{version}")):
        code = "import sys, venv; print('%d.%d' % sys.version_info[:2])"
        if one:
            told = subprocess.run([one, "-c", code], capture_output=True, text=True)
            if told.stdout.strip() == version:
                return one
    return None


@pytest.mark.soak
@pytest.mark.parametrize("version", VERSIONS)
def test_the_wheel_works_in_a_bare_python(version: str, tmp_path: Path) -> None:
    python = interpreter(version)
    if python is None:
        pytest.skip(f"no Python {version} here")
    quiet = ("-m", "pip", "--disable-pip-version-check", "-q")
    checkout = tmp_path / "checkout"
    ignored = shutil.ignore_patterns(".*", "build", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT, checkout, symlinks=True, ignore=ignored)
    wheels = tmp_path / "wheels"
    command = [sys.executable, *quiet, "wheel", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "-w", wheels, checkout], check=True)
    (wheel,) = wheels.iterdir()
    bare = tmp_path / "bare"
    subprocess.run([python, "-m", "venv", bare], check=True)
    installed = bare / "bin" / "python"
    subprocess.run(
        [installed, *quiet, "install", "--constraint", ROOT / "constraints.txt", wheel], check=True
    )
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.json").write_text('{"id": "a", "text": "apples"}')
    environment = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    for words in (
        ("ingest", "json", "--directory", "docs", "--to", "kb.lance"),
        ("history", "kb.lance"),
    ):
        subprocess.run(
            [bare / "bin" / "contextframe-beam", *words],
            check=True,
            cwd=tmp_path,
            env={**environment, "HOME": str(tmp_path)},
        )
    found = subprocess.run(
        [bare / "bin" / "contextframe-beam", "search", "kb.lance", "apples", "--json"],
        check=True,
        cwd=tmp_path,
        env={**environment, "HOME": str(tmp_path)},
        capture_output=True,
    )
    assert [one["text_content"] for one in json.loads(found.stdout)] == ["apples"]
