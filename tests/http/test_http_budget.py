"""The request budget: no window ever holds more than it may, in all threads and processes."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contextframe_beam.connectors.http import Budget, HttpClient, HttpRequest
from contextframe_beam.connectors.http.budget import FileAccount, Term
from contextframe_beam.errors import ConfigError, ConnectorError
from tests.support.cli_helpers import start_code

TERMS: list[list[Term]] = [
    [(1, 1.0, None)],
    [(5, 1.0, None), (20, 60.0, None)],
    [(10, 1.0, 3), (50, 60.0, None)],
    [(2, 1.0, 10)],
]


@pytest.fixture(autouse=True)
def state_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Accounts of their own for each test."""
    monkeypatch.setenv("CONTEXTFRAME_BEAM_STATE_DIR", str(tmp_path / "state"))
    return tmp_path / "state"


def assert_kept(moments: list[float], terms: list[Term]) -> None:
    """No window of any term holds more requests than it may."""
    ordered = sorted(moments)
    for count, seconds, burst in terms:
        if burst is None:
            # The request `count` places further is a whole window later.
            for early, late in zip(ordered, ordered[count:], strict=False):
                assert late - early >= seconds - 1e-5
        else:
            for first in range(len(ordered)):
                for more, moment in enumerate(ordered[first:]):
                    room = burst + (moment - ordered[first]) * count / seconds
                    assert more + 1 <= room + 1e-5


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("terms", TERMS)
@given(pauses=st.lists(st.floats(0, 3), min_size=1, max_size=60))
def test_no_window_holds_more_than_it_may(terms, pauses):
    clock = Clock()
    account = FileAccount(uuid.uuid4().hex, terms, clock)
    moments = []
    for pause in pauses:
        clock.now += pause
        moments.append(clock.now + account.reserve())
    assert moments == sorted(moments)
    assert_kept(moments, terms)


@pytest.mark.parametrize("terms", TERMS)
def test_what_is_free_is_not_waited_for(terms):
    """A client that asks no faster than it may never waits; a whole window may come at once."""
    clock = Clock()
    account = FileAccount("steady", terms, clock)
    for _ in range(100):
        clock.now += max(seconds / count for count, seconds, _ in terms) + 1e-6
        assert account.reserve() == 0
    clock.now += 1000
    count, _, burst = terms[0]
    at_once = burst or count
    assert [account.reserve() for _ in range(at_once)] == [0] * at_once
    assert account.reserve() > 0


def test_a_pause_holds_back_what_comes_next():
    clock = Clock()
    account = FileAccount("paused", [(1000, 1.0, None)], clock)
    account.pause(5)
    account.pause(2)  # a shorter one takes nothing back
    assert account.paused() == 5 and account.reserve() == 5
    clock.now += 4
    assert account.reserve() == pytest.approx(1)
    clock.now += 2
    assert account.paused() == 0 and account.reserve() == 0


def test_a_clock_that_was_set_back_stops_nobody():
    clock = Clock()
    account = FileAccount("clock", [(1, 3600.0, None)], clock)
    account.reserve()
    clock.now -= 10 * 86_400
    assert account.reserve() == 0


RESERVE = """
import json, sys, time
from contextframe_beam.connectors.http.budget import FileAccount, RedisAccount
name, terms, count, redis = json.loads(sys.argv[1])
terms = [tuple(term) for term in terms]
times = [0.0]
def clock():
    times.append(time.time())
    return times[-1]
account = RedisAccount(redis, name, terms) if redis else FileAccount(name, terms, clock)
print("ready", flush=True)
sys.stdin.readline()
moments = []
for _ in range(count):
    clock()
    wait = account.reserve()
    moments.append(times[-1] + wait)
print(json.dumps(moments))
"""


def moments_of_processes(
    processes: int, count: int, terms: list[Term], redis: str = ""
) -> list[float]:
    """Lets processes reserve as fast as they can, at the same time."""
    arguments = json.dumps([uuid.uuid4().hex, terms, count, redis])
    running = [start_code(RESERVE, arguments) for _ in range(processes)]
    moments: list[float] = []
    for one in running:
        assert one.stdout.readline() == "ready\n"
    for one in running:
        one.stdin.write("go\n")
        one.stdin.flush()
    for one in running:
        out, _ = one.communicate()
        moments.extend(json.loads(out))
    return moments


def test_processes_share_one_account():
    terms: list[Term] = [(5, 1.0, None), (100, 60.0, None)]
    moments = moments_of_processes(3, 60, terms)
    assert len(moments) == 180
    assert_kept(moments, terms)


def assert_kept_within(moments: list[float], terms: list[Term], slack: float) -> None:
    ordered = sorted(moments)
    for count, seconds, _ in terms:
        for early, late in zip(ordered, ordered[count:], strict=False):
            assert late - early >= seconds - slack


def test_threads_share_one_account():
    clock = Clock()
    account = FileAccount("threads", [(3, 1.0, None)], clock)
    with ThreadPoolExecutor(8) as pool:
        waits = list(pool.map(lambda _: account.reserve(), range(90)))
    assert sorted(waits) == pytest.approx([float(number // 3) for number in range(90)])


def test_a_client_waits_for_its_budget_and_counts_it(server):
    budget = Budget.from_config({"per_second": 20})
    with HttpClient(server.url, budget=budget) as http, ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: http.send(HttpRequest("GET", f"/ok/{n}")), range(60)))
        assert http.stats.requests == 60
        # Forty of them for later windows; a machine that stalls may miss one of these.
        assert http.stats.wait_ms > 0
    assert server.at_once() <= 20


def test_retries_are_taken_from_the_budget_too(server):
    account = Budget.from_config({"per_hour": 1000, "name": "counted"})
    with HttpClient(server.url, budget=account, backoff=0.001) as http:
        http.send(HttpRequest("GET", "/flaky", params={"fails": 3}))
        assert http.stats.requests == 4
    clock = FileAccount("counted", [(1000, 3600.0, None)])
    assert [clock.reserve() for _ in range(996)] == [0] * 996
    assert clock.reserve() > 3000


def test_the_budget_of_one_server_is_not_that_of_another(server):
    budget = Budget.from_config({"per_hour": 1})
    for url in (server.url, server.other):
        with HttpClient(url, budget=budget) as http:
            assert http.send(HttpRequest("GET", "/ok")).status == 200
            assert http.stats.wait_ms == 0


def test_a_retry_after_holds_in_all_processes(server):
    """Another client with the same budget starts no request meanwhile."""
    config = {"per_second": 1000}
    one = HttpClient(server.url, budget=Budget.from_config(config))
    two = HttpClient(server.url, budget=Budget.from_config(config))
    one.send(HttpRequest("GET", "/used-up", params={"reset": "2"}))
    two.send(HttpRequest("GET", "/ok"))
    assert two.stats.wait_ms > 0


def test_the_account_is_private(state_directory, server):
    with HttpClient(server.url, budget=Budget.from_config({"per_second": 5})) as http:
        http.send(HttpRequest("GET", "/ok"))
    (file,) = state_directory.iterdir()
    assert file.stat().st_mode & 0o077 == 0 and state_directory.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {"per_secnd": 5},
            "budget.per_secnd is not a key that exists here; did you mean per_se",
        ),
        ({}, "budget needs a limit"),
        ({"burst": 5}, "budget needs a limit"),
        ({"per_second": 0}, "budget.per_second is 0; it should be greater than 0"),
        ({"per_second": "5"}, "budget.per_second is '5'; it should be a number"),
        ({"per_second": True}, "budget.per_second is true; it should be a number"),
        ({"per_second": 5, "burst": 0.5}, "budget.burst is 0.5; it should be a whole number"),
    ],
)
def test_a_wrong_budget_is_refused(config, message):
    with pytest.raises(ConfigError) as caught:
        Budget.from_config(config)
    assert message in str(caught.value)


def test_rates_need_not_be_whole_numbers():
    for rate, count, seconds in [(0.5, 1, 2.0), (2.5, 3, 1.2), (2.0, 2, 1.0)]:
        (limit,) = Budget.from_config({"per_second": rate}).limits
        assert (limit.count, limit.seconds) == (count, pytest.approx(seconds))


def test_waiting_threads_are_let_through_one_after_the_other():
    budget = Budget.from_config({"per_second": 50, "burst": 1})
    order: list[int] = []
    lock = threading.Lock()

    def ask(number: int) -> None:
        budget.acquire()
        with lock:
            order.append(number)

    with ThreadPoolExecutor(10) as pool:
        list(pool.map(ask, range(10)))
    assert len(order) == 10


# Across machines, where there is a Redis server to test with.


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    pytest.importorskip("redis", reason="install contextframe-beam[redis]")
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("there is no redis-server")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder = tmp_path_factory.mktemp("redis")
    command = [program, "--port", str(port), "--save", "", "--dir", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "Ready to accept connections" in line:
                break
        threading.Thread(target=process.stdout.read, daemon=True).start()
        yield f"redis://127.0.0.1:{port}/0"
        process.terminate()


def test_machines_share_one_account_in_redis(redis_url):
    terms: list[Term] = [(5, 1.0, None), (100, 60.0, None)]
    # Here the moments are by the server's clock, which nobody sees exactly.
    assert_kept_within(moments_of_processes(2, 60, terms, redis_url), terms, 0.4)


def test_redis_counts_as_the_file_does(redis_url):
    from contextframe_beam.connectors.http.budget import RedisAccount

    for terms in TERMS:
        make: list[Callable[[], Any]] = [
            lambda terms=terms: FileAccount("same", terms, Clock()),
            lambda terms=terms: RedisAccount(redis_url, f"same {terms}", terms),
        ]
        file, redis = ([account.reserve() for _ in range(30)] for account in [m() for m in make])
        assert redis == pytest.approx(file, abs=0.2)
        steps = [late - early for early, late in pairwise(redis)]
        assert min(steps) > -0.1
    account = RedisAccount(redis_url, "pause", [(1000, 1.0, None)])
    account.pause(50)
    account.pause(20)
    assert 40 < account.paused() <= 50 and 40 < account.reserve() <= 50


def test_a_client_uses_redis(redis_url, server):
    budget = Budget.from_config({"per_second": 20, "redis": redis_url})
    with HttpClient(server.url, budget=budget) as http, ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: http.send(HttpRequest("GET", f"/ok/{n}")), range(60)))
        assert http.stats.wait_ms > 0


def test_without_redis_nothing_is_sent(server, monkeypatch):
    pytest.importorskip("redis", reason="install contextframe-beam[redis]")
    monkeypatch.setenv("REDIS", "redis://:redis-passw0rd@127.0.0.1:1/0")
    budget = Budget.from_config({"per_second": 20, "redis": "env:REDIS"})
    http = HttpClient(server.url, budget=budget)
    with pytest.raises(ConnectorError, match="cannot be asked for from Redis") as caught:
        http.send(HttpRequest("GET", "/ok"))
    assert "redis-passw0rd" not in str(caught.value) and caught.value.__context__ is None
    assert server.counts() == {}
