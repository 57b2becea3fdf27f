"""The world of GitHub: its check finds planted faults, and GitHub's own client reads it."""

from __future__ import annotations

import contextlib
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from contextframe_beam.connectors.github.connector import GitHubConnector
from tests.worlds.clients import node
from tests.worlds.described import Answer, Asked
from tests.worlds.github_repository import Repository
from tests.worlds.github_world import GitHub

TOKEN = "ghp_all"


@pytest.fixture
def world() -> Iterator[GitHub]:
    with GitHub() as one:
        yield one


def filled(world: GitHub) -> Repository:
    """Adds acme/app with 120 issues, of which 24 are pull requests and 40 have a comment."""
    app = world.add("acme/app")
    for number in range(1, 121):
        app.add_issue(f"Issue {number}", "Body", pull=number % 5 == 0)
        if number % 3 == 0:
            app.add_comment(number, "Comment")
    app.commit({"README.md": "# App", "docs/a.md": "# A"})
    return app


class Faulty(GitHub):
    """A world with a fault: a value in the place of another, or none, in its first item."""

    def __init__(self, name: str, value: Any = None) -> None:
        self.fault = name, value
        super().__init__()

    def answer(self, asked: Asked) -> Answer:
        answer = super().answer(asked)
        name, value = self.fault
        if isinstance(answer.body, list) and answer.body:
            if value is None:
                del answer.body[0][name]
            else:
                answer.body[0][name] = value
        return answer


def ask(world: GitHub, path: str, body: Any = None) -> None:
    data = None if body is None else json.dumps(body).encode()
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
    request = urllib.request.Request(world.url + path, data, headers)
    with contextlib.suppress(urllib.error.HTTPError), urllib.request.urlopen(request):
        pass


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("updated_at", None, '"updated_at" is a required property'),
        ("number", "1", '"1" is not of type "integer"'),
        ("updated_at", "yesterday", '"yesterday" is not a "date-time"'),
        ("user", {"login": "alice"}, "answer[0].user"),
        ("labels", [17], "answer[0].labels[0]"),
    ],
)
def test_a_fault_planted_in_an_answer_of_github_is_found(name, value, said):
    with Faulty(name, value) as world:
        filled(world)
        ask(world, "/repos/acme/app/issues")
        assert said in " ".join(world.problems)


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("/repos/acme/app/issues?state=any", None, '"any" is not one of'),
        ("/repos/acme/app/issues?per_page=many", None, "is no integer"),
        ("/repos/acme/app/issues/comments?state=all", None, "'state' is not in the description"),
        ("/repos/acme/app/pulls?since=2026-01-01T00:00:00Z", None, "'since' is not in"),
        ("/graphql", {"query": "{ viewer { name2 } }"}, "Cannot query field 'name2'"),
    ],
)
def test_a_fault_planted_in_a_request_to_github_is_found(world, path, body, said):
    filled(world)
    ask(world, path, body)
    assert said in world.problems[0]


#: Reads a world with GitHub's own client, which follows links by itself.
SECOND_OPINION = """
const [url, token, old] = given;
const quiet = { debug() {}, info() {}, warn() {}, error() {} };
const throttle = { onRateLimit: () => false, onSecondaryRateLimit: () => false };
const made = (auth) =>
  new client.Octokit({ auth, throttle, baseUrl: url, log: quiet, retry: { enabled: false } });
const hub = made(token);
const app = { owner: "acme", repo: "app" };
const all = (path, more) =>
  hub.paginate(`GET /repos/{owner}/{repo}/${path}`, { ...app, per_page: 100, ...more });
const failure = async (asked) => {
  try { await asked; } catch (error) { return error.status; }
};
const { git, pulls, repos, users } = hub.rest;
const issues = await all("issues", { state: "all", sort: "updated", direction: "asc" });
const tree = await git.getTree({ ...app, tree_sha: "main", recursive: "1" });
const blob = await git.getBlob({ ...app, file_sha: tree.data.tree[0].sha });
const compared = await repos.compareCommitsWithBasehead({ ...app, basehead: `${old}...main` });
const owned = await hub.paginate("GET /orgs/{org}/repos", { org: "acme" });
const talks = await hub.graphql(`query($owner: String!, $repo: String!) {
  repository(owner: $owner, name: $repo) { discussions(first: 5) { nodes { title } } }
}`, app);
tell({
  me: (await users.getAuthenticated()).data.login,
  issues: issues.map((one) => one.number),
  pulls: (await all("pulls", { state: "all" })).map((one) => one.number),
  later: (await all("issues", { state: "all", since: issues.at(-5).updated_at })).length,
  comments: (await all("issues/comments")).length,
  reviews: (await pulls.listReviews({ ...app, pull_number: 5 })).data.map((one) => one.state),
  lines: (await all("pulls/comments")).length,
  releases: (await all("releases")).map((one) => one.tag_name),
  files: tree.data.tree.filter((one) => one.type === "blob").map((one) => one.path),
  text: Buffer.from(blob.data.content, "base64").toString(),
  compared: compared.data.files.map((one) => [one.status, one.filename]),
  names: owned.map((one) => one.full_name),
  moved: (await repos.get({ owner: "acme", repo: "old" })).data.full_name,
  talks: talks.repository.discussions.nodes.map((one) => one.title),
  wrong: await failure(made("ghp_wrong").rest.users.getAuthenticated()),
  none: await failure(repos.get({ owner: "acme", repo: "none" })),
  empty: await failure(git.getTree({ owner: "acme", repo: "empty", tree_sha: "main" })),
});
"""


def test_githubs_own_client_reads_what_the_connector_reads(world):
    app = filled(world)
    old = app.branches["main"]
    app.commit({"docs/a.md": None, "docs/z.md": "# A", "new.md": "new"})
    app.add_review(5, "Good")
    app.add_review_comment(5, "Why?")
    app.add_release("v1", "New")
    app.add_discussion("How?", "So")
    world.add("acme/empty")
    world.rename(world.add("acme/old"), "acme/new")
    found = node("octokit", SECOND_OPINION, world.url, TOKEN, old)
    assert world.problems == []

    ours = GitHubConnector(["acme/app"], base_url=world.url, token=TOKEN)
    ours.ensure_authenticated()
    read: dict[str, list[Any]] = {}
    for item in ours.sync_documents_stream():
        read.setdefault(item["_kind"], []).append(item)
    numbers = {kind: {one["number"] for one in read[kind]} for kind in ("issue", "pull")}
    assert {*found["pulls"]} == numbers["pull"]
    assert {*found["issues"]} == numbers["issue"] | numbers["pull"]
    assert (len(found["issues"]), found["later"]) == (120, 5)
    assert (found["comments"], found["lines"]) == (
        len(read["comment"]),
        len(read["review-comment"]),
    )
    assert (found["reviews"], found["releases"]) == (["APPROVED"], ["v1"])
    assert found["files"] == [one["path"] for one in read["file"]]
    assert found["text"] == "# App"
    assert found["compared"] == [["renamed", "docs/z.md"], ["added", "new.md"]]
    assert found["names"] == ["acme/app", "acme/empty", "acme/new"]
    assert (found["me"], found["moved"], found["talks"]) == ("alice", "acme/new", ["How?"])
    assert [found[name] for name in ("wrong", "none", "empty")] == [401, 404, 409]
