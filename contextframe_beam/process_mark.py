"""Which process left something behind, and whether it is still there.

A mark names the process and what it can be found in: this machine since it was started, and the
container in it. Of a process anywhere else nobody can tell.
"""

from __future__ import annotations

import hashlib
import os
import platform
from functools import cache
from pathlib import Path

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
