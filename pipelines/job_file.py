"""Job files: sources and a dataset in YAML, which `contextframe-beam run` brings in one by one.

```yaml
to: kb.lance
embed: wordllama
sources:
  - connector: files
    directory: docs
    mode: mirror
  - connector: github
    repositories: [acme/app]
    token: env:GITHUB_TOKEN
```

The keys are the options of `contextframe-beam ingest`, with underscores. Beside `sources` stand
those that hold for all of them. Each source is a run of its own, in one transaction.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import yaml

from contextframe_beam.connectors import secrets
from contextframe_beam.connectors.plain_secrets import has_credentials, looks_secret
from contextframe_beam.connectors.registry import list_connectors, load_connector_class
from contextframe_beam.connectors.yaml_file import read_yaml_file
from contextframe_beam.errors import ConfigError, nearest
from contextframe_beam.pipelines.cli.shared import option_words
from contextframe_beam.pipelines.job import about, settings

_SOURCES, _CONNECTOR, _NAME, _BEAM = "sources", "connector", "name", "beam_args"
_ABOUT_SOURCES = "What to read, in order; each source is a run in one transaction."
_ABOUT_NAME = "Names the source in messages and for --only; by default its connector."
_BOUNDS = ("since", "until", "slice")

#: Settings of `ingest` that a file cannot have, and those of them that `run` has as options.
_NOT_IN_FILES = ("run_id", "dry_run", "bounds", "sync_kwargs")
_OF_THE_COMMAND = ("run_id", "dry_run")
_FLAGS = {one.name for one in settings() if one.default is False}


@dataclass(frozen=True)
class FileSource:
    """A source in a job file.

    Attributes:
        name: Its name, which no other source of the file has.
        place: Its file and line, for messages.
        words: What follows `contextframe-beam ingest` to run it.
        lines: The file and line of each of its options.
    """

    name: str
    place: str
    words: tuple[str, ...]
    lines: Mapping[str, str]

    def place_of(self, message: str) -> str:
        """Returns the place of the option that a message names, or that of the source."""
        named = (
            one
            for flag, one in self.lines.items()
            if re.search(rf"{re.escape(flag)}(?![\w-])", message)
        )
        return next(named, self.place)


def read_job_file(path: str | os.PathLike[str]) -> list[FileSource]:
    """Reads the sources of a job file.

    Raises:
        ConfigError: it cannot be read, has a wrong key, or a secret in plain text; the message
            names the line.
    """
    name = os.fspath(path)
    read = read_yaml_file(name, "the job file")
    if not isinstance(read.tree, yaml.MappingNode):
        raise ConfigError(f"the job file {name} has no keys; it needs `to` and `sources`")
    _check(read.tree, name)
    common = dict(read.values)
    common.pop("$schema", None)
    sources = common.pop(_SOURCES, None)
    known = {one.name for one in settings()} - {_CONNECTOR, *_NOT_IN_FILES}
    known |= {"storage_option", "enrich", "parser", *_BOUNDS}
    lines = {key: f"{name}, {_line(read.tree, key)}" for key in common}
    for key, value in common.items():
        _check_setting(key, value, lines[key])
        if key not in known:
            hint = nearest(key, [*known, _SOURCES])
            raise ConfigError(f"{lines[key]}: there is no setting {key!r}{hint}")
    if not isinstance(sources, list) or not sources:
        raise ConfigError(f"the job file {name} has no sources: a list with a connector for each")
    found = [
        _source(name, common, lines, values, node)
        for values, node in zip(sources, _nodes(read.tree, _SOURCES), strict=True)
    ]
    names = [one.name for one in found]
    for one in found:
        if names.count(one.name) > 1:
            raise ConfigError(
                f"{one.place}: another source is named {one.name!r} too; give one of them a `name`"
            )
    return found


def _check_setting(key: str, value: Any, place: str) -> None:
    if key in _OF_THE_COMMAND:
        flag = f"--{key.replace('_', '-')}"
        raise ConfigError(f"{place}: {key} is of one run; give {flag} to the command")
    if key in _FLAGS and not isinstance(value, bool):
        raise ConfigError(f"{place}: {key} is {value!r}; it is true or false")


def _source(
    file: str,
    common: Mapping[str, Any],
    lines: Mapping[str, str],
    values: Any,
    node: yaml.Node,
) -> FileSource:
    place = f"{file}, line {node.start_mark.line + 1}"
    connector = values.get(_CONNECTOR) if isinstance(values, dict) else None
    if not isinstance(connector, str):
        written = [str(key) for key in values] if isinstance(values, dict) else []
        like = next((key for key in written if nearest(key, [_CONNECTOR])), None)
        hint = f"; is {like!r} it?" if like and like != _CONNECTOR else ""
        raise ConfigError(f"{place}: a source needs the name of its `connector`{hint}")
    name = values.get(_NAME) or connector
    if isinstance(name, dict | list):
        raise ConfigError(f"{place}: `{_NAME}` is {name!r}; it is a text")
    assert isinstance(node, yaml.MappingNode)
    lines = {**lines, **{key: f"{file}, {_line(node, key)}" for key in values}}
    for key, value in values.items():
        _check_setting(str(key), value, lines[key])
    own = {key: one for key, one in values.items() if key not in (_CONNECTOR, _NAME)}
    told = {**common, **own}
    if "to" not in told:
        raise ConfigError(f"{place}: `to`, the dataset, is missing here and beside `sources`")
    to_beam = told.pop(_BEAM, [])
    if not isinstance(to_beam, list) or not all(str(one).startswith("--") for one in to_beam):
        raise ConfigError(
            f"{place}: `{_BEAM}` is a list of Beam's options, as in [--parallelism=4]"
        )
    words = [word for key, one in told.items() for word in option_words(key, one)]
    flags = {f"--{str(key).replace('_', '-')}": line for key, line in lines.items()}
    return FileSource(str(name), place, (connector, *words, *to_beam), flags)


def _check(node: yaml.Node, file: str, key: str = "", plain: frozenset[str] = frozenset()) -> None:
    """Refuses keys that occur twice, and secrets in plain text.

    Args:
        node: What is checked.
        file: The file, for messages.
        key: The key whose value the node is.
        plain: Keys that hold no secret although their names look so.
    """
    line = node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        seen = set()
        own = _plain_keys(node)
        for name, value in node.value:
            if name.value in seen:
                at = name.start_mark.line + 1
                raise ConfigError(f"{file}, line {at}: the key {name.value!r} is there twice")
            seen.add(name.value)
            _check(value, file, str(name.value), own)
    elif isinstance(node, yaml.SequenceNode):
        for one in node.value:
            _check(one, file, key, plain)
    elif isinstance(node, yaml.ScalarNode) and node.tag.endswith(":str"):
        looks_so = looks_secret(key) and key not in plain
        if (looks_so and not secrets.is_reference(node.value)) or has_credentials(node.value):
            raise ConfigError(
                f"{file}, line {line}: {key} holds a secret in plain text; give a reference, such "
                "as env:NAME or file:PATH"
            )


def _plain_keys(node: yaml.MappingNode) -> frozenset[str]:
    """Returns which keys of a source hold no secret, as its connector says."""
    for name, value in node.value:
        if name.value == _CONNECTOR and isinstance(value, yaml.ScalarNode):
            with suppress(ConfigError):  # the run says what is wrong with it
                return load_connector_class(str(value.value)).plain_arguments
    return frozenset()


def _nodes(tree: yaml.MappingNode, key: str) -> list[yaml.Node]:
    found: list[yaml.Node] = next(value.value for name, value in tree.value if name.value == key)
    return found


def _line(tree: yaml.MappingNode, key: Any) -> str:
    # A key that is merged from elsewhere, or is no text, has no node of that name here.
    found = (name for name, _ in tree.value if name.value == str(key))
    return f"line {next(found, tree).start_mark.line + 1}"


def job_schema() -> dict[str, Any]:
    """Returns the JSON Schema of job files, with the connectors that are installed here."""
    common = dict(_setting_schemas())
    sources = []
    for info in list_connectors():
        if not info.error:
            sources.append(_of_connector(info.name, common))
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A job of contextframe-beam",
        "type": "object",
        "properties": {
            "$schema": {"type": "string"},
            **common,
            _SOURCES: {
                "type": "array",
                "minItems": 1,
                "description": _ABOUT_SOURCES,
                "items": {
                    "type": "object",
                    "properties": {
                        **{name: {"$ref": f"#/properties/{name}"} for name in common},
                        _CONNECTOR: {
                            "type": "string",
                            "description": "A registered connector, package.module:Class or "
                            "path/to/file.py:Class.",
                            "anyOf": [
                                {
                                    "enum": [
                                        one["if"]["properties"][_CONNECTOR]["const"]
                                        for one in sources
                                    ]
                                },
                                {"pattern": ":"},
                            ],
                        },
                        _NAME: {"type": "string", "description": _ABOUT_NAME},
                    },
                    "required": [_CONNECTOR],
                    "allOf": sources,
                },
            },
        },
        "required": [_SOURCES],
        "additionalProperties": False,
    }


def _of_connector(name: str, common: Mapping[str, Any]) -> dict[str, Any]:
    from contextframe_beam.pipelines.cli.connector import options_of

    taken = [f"--{one.replace('_', '-')}" for one in common]
    found = options_of(load_connector_class(name), name, taken)
    arguments = {
        option.opts[0].lstrip("-").replace("-", "_"): _option_schema(option)
        for option in found.options
    }
    known = {**dict.fromkeys(common, True), **arguments, _CONNECTOR: True, _NAME: True}
    return {
        "if": {"properties": {_CONNECTOR: {"const": name}}},
        "then": {"properties": known, "additionalProperties": False},
    }


def _option_schema(option: Any) -> dict[str, Any]:
    kinds = {"INTEGER": "integer", "NUMBER": "number", "JSON": "object"}
    names = (option.metavar or "").split("|")
    one: dict[str, Any] = {"type": ["string", "number", "object", "array"]}
    if option.secondary_opts or option.is_flag:
        one = {"type": "boolean"}
    elif names == ["TEXT"] or names == ["PATH"]:
        one = {"type": ["string", "number"]}
    elif all(name in kinds for name in names):
        one = {"type": [*(kinds[name] for name in names), "string"]}
    elif len(names) > 1 and not {"TEXT", "PATH", "VALUE", *kinds} & set(names):
        one = {"enum": names}
    if option.multiple:
        one = {"anyOf": [one, {"type": "array", "items": one}]}
    return {**one, "description": option.help or ""}


def _setting_schemas() -> Iterator[tuple[str, dict[str, Any]]]:
    for setting in settings():
        told = about(setting)
        if setting.name in (_CONNECTOR, *_NOT_IN_FILES):
            continue
        name = (told.flag or setting.name).lstrip("-").replace("-", "_")
        one: dict[str, Any] = {"type": ["string", "number"]}
        if name == _BEAM:
            one = {"type": "array", "items": {"type": "string", "pattern": "^--"}}
        elif told.choices:
            one = {"enum": list(told.choices)}
        elif setting.default is False:
            one = {"type": "boolean"}
        elif told.least is not None:
            one = {"type": "integer", "minimum": told.least}
        elif "Mapping" in str(setting.type):
            one = {"type": ["object", "string"]}
        if told.several:
            one = {"anyOf": [one, {"type": "array", "items": one}]}
        yield name, {**one, "description": told.option_help or told.help}
    for name in _BOUNDS:
        yield name, {"type": "string", "description": "A bound of the range of time to read."}
