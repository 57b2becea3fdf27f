"""Commands that are given a connector by name and have its arguments as options."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import click
from click.shell_completion import CompletionItem

from contextframe_beam.connectors.registry import list_connectors
from contextframe_beam.errors import ConfigError
from contextframe_beam.pipelines._errors import no_such_option
from contextframe_beam.pipelines._options import ConnectorOptions
from contextframe_beam.pipelines._settings import Settings

#: In a context's `meta`: set where the launcher of a Flex Template runs the command.
LAUNCHED_BY_TEMPLATE = "contextframe_beam.launched_by_template"

_WIDE = {"max_content_width": 100}


class ConnectorGroup(click.Group):
    """A group whose subcommands are the connectors: registered ones, and any class by its path.

    Attributes:
        example: Shown where the connector is missing.
    """

    example = ""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"context_settings": _WIDE, **kwargs})
        self.no_args_is_help = True
        self.subcommand_metavar = "CONNECTOR [OPTIONS]"

    def command_of(self, name: str, settings: Settings) -> click.Command:
        """Makes the command for a connector."""
        raise NotImplementedError

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0].startswith("-") and args[0] not in ctx.help_option_names:
            raise click.UsageError(f"name the connector first, as in: {self.example}", ctx)
        return super().parse_args(ctx, args)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command:
        return self.command_of(cmd_name, ctx.ensure_object(Settings))

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [connector.name for connector in list_connectors()]

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        known = [
            CompletionItem(one.name, help=one.summary)
            for one in list_connectors()
            if one.name.startswith(incomplete)
        ]
        return known or [CompletionItem(incomplete, type="file")]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = [(one.name, one.error or one.summary) for one in list_connectors()]
        rows.append(("package.module:Class", "a connector class that Python can import"))
        rows.append(("path/to/file.py:Class", "a connector class in a file"))
        with formatter.section("Connectors"):
            formatter.write_dl(rows)


class ConnectorCommand(click.Command):
    """A command for one connector, which lists its options by section.

    Args:
        found: The connector's own options, which stand before those of the command.
        params: Those of the command.
        others: More settings of its context.
    """

    def __init__(
        self,
        name: str,
        found: ConnectorOptions,
        params: Sequence[click.Parameter],
        others: dict[str, Any] | None = None,
        **attributes: Any,
    ) -> None:
        # So that an argument may be written as in Python: --max_line_bytes.
        dashes = {"token_normalize_func": lambda text: text.replace("_", "-")}
        settings = {**dashes, **_WIDE, **(others or {})}
        super().__init__(
            name, params=[*found.options, *params], context_settings=settings, **attributes
        )
        self.found = found

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                section = getattr(parameter, "section", "Output")
                sections.setdefault(section, []).append(record)
        for section, records in sections.items():
            with formatter.section(section):
                formatter.write_dl(records)


def flags_of(params: Iterable[click.Parameter]) -> set[str]:
    """Returns all options by which parameters are given, and `--help`."""
    return {"--help", *(flag for one in params for flag in (*one.opts, *one.secondary_opts))}


def shortest_command(command: str, name: str, found: ConnectorOptions) -> str:
    """Returns a command for a connector with the options that it requires, and no others."""
    required = {
        parameter.name
        for parameter in (*found.constructor.values(), *found.reading.values())
        if parameter.required
    }
    given = [
        f"{option.opts[0]} {option.make_metavar(click.Context(click.Command(name)))}"
        for option in found.options
        if (option.name or "").partition("__")[2] in required
    ]
    return " ".join(["contextframe-beam", command, name, *given])


def check_others(ctx: click.Context) -> None:
    """Refuses what neither we nor the connector nor Beam knows, with the nearest that one does."""
    if not ctx.args:
        return
    from contextframe_beam.pipelines.runners import beam_options, unknown_options

    unknown = unknown_options(ctx.args)
    if not unknown:
        _check_beam(ctx)
        return
    name = unknown[0].partition("=")[0]
    if not name.startswith("-"):
        raise click.UsageError(f"unexpected argument {name!r}; values go behind an option", ctx)
    own = sorted(flags_of(ctx.command.params))
    raise click.UsageError(no_such_option(name, own, beam_options()), ctx)


def _check_beam(ctx: click.Context) -> None:
    for argument in ctx.args:
        option = argument.partition("=")[0]
        if option in ("--direct_num_workers", "--direct_running_mode"):
            raise ConfigError(f"{option} is set by --workers; give --workers N")
        if option == "--template_location" and not ctx.meta.get(LAUNCHED_BY_TEMPLATE):
            raise ConfigError(
                f"{option} would describe one run, with its id and the sync state of now, and "
                "starting that again would change nothing; schedule a Flex Template, which plans "
                "each run when it starts: `contextframe-beam templates write dataflow DIR`"
            )
