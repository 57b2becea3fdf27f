"""How often Python looks for garbage while documents stream through.

A collection looks at every container that is alive, and pages are full of them: a seventh of the
time was spent on it at Python's own threshold of 700.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

_THRESHOLD = (50_000, 50, 100)


@contextmanager
def seldom_collected() -> Iterator[None]:
    """Collects garbage more seldom within, and as before afterwards."""
    before = gc.get_threshold()
    gc.set_threshold(*_THRESHOLD)
    try:
        yield
    finally:
        gc.set_threshold(*before)
