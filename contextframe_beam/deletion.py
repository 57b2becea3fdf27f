"""Deletion: what a source says about a document that is there no more."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from contextframe_beam.errors import RecordError
from contextframe_beam.record import RESERVED, is_uuid, uuid_of


@dataclass(frozen=True)
class Deletion:
    """Says that a document is gone; `map_to_frame_record` may return it instead of a record.

    The commit deletes the stored row of its key, whichever source wrote it, as an upsert would
    replace it. Where a run brings rows of that key as well, a row stays only if its timestamp is
    later than the deletion's. A deletion without a timestamp, or with one that cannot be read as a
    time, counts as the latest: sources that say neither when nor in which order delete what they
    changed before, and seldom make it anew.

    Attributes:
        unique_id: The document's id, as its record had it.
        timestamp: When it was deleted, as ISO 8601 text.
        uuid: Its key, for a document whose metadata had a uuid of its own; instead of `unique_id`.

    Raises:
        RecordError: it names no document.
    """

    unique_id: str | None = None
    timestamp: str | date | None = None
    uuid: str | None = None

    def __post_init__(self) -> None:
        if (self.unique_id is None) == (self.uuid is None):
            raise RecordError("a deletion needs the unique_id or the uuid of a document, not both")
        if self.uuid is not None and not is_uuid(self.uuid):
            raise RecordError(f"the deletion's uuid is {self.uuid!r:.80}; that is no uuid")
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
