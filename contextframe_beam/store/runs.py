"""Runs: what they are called, what readers and the commit both know, and why items failed."""

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

#: Arguments of `sync_documents` that only choose less of a source: they are no part of its
#: identity. In the release 0.1 they were, so that each choice had an id and a state of its own.
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

#: Source id of what is written without a connector.
NO_SOURCE = "records"

#: The name, in the state of a partition that is a slice of time of another one, under which it says
#: so: `of` which, `from` when it begins, and `last` on the newest one. They become one state when
#: the newest one is there: that of the last of them that reached anything.
SLICE = "slice_of_time"


@dataclass(frozen=True, slots=True)
class StateChange:
    """What a run says about the state of a source as a whole, beside the states of partitions.

    Attributes:
        partitions: Takes the place of the states of all partitions so far; None leaves them.
        reached: States of partitions that are added to those so far.
        sliced: Whether states come from slices of time of partitions, whose names stand behind
            those of the partitions.
        whole: Whether all of the source is read, and not a range of it.
        backfill: The record of a backfill that goes on after this commit, which is empty at its
            end; None leaves the record that there is.
        continues: The run id of the commit before, which this one takes in; "" where there is none.
    """

    partitions: Mapping[str, Any] | None = None
    reached: Mapping[str, Any] = field(default_factory=dict)
    sliced: bool = False
    whole: bool = False
    backfill: Mapping[str, Any] | None = None
    continues: str = ""

    @property
    def moves_state(self) -> bool:
        """Whether a state is another one after it."""
        return self not in (NO_CHANGE, StateChange(whole=True))


#: A change of nothing.
NO_CHANGE = StateChange()


#: A dataset keeps the ids of the last runs, so they have an end.
LONGEST = 500

#: What a run that commits its parts puts behind its id is shorter than this.
_PART = 32

#: So much of an id is in the name of a file: with all that stands behind it, the name is short
#: enough for every file system.
_IN_FILE_NAMES = 60


def new_run_id() -> str:
    """Returns a run id that nobody has used."""
    return uuid.uuid4().hex


def check_run_id(run_id: str | None, is_part: bool = False) -> None:
    """Refuses what names no run, or could not be read again from a log.

    Args:
        run_id: The id; None where one is to be made up.
        is_part: Whether it may be that of a part of a run.

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
    """Returns a run id as a part of a file's name, where no sign means anything to a file system.

    Different ids have different names.

    Args:
        run_id: The id.
        longest: The most characters. What is longer ends with a digest of all of it.
    """
    quoted = quote(run_id, safe="+@=").replace("~", "%7E")
    if quoted.startswith("."):
        quoted = f"%2E{quoted[1:]}"
    if len(quoted) <= longest:
        return quoted
    digest = hashlib.sha256(run_id.encode()).hexdigest()[:16]
    # The sign before the digest is in no quoted id.
    return f"{quoted[: longest - 17]}~{digest}"


#: The logger that tells of commits which are not complete. The command line says the same itself.
COMMITS = "contextframe_beam.commits"

#: A run's receipt has at most so many reasons, those of most items.
MAX_REASONS = 10

#: So many are told apart while a run goes on; what comes after them is counted by its type.
_MAX_APART = 200

_TEXT_LIMIT = 300
_NUMBER = re.compile(r"[0-9]+")


@dataclass(frozen=True)
class FailureReason:
    """One reason, and how many items failed for it.

    Attributes:
        error: The type of the exception, as in `KeyError`.
        message: What it said of one of the items; those of the others differ in numbers at most.
        count: How many items.
        place: Where that item was: stage, partition, position.
    """

    error: str
    message: str
    count: int = 1
    place: str = ""

    @classmethod
    def of(cls, error_type: str, message: str, place: str) -> FailureReason:
        """Returns the reason of one item.

        Args:
            error_type: The qualified name of the exception's type.
            message: What it said.
            place: Where the item was.
        """
        return cls(error_type.rpartition(".")[2], _shortened(message), 1, _shortened(place))

    @property
    def kind(self) -> tuple[str, str]:
        """What items of one reason have in common."""
        return self.error, _NUMBER.sub("0", self.message)

    def __str__(self) -> str:
        where = f"{self.place}: " if self.place else ""
        items = f", {self.count:,} items" if self.count > 1 else ""
        return f"{where}{self.message} ({self.error}{items})"

    @classmethod
    def from_json(cls, value: Any) -> FailureReason:
        """Reads a reason of a stored receipt, whatever a later release has put into it."""
        told: Mapping[str, Any] = value if isinstance(value, Mapping) else {}
        count = told.get("count")
        return cls(
            str(told.get("error", "")),
            str(told.get("message", "")),
            count if isinstance(count, int) else 1,
            str(told.get("place", "")),
        )


class Reasons:
    """Adds up reasons, in whatever order they come.

    Args:
        reasons: Those to begin with.
    """

    def __init__(self, reasons: Iterable[FailureReason] = ()) -> None:
        self._by_kind: dict[tuple[str, str], FailureReason] = {}
        self.add(reasons)

    def add(self, reasons: Iterable[FailureReason]) -> None:
        """Adds some more."""
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
        """Returns the reasons of most items, the most frequent one first."""
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
    """Tells whether the process of a mark has surely ended.

    Args:
        mark: What `own_mark` returned there; of anything else nothing is sure.
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
    """Returns what is the same for all processes that can see each other, and for no others."""
    known = [platform.node()]
    for path in ("sys/kernel/random/boot_id", "self/ns/pid"):
        try:
            file = _PROC / path
            known.append(os.readlink(file) if file.is_symlink() else file.read_text().strip())
        except OSError:
            continue
    return hashlib.sha256("\n".join(known).encode()).hexdigest()[:12]


def _began(process: int) -> str:
    """Returns when a process began, in the clock of the system; empty where there is none."""
    try:
        # Behind its name, which may hold anything.
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
        packed: What `pack` gave; nothing is marked when it is empty.

    Raises:
        ValueError: `packed` is something else.
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
