"""Which files of a folder a run reads: those of a pattern and a range of time, changed or all."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone

from contextframe_beam.connectors.files.listing import (
    HIDDEN,
    FileInfo,
    Files,
    Listing,
    left_out,
    state_after,
)
from contextframe_beam.connectors.files.seen import SEEN_FILES, changed_within, marks_of, unseen
from contextframe_beam.connectors.read.reader import PlannedRun


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
        run: PlannedRun,
        files: Files,
        logger: logging.Logger,
        nothing_found: Callable[[Listing], str],
    ) -> list[FileInfo]:
        """Lists the files, and says what is left out.

        Args:
            run: What the run asks for; is told the states after everything is read, and why
                that is not all.
            files: Access to the folder.
            logger: Is told what is left out although the pattern means it.
            nothing_found: Returns what is there instead, if no file matches.
        """
        began = datetime.now(timezone.utc)
        listing = files.list(self.pattern, self.hidden)
        found = listing.files = [info for info in listing.files if self.takes(info)]
        listing.hidden = [path for path in listing.hidden if self.takes(FileInfo(path, 0, None))]
        if not found:
            logger.warning("%s", nothing_found(listing))
        states = run.known_states
        narrowed = []
        for what, advice in left_out(listing, states):
            narrowed.append(what)
            logger.warning("%s; %s", what, advice)
        hidden = state_after(listing, self.hidden, states)
        if hidden != states.get(HIDDEN):
            run.reached = {**states, HIDDEN: hidden}
        if run.since is not None or run.until is not None:
            found = [info for info in found if changed_within(info, run.since, run.until)]
        if self.skip_unchanged:
            listed = len(found)
            run.reached = {SEEN_FILES: {"seen": marks_of(found, began)}}
            if hidden is not None:
                run.reached[HIDDEN] = hidden
            found = unseen(found, run.resume_from)
            if len(found) < listed:
                narrowed.append(f"{listed - len(found):,} files that did not change were not read")
                logger.info("%s", narrowed[-1])
        run.narrowed = "; ".join(narrowed)
        return found
