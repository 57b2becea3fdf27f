"""Counts the processor time of each test, with that of all processes it starts (`--heaviest 10`).

Unlike the time on a clock it is the same on a machine that is busy with other things. It is that of
users and of the system, in seconds. Where there is no /proc, processes count when they have ended.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from tests.support.listening import HAS_PROC, PROC, processes_below

_KEY = "processor seconds"
# A test that is over sooner started nothing that is worth a look at all processes.
_LOOK_AFTER_SECONDS = 0.1


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds the option."""
    parser.addoption(
        "--heaviest",
        type=int,
        default=0,
        metavar="N",
        help="show the N tests that take most processor time",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Counts in the processes that run tests, and shows in the one that has the terminal."""
    runs_tests_for_another = hasattr(config, "workerinput")
    if runs_tests_for_another or not config.getoption("numprocesses", None):
        config.pluginmanager.register(_Counter(config))
    if not runs_tests_for_another:
        config.pluginmanager.register(_Summary(config))


class _Counter:
    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._looked = time.monotonic()
        self._known = 0.0

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: Any) -> Iterator[Any]:
        report = yield
        if call.when == "teardown":
            report.user_properties.append((_KEY, self._since()))
        return report

    @pytest.hookimpl
    def pytest_collection_finish(self) -> None:
        self._collected = self._since(always=True)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self) -> None:
        output = getattr(self._config, "workeroutput", None)
        if output is not None:
            output[_KEY] = (self._collected, _seconds())

    def _since(self, always: bool = False) -> float:
        """Returns what was used since the last call."""
        now = time.monotonic()
        if not always and now - self._looked < _LOOK_AFTER_SECONDS:
            return 0.0
        before, self._known, self._looked = self._known, _seconds(), now
        return max(0.0, self._known - before)


class _Summary:
    def __init__(self, config: pytest.Config) -> None:
        self._count = config.getoption("heaviest")
        self._tests: Counter[str] = Counter()
        self._others: list[tuple[float, float]] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        for name, value in report.user_properties:
            if name == _KEY:
                self._tests[report.nodeid] += value

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        with suppress(AttributeError, KeyError):
            self._others.append(tuple(node.workeroutput[_KEY]))

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if not self._count:
            return
        terminalreporter.section(f"most processor time, of {self._in_words()}")
        for name, seconds in self._tests.most_common(self._count):
            terminalreporter.line(f"{seconds:7.1f} s  {name}")

    def _in_words(self) -> str:
        if not self._others:
            return f"{_seconds():.0f} s"
        own = sum(os.times()[:2])
        collected = own + sum(one for one, _ in self._others)
        total = own + sum(one for _, one in self._others)
        return f"{total:.0f} s, {collected:.0f} s of them to collect and report"


def _seconds() -> float:
    """Returns the processor time of this process and all below, that which has ended too."""
    own = sum(os.times()[:4])
    if not HAS_PROC:
        return own
    ticks = 0
    for process in processes_below(os.getpid()) - {os.getpid()}:
        with suppress(OSError):
            fields = (PROC / str(process) / "stat").read_text().rpartition(")")[2].split()
            ticks += sum(map(int, fields[11:15]))
    return own + ticks / os.sysconf("SC_CLK_TCK")
