"""Programs as processes: how they are started, what they see, and that they end with the run."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from contextframe_beam import FrameDataset
from contextframe_beam.connectors.programs import process
from contextframe_beam.connectors.programs.command import Command
from contextframe_beam.connectors.programs.process import Program
from contextframe_beam.errors import ConfigError
from tests.support.cli_helpers import cli, start
from tests.support.programs import PYTHON, SECRET, SPEAKING, SPEC, Script, read, record, stream

LOGGER = logging.getLogger("test")

# A program named docker that runs the source on this machine, with the files that it mounts.
DOCKER = f"""#!{sys.executable} -IS
import os, sys

words = sys.argv[1:]
with open(__file__ + ".log", "a") as log:
    print(*words, file=log)
mounted = {{}}
for word in words:
    if word.endswith(":ro"):
        file, place, _ = word.split(":")
        mounted[place] = file
after = words[words.index("airbyte/source-speaking:1") + 1 :]
given = [mounted.get(word, word) for word in after]
python = {PYTHON.split()!r}
os.execv(python[0], [*python, {str(SPEAKING)!r}, "airbyte", *given])
"""


@pytest.fixture(autouse=True)
def spec(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPEAKING_SPEC", json.dumps(SPEC))
    monkeypatch.setenv("AIRBYTE_TOKEN", SECRET)


@pytest.fixture
def script(tmp_path: Path) -> Script:
    return Script(tmp_path / "script.json", "airbyte").write(
        streams=[stream("users")], records={"users": [{"id": 1, "name": "Ada"}]}
    )


def on_the_path(monkeypatch: pytest.MonkeyPatch, folder: Path, name: str, text: str) -> None:
    folder.mkdir()
    (folder / name).write_text(text)
    (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def test_an_image_is_run_by_docker_with_its_files_mounted(
    script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    on_the_path(monkeypatch, tmp_path / "bin", "docker", DOCKER)
    config = {"credentials": {"token": "env:AIRBYTE_TOKEN"}}
    connector = script.connector(command=None, image="airbyte/source-speaking:1", config=config)
    assert set(read(connector).frames) == {"users:1"}
    assert script.got[-1]["config"]["credentials"]["token"] == SECRET
    words = (tmp_path / "bin" / "docker.log").read_text()
    assert "run --rm -i --init --name contextframe-" in words and SECRET not in words
    mounted = {word.partition(":")[0] for word in words.split() if word.endswith(":ro")}
    assert mounted and not any(map(os.path.exists, mounted))
    assert connector.program == "source-speaking"


def test_a_manifest_is_read_by_the_declarative_source_that_gets_it_in_its_configuration(
    script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    program = f'#!/bin/sh\nexec {PYTHON} {SPEAKING} airbyte "$@"\n'
    on_the_path(monkeypatch, tmp_path / "bin", "source-declarative-manifest", program)
    manifest = tmp_path / "pokeapi.yaml"
    manifest.write_text(
        "version: 4.5.4\nspec:\n  connection_specification:\n    properties:\n"
        "      key: {type: string, airbyte_secret: true}\n"
    )
    connector = script.connector(
        command=None, manifest=str(manifest), config={"key": "env:AIRBYTE_TOKEN"}
    )
    assert set(read(connector).frames) == {"users:1"}
    got = script.got[-1]["config"]
    assert got["__injected_declarative_manifest"]["version"] == "4.5.4" and got["key"] == SECRET
    assert connector.source_identity()["arguments"]["program"] == "pokeapi"
    with pytest.raises(ConfigError, match="plain text: key"):
        script.connector(
            command=None, manifest=str(manifest), config={"key": SECRET}
        ).ensure_authenticated()


def test_a_file_of_yaml_may_hold_references_and_times(script: Script, tmp_path: Path):
    config = tmp_path / "config.yaml"
    config.write_text(
        f"script: {script.path}\nstart: 2026-01-01T00:00:00Z\n"
        "credentials:\n  token: env:AIRBYTE_TOKEN\n"
    )
    from contextframe_beam.connectors.programs.airbyte import AirbyteConnector

    read(AirbyteConnector(script.command, config=str(config)))
    assert script.got[-1]["config"]["start"] == "2026-01-01T00:00:00Z"
    assert script.got[-1]["config"]["credentials"]["token"] == SECRET


def test_without_files_in_memory_a_program_gets_private_ones_that_vanish(
    script: Script, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delattr(process.os, "memfd_create")
    assert set(read(script.connector()).frames) == {"users:1"}
    files = [word for word in script.got[-1]["arguments"] if word.startswith("/")][1:]
    assert len(files) == 2 and not any(map(os.path.exists, files))


@pytest.mark.parametrize("size", [1, 100, 70_000])
def test_lines_come_whole_however_they_were_written(size: int):
    line = "x" * size
    code = f"import sys; [sys.stdout.write('{line}\\n') for _ in range(5)]; sys.stdout.write('end')"
    with Program(Command((sys.executable, "-I", "-S", "-c", code)), [], {}, LOGGER) as program:
        lines = b"\n".join(program.blocks()).split(b"\n")
        assert program.wait() == 0
    assert lines == [line.encode()] * 5 + [b"end"]


def test_a_program_ends_with_all_that_it_started():
    words = ("sh", "-c", "trap '' TERM; sleep 300 & echo $!; sleep 300")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(process, "_PATIENCE_SECONDS", 0.2)
        with Program(Command(words), [], {}, LOGGER) as program:
            pid = int(next(program.blocks()))
    wait_for_end(pid)


def test_a_command_with_a_secret_is_refused():
    with pytest.raises(ConfigError, match="the command holds a secret") as told:
        Command.of(f"tap-x postgresql://user:{SECRET}@host/db")
    assert SECRET not in str(told.value)


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("/venvs/x/bin/source-faker", "source-faker"),
        ("uvx --from airbyte-source-faker==7.2.1 source-faker", "source-faker"),
        ("python -m tap_github", "tap_github"),
        ("env TZ=UTC /opt/tap-x", "tap-x"),
        ("/usr/bin/python3 /opt/tap_notes.py --verbose", "tap_notes"),
    ],
)
def test_a_program_has_the_same_name_wherever_it_is(command: str, name: str):
    assert Command.of(command).name == name


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_run_that_is_ended_ends_its_program_and_commits_nothing(
    script: Script, tmp_path: Path, number: int
):
    pid = tmp_path / "pid"
    config, kb = tmp_path / "config.json", tmp_path / "kb.lance"
    config.write_text(json.dumps({"script": str(script.path)}))
    arguments: list[Any] = ["ingest", "airbyte", "--command", script.command]
    arguments += ["--config", config, "--to", kb]
    script.write(lines={"users": [record("users", id=2), {"do": "hang", "pid": str(pid)}]})
    run = start(*arguments)
    until(pid.exists)
    os.kill(run.pid, number)
    run.communicate()
    wait_for_end(int(pid.read_text()))
    assert not kb.exists() or not FrameDataset.open(kb).count()
    script.write(lines={})
    assert cli(*arguments, "--embed-dim", 4).code == 0


def until(condition: Any) -> None:
    deadline = time.monotonic() + 60
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert condition()


def wait_for_end(pid: int) -> None:
    def is_gone() -> bool:
        with suppress(FileNotFoundError, ProcessLookupError):
            # Nobody may be there to ask for its exit code.
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
            return state in "ZX"
        return True

    until(is_gone)
