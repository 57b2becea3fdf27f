"""The checks: how a connector is made, authenticates, travels to a worker, maps, and is read."""

from __future__ import annotations

import base64
import contextlib
import copy
import itertools
import json
import os
import pickle
import subprocess
import sys
import tracemalloc
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from contextframe_beam.connectors import secrets
from contextframe_beam.connectors.base import BaseConnector
from contextframe_beam.connectors.identity import named_arguments
from contextframe_beam.connectors.page import DeadLetter
from contextframe_beam.connectors.read.readers import BatchesReader, ListReader, choose_reader
from contextframe_beam.connectors.testing.subject import (
    Failed,
    NotApplicable,
    Reading,
    Subject,
    blocks_of,
    fingerprints,
)
from contextframe_beam.errors import ConfigError, ContextFrameError
from contextframe_beam.frames.encode import encode_records
from contextframe_beam.frames.record import Deletion, FrameRecord

_UNKNOWN = "no_such_option"


def authenticates(subject: Subject) -> str:
    """`authenticate` returns True with the right credentials."""
    connector = subject.make()
    accepted = connector.authenticate(**connector._asked_by_authenticate())
    if accepted is not True:
        raise Failed(
            f"authenticate() returned {accepted!r}",
            "return True when the source accepts; raise, or return False, when it does not",
        )
    return "authenticate() returned True"


def refuses_wrong_credentials(subject: Subject) -> str:
    """Wrong credentials are an error, at the latest when the first item is read."""
    wrong = subject.wrong()
    if wrong is None:
        raise NotApplicable("none of its arguments is a secret")
    try:
        wrong.ensure_authenticated()
        read = sum(page.count for page in itertools.islice(subject.source(wrong).pages(), 2))
    except Exception as error:
        return f"they are refused: {type(error).__name__}: {error}"[:250]
    raise Failed(
        f"it authenticated with wrong credentials and read {read} items",
        "let authenticate() ask the source for something that needs the credentials, and raise or "
        "return False when it refuses",
    )


def travels_without_secrets(subject: Subject) -> str:
    """It can be pickled, to reach a worker, and its parts do not show a secret."""
    named: list[str] = []

    def by_reference(value: str) -> str:
        if isinstance(value, secrets.SecretReference):
            return value.reference
        named.append(f"CONTEXTFRAME_TEST_{uuid.uuid4().hex}")
        os.environ[named[-1]] = value
        return f"env:{named[-1]}"

    values = subject.secret_values()
    try:
        connector = subject.rebuilt(by_reference) or subject.make()
        if values:
            _authenticated_by_reference(connector)
        travelled = _travelled(connector)
        again = pickle.loads(travelled)
        if again.source_id(subject.sync_kwargs) != connector.source_id(subject.sync_kwargs):
            raise Failed(
                "after travelling it is another source",
                "let source_identity depend on the constructor's arguments alone, and not on "
                "time, chance or memory addresses",
            )
        shown = {
            "its pickle": travelled,
            "its repr": repr(connector).encode(),
            "its identity": json.dumps(connector.source_identity(subject.sync_kwargs)).encode(),
            "its statistics": json.dumps(connector.get_stats(), default=str).encode(),
        }
        for where, data in shown.items():
            if any(value.encode() in data or _encoded(value) in data for value in values):
                raise Failed(
                    f"{where} holds a secret",
                    "keep secrets as the constructor's arguments, and use them where they are "
                    "needed; do not write __reduce__, __getstate__ or __repr__ of your own",
                )
    finally:
        for name in named:
            os.environ.pop(name, None)
    return f"{len(values)} secrets stay behind their references" if values else "it travels"


def refuses_unknown_options(subject: Subject) -> str:
    """A misspelt option is an error before anything is read."""
    connector = subject.make()
    kind = type(connector)
    arguments = {**named_arguments(kind, *connector._arguments), _UNKNOWN: "x"}
    mend = "name the arguments in the signature; take **kwargs only to pass them on to a base class"
    try:
        kind(**arguments)
    except (ConfigError, TypeError):
        pass
    else:
        raise Failed(f"the constructor takes {_UNKNOWN}='x' and says nothing", mend)
    try:
        choose_reader(connector, {**subject.sync_kwargs, _UNKNOWN: "x"})
    except ConfigError:
        return "the constructor and the reading refuse them"
    raise Failed(f"reading takes {_UNKNOWN}='x' and says nothing", mend)


def _authenticated_by_reference(connector: BaseConnector) -> None:
    try:
        connector.ensure_authenticated()
    except Exception as error:
        raise Failed(
            f"with a reference (env:NAME) in the place of its secrets it fails: {error}",
            "use the attribute when it is needed (self.token), and resolved(self.headers) for "
            "arguments that hold references inside",
        ) from None


def _travelled(connector: BaseConnector) -> bytes:
    try:
        return pickle.dumps(connector)
    except Exception as error:
        raise Failed(
            f"it cannot be pickled: {type(error).__name__}: {error}",
            "take plain values as constructor arguments, and make sessions, locks and open files "
            "of them in the constructor; define the class at the top of a module",
        ) from None


def _encoded(value: str) -> bytes:
    return base64.b64encode(value.encode())


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
    if connector.gives_files:
        # What a run would skip, or refuse to parse.
        items = [one for one in items if not _is_refused(connector, one)]
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
    """A field that is missing, null, huge or of another type affects at most its own item."""
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
    """A failed item is kept whole, and an unreadable item is reported."""
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
    """Yields the fields from the source; those with an underscore are the connector's own."""
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
        del refused  # a record that does not fit into a row is refused with a reason
    except ContextFrameError:
        return ""
    except Exception as error:
        return f"{type(error).__name__}: {error}"[:120]
    return ""


def _is_refused(connector: BaseConnector, item: Any) -> bool:
    try:
        connector.map_to_frame_record(item)
    except ContextFrameError:
        return True
    return False


def _key(connector: BaseConnector, item: Any) -> str:
    record: Any = connector.map_to_frame_record(item)
    if not isinstance(record, FrameRecord | Deletion):
        raise Failed(
            f"map_to_frame_record returned {type(record).__name__}", "return a FrameRecord"
        )
    return str(record.key if isinstance(record, Deletion) else record.uuid)


def _elsewhere(connector: BaseConnector, items: list[Any]) -> list[str]:
    """Returns the keys of items as another process makes them, like a worker."""
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


# An odd number, so that ranges begin and end elsewhere than they did.
_OTHER_BATCH = 7
#: How much memory reading may use beside its pages, in bytes: connections, threads, parsers.
_ALLOWANCE = 1 << 20


def splits_read_each_item_once(subject: Subject) -> str:
    """Each item comes once, in pieces for several workers and in a plain loop."""
    whole = fingerprints(subject.whole().items)
    doubled = sum(count - 1 for count in whole.values() if count > 1)
    if doubled:
        raise Failed(
            f"{doubled} items come twice",
            "let the ranges of _fetch_batch(start, end) leave out `end`, and pages not overlap",
        )
    readers = [subject.source(), subject.source()]
    blocks = list(blocks_of(readers[0], workers=3))
    pieces: Counter[str] = Counter()
    for number, (chunk, block) in enumerate(reversed(blocks)):
        for fetched in readers[number % 2].read_blocks(chunk, _only(block), block):
            pieces += fingerprints(fetched.page.items)
    _compare(whole, pieces, f"read in {len(blocks)} pieces by two workers")
    reader = readers[0]._reader
    if isinstance(reader, BatchesReader):
        connector: Any = subject.opened()
        connector.batch_size = _OTHER_BATCH
        found = fingerprints(subject.read(connector).items)
        _compare(whole, found, f"read in ranges of {_OTHER_BATCH}")
    if not isinstance(reader, ListReader) and not subject.first.states:
        listed = subject.opened().sync_documents(**subject.sync_kwargs)
        _compare(whole, fingerprints(listed), "given by sync_documents")
    return f"{len(subject.first.items):,} items in {len(blocks)} pieces, each once"


def second_run_reads_nothing(subject: Subject) -> str:
    """A run that begins where the last one ended finds nothing, as nothing changed."""
    first = subject.whole()
    if not first.states:
        raise NotApplicable(
            "it keeps no state, so each run reads everything; write _incremental_sync(self, since) "
            "on IncrementalConnector, or give the last Page of a partition a state"
        )
    connector = subject.opened()
    if first.items and all(map(connector.document_version, first.items)):
        raise NotApplicable(
            "a run leaves out what it finds stored in the version that document_version tells"
        )
    second = subject.read(states=first.states)
    listed = len(second.items)
    if second.windows:
        # A stretch is listed again to find what is gone from it.
        second.items = [one for one in second.items if not subject.lies_in(second.windows, one)]
    listed -= len(second.items)
    newest = max(filter(None, map(subject.time_of, first.items)), default=None)
    if second.items and any(subject.time_of(one) != newest or not newest for one in second.items):
        raise Failed(
            f"the second run reads {len(second.items):,} items of {len(first.items):,}, though "
            "nothing changed",
            "ask the source for what changed after the state of the last run, and leave out what "
            "is not later",
        )
    if second.items:
        # Others with the same time may have come since, so it is right to read them again.
        return f"the second run reads the {len(second.items)} items of the last moment again"
    if listed:
        return f"the second run lists the {listed} items of its windows again, and reads no others"
    return "the second run reads nothing"


def interrupted_run_resumes(subject: Subject) -> str:
    """The next run reads what an interrupted run did not commit."""
    whole = subject.whole()
    _begin(subject)
    again = subject.read()
    _compare(
        fingerprints(whole.items),
        fingerprints(again.items),
        "read again after a run that was interrupted",
        "keep the state in the Page (or let IncrementalConnector do it), so that it is committed "
        "with the data; a file or a variable that is written while reading is ahead of the data",
    )
    if not whole.states:
        return "after an interruption everything is read again"
    part = _states_of_half(subject)
    rest = subject.read(states=part.states)
    kept = fingerprints(part.items) | fingerprints(rest.items)
    _compare(
        fingerprints(whole.items),
        kept,
        f"read in two runs, of which the first reached {len(part.states)} states",
        "give a state only with the last page of its partition, and of that partition alone",
    )
    return f"{len(part.items):,} items before the interruption and {len(rest.items):,} after it"


def memory_stays_bounded(subject: Subject) -> str:
    """Reading keeps a few pages in memory, not the whole source."""
    source = subject.source()
    if isinstance(source._reader, ListReader):
        raise NotApplicable(
            "sync_documents gives a list, which is held whole; for a large source write "
            "sync_documents_stream(self) and yield the items"
        )
    tracemalloc.start()
    try:
        read = total = largest = 0
        before = held = tracemalloc.get_traced_memory()[0]
        for page in source.pages():
            # We do not keep the page, so any memory still in use belongs to the source.
            size = _size_of(page.items)
            total += size
            largest = max(largest, size)
            read += page.count
            page.items = []
            held = max(held, tracemalloc.get_traced_memory()[0])
            if read >= subject.limit:
                break
    finally:
        tracemalloc.stop()
    allowed = _ALLOWANCE + (source._reader.ahead + 4) * largest
    if total < 2 * allowed:
        raise NotApplicable(
            f"{read:,} items of {total / 1e6:.1f} MB are too few to tell; it takes "
            f"{2 * allowed / 1e6:.1f} MB"
        )
    if held - before > allowed:
        raise Failed(
            f"reading {total / 1e6:.1f} MB of items holds {(held - before) / 1e6:.1f} MB at once",
            "yield items as they come, and keep no list of what was read",
        )
    return f"reading {total / 1e6:.1f} MB of items holds {(held - before) / 1e6:.1f} MB"


def _only(wanted: int) -> Any:
    return lambda block: block == wanted


def _compare(
    whole: Counter[str],
    found: Counter[str],
    how: str,
    mend: str = "let a page or range depend on its number alone, and not on what was read before",
) -> None:
    missing, more = (whole - found).total(), (found - whole).total()
    if missing or more:
        raise Failed(f"{how}, {missing:,} items are missing and {more:,} are too many", mend)


def _begin(subject: Subject) -> None:
    """Begins a run and ends it after its first items, as a crash would."""
    pages = iter(subject.source().pages())
    for page in pages:
        if page.count:
            break
    close = getattr(pages, "close", None)
    if close is not None:
        with contextlib.suppress(Exception):
            close()


def _states_of_half(subject: Subject) -> Reading:
    """Reads until half of the states were reached, and keeps the items of those partitions."""
    wanted = max(len(subject.first.states) // 2, 1)
    items: dict[str, list[Any]] = {}
    reading = Reading()
    for page in subject.source().pages():
        items.setdefault(page.partition, []).extend(page.items)
        if page.state is not None and page.partition:
            reading.states[page.partition] = page.state
            if len(reading.states) == wanted:
                break
    reading.items = [one for name in reading.states for one in items[name]]
    return reading


def _size_of(items: list[Any]) -> int:
    """Returns about how many bytes items take in memory."""
    return 3 * len(pickle.dumps(items))
