"""`contextframe-beam new`: what it writes installs, is clean and typed, is tested, and runs."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from contextframe_beam import FrameDataset
from contextframe_beam.pipelines.cli.authors import KINDS, LONGEST_NAME
from tests.support.cli_helpers import ROOT, assert_error, cli, cli_process, environment

#: Each kind, under the usual name, the shortest and the longest there are.
NAMES = {"file": "my-connector", "api": "ab", "custom": "zz-" + "x" * (LONGEST_NAME - 3)}


def run(*command: str, cwd: Path, site: Path | None = None, code: int = 0) -> str:
    there = environment()
    if site is not None:
        there["PYTHONPATH"] = os.pathsep.join([str(site), there["PYTHONPATH"]])
    module, *arguments = command
    executed = module in ("pip", "ruff")  # they load nothing of ours
    done = cli_process(*arguments, module=module, cwd=cwd, env=there, executed=executed)
    assert done.code == code, done.out[-3000:] + done.err[-3000:]
    return done.out


@pytest.fixture(params=list(KINDS))
def package(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    name = NAMES[request.param]
    result = cli("new", name, "--kind", request.param, "--in", tmp_path)
    assert (result.code, result.err) == (0, "")
    assert f"contextframe-beam ingest {name}" in result.out
    return tmp_path / name


def test_what_is_written_is_a_whole_package(package: Path) -> None:
    module = package.name.replace("-", "_")
    files = {path.relative_to(package).as_posix() for path in package.rglob("*") if path.is_file()}
    assert {
        "setup.py",
        "pyproject.toml",
        "requirements.txt",
        "README.md",
        "LICENSE",
        ".gitignore",
        ".github/workflows/ci.yml",
        f"src/{module}/__init__.py",
        f"src/{module}/connector.py",
        f"src/{module}/auth.py",
        f"src/{module}/utils.py",
        f"src/{module}/py.typed",
        "tests/__init__.py",
        "tests/test_connector.py",
        "tests/test_integration.py",
    } <= files
    readme = (package / "README.md").read_text()
    assert "| Parameter | Description | Required | Default |" in readme
    text = "".join(path.read_text() for path in package.rglob("*") if path.is_file())
    assert "{{" not in text.replace("${{ matrix.python }}", "")
    if module != "my_connector":
        assert not re.search("my.connector|MyConnector", text)


def test_all_kinds_are_typed(tmp_path: Path) -> None:
    for kind, name in NAMES.items():
        assert cli("new", name, "--kind", kind, "--in", tmp_path).code == 0
    # Our own settings are as strict, and what they have checked of our packages is known already.
    config = ["--config-file", str(ROOT / "pyproject.toml")]
    cache = ["--cache-dir", str(ROOT / ".mypy_cache")]
    sources = [str(tmp_path / name / "src") for name in NAMES.values()]
    run("mypy", *config, *cache, *sources, cwd=ROOT)


def test_it_is_clean_and_tested(package: Path) -> None:
    run("ruff", "check", "--no-cache", cwd=package)
    run("ruff", "format", "--check", "--no-cache", cwd=package)
    out = run("pytest", "-q", "-p", "no:cacheprovider", cwd=package)
    assert " passed" in out and "failed" not in out


def test_it_installs_and_runs_by_its_name(tmp_path: Path) -> None:
    assert cli("new", "my-connector", "--kind", "file", "--in", tmp_path).code == 0
    site = tmp_path / "site"
    quick = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--target", str(site)]
    run("pip", "install", *quick, str(tmp_path / "my-connector"), cwd=tmp_path)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("hello from a note")
    ours = ("contextframe_beam", "ingest", "my-connector", "--directory", "notes")
    run(*ours, "--to", "kb.lance", "--workers", "2", cwd=tmp_path, site=site)
    assert len(FrameDataset.open(str(tmp_path / "kb.lance"))) == 1
    checked = ("contextframe_beam", "test", "my-connector", "--directory", "notes")
    assert "FAIL" not in run(*checked, cwd=tmp_path, site=site)


@pytest.mark.soak
@pytest.mark.parametrize("kind", list(KINDS))
def test_it_installs_into_a_clean_environment(kind: str, tmp_path: Path) -> None:
    cli("new", "my-connector", "--kind", kind, "--in", tmp_path)
    package = tmp_path / "my-connector"
    run("venv", str(tmp_path / "venv"), cwd=tmp_path)
    python = str(tmp_path / "venv" / "bin" / "python")
    pip = [python, "-m", "pip", "install", "--quiet", "-c", str(ROOT / "constraints.txt")]
    subprocess.run([*pip, str(ROOT), "-r", "requirements.txt"], cwd=package, check=True)
    for tool in (["ruff", "check"], ["ruff", "format", "--check"], ["mypy"], ["pytest", "-q"]):
        subprocess.run([python, "-m", *tool], cwd=package, check=True)
    shown = subprocess.run(
        [python, "-m", "contextframe_beam", "connectors"], check=True, capture_output=True
    )
    assert b"my-connector" in shown.stdout


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("My Connector", "such as my-connector"),
        ("myCRM", "such as my-crm"),
        ("-x", "such as x"),
        ("9", "cannot name a connector"),
        ("../up", "such as up"),
        ("a" * (LONGEST_NAME + 1), f"longer than {LONGEST_NAME}"),
        ("json", "hides Python's own"),
        ("class", "hides Python's own"),
        ("contextframe-beam", "contextframe-beam-source"),
        ("api", "there is already a connector 'api'"),
    ],
)
def test_a_name_that_cannot_be_is_refused(name: str, reason: str, tmp_path: Path) -> None:
    assert_error(cli("new", "--in", tmp_path, "--", name), 2, reason)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_there_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "my-connector").mkdir()
    assert_error(cli("new", "my-connector", "--in", tmp_path), 2, "already exists")
    assert list((tmp_path / "my-connector").iterdir()) == []
