"""Where redirects and links lead: nothing of a request is lost, and no server gets too much."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contextframe_beam.connectors.api import APIConnector
from contextframe_beam.connectors.http import HttpClient, HttpError, HttpRequest, request
from contextframe_beam.errors import ConnectorError
from tests.http.test_http_judges import play
from tests.support.http_fixture import HttpServer

BODY = {"team": "ours"}


def sent(server: HttpServer, method: str, status: int, to: str, **options: Any) -> Any:
    with HttpClient(server.url, backoff=0.001) as http:
        params = {"status": status, "to": to, **options.pop("params", {})}
        return http.send(HttpRequest(method, "/redirect", params=params, **options)).json()


# Redirects.


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_what_only_reads_follows_any_redirect(server, method, status):
    with HttpClient(server.url) as http:
        params = {"status": status, "to": "/echo?a=1"}
        answer = http.send(HttpRequest(method, "/redirect", params=params))
    assert answer.status == 200 and server.requests("/echo")[0]["query"] == "a=1"
    assert server.requests("/echo")[0]["method"] == method


@pytest.mark.parametrize("status", [301, 302, 307, 308])
@pytest.mark.parametrize("body", [{"json": BODY}, {"form": BODY}], ids=str)
@pytest.mark.parametrize(
    ("method", "safe"), [("POST", True), ("PUT", None), ("PATCH", True), ("GET", None)]
)
def test_a_body_goes_along_where_sending_it_twice_does_no_harm(server, method, safe, body, status):
    seen = sent(server, method, status, "/echo", safe_to_repeat=safe, **body)
    assert seen["method"] == method and "ours" in seen["body"]


@pytest.mark.parametrize("status", [307, 308])
def test_a_body_goes_along_where_the_server_says_so(server, status):
    assert sent(server, "POST", status, "/echo", json=BODY)["body"] == '{"team":"ours"}'


@pytest.mark.parametrize("status", [301, 302])
@pytest.mark.parametrize("method", ["POST", "PATCH"])
def test_another_body_is_not_lost_but_refused_with_the_address(server, method, status):
    with pytest.raises(
        ConnectorError,
        match=rf"redirected \({status}\) to .*/echo\?a=1, .*ask for http.*/echo\?a=1",
    ):
        sent(server, method, status, "/echo?a=1", json=BODY)
    assert not server.requests("/echo")


def test_the_result_of_a_body_is_fetched_without_it(server):
    """303: the server took the body, and says where the result is."""
    seen = sent(server, "POST", 303, "/echo?result=7", json=BODY)
    assert (seen["method"], seen["query"], seen["body"]) == ("GET", "result=7", "")


def test_a_post_without_a_body_has_nothing_to_lose(server):
    assert sent(server, "POST", 302, "/echo")["method"] == "GET"


def moved(server: HttpServer, status: int, path: str, to: str) -> None:
    play(server, {"status": status, "headers": {"Location": to}}, path=path)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_slash_at_the_end_loses_nothing_of_the_query(server, status):
    moved(server, status, "/script/items", "/script/items/")
    play(server, {"body": []}, path="/script/items/")
    with HttpClient(server.url) as http:
        http.send(HttpRequest("GET", "/script/items", params={"page": 2, "team": "ours"}))
    assert server.requests("/script/items/")[-1]["query"] == "page=2&team=ours"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_to_the_same_place_keeps_the_body(server, status):
    moved(server, status, "/script/a", "/script/a/")
    play(server, {"body": {"fine": True}}, path="/script/a/")
    with HttpClient(server.url) as http:
        http.send(HttpRequest("POST", "/script/a", json=BODY, safe_to_repeat=True))
    last = server.requests("/script/a/")[-1]
    assert (last["method"], last["body"]) == ("POST", '{"team":"ours"}')


@pytest.mark.parametrize("status", [301, 302, 307, 308])
@pytest.mark.parametrize("allowed", [True, False])
def test_a_body_is_not_taken_to_another_server(server, status, allowed):
    origins = [server.other] if allowed else []
    with HttpClient(server.url, allowed_origins=origins) as http:
        params = {"status": status, "to": "/echo", "port": "other"}
        asked = HttpRequest("POST", "/redirect", params=params, json=BODY, safe_to_repeat=True)
        with pytest.raises(ConnectorError, match=f"write base_url: {server.other}"):
            http.send(asked)
    assert not server.requests("/echo")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_search_of_a_resource_reads_what_it_asked_for(server, status):
    play(
        server,
        {"status": status, "headers": {"Location": "/script/search/"}},
        path="/script/search",
    )
    play(server, {"body": {"items": [{"id": 1}]}}, path="/script/search/")
    resource = {"name": "docs", "path": "script/search", "method": "POST", "body": BODY}
    api = APIConnector(server.url, resources=[{**resource, "paginator": "single"}])
    api.authenticate()
    assert [one["id"] for one in api.sync_documents()] == [1]
    read = [one for one in server.requests("/script/search/") if one["method"] != "PUT"]
    assert read and all(one["body"] == '{"team":"ours"}' for one in read)


# How servers write links.


def forms(server: HttpServer) -> dict[str, str]:
    """The second page, as a server may name it."""
    host, path = server.url.removeprefix("http://"), "/script/items?page=2"
    return {
        "relative to the answer": "items?page=2",
        "relative to the host": path,
        "a query alone": "?page=2",
        "relative to the scheme": f"//{host}{path}",
        "absolute": f"{server.url}{path}",
        "with a fragment": f"{path}#top",
        "with an entity": "/script/items?x=1&amp;page=2",
        "with a numeric entity": "/script/items?x=1&#38;page=2",
        "with capitals": f"HTTP://{host}{path}",
        "with blanks": f"  {path}&q=a b ",
        "with line breaks": f"\n{path}\n",
        "with another scheme": f"https://{host}{path}",
        "without the port": f"http://127.0.0.1{path}",
        "with the default port": f"http://127.0.0.1:80{path}",
        "without the port, with another scheme": f"https://127.0.0.1{path}",
        "with dots": "/script/../script/./items?page=2",
    }


@pytest.mark.parametrize("where", ["body", "header"])
@pytest.mark.parametrize("name", forms(HttpServer("http://h:1", "", "", "")))
def test_a_link_leads_to_the_next_page_however_it_is_written(server, name, where, monkeypatch):
    link = forms(server)[name]
    if where == "header" and "\n" in link:
        pytest.skip("a header has no line breaks")
    monkeypatch.setenv("LINK_TOKEN", "t0ken-of-links")
    page = {"body": {"items": [{"id": 1}], "next": link}}
    if where == "header":
        page = {"body": {"items": [{"id": 1}]}, "headers": {"Link": f'<{link}>; rel="next"'}}
    play(server, page, {"body": {"items": [{"id": 2}]}}, path="/script/items")
    paginator = {"type": "link", "link": "next"} if where == "body" else "link_header"
    resource = {"name": "items", "path": "script/items", "paginator": paginator}
    api = APIConnector(
        server.url, auth={"type": "bearer", "token": "env:LINK_TOKEN"}, resources=[resource]
    )
    api.authenticate()
    assert [one["id"] for one in api.sync_documents()] == [1, 2]
    last = server.requests("/script/items")[-1]
    assert "page=2" in last["query"].split("&")
    assert last["headers"]["Authorization"] == "Bearer t0ken-of-links"


def linked_elsewhere(server: HttpServer, **settings: Any) -> list[Any]:
    """Reads two pages, of which the first names the second by another host."""
    there = server.url.replace("127.0.0.1", "localhost")
    page = {"body": {"items": [{"id": 1}], "next": f"{there}/script/items?page=2"}}
    play(server, page, {"body": {"items": [{"id": 2}]}}, path="/script/items")
    resource = {
        "name": "items",
        "path": "script/items",
        "paginator": {"type": "link", "link": "next"},
    }
    api = APIConnector(config={"base_url": server.url, "resources": [resource], **settings})
    api.authenticate()
    return [one["id"] for one in api.sync_documents()]


def test_another_host_is_refused_with_what_helps(server):
    there = server.url.replace("127.0.0.1", "localhost")
    with pytest.raises(ConnectorError, match=rf"same_server: \[{there}\].*allowed_origins"):
        linked_elsewhere(server)
    # What the message says first helps.
    assert linked_elsewhere(server, same_server=[there]) == [1, 2]
    hosts = {one["headers"]["Host"] for one in server.requests("/script/items")}
    assert hosts == {server.url.removeprefix("http://")}


def test_a_server_that_got_no_credentials_is_not_said_to_refuse_them(server):
    there = server.url.replace("127.0.0.1", "localhost")
    with (
        HttpClient(server.url, allowed_origins=[there]) as http,
        pytest.raises(HttpError, match=rf"got no credentials, because .*same_server: \[{there}\]"),
    ):
        http.send(HttpRequest("GET", f"{there}/status/401"))


def test_an_allowed_origin_is_another_server_even_if_it_looks_like_ours():
    base, other = "http://api.example.com:8080", "http://api.example.com"
    assert request.at_own(f"{other}/a", base, (), ()) == f"{base}/a"
    assert request.at_own(f"{other}/a", base, (), {"http://api.example.com:80"}) == f"{other}/a"


@given(
    host=st.sampled_from(["api.example.com", "internal", "127.0.0.1", "[::1]"]),
    port=st.sampled_from(["", ":80", ":443", ":8080", ":9090"]),
    scheme=st.sampled_from(["http", "https"]),
    base=st.sampled_from(["https://api.example.com", "http://127.0.0.1:8080", "http://[::1]"]),
)
def test_no_other_server_is_taken_for_ours(host, port, scheme, base):
    found = request.at_own(f"{scheme}://{host}{port}/p?q=1", base, (), ())
    assert urlsplit(found).hostname == host.strip("[]") and urlsplit(found)[2:4] == ("/p", "q=1")
    is_ours = request.origin_of(found) == request.origin_of(base)
    alike = host in base and port in ("", ":80", ":443", ":8080" if "8080" in base else "")
    assert is_ours == alike


@given(st.text(max_size=60) | st.text(" /:?#&;[]@%\\\n\tahtps.", max_size=40))
def test_no_link_breaks_the_reading(text):
    assert isinstance(request.linked("https://h/a", text), str)
    once = request.linked("https://h/a", text)
    assert request.linked("https://h/a", once) == once or "&" in text


# Requests that only read, on connections that close.


@pytest.mark.parametrize(
    "body",
    [
        {"query": "query { a }"},
        {"query": "{ a }"},
        {"query": "fragment F on A { b } query { a }"},
        {"filter": {"team": "ours"}},
        {"query": {"match_all": {}}},
        {"query": "free text"},
        None,
    ],
    ids=str,
)
def test_a_post_of_a_resource_is_sent_again_when_no_answer_came(server, body):
    play(server, {"cut": 0}, {"status": 503}, {"body": {"items": [{"id": 1}]}})
    resource = {"name": "things", "path": "script", "method": "POST", "body": body}
    api = APIConnector(
        config={"base_url": server.url, "resources": [{**resource, "paginator": "single"}]}
    )
    api.authenticate()
    assert [one["id"] for one in api.sync_documents()] == [1]


@pytest.mark.parametrize(
    ("body", "safe"),
    [
        ({"query": "mutation { delete(id: 1) { id } }"}, None),
        ({"query": "# careful\n  mutation M { delete(id: 1) { id } }"}, None),
        ({"query": "query { a }"}, False),
        ({"filter": {}}, False),
    ],
    ids=str,
)
def test_what_may_do_harm_is_not_sent_again(server, body, safe):
    play(server, {"cut": 0}, {"body": {"items": []}})
    resource = {
        "name": "things",
        "path": "script",
        "method": "POST",
        "body": body,
        "safe_to_repeat": safe,
        "paginator": "single",
    }
    api = APIConnector(config={"base_url": server.url, "resources": [resource]})
    api.authenticate()
    with pytest.raises(ConnectorError, match="broke its connection off"):
        api.sync_documents()
    assert len([one for one in server.requests("/script") if one["method"] == "POST"]) == 1


def test_a_page_that_is_cut_off_once_is_read(server):
    page = {"body": {"items": [{"id": 1, "text": "a text of some length"}]}}
    play(server, {**page, "cut": 30}, page)
    api = APIConnector(
        config={"base_url": server.url, "resources": [{"name": "things", "path": "script"}]}
    )
    api.authenticate()
    assert [one["id"] for one in api.sync_documents()] == [1]


@pytest.mark.parametrize(
    ("path", "body", "repeated"),
    [
        ("script/graphql", {"query": "query { a }"}, True),
        ("script/graphql", {"query": "  { a }", "variables": {}}, True),
        ("script/graphql", {"query": "# all\nquery All { a }"}, True),
        ("script/graphql", {"query": "mutation { a }"}, False),
        ("script/graphql", {"query": "fragment F on A { b }\nmutation M { a }"}, False),
        ("script/search", {"team": "ours"}, True),
        ("script/items/_search", {}, True),
        ("script/documents:query", {}, True),
        ("script/research", {}, False),
        ("script/items", {"search": "x"}, False),
    ],
    ids=str,
)
def test_a_client_knows_what_only_reads(server, path, body, repeated):
    play(server, {"cut": 0}, {"body": {"fine": True}}, path=f"/{path}")
    with HttpClient(server.url, backoff=0.001) as http:
        asked = HttpRequest("POST", path, json=body)
        if repeated:
            assert http.send(asked).json() == {"fine": True}
        else:
            with pytest.raises(HttpError, match="broke its connection off"):
                http.send(asked)
