"""What a check finds: it passes, it fails with a reason and a way to mend it, or it cannot tell."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Status(Enum):
    """How a check ended."""

    PASSED = "passed"
    FAILED = "failed"
    NOT_APPLICABLE = "not applicable"


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of one check.

    Attributes:
        check: Its name.
        status: How it ended.
        reason: What was found.
        mend: What to do about a failure.
        error: What the connector raised, where that is the failure.
    """

    check: str
    status: Status
    reason: str
    mend: str = ""
    error: Exception | None = None


class Failed(Exception):
    """A check that found something wrong.

    Args:
        reason: What.
        mend: What to do about it.
    """

    def __init__(self, reason: str, mend: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.mend = mend


class NotApplicable(Exception):
    """A check that this source cannot tell anything about; the message says why."""
