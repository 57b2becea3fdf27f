"""Shell completion, typos and examples of the command line."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from contextframe_beam.pipelines.cli.commands import commands
from tests.support.cli_helpers import assert_error, cli, cli_process, environment


def every_command(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from every_command(below, (*path, name))


COMMANDS = list(every_command(commands))


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_the_help_has_an_example_that_begins_with_the_command(path: tuple[str, ...]) -> None:
    shown = cli(*path, "--help")
    assert shown.code == 0
    _, *examples = re.split(r"^ *Examples?:$", shown.out, maxsplit=1, flags=re.MULTILINE)
    assert examples, shown.out
    assert " ".join(("contextframe-beam", *path)) in examples[0]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "kb.lance").mkdir()
    (tmp_path / "team.py").write_text("")
    return tmp_path


def completed(shell: str, line: str, folder: Path) -> set[str]:
    """Returns what a real shell, in which our script was loaded, offers at the end of a line."""
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"{shell} is not installed")
    scripts = Path(sys.executable).parent
    env = environment(
        HOME=str(folder), PATH=f"{scripts}:{Path(program).parent}:/usr/bin:/bin", TERM="dumb"
    )
    if shell == "fish":
        code = f'contextframe-beam completion fish | source; complete -C "{line}"'
    elif shell == "bash":
        words = line.split(" ")
        code = (
            'eval "$(contextframe-beam completion bash)"\n'
            f"COMP_WORDS=({' '.join(words[:-1])} '{words[-1]}'); COMP_CWORD={len(words) - 1}\n"
            "_contextframe_beam_completion contextframe-beam\n"
            'printf "%s\\n" "${COMPREPLY[@]}"'
        )
    else:
        # A terminal is needed for zsh's own completion; what its script asks us for is not.
        words = line.split(" ")
        code = (
            'eval "$(contextframe-beam completion zsh)"\n'
            f"export COMP_WORDS='{line}' COMP_CWORD={len(words) - 1}\n"
            "_CONTEXTFRAME_BEAM_COMPLETE=zsh_complete contextframe-beam"
        )
    done = subprocess.run(
        [program, "-c", code], cwd=folder, env=env, capture_output=True, text=True
    )
    return {one.partition("\t")[0] for one in done.stdout.splitlines() if one}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
class TestAShell:
    def test_completes_commands(self, shell: str, folder: Path) -> None:
        assert {"ingest", "inspect"} <= completed(shell, "contextframe-beam in", folder)

    def test_completes_connectors(self, shell: str, folder: Path) -> None:
        assert "json" in completed(shell, "contextframe-beam ingest j", folder)

    def test_completes_the_options_of_a_connector(self, shell: str, folder: Path) -> None:
        assert "--directory" in completed(shell, "contextframe-beam ingest json --di", folder)

    def test_completes_choices(self, shell: str, folder: Path) -> None:
        assert "upsert" in completed(shell, "contextframe-beam ingest json --mode ups", folder)


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        (["ingest", "json", "--to", "k"], "dir"),
        (["search", "k"], "dir"),
        (["ingest", "te"], "file"),
    ],
)
def test_paths_are_left_to_the_shell(words: list[str], kind: str, folder: Path) -> None:
    asked = environment(
        _CONTEXTFRAME_BEAM_COMPLETE="bash_complete",
        COMP_WORDS=" ".join(["contextframe-beam", *words]),
        COMP_CWORD=str(len(words)),
    )
    assert cli_process(env=asked, cwd=folder).out == f"{kind},{words[-1]}\n"


def test_an_unknown_shell_is_refused() -> None:
    assert_error(cli("completion", "basch"), 2, "'basch' is not one of", "did you mean bash?")


@pytest.mark.parametrize(
    ("arguments", "nearest"),
    [
        (("serch", "kb.lance", "x"), "search"),
        (("ingest", "jsn"), "json"),
        (("ingest", "json", "--directry", "x"), "--directory"),
        (("ingest", "json", "--directory", "x", "--to", "y", "--mode", "upsrt"), "upsert"),
        (("search", "kb.lance", "x", "--limt", "3"), "--limit"),
        (("check", "apii"), "api"),
        (("templates", "wite"), "write"),
    ],
)
def test_a_typo_is_told_with_the_nearest_that_exists(
    arguments: tuple[str, ...], nearest: str
) -> None:
    result = cli(*arguments)
    assert_error(result, 2, "did you mean" if "did you mean" in result.err else "Did you mean")
    assert nearest in result.err.lower().partition("did you mean")[2].partition("?")[0]
