"""The partitions of a configured API: one for each resource, parent's record, or slice of time."""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, timezone
from itertools import chain, islice
from typing import Any

from contextframe_beam.connectors.api.config import ApiConfig, Incremental, Resource
from contextframe_beam.connectors.api.incremental import Scope, Slice, bound, lookback_of, slices
from contextframe_beam.connectors.api.mapping import PARENT, RESOURCE, UNIQUE_ID, ResourceMapper
from contextframe_beam.connectors.cursors import (
    NUMBER,
    Bounds,
    clamped_cursor,
    is_ahead,
    is_before,
    is_known,
    text_of,
)
from contextframe_beam.connectors.mapper import as_text, lookup
from contextframe_beam.connectors.page import Partition, field_names
from contextframe_beam.connectors.record_mapper import quoted
from contextframe_beam.errors import ConfigError, ConnectorError
from contextframe_beam.frames.times import datetime_of, parse, seconds_in

_LOGGER = logging.getLogger(__name__)

# Keys that our reading adds to a record.
_MARKS = (PARENT, RESOURCE, UNIQUE_ID)
# With at most this many parents, the pages of each are counted.
_FEW_PARENTS = 64
# For this many parents, we request a record to see how records write times.
_MOST_EXAMPLES = 3


class Planner:
    """Makes the partitions of one run.

    Args:
        config: The configuration.
        run: Distinguishes the partitions of this run from those of another.
        states: What earlier runs reached, by the id of the partition.
        limits: `max_pages` and `max_items` of the caller.
        mapper_of: Returns the mapper of a resource.
        items_of: Reads partitions; returns their records with their resource.
        bounds: The range of time to read, regardless of earlier states.
        examples: Values by the name of a resource, in the form of its records; the planner adds to
            them.
    """

    def __init__(
        self,
        config: ApiConfig,
        run: str,
        states: Mapping[str, Any],
        limits: Mapping[str, int | None],
        mapper_of: Callable[[str], ResourceMapper],
        items_of: Callable[[Iterable[Partition]], Iterator[dict[str, Any]]],
        bounds: Bounds | None = None,
        examples: dict[str, Any] | None = None,
    ) -> None:
        self._config = config
        self._run = run
        self._states = states
        self._limits = limits
        self._mapper_of = mapper_of
        self._items_of = items_of
        self._bounds = bounds or Bounds()
        self._examples = {} if examples is None else examples
        self._began = datetime.now(timezone.utc)

    def partitions(self, resource: Resource) -> Iterator[Partition]:
        """Yields the partitions of a resource.

        Raises:
            ConfigError: its slices make no sense.
            ConnectorError: the parent's records cannot be read.
        """
        if resource.parent is not None:
            yield from self._of_parents(resource)
            return
        few = _combinations(resource) <= _FEW_PARENTS
        for values, identifier in _each(resource):
            yield from self._read_for(resource, identifier, values, is_counted_first=few)

    def _read_for(
        self,
        resource: Resource,
        identifier: str,
        values: Mapping[str, Any] | None,
        is_counted_first: bool,
        **parent: Any,
    ) -> Iterator[Partition]:
        """Yields the partitions for one record of the parent, or one value of each list."""
        given: dict[str, Any] = parent if values is None else {**parent, "each": values}
        if self._is_sliced(resource):
            assert resource.incremental is not None
            yield from self._slices(resource, resource.incremental, identifier, given)
            return
        yield self._partition(
            resource,
            identifier,
            is_counted_first=is_counted_first,
            **given,
            **self._range(identifier, resource, **given),
        )

    def check_bounds(self, resource: Resource) -> None:
        """Refuses a resource that cannot be read by time, if a range of time is asked for.

        Raises:
            ConfigError: it has no field with a time.
        """
        if not self._bounds.given:
            return
        incremental = resource.incremental
        if incremental is None or incremental.reading == NUMBER:
            raise ConfigError(
                f"the resource {resource.name} cannot be read by time: give it `incremental` with "
                "the field that holds the time, or leave it out with `only`"
            )

    def _is_sliced(self, resource: Resource) -> bool:
        incremental = resource.incremental
        return incremental is not None and incremental.slice is not None and not self._bounds.given

    def needed_fields(self, resource: Resource) -> list[str]:
        """Returns the fields of the parent's record that a resource, or one below it, needs."""
        fields = {*resource.needed_of_parent}
        for one in self._config.resources:
            if one.parent == resource.name:
                fields |= {
                    field.removeprefix("parent.")
                    for field in self.needed_fields(one)
                    if field.startswith("parent.")
                }
        return sorted(fields)

    def _slices(
        self,
        resource: Resource,
        incremental: Incremental,
        name: str,
        given: Mapping[str, Any],
    ) -> Iterator[Partition]:
        since, reached = self._since(name, incremental)
        # A state before the start, such as the zero time, does not add anything to read.
        start = incremental.start
        if start is not None and is_before(since, start, incremental.reading):
            since = start
        found = slices(incremental, since, self._began)
        one: Slice | None = next(found)
        is_only = True
        while one is not None:
            following = next(found, None)
            mark = {"of": name, "from": text_of(one.at)}
            if following is None:
                mark["last"] = "yes"
            is_only = is_only and following is None
            yield self._partition(
                resource,
                name if following is None else f"{name}/{one.begin}",
                since=one.since,
                until=one.until,
                slice=mark,
                # A limit may cut one of them short but not the next.
                is_stateless=self._has_limits(resource) and not is_only,
                reached=reached,
                **given,
            )
            one, is_only = following, False

    def _of_parents(self, resource: Resource) -> Iterator[Partition]:
        parent = self._config.resource(resource.parent or "")
        assert parent is not None
        mapper = self._mapper_of(parent.name)
        fields = self.needed_fields(resource)
        above = Planner(
            self._config, self._run, {}, {}, self._mapper_of, self._items_of
        ).partitions(parent)
        items = self._items_of(above)
        head = list(islice(items, _FEW_PARENTS + 1))
        few = len(head) <= _FEW_PARENTS
        seen: set[str] = set()
        for number, item in enumerate(chain(head, items)):
            values = {field: _field_of(item, field) for field in fields}
            missing = [field for field in resource.parent_fields if values[field] in (None, "")]
            if missing:
                problem = _missing(parent.name, item, missing)
                yield self._partition(
                    resource, f"{resource.name}/?{number}", problem=problem, item=item
                )
                continue
            unique_id = mapper.unique_id(item)
            parts = [quoted(as_text(values[field])) for field in resource.parent_fields]
            identifier = f"{resource.name}/{'/'.join(parts) or unique_id or number}"
            # A parent that comes twice, because pages overlap, is read once.
            if identifier in seen:
                continue
            seen.add(identifier)
            for each, below in _each(resource, identifier):
                yield from self._read_for(
                    resource,
                    below,
                    each,
                    is_counted_first=few and resource.recurse is None,
                    parent={**values, UNIQUE_ID: unique_id},
                )

    def _range(self, identifier: str, resource: Resource, **given_to: Any) -> dict[str, Any]:
        """Returns the settings of a partition for the range of time that it reads."""
        incremental, given = resource.incremental, self._bounds.given
        if incremental is None:
            return {}
        since, reached = self._since(identifier, incremental)
        if not given:
            return {"since": since, "reached": reached}
        asked: dict[str, Any] = {"bounds": given}
        resumes = parse(since, incremental.reading)
        # A limit may cut one slice short but not the next.
        if not self._has_limits(resource) and (since is None or resumes is not None):
            asked["resumes_at"] = ""
            if resumes is not None:
                begin = resumes.at - seconds_in(lookback_of(incremental))
                asked["resumes_at"] = text_of(datetime_of(begin))
        like = since if resumes is not None else self._example(resource, **given_to)
        for name, time in (("since", self._bounds.since), ("until", self._bounds.until)):
            if time is not None:
                asked[name] = bound(time, incremental, like, is_end=name == "until")
        return asked

    def _example(self, resource: Resource, **given: Any) -> Any:
        """Returns a value in the form of the records, if that form is still unknown.

        It reads one record without a range of time; some APIs refuse that.
        """
        incremental = resource.incremental
        if incremental is None or incremental.format is not None or not _is_told(resource):
            return None
        tried = self._examples.setdefault(resource.name, [])
        found = next((one for one in tried if one is not None), None)
        if found is not None or len(tried) >= _MOST_EXAMPLES:
            return found
        limits: dict[str, Any] = {"max_items": 1, "max_pages": 1, "is_stateless": True}
        one = self._partition(resource, f"{resource.name}/?form", **given, **limits)
        try:
            item = next(iter(self._items_of([one])), {})
        except (ConnectorError, ConfigError) as error:
            _LOGGER.info("%s: no record came without a range of time: %s", resource.name, error)
            item = {}
        value = lookup(item, incremental.field)
        tried.append(None if parse(value, incremental.reading) is None else value)
        return tried[-1]

    def _since(self, partition: str, incremental: Incremental) -> tuple[Any, Any]:
        """Returns where a run begins, and the value that an earlier run reached, if it is usable.

        A state that cannot be compared, or that lies in the future, would hide changes.
        """
        state, form = self._states.get(partition), incremental.reading
        value = state.get("cursor") if isinstance(state, Mapping) else None
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            return incremental.start, None
        problem = ""
        if is_ahead(value, self._began, form):
            problem = "lies in the future: a clock was wrong, or a record was"
        elif not is_known(value, form):
            problem = "is not a number, and not a time that can be read in only one way"
        if problem:
            _LOGGER.warning(
                "%s: the state %r %s; it is read %s",
                partition,
                value,
                problem,
                "whole" if incremental.start is None else f"from {incremental.start} on",
            )
            return incremental.start, None
        return clamped_cursor(value, self._began, form), value

    def _partition(
        self, resource: Resource, identifier: str, resumes_at: str | None = None, **given: Any
    ) -> Partition:
        fields = {**self._limits_of(resource), **given}
        scope = Scope(run=self._run, resource=resource.name, began=self._began, **fields)
        return Partition(identifier, scope, scope.content, resumes_at)

    def _limits_of(self, resource: Resource) -> dict[str, int | None]:
        limits = {"max_pages": resource.max_pages, "max_items": resource.max_items}
        for name, most in self._limits.items():
            both = [one for one in (limits[name], most) if one is not None]
            limits[name] = min(both) if both else None
        return limits

    def _has_limits(self, resource: Resource) -> bool:
        return any(most is not None for most in self._limits_of(resource).values())


def _combinations(resource: Resource) -> int:
    return math.prod(len(values) for values in resource.each.values())


def _each(resource: Resource, above: str = "") -> Iterator[tuple[dict[str, Any] | None, str]]:
    """Yields the values of the lists of a resource, and the names of their partitions."""
    name = above or resource.name
    if not resource.each:
        yield None, name
        return
    for values in itertools.product(*resource.each.values()):
        parts = [quoted(as_text(one)) for one in values]
        yield dict(zip(resource.each, values, strict=True)), "/".join([name, *parts])


def _missing(parent: str, item: Mapping[str, Any], fields: list[str]) -> str:
    """Returns the message for a parent's record that lacks fields: which fields it has."""
    said = f"the record of {parent} has no {' and no '.join(fields)}"
    above, _, _ = fields[0].rpartition(".")
    holder = _field_of(item, above) if above and above != "parent" else None
    if isinstance(holder, Mapping):
        return f"{said}; {above} has {field_names(holder)}"
    own = {name: value for name, value in item.items() if name not in _MARKS}
    return f"{said}; it has {field_names(own) or 'no fields'}"


def _field_of(item: Mapping[str, Any], field: str) -> Any:
    if field.startswith("parent."):
        return _field_of(item.get(PARENT) or {}, field.removeprefix("parent."))
    return lookup(item, field)


def _is_told(resource: Resource) -> bool:
    """Returns whether requests contain a range of time."""
    incremental = resource.incremental
    if incremental is not None and (incremental.param or incremental.until_param):
        return True
    return bool(resource.uses & {"since", "until"})
