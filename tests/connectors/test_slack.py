"""The slack connector, against a world that is checked by the types of Slack's own client."""

from __future__ import annotations

import json
import pickle
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from contextframe_beam.connectors.files.item import FileItem
from contextframe_beam.errors import ConnectorError
from contextframe_beam.frames.record import FrameRecord
from tests.support.pdf_files import pdf
from tests.support.slack_runs import (
    connector,
    items,
    methods,
    record,
    relationships,
    run,
    stored,
    told,
    world,
)
from tests.worlds.slack_blocks import of_every_type
from tests.worlds.slack_world import TOKEN, SlackWorld

DAY = 86_400

__all__ = ["world"]


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

    @pytest.mark.sample(2)
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
        fresh = tmp_path / "fresh.lance"
        run(world, fresh, full=True, **settings)
        assert told(to) == told(fresh)

    def test_other_documents_take_the_place_of_the_former(
        self, world: SlackWorld, tmp_path: Path
    ) -> None:
        to = tmp_path / "kb.lance"
        channel = world.channel("general")
        for number in range(3):
            world.say(channel, f"Message {number}")
        run(world, to)
        receipt = run(world, to, document="day")
        assert (receipt.rows_written, receipt.rows_deleted) == (1, 3)
        assert list(stored(to)) == [f"{channel}/2026-01-05"]


class TestWhatIsRead:
    def test_a_thread_is_a_document_with_who_took_part(self, world: SlackWorld) -> None:
        channel = world.channel("general")
        thread = world.say(channel, "Ask <@U00000002>, see <https://x.test|this>")
        world.say(channel, "Yes", world.bob, thread)
        world.react(channel, thread, "eyes", world.bob)
        found = record(world, f"{channel}/{thread}", attachments="none")
        assert found.text_content == (
            "**Ada** (2026-01-05 08:00): Ask @Bob, see [this](https://x.test)\n\n"
            "**Bob** (2026-01-05 08:00): Yes"
        )
        assert found.metadata["title"] == "Ask @Bob, see this"
        assert found.metadata["author"] == "Ada"
        assert found.metadata["participants"] == ["Ada", "Bob"]
        assert found.metadata["tags"] == ["eyes"]
        assert (found.metadata["collection"], found.metadata["kind"]) == ("#general", "thread")
        assert found.metadata["uri"] == (
            f"https://acme.slack.test/archives/{channel}/p{thread.replace('.', '')}"
        )
        assert relationships(found) == [("mentions", f"user/{world.bob}")]
        assert str(found.timestamp) > str(found.metadata["created_at"])

    def test_replies_are_documents_of_their_own_where_each_message_is_one(
        self, world: SlackWorld, tmp_path: Path
    ) -> None:
        channel = world.channel("general")
        thread = world.say(channel, "Question")
        reply = world.say(channel, "Answer", world.bob, thread)
        shown = world.say(channel, "Shown", world.bob, thread, subtype="thread_broadcast")
        run(world, tmp_path / "kb.lance", document="message")
        found = stored(tmp_path / "kb.lance")
        assert set(found) == {f"{channel}/{ts}" for ts in (thread, reply, shown)}
        for ts in (reply, shown):
            assert relationships(found[f"{channel}/{ts}"]) == [("parent", f"{channel}/{thread}")]
            assert f"?thread_ts={thread}" in found[f"{channel}/{ts}"].metadata["uri"]

    def test_direct_messages_are_conversations_and_channels_threads(
        self, world: SlackWorld
    ) -> None:
        direct = world.channel("", "im", members=[world.bob])
        first = world.say(direct, "Hi")
        world.say(direct, "Hello", world.bob)
        world.now += 3600
        later = world.say(direct, "Later")
        world.say(world.channel("general"), "In a channel")
        world.say(world.channel("mpdm-ada--bob-1", "mpim"), "In a group")
        found = items(world, types=["im", "mpim", "public_channel"])
        direct_ones = {one["path"]: one["kind"] for one in found if one["channel"]["id"] == direct}
        assert direct_ones == dict.fromkeys(
            (f"{direct}/{first}", f"{direct}/{later}"), "conversation"
        )
        assert {(one["kind"], one["channel"]["label"]) for one in found} == {
            ("conversation", "@Bob"),
            ("conversation", "@ada, @bob"),
            ("thread", "#general"),
        }

    def test_5000_messages_and_400_threads_come_each_once(self, world: SlackWorld) -> None:
        channels = [world.channel(f"c{number}") for number in range(3)]
        asked = 0
        for number in range(5000):
            ts = world.say(channels[number % 3], f"Message {number}")
            if number % 25 == 0 or number % 25 == 12:
                world.say(channels[number % 3], "Reply", thread=ts)
                asked += 1
        world.empty |= {"conversations.history", "conversations.list", "users.list"}
        found = items(world)
        assert len(found) == len({one["path"] for one in found}) == 5000 and asked == 400
        # Eight or nine pages of 200 of each channel, and an empty one before them.
        assert world.sent("conversations.history") == 3 * 10
        assert world.sent("conversations.replies") == 0

    def test_all_blocks_bots_and_system_messages(self, world: SlackWorld) -> None:
        channel = world.channel("general")
        world.say(channel, "fallback", blocks=of_every_type())
        world.say(channel, "<@U1> has joined", subtype="channel_join")
        bot = {"bot_id": "B1", "username": "CI", "subtype": "bot_message"}
        alert = world.say(channel, "", **bot, attachments=[{"title": "Build", "id": 1}])
        world.say(channel, "On it", world.bob, alert)
        world.say(channel, "Noise", **bot)
        made = connector(world)
        found = made.sync_documents()
        assert len(found) == 3 and made.get_stats()["system_messages"] == 1
        said = record(world, f"{channel}/{alert}")
        assert said.metadata["author"] == "CI"
        assert said.text_content.startswith("**CI** (2026-01-05 08:00):\n\n> **Build**")
        quiet = record(world, f"{channel}/{alert}", bots=False)
        assert (quiet.text_content, quiet.metadata["author"]) == ("On it", "Bob")
        assert len(items(world, bots=False)) == 2

    def test_no_item_that_travels_has_a_signed_address(self, world: SlackWorld) -> None:
        signed = "https://x.test/i.png?X-Amz-Signature=5ecre7"
        image = {"type": "image", "image_url": signed, "alt_text": "Chart"}
        files = [world.upload("a.txt", b"a")]
        attachments = [{"id": 1, "image_url": signed}]
        world.say(
            world.channel("general"), "x", blocks=[image], attachments=attachments, files=files
        )
        assert b"5ecre7" not in pickle.dumps(items(world))

    def test_people_of_other_workspaces_are_asked_for_and_unknown_ones_stay_ids(
        self, world: SlackWorld
    ) -> None:
        guest = world.user("Guest", listed=False)
        channel = world.channel("general")
        one, other = world.say(channel, "Hi", guest), world.say(channel, "Ho", "U0GONE")
        assert record(world, f"{channel}/{one}").metadata["author"] == "Guest"
        assert record(world, f"{channel}/{other}").metadata["author"] == "U0GONE"
        world.scopes -= {"users:read"}
        assert record(world, f"{channel}/{one}").metadata["author"] == guest

    def test_channels_are_chosen_by_id_name_and_pattern(self, world: SlackWorld) -> None:
        names = ("eng-web", "eng-api", "ops", "old")
        made = {name: world.channel(name, is_archived=name == "old") for name in names}
        for identifier in made.values():
            world.say(identifier, "Hi")

        def read(**settings: Any) -> set[str]:
            return {one["channel"]["label"] for one in items(world, **settings)}

        assert read() == {"#eng-web", "#eng-api", "#ops", "#old"}
        assert read(archived=False) == {"#eng-web", "#eng-api", "#ops"}
        assert read(channels=["eng-*", "#ops"], exclude=["*-api"]) == {"#eng-web", "#ops"}
        asked = len(world.served)
        assert read(channels=[made["ops"]]) == {"#ops"}
        assert "conversations.list" not in methods(world, asked)

    def test_what_is_before_the_start_or_outside_of_a_stretch_is_not_read(
        self, world: SlackWorld, tmp_path: Path
    ) -> None:
        channel = world.channel("general")
        days = [
            world.say(channel, "x", ts=f"{1767571200 + n * DAY + 3600}.000001") for n in range(5)
        ]
        world.now += 6 * DAY

        def read(**kwargs: Any) -> set[str]:
            made = connector(world, **kwargs.pop("settings", {}))
            made.authenticate()
            parts = made.partitions(**kwargs)
            found = [i for part in parts for i in made.fetch_page(part, None).items]
            return {one["path"].partition("/")[2] for one in found}

        assert read(settings={"start": "2026-01-08"}) == set(days[3:])
        assert read(since="2026-01-06", until="2026-01-08") == set(days[1:3])
        for kind in ("conversation", "day"):
            settings = {"document": kind}
            slices = [
                read(since=f"2026-01-{day:02}", until=f"2026-01-{day + 1:02}", settings=settings)
                for day in range(5, 10)
            ]
            assert set().union(*slices) == read(settings=settings)
            assert all(len(one) == 1 for one in slices)


class TestFiles:
    def test_a_pdf_becomes_text_and_an_image_is_named(
        self, world: SlackWorld, tmp_path: Path
    ) -> None:
        to, settings = tmp_path / "kb.lance", {"attachments": "text", "max_attachment_bytes": 4000}
        channel = world.channel("general")
        thread = world.say(
            channel,
            "See",
            files=[
                world.upload("paper.pdf", pdf(["Paper of the year"])),
                world.upload("cat.png", b"png"),
                world.upload("large.txt", b"x" * 5000),
                world.upload("gone.txt", b"x", mode="tombstone"),
                world.upload("old.txt", b"x", mode="hidden_by_limit"),
                world.upload("far.txt", b"x", is_external=True, mode="external"),
                world.upload("else.txt", b"x", url_private_download="https://evil.test/x"),
            ],
        )
        run(world, to, **settings)
        found = stored(to)
        texts = {one.metadata["title"]: one.text_content for k, one in found.items() if "file" in k}
        assert texts == {"paper.pdf": "Paper of the year"}
        parent = found[f"{channel}/{thread}"]
        assert len(parent.metadata["attachments"]) == 7
        (name,) = [name for name in found if name.startswith("file/")]
        assert relationships(found[name]) == [("parent", f"{channel}/{thread}")]
        assert ("reference", name) in relationships(parent)
        # A file that is as it was is not asked for again, although its message changed.
        asked = len(world.served)
        world.edit(channel, thread, "See them")
        assert run(world, to, **settings).rows_written == 1
        assert not [one for one in methods(world, asked) if "files-pri" in one]

    def test_without_the_scope_files_are_named_and_stored_ones_stay(
        self, world: SlackWorld, tmp_path: Path
    ) -> None:
        to = tmp_path / "kb.lance"
        channel = world.channel("general")
        world.say(channel, "See", files=[world.upload("a.txt", b"a")])
        run(world, to, attachments="text")
        world.scopes -= {"files:read"}
        receipt = run(world, to, "mirror", attachments="text", join=False, full=True)
        assert receipt.rows_deleted == 0 and "files:read" in receipt.unread[0]

    def test_a_page_to_sign_in_is_no_file(self, world: SlackWorld, tmp_path: Path) -> None:
        channel = world.channel("general")
        world.say(channel, "See", files=[world.upload("a.txt", b"a")])
        made = connector(world, attachments="bytes")
        made.authenticate()
        item = next(one for one in made.sync_documents() if one["kind"] == "attachment")
        world.scopes -= {"files:read"}
        with pytest.raises(ConnectorError, match="needs the scope files:read"):
            made.map_to_frame_record(item)

    def test_bytes_are_kept_and_a_dead_letter_asks_for_the_address_again(
        self, world: SlackWorld
    ) -> None:
        channel = world.channel("general")
        world.say(channel, "See", files=[world.upload("a.bin", b"abc")])
        made = connector(world, attachments="bytes")
        made.authenticate()
        item = next(one for one in made.sync_documents() if one["kind"] == "attachment")
        again = FileItem.of(json.loads(json.dumps(item)))
        found = made.map_to_frame_record(again)
        assert isinstance(found, FrameRecord)
        assert (found.raw_data, found.raw_data_type) == (b"abc", "application/bin")
        assert world.sent("files.info") == 1
