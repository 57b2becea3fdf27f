"""Where a document lies in its source, and of which stretch of the source all is known.

A source may not tell that a document is gone, but list everything between two points: the messages
of a channel since yesterday, all reviews of a change. Rows keep their place for that, so that a run
finds those that a stretch no longer holds.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, time
from decimal import Context, Decimal, InvalidOperation
from typing import Any

from contextframe_beam.errors import RecordError
from contextframe_beam.frames.times import instant_of, parse

__all__ = ["DECIMALS", "DIGITS", "Place", "Window", "point_of"]

#: A point has so many digits, and so many of them after the decimal point: nanoseconds, and ids of
#: 64 bits, exactly.
DIGITS, DECIMALS = 38, 9

#: Points are between this and its negative.
FURTHEST = Decimal(10 ** (DIGITS - DECIMALS) - 1)

_STEP = Decimal(1).scaleb(-DECIMALS)
_EXACT = Context(prec=DIGITS)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a document lies in its source.

    Attributes:
        partition: The part of the source: a channel, a thread, a page whose comments these are. It
            need not be a partition that is read on its own.
        point: Where in the part's own order, as `point_of` makes it of a number or a time; None
            where the part has no order.

    Raises:
        RecordError: the partition is not a text, or the point is neither a number nor a time.
    """

    partition: str
    point: Any = None

    def __post_init__(self) -> None:
        _require_name(self.partition)
        object.__setattr__(self, "point", point_of(self.point))

    @property
    def mark(self) -> bytes:
        """What two places differ in, as bytes."""
        return f"{'' if self.point is None else self.point}\0{self.partition}".encode()


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of a part of the source that a page has told completely.

    What is stored of this stretch, and was not met in the whole run, is gone from the source.

    Attributes:
        partition: The part, as in `Place`.
        start: Its first point, which belongs to it; None for the beginning of the part.
        end: Its last point, which belongs to it; None for the end of the part.
        below: Whether the stretch is one of all parts below this part as well: those whose names go
            on with a slash, such as the folders `drive/a` and `drive/b` of `drive`.

    Raises:
        RecordError: the end is before the start, or one of them is no point.
    """

    partition: str
    start: Any = None
    end: Any = None
    below: bool = False

    def __post_init__(self) -> None:
        _require_name(self.partition)
        for name in ("start", "end"):
            object.__setattr__(self, name, point_of(getattr(self, name)))
        if self.start is not None and self.end is not None and self.end < self.start:
            raise RecordError(
                f"the window of {self.partition!r:.60} ends at {self.end}, before its start at "
                f"{self.start}; give the smaller point first"
            )

    def holds(self, place: Place) -> bool:
        """Returns whether a place lies in it; one without a point only in a whole part."""
        is_below = self.below and place.partition.startswith(f"{self.partition}/")
        if place.partition != self.partition and not is_below:
            return False
        if place.point is None:
            return self.start is None and self.end is None
        return (self.start is None or self.start <= place.point) and (
            self.end is None or place.point <= self.end
        )


def point_of(value: Any) -> Decimal | None:
    """Returns a number or a time as a point: the number, or seconds since 1970.

    Args:
        value: A number, a number as text (`1712345678.123456`), a time as ISO 8601 text, or a
            datetime; None stays None. What is finer than 9 decimals is rounded.

    Raises:
        RecordError: it is something else, or too large.
    """
    if value is None:
        return None
    if type(value) is int and abs(value) < 10 ** (DIGITS - DECIMALS):
        return Decimal(value).quantize(_STEP, context=_EXACT)
    found: Decimal | None = None
    if isinstance(value, date):
        moment = value if isinstance(value, datetime) else datetime.combine(value, time())
        at = instant_of(moment)
        found = _EXACT.divide(Decimal(at.numerator), Decimal(at.denominator))
    elif isinstance(value, int | float | Decimal) and not isinstance(value, bool):
        # The shortest text of a float is what its source wrote.
        found = Decimal(repr(value)) if isinstance(value, float) else Decimal(value)
    elif isinstance(value, str):
        found = _of_text(value.strip())
    if found is None or not found.is_finite() or found.copy_abs() > FURTHEST:
        raise RecordError(
            f"{value!r:.60} is no point in an order: give a number of at most "
            f"{DIGITS - DECIMALS} digits, or a time"
        )
    # Added to 0, so that there is one zero; by our context, because the usual one has 28 digits.
    return _EXACT.add(found.quantize(_STEP, context=_EXACT), Decimal(0))


def _of_text(text: str) -> Decimal | None:
    try:
        return Decimal(text)
    except InvalidOperation:
        found = parse(text)
    if found is None:
        return None
    return _EXACT.divide(Decimal(found.at.numerator), Decimal(found.at.denominator))


def _require_name(partition: object) -> None:
    problem = not isinstance(partition, str) or not partition
    if isinstance(partition, str) and not partition.isascii():
        # Half of a character cannot be stored.
        problem = problem or partition != partition.encode(errors="replace").decode()
    if problem:
        raise RecordError(f"the partition of a place is {partition!a:.60}; give it a name")
