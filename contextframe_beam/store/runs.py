"""Runs: their ids, their changes of the state, the reasons of failures, and process marks."""

from __future__ import annotations

import base64
import hashlib
import os
import platform
import re
import unicodedata
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from contextframe_beam.errors import ConfigError

#: Arguments of `sync_documents` that only select a part of a source. They are not part of its
#: identity. In release 0.1 they were, so that each selection had its own id and state.
NARROWING = frozenset(
    {
        "limit",
        "max_documents",
        "max_items",
        "max_pages",
        "max_records",
        "max_results",
        "only",
        "since",
        "until",
    }
)

#: The source id of documents that were written without a connector.
NO_SOURCE = "records"

#: The key in the state of a slice of time of a partition: `of` names the partition, `from` is the
#: beginning of the slice, and `last` marks the newest one. Once the newest slice has a state, they
#: become one state: that of the last slice that has a value.
SLICE = "slice_of_time"


@dataclass(frozen=True, slots=True)
class StateChange:
    """The change of a source's state as a whole by a run, beside the states of partitions.

    Attributes:
        partitions: Replaces the states of all partitions; None keeps them.
        reached: States of partitions to add to the present ones.
        sliced: Whether states come from slices of time, with the slice's name after the
            partition's.
        whole: Whether the run reads all of the source, rather than a range.
        backfill: The record of an unfinished backfill; empty at its end; None keeps the present
            record.
        continues: The run id of the previous commit, which this one includes; "" for the first.
    """

    partitions: Mapping[str, Any] | None = None
    reached: Mapping[str, Any] = field(default_factory=dict)
    sliced: bool = False
    whole: bool = False
    backfill: Mapping[str, Any] | None = None
    continues: str = ""

    @property
    def moves_state(self) -> bool:
        """Whether it changes a state."""
        return self not in (NO_CHANGE, StateChange(whole=True))


#: The empty change.
NO_CHANGE = StateChange()


#: The longest run id, because a dataset stores the ids of the last runs.
LONGEST = 500

#: The longest suffix that a backfill adds to its run id for a part.
_PART = 32

#: The length of a run id in the name of a file. With everything after it, the name is short enough
#: for every file system.
_IN_FILE_NAMES = 60


def new_run_id() -> str:
    """Returns a new, unique run id."""
    return uuid.uuid4().hex


def check_run_id(run_id: str | None, is_part: bool = False) -> None:
    """Refuses a text that cannot be a run id, or could not be read from a log.

    Args:
        run_id: The id; None asks for a new one.
        is_part: Whether it may be the id of a part of a run.

    Raises:
        ConfigError: it cannot be a run id.
    """
    if run_id is None:
        return
    problem = ""
    if not isinstance(run_id, str):
        problem = f"it is a {type(run_id).__name__}, and an id is text"
    elif not run_id.strip():
        problem = "it is empty; leave it out to have one made up"
    elif any(unicodedata.category(one) in ("Cc", "Cs", "Zl", "Zp") for one in run_id):
        problem = "it holds a control character or half of a character"
    elif len(run_id) > (LONGEST if is_part else LONGEST - _PART):
        problem = f"it has {len(run_id):,} characters, and at most {LONGEST - _PART} are kept"
    if problem:
        raise ConfigError(f"the run id {run_id!a:.60} cannot be used: {problem}")


def file_name_of(run_id: str, longest: int = _IN_FILE_NAMES) -> str:
    """Returns a run id for use in a file name, without characters that are special there.

    Different ids have different names.

    Args:
        run_id: The id.
        longest: The largest number of characters. A longer id ends with a digest of the whole.
    """
    quoted = quote(run_id, safe="+@=").replace("~", "%7E")
    if quoted.startswith("."):
        quoted = f"%2E{quoted[1:]}"
    if len(quoted) <= longest:
        return quoted
    digest = hashlib.sha256(run_id.encode()).hexdigest()[:16]
    # A quoted id never contains the character before the digest.
    return f"{quoted[: longest - 17]}~{digest}"


#: The logger for incomplete commits. The command line reports them itself.
COMMITS = "contextframe_beam.commits"

#: The largest number of reasons in a receipt: the most frequent ones.
MAX_REASONS = 10

#: How many reasons a run keeps apart; further ones are counted by their type.
_MAX_APART = 200

_TEXT_LIMIT = 300
_NUMBER = re.compile(r"[0-9]+")


@dataclass(frozen=True)
class FailureReason:
    """A reason for failures, and its number of items.

    Attributes:
        error: The type of the exception, as in `KeyError`.
        message: Its message for one of the items; those of the others differ only in numbers.
        count: The number of items.
        place: The place of that item: stage, partition, position.
    """

    error: str
    message: str
    count: int = 1
    place: str = ""

    @classmethod
    def of(cls, error_type: str, message: str, place: str) -> FailureReason:
        """Returns the reason for one item.

        Args:
            error_type: The qualified name of the exception's type.
            message: The message of the exception.
            place: The place of the item.
        """
        return cls(error_type.rpartition(".")[2], _shortened(message), 1, _shortened(place))

    @property
    def kind(self) -> tuple[str, str]:
        """The common part of items with the same reason."""
        return self.error, _NUMBER.sub("0", self.message)

    def __str__(self) -> str:
        where = f"{self.place}: " if self.place else ""
        items = f", {self.count:,} items" if self.count > 1 else ""
        return f"{where}{self.message} ({self.error}{items})"

    @classmethod
    def from_json(cls, value: Any) -> FailureReason:
        """Reads a reason from a stored receipt, and ignores additions of later releases."""
        told: Mapping[str, Any] = value if isinstance(value, Mapping) else {}
        count = told.get("count")
        return cls(
            str(told.get("error", "")),
            str(told.get("message", "")),
            count if isinstance(count, int) else 1,
            str(told.get("place", "")),
        )


class Reasons:
    """Adds up reasons in any order.

    Args:
        reasons: The first reasons.
    """

    def __init__(self, reasons: Iterable[FailureReason] = ()) -> None:
        self._by_kind: dict[tuple[str, str], FailureReason] = {}
        self.add(reasons)

    def add(self, reasons: Iterable[FailureReason]) -> None:
        """Adds reasons."""
        for one in reasons:
            kind = one.kind
            if kind not in self._by_kind and len(self._by_kind) >= _MAX_APART:
                one = replace(one, message="other reasons", place="")
                kind = one.kind
            known = self._by_kind.get(kind)
            if known is not None:
                first = min(known, one, key=lambda reason: (reason.place, reason.message))
                one = replace(first, count=known.count + one.count)
            self._by_kind[kind] = one

    def most(self, count: int = MAX_REASONS) -> tuple[FailureReason, ...]:
        """Returns the most frequent reasons, beginning with the most frequent one."""
        ordered = sorted(
            self._by_kind.values(),
            key=lambda one: (-one.count, one.place, one.error, one.message),
        )
        return tuple(ordered[:count])

    def all(self) -> tuple[FailureReason, ...]:
        """Returns all reasons."""
        return self.most(len(self._by_kind))


def _shortened(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _TEXT_LIMIT else f"{line[:_TEXT_LIMIT]}..."


_PROC = Path("/proc")


def own_mark() -> str:
    """Returns the mark of this process: letters, digits and hyphens."""
    process = os.getpid()
    return f"{_machine()}-{process}-{_began(process)}"


def is_gone(mark: str) -> bool:
    """Returns whether the process of a mark has certainly ended.

    Args:
        mark: The result of `own_mark` in that process; for any other text it returns False.
    """
    machine, _, rest = mark.partition("-")
    process, _, began = rest.partition("-")
    if (
        machine != _machine()
        or not (process.isascii() and process.isdecimal())
        or int(process) >= 1 << 31
    ):
        return False
    return _began(int(process)) != began


@cache
def _machine() -> str:
    """Returns a name that only processes which can see each other share."""
    known = [platform.node()]
    for path in ("sys/kernel/random/boot_id", "self/ns/pid"):
        try:
            file = _PROC / path
            known.append(os.readlink(file) if file.is_symlink() else file.read_text().strip())
        except OSError:
            continue
    return hashlib.sha256("\n".join(known).encode()).hexdigest()[:12]


def _began(process: int) -> str:
    """Returns the start time of a process by the system's clock; empty if it does not exist."""
    try:
        # After its name, which may contain anything.
        fields = (_PROC / str(process) / "stat").read_text().rpartition(")")[2].split()
        return "" if fields[0] in "ZX" else fields[19]
    except (OSError, IndexError):
        pass
    if _PROC.exists():
        return ""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return ""
    except OSError:
        pass
    return "0"


class Marks:
    """A set of marked names.

    Args:
        packed: The result of `pack`; an empty text means an empty set.

    Raises:
        ValueError: `packed` is another text.
    """

    def __init__(self, packed: str = "") -> None:
        data = base64.b85decode(packed.encode("ascii"))
        self._known = set(np.frombuffer(data, "<u8").tolist())

    def __contains__(self, name: str) -> bool:
        return _mark(name) in self._known

    def __len__(self) -> int:
        return len(self._known)

    def add(self, names: Iterable[str]) -> None:
        """Marks names."""
        self._known.update(map(_mark, names))

    def merge(self, other: Marks) -> None:
        """Marks what another set has marked."""
        self._known |= other._known

    def pack(self) -> str:
        """Returns the set as text, the same for the same names."""
        data = np.array(sorted(self._known), "<u8").tobytes()
        return base64.b85encode(data).decode("ascii")


def _mark(name: str) -> int:
    data = name.encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")
