"""Calling what the author of a connector wrote, so that a failure says where it happened.

What a source raises becomes a ConnectorError that names connector, partition and position. No
secret is in it, nor in the cause that a runner would print with it.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from contextframe_beam.connectors.origin import with_line
from contextframe_beam.connectors.secrets import redact
from contextframe_beam.errors import ConfigError, ConnectorError, ContextFrameError


def guarded(connector: Any, partition: str, where: str, call: Callable[[], Any]) -> Any:
    """Returns what `call` returns.

    Raises:
        ConnectorError: `call` raised; the message names connector, partition and position.
    """
    try:
        return call()
    except ConfigError:
        raise
    except Exception as error:
        problem = _problem(connector, partition, where, error)
        raise problem from problem.__cause__


def each(
    connector: Any, partition: str, where: Callable[[int], str], items: Iterable[Any]
) -> Iterator[Any]:
    """Yields the items.

    Raises:
        ConnectorError: the iterable raised; the message names connector, partition and position.
    """
    count = 0
    try:
        for item in items:
            yield item
            count += 1
    except ConfigError:
        raise
    except Exception as error:
        problem = _problem(connector, partition, where(count), error)
        raise problem from problem.__cause__


def checked_items(items: Any, connector: Any, what: str) -> Iterable[Any]:
    """Returns what a connector gave as its items.

    Args:
        items: What it gave.
        connector: The connector.
        what: What gave it, as in `sync_documents returned`.

    Raises:
        ConnectorError: it is nothing that holds items. A text and a dict can be iterated over as
            well, but their letters and keys are no items.
    """
    if items is None:
        said = "None; return the items, [] when there are none"
    elif isinstance(items, Mapping):
        lists = [str(name) for name, value in items.items() if isinstance(value, list)]
        hint = f" (its field {lists[0]!r} holds one)" if len(lists) == 1 else ""
        said = f"a {type(items).__name__}; return a list of items{hint}, [item] for a single one"
    elif isinstance(items, str | bytes | bytearray | type) or not isinstance(items, Iterable):
        said = f"{_a(items)}; return a list of items, [item] for a single one"
    else:
        return items
    raise ConnectorError(redact(f"{connector.name}: {what} {said}"))


def _a(value: Any) -> str:
    if isinstance(value, type):
        return f"the class {value.__name__}"
    name = type(value).__name__
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"


def whole_number(value: Any, what: str, least: int = 0) -> int:
    """Returns `value`, checked to be an integer of at least `least`.

    Raises:
        ConnectorError: it is not; `what` names it.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConnectorError(f"{what} is {value!r}; it must be a whole number, {least} or more")
    return value


def shown(cursor: Any) -> str:
    """Returns a cursor for a message: without secrets, and not too long."""
    text = redact(cursor if isinstance(cursor, str) else repr(cursor))
    return text if len(text) <= 200 else text[:200] + "..."


def page_name(connector: Any, partition: Any, cursor: Any) -> str:
    """Returns what a message calls a page: as the source was asked for it, where that is known."""
    own = getattr(connector, "_page_name", None)
    if own is not None:
        return str(own(partition, cursor))
    return "first page" if cursor is None else f"page {shown(cursor)}"


def _problem(connector: Any, partition: str, where: str, error: Exception) -> ConnectorError:
    what = str(error) if isinstance(error, ContextFrameError) else with_line(error)
    place = f"partition {partition}, {where}" if partition else where
    problem = ConnectorError(redact(f"{connector.name}: {place}: {what}"))
    trace = "".join(traceback.format_exception(error))
    # A runner prints the cause as well, and that may show a secret.
    problem.__cause__ = error if redact(trace) == trace else None
    return problem
