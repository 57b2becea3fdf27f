"""Headers that state a time are read whole or not at all, by the clock of the answer itself."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st
from urllib3 import HTTPHeaderDict

from contextframe_beam.connectors.http.retry import Attempts, quota_wait, seconds_until, stated_wait
from tests.http.test_http_client import client, get

# A whole minute, so that times without seconds can name it.
NOW = 1_800_000_000.0


def at(seconds: float) -> datetime:
    return datetime.fromtimestamp(NOW + seconds, timezone.utc)


FORMS: dict[str, Callable[[int], str]] = {
    "a number of seconds": str,
    "a decimal number": lambda n: f"{n}.0",
    "seconds since 1970": lambda n: str(int(NOW) + n),
    "seconds since 1970 with a fraction": lambda n: f"{int(NOW) + n}.000",
    "milliseconds since 1970": lambda n: str((int(NOW) + n) * 1000),
    "a date of HTTP": lambda n: formatdate(NOW + n, usegmt=True),
    "a date with an offset": lambda n: at(n).strftime("%a, %d %b %Y %H:%M:%S +0000"),
    "a date of RFC 850": lambda n: at(n).strftime("%A, %d-%b-%y %H:%M:%S GMT"),
    "a date of asctime": lambda n: at(n).strftime("%a %b %d %H:%M:%S %Y"),
    "ISO 8601 with Z": lambda n: at(n).strftime("%Y-%m-%dT%H:%M:%SZ"),
    "ISO 8601 without a zone": lambda n: at(n).strftime("%Y-%m-%dT%H:%M:%S"),
    "ISO 8601 with a space": lambda n: at(n).strftime("%Y-%m-%d %H:%M:%S UTC"),
    "ISO 8601 with a fraction": lambda n: at(n).strftime("%Y-%m-%dT%H:%M:%S.000Z"),
    "basic ISO 8601": lambda n: at(n).strftime("%Y%m%dT%H%M%SZ"),
    "an offset to the east": lambda n: (at(n) + timedelta(hours=5.5)).strftime(
        "%Y-%m-%dT%H:%M:%S+05:30"
    ),
    "an offset to the west": lambda n: (at(n) - timedelta(hours=8)).strftime(
        "%Y-%m-%dT%H:%M:%S-0800"
    ),
    "milliseconds": lambda n: f"{n * 1000}ms",
    "hours, minutes and seconds": lambda n: f"{n // 3600}h{n // 60 % 60}m{n % 60}s",
    "words": lambda n: f"{n // 60} minutes {n % 60} seconds",
    "an ISO 8601 duration": lambda n: f"PT{n // 60}M{n % 60}S",
}


@given(form=st.sampled_from(sorted(FORMS)), seconds=st.integers(0, 999_999))
def test_each_form_is_read_as_it_is_meant(form, seconds):
    assert seconds_until(FORMS[form](seconds), NOW) == pytest.approx(seconds, abs=1e-6)


@given(
    form=st.sampled_from(sorted(FORMS)),
    seconds=st.integers(0, 999_999),
    junk=st.sampled_from(["x", " or so", ", 5", ";w=1", "?", " ~", "/2", "%"]),
    before=st.booleans(),
)
def test_a_form_with_anything_more_is_as_if_it_were_not_there(form, seconds, junk, before):
    text = FORMS[form](seconds)
    assert seconds_until(junk + text if before else text + junk, NOW) is None


@given(st.text(max_size=60) | st.text("0123456789:-TZ.,+ msPh", max_size=40))
def test_no_text_breaks_the_reading(text):
    found = seconds_until(text, NOW)
    assert found is None or (found >= 0 and math.isfinite(found))
    headers = HTTPHeaderDict(
        dict.fromkeys(("Date", "RateLimit", "RateLimit-Remaining", "RateLimit-Reset"), text)
    )
    for wait in (stated_wait(429, headers, NOW), quota_wait(headers, NOW)):
        assert wait is None or wait >= 0


@pytest.mark.parametrize(
    "text",
    [
        "",
        "soon",
        "1/2/2026",
        "tomorrow",
        "12:30",
        "00:01:30",
        "1e5",
        "0x10",
        "5 6",
        "٣",
        "2026-13-01T00:00Z",
        "2026-02-30T00:00:00Z",
        "2026-01-01T25:00Z",
        "2026-01-01T00:00:00+99:00",
        "Thu, 32 Jan 2026 08:00:00 GMT",
        "Thu, 15 Jan 2026 08:00:00 CET",
        "5 fortnights",
        "P",
        "PT",
        "P1M",
        str(int(NOW * 1e6)),
        "9" * 400,
        "null",
        "undefined",
        "NaN",
    ],
)
def test_what_has_no_known_form_is_as_if_it_were_not_there(text):
    headers = HTTPHeaderDict({"Retry-After": text, "X-RateLimit-Remaining": "0"})
    headers["X-RateLimit-Reset"] = text
    assert seconds_until(text, NOW) is None
    assert stated_wait(429, headers, NOW) is None and quota_wait(headers, NOW) is None


def test_what_has_passed_is_now():
    for text in (
        "-7",
        "-7s",
        str(int(NOW) - 60),
        "1999-12-31T23:59:59Z",
        formatdate(1, usegmt=True),
    ):
        assert seconds_until(text, NOW) == 0


@given(skew=st.integers(-10_000_000, 10_000_000), form=st.sampled_from(sorted(FORMS)))
def test_times_are_compared_with_the_date_of_the_answer(skew, form):
    """Our own clock may be off by any time."""
    headers = HTTPHeaderDict({"Date": formatdate(NOW, usegmt=True), "Retry-After": FORMS[form](9)})
    assert stated_wait(429, headers, NOW + skew) == pytest.approx(9, abs=1e-6)
    quota = HTTPHeaderDict({"Date": formatdate(NOW, usegmt=True), "X-RateLimit-Remaining": "0"})
    quota["X-RateLimit-Reset"] = FORMS[form](9)
    assert quota_wait(quota, NOW + skew) == pytest.approx(9, abs=1e-6)


def test_a_date_that_is_none_is_as_if_it_were_not_there():
    headers = HTTPHeaderDict({"Date": "today", "Retry-After": formatdate(NOW + 9, usegmt=True)})
    assert stated_wait(429, headers, NOW) == 9


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "5"}, 5),
        ({"X-Rate-Limit-Remaining": "0", "X-Rate-Limit-Reset": "500ms"}, 0.5),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "2027-01-15T08:01Z"}, 60),
        ({"X-RateLimit-Remaining": "1", "X-RateLimit-Reset": "5"}, None),
        ({"X-RateLimit-Remaining": "-1", "X-RateLimit-Reset": "5"}, None),
        ({"X-RateLimit-Remaining": "0 left", "X-RateLimit-Reset": "5"}, None),
        ({"X-RateLimit-Reset": "5"}, None),
        ({"X-RateLimit-Remaining": "0"}, None),
        # A quota for each kind of thing.
        (
            {
                "x-ratelimit-remaining-requests": "12",
                "x-ratelimit-reset-requests": "9s",
                "x-ratelimit-remaining-tokens": "0",
                "x-ratelimit-reset-tokens": "6m0s",
            },
            360,
        ),
        (
            {
                "X-RateLimit-Requests-Remaining": "0",
                "X-RateLimit-Requests-Reset": str(int(NOW + 4) * 1000),
            },
            4,
        ),
        # The moment by the server's clock, and the time until then beside it.
        (
            {
                "X-RateLimit-Remaining": "0",
                "X-RateLimit-Reset": "1470173023.123",
                "X-RateLimit-Reset-After": "1.2",
            },
            1.2,
        ),
        ({"RateLimit-Remaining": "0, 4999;w=3600", "RateLimit-Reset": "4"}, 4),
        ({"RateLimit-Remaining": "5, 0;w=3600", "RateLimit-Reset": "4, 600"}, 600),
        ({"RateLimit-Remaining": "5, 0", "RateLimit-Reset": "4, soon"}, None),
        ({"RateLimit": "limit=100, remaining=0, reset=5"}, 5),
        ({"RateLimit": "limit=100;remaining=0;reset=5"}, 5),
        ({"RateLimit": '"hour";r=0;t=50, "day";r=9;t=500'}, 50),
        ({"RateLimit": "default;r=0;t=50"}, 50),
        ({"RateLimit": '"hour";r=0;t=50 and more'}, None),
        ({"RateLimit": '"hour";r=0;t=50x'}, None),
        ({"RateLimit": "limit=100, remaining=0, reset=soon"}, None),
    ],
)
def test_a_used_up_quota_says_when_it_is_filled_again(headers, wait):
    assert quota_wait(HTTPHeaderDict(headers), NOW) == wait


@given(st.lists(st.sampled_from(["0", "-5", "0.01", "10ms", "2001-09-09T01:46:40Z"]), min_size=9))
def test_only_three_answers_that_say_now_are_free(texts):
    attempts = Attempts(retries=2, backoff=1, max_wait=300, repeatable=True)
    pauses = [attempts.after_answer(429, HTTPHeaderDict({"Retry-After": t}), NOW) for t in texts]
    assert [one is not None for one in pauses] == [True] * 5 + [False] * (len(pauses) - 5)


def test_a_wait_beyond_what_is_allowed_is_waited_for_once():
    attempts = Attempts(retries=5, backoff=1, max_wait=300, repeatable=True)
    headers = HTTPHeaderDict({"Retry-After": "7200"})
    first, second = (attempts.after_answer(429, headers, NOW) for _ in range(2))
    assert first is not None and first.seconds == 300 and second is None
    assert attempts.refused == 7200


@pytest.mark.parametrize(
    "reset", ["300ms", "0m0.3s", "2020-01-01T00:00:00Z", "1577836800", "PT0.3S", "soon", "1e9"]
)
def test_a_client_goes_on_after_each_form(server, reset):
    with client(server, retries=1) as http:
        asked = get("/flaky", status=429, fails=1, remaining=0, reset=reset)
        assert http.send(asked).json() == {"count": 2}
