"""How often Python looks for garbage while it imports, and while documents stream through.

A collection looks at every container that is alive. Pages are full of them: a seventh of the time
was spent on it at Python's own threshold of 700, and so was a tenth of the time of the imports.
"""

from __future__ import annotations

import gc

_THRESHOLD = (50_000, 50, 100)


def collect_seldom() -> None:
    """Lets the rest of this process collect garbage seldom; called before anything is imported."""
    gc.set_threshold(*_THRESHOLD)
