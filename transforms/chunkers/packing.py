"""Which pieces of a text make a chunk together, so that an edit changes the chunks around it only.

Filling one chunk after another would move every border after an edit. Here all borders stand at
first, and are taken away one by one, the weakest first, wherever what they separate fits into one
chunk. Among borders of equal strength the order is that of a digest of the text after them. So a
border stays or goes for what stands near it, and no border far from an edit learns of it: whether
an effect reaches one chunk further depends on the order of the borders between, and becomes less
likely with each of them as one over the factorial of their number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import xxhash

# Only the beginning of a piece decides about the border before it, as long as beginnings differ:
# most edits leave it alone.
_BEGINNING = 32
_DIGEST = 1 << 64

UNKNOWN = -1


@dataclass(slots=True)
class Piece:
    """A piece of a text that is not cut any more.

    Attributes:
        start: Where it begins, in characters.
        end: Where it ends, exclusive.
        border: How strongly it is separated from the piece before.
        tokens: Its length; -1 while nobody has counted.
        gap: The length of the white space before it.
        block: The number of the block that it is or belongs to.
        level: How often that block was cut to make it.
        is_first: Whether a chunk has to begin with it.
        opening: What a chunk says first that begins with it.
        closing: What a chunk says last that ends with it.
        opening_tokens: The length of `opening`.
        closing_tokens: The length of `closing`.
    """

    start: int
    end: int
    border: int
    tokens: int = UNKNOWN
    gap: int = 0
    block: int = 0
    level: int = 0
    is_first: bool = False
    opening: str = ""
    closing: str = ""
    opening_tokens: int = 0
    closing_tokens: int = 0


class Run(NamedTuple):
    """Pieces that make a chunk: from `first` to `last`, that one included."""

    first: int
    last: int


class Packing:
    """Packs the pieces of a text into chunks.

    Args:
        text: The text.
        pieces: Its pieces, in order.
        limit: How long a chunk may be, without the special tokens of its model.
    """

    def __init__(self, text: str, pieces: Sequence[Piece], limit: int) -> None:
        self.pieces = pieces
        self.limit = limit
        self._keys = _keys(text, pieces)
        # Lengths up to and including each piece, with the gaps before.
        self._sums: list[int] = []
        total = 0
        for piece in pieces:
            total += piece.gap + piece.tokens
            self._sums.append(total)

    def length(self, first: int, last: int) -> int:
        """Returns how long a chunk of these pieces is, as the lengths of its pieces say."""
        begin, end = self.pieces[first], self.pieces[last]
        inner = self._sums[last] - self._sums[first] + begin.tokens
        return begin.opening_tokens + inner + end.closing_tokens

    def runs(self, first: int, last: int) -> list[Run]:
        """Returns the chunks that pieces make, in order."""
        begins = list(range(first, last + 1))  # by their last piece, where the run begins
        ends = list(begins)  # by its first piece, where the run ends
        pieces, keys = self.pieces, self._keys
        for border in sorted(range(first + 1, last + 1), key=keys.__getitem__):
            if pieces[border].is_first:
                continue
            begin, end = begins[border - 1 - first], ends[border - first]
            if self.length(begin, end) <= self.limit:
                ends[begin - first] = end
                begins[end - first] = begin
        found = []
        begin = first
        while begin <= last:
            found.append(Run(begin, ends[begin - first]))
            begin = ends[begin - first] + 1
        return self._without_scraps(found)

    def strongest(self, first: int, last: int) -> int:
        """Returns the piece after the strongest border between these pieces."""
        return max(range(first + 1, last + 1), key=self._keys.__getitem__)

    def _without_scraps(self, runs: list[Run]) -> list[Run]:
        """Lets a chunk of a few tokens share with its neighbour, if no stronger border is lost."""
        scrap = self.limit // 8
        done: list[Run] = []
        taken = False  # whether the last of `done` has shared already
        for number, run in enumerate(runs):
            follows = runs[number + 1] if number + 1 < len(runs) else None
            if self.length(*run) >= scrap:
                done.append(run)
                taken = False
                continue
            shared = None
            if done and not taken and not self.pieces[run.first].is_first:
                shared = self._shared(done[-1], run)
            if shared:
                done[-1:] = shared
                taken = True
            else:
                done.append(run)
                taken = False
                if follows and not self.pieces[follows.first].is_first:
                    shared = self._shared(run, follows)
                    if shared:
                        done[-1] = shared[0]
                        runs[number + 1] = shared[1]
                        taken = True
        return done

    def _shared(self, left: Run, right: Run) -> list[Run] | None:
        """Returns two chunks from the pieces of two, both large enough; None if impossible."""
        least = self.limit // 4
        border = self.pieces[right.first].border
        best = None
        for middle in range(left.first + 1, right.last + 1):
            if (
                self.pieces[middle].border >= border
                and least <= self.length(left.first, middle - 1) <= self.limit
                and least <= self.length(middle, right.last) <= self.limit
                and (best is None or self._keys[middle] > self._keys[best])
            ):
                best = middle
        return [Run(left.first, best - 1), Run(best, right.last)] if best is not None else None


def _keys(text: str, pieces: Sequence[Piece]) -> list[int]:
    """Returns the order in which the borders before pieces are taken away."""
    keys = []
    for piece in pieces:
        told = text[piece.start : piece.end].strip().encode("utf-8", "surrogatepass")
        begins = xxhash.xxh3_64_intdigest(told[:_BEGINNING])
        whole = xxhash.xxh3_64_intdigest(told)
        keys.append((piece.border * _DIGEST + begins) * _DIGEST + whole)
    return keys
