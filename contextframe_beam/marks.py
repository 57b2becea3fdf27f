"""Marks: a set of names in 11 characters each, for sync states that must stay small.

A mark is the first 8 bytes of a name's digest. Among a million names the chance that a new one
looks known is one in ten million million.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable

import numpy as np


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

    def pack(self) -> str:
        """Returns the set as text, the same for the same names."""
        data = np.array(sorted(self._known), "<u8").tobytes()
        return base64.b85encode(data).decode("ascii")


def _mark(name: str) -> int:
    data = name.encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")
