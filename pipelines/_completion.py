"""`contextframe-beam completion`: lets a shell complete commands, connectors, options and paths."""

from __future__ import annotations

import os

import click
from click.shell_completion import CompletionItem, get_completion_class, shell_complete

from contextframe_beam.pipelines._shared import debug_option, examples

#: The variable in which a shell's script asks this program for completions.
VARIABLE = "_CONTEXTFRAME_BEAM_COMPLETE"

_SHELLS = ("bash", "zsh", "fish")


def answer(commands: click.Command, program: str) -> int | None:
    """Answers a shell that asks for completions.

    Args:
        commands: The command line.
        program: Its name.

    Returns:
        The exit code; None when no shell asks.
    """
    instruction = os.environ.get(VARIABLE)
    if not instruction:
        return None
    return shell_complete(commands, {}, program, VARIABLE, instruction)


def folders(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Lets the shell complete the path of a folder, such as a dataset."""
    return [CompletionItem(incomplete, type="dir")]


def _print_script(shell: str) -> None:
    found = get_completion_class(shell)
    assert found is not None
    click.echo(found(click.Command(""), {}, "contextframe-beam", VARIABLE).source())


completion_command = click.Command(
    "completion",
    callback=_print_script,
    params=[click.Argument(["shell"], type=click.Choice(_SHELLS)), debug_option()],
    short_help="Print the script that lets a shell complete commands and options.",
    help="Print the script that lets a shell complete commands, connectors and their options.\n\n"
    "For fish, write it to ~/.config/fish/completions/contextframe-beam.fish instead.",
    epilog=examples(
        'eval "$(contextframe-beam completion bash)"   # in ~/.bashrc',
        'eval "$(contextframe-beam completion zsh)"    # in ~/.zshrc',
        "contextframe-beam completion fish | source",
    ),
)
