"""RecordMapper: from a record to a frame, as the keys of a mapping say.

The same keys stand in the YAML of an API, in a mapping file, and behind the options of connectors
of tables: `id`, `prefix`, `title`, `text`, `timestamp`, `tags`, `relationships`, `metadata`,
`constants` and `record_type`. `RecordMapping` describes each.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from contextframe_beam.connectors.mapper import FieldMapper, as_text, first, lookup, names
from contextframe_beam.connectors.secrets import redact
from contextframe_beam.errors import RecordError
from contextframe_beam.frames.record import FrameRecord
from contextframe_beam.frames.times import parse

if TYPE_CHECKING:
    import pyarrow as pa

    from contextframe_beam.connectors.item_columns import ItemColumns
    from contextframe_beam.frames.columns import FrameColumns, Links

_LOGGER = logging.getLogger(__name__)

_TEMPLATE = re.compile(r"\{([^{}]+)\}")
_ABSENT: Any = object()
#: Where a text is, if nobody says where.
TEXT_FIELDS = ("blocks", "sections", "content", "text", "body", "description")
_TARGET_NAMES = ("id", "_id", "uuid", "name")


class RecordMapper:
    """Maps the records of one kind.

    Args:
        name: What they are called, in a warning.
        origin: Metadata that every record gets unless it has it, such as `{"source": "csv"}`.
        prefix_of: Returns the prefix of the unique_ids of a kind of records, by its name.
        id: The path of the id; or several paths that identify a record together; or a template
            such as `{project}-{number}`. By default the first of id, _id and uuid with a value.
        prefix: Put before the id to make a unique_id.
        title: Path(s) of the title.
        text: The path of the text, or a template such as `# {title}`.
        timestamp: Path(s) of the time of the last change.
        tags: The path of the tags.
        relationships: Whether parent, references and tags become relationships; or a list of
            objects with `type`, `target` (a path) and `resource` (another kind of records).
        metadata: Which fields become metadata: names with their paths, or paths; all by default.
        constants: Metadata that every record gets.
        record_type: The type of the records.

    Attributes:
        fields: What maps everything but the id and relationships to other kinds.
        prefix: Put before each id.
        linked: Whether parent, references and tags become relationships.
    """

    def __init__(
        self,
        name: str,
        origin: Mapping[str, Any],
        prefix_of: Callable[[str], str] | None = None,
        *,
        id: str | Sequence[str] | None = None,
        prefix: str | None = None,
        title: str | Sequence[str] | None = None,
        text: str | None = None,
        timestamp: str | Sequence[str] | None = None,
        tags: str | None = None,
        relationships: Any = True,
        metadata: Mapping[str, str] | Sequence[str] | None = None,
        constants: Mapping[str, Any] | None = None,
        record_type: str = "document",
    ) -> None:
        self.prefix = prefix or ""
        self.linked = relationships is True
        self.origin = dict(origin)
        self._name = name
        self._told = False
        self._targets = [
            (one.type, one.target, prefix_of(one.resource or name) if prefix_of else self.prefix)
            for one in (relationships if isinstance(relationships, list) else [])
        ]
        together = [] if id is None or isinstance(id, str) else list(id)
        single = together[0] if len(together) == 1 else id if isinstance(id, str) else None
        self._together = together if len(together) > 1 else []
        self._template = single if single is not None and "{" in single else None
        # The unique_id has a prefix, and may be a template, so it is made here.
        self._id: str | tuple[str, ...] = FieldMapper().id if single is None else single
        own: dict[str, Any] = {
            key: value if isinstance(value, str) else tuple(value)
            for key, value in (("title", title), ("timestamp", timestamp))
            if value is not None and not (isinstance(value, str) and "{" in value)
        }
        if tags is not None:
            own["tags"] = tags
        self.fields = FieldMapper(
            text=text,
            relationships=self.linked,
            metadata=metadata
            if metadata is None or isinstance(metadata, Mapping)
            else tuple(metadata),
            constants=dict(constants or {}),
            id=(),
            record_type=record_type,
            **own,
        )

    @property
    def id_paths(self) -> tuple[str, ...]:
        """The paths of the fields that the id is made of."""
        if self._together:
            return tuple(self._together)
        if self._template is not None:
            return tuple(path.strip() for path in _TEMPLATE.findall(self._template))
        return (self._id,) if isinstance(self._id, str) else self._id

    @property
    def takes_all(self) -> bool:
        """Whether every field becomes metadata, unless it is something else."""
        return self.fields.metadata is None

    @property
    def paths(self) -> frozenset[str]:
        """The paths of all fields that it looks at by their names."""
        fields = self.fields
        chosen = fields.metadata or ()
        found = {*self.id_paths, *self.text_paths, fields.tags}
        found.update(chosen.values() if isinstance(chosen, Mapping) else chosen)
        for paths in (fields.title, fields.timestamp):
            found.update((paths,) if isinstance(paths, str) else paths)
        found.update(path for _, path, _ in self._targets)
        if self.linked:
            found.update(("parent_id", "references"))
        return frozenset(found)

    @property
    def text_paths(self) -> tuple[str, ...]:
        """The paths of the fields that the text is made of, or is taken from."""
        text = self.fields.text
        if text is None:
            return TEXT_FIELDS
        if "{" in text:
            return tuple(path.strip() for path in _TEMPLATE.findall(text))
        return (text,)

    @property
    def single_id(self) -> str | tuple[str, ...] | None:
        """The path of the id, or those of which the first with a value counts.

        None where several fields make it together.
        """
        return None if self._together or self._template is not None else self._id

    def map(self, item: Mapping[str, Any]) -> FrameRecord:
        """Returns the record of an item.

        Raises:
            RecordError: the item is not an object.
        """
        record = self.fields.map(item)
        record.unique_id = self.unique_id(item)
        if record.timestamp:
            self._tell_unreadable(record.timestamp)
        metadata = record.metadata
        for name, value in self.origin.items():
            metadata.setdefault(name, value)
        links = [
            {"relationship_type": kind, "target_id": prefix + target}
            for kind, path, prefix in self._targets
            for target in names(lookup(item, path), _TARGET_NAMES)
        ]
        if links:
            own = metadata.get("relationships")
            metadata["relationships"] = [*(own if isinstance(own, list) else ()), *links]
        return record

    def map_columns(self, items: ItemColumns) -> FrameColumns:
        """Returns the records of many items at once.

        Raises:
            NotByColumns: they have to be mapped one by one.
        """
        from contextframe_beam.connectors import column_mapper
        from contextframe_beam.connectors.item_columns import without_empty

        made = column_mapper.fields_in_columns(self.fields, items)
        texts = without_empty(self.id_texts(items))
        made.unique_ids = column_mapper.together([self.prefix, texts], items)
        if made.timestamps is not None:
            column_mapper.any_unreadable(made.timestamps, self._tell_unreadable)
        for name, value in self.origin.items():
            constant = column_mapper.constant(value, items.count)
            column_mapper.or_else(made.metadata, name, constant)
        if self._targets:
            links = [self._links_of(*one, items) for one in self._targets]
            made.links = column_mapper.together_with(made.metadata, links)
        return made

    def id_texts(self, items: ItemColumns) -> pa.Array:
        """Returns the ids of items without the prefix, as `id_text` does."""
        from contextframe_beam.connectors import column_mapper as columns
        from contextframe_beam.connectors.item_columns import strings, texts_of, without_empty
        from contextframe_beam.frames.columns import filled

        if self._together:
            found = [cells for path in self._together if (cells := items.get(path)) is not None]
            if any(cells.missing is not None for cells in found):
                rows = zip(*(cells.to_list(_ABSENT) for cells in found), strict=True)
                return strings(list(map(_joined, rows)))
            texts = [texts_of(cells, items.nowhere) for cells in found]
            if len(texts) == 1:
                return texts[0]
            return columns.joined([columns.each_text(quoted, one) for one in texts], "/", items)
        if self._template is None:
            return texts_of(items.first(self._id), items.nowhere)
        parts: list[Any] = []
        end = 0
        for match in _TEMPLATE.finditer(self._template):
            cells = items.get(match[1].strip())
            texts = without_empty(texts_of(cells, items.nowhere))
            parts += [self._template[end : match.start()], texts]
            end = match.end()
        return filled(columns.together([*parts, self._template[end:]], items), "")

    def _links_of(self, kind: str, path: str, prefix: str, items: ItemColumns) -> Links:
        from contextframe_beam.connectors.column_mapper import links_to

        cells = items.get(path)
        values = [] if cells is None else cells.to_list()
        targets = [[prefix + one for one in names(value, _TARGET_NAMES)] for value in values]
        return links_to(kind, targets)

    def _tell_unreadable(self, time: str) -> None:
        """Says once if a time cannot be read."""
        if self._told or parse(time) is not None:
            return
        self._told = True
        _LOGGER.warning(
            "%s: the time of a record is %s, which cannot be read in only one way; it is kept "
            "as it is, and counts as earlier than any other. Choose another field: "
            "mapping.timestamp",
            self._name,
            redact(f"{time!r:.60}"),
        )

    def unique_id(self, item: Mapping[str, Any]) -> str | None:
        """Returns the unique_id of an item; None if it has no id, or only a part of it."""
        text = self.id_text(item)
        return self.prefix + text if text else None

    def id_text(self, item: Mapping[str, Any]) -> str:
        """Returns the id of an item without the prefix; "" if it has none, or only a part of it."""
        if self._together:
            return _joined(lookup(item, path, _ABSENT) for path in self._together)
        if self._template is None:
            return as_text(first(item, self._id))
        parts = [as_text(lookup(item, path.strip())) for path in _TEMPLATE.findall(self._template)]
        rest = iter(parts)
        return _TEMPLATE.sub(lambda _: next(rest), self._template) if all(parts) else ""


def _joined(values: Iterable[Any]) -> str:
    """Returns an id that several fields make together, as far as a record has them."""
    parts = [as_text(value) for value in values if value is not _ABSENT]
    if len(parts) == 1:
        return parts[0]
    # Quoted, so that ["a/b", "c"] and ["a", "b/c"] differ.
    return "/".join(map(quoted, parts)) if all(parts) else ""


def quoted(value: Any) -> str:
    """Returns a value as one segment of a URL's path.

    Raises:
        RecordError: it holds half a character.
    """
    try:
        text = quote(str(value), safe="")
    except UnicodeEncodeError as error:
        raise RecordError(f"{value!a:.80} names nothing: it is not Unicode text") from error
    # A segment of only dots would name another folder.
    return text.replace(".", "%2E") if text in (".", "..") else text
