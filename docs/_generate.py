"""Fills in the generated parts of pages: `{{ connectors }}`, `{{ commands }}`, and more.

mkdocs calls `on_page_markdown` for each page before it is rendered.
"""

from __future__ import annotations

import html
import inspect
import re
from collections.abc import Iterator
from dataclasses import MISSING
from functools import cache
from pathlib import Path
from typing import Any

import click
import yaml

from contextframe_beam.connectors.api import paginate
from contextframe_beam.connectors.api.functions import FUNCTIONS
from contextframe_beam.connectors.api.load import config_schema
from contextframe_beam.connectors.http import Cache, HttpClient
from contextframe_beam.connectors.registry import (
    Parameter,
    connector_parameters,
    list_connectors,
    load_connector_class,
    sync_parameters,
)
from contextframe_beam.pipelines.cli.commands import commands
from contextframe_beam.pipelines.job import help_of, settings


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Returns a page's text with the generated parts in it."""
    parts = {
        "connectors": _connectors,
        "commands": _commands,
        "api_yaml": _api_yaml,
        "functions": _functions,
        "ingest": _ingest,
    }
    for name, make in parts.items():
        mark = f"{{{{ {name} }}}}"
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


def _ingest() -> Iterator[str]:
    from contextframe_beam.pipelines.ingest import ingest

    what, _, rest = inspect.getdoc(ingest).partition("\n\n")
    yield from ("### ingest", "", what, "", "```python")
    yield from ("from contextframe_beam.pipelines.ingest import ingest", "")
    yield from ("receipt = ingest(connector, to, **settings)", "```", "")
    yield from ("| Argument | Type | Default | |", "|---|---|---|---|")
    for one in settings():
        default = "required" if one.default is MISSING else f"`{one.default!r}`"
        kind = html.escape(str(one.type)).replace("|", "&#124;")
        yield f"| `{one.name}` | <code>{kind}</code> | {default} | {_cell(help_of(one))} |"
    returned, _, raised = rest.partition("Returns:")[2].partition("Raises:")
    yield from ("", f"Returns: {_cell(returned)}", "")
    for line in raised.strip().splitlines():
        yield f"- raises {line.strip()}"


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


#: Example values of keys, by `key` or `Section.key`.
EXAMPLES: dict[str, Any] = yaml.safe_load(
    Path(__file__).with_name("_api_examples.yaml").read_text(encoding="utf-8")
)
# Defaults of the client for settings that the configuration leaves out.
_DEFAULTS_OF = {"ApiConfig": HttpClient, "CacheSettings": Cache}


@cache
def api_sections() -> dict[str, dict[str, Any]]:
    """Returns the JSON Schemas of a configuration's sections, the file itself first."""
    schema = config_schema()
    below = schema["$defs"]
    typed = [name for name, one in below.items() if "const" in one["properties"].get("type", {})]
    others = [name for name in below if name not in typed and name != "Resource"]
    typed.sort(key=lambda name: (not name.endswith("Paginator"), _heading(name, below[name])))
    names = ["Resource", *others, *typed]
    return {"ApiConfig": schema, **{name: below[name] for name in names}}


def example_of(section: str, key: str, schema: dict[str, Any]) -> Any:
    """Returns an example value for a key, if possible other than its default.

    Raises:
        KeyError: The key has no fixed choices and no example.
    """
    if "const" in schema:
        return schema["const"]
    for name in (f"{section}.{key}", key):
        if name in EXAMPLES:
            return EXAMPLES[name]
    kinds = [schema, *schema.get("anyOf", [])]
    choices = [one for kind in kinds for one in kind.get("enum", [])]
    if not choices and any(kind.get("type") == "boolean" for kind in kinds):
        choices = [True, False]
    for choice in choices:
        if choice != schema.get("default"):
            return choice
    raise KeyError(f"{section}.{key} has no example; write one into docs/_api_examples.yaml")


def _api_yaml() -> Iterator[str]:
    for name, section in api_sections().items():
        yield from (f"## {_heading(name, section)}", "", str(section["description"]), "")
        yield from ("| Key | Type | Default | Example | |", "|---|---|---|---|---|")
        required = section.get("required", [])
        for key, schema in section["properties"].items():
            cells = (
                f"`{key}`",
                _kind(schema),
                "required" if key in required else _default(name, key, schema),
                _code({key: example_of(name, key, schema)}),
                "" if "const" in schema else schema.get("description", ""),
            )
            yield f"| {' | '.join(map(_cell, cells))} |"
        yield ""


def _functions() -> Iterator[str]:
    yield from ("| Function | |", "|---|---|")
    for one in FUNCTIONS.values():
        yield f"| `{one.usage}` | {_cell(one.about)} |"


def _heading(name: str, section: dict[str, Any]) -> str:
    if name == "ApiConfig":
        return "The file"
    kind = section["properties"].get("type", {}).get("const")
    if kind:
        return f"{'paginator' if name.endswith('Paginator') else 'auth'}: {kind}"
    return " ".join(re.findall("[A-Z][a-z]+", name.removesuffix("Settings"))).capitalize()


def _kind(schema: dict[str, Any]) -> str:
    """Returns the type of a value in words, with links to the sections that it can be."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        text = _heading(name, api_sections()[name])
        return f"[{text}](#{re.sub('[^a-z0-9_]+', '-', text.lower())})"
    if "const" in schema:
        return _code(schema["const"])
    if "enum" in schema:
        return ", ".join(_code(one) for one in schema["enum"])
    if "90s" in schema.get("examples", []):
        return "duration"
    if schema.get("pattern") == paginate.PATTERN:
        return "place"
    if "oneOf" in schema:
        return f"a mapping: {', '.join(map(_kind, schema['oneOf']))}"
    if "anyOf" in schema:
        kinds = {_kind(one): None for one in schema["anyOf"] if one.get("type") != "null"}
        if "number" in kinds:
            kinds.pop("whole number", None)
        return " or ".join(kinds)
    kind = schema.get("type")
    if kind == "array":
        return f"list of {_kind(schema.get('items', {}))}"
    if kind == "object":
        return "mapping"
    return {"string": "text", "integer": "whole number", "boolean": "true or false"}.get(
        str(kind), str(kind or "any value")
    )


def _default(section: str, key: str, schema: dict[str, Any]) -> str:
    default = schema.get("default")
    if default is None and section in _DEFAULTS_OF:
        own = inspect.signature(_DEFAULTS_OF[section]).parameters.get(key)
        default = own.default if own is not None else None
        default = default[-1] if isinstance(default, tuple) and default else default
    nothing = default in (None, (), [], {}, "", inspect.Parameter.empty) or "$ref" in schema
    return "" if nothing else _code(default)


def _code(value: Any) -> str:
    """Returns a value as code: YAML in one line; a mapping with one key has no braces."""
    if isinstance(value, dict) and len(value) == 1:
        ((key, inner),) = value.items()
        text = f"{key}: {_flow(inner)}"
    else:
        text = _flow(value)
    return f"<code>{html.escape(text, quote=False).replace('|', '&#124;')}</code>"


def _flow(value: Any) -> str:
    text = yaml.dump(value, Dumper=_OneLine, default_flow_style=True, width=1000, sort_keys=False)
    return text.removesuffix("...\n").strip()


class _OneLine(yaml.SafeDumper):
    """Writes text with several lines in one line, with escapes."""


def _one_line(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    quote = '"' if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=quote)


_OneLine.add_representer(str, _one_line)
