"""`make test` runs some cases of a long table, and `make soak` all the others."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from tests.support.cli_helpers import environment, run_code
from tests.support.sampling import evenly, with_each_value

TABLES = """
import pytest

@pytest.mark.sample
@pytest.mark.parametrize("mode", ["append", "upsert", "mirror"])
@pytest.mark.parametrize("workers", [1, 2])
def test_pairs(workers, mode): pass

@pytest.mark.sample(2)
@pytest.mark.parametrize("name", "abcd")
def test_names(name): pass

@pytest.mark.sample(1)
@pytest.mark.parametrize("seed", [1, 2, pytest.param(3, marks=pytest.mark.soak)])
def test_seeds(seed): pass
"""


@pytest.mark.parametrize(
    ("number", "count", "kept"),
    [(29, 5, {0, 7, 14, 21, 28}), (3, 1, {0}), (4, 2, {0, 3}), (2, 9, {0, 1})],
)
def test_they_lie_evenly(number: int, count: int, kept: set[int]) -> None:
    assert evenly(number, count) == kept


def test_each_value_comes_up_in_as_few_cases_as_can_be() -> None:
    tables = {"form": range(8), "told": range(2), "ways": range(3)}
    values = ([(name, value) for value in table] for name, table in tables.items())
    cases = [list(case) for case in itertools.product(*values)]
    kept = [cases[place] for place in with_each_value(cases)]
    assert len(kept) == 8
    assert {one for case in kept for one in case} == {one for case in cases for one in case}
    # And with the values of other tables in turn.
    assert len({(case[1], case[2]) for case in kept}) == 6


def test_each_case_is_run_by_one_of_the_two(tmp_path: Path) -> None:
    (tmp_path / "test_tables.py").write_text(TABLES)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers =\n    sample\n    soak\n")

    def run_by(marks: str) -> set[str]:
        arguments = ["-q", "--collect-only", "-m", marks, "-p", "tests.support.sampling"]
        code = f"import pytest; pytest.main({arguments})"
        found = run_code(code, cwd=tmp_path, env=environment()).out.splitlines()
        return {line.partition("::")[2] for line in found if "::" in line}

    test, soak = run_by("not soak"), run_by("soak")
    assert test == {
        *("test_pairs[1-append]", "test_pairs[2-upsert]", "test_pairs[1-mirror]"),
        *("test_names[a]", "test_names[d]", "test_seeds[1]"),
    }
    assert not test & soak and len(test | soak) == 13
