"""The linear connector, against a world that is checked by Linear's own schema."""

from __future__ import annotations

import json
import multiprocessing
import pickle
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from contextframe_beam import FrameDataset
from contextframe_beam.connectors.linear.connector import LinearConnector
from contextframe_beam.connectors.look import look
from contextframe_beam.connectors.read.source import Source
from contextframe_beam.connectors.testing import ConnectorTests, Status, Subject, run_checks
from contextframe_beam.errors import ConfigError, ConnectorError
from contextframe_beam.frames.record import FrameRecord
from contextframe_beam.pipelines.ingest import ingest
from contextframe_beam.transforms.commit import CommitReceipt
from tests.support.pdf_files import pdf
from tests.worlds.described import Asked
from tests.worlds.linear_world import KEY, TOKEN, LinearWorld, refused, uid

HOUR = 3600
#: A run of these alone asks for less.
TALK: dict[str, Any] = {"resources": ["issues", "comments"]}


@pytest.fixture
def world() -> Iterator[LinearWorld]:
    with LinearWorld() as made:
        yield made
        assert made.problems == []


def connector(world: LinearWorld, **settings: Any) -> LinearConnector:
    usual = {"token": KEY, "base_url": world.url, "uploads_url": f"{world.url}/uploads"}
    return LinearConnector(**{**usual, **settings})


def run(world: LinearWorld, to: Path, mode: str = "upsert", **settings: Any) -> CommitReceipt:
    full = settings.pop("full", False)
    made = connector(world, **settings)
    return ingest(made, str(to), mode=mode, full=full, max_deletes="100%", embed_dim=2)


def stored(to: Path) -> dict[str, FrameRecord]:
    """Returns the records of a dataset by their unique ids, without the kind of id."""
    return {str(one.unique_id).partition(":")[2]: one for one in FrameDataset.open(str(to))}


def contents(to: Path) -> dict[str, Any]:
    """Returns what is stored of each document, without its timestamp."""
    return {
        name: (one.text_content, one.metadata, one.readers, one.place)
        for name, one in stored(to).items()
    }


def read(world: LinearWorld, **settings: Any) -> dict[str, FrameRecord]:
    """Returns what becomes of each item, read outside of a run."""
    made = connector(world, **settings)
    made.authenticate()
    found = [made.map_to_frame_record(item) for item in made.sync_documents()]
    return {
        str(one.unique_id).partition(":")[2]: one for one in found if isinstance(one, FrameRecord)
    }


def relationships(found: FrameRecord) -> list[tuple[str, str]]:
    return [
        (one["relationship_type"], one["target_id"].partition("linear:")[2] or one["target_id"])
        for one in found.metadata.get("relationships", ())
    ]


def id_of(one: dict[str, Any]) -> str:
    """Returns the id of the document of something in the world."""
    kind = {"projectUpdate": "project_update", "initiativeUpdate": "initiative_update"}
    return f"{kind.get(one['_kind'], one['_kind'])}/{one['id']}"


class TestARunWritesWhatChanged:
    """One workspace, run after run; each change reaches exactly its rows."""

    def test_from_the_first_run_to_a_mirror(self, world: LinearWorld, tmp_path: Path) -> None:
        to = tmp_path / "kb.lance"
        eng, ops = world.team("ENG", "Engineering"), world.team("OPS", "Operations")
        issues = [world.issue(eng, f"Issue {number}", "Text") for number in range(30)]
        world.issue(ops, "Pager")
        comment = world.comment(issues[0])
        reply = world.comment(issues[0], "Indeed", reply_to=comment)
        project = world.project("App", eng, content="# App")
        update = world.update(project)
        document = world.document("Spec", "Text", project=project)
        initiative = world.initiative("Growth")
        world.comment(world.update(initiative))
        world.seconds += HOUR

        assert run(world, to).rows_written == 31 + 3 + 1 + 2 + 1 + 1
        asked = len(world.served)

        again = run(world, to)
        assert (again.rows_written, again.partial) == (0, ())
        # Its teams, and each list once.
        assert len(world.served) - asked == 1 + 2 + 6

        world.edit(issues[1], title="Edited")
        assert run(world, to).rows_written == 1
        assert stored(to)[id_of(issues[1])].title == "ENG-2 Edited"

        # Comments do not touch what they are on.
        world.comment(issues[2], "Late")
        world.edit(reply, body="Edited", editedAt=world.now)
        assert run(world, to).rows_written == 2
        world.edit(document, content="New text")
        world.edit(update, body="At risk")
        world.edit(project, name="Application")
        assert run(world, to).rows_written == 3

        world.archive(issues[3])
        assert run(world, to).rows_written == 1
        assert stored(to)[id_of(issues[3])].metadata["status"] == "archived"

        world.trash(issues[0])
        receipt = run(world, to)
        assert (receipt.rows_written, receipt.rows_deleted) == (0, 3)
        world.trash(issues[0], False)
        # What was on it comes back with it, although nothing says that it changed.
        assert run(world, to).rows_written == 3
        assert relationships(stored(to)[id_of(reply)]) == [("parent", id_of(comment))]

        world.move(issues[4], ops)
        assert run(world, to).rows_written == 1
        moved = stored(to)[id_of(issues[4])].metadata
        assert (moved["identifier"], moved["collection"]) == ("OPS-2", "Operations")
        assert moved["previous_identifiers"] == ["ENG-5"]

        world.delete(issues[2])
        assert run(world, to).rows_deleted == 0
        mirror = run(world, to, mode="mirror")
        assert (mirror.rows_deleted, mirror.rows_written) == (2, 0)

        run(world, tmp_path / "fresh.lance", full=True)
        assert contents(to) == contents(tmp_path / "fresh.lance")
        files = b"".join(p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())
        assert KEY.encode() not in files

    def test_readers_follow_an_issue_and_a_team(self, world: LinearWorld, tmp_path: Path) -> None:
        to = tmp_path / "kb.lance"
        eng = world.team("ENG", "Engineering")
        secret = world.team("SEC", "Security", "private")
        part = world.team("RED", "Red team", "restricted", secret)
        first, second = world.issue(eng), world.issue(eng)
        comment = world.comment(first)
        run(world, to, **TALK)
        everybody = f"linear-workspace:{uid(1)}"
        team = {one["key"]: f"linear-team:{one['id']}" for one in (eng, secret, part)}
        assert set(stored(to)[id_of(comment)].readers or ()) == {everybody, team["ENG"]}

        # An issue that moves to a private team takes its comments along.
        world.move(first, secret)
        world.edit(first, _shared=[world.bob])
        run(world, to, **TALK)
        shared = ["user:bob@example.com", team["SEC"]]
        assert sorted(stored(to)[id_of(first)].readers or ()) == sorted(shared)
        assert sorted(stored(to)[id_of(comment)].readers or ()) == sorted(shared)
        assert everybody in (stored(to)[id_of(second)].readers or ())
        kb = FrameDataset.open(str(to))
        for reader, count in ((everybody, 0), (team["SEC"], 1), ("user:bob@example.com", 1)):
            assert len(kb.search("Nice", readers=[reader])) == count

        world.edit(first, _shared=[])
        world.move(second, part)
        run(world, to, **TALK)
        assert stored(to)[id_of(comment)].readers == [team["SEC"]]
        assert set(stored(to)[id_of(second)].readers or ()) == {team["SEC"], team["RED"]}

        # A team that becomes public touches no issue.
        secret["visibility"] = "public"
        receipt = run(world, to, **TALK)
        assert receipt.rows_written + receipt.readers_changed > 0
        assert everybody in (stored(to)[id_of(comment)].readers or ())
        assert run(world, to, **TALK).readers_changed == 0

    def test_what_leaves_the_choice_is_deleted(self, world: LinearWorld, tmp_path: Path) -> None:
        to = tmp_path / "kb.lance"
        eng, ops = world.team("ENG", "Engineering"), world.team("OPS", "Operations")
        app, site = world.project("App", eng), world.project("Site", eng)
        kept = world.issue(eng, project=app, state={"name": "In Progress", "type": "started"})
        world.issue(eng, project=site, state={"name": "In Progress", "type": "started"})
        world.issue(eng, project=app)
        world.issue(ops, project=app, state={"name": "In Progress", "type": "started"})
        comment = world.comment(kept)
        what = ["issues", "comments", "projects"]
        chosen = {
            "resources": what,
            "teams": ["eng"],
            "projects": ["App"],
            "states": ["in progress"],
        }
        run(world, to, **chosen)
        assert set(stored(to)) == {id_of(kept), id_of(comment), id_of(app)}
        world.edit(kept, state={"name": "Done", "type": "completed"})
        assert run(world, to, **chosen).rows_deleted == 2
        world.edit(kept, state={"name": "In Review", "type": "started"})
        assert run(world, to, **{**chosen, "states": ["started"]}).rows_written == 3

    def test_archived_ones_are_left_out_where_that_is_wanted(
        self, world: LinearWorld, tmp_path: Path
    ) -> None:
        to = tmp_path / "kb.lance"
        eng = world.team("ENG", "Engineering")
        issue, old = world.issue(eng), world.issue(eng)
        world.comment(issue)
        world.archive(old)
        run(world, to, archived=False, **TALK)
        assert set(stored(to)) == {
            id_of(issue),
            id_of(next(iter(world.objects["comment"].values()))),
        }
        world.archive(issue)
        world.archive(old, False)
        receipt = run(world, to, archived=False, **TALK)
        assert (receipt.rows_written, receipt.rows_deleted) == (1, 2)

    def test_comments_may_stand_in_their_issue(self, world: LinearWorld, tmp_path: Path) -> None:
        to = tmp_path / "kb.lance"
        eng = world.team("ENG", "Engineering")
        issue, project = world.issue(eng, text="Text"), world.project("App", eng)
        world.comment(project, "On a project")
        for number in range(24):
            world.comment(issue, f"Comment {number}")
        world.seconds += HOUR
        run(world, to, comments="inline")
        assert len(stored(to)) == 3
        text = str(stored(to)[id_of(issue)].text_content)
        assert (
            text.startswith("Text\n\n---\n\n**Bob Ray**, 2026-01-01T00:") and "Comment 23" in text
        )
        world.comment(issue, "Late")
        assert run(world, to, comments="inline").rows_written == 1
        assert "Late" in str(stored(to)[id_of(issue)].text_content)
        assert not any("comment" in name for name in read(world, comments="none"))


class TestWhatIsRead:
    def test_1200_issues_are_whole_and_inner_lists_are_read_to_their_end(
        self, world: LinearWorld
    ) -> None:
        eng = world.team("ENG", "Engineering")
        issues = [world.issue(eng, f"Issue {number}") for number in range(1200)]
        large = issues[7]
        large["_labels"] = [{"id": uid(n), "name": f"Label {n}"} for n in range(45)]
        large["_attachments"] = [
            {"id": uid(n), "title": f"Link {n}", "url": f"https://x.test/{n}"} for n in range(30)
        ]
        for other in issues[100:130]:
            world.relate(large, other)
        comments = [world.comment(large, f"Comment {number}") for number in range(120)]
        found = read(world, resources=["issues", "comments"])
        assert len(found) == 1320 and {id_of(one) for one in (*issues, *comments)} == set(found)
        whole = found[id_of(large)]
        assert whole.metadata["tags"] == [f"Label {number}" for number in range(45)]
        assert len(whole.metadata["links"]) == 30
        assert len(relationships(whole)) == 60
        assert max(world.costs) < world.most_points

    def test_an_issue_that_is_edited_while_pages_are_read_hides_no_other(
        self, world: LinearWorld
    ) -> None:
        eng = world.team("ENG", "Engineering")
        issues = [world.issue(eng, f"Issue {number}") for number in range(60)]

        def edit(asked: Asked) -> bool:
            # The last of the first page is what its cursor names.
            if "issues(" in str(asked.body) and (asked.body["variables"]["after"]):
                world.edit(issues[24], title="Edited meanwhile")
            return False

        world.closing = edit
        found = read(world, resources=["issues"])
        assert set(found) == {id_of(one) for one in issues}

    def test_fields_of_an_issue(self, world: LinearWorld) -> None:
        eng = world.team("ENG", "Engineering")
        app, parent = world.project("App", eng), world.issue(eng, "Parent")
        bare = world.issue(eng, creator=None, title="Null", estimate=None)
        bot = world.issue(eng, creator=None, botActor={"id": uid(5), "name": "GitHub", "type": "x"})
        guest = world.issue(eng, creator=None, externalUserCreator={"id": uid(6), "name": "Eva"})
        full = world.issue(
            eng,
            "Ünïcode 🚀",
            "x" * 100_000,
            parent=parent,
            project=app,
            projectMilestone={"name": "Beta"},
            cycle={"id": uid(9), "number": 5.0, "name": None},
            assignee=world.bob,
            dueDate="2026-02-01",
            estimate=2.5,
            _labels=[{"id": uid(1), "name": "bug"}],
            _attachments=[{"id": uid(2), "title": "PR 7", "url": "https://github.com/a/b/pull/7"}],
        )
        world.relate(full, bare, "duplicate")
        found = read(world, resources=["issues"])
        told = found[id_of(full)]
        assert len(str(told.text_content)) == 100_000
        assert told.title == "ENG-5 Ünïcode 🚀"
        wanted = {
            "author": "Ana Lima",
            "assignee": "Bob Ray",
            "status": "Todo",
            "priority": 2,
            "tags": ["bug"],
            "project": "App",
            "milestone": "Beta",
            "cycle": "Cycle 5",
            "due_date": "2026-02-01",
            "estimate": 2.5,
            "collection": "Engineering",
            "collection_id": eng["id"],
            "uri": full["url"],
            "source": "linear",
            "kind": "issue",
        }
        assert told.metadata.items() >= wanted.items()
        assert relationships(told) == [
            ("parent", id_of(parent)),
            ("reference", id_of(bare)),
            ("reference", "https://github.com/a/b/pull/7"),
        ]
        assert told.metadata["relationships"][1]["metadata"] == {"kind": "duplicate"}
        assert "author" not in found[id_of(bare)].metadata
        assert found[id_of(bot)].metadata["author"] == "GitHub"
        assert found[id_of(guest)].metadata["author"] == "Eva"

    def test_each_comment_has_what_it_is_on_as_its_parent(self, world: LinearWorld) -> None:
        eng = world.team("ENG", "Engineering")
        project = world.project("App", eng)
        holders = [
            world.issue(eng),
            project,
            world.update(project),
            world.document("Spec", project=project),
            world.update(world.initiative("Growth")),
        ]
        comments = [world.comment(one, quotedText="a\nb") for one in holders]
        found = read(world)
        for comment, holder in zip(comments, holders, strict=True):
            told = found[id_of(comment)]
            assert relationships(told) == [("parent", id_of(holder))]
            assert told.text_content == "> a\n> b\n\nNice" and told.readers

    def test_addresses_and_people_in_texts_are_found(self, world: LinearWorld) -> None:
        eng, ops = world.team("ENG", "Engineering"), world.team("OPS", "Operations")
        issue, moved = world.issue(eng, "Target"), world.issue(eng, "Moved")
        old = moved["url"]
        world.move(moved, ops)
        project, document = world.project("App", eng), world.document("Spec")
        text = (
            f"See {issue['url']}, [it]({old}) and {project['url']}/overview; {document['url']}. "
            "`https://linear.app/acme/issue/ENG-1/x` is code. https://linear.app/x/issue/ENG-1, "
            "https://linear.app/acme/issue/ENG-99 gone. @bob and @nobody, mail@bob.example, "
            "https://linear.app/acme/profiles/ana and https://linear.app/acme/profiles/left"
        )
        one = world.issue(eng, "Text", text)
        found = read(world)[id_of(one)]
        assert found.text_content == text
        assert relationships(found) == [
            ("reference", id_of(issue)),
            ("reference", id_of(moved)),
            ("reference", id_of(project)),
            ("reference", id_of(document)),
            ("reference", "https://linear.app/acme/issue/ENG-99"),
            ("mentions", f"user/{world.ana['id']}"),
            ("mentions", "user/left"),
            ("mentions", f"user/{world.bob['id']}"),
        ]

    def test_teams_are_chosen_by_key_and_pattern(self, world: LinearWorld, tmp_path: Path) -> None:
        teams = [world.team(key, f"Team {key}") for key in ("ENG", "OPS", "HR")]
        issues = [world.issue(team) for team in teams]
        chosen = {id_of(one) for one in issues[:2]}
        assert set(read(world, **TALK, include=["team o*", "eng"])) == chosen
        assert set(read(world, **TALK, exclude=["hr"])) == chosen
        receipt = run(world, tmp_path / "kb.lance", teams=["ENG", "NONE"], **TALK)
        assert receipt.rows_written == 1 and "team NONE" in receipt.unread[0]
        with pytest.raises(ConfigError, match="did you mean issues"):
            connector(world, resources=["issue"])


class TestFiles:
    def test_a_pdf_becomes_text_and_is_fetched_once(
        self, world: LinearWorld, tmp_path: Path
    ) -> None:
        to = tmp_path / "kb.lance"
        eng = world.team("ENG", "Engineering")
        paper, note = world.upload("p", pdf(["Paper of the year"])), world.upload("n", b"# Note")
        image, large = world.upload("cat.png", b"png"), world.upload("l", b"x" * 5000)
        text = f"![cat]({image}) [paper.pdf]({paper}) [large.md]({large})"
        issue = world.issue(eng, text=text)
        comment = world.comment(issue, f"[note.md]({note})")
        wanted = {**TALK, "attachments": "text", "max_attachment_bytes": 4000}
        run(world, to, **wanted)
        texts = {one.title: one.text_content for k, one in stored(to).items() if "attachment" in k}
        assert texts == {"paper.pdf": "Paper of the year", "large.md": "", "note.md": "# Note"}
        names = [one["name"] for one in stored(to)[id_of(issue)].metadata["attachments"]]
        assert names == ["cat", "paper.pdf", "large.md"]
        assert {credentials for _, credentials in world.fetched} == {KEY}
        fetched = len(world.fetched)

        world.edit(issue, title="New title")
        assert run(world, to, **wanted).rows_written == 1
        assert len(world.fetched) == fetched
        # A file that is taken out of its text goes, and with an issue go those of its comments.
        world.edit(issue, description=f"[paper.pdf]({paper})")
        assert run(world, to, **wanted).rows_deleted == 1
        world.edit(comment, body="No file")
        assert run(world, to, **wanted).rows_deleted == 1
        world.trash(issue)
        assert run(world, to, **wanted).rows_deleted == 3
        assert stored(to) == {}

    def test_bytes_are_kept_where_that_is_wanted(self, world: LinearWorld) -> None:
        eng = world.team("ENG", "Engineering")
        world.issue(eng, text=f"![cat.png]({world.upload('cat.png', b'png')})")
        found = [
            one for k, one in read(world, **TALK, attachments="bytes").items() if "attachment" in k
        ]
        assert [(one.raw_data, one.raw_data_type) for one in found] == [(b"png", "image/png")]
        assert len(read(world, **TALK, attachments="metadata")) == 1
        assert (
            "attachments"
            not in next(iter(read(world, **TALK, attachments="none").values())).metadata
        )


class TestWhatCannotBeRead:
    def test_a_list_that_the_account_may_not_read_is_named_and_a_mirror_keeps_it(
        self, world: LinearWorld, tmp_path: Path
    ) -> None:
        to = tmp_path / "kb.lance"
        world.initiative("Growth")
        issue = world.issue(world.team("ENG", "Engineering"))
        run(world, to)
        world.forbidden.add("initiatives")
        world.delete(issue)
        receipt = run(world, to, "mirror")
        assert "initiatives" in receipt.unread[0] and receipt.rows_deleted == 0

    def test_a_node_with_an_error_is_a_failure_of_its_own(
        self, world: LinearWorld, tmp_path: Path
    ) -> None:
        to = tmp_path / "kb.lance"
        eng = world.team("ENG", "Engineering")
        issues = [world.issue(eng, f"Issue {number}") for number in range(30)]
        world.broken[issues[1]["id"]] = "assignee"
        receipt = run(world, to, **TALK)
        assert (receipt.rows_written, receipt.failed) == (29, 1)
        assert "could not give 1 item" in receipt.unread[0]
        world.broken.clear()
        assert run(world, to, **TALK).rows_written == 1

    def test_errors_for_all_of_a_list_end_the_run(self, world: LinearWorld, tmp_path: Path) -> None:
        world.team("ENG", "Engineering")
        world.scripted.extend([refused("INTERNAL", "It broke")] * 9)
        with pytest.raises(ConnectorError, match="It broke"):
            run(world, tmp_path / "kb.lance")

    def test_a_key_that_is_refused_in_mid_run_ends_it(
        self, world: LinearWorld, tmp_path: Path
    ) -> None:
        world.issue(world.team("ENG", "Engineering"))
        world.closing = lambda asked: "issues(" in str(asked.body) and world.tokens.clear()
        with pytest.raises(Exception, match="does not accept the key"):
            run(world, tmp_path / "kb.lance")
        assert not (tmp_path / "kb.lance").exists()

    def test_a_query_that_costs_too_much_is_halved(self, world: LinearWorld) -> None:
        eng = world.team("ENG", "Engineering")
        for number in range(30):
            world.issue(eng, f"Issue {number}")
        world.most_points = 2000
        assert len(read(world, resources=["issues"])) == 30
        world.most_points = 100
        with pytest.raises(ConnectorError, match="too complex"):
            read(world, resources=["issues"])

    @pytest.mark.parametrize(
        ("settings", "reason"),
        [
            ({"token": None}, "personal API key"),
            ({"client_id": "x", "client_secret": "y"}, "personal API key"),
            ({"token": None, "refresh_token": "x"}, "personal API key"),
            ({"resources": []}, "resources is empty"),
            ({"comments": "some"}, "comments"),
            ({"attachments": "all"}, "attachments"),
            ({"page_size": 0}, "page_size"),
        ],
    )
    def test_arguments_without_sense_are_refused(self, settings, reason):
        with pytest.raises(ConfigError, match=reason):
            LinearConnector(**{"token": KEY, **settings})


class TestLimits:
    def test_a_limit_of_points_is_kept_to(self, world: LinearWorld, tmp_path: Path) -> None:
        eng = world.team("ENG", "Engineering")
        for number in range(60):
            world.issue(eng, f"Issue {number}")
        with world.limited(1000, 12_000, 0.4):
            receipt = run(world, tmp_path / "kb.lance", resources=["issues"])
        refusals = [one for one in world.served if one.status == 400]
        assert receipt.rows_written == 60 and len(refusals) <= 0.05 * len(world.served)

    def test_a_refusal_for_a_limit_is_waited_out(self, world: LinearWorld, tmp_path: Path) -> None:
        world.issue(world.team("ENG", "Engineering"))
        limited = refused("RATELIMITED", "Rate limit exceeded", 400)
        limited.headers = {
            "X-RateLimit-Requests-Limit": 1500,
            "X-RateLimit-Requests-Remaining": 1400,
            "X-RateLimit-Requests-Reset": int((time.time() + HOUR) * 1000),
            "X-RateLimit-Complexity-Limit": 250_000,
            "X-RateLimit-Complexity-Remaining": 300,
            "X-RateLimit-Complexity-Reset": int((time.time() + 1) * 1000),
        }
        world.scripted.append(limited)
        assert run(world, tmp_path / "kb.lance", **TALK).rows_written == 1

    def test_a_limit_that_outlasts_the_wait_fails_in_one_message(
        self, world: LinearWorld, tmp_path: Path
    ) -> None:
        world.team("ENG", "Engineering")
        with (
            world.limited(1, 100_000, 900),
            pytest.raises(ConnectorError, match=r"asks to wait .* s more, and max_wait is 0.1 s"),
        ):
            run(world, tmp_path / "kb.lance", max_wait=0.1)

    def test_a_request_whose_connection_breaks_is_sent_again(
        self, world: LinearWorld, tmp_path: Path
    ) -> None:
        world.comment(world.issue(world.team("ENG", "Engineering")))
        world.closing = lambda asked: asked.number in (2, 4)
        assert run(world, tmp_path / "kb.lance", **TALK).rows_written == 2

    @pytest.mark.soak
    def test_ended_at_each_request_the_next_run_ends_right(
        self, world: LinearWorld, tmp_path: Path
    ) -> None:
        eng = world.team("ENG", "Engineering")
        for number in range(30):
            world.comment(world.issue(eng, f"Issue {number}"))
        world.comment(world.update(world.project("App", eng)))
        run(world, tmp_path / "whole.lance")
        whole = contents(tmp_path / "whole.lance")
        requests = len(world.served)
        for number in range(1, requests):
            to = tmp_path / f"{number}.lance"
            first = len(world.served) + number
            world.closing = lambda asked, first=first: asked.number >= first  # type: ignore[misc]
            with pytest.raises(ConnectorError):
                run(world, to)
            world.closing = None
            run(world, to)
            assert contents(to) == whole

    @pytest.mark.soak
    def test_a_hundred_thousand_comments_are_read_in_little_memory(self) -> None:
        # In a process of its own, since a world keeps all there is in memory.
        context = multiprocessing.get_context("fork")
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve_comments, args=(theirs, 100_000), daemon=True)
        process.start()
        url = ours.recv()
        subject = Subject(
            lambda: LinearConnector(token=KEY, base_url=url, resources=["comments"], page_size=62),
            limit=100_000,
        )
        (found,) = run_checks(subject, ["memory_stays_bounded"])
        process.terminate()
        assert found.status is Status.PASSED, found


def _serve_comments(told: Any, count: int) -> None:
    """Serves a world with so many comments, and tells its address."""
    with LinearWorld() as world:
        issue = world.issue(world.team("ENG", "Engineering"))
        for number in range(count):
            world.comment(issue, f"Comment {number}. " * 10)
        told.send(world.url)
        threading.Event().wait()


class TestLinearConnector(ConnectorTests):
    @pytest.fixture(autouse=True)
    def _world(self, world: LinearWorld) -> None:
        self.world = world
        for key in ("ENG", "OPS"):
            team = world.team(key, key.title())
            world.comment(world.issue(team, "Issue", "Text"))
            world.issue(team, "Other")
        world.update(world.project("App", team))

    def connector(self) -> LinearConnector:
        return connector(self.world)


class TestAccounts:
    def test_an_application_reads_for_itself(self, world: LinearWorld, tmp_path: Path) -> None:
        world.issue(world.team("ENG", "Engineering"))
        account = {"token": None, "client_id": "id", "client_secret": "secret-of-the-client"}
        assert run(world, tmp_path / "kb.lance", **account).rows_written == 1
        assert world.grants[0]["grant_type"] == "client_credentials"
        tokens = {one.asked.headers["authorization"] for one in world.served if one.asked.template}
        assert tokens == {f"Bearer {TOKEN}"}

    def test_a_refresh_token_is_replaced_where_it_is_kept(
        self, world: LinearWorld, tmp_path: Path
    ) -> None:
        kept = tmp_path / "refresh"
        kept.write_text("refresh-token-0001")
        made = connector(
            world,
            token=None,
            client_id="id",
            client_secret="secret-of-the-client",
            refresh_token=f"file:{kept}",
        )
        assert made.authenticate() and kept.read_text().strip() == "refresh-token-0002"

    def test_a_token_of_oauth_stands_after_bearer(self, world: LinearWorld) -> None:
        connector(world, token=TOKEN).authenticate()
        assert world.served[-1].asked.headers["authorization"] == f"Bearer {TOKEN}"

    def test_no_secret_travels(self, world: LinearWorld) -> None:
        made = connector(world, token="env:LINEAR_KEY")
        assert KEY.encode() not in pickle.dumps(made)
        one, other = connector(world, teams=["B", "A"]), connector(world, teams=["A", "B"])
        assert one.source_id() == other.source_id() != made.source_id()

    def test_a_look_shows_the_teams_and_three_frames(self, world: LinearWorld) -> None:
        eng = world.team("ENG", "Engineering")
        world.issue(eng, "First")
        world.comment(world.issue(world.team("SEC", "Security", "private")))
        found = look(connector(world))
        assert found.access == [
            "Ana Lima in the workspace Acme",
            "team ENG Engineering (public): 1 issue",
            "team SEC Security (private): 1 issue",
        ]
        assert len(found.samples) == 3 and found.ok

    def test_costs_are_counted(self, world: LinearWorld) -> None:
        world.issue(world.team("ENG", "Engineering"))
        made = connector(world)
        made.authenticate()
        made.sync_documents()
        assert made.get_stats()["complexity"] == sum(world.costs)


def test_a_dead_letter_keeps_an_item_so_that_it_can_be_tried_again(world: LinearWorld) -> None:
    eng = world.team("ENG", "Engineering")
    one = world.issue(eng, text=f"[a.md]({world.upload('a', b'# A')})")
    made = connector(world, attachments="text")
    made.authenticate()
    items = [item for page in Source(made).pages() for item in page.items]
    again = [made.map_to_frame_record(json.loads(json.dumps(item))) for item in items]
    assert [found.unique_id for found in again][:1] == [f"linear:{id_of(one)}"]
    assert [found.text_content for found in again][1:] == ["# A"]
