"""An environment for one worker: all that is installed where it runs, and a job's own packages.

It is a virtual environment that sees the packages of this one. pip finds those installed already,
so it fetches only what is missing, and puts it where no other worker and no later job sees it.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import site
import subprocess
import sys
import venv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from contextframe_beam.connectors.secrets import redact
from contextframe_beam.errors import CommitError

_LOGGER = logging.getLogger(__name__)

# The names under which Beam stages files; apache_beam/runners/portability/stager.py.
_REQUIREMENTS = "requirements.txt"
_EXTRA_PACKAGES = "extra_packages.txt"
_PACKAGE_OF_SETUP_FILE = "workflow.tar.gz"
_BEAM_ITSELF = "dataflow_python_sdk.tar"

_SHOWN_LINES = 6


@dataclass(frozen=True)
class Packages:
    """What of the staged files is to be installed.

    Attributes:
        folder: Where packages that the requirements name may be.
        requirements: A file of requirements, if there is one.
        archives: Wheels and source distributions, in order.
    """

    folder: Path
    requirements: Path | None
    archives: tuple[Path, ...]


def packages_in(folder: Path) -> Packages:
    """Returns what is to be installed of a folder of staged files.

    Raises:
        CommitError: Beam itself is among them.
    """
    if (folder / _BEAM_ITSELF).exists():
        raise CommitError(
            "--sdk_location: this worker runs the Beam that is installed where it runs; install "
            "that version there, and leave the option out"
        )
    names = [_PACKAGE_OF_SETUP_FILE]
    listed = folder / _EXTRA_PACKAGES
    if listed.exists():
        names = [*listed.read_text().split("\n"), *names]
    archives = tuple(folder / name for name in names if name and (folder / name).exists())
    requirements = folder / _REQUIREMENTS
    return Packages(folder, requirements if requirements.exists() else None, archives)


def python_with(packages: Packages, folder: Path) -> str:
    """Returns a Python that can import a job's packages: this one when it has none.

    Args:
        packages: What to install.
        folder: Where the environment is made.

    Raises:
        CommitError: something cannot be installed, or the worker does not start with it.
    """
    if packages.requirements is None and not packages.archives:
        return sys.executable
    if importlib.util.find_spec("pip") is None:
        raise CommitError(
            f"packages of the job cannot be installed on a worker: {sys.executable} has no pip; "
            "run `python -m ensurepip` there"
        )
    _LOGGER.info("installing the packages of this job into %s", folder)
    python = _make(folder)
    wheels = _wheels_of(python, packages, folder / "wheels")
    if wheels:
        # As they are, also where a package of the same version is installed already.
        _pip(python, "install", "--no-index", "--no-deps", "--force-reinstall", *wheels)
    needed = [*wheels]
    if packages.requirements is not None:
        needed += ["-r", str(packages.requirements)]
    links = ["--find-links", str(packages.folder)]
    # What was staged is enough most often, and then no worker needs an index.
    _first_of(python, ["install", "--no-index", *links, *needed], ["install", *links, *needed])
    check = "import apache_beam.runners.worker.sdk_worker_main, contextframe_beam.pipelines.worker"
    _run([python, "-c", check], "with the packages of this job a worker does not start")
    return python


def _make(folder: Path) -> str:
    venv.EnvBuilder(symlinks=True).create(folder)
    (own,) = folder.glob("lib/python*/site-packages")
    seen = site.getsitepackages()
    if site.ENABLE_USER_SITE:
        seen.append(site.getusersitepackages())
    # Not as lines of their own, because then the links in them to editable installs went unheeded.
    line = f"import site; list(map(site.addsitedir, {seen!r}))\n"
    (own / "contextframe-beam-worker.pth").write_text(line)
    return str(folder / "bin" / "python")


def _wheels_of(python: str, packages: Packages, folder: Path) -> list[str]:
    """Returns the archives as wheels, built where they are source distributions."""
    wheels = []
    for archive in packages.archives:
        if archive.suffix == ".whl":
            wheels.append(str(archive))
            continue
        build = ["wheel", "--no-deps", "-w", str(folder / archive.name), str(archive)]
        links = ["--find-links", str(packages.folder)]
        # Beam does without an index by default; what builds the package may not be installed.
        _first_of(python, [*build, "--no-index", "--no-build-isolation"], [*build, *links])
        wheels.extend(str(path) for path in (folder / archive.name).glob("*.whl"))
    return wheels


def _first_of(python: str, first: Sequence[str], second: Sequence[str]) -> None:
    try:
        _pip(python, *first)
    except CommitError as error:
        _LOGGER.info("%s; trying it with a package index", error)
        _pip(python, *second)


def _pip(python: str, *arguments: str) -> None:
    command = [python, "-m", "pip", "--disable-pip-version-check", "--no-input", "-q", *arguments]
    _run(command, "packages of the job cannot be installed on a worker")


def _run(command: Sequence[str], failure: str) -> None:
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env={**os.environ, "PIP_USER": "0"},  # some images set it, and here it would be refused
        check=False,
    )
    if done.returncode:
        lines = [line for line in done.stdout.splitlines() if line.strip()]
        raise CommitError(redact("\n  ".join([f"{failure}:", *lines[-_SHOWN_LINES:]])))
