"""Under faults a dataset equals its sources after each success, and is untouched by each failure.

`make test` runs a few short campaigns, `make soak` until 500 processes were killed while they ran.
What a campaign does and checks is in `campaign.py`; a failure says how to do it again.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.campaign import Campaign, fresh_seed
from tests.faults.forks import Forks
from tests.faults.places import on_s3
from tests.faults.tally import Tally
from tests.support.s3_faults import FaultyProxy
from tests.support.small_disk import small_disk_at

SOAK_KILLS = 500
SOAK_KILLS_ON_S3 = 100
SOAK_STEPS = 12

#: Several tests, so that all cores have some of them to do.
SOAK_PARTS = 5


@pytest.fixture(scope="module")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    with Forks(tmp_path_factory.mktemp("forks")) as started:
        yield started


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.soak)])
def test_every_version_is_what_its_run_read(seed, forks, tmp_path):
    tally = Campaign(seed, tmp_path / "campaign", forks).run(steps=5)
    assert tally.kills.total() and tally.rows


@pytest.mark.soak
def test_a_seed_that_nobody_has_tried(forks, tmp_path):
    # Whether a kill meets a process is up to the seed.
    assert Campaign(fresh_seed(), tmp_path / "campaign", forks).run(steps=5).rows


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk_at(tmp_path / "disk", megabytes=16) as folder:
        yield folder


@pytest.mark.soak  # one run on one is in tests/pipelines/test_bad_input.py
def test_a_full_disk_leaves_the_dataset_as_it_was(forks, small_disk):
    kinds = {"fill disk": 1}
    campaign = Campaign(3, small_disk / "campaign", forks, kinds, is_small_disk=True)
    assert campaign.run(steps=3).outcomes["failure reported"]


@pytest.fixture
def proxy(s3):
    with FaultyProxy(s3.endpoint) as proxy:
        yield proxy


def test_a_store_that_makes_trouble(s3, proxy, forks, tmp_path):
    kinds = {"kill": 1, "meet": 1, "keep house": 1}
    campaign = Campaign(23, tmp_path / "campaign", forks, kinds, place=on_s3(s3, proxy))
    assert campaign.run(steps=2).faults


@pytest.mark.soak
@pytest.mark.parametrize("part", range(SOAK_PARTS))
def test_five_hundred_kills(part, forks, tmp_path, record_property):
    tally, seeds, began = Tally(), [], time.monotonic()
    while tally.kills.total() < SOAK_KILLS // SOAK_PARTS:
        seeds.append(fresh_seed())
        folder = Path(tmp_path, str(seeds[-1]))
        tally.add(Campaign(seeds[-1], folder, forks).run(SOAK_STEPS))
    record_property("told", f"seeds {seeds}\n{tally.told(time.monotonic() - began)}")


@pytest.mark.soak
@pytest.mark.parametrize("part", range(SOAK_PARTS))
def test_a_hundred_kills_on_a_store_that_makes_trouble(part, s3, forks, tmp_path, record_property):
    tally, seeds, began = Tally(), [], time.monotonic()
    while tally.kills.total() < SOAK_KILLS_ON_S3 // SOAK_PARTS:
        seeds.append(fresh_seed())
        folder = Path(tmp_path, str(seeds[-1]))
        with FaultyProxy(s3.endpoint) as proxy:
            place = on_s3(s3, proxy)
            tally.add(Campaign(seeds[-1], folder, forks, place=place).run(SOAK_STEPS))
    record_property("told", f"seeds {seeds}\n{tally.told(time.monotonic() - began)}")
