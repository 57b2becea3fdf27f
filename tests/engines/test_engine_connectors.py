"""Connectors of services and vaults on Flink with two worker processes: the rows of one process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lance
import pytest

from contextframe_beam.connectors.base import BaseConnector
from contextframe_beam.connectors.discord.connector import DiscordConnector
from contextframe_beam.connectors.github.connector import GitHubConnector
from contextframe_beam.connectors.google_drive.connector import GoogleDriveConnector
from contextframe_beam.connectors.linear.connector import LinearConnector
from contextframe_beam.connectors.notion.connector import NotionConnector
from contextframe_beam.connectors.obsidian.connector import ObsidianConnector
from contextframe_beam.connectors.slack.connector import SlackConnector
from contextframe_beam.pipelines.ingest import ingest
from tests.support.engines import Engines, engines, worker_pool
from tests.worlds.discord_world import FORUM, Discord
from tests.worlds.discord_world import TOKEN as BOT
from tests.worlds.drive_files import BOB, may
from tests.worlds.drive_world import REFRESH_TOKEN, DriveWorld
from tests.worlds.github_world import GitHub
from tests.worlds.linear_world import KEY, LinearWorld
from tests.worlds.notion_blocks import block, hosted
from tests.worlds.notion_world import TOKEN, NotionWorld
from tests.worlds.slack_world import TOKEN as SLACK_TOKEN
from tests.worlds.slack_world import SlackWorld

__all__ = ["engines"]

pytestmark = [pytest.mark.engine, pytest.mark.xdist_group("FlinkRunner")]


@pytest.fixture
def flink(engines: Engines, tmp_path: Path) -> Iterator[dict[str, Any]]:
    """Gives the arguments of a run on Flink, whose two workers share nothing with this process."""
    engine = engines.get("FlinkRunner")
    tokens = {
        "LINEAR_KEY": KEY,
        "NOTION_TOKEN": TOKEN,
        "GITHUB_TOKEN": "ghp_all",
        "DISCORD_TOKEN": BOT,
        "SLACK_TOKEN": SLACK_TOKEN,
        "DRIVE_TOKEN": REFRESH_TOKEN,
        "DRIVE_SECRET": "secret-of-the-client",
    }
    with worker_pool(tmp_path, **tokens) as pool:
        options = (f"--environment_config={pool}", "--sdk_worker_parallelism=2")
        arguments = engine.arguments(*options, workers="EXTERNAL")
        yield {"runner": engine.runner, "beam_args": arguments}


def rows_of(kb: Path) -> Any:
    columns = ["uuid", "text_content", "title", "x_partition", "x_digest"]
    table = lance.dataset(str(kb)).to_table(columns, filter="x_state IS NULL")
    return table.sort_by([("uuid", "ascending")])


def compare(folder: Path, connector: BaseConnector, how: dict[str, Any], mode: str) -> Any:
    """Runs a connector here and on Flink, and returns the receipt of Flink's run."""
    ingest(connector, str(folder / "here.lance"), mode=mode, embed_dim=2)
    receipt = ingest(connector, str(folder / "there.lance"), mode=mode, embed_dim=2, **how)
    assert rows_of(folder / "there.lance").equals(rows_of(folder / "here.lance"))
    return receipt


def test_notion(flink: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTION_TOKEN", TOKEN)
    with NotionWorld() as world:
        home = world.page("Home", blocks=[block("toggle", "a", below=[block("paragraph", "b")])])
        world.add(home, hosted("file", world.upload("a.md", b"# A"), name="a.md"))
        sources = [world.data_source(f"Table {number}", home) for number in range(3)]
        rows = [world.page(f"Row {n}", sources[n % 3]) for n in range(30)]
        world.comment(home, "Nice")
        world.now += 3600
        connector = NotionConnector(
            token="env:NOTION_TOKEN",
            base_url=world.url,
            requests_per_second=5000,
            attachments="text",
        )
        assert compare(tmp_path, connector, flink, "upsert").rows_written == 36
        world.edit(rows[0], "Edited.")
        world.trash(rows[1])
        world.now += 3600
        receipt = compare(tmp_path, connector, flink, "mirror")
        assert (receipt.rows_written, receipt.rows_deleted) == (1, 1)
        assert world.problems == []


def test_linear(flink: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LINEAR_KEY", KEY)
    with LinearWorld() as world:
        teams = [world.team(key, key.title()) for key in ("ENG", "OPS", "SEC")]
        issues = [world.issue(teams[n % 3], f"Issue {n}", "Text") for n in range(60)]
        for issue in issues[:20]:
            world.comment(issue)
        world.edit(issues[0], description=f"[a.md]({world.upload('a', b'# A')})")
        world.update(world.project("App", *teams))
        connector = LinearConnector(
            token="env:LINEAR_KEY",
            base_url=world.url,
            uploads_url=f"{world.url}/uploads",
            attachments="text",
        )
        assert compare(tmp_path, connector, flink, "upsert").rows_written == 60 + 20 + 1 + 2
        world.edit(issues[1], title="Edited")
        world.trash(issues[2])
        receipt = compare(tmp_path, connector, flink, "upsert")
        assert (receipt.rows_written, receipt.rows_deleted) == (1, 2)
        world.delete(issues[3])
        receipt = compare(tmp_path, connector, flink, "mirror")
        assert (receipt.rows_written, receipt.rows_deleted) == (0, 2)
        assert world.problems == []


def test_github(flink: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_TOKEN", "ghp_all")
    with GitHub() as world:
        repositories = [world.add(f"acme/{name}") for name in ("app", "lib", "old")]
        for one in repositories:
            for number in range(1, 21):
                one.add_issue(f"Issue {number}", f"See #{number - 1}", pull=number % 5 == 0)
            one.add_comment(3, "Yes")
            one.add_review(5, "Good")
            one.commit({"README.md": "# A\n", "a.md": "a\n", "link.md": "one\ntwo\n"})
        connector = GitHubConnector(
            organizations=["acme"], token="env:GITHUB_TOKEN", base_url=world.url
        )
        assert compare(tmp_path, connector, flink, "upsert").rows_written == 3 * (20 + 2 + 3)
        repositories[0].edit_issue(2, title="Edited")
        repositories[1].commit({"a.md": None, "b.md": "b\n"})
        receipt = compare(tmp_path, connector, flink, "upsert")
        assert (receipt.rows_written, receipt.rows_deleted) == (2, 1)
        repositories[2].delete_issue(3)
        receipt = compare(tmp_path, connector, flink, "mirror")
        assert (receipt.rows_written, receipt.rows_deleted) == (0, 2)
        assert world.problems == []


def test_discord(flink: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISCORD_TOKEN", BOT)
    with Discord() as world:
        acme = world.guild("Acme")
        forum = world.channel(acme, "help", FORUM, available_tags=["bug"])
        posts = [world.post(forum, f"Post {number}", "Text", ["bug"]) for number in range(12)]
        for one in posts[:6]:
            world.archive(one)
        channels = [world.channel(acme, f"channel-{number}") for number in range(3)]
        for channel in channels:
            for hours in range(20):
                world.message(channel, f"Message {hours}", at=world.now - hours * 3600)
        files = [world.upload(channels[0], "a.md", b"# A")]
        last = world.message(channels[0], "A file", attachments=files)
        connector = DiscordConnector(
            "env:DISCORD_TOKEN",
            base_url=world.base_url,
            requests_per_second=5000,
            attachments="text",
            document="thread",
        )
        assert compare(tmp_path, connector, flink, "upsert").rows_written == 12 + 3 * 20 + 2
        world.edit(channels[1], max(world.messages[channels[1]], key=int), content="Edited")
        world.message(posts[0], "Once more")
        world.delete(channels[0], last)
        receipt = compare(tmp_path, connector, flink, "upsert")
        assert (receipt.rows_written, receipt.rows_deleted) == (2, 2)
        world.remove(posts[1])
        receipt = compare(tmp_path, connector, flink, "mirror")
        assert (receipt.rows_written, receipt.rows_deleted) == (0, 1)
        assert world.problems == []


def test_slack(flink: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLACK_TOKEN", SLACK_TOKEN)
    with SlackWorld() as world:
        channels = [world.channel(f"c{number}") for number in range(3)]
        threads = [world.say(channels[n % 3], f"Message {n}") for n in range(30)]
        world.say(channels[0], "Reply", world.bob, threads[0], files=[world.upload("a.md", b"# A")])
        connector = SlackConnector(
            token="env:SLACK_TOKEN",
            base_url=world.api,
            requests_per_minute=600_000,
            attachments="text",
        )
        assert compare(tmp_path, connector, flink, "upsert").rows_written == 31
        world.edit(channels[1], threads[1], "Edited")
        world.say(channels[0], "Late", thread=threads[0])
        world.delete(channels[2], threads[2])
        receipt = compare(tmp_path, connector, flink, "upsert")
        assert (receipt.rows_written, receipt.rows_deleted) == (2, 1)
        assert world.problems == []


def test_google_drive(
    flink: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DRIVE_TOKEN", REFRESH_TOKEN)
    monkeypatch.setenv("DRIVE_SECRET", "secret-of-the-client")
    with DriveWorld() as world:
        files = world.files
        folders = [files.folder(f"Folder {number}") for number in range(60)]
        docs = [files.doc(f"Doc {number}", f"# {number}", folders[number]) for number in range(60)]
        plain = files.file("a.txt", b"plain", files.folder("Inner", files.drive("Team")))
        files.comment(docs[0], "Nice")
        connector = GoogleDriveConnector(
            client_id="id",
            client_secret="env:DRIVE_SECRET",
            refresh_token="env:DRIVE_TOKEN",
            permissions=True,
            base_url=world.url,
        )
        assert compare(tmp_path, connector, flink, "upsert").rows_written == 62
        files.edit(docs[1], "# New")
        files.trash(folders[2])
        files.rename(folders[3], "Renamed")
        files.share(docs[4], may(BOB))
        files.delete(plain)
        receipt = compare(tmp_path, connector, flink, "upsert")
        assert (receipt.rows_written, receipt.rows_deleted) == (1, 2)
        assert (receipt.moved, receipt.readers_changed) == (1, 1)
        files.delete(docs[5])
        assert compare(tmp_path, connector, flink, "mirror").rows_deleted == 1
        assert world.problems == []


def test_obsidian(flink: dict[str, Any], tmp_path: Path) -> None:
    vault = tmp_path / "Notes"
    vault.mkdir()
    for number in range(20):
        (vault / f"{number}.md").write_text(f"---\ntags: [a]\n---\n[[{(number + 1) % 20}]] #b\n")
    assert compare(tmp_path, ObsidianConnector(vault), flink, "upsert").rows_written == 20
    (vault / "3.md").unlink()
    receipt = compare(tmp_path, ObsidianConnector(vault), flink, "upsert")
    # The note before it has lost its link.
    assert (receipt.rows_written, receipt.rows_deleted) == (1, 1)
