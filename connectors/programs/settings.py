"""What users give to a program: its configuration, with references in place of secrets.

A reference turns into its value just before the program gets it. A program that renews a refresh
token says so, and the new one goes to where the reference points, or the next run is locked out.
"""

from __future__ import annotations

import datetime
import json
import logging
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from contextframe_beam.connectors import secrets
from contextframe_beam.connectors.plain_secrets import has_credentials, looks_secret
from contextframe_beam.connectors.secrets import SecretReference
from contextframe_beam.connectors.yaml_file import read_yaml_file
from contextframe_beam.errors import ConfigError, SecretError

__all__ = [
    "holds_text",
    "identity_of",
    "read_settings",
    "refuse_plain",
    "secret_paths",
    "store_renewed",
]

_Path = tuple[str, ...]


def read_settings(given: str | os.PathLike[str] | Mapping[str, Any], what: str) -> dict[str, Any]:
    """Returns a configuration: that of a file of JSON or YAML, or a mapping itself.

    Times in YAML stay the texts that they are, because programs compare them with patterns.

    Args:
        given: The file, or the values.
        what: What it is, for messages, as in `the configuration`.

    Raises:
        ConfigError: the file cannot be read, or holds no object.
    """
    values: Any = given
    if not isinstance(given, Mapping):
        values = _json(given)
        if values is None:
            tree = read_yaml_file(given, what).tree
            values = {} if tree is None else _as_written(tree)
    if not isinstance(values, Mapping):
        raise ConfigError(f"{what} holds no object of names and values")
    return _jsonable(values, what)


def holds_text(config: Mapping[str, Any]) -> bool:
    """Returns whether a configuration holds text that is no reference, and so may be a secret."""
    return any(
        isinstance(value, str) and value and type(value) is not SecretReference
        for _, value in _leaves(config, ())
    )


def secret_paths(schema: Any) -> set[_Path]:
    """Returns the paths of the fields that a JSON schema calls secrets (`airbyte_secret`).

    `*` stands for each element of a list.
    """
    return set(_secrets_in(schema, schema, (), 0))


def refuse_plain(config: Mapping[str, Any], secret: set[_Path] | None) -> None:
    """Refuses secrets in plain text.

    Args:
        config: The configuration, with references.
        secret: The paths of its secrets; None where only their names tell.

    Raises:
        ConfigError: a secret stands there as it is.
    """
    for path, value in _leaves(config, ()):
        if type(value) is SecretReference or value in (None, "") or isinstance(value, bool):
            continue
        if secret is None:
            is_secret = isinstance(value, str) and looks_secret(path[-1] if path else "")
        else:
            is_secret = any(_matches(path, one) for one in secret)
        if is_secret or (isinstance(value, str) and has_credentials(value, path[-1])):
            secrets.register(str(value))
            name = ".".join(path)
            variable = path[-1].upper().replace("-", "_")
            raise ConfigError(
                f"the configuration holds a secret in plain text: {name}; give a reference in its "
                f"place, such as env:{variable}, file:PATH or keyring:NAME"
            )


def store_renewed(
    config: Mapping[str, Any],
    used: Mapping[str, Any],
    told_now: Mapping[str, Any],
    logger: logging.Logger,
) -> None:
    """Stores the secrets that a program has renewed where their references point.

    Args:
        config: The configuration with references.
        used: The same with their values, as the program got it.
        told_now: The configuration that the program tells.
        logger: Is told where one cannot be stored.
    """
    secrets.register_literals(dict(told_now))
    before, now = dict(_leaves(used, ())), dict(_leaves(told_now, ()))
    for path, value in _leaves(config, ()):
        new = now.get(path)
        if type(value) is not SecretReference or not isinstance(new, str) or new == before[path]:
            continue
        try:
            secrets.store(value.reference, new)
        except (ConfigError, SecretError) as error:
            logger.warning(
                "the program has renewed %s, and the new value cannot be stored in %s (%s); the "
                "next run may be refused: give a file: or keyring: reference",
                ".".join(path),
                value.reference,
                error,
            )
        else:
            logger.info("%s was renewed and stored in %s", ".".join(path), value.reference)


def identity_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what of a configuration identifies a source: its values, and where its secrets are.

    Two accounts may differ in nothing else than in where their token is.
    """
    leaves = list(_leaves(config, ()))
    references = {value.reference for _, value in leaves if type(value) is SecretReference}
    plain = {
        ".".join(path): value
        for path, value in leaves
        if type(value) is not SecretReference and not looks_secret(path[-1])
    }
    return {"config": plain, "references": sorted(references)}


def _json(given: str | os.PathLike[str]) -> Any:
    """Returns a file of JSON; None if it is none, as YAML or because it cannot be read."""
    try:
        return json.loads(pathlib.Path(given).expanduser().read_bytes())
    except (OSError, ValueError, RuntimeError):
        return None


def _as_written(tree: yaml.Node) -> Any:
    nodes = [tree]
    for node in nodes:
        if isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:timestamp":
            node.tag = "tag:yaml.org,2002:str"
        for inner in node.value if isinstance(node, yaml.CollectionNode) else ():
            nodes.extend(inner if isinstance(inner, tuple) else (inner,))
    return yaml.constructor.SafeConstructor().construct_document(tree)


def _jsonable(values: Mapping[str, Any], what: str) -> dict[str, Any]:
    try:
        text = json.dumps(values, default=_text, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{what} holds what JSON cannot: {error}") from None
    found: dict[str, Any] = json.loads(text)
    return found


def _text(value: Any) -> str:
    if isinstance(value, datetime.date):
        return value.isoformat()
    raise TypeError(f"a value of the type {type(value).__name__}")


def _leaves(value: Any, path: _Path) -> Iterator[tuple[_Path, Any]]:
    if isinstance(value, Mapping):
        for key, element in value.items():
            yield from _leaves(element, (*path, str(key)))
    elif isinstance(value, list | tuple):
        for index, element in enumerate(value):
            yield from _leaves(element, (*path, str(index)))
    else:
        yield path, value


def _matches(path: _Path, pattern: _Path) -> bool:
    # What is inside of a secret object is a secret, too.
    return len(path) >= len(pattern) and all(
        wanted in ("*", given) for wanted, given in zip(pattern, path, strict=False)
    )


def _secrets_in(schema: Any, root: Any, path: _Path, depth: int) -> Iterator[_Path]:
    if not isinstance(schema, Mapping) or depth > 32:
        return
    reference = schema.get("$ref")
    if isinstance(reference, str) and reference.startswith("#/"):
        found = root
        for step in reference[2:].split("/"):
            found = found.get(step) if isinstance(found, Mapping) else None
        yield from _secrets_in(found, root, path, depth + 1)
    if schema.get("airbyte_secret") is True and path:
        yield path
    properties = schema.get("properties")
    for name, inner in (properties if isinstance(properties, Mapping) else {}).items():
        yield from _secrets_in(inner, root, (*path, str(name)), depth + 1)
    yield from _secrets_in(schema.get("items"), root, (*path, "*"), depth + 1)
    for several in ("oneOf", "anyOf", "allOf"):
        choices = schema.get(several)
        for inner in choices if isinstance(choices, list) else ():
            yield from _secrets_in(inner, root, path, depth + 1)
