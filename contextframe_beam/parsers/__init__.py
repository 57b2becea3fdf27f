"""Parsers: from the bytes of a file to a document in Markdown.

Names are imported when they are first used: the process that parses imports this package, too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from contextframe_beam.lazy import lazy_names

if TYPE_CHECKING:
    from contextframe_beam.parsers.contract import (
        Limits,
        NoTextError,
        ParseError,
        UnknownTypeError,
    )
    from contextframe_beam.parsers.parsing import Parser, parse_with
    from contextframe_beam.parsers.pool import ParserPool, Parsing
    from contextframe_beam.parsers.registry import ParserInfo, Parsers, ParserSpec

__all__ = [
    "Limits",
    "NoTextError",
    "ParseError",
    "Parser",
    "ParserInfo",
    "ParserPool",
    "ParserSpec",
    "Parsers",
    "Parsing",
    "UnknownTypeError",
    "parse_with",
]

_HOMES = {
    "contract": ["Limits", "NoTextError", "ParseError", "UnknownTypeError"],
    "parsing": ["Parser", "parse_with"],
    "pool": ["ParserPool", "Parsing"],
    "registry": ["ParserInfo", "ParserSpec", "Parsers"],
}

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
