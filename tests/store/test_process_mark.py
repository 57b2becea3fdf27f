"""A mark tells whether the process that left it is still there."""

from __future__ import annotations

import os

import pytest

from contextframe_beam.store.runs import is_gone, own_mark
from tests.support.cli_helpers import start_code

PRINTS_ITS_MARK = (
    "import sys; from contextframe_beam.store.runs import own_mark; "
    "print(own_mark(), flush=True); sys.stdin.read()"
)


def test_a_process_is_there_until_it_ends() -> None:
    process = start_code(PRINTS_ITS_MARK)
    mark = process.stdout.readline().strip()
    assert not is_gone(mark)
    process.kill()
    process.wait()
    assert is_gone(mark)


def test_this_process_is_there() -> None:
    assert not is_gone(own_mark())


def test_a_process_that_began_at_another_time_is_another() -> None:
    machine, process, began = own_mark().split("-")
    assert process == str(os.getpid())
    assert is_gone(f"{machine}-{process}-{began}0")


@pytest.mark.parametrize("mark", ["", "x", "other-1-1", "0123456789ab-1-1", "-", "--", "a-b-c"])
def test_of_processes_elsewhere_nothing_is_sure(mark: str) -> None:
    assert not is_gone(mark)


@pytest.mark.parametrize("process", ["", "x", "-1", "99999999999", "１"])
def test_a_mark_that_names_no_process(process: str) -> None:
    machine = own_mark().partition("-")[0]
    assert not is_gone(f"{machine}-{process}-1")


def test_a_mark_may_stand_in_the_name_of_a_tag() -> None:
    assert set(own_mark()) <= set("0123456789abcdef-")
