"""What is remembered of the pages that were read, so that reading always ends; and their names."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
from xxhash import xxh3_64_intdigest

from contextframe_beam.connectors.api.detect import Found
from contextframe_beam.connectors.api.numbered import At, Offset, Range
from contextframe_beam.connectors.api.paginate import GraphQL, Paginator
from contextframe_beam.connectors.api.totals import PAGES, Stated
from contextframe_beam.connectors.mapper import as_text
from contextframe_beam.connectors.secrets import redact
from contextframe_beam.errors import ConnectorError

#: More empty pages than this in a row, each of which promises more, are taken for an endless loop.
MOST_EMPTY_PAGES = 1000
#: A page of the same records with the same ids comes so often before it is taken for a loop.
MOST_REPETITIONS = 3

# After so many empty pages in a row those behind are taken to be empty as well.
_EMPTY_IN_A_ROW = 20
_PARTITIONS_REMEMBERED = 100
_PAGES_REMEMBERED = 100_000
_SHOWN_TOKEN = 200


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


@dataclass(slots=True)
class Seen:
    """What this process saw of the numbered pages of one partition in one run.

    Attributes:
        digests: The numbers of the pages that had certain records, by the digest of these.
        empty: The numbers of the empty ones.
        end: The number of the first page that need not be asked for; None while that is not known.
    """

    digests: dict[int, set[int]] = field(default_factory=dict)
    empty: set[int] = field(default_factory=set)
    end: int | None = None

    def is_behind(self, index: int) -> bool:
        """Tells whether so many pages before this one were empty that it need not be asked for."""
        return self.end is not None and index >= self.end


class SeenPages:
    """What this process saw of numbered pages, by partition; used by several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: OrderedDict[tuple[str, str], Seen] = OrderedDict()

    def of(self, run: str, partition: str) -> Seen:
        """Returns what was seen of a partition in a run; those of long ago are forgotten."""
        with self._lock:
            seen = self._seen.setdefault((run, partition), Seen())
            while len(self._seen) > _PARTITIONS_REMEMBERED:
                self._seen.popitem(last=False)
            return seen

    def note(self, seen: Seen, index: int, content: int) -> int:
        """Remembers a page by the digest of its records; returns how many pages had these."""
        with self._lock:
            alike = seen.digests.setdefault(content, set())
            alike.add(index)
            if len(seen.digests) > _PAGES_REMEMBERED:
                seen.digests.clear()
            return len(alike)

    def note_empty(self, seen: Seen, index: int) -> None:
        """Remembers an empty page; enough of them in a row are the end."""
        with self._lock:
            seen.empty.add(index)
            first = last = index
            while first - 1 in seen.empty:
                first -= 1
            while last + 1 in seen.empty:
                last += 1
            if last - first + 1 >= _EMPTY_IN_A_ROW and (seen.end is None or first < seen.end):
                seen.end = first


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


def position_of(paginator: Paginator, token: Any) -> str:
    """Returns a page's place for messages: `page 3`, `offset 200`, `page abc`."""
    if isinstance(token, Found):
        paginator, token = token.paginator, token.token
    if token is None:
        return "first page"
    text = redact(token if isinstance(token, str) else repr(token))
    text = text if len(text) <= _SHOWN_TOKEN else text[:_SHOWN_TOKEN] + "..."
    return f"{'offset' if isinstance(paginator, Offset | Range) else 'page'} {text}"


def param_of(paginator: Paginator, token: Any) -> str:
    """Returns the name of what tells the API which page is meant; empty where an address does."""
    if isinstance(token, Found):
        paginator = token.paginator
    if isinstance(paginator, GraphQL):
        return f"body:variables.{paginator.variable}"
    return str(getattr(paginator, "param", None) or "")


def is_past(token: Any) -> bool:
    """Tells whether a token is that of a page behind those that were stated."""
    inner = token.token if isinstance(token, Found) else token
    return isinstance(inner, At) and inner.past
