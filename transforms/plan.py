"""The plan of a run's commit, before and after its workers have written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import lance
import numpy as np
import pyarrow as pa

from contextframe_beam.connectors.page import WORK_COUNTED, Tally
from contextframe_beam.frames.embedders import EmbedderIdentity
from contextframe_beam.frames.fields import OwnField, fields_in
from contextframe_beam.frames.schema import DEFAULT_EMBED_DIM, frame_schema
from contextframe_beam.frames.text_record import TextRecord
from contextframe_beam.store.address import Address, StorageOptions
from contextframe_beam.store.files import DEFAULT_STORAGE_VERSION, Destination
from contextframe_beam.store.keys import Numbers
from contextframe_beam.store.rows import Addresses, no_addresses, scan_rows
from contextframe_beam.store.runs import NO_SOURCE
from contextframe_beam.store.state import SourceState, parts_of
from contextframe_beam.transforms.letters import LetterFile
from contextframe_beam.transforms.limits import DeletionLimit, FailureLimit
from contextframe_beam.transforms.modes import Mode
from contextframe_beam.transforms.newest import Deduplicated, Shared
from contextframe_beam.transforms.readers import collections_told, readers_told
from contextframe_beam.transforms.unchanged import SeenRows
from contextframe_beam.transforms.written import Written


@dataclass(frozen=True)
class Run:
    """The settings of a run, known before it starts.

    Attributes:
        address: The dataset.
        mode: What it does with stored rows.
        run_id: Its id; a run is not committed again if its id was committed before.
        storage_version: The file format of a new dataset.
        failures: The limit of failed items.
        deletes: The limit of deleted documents.
        embed_dim: The dataset's vector length.
        base_version: The dataset's version when the run began; None if there was no dataset.
        letters: The file for its dead letters; None if they are not kept.
        start: Distinguishes it from other starts with the same run id.
        texts: What it makes of texts, for the record; nothing where it only stores them.
        new_dim: Whether the vectors of the dataset have another length, and are all null.
        max_tokens: So many tokens may be embedded; None for any number.
        dry_run: Whether nothing is written.
        mapping: A digest of how items become documents, for the states of its sources; empty if
            that is unknown.
        fields: The own fields of the dataset, those of this run included.
    """

    address: Address
    mode: Mode
    run_id: str
    storage_version: str = DEFAULT_STORAGE_VERSION
    failures: FailureLimit = field(default_factory=FailureLimit)
    deletes: DeletionLimit = field(default_factory=DeletionLimit)
    embed_dim: int = DEFAULT_EMBED_DIM
    base_version: int | None = None
    letters: LetterFile | None = None
    start: str = ""
    texts: TextRecord = field(default_factory=TextRecord)
    new_dim: bool = False
    max_tokens: int | None = None
    dry_run: bool = False
    mapping: str = ""
    fields: tuple[OwnField, ...] = ()

    @property
    def embedder(self) -> EmbedderIdentity | None:
        """Whose vectors it brings; None where it embeds nothing."""
        return self.texts.embedder

    @property
    def uri(self) -> str:
        """The dataset, for people."""
        return self.address.uri

    @property
    def storage_options(self) -> StorageOptions:
        """The options of its object store."""
        return self.address.storage_options

    @property
    def schema(self) -> pa.Schema:
        """The columns of its rows."""
        return pa.schema([*frame_schema(self.embed_dim), *fields_in(self.fields)])

    @property
    def destination(self) -> Destination:
        """The dataset that its rows go to."""
        # Columns of new vectors have no numbers in the dataset yet.
        of_its_own = self.mode.replaces_all or self.new_dim
        return Destination(self.uri, self.storage_options, self.storage_version, of_its_own)


#: How many parts of a source that could not be read a receipt names.
MOST_UNREAD = 50


@dataclass(frozen=True)
class Plan:
    """The common input of all attempts of a commit.

    Attributes:
        run: The run.
        written: The reports of its workers.
        unique: Its data files, in which each key occurs once.
        seen: The stored rows that the run found unchanged, or None.
        shared: Items with the same id that have no order in time.
    """

    run: Run
    written: Written
    unique: Deduplicated
    seen: SeenRows | None
    shared: Shared

    @property
    def unchanged(self) -> int:
        """The number of stored documents that stay as they are."""
        return len(self.seen) - self.unique.outdated if self.seen is not None else 0

    @property
    def unchanged_items(self) -> int:
        """The number of the run's items that equal a stored document, or did when read."""
        return sum(tally.unchanged for tally in self.tallies)

    @property
    def why_kept(self) -> str:
        """Why a mirror must not delete unseen documents; empty if it may."""
        if not self.run.mode.deletes_unseen:
            return ""
        reasons = sorted({reason for tally in self.tallies for reason in tally.narrowed})
        if self.partial:
            reasons.append("what was read may not be all of the source")
        unknown = self.unknown_failures
        if unknown > 0:
            some = "1 item" if unknown == 1 else f"{unknown:,} items"
            reasons.append(f"{some} failed")
        if NO_SOURCE in self.written.sources:
            reasons.append("records without a connector do not belong to a source")
        return "; ".join(reasons)

    @property
    def unknown_failures(self) -> int:
        """How many items failed of which it is not known which documents they are."""
        return self.written.failed - sum(len(tally.stale) for tally in self.tallies)

    @property
    def deletes_unseen(self) -> bool:
        """Whether what the run did not see is deleted."""
        return self.run.mode.deletes_unseen and not self.why_kept

    @property
    def work(self) -> dict[str, Any]:
        """What was done to documents on their way, by the names that a receipt has for it."""
        return {name: sum(getattr(one, name) for one in self.tallies) for name in WORK_COUNTED}

    @property
    def stale(self) -> Numbers:
        """The keys of documents that failed."""
        return Numbers.of_bytes(b"".join(part for tally in self.tallies for part in tally.stale))

    @property
    def readers(self) -> dict[bytes, tuple[str, ...] | None]:
        """Who may read documents that stay as they are, where the run was told, by their keys."""
        return readers_told(self.tallies)

    @property
    def doubtful(self) -> frozenset[bytes]:
        """The keys of documents that get no new readers, since they failed."""
        return frozenset(key for tally in self.tallies for key in tally.doubtful)

    @property
    def collections(self) -> dict[bytes, str]:
        """Where documents are filed that stay as they are, by their keys."""
        return collections_told(self.tallies)

    @property
    def partial(self) -> tuple[str, ...]:
        """Why records may be missing; empty if nothing is missing."""
        doubts = sorted({reason for tally in self.tallies for reason in tally.partial})
        return (*doubts, *self.unread)

    @property
    def unread(self) -> tuple[str, ...]:
        """Why parts of the sources could not be read; the first, and the number of the others."""
        reasons = sorted({reason for tally in self.tallies for reason in tally.unread})
        more = len(reasons) - MOST_UNREAD
        told = (f"and {more:,} more, which the log names",) if more > 0 else ()
        return (*reasons[:MOST_UNREAD], *told)

    @property
    def tallies(self) -> list[Tally]:
        """The tally of each source; at least one."""
        return tallies_of(self.written)


def sources_of(plan: Plan, states: Mapping[str, SourceState]) -> list[str]:
    """Returns the source ids of documents from a run's sources in a dataset.

    These are their own ids, and the ids that earlier releases gave to selections of them.
    """
    infos = [tally.info for tally in plan.tallies]
    own = [info.source_id for info in infos]
    return own + [
        part.source for info in infos for part in parts_of(states, info.source_id, info.identity)
    ]


def tallies_of(written: Written) -> list[Tally]:
    """Returns the tally of each source, or one for records without a connector."""
    found = list(written.sources.values())
    return found or [Tally()]


#: How many missed documents of a source are remembered; others have to be missed once more.
MOST_REMEMBERED = 50_000


@dataclass(frozen=True)
class Missed:
    """The documents that a mirror missed but does not delete yet.

    Attributes:
        addresses: The rows.
        keys: Their uuids, by the id of their source.
    """

    addresses: Addresses = field(default_factory=no_addresses)
    keys: Mapping[str, list[str]] = field(default_factory=dict)

    @property
    def reason(self) -> str:
        """Why they are not deleted; empty if there are none."""
        count = len(self.addresses)
        if not count:
            return ""
        some = "1 document was" if count == 1 else f"{count:,} documents were"
        return (
            f"{some} missed for the first time, and pages that are counted from the front can skip "
            "a record while others are deleted; the next mirror that misses them too deletes them"
        )


def missed_for_the_first_time(
    plan: Plan,
    dataset: lance.LanceDataset,
    unseen: Addresses,
    states: Mapping[str, SourceState],
) -> Missed:
    """Returns the rows that a mirror did not see but that may still exist in the source.

    Args:
        plan: The run.
        dataset: The version that it is committed to.
        unseen: The documents that it did not see.
        states: The states of the sources in that version.
    """
    # Earlier releases also stored documents of a source with other source ids.
    slipping = {
        source: tally.info.source_id
        for tally in plan.tallies
        if tally.may_slip
        for source in (
            tally.info.source_id,
            *(part.source for part in parts_of(states, tally.info.source_id, tally.info.identity)),
        )
    }
    if not slipping or not len(unseen):
        return Missed()
    addresses: list[Addresses] = [no_addresses()]
    found: dict[str, list[str]] = {}
    for batch, at in scan_rows(dataset, ["uuid", "x_source"]):
        places = np.flatnonzero(np.isin(at, unseen))
        here = pa.array(places)
        keys = batch.column("uuid").take(here).to_pylist()
        sources = batch.column("x_source").take(here).to_pylist()
        for place, key, source in zip(places.tolist(), keys, sources, strict=True):
            owner = slipping.get(source)
            if owner is not None and key not in _remembered(states, owner):
                addresses.append(at[place : place + 1])
                found.setdefault(owner, []).append(key)
    return Missed(
        np.concatenate(addresses),
        {source: sorted(keys)[:MOST_REMEMBERED] for source, keys in found.items()},
    )


def _remembered(states: Mapping[str, SourceState], source: str) -> frozenset[str]:
    state = states.get(source)
    return frozenset() if state is None else state.missed
