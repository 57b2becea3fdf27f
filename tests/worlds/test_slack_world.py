"""The world of Slack finds faults that are planted in requests and in its own answers."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.worlds.slack_world import TOKEN, SlackWorld


@pytest.fixture
def world() -> Iterator[SlackWorld]:
    with SlackWorld() as made:
        channel = made.channel("general")
        thread = made.say(channel, "First")
        made.say(channel, "Reply", thread=thread)
        made.react(channel, thread, "tada", made.bob)
        made.say(channel, "File", files=[made.upload("notes.pdf", b"%PDF")])
        yield made


def ask(world: SlackWorld, method: str, **arguments: Any) -> Any:
    request = urllib.request.Request(
        f"{world.api}{method}?{urlencode(arguments)}", headers={"Authorization": f"Bearer {TOKEN}"}
    )
    with urllib.request.urlopen(request) as response:
        return json.load(response)


def first_channel(world: SlackWorld) -> str:
    return next(iter(world.channels))


@pytest.mark.parametrize(
    ("method", "arguments", "problem"),
    [
        ("conversations.hsitory", {}, "no such operation"),
        ("conversations.history", {"chanel": "C1"}, "'chanel' was unexpected"),
        ("conversations.history", {}, '"channel" is a required property'),
        ("conversations.history", {"channel": "C1", "limit": "many"}, "limit='many' is no number"),
        ("conversations.history", {"channel": "C1", "inclusive": "yes"}, "is no boolean"),
        ("conversations.replies", {"channel": "C1"}, '"ts" is a required property'),
        ("users.info", {"user": "U1", "cursor": "x"}, "'cursor' was unexpected"),
    ],
)
def test_a_request_that_slack_does_not_know_is_a_problem(world, method, arguments, problem):
    ask(world, method, **arguments)
    assert any(problem in one for one in world.problems), world.problems


def _float_ts(message: dict[str, Any]) -> None:
    message["ts"] = float(message["ts"])


def _unknown_field(message: dict[str, Any]) -> None:
    message["replycount"] = 1


def _block_without_text(message: dict[str, Any]) -> None:
    message["blocks"] = [{"type": "header"}]


def _wrong_style(message: dict[str, Any]) -> None:
    part = {"type": "text", "text": "x", "style": {"fat": True}}
    section = {"type": "rich_text_section", "elements": [part]}
    message["blocks"] = [{"type": "rich_text", "elements": [section]}]


def _reactions_as_names(message: dict[str, Any]) -> None:
    message["reactions"] = ["tada"]


@pytest.mark.parametrize(
    "plant", [_float_ts, _unknown_field, _block_without_text, _wrong_style, _reactions_as_names]
)
@pytest.mark.parametrize("method", ["conversations.history", "conversations.replies"])
def test_an_answer_that_slack_does_not_give_is_a_problem(
    world: SlackWorld, plant: Callable[[dict[str, Any]], None], method: str
) -> None:
    channel = first_channel(world)
    ts, message = next(iter(world.messages[channel].items()))
    plant(message)
    ask(world, method, channel=channel, **({"ts": ts} if "replies" in method else {}))
    assert world.problems


def test_what_is_right_is_no_problem(world: SlackWorld) -> None:
    channel = first_channel(world)
    thread = next(iter(world.messages[channel]))
    for method, arguments in {
        "auth.test": {},
        "conversations.list": {"types": "public_channel,private_channel,im,mpim", "limit": 1000},
        "conversations.info": {"channel": channel},
        "conversations.history": {"channel": channel, "oldest": "0", "limit": 2},
        "conversations.replies": {"channel": channel, "ts": thread, "limit": 200},
        "conversations.members": {"channel": channel},
        "users.list": {"limit": 200},
        "users.info": {"user": world.ada},
        "usergroups.list": {},
    }.items():
        assert ask(world, method, **arguments)["ok"]
    assert world.problems == []
