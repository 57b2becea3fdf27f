"""What is remembered while pages are read one after the other, so that reading always ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
from xxhash import xxh3_64_intdigest

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
        partial: Why what was read so far may not be all that was asked for; empty where it is.
    """

    pages: int = 0
    items: int = 0
    newest: Any = None
    seen: set[int] = field(default_factory=set)
    empty: int = 0
    cut: bool = False
    partial: str = ""

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


def repeated(what: str) -> ConnectorError:
    """Returns the error about a page that came a second time."""
    return ConnectorError(
        f"{what} has the same records as one before it, so reading would never end; the source "
        "ignores what names the page (set the paginator single if there is only one), or repeats "
        "its last page (tell the paginator where the total or has_more is)"
    )
