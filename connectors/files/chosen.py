"""Which files of a folder a run reads: those of a pattern and a range of time, changed or all."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from contextframe_beam.connectors.files.listing import (
    HIDDEN,
    FileInfo,
    Files,
    Listing,
    left_out,
    state_after,
)
from contextframe_beam.connectors.files.seen import SEEN_FILES, changed_within, marks_of, unseen
from contextframe_beam.connectors.read.reader import Reached


@dataclass(frozen=True, slots=True)
class Choice:
    """What a user says of the files to read.

    Attributes:
        pattern: Which files, as in `**/*.json`.
        hidden: Whether hidden files are read too.
        skip_unchanged: Whether files that an earlier run read are left out as long as they stay
            the same.
        takes: Which of the files that match are meant; all by default.
    """

    pattern: str
    hidden: bool
    skip_unchanged: bool
    takes: Callable[[FileInfo], bool] = lambda _: True

    def of(
        self,
        files: Files,
        logger: logging.Logger,
        nothing_found: Callable[[Listing], str],
        *,
        since: str | None = None,
        until: str | None = None,
        resume_from: Mapping[str, Any] | None = None,
        known_states: Mapping[str, Any] | None = None,
        reached: Reached | None = None,
    ) -> list[FileInfo]:
        """Lists the files, and says what is left out.

        Args:
            files: Access to the folder.
            logger: Is told what is left out although the pattern means it.
            nothing_found: Returns what is there instead, if no file matches.
            since: Only files that were changed at this time or later, ISO 8601.
            until: Only files that were changed before this time.
            resume_from: The states that an earlier run reached, if this run continues from them.
            known_states: Those states in any case.
            reached: Receives the states after everything is read, and why that is not all.
        """
        began = datetime.now(timezone.utc)
        listing = files.list(self.pattern, self.hidden)
        found = listing.files = [info for info in listing.files if self.takes(info)]
        listing.hidden = [path for path in listing.hidden if self.takes(FileInfo(path, 0, None))]
        if not found:
            logger.warning("%s", nothing_found(listing))
        states = known_states or {}
        narrowed = []
        for what, advice in left_out(listing, states):
            narrowed.append(what)
            logger.warning("%s; %s", what, advice)
        hidden = state_after(listing, self.hidden, states)
        if reached is not None and hidden != states.get(HIDDEN):
            reached.states.update({**states, HIDDEN: hidden})
        if since is not None or until is not None:
            found = [info for info in found if changed_within(info, since, until)]
        if self.skip_unchanged and reached is not None:
            listed = len(found)
            reached.states = {SEEN_FILES: {"seen": marks_of(found, began)}}
            if hidden is not None:
                reached.states[HIDDEN] = hidden
            found = unseen(found, resume_from or {})
            if len(found) < listed:
                narrowed.append(f"{listed - len(found):,} files that did not change were not read")
                logger.info("%s", narrowed[-1])
        if reached is not None and narrowed:
            reached.skipped = "; ".join(narrowed)
        return found
