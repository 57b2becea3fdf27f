"""The github connector on a world that is checked against GitHub's own descriptions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from contextframe_beam import FrameDataset
from contextframe_beam.connectors.github.connector import GitHubConnector
from contextframe_beam.pipelines.ingest import ingest
from tests.worlds.github_repository import Entry, Repository
from tests.worlds.github_world import GitHub

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
    "a link is added": (
        lambda app: app.commit({"link": Entry(b"README.md", "120000")}),
        set(),
        set(),
    ),
    "nothing": (lambda app: None, set(), set()),
}
READ = ("files", "issues", "pulls", "comments", "reviews", "discussions", "releases")


@pytest.fixture(scope="module")
def kept(tmp_path_factory) -> Iterator[tuple[GitHub, Repository, Path]]:
    with GitHub() as one:
        app, to = filled(one), tmp_path_factory.mktemp("github") / "kb.lance"
        app.commit({"one.md": "one\nline\n", "two.md": "two\nlines\n"})
        run(one, to, resources=READ)
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
        receipt, _ = run(world, to, resources=READ)
        after, prefix = rows(to), f"github:{app.number}/"
        assert before.keys() - after.keys() == {prefix + one for one in deleted}
        found = {one.removeprefix(prefix) for one in after if after[one] != before.get(one)}
        assert found == changed
        assert receipt.rows_written == len(changed)

    def test_after_all_of_them_the_rows_are_those_of_a_first_run(self, kept, tmp_path):
        world, _, to = kept
        run(world, tmp_path / "fresh.lance", resources=READ)
        assert rows(to) == rows(tmp_path / "fresh.lance")

    def test_what_leaves_no_trace_is_seen_by_a_mirror(self, kept):
        world, app, to = kept
        app.delete_issue(6)
        assert written(run(world, to, resources=READ)[0]) == (0, 0, 0)
        receipt, _ = run(world, to, resources=READ, job={"mode": "mirror"})
        assert written(receipt) == (0, 0, 2)
