"""Fetches the engines that are missing: `make engines`.

Job servers come from a Maven repository. Where it does not hold the one that Beam publishes for
this version, one is put together from the newest of Beam's libraries that go with each other and
that were tried: a jar that names the others as its class path. Prism is built with Go.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from contextframe_beam.errors import ContextFrameError
from contextframe_beam.pipelines.runners.engines import (
    BEAM_VERSION,
    ENGINES,
    Engine,
    engines_folder,
    write_about,
)

_LIBRARIES_VERSION = "2.62.0"
_PRISM = "github.com/apache/beam/sdks/v2/go/cmd/prism"
_JAVA_HINT = "install a JDK (11 or 17) and Maven"
_GO_HINT = "install Go"


class EngineError(ContextFrameError):
    """An engine that cannot be fetched or built."""


@dataclass(frozen=True)
class _JobServer:
    """A job server, as Beam publishes it and as its libraries make it.

    Attributes:
        published: The artifact of the whole job server, and what it runs on.
        libraries: Artifacts it can be made of, with what they need, and what they run on.
        main: Its main class.
    """

    published: tuple[str, str]
    libraries: tuple[tuple[str, ...], str]
    main: str


_JOB_SERVERS: Mapping[str, _JobServer] = {
    "Flink": _JobServer(
        ("org.apache.beam:beam-runners-flink-2.2-job-server", "Flink 2.2"),
        (
            (f"org.apache.beam:beam-runners-flink-1.19:{_LIBRARIES_VERSION}",),
            "Flink 1.19",
        ),
        "org.apache.beam.runners.flink.FlinkJobServerDriver",
    ),
    "Spark": _JobServer(
        ("org.apache.beam:beam-runners-spark-3-job-server", "Spark 3"),
        (
            (
                f"org.apache.beam:beam-runners-spark-3:{_LIBRARIES_VERSION}",
                "org.apache.spark:spark-streaming_2.12:3.5.6",
                "org.apache.spark:spark-sql_2.12:3.5.6",
            ),
            "Spark 3.5.6",
        ),
        "org.apache.beam.runners.spark.SparkJobServerDriver",
    ),
}
# A logger that writes to the standard error; the libraries bring an API for loggers and none.
_LOGGER = "org.slf4j:slf4j-simple:1.7.36"
_OTHER_LOGGERS = ("log4j-slf4j2-impl", "log4j-slf4j-impl")


def main() -> int:
    """Fetches what is missing and says what is there; returns 1 when something is still missing."""
    failed = False
    for engine in ENGINES.values():
        try:
            install(engine)
        except EngineError as error:
            failed = True
            sys.stderr.write(f"Error: {engine.name}: {error}\n")
        else:
            sys.stdout.write(f"{engine.about()}: {engine.folder}\n")
        sys.stdout.flush()
    return int(failed)


def install(engine: Engine) -> None:
    """Fetches an engine unless it is there.

    Raises:
        EngineError: a tool is missing, or it failed.
    """
    if engine.path() is not None:
        return
    make: Callable[[Path], str]
    if engine.name == "Prism":
        _require(("go",), _GO_HINT)
        make = _build_prism
    else:
        _require(("java", "mvn"), _JAVA_HINT)
        server = _JOB_SERVERS[engine.name]

        def make(folder: Path) -> str:
            return _fetch_job_server(server, folder / engine.file)

    engines_folder().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=engines_folder(), prefix="new-") as scratch:
        folder = Path(scratch) / engine.name
        folder.mkdir()
        write_about(folder, make(folder))
        engine.folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(engine.folder, ignore_errors=True)
        try:
            folder.rename(engine.folder)
        except OSError as error:
            if engine.path() is None:  # else somebody else was faster
                raise EngineError(f"cannot write {engine.folder}: {error}") from error


def _fetch_job_server(server: _JobServer, jar: Path) -> str:
    artifact, runs_on = server.published
    try:
        _maven("dependency:copy", f"-Dartifact={artifact}:{BEAM_VERSION}", into=jar.parent)
    except EngineError:
        parts, runs_on = server.libraries
        _collect_libraries((*parts, _LOGGER), jar.parent / "lib")
        _write_jar(jar, server.main)
        return f"{runs_on} (job server made of the libraries of Beam {_LIBRARIES_VERSION})"
    (fetched,) = jar.parent.glob("*.jar")
    fetched.rename(jar)
    return f"{runs_on} (job server of Beam {BEAM_VERSION})"


def _collect_libraries(artifacts: tuple[str, ...], folder: Path) -> None:
    """Copies artifacts and all that they need at run time into a folder."""
    dependencies = "".join(
        "<dependency><groupId>{}</groupId><artifactId>{}</artifactId><version>{}</version>"
        "</dependency>".format(*artifact.split(":"))
        for artifact in artifacts
    )
    pom = folder.parent / "pom.xml"
    pom.write_text(
        "<project><modelVersion>4.0.0</modelVersion><groupId>contextframe</groupId>"
        "<artifactId>job-server</artifactId><version>1</version>"
        f"<dependencies>{dependencies}</dependencies></project>\n"
    )
    _maven("dependency:copy-dependencies", "-DincludeScope=runtime", "-f", str(pom), into=folder)
    pom.unlink()
    for name in _OTHER_LOGGERS:
        for jar in folder.glob(f"{name}-*.jar"):
            jar.unlink()


def _write_jar(jar: Path, main_class: str) -> None:
    """Writes a jar with nothing in it but a class path and where to start.

    Format: the JAR file specification, whose lines have at most 72 bytes and go on behind a space.
    """
    libraries = sorted(f"lib/{path.name}" for path in (jar.parent / "lib").glob("*.jar"))
    lines = ["Manifest-Version: 1.0", f"Main-Class: {main_class}"]
    rest = f"Class-Path: {' '.join(libraries)}"
    while rest:
        lines.append(rest[:72])
        rest = f" {rest[72:]}" if rest[72:] else ""
    with zipfile.ZipFile(jar, "w") as archive:
        archive.writestr("META-INF/MANIFEST.MF", "\r\n".join(lines) + "\r\n\r\n")


def _build_prism(folder: Path) -> str:
    _run(["go", "install", f"{_PRISM}@v{BEAM_VERSION}"], {"GOBIN": str(folder)})
    return f"Prism {BEAM_VERSION}"


def _maven(goal: str, *arguments: str, into: Path) -> None:
    _run(["mvn", "-B", "-q", goal, *arguments, f"-DoutputDirectory={into}"], {})


def _run(command: list[str], more: Mapping[str, str]) -> None:
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **more},
        cwd=tempfile.gettempdir(),  # no project's settings
        check=False,
    )
    if done.returncode:
        said = [line for line in done.stdout.splitlines() if line.strip()]
        raise EngineError(f"`{' '.join(command[:3])} ...` failed:\n" + "\n".join(said[-10:]))


def _require(tools: tuple[str, ...], hint: str) -> None:
    missing = [tool for tool in tools if shutil.which(tool) is None]
    if missing:
        raise EngineError(
            f"needs {' and '.join(tools)}, and there is no {' and no '.join(missing)} on PATH; "
            f"{hint}, then run `make engines` again"
        )


if __name__ == "__main__":
    sys.exit(main())
