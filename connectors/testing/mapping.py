"""Checks of `map_to_frame_record`: an item is the same document each time, and odd ones survive."""

from __future__ import annotations

import copy
import itertools
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from contextframe_beam.connectors.base import BaseConnector
from contextframe_beam.connectors.page import DeadLetter
from contextframe_beam.connectors.testing.outcome import Failed
from contextframe_beam.connectors.testing.subject import Subject
from contextframe_beam.deletion import Deletion
from contextframe_beam.encoding import encode_records
from contextframe_beam.errors import ContextFrameError
from contextframe_beam.record import FrameRecord

_SAMPLE = 20
_FIELDS = 60
_HUGE = 1_000_000
_MISSING = object()
_ODD: dict[str, Any] = {
    "is missing": _MISSING,
    "is null": None,
    'is ""': "",
    "is a text of a million characters": "x" * _HUGE,
    "is a number": 10**30,
    "is a text": "?",
    "is a list": [1, None, {"a": [2]}],
    "is an object": {"deep": {"x": None}},
    "is true": True,
    "is not a number": float("nan"),
    "holds half a character": "\ud800",
}
_ELSEWHERE = """
import json, pickle, sys
path, connector, items = pickle.load(sys.stdin.buffer)
sys.path[:] = path
connector, items = pickle.loads(connector), pickle.loads(items)
found = []
for item in items:
    try:
        record = connector.map_to_frame_record(item)
    except Exception:
        connector.ensure_authenticated()
        record = connector.map_to_frame_record(item)
    found.append(record.uuid)
print(json.dumps(found))
"""


def same_item_same_uuid(subject: Subject) -> str:
    """An item maps to the same uuid in every process, and other items to others."""
    items = subject.some().items[:_SAMPLE]
    connector, other = subject.opened(), subject.opened()
    here = [_key(connector, item) for item in items]
    mend = (
        "make unique_id of what identifies the item in its source, as in f'crm:{item[\"id\"]}'; "
        "never of time, chance, a counter or hash()"
    )
    if len(here) > 1 and 2 * len(set(here)) <= len(here):
        raise Failed(
            f"{len(here)} items map to {len(set(here))} uuids, so one replaces another", mend
        )
    again = [_key(other, copy.deepcopy(item)) for item in items]
    if here != again:
        raise Failed("the same item maps to another uuid the second time", mend)
    if here != _elsewhere(connector, items):
        raise Failed("the same item maps to another uuid in another process", mend)
    return f"{len(items)} items keep their uuid in another process"


def survives_odd_values(subject: Subject) -> str:
    """A field that is missing, null, huge or of another type costs at most itself."""
    connector = subject.opened()
    items = [item for item in subject.some().items[:3] if isinstance(item, Mapping)]
    problems: list[str] = []
    tried = 0
    for item in items:
        for field, (what, value) in itertools.product(_own_fields(item), _ODD.items()):
            odd = {**copy.deepcopy(dict(item)), field: value}
            if value is _MISSING:
                del odd[field]
            tried += 1
            problem = _problem(connector, odd)
            if problem:
                problems.append(f"where {field!r} {what}: {problem}")
    if problems:
        more = f" (and {len(problems) - 3} more)" if len(problems) > 3 else ""
        raise Failed(
            f"of {tried} odd items {len(problems)} cannot be mapped: "
            f"{'; '.join(problems[:3])}{more}",
            "expect every field to be missing or null, as in (item.get('author') or {}); "
            "FieldMapper does; to refuse an item on purpose raise RecordError",
        )
    return f"{tried} odd items are mapped, or refused with a reason"


def errors_become_dead_letters(subject: Subject) -> str:
    """An item that fails is kept whole, and what cannot be read is not passed over in silence."""
    connector = subject.opened()
    odd: Any
    for odd in (None, "text", 42, [], {}):
        try:
            connector.map_to_frame_record(odd)
        except Exception as error:
            DeadLetter.of("map", error, odd, connector.name, "", "")
        except BaseException as error:
            raise Failed(
                f"mapping {odd!r} raises {type(error).__name__}, which ends the whole run",
                "raise ordinary exceptions, such as RecordError",
            ) from None
    for item in subject.some().items[:_SAMPLE]:
        letter = DeadLetter.of("map", ValueError("tried"), item, connector.name, "", "")
        if DeadLetter.from_json(letter.to_json()).to_json() != letter.to_json() or _has_repr(
            letter.item
        ):
            raise Failed(
                f"an item holds objects that a dead letter cannot keep: {letter.item!r:.200}",
                "make items of plain values: text, numbers, dates, bytes, lists and dicts",
            )
    broken = subject.broken()
    if broken is None:
        return "items are kept whole; give a source with an unreadable item to try reading as well"
    try:
        broken.ensure_authenticated()
        reading = subject.read(broken)
    except Exception as error:
        return f"what cannot be read is told: {type(error).__name__}: {error}"[:300]
    if not reading.failures:
        raise Failed(
            f"an item cannot be read, and the run says nothing ({len(reading.items)} were read)",
            "do not catch the error and go on: let it rise, or put DeadLetter.of('read', error, "
            "...) into the failures of the Page",
        )
    return f"{reading.failures} unreadable items are dead letters"


def _own_fields(item: Mapping[str, Any]) -> Iterator[str]:
    """Yields the fields that the source gave; those with an underscore are the connector's own."""
    names = (name for name in item if isinstance(name, str) and not name.startswith("_"))
    return itertools.islice(names, _FIELDS)


def _problem(connector: BaseConnector, item: dict[str, Any]) -> str:
    try:
        record: Any = connector.map_to_frame_record(item)
        if isinstance(record, Deletion):
            return ""
        if not isinstance(record, FrameRecord):
            return f"map_to_frame_record returned {type(record).__name__}, not a FrameRecord"
        size = 2 if record.vector is None else len(record.vector)
        _, refused = encode_records([record], embed_dim=size)
        del refused  # a record that no row can hold is refused with a reason
    except ContextFrameError:
        return ""
    except Exception as error:
        return f"{type(error).__name__}: {error}"[:120]
    return ""


def _key(connector: BaseConnector, item: Any) -> str:
    record: Any = connector.map_to_frame_record(item)
    if not isinstance(record, FrameRecord | Deletion):
        raise Failed(
            f"map_to_frame_record returned {type(record).__name__}", "return a FrameRecord"
        )
    return str(record.key if isinstance(record, Deletion) else record.uuid)


def _elsewhere(connector: BaseConnector, items: list[Any]) -> list[str]:
    """Returns the keys that a process of its own makes of items, as a worker would."""
    sent = (list(sys.path), pickle.dumps(connector), pickle.dumps(items))
    done = subprocess.run(
        [sys.executable, "-c", _ELSEWHERE],
        input=pickle.dumps(sent),
        capture_output=True,
        env={**os.environ, "PYTHONHASHSEED": "random"},
    )
    if done.returncode:
        told = done.stderr.decode(errors="replace").strip().splitlines() or ["it said nothing"]
        raise Failed(
            f"in another process it cannot map: {told[-1]}",
            "define the class in a module that workers can import, and keep nothing outside of "
            "the connector that the mapping needs",
        )
    keys: list[str] = json.loads(done.stdout.decode().strip().splitlines()[-1])
    return keys


def _has_repr(value: Any) -> bool:
    if isinstance(value, dict):
        return (len(value) == 1 and "__repr__" in value) or any(map(_has_repr, value.values()))
    return isinstance(value, list) and any(map(_has_repr, value))
