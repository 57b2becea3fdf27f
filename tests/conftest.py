"""For every test: the same examples of properties on each run and no limits of time, no secrets of
the tests before it, no port that another machine reaches, a place for a dataset, and a server of
worker processes that the tests before it have started."""

import gc
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from contextframe_beam.connectors import secrets
from contextframe_beam.pipelines.runners import worker_processes
from tests.support import laws  # noqa: F401, it registers the profiles
from tests.support.forked import can_fork, forks_worker_servers
from tests.support.listening import ports, ports_below
from tests.support.quick_beam import keep_what_beam_finds

pytest_plugins = [
    "tests.support.http_fixture",
    "tests.support.processor_time",
    "tests.support.sampling",
    "tests.support.s3_server",
    "tests.support.gcs_server",
    "tests.support.postgres",
]

# What was started in the background ignores interrupts, and so would the commands that tests start.
if threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Else gcsfs, when it is imported, prepares to ask Google itself what kind of bucket one is.
os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"

settings.load_profile("repeatable")

# While tests are collected there is no garbage; `pytest_collection_finish` looks for it again.
gc.disable()


@pytest.fixture(autouse=True)
def _each_test_has_its_own_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forgets what earlier tests made secret, so that none depends on the order of tests."""
    monkeypatch.setattr(secrets, "_labels", {})
    monkeypatch.setattr(secrets, "_plain_forms", ())
    monkeypatch.setattr(secrets, "_base64_forms", ())


@pytest.fixture(autouse=True)
def _no_port_is_open_to_others(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fails a test after which something listens where other machines reach it.

    Engines are others' programs, and have options of their own for that. Their servers stay, for
    all tests of a process.
    """
    before = set(ports())
    yield
    # All ports first, because to ask whose they are takes ten times as long.
    found = [one for one in ports() if not one.is_local and one not in before]
    if found and request.node.get_closest_marker("engine") is None:
        assert ports_below(os.getpid(), found) == []


@pytest.fixture(scope="session", autouse=True)
def _worker_server_stays() -> Iterator[None]:
    """Keeps the server of worker processes, once there is one, for all tests after."""
    with pytest.MonkeyPatch.context() as patch:
        if can_fork(os.environ):
            patch.setattr(worker_processes, "subprocess", forks_worker_servers)
        patch.setattr(worker_processes, "_users", 1)
        yield
        if worker_processes._server is not None:
            worker_processes._server.close()


@pytest.fixture(scope="session", autouse=True)
def _beam_keeps_what_it_finds() -> Iterator[None]:
    """Lets Beam inspect code once, which is half the processor time of a small run."""
    with pytest.MonkeyPatch.context() as patch:
        keep_what_beam_finds(patch)
        yield


@pytest.fixture
def own_worker_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gives each run of a test a server of its own, as a program has it."""
    monkeypatch.setattr(worker_processes, "subprocess", subprocess)
    monkeypatch.setattr(worker_processes, "_server", None)
    monkeypatch.setattr(worker_processes, "_users", 0)


@pytest.fixture
def kb(tmp_path: Path) -> Path:
    """Gives the path of a dataset that is not there yet."""
    return tmp_path / "kb.lance"


def pytest_make_parametrize_id(val: object) -> str | None:
    """Names long bytes by their type: the processes of one session would make other ones."""
    return type(val).__name__ if isinstance(val, bytes) and len(val) > 40 else None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Gives the tests of a server that takes long to start to one process, which starts it once."""
    for item in items:
        for server in {"s3", "gcs"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.xdist_group(server))


def pytest_collection_finish() -> None:
    """Lets collections of garbage pass over what is here now: all modules, and all tests."""
    gc.enable()
    gc.freeze()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Shows what tests had to tell: the processes that run them have no terminal."""
    for report in terminalreporter.getreports("passed"):
        for name, value in report.user_properties:
            if name == "told":
                terminalreporter.section(report.nodeid)
                terminalreporter.line(str(value))
