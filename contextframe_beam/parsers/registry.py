"""Parsers by type of file: those that are registered, and those that the user names.

A parser is an entry point of the group `contextframe.parsers`, or `package.module:Class` (or
`:function`), or a class. What is named comes first; then parsers of other distributions, then ours.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import EntryPoint
from typing import Any

import xxhash

from contextframe_beam.errors import ConfigError, nearest
from contextframe_beam.frames.fingerprint import code_versions
from contextframe_beam.lazy import named, registered
from contextframe_beam.parsers.kinds import suffix_by_bytes

GROUP = "contextframe.parsers"
_OURS = "contextframe_beam."


@dataclass(frozen=True)
class ParserSpec:
    """A parser as users name it.

    Attributes:
        parser: A registered name, or `package.module:Class`.
        settings: Arguments of the class, as JSON values.
    """

    parser: str
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ParserInfo:
    """A parser that was found.

    Attributes:
        name: Its registered name, or its path.
        path: `package.module:Class`.
        suffixes: What the names of its files end in; None: it reads every file.
        settings: Arguments of its class.
        identity: Which parser this is, with which settings: bytes that change when what it makes
            of the same file may change.
    """

    name: str
    path: str
    suffixes: frozenset[str] | None
    settings: Mapping[str, Any]
    identity: bytes

    def reads(self, name: str) -> bool:
        """Returns whether it reads files of this name."""
        return self.suffixes is None or any(one in self.suffixes for one in endings(name))


class Parsers:
    """The parsers of a run, by type of file.

    Args:
        named: Parsers that come first, the first of them before the others: registered names,
            `package.module:Class`, a `ParserSpec`, or a class that can be imported.

    Raises:
        ConfigError: a parser is unknown, cannot be imported, or is not a parser.
    """

    def __init__(self, named: Sequence[str | ParserSpec | type] = ()) -> None:
        self._named = tuple(_spec(one) for one in named)
        self.found  # noqa: B018, says at once what is wrong

    def __getstate__(self) -> dict[str, Any]:
        return {"_named": self._named}

    @cached_property
    def found(self) -> tuple[ParserInfo, ...]:
        """All parsers, in the order in which they are asked."""
        known = registered(GROUP)
        if not known:
            raise ConfigError(
                f"no parser is registered under {GROUP!r}: install contextframe-beam again"
            )
        by_name = {one.name: one for one in known}
        first = [_info(one, by_name) for one in self._named]
        rest = [_info(ParserSpec(one.name), by_name) for one in known]
        _refuse_rivals([one for one in rest if not one.path.startswith(_OURS)], first)
        return (*first, *sorted(rest, key=lambda one: one.path.startswith(_OURS)))

    def find(self, name: str, data: bytes | None = None) -> ParserInfo | None:
        """Returns the parser of a file, or None when its type is unknown.

        Args:
            name: The name of the file; its suffix decides.
            data: Its bytes, which decide where the name does not.
        """
        for one in self.found:
            if one.reads(name):
                return one
        suffix = suffix_by_bytes(data, len(endings(name)) > 1) if data is not None else None
        if suffix is None:
            return None
        return next((one for one in self.found if one.reads("file" + suffix)), None)

    @cached_property
    def identity(self) -> bytes:
        """Which parsers these are, with which settings: 16 bytes."""
        return xxhash.xxh3_128_digest(b"".join(one.identity for one in self.found))


def endings(name: str) -> list[str]:
    """Returns the whole name of a file and what it ends in, the longest first, in small letters."""
    base = name.replace("\\", "/").rsplit("/", 1)[-1].lower()
    parts = base.split(".")
    return [base, *("." + ".".join(parts[start:]) for start in range(1, len(parts)))]


def loaded(path: str) -> Any:
    """Returns the class or function at `package.module:Class`.

    Raises:
        ConfigError: there is no such parser, or it cannot be imported.
    """
    found = named(path, "parser")
    if not callable(getattr(found, "parse", found)):
        raise ConfigError(
            f"{path} is not a parser: it is neither a class with `parse` nor a function"
        )
    if inspect.isclass(found) and not callable(getattr(found, "parse", None)):
        raise ConfigError(f"{path} is not a parser: it lacks the method parse(data, name, limits)")
    return found


def made(path: str, settings: Mapping[str, Any]) -> Any:
    """Returns a parser, ready to be used.

    Raises:
        ConfigError: it cannot be imported, or refuses its settings.
    """
    found = loaded(path)
    if not inspect.isclass(found):
        if settings:
            raise ConfigError(f"the parser {path} is a function and takes no settings")
        return found
    try:
        return found(**settings)
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(f"the parser {path} cannot be made: {error}") from error


def _spec(one: str | ParserSpec | type) -> ParserSpec:
    if isinstance(one, ParserSpec):
        return one
    if isinstance(one, str):
        return ParserSpec(one)
    path = f"{one.__module__}:{one.__qualname__}"
    if one.__module__ == "__main__" or "<locals>" in path:
        raise ConfigError(
            f"{one.__qualname__} has to stand at the top of a module that can be imported: "
            "other processes use it"
        )
    return ParserSpec(path)


def _info(spec: ParserSpec, by_name: Mapping[str, EntryPoint]) -> ParserInfo:
    if ":" in spec.parser:
        path = spec.parser
    elif spec.parser in by_name:
        path = by_name[spec.parser].value
    else:
        raise ConfigError(
            f"there is no parser {spec.parser!r}{nearest(spec.parser, by_name)}; "
            f"known: {', '.join(by_name)}, or write package.module:Class"
        )
    found = loaded(path)
    suffixes = getattr(found, "suffixes", None)
    try:
        settings = json.dumps(dict(spec.settings), sort_keys=True)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"the settings of the parser {spec.parser}: {error}") from None
    return ParserInfo(
        name=spec.parser,
        path=path,
        suffixes=None if suffixes is None else _suffixes(suffixes, path),
        settings=dict(spec.settings),
        identity="\0".join([path, *code_versions(found), settings, ""]).encode(),
    )


def _suffixes(given: Any, path: str) -> frozenset[str]:
    one = [given] if isinstance(given, str) else given
    if not isinstance(one, Iterable) or not all(isinstance(each, str) and each for each in one):
        raise ConfigError(f"suffixes of {path} has to be a tuple of texts such as ('.abc',)")
    return frozenset(each.lower() for each in one)


def _refuse_rivals(others: list[ParserInfo], named: list[ParserInfo]) -> None:
    """Refuses two foreign parsers of one suffix, unless one of them is named."""
    seen: dict[str, ParserInfo] = {}
    chosen = {suffix for one in named for suffix in one.suffixes or ()}
    for one in others:
        for suffix in one.suffixes or ():
            rival = seen.setdefault(suffix, one)
            if rival is not one and suffix not in chosen:
                raise ConfigError(
                    f"{rival.name} and {one.name} both read {suffix}: name the one to use"
                )
