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

from contextframe_beam.connectors._convert import kind_of, members_of
from contextframe_beam.connectors._identity import constructor_arguments, reading_arguments
from contextframe_beam.connectors.base import BaseConnector
from contextframe_beam.connectors.registry import (
    Parameter,
    build_connector,
    connector_parameters,
    convert_arguments,
    sync_parameters,
)
from contextframe_beam.errors import ConfigError
from contextframe_beam.pipelines._shared import SectionOption, flag_of, pairs
from contextframe_beam.pipelines.flags import in_flags
from contextframe_beam.pipelines.job import settings

#: Put before a connector's argument whose name is that of an option of ours.
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
    """The options that a connector class gets.

    Attributes:
        cls: The class.
        options: What to add to a command.
        constructor: Its constructor's arguments, by the name under which click gives their values.
        reading: Those of `sync_documents`, likewise.
    """

    cls: type[BaseConnector]
    options: list[SectionOption] = field(default_factory=list)
    constructor: dict[str, Parameter] = field(default_factory=dict)
    reading: dict[str, Parameter] = field(default_factory=dict)

    def connector(self, values: Mapping[str, Any]) -> BaseConnector:
        """Makes the connector of what was given on the command line.

        Raises:
            ConfigError: an argument is missing or not of its type, or the class refuses it.
        """
        return build_connector(self.cls, self.arguments(values))

    def arguments(
        self, values: Mapping[str, Any], others: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Returns the constructor's arguments that were given on the command line.

        Args:
            values: What the options were set to.
            others: Arguments from elsewhere, which the options come before.

        Raises:
            ConfigError: one is missing.
        """
        given = {**(others or {}), **_given(values, self.constructor)}
        if constructor_arguments(self.cls).is_open:
            given.update(values.get("argument") or {})
        self._require(given, self.constructor)
        return given

    def sync_kwargs(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the arguments of `sync_documents` that were given on the command line.

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
    """Makes the options of a connector class by the signatures of what it is made and read with.

    An argument that both the constructor and `sync_documents` take is one option, and goes to the
    constructor.

    Args:
        cls: The class.
        name: What it is called in headings.
        taken: Options that the command has already, as in `--to`.
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
    """Returns the names of all arguments that a connector class is made or read with."""
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
    # Two backquotes or one around a name are markup of documentation, and noise on a terminal.
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
    """Returns what to call an argument's type, and whether it takes several values."""
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
