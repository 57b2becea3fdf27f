"""Checked settings: a section knows its keys, and each problem is reported by its key.

The same sections check the settings that Python code gives a client, and the YAML file of an API.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic_core import PydanticCustomError

from contextframe_beam.connectors import secrets
from contextframe_beam.connectors.plain_secrets import looks_secret
from contextframe_beam.errors import ConfigError, nearest

#: Keys and indexes that lead to a value.
Path = tuple[str | int, ...]

_S = TypeVar("_S", bound="Section")
_SHOWN_VALUE = 60
_SHOULD_BE = "; it should be "
# The types that pydantic expected, in the words of YAML.
_WANTED = {
    **dict.fromkeys(("string_type",), "text"),
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), "a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "a number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "true or false"),
    **dict.fromkeys(
        ("dict_type", "mapping_type", "model_type", "model_attributes_type"),
        "a mapping of keys to values",
    ),
    "list_type": "a list",
}
# What to call a value that may contain a secret.
_KINDS: tuple[tuple[Any, str], ...] = (
    (int | float, "a number"),
    (str, "a text"),
    (Mapping, "a mapping"),
    (list, "a list"),
)


class Section(BaseModel):
    """A part of a configuration; unknown keys are refused."""

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


def checked(kind: type[_S], values: Mapping[str, Any], name: str) -> _S:
    """Returns the section for values from Python code; references to secrets stay references.

    Types are strict: a text is not accepted as a number here, although it may be in YAML.

    Args:
        kind: The class of the section, or a union of classes.
        values: Its settings; None counts as missing.
        name: Its name for messages: auth, budget, cache.

    Raises:
        ConfigError: a key is unknown or missing, or a value is invalid.
    """
    if isinstance(values, Mapping):
        values = {key: value for key, value in values.items() if value is not None}
        for key, value in values.items():
            secrets.register_literals(value, str(key))
    try:
        section: _S = _adapter(kind).validate_python(values, strict=True)
        return _referenced(section)
    except ValidationError as error:
        found = problems(error, {name: values}, (name,))
    # Raised outside of the handler, because pydantic's error contains the values.
    raise ConfigError("\n".join(f"{shown(path)} {what}" for path, what in found.items()))


@lru_cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _referenced(section: _S) -> _S:
    """Returns a section in which every reference is a `SecretReference`."""
    given = {name: getattr(section, name) for name in section.model_fields_set}
    return section.model_copy(
        update={
            name: _referenced(value) if isinstance(value, Section) else secrets.referenced(value)
            for name, value in given.items()
        }
    )


def wrong(at: Path, message: str, **context: Any) -> PydanticCustomError:
    """Returns an error for a validator to raise.

    Args:
        at: The keys that lead from the section to the problem.
        message: The problem, as the end of a sentence that begins with the key.
        **context: `name` and `known`, if the message should suggest the nearest known name.
    """
    return PydanticCustomError("wrong", "{message}", {"at": at, "message": message, **context})


def needs_type(names: Iterable[str]) -> BeforeValidator:
    """Returns a validator that refuses a section without the `type` that selects its class.

    Args:
        names: The known types.
    """
    known = ", ".join(names)

    def check(value: Any) -> Any:
        if isinstance(value, Mapping) and value.get("type") is None:
            raise wrong((), f"needs a type (there are: {known})")
        return value

    return BeforeValidator(check)


def problems(error: ValidationError, values: Any, below: Path = ()) -> dict[Path, str]:
    """Returns the problems, by the path of the key.

    Args:
        error: The error from pydantic.
        values: The checked values.
        below: The place of these values in the whole.

    Returns:
        Each text is the end of a sentence that begins with the key, without secrets.
    """
    found: dict[Path, dict[str, list[str]]] = {}
    for one in error.errors(include_url=False):
        context = one.get("ctx", {})
        at = (context["key"],) if "key" in context else context.get("at", ())
        is_key = one["type"] == "missing" or bool(at)
        path = _path(values, (*below, *one["loc"], *at), is_key)
        what = _problem(one["type"], one["msg"], one.get("input"), context, path)
        # One message names what all alternatives accept.
        problem, _, wanted = what.partition(_SHOULD_BE)
        told = found.setdefault(path, {}).setdefault(problem, [])
        if wanted and wanted not in told:
            told.append(wanted)
    return {
        path: secrets.redact(
            " or ".join(
                problem + (_SHOULD_BE + " or ".join(wanted) if wanted else "")
                for problem, wanted in told.items()
            )
        )
        for path, told in found.items()
    }


def shown(path: Path) -> str:
    """Returns a path as text: `resources[0].name`."""
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return text.removeprefix(".")


def _path(values: Any, location: Path, is_key: bool) -> Path:
    """Returns the keys of a location, which also contains the names of alternatives.

    Args:
        values: The checked values.
        location: The location of the error, from pydantic.
        is_key: Whether the last step is a key, even if the values do not contain it.
    """
    path: list[str | int] = []
    tag_passed = False
    for number, step in enumerate(location):
        if not tag_passed and isinstance(values, Mapping) and step == values.get("type"):
            tag_passed = True
            continue
        if isinstance(values, Mapping):
            is_there = step in values
        else:
            is_there = isinstance(values, list) and isinstance(step, int) and step < len(values)
        if is_there:
            values = values[step]
            tag_passed = False
        if is_there or (is_key and number == len(location) - 1):
            path.append(step)
    return tuple(path)


def _problem(kind: str, message: str, value: Any, context: Mapping[str, Any], path: Path) -> str:
    if kind == "unknown_key":
        known = context["known"]
        hint = nearest(context["key"], known) or f"; there are {', '.join(known)}"
        return f"is not a key that exists here{hint}"
    if kind == "wrong":
        return f"{context['message']}{nearest(context.get('name', ''), context.get('known', []))}"
    if kind == "missing":
        return "is missing"
    text = _shown_value(value, path, chosen=kind == "literal_error")
    if kind in _WANTED:
        return f"is {text}{_SHOULD_BE}{_WANTED[kind]}"
    if kind in ("union_tag_invalid", "literal_error"):
        expected = context.get("expected_tags") or context.get("expected", "")
        names = [name.strip(" '") for name in expected.replace(" or ", ", ").split(",")]
        given = str(context.get("tag", value))
        label = f"type {given!r}" if kind == "union_tag_invalid" else text
        return f"is {label}{nearest(given, names)} (there are: {', '.join(names)})"
    return f"is {text}; {message[:1].lower()}{message[1:].replace('input ', 'it ')}".replace(
        "; input ", "; it "
    )


def _shown_value(value: Any, path: Path, chosen: bool) -> str:
    """Returns a value for messages; a value that may be a secret is only named by its kind.

    Args:
        value: The value.
        path: Its path; all texts below auth may be secrets, even in the wrong place.
        chosen: Whether it should be one of a few known texts.
    """
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    hidden = any(looks_secret(str(step)) for step in path)
    hidden = hidden or ("auth" in path and isinstance(value, str) and not chosen)
    if hidden or isinstance(value, Mapping | list):
        return next((name for kind, name in _KINDS if isinstance(value, kind)), "something else")
    text = repr(value)
    return text if len(text) <= _SHOWN_VALUE else text[:_SHOWN_VALUE] + "..."
