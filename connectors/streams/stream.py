"""Stream: a list of records that a program gives, with its key and its cursor."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from contextframe_beam.errors import ConfigError, nearest

__all__ = ["STREAM_FIELD", "Catalog", "Stream", "cursor_of"]

#: The field of an item that names its stream. Records may have a field `_stream` of their own.
STREAM_FIELD = "_contextframe_stream"

_SHOWN = 30


@dataclass(frozen=True, slots=True)
class Stream:
    """A stream, as the program describes it.

    Attributes:
        name: Its name.
        namespace: What it lies in, such as a schema of a database; "" without one.
        keys: The paths of the fields that identify a record together; empty without a key.
        cursor: The path of the field that grows when a record changes; "" if there is none, or only
            the program knows it.
        is_incremental: Whether the program can go on where it was.
        fields: The names of its fields, in the order of the program.
        times: Those of them that are times.
        entry: What the program's catalog says of it.
    """

    name: str
    namespace: str = ""
    keys: tuple[str, ...] = ()
    cursor: str = ""
    is_incremental: bool = False
    fields: tuple[str, ...] = ()
    times: tuple[str, ...] = ()
    entry: Mapping[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """Names it among the streams of the program."""
        return f"{self.namespace}.{self.name}" if self.namespace else self.name

    def __str__(self) -> str:
        key = f"key {', '.join(self.keys)}" if self.keys else "no key"
        if not self.is_incremental:
            return f"{self.label}: {key}, read whole each time"
        how = f"from the last {self.cursor} on" if self.cursor else "from where the last run ended"
        return f"{self.label}: {key}, read {how}"


class Catalog(dict[str, Stream]):
    """The streams that are read, by their labels."""

    @classmethod
    def of(cls, streams: Iterable[Stream], wanted: Sequence[str], program: str) -> Catalog:
        """Makes it of those that were asked for, or of all.

        Args:
            streams: All that the program has.
            wanted: Names or labels; empty for all.
            program: The name of the program.

        Raises:
            ConfigError: one does not exist, or several have that name.
        """
        known = {one.label: one for one in streams}
        if not known:
            raise ConfigError(f"{program} has no streams; does its account see anything?")
        if not wanted:
            return cls(known)
        found: dict[str, Stream] = {}
        for name in wanted:
            named = [known[name]] if name in known else _named(known.values(), name)
            if len(named) > 1:
                raise ConfigError(
                    f"several streams are named {name!r}: {', '.join(one.label for one in named)}; "
                    "give one of these"
                )
            if not named:
                labels = sorted(known)
                more = f" and {len(labels) - _SHOWN} more" if len(labels) > _SHOWN else ""
                raise ConfigError(
                    f"{program} has no stream {name!r}{nearest(name, labels)} "
                    f"(there are: {', '.join(labels[:_SHOWN])}{more})"
                )
            found[named[0].label] = named[0]
        return cls(found)

    def find(self, name: str, namespace: str = "") -> Stream | None:
        """Returns the stream that a program means by a name, with its namespace if it tells it."""
        label = f"{namespace}.{name}" if namespace else name
        if label in self:
            return self[label]
        named = [] if namespace else _named(self.values(), name)
        return named[0] if len(named) == 1 else None


def cursor_of(
    asked: str | Mapping[str, str] | None, stream: str, label: str, fields: Sequence[str]
) -> str:
    """Returns the cursor that a user chose for a stream; "" if there is none.

    Args:
        asked: One for all streams that have such a field, or one each by name.
        stream: The name of the stream.
        label: Its label.
        fields: Its fields.

    Raises:
        ConfigError: the stream has no such field.
    """
    if not asked:
        return ""
    if isinstance(asked, str):
        return asked if asked in fields else ""
    chosen = asked.get(label) or asked.get(stream) or ""
    if chosen and fields and chosen not in fields:
        raise ConfigError(
            f"cursor is {chosen!r} for {label}, which has no such field{nearest(chosen, fields)} "
            f"(there are: {', '.join(fields[:_SHOWN])})"
        )
    return chosen


def _named(streams: Iterable[Stream], name: str) -> list[Stream]:
    return [one for one in streams if one.name == name]
