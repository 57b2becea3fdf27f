"""The slack connector, against a world that is checked by the types of Slack's own client."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from contextframe_beam import FrameDataset
from contextframe_beam.connectors.read.source import Source
from contextframe_beam.connectors.slack.connector import SlackConnector
from contextframe_beam.frames.record import FrameRecord
from contextframe_beam.pipelines.ingest import ingest
from contextframe_beam.transforms.commit import CommitReceipt
from tests.worlds.slack_world import TOKEN, SlackWorld

DAY = 86_400


@pytest.fixture
def world() -> Iterator[SlackWorld]:
    with SlackWorld() as made:
        yield made
        assert made.problems == []


def connector(world: SlackWorld, **settings: Any) -> SlackConnector:
    """Returns a connector for a world that does not wait between requests."""
    return SlackConnector(
        **{"token": TOKEN, "base_url": world.api, "requests_per_minute": 600_000, **settings}
    )


def run(world: SlackWorld, to: Path, mode: str = "upsert", **settings: Any) -> CommitReceipt:
    full = settings.pop("full", False)
    made = connector(world, **settings)
    return ingest(made, str(to), mode=mode, full=full, max_deletes="100%", embed_dim=2)


def stored(to: Path) -> dict[str, FrameRecord]:
    """Returns the records of a dataset by their unique ids, without `slack:`."""
    return {str(one.unique_id).partition(":")[2]: one for one in FrameDataset.open(str(to))}


def told(to: Path) -> dict[str, Any]:
    """Returns what is stored, to be compared."""
    return {
        name: (one.text_content, one.metadata, one.timestamp, one.readers)
        for name, one in stored(to).items()
    }


def methods(world: SlackWorld, since: int = 0) -> list[str]:
    """Returns the methods that were called since a request."""
    return [one.asked.path.removeprefix("/api/") for one in world.served[since:]]


def items(world: SlackWorld, **settings: Any) -> list[Any]:
    made = connector(world, **settings)
    made.authenticate()
    return [item for page in Source(made).pages() for item in page.items]


def record(world: SlackWorld, path: str, **settings: Any) -> FrameRecord:
    """Returns what becomes of one document, read outside of a run."""
    made = connector(world, **settings)
    made.authenticate()
    item = next(one for one in made.sync_documents() if one["path"] == path)
    found = made.map_to_frame_record(item)
    assert isinstance(found, FrameRecord)
    return found


def relationships(found: FrameRecord) -> list[tuple[str, str]]:
    return [
        (one["relationship_type"], one["target_id"].partition(":")[2])
        for one in found.metadata.get("relationships", ())
    ]


class TestARunWritesWhatChanged:
    """One workspace, run after run; each change reaches exactly its rows."""

    def test_from_the_first_run_to_a_mirror(self, world: SlackWorld, tmp_path: Path) -> None:
        to, settings = tmp_path / "kb.lance", {"attachments": "text"}
        general, team = world.channel("general"), world.channel("team", "private_channel")
        thread = world.say(general, "A question")
        world.say(general, "An answer", world.bob, thread, files=[world.upload("a.md", b"# A")])
        single = world.say(general, "By the way")
        for number in range(3):
            world.say(team, f"Plan {number}")
        assert run(world, to, **settings).rows_written == 6

        asked = len(world.served)
        again = run(world, to, **settings)
        assert (again.rows_written, again.partial, again.unread) == (0, (), ())
        assert sorted(set(methods(world, asked)) - {"auth.test"}) == [
            *("conversations.history", "conversations.list", "conversations.members"),
        ]
        assert methods(world, asked).count("conversations.history") == 2

        # A reply moves nothing of its message but the number of its replies.
        world.now += DAY
        world.say(general, "One more", thread=thread)
        asked = len(world.served)
        assert run(world, to, **settings).rows_written == 1
        assert methods(world, asked).count("conversations.replies") == 1
        assert "One more" in str(stored(to)[f"{general}/{thread}"].text_content)

        world.edit(general, single, "By the way, *now*")
        world.react(general, single, "tada", world.ada, world.bob)
        new = world.say(team, "New")
        assert run(world, to, **settings).rows_written == 2
        changed = stored(to)[f"{general}/{single}"]
        assert changed.text_content == "By the way, **now**"
        assert changed.metadata["reactions"] == {"tada": 2} and changed.metadata["edited"] is True

        # Nobody tells of deletes, but the last weeks are listed again.
        world.delete(team, new)
        world.delete(general, thread)
        receipt = run(world, to, **settings)
        assert (receipt.rows_written, receipt.rows_deleted) == (1, 1)
        assert "A question" not in str(stored(to)[f"{general}/{thread}"].text_content)
        for ts in [ts for ts, one in world.messages[general].items() if "parent_user_id" in one]:
            world.delete(general, ts)
        # With the thread goes its file.
        receipt = run(world, to, **settings)
        assert (receipt.rows_written, receipt.rows_deleted) == (0, 2)

        world.delete(general, single)
        world.now += 60 * DAY
        world.say(general, "Late")
        run(world, to, **settings)
        old = next(iter(world.messages[team]))
        world.delete(team, old)
        assert run(world, to, **settings).rows_deleted == 0
        mirror = run(world, to, mode="mirror", **settings)
        assert (mirror.rows_deleted, mirror.rows_written) == (1, 0)

        fresh = tmp_path / "fresh.lance"
        run(world, fresh, full=True, **settings)
        assert told(to) == told(fresh)
        files = b"".join(one.read_bytes() for one in tmp_path.rglob("*") if one.is_file())
        for secret in (TOKEN, "5ecre7"):
            assert secret.encode() not in files

    @pytest.mark.parametrize(
        ("days", "seen", "full"), [(20, 1, 0), (60, 0, 1)], ids=["in the window", "before it"]
    )
    def test_replies_to_old_threads_are_seen_within_the_window(
        self, world: SlackWorld, tmp_path: Path, days: int, seen: int, full: int
    ) -> None:
        to = tmp_path / "kb.lance"
        channel = world.channel("general")
        thread = world.say(channel, "Old")
        world.say(channel, "First", thread=thread)
        world.now += days * DAY
        world.say(channel, "Now")
        run(world, to)
        world.say(channel, "Late", thread=thread)
        assert run(world, to).rows_written == seen
        assert run(world, to, full=True).rows_written == full
        assert "Late" in str(stored(to)[f"{channel}/{thread}"].text_content)

    def test_a_late_reply_that_is_shown_in_the_channel_brings_its_old_thread(
        self, world: SlackWorld, tmp_path: Path
    ) -> None:
        to = tmp_path / "kb.lance"
        channel = world.channel("general")
        thread = world.say(channel, "Old")
        world.now += 60 * DAY
        world.say(channel, "Now")
        run(world, to)
        world.say(channel, "Late", world.bob, thread, subtype="thread_broadcast")
        assert run(world, to).rows_written == 1
        assert run(world, to).rows_written == 0
        assert str(stored(to)[f"{channel}/{thread}"].text_content).endswith("Late")
        assert len(stored(to)) == 2

    def test_ts_that_differ_in_the_sixth_decimal_are_two_messages(
        self, world: SlackWorld, tmp_path: Path
    ) -> None:
        to = tmp_path / "kb.lance"
        channel = world.channel("general")
        both = ["1767600001.123456", "1767600001.123457"]
        world.say(channel, "a", ts=both[0])
        run(world, to)
        world.say(channel, "b", ts=both[1])
        run(world, to)
        assert {one: stored(to)[f"{channel}/{one}"].text_content for one in both} == {
            both[0]: "a",
            both[1]: "b",
        }
        world.delete(channel, both[0])
        assert run(world, to).rows_deleted == 1

    def test_a_reply_that_comes_during_a_run_is_read_by_the_next(
        self, world: SlackWorld, tmp_path: Path
    ) -> None:
        to = tmp_path / "kb.lance"
        channel = world.channel("general")
        thread = world.say(channel, "Question")

        def answer(asked: Any) -> bool:
            if asked.path.endswith("history"):
                world.closing = None
                world.scripted.append(deepcopy(world.answer(asked)))
                world.say(channel, "Answer", thread=thread)
                world.say(channel, "Meanwhile")
            return False

        world.closing = answer
        assert run(world, to).rows_written == 1
        assert run(world, to).rows_written == 2

    @pytest.mark.parametrize("kind", ["message", "thread", "conversation", "day"])
    def test_rows_are_those_of_a_fresh_run_whatever_a_document_holds(
        self, world: SlackWorld, tmp_path: Path, kind: str
    ) -> None:
        to, settings = tmp_path / "kb.lance", {"document": kind, "attachments": "text"}
        channel = world.channel("general")
        threads = []
        for number in range(12):
            world.now += 4000 if number % 3 else 60
            threads.append(world.say(channel, f"Message {number}"))
        world.say(channel, "Reply", thread=threads[2], files=[world.upload("r.txt", b"r")])
        late = world.say(channel, "Late reply", thread=threads[2])
        run(world, to, page_size=5, **settings)
        world.edit(channel, threads[5], "Edited")
        world.delete(channel, threads[7])
        world.delete(channel, threads[2])
        world.say(channel, "Shown", thread=threads[8], subtype="thread_broadcast")
        world.now += 60
        world.say(channel, "New", files=[world.upload("n.txt", b"n")])
        run(world, to, page_size=5, **settings)
        world.delete(channel, late)
        assert run(world, to, page_size=5, **settings).rows_written <= 1
        assert run(world, to, page_size=5, **settings).rows_written == 0
        fresh = tmp_path / "fresh.lance"
        run(world, fresh, full=True, **settings)
        assert told(to) == told(fresh)
