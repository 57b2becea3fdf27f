"""Options, kinds of values and completion that commands share."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import MISSING, Field
from datetime import date
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem, get_completion_class, shell_complete

from contextframe_beam.connectors import secrets
from contextframe_beam.errors import nearest
from contextframe_beam.pipelines import logs, process
from contextframe_beam.pipelines.job import about, settings
from contextframe_beam.pipelines.process import Settings

F = TypeVar("F", bound=Callable[..., Any] | click.Command)

#: For commands that pass unknown options on to Beam.
PASSES_ON = {"ignore_unknown_options": True, "allow_extra_args": True}


class SectionOption(click.Option):
    """An option that `--help` can list under its own heading.

    Args:
        section: The heading.
    """

    def __init__(self, *args: Any, section: str = "Options", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.section = section

    def add_to_parser(self, parser: Any, ctx: click.Context) -> None:
        super().add_to_parser(parser, ctx)
        known = ctx.ensure_object(Settings).flags
        prefix, _, name = str(self.name).rpartition("__")
        # Our messages do not mean a connector's argument with the name of a setting.
        if not prefix or name not in known:
            known[name] = self.opts[0]


def option(*flags: str, **settings: Any) -> Callable[[F], F]:
    """Adds an option to a command; `section` is its heading in `--help`."""
    return click.option(*flags, cls=SectionOption, **settings)


def examples(*commands: str) -> str:
    """Returns the examples at the end of a command's help, one a line."""
    title = "Example" if len(commands) == 1 else "Examples"
    # click wraps the lines of paragraphs, except after this mark.
    return "\b\n" + "\n  ".join([f"{title}:", *commands])


class _Command(click.Command):
    """A command whose summary in the list of commands is the first line of its help."""

    def get_short_help_str(self, limit: int = 45) -> str:
        return (self.help or "").partition("\n")[0]


class CommandGroup(click.Group):
    """A group that suggests the nearest command for an unknown one."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if self.get_command(ctx, name) is None:
            shown = (one for one in self.list_commands(ctx) if not self.commands[one].hidden)
            there = f"(there are: {', '.join(shown)})"
            raise click.UsageError(f"no such command: {name}{self.hint(name)} {there}", ctx)
        return super().resolve_command(ctx, args)

    def hint(self, name: str) -> str:
        """Returns what an unknown command may mean; "" if it is like no other."""
        return nearest(name, [one for one in self.commands if not self.commands[one].hidden])


def command(
    name: str, *shown: str, of: click.Group | None = None, **attributes: Any
) -> Callable[[Callable[..., Any]], click.Command]:
    """Makes a command from a function, with its docstring as the help.

    Args:
        name: Its name.
        shown: The examples below its help.
        of: Its group.
        attributes: Other arguments of `click.command`.
    """
    given = {"epilog": examples(*shown), **attributes}
    cls: type[click.Command] = given.pop("cls", _Command)

    def decorated(function: Callable[..., Any]) -> click.Command:
        made = debug_option()(click.command(name, cls=cls, **given)(function))
        if of is not None:
            of.add_command(made)
        return made

    return decorated


def count_from(least: int, most: int | None = None) -> Callable[[object], int]:
    """Returns what reads a whole number; click's own range writes `[x>=1]` into the help."""
    range = f"from {least} on" if most is None else f"from {least} to {most}"

    def count(text: object) -> int:
        if str(text).isascii() and str(text).isdigit():
            number = int(str(text))
            if least <= number and (most is None or number <= most):
                return number
        raise click.BadParameter(f"{text!r} is not a whole number {range}")

    return count


count = count_from(1)
port_number = count_from(0, 65535)


def folders(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Lets the shell complete the path of a folder, such as a dataset."""
    return [CompletionItem(incomplete, type="dir")]


def job_options(*names: str, in_sections: bool = False) -> Callable[[F], F]:
    """Adds options for settings of a run to a command.

    Args:
        names: The settings; all by default.
        in_sections: Whether `--help` lists them under headings.
    """
    chosen = [one for one in settings() if about(one).section and (not names or one.name in names)]

    def decorated(function: F) -> F:
        for setting in reversed(chosen):
            section = about(setting).section if in_sections else "Options"
            for flags, told in reversed(_OWN.get(setting.name) or [_option_of(setting)]):
                function = option(*flags, section=section, **told)(function)
        return function

    return decorated


def flag_of(setting: Field[Any]) -> str:
    """Returns the option of a setting, as in `--run-id`."""
    return about(setting).flag or f"--{setting.name.replace('_', '-')}"


def _option_of(setting: Field[Any]) -> tuple[list[str], dict[str, Any]]:
    told = about(setting)
    given: dict[str, Any] = {"help": told.option_help or told.help, "metavar": told.metavar}
    if setting.default is MISSING:
        given |= {"help": f"{told.help}  [required]", "shell_complete": folders}
    elif told.several:
        given["multiple"] = True
    elif setting.default is False:
        given["is_flag"] = True
    elif setting.default is not None:
        given |= {"default": str(setting.default), "show_default": True}
    elif told.unset:
        given["help"] += f"  [default: {told.unset}]"
    if told.choices:
        given["type"] = click.Choice(told.choices)
    elif told.least is not None:
        given["type"] = count_from(told.least)
    return [flag_of(setting), setting.name], given


def pairs(
    context: click.Context, parameter: click.Parameter, values: tuple[str, ...]
) -> dict[str, str]:
    """Turns `("a=1", "b=2")` into a dict."""
    found = {}
    for value in values:
        key, sign, text = value.partition("=")
        if not key or not sign:
            raise click.UsageError(
                f"{parameter.opts[0]} takes {parameter.metavar}, not {key!r}", context
            )
        found[key] = text
    return found


def _store_options(
    context: click.Context, parameter: click.Parameter, values: tuple[str, ...]
) -> dict[str, str]:
    found = pairs(context, parameter, values)
    secrets.register_store(found)
    return found


_STORAGE: dict[str, Any] = {
    "multiple": True,
    "metavar": "KEY=VALUE",
    "callback": _store_options,
    "help": "A credential or setting of the dataset's object store. Repeat it for several.",
}

# Settings whose options differ from their values in Python.
_OWN: dict[str, list[tuple[list[str], dict[str, Any]]]] = {
    "storage_options": [(["--storage-option", "storage_options"], _STORAGE)],
    "bounds": [
        (
            ["--since"],
            {
                "metavar": "TIME",
                "help": "Read only what changed at this time or later, as in 2026-01-31 or "
                "2026-01-31T08:00Z. It moves no sync state: the next run without it misses "
                "nothing.",
            },
        ),
        (["--until"], {"metavar": "TIME", "help": "Read only what changed before this time."}),
        (
            ["--slice"],
            {
                "metavar": "DURATION",
                "help": "Cut the time from --since to --until, or to now, into slices that are "
                "read in parallel, as in 12h, 1d or 4w.",
            },
        ),
    ],
}

#: The dataset argument of a command.
dataset_argument = click.argument("dataset", shell_complete=folders)

#: Its object store's settings, as a dict.
storage_options = job_options("storage_options")

as_json = option("--json", "as_json", is_flag=True, help="Print one JSON value, for a script.")


def version_option(flag: str, help: str, required: bool = False) -> Callable[[F], F]:
    """Adds an option for the number of a dataset's version, as `version`, to a command."""
    return option(flag, "version", type=count, metavar="VERSION", required=required, help=help)


def debug_option(section: str = "Options") -> Callable[[F], F]:
    """Adds `--debug` to a command, which applies to the whole process."""
    return option(
        "--debug",
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_set_debug,
        help="Show tracebacks, and what Beam and its workers log.",
        section=section,
    )


def _set_debug(context: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        settings = context.ensure_object(Settings)
        settings.debug = True
        logs.tell_more(settings)


def say_failed(
    error: Exception, settings: Settings, place_of: Callable[[str], str] | None = None
) -> int:
    """Prints the one message about a failure, and returns the exit code.

    Args:
        error: What failed.
        settings: How lines are written, and whether tracebacks are shown.
        place_of: Returns what the message begins with, such as a line of a file.
    """
    from contextframe_beam.pipelines.runners.errors import report_of

    report = report_of(error)
    if settings.debug:
        logs.show_traceback(error)
    text = report.text(settings.debug)
    if place_of is not None:
        text = text.replace("Error: ", f"Error: {place_of(text)}: ", 1)
    click.echo(logs.line(settings, text, logging.ERROR), err=True)
    return process.WRONG_USAGE if report.wrong_usage else process.FAILED


def option_words(name: str, value: Any) -> Iterator[str]:
    """Yields a value as the command line has it: `--name=value`, or a flag.

    A list is repeated, other values are JSON. None is left out, and so is a flag of a run that is
    off.
    """
    flag = name.replace("_", "-")
    if value is None:
        return
    if isinstance(value, bool):
        if value or name not in _FLAGS:
            yield f"--{flag}" if value else f"--no-{flag}"
    elif isinstance(value, list):
        for element in value:
            yield from option_words(name, element)
    elif isinstance(value, dict) and name in _PAIRS:
        for key, one in value.items():
            yield f"--{flag.removesuffix('s')}={key}={one}"
    else:
        # YAML makes dates of texts that look like one.
        text = value.isoformat() if isinstance(value, date) else value
        yield f"--{flag}={text if isinstance(text, str) else json.dumps(text, default=str)}"


# Flags without a form that says no, and options whose values are pairs.
_FLAGS = {one.name for one in settings() if one.default is False}
_PAIRS = ("storage_options", "storage_option")


def say_done(text: str) -> None:
    """Prints what a command has changed. The change stays even if the text cannot be printed.

    Then the text goes to the standard error, and the command still succeeds.
    """
    try:
        click.echo(text)
    except (process.OutputError, OSError, ValueError) as error:
        process.give_up_output()
        settings = click.get_current_context().ensure_object(Settings)
        if not isinstance(error, process.OutputError):
            error = process.OutputError(str(error))
        warning = f"Warning: it is done, but {error}; it would have said:\n{text}"
        click.echo(logs.line(settings, warning, logging.WARNING), err=True)


#: The variable in which a shell's script asks this program for completions.
VARIABLE = "_CONTEXTFRAME_BEAM_COMPLETE"

_SHELLS = ("bash", "zsh", "fish")


def answer(commands: click.Command, program: str) -> int | None:
    """Answers a shell that asks for completions.

    Args:
        commands: The command line.
        program: Its name.

    Returns:
        The exit code; None if no shell asks.
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
