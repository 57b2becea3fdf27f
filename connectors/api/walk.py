"""What is remembered while pages are read one after the other, so that reading always ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
from xxhash import xxh3_64_intdigest

from contextframe_beam.connectors.api.totals import PAGES, Stated
from contextframe_beam.connectors.mapper import as_text
from contextframe_beam.errors import ConnectorError

#: More empty pages than this in a row, each of which promises more, are taken for an endless loop.
MOST_EMPTY_PAGES = 1000


@dataclass(slots=True)
class Walk:
    """The pages of one partition that were read so far.

    Attributes:
        pages: Their number.
        items: The number of their records that were kept.
        newest: The greatest value of the incremental field.
        seen: Digests of their contents.
        empty: How many empty ones came last.
        cut: Whether a limit ended it before the source did.
        partial: Why what was read so far may not be all that was asked for, until a page says it;
            empty where it is.
        place: Where the records of the first page were, empty as long as none told.
        stated: What the first answer that told said about the whole.
        filled: The number of pages that had records.
    """

    pages: int = 0
    items: int = 0
    newest: Any = None
    seen: set[int] = field(default_factory=set)
    empty: int = 0
    cut: bool = False
    partial: str = ""
    place: str = ""
    stated: Stated | None = None
    filled: int = 0

    @property
    def is_one_page(self) -> bool:
        """Whether several pages were read, all with the same records."""
        return self.filled > 1 and len(self.seen) == 1

    def may_repeat(self, count: int) -> bool:
        """Tells whether a page of so many records is within what was stated.

        Two equal pages of records without ids may be chance, and a stated number always ends.
        """
        if self.stated is None:
            return False
        if self.stated.unit == PAGES:
            return self.pages <= self.stated.number
        return self.items + count <= self.stated.number

    def doubt(self, reason: str) -> None:
        """Remembers a reason for which what was read may not be all."""
        if reason and reason not in self.partial:
            self.partial = f"{self.partial}; {reason}" if self.partial else reason

    def compare(self, stated: Stated | None) -> None:
        """Takes in what an answer states; that it changed means that the source did."""
        if stated is None:
            return
        if self.stated is None:
            self.stated = stated
        elif stated != self.stated and stated.unit == self.stated.unit:
            self.doubt(
                f"the API stated {self.stated}, and later {stated.number}, so it changed while it "
                "was read and some records may have been missed; run it again"
            )

    def is_new(self, records: Sequence[Any]) -> bool:
        """Takes a page to the known ones; tells whether it was not yet.

        Raises:
            ConnectorError: the source gives nothing but empty pages.
        """
        self.pages += 1
        if not records:
            self.empty += 1
            if self.empty > MOST_EMPTY_PAGES:
                raise ConnectorError(
                    f"the source gave {self.empty} empty pages in a row and says that there is "
                    "more; check the paginator"
                )
            return True
        self.empty = 0
        self.filled += 1
        known = len(self.seen)
        self.seen.add(digest(records))
        return len(self.seen) > known


@dataclass(frozen=True, slots=True)
class Step:
    """The cursor of a page: the paginator's token, and the walk that it belongs to."""

    token: Any
    walk: Walk

    def __repr__(self) -> str:
        return repr(self.token)


def digest(records: Sequence[Any]) -> int:
    """Returns 64 bits that are the same for pages of the same records, in every process."""
    try:
        return xxh3_64_intdigest(orjson.dumps(records))
    except (TypeError, ValueError):  # integers of more than 64 bits
        return xxh3_64_intdigest(as_text(list(records)).encode("utf-8", "surrogatepass"))


def repeated(what: str, param: str = "") -> ConnectorError:
    """Returns the error about a page that came a second time.

    Args:
        what: The page.
        param: What tells the API which page is meant; empty where an address does.
    """
    ignored = f"{param!r}, which names the page" if param else "what names the page"
    right = "write the name that it takes as the paginator's param" if param else "look at it"
    return ConnectorError(
        f"{what} has the same records as one before it, so reading would never end; the source "
        f"ignores {ignored} ({right}, or set the paginator single if there is only one page), or "
        "repeats its last page (tell the paginator where the total or has_more is)"
    )
