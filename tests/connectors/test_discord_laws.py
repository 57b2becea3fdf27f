"""Whatever people do between runs, the rows are those of a run that reads all there is."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contextframe_beam import FrameDataset
from contextframe_beam.connectors.discord.connector import DiscordConnector
from contextframe_beam.pipelines.ingest import ingest
from tests.support.laws import examples
from tests.worlds.discord_world import EPOCH, FORUM, THREADS, TOKEN, Discord

DAY = 86_400


class Chat:
    """A server in which people write, edit, delete and pin; each step is chosen by a number."""

    def __init__(self, world: Discord) -> None:
        self.world = world
        acme = world.guild("Acme")
        self.texts = [
            world.channel(acme, f"c{number}", at=world.now - 900 * DAY) for number in range(2)
        ]
        self.forum = world.channel(acme, "help", FORUM, available_tags=["a", "b"])
        for number, channel in itertools.product(range(120), self.texts):
            world.message(channel, f"old {number}", at=world.now - 60 * DAY + number * 20_000)
        self.steps: list[Callable[[int], None]] = [
            self.write, self.reply, self.edit, self.delete, self.start, self.post,
            self.archive, self.unarchive, self.rename, self.remove, self.pin, self.rename_channel,
        ]  # fmt: skip

    @property
    def threads(self) -> list[str]:
        return [one for one, told in self.world.channels.items() if told["type"] in THREADS]

    def holder(self, number: int) -> str:
        holders = [*self.texts, *self.threads]
        return holders[number % len(holders)]

    def recent(self, number: int) -> tuple[str, str] | None:
        """Returns a message that was sent within the window, and its channel."""
        found = [
            (channel, message)
            for channel in [*self.texts, *self.threads]
            for message, told in self.world.messages[channel].items()
            if told.get("type") != 21
            and self.world.now - ((int(message) >> 22) + EPOCH) / 1000 < 13 * DAY
        ]
        return found[number % len(found)] if found else None

    def write(self, number: int) -> None:
        data = self.world.upload(self.holder(number), "a.md", b"# A") if number % 5 == 0 else None
        files = [data] if data else []
        author = ("ana", "bob")[number % 2]
        self.world.message(self.holder(number), f"m{number}", author, attachments=files)

    def reply(self, number: int) -> None:
        if found := self.recent(number):
            reference = {"type": 0, "channel_id": found[0], "message_id": found[1]}
            self.world.message(found[0], f"r{number}", type=19, message_reference=reference)

    def edit(self, number: int) -> None:
        found = self.recent(number)
        if found and not self.is_archived(found[0]):
            self.world.edit(*found, content=f"e{number}")

    def delete(self, number: int) -> None:
        if found := self.recent(number):
            self.world.delete(*found)

    def start(self, number: int) -> None:
        channel = self.texts[number % 2]
        free = [one for one in self.world.messages[channel] if one not in self.world.channels]
        starter = free[number % len(free)] if free and number % 3 else ""
        self.world.message(self.world.thread(channel, f"t{number}", starter=starter), "first")

    def post(self, number: int) -> None:
        self.world.post(self.forum, f"p{number}", "text", ["a", "b"][: number % 3])

    def archive(self, number: int) -> None:
        if self.threads:
            self.world.archive(self.threads[number % len(self.threads)])

    def unarchive(self, number: int) -> None:
        if self.threads:
            self.world.unarchive(self.threads[number % len(self.threads)])

    def rename(self, number: int) -> None:
        active = [one for one in self.threads if not self.is_archived(one)]
        if active:
            told = self.world.channels[active[number % len(active)]]
            told |= {"name": f"n{number}", **({"applied_tags": []} if number % 2 else {})}

    def remove(self, number: int) -> None:
        if self.threads:
            gone = self.threads[number % len(self.threads)]
            self.world.remove(gone)
            for told in itertools.chain(*(one.values() for one in self.world.messages.values())):
                if told.get("thread") == gone:
                    del told["thread"]

    def pin(self, number: int) -> None:
        channel = self.holder(number)
        free = [k for k, one in self.world.messages[channel].items() if one.get("type") != 21]
        if free:
            self.world.pin(channel, free[number % len(free)])

    def rename_channel(self, number: int) -> None:
        self.world.channels[self.texts[number % 2]]["name"] = f"c{number}"

    def is_archived(self, channel: str) -> bool:
        return bool(self.world.channels[channel].get("thread_metadata", {}).get("archived"))


@pytest.mark.soak
@settings(max_examples=examples(100, few=15))
@given(
    st.sampled_from([None, "thread", "message", "conversation", "day"]),
    st.lists(
        st.lists(st.tuples(st.integers(0, 11), st.integers(0, 999)), min_size=1, max_size=6),
        min_size=1,
        max_size=4,
    ),
)
def test_later_runs_end_with_the_rows_of_one_that_reads_everything(
    tmp_path_factory: pytest.TempPathFactory,
    document: str | None,
    between: list[list[tuple[int, int]]],
) -> None:
    folder = tmp_path_factory.mktemp("kb")
    with Discord() as world:
        chat = Chat(world)
        run(world, folder / "kb.lance", document)
        for number, steps in enumerate(between):
            for step, choice in steps:
                chat.steps[step](choice)
            run(world, folder / "kb.lance", document)
            run(world, folder / f"{number}.lance", document, full=True)
            assert told_by(folder / "kb.lance") == told_by(folder / f"{number}.lance")
        assert world.problems == []


def run(world: Discord, to: Path, document: str | None, full: bool = False) -> None:
    connector = DiscordConnector(
        TOKEN,
        base_url=world.base_url,
        requests_per_second=5000,
        document=document,
        attachments="bytes",
    )
    ingest(connector, str(to), full=full, max_deletes="100%", embed_dim=2)


def told_by(to: Path) -> dict[str, Any]:
    return {
        str(one.unique_id): (one.text_content, one.metadata, one.timestamp, one.place, one.readers)
        for one in FrameDataset.open(str(to))
    }
