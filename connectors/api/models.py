"""Building blocks of the configuration: sections, checked texts, paginators, authentication.

The settings of a paginator are the fields of its class, and those of an authentication the fields
of `connectors.http.auth`; their models are made from there, so that nothing is said twice.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import MISSING
from dataclasses import fields as dataclass_fields
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    create_model,
    model_validator,
)
from pydantic_core import PydanticCustomError

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
from contextframe_beam.connectors.bounds import seconds_of
from contextframe_beam.connectors.http.auth import AUTH_TYPES

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


class Section(BaseModel):
    """A part of a configuration; keys that it does not know are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown(cls, value: Any) -> Any:
        if isinstance(value, Mapping):
            known = [field.alias or name for name, field in cls.model_fields.items()]
            for key in value:
                if key not in known:
                    raise PydanticCustomError(
                        "unknown_key", "unknown key", {"key": str(key), "known": known}
                    )
        return value


def wrong(at: tuple[str | int, ...], message: str, **context: Any) -> PydanticCustomError:
    """Returns an error for a validator to raise.

    Args:
        at: The keys that lead from the section to what is wrong.
        message: What is wrong, as the end of a sentence that begins with the key.
        **context: `name` and `known`, where the nearest known name should be told.
    """
    return PydanticCustomError("wrong", "{message}", {"at": at, "message": message, **context})


def _checked_duration(value: Any) -> Any:
    try:
        seconds_of(value)
    except ValueError:
        shown = repr(value) if isinstance(value, str) else json.dumps(value, default=str)
        raise wrong((), f"is {shown}; write a duration such as 90s, 12h or 30d") from None
    return value


def _checked_place(value: Any) -> Any:
    if isinstance(value, str) and not re.match(place.PATTERN, value):
        raise wrong(
            (), f"is {value!r}; write a place such as page, header:X-Page, body:page or path:page"
        )
    return value


Duration = Annotated[
    str | float,
    BeforeValidator(_checked_duration),
    Field(json_schema_extra={"examples": ["90s", "12h", "30d"]}),
]
Parameter = Annotated[
    str, BeforeValidator(_checked_place), Field(json_schema_extra={"pattern": place.PATTERN})
]


def paginator_of(setting: Section | Mapping[str, Any] | None) -> Paginator | None:
    """Returns the paginator that a setting describes."""
    if setting is None:
        return None
    values = setting.model_dump() if isinstance(setting, BaseModel) else dict(setting)
    return PAGINATORS[values.pop("type")](**values)


def setting_of(paginator: Paginator) -> dict[str, Any]:
    """Returns the setting that describes a paginator."""
    name = next(name for name, cls in PAGINATORS.items() if type(paginator) is cls)
    values = {one.name: getattr(paginator, one.name) for one in dataclass_fields(paginator)}  # type: ignore[arg-type]
    return {"type": name, **values}


def _model(name: str, cls: Any, kind: str) -> type[Section]:
    """Returns the model of a class of settings: its type, and the fields of the class."""
    hints = get_type_hints(cls)
    texts = _attribute_texts(cls.__doc__ or "")
    summary = (cls.__doc__ or "").strip().split("\n", 1)[0]
    fields: dict[str, Any] = {"type": (_LITERAL[name], Field(description=summary))}
    own: tuple[Any, ...] = dataclass_fields(cls)
    for field in own:
        hint: Any = hints[field.name]
        choices = field.metadata.get("choices")
        if choices:
            one_of = _LITERAL[choices]
            hint = one_of | None if type(None) in _members(hint) else one_of
        elif field.name in ("param", "size_param"):
            hint = Parameter | None if type(None) in _members(hint) else Parameter
        elif field.name == "size":
            positive = Annotated[int, Field(ge=1)]
            hint = positive | None if type(None) in _members(hint) else positive
        given: dict[str, Any] = {
            "description": field.metadata.get("doc") or texts.get(field.name),
            "alias": field.name.rstrip("_") if field.name.endswith("_") else None,
        }
        if field.default_factory is not MISSING:
            given["default_factory"] = field.default_factory
        elif field.default is not MISSING:
            given["default"] = field.default
        fields[field.name] = (hint, Field(**given))
    title = "".join(part.capitalize() for part in name.split("_")) + kind
    return create_model(title, __base__=Section, __doc__=summary, **fields)


def _members(hint: Any) -> tuple[Any, ...]:
    return getattr(hint, "__args__", ())


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
    AuthSetting = Section
else:
    _PAGINATOR_MODELS = {name: _model(name, cls, "Paginator") for name, cls in PAGINATORS.items()}
    _PLAIN = tuple(
        name
        for name, model in _PAGINATOR_MODELS.items()
        if not any(one.is_required() for key, one in model.model_fields.items() if key != "type")
    )
    _ANY_PAGINATOR = Annotated[reduce(or_, _PAGINATOR_MODELS.values()), Discriminator("type")]
    PaginatorSetting = Annotated[
        _ANY_PAGINATOR,
        BeforeValidator(_type_alone, json_schema_input_type=Literal[_PLAIN] | _ANY_PAGINATOR),
    ]
    _AUTH_MODELS = [_model(name, cls, "Auth") for name, cls in AUTH_TYPES.items()]
    AuthSetting = Annotated[reduce(or_, _AUTH_MODELS), Discriminator("type")]
