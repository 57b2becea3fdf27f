"""The functions of expressions: texts, numbers, lists, times, and what APIs ask to be encoded.

Each returns null for null, so that a parameter whose value is missing is left out. Each needs time
in proportion to the length of its values.
"""

from __future__ import annotations

import base64
import hashlib
import inspect
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from typing import Any
from urllib.parse import quote

from contextframe_beam.connectors.cursors import seconds_of
from contextframe_beam.connectors.mapper import as_text, kind_of
from contextframe_beam.frames.times import form_named, parse, write

#: The longest text that a function makes.
LONGEST_TEXT = 1_000_000

_SHOWN = 40
_HASHES = ("md5", "sha1", "sha256", "sha512")


class BadValue(ValueError):
    """A function or an operator cannot take a value; the message ends a sentence about it."""


@dataclass(frozen=True, slots=True)
class Function:
    """A function of the language.

    Attributes:
        name: Its name.
        usage: How it is called, as in `split(text, separator)`.
        about: What it does.
        call: The function.
        least: The smallest number of values that it takes.
        most: The largest number; None if there is no limit.
    """

    name: str
    usage: str
    about: str
    call: Callable[..., Any]
    least: int
    most: int | None

    def takes(self, count: int) -> bool:
        """Returns whether it takes so many values."""
        return self.least <= count and (self.most is None or count <= self.most)


def shown_kind(value: Any) -> str:
    """Returns a value for a message: its kind, and the value if it is short."""
    if value is None or isinstance(value, Mapping | list | tuple):
        return kind_of(value)
    shown = str(value)
    shown = shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}..."
    return f"{kind_of(value)} ({shown})"


def _text(*values: Any) -> str | None:
    """The values as one text; objects and lists as JSON."""
    if any(one is None for one in values):
        return None
    parts = [as_text(one) for one in values]
    _check_length(sum(len(one or "") for one in parts))
    return "".join(one or "" for one in parts)


def _number(value: Any) -> int | float | None:
    """The number that a text holds."""
    if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
        return value
    if isinstance(value, bool):
        return int(value)
    try:
        number = Decimal(str(value).strip())
        whole = number == number.to_integral_value()
    except (InvalidOperation, ValueError):
        raise BadValue(f"{shown_kind(value)} is not a number") from None
    if not number.is_finite() or number.adjusted() > 300:
        raise BadValue(f"{shown_kind(value)} is not a number")
    return int(number) if whole and number.adjusted() < 19 else float(number)


def _integer(value: Any) -> int | None:
    """The number that a text holds, without its decimals."""
    number = _number(value)
    return None if number is None else int(number)


def _lower(text: Any) -> str | None:
    """The text in lower case."""
    return None if text is None else _of_text(text).lower()


def _upper(text: Any) -> str | None:
    """The text in upper case."""
    return None if text is None else _of_text(text).upper()


def _trim(text: Any, signs: Any = None) -> str | None:
    """The text without the white space, or the given signs, at its ends."""
    return None if text is None else _of_text(text).strip(signs)


def _replace(text: Any, old: Any, new: Any) -> str | None:
    """The text with one part replaced by another, everywhere."""
    if None in (text, old, new):
        return None
    whole, old, new = _of_text(text), _of_text(old), _of_text(new)
    if not old:
        return whole
    _check_length(len(whole) + whole.count(old) * len(new))
    return whole.replace(old, new)


def _split(text: Any, separator: Any) -> list[str] | None:
    """The parts of a text between separators, as a list."""
    if text is None:
        return None
    if separator in (None, ""):
        raise BadValue("split needs a separator")
    return _of_text(text).split(_of_text(separator))


def _join(values: Any, separator: Any = "") -> str | None:
    """The values of a list as one text, with a separator between them."""
    if values is None:
        return None
    parts = [as_text(one) or "" for one in _of_list(values)]
    between = _of_text(separator)
    _check_length(sum(map(len, parts)) + len(parts) * len(between))
    return between.join(parts)


def _length(value: Any) -> int | None:
    """The number of elements of a list, fields of an object, or characters of a text."""
    if value is None:
        return 0
    if isinstance(value, str | list | tuple | Mapping):
        return len(value)
    raise BadValue(f"{shown_kind(value)} has no length")


def _first(values: Any) -> Any:
    """The first element of a list."""
    found = [] if values is None else _of_list(values)
    return found[0] if found else None


def _last(values: Any) -> Any:
    """The last element of a list."""
    found = [] if values is None else _of_list(values)
    return found[-1] if found else None


def _starts_with(text: Any, begin: Any) -> bool:
    """Whether a text begins with another."""
    return text is not None and begin is not None and _of_text(text).startswith(_of_text(begin))


def _ends_with(text: Any, end: Any) -> bool:
    """Whether a text ends with another."""
    return text is not None and end is not None and _of_text(text).endswith(_of_text(end))


def _default(value: Any, other: Any) -> Any:
    """The value, or the other one if it is null."""
    return other if value is None else value


def _min(*values: Any) -> Any:
    """The smallest of several values, or of a list; null does not count."""
    return _extreme(min, values)


def _max(*values: Any) -> Any:
    """The largest of several values, or of a list; null does not count."""
    return _extreme(max, values)


def _round(value: Any, digits: Any = 0) -> int | float | None:
    """The number, rounded to so many decimals."""
    number = _number(value)
    if number is None:
        return None
    return round(number, digits) if digits else round(number)


def _json(value: Any) -> str:
    """The value as JSON."""
    return json.dumps(value, ensure_ascii=False, default=str)


def _base64(text: Any) -> str | None:
    """The text in base64, from UTF-8."""
    return None if text is None else base64.b64encode(_of_text(text).encode()).decode()


def _hash(text: Any, kind: Any = "sha256") -> str | None:
    """The hash of a text in UTF-8, in hexadecimal digits: md5, sha1, sha256 or sha512."""
    if text is None:
        return None
    if kind not in _HASHES:
        raise BadValue(f"there is no hash {shown_kind(kind)}; choose {', '.join(_HASHES)}")
    return hashlib.new(kind, _of_text(text).encode(), usedforsecurity=False).hexdigest()


def _url_encode(text: Any) -> str | None:
    """The text with signs that have a meaning in addresses as %XX."""
    return None if text is None else quote(_of_text(text), safe="")


def _format_time(time: Any, form: Any) -> str | int | float | None:
    """A time in another form: iso, date, epoch, epoch_ms, or a pattern such as '%Y-%m-%d'."""
    if time is None:
        return None
    at = _time(time).at
    try:
        return write(at, form_named(_of_text(form), at))
    except (ValueError, KeyError) as error:
        raise BadValue(f"{shown_kind(form)} is not the form of a time: {error}") from None


def _shift(time: Any, duration: Any) -> str | int | float | None:
    """A time moved by a duration such as '-30d' or '12h', in the same form."""
    if time is None or duration is None:
        return None
    text = str(duration).strip()
    try:
        seconds = Fraction(seconds_of(text.lstrip("+-")))
    except ValueError:
        raise BadValue(f"{shown_kind(duration)} is not a duration such as -30d or 12h") from None
    moved = _time(time).moved(-seconds if text.startswith("-") else seconds)
    try:
        return write(moved.at, moved.form)
    except (ValueError, OverflowError):
        raise BadValue(f"{shown_kind(time)} moved by {text} is no time") from None


def _check_length(length: int) -> None:
    if length > LONGEST_TEXT:
        raise BadValue(f"the text becomes longer than {LONGEST_TEXT:,} characters")


def _of_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, int | float):
        return as_text(value) or ""
    raise BadValue(f"{shown_kind(value)} is not text")


def _of_list(value: Any) -> list[Any]:
    if isinstance(value, list | tuple):
        return list(value)
    raise BadValue(f"{shown_kind(value)} is not a list")


def _time(value: Any) -> Any:
    time = parse(value)
    if time is None:
        raise BadValue(f"{shown_kind(value)} is not a time that can be read in only one way")
    return time


def _extreme(choose: Callable[[Iterable[Any]], Any], values: tuple[Any, ...]) -> Any:
    listed = _of_list(values[0]) if len(values) == 1 and values[0] is not None else values
    known = [one for one in listed if one is not None]
    try:
        return choose(known) if known else None
    except TypeError:
        raise BadValue("values of several kinds have no order") from None


def _functions(*calls: Callable[..., Any]) -> dict[str, Function]:
    found = {}
    for call in calls:
        name = call.__name__.lstrip("_")
        own = inspect.signature(call).parameters.values()
        several = any(one.kind is one.VAR_POSITIONAL for one in own)
        needed = [one.name for one in own if one.default is one.empty]
        shown = [
            "value, ..."
            if one.kind is one.VAR_POSITIONAL
            else one.name
            if one.default is one.empty
            else f"[{one.name}]"
            for one in own
        ]
        least = 1 if several else len(needed)
        usage = f"{name}({', '.join(shown)})"
        about = inspect.getdoc(call) or ""
        found[name] = Function(name, usage, about, call, least, None if several else len(own))
    return found


#: The functions by their names, in the order in which they are documented.
FUNCTIONS: Mapping[str, Function] = _functions(
    _text,
    _lower,
    _upper,
    _trim,
    _replace,
    _split,
    _join,
    _starts_with,
    _ends_with,
    _length,
    _first,
    _last,
    _default,
    _number,
    _integer,
    _round,
    _min,
    _max,
    _format_time,
    _shift,
    _json,
    _base64,
    _hash,
    _url_encode,
)
