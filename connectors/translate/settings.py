"""The settings of a translated source: which it uses, and what they mean."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from contextframe_beam.connectors.api.expression import read
from contextframe_beam.connectors.api.template import paths_in
from contextframe_beam.connectors.plain_secrets import looks_secret
from contextframe_beam.connectors.secrets import is_reference
from contextframe_beam.connectors.translate.manifest import Manifest
from contextframe_beam.errors import ConfigError

# Characters of what a manifest says of a setting.
_SHOWN = 200


class PlainSecretError(ConfigError):
    """The settings hold a secret in plain text."""


class Settings:
    """Finds the settings that configurations use.

    Args:
        manifest: The manifest.
        config: The settings that the user gave.
    """

    def __init__(self, manifest: Manifest, config: Mapping[str, Any]) -> None:
        self._manifest = manifest
        self._config = config

    def of(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the settings that a configuration uses, with their values as far as known.

        Raises:
            PlainSecretError: a secret is there in plain text.
        """
        settings: dict[str, Any] = {}
        used = {path[1:] for path in paths_in(_plain(config)) if path[0] == "settings"}
        used |= {path for one in _expressions(config) for path in _used(one)}
        composed, kept = _composed(_plain(config)), _renewed(config)
        for path in sorted(used):
            # An element of a list is a part of its value.
            end = next((at for at, one in enumerate(path) if one.isdecimal()), len(path))
            here, given = settings, self._config.get(path[0]) if end else None
            for at, step in enumerate(path[:end], 1):
                if at > 1:
                    given = given.get(step) if isinstance(given, Mapping) else None
                if at < end:
                    inner = here.get(step)
                    here[step] = inner if isinstance(inner, dict) else {}
                    here = here[step]
                elif not isinstance(here.get(step), dict):
                    names, is_whole = list(path[:end]), path[:end] not in composed
                    here[step] = self._value(names, given, is_whole, path[:end] in kept)
        return settings

    def _value(self, names: list[str], given: Any, is_whole: bool, is_renewed: bool) -> Any:
        """Returns the value of a setting.

        Args:
            names: Its path.
            given: What the user gave for it.
            is_whole: Whether it stands alone wherever it is used.
            is_renewed: Whether its server replaces it, so that a run has to write it.
        """
        is_secret = self.is_secret(names)
        if given is not None:
            if is_secret and is_whole and isinstance(given, str) and not is_reference(given):
                raise PlainSecretError(
                    f"{'.'.join(names)} in the settings is a secret in plain text; put it into an "
                    "environment variable and write env:NAME"
                )
            return given
        # Many ids count as secrets, and they are parts of paths.
        if is_secret and (is_whole or looks_secret(names[-1])):
            if is_renewed:
                return f"file:{self._manifest.name}-{names[-1]}"
            variable = "_".join([self._manifest.name, *names]).upper()
            return f"env:{re.sub(r'[^A-Z0-9]+', '_', variable)}"
        return self._spec_of(names).get("default")

    def needed(self, settings: Mapping[str, Any], above: Sequence[str] = ()) -> list[str]:
        """Returns the settings without a value that the manifest requires."""
        found = []
        for name, value in settings.items():
            names = [*above, name]
            if isinstance(value, dict):
                found += self.needed(value, names)
            elif value is None and self._is_required(names):
                found.append(".".join(names))
        return found

    def about(self, config: Mapping[str, Any]) -> dict[str, str]:
        """Returns what the manifest says of the settings of a configuration, by their names."""
        told = {one: _said_of(self._manifest.spec, one) for one in config.get("settings") or {}}
        return {name: text for name, text in told.items() if text}

    def _spec_of(self, names: list[str]) -> Mapping[str, Any]:
        spec = self._manifest.spec
        for name in names:
            spec = _property(spec, name)
        return spec

    def is_secret(self, names: list[str]) -> bool:
        """Returns whether a setting holds a secret."""
        return bool(self._spec_of(names).get("airbyte_secret")) or looks_secret(names[-1])

    def _is_required(self, names: list[str]) -> bool:
        spec = self._manifest.spec
        for name in names:
            if name not in (spec.get("required") or []):
                return False
            spec = _property(spec, name)
        return True


def _said_of(spec: Mapping[str, Any], name: str) -> str:
    """Returns what a schema says of a setting, in one line."""
    found = _property(spec, name)
    told = [str(found.get(one) or "") for one in ("title", "description")]
    text = re.sub(r"<[^>]*>", "", ": ".join(one.strip(" .") for one in told if one))
    text = " ".join(text.split())
    text = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
    if name in (spec.get("required") or []):
        text = f"Required. {text}"
    return text


def _property(spec: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Returns the schema of a property; of several alternatives, the first that has it."""
    for one in (spec, *(spec.get("oneOf") or []), *(spec.get("anyOf") or [])):
        if isinstance(one, Mapping):
            found = (one.get("properties") or {}).get(name)
            if isinstance(found, Mapping):
                return found
    return {}


def _expressions(config: Mapping[str, Any]) -> Iterator[str]:
    """Yields the settings that are expressions as a whole."""
    for resource in config.get("resources") or []:
        for one in resource.get("filters") or []:
            if isinstance(one, str):
                yield one


def _used(expression: str) -> set[tuple[str, ...]]:
    return {path[1:] for path in read(expression).paths if path[0] == "settings"}


def _plain(value: Any) -> Any:
    """Returns a value with plain texts instead of those that know their line."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return str(value) if isinstance(value, str) else value


def _renewed(config: Mapping[str, Any]) -> set[tuple[str, ...]]:
    """Returns the settings that hold a refresh token which is replaced with each renewal."""
    auth = config.get("auth") or {}
    found = paths_in(_plain(auth.get("refresh_token"))) if auth.get("rotates") else set()
    return {path[1:] for path in found if path[0] == "settings"}


def _composed(value: Any) -> set[tuple[str, ...]]:
    """Returns the settings that are used as parts of texts or of expressions."""
    if isinstance(value, Mapping):
        return {path for one in value.values() for path in _composed(one)}
    if isinstance(value, list):
        return {path for one in value for path in _composed(one)}
    if not isinstance(value, str) or re.fullmatch(r"\{settings\.[\w.]+\}", value):
        return set()
    return {path[1:] for path in paths_in(value) if path[0] == "settings"}


# Stands for settings that the user has not written yet, by the type in their schema.
_ANY = {"integer": 1, "number": 1, "boolean": True, "array": ["a"], "object": {}}
_ANY_TIME = "2024-01-01T00:00:00Z"


def with_any(config: Mapping[str, Any], spec: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a configuration to check, with made-up values for settings that have none."""
    checked: dict[str, Any] = _plain(config)
    # A setting that chooses from a table has one of its names.
    names = dict(re.findall(r"settings\.(\w+) == '([^'\\]*)'", json.dumps(checked)))

    def fill(values: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
        return {
            name: fill(value, _property(above, name))
            if isinstance(value, dict)
            else _made_up(name, value or names.get(name), _property(above, name))
            for name, value in values.items()
        }

    checked["settings"] = fill(checked.get("settings") or {}, spec)
    return checked


def _made_up(name: str, value: Any, spec: Mapping[str, Any]) -> Any:
    if value is not None:
        return value
    kind = spec.get("type")
    kind = kind[0] if isinstance(kind, list) and kind else kind
    if spec.get("enum"):
        return spec["enum"][0]
    if kind in _ANY:
        return _ANY[kind]
    is_time = re.search(r"date|time|since|start|end", name) or "date" in str(spec.get("format"))
    return _ANY_TIME if is_time else "1"
