"""Several requests of one page at once: in order, bounded, and ended by the first error."""

from __future__ import annotations

import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from contextframe_beam.connectors.http import Budget, HttpClient, HttpError, HttpRequest, Limit


def gets(*paths: str) -> list[HttpRequest]:
    return [HttpRequest("GET", path) for path in paths]


def test_answers_come_in_the_order_of_the_requests(server):
    paths = ["slow?seconds=0.05", *(f"ok/{number}" for number in range(20))]
    with HttpClient(server.url) as http:
        answers = [answer.json() for answer in http.all(gets(*paths))]
    assert [one.get("path") for one in answers] == [None, *(f"/ok/{n}" for n in range(20))]


def test_no_requests_are_no_answers(server):
    with HttpClient(server.url) as http:
        assert http.all([]) == []


def test_as_many_are_open_as_the_call_says(server):
    with HttpClient(server.url) as http:
        http.all(gets(*["slow?seconds=0.03"] * 12), at_once=3)
    assert server.at_once() == 3


def test_all_calls_together_have_no_more_open_than_the_pool_has_connections(server):
    with HttpClient(server.url, pool_size=4) as http, ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(http.all, gets(*["slow?seconds=0.02"] * 6)) for _ in range(4)]:
            assert len(done.result()) == 6
    assert server.at_once() == 4


def test_no_request_begins_after_the_first_error(server):
    requests = gets("ok/1", "status/404", *["slow?seconds=0.02"] * 50)
    with (
        HttpClient(server.url, retries=0) as http,
        pytest.raises(HttpError, match="status/404") as caught,
    ):
        http.all(requests, at_once=2)
    assert caught.value.status == 404
    assert server.count("/slow") < 5


def test_a_refusal_is_an_answer_where_the_caller_judges_it(server):
    with HttpClient(server.url) as http:
        answers = http.all(gets("ok", "status/404", "ok"), raise_for_status=False)
    assert [answer.status for answer in answers] == [200, 404, 200]


def test_a_page_ends_when_its_bytes_pass_the_limit(server):
    """What comes back is the beginning, so that its length says where the next page begins."""
    with HttpClient(server.url) as http:
        answers = http.all(gets(*["big?bytes=1000"] * 50), at_once=2, most_bytes=10_000)
    assert 11 <= len(answers) <= 13
    assert server.count("/big") == len(answers)


def test_one_answer_comes_however_large_it_is(server):
    with HttpClient(server.url) as http:
        answers = http.all(gets(*["big?bytes=1000"] * 3), at_once=1, most_bytes=1)
    assert len(answers) == 1


def test_they_take_their_turns_in_the_budget(server):
    budget = Budget([Limit(2, 0.1)])
    with HttpClient(server.url, budget=budget) as http:
        http.all(gets(*["ok"] * 6))
        assert http.stats.requests == 6 and http.stats.wait_ms > 0


def test_requests_are_made_when_it_is_their_turn(server):
    made: list[int] = []

    def requests():
        for number in range(20):
            made.append(number)
            yield HttpRequest("GET", "status/404" if number == 0 else "slow")

    with HttpClient(server.url, retries=0) as http, pytest.raises(HttpError):
        http.all(requests(), at_once=2)
    assert len(made) < 20


def test_an_interrupt_does_not_wait_for_the_server(server):
    main = threading.get_ident()
    with HttpClient(server.url) as http:
        threading.Timer(0.1, lambda: signal.pthread_kill(main, signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt):
            http.all(gets("slow?seconds=1", "slow?seconds=1"))
        left = [one for one in threading.enumerate() if one.name.startswith("read-ahead")]
        # Daemons: the end of Python does not wait for them either.
        assert left and all(one.daemon for one in left)
        for thread in left:
            thread.join()
    assert server.count("/slow") == 2
