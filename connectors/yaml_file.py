"""Reads YAML that people write, and says what is wrong with it by its line.

YAML can name a value and use it again, so a few lines can stand for billions of values, or for a
value that contains itself. So we count the values of a file before we read it.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml
from yaml.reader import Reader, ReaderError

from contextframe_beam.errors import ConfigError

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


def read_yaml_file(path: str | os.PathLike[str], what: str, scale: int = 1) -> YamlText:
    """Reads a file of YAML.

    Args:
        path: The file.
        what: What it is, for messages, as in `the configuration`.
        scale: How many times larger than a configuration it may be.

    Raises:
        ConfigError: it cannot be read, is not YAML, or stands for too many values.
    """
    name = os.fspath(path)
    try:
        file = pathlib.Path(name).expanduser()
        with file.open("rb") as opened:
            data = opened.read(_MOST_BYTES * scale + 1)
    except (OSError, ValueError, RuntimeError) as error:  # a NUL in the name, an unknown user
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(
            f"{what} {name} cannot be read ({reason}); give the path of a YAML file"
        ) from error
    if len(data) > _MOST_BYTES * scale:
        raise ConfigError(
            f"{what} {name} has more than {_MOST_BYTES * scale >> 20} MB; is it another file?"
        )
    try:
        return parse_yaml(data.decode("utf-8-sig"), name, scale)
    except UnicodeDecodeError as error:
        raise ConfigError(f"{what} {name} is not UTF-8 text ({error.reason})") from error


def parse_yaml(text: str, name: str, scale: int = 1) -> YamlText:
    """Reads YAML.

    Args:
        text: The text.
        name: Where it is from, for messages.
        scale: How many times larger than a configuration it may be.

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
        _look_through(text, name, _MOST_VALUES * scale)
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


def _look_through(text: str, name: str, most: int) -> None:
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
        if open_nodes[-1][1] > most:
            raise ConfigError(
                f"{name}, line {line}: it holds more than {most:,} values, with what its "
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
