"""Looks at a source before a run: what the account may read, and what its first items become."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from contextframe_beam.connectors.base import BaseConnector
from contextframe_beam.connectors.mapped import MappedConnector
from contextframe_beam.connectors.mapper import kind_of
from contextframe_beam.connectors.page import Page, encode_item, items_of
from contextframe_beam.connectors.read.held import released
from contextframe_beam.connectors.read.source import Source
from contextframe_beam.connectors.secrets import redact
from contextframe_beam.errors import ContextFrameError
from contextframe_beam.frames.record import Deletion

#: So many frames are shown.
SAMPLES = 3

_SHOWN_TEXT = 300
_SHOWN_LINE = 100
_SHOWN_ACCESS = 20
_SHOWN_FIELDS = 60


@dataclass(slots=True)
class Sample:
    """One record and its frame.

    Attributes:
        item: The record as it was read.
        unique_id: The frame's id; None if it is made from the content.
        title: Its title, or None.
        text: The beginning of its text.
        timestamp: Its time.
        metadata: Its metadata.
        error: Why it cannot be mapped; "" if it can.
    """

    item: Any
    unique_id: str | None = None
    title: Any = None
    text: str = ""
    timestamp: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    error: str = ""

    @classmethod
    def of(cls, connector: BaseConnector, item: Any) -> Sample:
        """Maps an item; what is wrong with it becomes part of the sample."""
        sample = cls(item)
        try:
            record: Any = connector.map_to_frame_record(item)
        except ContextFrameError as error:
            sample.error = redact(str(error))
            return sample
        except Exception as error:
            sample.error = redact(f"{type(error).__name__}: {error}")
            return sample
        sample.unique_id = record.unique_id
        if isinstance(record, Deletion):
            sample.title = "(deleted)"
            return sample
        text = record.text_content or ""
        sample.title = record.metadata.get("title")
        sample.text = text if len(text) <= _SHOWN_TEXT else text[:_SHOWN_TEXT] + "..."
        sample.timestamp = record.timestamp
        sample.metadata = record.metadata
        return sample

    def lines(self) -> list[str]:
        """Returns the sample for people."""
        if self.error:
            return []
        text = json.dumps(" ".join(self.text.split())[:_SHOWN_LINE], ensure_ascii=False)
        return [
            f"  {self.unique_id or '(no id)'}  {self.title or ''}".rstrip(),
            f"    text: {text}, time: {self.timestamp or 'none'}",
            f"    metadata: {', '.join(sorted(self.metadata)) or 'none'}",
        ]


@dataclass(slots=True)
class Look:
    """What a look at a source showed.

    Attributes:
        connector: The connector's name.
        problem: Why it cannot be read; "" if it can.
        access: What the account may read, a line each.
        fields: The fields of its records with their types, as far as they are known.
        unmapped: Those fields that become no part of a frame.
        failures: Why some of the first records cannot be read.
        samples: The first records, of several parts of the source where it has some.
        partial: Why a run may miss records; empty if there is no sign of that.
    """

    connector: str
    problem: str = ""
    access: list[str] = field(default_factory=list)
    fields: dict[str, str] = field(default_factory=dict)
    unmapped: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    partial: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether it could be read and mapped, and a run would read all of it."""
        is_read = not (self.problem or self.partial or self.failures)
        return is_read and not any(one.error for one in self.samples)

    def to_json(self) -> dict[str, Any]:
        """Returns the look as JSON values, without secrets."""
        told = {name: getattr(self, name) for name in self.__slots__}
        # An item may be more than the dictionary that it is.
        told["samples"] = [asdict(replace(one, item=None)) for one in self.samples]
        for sample, one in zip(told["samples"], self.samples, strict=True):
            sample["item"] = dict(one.item) if isinstance(one.item, Mapping) else one.item
        values: dict[str, Any] = encode_item({"ok": self.ok, **told})
        return values

    def __str__(self) -> str:
        lines = [f"{self.connector}: {self.problem or 'connected'}"]
        lines += [f"  {one}" for one in self.access]
        fields = [f"  {name}: {kind}" for name, kind in self.fields.items()]
        lines += fields[:_SHOWN_FIELDS]
        if len(fields) > _SHOWN_FIELDS:
            lines.append(f"  and {len(fields) - _SHOWN_FIELDS:,} fields more")
        if self.unmapped:
            lines.append(f"  not mapped: {', '.join(self.unmapped)}")
        lines += [f"  may be incomplete: {one}" for one in self.partial]
        lines += [f"  cannot be read: {one}" for one in self.failures]
        if self.samples:
            lines.append("")
        for sample in self.samples:
            lines += [f"  cannot be mapped: {sample.error}"] if sample.error else sample.lines()
        if not self.samples and not self.problem:
            lines.append("  there is nothing to read")
        return redact("\n".join(lines))


def look(connector: BaseConnector, sync_kwargs: Mapping[str, Any] | None = None) -> Look:
    """Connects, asks what the account may read, and maps the first records. Nothing is written.

    Args:
        connector: The connector.
        sync_kwargs: The arguments of its `sync_documents`.

    Raises:
        ConfigError: the connector takes no such arguments.
    """
    with released():
        return _look(connector, Source(connector, sync_kwargs, threads=1))


def _look(connector: BaseConnector, source: Source) -> Look:
    found = Look(connector.name)
    try:
        connector.ensure_authenticated()
        parts = list(source.parts())
        own = connector.access()
        found.access = _shortened(own or [f"reads {part.partition.id}" for part in parts])
        known = connector.fields() if isinstance(connector, MappedConnector) else None
        seen: dict[str, str] = {}
        for page in _first_pages(source, parts):
            found.partial += [redact(one) for one in (page.partial, *page.unread) if one]
            found.failures += [redact(one.message) for one in page.failures[:SAMPLES]]
            # One of each part, so that a source of several kinds shows several.
            for item in _first(page, SAMPLES if len(parts) < SAMPLES else 1):
                found.samples.append(Sample.of(connector, item))
                for name, value in item.items() if isinstance(item, Mapping) else ():
                    if value is not None or name not in seen:
                        seen[str(name)] = kind_of(value)
            if len(found.samples) >= SAMPLES:
                break
        found.partial += map(redact, source.unread)
        if isinstance(connector, MappedConnector):
            found.unmapped = connector.unmapped(list(seen if known is None else known))
            # What a connector tells of itself is not told twice.
            found.fields = known or ({} if own else seen)
    except ContextFrameError as error:
        found.problem = redact(str(error))
    found.partial = list(dict.fromkeys(found.partial))
    found.samples = found.samples[:SAMPLES]
    found.failures = found.failures[:SAMPLES]
    return found


def _first_pages(source: Source, parts: Iterable[Any]) -> Iterator[Any]:
    for part in parts:
        for page in source.pages_of_part(part):
            yield page
            if page.count:
                break


def _first(page: Page, most: int) -> list[Any]:
    if page.table is None:
        return page.items[:most]
    return items_of(page.table.slice(0, most))


def _shortened(lines: Iterable[str]) -> list[str]:
    told = [redact(one) for one in lines]
    more = len(told) - _SHOWN_ACCESS
    return told if more <= 0 else [*told[:_SHOWN_ACCESS], f"and {more:,} more"]
