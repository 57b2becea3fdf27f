"""Maps an API's record to a frame, and judges its answers, as a configuration says."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from contextframe_beam.connectors.api.expression import read, same
from contextframe_beam.connectors.api.rules import (
    AnswerRule,
    AnswerRules,
    Condition,
    RetryRule,
)
from contextframe_beam.connectors.cursors import seconds_of
from contextframe_beam.connectors.http.judges import Judge, not_ready, usual
from contextframe_beam.connectors.http.request import (
    HttpError,
    HttpResponse,
    PassedOverError,
    TokenExpiredError,
)
from contextframe_beam.connectors.http.retry import Verdict, Wait
from contextframe_beam.connectors.mapper import as_text, lookup
from contextframe_beam.connectors.record_mapper import RecordMapper
from contextframe_beam.connectors.record_mapping import RecordMapping
from contextframe_beam.errors import ConnectorError, RecordError
from contextframe_beam.frames.record import FrameRecord

if TYPE_CHECKING:
    from contextframe_beam.connectors.item_columns import ItemColumns
    from contextframe_beam.frames.columns import FrameColumns

#: The key that says where a record is from; left out of the metadata like all such names.
RESOURCE = "_resource"
PARENT = "_parent"
#: The unique_id of the parent's record, inside `_parent`.
UNIQUE_ID = "_unique_id"


class ResourceMapper(RecordMapper):
    """Maps the records of one resource.

    Args:
        mapping: The mapping in the configuration.
        source: The name of the source.
        resource: The name of the resource.
        prefix_of: Returns the prefix of the unique_ids of a resource, by its name.
    """

    def __init__(
        self, mapping: RecordMapping, source: str, resource: str, prefix_of: Callable[[str], str]
    ) -> None:
        keys = {key: getattr(mapping, key) for key in RecordMapping.model_fields}
        keys["prefix"] = prefix_of(resource)
        super().__init__(resource, {"source": source, "resource": resource}, prefix_of, **keys)
        self.resource = resource

    def map(self, item: Mapping[str, Any]) -> FrameRecord:
        """Returns the record of an item.

        Raises:
            RecordError: the item is not an object, or has no text and no id.
        """
        record = super().map(item)
        if not record.text_content and record.unique_id is None:
            raise RecordError(
                "the record has no text and no id where they usually are; say where: "
                "mapping.text, mapping.id"
            )
        parent = item.get(PARENT) if self.linked else None
        for target in _parents_in(parent):
            link = {"relationship_type": "parent", "target_id": target}
            own = record.metadata.get("relationships")
            record.metadata["relationships"] = [*(own if isinstance(own, list) else ()), link]
        return record

    def map_columns(self, items: ItemColumns) -> FrameColumns:
        """Returns the records of many items at once.

        Raises:
            NotByColumns: they have to be mapped one by one.
        """
        import pyarrow.compute as pc

        from contextframe_beam.connectors import column_mapper
        from contextframe_beam.connectors.item_columns import marked
        from contextframe_beam.frames.columns import NotByColumns

        made = super().map_columns(items)
        if made.unique_ids.null_count:
            nothing = pc.and_(made.unique_ids.is_null(), pc.equal(made.texts, ""))
            if pc.any(nothing).as_py():
                raise NotByColumns(marked(nothing.to_pylist()))
        parents = items.fields.get(PARENT) if self.linked else None
        if parents is not None:
            link = column_mapper.links_to("parent", list(map(_parents_in, parents.to_list())))
            links = [link] if made.links is None else [made.links, link]
            made.links = column_mapper.together_with(made.metadata, links)
        return made


def _parents_in(parent: Any) -> list[str]:
    """Returns the unique_id of a parent's record, if there is one."""
    found = parent.get(UNIQUE_ID) if isinstance(parent, Mapping) else None
    return [found] if isinstance(found, str) and found else []


def page_style_record(item: dict[str, Any]) -> FrameRecord:
    """Maps an item as `APIConnector` does without configured resources.

    The text is `content`. All other fields but `id` and `url` become metadata, `id` as `api_id`
    and `url` as `api_url`; the unique_id is `api:<id>`.
    """
    identifier = as_text(item.get("id"))
    author = item.get("author")
    metadata = {
        "source": "api",
        "api_id": item.get("id"),
        "api_url": item.get("url"),
        "created_at": item.get("created_at"),
        "updated_at": item.get("updated_at"),
        "author": author.get("name") if isinstance(author, Mapping) else author,
        **{key: value for key, value in item.items() if key not in ("content", "id", "url")},
    }
    updated = item.get("updated_at")
    return FrameRecord(
        text_content=as_text(item.get("content")),
        metadata=metadata,
        record_type="document",
        unique_id=f"api:{identifier}" if identifier else None,
        timestamp=None if updated is None else as_text(updated),
    )


def page_style_columns(items: ItemColumns) -> FrameColumns:
    """Maps many items at once, as `page_style_record` does one.

    Raises:
        NotByColumns: they have to be mapped one by one.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    from contextframe_beam.connectors import column_mapper
    from contextframe_beam.connectors.item_columns import texts_of, without_empty
    from contextframe_beam.frames.columns import Cells, FrameColumns

    fields = items.fields
    metadata = {
        name: cells for name, cells in fields.items() if name not in ("content", "id", "url")
    }
    column_mapper.or_else(metadata, "source", column_mapper.constant("api", items.count))
    for name, path in _PAGE_STYLE_METADATA.items():
        found = fields.get(path)
        column_mapper.or_else(
            metadata, name, Cells(items.nowhere if found is None else found.values)
        )
    ids = without_empty(texts_of(fields.get("id"), items.nowhere))
    updated = fields.get("updated_at")
    times = None if updated is None else texts_of(updated, items.nowhere)
    if updated is not None and updated.absent is not None:
        times = pc.if_else(pa.array(updated.absent), pa.scalar(None, pa.string()), times)
    return FrameColumns(
        texts_of(fields.get("content"), items.nowhere),
        column_mapper.together(["api:", ids], items),
        times,
        "document",
        metadata,
    )


_PAGE_STYLE_METADATA = {
    "api_id": "id",
    "api_url": "url",
    "created_at": "created_at",
    "updated_at": "updated_at",
    "author": "author",
}


def judge_of(*sections: AnswerRules) -> Judge:
    """Returns the judge for the rules of several sections; the first section's come first."""
    renew = [_meets(rule) for one in sections for rule in one.renew_when]
    retry = [(_meets(rule), _wait_of(rule)) for one in sections for rule in one.retry_when]
    refuse = [_meets(rule) for one in sections for rule in one.error_when]
    ignore = [_meets(rule) for one in sections for rule in one.ignore_when]

    def judge(response: HttpResponse) -> Verdict:
        if _any(renew, response):
            return _told(response, TokenExpiredError, "renew_when says that the token expired")
        for meets, wait in retry:
            if meets(response):
                return wait
        if _any(refuse, response):
            return _told(response, HttpError, "error_when says that this is an error")
        verdict = not_ready(response) or usual(response)
        if not isinstance(verdict, Wait) and _any(ignore, response):
            return _told(response, PassedOverError, "ignore_when passes this over")
        return verdict

    return judge


def _any(rules: Sequence[Callable[[HttpResponse], bool]], response: HttpResponse) -> bool:
    return any(meets(response) for meets in rules)


def _told(response: HttpResponse, kind: type[HttpError], why: str) -> HttpError:
    excerpt = response.excerpt()
    error = response.refused(f"({excerpt}); {why}" if excerpt else f"; {why}")
    return kind(str(error), response.status)


def _wait_of(rule: RetryRule) -> Wait:
    seconds = None if rule.wait is None else seconds_of(rule.wait)
    shared = seconds is not None
    return Wait(seconds, "retry_when says to ask again", doubles=shared, shared=shared)


def _meets(rule: AnswerRule) -> Callable[[HttpResponse], bool]:
    """Returns a function that tests an answer against a rule."""
    given = rule.status if isinstance(rule.status, list) else [rule.status]
    statuses = None if rule.status is None else frozenset(map(str, given))
    text = None if rule.text is None else rule.text.casefold()
    condition = None if rule.field is None else FieldCondition(rule)
    when = None if rule.when is None else read(rule.when)

    def meets(response: HttpResponse) -> bool:
        status = str(response.status)
        if statuses is not None and not statuses & {status, f"{status[0]}xx"}:
            return False
        if text is not None and text not in response.body.decode("utf-8", "replace").casefold():
            return False
        if condition is None and when is None:
            return True
        data = _data(response)
        if when is not None and not when.value(_known(response, data)):
            return False
        return condition is None or condition(data)

    return meets


def _known(response: HttpResponse, data: Any) -> dict[str, Any]:
    headers = {name.lower(): value for name, value in response.headers.items()}
    return {"response": data, "headers": headers, "status": response.status}


def _data(response: HttpResponse) -> Any:
    try:
        return response.json()
    except ConnectorError:
        return None


_NO = ("false", "0", "no")
_MISSING: Any = object()


class FieldCondition:
    """A condition on a field of records.

    Args:
        settings: The condition in the configuration.
    """

    def __init__(self, settings: Condition) -> None:
        self._path = settings.field or ""
        self._holds = _value_condition(settings)

    def __call__(self, item: Any) -> bool:
        """Returns whether a record meets it."""
        return self._holds(lookup(item, self._path, _MISSING))

    def rows(self, items: ItemColumns) -> list[bool]:
        """Returns which of many records meet it.

        Raises:
            NotByColumns: they have to be looked at one by one.
        """
        cells = items.get(self._path)
        if cells is None:
            return [self._holds(_MISSING)] * items.count
        return list(map(self._holds, cells.to_list(_MISSING)))


def _value_condition(settings: Condition) -> Callable[[Any], bool]:
    """Returns a function that tests the value of a field, or _MISSING, against a condition."""
    given = settings.model_fields_set
    pattern = re.compile(settings.matches) if settings.matches is not None else None
    none_of = settings.none_of or ()
    bare = given <= {"field"}

    def holds(value: Any) -> bool:
        there = value is not _MISSING and value is not None
        if bare:
            return there and bool(value) and as_text(value).lower() not in _NO
        if settings.exists is not None and there is not settings.exists:
            return False
        value = value if there else None
        if "equals" in given and not same(value, settings.equals):
            return False
        if "not_equals" in given and same(value, settings.not_equals):
            return False
        if settings.one_of is not None and not any(same(value, one) for one in settings.one_of):
            return False
        if any(same(value, one) for one in none_of):
            return False
        return pattern is None or pattern.search(as_text(value)) is not None

    return holds
