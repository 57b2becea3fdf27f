"""Translates a manifest of Airbyte into configurations of `api`, or says what is in the way."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import yaml

from contextframe_beam.connectors.api.expression import ExpressionError, read
from contextframe_beam.connectors.api.load import load_config
from contextframe_beam.connectors.api.template import paths_in
from contextframe_beam.connectors.plain_secrets import looks_secret
from contextframe_beam.connectors.secrets import is_reference
from contextframe_beam.connectors.translate.access import auth_of
from contextframe_beam.connectors.translate.manifest import PARAMETERS, Manifest, Part
from contextframe_beam.connectors.translate.paging import with_added
from contextframe_beam.connectors.translate.streams import parents_of, resource_of
from contextframe_beam.connectors.translate.values import Names, Untranslatable
from contextframe_beam.errors import ConfigError

# Characters of what a manifest says of a setting.
_SHOWN = 200


class PlainSecretError(ConfigError):
    """The settings hold a secret in plain text."""


@dataclass(frozen=True, slots=True)
class Problem:
    """What stands in the way of a stream.

    Attributes:
        stream: The stream.
        cause: What kind of part cannot be said.
        detail: The part itself.
        line: Its line in the manifest; 0 if it is not known.
    """

    stream: str
    cause: str
    detail: str = ""
    line: int = 0

    def __str__(self) -> str:
        where = f"line {self.line}: " if self.line else ""
        detail = f" ({self.detail})" if self.detail else ""
        return f"{where}stream {self.stream}: {self.cause}{detail}"


@dataclass
class Translation:
    """What a manifest became.

    Attributes:
        configs: The configurations: one for each server and each way to authenticate.
        streams: The names of the streams that were translated.
        problems: What stands in the way of the others.
        needed: The settings that the user still has to write.
        about: What the manifest says of its settings, by their names.
    """

    configs: list[dict[str, Any]] = field(default_factory=list)
    streams: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    needed: list[str] = field(default_factory=list)
    about: dict[str, str] = field(default_factory=dict)


def translate(manifest: Manifest, config: Mapping[str, Any] | None = None) -> Translation:
    """Translates a manifest.

    Args:
        manifest: The manifest.
        config: The settings of the source, as Airbyte takes them; secrets in it are references.

    Raises:
        PlainSecretError: the settings hold a secret in plain text.
    """
    return _Translator(manifest, config or {}).translation()


def text_of(config: Mapping[str, Any], about: Mapping[str, str] | None = None) -> str:
    """Returns a configuration as YAML.

    Args:
        config: The configuration.
        about: What its settings mean, by their names; it becomes comments.
    """
    settings = {"settings": config["settings"]} if "settings" in config else {}
    others = {name: value for name, value in config.items() if name not in ("name", "settings")}
    parts = [_dumped({"name": config["name"]}), _dumped(settings), _dumped(others)]
    lines = []
    for line in parts[1].splitlines(keepends=True):
        match = re.match(r"  ([\w-]+):", line)
        said = (about or {}).get(match[1]) if match is not None else None
        lines += [f"  # {said}\n", line] if said else [line]
    return "".join([parts[0], *lines, parts[2]])


def _dumped(values: Mapping[str, Any]) -> str:
    if not values:
        return ""
    text: str = yaml.dump(
        dict(values), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100
    )
    return text


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines as blocks."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _block(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    style = "|" if "\n" in text.strip("\n") and "\t" not in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", str(text), style=style)


_Dumper.add_multi_representer(str, _block)


@dataclass
class _Made:
    """A resource, and what its configuration has to have."""

    resource: dict[str, Any]
    base: str
    auth: dict[str, Any] | None
    stream: str
    is_own: bool = True

    def reads_like(self, other: _Made) -> bool:
        """Returns whether it is for the same stream and reads the same."""
        mine, others = (
            [{k: v for k, v in one.resource.items() if k != "name"}, one.base, one.auth, one.stream]
            for one in (self, other)
        )
        return mine == others


class _Translator:
    def __init__(self, manifest: Manifest, config: Mapping[str, Any]) -> None:
        self._manifest = manifest
        self._config = config
        self._made: dict[str, _Made] = {}
        self._names: dict[str, str] = {}
        self._failed: dict[str, Untranslatable] = {}
        self._found = Translation()

    def translation(self) -> Translation:
        for stream in self._manifest.streams:
            if stream.get("type") == "ConditionalStreams":
                listed = ", ".join(str(one.get("name")) for one in stream.children("streams"))
                problem = Untranslatable("conditional streams", "", stream.line)
                self._problem(listed or "?", problem)
                continue
            name = str(stream.get("name"))
            parents = parents_of(stream)
            several: list[Part | None] = [*parents] if len(parents) > 1 else [None]
            made: list[str] = []
            try:
                for number, parent in enumerate(several):
                    made.append(self._resource(stream, number, parent))
                self._found.streams.append(name)
            except Untranslatable as problem:
                for one in made:  # a part of a stream is none
                    self._made[one].is_own = False
                problem.line = problem.line or stream.line
                self._problem(name, problem)
        self._group()
        for config in self._found.configs:
            for name in config.get("settings") or {}:
                said = _said_of(self._manifest.spec, name)
                if said:
                    self._found.about[name] = said
        return self._found

    def _problem(self, stream: str, problem: Untranslatable) -> None:
        self._found.problems.append(Problem(stream, problem.cause, problem.detail, problem.line))

    def _resource(
        self, stream: Part, number: int = 0, parent: Part | None = None, is_own: bool = True
    ) -> str:
        """Makes the resource of a stream once; returns its name."""
        key = json.dumps([stream, number], sort_keys=True, default=str)
        if key in self._names:
            return self._again(self._names[key], is_own)
        if key in self._failed:
            raise self._failed[key]
        name = self._name_for(str(stream.get("name") or "parent"), number)
        try:
            resource, base, authenticator = resource_of(stream, name, self._parent, parent)
            names = Names(authenticator.get(PARAMETERS) or {})
            auth, added = auth_of(authenticator, names, self._config)
        except Untranslatable as problem:
            self._failed[key] = problem
            raise
        with_added(resource, added)
        if auth is None:
            auth = self._auth_in(resource)
        if number or parent is not None:
            # All of them are one stream.
            first = self._name_for(str(stream.get("name")), 0, known=True)
            resource.setdefault("mapping", {})["prefix"] = f"{self._manifest.name}:{first}#"
        made = _Made(resource, base, auth, str(stream.get("name")), is_own)
        twin = next((one for one in self._made.values() if one.reads_like(made)), None)
        if twin is not None:
            self._names[key] = twin.resource["name"]
            return self._again(self._names[key], is_own)
        self._check(made)
        self._made[name] = made
        self._names[key] = name
        return name

    def _again(self, name: str, is_own: bool) -> str:
        made = self._made[name]
        made.is_own = made.is_own or is_own
        return name

    def _auth_in(self, resource: dict[str, Any]) -> dict[str, Any] | None:
        """Takes a credential with a text before it out of the headers; returns it as auth."""
        headers = resource.get("headers") or {}
        for name, value in headers.items():
            match = re.fullmatch(r"([^{}]+)(\{settings\.([\w.]+)\})", str(value))
            if match is not None and self._is_secret(match[3].split(".")):
                del headers[name]
                if not headers:
                    del resource["headers"]
                made = {"type": "api_key", "name": str(name), "key": match[2], "prefix": match[1]}
                return made
        return None

    def _parent(self, stream: Part) -> str:
        return self._resource(stream, is_own=False)

    def _name_for(self, name: str, number: int, known: bool = False) -> str:
        plain = re.sub(r"[^A-Za-z0-9_.-]+", "_", name).strip(".-_") or "stream"
        plain = plain if number == 0 else f"{plain}-{number + 1}"
        found, count = plain, 1
        while not known and found in self._made:
            count += 1
            found = f"{plain}-{count}"
        return found

    def _check(self, made: _Made) -> None:
        """Refuses a resource that `api` itself would refuse."""
        resource = {k: v for k, v in made.resource.items() if k != "parent"}
        above = made.resource.get("parent")
        resources = [resource] if above is None else [{"name": above}, made.resource]
        config: dict[str, Any] = {"base_url": made.base or "https://example.com"}
        config["resources"] = resources
        if made.auth is not None:
            config["auth"] = made.auth
        try:
            config["settings"] = self._settings(config)
            load_config(_with_any(config, self._manifest.spec), {})
        except PlainSecretError:
            raise
        except (ConfigError, ExpressionError) as error:
            raise Untranslatable("refused by api", " ".join(str(error).split())[:200]) from None

    def _group(self) -> None:
        groups: dict[str, list[_Made]] = {}
        for made in self._made.values():
            base = made.base or made.resource["path"]
            key = json.dumps([_origin(base), made.auth], sort_keys=True, default=str)
            groups.setdefault(key, []).append(made)
        home = {one.resource["name"]: key for key, group in groups.items() for one in group}
        for key, group in groups.items():
            for one in list(group):
                above = one.resource.get("parent")
                if above is not None and home[above] != key:
                    self._lost(one, groups)
        for group in list(groups.values()):
            needed = self._needed()
            kept = [one for one in group if one.resource["name"] in needed]
            if kept:
                self._found.configs.append(self._config_of(kept, len(self._found.configs)))

    def _needed(self) -> set[str]:
        """Returns the resources of streams that were translated, and their parents."""
        found: set[str] = set()
        pending = [one for one in self._made.values() if one.is_own]
        while pending:
            made = pending.pop()
            found.add(made.resource["name"])
            above = made.resource.get("parent")
            if above is not None and above not in found:
                pending.append(self._made[above])
        return found

    def _lost(self, made: _Made, groups: dict[str, list[_Made]]) -> None:
        """Leaves out a resource, and those below it."""
        name = made.resource["name"]
        if self._made.pop(name, None) is None:
            return
        made.is_own, was_own = False, made.is_own
        if was_own and made.stream in self._found.streams:
            self._found.streams.remove(made.stream)
            problem = Untranslatable("a parent at another server or with other credentials")
            self._problem(made.stream, problem)
        for group in groups.values():
            for one in group:
                if one.resource.get("parent") == name:
                    self._lost(one, groups)

    def _config_of(self, group: list[_Made], number: int) -> dict[str, Any]:
        bases = [one.base for one in group if one.base]
        base = max(set(bases), key=bases.count) if bases else _origin(group[0].resource["path"])
        resources = []
        for one in group:
            resource = dict(one.resource)
            if not one.is_own:
                resource["ingest"] = False
            if one.base and one.base != base:
                resource["path"] = f"{one.base.rstrip('/')}/{resource['path'].lstrip('/')}"
            resources.append(resource)
        name = self._manifest.name if not number else f"{self._manifest.name}-{number + 1}"
        config: dict[str, Any] = {"name": name, "settings": {}, "base_url": base}
        auth = group[0].auth
        if auth is not None:
            config["auth"] = auth
        config["resources"] = resources
        config["settings"] = self._settings(config)
        if not config["settings"]:
            del config["settings"]
        return config

    def _settings(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the settings that a configuration uses, with their values as far as known."""
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
        is_secret = self._is_secret(names)
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
        default = self._spec_of(names).get("default")
        name = ".".join(names)
        if default is None and name not in self._found.needed and self._is_required(names):
            self._found.needed.append(name)
        return default

    def _spec_of(self, names: list[str]) -> Mapping[str, Any]:
        spec = self._manifest.spec
        for name in names:
            spec = _property(spec, name)
        return spec

    def _is_secret(self, names: list[str]) -> bool:
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


def _origin(address: str) -> str:
    match = re.match(r"(?:[a-z]+://|\{[^{}]*\})[^/]*", address)
    return match[0] if match else urlsplit(address).netloc


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


def _with_any(config: Mapping[str, Any], spec: Mapping[str, Any]) -> dict[str, Any]:
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
