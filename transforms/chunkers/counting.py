"""How long a text is for a model, in tokens."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Protocol, runtime_checkable

from contextframe_beam.errors import ContextFrameError


class ChunkError(ContextFrameError, ValueError):
    """A document that cannot be cut into chunks."""


@runtime_checkable
class TokenCounter(Protocol):
    """Counts tokens as a model sees them. Every embedder is one."""

    def count(self, texts: Sequence[str]) -> list[int]:
        """Returns the length of each text in tokens, special tokens of the model included."""


class PlainCounter:
    """Counts tokens where no model says what they are.

    A token is up to four letters or digits of ASCII, or any other character that is not white
    space. Models of English count fewer: it errs on the side of shorter chunks. A text that is cut
    has as many tokens in its parts as whole, so that an edit changes the chunks around it only; the
    guess for the budget of a service, `estimated_tokens`, is safer there and lacks this.
    """

    version = "1"

    def count(self, texts: Sequence[str]) -> list[int]:
        """Returns the length of each text."""
        return [len(_TOKEN.findall(text)) for text in texts]


_MOST_GAPS = 1000
_TOKEN = re.compile(r"[0-9A-Za-z]{1,4}|[^0-9A-Za-z\s]")


class Lengths:
    """What pieces of a text add to its length.

    Lengths of pieces are added up to guess the length of what they make together, so each counts
    without the special tokens that the model puts around a text, and white space between two pieces
    counts by what it adds to them.
    """

    def __init__(self, counter: TokenCounter) -> None:
        self._counter = counter
        [self.special, self._letter] = self.whole(["", "a"])
        self._gaps: dict[str, int] = {"": 0}

    def whole(self, texts: Sequence[str]) -> list[int]:
        """Returns the lengths of whole texts, special tokens included.

        Raises:
            ChunkError: the counter gives another number of lengths.
        """
        lengths = list(self._counter.count(texts))
        if len(lengths) != len(texts):
            raise ChunkError(
                f"{type(self._counter).__name__}.count gave {len(lengths)} lengths for "
                f"{len(texts)} texts; it has to give one for each"
            )
        return lengths

    def pieces(self, texts: Sequence[str]) -> list[int]:
        """Returns the lengths of pieces of texts, each counted once."""
        distinct = list(dict.fromkeys(texts))
        if len(distinct) == len(texts):
            return [max(0, length - self.special) for length in self.whole(texts)]
        known = dict(zip(distinct, self.whole(distinct), strict=True))
        return [max(0, known[text] - self.special) for text in texts]

    def gaps(self, gaps: Iterable[str]) -> list[int]:
        """Returns what white space adds to the length of two pieces that it separates."""
        wanted = list(gaps)
        known = self._gaps
        new = [gap for gap in dict.fromkeys(wanted) if gap not in known]
        if new:
            known = dict(known) if len(known) < _MOST_GAPS else {"": 0}
            new = [gap for gap in dict.fromkeys(wanted) if gap not in known]
            alone = 2 * self._letter - self.special
            for gap, length in zip(new, self.whole([f"a{gap}a" for gap in new]), strict=True):
                known[gap] = max(0, length - alone)
            self._gaps = known  # as a whole: other threads read it
        return [known[gap] for gap in wanted]
