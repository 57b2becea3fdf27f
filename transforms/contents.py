"""Documents get an origin made of what they hold, by which a later run finds them before it cuts.

This is for documents of which the source tells no version: rows of tables, lines of JSON, records
of a mapper of one's own. Those that are stored as they are need neither be cut nor embedded again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass
from uuid import UUID

import numpy as np
from xxhash import xxh3_128_digest

from contextframe_beam.connectors.page import SourceInfo, Tally
from contextframe_beam.connectors.read import runtime
from contextframe_beam.errors import RecordError
from contextframe_beam.frames.encode import content_digests
from contextframe_beam.frames.record import FrameRecord, readers_of
from contextframe_beam.transforms.elements import FrameBatch, uuid_of_record
from contextframe_beam.transforms.readers import mark_of
from contextframe_beam.transforms.recognise import StoredIn
from contextframe_beam.transforms.unchanged import pack

__all__ = ["ContentOrigins"]

# What tells these origins from those of versions and of bytes.
_OF_CONTENT = b"c"


@dataclass(frozen=True)
class ContentOrigins:
    """Gives documents their origins, and finds those that are stored with the same.

    Attributes:
        made_with: What tells chunks and vectors of this run from those that other settings make.
        stored: Where what is stored is looked up; None where nothing is to be found.
    """

    made_with: bytes
    stored: StoredIn | None = None

    def of(self, digests: Sequence[bytes]) -> list[bytes]:
        """Returns the origins of documents.

        Args:
            digests: The digests of their rows as they are, before anything is made of their texts.
        """
        head = _OF_CONTENT + self.made_with
        return [xxh3_128_digest(head + digest) for digest in digests]

    def known(
        self,
        origins: Sequence[bytes],
        source: SourceInfo | None,
        tally: Tally,
        readers: Sequence[Sequence[str] | None],
        key_of: Callable[[int], str],
    ) -> list[bool]:
        """Returns which documents are stored with the same origin, and notes them in a tally.

        Args:
            origins: Theirs.
            source: Their source; None for records without a connector, which are not looked up.
            tally: Is told of those that are stored, and of those that others may read now.
            readers: Who may read each.
            key_of: Returns the uuid of a document, by its place.

        Raises:
            DatasetError: the dataset cannot be read.
        """
        if self.stored is None or source is None or not origins:
            return [False] * len(origins)
        found = self.stored.of(source.source_id).find_origins(origins)
        places = np.flatnonzero(found.numbers >= 0)
        if len(places):
            tally.recognised_rows.append(pack(found.numbers[places]))
            tally.unchanged += len(places)
            tally.documents += len(places)
            runtime.count(unchanged=len(places))
        stored = found.readers[places].tolist()
        for place, mark in zip(places.tolist(), stored, strict=True):
            if mark_of(readers[place]) != mark:
                tally.note_readers(readers[place], UUID(key_of(place)).bytes)
        return list((found.numbers >= 0).tolist())

    def prepare(self, batch: FrameBatch) -> None:
        """Gives the documents of a batch their origins, and takes out those that are stored.

        Chunks, documents with an origin, and those that come in several parts stay as they are.
        """
        records = batch.records
        parts = Counter(batch.documents)
        asked = [
            place
            for place, record in enumerate(records)
            if isinstance(record, FrameRecord)
            and record.parent is None
            and record.origin is None
            and _names_readers(record)
            and (not batch.documents or parts[batch.documents[place]] == 1)
        ]
        digests = content_digests([_unshared(records[place]) for place in asked])
        made = {
            place: origin
            for place, digest in zip(asked, digests, strict=True)
            if digest is not None
            for origin in self.of([digest])
        }
        for place, origin in made.items():
            records[place].origin = origin
        given = [records[place] for place in made]
        known = self.known(
            list(made.values()),
            batch.source,
            batch.tally,
            [readers_of(record.readers) for record in given],
            lambda number: uuid_of_record(given[number]),
        )
        gone = {place for place, is_known in zip(made, known, strict=True) if is_known}
        if gone:
            kept = [place for place in range(len(records)) if place not in gone]
            numbers = batch.documents or range(len(records))
            batch.documents = [numbers[place] for place in kept]
            batch.items = [batch.items[place] for place in kept]
            batch.records = [records[place] for place in kept]


def _names_readers(record: FrameRecord) -> bool:
    """Returns whether its readers can be stored; the sink refuses others."""
    if not isinstance(record.readers, list | tuple | set | None):
        return False
    try:
        readers_of(record.readers)
    except RecordError:
        return False
    return True


def _unshared(record: FrameRecord) -> FrameRecord:
    """Returns a record without its readers, who are no part of what it is."""
    if record.readers is None:
        return record
    other = copy(record)
    other.readers = None
    return other
