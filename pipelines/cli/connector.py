"""A connector's arguments as options of the command line, and back."""

from __future__ import annotations

import inspect
import os
import types
import typing
from collections.abc import Collection, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from enum import Enum
from pathlib import PurePath
from typing import Any, Literal

import click
from click.shell_completion import CompletionItem

from contextframe_beam.connectors.base import BaseConnector
from contextframe_beam.connectors.identity import constructor_arguments, reading_arguments
from contextframe_beam.connectors.registry import (
    Parameter,
    build_connector,
    connector_parameters,
    convert_arguments,
    kind_of,
    list_connectors,
    members_of,
    sync_parameters,
)
from contextframe_beam.errors import ConfigError
from contextframe_beam.pipelines.cli.shared import SectionOption, flag_of, pairs
from contextframe_beam.pipelines.job import in_flags, settings
from contextframe_beam.pipelines.process import Settings
from contextframe_beam.pipelines.runners.errors import no_such_option

#: Put before a connector's argument if its name is one of our options.
PREFIX = "source-"

_SIMPLE = {
    str: "TEXT",
    int: "INTEGER",
    float: "NUMBER",
    bytes: "TEXT",
    dict: "JSON",
    bool: "BOOLEAN",
    Any: "VALUE",
    os.PathLike: "PATH",
}
_SEVERAL = (list, tuple, set, frozenset, Sequence, Iterable, Collection, AbstractSet)


@dataclass
class ConnectorOptions:
    """The options for a connector class.

    Attributes:
        cls: The class.
        options: The options to add to a command.
        constructor: Its constructor's arguments, by the name that click uses for their values.
        reading: The arguments of `sync_documents`, in the same way.
    """

    cls: type[BaseConnector]
    options: list[SectionOption] = field(default_factory=list)
    constructor: dict[str, Parameter] = field(default_factory=dict)
    reading: dict[str, Parameter] = field(default_factory=dict)

    def connector(self, values: Mapping[str, Any]) -> BaseConnector:
        """Makes the connector from the command line.

        Raises:
            ConfigError: an argument is missing or not of its type, or the class refuses it.
        """
        return build_connector(self.cls, self.arguments(values))

    def arguments(
        self, values: Mapping[str, Any], others: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Returns the constructor's arguments on the command line.

        Args:
            values: The values of the options.
            others: Arguments from elsewhere; options override them.

        Raises:
            ConfigError: an argument is missing.
        """
        given = {**(others or {}), **_given(values, self.constructor)}
        if constructor_arguments(self.cls).is_open:
            given.update(values.get("argument") or {})
        self._require(given, self.constructor)
        return given

    def sync_kwargs(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the arguments of `sync_documents` on the command line.

        Raises:
            ConfigError: an argument is missing or not of its type.
        """
        given = _given(values, self.reading)
        takes_any = reading_arguments(self.cls).is_open
        if takes_any and not constructor_arguments(self.cls).is_open:
            given.update(values.get("argument") or {})
        self._require(given, self.reading)
        return convert_arguments(
            given, self.reading.values(), takes_any, f"reading {self.cls.__name__}"
        )

    def _require(self, given: Mapping[str, Any], known: Mapping[str, Parameter]) -> None:
        for option in self.options:
            parameter = known.get(option.name or "")
            if parameter is not None and parameter.required and parameter.name not in given:
                what = f" ({_sentence(parameter.help).rstrip('.')})" if parameter.help else ""
                raise ConfigError(f"missing option {option.opts[0]}{what}")


def options_of(cls: type[BaseConnector], name: str, taken: Collection[str]) -> ConnectorOptions:
    """Makes the options of a connector class from the signatures for making and reading it.

    An argument that both the constructor and `sync_documents` have becomes one option, for the
    constructor.

    Args:
        cls: The class.
        name: Its name in headings.
        taken: Options that the command already has, such as `--to`.
    """
    found = ConnectorOptions(cls)
    flags = set(taken)
    constructor = connector_parameters(cls)
    known = {parameter.name for parameter in constructor}
    reading = [parameter for parameter in sync_parameters(cls) if parameter.name not in known]
    for parameters, into, section, prefix in (
        (constructor, found.constructor, f"Options of the connector {name}", "source__"),
        (reading, found.reading, f"What {name} reads", "reading__"),
    ):
        for parameter in parameters:
            option = _option(parameter, section, prefix + parameter.name, flags)
            into[prefix + parameter.name] = parameter
            found.options.append(option)
            flags.update(option.opts, option.secondary_opts)
    if constructor_arguments(cls).is_open or reading_arguments(cls).is_open:
        found.options.append(
            SectionOption(
                ["--argument"],
                section=f"Options of the connector {name}",
                multiple=True,
                metavar="NAME=VALUE",
                callback=pairs,
                help="Any other argument that it takes. Repeat it for several.",
            )
        )
    return found


def own_arguments(cls: type[BaseConnector]) -> set[str]:
    """Returns the names of all arguments for making or reading a connector class."""
    return {one.name for one in (*connector_parameters(cls), *sync_parameters(cls))}


def _option(
    parameter: Parameter, section: str, variable: str, taken: Collection[str]
) -> SectionOption:
    flag = parameter.name.strip("_").replace("_", "-")
    kind, is_several = _kind(parameter)
    is_flag = kind == "BOOLEAN" and not is_several
    while f"--{flag}" in taken or (is_flag and f"--no-{flag}" in taken):
        flag = PREFIX + flag
    declaration = f"--{flag}/--no-{flag}" if is_flag else f"--{flag}"
    return SectionOption(
        [declaration, variable],
        section=section,
        type=bool if is_flag else str,
        default=None,
        multiple=is_several,
        metavar=None if is_flag else kind,
        help=_help(parameter, is_several),
    )


def _help(parameter: Parameter, is_several: bool) -> str:
    parts = [_sentence(parameter.help)] if parameter.help else []
    if is_several:
        parts.append("Repeat it, or separate values by commas.")
    if parameter.secret:
        parts.append("A secret: give a reference, such as env:NAME or file:PATH.")
    if parameter.required:
        parts.append("[required]")
    elif parameter.default is not None and not parameter.secret:
        parts.append(f"[default: {_shown(parameter.default)}]")
    return "  ".join(parts)


def _sentence(text: str) -> str:
    # Backquotes around a name are markup for documentation, and noise on a terminal.
    plain = text.replace("``", "").replace("`", "")
    return in_flags(plain, {one.name: flag_of(one) for one in settings()})


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, list | tuple | set | frozenset):
        return ",".join(map(str, value)) or "none"
    return str(value) if value != "" else '""'


def _given(values: Mapping[str, Any], known: Mapping[str, Parameter]) -> dict[str, Any]:
    given: dict[str, Any] = {}
    for variable, parameter in known.items():
        value = values.get(variable)
        if value is None or value == ():
            continue
        if isinstance(value, tuple):
            value = value[0] if len(value) == 1 else list(value)
        given[parameter.name] = value
    return given


def _kind(parameter: Parameter) -> tuple[str, bool]:
    """Returns the name of an argument's type, and whether it takes several values."""
    annotation = parameter.annotation
    if annotation is Any and parameter.default is not None:
        annotation = type(parameter.default)
    members = [one for one in members_of(annotation) if one is not types.NoneType]
    several = [one for one in members if kind_of(one) in _SEVERAL]
    if several:
        elements = [one for one in typing.get_args(several[0]) if one is not Ellipsis]
        return (_name(elements[0]) if elements else "TEXT"), True
    names = dict.fromkeys(_name(one) for one in members)
    if "PATH" in names:
        names.pop("TEXT", None)
    return "|".join(names) or "TEXT", False


def _name(annotation: Any) -> str:
    kind = kind_of(annotation)
    if kind is Literal:
        return "|".join(map(str, typing.get_args(annotation)))
    if kind in _SIMPLE:
        return _SIMPLE[kind]
    if inspect.isclass(kind):
        if issubclass(kind, Enum):
            return "|".join(member.name for member in kind)
        if issubclass(kind, PurePath):
            return "PATH"
        if issubclass(kind, Mapping):
            return "JSON"
        return kind.__name__.upper()
    return "VALUE"


#: In a context's `meta`: set where the launcher of a Flex Template runs the command.
LAUNCHED_BY_TEMPLATE = "contextframe_beam.launched_by_template"

_WIDE = {"max_content_width": 100}


class ConnectorGroup(click.Group):
    """A group whose subcommands are the connectors: registered ones, and any class by its path.

    Attributes:
        example: Shown if the connector is missing.
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
        found: The connector's own options, which come before those of the command.
        params: The options of the command.
        others: Further settings of its context.
    """

    def __init__(
        self,
        name: str,
        found: ConnectorOptions,
        params: Sequence[click.Parameter],
        others: dict[str, Any] | None = None,
        **attributes: Any,
    ) -> None:
        # So that arguments may be written as in Python: --max_line_bytes.
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
    """Returns all options of parameters, and `--help`."""
    return {"--help", *(flag for one in params for flag in (*one.opts, *one.secondary_opts))}


def shortest_command(command: str, name: str, found: ConnectorOptions) -> str:
    """Returns a command for a connector with only the options that it requires."""
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
    """Refuses options that we, the connector and Beam do not know, with the nearest known one."""
    if not ctx.args:
        return
    from contextframe_beam.pipelines.runners.options import beam_options, unknown_options

    unknown = unknown_options(ctx.args)
    if not unknown:
        _check_beam(ctx)
        return
    name = unknown[0].partition("=")[0]
    if not name.startswith("-"):
        raise click.UsageError(f"unexpected argument {name!r}; values go after an option", ctx)
    own = sorted(flags_of(ctx.command.params))
    raise click.UsageError(no_such_option(name, own, beam_options()), ctx)


def _check_beam(ctx: click.Context) -> None:
    for argument in ctx.args:
        option = argument.partition("=")[0]
        if option in ("--direct_num_workers", "--direct_running_mode"):
            raise ConfigError(f"{option} is set by --workers; give --workers N")
        if option == "--template_location" and not ctx.meta.get(LAUNCHED_BY_TEMPLATE):
            raise ConfigError(
                f"{option} would describe one run, with its id and today's sync state, and "
                "starting it again would change nothing; schedule a Flex Template, which plans "
                "each run when it starts: `contextframe-beam templates write dataflow DIR`"
            )
