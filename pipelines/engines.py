"""Flink, Spark and Prism on this machine: where they are kept, and how a run finds them.

`make engines` fetches them (`_engine_install`); a run that names none of its own uses these.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

BEAM_VERSION = version("apache-beam")

#: Names another folder for the engines.
FOLDER_VARIABLE = "CONTEXTFRAME_ENGINES"

_ABOUT = "engine.json"


@dataclass(frozen=True)
class Engine:
    """An engine that Beam starts as a program of its own.

    Attributes:
        name: Flink, Spark or Prism.
        file: The jar or program, by its name in the engine's folder.
        option: The option of Beam's that names it.
    """

    name: str
    file: str
    option: str

    @property
    def needs_java(self) -> bool:
        """Whether it is a job server in Java."""
        return self.file.endswith(".jar")

    @property
    def folder(self) -> Path:
        """Where it is kept, or would be: a folder for the version of Beam that it is to run."""
        return engines_folder() / BEAM_VERSION / self.name.lower()

    def path(self) -> str | None:
        """Returns its jar or program; None when it is not there."""
        return str(self.folder / self.file) if (self.folder / _ABOUT).is_file() else None

    def missing(self) -> str | None:
        """Says why it cannot be started here; None where it can."""
        if self.path() is None:
            return f"{self.name} is not in {self.folder}; `make engines` fetches it"
        if self.needs_java and shutil.which("java") is None:
            return f"{self.name} needs Java, and there is no java on PATH"
        return None

    def about(self) -> str:
        """Returns which version it is, in words; "" when it is not there."""
        try:
            return str(json.loads((self.folder / _ABOUT).read_text())["about"])
        except (OSError, ValueError, KeyError):
            return ""


#: By the name of Beam's runner.
ENGINES: Mapping[str, Engine] = {
    "FlinkRunner": Engine("Flink", "job-server.jar", "flink_job_server_jar"),
    "SparkRunner": Engine("Spark", "job-server.jar", "spark_job_server_jar"),
    "PrismRunner": Engine("Prism", "prism", "prism_location"),
}


def engines_folder() -> Path:
    """Returns the folder of all engines, which several checkouts and environments share."""
    own = os.environ.get(FOLDER_VARIABLE)
    if own:
        return Path(own).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser() / "contextframe-beam" / "engines"


def write_about(folder: Path, about: str) -> None:
    """Marks the engine in a folder as complete."""
    (folder / _ABOUT).write_text(json.dumps({"about": about}) + "\n")
