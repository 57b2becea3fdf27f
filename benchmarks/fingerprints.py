"""Work for the processor: an enricher that computes fingerprints of near-duplicates in Python.

Method: A. Broder, "On the resemblance and containment of documents" (1997): for each of many hash
functions, the smallest value over all runs of words in a text.
"""

from __future__ import annotations

import hashlib
import random
import re
from typing import Any

from contextframe_beam import FrameRecord

_WORD = re.compile(r"\w+")
_WORDS_A_RUN = 3
_FUNCTIONS = 128
_PRIME = (1 << 61) - 1
_chance = random.Random(1997)
_PARAMETERS = [(_chance.randrange(1, _PRIME), _chance.randrange(_PRIME)) for _ in range(_FUNCTIONS)]


class Fingerprints:
    """Puts the fingerprint of a text into its context."""

    def enrich(self, record: FrameRecord, source_item: Any) -> FrameRecord:
        """Adds `context["fingerprint"]`."""
        fingerprint = fingerprint_of(record.text_content or "")
        record.context = {**(record.context or {}), "fingerprint": fingerprint}
        return record


def fingerprint_of(text: str) -> str:
    """Returns the low bytes of the smallest value of each hash function, in hexadecimal."""
    words = _WORD.findall(text.lower())
    runs = {
        " ".join(words[first : first + _WORDS_A_RUN])
        for first in range(max(len(words) - _WORDS_A_RUN + 1, 1))
    }
    hashes = [
        int.from_bytes(hashlib.blake2b(run.encode(), digest_size=8).digest(), "little")
        for run in runs
    ]
    smallest = (min((a * one + b) % _PRIME for one in hashes) for a, b in _PARAMETERS)
    return bytes(one & 0xFF for one in smallest).hex()
