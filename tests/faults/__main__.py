"""Replays a seed of the fault harness: `python -m tests.faults --seed 7 --steps 12`."""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from tests.faults.campaign import Campaign, Tally, fresh_seed, print_tally
from tests.faults.forks import Forks


def main() -> None:
    """Runs campaigns of given or fresh seeds, until enough processes were killed."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--seed", type=int, help="one campaign of this seed")
    parser.add_argument("--steps", type=int, default=12, help="steps of a campaign")
    parser.add_argument("--story", action="store_true", help="tell what happened")
    parser.add_argument("--kills", type=int, default=1, help="campaigns go on until so many")
    given = parser.parse_args()
    tally, began = Tally(), time.monotonic()
    with tempfile.TemporaryDirectory() as folder, Forks(Path(folder, "forks")) as forks:
        while True:
            seed = fresh_seed() if given.seed is None else given.seed
            campaign = Campaign(seed, Path(folder, str(seed)), forks)
            try:
                campaign.run(given.steps)
            finally:
                tally.add(campaign.tally)
                print(*campaign.story if given.story else [], f"seed {seed}", sep="\n", flush=True)
                print_tally(tally, time.monotonic() - began)
            if given.seed is not None or tally.kills.total() >= given.kills:
                return


if __name__ == "__main__":
    main()
