"""The coder of pages and batches: pickling that is seldom done, and sizes that cost nothing.

A runner samples the size of elements as it goes and would pickle whole pages for that. Pages and
batches hardly ever leave the stage that made them, so a rough size serves as well.
"""

from __future__ import annotations

import pickle
from typing import Any

from apache_beam import coders

# About a page of short documents; a runner uses it for its own buffers and displays.
_ROUGH_BYTES = 1 << 20


class BatchCoder(coders.Coder):
    """Pickles an element and does not weigh it."""

    def encode(self, value: Any) -> bytes:
        return pickle.dumps(value, pickle.HIGHEST_PROTOCOL)

    def decode(self, encoded: bytes) -> Any:
        return pickle.loads(encoded)

    def estimate_size(self, value: Any) -> int:
        return _ROUGH_BYTES

    def is_deterministic(self) -> bool:
        return False


def register(*types: type) -> None:
    """Makes it the coder of PCollections of these types."""
    for kind in types:
        coders.registry.register_coder(kind, BatchCoder)
