"""Packages that a launcher sends to workers: `--setup_file` and similar options.

Beam sends packages to every kind of worker, but only some of them install the packages. A run with
other workers is refused before it starts, or fails once they show what they are. So a worker never
runs older code in place of the packages.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions, SetupOptions

from contextframe_beam.errors import CommitError, ConfigError, ContextFrameError
from contextframe_beam.pipelines.runners.errors import text_of

# Tells a worker where its staged files are; Beam's `boot` and ours set it.
_INSTALLED = "SEMI_PERSISTENT_DIRECTORY"
_OTHERS = (
    "workers of `contextframe-beam worker-pool` (--environment_type=EXTERNAL), of "
    "`contextframe-beam-worker` (PROCESS) or of a container of Beam's (DOCKER)"
)


def staged_options(options: PipelineOptions) -> Mapping[str, list[str]]:
    """Returns the files to send to workers, by the name of the option."""
    setup = options.view_as(SetupOptions)
    given = {
        "--setup_file": [setup.setup_file],
        "--requirements_file": [setup.requirements_file],
        "--extra_package": setup.extra_packages or [],
        "--files_to_stage": setup.files_to_stage or [],
    }
    return {name: files for name, files in given.items() if any(files)}


def check_staged(options: PipelineOptions, in_launcher: bool) -> None:
    """Refuses packages that cannot be sent to the workers of a run, or would be ignored there.

    Args:
        options: The options of the run; the path of its setup file becomes absolute, for Beam.
        in_launcher: Whether the workers are threads or processes of the launcher.

    Raises:
        ConfigError: a file is missing, or these workers do not install packages.
    """
    for name, files in staged_options(options).items():
        if in_launcher:
            raise ConfigError(
                f"{name} is for other workers: those of this run belong to this process and import "
                "what it can import, without an installation. Install the package here and leave "
                f"the option out, or choose {_OTHERS}"
            )
        for file in files:
            if "://" not in file and not os.path.isfile(file):
                raise ConfigError(f"{name}: there is no file {file}")
    setup = options.view_as(SetupOptions)
    if setup.setup_file is None:
        return
    setup.setup_file = os.path.abspath(setup.setup_file)
    name = Path(setup.setup_file).name
    if name not in ("setup.py", "pyproject.toml"):
        raise ConfigError(f"--setup_file: {name} is neither setup.py nor pyproject.toml")
    if name == "pyproject.toml" and not _has_build():
        raise ConfigError(
            "--setup_file: a pyproject.toml is built with the package build, which is not "
            "installed: `pip install build`, or give a wheel with --extra_package"
        )


def _has_build() -> bool:
    # Not by its module, because a folder `build`, left by a package build, would look like it.
    try:
        importlib.metadata.distribution("build")
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


class RequireStaged(beam.DoFn):
    """Passes elements on, on workers that install the packages; fails on others.

    Args:
        options: The names of the options that sent the packages.
    """

    def __init__(self, options: list[str]) -> None:
        self._options = options

    def setup(self) -> None:
        if _INSTALLED not in os.environ:
            raise CommitError(
                f"the workers of this run have not installed the packages of "
                f"{' and '.join(self._options)}, which Beam's own worker_pool_main never does; "
                f"use {_OTHERS}"
            )

    def process(self, element: Any) -> Iterator[Any]:
        yield element


def staging_failure(error: Exception) -> ContextFrameError | None:
    """Returns our exception for a failure of packages and workers, or None.

    Args:
        error: An exception of a run that does not contain one of ours.
    """
    text = text_of(error)
    command = re.search(r"CalledProcessError: Command '\[(.+?)\]' returned", text)
    if command is not None:
        # Beam's stager runs pip and setup.py; their output is in the text as Python writes bytes.
        said = re.findall(r"ERROR: (.+?)(?:\\n|\n|$)", text)
        return CommitError(
            "packages for the workers cannot be prepared, and nothing was read: "
            + ("; ".join(said) or f"{command[1]} failed")
        )
    missing = re.search(r"ModuleNotFoundError: No module named '([\w.]+)'\s*\Z", text)
    if missing is None:
        return None
    return CommitError(
        f"the workers have no module {missing[1]}; nothing was committed. Install its package "
        f"where they run, or send it with --setup_file or --extra_package to {_OTHERS}"
    )
