"""RecordMapping: which fields of a record become which parts of a document, as YAML says it."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from contextframe_beam.connectors.http.section import Section

#: One path of a field, or several.
Paths = str | list[str]


class Relationship(Section):
    """A relationship of a record to others."""

    type: str
    """What it is: parent, child, related, reference, member_of, or a name of your own."""
    target: str
    """The path of the other record's id, or of a list of them."""
    resource: str | None = None
    """The resource that the other record belongs to; by default this resource."""


class RecordMapping(Section):
    """Which fields of a record become which parts of a document."""

    id: Paths | None = None
    """The path of the id of a record; or several paths that identify it together, such as
    [owner, number], if a record has at least one of them; or a template such as
    "{project}-{number}"."""
    prefix: str | None = None
    """Put before the id to make a unique_id; "<name>:<resource>#" by default."""
    title: Paths | None = None
    """Path(s) of the title."""
    text: str | None = None
    """The path of the text, or a template such as "# {title}\\n\\n{body}"."""
    timestamp: Paths | None = None
    """Path(s) of the time of the last change, in any form that can be read in one way: ISO 8601,
    RFC 2822, or seconds, milliseconds or microseconds since 1970."""
    tags: str | None = None
    """The path of the tags: a list, a list of objects with names, or text with commas."""
    relationships: bool | list[Relationship] = True
    """Relationships to other records; true uses parent_id, references, tags and the record of the
    parent resource."""
    metadata: dict[str, str] | list[str] | None = None
    """Which fields become metadata: names with their paths, or paths; all by default."""
    constants: dict[str, Any] = Field(default_factory=dict)
    """Metadata that every record gets."""
    record_type: str = "document"
    """The type of the records."""
