"""`contextframe-beam completion`: lets a shell complete commands, connectors, options and paths."""

from __future__ import annotations

import os

import click
from click.shell_completion import get_completion_class, shell_complete

from contextframe_beam.pipelines._shared import command

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


@command(
    "completion",
    'eval "$(contextframe-beam completion bash)"   # in ~/.bashrc',
    'eval "$(contextframe-beam completion zsh)"    # in ~/.zshrc',
    "contextframe-beam completion fish | source",
)
@click.argument("shell", type=click.Choice(_SHELLS))
def completion_command(shell: str) -> None:
    """Print the script that lets a shell complete commands, connectors and their options.

    For fish, write it to ~/.config/fish/completions/contextframe-beam.fish instead.
    """
    found = get_completion_class(shell)
    assert found is not None
    click.echo(found(click.Command(""), {}, "contextframe-beam", VARIABLE).source())
