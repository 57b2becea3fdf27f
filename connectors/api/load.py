"""Reads a configuration from YAML, and gives its JSON Schema for editors.

YAML can name a value and use it again, so a few lines can stand for billions of values, or for a
value that contains itself. So we count the values of a file before we read it.

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
from itertools import pairwise
from types import ModuleType
from typing import Any

import yaml
from pydantic import ValidationError
from yaml.reader import Reader, ReaderError

from contextframe_beam.connectors import secrets
from contextframe_beam.connectors.api import config
from contextframe_beam.connectors.api.config import PLACEHOLDER, ApiConfig
from contextframe_beam.connectors.http import settings
from contextframe_beam.connectors.http.section import Path, problems, shown
from contextframe_beam.connectors.plain_secrets import has_credentials, looks_secret
from contextframe_beam.errors import ConfigError

#: The parts of a configuration that are sent to the API, where secrets may be needed.
_SENT = ("auth", "headers", "params", "body", "form")
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
        The configuration, and its plain values; references to secrets are texts in both.

    Raises:
        ConfigError: the file cannot be read, or has a mistake.
    """
    document = _document(config)
    own = {name: _plain(value) for name, value in settings.items()}
    values = {**document.values, **own}
    values.pop("$schema", None)  # names the schema for editors, in a JSON file
    merged = Document(values, document.where, document.tree)
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
    return PLACEHOLDER.search(text) is not None


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
    texts = {**_field_texts(settings), **_field_texts(config)}
    classes = {**vars(settings), **vars(config)}
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


#: A larger file is not a configuration.
_MOST_BYTES = 1 << 20

#: Counting each alias with everything that it stands for.
_MOST_VALUES = 100_000
_DEEPEST = 64
_LONGEST_NUMBER = 100
_SHORT = 50_000

# Parsing in C is ten times as fast, if it is available.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

# What YAML may raise for a text that is not a value, such as a 13th month or 5,000 digits.
_NO_VALUE = (ValueError, TypeError, AttributeError, OverflowError)


@dataclass(frozen=True)
class YamlText:
    """The content of a YAML file.

    Attributes:
        values: The content as Python values.
        tree: The nodes, with their lines; None if the file is empty.
    """

    values: Any
    tree: yaml.Node | None


def read_yaml_file(path: str | os.PathLike[str], what: str) -> YamlText:
    """Reads a file of YAML.

    Args:
        path: The file.
        what: What it is, for messages, as in `the configuration`.

    Raises:
        ConfigError: it cannot be read, is not YAML, or stands for too many values.
    """
    name = os.fspath(path)
    try:
        file = pathlib.Path(name).expanduser()
        with file.open("rb") as opened:
            data = opened.read(_MOST_BYTES + 1)
    except (OSError, ValueError, RuntimeError) as error:  # a NUL in the name, an unknown user
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(
            f"{what} {name} cannot be read ({reason}); give the path of a YAML file"
        ) from error
    if len(data) > _MOST_BYTES:
        raise ConfigError(
            f"{what} {name} has more than {_MOST_BYTES >> 20} MB; is it another file?"
        )
    try:
        return parse_yaml(data.decode("utf-8-sig"), name)
    except UnicodeDecodeError as error:
        raise ConfigError(f"{what} {name} is not UTF-8 text ({error.reason})") from error


def parse_yaml(text: str, name: str) -> YamlText:
    """Reads YAML.

    Args:
        text: The text.
        name: Where it is from, for messages.

    Raises:
        ConfigError: it is not YAML, or stands for too many values; the message names the line.
    """
    wrong = Reader.NON_PRINTABLE.search(text)
    if wrong:
        line = text.count("\n", 0, wrong.start()) + 1
        raise ConfigError(
            f"{name}, line {line}: this is not YAML: it holds the character "
            f"U+{ord(wrong[0]):04X}, which has to be written as an escape within quotes"
        )
    loader, tree = None, None
    try:
        _look_through(text, name)
        loader = _Loader(text)
        tree = loader.get_single_node()
        if tree is None:
            return YamlText(None, None)
        _refuse_endless_numbers(tree, name)
        values = loader.construct_document(tree)
    except yaml.MarkedYAMLError as error:
        raise _not_yaml(text, name, error) from None
    except (yaml.YAMLError, ReaderError) as error:
        raise ConfigError(f"{name}: this is not YAML: {error}") from None
    except ConfigError:
        raise
    except _NO_VALUE as error:
        assert tree is not None
        raise ConfigError(f"{name}, {_place_of(tree)}: {error}") from None
    finally:
        if loader is not None:
            loader.dispose()
    return YamlText(values, tree)


def _look_through(text: str, name: str) -> None:
    """Counts the values that a text stands for, with all that its aliases repeat."""
    sizes: dict[str, int] = {}
    open_nodes: list[list[Any]] = [["", 0]]  # each with its anchor, and its values so far
    for event in yaml.parse(text, Loader=_Loader):
        line = event.start_mark.line + 1 if event.start_mark else 1
        if isinstance(event, yaml.AliasEvent):
            if any(anchor == event.anchor for anchor, _ in open_nodes):
                raise ConfigError(f"{name}, line {line}: *{event.anchor} is a part of itself")
            size = sizes.get(event.anchor or "", 1)
        elif isinstance(event, yaml.ScalarEvent):
            size = 1
            if event.anchor:
                sizes[event.anchor] = 1
        elif isinstance(event, yaml.CollectionStartEvent):
            open_nodes.append([event.anchor, 1])
            if len(open_nodes) > _DEEPEST:
                raise ConfigError(
                    f"{name}, line {line}: values stand more than {_DEEPEST} levels deep"
                )
            continue
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, size = open_nodes.pop()
            if anchor:
                sizes[anchor] = size
        else:
            continue
        open_nodes[-1][1] += size
        if open_nodes[-1][1] > _MOST_VALUES:
            raise ConfigError(
                f"{name}, line {line}: it holds more than {_MOST_VALUES:,} values, with what its "
                "aliases repeat; write out what is needed"
            )


def _not_yaml(text: str, name: str, error: yaml.MarkedYAMLError) -> ConfigError:
    """Returns the error for a text that cannot be parsed."""
    if len(text) < _SHORT:
        try:
            # Parsing in Python finds the place more precisely.
            list(yaml.parse(text, Loader=yaml.SafeLoader))
        except yaml.MarkedYAMLError as closer:
            error = closer
    mark = error.problem_mark or error.context_mark
    place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
    return ConfigError(f"{name}{place}: this is not YAML: {error.problem}")


def _refuse_endless_numbers(tree: yaml.Node, name: str) -> None:
    for node in _scalars(tree):
        if node.tag == "tag:yaml.org,2002:int" and len(node.value) > _LONGEST_NUMBER:
            line = node.start_mark.line + 1
            raise ConfigError(f"{name}, line {line}: {node.value[:20]}... is too long for a number")


def _place_of(tree: yaml.Node) -> str:
    """Returns the line of the first text that does not fit its kind, and that text."""
    for node in _scalars(tree):
        try:
            loader = yaml.SafeLoader("")
            loader.construct_object(node)
        except _NO_VALUE:
            kind = node.tag.rpartition(":")[2]
            return f"line {node.start_mark.line + 1}: {node.value!r:.40} is not a valid {kind}"
    return f"line {tree.start_mark.line + 1}"


def _scalars(node: yaml.Node) -> Iterator[yaml.ScalarNode]:
    if isinstance(node, yaml.ScalarNode):
        yield node
    for inner in node.value if isinstance(node, yaml.CollectionNode) else ():
        for one in inner if isinstance(inner, tuple) else (inner,):
            yield from _scalars(one)
