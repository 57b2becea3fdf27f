"""Building blocks of the configuration: checked texts and paginators.

The settings of a paginator are the fields of its class; their models are made from there, so that
nothing is said twice.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import MISSING
from dataclasses import fields as dataclass_fields
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

from pydantic import BeforeValidator, Discriminator, Field, create_model

from contextframe_beam.connectors._convert import members_of
from contextframe_beam.connectors.api import place
from contextframe_beam.connectors.api.detect import Detect
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
from contextframe_beam.connectors.http.section import Section, needs_type, wrong

#: The paginators by the name that a configuration gives them.
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
    if isinstance(value, str) and not re.match(place.PATTERN, value):
        raise wrong(
            (), f"is {value!r}; write a place such as page, header:X-Page, body:page or path:page"
        )
    return value


Parameter = Annotated[
    str, BeforeValidator(_checked_place), Field(json_schema_extra={"pattern": place.PATTERN})
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
