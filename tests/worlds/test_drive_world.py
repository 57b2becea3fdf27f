"""The world of Google Drive finds faults that are planted in requests and in its own answers."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

import pytest

from tests.worlds.drive_files import ADA, BOB, FOLDER, may
from tests.worlds.drive_query import query_of
from tests.worlds.drive_world import DriveWorld


@pytest.fixture
def world() -> Iterator[DriveWorld]:
    with DriveWorld() as made:
        handbook = made.files.folder("Handbook")
        made.files.doc("Welcome", "# Welcome", handbook)
        made.files.comment(made.files.file("a.txt", b"a", handbook), "Nice")
        made.files.sheets("Numbers", {"One": [["a"]]}, handbook)
        made.files.slides("Talk", [{"objectId": "p1", "pageElements": []}], handbook)
        yield made


def ask(world: DriveWorld, path: str, person: str = ADA) -> tuple[int, Any]:
    headers = {"Authorization": f"Bearer ya29.{person}"} if person else {}
    request = urllib.request.Request(f"{world.url}{path}", headers=headers)
    try:
        with urllib.request.urlopen(request) as response:
            return response.status, json.loads(response.read() or b"null")
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def named(world: DriveWorld, name: str) -> str:
    return next(one.id for one in world.files.items.values() if one.name == name)


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("/drive/v3/revisions", "no such operation"),
        ("/drive/v3/files?page_size=5", "'page_size' is not in the description"),
        ("/drive/v3/files?pageSize=5000", "pageSize=5000 is not between 1 and 1000"),
        ("/drive/v3/files?supportsTeamDrives=true", "is deprecated"),
        ("/drive/v3/files?supportsAllDrives=yes", "is no boolean"),
        ("/drive/v3/files?fields=files(id,title)", "File has no 'title'"),
        ("/drive/v3/files?fields=files(owners/mail)", "User has no 'mail'"),
        ("/drive/v3/files?fields=files(id", "a bracket is not closed"),
        ("/drive/v3/changes", "'pageToken' is required"),
        ("/drive/v3/files/x/export", "'mimeType' is required"),
        ("/v4/spreadsheets/x?fields=sheets.title", "Spreadsheet has no"),
    ],
)
def test_a_request_that_google_does_not_know_is_a_problem(world, path, problem):
    ask(world, path)
    assert any(problem in one for one in world.problems), world.problems


def _wrong_time(world: DriveWorld) -> None:
    world.files.items[named(world, "a.txt")].modified = "yesterday"


def _unknown_field(world: DriveWorld) -> None:
    world.files.items[named(world, "a.txt")].more["title"] = "a.txt"


def _number_for_text(world: DriveWorld) -> None:
    world.files.items[named(world, "a.txt")].comments[0]["content"] = 7


def _unknown_cell(world: DriveWorld) -> None:
    content = world.files.items[named(world, "Numbers")].content
    assert content is not None
    content["sheets"][0]["data"][0]["rowData"][0]["values"] = [{"text": "a"}]


@pytest.mark.parametrize(
    ("plant", "path"),
    [
        (_wrong_time, "/drive/v3/files/{a.txt}"),
        (_unknown_field, "/drive/v3/files/{a.txt}"),
        (_number_for_text, "/drive/v3/files/{a.txt}/comments?fields=*"),
        (_unknown_cell, "/v4/spreadsheets/{Numbers}"),
    ],
)
def test_an_answer_that_google_does_not_give_is_a_problem(
    world: DriveWorld, plant: Callable[[DriveWorld], None], path: str
) -> None:
    names = {name: named(world, name) for name in ("a.txt", "Numbers")}
    for name, identifier in names.items():
        path = path.replace(f"{{{name}}}", identifier)
    ask(world, path)
    assert world.problems == []
    plant(world)
    ask(world, path)
    assert world.problems


def test_what_is_refused_has_the_form_of_googles_errors(world: DriveWorld) -> None:
    assert ask(world, "/drive/v3/files", person="")[0] == 401
    assert ask(world, "/drive/v3/files/none")[1]["error"]["errors"][0]["reason"] == "notFound"
    assert ask(world, "/drive/v3/about")[0] == 400
    assert ask(world, f"/drive/v3/files?q={quote('name like 1')}")[0] == 400
    doc = named(world, "Welcome")
    refused = ask(world, f"/drive/v3/files/{doc}?alt=media")[1]
    assert refused["error"]["errors"][0]["reason"] == "fileNotDownloadable"
    world.disabled.add("slides")
    refused = ask(world, f"/v1/presentations/{named(world, 'Talk')}")[1]
    assert refused["error"]["details"][0]["reason"] == "SERVICE_DISABLED"
    assert world.problems == []


def test_a_mask_of_fields_gives_what_it_names(world: DriveWorld) -> None:
    found = ask(world, "/drive/v3/files?fields=files(name,owners/emailAddress)")[1]
    assert found["files"][0] == {"name": "Handbook", "owners": [{"emailAddress": ADA}]}


def changed(world: DriveWorld, token: int, person: str = ADA) -> list[tuple[str, bool]]:
    path = f"/drive/v3/changes?pageToken={token}&includeItemsFromAllDrives=true"
    told = ask(world, f"{path}&supportsAllDrives=true", person)[1]
    return [(one["fileId"], one["removed"]) for one in told["changes"]]


def test_the_feed_has_each_file_once_and_not_what_is_below_a_folder(world: DriveWorld) -> None:
    files, start = world.files, len(world.files.log)
    handbook = named(world, "Handbook")
    files.share(handbook, may(BOB))
    files.rename(handbook, "Guide")
    assert changed(world, start) == changed(world, start, BOB) == [(handbook, False)]
    files.unshare(handbook, BOB)
    assert changed(world, start, BOB) == [(handbook, True)]
    files.trash(handbook)
    assert changed(world, start) == [(handbook, False)]
    found = ask(world, f"/drive/v3/files/{named(world, 'a.txt')}?fields=trashed,explicitlyTrashed")
    assert found[1] == {"trashed": True, "explicitlyTrashed": False}


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("'A' in parents and trashed=false", True),
        ("('B' in parents or 'A' in parents) and mimeType != 'x'", True),
        (f"not mimeType = '{FOLDER}' and name contains 'ote'", True),
        ("createdTime >= '2026-02-01T00:00:00'", False),
        ("name = 'It\\'s' or trashed = true", False),
    ],
)
def test_queries_mean_what_drive_says(query: str, expected: bool) -> None:
    file = {
        "name": "Note",
        "mimeType": "text/plain",
        "parents": ["A"],
        "trashed": False,
        "createdTime": "2026-01-01T00:00:00.000Z",
    }
    assert query_of(query)(file) is expected
