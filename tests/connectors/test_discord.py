"""The discord connector, against a world that is checked by what Discord publishes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from contextframe_beam import FrameDataset
from contextframe_beam.connectors.discord.connector import DiscordConnector
from contextframe_beam.frames.record import FrameRecord
from contextframe_beam.pipelines.ingest import ingest
from contextframe_beam.transforms.commit import CommitReceipt
from tests.worlds.discord_world import FORUM, HISTORY, TOKEN, VIEW, Discord

MINUTE, DAY = 60, 86_400


@pytest.fixture
def world() -> Iterator[Discord]:
    with Discord() as made:
        yield made
        assert made.problems == []


def connector(world: Discord, **settings: Any) -> DiscordConnector:
    return DiscordConnector(
        **{
            "token": TOKEN,
            "base_url": world.base_url,
            "requests_per_second": 5000,
            **settings,
        }
    )


def run(world: Discord, to: Path, mode: str = "upsert", **settings: Any) -> CommitReceipt:
    full = settings.pop("full", False)
    return ingest(
        connector(world, **settings),
        str(to),
        mode=mode,
        full=full,
        max_deletes="100%",
        embed_dim=2,
    )


def stored(to: Path) -> dict[str, FrameRecord]:
    """Returns the records of a dataset by their unique ids, without the kind of id."""
    return {str(one.unique_id).partition(":")[2]: one for one in FrameDataset.open(str(to))}


def told_by(to: Path) -> dict[str, Any]:
    """Returns all that a dataset tells, but for what names the run."""
    return {
        key: (one.text_content, one.metadata, one.timestamp, one.place, one.raw_data)
        for key, one in stored(to).items()
    }


def asked(world: Discord, since: int = 0) -> list[str]:
    """Returns the paths of the requests since one."""
    return [one.asked.path.partition("/v10/")[2] for one in world.served[since:]]


class TestARunWritesWhatChanged:
    """One server, run after run; each change reaches exactly its rows."""

    def test_from_the_first_run_to_a_mirror(self, world: Discord, tmp_path: Path) -> None:
        to = tmp_path / "kb.lance"
        acme = world.guild("Acme")
        general = world.channel(acme, "general")
        forum = world.channel(acme, "help", FORUM, available_tags=["bug", "done"])
        old = world.now - 30 * DAY
        world.message(general, "Long ago", at=old)
        question = world.message(general, "Why?", "bob", at=world.now - 2 * DAY)
        answer = world.message(general, "Because", "ana", at=world.now - 2 * DAY + MINUTE)
        world.message(general, "Today")
        thread = world.thread(general, "Details", starter=question)
        world.message(thread, "More of it")
        post = world.post(forum, "It fails", "With code 7", ["bug"])
        other = world.post(forum, "Closed", "Solved", ["done"])
        world.archive(other)

        assert run(world, to).rows_written == 6
        assert set(stored(to)) == {
            *(f"conversation/{general}/{one}" for one in list(world.messages[general])[:2]),
            f"conversation/{general}/{list(world.messages[general])[-1]}",
            *(f"thread/{one}" for one in (thread, post, other)),
        }

        before = len(world.served)
        again = run(world, to)
        assert (again.rows_written, again.rows_deleted, again.partial) == (0, 0, ())
        # One request a list of archived threads, a channel and a thread of the last weeks.
        assert len(world.served) - before == 4 + 1 + 2 + 3

        # An edit and a delete within the last weeks.
        world.edit(general, answer, content="Because of that")
        assert run(world, to).rows_written == 1
        world.delete(general, question)
        receipt = run(world, to)
        # The conversation has another first message now; the thread lost the one it began with.
        assert (receipt.rows_written, receipt.rows_deleted) == (2, 1)

        # A reply, a new post, and a thread that goes on after it was archived.
        world.message(post, "Same here", "bob")
        late = world.post(forum, "New", "Text", ["bug", "done"])
        world.message(other, "Again")
        assert run(world, to).rows_written == 3
        assert stored(to)[f"thread/{late}"].metadata["tags"] == ["bug", "done"]
        assert "Again" in str(stored(to)[f"thread/{other}"].text_content)

        # A renamed post, and one that is gone.
        world.channels[post]["name"] = "It fails with code 7"
        world.remove(late)
        receipt = run(world, to)
        assert (receipt.rows_written, receipt.rows_deleted) == (1, 1)

        # What is older than the window is seen by a run that reads everything.
        gone = next(one for one in world.messages[general])
        world.delete(general, gone)
        assert run(world, to).rows_deleted == 0
        mirror = run(world, to, mode="mirror")
        assert (mirror.rows_written, mirror.rows_deleted) == (0, 1)

        fresh = tmp_path / "fresh.lance"
        run(world, fresh, full=True)
        assert told_by(to) == told_by(fresh)
        files = b"".join(p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())
        assert TOKEN.encode() not in files
        assert world.invalid == 0

    def test_a_channel_that_is_gone_goes_with_its_threads(
        self, world: Discord, tmp_path: Path
    ) -> None:
        to = tmp_path / "kb.lance"
        acme = world.guild("Acme")
        old, kept = world.channel(acme, "old"), world.channel(acme, "kept")
        for channel in (old, kept):
            world.message(world.thread(channel, "T"), "In a thread")
            world.message(channel, "Text")
        assert run(world, to).rows_written == 4
        for one in [key for key, told in world.channels.items() if told.get("parent_id") == old]:
            world.remove(one)
        world.remove(old)
        receipt = run(world, to)
        assert (receipt.rows_written, receipt.rows_deleted, receipt.partial) == (0, 2, ())
        before = len(world.served)
        run(world, to)
        assert f"channels/{old}" not in asked(world, before)

    def test_who_loses_access_to_a_channel_is_no_reader_of_it_any_more(
        self, world: Discord, tmp_path: Path
    ) -> None:
        to = tmp_path / "kb.lance"
        acme = world.guild("Acme")
        staff = world.role(acme, "staff", VIEW | HISTORY)
        world.bot_roles[acme] = [staff]
        channel = world.channel(acme, "plans")
        notes = world.upload(channel, "notes.md", b"# Notes")
        world.message(channel, "Long ago", attachments=[notes], at=world.now - 60 * DAY)
        thread = world.thread(channel, "T")
        world.message(thread, "In it", at=world.now - 60 * DAY)
        world.archive(thread, at=world.now - 50 * DAY)
        run(world, to)
        everyone = [f"discord-channel:{channel}", f"discord-guild:{acme}"]
        assert {tuple(one.readers or ()) for one in stored(to).values()} == {tuple(everyone)}

        world.overwrite(channel, acme, deny=VIEW)
        world.overwrite(channel, staff, allow=VIEW)
        before = len(world.files.asked)
        receipt = run(world, to)
        assert (receipt.rows_written, receipt.readers_changed) == (2, 1)
        assert {tuple(one.readers or ()) for one in stored(to).values()} == {
            (f"discord-channel:{channel}", f"discord-role:{staff}", f"user:{world.user('owner')}")
        }
        # The file was not fetched again.
        assert len(world.files.asked) == before
