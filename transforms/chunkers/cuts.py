"""Where a block that is too large may be cut: lines, sentences, words, and at last characters.

Every class of characters is spelt out, or comes from the database of Unicode 3.2 that every Python
carries: the borders of a text are the same whatever knows newer characters.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator
from functools import cache
from typing import NamedTuple

# How strongly a border separates what stands on its two sides; see `blocks` for the stronger ones.
TIED = 0
_CHARACTER = 2
_PART = 5
_CLAUSE_OF_PARTS = 6
_WORD = 10
_CLAUSE = 11
_LINE = 20
_EMPTY_LINE = 21
_SENTENCE = 22

_WORDS = re.compile(r"\S+")
_ENDS_CLAUSE = frozenset(",;:)]}|\u2014\u3001\uff0c\uff1a\uff1b")
# A full stop ends a sentence where a small letter does not follow, as one does after "e.g.". Only
# the last of several is looked at: a text of nothing else would take the square of its length.
_SENTENCE_END = re.compile(
    r"""[.!?\u2026](?![.!?\u2026])["'\u201d\u2019)\]*_`]{0,4}(?=\s+[^\sa-z])"""
    r"|[\u3002\uff01\uff1f\uff61]+[\u300d\u300f\uff09\u201d\u2019\"']{0,4}"
    r"|\n"
)
# Marks that change the character before them: accents, and what makes a digit a key.
_ACCENTS = "\u0300-\u036f\u20d0-\u20ff\ufe00-\ufe0f"
_MARKS = r"!-/:-@\[-`{-~"
_PARTS = re.compile(
    rf"[^\x00-/:-@\[-`{{-\x7f\u3001\uff0c\uff1a\uff1b]+[{_MARKS}\u3001\uff0c\uff1a\uff1b]*[{_ACCENTS}]*"
    rf"|[{_MARKS}]+[{_ACCENTS}]*"
    r"|[\s\S]"
)
# Some characters that stand in most texts of their kind: where a text without spaces is cut first.
_FREQUENT = "059AEQaegkwz=\u306e\u306f\u3092\u306b\u7684\u4e00\u662f\u4e0d"
_GRAIN = 32


class Cut(NamedTuple):
    """A part of a text.

    Attributes:
        start: Where it begins, in characters.
        end: Where it ends, exclusive.
        border: How strongly it is separated from the part before.
    """

    start: int
    end: int
    border: int


def lines(text: str, start: int, end: int) -> Iterator[Cut]:
    """Yields the lines of a part of a text that are not empty, with their indents."""
    border = TIED
    position = start
    for line in text[start:end].split("\n"):
        if line and not line.isspace():
            yield Cut(position, position + len(line.rstrip()), border)
            border = _LINE
        elif border:
            border = _EMPTY_LINE
        position += len(line) + 1


def sentences(text: str, start: int, end: int) -> Iterator[Cut]:
    """Yields the lines of a part of a text, cut where sentences end."""
    border = TIED
    position = start
    for found in _SENTENCE_END.finditer(text, start, end):
        cut = _trimmed(text, position, found.end(), border)
        position = found.end()
        if cut:
            yield cut
            border = 0
        border = max(border, _LINE if found[0] == "\n" else _SENTENCE)
        if found[0] == "\n" and text[max(start, found.start() - 1) : found.start()] in tuple(".!?"):
            border = _SENTENCE
    last = _trimmed(text, position, end, border)
    if last:
        yield last


def words(text: str, start: int, end: int) -> Iterator[Cut]:
    """Yields what stands between white space; the first with its indent."""
    border = TIED
    for found in _WORDS.finditer(text, start, end):
        yield Cut(start if border == TIED else found.start(), found.end(), border)
        border = _CLAUSE if text[found.end() - 1] in _ENDS_CLAUSE else _WORD


def parts(text: str, start: int, end: int) -> Iterator[Cut]:
    """Yields letters and digits with the marks after them, or clauses of other scripts."""
    border = TIED
    for found in _PARTS.finditer(text, start, end):
        if found[0].isspace():
            continue
        yield Cut(found.start(), found.end(), border)
        border = _CLAUSE_OF_PARTS if text[found.end() - 1] in _ENDS_CLAUSE else _PART


def grains(text: str, start: int, end: int) -> Iterator[Cut]:
    """Yields up to 32 characters that end with a frequent one: an edit moves few borders."""
    return _matches(_grain(), text, start, end)


def characters(text: str, start: int, end: int) -> Iterator[Cut]:
    """Yields what a reader takes for one character: a letter with its accents, an emoji."""
    return _matches(re.compile(_character()), text, start, end)


def code_point_runs(text: str, start: int, end: int) -> Iterator[Cut]:
    """Yields 16 code points at a time."""
    return _matches(re.compile(r"[\s\S]{1,16}"), text, start, end)


def code_points(text: str, start: int, end: int) -> Iterator[Cut]:
    """Yields single code points."""
    return _matches(re.compile(r"[\s\S]"), text, start, end)


def _matches(pattern: re.Pattern[str], text: str, start: int, end: int) -> Iterator[Cut]:
    border = TIED
    for found in pattern.finditer(text, start, end):
        if not found[0].isspace():
            yield Cut(found.start(), found.end(), border)
            border = _CHARACTER


Cutter = Callable[[str, int, int], Iterator[Cut]]
_WITHIN_LINES: tuple[Cutter, ...] = (
    words,
    parts,
    grains,
    characters,
    code_point_runs,
    code_points,
)
#: How blocks of prose are cut, the coarsest way first.
PROSE: tuple[Cutter, ...] = (sentences, *_WITHIN_LINES)
#: How blocks are cut whose lines mean something: code, tables.
ROWS: tuple[Cutter, ...] = (lines, *_WITHIN_LINES)


def _trimmed(text: str, start: int, end: int, border: int) -> Cut | None:
    """Returns a part without white space around it, but with the indent of its first line."""
    inner = text[start:end]
    bare = inner.lstrip()
    if not bare:
        return None
    skipped = len(inner) - len(bare)
    line = inner.rfind("\n", 0, skipped) + 1
    if line == 0 and start > 0 and text[start - 1] != "\n":
        line = skipped
    return Cut(start + line, start + len(inner.rstrip()), border)


@cache
def _character() -> str:
    """Returns the pattern of a character with all that belongs to it."""
    known = unicodedata.ucd_3_2_0
    marks = "".join(
        chr(code)
        for code in range(0x300, 0xFFFF)
        if known.category(chr(code)) in ("Mn", "Mc", "Me")
    )
    # Vowels and finals of Hangul, joiners, variants, skin tones, and the letters of flags in tags.
    others = (
        "\u1160-\u11ff\u200c\ufe00-\ufe0f\U0001f3fb-\U0001f3ff\U000e0020-\U000e007f"
        "\U000e0100-\U000e01ef"
    )
    extend = f"[{re.escape(marks)}{others}]"
    base = r"(?:[\U0001f1e6-\U0001f1ff]{2}|\r\n|[\s\S])"
    return rf"{base}{extend}*(?:\u200d[\s\S]?{extend}*)*"


@cache
def _grain() -> re.Pattern[str]:
    one = _character()
    return re.compile(rf"(?:(?![{_FREQUENT}]){one}){{0,{_GRAIN - 1}}}{one}")
