"""Reads pages: by number if the total is known, else one after the other, and always ends."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from contextframe_beam.connectors.api.answer import Answer
from contextframe_beam.connectors.api.config import Incremental, paginator_of, setting_of
from contextframe_beam.connectors.api.detect import Detect, detect
from contextframe_beam.connectors.api.evidence import RECORDS, Stated, cut_short
from contextframe_beam.connectors.api.expression import ExpressionError
from contextframe_beam.connectors.api.graphql import FailedNode
from contextframe_beam.connectors.api.incremental import (
    Counted,
    Scope,
    newest_of,
    state_reached,
    unreadable,
)
from contextframe_beam.connectors.api.inner import Tree, follow
from contextframe_beam.connectors.api.numbered import At, Numbered, PageNumber
from contextframe_beam.connectors.api.paginate import Paginator
from contextframe_beam.connectors.api.resource import Endpoint
from contextframe_beam.connectors.api.walk import (
    MOST_REPETITIONS,
    Asking,
    SeenPages,
    Step,
    Walk,
    digest,
    is_past,
    param_of,
    place_learned,
    position_of,
    repeated,
)
from contextframe_beam.connectors.http.request import (
    HttpError,
    HttpRequest,
    HttpResponse,
    PassedOverError,
)
from contextframe_beam.connectors.mapper import kind_of, lookup
from contextframe_beam.connectors.page import DeadLetter, Page, Partition
from contextframe_beam.connectors.secrets import redact
from contextframe_beam.errors import RecordError
from contextframe_beam.frames.times import when
from contextframe_beam.store.runs import SLICE

_LOGGER = logging.getLogger(__name__)

# Pages after this many are read in order.
_MOST_PAGES = 1_000_000
# A total of more pages than this is checked first.
_MANY_PAGES = 1000
_NOT_FOUND = (404, 410)


class ApiPages:
    """Reads the pages of partitions, from several threads.

    Args:
        endpoint_of: Returns the endpoint of a scope.
        send: Sends a request.
        unique_id_of: Returns what gives the ids of a resource's documents, by its name.
    """

    def __init__(
        self,
        endpoint_of: Callable[[Scope], Endpoint],
        send: Callable[[HttpRequest], HttpResponse],
        unique_id_of: Callable[[str], Callable[[Mapping[str, Any]], str | None]],
    ) -> None:
        self._endpoint_of = endpoint_of
        self._unique_id_of = unique_id_of
        self._asking = Asking(send)
        self._seen = SeenPages()
        self._told: set[tuple[str, str]] = set()

    def counted(self, partition: Partition) -> tuple[Partition, int | None]:
        """Asks for the first page of a partition, if its scope says so.

        Returns:
            The partition with what the page shows about the others, and the number of pages. The
            number is None, and the partition unchanged, if only the last page shows the end.
        """
        scope: Scope = partition.params
        endpoint = self._endpoint_of(scope)
        counted = self._count(scope, endpoint) if scope.is_counted_first else None
        if counted is None:
            return partition, None
        return replace(partition, params=replace(scope, counted=counted)), counted.pages

    def _count(self, scope: Scope, endpoint: Endpoint) -> Counted | None:
        paginator = endpoint.paginator
        if not isinstance(paginator, Numbered | Detect):
            return None
        token = paginator.start()
        try:
            # It is used again when it is read.
            answer, records = self._asking.ask(endpoint, scope, paginator, token, uses=2)
        except HttpError as error:
            passed = isinstance(error, PassedOverError)
            if passed or error.status in _NOT_FOUND or paginator.ends_at(token, error.status):
                return None  # reading gets the same answer and handles it
            raise
        told = None
        if isinstance(paginator, Detect):
            found = detect(answer, records)
            if not isinstance(found, Numbered):
                return None
            paginator, told = found, setting_of(found)
        total = paginator.total_pages(answer, records)
        size = paginator.full_page(answer, records)
        if total is None or (size is None and not isinstance(paginator, PageNumber)):
            return None
        total = pages = min(max(total, 1), _MOST_PAGES)
        if scope.max_pages is not None:
            pages = min(pages, scope.max_pages)
        if scope.max_items is not None and size:
            pages = min(pages, -(-scope.max_items // size))
        place = place_learned(answer)
        first = digest(records) if records else None
        newest = None
        if endpoint.incremental is not None:
            records, _ = self._completed(records, Partition("", scope), endpoint, "")
            newest = newest_of(records, endpoint.incremental, scope, scope.known)
        return Counted(
            pages=self._believed(pages, size, endpoint, scope, paginator, place),
            size=size,
            first=first,
            place=place,
            stated=paginator.stated(answer, records),
            newest=newest,
            is_cut=pages < total,
            paginator=told,
        )

    def _believed(
        self,
        pages: int,
        size: int | None,
        endpoint: Endpoint,
        scope: Scope,
        paginator: Numbered,
        place: str,
    ) -> int:
        """Returns about how many of the stated pages exist, if the total is far too large.

        It takes long to plan a million pages if only three exist. So we ask for the last page,
        and if it is empty, for pages between, until we know roughly where the end is.
        """
        full, empty = 0, pages
        probe = pages - 1
        while empty - full > _MANY_PAGES:
            token = paginator.page_at(probe, size)
            try:
                _, records = self._asking.ask(endpoint, scope, paginator, token, place)
            except PassedOverError as error:
                records = [error]  # there is a page, because the API refuses it
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
            cursor: None for the first page, the number of a page that `counted` counted, or the
                cursor from the page before.

        Raises:
            ConnectorError: the page cannot be read, or is the same as an earlier one.
        """
        scope: Scope = partition.params
        if scope.problem:
            page = Page([])
            page.failures = [_letter(RecordError(scope.problem), scope.item, partition, "")]
            return page
        endpoint = self._endpoint_of(scope)
        if isinstance(cursor, int):
            if scope.counted is None:  # the caller kept only the number
                partition, _ = self.counted(partition)
            return self._numbered(partition, endpoint, cursor)
        step = cursor
        if step is None:
            tree = None if endpoint.resource.recurse is None else Tree()
            step = Step(endpoint.paginator.start(), Walk(newest=scope.known, tree=tree))
        node = step.walk.node
        if node is not None:
            partition = replace(partition, params=replace(scope, parent=node.values))
        page = self._walked(partition, endpoint, step)
        below = step.walk.below() if page.next_cursor is None else None
        if below is not None:
            # The state comes with the end of the whole tree.
            page.next_cursor, page.state = Step(endpoint.paginator.start(), below), None
        return page

    def page_name(self, partition: Partition, cursor: Any) -> str:
        """Returns the name of a page for messages: `page 3`, `offset 200`, `page abc`.

        Args:
            partition: What is read.
            cursor: As for `fetch`.
        """
        scope: Scope = partition.params
        if cursor is None or scope.problem:
            return "first page"
        paginator = self._paginator_of(scope)
        if isinstance(cursor, Step):
            return position_of(paginator, cursor.token, cursor.walk)
        if scope.counted is not None and isinstance(paginator, Numbered):
            return position_of(paginator, paginator.page_at(cursor, scope.counted.size))
        return f"page {cursor}"

    def _paginator_of(self, scope: Scope) -> Paginator:
        told = scope.counted and paginator_of(scope.counted.paginator)
        return told or self._endpoint_of(scope).paginator

    def _numbered(self, partition: Partition, endpoint: Endpoint, index: int) -> Page:
        scope: Scope = partition.params
        counted, paginator = scope.counted, self._paginator_of(scope)
        assert counted is not None and isinstance(paginator, Numbered)
        token = paginator.page_at(index, counted.size)
        position = position_of(paginator, token)
        walk = Walk(pages=index + 1, items=index * (counted.size or 0), newest=counted.newest)
        walk.place, walk.stated = counted.place, counted.stated
        seen = self._seen.of(scope.run, partition.id)
        records: list[Any] = []
        following = None
        if not seen.is_behind(index):
            records, following = self._filled(partition, endpoint, paginator, token, walk)
            if records:
                content = digest(records)
                times = self._seen.note(seen, index, content)
                if times > 1 and endpoint.identifies(records):
                    if times > MOST_REPETITIONS:
                        raise repeated(position, param_of(endpoint.paginator, None))
                    walk.doubt(f"{position} has the records of one before it")
                walk.seen.update((content, counted.first or content))
                walk.filled = index + 1
            else:
                self._seen.note_empty(seen, index)
        page = self._page(partition, endpoint, records, position, walk)
        page.may_slip = counted.pages > 1
        if index == counted.pages - 1:
            self._go_on(page, partition, endpoint, following, walk)
        return page

    def _filled(
        self,
        partition: Partition,
        endpoint: Endpoint,
        paginator: Numbered,
        token: At,
        walk: Walk,
    ) -> tuple[list[Any], Any]:
        """Returns the records of a page, requested again until it is full, and the next token."""
        records: list[Any] = []
        while True:
            try:
                answer, found = self._asking.first_or_asked(
                    endpoint, partition.params, paginator, token, walk.place
                )
            except HttpError as error:
                if isinstance(error, PassedOverError):
                    walk.partial = _passed_over(endpoint, error)
                elif not paginator.ends_at(token, error.status):
                    raise
                return records, None
            walk.size += answer.size
            follow(partial(self._more, walk), endpoint, partition.params, found)
            records += found
            walk.compare(paginator.stated(answer, found))
            walk.doubt(endpoint.unread(answer, token))
            walk.doubt(cut_short(answer))
            rest = paginator.missing(token, answer, found)
            if rest is None:
                return records, paginator.next(token, answer, found)
            token = rest

    def _more(self, walk: Walk, endpoint: Endpoint, scope: Scope, request: HttpRequest) -> Answer:
        """Returns the answer to a request for more of a record of a page."""
        answer = self._asking.answer(endpoint, scope, request)
        walk.size += answer.size
        return answer

    def _walked(self, partition: Partition, endpoint: Endpoint, step: Step) -> Page:
        scope: Scope = partition.params
        token, walk = step.token, step.walk
        paginator = self._paginator_of(scope) if isinstance(token, At) else endpoint.paginator
        position = position_of(paginator, token, walk)
        try:
            answer, records = self._asking.first_or_asked(
                endpoint, scope, paginator, token, walk.place
            )
        except HttpError as error:
            page = Page([], position=position)
            if paginator.ends_at(token, error.status):
                self._go_on(page, partition, endpoint, None, walk)
            elif isinstance(error, PassedOverError):
                # A page that is gone is complete; any other that we pass over is not.
                if walk.pages > 0:
                    page.partial = _passed_over(endpoint, error)
                elif error.status not in _NOT_FOUND:
                    page.narrowed = _passed_over(endpoint, error)
            elif walk.pages == 0 and error.status in _NOT_FOUND:
                self._not_found(page, partition, endpoint, error)
            else:
                raise
            return page
        walk.size += answer.size
        follow(partial(self._more, walk), endpoint, scope, records)
        walk.place = walk.place or place_learned(answer)
        if not walk.is_new(records):
            if is_past(token) and not walk.is_one_page:
                # After the end some APIs repeat their last page.
                page = Page([], position=position)
                self._go_on(page, partition, endpoint, None, walk)
                return page
            if not walk.may_repeat(len(records)):
                raise repeated(position, param_of(paginator, token))
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
        page.may_slip = is_counted or (is_past(token) and bool(records))
        self._go_on(page, partition, endpoint, following, walk)
        return page

    def _page(
        self,
        partition: Partition,
        endpoint: Endpoint,
        records: list[Any],
        position: str,
        walk: Walk,
    ) -> Page:
        """Makes a page of the API's records, within the limit of items."""
        scope: Scope = partition.params
        limit = scope.max_items
        if limit is not None and walk.items + len(records) > limit:
            records = records[: max(limit - walk.items, 0)]
            walk.cut = True
        walk.items += len(records)
        records, failed = self._completed(records, partition, endpoint, position)
        if endpoint.incremental is not None:
            walk.newest = newest_of(records, endpoint.incremental, scope, walk.newest)
            self._tell_unknown(records, endpoint.incremental, scope)
        kinds = set(map(type, records))
        if FailedNode in kinds:
            walk.doubt("the API could not give all nodes; the dead letters say which")
        if walk.tree is not None:
            unique_id = self._unique_id_of(endpoint.resource.name)
            above = (walk.node, scope.parent or {})
            walk.doubt(walk.tree.add(endpoint.resource, records, *above, unique_id))
        name = endpoint.resource.name
        doubt = walk.partial and f"{name}: {walk.partial}"
        page = Page(records, position=position, partial=doubt, size=walk.size)
        walk.partial, walk.size = "", 0
        if not kinds <= {dict}:
            page.items = [one for one in records if isinstance(one, dict)]
            page.failures = [
                _letter_of_record(one, partition, f"{position}[{number}]")
                for number, one in enumerate(records)
                if not isinstance(one, dict)
            ]
        page.failures += failed
        if endpoint.chooses(scope):
            self._choose(page, partition, endpoint)
        endpoint.strip(page.items)
        endpoint.mark(page.items, scope.parent)
        return page

    def _choose(self, page: Page, partition: Partition, endpoint: Endpoint) -> None:
        """Leaves out the records that become no documents; one that cannot be judged is failed."""
        scope: Scope = partition.params
        items, known = page.items, endpoint.known(scope)
        page.items = []
        for number, one in enumerate(items):
            try:
                if endpoint.keeps(one, scope, known):
                    page.items.append(one)
            except ExpressionError as error:
                where = f"{page.position}[{number}]"
                problem = RecordError(f"filters: {error}")
                page.failures.append(_letter(problem, one, partition, where))

    def _completed(
        self, records: list[Any], partition: Partition, endpoint: Endpoint, position: str
    ) -> tuple[list[Any], list[DeadLetter]]:
        """Adds fields to records; returns those that could be completed, and letters for others."""
        if not endpoint.resource.add_fields:
            return records, []
        made, failed, known = [], [], endpoint.known(partition.params)
        for number, one in enumerate(records):
            try:
                if isinstance(one, dict):
                    endpoint.complete(one, known)
            except ExpressionError as error:
                where = f"{position}[{number}]"
                failed.append(_letter(RecordError(f"add_fields: {error}"), one, partition, where))
                continue
            made.append(one)
        return made, failed

    def _go_on(
        self,
        page: Page,
        partition: Partition,
        endpoint: Endpoint,
        following: Any,
        walk: Walk,
    ) -> None:
        """Sets the cursor of the next page, or the state if this is the last one."""
        scope: Scope = partition.params
        if following is not None:
            limits = ((scope.max_pages, walk.pages), (scope.max_items, walk.items))
            if all(most is None or count < most for most, count in limits):
                page.next_cursor = Step(following, walk)
                return
            walk.cut = True
        if walk.cut or (scope.counted is not None and scope.counted.is_cut):
            page.narrowed = f"max_pages or max_items cut {scope.resource or 'it'} short"
            return
        if walk.stated is not None and walk.stated.unit == RECORDS:
            _tell_of_total(walk, walk.stated, scope.name)
        if endpoint.incremental is None or scope.is_stateless:
            return
        before = when(partition.resumes_at)
        reached = when(walk.newest, endpoint.incremental.reading)
        if before is not None and reached is not None and reached < before:
            return
        if walk.newest is not None:
            page.state = state_reached(walk.newest, endpoint.incremental, scope)
        elif scope.slice is not None:
            page.state = {SLICE: scope.slice}

    def _tell_unknown(self, records: list[Any], incremental: Incremental, scope: Scope) -> None:
        """Logs, once for each run and resource, that a record's value cannot move the state."""
        where = scope.run, scope.resource
        if where in self._told:
            return
        for record in records:
            value = lookup(record, incremental.field)
            problem = "" if value in (None, "") else unreadable(value, incremental, scope.began)
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
            item = {"resource": resource.name, "parent": partition.params.parent}
            page.failures = [_letter(error, item, partition, page.position)]


def _tell_of_total(walk: Walk, stated: Stated, name: str) -> None:
    if walk.items != stated.number:
        _LOGGER.warning(
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
