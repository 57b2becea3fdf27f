"""Fills the pages that are made of the code: `{{ connectors }}` and `{{ commands }}`.

mkdocs calls `on_page_markdown` for each page before it is rendered.
"""

from __future__ import annotations

import html
import inspect
from collections.abc import Iterator
from typing import Any

import click

from contextframe_beam.connectors.registry import (
    Parameter,
    connector_parameters,
    list_connectors,
    load_connector_class,
    sync_parameters,
)
from contextframe_beam.pipelines._commands import commands


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Returns a page's text with the generated parts in it."""
    for mark, make in (("{{ connectors }}", _connectors), ("{{ commands }}", _commands)):
        if mark in markdown:
            markdown = markdown.replace(mark, "\n".join(make()))
    return markdown


def _connectors() -> Iterator[str]:
    for found in list_connectors():
        cls = load_connector_class(found.name)
        yield from (f"## {found.name}", "", inspect.getdoc(cls).partition("\n\n")[0], "")
        yield f"`contextframe-beam ingest {found.name} ...`, or in Python `{cls.__name__}(...)`."
        yield ""
        yield from _parameters(connector_parameters(cls))
        reading = sync_parameters(cls)
        if reading:
            yield from (
                "",
                f"What is read, as arguments of `sync_documents` and of "
                f"`ReadFromConnector({cls.__name__}(...), ...)`:",
                "",
            )
            yield from _parameters(reading)
        yield ""


def _parameters(parameters: list[Parameter]) -> Iterator[str]:
    yield from ("| Argument | Type | Default | |", "|---|---|---|---|")
    for one in parameters:
        default = "required" if one.required else f"`{one.default!r}`"
        yield f"| `{one.name}` | {_cell(_type_of(one))} | {_cell(default)} | {_cell(one.help)} |"


def _type_of(parameter: Parameter) -> str:
    kind = parameter.annotation
    if kind in (Any, inspect.Parameter.empty):
        return ""
    text = kind.__name__ if isinstance(kind, type) else str(kind).replace("typing.", "")
    return f"<code>{html.escape(text).replace('|', '&#124;')}</code>"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _commands() -> Iterator[str]:
    yield from _command(commands, "contextframe-beam", 2)


def _command(command: click.Command, name: str, level: int) -> Iterator[str]:
    context = click.Context(command, info_name=name, max_content_width=100)
    yield from (f"{'#' * level} {name}", "", "```text", command.get_help(context), "```", "")
    if isinstance(command, click.Group):
        for each in command.list_commands(context):
            below = command.get_command(context, each)
            if below is not None and not below.hidden:
                yield from _command(below, f"{name} {each}", level + 1)
