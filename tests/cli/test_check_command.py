"""`contextframe-beam check CONNECTOR`: what a source gives, before a run."""

import pytest

from tests.support.cli_helpers import cli

SOURCE = """
from contextframe_beam import FrameRecord
from contextframe_beam.connectors import Page, PaginatedConnector, Partition


class Rooms(PaginatedConnector):
    def partitions(self):
        return [Partition(f"room {n}") for n in range(30)]

    def fetch_page(self, partition, cursor):
        return Page([{"id": f"{partition.id}/{n}"} for n in range(2)])

    def map_to_frame_record(self, item):
        return FrameRecord(f"text of {item['id']}", {}, unique_id=f"rooms:{item['id']}")


class Two(Rooms):
    def partitions(self):
        return [Partition("one"), Partition("other")]

    def access(self):
        return ["two rooms, as Ada"]


class Odd(Two):
    def map_to_frame_record(self, item):
        raise ValueError("no title")


class Partial(Two):
    def fetch_page(self, partition, cursor):
        return Page([], partial="a room is locked")
"""


@pytest.fixture(scope="module")
def rooms(tmp_path_factory):
    file = tmp_path_factory.mktemp("check") / "rooms.py"
    file.write_text(SOURCE)
    return file


def test_a_check_shows_the_parts_and_a_frame_of_each_of_three(rooms):
    shown = cli("check", f"{rooms}:Rooms")
    assert shown.code == 0
    assert "reads room 19\n  and 10 more" in shown.out
    assert [n for n in range(30) if f"rooms:room {n}/0" in shown.out] == [0, 1, 2]


def test_a_check_shows_what_the_connector_tells_of_the_account(rooms):
    shown = cli("check", f"{rooms}:Two")
    assert "two rooms, as Ada" in shown.out
    assert shown.out.count("text of") == 3


@pytest.mark.parametrize(
    ("name", "said"),
    [("Odd", "cannot be mapped: ValueError: no title"), ("Partial", "a room is locked")],
)
def test_a_check_fails_where_a_run_would_not_be_complete(rooms, name, said):
    shown = cli("check", f"{rooms}:{name}")
    assert (shown.code, said in shown.out) == (1, True)


def test_a_check_of_files_gives_json(tmp_path):
    (tmp_path / "a.md").write_text("# A")
    told = cli("check", "files", "--directory", tmp_path, "--json").json
    assert told["ok"] and told["samples"][0]["unique_id"] == "files:a.md"
    assert told["samples"][0]["item"]["path"] == "a.md"


def test_a_check_tells_why_a_source_cannot_be_read(tmp_path):
    shown = cli("check", "files", "--directory", tmp_path / "gone")
    assert (shown.code, "Directory not found" in shown.out) == (1, True)
