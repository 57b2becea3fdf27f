"""A part of a source that cannot be read is named, the run goes on, and it is partial."""

from __future__ import annotations

import logging

import pytest

from contextframe_beam import FrameDataset
from contextframe_beam.connectors import PaginatedConnector, StreamingConnector
from contextframe_beam.connectors.http import HttpError, HttpRequest
from contextframe_beam.connectors.page import Page, Partition
from contextframe_beam.pipelines.ingest import ingest
from tests.support.cli_helpers import cli
from tests.support.pipeline_helpers import EVERY_WAY, document, ids_in, run

ROOMS = {"open": 2, "busy": 2, "empty": 0}


class Rooms(PaginatedConnector):
    """Reads rooms of a few pages, some of which the server does not give out.

    Args:
        base_url: The server.
        hidden: Rooms that are not found when the source is planned.
        closed: Rooms that answer with 403 from their second page on.
        gone: Rooms that answer with 404 at once.
    """

    identity_args = ()

    def __init__(self, base_url: str, hidden: str = "", closed: str = "", gone: str = "") -> None:
        super().__init__()
        self.http = self.http_client(base_url, retries=0)
        self.hidden, self.closed, self.gone = hidden, closed, gone

    def partitions(self):
        for name in ROOMS:
            if name == self.hidden:
                self.skip(name, "nobody has it")
            else:
                yield Partition(name)

    def fetch_page(self, partition, cursor):
        number, name = cursor or 0, partition.id
        status = 404 if name == self.gone else 403 if name == self.closed and number else 200
        try:
            self.http.send(HttpRequest("GET", f"status/{status}"))
        except HttpError as error:
            if error.is_unreadable:
                return self.skip(name, error)
            raise
        more = number + 1 if number + 1 < ROOMS[name] else None
        items = [f"{name}-{number}"] if ROOMS[name] else []
        return Page(items, next_cursor=more, state={"read": number + 1})

    def map_to_frame_record(self, item):
        return document(item)


class Refused(Rooms):
    """Is refused altogether."""

    def fetch_page(self, partition, cursor):
        self.http.send(HttpRequest("GET", "status/401"))


class Channels(StreamingConnector):
    """Gives items one after the other, and leaves out what comes in between."""

    identity_args = ()

    def __init__(self, hidden: int = 1) -> None:
        super().__init__()
        self.hidden = hidden

    def sync_documents_stream(self):
        yield "a"
        for number in range(self.hidden):
            self.skip(f"private {number}", "not_in_channel")
        yield "b"

    def map_to_frame_record(self, item):
        return document(item)


def states_in(kb):
    (state,) = FrameDataset.open(str(kb)).states()
    return dict(state.partitions)


ALL = ["busy-0", "busy-1", "open-0", "open-1"]
READ = {"open": {"read": 2}, "busy": {"read": 2}, "empty": {"read": 1}}


@EVERY_WAY
def test_the_others_are_read_and_their_states_move(server, kb, how):
    receipt = run(Rooms(server.url, gone="open"), kb, **how)
    assert ids_in(kb) == ["busy-0", "busy-1"]
    assert states_in(kb) == {name: READ[name] for name in ("busy", "empty")}
    (reason,) = receipt.partial
    assert reason.startswith("open: GET ") and "answered 404 Not Found" in reason


def test_what_came_before_it_closed_is_kept_without_a_state(server, kb):
    receipt = run(Rooms(server.url, closed="busy"), kb)
    assert ids_in(kb) == ["busy-0", "open-0", "open-1"]
    assert "busy" not in states_in(kb) and "403 Forbidden" in receipt.partial[0]


def test_one_that_the_plan_misses_keeps_what_is_stored_and_its_state(server, kb):
    run(Rooms(server.url), kb)
    receipt = run(Rooms(server.url, hidden="open"), kb, mode="mirror")
    assert (ids_in(kb), receipt.rows_deleted) == (ALL, 0)
    assert (receipt.partial, states_in(kb)) == (("open: nobody has it",), READ)
    assert receipt.kept == "what was read may not be all of the source"


def test_an_empty_one_is_only_empty(server, kb):
    receipt = run(Rooms(server.url), kb)
    assert receipt.partial == () and states_in(kb) == READ


def test_it_is_named_in_the_log_and_in_the_statistics(server, caplog):
    rooms = Rooms(server.url, hidden="empty", gone="open")
    with caplog.at_level(logging.WARNING):
        assert sorted(rooms.sync_documents()) == ["busy-0", "busy-1"]
    assert "left out empty: nobody has it" in caplog.text and "left out open: GET" in caplog.text
    skipped = rooms.get_stats()["skipped"]
    assert skipped["empty"] == "empty: nobody has it" and "404" in skipped["open"]


def test_any_other_refusal_ends_the_run(server, kb):
    with pytest.raises(Exception, match="401 Unauthorized"):
        run(Refused(server.url), kb)
    assert not kb.exists()


def test_a_backfill_tells_of_it_with_its_last_commit(server, kb):
    rooms = Rooms(server.url, hidden="empty")
    receipt = ingest(rooms, str(kb), mode="append", commit_every=1, embed_dim=4)
    assert receipt.partial == ("empty: nobody has it",) and ids_in(kb) == ALL


def test_people_are_told_which_parts(server, kb):
    told = ["--base-url", server.url, "--gone", "open", "--run-id", "r", "--to", kb]
    result = cli("ingest", f"{__name__}:Rooms", *told)
    assert "Warning: run r is partial: parts of the source could not be read, so their sync" in (
        result.err
    )
    assert "partial: parts of the source could not be read; their sync state did" in result.out


def test_a_stream_may_leave_out_a_part_too(kb):
    receipt = run(Channels(), kb)
    assert ids_in(kb) == ["a", "b"]
    assert receipt.partial == ("private 0: not_in_channel",)


def test_a_receipt_names_a_bounded_number_of_them(kb):
    receipt = run(Channels(60), kb)
    assert len(receipt.partial) == 51 and "and 10 more" in receipt.partial[-1]


def test_secrets_in_its_name_are_not_shown(monkeypatch, server):
    monkeypatch.setenv("ROOM", "hush-hush-hush")
    rooms = Rooms(server.url, gone="env:ROOM")
    page = rooms.skip(f"room {rooms.gone}", f"no {rooms.gone}")
    assert "hush" not in repr(page) + repr(rooms.get_stats())
