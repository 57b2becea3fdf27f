"""What the processes of a run share on one machine: files that only their owner can read.

Budgets and renewed tokens live here while a run lasts. Everything is made anew when it is missing.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from contextframe_beam.errors import ConfigError

#: Names another directory than the one below the system's temporary directory.
DIRECTORY_VARIABLE = "CONTEXTFRAME_BEAM_STATE_DIR"


def shared_file(kind: str, *parts: str) -> Path:
    """Returns the path of a file that all processes of this user find under the same name.

    Args:
        kind: The beginning of its name.
        *parts: What makes it itself; only a digest of them is seen.
    """
    digest = hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()
    return shared_directory() / f"{kind}-{digest[:24]}"


def shared_directory() -> Path:
    """Returns the directory that processes of this user share, made if it is missing.

    Raises:
        ConfigError: the directory belongs to somebody else.
    """
    named = os.environ.get(DIRECTORY_VARIABLE)
    path = Path(named or Path(tempfile.gettempdir()) / f"contextframe-beam-{os.getuid()}")
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = os.lstat(path)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise ConfigError(
            f"{path} is not a directory of this user, so nothing private can be kept in it; "
            f"set {DIRECTORY_VARIABLE} to a directory that is"
        )
    if found.st_mode & 0o077:
        path.chmod(0o700)
    return path


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keeps every other thread and process out that locks the same path."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def write_private(path: Path, text: str) -> None:
    """Writes a file that only its owner can read; readers see the old content or the new.

    Raises:
        OSError: it cannot be written.
    """
    target = Path(os.path.realpath(path))
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, target)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise
