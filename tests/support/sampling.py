"""Runs some cases of a test in `make test`, always the same ones, and the others in `make soak`.

`@pytest.mark.sample` keeps a few cases in which each value of each parameter comes up, and
`@pytest.mark.sample(5)` keeps five that lie evenly between the first and the last.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from itertools import combinations
from typing import Any

import pytest

Value = tuple[str, int]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the cases that are left out as those that take long."""
    tests: defaultdict[tuple[str, str], list[Any]] = defaultdict(list)
    for item in items:
        if isinstance(item, pytest.Function) and item.get_closest_marker("sample"):
            assert item.parent is not None
            tests[item.parent.nodeid, item.originalname].append(item)
    for cases in tests.values():
        marker = cases[0].get_closest_marker("sample")
        # What is long anyway is no choice.
        short = [one for one in cases if not one.get_closest_marker("soak")]
        # One value of a parameter is one object in all cases.
        values = [[(name, id(it)) for name, it in one.callspec.params.items()] for one in short]
        kept = evenly(len(values), *marker.args) if marker.args else with_each_value(values)
        for number, case in enumerate(short):
            if number not in kept:
                case.add_marker(pytest.mark.soak)


def evenly(number: int, count: int) -> set[int]:
    """Returns so many places among `number`, from the first to the last."""
    return {round(place * (number - 1) / max(count - 1, 1)) for place in range(count)}


def with_each_value(cases: list[list[Value]]) -> set[int]:
    """Returns the places of a few cases that have each value of all, in various pairs."""
    left = {value for case in cases for value in case}
    used: Counter[Any] = Counter()
    kept: set[int] = set()
    while left:

        def gain(place: int) -> tuple[int, int]:
            new = sum(value in left for value in cases[place])
            return new, -sum(used[one] for one in (*cases[place], *combinations(cases[place], 2)))

        best = max(range(len(cases)), key=gain)
        kept.add(best)
        left.difference_update(cases[best])
        used.update((*cases[best], *combinations(cases[best], 2)))
    return kept
