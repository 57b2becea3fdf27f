"""What a world's check finds: the faults that are planted here, in requests and in answers."""

import json
import urllib.error
import urllib.request

import pytest

from tests.worlds.described import Answer, Together, Window, World
from tests.worlds.graphql import GraphQL
from tests.worlds.openapi import JsonTypes, OpenApi

NOTE = {
    "type": "object",
    "required": ["id", "text"],
    "properties": {
        "id": {"type": "integer"},
        "text": {"type": "string", "nullable": True},
        "at": {"type": "string", "format": "date-time"},
        "tags": {"type": "array", "items": {"type": "string"}},
    },
}
NOTES = {
    "openapi": "3.0.3",
    "components": {"schemas": {"note": NOTE}},
    "paths": {
        "/notes": {
            "get": {
                "parameters": [
                    {"name": "page", "in": "query", "schema": {"type": "integer", "minimum": 1}},
                    {"name": "all", "in": "query", "schema": {"type": "boolean"}},
                    {"name": "sort", "in": "query", "schema": {"enum": ["id", "at"]}},
                    {"name": "X-Version", "in": "header", "required": True},
                ],
                "responses": {
                    "200": {
                        "content": {
                            "application/json": {
                                "schema": {
                                    "type": "array",
                                    "items": {"$ref": "#/components/schemas/note"},
                                }
                            }
                        }
                    }
                },
            },
            "post": {
                "requestBody": {
                    "required": True,
                    "content": {
                        "application/json": {"schema": {"$ref": "#/components/schemas/note"}}
                    },
                },
                "responses": {"201": {"description": "made"}},
            },
        },
        "/notes/{id}": {
            "get": {
                "parameters": [
                    {"name": "id", "in": "path", "required": True, "schema": {"type": "integer"}}
                ],
                "responses": {"2XX": {}, "404": {}},
            }
        },
    },
}
SCHEMA = """
type Query { note(id: Int!): Note  notes(first: Int): NoteConnection! }
type NoteConnection { nodes: [Note!]!  total: Int! }
type Note { id: Int!  text: String }
"""


class Notes(World):
    description = Together(OpenApi(NOTES), GraphQL(SCHEMA))

    def __init__(self):
        super().__init__()
        self.given = Answer(body=[{"id": 1, "text": "one"}])

    def answer(self, asked):
        if asked.template == "/graphql":
            notes = {"notes": lambda first=None: {"nodes": [{"id": 1}]}}
            return Answer(body=GraphQL(SCHEMA).run(asked.body, notes))
        return self.given


@pytest.fixture(scope="module")
def one_world():
    with Notes() as world:
        yield world


@pytest.fixture
def world(one_world):
    one_world.problems.clear()
    one_world.given = Answer(body=[{"id": 1, "text": "one"}])
    return one_world


def ask(world, path="/notes", body=None, method=None, **headers):
    data = None if body is None else json.dumps(body).encode()
    sent = {"X-Version": "1", "Content-Type": "application/json", **headers}
    request = urllib.request.Request(world.url + path, data, sent, method=method)
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


@pytest.mark.parametrize(
    "path", ["/notes", "/notes?page=2&all=true&sort=at", "/notes/17", "/notes?page=10"]
)
def test_what_the_description_allows_is_no_problem(world, path):
    ask(world, path)
    assert world.problems == []


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("/note", None, "GET /note: no such operation"),
        ("/notes?pages=2", None, "query parameter 'pages' is not in the description"),
        ("/notes?page=two", None, "page='two' is no integer"),
        ("/notes?page=0", None, "page: 0 is less than the minimum of 1"),
        ("/notes?all=1", None, "all='1' is no boolean"),
        ("/notes?sort=name", None, "sort: "),
        ("/notes/one", None, "id='one' is no integer"),
        ("/notes", {"id": "1", "text": ""}, 'body.id: "1" is not of type "integer"'),
        ("/notes", {"id": 1}, 'body: "text" is a required property'),
        ("/notes", {"id": 1, "text": "", "tag": 1}, "body.tag is not in the description"),
        ("/notes", {"id": 1, "text": "", "tags": [1]}, "body.tags[0]: 1 is not of type"),
        ("/graphql", {"query": "{ notes { nodes { name } } }"}, "Cannot query field 'name'"),
        ("/graphql", {"query": "{ note { id } }"}, "of type 'Int!' is required"),
        ("/graphql", {"query": "{ notes {"}, "Syntax Error"),
        ("/graphql", {"query": "{ notes { total } }", "vars": {}}, "body.vars is not in"),
        ("/graphql", ["notes"], "the body is no GraphQL query"),
    ],
)
def test_a_fault_planted_in_a_request_is_found(world, path, body, said):
    world.given = Answer(201 if body else 200, body=None if body else [])
    ask(world, path, body)
    assert said in world.problems[0]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (Answer(body=[{"id": 1}]), 'answer[0]: "text" is a required property'),
        (Answer(body=[{"id": 1, "text": None}, {"id": "2", "text": ""}]), "answer[1].id: "),
        (Answer(body={"id": 1, "text": ""}), 'answer: {"id":1,"text":""} is not of type "array"'),
        (Answer(body=None), "answer: null is not of type"),
        (Answer(body=[{"id": 1, "text": "", "at": "yesterday"}]), "answer[0].at: "),
        (Answer(418, body={}), "status 418 is not in the description"),
    ],
)
def test_a_fault_planted_in_an_answer_is_found(world, answer, said):
    world.given = answer
    ask(world)
    assert said in world.problems[0]


def test_a_missing_header_is_found(world):
    request = urllib.request.Request(world.url + "/notes")
    urllib.request.urlopen(request).close()
    assert world.problems == ["GET /notes: header 'x-version' is required"]


def test_a_request_that_is_not_described_is_answered_404(world):
    assert ask(world, "/note")[0] == 404


def test_a_query_is_given_the_least_values_of_what_the_world_leaves_out(world):
    _, data = ask(world, "/graphql", {"query": "{ notes { total nodes { id text } } }"})
    assert json.loads(data) == {"data": {"notes": {"total": 0, "nodes": [{"id": 1, "text": None}]}}}
    assert world.problems == []


def test_scripted_answers_come_first_and_are_not_checked(world):
    world.scripted.append(Answer(502, body=b"<html>"))
    assert [ask(world), ask(world)] == [(502, b"<html>"), (200, b'[{"id": 1, "text": "one"}]')]
    assert world.problems == []


def test_a_connection_is_closed_on_demand(world):
    world.closing = lambda asked: asked.path == "/notes/7"
    try:
        with pytest.raises((OSError, urllib.error.URLError)):
            ask(world, "/notes/7")
        assert ask(world, "/notes/8")[0] == 200
    finally:
        world.closing = None
    assert [one.status for one in world.served[-2:]] == [0, 200]


def test_types_find_a_fault_planted_in_an_answer():
    types = JsonTypes(
        {"definitions": {"Note": {**NOTE, "properties": {"id": {"type": "integer"}}}}}
    )
    assert types.problems("Note", {"id": 1, "text": ""}) == []
    assert types.problems("Note", {"id": 1}) == ['answer: "text" is a required property']


def test_the_least_value_of_a_schema_has_what_is_required_and_no_more():
    notes = OpenApi(NOTES)
    assert notes.filled(notes.schema("note"), {"id": 5}) == {"id": 5, "text": None}


def test_a_window_allows_its_count_for_each_key():
    window = Window(2, 3600)
    assert [window.wait("a"), window.wait("a"), window.wait("b")] == [0, 0, 0]
    assert 3500 < window.wait("a") <= 3600
