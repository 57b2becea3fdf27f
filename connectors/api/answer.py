"""An API's answer as pagination sees it, and how to find values and records in it.

A path names a place in JSON: `data.items`, `files.0.url`; `*` stands for every element, as in
`data.edges.*.node`. A key that has dots in its own name comes first. `$` is the whole answer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from contextframe_beam.connectors.mapper import as_text, lookup
from contextframe_beam.errors import ConnectorError, nearest

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
    "edges",
    "_embedded",
)

# Objects beside or around the records that say how to get the next page.
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
# What may name the columns of rows that are lists.
_COLUMN_NAMES = (
    "columns",
    "column_names",
    "columnNames",
    "cols",
    "fields",
    "headers",
    "header",
    "meta",
    "schema",
    "names",
)
# Letters only, as `error_in` looks for them.
_MESSAGE_NAMES = ("message", "msg", "errormessage", "errmsg", "errormsg", "detail", "reason")
_CODE_NAMES = ("code", "errcode", "errorcode", "errno", "ret", "retcode", "statuscode", "status")
_LARGEST_COUNT = 10**18
_SHOWN_KEYS = 12
_SHOWN_ERROR = 300
_DEEPEST = 6


@dataclass(frozen=True, slots=True)
class Answer:
    """A response that was read.

    Attributes:
        data: Its JSON; None when it had no content.
        headers: Its headers.
        links: The targets of its `Link` headers, by relation.
        url: Where it came from.
        status: Its HTTP status.
        asked: The parameters that were sent, in the query, the body or a form.
        place: The path of the records in it; empty where that is not known.
        size: The bytes of its body.
    """

    data: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)
    url: str = ""
    status: int = 200
    asked: Mapping[str, Any] = field(default_factory=dict)
    place: str = ""
    size: int = 0

    def header(self, name: str) -> str | None:
        """Returns a header; upper and lower case in its name are the same."""
        found = self.headers.get(name)
        if found is None:
            lower = name.lower()
            found = next((self.headers[key] for key in self.headers if key.lower() == lower), None)
        return found


def value_at(data: Any, path: str) -> Any:
    """Returns the value at a path of an answer, or None if there is no such place."""
    return data if path == ROOT else lookup(data, path)


def usual_place(
    data: Any, names: tuple[str, ...], fits: Callable[[Any], Any]
) -> tuple[str, Any] | None:
    """Looks for a value that APIs put beside the records: a total, a cursor, a link.

    Args:
        data: The JSON of an answer.
        names: The usual names, the most likely first.
        fits: Turns a value into the result; returns None for a value of another kind.

    Returns:
        The path and the result of `fits`; None if no value fits.
    """
    if not isinstance(data, Mapping):
        return None
    # Most answers have none of the names, and many names are asked for.
    wanted = _all_of(names)
    places = [one for one in _around(data) if not wanted.isdisjoint(one[1])]
    for name in names if places else ():
        for prefix, place in places:
            if name in place:
                value = fits(place[name])
                if value is not None:
                    return prefix + name, value
    return None


_all_of = lru_cache(maxsize=64)(frozenset[str])


def _around(data: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yields an object, and the objects in it that may say how to get the next page."""
    yield "", data
    for name in _ENVELOPES:
        if name in data and isinstance(inner := data[name], Mapping):
            yield f"{name}.", inner
            for deeper in _ENVELOPES:
                if deeper in inner and isinstance(inner[deeper], Mapping):
                    yield f"{name}.{deeper}.", inner[deeper]


def records_at(data: Any, path: str, *, is_known: bool = False) -> list[Any]:
    """Returns the records of an answer.

    A list holds the records, an object is the only record, and null means no records. A path that
    ends in `?` may be missing: an answer without it has no records.

    Args:
        data: The JSON of an answer.
        path: Where the records are.
        is_known: Whether the path is certain; then null on the way to it is not an empty list.

    Raises:
        ConnectorError: the path is missing, or leads to text or a number.
    """
    optional = path.endswith("?")
    path = path.rstrip("?")
    found = (
        [data] if path == ROOT else list(_walk(data, path.split("."), "", optional, not is_known))
    )
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
    """Returns the path of the records, and the records, if the configuration names no path.

    Raises:
        ConnectorError: there is no list, or there are several candidates.
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
            return (name, value) if not _are_edges(name, value) else _nodes_of(name, value)
        if isinstance(value, Mapping):
            try:
                inner, records = guess_records(value)
            except ConnectorError:
                continue
            if inner != ROOT:
                return f"{name}.{inner}", records
    connections = list(_connections(data, "", 0))
    if len(connections) == 1:
        path, connection = connections[0]
        inner, records = guess_records(connection)
        return f"{path}.{inner}", records
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


def with_columns(data: Any, path: str, records: list[Any]) -> list[Any]:
    """Turns rows that are lists into objects, if a list beside them names their columns.

    Args:
        data: The JSON of the answer.
        path: Where the rows are in it.
        records: The rows; anything but a list stays as it is.
    """
    if list not in set(map(type, records)) or not isinstance(data, Mapping):
        return records
    rows = [one for one in records if isinstance(one, list)]
    beside = [data]
    for step in path.split(".")[:-1]:
        inner = beside[-1].get(step)
        if not isinstance(inner, Mapping):
            break
        beside.append(inner)
    for place in reversed(beside):
        for key in _COLUMN_NAMES:
            columns = _column_names(place.get(key))
            if columns and all(len(row) == len(columns) for row in rows):
                return [
                    dict(zip(columns, one, strict=True)) if isinstance(one, list) else one
                    for one in records
                ]
    return records


def error_in(data: Any) -> str:
    """Returns the error that an answer without records states, in its own words; "" if it has none.

    Many APIs refuse a request with status 200: `{"ok": false, "error": "ratelimited"}`,
    `{"code": 99991400, "msg": "too many requests", "data": null}`.
    """
    if not isinstance(data, Mapping):
        return ""
    values = {re.sub(r"[^a-z]", "", str(name).lower()): value for name, value in data.items()}
    texts = [values[name] for name in _MESSAGE_NAMES if values.get(name)]
    for name in ("error", "errors"):
        error = values.get(name)
        if error and error is not True and as_count(error) is None:
            return _shown_error([error, *texts])
    refused = any(as_flag(values.get(name)) is False for name in ("ok", "success", "succeeded"))
    refused |= str(values.get("status")).lower() in ("error", "fail", "failed", "failure")
    refused |= values.get("error") is True
    codes = [as_count(values[name]) for name in _CODE_NAMES if name in values]
    # 1 means an error in some APIs and success in others.
    refused |= bool(texts) and any(code and code != 1 and code // 100 != 2 for code in codes)
    return _shown_error([*(code for code in codes if code), *texts]) if refused else ""


def as_count(value: Any) -> int | None:
    """Returns a number of items or pages, even from text; None if it makes no sense."""
    if isinstance(value, str):
        text = value.strip()
        return int(text) if re.fullmatch(r"[0-9]{1,18}", text) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value) if 0 <= value < _LARGEST_COUNT and value == int(value) else None


def as_flag(value: Any) -> bool | None:
    """Reads a flag, such as true, "false" or 0; returns None for anything else."""
    if isinstance(value, str):
        return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}.get(
            value.strip().lower()
        )
    if isinstance(value, bool | int):
        return bool(value)
    return None


def _walk(data: Any, steps: list[str], so_far: str, optional: bool, is_free: bool) -> Iterator[Any]:
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
                yield from _walk(value, rest, here, optional, True)
            return
        if step in data:
            yield from _walk(data[step], rest, here, optional, is_free)
            return
    elif isinstance(data, list):
        if step.isdecimal() and int(step) < len(data):
            yield from _walk(data[int(step)], rest, here, optional, is_free)
            return
        if not step.isdecimal():
            for value in data:
                yield from _walk(value, rest if step == "*" else steps, here, optional, True)
            return
    elif data is None and is_free:
        yield None
        return
    if not optional:
        raise _missing(here, step, data)


def _are_edges(name: str, value: list[Any]) -> bool:
    if not value:
        return name == "edges"
    return all(isinstance(one, Mapping) and "node" in one and len(one) <= 4 for one in value)


def _nodes_of(path: str, edges: list[Any]) -> tuple[str, list[Any]]:
    return f"{path}.*.node", [one["node"] for one in edges]


def _connections(data: Any, path: str, depth: int) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yields the outermost connections (Relay's lists of nodes or edges) in an answer."""
    if not isinstance(data, Mapping) or depth > _DEEPEST:
        return
    for name, value in data.items():
        here = f"{path}.{name}" if path else str(name)
        if not isinstance(value, Mapping):
            continue
        if any(isinstance(value.get(one), list) for one in ("nodes", "edges")):
            yield here, value
        else:
            yield from _connections(value, here, depth + 1)


def _column_names(value: Any) -> list[str]:
    """Returns the names in a list of columns; an empty list for any other value."""
    if isinstance(value, Mapping):
        value = value.get("fields") or value.get("columns")
    if not isinstance(value, list):
        return []
    names = [
        next((one[key] for key in ("name", "id", "label", "field") if key in one), None)
        if isinstance(one, Mapping)
        else one
        for one in value
    ]
    texts = [one for one in names if isinstance(one, str)]
    return texts if len(set(texts)) == len(names) else []


def _shown_error(parts: list[Any]) -> str:
    texts = [as_text(one) for one in parts]
    text = ", ".join(one for one in texts if one) or "it was refused"
    return text if len(text) <= _SHOWN_ERROR else text[:_SHOWN_ERROR] + "..."


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
    if not isinstance(value, list) or not value or not isinstance(value[0], Mapping):
        return False
    return not ({"rel", "relation"} & set(value[0]) and {"href", "url", "uri"} & set(value[0]))


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
