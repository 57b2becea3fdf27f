"""Whatever happens in a workspace, later runs store what a fresh run of everything stores."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.slack_runs import run, told, world
from tests.worlds.slack_world import SlackWorld

__all__ = ["world"]

RUNS, CHANGES = 4, 12


class People:
    """Does in a workspace what people do, at random: all that later runs can see.

    Args:
        world: The workspace.
        seed: Tells one course of events from others.
    """

    def __init__(self, world: SlackWorld, seed: str) -> None:
        self.world = world
        self.random = random.Random(seed)
        self.channels = [
            world.channel("general"),
            world.channel("team", "private_channel", members=[world.ada]),
        ]
        often: list[Callable[[str], None]] = [self.say, self.say, self.reply]
        self.acts = [*often, *often, self.file, self.edit, self.react, self.delete, self.unsay]
        self.acts += [self.program, self.join, self.wait, self.wait]

    def act(self) -> None:
        """Does one thing."""
        self.random.choice(self.acts)(self.random.choice(self.channels))

    def roots(self, channel: str) -> list[str]:
        said = self.world.messages[channel].items()
        return [
            ts
            for ts, one in said
            if one.get("thread_ts") in (None, ts) and one.get("subtype") != "tombstone"
        ]

    def say(self, channel: str) -> None:
        self.world.say(channel, f"Message {self.random.random()}")

    def reply(self, channel: str) -> None:
        if roots := self.roots(channel):
            shown = {"subtype": "thread_broadcast"} if self.random.random() < 0.3 else {}
            text, root = f"Reply {self.random.random()}", self.random.choice(roots)
            self.world.say(channel, text, self.world.bob, root, **shown)

    def file(self, channel: str) -> None:
        file = self.world.upload("a.txt", str(self.random.random()).encode())
        roots = self.roots(channel)
        thread = self.random.choice(roots) if roots and self.random.random() < 0.5 else None
        self.world.say(channel, "See", thread=thread, files=[file])

    def edit(self, channel: str) -> None:
        if roots := self.roots(channel):
            self.world.edit(channel, self.random.choice(roots), f"Edit {self.random.random()}")

    def react(self, channel: str) -> None:
        if roots := self.roots(channel):
            self.world.react(channel, self.random.choice(roots), "tada", self.world.ada)

    def delete(self, channel: str) -> None:
        if roots := self.roots(channel):
            self.world.delete(channel, self.random.choice(roots))

    def unsay(self, channel: str) -> None:
        said = self.world.messages[channel].items()
        if replies := [ts for ts, one in said if one.get("thread_ts") not in (None, ts)]:
            self.world.delete(channel, self.random.choice(replies))

    def program(self, channel: str) -> None:
        self.world.say(channel, "Build", bot_id="B1", username="CI", subtype="bot_message")

    def join(self, channel: str) -> None:
        self.world.say(channel, "has joined", subtype="channel_join")

    def wait(self, channel: str) -> None:
        self.world.now += self.random.choice([60, 1_000, 4_000, 40_000])


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", ["message", "thread", "conversation", "day"])
def test_later_runs_store_what_a_fresh_run_stores(
    world: SlackWorld, tmp_path: Path, kind: str, seed: int
) -> None:
    people = People(world, f"{kind} {seed}")
    settings = {
        "document": kind,
        "attachments": "text",
        "page_size": people.random.choice([3, 7, 200]),
        "time_zone": people.random.choice(["UTC", "Europe/Berlin", "America/Los_Angeles"]),
        "bots": people.random.random() < 0.7,
    }
    to, fresh = tmp_path / "kb.lance", tmp_path / "fresh.lance"
    for _ in range(RUNS):
        for _ in range(CHANGES):
            people.act()
        run(world, to, **settings)
    run(world, fresh, full=True, **settings)
    assert told(to) == told(fresh)
    receipt = run(world, to, **settings)
    assert (receipt.rows_written, receipt.rows_deleted) == (0, 0)
