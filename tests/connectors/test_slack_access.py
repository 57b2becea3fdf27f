"""What the slack connector may read, who may read it then, and how often it asks."""

from __future__ import annotations

import logging
import multiprocessing
import pickle
import threading
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from contextframe_beam import FrameDataset
from contextframe_beam.connectors.look import look
from contextframe_beam.connectors.slack.connector import SlackConnector
from contextframe_beam.connectors.slack.limits import Limits
from contextframe_beam.connectors.testing import ConnectorTests, Status, Subject, run_checks
from contextframe_beam.errors import ConfigError, ConnectorError
from tests.support.slack_runs import connector, items, methods, run, stored, told, world
from tests.worlds.clients import python
from tests.worlds.described import Answer, Window
from tests.worlds.slack_blocks import of_every_type
from tests.worlds.slack_world import TEAM, TOKEN, SlackWorld

__all__ = ["world"]


class TestWhatCannotBeRead:
    def test_channels_without_the_app_are_named_and_a_mirror_keeps_them(
        self, world: SlackWorld, tmp_path: Path
    ) -> None:
        to = tmp_path / "kb.lance"
        secret = world.channel("secret", "private_channel")
        general = world.channel("general")
        for channel in (secret, general):
            world.say(channel, "Hi")
        run(world, to)
        world.channels[secret]["is_member"] = False
        world.channel("random", member=False)
        made = connector(world, channels=["general", "secret", "random"])
        made.authenticate()
        list(made.partitions())
        skipped = made.get_stats()["skipped"]
        assert "there is no such channel" in skipped["secret"]
        assert "invite it" in skipped["#random"]
        receipt = run(world, to, "mirror")
        assert receipt.rows_deleted == 0 and "#random" in receipt.unread[0]
        # A later run only names those that it could read before.
        assert run(world, to).unread == ()
        world.channels[general]["is_member"] = False
        assert ["#general" in one for one in run(world, to).unread] == [True]

    def test_a_channel_that_is_refused_in_mid_run_is_named_and_the_rest_is_read(
        self, world: SlackWorld, tmp_path: Path
    ) -> None:
        to = tmp_path / "kb.lance"
        gone, general = world.channel("gone"), world.channel("general")
        world.say(general, "Hi")

        def leave(asked: Any) -> bool:
            if asked.path.endswith("history"):
                world.channels[gone]["is_member"] = False
            return False

        world.closing = leave
        receipt = run(world, to)
        assert receipt.rows_written == 1 and "#gone" in receipt.unread[0]
        world.channels[gone]["is_member"] = True
        world.say(gone, "Back")
        world.closing = None
        assert run(world, to).rows_written == 1

    def test_a_type_of_channels_without_its_scope_is_named(self, world: SlackWorld) -> None:
        world.say(world.channel("general"), "Hi")
        world.scopes -= {"groups:read"}
        made = connector(world)
        assert len(made.sync_documents()) == 1
        assert "lacks the scope groups:read" in made.get_stats()["skipped"]["private_channels"]

    def test_public_channels_are_joined_where_that_is_wanted(self, world: SlackWorld) -> None:
        world.say(world.channel("random", member=False), "Hi")
        old = world.channel("old", member=False, is_archived=True)
        world.say(old, "Hi")
        assert len(items(world, join=True)) == 1
        assert world.sent("conversations.join") == 1
        # A person reads public channels without being in them.
        world.is_bot = False
        assert len(items(world)) == 2

    def test_a_thread_that_goes_in_mid_run_is_named_and_deleted_by_the_next(
        self, world: SlackWorld, tmp_path: Path
    ) -> None:
        to = tmp_path / "kb.lance"
        channel = world.channel("general")
        thread = world.say(channel, "Question")
        run(world, to)
        reply = world.say(channel, "Answer", thread=thread)

        def delete(asked: Any) -> bool:
            if asked.path.endswith("replies") and thread in world.messages[channel]:
                world.delete(channel, thread)
                world.delete(channel, reply)
            return False

        world.closing = delete
        receipt = run(world, to)
        assert "thread_not_found" in receipt.unread[0] and len(stored(to)) == 1
        assert run(world, to).rows_deleted == 1

    def test_the_token_of_another_workspace_is_refused(self, world: SlackWorld) -> None:
        assert connector(world, team=TEAM).authenticate()
        assert connector(world, team=TEAM).source_id() != connector(world).source_id()
        with pytest.raises(ConfigError, match=f"Acme \\({TEAM}\\), and team is T0OTHER"):
            connector(world, team="T0OTHER").authenticate()

    def test_messages_that_the_plan_hides_stay(self, world: SlackWorld, tmp_path: Path) -> None:
        to = tmp_path / "kb.lance"
        channel = world.channel("general")
        for number in range(3):
            world.say(channel, f"Message {number}")
        run(world, to)

        def hide(asked: Any) -> bool:
            if asked.path.endswith("history"):
                answer = deepcopy(world.answer(asked))
                told = {**answer.body, "messages": answer.body["messages"][:2], "is_limited": True}
                world.scripted.append(Answer(200, answer.headers, told))
            return False

        world.closing = hide
        receipt = run(world, to, "mirror")
        assert receipt.rows_deleted == 0 and "limit of its plan" in receipt.kept

    @pytest.mark.parametrize("error", ["invalid_auth", "account_inactive", "token_revoked"])
    def test_a_token_that_is_refused_ends_the_run(self, world: SlackWorld, error: str) -> None:
        world.say(world.channel("general"), "Hi")

        def refuse(asked: Any) -> bool:
            if asked.path.endswith("history"):
                world.scripted.append(Answer(body={"ok": False, "error": error}))
            return False

        world.closing = refuse
        with pytest.raises(ConnectorError, match=error):
            items(world)

    @pytest.mark.parametrize(
        ("settings", "reason"),
        [
            ({"token": None}, "token"),
            ({"client_id": "x"}, "token"),
            ({"types": ["private"]}, "private_channel"),
            ({"types": []}, "types is empty"),
            ({"document": "threads"}, "did you mean"),
            ({"time_zone": "Mars"}, "no zone"),
            ({"thread_window": "soon"}, "thread_window"),
            ({"start": "yesterday"}, "start"),
            ({"attachments": "all"}, "attachments"),
            ({"readers": "all"}, "readers"),
            ({"app": "public"}, "unlisted"),
            ({"app": "unlisted", "page_size": 200}, "1 to 15"),
            ({"page_size": 1000}, "1 to 999"),
            ({"requests_per_minute": 0}, "more than 0"),
        ],
    )
    def test_arguments_without_sense_are_refused(self, settings, reason):
        with pytest.raises(ConfigError, match=reason):
            SlackConnector(**{"token": TOKEN, **settings})


class TestWhoMayRead:
    def test_a_public_channel_is_the_teams_and_a_private_one_its_members(
        self, world: SlackWorld
    ) -> None:
        bot = world.user("Robot", is_bot=True)
        guest = world.user("Guest", listed=False)
        world.hidden_people[guest]["profile"].pop("email")
        channels = {
            world.channel("general"): [f"slack-team:{TEAM}"],
            world.channel("shared", shared_team_ids=[TEAM, "T2"]): [
                *(f"slack-team:{TEAM}", "slack-team:T2")
            ],
            world.channel("team", "private_channel", members=[world.ada, bot, guest]): [
                *(f"user:{guest}", "user:ada@acme.test")
            ],
            world.channel("", "im", members=[world.bob]): ["user:bob@acme.test"],
        }
        for channel in channels:
            world.say(channel, "Hi")
        found = items(world, types=["public_channel", "private_channel", "im"])
        assert {one["channel"]["id"]: one["channel"]["readers"] for one in found} == channels
        by_channel = {one["channel"]["id"]: one for one in items(world, readers="channel")}
        private = list(channels)[2]
        assert by_channel[private]["channel"]["readers"] == [f"slack-channel:{private}"]
        world.scopes -= {"users:read.email"}
        assert [f"user:{world.ada}"] == [
            reader
            for one in items(world)
            for reader in one["channel"]["readers"]
            if world.ada in reader
        ]

    def test_who_leaves_a_channel_finds_nothing_of_it_any_more(
        self, world: SlackWorld, tmp_path: Path
    ) -> None:
        to, settings = tmp_path / "kb.lance", {"attachments": "text"}
        channel = world.channel("team", "private_channel", members=[world.ada, world.bob])
        world.say(channel, "An old secret", files=[world.upload("plan.txt", b"secret plan")])
        world.now += 90 * 86_400
        world.say(channel, "A secret")
        run(world, to, **settings)

        def found_by(name: str) -> int:
            dataset = FrameDataset.open(str(to))
            return len(dataset.search("secret", readers=[f"user:{name}@acme.test"]))

        assert (found_by("bob"), found_by("ada")) == (3, 3)
        world.members[channel].remove(world.bob)
        asked = len(world.served)
        assert run(world, to, **settings).readers_changed == 2
        # All messages are listed again, and no file is read.
        assert not [one for one in methods(world, asked) if "files" in one or "replies" in one]
        assert (found_by("bob"), found_by("ada")) == (0, 3)
        assert run(world, to, **settings).readers_changed == 0


class TestTokens:
    def rotating(self, world: SlackWorld, kept: Path) -> SlackConnector:
        kept.write_text(world.refresh_token)
        return connector(
            world,
            token=None,
            client_id="1.2",
            client_secret="secret-of-the-app",
            refresh_token=f"file:{kept}",
            page_size=10,
        )

    def test_a_token_that_ends_in_mid_run_is_renewed_and_the_new_one_kept(
        self, world: SlackWorld, tmp_path: Path
    ) -> None:
        channel = world.channel("general")
        for number in range(30):
            world.say(channel, f"Message {number}")
        kept = tmp_path / "refresh"
        made = self.rotating(world, kept)

        def end(asked: Any) -> bool:
            if asked.path.endswith("history") and not world.ended & world.tokens:
                world.ended |= world.tokens
                world.closing = None
            return False

        world.closing = end
        assert len(made.sync_documents()) == 30
        assert world.sent("oauth.v2.access") == 2
        assert kept.read_text().strip() == world.refresh_token

    def test_credentials_are_in_no_pickle_and_no_log(
        self, world: SlackWorld, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setenv("SLACK_TOKEN", TOKEN)
        world.say(world.channel("general"), "Hi", files=[world.upload("a.txt", b"a")])
        with caplog.at_level(logging.DEBUG):
            found = items(world, token="env:SLACK_TOKEN", attachments="text")
        made = SlackConnector(token="env:SLACK_TOKEN", base_url=world.api)
        assert TOKEN.encode() not in pickle.dumps([made, found])
        assert "conversations.history" in caplog.text and TOKEN not in caplog.text


class TestLimits:
    @pytest.mark.parametrize(
        ("app", "requests", "minutes"),
        [
            ("internal", {"conversations.history": 100}, 2),
            ("internal", {"conversations.history": 50, "conversations.replies": 1000}, 20),
            ("unlisted", {"conversations.history": 60}, 60),
            ("internal", {}, 0),
        ],
    )
    def test_methods_do_not_wait_for_each_other(self, app, requests, minutes):
        assert Limits.of(app, None, None).minutes(requests) == minutes

    @pytest.mark.parametrize(
        ("app", "channels", "known", "told"),
        [
            (
                "internal",
                120,
                0,
                "120 channels: at least as many requests for messages, at 50 a minute (2 minutes). "
                "Slack does not tell how many messages there are: each 10,000 take 50 requests (up "
                "to a minute), and each 1,000 threads a request each (20 minutes)",
            ),
            (
                "unlisted",
                120,
                0,
                "120 channels: at least as many requests for messages, at 1 a minute (2 hours). "
                "Slack does not tell how many messages there are: each 10,000 take 667 requests "
                "(11 hours), and each 1,000 threads a request each (17 hours)",
            ),
            (
                "internal",
                1,
                1,
                "1 channel: about 1 request for messages like the last run, at 50 a minute (up to "
                "a minute), and one for each thread that changed",
            ),
        ],
    )
    def test_a_run_says_how_long_it_takes(self, app, channels, known, told):
        assert Limits.of(app, None, None).estimate(channels, known) == told

    def test_an_unlisted_app_asks_once_a_minute_for_15_messages(self) -> None:
        limits = Limits.of("unlisted", None, None)
        assert limits.messages == 15
        paths = limits.budget("x")["paths"]
        assert paths["conversations.history"] == paths["conversations.replies"] == {"per_minute": 1}
        assert paths["users.list"] == {"per_minute": 20}

    def test_a_limit_of_one_method_holds_up_no_other(self, world: SlackWorld) -> None:
        world.say(world.channel("general"), "Hi")
        made = connector(world)
        made.authenticate()
        refused = threading.Event()

        def limit(asked: Any) -> bool:
            if asked.path.endswith("users.info") and not refused.is_set():
                refused.set()
                answer = {"ok": False, "error": "ratelimited"}
                world.scripted.append(Answer(429, {"Retry-After": "2"}, answer))
            return False

        world.closing = limit
        waiting = threading.Thread(
            target=made._api.call, args=("users.info",), kwargs={"user": world.ada}
        )
        waiting.start()
        refused.wait()
        assert len(list(made.partitions())) == 1
        assert len(made.fetch_page(next(iter(made.partitions())), None).items) == 1
        assert methods(world)[-1] == "conversations.history"
        waiting.join()
        assert methods(world)[-1] == "users.info"

    def test_a_limit_that_outlasts_the_wait_fails_in_one_message(
        self, world: SlackWorld, tmp_path: Path
    ) -> None:
        world.channel("general")
        world.limits = {"conversations.list": Window(1, 900.0)}
        world.limits["conversations.list"].wait()
        with pytest.raises(ConnectorError, match=r"asks to wait .* s more, and max_wait is 0.1 s"):
            run(world, tmp_path / "kb.lance", max_wait=0.1)

    @pytest.mark.parametrize("at", [2, 3, 4, 5])
    def test_a_request_whose_connection_breaks_is_sent_again(
        self, world: SlackWorld, at: int
    ) -> None:
        channel = world.channel("general")
        world.say(channel, "Answer", thread=world.say(channel, "Question"))
        world.closing = lambda asked: asked.number == at
        made = connector(world)
        made.authenticate()
        assert [one.document.metadata["message_count"] for one in made.sync_documents()] == [2]

    @pytest.mark.soak
    def test_with_the_limits_of_slack_hardly_any_request_is_refused(
        self, world: SlackWorld, tmp_path: Path
    ) -> None:
        for number in range(60):
            world.say(world.channel(f"c{number}"), "Hi")
        with world.limited():
            receipt = run(world, tmp_path / "kb.lance", requests_per_minute=None)
        refused = [one for one in world.served if one.status == 429]
        assert receipt.rows_written == 60 and len(refused) < 0.05 * len(world.served)

    @pytest.mark.soak
    def test_ended_at_each_request_the_next_run_ends_right(
        self, world: SlackWorld, tmp_path: Path
    ) -> None:
        settings = {"attachments": "text"}
        general, team = world.channel("general"), world.channel("team", "private_channel")
        thread = world.say(general, "Question", files=[world.upload("a.txt", b"a")])
        world.say(general, "Answer", world.bob, thread)
        world.say(team, "Plan")
        run(world, tmp_path / "whole.lance", **settings)
        whole = told(tmp_path / "whole.lance")
        for number in range(1, len(world.served)):
            to = tmp_path / f"{number}.lance"
            first = len(world.served) + number
            world.closing = lambda asked, first=first: asked.number >= first  # type: ignore[misc]
            with pytest.raises(ConnectorError):
                run(world, to, **settings)
            world.closing = None
            run(world, to, **settings)
            assert told(to) == whole

    @pytest.mark.soak
    def test_a_hundred_thousand_messages_are_read_in_little_memory(self) -> None:
        # In a process of its own, since a world keeps all there is in memory.
        context = multiprocessing.get_context("fork")
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve_messages, args=(theirs, 100_000), daemon=True)
        process.start()
        url = ours.recv()
        subject = Subject(
            lambda: SlackConnector(token=TOKEN, base_url=url, requests_per_minute=600_000),
            limit=100_000,
        )
        (found,) = run_checks(subject, ["memory_stays_bounded"])
        process.terminate()
        assert found.status is Status.PASSED, found


def _serve_messages(told: Any, count: int) -> None:
    """Serves a world with so many messages, and tells its address."""
    with SlackWorld() as world:
        channels = [world.channel(f"c{number}") for number in range(4)]
        for number in range(count):
            world.say(channels[number % 4], f"Message {number}")
        told.send(world.api)
        threading.Event().wait()


class TestSlackConnector(ConnectorTests):
    @pytest.fixture(autouse=True)
    def _world(self, world: SlackWorld) -> None:
        self.world = world
        for name in ("general", "random"):
            channel = world.channel(name)
            for number in range(4):
                thread = world.say(channel, f"Question {number}")
                world.say(channel, "Answer", thread=thread)

    def connector(self) -> SlackConnector:
        return connector(self.world)


SECOND_OPINION = """
from slack_sdk import WebClient
from slack_sdk.errors import SlackApiError

url, token, channel, thread = given
client = WebClient(token=token, base_url=url)

def listed(call, name, **arguments):
    found = []
    for page in call(**arguments):
        found += page[name]
    return found

def refused(call):
    try:
        call()
    except SlackApiError as error:
        return error.response["error"]

history = listed(client.conversations_history, "messages", channel=channel, limit=50)
replies = listed(client.conversations_replies, "messages", channel=channel, ts=thread, limit=50)
tell({
    "team": client.auth_test()["team"],
    "channels": [one["name"] for one in listed(client.conversations_list, "channels", limit=1)],
    "people": [one["name"] for one in listed(client.users_list, "members", limit=1)],
    "history": [one["ts"] for one in history],
    "replies": sorted({one["ts"] for one in replies}),
    "groups": client.usergroups_list()["usergroups"],
    "unauthorized": refused(WebClient(token="bad", base_url=url).auth_test),
    "missing": refused(lambda: client.conversations_info(channel="C0NOWHERE")),
})
"""


def test_slacks_own_client_reads_the_same_world(world: SlackWorld) -> None:
    channel = world.channel("general")
    world.channel("random")
    thread = world.say(channel, "Question", blocks=of_every_type())
    replies = [world.say(channel, f"Answer {number}", world.bob, thread) for number in range(120)]
    for number in range(130):
        world.say(channel, f"Message {number}")
    found = python("slack_sdk", SECOND_OPINION, world.api, TOKEN, channel, thread)

    ours = [one["path"].partition("/")[2] for one in items(world)]
    assert sorted(found["history"]) == sorted(ours) and len(ours) == 131
    assert found["replies"] == sorted([thread, *replies])
    assert (found["team"], found["channels"]) == ("Acme", ["general", "random"])
    assert (found["people"], found["groups"]) == (["ada", "bob"], [])
    assert (found["unauthorized"], found["missing"]) == ("invalid_auth", "channel_not_found")


def test_a_look_shows_what_the_app_may_read_and_three_frames(world: SlackWorld) -> None:
    for name in ("general", "random"):
        channel = world.channel(name)
        world.say(channel, f"Answer in {name}", thread=world.say(channel, f"Question in {name}"))
    world.say(channel, "One more")
    world.scopes -= {"users:read.email"}
    found = look(connector(world))
    assert found.access[:2] == [
        f"Acme ({TEAM}, https://acme.slack.test/), with the token of a bot",
        "scopes that are missing: users:read.email",
    ]
    assert found.access[2].startswith("2 channels: at least as many requests")
    assert "messages of the last 30 days" in found.access[3]
    assert found.access[4:] == ["#general (public channel)", "#random (public channel)"]
    assert len(found.samples) == 3 and found.ok
    assert found.samples[0].text.startswith("**Ada**")
