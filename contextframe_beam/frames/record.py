"""FrameRecord: one document with its text, metadata, relationships and vector; and Deletion.

This file has the record itself and its identity. `encode.py` turns it into a row, and `layout.py`
back.
"""

from __future__ import annotations

import hashlib
import re
import uuid as _uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date
from importlib import import_module
from typing import Any

import numpy as np

from contextframe_beam.errors import RecordError
from contextframe_beam.frames.place import Place

#: Documents of one `unique_id` have one uuid, on any machine and in any release.
NAMESPACE = _uuid.uuid5(_uuid.NAMESPACE_URL, "https://contextframe.org/frames")

#: Ids with this beginning name the dataset's own rows, not documents.
RESERVED = "contextframe-beam:"

# The most records, and the most bytes of their content, to encode together; this keeps a column
# below Arrow's limit of 2 GiB.
_BATCH_ROWS = 1024
_BATCH_SIZE = 64 << 20

_TITLE_LENGTH = 120
_HEADING = re.compile(r"^#{1,6}[ \t]+(\S.*)$", re.MULTILINE)
_NAMESPACE_BYTES = NAMESPACE.bytes
_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\Z")
_VARIANT = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}


def uuid_of(unique_id: str) -> str:
    """Returns the lowercase uuid of a document: `uuid5(NAMESPACE, unique_id)`.

    Written by hand because it runs once per document and `uuid.uuid5` takes six times as long
    (RFC 9562, section 5.5: SHA-1, version 5, variant 10).

    Raises:
        UnicodeEncodeError: `unique_id` holds a lone surrogate.
    """
    digest = hashlib.sha1(_NAMESPACE_BYTES + unique_id.encode(), usedforsecurity=False).hexdigest()
    return (
        f"{digest[:8]}-{digest[8:12]}-5{digest[13:16]}-"
        f"{_VARIANT[digest[16]]}{digest[17:20]}-{digest[20:32]}"
    )


def is_uuid(value: object) -> bool:
    """Returns whether `value` is the canonical text of a uuid (36 characters), in any case."""
    return isinstance(value, str) and _UUID.match(value) is not None


def readers_of(readers: Iterable[str] | None) -> list[str] | None:
    """Returns readers in order, each once; None stays None.

    Raises:
        RecordError: they are not texts that name somebody.
    """
    if readers is None:
        return None
    if isinstance(readers, str | bytes | dict) or not isinstance(readers, Iterable):
        raise RecordError(f"readers is {readers!r:.60}; expected a list of texts, or None")
    found = list(readers)
    for one in found:
        if not isinstance(one, str) or not one.isprintable() or not one.strip():
            raise RecordError(
                f"a reader is {one!a:.60}; expected text without control characters, as in "
                "user:ana@example.com"
            )
    return sorted(set(found))


def target_unique_id(unique_id: str | None, target_id: str) -> str:
    """Returns the unique_id of a relationship's target, in the id space of the record itself.

    A source names its documents `prefix:id` (or `prefix:container#id`), and its relationships
    point to ids without a prefix. The record's prefix is put before these ids, so that the target's
    uuid is the one of its own row. An id that already begins with the source's prefix stays as it
    is.
    """
    source, colon, _ = (unique_id or "").partition(":")
    if not colon or target_id.startswith(source + colon):
        return target_id
    container, mark, _ = (unique_id or "").rpartition("#")
    return (container + mark if mark else source + colon) + target_id


#: The row that writers without another common row replace.
ANCHOR_URI = f"{RESERVED}anchor"
ANCHOR_KEY = uuid_of(ANCHOR_URI)


class FrameRecord:
    """One document, on its way into a dataset or read from it.

    All attributes are mutable. Two records are equal if all attributes are; vectors are compared
    as float32, because they are stored so.

    Attributes:
        text_content: The document's text, or None.
        metadata: Any JSON object. Names with a column in the dataset (title, author, tags,
            created_at, relationships, ...) become columns, the others custom metadata.
        record_type: document, collection_header, dataset_header or frameset.
        unique_id: Identifies the document for ever, as in `api:4711`. With None the content
            identifies it, so that the same content is the same row.
        timestamp: When the document was last changed, as ISO 8601 text.
        context: A JSON object for language models, or None.
        vector: `embed_dim` float32 values, or None.
        raw_data: The document's original bytes, or None.
        raw_data_type: The MIME type of `raw_data`.
        parent: The uuid of the document that this record is a chunk of; None for documents.
        origin: 16 bytes, what a document was made of: its content at the source and all settings.
            As long as they are the same, a run need not make it again. None where that is unknown,
            and for chunks.
        embedder: The fingerprint of the embedder that made `vector`; such a vector is no part of
            what decides whether the record has changed.
        place: Where the document lies in its source, by which a later run finds that it is gone;
            None where that is unknown, and for chunks.
        readers: Who may read the document, each as `kind:name` (`user:ana@example.com`,
            `group:eng@example.com`, `domain:example.com`), or `anyone`; in order, each once. None
            where that is unknown, which never means all. Chunks have those of their document.
        score: How well the record matched a search; None elsewhere. Not stored, not compared.
    """

    __slots__ = (
        "context",
        "embedder",
        "metadata",
        "origin",
        "parent",
        "place",
        "raw_data",
        "raw_data_type",
        "readers",
        "record_type",
        "score",
        "text_content",
        "timestamp",
        "unique_id",
        "vector",
    )
    __hash__ = None  # type: ignore[assignment]  # mutable

    def __init__(
        self,
        text_content: str | None = None,
        metadata: dict[str, Any] | None = None,
        record_type: str = "document",
        unique_id: str | None = None,
        timestamp: str | date | None = None,
        context: dict[str, Any] | None = None,
        vector: Any = None,
        raw_data: bytes | None = None,
        raw_data_type: str | None = None,
        *,
        parent: str | None = None,
        origin: bytes | None = None,
        embedder: str | None = None,
        place: Place | None = None,
        readers: Iterable[str] | None = None,
    ) -> None:
        self.text_content = text_content
        self.metadata: dict[str, Any] = {} if metadata is None else metadata
        self.record_type = record_type
        self.unique_id = unique_id
        self.timestamp = timestamp.isoformat() if isinstance(timestamp, date) else timestamp
        self.context = context
        self.vector = vector
        self.raw_data = raw_data
        self.raw_data_type = raw_data_type
        self.parent = parent
        self.origin = origin
        self.embedder = embedder
        self.place = place
        self.readers = readers_of(readers)
        self.score: float | None = None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, FrameRecord):
            return NotImplemented
        return all(
            getattr(self, name) == getattr(other, name)
            for name in FrameRecord.__slots__
            if name not in ("score", "vector")
        ) and _same_vector(self.vector, other.vector)

    def _repr_html_(self) -> str:
        from contextframe_beam.frames.html import definition_list

        names = self.metadata if isinstance(self.metadata, dict) else {}
        return definition_list(
            {
                "Id": self.unique_id,
                "Score": "" if self.score is None else f"{self.score:.4g}",
                "Changed": self.timestamp,
                **names,
                "Text": self.text_content,
                "Vector": "" if self.vector is None else f"{len(self.vector):,} values",
            }
        )

    def __repr__(self) -> str:
        text = repr(self.text_content)
        if len(text) > 62:
            text = f"{text[:58]}...{text[-1]}"
        names = self.metadata if isinstance(self.metadata, dict) else {}
        return (
            f"FrameRecord(unique_id={self.unique_id!r}, record_type={self.record_type!r}, "
            f"text_content={text}, metadata={sorted(map(str, names))!r})"
        )

    @property
    def uuid(self) -> str:
        """The key of the record's row.

        Raises:
            RecordError: the record cannot be stored, for example without an id and content.
        """
        # Imported here, because records need not load Arrow: only the encoder knows all stored
        # content, which identifies a record without an id.
        encode = import_module("contextframe_beam.frames.encode")
        uuid: str = encode.record_uuid(self)
        return uuid

    @property
    def title(self) -> str:
        """The title in the metadata, or else the text's first heading or line, or the unique_id."""
        title = self.metadata.get("title")
        if isinstance(title, str) and title:
            return title
        return title_of(self.text_content, self.unique_id)


def title_of(text: str | None, unique_id: str | None) -> str:
    """Returns the first heading or line of a text, up to 120 characters, or the unique_id."""
    if text:
        head = text[:4096]
        if "#" in head:
            for heading in _HEADING.finditer(head):
                title = _without_closing(heading.group(1).rstrip())
                if title:
                    return title[:_TITLE_LENGTH]
        for line in head.splitlines():
            line = line.strip()
            if line:
                return line[:_TITLE_LENGTH]
    return unique_id or ""


def _without_closing(heading: str) -> str:
    """Returns a Markdown heading without its closing marks; `C#` keeps its own."""
    title = heading.rstrip("#")
    return title.rstrip() if not title or title[-1] in " \t" else heading


def _same_vector(left: Any, right: Any) -> bool:
    if left is None or right is None:
        return left is None and right is None
    return np.array_equal(np.asarray(left, np.float32), np.asarray(right, np.float32))


@dataclass(frozen=True)
class Deletion:
    """Says that a document is gone; `map_to_frame_record` may return it instead of a record.

    The commit deletes the stored row with its key from any source, as an upsert would replace it.
    If the run also has rows with that key, a row stays only if its timestamp is later than the
    deletion's. A deletion without a readable timestamp counts as the latest: sources that do not
    say when usually delete documents after changing them, and seldom create them again.

    Attributes:
        unique_id: The document's id, as in its record.
        timestamp: When it was deleted, as ISO 8601 text.
        uuid: The document's key, if its metadata has a uuid; instead of `unique_id`.

    Raises:
        RecordError: it does not name a document.
    """

    unique_id: str | None = None
    timestamp: str | date | None = None
    uuid: str | None = None

    def __post_init__(self) -> None:
        if (self.unique_id is None) == (self.uuid is None):
            raise RecordError("a deletion needs the unique_id or the uuid of a document, not both")
        if self.uuid is not None and not is_uuid(self.uuid):
            raise RecordError(f"the deletion's uuid is {self.uuid!r:.80}, which is not a uuid")
        if self.unique_id is not None:
            if not isinstance(self.unique_id, str) or not self.unique_id:
                raise RecordError(
                    f"the deletion's unique_id is {self.unique_id!r:.80}; expected text"
                )
            if self.unique_id.startswith(RESERVED):
                raise RecordError(
                    f"the deletion's unique_id is {self.unique_id!r:.80}; ids that begin with "
                    f"{RESERVED} name the dataset's own rows"
                )
            try:
                self.unique_id.encode()
            except UnicodeEncodeError as error:
                raise RecordError(
                    f"the deletion's unique_id is {self.unique_id!a:.80}, which is not Unicode text"
                ) from error
        if not isinstance(self.timestamp, str | date | None):
            raise RecordError(
                f"the deletion's timestamp is {self.timestamp!r:.80}; expected ISO 8601 text"
            )

    @property
    def key(self) -> str:
        """The uuid of the row."""
        return self.uuid.lower() if self.uuid is not None else uuid_of(self.unique_id or "")

    @property
    def time(self) -> str | None:
        """The timestamp as text."""
        return self.timestamp.isoformat() if isinstance(self.timestamp, date) else self.timestamp


def batches_of(records: Iterable[FrameRecord]) -> Iterator[list[FrameRecord]]:
    """Yields records in lists to encode together: up to 1,024 records or 64 MiB of content.

    Raises:
        RecordError: one of them is not a record.
    """
    batch: list[FrameRecord] = []
    size = 0
    for record in records:
        if not isinstance(record, FrameRecord):
            raise RecordError(f"{type(record).__name__} is not a FrameRecord; map the item to one")
        batch.append(record)
        size += sum(
            len(value)
            for value in (record.text_content, record.raw_data)
            if isinstance(value, str | bytes)
        )
        if len(batch) == _BATCH_ROWS or size > _BATCH_SIZE:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
