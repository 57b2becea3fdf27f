"""The world of Linear: its check finds planted faults, and Linear's own client reads it."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from contextframe_beam.connectors.linear.connector import LinearConnector
from tests.worlds.clients import node
from tests.worlds.linear_world import KEY, LinearWorld, price, uid


@pytest.fixture
def world() -> Iterator[LinearWorld]:
    with LinearWorld() as made:
        yield made


def ask(world: LinearWorld, query: str, key: str = KEY, **variables: Any) -> Any:
    body = json.dumps({"query": query, "variables": variables}).encode()
    headers = {"Authorization": key, "Content-Type": "application/json"}
    request = urllib.request.Request(f"{world.url}/graphql", body, headers)
    try:
        with urllib.request.urlopen(request) as response:
            return json.load(response)
    except urllib.error.HTTPError as error:
        return json.load(error)


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("{ issues { nodes { name } } }", "Cannot query field 'name' on type 'Issue'"),
        ("{ comments(sort: []) { nodes { id } } }", "Unknown argument 'sort'"),
        ("{ issues(filter: {changedAt: {}}) { nodes { id } } }", "unknown field 'changedAt'"),
        ("{ issues(first: many) { nodes { id } } }", "Int cannot represent"),
        ("{ issues { nodes { id }", "Syntax Error"),
    ],
)
def test_a_fault_planted_in_a_query_is_found(world, query, said):
    ask(world, query)
    assert said in " ".join(world.problems)


@pytest.mark.parametrize(
    ("field", "value", "query"),
    [
        ("title", {"text": "x"}, "title"),
        ("priority", "high", "priority"),
        ("trashed", "yes", "trashed"),
    ],
)
def test_a_fault_planted_in_an_answer_is_an_error_of_its_field(world, field, value, query):
    world.issue(world.team("ENG", "Engineering"), **{field: value})
    told = ask(world, f"{{ issues {{ nodes {{ {query} }} }} }}")
    assert told["errors"][0]["path"] == ["issues", "nodes", 0, field]


def test_a_query_is_priced_by_what_it_may_give_and_refused_above_the_limit(world):
    # 50 where `first` is left out: (1 + (50 of (1 + 0.1))) for each of 100 issues.
    assert price("{ issues(first: 100) { nodes { labels { nodes { id } } } } }", {}) == 5600
    query = "query($n: Int) { issues(first: $n) { nodes { id } } }"
    assert price(query, {"n": 10}) == 11
    told = ask(world, "{ issues(first: 250) { nodes { labels { nodes { id } } } } }")
    assert "Query too complex" in told["errors"][0]["message"]
    assert world.problems == []


def test_what_is_refused_has_the_form_of_linears_errors(world):
    told = ask(world, "{ viewer { id } }", key="lin_api_other")
    assert told["errors"][0]["extensions"]["code"] == "AUTHENTICATION_ERROR"
    with world.limited(0, 1000, 60):
        told = ask(world, "{ viewer { id } }")
    assert told["errors"][0]["extensions"]["code"] == "RATELIMITED"


#: Reads a world with Linear's own client, page by page.
SECOND_OPINION = """
const [url, token] = given;
const linear = new client.LinearClient({ apiKey: token, apiUrl: `${url}/graphql` });
const all = async (asked) => {
  let page = await asked;
  const found = [...page.nodes];
  while (page.pageInfo.hasNextPage) {
    page = await page.fetchNext();
    found.push(...page.nodes);
  }
  return [...new Map(found.map((one) => [one.id, one])).values()];
};
const ids = async (asked) => (await all(asked)).map((one) => one.id);
const failure = async (asked) => {
  try { await asked; return null; } catch (error) { return [error.type, error.status]; }
};
const some = { first: 20, includeArchived: true };
const issues = await all(linear.issues(some));
const one = await linear.issue("ENG-1");
const inner = { first: 20 };
tell({
  me: (await linear.viewer).name,
  workspace: (await linear.organization).urlKey,
  teams: (await all(linear.teams(some))).map((each) => each.key).sort(),
  people: (await all(linear.users(some))).map((each) => each.displayName).sort(),
  issues: issues.map((each) => each.id),
  later: (await all(linear.issues({
    ...some, filter: { updatedAt: { gte: issues.map((each) => each.updatedAt).sort().at(-1) } },
  }))).length,
  labels: (await all(one.labels(inner))).map((each) => each.name),
  relations: (await all(one.relations(inner))).map((each) => each.type),
  links: (await all(one.attachments(inner))).map((each) => each.url),
  onIt: await ids(one.comments(inner)),
  comments: await ids(linear.comments(some)),
  projects: await ids(linear.projects(some)),
  updates: [
    ...await ids(linear.projectUpdates(some)), ...await ids(linear.initiativeUpdates(some)),
  ],
  documents: await ids(linear.documents(some)),
  initiatives: await ids(linear.initiatives(some)),
  wrong: await failure(new client.LinearClient({ apiKey: "no", apiUrl: `${url}/graphql` }).viewer),
  none: (await failure(linear.issue("ENG-99"))) !== null,
});
"""


def test_linears_own_client_reads_what_the_connector_reads(world):
    eng = world.team("ENG", "Engineering")
    world.team("SEC", "Security", "private")
    project = world.project("App", eng)
    first = world.issue(eng, "First", "Text", project=project)
    first["_labels"] = [{"id": uid(n), "name": f"Label {n:02}"} for n in range(45)]
    first["_attachments"] = [{"id": uid(1), "title": "PR", "url": "https://x.test/1"}]
    others = [world.issue(eng, f"Issue {number}") for number in range(50)]
    world.relate(first, others[0], "duplicate")
    world.archive(others[1])
    comments = [world.comment(first, f"Comment {number}") for number in range(30)]
    world.comment(world.update(project))
    world.document("Spec", project=project)
    world.update(world.initiative("Growth", eng))
    found = node("@linear/sdk", SECOND_OPINION, world.url, KEY)
    assert world.problems == []

    ours = LinearConnector(token=KEY, base_url=world.url)
    ours.ensure_authenticated()
    read: dict[str, set[str]] = {}
    for item in ours.sync_documents_stream():
        read.setdefault(item["_kind"], set()).add(item["id"])
        if item["id"] == first["id"]:
            whole = item
    assert {*found["issues"]} == read["issue"] and len(found["issues"]) == 51
    assert {*found["comments"]} == read["comment"]
    assert {*found["projects"]} == read["project"]
    assert {*found["updates"]} == read["project_update"] | read["initiative_update"]
    assert {*found["documents"]} == read["document"]
    assert {*found["initiatives"]} == read["initiative"]
    assert {*found["onIt"]} == {one["id"] for one in comments}
    assert sorted(found["labels"]) == [one["name"] for one in whole["labels"]]
    assert found["relations"] == [one["type"] for one in whole["relations"]] == ["duplicate"]
    assert found["links"] == [one["url"] for one in whole["attachments"]]
    assert (found["me"], found["workspace"]) == ("Ana Lima", "acme")
    assert (found["teams"], found["people"]) == (["ENG", "SEC"], ["ana", "bob"])
    assert found["later"] == 1 and found["none"]
    assert found["wrong"] == ["AuthenticationError", 401]
