"""What a GraphQL answer says beside its records: errors, and lists that are not complete.

Answers and errors have the form of the specification (section 7, Response). Lists in pages have
the form of Relay (`pageInfo`, `edges`), with `nodes` and `totalCount` as many servers have them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from contextframe_beam.connectors.api.answer import as_count, as_flag
from contextframe_beam.connectors.http.queries import Fault, Path, faults_in, refused

__all__ = [
    "FailedNode",
    "Fault",
    "Path",
    "faults_in",
    "goes_on",
    "is_query",
    "list_around",
    "objects_in",
    "refused",
    "unread_lists",
    "with_failed_nodes",
]

_QUERY = re.compile(r"\s*(?:query\b|\{|fragment\b|#)")
_LISTS = ("nodes", "edges")
_TOTALS = ("totalCount", "total_count")


@dataclass(frozen=True, slots=True)
class FailedNode:
    """Stands in the place of a record that the server could not give, or gave only in part.

    Attributes:
        item: The part that is there.
        message: Why.
    """

    item: Any
    message: str


def is_query(text: Any) -> bool:
    """Returns whether a text is a GraphQL query that only reads."""
    return isinstance(text, str) and _QUERY.match(text) is not None


def with_failed_nodes(data: Any, records: Sequence[Any], faults: Sequence[Fault]) -> list[Any]:
    """Returns the records, with a `FailedNode` for each that an error removed or left incomplete.

    Args:
        data: The answer.
        records: Its records, in its order.
        faults: Its errors.

    Raises:
        ConnectorError: an error does not say which nodes it is about.
    """
    places = {id(record): at for at, record in enumerate(records) if record is not None}
    messages: dict[int, list[str]] = {}
    rest = []
    for fault in faults:
        on_the_way = list(_on_the_way(data, fault.path))
        of_record = [places[id(one)] for one in on_the_way if id(one) in places]
        if of_record:
            messages.setdefault(of_record[-1], []).append(str(fault))
        elif fault.names_node or (fault.path and records):
            rest.append(fault)
        else:
            raise refused([fault])
    found = [
        FailedNode(one, "; ".join(messages[at])) if at in messages else one
        for at, one in enumerate(records)
    ]
    if any(fault.names_node for fault in rest):
        # They say why a node is null; it already has a letter.
        found = [one for one in found if one is not None]
    found += [FailedNode({"path": list(fault.path)}, str(fault)) for fault in rest]
    return found


def unread_lists(data: Any, followed: Path) -> list[str]:
    """Returns the paths of lists with further pages in an answer, as `data.issues.*.comments`.

    Args:
        data: The answer.
        followed: The path of the list whose pages are read.
    """
    found = dict.fromkeys(
        ".".join("*" if isinstance(step, int) else step for step in path)
        for path, one in objects_in(data)
        if path != followed and goes_on(one)
    )
    return list(found)


def list_around(path: str) -> Path:
    """Returns the path of the list whose nodes, or whose `pageInfo`, a path leads to.

    If one list is inside another, it is the outer one.
    """
    steps: list[str | int] = []
    for step in path.rstrip("?").split("."):
        if step in (*_LISTS, "*", "pageInfo"):
            break
        steps.append(int(step) if step.isdecimal() else step)
    return tuple(steps)


def _on_the_way(data: Any, path: Path) -> Iterator[Any]:
    """Yields the values along a path, from the outermost to the innermost."""
    here = data.get("data") if isinstance(data, Mapping) else None
    for step in path:
        if isinstance(here, Mapping):
            here = here.get(step, here.get(str(step)))
        elif isinstance(here, list) and isinstance(step, int) and 0 <= step < len(here):
            here = here[step]
        else:
            return
        yield here


def objects_in(value: Any) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    """Yields all objects in an answer, each after its path."""
    pending: list[tuple[Path, Any]] = [((), value)]
    while pending:
        here, one = pending.pop()
        if isinstance(one, Mapping):
            yield here, one
            pending += [((*here, str(name)), inner) for name, inner in one.items()]
        elif isinstance(one, list):
            pending += [((*here, at), inner) for at, inner in enumerate(one)]


def goes_on(one: Mapping[str, Any]) -> bool:
    """Returns whether an object is a list with further pages, before or after this one."""
    held = next((one[name] for name in _LISTS if isinstance(one.get(name), list)), None)
    # A query may rename `pageInfo`.
    flags = [
        as_flag(inner.get(name))
        for inner in one.values()
        if isinstance(inner, Mapping)
        for name in ("hasNextPage", "hasPreviousPage")
        if name in inner
    ]
    if any(flags):
        return True
    if held is None or False in flags:
        return False
    totals = [as_count(one.get(name)) for name in _TOTALS]
    return any(total is not None and total > len(held) for total in totals)
