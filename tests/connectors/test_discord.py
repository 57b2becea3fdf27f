"""The discord connector, against a world that is checked by what Discord publishes."""

from __future__ import annotations

import json
import multiprocessing
import pickle
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from contextframe_beam import FrameDataset
from contextframe_beam.connectors.discord.connector import DiscordConnector
from contextframe_beam.connectors.files.item import FileItem
from contextframe_beam.connectors.look import look
from contextframe_beam.connectors.testing import ConnectorTests, Status, Subject, run_checks
from contextframe_beam.errors import CommitError, ConfigError, ConnectorError
from contextframe_beam.frames.record import FrameRecord
from contextframe_beam.pipelines.ingest import ingest
from contextframe_beam.transforms.commit import CommitReceipt
from tests.support.pdf_files import pdf
from tests.worlds.clients import python
from tests.worlds.discord_world import (
    CATEGORY,
    FORUM,
    HISTORY,
    MANAGE_THREADS,
    MEDIA,
    NEWS,
    PRIVATE_THREAD,
    TOKEN,
    VIEW,
    VOICE,
    Discord,
)

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

    def test_an_older_message_that_is_pinned_is_written_anew(
        self, world: Discord, tmp_path: Path
    ) -> None:
        to = tmp_path / "kb.lance"
        channel = world.channel(world.guild("Acme"), "general", at=world.now - 200 * DAY)
        thread = world.thread(channel, "T")
        old = [
            world.message(holder, f"{minute}", at=world.now - 100 * DAY + minute * MINUTE)
            for holder in (channel, thread)
            for minute in range(2)
        ]
        world.message(channel, "Recent")
        run(world, to)
        world.pin(channel, old[0])
        world.pin(thread, old[2])
        before = len(world.served)
        assert run(world, to).rows_written == 2
        pinned = [key for key, one in stored(to).items() if one.metadata.get("pinned")]
        assert len(pinned) == 2 and f"channels/{channel}/messages/pins" in asked(world, before)
        assert run(world, to).rows_written == 0
        assert told_by(to) == told_by_fresh(world, tmp_path)

    def test_what_is_stored_of_a_server_stays_when_the_bot_has_left_it(
        self, world: Discord, tmp_path: Path
    ) -> None:
        to = tmp_path / "kb.lance"
        acme, other = world.guild("Acme"), world.guild("Other")
        for guild in (acme, other):
            world.message(world.channel(guild, "general"), "Hi")
        run(world, to, guilds=[acme, other])
        for channel in [k for k, told in world.channels.items() if told["guild_id"] == other]:
            world.remove(channel)
        del world.guilds[other]
        for mode in ("upsert", "mirror"):
            receipt = run(world, to, mode=mode, guilds=[acme, other])
            assert receipt.rows_deleted == 0 and f"server {other}" in receipt.unread[0]

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


def records(world: Discord, **settings: Any) -> dict[str, FrameRecord]:
    """Returns what becomes of all there is, read outside of a run."""
    made = connector(world, **settings)
    made.authenticate()
    found = [made.map_to_frame_record(item) for item in made.sync_documents()]
    return {str(one.unique_id).partition(":")[2]: one for one in found}


def relationships(found: FrameRecord) -> list[tuple[str, str]]:
    return [
        (one["relationship_type"], one["target_id"].partition(":")[2])
        for one in found.metadata.get("relationships", ())
    ]


class TestWhatADocumentHolds:
    @pytest.fixture
    def channel(self, world: Discord) -> str:
        channel = world.channel(world.guild("Acme"), "general")
        noon = 1_767_268_800  # 2026-01-01, 12:00 UTC
        for minutes, author, text in (
            (0, "ana", "# Lunch"),
            (1, "bob", "Yes"),
            (31, "ana", "Later"),
            (660 + 59, "ana", "23:59"),
            (720, "bob", "0:00"),
        ):
            world.message(channel, text, author, at=noon + minutes * MINUTE)
        thread = world.thread(channel, "Where")
        world.message(thread, "There", at=noon)
        world.message(thread, "Or here", "bob", at=noon + 45 * MINUTE)
        return channel

    @pytest.mark.parametrize(
        ("document", "in_channel", "in_thread"),
        [
            (None, ["Lunch", "Later", "23:59", "0:00"], ["Where"]),
            ("thread", ["Lunch", "Yes", "Later", "23:59", "0:00"], ["Where"]),
            ("message", ["Lunch", "Yes", "Later", "23:59", "0:00"], ["There", "Or here"]),
            ("conversation", ["Lunch", "Later", "23:59", "0:00"], ["There", "Or here"]),
            (
                "day",
                ["#general, 2026-01-01", "#general, 2026-01-02"],
                ["#Where, 2026-01-01"],
            ),
        ],
    )
    def test_messages_are_gathered_as_asked(
        self,
        world: Discord,
        channel: str,
        document: str | None,
        in_channel: list[str],
        in_thread: list[str],
    ) -> None:
        found = records(world, document=document).values()
        titles = [(one.metadata["title"], one.metadata.get("thread")) for one in found]
        assert [title for title, thread in titles if thread is None] == in_channel
        assert [title for title, thread in titles if thread] == in_thread

    def test_a_conversation_tells_who_said_what_when(self, world: Discord, channel: str) -> None:
        first = min(world.messages[channel], key=int)
        found = records(world)[f"conversation/{channel}/{first}"]
        assert found.text_content == (
            "**Ana** (2026-01-01 12:00):\n\n# Lunch\n\n**Bob** (2026-01-01 12:01): Yes"
        )
        assert found.timestamp == "2026-01-01T12:01:00+00:00"
        assert found.metadata == {
            "title": "Lunch",
            "author": "Ana",
            "participants": ["Ana", "Bob"],
            "message_count": 2,
            "created_at": "2026-01-01T12:00:00+00:00",
            "collection": "Acme / #general",
            "collection_id": channel,
            "source": "discord",
            "kind": "conversation",
            "uri": f"https://discord.com/channels/{next(iter(world.guilds))}/{channel}/{first}",
        }

    def test_another_kind_of_document_takes_the_place_of_the_former(
        self, world: Discord, channel: str, tmp_path: Path
    ) -> None:
        to = tmp_path / "kb.lance"
        assert run(world, to).rows_written == 5
        receipt = run(world, to, document="message")
        assert (receipt.rows_written, receipt.rows_deleted) == (7, 5)
        assert {key.partition("/")[0] for key in stored(to)} == {"message"}

    def test_the_days_of_a_zone_count(self, world: Discord, channel: str) -> None:
        found = records(world, document="day", time_zone="Asia/Tokyo")
        assert {f"day/{channel}/2026-01-01", f"day/{channel}/2026-01-02"} < set(found)
        assert found[f"day/{channel}/2026-01-02"].metadata["message_count"] == 2

    @pytest.mark.soak
    def test_a_thread_that_grows_too_long_is_cut_at_pauses(
        self, world: Discord, tmp_path: Path
    ) -> None:
        to = tmp_path / "kb.lance"
        thread = world.thread(world.channel(world.guild("Acme"), "general"), "Long")
        hour = world.now - DAY
        for number in range(900):
            world.message(thread, f"{number}", at=hour + number)
        run(world, to)
        assert set(stored(to)) == {f"thread/{thread}"}
        for number in range(300):
            world.message(thread, f"late {number}", at=hour + 7200 + number)
        receipt = run(world, to)
        assert (receipt.rows_written, receipt.rows_deleted) == (2, 1)
        counts = [one.metadata["message_count"] for one in stored(to).values()]
        assert sorted(counts) == [300, 900]
        world.message(thread, "Once more")
        before = len(world.served)
        assert run(world, to).rows_written == 1
        assert told_by(to) == told_by_fresh(world, tmp_path)
        assert len(world.served) - before > 10

    def test_an_old_thread_whose_messages_were_not_counted_is_cut_as_well(
        self, world: Discord
    ) -> None:
        channel = world.channel(world.guild("Acme"), "general")
        thread, short = world.thread(channel, "Long"), world.thread(channel, "Short")
        world.message(short, "x")
        for number in range(1100):
            world.message(thread, f"{number}", at=world.now - DAY + number)
        world.channels[thread] |= {"message_count": 50, "total_message_sent": 50}
        found = records(world)
        assert {key.partition("/")[0] for key in found} == {"thread", "conversation"}
        assert sum(one.metadata.get("message_count", 1) for one in found.values()) == 1101


def told_by_fresh(world: Discord, tmp_path: Path, **settings: Any) -> dict[str, Any]:
    """Returns what a dataset tells into which all there is was read at once."""
    to = tmp_path / "fresh.lance"
    run(world, to, full=True, **settings)
    return told_by(to)


class TestWhatIsRead:
    def test_each_channel_with_messages_and_each_kind_of_thread(self, world: Discord) -> None:
        acme = world.guild("Acme")
        team = world.channel(acme, "Team", CATEGORY)
        talk = world.channel(acme, "talk", VOICE)
        world.overwrite(talk, acme, allow=1 << 20)
        news = world.channel(acme, "news", NEWS, parent_id=team)
        pictures = world.channel(acme, "pictures", MEDIA, available_tags=["cat"])
        sent = {world.message(talk, "Hi"), world.message(news, "New")}
        threads = {
            world.thread(news, "About it", kind=10, starter=max(sent)),
            world.post(pictures, "A cat", "Look", ["cat"]),
        }
        for one in threads:
            world.message(one, "Nice")
        found = records(world)
        assert {key.rpartition("/")[2] for key in found} == sent | threads

    def test_a_thread_begins_with_the_message_that_it_was_started_from(
        self, world: Discord
    ) -> None:
        channel = world.channel(world.guild("Acme"), "general")
        starter = world.message(
            channel, "Shall we?", attachments=[world.upload(channel, "a.md", b"a")]
        )
        thread = world.thread(channel, "Plan", starter=starter)
        world.message(channel, "", "bob", type=18)
        world.message(thread, "Yes", "bob")
        assert f"message/{thread}/{thread}" not in records(world, document="message")
        found = records(world, document="thread", attachments="bytes")
        lines = str(found[f"thread/{thread}"].text_content).split("\n\n")
        assert next(line.partition(": ")[2] for line in lines if ": " in line) == "Shall we?"
        assert lines[-1].endswith("Yes")
        assert [key for key in found if key.startswith("attachment")] and len(found) == 3

    def test_private_threads_are_read_where_that_is_wanted(
        self, world: Discord, tmp_path: Path
    ) -> None:
        acme = world.guild("Acme")
        channel = world.channel(acme, "general")
        joined = world.thread(channel, "Joined", kind=PRIVATE_THREAD, joined=True)
        old = world.thread(channel, "Old", kind=PRIVATE_THREAD, joined=True)
        other = world.thread(channel, "Other", kind=PRIVATE_THREAD)
        for one in (joined, old, other):
            world.message(one, "Secret")
        for one in (old, other):
            world.archive(one)
        assert records(world) == {}
        found = records(world, private_threads=True)
        assert set(found) == {f"thread/{joined}", f"thread/{old}"}
        assert found[f"thread/{old}"].readers == [f"discord-channel:{old}"]
        to = tmp_path / "kb.lance"
        world.bot_roles[acme] = [world.role(acme, "mod", MANAGE_THREADS)]
        assert run(world, to, private_threads=True).rows_written == 3
        world.bot_roles[acme] = []
        receipt = run(world, to, mode="mirror", private_threads=True)
        assert receipt.rows_deleted == 0 and "may not Manage Threads" in receipt.kept
        assert f"thread/{other}" in stored(to)

    def test_more_archived_threads_than_a_page_holds_are_all_listed(self, world: Discord) -> None:
        forum = world.channel(world.guild("Acme"), "help", FORUM)
        posts = [world.post(forum, f"Post {number}", "Text") for number in range(230)]
        moment = world.now
        for number, post in enumerate(posts):
            # Many were archived in one moment, at a border of pages too.
            world.archive(post, at=moment if 80 < number < 150 else None)
        assert len(records(world)) == 230

    def test_what_is_in_messages_of_programs_can_be_left_out(self, world: Discord) -> None:
        channel = world.channel(world.guild("Acme"), "general")
        world.user("ci", bot=True)
        world.message(channel, "", "ci", embeds=[{"type": "rich", "title": "Build failed"}])
        (found,) = records(world).values()
        assert found.text_content == "> **Build failed**"
        assert records(world, bots=False) == {}

    def test_relationships_tell_replies_addresses_forwards_and_people(self, world: Discord) -> None:
        acme = world.guild("Acme")
        channel = world.channel(acme, "general")
        first = world.message(channel, "Why?")
        thread = world.thread(channel, "T")
        world.message(thread, "x")
        reply = world.message(
            channel,
            f"<@{world.user('bob')}> see https://discord.com/channels/{acme}/{thread}/5 and "
            f"https://discord.com/channels/{acme}/{channel}/{first} in <#{thread}>",
            type=19,
            mentions=["bob", "ana"],
            message_reference={"type": 0, "channel_id": channel, "message_id": first},
        )
        snapshot = {
            "type": 0,
            "content": "Far away",
            "mentions": [],
            "mention_roles": [],
            "attachments": [],
            "embeds": [],
            "timestamp": "2026-01-01T00:00:00+00:00",
            "edited_timestamp": None,
            "flags": 0,
            "components": [],
        }
        forward = world.message(
            channel,
            message_reference={"type": 1, "channel_id": "8", "message_id": "9"},
            message_snapshots=[{"message": snapshot}],
        )
        found = records(world, document="thread")
        assert relationships(found[f"message/{channel}/{reply}"]) == [
            ("parent", f"message/{channel}/{first}"),
            ("reference", f"thread/{thread}"),
            ("reference", f"message/{channel}/{first}"),
            ("mentions", f"user/{world.user('bob')}"),
            ("mentions", f"user/{world.user('ana')}"),
        ]
        text = str(found[f"message/{channel}/{reply}"].text_content)
        assert text.startswith("> Ana: Why?\n\n@Bob see") and text.endswith("in #T")
        assert relationships(found[f"message/{channel}/{forward}"]) == [
            ("reference", "message/8/9")
        ]
        assert relationships(found[f"thread/{thread}"]) == [("parent", f"channel/{channel}")]

    def test_reactions_pins_and_edits_are_told(self, world: Discord) -> None:
        channel = world.channel(world.guild("Acme"), "general")
        sent = world.message(
            channel, "Hi", reactions=[_reaction("x", 2), _reaction("party", 3, "77")]
        )
        world.pin(channel, sent)
        world.edit(channel, sent, content="Hello")
        (found,) = records(world).values()
        assert found.metadata["reactions"] == {"x": 2, ":party:": 3}
        assert found.metadata["pinned"] is True
        assert found.timestamp is not None and found.timestamp > found.metadata["created_at"]

    @pytest.mark.parametrize(
        ("settings", "names"),
        [
            ({}, {"general", "dev", "dev-ops", "other"}),
            ({"guilds": ["Acme"]}, {"general", "dev", "dev-ops"}),
            ({"guilds": ["o*"]}, {"other"}),
            ({"channels": ["#Dev*"]}, {"dev", "dev-ops"}),
            ({"channels": ["team/*", "other"]}, {"dev-ops", "other"}),
            ({"channels": ["dev*"], "exclude": ["Team/dev-ops"]}, {"dev"}),
        ],
    )
    def test_servers_and_channels_are_chosen_by_names_and_patterns(
        self, world: Discord, settings: dict[str, Any], names: set[str]
    ) -> None:
        acme, others = world.guild("Acme"), world.guild("Others")
        team = world.channel(acme, "Team", CATEGORY)
        for guild, name, above in (
            (acme, "general", None),
            (acme, "dev", None),
            (acme, "dev-ops", team),
            (others, "other", None),
        ):
            world.message(world.channel(guild, name, parent_id=above), "Hi")
        found = records(world, **settings).values()
        assert {one.metadata["collection"].partition("#")[2] for one in found} == names

    def test_servers_and_channels_are_chosen_by_ids(self, world: Discord) -> None:
        acme, _ = world.guild("Acme"), world.guild("Others")
        one, two = (world.channel(acme, name) for name in ("one", "two"))
        for channel in (one, two):
            world.message(channel, "Hi")
        assert len(records(world, guilds=[acme], channels=[one])) == 1
        address = f"https://discord.com/channels/{acme}/{one}"
        assert len(records(world, guilds=[address], channels=[f"{address}/123"])) == 1
        assert not [path for path in asked(world) if path.startswith("users/@me/guilds")]

    def test_one_choice_is_one_source_however_it_is_written(self) -> None:
        made = [
            DiscordConnector("t", guilds=["2", "1"], channels=["#Dev"]),
            DiscordConnector("t", guilds=[1, 2], channels="dev"),  # type: ignore[list-item]
            DiscordConnector(
                "u", ["https://discord.com/channels/1", "2"], channels=["dev"], bots=False
            ),
        ]
        assert len({one.source_id() for one in made}) == 1
        assert DiscordConnector("t", guilds=["1"]).source_id() != made[0].source_id()

    def test_a_channel_that_names_no_last_message_is_asked_once(
        self, world: Discord, tmp_path: Path
    ) -> None:
        to = tmp_path / "kb.lance"
        acme = world.guild("Acme")
        told, empty = world.channel(acme, "told"), world.channel(acme, "empty")
        sent = world.message(told, "Hi")
        world.channels[told]["last_message_id"] = None
        assert run(world, to, threads=False).rows_written == 1
        before = len(world.served)
        run(world, to, threads=False)
        assert f"channels/{empty}/messages" not in asked(world, before)
        world.channels[told]["last_message_id"] = sent
        assert run(world, to, threads=False).rows_written == 0

    def test_without_attachments_none_is_told(self, world: Discord) -> None:
        channel = world.channel(world.guild("Acme"), "general")
        world.message(channel, "x", attachments=[world.upload(channel, "a.md", b"a")])
        (found,) = records(world, attachments="none").values()
        assert "attachments" not in found.metadata

    def test_what_was_written_before_a_start_is_left_out(self, world: Discord) -> None:
        channel = world.channel(world.guild("Acme"), "general", at=1_700_000_000)
        thread = world.thread(channel, "T")
        for holder in (channel, thread):
            world.message(holder, "Old", at=1_750_000_000)
            world.message(holder, "New", at=1_770_000_000)
        found = records(world, start="2026-01-01")
        assert [one.text_content for one in found.values()] == ["New", "New"]

    def test_a_channel_of_many_years_is_read_in_stretches(
        self, world: Discord, tmp_path: Path
    ) -> None:
        to = tmp_path / "kb.lance"
        channel = world.channel(world.guild("Acme"), "general", at=world.now - 2000 * DAY)
        # Around each border, and one conversation that goes over it.
        for days in (2000, 1271, 1270, 1269, 541, 540, 539, 3):
            for minutes in (0, 10):
                world.message(channel, f"{days}", at=world.now - days * DAY + minutes * MINUTE)
        made = connector(world)
        made.authenticate()
        assert len([one for one in made.partitions() if one.id.startswith("channel/")]) == 3
        assert run(world, to).rows_written == 8
        before = len(world.served)
        assert run(world, to).rows_written == 0
        assert len([one for one in asked(world, before) if one.endswith("/messages")]) == 1
        world.message(channel, "Now")
        assert run(world, to).rows_written == 1
        assert told_by(to) == told_by_fresh(world, tmp_path)


def _reaction(name: str, count: int, identifier: str | None = None) -> dict[str, Any]:
    return {
        "emoji": {"id": identifier, "name": name},
        "count": count,
        "count_details": {"burst": 0, "normal": count},
        "burst_colors": [],
        "me_burst": False,
        "me": False,
    }


class TestWhatCannotBeRead:
    def test_a_channel_that_the_bot_may_not_see_is_named_once_and_the_run_goes_on(
        self, world: Discord, tmp_path: Path
    ) -> None:
        to = tmp_path / "kb.lance"
        acme = world.guild("Acme")
        hidden, open_one = (
            world.channel(acme, "staff", at=world.now - 2000 * DAY),
            world.channel(acme, "general"),
        )
        for channel in (hidden, open_one):
            world.message(channel, "Hi")
        assert run(world, to).rows_written == 2
        world.overwrite(hidden, acme, deny=VIEW)
        world.message(open_one, "More")
        for mode in ("upsert", "mirror"):
            before, invalid = len(world.served), world.invalid
            receipt = run(world, to, mode=mode)
            assert "Acme / #staff" in " ".join(receipt.unread) and receipt.rows_deleted == 0
            assert len([one for one in asked(world, before) if hidden in one]) <= 2
            assert world.invalid - invalid <= 2
        assert len(stored(to)) == 2

    def test_a_channel_whose_history_is_hidden_is_not_taken_for_empty(
        self, world: Discord, tmp_path: Path
    ) -> None:
        to = tmp_path / "kb.lance"
        acme = world.guild("Acme")
        channel = world.channel(acme, "general")
        world.message(channel, "Hi")
        run(world, to)
        world.overwrite(channel, acme, deny=HISTORY)
        receipt = run(world, to)
        assert "Read Message History" in " ".join(receipt.unread)
        assert (receipt.rows_deleted, len(stored(to))) == (0, 1)

    def test_a_channel_whose_messages_are_all_deleted_is_empty(
        self, world: Discord, tmp_path: Path
    ) -> None:
        to = tmp_path / "kb.lance"
        channel = world.channel(world.guild("Acme"), "general")
        sent = world.message(channel, "Hi")
        run(world, to)
        world.delete(channel, sent)
        receipt = run(world, to)
        assert (receipt.rows_deleted, receipt.partial) == (1, ())

    @pytest.mark.parametrize("told", [True, False])
    def test_without_the_intent_for_content_nothing_is_stored(
        self, world: Discord, tmp_path: Path, told: bool
    ) -> None:
        channel = world.channel(world.guild("Acme"), "general")
        world.message(channel, "Hi")
        world.message(channel, "To you", mentions=["reader"] if told else [])
        world.intent = False
        with pytest.raises(ConnectorError, match="Message Content intent"):
            run(world, tmp_path / "kb.lance")
        assert not (tmp_path / "kb.lance").exists()

    def test_messages_without_content_that_are_no_sign_of_it_are_left_out(
        self, world: Discord
    ) -> None:
        channel = world.channel(world.guild("Acme"), "general")
        world.message(channel, "")
        world.message(channel, "", sticker_items=[{"id": "1", "name": "Wave", "format_type": 1}])
        world.message(channel, "", type=7)
        assert [one.text_content for one in records(world).values()] == ["Sticker: Wave"]

    def test_a_thread_that_vanishes_during_a_run_is_named(self, world: Discord) -> None:
        channel = world.channel(world.guild("Acme"), "general")
        for name in ("kept", "gone"):
            thread = world.thread(channel, name)
            world.message(thread, "x")
        world.gone.add(thread)
        made = connector(world)
        made.authenticate()
        assert len(made.sync_documents()) == 1
        assert list(made.get_stats()["skipped"]) == ["Acme / #general / gone"]

    def test_servers_and_channels_that_are_not_there_are_named(self, world: Discord) -> None:
        acme = world.guild("Acme")
        world.message(world.channel(acme, "general"), "Hi")
        made = connector(world, guilds=[acme, "999", "Nobody"], channels=["general", "none"])
        made.authenticate()
        assert len(made.sync_documents()) == 1
        assert set(made.get_stats()["skipped"]) == {"server 999", "server Nobody", "channel none"}

    @pytest.mark.parametrize("token", ["Bot x.y.z", "Bearer abc"])
    def test_a_token_with_its_kind_before_it_is_refused(self, world: Discord, token: str) -> None:
        with pytest.raises(ConfigError, match="the token of a bot alone"):
            connector(world, token=token).ensure_authenticated()

    def test_a_token_that_is_refused_ends_the_run(self, world: Discord, tmp_path: Path) -> None:
        world.guild("Acme")
        with pytest.raises(ConnectorError, match="401"):
            run(world, tmp_path / "kb.lance", token="no.such.token")
        assert len(world.served) == 1

    def test_a_bot_in_no_server_is_told_what_to_do(self, world: Discord, tmp_path: Path) -> None:
        with pytest.raises(ConnectorError, match=r"in no server.*invitations"):
            run(world, tmp_path / "kb.lance")
        world.guild("Acme")
        with pytest.raises(ConnectorError, match="in none of 123"):
            run(world, tmp_path / "kb.lance", guilds=["123"])

    @pytest.mark.parametrize(
        ("settings", "problem"),
        [
            ({"document": "page"}, "document is 'page'"),
            ({"gap": "soon"}, "gap"),
            ({"time_zone": "Mars"}, "time_zone"),
            ({"start": "long ago"}, "start is 'long ago'"),
            ({"edit_window": "x"}, "edit_window"),
            ({"requests_per_second": 0}, "requests_per_second"),
            ({"attachments": "all"}, "attachments"),
        ],
    )
    def test_arguments_that_make_no_sense_are_refused(
        self, settings: dict[str, Any], problem: str
    ) -> None:
        with pytest.raises(ConfigError, match=problem):
            DiscordConnector("t", **settings)

    def test_another_bot_is_not_taken_for_the_first(self, world: Discord, tmp_path: Path) -> None:
        to = tmp_path / "kb.lance"
        world.message(world.channel(world.guild("Acme"), "general"), "Hi")
        run(world, to)
        with Discord() as other:
            acme = other.guild("Acme")
            other.message(other.channel(acme, "general"), "Hi")
            other.users["reader"]["id"] = other.snowflake()
            with pytest.raises(CommitError, match="account"):
                run(other, to, mode="mirror")
            # Servers with ids are these, whichever bot reads them.
            assert run(other, to, mode="mirror", guilds=[acme]).rows_written == 1


class TestFiles:
    def test_files_are_read_once_and_their_addresses_are_not_kept(
        self, world: Discord, tmp_path: Path
    ) -> None:
        to = tmp_path / "kb.lance"
        channel = world.channel(world.guild("Acme"), "general")
        files = {
            "report.pdf": pdf(["Budget"]),
            "notes.md": b"# Notes",
            "photo.png": b"\x89PNG",
            "large.txt": b"x" * 5000,
        }
        sent = world.message(
            channel,
            "Files https://cdn.discordapp.com/attachments/1/2/old.png?ex=1&is=2&hm=sigold",
            attachments=[world.upload(channel, name, data) for name, data in files.items()],
        )
        settings = {"attachments": "text", "max_attachment_bytes": 4000}
        assert run(world, to, **settings).rows_written == 3
        found = {one.metadata["title"]: one for one in stored(to).values()}
        assert found["notes.md"].text_content == "# Notes"
        assert "Budget" in str(found["report.pdf"].text_content)
        whole = stored(to)[f"conversation/{channel}/{sent}"]
        assert [one["name"] for one in whole.metadata["attachments"]] == list(files)
        assert "Attachment: photo.png" in str(whole.text_content)
        assert relationships(found["notes.md"]) == [("parent", f"conversation/{channel}/{sent}")]
        assert {one[2] for one in world.files.asked} == {None}

        fetched = len(world.files.asked)
        assert run(world, to, **settings).rows_written == 0
        assert len(world.files.asked) == fetched
        stored_bytes = b"".join(p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())
        assert b"hm=sig" not in stored_bytes and b"&is=" not in stored_bytes

        world.delete(channel, sent)
        assert run(world, to, **settings).rows_deleted == 3

    def test_a_file_whose_address_has_expired_is_read_at_a_new_one(self, world: Discord) -> None:
        channel = world.channel(world.guild("Acme"), "general")
        world.message(channel, "x", attachments=[world.upload(channel, "a.md", b"# A")])
        made = connector(world, attachments="bytes")
        made.authenticate()
        items = made.sync_documents()
        (file,) = [one for one in items if made.is_file(one)]
        assert "hm=" not in json.dumps(items)
        world.files.ended.add("sig00000001")
        found = made.map_to_frame_record(file)
        assert (found.raw_data, found.raw_data_type) == (b"# A", "text/markdown")
        again = made.map_to_frame_record(FileItem.of(json.loads(json.dumps(file))))
        assert again == found

    def test_a_file_that_cannot_be_had_is_named_without_its_signature(
        self, world: Discord, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        channel = world.channel(world.guild("Acme"), "general")
        world.message(channel, "x", attachments=[world.upload(channel, "a.md", b"# A")])
        world.files.files.clear()
        receipt = run(world, tmp_path / "kb.lance", attachments="text")
        assert (receipt.failed, receipt.rows_written) == (1, 1)
        told = "".join([repr(receipt), *capfd.readouterr()])
        files = b"".join(p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())
        assert "a.md" in told and "hm=sig" not in told and b"hm=sig" not in files


class TestUnderLimits:
    def test_a_bucket_that_is_used_up_holds_up_no_other_channel(
        self, world: Discord, tmp_path: Path
    ) -> None:
        acme = world.guild("Acme")
        for name in ("one", "two"):
            channel = world.channel(acme, name)
            for number in range(550):
                world.message(channel, f"{number}")
        world.limits.bucket = (5, 3.0)
        run(world, tmp_path / "kb.lance", threads=False)
        told = [one for one in world.served if one.asked.path.endswith("/messages")]
        first = told[0].asked.path
        # Each used up its bucket before one of them could go on.
        assert [one.asked.path == first for one in told[:10]].count(True) == 5
        assert len(told) == 12 and {one.status for one in told} == {200}

    def test_limits_of_all_and_of_others_are_waited_for(
        self, world: Discord, tmp_path: Path
    ) -> None:
        acme = world.guild("Acme")
        for number in range(6):
            world.message(world.channel(acme, f"c{number}"), "Hi")
        world.limits.in_a_second = 20
        world.limits.shared = {"/channels/{channel_id}/messages"}
        receipt = run(world, tmp_path / "kb.lance", threads=False, requests_per_second=20)
        assert receipt.rows_written == 6
        globally = [one for one in world.served if one.status == 429]
        assert len(globally) == 6

    def test_a_limit_that_outlasts_the_wait_ends_the_run_in_one_message(
        self, world: Discord, tmp_path: Path
    ) -> None:
        channel = world.channel(world.guild("Acme"), "general")
        for number in range(150):
            world.message(channel, f"{number}")
        world.limits.bucket = (1, 3600.0)
        with pytest.raises(ConnectorError, match="wait"):
            run(world, tmp_path / "kb.lance", max_wait=1)

    @pytest.mark.parametrize("at", [2, 5, 6, 8])
    def test_a_request_whose_connection_breaks_is_sent_again(
        self, world: Discord, tmp_path: Path, at: int
    ) -> None:
        channel = world.channel(world.guild("Acme"), "general")
        world.message(channel, "Hi")
        world.message(world.thread(channel, "T"), "Hi")
        world.closing = lambda asked: asked.number == at
        assert run(world, tmp_path / "kb.lance").rows_written == 2

    @pytest.mark.soak
    def test_ended_at_each_request_the_next_run_ends_right(
        self, world: Discord, tmp_path: Path
    ) -> None:
        acme = world.guild("Acme")
        channel = world.channel(acme, "general")
        forum = world.channel(acme, "help", FORUM)
        for number in range(120):
            world.message(channel, f"{number}")
        for number in range(3):
            world.archive(world.post(forum, f"Post {number}", "Text"))
        world.message(world.thread(channel, "T"), "Hi")
        run(world, tmp_path / "whole.lance")
        whole = told_by(tmp_path / "whole.lance")
        # Who the bot is was asked for once.
        for number in range(1, len(world.served) - 1):
            to = tmp_path / f"{number}.lance"
            first = len(world.served) + number
            world.closing = lambda asked, first=first: asked.number >= first  # type: ignore[misc]
            with pytest.raises(ConnectorError):
                run(world, to)
            world.closing = None
            run(world, to)
            assert told_by(to) == whole

    @pytest.mark.soak
    def test_two_servers_are_read_whole_within_the_limits(
        self, world: Discord, tmp_path: Path
    ) -> None:
        acme, other = world.guild("Acme"), world.guild("Other")
        for number in range(12):
            channel = world.channel(acme if number % 2 else other, f"c{number}")
            for minutes in range(3300):
                world.message(channel, f"{minutes}", at=world.now - (40 * 60 + minutes) * MINUTE)
        forum = world.channel(acme, "help", FORUM, available_tags=["bug"])
        for number in range(300):
            post = world.post(forum, f"Post {number}", "Text", ["bug"])
            world.message(post, "Answer", "bob")
            if number < 250:
                world.archive(post)
        world.limits.bucket, world.limits.in_a_second = (5, 1.0), 50
        to = tmp_path / "kb.lance"
        receipt = run(world, to, document="thread", requests_per_second=50)
        assert receipt.rows_written == 12 * 3300 + 300
        refused = sum(one.status == 429 for one in world.served)
        assert refused < 0.05 * len(world.served)
        # One for each hundred messages and each post, the lists of archived threads of 13 channels
        # (the forum's has three pages), and what tells of the bot and its servers.
        assert len(world.served) - refused <= 12 * 34 + 300 + 15 + 8

    @pytest.mark.soak
    def test_a_hundred_thousand_messages_are_read_in_little_memory(self) -> None:
        context = multiprocessing.get_context("fork")
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs, 100_000), daemon=True)
        process.start()
        url = ours.recv()
        subject = Subject(
            lambda: DiscordConnector(
                TOKEN, base_url=url, requests_per_second=5000, document="message"
            ),
            limit=100_000,
        )
        (found,) = run_checks(subject, ["memory_stays_bounded"])
        process.terminate()
        assert found.status is Status.PASSED, found


def _serve(told: Any, count: int) -> None:
    """Serves a world with so many messages, and tells its address."""
    with Discord() as world:
        channel = world.channel(world.guild("Acme"), "general")
        began = world.now - DAY
        for number in range(count):
            world.message(channel, f"Message {number}", at=began + number / 10)
        told.send(world.base_url)
        threading.Event().wait()


class TestDiscordConnector(ConnectorTests):
    @pytest.fixture(autouse=True)
    def _world(self, world: Discord) -> None:
        self.world = world
        acme = world.guild("Acme")
        channel = world.channel(acme, "general")
        for number in range(4):
            world.message(channel, f"Message {number}", at=world.now - number * DAY)
            world.message(world.thread(channel, f"Thread {number}"), "Text")

    def connector(self) -> DiscordConnector:
        return connector(self.world)


def test_a_look_shows_what_the_bot_may_read_and_three_frames(world: Discord) -> None:
    acme = world.guild("Acme")
    general, hidden, quiet = (world.channel(acme, name) for name in ("general", "staff", "mute"))
    for number in range(3):
        world.message(general, f"Message {number}", at=world.now - number * DAY)
    for name in ("T", "U"):
        world.message(world.thread(general, name), "Text")
    world.overwrite(hidden, acme, deny=VIEW)
    world.overwrite(quiet, acme, deny=HISTORY)
    found = look(connector(world))
    assert found.access == [
        "bot reader",
        "server Acme: #general",
        "not #staff: the bot lacks the permission View Channels there",
        "not #mute: the bot lacks the permission Read Message History there",
    ]
    assert [one.title for one in found.samples] == ["Message 2", "T"] and not found.problem
    assert len(found.partial) == 2  # the channels that it may not see
    world.intent = False
    found = look(connector(world))
    assert found.access[1] == "no content of messages: the Message Content intent is off"
    assert "Message Content intent" in found.problem


def test_no_credential_is_in_what_travels(world: Discord) -> None:
    made = connector(world)
    assert TOKEN not in repr(made) and TOKEN not in str(made.shown_arguments())
    referenced = DiscordConnector("env:DISCORD_TOKEN")
    assert b"env:DISCORD_TOKEN" in pickle.dumps(referenced)


_READS = """
import asyncio, discord, discord.http
discord.http.Route.BASE = given[0]

async def main():
    found = {}
    client = discord.Client(intents=discord.Intents.all())
    async with client:
        await client.login(given[1])
        guild = await client.fetch_guild(int(given[2]))
        places = []
        for channel in await guild.fetch_channels():
            places += [channel] if isinstance(channel, discord.TextChannel) else []
            places += [one async for one in channel.archived_threads(limit=None)]
        for place in [*places, *await guild.active_threads()]:
            async for one in place.history(limit=None, oldest_first=True):
                found[str(one.id)] = one.clean_content
    tell(found)

asyncio.run(main())
"""


def test_discord_py_finds_the_same_messages(world: Discord) -> None:
    acme = world.guild("Acme")
    general = world.channel(acme, "general")
    forum = world.channel(acme, "help", FORUM)
    for number in range(130):
        world.message(
            general, f"Message {number} **bold** `code` <@{world.user('bob')}>", mentions=["bob"]
        )
    for number in range(6):
        post = world.post(forum, f"Post {number}", f"Text {number}")
        if number % 2:
            world.archive(post)
    found = python("discord", _READS, world.base_url, TOKEN, acme)
    ours = records(world, document="message")
    assert {key.rpartition("/")[2]: one.text_content for key, one in ours.items()} == found
    assert len(found) == 136
