"""The github connector on a world that is checked against GitHub's own descriptions."""

from __future__ import annotations

import json
import subprocess
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from contextframe_beam import FrameDataset
from contextframe_beam.connectors.github.connector import GitHubConnector
from contextframe_beam.connectors.github.records import record_of
from contextframe_beam.connectors.http import judges, retry
from contextframe_beam.connectors.testing import ConnectorTests, Status, Subject, run_checks
from contextframe_beam.errors import CommitError, ConfigError, ConnectorError
from contextframe_beam.pipelines.ingest import ingest
from tests.support.cli_helpers import cli
from tests.support.pdf_files import pdf as pdf_of
from tests.worlds.github_repository import Entry, Repository
from tests.worlds.github_world import GitHub, secondary

TOKEN = "ghp_all"
#: What the requests of issues, comments and files are counted for.
FOUR = ("issues", "pulls", "comments", "files")


@pytest.fixture
def world() -> Iterator[GitHub]:
    with GitHub() as one:
        yield one
        assert one.problems == []


def filled(world: GitHub, issues: int = 6) -> Repository:
    """Adds acme/app: each fifth issue is a pull request, and each third has a comment."""
    app = world.add("acme/app", topics=["search"])
    for number in range(1, issues + 1):
        app.add_issue(
            f"Issue {number}", f"Body of {number}, see #{max(1, number - 1)}", number % 5 == 0
        )
        if number % 3 == 0:
            app.add_comment(number, f"Comment on {number} by @bob")
    app.commit(
        {"README.md": "# App", "docs/a.md": "# A", "docs/b.md": "# B", "logo.png": b"\x89\0"}
    )
    return app


def connector(world: GitHub, *repositories: str, **settings: Any) -> GitHubConnector:
    settings.setdefault("token", TOKEN)
    return GitHubConnector(repositories or ["acme/app"], base_url=world.url, **settings)


def run(world: GitHub, to: Path, *repositories: str, job: Mapping[str, Any] = {}, **settings: Any):
    """Ingests repositories; returns the receipt and the requests of this run."""
    before = len(world.served)
    receipt = ingest(connector(world, *repositories, **settings), str(to), embed_dim=2, **job)
    return receipt, [f"{one.asked} {one.status}" for one in world.served[before:]]


def rows(to: Path) -> dict[str, dict[str, Any]]:
    """Returns what a dataset holds, by id, without what differs from run to run."""
    found = {}
    for record in FrameDataset.open(str(to)):
        found[record.unique_id] = {
            "text": record.text_content,
            "metadata": record.metadata,
            "at": record.timestamp,
            "data": record.raw_data,
        }
    return found


def readers(to: Path) -> Counter[str | None]:
    """Returns how many documents each reader may read; None for those nobody knows."""
    found = (record.readers for record in FrameDataset.open(str(to)))
    return Counter(one for names in found for one in (names or [None]))


def written(receipt: Any) -> tuple[int, int, int]:
    """Returns how many rows a run added, replaced and deleted."""
    added = receipt.rows_written - receipt.rows_replaced
    return added, receipt.rows_replaced, receipt.rows_deleted


class TestRequests:
    def test_250_issues_83_comments_and_4_files_take_9_requests(self, world, tmp_path):
        filled(world, 250)
        receipt, asked = run(world, tmp_path / "kb.lance", resources=FOUR)
        assert (receipt.rows_written, receipt.failed, len(asked)) == (337, 0, 9)

    def test_later_runs_ask_for_changes_only(self, world, tmp_path):
        app, to = filled(world, 250), tmp_path / "kb.lance"
        run(world, to, resources=FOUR)
        receipt, asked = run(world, to, resources=FOUR)
        assert (receipt.rows_written, len(asked)) == (0, 3)
        receipt, asked = run(world, to, resources=FOUR)
        assert [one[-3:] for one in asked] == ["200", "304", "304"]
        app.edit_issue(7, body="new")
        app.add_comment(9, "yes")
        app.commit({"docs/c.md": "# C\n"})
        receipt, asked = run(world, to, resources=FOUR)
        # A comment changes its issue.
        assert (written(receipt), len(asked)) == ((2, 2, 0), 5)
        assert run(world, to, resources=FOUR)[0].rows_written == 0

    def test_reviews_take_a_request_for_each_changed_pull_request(self, world, tmp_path):
        app, to = filled(world, 10), tmp_path / "kb.lance"
        app.add_review(5, "Looks good")
        app.add_review_comment(10, "Why?")
        _, asked = run(world, to)
        assert sum("/reviews" in one for one in asked) == 2
        app.add_review(10, "Fine")
        receipt, asked = run(world, to)
        assert (written(receipt), sum("/reviews" in one for one in asked)) == ((1, 1, 0), 1)


#: A change, and the ids that a run after it writes and deletes.
CHANGES = {
    "an issue is edited": (lambda app: app.edit_issue(2, title="New"), {"issue/2"}, set()),
    "an issue is closed": (lambda app: app.edit_issue(2, state="closed"), {"issue/2"}, set()),
    "a pull request is merged": (
        lambda app: app.edit_issue(5, state="closed", merged_at="2026-01-02T00:00:00Z"),
        {"issue/5"},
        set(),
    ),
    "an issue is opened": (lambda app: app.add_issue("New"), {"issue/7"}, set()),
    "a comment is edited": (
        lambda app: app.edit(app.comments, 1001, body="Edited"),
        {"comment/1001"},
        set(),
    ),
    "a comment is written": (
        lambda app: app.add_comment(2, "Yes"),
        {"comment/1003", "issue/2"},
        set(),
    ),
    "a pull request is reviewed": (
        lambda app: app.add_review(5, "No", "CHANGES_REQUESTED"),
        {"review/2001", "issue/5"},
        set(),
    ),
    "a line is commented": (
        lambda app: app.add_review_comment(5, "Why?"),
        {"review-comment/3001", "issue/5"},
        set(),
    ),
    "a release is published": (lambda app: app.add_release("v2"), {"release/4001"}, set()),
    "a release is deleted": (
        lambda app: app.releases.pop(4001),
        set(),
        {"release/4001"},
    ),
    "a discussion is opened": (
        lambda app: app.add_discussion("How?", "So"),
        {"discussion/8"},
        set(),
    ),
    "a file is added": (lambda app: app.commit({"c.md": "C"}), {"file/c.md"}, set()),
    "a file is changed": (lambda app: app.commit({"README.md": "# X"}), {"file/README.md"}, set()),
    "a file is removed": (
        lambda app: app.commit({"docs/a.md": None}),
        set(),
        {"file/docs/a.md"},
    ),
    "a file is renamed": (
        lambda app: app.commit({"docs/b.md": None, "docs/z.md": "# B"}),
        {"file/docs/z.md"},
        {"file/docs/b.md"},
    ),
    "a file becomes a link": (
        lambda app: app.commit({"one.md": Entry(b"b.md", "120000")}),
        set(),
        {"file/one.md"},
    ),
    "a file becomes a submodule": (
        lambda app: app.commit({"two.md": Entry(b"x", "160000")}),
        set(),
        {"file/two.md"},
    ),
    "an image is added": (lambda app: app.commit({"b.png": b"\x89\0\0"}), {"file/b.png"}, set()),
    "a large file is added": (
        lambda app: app.commit({"large.txt": "x" * 5000}),
        {"file/large.txt"},
        set(),
    ),
    "a file of Git LFS is added": (
        lambda app: app.commit({"paper.pdf": FILES["model.bin.md"]}),
        {"file/paper.pdf"},
        set(),
    ),
    "a link is added": (
        lambda app: app.commit({"link": Entry(b"README.md", "120000")}),
        set(),
        set(),
    ),
    "nothing": (lambda app: None, set(), set()),
}
READ = ("files", "issues", "pulls", "comments", "reviews", "discussions", "releases")
SMALL = {"max_attachment_bytes": 4000}


@pytest.fixture(scope="module")
def kept(tmp_path_factory) -> Iterator[tuple[GitHub, Repository, Path]]:
    with GitHub() as one:
        app, to = filled(one), tmp_path_factory.mktemp("github") / "kb.lance"
        app.commit({"one.md": "one\nline\n", "two.md": "two\nlines\n"})
        run(one, to, resources=READ, **SMALL)
        yield one, app, to
        assert one.problems == []


@pytest.mark.xdist_group("github")
class TestChanges:
    """One world and one dataset, through all changes."""

    @pytest.mark.parametrize("what", CHANGES)
    def test_a_run_after_a_change_writes_exactly_what_changed(self, kept, what):
        world, app, to = kept
        change, changed, deleted = CHANGES[what]
        before = rows(to)
        change(app)
        receipt, _ = run(world, to, resources=READ, **SMALL)
        after, prefix = rows(to), f"github:{app.number}/"
        assert before.keys() - after.keys() == {prefix + one for one in deleted}
        found = {one.removeprefix(prefix) for one in after if after[one] != before.get(one)}
        assert found == changed
        assert receipt.rows_written == len(changed)

    def test_after_all_of_them_the_rows_are_those_of_a_first_run(self, kept, tmp_path):
        world, _, to = kept
        run(world, tmp_path / "fresh.lance", resources=READ, **SMALL)
        assert rows(to) == rows(tmp_path / "fresh.lance")

    def test_what_leaves_no_trace_is_seen_by_a_mirror(self, kept):
        world, app, to = kept
        app.delete_issue(6)
        assert written(run(world, to, resources=READ, **SMALL)[0]) == (0, 0, 0)
        receipt, _ = run(world, to, resources=READ, **SMALL, job={"mode": "mirror"})
        assert written(receipt) == (0, 0, 2)


FILES: dict[str, Any] = {
    "README.md": "# App\n",
    "src/été.py": "# été\r\n",
    "a.png": b"\x89PNG\0\1",
    "big.bin.txt": b"\xff\xfe\0",
    "model.bin.md": "version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 9\n",
    "paper.pdf": pdf_of(["Found in a PDF"]),
    "book.ipynb": json.dumps(
        {
            "cells": [{"cell_type": "markdown", "metadata": {}, "source": ["# Title"]}],
            "metadata": {},
            "nbformat": 4,
            "nbformat_minor": 5,
        }
    ),
    "link": Entry(b"README.md", "120000"),
    "module": Entry(b"x", "160000"),
}


class TestConformance(ConnectorTests):
    @pytest.fixture(autouse=True)
    def _world(self) -> Iterator[None]:
        with GitHub() as self.world:
            app = filled(self.world, 10)
            app.add_review(5, "Good")
            app.add_comment(app.add_issue("More"), "Yes")
            yield
            assert self.world.problems == []

    def connector(self) -> GitHubConnector:
        return connector(self.world, resources=READ)


@pytest.mark.soak
def test_memory_stays_bounded_with_100000_issues(world):
    app = world.add("acme/app")
    world.served = deque(maxlen=10)  # the world's own memory counts here
    for number in range(100_000):
        app.add_issue(f"Issue {number}", "Body " * 20)
    subject = Subject(lambda: connector(world, resources=["issues"]), limit=100_000)
    (outcome,) = run_checks(subject, ["memory_stays_bounded"])
    assert outcome.status is Status.PASSED, outcome


class TestCommands:
    def test_the_first_command_and_its_check(self, world, tmp_path, monkeypatch, caplog):
        caplog.set_level("DEBUG")
        monkeypatch.setenv("GITHUB_TOKEN", TOKEN)
        filled(world)
        options = ["github", "--repositories", "acme/app", "--token", "env:GITHUB_TOKEN"]
        options += ["--base-url", world.url]
        shown = cli("check", *options)
        assert (
            "alice, scopes: repo" in shown.out and "acme/app (public): files, issues" in shown.out
        )
        assert shown.out.count("metadata:") == 3
        done = cli("ingest", *options, "--to", tmp_path / "kb.lance")
        assert "wrote 12 documents" in done.out
        kept = b"".join(one.read_bytes() for one in tmp_path.rglob("*") if one.is_file())
        told = caplog.text + shown.out + done.out + done.err
        assert TOKEN not in told and TOKEN.encode() not in kept

    def test_what_is_wrong_with_the_account_is_told(self, world):
        filled(world)
        options = ["github", "--repositories", "acme/app", "--base-url", world.url]
        shown = cli("check", *options, "--token", "ghp_wrong")
        assert (shown.code, "Bad credentials" in shown.out) == (1, True)
        assert "ghp_wrong" not in shown.out + shown.err


@pytest.mark.xdist_group("github-records")
class TestRecords:
    """What each kind becomes."""

    @pytest.fixture(scope="class")
    @staticmethod
    def found(tmp_path_factory) -> dict[str, dict[str, Any]]:
        with GitHub() as one:
            app, other = one.add("acme/app", topics=["search"]), one.add("acme/other")
            app.add_issue(
                "First",
                "Fixes acme/other#1, see #2 and https://github.com/who/x/pull/9. Thanks @Bob!\n\n"
                "`#5 @no`",
                labels=["bug", "ui"],
                assignees=["dave"],
                milestone="1.0",
                user=None,
            )
            app.add_issue("Change", None, pull=True, merged_at="2026-01-03T00:00:00Z")
            app.add_comment(1, "Me too")
            app.add_review(2, "Nice", "CHANGES_REQUESTED")
            line = app.add_review_comment(2, "Why?")
            app.add_review_comment(2, "Because", line)
            app.add_release("v1", "Much is *new*")
            talk = app.add_discussion("How?", "Like so")
            comment = app.add_discussion_comment(talk, "No")
            app.add_discussion_comment(talk, "Yes", comment)
            other.add_issue("There", "")
            app.commit(FILES, "Begin\n\nFor #1")
            to = tmp_path_factory.mktemp("records") / "kb.lance"
            receipt, _ = run(one, to, "acme/app", "acme/other", resources=[*READ, "commits"])
            assert (receipt.failed, one.problems) == (0, [])
            return {key.removeprefix("github:"): row for key, row in rows(to).items()}

    def test_ids_are_of_what_never_changes(self, found):
        kinds = {key.rpartition("/")[0] for key in found if "/file/" not in key}
        assert kinds == {
            *("11/issue", "11/comment", "11/review", "11/review-comment", "11/release"),
            *("11/discussion", "11/discussion-comment", "11/commit", "12/issue"),
        }

    def test_an_issue_has_what_people_see_of_it(self, found):
        told = dict(found["11/issue/1"]["metadata"])
        assert told.pop("relationships") == [
            {
                "relationship_type": "reference",
                "target_id": "github:12/issue/1",
                "metadata": {"closes": True},
            },
            {"relationship_type": "reference", "target_id": "github:11/issue/2"},
            {"relationship_type": "reference", "target_id": "https://github.com/who/x/issues/9"},
            {"relationship_type": "mentions", "target_id": "github:user/bob"},
        ]
        assert told == {
            "title": "First",
            "number": 1,
            "author": "ghost",
            "uri": "https://github.com/acme/app/issues/1",
            "created_at": "2026-01-01T00:00:01Z",
            "collection": "acme/app",
            "collection_id": "11",
            "source": "github",
            "kind": "issue",
            "status": "open",
            "tags": ["bug", "ui"],
            "assignees": ["dave"],
            "milestone": "1.0",
        }
        assert found["11/issue/1"]["text"].startswith("Fixes acme/other#1")

    def test_a_pull_request_has_its_branches(self, found):
        told = found["11/issue/2"]
        assert (told["text"], told["metadata"]["kind"]) == ("", "pull")
        kept = [told["metadata"][name] for name in ("status", "head", "base")]
        assert kept == ["merged", "alice:work", "main"]

    @pytest.mark.parametrize(
        ("key", "parent"),
        [
            ("comment/1001", "issue/1"),
            ("review/2001", "issue/2"),
            ("review-comment/3001", "issue/2"),
            ("review-comment/3002", "review-comment/3001"),
            ("discussion-comment/30000", "discussion/3"),
            ("discussion-comment/30001", "discussion-comment/30000"),
        ],
    )
    def test_an_answer_has_what_it_answers_as_its_parent(self, found, key, parent):
        first = found[f"11/{key}"]["metadata"]["relationships"][0]
        assert first == {"relationship_type": "parent", "target_id": f"github:11/{parent}"}

    def test_a_commit_refers_to_what_its_message_names(self, found):
        (commit,) = [row for key, row in found.items() if "/commit/" in key]
        assert commit["metadata"]["title"] == "Begin"
        assert commit["metadata"]["relationships"][0]["target_id"] == "github:11/issue/1"

    def test_text_files_are_as_they_are_and_know_their_topics(self, found):
        told = found["11/file/src/été.py"]
        assert told["text"] == "# été\r\n"
        assert told["metadata"]["tags"] == ["search"]
        assert told["metadata"]["uri"] == (
            "https://github.com/acme/app/blob/main/src/%C3%A9t%C3%A9.py"
        )

    def test_links_submodules_and_no_text_are_told_from_text(self, found):
        files = {key.partition("/file/")[2]: row for key, row in found.items() if "/file/" in key}
        assert files.keys() == FILES.keys() - {"link", "module"}
        assert files["big.bin.txt"]["text"] == files["a.png"]["text"] == ""
        assert files["model.bin.md"]["metadata"]["lfs"] == {"oid": "sha256:1", "size": "9"}
        assert files["paper.pdf"]["text"].strip() == "Found in a PDF"
        assert files["book.ipynb"]["text"].startswith("# Title")


class TestFiles:
    def test_300_compared_files_may_be_more_so_the_tree_is_read(self, world, tmp_path):
        app, to = filled(world, 0), tmp_path / "kb.lance"
        run(world, to, resources=["files"])
        app.commit({f"many/{number}.md": f"{number}\n" for number in range(400)})
        receipt, asked = run(world, to, resources=["files"])
        assert (receipt.rows_written, receipt.rows_unchanged) == (400, 4)
        # The repository, the comparison, the tree, and what is new in it.
        assert len(asked) == 3 + 400

    @pytest.mark.parametrize("keep_old", [False, True], ids=["404", "diverged"])
    def test_after_a_forced_push_the_tree_is_read(self, world, tmp_path, keep_old):
        app, to = filled(world, 0), tmp_path / "kb.lance"
        app.commit({"new.md": "new\n"})
        run(world, to, resources=["files"])
        app.force_push({"newer.md": "newer\n"}, keep_old)
        receipt, asked = run(world, to, resources=["files"])
        assert "/git/trees/" in asked[2]
        assert written(receipt) == (1, 0, 1)
        assert "github:11/file/new.md" not in rows(to)

    def test_after_the_branch_went_back_the_tree_is_read(self, world, tmp_path):
        app, to = filled(world, 0), tmp_path / "kb.lance"
        before = app.branches["main"]
        app.commit({"new.md": "new\n"})
        run(world, to, resources=["files"])
        app.branches["main"], app.pushed_at = before, world.clock.tick()
        assert written(run(world, to, resources=["files"])[0]) == (0, 0, 1)

    def test_a_comparison_that_is_too_much_for_github_is_read_by_the_tree(
        self, world, tmp_path, monkeypatch
    ):
        monkeypatch.setattr(retry, "LONGEST_BACKOFF", 0.0)
        app, to = filled(world, 0), tmp_path / "kb.lance"
        run(world, to, resources=["files"])
        world.most_compared = 1
        app.commit({"one.md": "1\n", "two.md": "2\n", "docs/a.md": None})
        assert written(run(world, to, resources=["files"])[0]) == (2, 0, 1)

    def test_a_repository_without_the_branch_is_left_out(self, world, tmp_path):
        app = filled(world, 0)
        app.branches["work"] = app.branches["main"]
        world.add("acme/lib").commit({"a.md": "a\n"})
        receipt, _ = run(world, tmp_path / "kb.lance", "acme/*", resources=["files"], branch="work")
        assert receipt.rows_written == 4
        assert receipt.unread == ("acme/lib: files: there is no branch work",)

    def test_what_is_no_longer_wanted_goes_with_the_next_tree(self, world, tmp_path):
        filled(world, 0)
        to, without = tmp_path / "kb.lance", {"resources": ["files"], "attachments": "none"}
        run(world, to, resources=["files"])
        assert run(world, to, **without)[0].rows_deleted == 1

    def test_a_truncated_tree_is_walked(self, world, tmp_path):
        world.most_in_tree = 5
        app = world.add("acme/app")
        paths = [f"{a}/{b}/{c}.md" for a in "ab" for b in "cd" for c in range(4)]
        app.commit({path: path for path in [*paths, "top.md"]})
        run(world, tmp_path / "kb.lance", resources=["files"])
        assert len(rows(tmp_path / "kb.lance")) == 17

    def test_an_unchanged_file_is_recognised_before_it_is_fetched(self, world, tmp_path):
        filled(world, 0)
        run(world, tmp_path / "kb.lance", resources=["files"])
        receipt, asked = run(
            world, tmp_path / "kb.lance", resources=["files"], job={"mode": "mirror"}
        )
        assert (receipt.rows_unchanged, len(asked)) == (4, 2)

    def test_a_push_to_another_branch_changes_nothing(self, world, tmp_path):
        app, to = filled(world, 0), tmp_path / "kb.lance"
        run(world, to, resources=["files"])
        app.branches["other"] = app.branches["main"]
        app.commit({"other.md": "x\n"}, branch="other")
        assert run(world, to, resources=["files"])[0].rows_written == 0

    @pytest.mark.parametrize(
        ("settings", "kept"),
        [
            ({"paths": ["docs/**"]}, {"docs/a.md", "docs/b.md"}),
            ({"paths": "docs"}, {"docs/a.md", "docs/b.md"}),
            ({"paths": ["docs/a.md", "*.png"]}, {"docs/a.md", "logo.png"}),
            ({"exclude_paths": ["*.md"]}, {"logo.png"}),
            ({"attachments": "none"}, {"README.md", "docs/a.md", "docs/b.md"}),
        ],
    )
    def test_files_are_chosen_by_path_and_type(self, world, settings, kept):
        filled(world, 0)
        items = items_of(connector(world, resources=["files"], **settings))
        assert {one["path"] for one in items} == kept

    @pytest.mark.parametrize(("attachments", "data"), [("bytes", b"\x89\0"), ("text", None)])
    def test_bytes_are_kept_on_demand(self, world, attachments, data):
        filled(world, 0)
        one = connector(world, resources=["files"], attachments=attachments)
        made = {item["path"]: one.map_to_frame_record(item) for item in items_of(one)}
        assert made["logo.png"].raw_data == data
        assert made["logo.png"].raw_data_type == (data and "image/png")


def items_of(one: GitHubConnector) -> list[Any]:
    one.ensure_authenticated()
    return list(one.sync_documents_stream())


class TestAccounts:
    def test_a_hidden_a_blocked_and_an_absent_repository_are_left_out_by_name(
        self, world, tmp_path
    ):
        filled(world, 1)
        world.add("acme/blocked", blocked=True)
        world.add("acme/off", has_issues=False)
        world.add("acme/empty")
        world.add("acme/secret", private=True)
        names = ("acme/app", "acme/blocked", "acme/off", "acme/empty", "acme/secret", "acme/none")
        world.tokens["ghp_some"] = {"login": "bob", "repositories": names[:4]}
        receipt, _ = run(world, tmp_path / "kb.lance", *names, token="ghp_some")
        assert receipt.rows_written == 5
        assert [one.partition(":")[0] for one in sorted(receipt.unread)] == [
            "acme/blocked",
            "acme/none",
            "acme/secret",
        ]

    def test_states_move_beside_a_repository_that_cannot_be_seen(self, world, tmp_path):
        filled(world, 3)
        for _ in range(2):
            receipt, asked = run(world, tmp_path / "kb.lance", "acme/app", "acme/none")
        assert receipt.rows_written == 0 and not any("/git/" in one for one in asked)

    def test_a_renamed_repository_is_the_same(self, world, tmp_path):
        app, to = filled(world, 3), tmp_path / "kb.lance"
        run(world, to, resources=["issues"])
        world.rename(app, "acme/new")
        before = rows(to)
        app.edit_issue(3, title="Renamed")
        receipt, _ = run(world, to, resources=["issues"])
        assert (receipt.failed, receipt.unread, rows(to).keys()) == (0, (), before.keys())
        assert rows(to)["github:11/issue/3"]["metadata"]["collection"] == "acme/new"

    def test_who_may_read_a_repository_may_read_what_is_in_it(self, world, tmp_path):
        app, to = filled(world, 3), tmp_path / "kb.lance"
        run(world, to, resources=FOUR)
        assert readers(to) == {"anyone": 8}
        app.private = True
        receipt, asked = run(world, to, resources=FOUR)
        assert readers(to) == {"github-repo:11": 8}
        assert receipt.readers_changed == 4  # files, whose texts are not fetched again
        assert not any("/git/blobs/" in one for one in asked)
        assert run(world, to, resources=FOUR)[0].rows_written == 0

    def test_nobody_knows_who_may_read_a_draft(self):
        repository = {"id": 11, "readers": ["anyone"]}
        release = {"_kind": "release", "_repository": repository, "id": 1, "tag_name": "v1"}
        assert record_of(release).readers == ["anyone"]
        assert record_of({**release, "draft": True}).readers is None

    def test_a_transferred_issue_is_new_where_it_went(self, world, tmp_path):
        app, to = filled(world, 3), tmp_path / "kb.lance"
        other = world.add("acme/other")
        run(world, to, "acme/app", "acme/other", resources=["issues"])
        app.transfer_issue(2, other)
        receipt, _ = run(world, to, "acme/app", "acme/other", resources=["issues"])
        assert written(receipt) == (1, 0, 0)

    @pytest.mark.parametrize(
        ("settings", "names"),
        [
            ({"organizations": ["acme"], "exclude": ["acme/old*"]}, {"acme/app", "acme/lib"}),
            ({"organizations": ["acme"], "include": ["*/lib"]}, {"acme/lib"}),
            ({"repositories": ["acme/*"]}, {"acme/app", "acme/lib", "acme/old1"}),
            ({"repositories": ["acme/l*", "who/x"]}, {"acme/lib", "who/x"}),
            ({"repositories": ["ACME/A*"]}, {"acme/app"}),
            ({"repositories": ["acme/kept"]}, {"acme/kept"}),
            ({"repositories": ["https://github.com/acme/lib.git"]}, {"acme/lib"}),
            ({"organizations": ["acme"], "archived": True, "exclude": ["acme/o*"]}, None),
            ({}, {"acme/app", "acme/lib", "acme/old1", "who/x"}),
        ],
    )
    def test_repositories_are_chosen_by_name_owner_and_kind(self, world, settings, names):
        for name in ("acme/app", "acme/lib", "acme/old1", "who/x"):
            world.add(name)
        world.add("acme/kept", archived=True)
        world.add("acme/fork", fork=True)
        one = GitHubConnector(base_url=world.url, token=TOKEN, **settings)
        found = {part.params["repository"]["name"] for part in one.partitions()}
        assert found == (names or {"acme/app", "acme/lib", "acme/kept"})

    def test_all_that_another_account_reads_is_not_the_same_source(self, world, tmp_path):
        filled(world, 3)
        world.tokens["ghp_bob"] = {"login": "bob", "repositories": []}
        settings = {"resources": ["issues"], "repositories": [], "base_url": world.url}
        ingest(GitHubConnector(token=TOKEN, **settings), str(tmp_path / "kb.lance"), embed_dim=2)
        other = GitHubConnector(token="ghp_bob", **settings)
        with pytest.raises(CommitError, match="read with an account of 'user "):
            ingest(other, str(tmp_path / "kb.lance"), mode="mirror", max_deletes="100%")

    def test_an_app_reads_what_it_is_installed_on_and_renews_its_token(self, world, tmp_path):
        filled(world, 250)
        # Each token ends after so many requests.
        world.token_requests = 4
        receipt, asked = run(
            world,
            tmp_path / "kb.lance",
            token=None,
            app_id="77",
            private_key=world.private_key,
            resources=FOUR,
        )
        assert (receipt.rows_written, receipt.failed) == (337, 0)
        assert sum("access_tokens" in one for one in asked) >= 3

    @pytest.mark.parametrize(
        ("settings", "said"),
        [
            ({"token": "wrong"}, "Bad credentials"),
            ({"token": None, "repositories": []}, "give repositories or organizations"),
            ({"resources": ["isues"]}, "did you mean issues"),
            ({"repositories": ["app"]}, "write owner/name"),
            ({"attachments": "all"}, "it must be one of none, metadata, text, bytes"),
            ({"tokens": ["b"]}, "give one of token, tokens and app_id"),
            ({"token": None, "app_id": "1"}, "needs app_id and private_key"),
        ],
    )
    def test_a_mistake_is_told_with_what_to_do(self, world, settings, said):
        arguments = {"repositories": ["acme/app"], "token": TOKEN, **settings}
        with pytest.raises((ConfigError, ConnectorError), match=said):
            items_of(GitHubConnector(base_url=world.url, **arguments))


class TestDiscussions:
    def test_comments_and_replies_are_followed_to_their_end(self, world, tmp_path):
        app, to = world.add("acme/app"), tmp_path / "kb.lance"
        talks = [app.add_discussion(f"Talk {n}", "") for n in range(30)]
        comments = [app.add_discussion_comment(talks[0], f"Comment {n}") for n in range(120)]
        for number in range(130):
            app.add_discussion_comment(talks[0], f"Reply {number}", comments[7])
        resources = ["discussions", "comments"]
        receipt, asked = run(world, to, resources=resources)
        assert receipt.rows_written == 30 + 120 + 130
        assert sum("/graphql" in one for one in asked) == 2 + 1 + 2
        app.delete_discussion_comment(talks[0], comments[9])
        assert written(run(world, to, resources=resources)[0]) == (0, 1, 1)

    def test_without_an_account_there_are_none(self, world, tmp_path):
        world.add("acme/app").add_discussion("How?", "")
        receipt, _ = run(world, tmp_path / "kb.lance", token=None, resources=["discussions"])
        assert "needs a token" in receipt.unread[0]


class TestInline:
    def test_comments_stand_in_the_text_of_what_they_comment(self, world, tmp_path):
        app, to = filled(world, 5), tmp_path / "kb.lance"
        app.add_comment(5, "On the change")
        talk = app.add_discussion("How?", "So")
        app.add_discussion_comment(talk, "No")
        run(world, to, resources=READ, comments="inline")
        found = rows(to)
        assert not any("comment" in key for key in found)
        assert (
            "\n\n---\n\n**@bob**, 2026-01-01T00:00:04Z:\n\nComment on 3 by @bob"
            in (found["github:11/issue/3"]["text"])
        )
        assert found["github:11/issue/5"]["text"].endswith("On the change")
        assert found[f"github:11/discussion/{talk}"]["text"].endswith("No")


class TestWiki:
    @pytest.fixture
    def wiki(self, tmp_path) -> Path:
        """The work tree of a wiki, whose bare repository lies in `web`."""
        bare = tmp_path / "web" / "acme" / "app.wiki.git"
        git("init", "--quiet", "--bare", "--initial-branch", "main", bare)
        git("clone", "--quiet", bare, tmp_path / "wiki")
        return tmp_path / "wiki"

    def test_pages_are_read_and_deleted_with_the_wiki(self, world, tmp_path, wiki):
        world.wikis, to = tmp_path / "web", tmp_path / "kb.lance"
        world.add("acme/app")
        push(wiki, {"Home.md": "See #1", "How-to.md": "So", "a.png": "x"})
        receipt, _ = run(world, to, resources=["wiki"])
        assert (written(receipt), receipt.unread) == ((2, 0, 0), ())
        assert rows(to)["github:11/wiki/How-to.md"]["metadata"]["title"] == "How to"
        assert run(world, to, resources=["wiki"])[0].rows_written == 0
        push(wiki, {"Home.md": "New", "How-to.md": None})
        assert written(run(world, to, resources=["wiki"])[0]) == (0, 1, 1)
        sent = [one.asked.headers.get("authorization", "") for one in world.served]
        assert any(one.startswith("Basic ") for one in sent)

    def test_a_wiki_without_a_page_is_empty(self, world, tmp_path):
        world.add("acme/app")
        receipt, _ = run(world, tmp_path / "kb.lance", resources=["wiki"])
        assert (receipt.rows_written, receipt.unread) == (0, ())


def git(*arguments: object) -> None:
    subprocess.run(["git", *map(str, arguments)], check=True, capture_output=True)


def push(tree: Path, files: Mapping[str, str | None]) -> None:
    for name, text in files.items():
        if text is None:
            (tree / name).unlink()
        else:
            (tree / name).write_text(text)
    who = ("-c", "user.name=A", "-c", "user.email=a@x.test")
    git("-C", tree, "add", "--all")
    git("-C", tree, *who, "commit", "--quiet", "--message", "change")
    git("-C", tree, "push", "--quiet", "origin", "HEAD:main")


class TestLimits:
    @pytest.mark.parametrize("tokens", [["ghp_all"], ["ghp_all", "ghp_two"]])
    def test_a_used_up_quota_is_waited_for(self, world, tmp_path, tokens):
        filled(world, 60)
        world.tokens["ghp_two"] = {"login": "bob"}
        world.quota, world.quota_seconds = 10, 0.5
        receipt, asked = run(world, tmp_path / "kb.lance", token=None, tokens=tokens)
        assert (receipt.rows_written, receipt.failed) == (60 + 20 + 4, 0)
        refused_ones = sum(one.endswith(" 403") for one in asked)
        assert refused_ones <= 0.05 * len(asked)

    @pytest.mark.parametrize("retry_after", [1, None], ids=["Retry-After", "without"])
    def test_a_secondary_limit_is_waited_for(self, world, tmp_path, monkeypatch, retry_after):
        monkeypatch.setattr(judges, "_SECONDARY_SECONDS", 0.3)
        filled(world, 3)
        world.scripted.append(secondary(retry_after))
        assert run(world, tmp_path / "kb.lance", resources=FOUR)[0].rows_written == 8

    def test_a_limit_that_outlasts_max_wait_fails_the_run(self, world, tmp_path, monkeypatch):
        monkeypatch.setattr(retry, "LONGEST_BACKOFF", 0.0)
        filled(world, 3)
        world.quota = 2
        with pytest.raises(ConnectorError, match="max_wait is 1 s"):
            run(world, tmp_path / "kb.lance", resources=FOUR, max_wait=1)

    def test_a_page_that_takes_github_too_long_is_asked_for_in_halves(self, world, tmp_path):
        filled(world, 60)
        world.slow_above = 30
        receipt, _ = run(world, tmp_path / "kb.lance", resources=["issues", "pulls"])
        assert receipt.rows_written == 60
        sizes = [one.asked.query["per_page"] for one in world.served if one.asked.query]
        assert sizes == ["100", "50", "25", "25", "25"]

    def test_a_run_that_is_killed_at_any_request_is_made_good_by_the_next(
        self, world, tmp_path, monkeypatch
    ):
        monkeypatch.setattr(retry, "LONGEST_BACKOFF", 0.0)
        filled(world, 6)
        run(world, tmp_path / "whole.lance", resources=READ)
        count = len(world.served)
        to = tmp_path / "kb.lance"
        for number in range(1, count + 1, 3):
            start = len(world.served)
            world.closing = lambda asked, at=start + number: asked.number >= at
            with pytest.raises(ConnectorError):
                run(world, to, resources=READ)
            world.closing = None
        run(world, to, resources=READ)
        assert rows(to) == rows(tmp_path / "whole.lance")
