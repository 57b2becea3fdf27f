"""The models that define and check the configuration of an API.

The settings of a paginator are the fields of its class. Its model is made from them, so each
setting is defined once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import MISSING
from dataclasses import fields as dataclass_fields
from datetime import date
from fractions import Fraction
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

from pydantic import BeforeValidator, Discriminator, Field, create_model, model_validator

from contextframe_beam.connectors.api import paginate
from contextframe_beam.connectors.api.detect import Detect
from contextframe_beam.connectors.api.expression import ExpressionError, read
from contextframe_beam.connectors.api.numbered import Offset, PageNumber, Range
from contextframe_beam.connectors.api.paginate import (
    Continuation,
    CursorInBody,
    CursorInHeader,
    GraphQL,
    LastId,
    LinkHeader,
    LinkInBody,
    Paginator,
    SinglePage,
)
from contextframe_beam.connectors.api.rules import (
    AnswerRules,
    Deleted,
    Filter,
    PageExpression,
    RecordExpression,
    refuse_unknown,
)
from contextframe_beam.connectors.api.template import (
    OF_PAGES,
    OF_RECORDS,
    OF_REQUESTS,
    paths_in,
)
from contextframe_beam.connectors.http.section import Section, needs_type, wrong
from contextframe_beam.connectors.http.settings import (
    AuthSetting,
    BudgetSettings,
    CacheSettings,
    Duration,
)
from contextframe_beam.connectors.record_mapping import RecordMapping
from contextframe_beam.connectors.registry import members_of
from contextframe_beam.frames.times import UNITS, form_named

#: The paginators by their name in a configuration.
PAGINATORS: dict[str, type[Paginator]] = {
    "auto": Detect,
    "page": PageNumber,
    "offset": Offset,
    "cursor": CursorInBody,
    "header_cursor": CursorInHeader,
    "continuation": Continuation,
    "link": LinkInBody,
    "link_header": LinkHeader,
    "last_id": LastId,
    "range": Range,
    "graphql": GraphQL,
    "single": SinglePage,
}

_LITERAL: Any = Literal  # its members are known at run time only


def _checked_place(value: Any) -> Any:
    if isinstance(value, str) and not re.match(paginate.PATTERN, value):
        raise wrong(
            (), f"is {value!r}; write a place such as page, header:X-Page, body:page or path:page"
        )
    return value


Parameter = Annotated[
    str, BeforeValidator(_checked_place), Field(json_schema_extra={"pattern": paginate.PATTERN})
]


def paginator_of(setting: Section | Mapping[str, Any] | None) -> Paginator | None:
    """Returns the paginator that a setting describes."""
    if setting is None:
        return None
    values = setting.model_dump() if isinstance(setting, Section) else dict(setting)
    return PAGINATORS[values.pop("type")](**values)


def setting_of(paginator: Paginator) -> dict[str, Any]:
    """Returns the setting that describes a paginator."""
    name = next(name for name, cls in PAGINATORS.items() if type(paginator) is cls)
    values = {one.name: getattr(paginator, one.name) for one in dataclass_fields(paginator)}  # type: ignore[arg-type]
    return {"type": name, **values}


def _model(name: str, cls: Any) -> type[Section]:
    """Returns the model of a class of paginators: its type, and the fields of the class."""
    hints = get_type_hints(cls)
    texts = _attribute_texts(cls.__doc__ or "")
    summary = (cls.__doc__ or "").strip().split("\n", 1)[0]
    fields: dict[str, Any] = {"type": (_LITERAL[name], ...)}
    own: tuple[Any, ...] = dataclass_fields(cls)
    for field in own:
        hint: Any = hints[field.name]
        if field.name in ("param", "size_param"):
            hint = Parameter | None if type(None) in members_of(hint) else Parameter
        elif field.name == "stop_when":
            hint = PageExpression | None
        elif field.name == "size":
            positive = Annotated[int, Field(ge=1)]
            hint = positive | None if type(None) in members_of(hint) else positive
        given: dict[str, Any] = {"description": texts.get(field.name)}
        if field.default_factory is not MISSING:
            given["default_factory"] = field.default_factory
        elif field.default is not MISSING:
            given["default"] = field.default
        fields[field.name] = (hint, Field(**given))
    title = "".join(part.capitalize() for part in name.split("_")) + "Paginator"
    return create_model(title, __base__=Section, __doc__=summary, **fields)


def _attribute_texts(doc: str) -> dict[str, str]:
    """Returns what the `Attributes:` section of a docstring says."""
    _, _, section = doc.partition("Attributes:\n")
    found: dict[str, str] = {}
    name = ""
    for line in section.splitlines():
        match = re.match(r" {8}(\w+): (.*)", line)
        if match:
            name = match[1]
            found[name] = match[2]
        elif name and line.strip():
            found[name] += " " + line.strip()
    return found


def _type_alone(value: Any) -> Any:
    return {"type": value} if isinstance(value, str) else value


if TYPE_CHECKING:
    PaginatorSetting = Section
else:
    _MODELS = {name: _model(name, cls) for name, cls in PAGINATORS.items()}
    _PLAIN = tuple(
        name
        for name, model in _MODELS.items()
        if not any(one.is_required() for key, one in model.model_fields.items() if key != "type")
    )
    _ANY = Annotated[reduce(or_, _MODELS.values()), Discriminator("type"), needs_type(_MODELS)]
    PaginatorSetting = Annotated[
        _ANY, BeforeValidator(_type_alone, json_schema_input_type=Literal[_PLAIN] | _ANY)
    ]


# The settings of a resource that become its requests.
_OF_REQUESTS = ("path", "params", "headers", "body", "form")
_NAME = r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$"
_TIME_FORMATS = ("iso", "date", *UNITS, "number")  # A record does not show which.
_TOLD_ONLY = ("number", "epoch_ns")


def _as_text(value: Any) -> Any:
    # YAML turns text that looks like a date into a date.
    return value.isoformat() if isinstance(value, date) else value


def _number_as_text(value: Any) -> Any:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return str(value) if is_number else value


HeaderText = Annotated[str, BeforeValidator(_number_as_text)]


class Incremental(Section):
    """How a run reads only what changed since the last run."""

    field: str
    """The path, in a record, of the value that grows with each change: a time or a number."""
    param: Parameter | None = None
    """Where the request says since when; or use {since} in params, body or path. Without either,
    a run reads everything and leaves out the older records itself."""
    start: Annotated[str | int | float | None, BeforeValidator(_as_text)] = None
    """Since when the first run reads; it reads everything by default."""
    format: str | None = None
    """How a request writes times: iso, date, epoch, epoch_ms, epoch_us, epoch_ns, or a pattern such
    as %Y/%m/%d; by default, as the records write them. number says that the values are numbers and
    not times, such as ids that grow."""
    field_format: str | None = None
    """How the records write the field, if it can be read in two ways, like 1/2/2026: a pattern such
    as %d/%m/%Y, or one of the names of format; by default, as format says."""
    lookback: Duration | None = None
    """How far before the last value a run begins, for sources that show changes late."""
    slice: Duration | None = None
    """Reads the time from start to now in slices of this length, in parallel."""
    until_param: Parameter | None = None
    """Where the request for a slice says until when; or use {until}."""
    end: Annotated[str | int | float | None, BeforeValidator(_as_text)] = None
    """Until when slices are read; a run reads until now by default."""

    @model_validator(mode="after")
    def _check(self) -> Incremental:
        if self.slice is not None and self.start is None:
            raise wrong(("slice",), "slices need a start")
        if self.slice is not None and self.reading == "number":
            raise wrong(("slice",), "numbers are not times, so they have no slices")
        for name in ("format", "field_format"):
            _check_format(name, getattr(self, name))
        return self

    @property
    def reading(self) -> str | None:
        """How the records write the field, in the form that `times.parse` takes, if it is known."""
        if self.field_format is not None:
            return self.field_format
        # Records may write times differently from requests, and show how they do it.
        told = self.format is not None and ("%" in self.format or self.format in _TOLD_ONLY)
        return self.format if told else None


def _check_format(name: str, value: str | None) -> None:
    if value is None or value in _TIME_FORMATS:
        return
    if "%" not in value:
        raise wrong(
            (name,),
            f"is {value!r}; choose {', '.join(_TIME_FORMATS)}, or a pattern such as %Y-%m-%d",
            name=value,
            known=list(_TIME_FORMATS),
        )
    try:
        form_named(value, Fraction())
    except ValueError as error:
        raise wrong((name,), f"is {value!r}: {error}") from None


class InnerList(Section):
    """A list inside a GraphQL record, and the query for the rest of it."""

    query: str
    """The query for more of the list of one record; it takes the cursor as $after."""
    variables: dict[str, str] = Field(default_factory=lambda: {"id": "id"})
    """Variables of the query, each with the field of the object that holds the list."""
    variable: str = "after"
    """The variable that takes the cursor."""


class Recursion(Section):
    """Records whose children are records of the same resource, such as blocks of a page."""

    when: Filter | None = None
    """Which records have children, such as {field: has_children, equals: true}; by default all."""
    depth: Annotated[int, Field(ge=1, le=100)] = 20
    """How many records may lie below each other. Deeper ones make the run partial."""


class Resource(AnswerRules):
    """One kind of records that an API has, such as contacts or tickets."""

    name: Annotated[str, Field(pattern=_NAME)]
    """The name of the resource; part of every unique_id."""
    path: str | None = None
    """Its address below base_url; by default the name. {parent.id} stands for a field of the
    parent's record, {each.name} for a value of each, {= ...} for an expression."""
    method: Literal["GET", "POST", "PUT"] = "GET"
    """The HTTP method."""
    params: dict[str, Any] = Field(default_factory=dict)
    """Query parameters."""
    headers: dict[str, HeaderText] = Field(default_factory=dict)
    """Headers of its requests."""
    body: Any = None
    """The JSON body of its requests."""
    form: dict[str, Any] | None = None
    """The form that its requests send."""
    safe_to_repeat: bool | None = None
    """Whether its requests only read, so that they can be sent again after an error. By default
    that holds for everything but a GraphQL mutation."""
    records: str | None = None
    """The path of the records in an answer, such as data.items, or edges.*.node; $ is the whole
    answer. A ? at its end says that it may be missing. By default it is detected."""
    paginator: PaginatorSetting | None = None
    """How to get from page to page; detected by default."""
    partial: Literal["fail", "keep"] = "fail"
    """What to do about errors beside the data of a GraphQL answer: fail the run, or keep the nodes
    that are not affected. The affected nodes become dead letters, and the run is partial."""
    incremental: Incremental | None = None
    """How a run reads only what changed."""
    parent: str | None = None
    """A parent resource: this one is read once for each of the parent's records."""
    each: dict[str, list[str | int | float | bool | dict[str, Any]]] = Field(default_factory=dict)
    """Lists of values, by a name; the resource is read once for each value, or for each combination
    if there are several lists. {each.name} stands for the value."""
    recurse: Recursion | None = None
    """Its records may be parents too: below each, the resource is read again."""
    inner: dict[str, InnerList] = Field(default_factory=dict)
    """Lists inside its GraphQL records that are read to their end, by their path in a record."""
    include: list[str] = Field(default_factory=list)
    """Fields of the parent's record that its records get as _parent."""
    ingest: bool = True
    """Whether its records become documents; false for one that is only a parent."""
    mapping: RecordMapping = RecordMapping()
    """How its records become documents."""
    add_fields: dict[str, Any] = Field(default_factory=dict)
    """Fields that its records get: their paths, and their values with placeholders, such as
    {= record.first + ' ' + record.last }."""
    remove_fields: list[str] = Field(default_factory=list)
    """Paths of fields that are removed from its records, after the filters; * stands for any name
    or element."""
    filters: list[Filter | RecordExpression] = Field(default_factory=list)
    """Conditions that a record must meet, as in {field: status, equals: published}, or expressions
    such as "record.status == 'published'"."""
    deleted: Deleted | None = None
    """When a record counts as deleted, such as {field: deleted_at}; its document is then deleted,
    even if the filters would leave the record out."""
    max_pages: Annotated[int, Field(ge=1)] | None = None
    """The largest number of pages to read, for each record of the parent."""
    max_items: Annotated[int, Field(ge=1)] | None = None
    """The largest number of records to read, for each record of the parent."""
    not_found: Literal["fail", "dead_letter", "skip"] | None = None
    """What 404 means: fail the run, one dead letter, or no records. By default a resource with a
    parent gives a dead letter, and any other resource fails the run."""

    @model_validator(mode="after")
    def _check(self) -> Resource:
        if self.body is not None and self.form is not None:
            raise wrong(("form",), "a request has either a body or a form, not both")
        used = self._checked_roots()
        if self.parent is None and "parent" in used:
            raise wrong(("path",), "uses {parent...}, but the resource has no parent")
        paginator = paginator_of(self.paginator)
        if getattr(paginator, "param", "") is None and "cursor" not in used:
            raise wrong(
                ("paginator",), "has no param; write {= cursor } where the next page is named"
            )
        if self.incremental is None and used & {"since", "until"}:
            raise wrong(("path",), "uses {since} or {until} without incremental")
        if self.incremental is not None and self.incremental.slice is not None:
            asked = (self.incremental.param, self.incremental.until_param)
            if any(
                one is None and name not in used
                for one, name in zip(asked, ("since", "until"), strict=True)
            ):
                raise wrong(
                    ("incremental", "slice"),
                    "needs to tell the API its ends: set param and until_param, or use {since} "
                    "and {until}",
                )
        return self

    def _checked_roots(self) -> set[str]:
        """Returns the roots of what requests use; refuses placeholders without a value."""
        places = dict.fromkeys(_OF_REQUESTS, OF_REQUESTS)
        for name, roots in {**places, "add_fields": OF_RECORDS, "paginator": OF_PAGES}.items():
            value = getattr(self, name)
            value = value.model_dump() if isinstance(value, Section) else value
            try:
                paths = paths_in(value)
            except ExpressionError as error:
                raise wrong((name,), f"has a wrong placeholder: {error}") from None
            refuse_unknown(paths, roots, (name,))
            for path in paths:
                if path == ("parent",):
                    raise wrong((name,), "uses parent; name a field of it, such as parent.id")
                if path[0] == "each" and (len(path) == 1 or path[1] not in self.each):
                    raise wrong(
                        (name,),
                        f"uses {'.'.join(path)}, which each does not list",
                        name=".".join(path[1:]),
                        known=list(self.each),
                    )
        return self.uses

    def _paths(self) -> set[tuple[str, ...]]:
        return paths_in([getattr(self, name) for name in _OF_REQUESTS])

    @property
    def uses(self) -> set[str]:
        """The roots of the placeholders in its requests, such as since."""
        return {path[0] for path in self._paths()}

    @property
    def needed_of_parent(self) -> list[str]:
        """The fields of the parent's record that requests and records need."""
        made = paths_in(self.add_fields) | {
            path for one in self.filters if isinstance(one, str) for path in read(one).paths
        }
        return sorted({*self.parent_fields, *self.include, *_below_parent(made)})

    @property
    def parent_fields(self) -> list[str]:
        """The fields of the parent's record that requests need."""
        return sorted(_below_parent(self._paths()))


def _below_parent(paths: Iterable[tuple[str, ...]]) -> set[str]:
    return {".".join(path[1:]) for path in paths if path[0] == "parent"}


class ApiConfig(AnswerRules):
    """A source behind an HTTP API."""

    base_url: str
    """Where the API is; paths of resources are below it."""
    name: Annotated[str, Field(pattern=_NAME)] | None = None
    """The name of the source; part of every unique_id; by default the host. With a name, the source
    stays the same when resources are added."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """Values for {settings.name} anywhere in this file, such as a domain, or a reference to a
    secret. null is a value that is not given."""
    auth: AuthSetting | None = None
    """How requests authenticate; secrets are references such as env:TOKEN."""
    auth_check: str | None = None
    """An address to request first, to see whether the API accepts the credentials."""
    headers: dict[str, HeaderText] = Field(default_factory=dict)
    """Headers of all requests."""
    params: dict[str, Any] = Field(default_factory=dict)
    """Query parameters of all requests."""
    paginator: PaginatorSetting | None = None
    """How to get from page to page, for resources that do not say."""
    resources: list[Resource] = Field(default_factory=list)
    """The resources to read."""
    budget: BudgetSettings | None = None
    """How many requests may be sent."""
    cache: CacheSettings | None = None
    """Keeps answers on disk; off by default."""
    retries: Annotated[int, Field(ge=0)] | None = None
    """How often a request is repeated after an error that may pass."""
    timeout: Duration | None = None
    """How long to wait for an answer to begin."""
    total_timeout: Duration | None = None
    """How long a request may take with all its attempts."""
    max_wait: Duration | None = None
    """The longest pause that the API may ask for."""
    max_response_bytes: Annotated[int, Field(ge=1)] | None = None
    """Larger answers are refused."""
    ca_bundle: str | None = None
    """A file of certificates that servers are checked against."""
    allowed_origins: list[str] = Field(default_factory=list)
    """Other origins (https://host:port) that links may lead to; they get no credentials."""
    same_server: list[str] = Field(default_factory=list)
    """Origins that the API uses for itself in its links, such as its internal address at a gateway;
    such links are requested from base_url."""
    max_in_flight: Annotated[int, Field(ge=1)] = 16
    """The largest number of requests that one process keeps open."""

    @model_validator(mode="after")
    def _check(self) -> ApiConfig:
        by_name: dict[str, Resource] = {}
        for index, resource in enumerate(self.resources):
            if resource.name in by_name:
                raise wrong(
                    ("resources", index, "name"),
                    f"is {resource.name!r}, like that of another resource",
                )
            by_name[resource.name] = resource
        for index, resource in enumerate(self.resources):
            if resource.parent is not None and resource.parent not in by_name:
                raise wrong(
                    ("resources", index, "parent"),
                    f"is {resource.parent!r}, which is not a resource",
                    name=resource.parent,
                    known=list(by_name),
                )
            if resource.recurse is not None and not resource.parent_fields:
                raise wrong(
                    ("resources", index, "recurse"),
                    "needs a parent, and its field in the request, as in "
                    "blocks/{parent.id}/children",
                )
            seen = [resource.name]
            above = resource.parent
            while above is not None:
                if above in seen:
                    raise wrong(
                        ("resources", index, "parent"),
                        f"makes a circle: {' -> '.join([*seen, above])}",
                    )
                seen.append(above)
                above = by_name[above].parent if above in by_name else None
            targets = resource.mapping.relationships
            for number, one in enumerate(targets if isinstance(targets, list) else []):
                if one.resource is not None and one.resource not in by_name:
                    raise wrong(
                        ("resources", index, "mapping", "relationships", number, "resource"),
                        f"is {one.resource!r}, which is not a resource",
                        name=one.resource,
                        known=list(by_name),
                    )
        return self

    def resource(self, name: str) -> Resource | None:
        """Returns the resource with a name."""
        return next((one for one in self.resources if one.name == name), None)
