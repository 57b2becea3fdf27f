"""What all runs of a user share on one machine: files that only their owner can read.

Budgets and renewed tokens live here. Everything is made anew when it is missing.
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


def shared_path() -> str:
    """Returns where the directory is that processes of this user share, made or not."""
    named = os.environ.get(DIRECTORY_VARIABLE)
    return named or os.path.join(tempfile.gettempdir(), f"contextframe-beam-{os.getuid()}")


def shared_directory() -> Path:
    """Returns the directory that processes of this user share, made if it is missing.

    Raises:
        ConfigError: the directory belongs to somebody else.
    """
    path = Path(shared_path())
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


@contextlib.contextmanager
def locked_itself(path: Path) -> Iterator[None]:
    """Keeps others out that lock the same file, also where they share no other folder with us.

    The file may be replaced meanwhile: whoever waited for the old one waits for the new one then.
    A file that is not there, or that cannot be locked, keeps nobody out.
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
