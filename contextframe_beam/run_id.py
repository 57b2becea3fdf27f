"""The name of a run: which there may be, and how files are called by one."""

from __future__ import annotations

import hashlib
import unicodedata
import uuid
from urllib.parse import quote

from contextframe_beam.errors import ConfigError

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
