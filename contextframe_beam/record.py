"""FrameRecord: one document with its text, metadata, relationships and vector.

This file holds the record itself and how it is identified. How it becomes a row and comes back
is in `encoding.py`.
"""

from __future__ import annotations

import hashlib
import uuid as _uuid
from datetime import date
from typing import Any

import numpy as np

#: Documents of one `unique_id` have one uuid, on any machine and in any release.
NAMESPACE = _uuid.uuid5(_uuid.NAMESPACE_URL, "https://contextframe.org/frames")

#: Ids that begin so name the dataset's own rows, not documents.
RESERVED = "contextframe-beam:"

_NAMESPACE_BYTES = NAMESPACE.bytes
_VARIANT = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}


def uuid_of(unique_id: str) -> str:
    """Returns the lowercase uuid of a document: `uuid5(NAMESPACE, unique_id)`.

    Written out by hand because it runs once a document and `uuid.uuid5` takes six times as long
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
    """Tells whether `value` is text in the canonical 36 characters of a uuid, in any case."""
    if not isinstance(value, str) or len(value) != 36:
        return False
    try:
        return str(_uuid.UUID(value)) == value.lower()
    except ValueError:
        return False


def target_unique_id(unique_id: str | None, target_id: str) -> str:
    """Returns the unique_id of a relationship's target, in the id space of the record itself.

    A source names its documents `prefix:id` (or `prefix:container#id`), and its relationships
    point at bare ids. The prefix of the record is put before such an id, so that the target's
    uuid is the one that the target's own row has. An id that begins with the source's own
    prefix is whole already.
    """
    source, colon, _ = (unique_id or "").partition(":")
    if not colon or target_id.startswith(source + colon):
        return target_id
    container, mark, _ = (unique_id or "").rpartition("#")
    return (container + mark if mark else source + colon) + target_id


#: The row that all writers of a dataset replace who have no other row in common.
ANCHOR_URI = f"{RESERVED}anchor"
ANCHOR_KEY = uuid_of(ANCHOR_URI)


class FrameRecord:
    """One document on its way into a dataset, or read out of it.

    All attributes are mutable; two records are equal when all of them are (vectors are compared
    as float32, which is how they are stored).

    Attributes:
        text_content: The document's text, or None.
        metadata: Any JSON object. Names that the dataset has a column for (title, author, tags,
            created_at, relationships, ...) become columns, the others custom metadata.
        record_type: document, collection_header, dataset_header or frameset.
        unique_id: Identifies the document forever, as in `api:4711`; None makes an identity
            from the content, so that the same content is the same row.
        timestamp: When the document was last changed, as ISO 8601 text.
        context: A JSON object for language models, or None.
        vector: `embed_dim` float32 values, or None.
        raw_data: The document's original bytes, or None.
        raw_data_type: The MIME type of `raw_data`.
        score: How well the record matched a search; None elsewhere. Not stored, not compared.
    """

    __slots__ = (
        "context",
        "metadata",
        "raw_data",
        "raw_data_type",
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
        self.score: float | None = None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, FrameRecord):
            return NotImplemented
        return all(
            getattr(self, name) == getattr(other, name)
            for name in FrameRecord.__slots__
            if name not in ("score", "vector")
        ) and _same_vector(self.vector, other.vector)

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
            RecordError: the record cannot be stored, as one with neither an id nor content.
        """
        from contextframe_beam.encoding import record_uuid

        return record_uuid(self)

    @property
    def title(self) -> str:
        """The metadata's title, else the text's first heading or line, else the unique_id."""
        from contextframe_beam._fields import title_of

        title = self.metadata.get("title")
        if isinstance(title, str) and title:
            return title
        return title_of(self.text_content, self.unique_id)


def _same_vector(left: Any, right: Any) -> bool:
    if left is None or right is None:
        return left is None and right is None
    return np.array_equal(np.asarray(left, np.float32), np.asarray(right, np.float32))
