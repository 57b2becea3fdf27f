"""Calling what the author of a connector wrote, so that a failure says where it happened.

What a source raises becomes a ConnectorError that names connector, partition and position. No
secret is in it, nor in the cause that a runner would print with it.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Iterator
from typing import Any

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
    what = str(error)
    if not isinstance(error, ContextFrameError):
        what = f"{type(error).__name__}: {error}"
    place = f"partition {partition}, {where}" if partition else where
    problem = ConnectorError(redact(f"{connector.name}: {place}: {what}"))
    trace = "".join(traceback.format_exception(error))
    # A runner prints the cause as well, and that may show a secret.
    problem.__cause__ = error if redact(trace) == trace else None
    return problem
