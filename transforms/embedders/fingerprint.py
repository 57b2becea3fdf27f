"""What tells vectors of one model from those of another: 32 hexadecimal digits."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path

import xxhash

_BLOCK = 1 << 20


def fingerprint(*parts: object, files: Iterable[str | os.PathLike[str]] = ()) -> str:
    """Returns the XXH3-128 of settings and of the content of files, as hexadecimal digits.

    Args:
        *parts: JSON values.
        files: Read to their end; their paths do not count.

    Raises:
        OSError: a file cannot be read.
    """
    state = xxhash.xxh3_128(json.dumps(parts, sort_keys=True).encode())
    for path in files:
        state.update(f"\0{Path(path).stat().st_size}\0".encode())
        with open(path, "rb") as file:
            while block := file.read(_BLOCK):
                state.update(block)
    return state.hexdigest()
