"""Replays a seed of the fault harness: `python -m tests.faults --seed 7 --steps 12`."""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.faults.campaign import KINDS, Campaign, fresh_seed
from tests.faults.forks import Forks
from tests.faults.places import Place, on_s3
from tests.faults.tally import Tally
from tests.support.s3_faults import FaultyProxy
from tests.support.s3_server import start_server


def main() -> None:
    """Runs campaigns of given or fresh seeds, until enough processes were killed."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--seed", type=int, help="one campaign of this seed")
    parser.add_argument("--steps", type=int, default=12, help="steps of a campaign")
    parser.add_argument("--s3", action="store_true", help="on an S3 server that makes trouble")
    parser.add_argument("--only", help=f"steps of these kinds only: {', '.join(KINDS)}")
    parser.add_argument("--story", action="store_true", help="tell what happened")
    parser.add_argument("--kills", type=int, default=1, help="campaigns go on until so many")
    given = parser.parse_args()
    kinds = dict.fromkeys(given.only.split(","), 1) if given.only else None
    tally, began = Tally(), time.monotonic()
    with tempfile.TemporaryDirectory() as folder, Forks(Path(folder, "forks")) as forks:
        while True:
            seed = fresh_seed() if given.seed is None else given.seed
            print(f"seed {seed}", flush=True)
            with _place(given.s3, Path(folder, "s3")) as place:
                campaign = Campaign(seed, Path(folder, str(seed)), forks, kinds, place=place)
                try:
                    campaign.run(given.steps)
                finally:
                    tally.add(campaign.tally)
                    print(*campaign.story if given.story else [], sep="\n", flush=True)
                    print(tally.told(time.monotonic() - began), flush=True)
            if given.seed is not None or tally.kills.total() >= given.kills:
                return


@contextmanager
def _place(is_s3: bool, folder: Path) -> Iterator[Place | None]:
    if not is_s3:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix=folder.name) as data:
        server, process = start_server(Path(data))
        try:
            with FaultyProxy(server.endpoint) as proxy:
                yield on_s3(server, proxy)
        finally:
            process.kill()
            process.wait()


if __name__ == "__main__":
    main()
