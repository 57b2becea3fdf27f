"""Where in a user's own files an exception comes from: `crm.py, line 12`.

A connector's author knows the own file, and neither Beam's nor ours.
"""

from __future__ import annotations

import os
import re
import sysconfig
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from traceback import extract_tb

import contextframe_beam

_FRAME = re.compile(r'^\s*File "(?P<file>[^"\n]+)", line (?P<line>\d+)', re.MULTILINE)
# Of the standard library, of what is installed, and of this package, whose folders links lead to.
_STANDARD = tuple(sysconfig.get_path(name) for name in ("stdlib", "platstdlib"))
_INSTALLED = tuple(sysconfig.get_path(name) for name in ("purelib", "platlib"))
_PACKAGE = Path(contextframe_beam.__file__).parent
_OURS = tuple(
    (_PACKAGE / name).resolve() for name in (".", "connectors", "transforms", "pipelines")
)


def line_of(error: BaseException) -> str:
    """Returns the innermost line of a user's file that an exception went through, "" for none."""
    return _line((frame.filename, frame.lineno or 0) for frame in extract_tb(error.__traceback__))


def line_in(trace: str) -> str:
    """Returns the same of a traceback as Python prints it."""
    return _line((match["file"], int(match["line"])) for match in _FRAME.finditer(trace))


def with_line(error: BaseException) -> str:
    """Returns an exception with the user's line, as in `KeyError: 'a' (crm.py, line 2)`."""
    try:
        text = str(error)
    except Exception:  # of a class that cannot say what is wrong
        text = ""
    told = f"{type(error).__name__}: {text}" if text else type(error).__name__
    line = line_of(error)
    return f"{told} ({line})" if line else told


def _line(frames: Iterable[tuple[str, int]]) -> str:
    found = [(file, line) for file, line in frames if _is_a_users(file)]
    if not found:
        return ""
    # What a connector calls may be installed; the line that its author wrote comes first.
    own = [one for one in found if not one[0].startswith(_INSTALLED)] or found
    file, line = own[-1]
    return f"{os.path.basename(file)}, line {line}"


@lru_cache(maxsize=1024)
def _is_a_users(file: str) -> bool:
    if file.startswith("<"):
        return False
    if "apache_beam" in Path(file).parts:
        return False
    if file.startswith(_STANDARD) and not file.startswith(_INSTALLED):
        return False
    whole = Path(file).resolve()
    return not any(whole.is_relative_to(folder) for folder in _OURS)
