"""Files that all runs of a user share on one machine, and that only the user can read.

Budgets and renewed tokens are stored here. A missing file is made again.
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

#: Names a directory to use in place of the one below the system's temporary directory.
DIRECTORY_VARIABLE = "CONTEXTFRAME_BEAM_STATE_DIR"


def shared_file(kind: str, *parts: str) -> Path:
    """Returns the path of a file, the same for all processes of this user.

    Args:
        kind: The beginning of its name.
        *parts: Identify the file; its name shows only a digest of them.
    """
    digest = hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()
    return shared_directory() / f"{kind}-{digest[:24]}"


def shared_path() -> str:
    """Returns the path of the shared directory, which may not exist yet."""
    named = os.environ.get(DIRECTORY_VARIABLE)
    return named or os.path.join(tempfile.gettempdir(), f"contextframe-beam-{os.getuid()}")


def shared_directory() -> Path:
    """Returns the shared directory; makes it if it is missing.

    Raises:
        ConfigError: the directory belongs to somebody else.
    """
    path = Path(shared_path())
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = os.lstat(path)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise ConfigError(
            f"{path} is not a directory of this user, so private files cannot be kept in it; "
            f"set {DIRECTORY_VARIABLE} to a directory that is"
        )
    if found.st_mode & 0o077:
        path.chmod(0o700)
    return path


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keeps out every other thread and process that locks the same path."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


@contextlib.contextmanager
def locked_itself(path: Path) -> Iterator[None]:
    """Keeps out others that lock the same file, even if they share only this file with us.

    If the file is replaced meanwhile, those that waited for the old one wait for the new one. If
    the file is missing or cannot be locked, this does nothing.
    """
    handle = None
    with contextlib.suppress(OSError):
        while handle is None:
            handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            fcntl.flock(handle, fcntl.LOCK_EX)
            if not os.path.samestat(os.fstat(handle), os.stat(path)):
                os.close(handle)
                handle = None
    try:
        yield
    finally:
        if handle is not None:
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
