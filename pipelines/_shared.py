"""Options that several commands have."""

from __future__ import annotations

import logging
from typing import Any

import click

from contextframe_beam.connectors import secrets
from contextframe_beam.pipelines import _logs, streams
from contextframe_beam.pipelines._settings import Settings


class SectionOption(click.Option):
    """An option that `--help` may list under a heading of its own.

    Args:
        section: The heading.
    """

    def __init__(self, *args: Any, section: str = "Options", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.section = section


def examples(*commands: str) -> str:
    """Returns the examples at the end of a command's help, one a line."""
    title = "Example" if len(commands) == 1 else "Examples"
    # click breaks the lines of any paragraph that this mark does not begin.
    return "\b\n" + "\n  ".join([f"{title}:", *commands])


def count(text: object) -> int:
    """Reads a whole number from 1 on; click's own range writes `[x>=1]` into the help."""
    if str(text).isascii() and str(text).isdigit() and int(str(text)) > 0:
        return int(str(text))
    raise click.BadParameter(f"{text!r} is not a whole number from 1 on")


def storage_option(section: str = "Options") -> SectionOption:
    """Returns `--storage-option`, whose value is a dict."""
    return SectionOption(
        ["--storage-option"],
        multiple=True,
        metavar="KEY=VALUE",
        callback=_store_options,
        help="A credential or setting of the dataset's object store. Repeat it for several.",
        section=section,
    )


def say_done(text: str) -> None:
    """Prints what a command has changed, which stays changed when that cannot be printed.

    Then it goes to the standard error, and the command is as successful as it was.
    """
    try:
        click.echo(text)
    except (streams.OutputError, OSError, ValueError) as error:
        streams.give_up_output()
        settings = click.get_current_context().ensure_object(Settings)
        if not isinstance(error, streams.OutputError):
            error = streams.OutputError(str(error))
        warning = f"Warning: it is done, but {error}; it would have said:\n{text}"
        click.echo(_logs.line(settings, warning, logging.WARNING), err=True)


def version_option(flag: str, help: str, required: bool = False) -> SectionOption:
    """Returns an option that takes the number of a dataset's version, as `version`."""
    return SectionOption(
        [flag, "version"], type=count, metavar="VERSION", required=required, help=help
    )


def debug_option(section: str = "Options") -> SectionOption:
    """Returns `--debug`, which the whole process heeds."""
    return SectionOption(
        ["--debug"],
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_set_debug,
        help="Show tracebacks, and what Beam and its workers log.",
        section=section,
    )


def pairs(
    context: click.Context, parameter: click.Parameter, values: tuple[str, ...]
) -> dict[str, str]:
    """Turns `("a=1", "b=2")` into a dict."""
    found = {}
    for value in values:
        key, sign, text = value.partition("=")
        if not key or not sign:
            raise click.UsageError(
                f"{parameter.opts[0]} takes {parameter.metavar}, and {key!r} is none", context
            )
        found[key] = text
    return found


def _store_options(
    context: click.Context, parameter: click.Parameter, values: tuple[str, ...]
) -> dict[str, str]:
    found = pairs(context, parameter, values)
    secrets.register_store(found)
    return found


def _set_debug(context: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        settings = context.ensure_object(Settings)
        settings.debug = True
        _logs.tell_more(settings)
