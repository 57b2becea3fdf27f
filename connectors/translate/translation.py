"""Translates a manifest of Airbyte into configurations of `api`, or says what is in the way."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import yaml

from contextframe_beam.connectors.api.expression import ExpressionError
from contextframe_beam.connectors.api.load import load_config
from contextframe_beam.connectors.translate.access import auth_of
from contextframe_beam.connectors.translate.manifest import PARAMETERS, Manifest, Part
from contextframe_beam.connectors.translate.paging import with_added
from contextframe_beam.connectors.translate.settings import (
    PlainSecretError,
    Settings,
    with_any,
)
from contextframe_beam.connectors.translate.streams import parents_of, resource_of
from contextframe_beam.connectors.translate.values import Names, Untranslatable
from contextframe_beam.errors import ConfigError


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


# What a manifest with values of other types than Airbyte's own leads to.
_NO_FORM = (AttributeError, IndexError, KeyError, TypeError, ValueError)


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
        self._settings = Settings(manifest, config)
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
            made: list[str] = []
            try:
                parents = parents_of(stream)
                several: list[Part | None] = [*parents] if len(parents) > 1 else [None]
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
            self._found.about |= self._settings.about(config)
            needed = self._settings.needed(config.get("settings") or {})
            self._found.needed += [one for one in needed if one not in self._found.needed]
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
        except _NO_FORM as error:
            problem = Untranslatable("a value that no manifest has", repr(error), stream.line)
            self._failed[key] = problem
            raise problem from None
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
            if match is not None and self._settings.is_secret(match[3].split(".")):
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
            config["settings"] = self._settings.of(config)
            load_config(with_any(config, self._manifest.spec), {})
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
        config["settings"] = self._settings.of(config)
        if not config["settings"]:
            del config["settings"]
        return config


def _origin(address: str) -> str:
    match = re.match(r"(?:[a-z]+://|\{[^{}]*\})[^/]*", address)
    return match[0] if match else urlsplit(address).netloc
