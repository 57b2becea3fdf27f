"""Tries out a configuration: connects, reads a page of each resource, shows how it is mapped."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from contextframe_beam.connectors.api.config import Resource
from contextframe_beam.connectors.api.connector import APIConnector
from contextframe_beam.connectors.look import SAMPLES, Sample
from contextframe_beam.connectors.page import Page, Partition, encode_item
from contextframe_beam.connectors.secrets import redact
from contextframe_beam.errors import ContextFrameError

_ADDRESS = re.compile(r"https?://\S+")
_SHOWN_REASONS = 3


@dataclass(slots=True)
class ResourceReport:
    """The result for one resource: what its first page showed.

    Attributes:
        name: The resource.
        partition: The part that was read.
        records: The number of records on the page that become documents.
        failed: The number of records that cannot be read.
        unmapped: The number of records that cannot be mapped.
        reasons: Why some cannot be read or mapped, each reason once.
        pages: The number of pages, if the API states it; they are read in parallel.
        next_page: Where the next page is; "" if this was the last page.
        samples: The first records.
        problem: Why it cannot be read; "" if it can.
        hint: Anything odd about it.
        partial: Why a run may miss records; "" if there is no sign of that.
    """

    name: str
    partition: str = ""
    records: int = 0
    failed: int = 0
    unmapped: int = 0
    reasons: list[str] = field(default_factory=list)
    pages: int | None = None
    next_page: str = ""
    samples: list[Sample] = field(default_factory=list)
    problem: str = ""
    hint: str = ""
    partial: str = ""

    @property
    def ok(self) -> bool:
        """Whether it could be read and mapped, and a run would read all of it."""
        return not (self.problem or self.partial or self.failed or self.unmapped)


@dataclass(slots=True)
class CheckReport:
    """The result of a check.

    Attributes:
        base_url: The API.
        problem: Why the check could not begin, such as refused credentials; "" if it could.
        connected: Whether the API answered.
        resources: The result for each resource.
    """

    base_url: str
    problem: str = ""
    connected: bool = False
    resources: list[ResourceReport] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether everything could be read and mapped."""
        return not self.problem and all(one.ok for one in self.resources)

    def to_json(self) -> dict[str, Any]:
        """Returns the report as JSON values, without secrets."""
        report: dict[str, Any] = encode_item({"ok": self.ok, **asdict(self)})
        return report

    def _by_cause(self) -> list[ResourceReport]:
        """Returns the reports; resources that differ only in their address share one."""
        by_cause: dict[str, ResourceReport] = {}
        for one in self.resources:
            cause = _ADDRESS.sub("", one.problem) or one.name
            known = by_cause.get(cause)
            by_cause[cause] = (
                one if known is None else replace(known, name=f"{known.name}, {one.name}")
            )
        return list(by_cause.values())

    def __str__(self) -> str:
        state = "connected" if self.connected else "not connected"
        lines = [f"{self.base_url}: {self.problem or state}"]
        for one in self._by_cause():
            lines += ["", *_lines(one)]
        return redact("\n".join(lines))


def check(
    config: str | os.PathLike[str] | Mapping[str, Any] | APIConnector,
    only: list[str] | None = None,
    endpoint: str | None = None,
) -> CheckReport:
    """Connects, reads the first page of each resource, and maps its first records.

    Nothing is written. A problem with the API becomes part of the report.

    Args:
        config: A YAML file, a dict of the same form, or a connector.
        only: The names of the resources to check; all by default.
        endpoint: An address to check instead.

    Raises:
        ConfigError: the configuration itself is wrong.
    """
    connector = config if isinstance(config, APIConnector) else APIConnector(config=config)  # type: ignore[arg-type]
    report = CheckReport(connector.base_url)
    try:
        connector.ensure_authenticated()
    except ContextFrameError as error:
        report.problem = redact(str(error))
        report.connected = connector.connected
        return report
    names = only or [one.name for one in connector.config.resources]
    if endpoint is not None or not names:
        report.resources.append(_checked(connector, endpoint or "", {"endpoint": endpoint}))
    for name in names if endpoint is None else ():
        report.resources.append(
            _checked(connector, name, {"only": [name]}, connector.config.resource(name))
        )
    report.connected = connector.connected
    return report


def _checked(
    connector: APIConnector,
    name: str,
    arguments: dict[str, Any],
    resource: Resource | None = None,
) -> ResourceReport:
    report = ResourceReport(name)
    try:
        partition = next(iter(connector.partitions(**arguments)), None)
        if partition is None:
            report.hint = f"the parent {resource.parent if resource else ''} has no records"
            return report
        if partition.params.problem:
            report.problem = redact(partition.params.problem)
            return report
        report.partition = partition.id
        report.name = name or partition.id
        scope = replace(partition.params, is_counted_first=True)
        partition, report.pages = connector._counted_partition(replace(partition, params=scope))
        page = connector.fetch_page(partition, None if report.pages is None else 0)
        _describe(report, connector, partition, page)
    except ContextFrameError as error:
        report.problem = redact(str(error))
    return report


def _describe(
    report: ResourceReport, connector: APIConnector, partition: Partition, page: Page
) -> None:
    report.records = len(page.items)
    report.partial = redact(page.partial)
    report.failed = len(page.failures)
    if page.next_cursor is not None:
        report.next_page = connector._page_name(partition, page.next_cursor)
    elif report.pages is not None and report.pages > 1:
        report.next_page = "by number"
    if not page.items and not page.failures:
        report.hint = "the first page has no records"
    samples = [Sample.of(connector, item) for item in page.items]
    report.samples = samples[:SAMPLES]
    unmapped = [sample.error for sample in samples if sample.error]
    report.unmapped = len(unmapped)
    reasons = [*(letter.message for letter in page.failures), *unmapped]
    report.reasons = list(dict.fromkeys(reasons))[:_SHOWN_REASONS]
    if report.samples and not unmapped and all(one.unique_id is None for one in report.samples):
        report.hint = "the records have no id, so each change makes a new document; set mapping.id"


def _lines(report: ResourceReport) -> list[str]:
    if report.problem:
        return [f"{report.name}: {report.problem}"]
    pages = f", {report.pages} pages" if report.pages is not None else ""
    more = f", next: {report.next_page}" if report.next_page else ", no further page"
    lines = [f"{report.name}: {report.records} records on the first page{pages}{more}"]
    for count, what in ((report.failed, "read"), (report.unmapped, "mapped")):
        if count:
            lines.append(f"  {count} record{'s' if count > 1 else ''} cannot be {what}")
    lines += [f"    {reason}" for reason in report.reasons]
    if report.partial:
        lines.append(f"  may be incomplete: {report.partial}")
    if report.hint:
        lines.append(f"  {report.hint}")
    for sample in report.samples:
        lines += sample.lines()
    return lines
