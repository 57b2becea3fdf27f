"""What the options that all commands share are set to, and how the process may be interrupted."""

from __future__ import annotations

from dataclasses import dataclass, field

from contextframe_beam.pipelines._interrupts import Interrupts


@dataclass
class Settings:
    """How a command behaves, whatever it does.

    Attributes:
        debug: Show tracebacks and everybody's log.
        verbose: Show what our own packages log at level INFO.
        json_logs: Write each line of the log as a JSON object.
        packages: Others whose warnings are shown: those that connectors are from.
        flags: The options of the command, by what Python calls them.
        interrupts: Tells who asked the process to stop.
        abandoned: What was under way was given up, and the process must end without waiting for
            its threads.
    """

    debug: bool = False
    verbose: bool = False
    json_logs: bool = False
    packages: list[str] = field(default_factory=list)
    flags: dict[str, str] = field(default_factory=dict)
    interrupts: Interrupts = field(default_factory=Interrupts)
    abandoned: bool = False
