"""What a template of a manifest becomes: values that are known, expressions of ours, and names."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

_NAME = re.compile(r"[A-Za-z_]\w*\Z")
UNITS = {"W": "w", "D": "d", "H": "h", "M": "m", "S": "s"}
_DURATION = re.compile(
    r"P(?:(?P<Y>\d+)Y)?(?:(?P<Mo>\d+)M)?(?:(?P<W>\d+)W)?(?:(?P<D>\d+)D)?"
    r"(?:T(?:(?P<H>\d+)H)?(?:(?P<M>\d+)M)?(?:(?P<S>\d+)(?:\.\d+)?S)?)?\Z"
)
_SECONDS = {"Y": 31_536_000, "Mo": 2_592_000, "W": 604_800, "D": 86_400, "H": 3600, "M": 60, "S": 1}
_FORMS = {
    "%s": "epoch",
    "%ms": "epoch_ms",
    "%_ms": "epoch_ms",
    "%epoch_microseconds": "epoch_us",
    "%s_as_float": "epoch",
    "%Y-%m-%d": "date",
}


class Untranslatable(Exception):
    """A part of a manifest that `api` cannot say.

    Args:
        cause: What kind of part it is, the same words for all of its kind.
        detail: The part itself.
        line: Its line in the manifest, if it is known.
    """

    def __init__(self, cause: str, detail: str = "", line: int = 0) -> None:
        super().__init__(f"{cause}: {detail}" if detail else cause)
        self.cause = cause
        self.detail = detail
        self.line = line


@dataclass(frozen=True, slots=True)
class Const:
    """A value that is known now."""

    value: Any


@dataclass(frozen=True, slots=True)
class Code:
    """An expression of ours.

    Attributes:
        text: The expression.
        is_time: Whether its value is a time.
        is_simple: Whether it needs no brackets as a part of another.
    """

    text: str
    is_time: bool = False
    is_simple: bool = False


@dataclass(frozen=True, slots=True)
class Ref:
    """A name of a template, and the fields below it."""

    root: str
    path: tuple[str, ...] = ()


Value = Const | Code | Ref

#: Names of a template for what is read now.
SLICE = ("stream_slice", "stream_partition", "stream_interval")


@dataclass(frozen=True)
class Names:
    """What the names of a template stand for.

    Attributes:
        parameters: The parameters of the component.
        slices: The expressions for fields of the slice, by their names.
        roots: The expressions for other names, such as `record`.
    """

    parameters: Mapping[str, Any] = field(default_factory=dict)
    slices: Mapping[str, str] = field(default_factory=dict)
    roots: Mapping[str, str] = field(default_factory=dict)

    def code(self, ref: Ref) -> Value:
        """Returns the value of a name.

        Raises:
            Untranslatable: nothing of ours has this value.
        """
        root, path = ref.root, ref.path
        if root == "parameters":
            value = _in(self.parameters, path)
            if isinstance(value, str) and ("{{" in value or "{%" in value):
                raise Untranslatable("a template within a parameter", value)
            return Const(value)
        if root == "config":
            return Code(path_code("settings", path), is_simple=True)
        if root in SLICE:
            for length in range(len(path), 0, -1):
                found = self.slices.get(".".join(path[:length]))
                if found is not None:
                    return Code(path_code(found, path[length:]), is_simple=True)
            raise Untranslatable("a value of the slice", ".".join((root, *path)))
        if root in self.roots:
            if root == "headers":
                path = tuple(one.lower() for one in path)
            if path[:1] == ("link",) and root == "headers":
                raise Untranslatable("a part of the header Link", ".".join(path))
            return Code(path_code(self.roots[root], path), is_simple=True)
        if root == "next_page_token" and "cursor" in self.slices:
            return Code("cursor", is_simple=True)
        raise Untranslatable(f"the name {root} in a template", ".".join((root, *path)))


def function(name: str, *values: Value) -> Code:
    """Returns the call of a function of ours."""
    return Code(f"{name}({', '.join(bare(one) for one in values)})", is_simple=True)


def bare(value: Value) -> str:
    """Returns a value as the text of an expression.

    Raises:
        Untranslatable: expressions have no such value.
    """
    if isinstance(value, Code):
        return value.text
    assert isinstance(value, Const)
    plain = value.value
    if plain is None or isinstance(plain, bool):
        return json.dumps(plain)
    if isinstance(plain, int | float):
        return repr(plain)
    if isinstance(plain, str):
        return quoted(plain)
    if isinstance(plain, list | tuple):
        return f"[{', '.join(bare(Const(one)) for one in plain)}]"
    if plain == {}:
        return "null"
    raise Untranslatable("an object in a template", str(plain)[:80])


def closed(value: Value) -> str:
    """Returns a value as a part of another expression, with brackets if it needs them."""
    text = bare(value)
    return text if not isinstance(value, Code) or value.is_simple else f"({text})"


def path_code(root: str, path: Sequence[str]) -> str:
    """Returns the expression for the fields below a root."""
    return root + "".join(
        f".{one}" if _NAME.match(one) or one.isdecimal() else f"[{quoted(one)}]" for one in path
    )


def quoted(text: str) -> str:
    """Returns a text as expressions write it."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n")
    return f"'{escaped}'"


def _in(values: Any, path: Sequence[str]) -> Any:
    for one in path:
        values = values.get(one) if isinstance(values, Mapping) else None
    return values


def written(value: Any) -> str:
    """Returns a value as a template writes it into a text."""
    return "" if value is None else str(value)


def seconds_of(text: str) -> int | None:
    """Returns the seconds of a duration in ISO 8601; a month has 30 days, a year 365."""
    match = _DURATION.match(text)
    if match is None or text in ("P", "PT"):
        return None
    return sum(int(n) * _SECONDS[unit] for unit, n in match.groupdict().items() if n)


def shown_duration(seconds: int) -> str:
    """Returns a duration as a configuration writes it."""
    for length, unit in ((86_400, "d"), (3600, "h"), (60, "m")):
        if seconds and seconds % length == 0:
            return f"{seconds // length}{unit}"
    return f"{seconds}s"


def form_of(form: str) -> str:
    """Returns the name of the form of a time, or its pattern."""
    return _FORMS.get(form, form)
