"""A service for the benchmark of connectors: a world of the tests, in a process.

    python benchmarks/connectors_world.py github 250

It prints its address, and then answers each line of its standard input with one line of JSON: what
was asked since the last one. A line `edit`, `comment` or `delete` makes that change.
"""

from __future__ import annotations

import io
import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docx

sys.path.insert(0, str(Path(__file__).parent.parent))

from contextframe_beam.connectors.google_drive.items import OFFICE
from tests.worlds.described import World
from tests.worlds.discord_world import FORUM, Discord
from tests.worlds.drive_world import DriveWorld
from tests.worlds.github_world import GitHub
from tests.worlds.linear_world import LinearWorld
from tests.worlds.notion_blocks import block
from tests.worlds.notion_world import NotionWorld
from tests.worlds.slack_world import SlackWorld


@dataclass(frozen=True)
class Service:
    """What is read.

    Attributes:
        world: The server, or the vault.
        url: The address that connectors are given.
        there: How many there are of each kind.
        changes: What each step changes.
    """

    world: World | Vault
    url: str
    there: dict[str, int]
    changes: dict[str, Callable[[], Any]]


def github(issues: int) -> Service:
    """Returns a GitHub with one repository of so many issues and pull requests."""
    world = GitHub()
    app = world.add("acme/app")
    for number in range(1, issues + 1):
        app.add_issue(f"Issue {number}", f"Body of {number}. " * 20, number % 5 == 0)
        if number % 3 == 0:
            app.add_comment(number, f"Comment on {number}. " * 10)
    for number in range(5, issues + 1, 25):
        app.add_review_comment(number, "Why?")
    files = {f"docs/{number}.md": f"# Page {number}\n" * 20 for number in range(20)}
    app.commit({"README.md": "# App\n", **files})
    changes = {
        "edit": lambda: app.edit_issue(7, title="Edited"),
        "comment": lambda: app.add_comment(9, "New"),
        "delete": lambda: app.commit({"docs/7.md": None}),
    }
    there = {
        "issues": sum(not one["pull"] for one in app.issues.values()),
        "pulls": sum(one["pull"] for one in app.issues.values()),
        "comments": len(app.comments),
        "line comments": len(app.review_comments),
        "files": len(app.commits[app.branches["main"]].files),
    }
    return Service(world, world.url, there, changes)


def discord(messages: int) -> Service:
    """Returns a Discord with two channels of so many messages each, their threads, and a forum."""
    world = Discord()
    acme = world.guild("Acme")
    channels = [world.channel(acme, name) for name in ("general", "dev")]
    there = dict.fromkeys(("messages", "threads", "posts"), 0)
    day = 86_400
    for channel in channels:
        for number in range(messages):
            at = world.now - 60 * day + number * 50 * day / messages
            sent = world.message(channel, f"Message {number}. " * 5, at=at)
            there["messages"] += 1
            if number % 100 == 0:
                thread = world.thread(channel, f"Thread {number}", starter=sent, at=at + 1)
                for reply in range(3):
                    world.message(thread, f"Reply {reply}", "bob", at=at + 60 * reply + 60)
                there["threads"] += 3
                if number % 200 == 0:
                    world.archive(thread, at=at + day)
    forum = world.channel(acme, "help", FORUM, available_tags=["bug"])
    for number in range(messages // 10):
        at = world.now - 60 * day + number * 60
        post = world.post(forum, f"Post {number}", "How? " * 20, ["bug"], at=at)
        world.message(post, "So. " * 20, "bob", at=at + 30)
        there["posts"] += 2
        if number % 6:
            world.archive(post, at=at + day)
    latest = [world.message(channels[0], f"Today {number}") for number in range(3)]
    there["messages"] += 3
    changes = {
        "edit": lambda: world.edit(channels[0], latest[0], content="Edited"),
        "comment": lambda: world.message(post, "And more"),
        "delete": lambda: world.delete(channels[0], latest[1]),
    }
    return Service(world, world.base_url, there, changes)


def slack(messages: int) -> Service:
    """Returns a Slack with so many messages of the last month; each tenth has three replies."""
    world = SlackWorld(now=time.time() - 28 * 86_400)
    channels = [world.channel(name) for name in ("general", "random", "ops")]
    threads = []
    for number in range(messages):
        world.now += 2_000_000 // messages
        channel = channels[number % 3]
        ts = world.say(channel, f"Message {number}. " + "Words of it. " * 10)
        if number % 10 == 0:
            threads.append((channel, ts))
            for reply in range(3):
                world.say(channel, f"Reply {reply} to {number}.", world.bob, ts)
    changes = {
        "edit": lambda: world.edit(*threads[-1], "Message 0. Edited."),
        "comment": lambda: world.say(threads[1][0], "Reply 9 to 9.", thread=threads[1][1]),
        "delete": lambda: world.delete(channels[1], next(iter(world.messages[channels[1]]))),
    }
    there = {"messages": messages, "replies": 3 * len(threads)}
    return Service(world, world.api, there, changes)


def linear(issues: int) -> Service:
    """Returns a Linear with one team of so many issues, a third of them with a comment."""
    world = LinearWorld()
    team = world.team("ENG", "Engineering")
    projects = [
        world.project(f"Project {number}", team, content="# Why\n" * 20) for number in range(5)
    ]
    made = []
    for number in range(issues):
        project, body = projects[number % 5], f"Body of {number}. " * 20
        one = world.issue(team, f"Issue {number}", body, assignee=world.bob, project=project)
        one["_labels"] = [{"id": f"label-{n}", "name": f"Label {n}"} for n in range(2)]
        made.append(one)
    comments = [world.comment(one, "Comment. " * 10) for one in made[::3]]
    for number, project in enumerate(projects):
        world.update(project, f"Update {number}")
        world.document(f"Document {number}", "# Spec\n" * 20, project=project)
    changes = {
        "edit": lambda: world.edit(made[7], title="Edited"),
        "comment": lambda: world.comment(made[9], "New"),
        "delete": lambda: world.trash(made[8]),
    }
    there = {
        "issues": issues,
        "comments": len(comments),
        "projects": len(projects),
        "project_updates": len(projects),
        "documents": len(projects),
    }
    return Service(world, world.url, there, changes)


def google_drive(documents: int) -> Service:
    """Returns a Drive with so many documents in folders three deep, text files, and comments."""
    world = DriveWorld()
    files = world.files
    top = files.folder("Handbook")
    folders, as_word = [top], _docx()
    for number in range(documents // 20):
        folders.append(files.folder(f"Folder {number}", folders[number // 4]))
    there = dict.fromkeys(("documents", "files", "comments"), 0)
    made = []
    for number in range(documents):
        text = f"# Document {number}\n\n{'Text of a document. ' * 30}"
        made.append(files.doc(f"Document {number}", text, folders[number % len(folders)]))
        files.items[made[-1]].exports[OFFICE[".docx"]] = as_word
        there["documents"] += 1
        if number % 2:
            files.file(f"{number}.txt", b"Text of a file. " * 40, folders[number % len(folders)])
            there["files"] += 1
        if number % 5 == 0:
            files.comment(made[-1], "Why?")
            there["comments"] += 1
    changes = {
        "edit": lambda: files.edit(made[7], "# Edited"),
        # What is no change of its file is read by a later run of all.
        "comment": lambda: (files.comment(made[9], "New"), files.rename(made[9], "Renamed")),
        "delete": lambda: files.trash(folders[-1]),
    }
    return Service(world, f"{world.url}#{top}", there, changes)


def _docx() -> bytes:
    """Returns a file of Word, as which a peer takes documents."""
    data = io.BytesIO()
    document = docx.Document()
    document.add_paragraph("Text of a document. " * 30)
    document.save(data)
    return data.getvalue()


def notion(pages: int) -> Service:
    """Returns a Notion of so many pages, each of ten blocks, one of which holds another one."""
    world = NotionWorld()
    inner = block("toggle", "Outer", below=[block("paragraph", "Nested text")])
    made = []
    for number in range(pages):
        texts = [block("paragraph", f"Text {number}. " * 10) for _ in range(9)]
        made.append(world.page(f"Page {number}", blocks=[*texts, inner]))
    for page in made[::3]:
        world.comment(page, "Nice")
    # Edits are told in whole minutes; what a run reads lies before it.
    world.now += 3600

    def later(change: Callable[[], Any]) -> Callable[[], Any]:
        return lambda: (change(), setattr(world, "now", world.now + 3600))

    changes = {
        "edit": later(lambda: world.edit(made[7], "Edited.")),
        # No edited time tells of a comment alone.
        "comment": later(lambda: (world.comment(made[9], "New"), world.edit(made[9], "See below"))),
        "delete": later(lambda: world.trash(made[8])),
    }
    there = {"pages": pages, "nested blocks": pages, "comments": len(made[::3])}
    return Service(world, world.url, there, changes)


class Vault:
    """A folder of notes, which is read without requests."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self.path = Path(self._folder.name)
        self.served: list[Any] = []

    def __enter__(self) -> Vault:
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()


def obsidian(notes: int) -> Service:
    """Returns a vault of so many notes with tags and links; each tenth embeds a file of text."""
    vault = Vault()
    for number in range(notes):
        body = f"---\ntags: [work]\n---\n# Note {number}\n\nSee [[{(number + 1) % notes}]].\n"
        (vault.path / f"{number}.md").write_text(body + "Text of a note. " * 20)
    for number in range(0, notes, 10):
        (vault.path / f"{number}.txt").write_text("Text of a file. " * 20)
        (vault.path / f"{number + 1}.md").open("a").write(f"\n![[{number}.txt]]\n")
    changes = {
        "edit": lambda: (vault.path / "7.md").write_text("# Edited"),
        "comment": lambda: (vault.path / "new.md").write_text("# New"),
        "delete": lambda: (vault.path / "8.md").unlink(),
    }
    there = {"notes": notes, "links": notes, "tags": notes, "files": len(range(0, notes, 10))}
    return Service(vault, str(vault.path), there, changes)


SERVICES = {
    "notion": notion,
    "obsidian": obsidian,
    "github": github,
    "discord": discord,
    "slack": slack,
    "linear": linear,
    "google-drive": google_drive,
}


def main(name: str, size: int) -> None:
    service = SERVICES[name](size)
    with service.world as world:
        print(json.dumps({"url": service.url, "there": service.there}), flush=True)
        for line in sys.stdin:
            asked = sum(one.asked.template != "/rate_limit" for one in world.served)
            world.served.clear()
            service.changes.get(line.strip(), lambda: None)()
            print(json.dumps({"requests": asked}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
