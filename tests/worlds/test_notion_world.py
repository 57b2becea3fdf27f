"""The world of Notion finds faults that are planted in requests and in its own answers."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.worlds.notion_blocks import block, text, uid
from tests.worlds.notion_world import TOKEN, NotionWorld


@pytest.fixture
def world() -> Iterator[NotionWorld]:
    with NotionWorld() as made:
        page = made.page("Page", blocks=[block("paragraph", "Text.")])
        made.comment(page, "Nice")
        made.page("Row", made.data_source("Tasks"))
        yield made


def ask(world: NotionWorld, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
    sent = {"Authorization": f"Bearer {TOKEN}", "Notion-Version": "2025-09-03", **headers}
    sent = {name: value for name, value in sent.items() if value}
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{world.url}{path}", data, sent)
    try:
        with urllib.request.urlopen(request) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def page_of(world: NotionWorld) -> dict[str, Any]:
    return next(one for one in world.objects.values() if one["object"] == "page")


@pytest.mark.parametrize(
    ("path", "body", "headers", "problem"),
    [
        ("/v1/pages", None, {}, "no such operation"),
        ("/v1/users?limit=5", None, {}, "'limit' is not in the description"),
        ("/v1/users?page_size=many", None, {}, "is no integer"),
        ("/v1/comments", None, {}, "'block_id' is required"),
        ("/v1/search", {"filter": {"value": "database"}}, {}, "database"),
        ("/v1/search", {"sorts": []}, {}, "body.sorts is not in the description"),
        ("/v1/users/me", None, {"Notion-Version": ""}, "Notion-Version is missing"),
    ],
)
def test_a_request_that_notion_does_not_know_is_a_problem(world, path, body, headers, problem):
    ask(world, path, body, **headers)
    assert any(problem in one for one in world.problems), world.problems


def _without_time(world: NotionWorld) -> None:
    del page_of(world)["last_edited_time"]


def _unknown_type(world: NotionWorld) -> None:
    one = next(iter(world.blocks.values()))
    one["type"] = "poll"


def _wrong_property(world: NotionWorld) -> None:
    page_of(world)["properties"]["Stage"] = {"id": "s", "type": "select", "select": "Open"}


def _wrong_text(world: NotionWorld) -> None:
    one = next(iter(world.comments.values()))[0]
    one["rich_text"] = [{**text("Nice"), "annotations": {}}]


@pytest.mark.parametrize(
    ("plant", "path"),
    [
        (_without_time, "/v1/pages/{page}"),
        (_wrong_property, "/v1/pages/{page}"),
        (_unknown_type, "/v1/blocks/{page}/children"),
        (_wrong_text, "/v1/comments?block_id={page}"),
    ],
)
def test_an_answer_that_notions_client_would_not_take_is_a_problem(
    world: NotionWorld, plant: Callable[[NotionWorld], None], path: str
) -> None:
    page = page_of(world)["id"]
    ask(world, path.format(page=page))
    assert world.problems == []
    plant(world)
    ask(world, path.format(page=page))
    assert world.problems


def test_what_is_refused_has_the_form_of_notions_errors(world: NotionWorld) -> None:
    assert ask(world, "/v1/users/me", Authorization="Bearer other")[1]["code"] == "unauthorized"
    assert ask(world, f"/v1/pages/{uid(7)}")[1]["code"] == "object_not_found"
    world.capabilities.clear()
    assert ask(world, "/v1/users")[1]["code"] == "restricted_resource"
    assert world.problems == []
