"""One file to one document, in this process: what every parser is called and checked by."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable
from typing import Any, Protocol

from contextframe_beam.errors import ConfigError
from contextframe_beam.frames.document import Document
from contextframe_beam.parsers.clean import cleaned
from contextframe_beam.parsers.contract import (
    Limits,
    NoTextError,
    OutOfMemory,
    ParseError,
    in_words,
)


class Parser(Protocol):
    """What reads files of some types.

    A class with this method and an attribute `suffixes`, such as `(".abc",)`, which its files end
    in; an entry without a dot is a whole name (`"makefile"`). Without `suffixes` it reads every
    file. `version` says when what it makes of the same bytes has changed; without it, a change of
    its source counts as one. `limits` may be left out of the signature.
    """

    def parse(self, data: bytes, name: str, limits: Limits) -> Document:
        """Returns the document that a file is.

        Args:
            data: The bytes of the file.
            name: Its name, without folders.
            limits: What it may cost.

        Raises:
            ParseError: the file cannot be read. The message says why, without what it holds.
        """


def parse_with(parser: Any, data: bytes, name: str, limits: Limits) -> Document:
    """Returns the document that a parser makes of a file, without what no text may hold.

    Runs in this process, where a parser that hangs or crashes is not stopped: see `ParserPool`.

    Args:
        parser: An object with a method `parse`, or a function.
        data: The bytes of the file.
        name: Its name, for messages and for what depends on the suffix.
        limits: What it may cost.

    Raises:
        ParseError: the file cannot be parsed, for whatever reason.
        ConfigError: a library is not installed.
    """
    base = name.replace("\\", "/").rsplit("/", 1)[-1]
    try:
        if len(data) > limits.max_file_bytes:
            most = in_words(limits.max_file_bytes)
            raise ParseError(f"it has {in_words(len(data))}, and max_file_bytes is {most}")
        parse = getattr(parser, "parse", parser)
        given = (data, base, limits) if takes_limits(parse) else (data, base)
        document = cleaned(_document(parse(*given), parser))
        if len(document.text) > limits.max_unpacked_bytes:
            most = in_words(limits.max_unpacked_bytes)
            raise ParseError(f"its text is longer than max_unpacked_bytes, {most}")
        return document
    except ConfigError as error:
        raise ConfigError(f"{base}: {error}") from error
    except ParseError as error:
        kinds = (NoTextError, OutOfMemory, ParseError)
        kind = next(one for one in kinds if isinstance(error, one))
        raise kind(f"{base}: {error}") from None
    except RecursionError:
        raise ParseError(f"{base}: its parts are nested too deep") from None
    except MemoryError:
        raise OutOfMemory(f"{base}: {out_of_memory(limits)}") from None
    except Exception as error:
        # What a library says may quote the file, and so is not passed on.
        where = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{where.filename.rsplit('/', 1)[-1]}, line {where.lineno}"
        raise ParseError(
            f"{base}: {called(parser)} failed with {type(error).__name__} ({place})"
        ) from None


def out_of_memory(limits: Limits) -> str:
    """Returns what is said about a file that needs more memory than it may have."""
    return (
        f"parsing it needs more memory than max_memory_bytes, {in_words(limits.max_memory_bytes)}"
    )


def called(parser: Any) -> str:
    """Returns the name of a parser, for messages."""
    return str(getattr(parser, "__qualname__", type(parser).__qualname__))


def takes_limits(parse: Callable[..., Any]) -> bool:
    """Returns whether a parser wants to know the limits."""
    try:
        inspect.signature(parse).bind(b"", "", None)
    except (TypeError, ValueError):
        return False
    return True


def _document(made: Any, parser: Any) -> Document:
    if isinstance(made, str):
        return Document(made)
    if not isinstance(made, Document):
        raise ParseError(
            f"{called(parser)} returned {type(made).__name__}; a parser returns a Document or text"
        )
    return made
