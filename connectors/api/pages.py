"""Reading pages: by number where the total is known, else one after the other, always to an end."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from contextframe_beam.connectors.api.answer import ROOT, Answer
from contextframe_beam.connectors.api.config import Incremental
from contextframe_beam.connectors.api.detect import Detect, Found, detect
from contextframe_beam.connectors.api.evidence import cut_short
from contextframe_beam.connectors.api.graphql import FailedNode
from contextframe_beam.connectors.api.incremental import newest_of, state_reached, unreadable
from contextframe_beam.connectors.api.models import paginator_of, setting_of
from contextframe_beam.connectors.api.numbered import At, Numbered, Offset, PageNumber, Range
from contextframe_beam.connectors.api.once import Answers
from contextframe_beam.connectors.api.paginate import GraphQL, Paginator
from contextframe_beam.connectors.api.resource import Endpoint
from contextframe_beam.connectors.api.totals import RECORDS, Stated
from contextframe_beam.connectors.api.walk import Step, Walk, digest, repeated
from contextframe_beam.connectors.bounds import RESUMES_AT
from contextframe_beam.connectors.http.errors import HttpError, PassedOverError
from contextframe_beam.connectors.http.request import HttpRequest, HttpResponse
from contextframe_beam.connectors.mapper import kind_of, lookup
from contextframe_beam.connectors.page import DeadLetter, Page, Partition
from contextframe_beam.connectors.secrets import redact
from contextframe_beam.errors import RecordError
from contextframe_beam.shared_names import SLICE
from contextframe_beam.times import when

_LOGGER = logging.getLogger(__name__)

# What lies behind so many pages is read in order.
_MOST_PAGES = 1_000_000
# A total of more pages than this is looked into before it is believed.
_MANY_PAGES = 1000
# After so many empty pages in a row those behind are taken to be empty as well.
_EMPTY_IN_A_ROW = 20
_NOT_FOUND = (404, 410)
_PARTITIONS_REMEMBERED = 100
_PAGES_REMEMBERED = 100_000
_SHOWN_TOKEN = 200
_ANSWERS = Answers()
# A page of the same records with the same ids comes so often before it is taken for a loop.
_MOST_REPETITIONS = 3

_logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Seen:
    """What this process saw of the numbered pages of one partition in one run."""

    digests: dict[int, set[int]] = field(default_factory=dict)
    empty: set[int] = field(default_factory=set)
    end: int | None = None

    def is_behind(self, index: int) -> bool:
        """Tells whether so many pages before this one were empty that it need not be asked for."""
        return self.end is not None and index >= self.end

    def found_empty(self, index: int) -> None:
        """Remembers an empty page; enough of them in a row are the end."""
        self.empty.add(index)
        first = last = index
        while first - 1 in self.empty:
            first -= 1
        while last + 1 in self.empty:
            last += 1
        if last - first + 1 >= _EMPTY_IN_A_ROW and (self.end is None or first < self.end):
            self.end = first


class PageReader:
    """Reads the pages of partitions, from several threads.

    Args:
        endpoint_of: Gives what is asked for a partition.
        send: Sends a request.
    """

    def __init__(
        self,
        endpoint_of: Callable[[Mapping[str, Any]], Endpoint],
        send: Callable[[HttpRequest], HttpResponse],
    ) -> None:
        self._endpoint_of = endpoint_of
        self._send = send
        self._lock = threading.Lock()
        self._told: set[tuple[str, str]] = set()
        self._seen: OrderedDict[tuple[str, str], _Seen] = OrderedDict()

    def count(self, partition: Partition) -> int | None:
        """Asks for the first page of a partition and returns how many there are.

        What reading needs to know about them is put into the partition's `params`, which travel
        to whoever reads them. Partitions without `probe` in their params are not asked.

        Returns:
            None where nothing but the last page tells.
        """
        params = partition.params
        endpoint = self._endpoint_of(params)
        paginator = endpoint.paginator
        if not params.get("probe") or not isinstance(paginator, Numbered | Detect):
            return None
        token = paginator.start()
        try:
            # It is wanted again when it is read.
            answer, records = self._ask(endpoint, params, paginator, token, uses=2)
        except HttpError as error:
            passed = isinstance(error, PassedOverError)
            if passed or error.status in _NOT_FOUND or paginator.ends_at(token, error.status):
                return None  # reading it meets the same answer and knows what it means
            raise
        if isinstance(paginator, Detect):
            found = detect(answer, records)
            if not isinstance(found, Numbered):
                return None
            paginator = found
            params["paginator"] = setting_of(paginator)
        pages = paginator.total_pages(answer, records)
        size = paginator.full_page(answer, records)
        if pages is None or (size is None and not isinstance(paginator, PageNumber)):
            return None
        pages = counted = min(max(pages, 1), _MOST_PAGES)
        if params.get("max_pages"):
            pages = min(pages, params["max_pages"])
        if params.get("max_items") and size:
            pages = min(pages, -(-params["max_items"] // size))
        if pages < counted:
            params["cut"] = True
        pages = self._believed(pages, size, endpoint, params, paginator, _learned(answer))
        params.update(pages=pages, size=size, first=digest(records) if records else None)
        params["place"] = _learned(answer)
        stated = paginator.stated(answer, records)
        params["stated"] = None if stated is None else [stated.number, stated.unit]
        if endpoint.incremental is not None:
            params["newest"] = newest_of(records, endpoint.incremental, params, _known(params))
        return pages

    def _believed(
        self,
        pages: int,
        size: int | None,
        endpoint: Endpoint,
        params: Mapping[str, Any],
        paginator: Numbered,
        place: str,
    ) -> int:
        """Returns how many of so many pages there are, roughly, if the total is far too large.

        Planning a million pages of which there are three takes its time. The last page is asked
        for, and if it is empty, pages between are, until the end is known well enough.
        """
        full, empty = 0, pages
        probe = pages - 1
        while empty - full > _MANY_PAGES:
            token = paginator.page_at(probe, size)
            try:
                _, records = self._ask(endpoint, params, paginator, token, place)
            except PassedOverError as error:
                records = [error]  # there is something, or there would be nothing to pass over
            except HttpError as error:
                if not paginator.ends_at(token, error.status):
                    raise
                records = []
            if records:
                full = probe
            else:
                empty = probe
            probe = (full + empty) // 2
        return empty

    def fetch(self, partition: Partition, cursor: Any) -> Page:
        """Returns one page.

        Args:
            partition: What is read.
            cursor: None for the first page, the number of a page that `count` counted, or the
                cursor that the page before gave.

        Raises:
            ConnectorError: the page cannot be read, or is one that came before.
        """
        params = partition.params
        if "problem" in params:
            page = Page([])
            page.failures = [
                _letter(RecordError(params["problem"]), params.get("item"), partition, "")
            ]
            return page
        endpoint = self._endpoint_of(params)
        if isinstance(cursor, int):
            return self._numbered(partition, params, endpoint, cursor)
        step = cursor
        if step is None:
            step = Step(endpoint.paginator.start(), Walk(newest=_known(params)))
        return self._walked(partition, params, endpoint, step)

    def page_name(self, partition: Partition, cursor: Any) -> str:
        """Returns what a page is called in messages: `page 3`, `offset 200`, `page abc`.

        Args:
            partition: What is read.
            cursor: As for `fetch`.
        """
        params = partition.params
        if cursor is None or "problem" in params:
            return "first page"
        paginator = paginator_of(params.get("paginator")) or self._endpoint_of(params).paginator
        if isinstance(cursor, Step):
            return _position(paginator, cursor.token)
        if isinstance(paginator, Numbered):
            return _position(paginator, paginator.page_at(cursor, params.get("size")))
        return f"page {cursor}"

    def _numbered(
        self, partition: Partition, params: Mapping[str, Any], endpoint: Endpoint, index: int
    ) -> Page:
        paginator = paginator_of(params.get("paginator")) or endpoint.paginator
        assert isinstance(paginator, Numbered)
        token = paginator.page_at(index, params["size"])
        position = _position(paginator, token)
        walk = Walk(pages=index + 1, items=index * (params["size"] or 0))
        walk.newest, walk.place = params.get("newest"), params.get("place") or ""
        walk.stated = Stated(*params["stated"]) if params.get("stated") else None
        is_last = index == params["pages"] - 1
        seen = self._seen_of(partition)
        records: list[Any] = []
        following = None
        if not seen.is_behind(index):
            records, following = self._filled(partition, endpoint, paginator, token, walk)
            if records:
                content = digest(records)
                self._tell_repetition(endpoint, walk, seen, index, content, records, position)
                walk.seen.update((content, params.get("first") or content))
                walk.filled = index + 1
            else:
                with self._lock:
                    seen.found_empty(index)
        page = self._page(partition, endpoint, records, position, walk)
        page.may_slip = params["pages"] > 1
        if is_last:
            self._go_on(page, params, endpoint, following, walk)
        return page

    def _filled(
        self,
        partition: Partition,
        endpoint: Endpoint,
        paginator: Numbered,
        token: At,
        walk: Walk,
    ) -> tuple[list[Any], Any]:
        """Returns the records of a page, asked for again until it is full, and what follows it."""
        records: list[Any] = []
        while True:
            try:
                answer, found = self._first_or_asked(
                    partition, endpoint, paginator, token, walk.place
                )
            except HttpError as error:
                if isinstance(error, PassedOverError):
                    walk.partial = _passed_over(endpoint, error)
                elif not paginator.ends_at(token, error.status):
                    raise
                return records, None
            records += found
            walk.compare(paginator.stated(answer, found))
            walk.doubt(endpoint.unread(answer, token))
            walk.doubt(cut_short(answer))
            rest = paginator.missing(token, answer, found)
            if rest is None:
                return records, paginator.next(token, answer, found)
            token = rest

    def _walked(
        self, partition: Partition, params: Mapping[str, Any], endpoint: Endpoint, step: Step
    ) -> Page:
        paginator: Paginator = endpoint.paginator
        token, walk = step.token, step.walk
        if isinstance(token, At) and params.get("paginator"):
            paginator = paginator_of(params["paginator"]) or paginator
        position = _position(paginator, token)
        try:
            answer, records = self._first_or_asked(
                partition, endpoint, paginator, token, walk.place
            )
        except HttpError as error:
            page = Page([], position=position)
            if paginator.ends_at(token, error.status):
                self._go_on(page, params, endpoint, None, walk)
            elif isinstance(error, PassedOverError):
                # What is gone is gone; of all else nobody knows what there was.
                if walk.pages > 0:
                    page.partial = _passed_over(endpoint, error)
                elif error.status not in _NOT_FOUND:
                    page.narrowed = _passed_over(endpoint, error)
            elif walk.pages == 0 and error.status in _NOT_FOUND:
                self._not_found(page, partition, endpoint, error)
            else:
                raise
            return page
        walk.place = walk.place or _learned(answer)
        if not walk.is_new(records):
            if _is_past(token) and not walk.is_one_page:
                # Behind the end some APIs repeat their last page.
                page = Page([], position=position)
                self._go_on(page, params, endpoint, None, walk)
                return page
            if not walk.may_repeat(len(records)):
                raise repeated(position, _param_of(paginator, token))
            if endpoint.identifies(records):
                walk.doubt(f"{position} has the records of one before it")
        following = paginator.next(token, answer, records)
        walk.compare(paginator.stated(answer, records))
        walk.doubt(endpoint.unread(answer, following or token))
        walk.doubt(cut_short(answer))
        if following is None:
            walk.doubt(paginator.doubt(token, answer, records))
        page = self._page(partition, endpoint, records, position, walk)
        steps = (following, token if walk.pages > 1 else None)
        is_counted = any(one is not None and paginator.is_counted(one) for one in steps)
        page.may_slip = is_counted or (_is_past(token) and bool(records))
        self._go_on(page, params, endpoint, following, walk)
        return page

    def _first_or_asked(
        self,
        partition: Partition,
        endpoint: Endpoint,
        paginator: Paginator,
        token: Any,
        place: str,
    ) -> tuple[Answer, list[Any]]:
        """Returns what `count` was answered, the first time that it is wanted, or asks."""
        params = partition.params
        if params.get("probe") and _is_first(paginator, token):
            first = _request(endpoint, params, endpoint.paginator, endpoint.paginator.start())
            counted = _ANSWERS.take(params.get("run", ""), first)
            if counted is not None:
                return _read(endpoint, counted, place)
        return self._ask(endpoint, params, paginator, token, place)

    def _ask(
        self,
        endpoint: Endpoint,
        params: Mapping[str, Any],
        paginator: Paginator,
        token: Any,
        place: str = "",
        uses: int = 1,
    ) -> tuple[Answer, list[Any]]:
        request = _request(endpoint, params, paginator, token)
        response = _ANSWERS.get(
            params.get("run", ""), request, uses * endpoint.passes, lambda: self._send(request)
        )
        return _read(endpoint, response, place)

    def _page(
        self,
        partition: Partition,
        endpoint: Endpoint,
        records: list[Any],
        position: str,
        walk: Walk,
    ) -> Page:
        """Makes the page of what the API gave, within the limit of items."""
        params = partition.params
        limit = params.get("max_items")
        if limit is not None and walk.items + len(records) > limit:
            records = records[: max(limit - walk.items, 0)]
            walk.cut = True
        walk.items += len(records)
        if endpoint.incremental is not None:
            walk.newest = newest_of(records, endpoint.incremental, params, walk.newest)
            self._tell_unknown(records, endpoint.incremental, params)
        if any(isinstance(one, FailedNode) for one in records):
            walk.doubt("the API could not give all nodes; the dead letters say which")
        name = endpoint.resource.name
        page = Page(records, position=position, partial=walk.partial and f"{name}: {walk.partial}")
        walk.partial = ""
        if records and set(map(type, records)) != {dict}:
            page.items = [one for one in records if isinstance(one, dict)]
            page.failures = [
                _letter_of_record(one, partition, f"{position}[{number}]")
                for number, one in enumerate(records)
                if not isinstance(one, dict)
            ]
        if endpoint.chooses(params):
            page.items = [one for one in page.items if endpoint.keeps(one, params)]
        endpoint.mark(page.items, params.get("parent"))
        return page

    def _go_on(
        self,
        page: Page,
        params: Mapping[str, Any],
        endpoint: Endpoint,
        following: Any,
        walk: Walk,
    ) -> None:
        """Gives the page the cursor of the next one, or the state when it is the last."""
        if following is not None:
            limits = ((params.get("max_pages"), walk.pages), (params.get("max_items"), walk.items))
            if all(most is None or count < most for most, count in limits):
                page.next_cursor = Step(following, walk)
                return
            walk.cut = True
        is_cut = walk.cut or params.get("cut")
        if not is_cut and walk.stated is not None and walk.stated.unit == RECORDS:
            _tell_of_total(walk, walk.stated, params.get("resource") or params.get("endpoint", ""))
        if is_cut:
            page.narrowed = f"max_pages or max_items cut {params.get('resource', 'it')} short"
            return
        if endpoint.incremental is None or params.get("stateless"):
            return
        before = when(params.get(RESUMES_AT, ""))
        reached = when(walk.newest, endpoint.incremental.reading)
        if before is not None and reached is not None and reached < before:
            return
        if walk.newest is not None:
            page.state = state_reached(walk.newest, endpoint.incremental, params)
        elif "slice" in params:
            page.state = {SLICE: params["slice"]}

    def _tell_unknown(
        self, records: list[Any], incremental: Incremental, params: Mapping[str, Any]
    ) -> None:
        """Says, once a run and resource, that the value of a record does not tell when it was."""
        where = params.get("run", ""), params.get("resource", "")
        began = when(params.get("began"))
        if where in self._told:
            return
        for record in records:
            value = lookup(record, incremental.field)
            problem = "" if value in (None, "") else unreadable(value, incremental, began)
            if problem:
                self._told.add(where)
                shown = redact(f"{value!r:.60}")
                _LOGGER.warning("%s: %s is %s, %s", where[1], incremental.field, shown, problem)
                return

    def _not_found(
        self, page: Page, partition: Partition, endpoint: Endpoint, error: HttpError
    ) -> None:
        resource = endpoint.resource
        what = resource.not_found or ("fail" if resource.parent is None else "dead_letter")
        if what == "fail":
            raise error
        if what == "dead_letter":
            item = {"resource": resource.name, "parent": partition.params.get("parent")}
            page.failures = [_letter(error, item, partition, page.position)]

    def _tell_repetition(
        self,
        endpoint: Endpoint,
        walk: Walk,
        seen: _Seen,
        index: int,
        content: int,
        records: list[Any],
        position: str,
    ) -> None:
        """Remembers a counted page, and says where one came before that has the same records.

        Records without ids may be the same by chance.
        """
        with self._lock:
            alike = seen.digests.setdefault(content, set())
            alike.add(index)
            count = len(alike)
            if len(seen.digests) > _PAGES_REMEMBERED:
                seen.digests.clear()
        if count > 1 and endpoint.identifies(records):
            if count > _MOST_REPETITIONS:
                raise repeated(position, _param_of(endpoint.paginator, None))
            walk.doubt(f"{position} has the records of one before it")

    def _seen_of(self, partition: Partition) -> _Seen:
        with self._lock:
            seen = self._seen.setdefault(_key(partition), _Seen())
            while len(self._seen) > _PARTITIONS_REMEMBERED:
                self._seen.popitem(last=False)
            return seen


def _request(
    endpoint: Endpoint, params: Mapping[str, Any], paginator: Paginator, token: Any
) -> HttpRequest:
    return endpoint.for_origin(paginator.apply(endpoint.request(params), token))


def _read(endpoint: Endpoint, response: HttpResponse, place: str) -> tuple[Answer, list[Any]]:
    answer = endpoint.answer(response)
    found, records = endpoint.records(answer, place)
    return replace(answer, place=found), records


def _learned(answer: Answer) -> str:
    """Returns where the records of later pages have to be; empty where the first does not tell."""
    is_one_record = answer.place == ROOT and not isinstance(answer.data, list)
    return "" if is_one_record else answer.place


def _tell_of_total(walk: Walk, stated: Stated, name: str) -> None:
    if walk.items != stated.number:
        _logger.warning(
            "%s: %d records were read up to the end, and the API stated %d",
            name,
            walk.items,
            stated.number,
        )


def _passed_over(endpoint: Endpoint, error: PassedOverError) -> str:
    return f"{endpoint.resource.name}: {error}"


def _letter(error: Exception, item: Any, partition: Partition, position: str) -> DeadLetter:
    # The reader fills in the connector's name.
    return DeadLetter.of("read", error, item, "", partition.id, position)


def _letter_of_record(record: Any, partition: Partition, position: str) -> DeadLetter:
    if isinstance(record, FailedNode):
        return _letter(RecordError(record.message), record.item, partition, position)
    problem = f"a record is an object, and this is {kind_of(record)}"
    return _letter(RecordError(problem), record, partition, position)


def _known(params: Mapping[str, Any]) -> Any:
    """Returns the value that an earlier run reached, which no later one falls behind."""
    return None if "bounds" in params or "slice" in params else params.get("reached")


def _key(partition: Partition) -> tuple[str, str]:
    return partition.params.get("run", ""), partition.id


def _is_first(paginator: Paginator, token: Any) -> bool:
    if isinstance(token, At):
        first = paginator.start()
        return isinstance(first, At) and token.position == first.position
    return bool(token == paginator.start())


def _param_of(paginator: Paginator, token: Any) -> str:
    """Returns the name of what tells the API which page is meant; empty where an address does."""
    if isinstance(token, Found):
        paginator = token.paginator
    if isinstance(paginator, GraphQL):
        return f"body:variables.{paginator.variable}"
    return str(getattr(paginator, "param", None) or "")


def _is_past(token: Any) -> bool:
    inner = token.token if isinstance(token, Found) else token
    return isinstance(inner, At) and inner.past


def _position(paginator: Paginator, token: Any) -> str:
    """Returns a page's place for messages: `page 3`, `offset 200`, `page abc`."""
    if isinstance(token, Found):
        paginator, token = token.paginator, token.token
    if token is None:
        return "first page"
    text = redact(token if isinstance(token, str) else repr(token))
    text = text if len(text) <= _SHOWN_TOKEN else text[:_SHOWN_TOKEN] + "..."
    return f"{'offset' if isinstance(paginator, Offset | Range) else 'page'} {text}"
