"""What is read of an API in one partition, and what its first page told about the others.

The planner makes it, it travels with the partition to whoever reads it, and nothing changes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from contextframe_beam.connectors.api.totals import Stated
from contextframe_beam.times import Value


@dataclass(frozen=True, slots=True)
class Counted:
    """What the first page of a partition tells about all of them.

    Attributes:
        pages: How many are read.
        size: The number of records on a full page, where that is known.
        first: The digest of the first page's records; None where it has none.
        place: Where its records were; empty where it does not tell.
        stated: What it states about the whole.
        newest: The greatest value of the incremental field on it.
        is_cut: Whether a limit leaves pages out.
        paginator: How pages follow each other, as a configuration says it, where the page told.
    """

    pages: int
    size: int | None
    first: int | None = None
    place: str = ""
    stated: Stated | None = None
    newest: Value | None = None
    is_cut: bool = False
    paginator: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Scope:
    """What is read of an API in one partition: the `params` of the partition.

    Attributes:
        run: Tells the partitions of one run from those of another.
        resource: The name of the resource; empty where an endpoint is read.
        endpoint: The address that is read where there is no resource.
        params: The query parameters of the endpoint.
        parent: The fields of the parent's record that requests and records need.
        since: Where it begins: as the records write it, or as `ends_are_written` says.
        until: Where it ends, as a request writes it.
        bounds: The range of time that a run asks for: its closed ends, ISO 8601.
        slice: What its state says about the slice of time: `of`, `from`, and for the last `last`.
        reached: The value that an earlier run reached, behind which its state does not fall.
        began: When the run began.
        is_stateless: Whether it has no state.
        max_pages: The most pages that are read.
        max_items: The most records that are read.
        is_counted_first: Whether its pages are counted before they are read.
        problem: Why there is nothing to ask; `item` then becomes a dead letter.
        item: The parent's record that has the problem.
        counted: What counting its pages told.
    """

    run: str = ""
    resource: str = ""
    endpoint: str = ""
    params: Mapping[str, Any] | None = None
    parent: Mapping[str, Any] | None = None
    since: Value | None = None
    until: Value | None = None
    bounds: Mapping[str, str] | None = None
    slice: Mapping[str, str] | None = None
    reached: Value | None = None
    began: datetime | None = None
    is_stateless: bool = False
    max_pages: int | None = None
    max_items: int | None = None
    is_counted_first: bool = False
    problem: str = ""
    item: Any = None
    counted: Counted | None = None

    @property
    def name(self) -> str:
        """What is read, for messages."""
        return self.resource or self.endpoint

    @property
    def ends_are_written(self) -> bool:
        """Whether `since` is written as a request wants it, and moved back as far as it should be.

        The ends of slices and of ranges are.
        """
        return self.until is not None or self.bounds is not None

    @property
    def known(self) -> Value | None:
        """The value of an earlier run that counts as seen; none where it may lie outside."""
        return self.reached if self.bounds is None and self.slice is None else None

    @property
    def content(self) -> Value | None:
        """Where it ends, if it is another part of its partition with each end."""
        is_last = self.slice is None or "last" in self.slice
        return None if is_last and not self.is_stateless else self.until
