"""Reads a configuration from YAML, and gives its JSON Schema for editors.

`config.schema.json` is a copy of that schema, for editors without Python; `python -m
contextframe_beam.connectors.api.load` writes it again.
"""

from __future__ import annotations

import ast
import inspect
import json
import os
import pathlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from itertools import pairwise
from types import ModuleType
from typing import Any

import yaml
from pydantic import ValidationError

from contextframe_beam.connectors import record_mapping, secrets
from contextframe_beam.connectors.api import config, rules
from contextframe_beam.connectors.api.config import ApiConfig
from contextframe_beam.connectors.api.expression import ExpressionError
from contextframe_beam.connectors.api.template import NOTHING, Template, template
from contextframe_beam.connectors.http import settings
from contextframe_beam.connectors.http.section import Path, problems, shown
from contextframe_beam.connectors.plain_secrets import has_credentials, looks_secret
from contextframe_beam.connectors.yaml_file import read_yaml_file
from contextframe_beam.errors import ConfigError, nearest

#: The parts of a configuration that are sent to the API, where secrets may be needed.
_SENT = ("auth", "headers", "params", "body", "form", "settings")
_SHOWN_ERRORS = 20


@dataclass(frozen=True)
class Document:
    """A configuration that has not been checked yet.

    Attributes:
        values: Its values.
        where: The file, or another description, for messages.
        tree: The nodes of the YAML file, with their lines.
    """

    values: dict[str, Any]
    where: str
    tree: yaml.Node | None = None

    def line(self, path: Path) -> int:
        """Returns the line of a value, or of the part that lacks it; 0 if there are no lines.

        Args:
            path: The keys and indexes that lead to it.
        """
        node = self.tree
        line = 0 if node is None else node.start_mark.line + 1
        for step in path:
            found = None if node is None else _child(node, step)
            if found is not None:
                node, line = found
        return line


def load_config(
    config: str | os.PathLike[str] | Mapping[str, Any] | None, settings: Mapping[str, Any]
) -> tuple[ApiConfig, dict[str, Any]]:
    """Reads and checks a configuration.

    Args:
        config: A YAML file, or a dict of the same form.
        settings: Further settings, which take precedence.

    Returns:
        The configuration, and its plain values, both with the placeholders of settings filled;
        references to secrets are texts in both.

    Raises:
        ConfigError: the file cannot be read, or has a mistake.
    """
    document = _document(config)
    own = {name: _plain(value) for name, value in settings.items()}
    values = {**document.values, **own}
    values.pop("$schema", None)  # names the schema for editors, in a JSON file
    merged = Document(values, document.where, document.tree)
    merged = _with_settings(merged)
    try:
        checked = ApiConfig.model_validate(merged.values)
    except ValidationError as error:
        raise ConfigError(_messages(error, merged)) from None
    return checked, merged.values


def read_yaml(path: str | os.PathLike[str]) -> Document:
    """Reads a YAML file.

    Raises:
        ConfigError: it cannot be read, is not YAML, or has a key twice or a secret in plain text.
    """
    name = os.fspath(path)
    read = read_yaml_file(name, "the configuration")
    tree = read.tree
    if tree is None:
        raise ConfigError(f"the configuration {name} is empty; it needs at least base_url")
    if not isinstance(tree, yaml.MappingNode):
        raise ConfigError(f"the configuration {name} is not a mapping of keys to values")
    for node, key in _doubled(tree, set()):
        line = node.start_mark.line + 1
        raise ConfigError(f"{name}, line {line}: the key {key!r} is there a second time")
    document = Document(read.values, name, tree)
    _refuse_plain_secrets(document)
    return document


def _document(config: str | os.PathLike[str] | Mapping[str, Any] | None) -> Document:
    if config is None:
        return Document({}, "")
    if isinstance(config, Mapping):
        return Document({str(key): _plain(value) for key, value in config.items()}, "")
    return read_yaml(config)


# Where a value that is not given is left out; anywhere else it is missing.
_OPTIONAL = ("params", "headers", "body", "form", "constants", "end")


def _with_settings(document: Document) -> Document:
    """Returns a configuration with the placeholders filled that need settings only.

    Raises:
        ConfigError: a placeholder names a setting that is not there, or one without a value.
    """
    given = document.values.get("settings")
    if given is not None and not isinstance(given, Mapping):
        return document  # the models say what is wrong
    known = {"settings": secrets.referenced(dict(given or {})), "now": _now()}
    filled = {
        name: value if name == "settings" else _filled_at(document, (name,), value, known)
        for name, value in document.values.items()
    }
    return Document(filled, document.where, document.tree)


def _now() -> str:
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def _filled_at(document: Document, path: Path, value: Any, known: Mapping[str, Any]) -> Any:
    if isinstance(value, Mapping):
        made = {key: _filled_at(document, (*path, key), e, known) for key, e in value.items()}
        return {key: one for key, one in made.items() if one is not NOTHING}
    if isinstance(value, list):
        listed = [_filled_at(document, (*path, i), e, known) for i, e in enumerate(value)]
        return [one for one in listed if one is not NOTHING]
    if not isinstance(value, str) or "{" not in value:
        return value
    try:
        found = template(value)
        return value if found is None else _filled_text(document, path, found, value, known)
    except ExpressionError as error:
        raise ConfigError(_located(document, path, f"{shown(path)}: {error}")) from None


def _filled_text(
    document: Document, path: Path, found: Template, text: str, known: Mapping[str, Any]
) -> Any:
    names = {
        one[1]
        for part in found.expressions
        for one in part.paths
        if one[0] == "settings" and len(one) > 1
    }
    for name in sorted(names - set(known["settings"])):
        hint = nearest(name, list(known["settings"])) or "; write its value below settings"
        raise ConfigError(
            _located(
                document, path, f"{shown(path)} uses settings.{name}, which is not there{hint}"
            )
        )
    # What is read begins and ends at a time; requests tell the time of their own run.
    roots = ("settings", "now") if path[-1:] in (("start",), ("end",)) else ("settings",)
    if not names and "now" not in roots:
        return text
    value = found.partly(known, roots)
    if value is NOTHING and not set(_OPTIONAL) & set(map(str, path)):
        empty = next((one for one in sorted(names) if known["settings"][one] is None), "")
        if not empty:
            problem = f"{shown(path)} has no value; {text} gives none for these settings"
            raise ConfigError(_located(document, path, problem))
        where = _located(document, ("settings", empty), f"settings.{empty} has no value")
        raise ConfigError(f"{where}, and {shown(path)} needs it")
    return value.reference if isinstance(value, secrets.SecretReference) else value


def _located(document: Document, path: Path, problem: str) -> str:
    line = document.line(path)
    where = ", ".join(filter(None, [document.where, f"line {line}" if line else ""]))
    return f"{where}: {problem}" if where else problem


def _plain(value: Any) -> Any:
    """Returns a value with references to secrets as texts."""
    if isinstance(value, secrets.SecretReference):
        return value.reference
    if isinstance(value, Mapping):
        return {key: _plain(element) for key, element in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(element) for element in value]
    return value


def _child(node: yaml.Node, step: str | int) -> tuple[yaml.Node, int] | None:
    """Returns the node below a key or an index, and the line of the key."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == str(step):
                return value, key.start_mark.line + 1
    elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
        value = node.value[step]
        return value, value.start_mark.line + 1
    return None


def _doubled(node: yaml.Node, seen: set[int]) -> Iterator[tuple[yaml.Node, str]]:
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for element in node.value:
            yield from _doubled(element, seen)
    if isinstance(node, yaml.MappingNode):
        names: set[str] = set()
        for key, value in node.value:
            name = str(key.value)
            if name in names and key.tag != "tag:yaml.org,2002:merge":
                yield key, name
            names.add(name)
            yield from _doubled(value, seen)


def _refuse_plain_secrets(document: Document) -> None:
    for path in _plain_secrets(document.values, (), False):
        raise ConfigError(
            f"{document.where}, line {document.line(path)}: {shown(path)} holds a secret in plain "
            "text; put it into an environment variable and write env:NAME here, or into a file "
            "and write file:PATH"
        )


def _plain_secrets(value: Any, path: Path, sent: bool) -> Iterator[Path]:
    if isinstance(value, Mapping):
        for key, element in value.items():
            here = (*path, key)
            if sent and isinstance(element, str) and looks_secret(str(key)):
                if element and not secrets.is_reference(element) and not _is_template(element):
                    yield here
            elif isinstance(element, str) and has_credentials(element, str(key)):
                yield here
            else:
                yield from _plain_secrets(element, here, sent or key in _SENT)
    elif isinstance(value, list):
        for index, element in enumerate(value):
            if isinstance(element, str) and has_credentials(element):
                yield (*path, index)
            yield from _plain_secrets(element, (*path, index), sent)


def _is_template(text: str) -> bool:
    try:
        return template(text) is not None
    except ExpressionError:
        return True  # the models say what is wrong


def _messages(error: ValidationError, document: Document) -> str:
    found = problems(error, document.values)
    lines = []
    for line, key, problem in sorted(
        (document.line(path), shown(path), problem) for path, problem in found.items()
    ):
        where = ", ".join(filter(None, [document.where, f"line {line}" if line else ""]))
        text = f"{key or 'the configuration'} {problem}"
        lines.append(f"{where}: {text}" if where else text)
    more = len(lines) - _SHOWN_ERRORS
    return "\n".join(lines[:_SHOWN_ERRORS] + ([f"and {more} more"] if more > 0 else []))


#: The copy that is part of the package.
SCHEMA_FILE = pathlib.Path(__file__).with_name("config.schema.json")


def config_schema() -> dict[str, Any]:
    """Returns the JSON Schema (2020-12) of a configuration."""
    schema = ApiConfig.model_json_schema(mode="validation")
    # Pydantic can read these texts too, but at every import of the models, which takes 0.13 s.
    modules = (settings, record_mapping, rules, config)
    texts = {name: text for one in modules for name, text in _field_texts(one).items()}
    classes = {name: value for one in modules for name, value in vars(one).items()}
    for name, section in ((ApiConfig.__name__, schema), *schema["$defs"].items()):
        # A section's own texts come last and replace those that it inherits.
        for owner in reversed(inspect.getmro(classes.get(name, object))):
            for field, text in texts.get(owner.__name__, {}).items():
                key = classes[name].model_fields[field].alias or field
                section["properties"][key]["description"] = text
        if "const" in section["properties"].get("type", {}):
            section["properties"]["type"]["description"] = section["description"]
    schema = _without_titles(schema)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "contextframe-beam API source",
    }


def _field_texts(module: ModuleType) -> dict[str, dict[str, str]]:
    """Returns the text below each field of a module's sections, by section and field."""
    found: dict[str, dict[str, str]] = {}
    for section in ast.parse(inspect.getsource(module)).body:
        if isinstance(section, ast.ClassDef):
            texts = found[section.name] = {}
            for field, below in pairwise(section.body):
                if (
                    isinstance(field, ast.AnnAssign)
                    and isinstance(field.target, ast.Name)
                    and isinstance(below, ast.Expr)
                    and isinstance(below.value, ast.Constant)
                ):
                    texts[field.target.id] = inspect.cleandoc(str(below.value.value))
    return found


def _without_titles(schema: Any) -> Any:
    """Returns a schema without the titles that repeat the names of the keys."""
    if isinstance(schema, list):
        return [_without_titles(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: _without_titles(value)
        for key, value in schema.items()
        # A key with this name has a schema, not a text.
        if not (key == "title" and isinstance(value, str))
    }


def schema_text() -> str:
    """Returns the content of `config.schema.json`."""
    return json.dumps(config_schema(), indent=2, sort_keys=True) + "\n"


if __name__ == "__main__":
    SCHEMA_FILE.write_text(schema_text(), encoding="utf-8")
