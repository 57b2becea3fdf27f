"""Packages that a launcher sends to workers which have none of them, on Flink, Spark and Prism.

The connector is an entry point of a user's package, which needs a library, and both are where the
job is launched only. Workers look its secrets up, and nobody else has them.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.cli_helpers import (
    Result,
    assert_error,
    cli,
    cli_process,
    environment,
    without_progress,
)
from tests.support.engines import (
    Engines,
    Running,
    each_engine,
    engine,
    engines,
    pool,
    worker_pool,
)
from tests.support.pipeline_helpers import texts_in
from tests.support.vault import KEY, PASSWORD, vault

__all__ = ["engine", "engines"]

SETUP = """
from setuptools import setup

setup(
    name="{name}",
    version="1",
    py_modules=["{name}"],
    install_requires={needs},
    entry_points={{"contextframe.connectors": ["{name} = {name}:Vault"]}},
)
"""
LIBRARY = """
import hashlib


def digest(text):
    return hashlib.sha256(text.encode()).hexdigest()
"""
CONNECTOR = vault(
    "import sys\n\nfrom vault_library import digest", "{sys.prefix} {digest(item['value'])}"
)
WORKER = str(Path(sys.executable).with_name("contextframe-beam-worker"))


@dataclass(frozen=True)
class Package:
    """A user's package with a connector.

    Attributes:
        setup_file: What it is built with.
        requirements: A file that names the library it needs.
        wheels: A folder with both as wheels.
        site: A folder in which both are installed.
    """

    setup_file: Path
    requirements: Path
    wheels: Path
    site: Path

    @property
    def wheel(self) -> Path:
        return self.wheels / "vault_plugin-1-py3-none-any.whl"

    @property
    def library(self) -> Path:
        return self.wheels / "vault_library-1-py3-none-any.whl"


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Package:
    root = tmp_path_factory.mktemp("package")
    for name, text, needs in (
        ("vault_library", LIBRARY, []),
        ("vault_plugin", CONNECTOR, ["vault_library"]),
    ):
        (root / name).mkdir()
        (root / name / f"{name}.py").write_text(text)
        (root / name / "setup.py").write_text(SETUP.format(name=name, needs=needs))
    (root / "requirements.txt").write_text("vault_library==1\n")
    folders = [root / "vault_library", root / "vault_plugin"]
    pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check"]
    build = ["wheel", "--no-index", "--no-deps", "--no-build-isolation", "-w", root / "wheels"]
    subprocess.run([*pip, *build, *folders], check=True)
    wheels = sorted((root / "wheels").iterdir())
    subprocess.run([*pip, "install", "--no-deps", "--target", root / "site", *wheels], check=True)
    return Package(
        root / "vault_plugin" / "setup.py",
        root / "requirements.txt",
        root / "wheels",
        root / "site",
    )


def launch(package: Package, folder: Path, runner: str, arguments: list[str]) -> Result:
    """Runs the connector from a command that alone has its package, and none of its secrets."""
    assert "VAULT_KEY" not in os.environ
    return cli_process(
        *("ingest", "vault_plugin", "--to", folder / "kb.lance", "--embed-dim", 4),
        *("--api-key", "env:VAULT_KEY", "--password", f"file:{folder / 'password'}"),
        *("--runner", runner),
        *arguments,
        timeout=600,
        env={
            **environment(TMPDIR=str(folder), PIP_NO_INDEX="1", PIP_FIND_LINKS=str(package.wheels)),
            "PYTHONPATH": os.pathsep.join([environment()["PYTHONPATH"], str(package.site)]),
        },
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "password").write_text(PASSWORD)
    return tmp_path


def assert_workers_installed_it(folder: Path, result: Result) -> None:
    """Checks that the documents hold the workers' secrets, read in environments of their own."""
    assert result.code == 0, result.err
    said = [str(text).split() for text in texts_in(folder / "kb.lance").values()]
    expected = {hashlib.sha256(value.encode()).hexdigest() for value in (KEY, PASSWORD)}
    assert {digest for _, digest in said} == expected
    assert not {prefix for prefix, _ in said} & {sys.prefix, sys.base_prefix}


# Each worker installs for itself, and Spark starts four of them for this.
@each_engine(soak=["SparkRunner", "PrismRunner"])
def test_a_pool_installs_a_setup_file_and_requirements_and_removes_them(
    engine: Running, package: Package, folder: Path
) -> None:
    with pool(folder, VAULT_KEY=KEY) as address:
        arguments = engine.arguments(
            f"--environment_config={address}",
            f"--setup_file={package.setup_file}",
            f"--requirements_file={package.requirements}",
            workers="EXTERNAL",
        )
        result = launch(package, folder, engine.runner, arguments)
        assert_workers_installed_it(folder, result)
    assert not list(folder.glob("contextframe-worker-*"))


def as_process(env: Mapping[str, str]) -> str:
    """Returns the option that makes an engine start workers itself."""
    return f"--environment_config={json.dumps({'command': WORKER, 'env': env})}"


@each_engine(soak=["SparkRunner", "FlinkRunner"])
def test_workers_that_the_engine_starts_install_extra_packages(
    engine: Running, package: Package, folder: Path
) -> None:
    arguments = engine.arguments(
        # A secret would be in the job here; this one is read from a file that the workers see.
        as_process({"VAULT_KEY": KEY, "TMPDIR": str(folder)}),
        f"--extra_package={package.wheel}",
        f"--extra_package={package.library}",
        workers="PROCESS",
    )
    result = launch(package, folder, engine.runner, arguments)
    assert_workers_installed_it(folder, result)


class TestWhatIsNotThere:
    """Messages about packages that workers do not have; engines would wait, or tell a traceback."""

    def run(self, folder: Path, engine: Running, *arguments: str) -> Result:
        how = engine.arguments(*arguments, workers="EXTERNAL")
        return cli(
            *("ingest", "vault_plugin", "--to", folder / "kb.lance", "--embed-dim", 4),
            *("--api-key", "none", "--password", "none", "--runner", engine.runner, *how),
        )

    @pytest.fixture(autouse=True)
    def _importable_here(self, package: Package, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.syspath_prepend(str(package.site))

    @each_engine(soak=["SparkRunner"])
    def test_a_package_that_cannot_be_installed_ends_the_run(
        self, engine: Running, package: Package, folder: Path
    ) -> None:
        with pool(folder, PIP_NO_INDEX="1") as address:
            to = f"--environment_config={address}"
            result = self.run(folder, engine, to, f"--extra_package={package.wheel}")
        said = without_progress(result.err)
        assert said.startswith("Error: packages of the job cannot be installed on a worker:"), said
        assert "No matching distribution found for vault_library" in said
        assert result.code == 1
        assert not (folder / "kb.lance").exists()

    @each_engine(soak=["SparkRunner"])
    def test_a_package_that_workers_lack_is_named(self, engine: Running, folder: Path) -> None:
        with pool(folder) as address:
            result = self.run(folder, engine, f"--environment_config={address}")
        assert_error(result, 1, "the workers have no module vault_plugin", "--setup_file")
        assert not (folder / "kb.lance").exists()

    @pytest.mark.engine
    @pytest.mark.xdist_group("PrismRunner")
    def test_older_code_of_a_pool_that_installs_nothing_does_not_run(
        self, package: Package, folder: Path, engines: Engines
    ) -> None:
        prism = engines.get("PrismRunner")
        with worker_pool(folder, PYTHONPATH=str(package.site)) as address:
            sent = f"--extra_package={package.wheel}"
            result = self.run(folder, prism, f"--environment_config={address}", sent)
        assert_error(result, 1, "have not installed the packages of --extra_package", "worker-pool")
        assert not (folder / "kb.lance").exists()
