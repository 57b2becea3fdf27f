"""The world of Discord finds faults that are planted in requests and in its own answers."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.worlds.discord_world import FORUM, HISTORY, MEDIA, TOKEN, VIEW, Discord

AGENT = "DiscordBot (https://example.test, 1.0)"


@pytest.fixture
def world() -> Iterator[Discord]:
    with Discord() as made:
        guild = made.guild("Acme")
        channel = made.channel(guild, "general")
        made.thread(channel, "Why?", starter=made.message(channel, "Hello"))
        made.message(channel, "", attachments=[made.upload(channel, "a.txt", b"a")])
        made.post(
            made.channel(guild, "help", FORUM, available_tags=["bug"]), "It", "fails", ["bug"]
        )
        made.channel(guild, "pictures", MEDIA)
        yield made


def ask(world: Discord, path: str, **headers: str) -> tuple[int, Any]:
    sent = {"Authorization": f"Bot {TOKEN}", "User-Agent": AGENT, **headers}
    request = urllib.request.Request(world.base_url + path, None, sent)
    try:
        with urllib.request.urlopen(request) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def channel_of(world: Discord) -> str:
    return next(one for one, told in world.channels.items() if told["name"] == "general")


@pytest.mark.parametrize(
    ("path", "headers", "problem"),
    [
        ("/guilds/{guild}/messages", {}, "no such operation"),
        ("/channels/{channel}/messages?since=1", {}, "'since' is not in the description"),
        ("/channels/{channel}/messages?limit=500", {}, "greater than the maximum of 100"),
        ("/channels/{channel}/messages?after=1.5e18", {}, "does not match"),
        ("/channels/{channel}/threads/archived/public?before=yesterday", {}, "date-time"),
        ("/users/@me", {"User-Agent": "python"}, "User-Agent names no bot"),
    ],
)
def test_a_request_that_discord_does_not_know_is_a_problem(world, path, headers, problem):
    guild = next(iter(world.guilds))
    ask(world, path.format(guild=guild, channel=channel_of(world)), **headers)
    assert any(problem in one for one in world.problems), world.problems


def _float_id(world: Discord, channel: str) -> None:
    world.message(channel, "x", message_reference={"type": 0, "channel_id": float(channel)})


def _without_size(world: Discord, channel: str) -> None:
    broken = {k: v for k, v in world.upload(channel, "b.txt", b"b").items() if k != "size"}
    world.message(channel, "x", attachments=[broken])


def _unknown_type(world: Discord, channel: str) -> None:
    world.message(channel, "x", type=99)


def _wrong_embed(world: Discord, channel: str) -> None:
    world.message(channel, "x", embeds=[{"type": "rich", "fields": [{"name": "a"}]}])


@pytest.mark.parametrize("plant", [_float_id, _without_size, _unknown_type, _wrong_embed])
def test_an_answer_that_discord_does_not_promise_is_a_problem(
    world: Discord, plant: Callable[[Discord, str], None]
) -> None:
    channel = channel_of(world)
    ask(world, f"/channels/{channel}/messages?limit=100")
    assert world.problems == []
    plant(world, channel)
    ask(world, f"/channels/{channel}/messages?limit=100")
    assert world.problems


def test_what_is_refused_has_the_form_of_discords_errors(world: Discord) -> None:
    channel = channel_of(world)
    guild = next(iter(world.guilds))
    assert ask(world, "/users/@me", Authorization="Bot other")[0] == 401
    assert ask(world, "/channels/7/messages")[1]["code"] == 10003
    world.overwrite(channel, guild, deny=HISTORY)
    assert ask(world, f"/channels/{channel}/messages") == (200, [])
    world.overwrite(channel, guild, deny=VIEW)
    assert ask(world, f"/channels/{channel}/messages")[1]["code"] == 50001
    assert world.problems == []


def test_pages_are_newest_first_whichever_way_they_go(world: Discord) -> None:
    channel = channel_of(world)
    sent = [world.message(channel, f"{number}") for number in range(5)]
    before = list(world.messages[channel])[-6]
    after = ask(world, f"/channels/{channel}/messages?limit=3&after={before}")[1]
    assert [one["id"] for one in after] == sent[2::-1]
    latest = ask(world, f"/channels/{channel}/messages?limit=2")[1]
    assert [one["id"] for one in latest] == sent[:2:-1]


def test_a_bucket_that_is_used_up_stops_no_other_channel(world: Discord) -> None:
    world.limits.bucket = (2, 60.0)
    one, other = channel_of(world), world.channel(next(iter(world.guilds)), "other")
    asked = [ask(world, f"/channels/{one}/messages")[0] for _ in range(3)]
    status, _ = ask(world, f"/channels/{other}/messages")
    assert (asked, status) == ([200, 200, 429], 200)
    assert world.problems == []
