"""What campaigns have seen, in numbers."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Tally:
    """Counts of one or of several campaigns.

    Attributes:
        kills: Processes that were killed while they ran, by how far they were.
        killed: The same, by what they did.
        outcomes: Runs by what became of them.
        steps: Steps taken, by kind.
        rows: Rows compared.
        versions: Versions compared.
        faults: Requests of an object store that met a fault.
    """

    kills: Counter[str] = field(default_factory=Counter)
    killed: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    steps: Counter[str] = field(default_factory=Counter)
    rows: int = 0
    versions: int = 0
    faults: int = 0

    def add(self, other: Tally) -> None:
        """Adds what another campaign has seen."""
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)

    def kill(self, action: str, phase: str) -> None:
        """Counts a process that was killed."""
        self.kills[phase] += 1
        self.killed[action] += 1

    def told(self, seconds: float) -> str:
        """Returns it in words.

        Args:
            seconds: How long it took.
        """
        return (
            f"{self.kills.total()} kills {dict(self.kills)}\nof {dict(self.killed)}\n"
            f"outcomes {dict(self.outcomes)}\nsteps {dict(self.steps)}\n"
            f"{self.versions} versions and {self.rows} rows compared, {self.faults} faults of a "
            f"store, in {seconds:.0f} s"
        )
