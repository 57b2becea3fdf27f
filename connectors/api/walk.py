"""Remembers the pages that were read, so that reading always ends; keeps answers; names pages."""

from __future__ import annotations

import hashlib
import json
import threading
import zlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import orjson
from xxhash import xxh3_64_intdigest

from contextframe_beam.connectors.api.answer import ROOT, Answer
from contextframe_beam.connectors.api.detect import Found
from contextframe_beam.connectors.api.evidence import PAGES, Stated
from contextframe_beam.connectors.api.incremental import Scope
from contextframe_beam.connectors.api.inner import Node, Tree
from contextframe_beam.connectors.api.numbered import At, Offset, Range
from contextframe_beam.connectors.api.paginate import GraphQL, Paginator
from contextframe_beam.connectors.api.resource import Endpoint
from contextframe_beam.connectors.http.request import HttpRequest, HttpResponse
from contextframe_beam.connectors.mapper import as_text
from contextframe_beam.connectors.secrets import redact
from contextframe_beam.errors import ConnectorError

#: More empty pages than this in a row, if each promises more, count as an endless loop.
MOST_EMPTY_PAGES = 1000
#: How often a page of the same records and ids may come before it counts as a loop.
MOST_REPETITIONS = 3

# After this many empty pages in a row, the following pages count as empty too.
_EMPTY_IN_A_ROW = 20
_PARTITIONS_REMEMBERED = 100
_PAGES_REMEMBERED = 100_000
_SHOWN_TOKEN = 200


@dataclass(slots=True)
class Walk:
    """The pages of one partition that were read so far.

    Attributes:
        pages: Their number.
        items: The number of records from them that we kept.
        newest: The greatest value of the incremental field.
        seen: Digests of their contents.
        empty: The number of empty pages at the end.
        cut: Whether a limit ended it before the source did.
        partial: Why records may be missing so far; empty if there is no sign of that.
        place: Where the records of the first page were; empty until a page shows it.
        stated: The first total that an answer stated.
        filled: The number of pages with records.
        node: The record whose children it reads, in a tree; None at the top.
        tree: The tree; None where the resource has none.
        size: The bytes of the answers for the present page.
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
    node: Node | None = None
    tree: Tree | None = None
    size: int = 0

    def below(self) -> Walk | None:
        """Returns the walk of the next node of the tree; None if there is none, or a limit."""
        node = None if self.tree is None or self.cut else self.tree.next()
        if node is None:
            return None
        return Walk(items=self.items, newest=self.newest, node=node, tree=self.tree)

    @property
    def is_one_page(self) -> bool:
        """Whether several pages were read, all with the same records."""
        return self.filled > 1 and len(self.seen) == 1

    def may_repeat(self, count: int) -> bool:
        """Returns whether a page of this many records fits into the stated total.

        Two equal pages of records without ids may be chance, and a stated total always ends.
        """
        if self.stated is None:
            return False
        if self.stated.unit == PAGES:
            return self.pages <= self.stated.number
        return self.items + count <= self.stated.number

    def doubt(self, reason: str) -> None:
        """Remembers a reason why records may be missing."""
        if reason and reason not in self.partial:
            self.partial = f"{self.partial}; {reason}" if self.partial else reason

    def compare(self, stated: Stated | None) -> None:
        """Compares the total of an answer with the first one; if it changed, the source did."""
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
        """Remembers a page; returns whether it is new.

        Raises:
            ConnectorError: the source gives only empty pages.
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
        where = f" below {self.walk.node.name}" if self.walk.node is not None else ""
        return f"{self.token!r}{where}"


@dataclass(slots=True)
class Seen:
    """The numbered pages of one partition that this process read in one run.

    Attributes:
        digests: The numbers of pages, by the digest of their records.
        empty: The numbers of empty pages.
        end: The number of the first page that we need not request; None while it is unknown.
    """

    digests: dict[int, set[int]] = field(default_factory=dict)
    empty: set[int] = field(default_factory=set)
    end: int | None = None

    def is_behind(self, index: int) -> bool:
        """Returns whether so many pages before this one were empty that we need not request it."""
        return self.end is not None and index >= self.end


class SeenPages:
    """The numbered pages that this process read, by partition; safe for several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: OrderedDict[tuple[str, str], Seen] = OrderedDict()

    def of(self, run: str, partition: str) -> Seen:
        """Returns the pages of a partition in a run; those of old runs are forgotten."""
        with self._lock:
            seen = self._seen.setdefault((run, partition), Seen())
            while len(self._seen) > _PARTITIONS_REMEMBERED:
                self._seen.popitem(last=False)
            return seen

    def note(self, seen: Seen, index: int, content: int) -> int:
        """Remembers a page by the digest of its records; returns how many pages had the same."""
        with self._lock:
            alike = seen.digests.setdefault(content, set())
            alike.add(index)
            if len(seen.digests) > _PAGES_REMEMBERED:
                seen.digests.clear()
            return len(alike)

    def note_empty(self, seen: Seen, index: int) -> None:
        """Remembers an empty page; enough of them in a row mean the end."""
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
    """Returns a number of 64 bits that is the same for the same records, in every process."""
    try:
        return xxh3_64_intdigest(orjson.dumps(records))
    except (TypeError, ValueError):  # integers of more than 64 bits
        return xxh3_64_intdigest(as_text(list(records)).encode("utf-8", "surrogatepass"))


def repeated(what: str, param: str = "") -> ConnectorError:
    """Returns the error about a page that came a second time.

    Args:
        what: The page.
        param: The parameter that names the page; empty if the address does.
    """
    ignored = f"{param!r}, which names the page" if param else "what names the page"
    right = "write the name that it takes as the paginator's param" if param else "look at it"
    return ConnectorError(
        f"{what} has the same records as one before it, so reading would never end; the source "
        f"ignores {ignored} ({right}, or set the paginator single if there is only one page), or "
        "repeats its last page (tell the paginator where the total or has_more is)"
    )


def position_of(paginator: Paginator, token: Any, walk: Walk | None = None) -> str:
    """Returns the position of a page for messages: `page 3`, `offset 200`, `page abc`.

    Args:
        paginator: How pages are named.
        token: The token of the page.
        walk: In a tree, which node it lies below.
    """
    if walk is not None and walk.node is not None:
        return f"{position_of(paginator, token)} below {redact(walk.node.name)}"
    if isinstance(token, Found):
        paginator, token = token.paginator, token.token
    if token is None:
        return "first page"
    text = repr(token)
    if not isinstance(token, At):
        text = redact(token if isinstance(token, str) else text)
    text = text if len(text) <= _SHOWN_TOKEN else text[:_SHOWN_TOKEN] + "..."
    return f"{'offset' if isinstance(paginator, Offset | Range) else 'page'} {text}"


def param_of(paginator: Paginator, token: Any) -> str:
    """Returns the name of the parameter that names the page; empty if the address does."""
    if isinstance(token, Found):
        paginator = token.paginator
    if isinstance(paginator, GraphQL):
        return f"body:variables.{paginator.variable}"
    return str(getattr(paginator, "param", None) or "")


def is_past(token: Any) -> bool:
    """Returns whether a token is for a page after the stated total."""
    inner = token.token if isinstance(token, Found) else token
    return isinstance(inner, At) and inner.past


#: How many compressed bytes are kept; the least recently used answers go first.
MOST_BYTES = 64 << 20

# Documents shrink to a fifth or a tenth of their size; more effort gains little.
_EFFORT = 1


@dataclass(slots=True)
class _Kept:
    response: HttpResponse
    body: bytes
    uses: int


@dataclass(slots=True)
class _Waiting:
    lock: threading.Lock = field(default_factory=threading.Lock)
    waiting: int = 0


class Answers:
    """Answers by run and request, each kept until its last use.

    Args:
        most_bytes: The largest number of compressed bytes to keep.
    """

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self.size = 0
        self._most = most_bytes
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._asking: dict[str, _Waiting] = {}

    def get(
        self, run: str, request: HttpRequest, uses: int, ask: Callable[[], HttpResponse]
    ) -> HttpResponse:
        """Returns the answer to a request, which is sent once even if several threads ask for it.

        Args:
            run: The run; runs do not share answers.
            request: The request.
            uses: How many times the run uses the answer.
            ask: Sends the request.
        """
        if uses < 2:
            return ask()
        key = _key(run, request)
        with self._lock:
            asking = self._asking.setdefault(key, _Waiting())
            asking.waiting += 1
        try:
            with asking.lock:
                found = self._taken(key)
                if found is None:
                    found = ask()
                    self._keep(key, found, uses - 1)
                return found
        finally:
            with self._lock:
                asking.waiting -= 1
                if not asking.waiting:
                    del self._asking[key]

    def take(self, run: str, request: HttpRequest) -> HttpResponse | None:
        """Returns the kept answer to a request, or None."""
        return self._taken(_key(run, request))

    def _taken(self, key: str) -> HttpResponse | None:
        with self._lock:
            kept = self._kept.get(key)
            if kept is None:
                return None
            kept.uses -= 1
            if kept.uses:
                self._kept.move_to_end(key)
            else:
                self._drop(key)
        return _with_body(kept.response, zlib.decompress(kept.body))

    def _keep(self, key: str, response: HttpResponse, uses: int) -> None:
        body = zlib.compress(response.body, _EFFORT)
        if len(body) > self._most:
            return
        with self._lock:
            self._kept[key] = _Kept(_with_body(response, b""), body, uses)
            self.size += len(body)
            while self.size > self._most:
                self._drop(next(iter(self._kept)))

    def _drop(self, key: str) -> None:
        self.size -= len(self._kept.pop(key).body)


_ANSWERS = Answers()


class Asking:
    """Asks for pages.

    Args:
        send: Sends a request.
    """

    def __init__(self, send: Callable[[HttpRequest], HttpResponse]) -> None:
        self._send = send

    def ask(
        self,
        endpoint: Endpoint,
        scope: Scope,
        paginator: Paginator,
        token: Any,
        place: str = "",
        uses: int = 1,
    ) -> tuple[Answer, list[Any]]:
        """Returns an answer and its records.

        Args:
            endpoint: The resource.
            scope: What is read.
            paginator: The paginator.
            token: The token of the page.
            place: The path of the records on an earlier page.
            uses: How many times one reading of the partition uses this answer.

        Raises:
            HttpError: the request fails.
            ConnectorError: the answer has no records.
        """
        request = _request(endpoint, scope, paginator, token)
        response = _ANSWERS.get(
            scope.run, request, uses * endpoint.passes, lambda: self._send(request)
        )
        return _read(endpoint, response, place)

    def answer(self, endpoint: Endpoint, scope: Scope, request: HttpRequest) -> Answer:
        """Returns the answer to a request for more of a record of a page.

        Raises:
            HttpError: the request fails.
            ConnectorError: the answer holds errors.
        """
        uses = endpoint.passes
        return endpoint.answer(_ANSWERS.get(scope.run, request, uses, lambda: self._send(request)))

    def first_or_asked(
        self, endpoint: Endpoint, scope: Scope, paginator: Paginator, token: Any, place: str
    ) -> tuple[Answer, list[Any]]:
        """Returns the answer from counting the first time, and then asks."""
        if scope.is_counted_first and _is_first(paginator, token):
            first = _request(endpoint, scope, endpoint.paginator, endpoint.paginator.start())
            counted = _ANSWERS.take(scope.run, first)
            if counted is not None:
                return _read(endpoint, counted, place)
        return self.ask(endpoint, scope, paginator, token, place)


def place_learned(answer: Answer) -> str:
    """Returns the path of the records on later pages; empty if the first page does not show it."""
    is_one_record = answer.place == ROOT and not isinstance(answer.data, list)
    return "" if is_one_record else answer.place


def _request(endpoint: Endpoint, scope: Scope, paginator: Paginator, token: Any) -> HttpRequest:
    request = endpoint.request(scope, _cursor_of(token))
    return endpoint.for_origin(paginator.apply(request, token))


def _cursor_of(token: Any) -> Any:
    """Returns the value of the placeholder `{= cursor }` for a page."""
    inner = token.token if isinstance(token, Found) else token
    return inner.position if isinstance(inner, At) else inner


def _read(endpoint: Endpoint, response: HttpResponse, place: str) -> tuple[Answer, list[Any]]:
    answer = endpoint.answer(response)
    found, records = endpoint.records(answer, place)
    return replace(answer, place=found), records


def _is_first(paginator: Paginator, token: Any) -> bool:
    if isinstance(token, At):
        first = paginator.start()
        return isinstance(first, At) and token.position == first.position
    return bool(token == paginator.start())


def _key(run: str, request: HttpRequest) -> str:
    asked = [
        request.method,
        request.url,
        list(request.params.items()),
        sorted(request.headers.items()),
        request.json,
        request.form,
    ]
    text = json.dumps([run, asked], default=str)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _with_body(response: HttpResponse, body: bytes) -> HttpResponse:
    return HttpResponse(
        response.status,
        response.headers,
        body,
        response.absolute(""),
        response.sent,
        response.from_cache,
    )
