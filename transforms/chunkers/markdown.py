"""Cuts Markdown, and any plain text, into chunks that a model can read whole."""

from __future__ import annotations

import itertools
import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from contextframe_beam.errors import ConfigError
from contextframe_beam.frames.document import Chunk, Document
from contextframe_beam.transforms.chunkers.blocks import AFTER_RULE, Block, blocks_of
from contextframe_beam.transforms.chunkers.counting import (
    ChunkError,
    Lengths,
    PlainCounter,
    TokenCounter,
)
from contextframe_beam.transforms.chunkers.cuts import PROSE, ROWS, TIED
from contextframe_beam.transforms.chunkers.packing import UNKNOWN, Packing, Piece

DEFAULT_TOKENS = 256
_FEWEST_TOKENS = 16
# What shows nothing and belongs to what follows: anchors and comments.
_PRELUDE = "prelude"
_PRELUDES = re.compile(r"(?:<a\s[^<>]*>(?:\s*</a>)?\s*|<!--(?:(?!-->)[\s\S])*-->\s*)+\Z", re.A)


class MarkdownChunker:
    """Cuts documents into chunks of blocks that belong together.

    A chunk holds whole blocks (headings, paragraphs, items of lists, fences, tables) as long as
    they fit. It may hold small neighbouring sections, but ends before a heading that is higher than
    that of the section before. A heading goes with what follows it. A fence that is cut is closed
    and opened again, and each part of a table begins with its head.

    The chunks cover the text: each character that is not white space is between the `start` and
    `end` of a chunk; without an overlap, of exactly one. `text[start:end]` stands in the chunk as
    it is, after a repeated opening and before a closing mark. The same text gives the same chunks,
    and a local edit changes the chunks around it only.

    Args:
        tokens: How long a chunk may be, in tokens of the counter; no chunk is longer.
        overlap: How many tokens of the chunk before it a chunk repeats at most. They are whole
            sentences or words, and no heading lies between.
        counter: Who counts: the embedder. Without one, `PlainCounter` does.

    Raises:
        ConfigError: a limit that no chunk can keep, or an overlap of more than half of it.
    """

    version = "2"

    def __init__(
        self,
        tokens: int = DEFAULT_TOKENS,
        overlap: int = 0,
        counter: TokenCounter | None = None,
    ) -> None:
        if tokens < _FEWEST_TOKENS:
            raise ConfigError(
                f"a chunk of {tokens} tokens is too short; give {_FEWEST_TOKENS} at least"
            )
        if not 0 <= overlap <= tokens // 2:
            raise ConfigError(
                f"chunks of {tokens} tokens cannot overlap by {overlap}; give 0 to {tokens // 2}"
            )
        self.tokens = tokens
        self.overlap = overlap
        self.counter = counter if counter is not None else PlainCounter()
        self._lengths = Lengths(self.counter)
        if self._limit < _FEWEST_TOKENS // 2:
            raise ConfigError(
                f"chunks of {tokens} tokens leave no room beside the {self._lengths.special} "
                "special tokens of the model; give more"
            )

    @property
    def settings(self) -> dict[str, int]:
        """What decides the chunks, beside the text, the version and the counter."""
        return {"tokens": self.tokens, "overlap": self.overlap}

    @property
    def _limit(self) -> int:
        return self.tokens - self._lengths.special

    def chunk(self, document: Document) -> list[Chunk]:
        """Returns the chunks of a document, in order; none for a text of white space.

        Raises:
            ChunkError: a single character is longer than a chunk may be.
        """
        cutting = _Cutting(document, self._lengths, self.tokens, self.overlap)
        return cutting.chunks()


class _Cutting:
    """Cuts one document."""

    def __init__(self, document: Document, lengths: Lengths, tokens: int, overlap: int) -> None:
        self._document = document
        self._text = document.text
        self._lengths = lengths
        self._tokens = tokens
        self._overlap = overlap
        self._limit = tokens - lengths.special - overlap
        self._blocks = blocks_of(document.text, document.headings)
        self._join_preludes()
        self._paths = _paths(self._blocks)
        self._marks: dict[str, int] = {}

    def chunks(self) -> list[Chunk]:
        pieces = self._cut_large(self._whole_blocks())
        spans = self._spans(Packing(self._text, pieces, self._limit))
        if self._overlap:
            self._overlap_spans(spans)
        return [self._chunk(span) for span in self._within_limit(spans)]

    def _join_preludes(self) -> None:
        """Lets an anchor or comment begin the section whose heading follows it."""
        for follows, block in itertools.pairwise(reversed(self._blocks)):
            if self._text.startswith(("<a ", "<!--"), block.start) and _PRELUDES.match(
                self._text, block.start, block.end
            ):
                block.kind = _PRELUDE
                if follows.kind in ("heading", _PRELUDE):
                    block.border, block.headings = follows.border, follows.headings

    def _whole_blocks(self) -> list[Piece]:
        pieces = []
        depth = 0  # the level of the section that goes on
        before = None
        for number, block in enumerate(self._blocks):
            piece = Piece(block.start, block.end, block.border, block=number)
            level = min((one for one, _ in block.headings), default=0)
            if before is not None:
                piece.is_first = before.is_left_open or 0 < level < depth
                goes_with = before.kind in ("heading", _PRELUDE) and (not level or level > depth)
                goes_with |= block.kind == "heading" and before.kind == _PRELUDE
                if not piece.is_first and (block.kind == "rule" or goes_with):
                    piece.border = TIED
                elif before.kind == "rule":
                    piece.border = max(piece.border, AFTER_RULE)
            if level:
                depth = block.headings[-1][0]
            if block.is_left_open:
                self._close(piece, block.closing)
            pieces.append(piece)
            before = block
        self._measure(pieces)
        self._measure_gaps(pieces)
        return pieces

    def _cut_large(self, pieces: list[Piece]) -> list[Piece]:
        """Cuts pieces that are too large, in ever finer ways, until each fits into a chunk."""
        while large := self._large(pieces):
            kept: list[Piece] = []
            for number, piece in enumerate(pieces):
                kept += self._parts(piece) if number in large else [piece]
            self._measure([one for one in kept if one.tokens == UNKNOWN])
            self._measure_gaps(kept)
            pieces = kept
        return pieces

    def _measure(self, pieces: Sequence[Piece]) -> None:
        told = [self._text[one.start : one.end] for one in pieces]
        for piece, tokens in zip(pieces, self._lengths.pieces(told), strict=True):
            piece.tokens = tokens

    def _measure_gaps(self, pieces: Sequence[Piece]) -> None:
        pairs = list(itertools.pairwise(pieces))
        gaps = self._lengths.gaps(self._text[one.end : other.start] for one, other in pairs)
        for (_, piece), tokens in zip(pairs, gaps, strict=True):
            piece.gap = tokens

    def _large(self, pieces: Sequence[Piece]) -> set[int]:
        """Returns the pieces that fit into no chunk together with the headings before them."""
        large = set()
        tied = 0
        for number, piece in enumerate(pieces):
            tied = tied + piece.gap if piece.border == TIED else 0
            room = self._limit - piece.opening_tokens - piece.closing_tokens
            if piece.tokens > (room - tied if 2 * tied <= room else room):
                large.add(number)
            tied += piece.tokens
        return large

    def _parts(self, piece: Piece) -> list[Piece]:
        """Returns a piece cut in the next finer way."""
        block = self._blocks[piece.block]
        ways = ROWS if block.kind in ("fence", "code", "table") else PROSE
        if piece.level == len(ways):
            shown = self._text[piece.start : piece.end]
            raise ChunkError(
                f"the character {shown!r} at {piece.start} has {piece.tokens} tokens, which is too "
                f"much for chunks of {self._tokens}; allow longer ones"
            )
        way = ways[piece.level]
        parts = [
            replace(
                piece,
                start=start,
                end=end,
                border=border,
                tokens=UNKNOWN,
                level=piece.level + 1,
                is_first=False,
            )
            for start, end, border in way(self._text, piece.start, piece.end)
        ]
        parts[0].border, parts[0].is_first = piece.border, piece.is_first
        if piece.level == 0 and block.opening:
            self._repeat(block, parts)
        return parts

    def _repeat(self, block: Block, lines: Sequence[Piece]) -> None:
        """Lets parts of a fence or table repeat what makes them one."""
        heads = 2 if block.kind == "table" else 1
        for opening in (block.opening, block.closing[1:] + "\n"):
            length = self._length_of(opening) + self._length_of(block.closing)
            if opening.strip() and 2 * length <= self._limit:
                break
        else:
            return
        for number, line in enumerate(lines):
            is_last = number == len(lines) - 1
            if 0 < number <= heads or (is_last and block.closing and not block.is_left_open):
                line.border = TIED
            if number >= heads:
                line.opening, line.opening_tokens = opening, self._length_of(opening)
            if not is_last or block.is_left_open:
                self._close(line, block.closing)

    def _close(self, piece: Piece, closing: str) -> None:
        piece.closing, piece.closing_tokens = closing, self._length_of(closing)

    def _length_of(self, mark: str) -> int:
        """Returns what an opening or closing adds to a text, its line end included."""
        if mark not in self._marks:
            [length] = self._lengths.pieces([mark.strip("\n")]) if mark else [0]
            self._marks[mark] = length + sum(self._lengths.gaps(["\n"] if mark else []))
        return self._marks[mark]

    def _spans(self, packing: Packing) -> list[_Span]:
        if not packing.pieces:
            return []
        return [
            _Span(packing, first, last) for first, last in packing.runs(0, len(packing.pieces) - 1)
        ]

    def _within_limit(self, spans: Sequence[_Span]) -> Iterator[_Span]:
        """Yields chunks within the limit, by the count of their whole texts."""
        unknown = []
        for span in spans:
            known = span.only_piece
            if known is None:
                unknown.append(span)
            else:
                span.tokens = known.tokens + self._lengths.special
        counts = self._lengths.whole([span.text(self._text) for span in unknown])
        for span, tokens in zip(unknown, counts, strict=True):
            span.tokens = tokens
        for span in spans:
            tokens = span.tokens
            if tokens <= self._tokens:
                yield span
            elif span.lead:
                span.lead = None
                yield from self._within_limit([span])
            elif span.first < span.last:
                middle = span.packing.strongest(span.first, span.last)
                halves = [replace(span, last=middle - 1), replace(span, first=middle)]
                yield from self._within_limit(halves)
            else:
                piece = span.packing.pieces[span.first]
                pieces = self._parts(piece)
                self._measure(pieces)
                self._measure_gaps(pieces)
                limit = self._limit * self._tokens // tokens
                pieces = self._cut_large(pieces)
                yield from self._within_limit(self._spans(Packing(self._text, pieces, limit)))

    def _overlap_spans(self, spans: Sequence[_Span]) -> None:
        """Lets chunks begin with the end of the chunk before."""
        for before, span in itertools.pairwise(spans):
            pieces = span.packing.pieces
            if not self._begins_section(pieces[span.first]):
                span.lead = self._lead(
                    list(pieces[before.first : before.last + 1]), pieces[span.first]
                )

    def _lead(self, pieces: list[Piece], follows: Piece) -> Piece | None:
        """Returns the piece at which a chunk begins that repeats what stands before it."""
        room = self._overlap
        lead = None
        fits = False
        gap = follows.gap
        while pieces:
            piece = pieces.pop()
            length = piece.tokens + gap
            if length + piece.opening_tokens <= room + follows.opening_tokens:
                room -= length
                gap = piece.gap
                fits = True
                # Nobody reads on from the second row of a head, or from the end of a fence.
                lead = piece if piece.border != TIED else lead
                if self._begins_section(piece):
                    break
                continue
            if fits or piece.level >= 3:
                break
            pieces = self._parts(piece)
            self._measure(pieces)
            self._measure_gaps(pieces)
        return lead

    def _begins_section(self, piece: Piece) -> bool:
        block = self._blocks[piece.block]
        return bool(block.headings) and piece.start == block.start

    def _chunk(self, span: _Span) -> Chunk:
        start, end = span.start, span.end
        pages = self._document.pages
        first, last = span.packing.pieces[span.first], span.packing.pieces[span.last]
        return Chunk(
            span.text(self._text),
            start,
            end,
            self._headings(first.block, last.block),
            max(1, bisect_right(pages, start)) if pages else None,
            span.tokens,
        )

    def _headings(self, first: int, last: int) -> tuple[str, ...]:
        """Returns the headings that all blocks of a chunk stand under, but for headings."""
        numbers = range(first, last + 1)
        inner = [one for one in numbers if self._blocks[one].kind not in ("heading", _PRELUDE)]
        return _common([self._paths[one] for one in inner or numbers])


@dataclass(slots=True)
class _Span:
    """What becomes a chunk: some pieces, and perhaps a lead that the chunk before has as well."""

    packing: Packing
    first: int
    last: int
    lead: Piece | None = None
    tokens: int = 0

    @property
    def start(self) -> int:
        return (self.lead or self.packing.pieces[self.first]).start

    @property
    def end(self) -> int:
        return self.packing.pieces[self.last].end

    @property
    def only_piece(self) -> Piece | None:
        """The piece whose text is all of it, if there is one."""
        piece = self.packing.pieces[self.first]
        if self.first < self.last or self.lead or piece.opening or piece.closing:
            return None
        return piece

    def text(self, text: str) -> str:
        opening = (self.lead or self.packing.pieces[self.first]).opening
        return opening + text[self.start : self.end] + self.packing.pieces[self.last].closing


def _paths(blocks: Sequence[Block]) -> list[tuple[str, ...]]:
    """Returns the titles of the headings that each block stands under."""
    paths = []
    open_ones: list[tuple[int, str]] = []
    path: tuple[str, ...] = ()
    for block in blocks:
        for level, title in block.headings:
            while open_ones and open_ones[-1][0] >= level:
                open_ones.pop()
            open_ones.append((level, title))
        if block.headings:
            path = tuple(title for _, title in open_ones if title)
        paths.append(path)
    return paths


def _common(paths: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """Returns the headings that all of a chunk stands under, but for text before any heading."""
    some = [path for path in dict.fromkeys(paths) if path]
    shortest = min(map(len, some), default=0)
    for length in range(shortest):
        if any(path[length] != some[0][length] for path in some):
            return some[0][:length]
    return some[0][:shortest] if some else ()
