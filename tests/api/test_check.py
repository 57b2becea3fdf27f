"""`check`: what it says of an API, when it fails, and the words that it uses."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from contextframe_beam import FrameRecord
from contextframe_beam.connectors.api import APIConnector, check
from contextframe_beam.connectors.read.source import Source
from contextframe_beam.errors import ConfigError, ConnectorError, RecordError
from tests.support.cli_helpers import cli
from tests.support.small_server import Got, serving


def records(*ids: Any) -> list[dict[str, Any]]:
    return [{"id": one, "title": f"Record {one}"} for one in ids]


def config(url: str, *resources: dict[str, Any], **settings: Any) -> dict[str, Any]:
    things = {"name": "things", "paginator": "single"}
    return {
        "base_url": url,
        "name": "crm",
        "retries": 0,
        "resources": list(resources) or [things],
        **settings,
    }


def checked(answer: Any, *resources: dict[str, Any], **settings: Any) -> Any:
    with serving(lambda _: answer) as server:
        return check(config(server.url, *resources, **settings))


# When it fails.


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ({"items": [*records(1, 2, 3, 4), "five"]}, "this is text"),
        ({"items": [*records(1), None]}, "this is null"),
        ({"items": [*records(1), 7, 8]}, "this is a number"),
        ({"items": [*records(1), [1]]}, "this is a list"),
        ({"items": [*records(1), True]}, "this is true or false"),
    ],
    ids=["text", "null", "numbers", "a list", "a flag"],
)
def test_records_that_cannot_be_read_fail_it(answer, says):
    report = checked(answer)
    assert not report.ok and report.connected
    assert "cannot be read" in str(report) and says in str(report)


class Choosy(APIConnector):
    """Cannot map what has an odd id; what it says is an error of ours, or any other."""

    def map_to_frame_record(self, item: dict[str, Any]) -> FrameRecord:
        if item["id"] == 5:
            raise RecordError("five is not wanted")
        if item["id"] == 7:
            raise KeyError("seven")
        return super().map_to_frame_record(item)  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("ids", "count", "says"),
    [
        ([1, 2, 3, 4, 5], "1 record cannot be mapped", "five is not wanted"),
        ([5, 5, 5, 1], "3 records cannot be mapped", "five is not wanted"),
        ([1, 7], "1 record cannot be mapped", "KeyError: 'seven'"),
    ],
    ids=["behind the samples", "one reason once", "another error"],
)
def test_records_that_cannot_be_mapped_fail_it(ids, count, says):
    with serving(lambda _: {"items": records(*ids)}) as server:
        report = check(Choosy(config=config(server.url)))
    assert not report.ok and count in str(report)
    assert str(report).count(says) == 1


def test_it_passes_where_all_can_be_read_and_mapped():
    report = checked({"items": records(1, 2)})
    assert report.ok and report.resources[0].unmapped == 0


@pytest.mark.parametrize("as_json", [True, False])
@pytest.mark.parametrize(("last", "code"), [({"id": 9}, 0), ("nine", 1)])
def test_the_exit_code_says_it(tmp_path, last, code, as_json):
    with serving(lambda _: {"items": [*records(1), last]}) as server:
        file = tmp_path / "crm.yaml"
        file.write_text(
            f"base_url: {server.url}\nresources:\n- {{name: things, paginator: single}}\n"
        )
        result = cli("check", "api", "--config", file, *(["--json"] if as_json else []))
    assert result.code == code, result


# Whether there was a connection.


@pytest.fixture
def silent() -> Iterator[str]:
    """Gives the address of a server that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize(
    ("url", "says"),
    [("http://127.0.0.1:1", "could not be connected to"), ("http://host.invalid", "be found")],
    ids=["nobody listens", "no such host"],
)
@pytest.mark.parametrize("auth_check", [None, "/me"])
def test_it_never_says_connected_when_it_was_not(url, says, auth_check):
    report = check(config(url, auth_check=auth_check))
    assert not report.ok and not report.connected
    assert "connected\n" not in str(report).replace("not connected\n", "") and says in str(report)


@pytest.mark.parametrize("status", [401, 403, 404, 500])
def test_who_refuses_was_reached(status):
    report = checked((status, {}, {"error": "no"}))
    assert report.connected and not report.ok and ": connected" in str(report)


def test_answers_of_a_cache_are_no_connection(tmp_path):
    cache = {"ttl": "1h", "path": str(tmp_path / "answers.sqlite")}
    with serving(lambda _: {"items": records(1)}) as server:
        first = check(config(server.url, cache=cache))
        second = check(config(server.url, cache=cache))
    assert first.connected and second.ok and not second.connected


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"timeout": "1s"}, r"sent nothing for 1 s, as long as timeout allows"),
        ({"timeout": 0.5}, r"sent nothing for 0\.5 s, as long as timeout allows"),
        ({"total_timeout": 1}, r"took more than 1 s altogether, and total_timeout allows no more"),
    ],
    ids=["timeout", "half a second", "total_timeout"],
)
def test_a_timeout_is_told_with_its_length_and_its_setting(silent, settings, says):
    (resource,) = check(config(silent, **settings)).resources
    with pytest.raises(AssertionError, match=says):
        raise AssertionError(resource.problem)


# Words.


def test_it_uses_the_words_of_yaml():
    report = checked({"items": [{"name": "no id and no time", "text": 'a "b"'}]})
    text = str(report)
    assert "(no id)" in text and 'text: "a \\"b\\"", time: none' in text
    assert not [word for word in ("None", "True", "False", "NoneType") if word in text]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("retries: many", "retries is 'many'; it should be a whole number"),
        ("timeout: true", "timeout is true; write a duration"),
        ("headers: {X: [1]}", "headers.X is a list; it should be text"),
        ("params: [1]", "params is a list; it should be a mapping of keys to values"),
        ("allowed_origins: x", "allowed_origins is 'x'; it should be a list"),
        ("resources: [a]", "it should be a mapping of keys to values"),
        ("resources: [{name: a, ingest: maybe}]", "it should be true or false"),
        (
            "resources: [{name: a, paginator: {type: page, param: null}}]",
            "has no param; write {= cursor }",
        ),
        ("resources: [{name: a, paginator: {type: page, param: 5}}]", "paginator.param is 5"),
        ("resources: [{name: a, paginator: {type: page, param: 'a b'}}]", "write a place such as"),
        ("resources: [{name: a, paginator: {type: page, params: x}}]", "did you mean param?"),
        ("budget: fast", "budget is 'fast'; it should be a mapping"),
    ],
)
def test_a_wrong_configuration_is_told_in_them(tmp_path, line, says):
    file = tmp_path / "crm.yaml"
    file.write_text(f"base_url: https://a.example.com\n{line}\n")
    with pytest.raises(ConfigError) as error:
        check(str(file))
    assert "line 2" in str(error.value) and says in str(error.value)
    words = ("dict", "instance", "string", "integer", "boolean", "None", "True", "input")
    assert not [word for word in words if word in str(error.value)]


# Which page.


def failing(at: str, value: str) -> Any:
    """Returns what answers three pages of two records, but for one of them."""

    def answer(got: Got) -> Any:
        if got.query.get(at) == value:
            return {"error": "nothing here"}
        start = got.number("offset", (got.number("page", 1) - 1) * 2)
        return {"items": records(start, start + 1), "total": 6}

    return answer


@pytest.mark.parametrize(
    ("paginator", "at", "value", "name"),
    [
        ({"type": "page"}, "page", "3", "page 3"),
        ({"type": "page"}, "page", "1", "page 1"),
        ({"type": "page", "first": 0}, "page", "2", "page 2"),
        ({"type": "offset", "size": 2}, "offset", "4", "offset 4"),
        ("auto", "page", "3", "page 3"),
    ],
    ids=["the third", "the first", "from zero", "an offset", "found out"],
)
def test_a_message_names_the_page_that_was_asked_for(paginator, at, value, name):
    def answer(got: Got) -> Any:
        found = failing(at, value)(got)
        return {**found, "page": got.number("page", 1)} if paginator == "auto" else found

    things = {"name": "things", "paginator": paginator, "records": "items"}
    with serving(answer) as server, pytest.raises(ConnectorError) as error:
        connector = APIConnector(config=config(server.url, things))
        connector.authenticate()
        list(Source(connector).pages())
    assert f"partition things, {name}: " in str(error.value) or value == "1"


@pytest.mark.parametrize(
    ("paginator", "param"),
    [
        ({"type": "page", "param": "pg"}, "'pg', which names the page"),
        ({"type": "offset", "param": "skip", "size": 2}, "'skip', which names the page"),
        ({"type": "cursor", "cursor": "next", "param": "after"}, "'after', which names the page"),
        ({"type": "page", "param": "body:paging.no"}, "'body:paging.no', which names the page"),
    ],
)
def test_a_param_that_the_api_does_not_take_is_named(paginator, param):
    count = iter(range(100))
    things = {"name": "things", "paginator": paginator, "records": "items"}
    with (
        serving(lambda _: {"items": records(1, 2), "next": f"c{next(count)}"}) as server,
        pytest.raises(ConnectorError, match="has the same records") as error,
    ):
        connector = APIConnector(config=config(server.url, things))
        connector.authenticate()
        list(Source(connector).pages())
    assert param in str(error.value) and "as the paginator's param" in str(error.value)


@pytest.mark.parametrize(
    ("paginator", "following"),
    [
        ({"type": "page"}, "page 2"),
        ({"type": "offset", "size": 2}, "offset 2"),
        ({"type": "cursor", "cursor": "next"}, "page abc"),
    ],
)
def test_the_next_page_is_named_as_it_would_be_asked_for(paginator, following):
    things = {"name": "things", "paginator": paginator}
    report = checked({"items": records(1, 2), "next": "abc"}, things)
    assert f"next: {following}" in str(report)


def test_a_file_of_settings_is_taken_by_its_path(tmp_path: Path):
    with serving(lambda _: {"items": records(1)}) as server:
        file = tmp_path / "crm.yaml"
        file.write_text(f"base_url: {server.url}\nresources: [{{name: a, paginator: single}}]\n")
        assert check(file).ok
