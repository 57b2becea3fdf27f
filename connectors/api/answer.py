"""What an API answered, as pagination sees it, and how values and records are found in it.

A path names a place in JSON: `data.items`, `files.0.url`; `*` stands for every element, as in
`data.edges.*.node`. A key whose own name holds the dots is found first. `$` is the whole answer.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from contextframe_beam.connectors.mapper import lookup
from contextframe_beam.errors import ConnectorError

#: The path of the whole answer.
ROOT = "$"

#: Where records usually are, the usual names first.
RECORD_NAMES = (
    "items",
    "data",
    "results",
    "records",
    "value",
    "values",
    "entries",
    "documents",
    "objects",
    "rows",
    "list",
    "content",
    "hits",
    "nodes",
    "_embedded",
)

# Objects beside or around the records that say how to go on.
_ENVELOPES = (
    "meta",
    "metadata",
    "_metadata",
    "pagination",
    "paging",
    "page",
    "page_info",
    "pageInfo",
    "response_metadata",
    "links",
    "_links",
    "cursors",
    "next",
    "data",
)
_LARGEST_COUNT = 10**18
_SHOWN_KEYS = 12


@dataclass(frozen=True, slots=True)
class Answer:
    """A response that was read.

    Attributes:
        data: Its JSON; None when it had no content.
        headers: Its headers.
        links: The targets of its `Link` headers, by relation.
        url: Where it came from.
        status: Its HTTP status.
    """

    data: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)
    url: str = ""
    status: int = 200

    def header(self, name: str) -> str | None:
        """Returns a header, whatever the case of its name."""
        found = self.headers.get(name)
        if found is None:
            lower = name.lower()
            found = next((self.headers[key] for key in self.headers if key.lower() == lower), None)
        return found


def value_at(data: Any, path: str) -> Any:
    """Returns what a path leads to in an answer, None when it leads nowhere."""
    return data if path == ROOT else lookup(data, path)


def usual_place(
    data: Any, names: tuple[str, ...], fits: Callable[[Any], Any]
) -> tuple[str, Any] | None:
    """Looks for what APIs put beside the records: totals, cursors, links.

    Args:
        data: The JSON of an answer.
        names: The usual names, the likeliest first.
        fits: Turns a value into what is wanted, None when it is something else.

    Returns:
        The path and what `fits` made of it; None when there is nothing like it.
    """
    if not isinstance(data, Mapping):
        return None
    places = [("", data)]
    for name in _ENVELOPES:
        inner = data.get(name)
        if isinstance(inner, Mapping):
            places.append((f"{name}.", inner))
            places += [
                (f"{name}.{deeper}.", inner[deeper])
                for deeper in _ENVELOPES
                if isinstance(inner.get(deeper), Mapping)
            ]
    for name in names:
        for prefix, place in places:
            if name in place:
                value = fits(place[name])
                if value is not None:
                    return prefix + name, value
    return None


def records_at(data: Any, path: str) -> list[Any]:
    """Returns the records of an answer.

    A list is the records, an object is the one record, null is none. A path that ends in `?` may
    be missing: an answer without it has no records.

    Raises:
        ConnectorError: the path is not there, or leads to text or a number.
    """
    optional = path.endswith("?")
    path = path.rstrip("?")
    found = [data] if path == ROOT else list(_walk(data, path.split("."), "", optional))
    several = path != ROOT and "*" in path.split(".")
    records: list[Any] = []
    for value in found:
        if isinstance(value, list):
            records += value
        elif isinstance(value, Mapping) or several:
            records.append(value)
        elif value is not None:
            raise ConnectorError(
                f"the records should be at {path!r}, but there is {_shown(value)}; "
                "name the list that holds them"
            )
    return records


def guess_records(data: Any) -> tuple[str, list[Any]]:
    """Returns the path of the records and the records, where nothing says where they are.

    Raises:
        ConnectorError: there is no list, or several could be meant.
    """
    if isinstance(data, list):
        return ROOT, data
    if data is None or data == {}:
        return ROOT, []
    if not isinstance(data, Mapping):
        raise ConnectorError(f"the answer is {_shown(data)}, not a list of records or an object")
    for name in RECORD_NAMES:
        value = data.get(name)
        if isinstance(value, list):
            return name, value
        if isinstance(value, Mapping):
            try:
                inner, records = guess_records(value)
            except ConnectorError:
                continue
            if inner != ROOT:
                return f"{name}.{inner}", records
    lists = [str(name) for name, value in data.items() if _is_records(value)]
    if len(lists) == 1:
        return lists[0], data[lists[0]]
    empty = [str(name) for name, value in data.items() if value == []]
    if not lists and len(empty) == 1:
        return empty[0], []
    if any(name in data and data[name] is None for name in RECORD_NAMES):
        return ROOT, []
    if lists:
        raise ConnectorError(
            f"the answer has several lists, {' and '.join(lists)}; say with 'records' which one "
            "holds the records"
        )
    raise ConnectorError(
        f"no list of records was found in the answer, which has {_keys(data)}; say with 'records' "
        f"where they are ('{ROOT}' when the answer itself is one record)"
    )


def as_count(value: Any) -> int | None:
    """Returns a number of items or pages, also when it is text; None when it makes no sense."""
    if isinstance(value, str):
        text = value.strip()
        return int(text) if re.fullmatch(r"[0-9]{1,18}", text) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value) if 0 <= value < _LARGEST_COUNT and value == int(value) else None


def as_flag(value: Any) -> bool | None:
    """Returns what an answer says with true, "false", 0 and the like; None for anything else."""
    if isinstance(value, str):
        return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}.get(
            value.strip().lower()
        )
    if isinstance(value, bool | int):
        return bool(value)
    return None


def nearest(name: str, known: list[str]) -> str:
    """Returns `; did you mean 'x'?`, or nothing when no known name is near."""
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _walk(data: Any, steps: list[str], so_far: str, optional: bool) -> Iterator[Any]:
    if not steps:
        yield data
        return
    whole, step, rest = ".".join(steps), steps[0], steps[1:]
    here = f"{so_far}.{step}" if so_far else step
    if isinstance(data, Mapping):
        if whole in data:
            yield data[whole]
            return
        if step == "*":
            for value in data.values():
                yield from _walk(value, rest, here, optional)
            return
        if step in data:
            yield from _walk(data[step], rest, here, optional)
            return
    elif isinstance(data, list):
        if step.isdecimal() and int(step) < len(data):
            yield from _walk(data[int(step)], rest, here, optional)
            return
        if not step.isdecimal():
            for value in data:
                yield from _walk(value, rest if step == "*" else steps, here, optional)
            return
    elif data is None:
        yield None
        return
    if not optional:
        raise _missing(here, step, data)


def _missing(path: str, step: str, data: Any) -> ConnectorError:
    if not isinstance(data, Mapping):
        what = f"the answer has no {path!r}: there is {_shown(data)}"
        hint = ""
    else:
        what = f"the answer has no {path!r}, but {_keys(data)}"
        hint = nearest(step, [str(key) for key in data])
    return ConnectorError(
        f"{what}{hint or '; say where the records are'} (write '{path}?' when answers without "
        "records leave it out)"
    )


def _is_records(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], Mapping)


def _keys(data: Mapping[Any, Any]) -> str:
    names = [repr(str(key)) for key in data]
    if not names:
        return "an empty object"
    more = f" and {len(names) - _SHOWN_KEYS} more" if len(names) > _SHOWN_KEYS else ""
    return ", ".join(names[:_SHOWN_KEYS]) + more


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return f"a list of {len(value)}"
    if isinstance(value, Mapping):
        return "an object"
    text = repr(value)
    return text if len(text) <= 80 else text[:80] + "..."
