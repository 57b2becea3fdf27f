"""Reading a configuration: from a YAML file or a dict, with errors that name line and key."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml
from pydantic import ValidationError

from contextframe_beam.connectors import secrets
from contextframe_beam.connectors.api.answer import nearest
from contextframe_beam.connectors.api.config import PLACEHOLDER, ApiConfig
from contextframe_beam.connectors.plain_secrets import has_credentials, looks_secret
from contextframe_beam.connectors.yaml_text import read_yaml_file
from contextframe_beam.errors import ConfigError

_Location = tuple[str | int, ...]

#: The parts of a configuration that reach the API, where secrets may be needed.
_SENT = ("auth", "headers", "params", "body", "form")
_SHOWN_ERRORS = 20
_SHOWN_VALUE = 60
# What pydantic misses, in the words of YAML.
_WANTED = {
    **dict.fromkeys(("string_type",), "text"),
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), "a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "a number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "true or false"),
    **dict.fromkeys(
        ("dict_type", "mapping_type", "model_type", "model_attributes_type"),
        "a mapping of keys to values",
    ),
    "list_type": "a list",
}


@dataclass(frozen=True)
class Document:
    """A configuration before it is checked.

    Attributes:
        values: What it says.
        where: The file, or what else it is, for messages.
        tree: The nodes of the YAML file, which know their lines.
    """

    values: dict[str, Any]
    where: str
    tree: yaml.Node | None = None

    def place(self, location: _Location) -> tuple[int, str]:
        """Returns the line of a place, 0 where there are no lines, and its key as text.

        Args:
            location: Keys and indexes. Those that do not exist are left out, for they name the
                alternative that was taken; but the last is a missing key.
        """
        node, values, line = self.tree, self.values, 0
        key = ""
        if node is not None:
            line = node.start_mark.line + 1
        data: Any = values
        chosen = False
        for number, step in enumerate(location):
            last = number == len(location) - 1
            if isinstance(data, Mapping) and step in data:
                key = f"{key}.{step}" if key else str(step)
                data = data[step]
            elif isinstance(data, list) and isinstance(step, int) and step < len(data):
                key = f"{key}[{step}]"
                data = data[step]
            else:
                is_key = chosen or not isinstance(data, Mapping) or step != data.get("type")
                if last and isinstance(data, Mapping) and is_key:
                    key = f"{key}.{step}" if key else str(step)
                chosen = True
                continue
            chosen = False
            found = None if node is None else _child(node, step)
            if found is not None:
                node, line = found
        return line, key


def load_config(
    config: str | os.PathLike[str] | Mapping[str, Any] | None, settings: Mapping[str, Any]
) -> tuple[ApiConfig, dict[str, Any]]:
    """Reads and checks a configuration.

    Args:
        config: A YAML file, or what one would say.
        settings: What is given beside it, and counts more.

    Returns:
        The configuration, and what it was made of as plain values; references to secrets are
        texts in both.

    Raises:
        ConfigError: the file cannot be read, or says something wrong.
    """
    document = _document(config)
    own = {name: _plain(value) for name, value in settings.items()}
    values = {**document.values, **own}
    values.pop("$schema", None)  # where a JSON file says what editors check it by
    merged = Document(values, document.where, document.tree)
    try:
        checked = ApiConfig.model_validate(merged.values)
    except ValidationError as error:
        raise ConfigError(_messages(error, merged)) from None
    return checked, merged.values


def read_yaml(path: str | os.PathLike[str]) -> Document:
    """Reads a YAML file.

    Raises:
        ConfigError: it cannot be read, is not YAML, holds a key twice or a secret in plain text.
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
    for location in _plain_secrets(document.values, (), False):
        line, key = document.place(location)
        raise ConfigError(
            f"{document.where}, line {line}: {key} holds a secret in plain text; put it into an "
            "environment variable and write env:NAME here, or into a file and write file:PATH"
        )


def _plain_secrets(value: Any, location: _Location, sent: bool) -> Iterator[_Location]:
    if isinstance(value, Mapping):
        for key, element in value.items():
            here = (*location, key)
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
                yield (*location, index)
            yield from _plain_secrets(element, (*location, index), sent)


def _is_template(text: str) -> bool:
    return PLACEHOLDER.search(text) is not None


def _messages(error: ValidationError, document: Document) -> str:
    found: dict[tuple[int, str], list[str]] = {}
    for one in error.errors(include_url=False):
        context = one.get("ctx", {})
        location = (*one["loc"], *context.get("at", ()))
        if "key" in context:
            location = (*location, context["key"])
        what = _problem(one["type"], one["msg"], one.get("input"), context, location)
        messages = found.setdefault(document.place(location), [])
        if what not in messages:
            messages.append(what)
    lines = []
    for (line, key), problems in sorted(found.items()):
        where = ", ".join(filter(None, [document.where, f"line {line}" if line else ""]))
        text = secrets.redact(f"{key or 'the configuration'} {' or '.join(problems)}")
        lines.append(f"{where}: {text}" if where else text)
    more = len(lines) - _SHOWN_ERRORS
    return "\n".join(lines[:_SHOWN_ERRORS] + ([f"and {more} more"] if more > 0 else []))


def _problem(
    kind: str, message: str, value: Any, context: Mapping[str, Any], location: _Location
) -> str:
    """Returns what is wrong, as the end of a sentence that begins with the key."""
    if kind == "unknown_key":
        known = context["known"]
        hint = nearest(context["key"], known) or f"; there are {', '.join(known)}"
        return f"is not a key that exists here{hint}"
    if kind == "wrong":
        return f"{context['message']}{nearest(context.get('name', ''), context.get('known', []))}"
    if kind == "missing":
        return "is missing"
    if kind == "union_tag_not_found":
        return "needs a type"
    shown = _shown(value, location)
    if kind in _WANTED:
        return f"is {shown}; it should be {_WANTED[kind]}"
    if kind in ("union_tag_invalid", "literal_error"):
        expected = context.get("expected_tags") or context.get("expected", "")
        names = [name.strip(" '") for name in expected.replace(" or ", ", ").split(",")]
        given = str(context.get("tag", value))
        label = f"type {given!r}" if kind == "union_tag_invalid" else shown
        return f"is {label}{nearest(given, names)} (there are: {', '.join(names)})"
    return f"is {shown}; {message[:1].lower()}{message[1:].replace('input ', 'it ')}".replace(
        "; input ", "; it "
    )


def _shown(value: Any, location: _Location) -> str:
    if any(looks_secret(str(step)) for step in location):
        return "not what it should be"
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    text = repr(value)
    if value is None or isinstance(value, bool):
        text = "null" if value is None else text.lower()
    return text if len(text) <= _SHOWN_VALUE else text[:_SHOWN_VALUE] + "..."
