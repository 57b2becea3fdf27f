"""How soon a bundle ends in a worker.

Beam samples in which step a worker is, the longer a bundle takes the less often: in the end every
200 ms. A bundle is reported only after the thread that does it has woken once more. Measured with
100,000 documents: 0.2 s of 2.2 s, with one worker and with two.
"""

from __future__ import annotations

from typing import Any

from apache_beam.runners.worker import statesampler

_PERIOD_MS = 10


def sample_often() -> None:
    """Lets the workers of this process sample every 10 ms, for which Beam has no option."""
    make: Any = statesampler.StateSampler.__init__
    if make.__defaults__ == (statesampler.DEFAULT_SAMPLING_PERIOD_MS,):
        make.__defaults__ = (_PERIOD_MS,)
