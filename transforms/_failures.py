"""How many failed items a run may have and still be committed."""

from __future__ import annotations

import re
from dataclasses import dataclass

from contextframe_beam.errors import ConfigError, TooManyFailures
from contextframe_beam.transforms._written import Written

DEFAULT_MAX_FAILURES = 1000

#: How many reasons the message names.
_SHOWN = 3


@dataclass(frozen=True)
class FailureLimit:
    """A number of items, or a share of the items read.

    Attributes:
        count: The most items that may fail, or None.
        share: The largest share of them, from 0 to 1, or None.
    """

    count: int | None = DEFAULT_MAX_FAILURES
    share: float | None = None

    @classmethod
    def of(cls, value: int | str | FailureLimit) -> FailureLimit:
        """Reads `100` or `"100"` as a number and `"5%"` as a share.

        Raises:
            ConfigError: it is neither.
        """
        if isinstance(value, FailureLimit):
            return value
        found = count_or_share(value)
        if found is None:
            raise ConfigError(
                f"max failures is {value!r}; give a number of items such as 100, or a share such "
                "as 5%"
            )
        return cls(*found)

    def __str__(self) -> str:
        if self.share is None:
            return f"{self.count:,}"
        return f"{self.share * 100:.4g}% of the items read"

    def check(self, written: Written, dead_letters: str | None) -> None:
        """Refuses a run in which too many items failed, or in which all did.

        Raises:
            TooManyFailures: with the first failures and where the others are.
        """
        failed, read = written.failed, written.read
        if not failed:
            return
        total = max(read, failed)
        # Rounded, because 0.29 * 100 is a little less than 29.
        allowed = self.count if self.share is None else int(round(self.share * total, 6))
        if failed >= max(read, 1):
            reason = "all of them"
        elif allowed is not None and failed > allowed:
            reason = f"more than the {self} that `max_failures` allows"
        else:
            return
        where = f" All are in {dead_letters}." if dead_letters else ""
        raise TooManyFailures(
            f"{failed:,} of {total:,} items failed, {reason}; nothing was committed."
            f"{where} The first: " + "; ".join(map(str, written.reasons.most(_SHOWN)))
        )


def count_or_share(value: int | str) -> tuple[int | None, float | None] | None:
    """Reads `100` or `"100"` as a number and `"5%"` as a share, from 0 to 1; None for all else."""
    text = str(value).strip()
    if re.fullmatch(r"[0-9]+", text):
        return int(text), None
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*%", text)
    if match and float(match[1]) <= 100:
        return None, float(match[1]) / 100
    return None
