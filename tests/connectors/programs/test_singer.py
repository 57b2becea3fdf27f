"""Taps of Singer: what their messages become, and where their state is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from contextframe_beam import FrameDataset
from contextframe_beam.connectors.look import look
from contextframe_beam.connectors.programs.singer import SingerConnector
from contextframe_beam.connectors.testing import ConnectorTests
from contextframe_beam.errors import ConfigError, ConnectorError
from contextframe_beam.pipelines.ingest import ingest
from tests.support.programs import SECRET, Script, entry, read

USERS = [
    {"id": 1, "name": "Ada", "at": "2026-01-01T00:00:00Z"},
    {"id": 2, "name": "Grace", "at": "2026-01-02T00:00:00Z"},
]
GONE = {"type": "ACTIVATE_VERSION", "stream": "teams", "version": 2}


@pytest.fixture
def script(tmp_path: Path) -> Script:
    return Script(tmp_path / "script.json", "singer").write(
        streams=[entry("users", cursor="at"), entry("teams")],
        records={"users": USERS, "teams": [{"id": 1, "name": "Red"}, {"id": 2, "name": "Blue"}]},
    )


class TestSingerConnector(ConnectorTests):
    @pytest.fixture(autouse=True)
    def _script(self, script: Script) -> None:
        # What has the last value of a cursor is read once more, and teams have none.
        self.script = script.write(streams=[entry("teams")])

    def connector(self) -> SingerConnector:
        made = self.script.connector()
        assert isinstance(made, SingerConnector)
        return made


def test_each_stream_goes_on_where_it_was_or_is_read_whole(script: Script):
    first = read(script.connector())
    assert set(first.frames) == {"users:1", "users:2", "teams:1", "teams:2"}
    assert first.frames["users:1"].text_content == "id: 1\nname: Ada\nat: 2026-01-01T00:00:00Z"
    bookmark = {"users": {"value": "2026-01-02T00:00:00Z"}}
    assert first.states == {"users": {"value": {"bookmarks": bookmark}}}
    second = read(script.connector(), first.states)
    assert set(second.frames) == {"users:2", "teams:1", "teams:2"}
    assert script.got[-1]["state"] is None or script.got[-2]["state"] is None


def test_states_of_several_processes_become_that_of_one(script: Script):
    script.write(streams=[entry("users", cursor="at"), entry("teams", cursor="id")])
    apart = read(script.connector())
    together = read(script.connector(together=True), apart.states)
    assert set(together.frames) == {"users:2", "teams:2"}
    assert set(script.got[-1]["state"]["bookmarks"]) == {"users", "teams"}
    again = read(script.connector(), together.states)
    assert set(again.frames) == {"users:2", "teams:2"}


def test_a_cursor_is_chosen_where_the_tap_leaves_the_choice(script: Script):
    script.write(streams=[entry("users"), entry("teams")])
    first = read(script.connector(cursor={"users": "at"}))
    assert set(first.states) == {"users"}
    own = script.got[-2]["catalog"]["streams"][0]["metadata"][0]["metadata"]
    assert own["replication-key"] == "at" and own["replication-method"] == "INCREMENTAL"
    assert not read(script.connector()).states
    # A tap that says how a stream is read is believed.
    whole = {**entry("users", cursor="at"), "replication_method": "FULL_TABLE"}
    assert not read(script.write(streams=[whole]).connector()).states


def test_rows_that_are_gone_are_deleted_by_a_mirror_and_by_their_mark(
    script: Script, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    kb = str(tmp_path / "kb.lance")
    ingest(script.connector(), kb, embed_dim=4)
    marked = {"id": 1, "name": "Ada", "at": "2026-01-03T00:00:00Z", "_sdc_deleted_at": "2026-01-03"}
    script.write(records={"users": [*USERS, marked], "teams": []}, lines={"teams": [GONE]})
    assert ingest(script.connector(), kb, embed_dim=4).deleted == 1
    assert "teams is read as a whole table anew" in caplog.text
    caplog.clear()
    script.write(records={"users": USERS[1:], "teams": [{"id": 2, "name": "Blue"}]})
    ingest(script.connector(), kb, mode="mirror", full=True, embed_dim=4)
    assert {one.unique_id for one in FrameDataset.open(kb)} == {"users:2", "teams:2"}
    assert "table anew" not in caplog.text


def test_a_look_shows_streams_keys_cursors_and_three_frames(script: Script):
    script.write(streams=[entry("users", cursor="at"), entry("teams", keys=[])])
    found = look(script.connector())
    assert not found.problem
    assert found.access == [
        "users: key id, read from the last at on",
        "teams: no key, read whole each time",
    ]
    assert [one.unique_id for one in found.samples] == ["users:1", "users:2", "teams:1"]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ({"do": "exit", "code": 2, "stderr": "401 Unauthorized"}, "code 2 .*: 401 Unauthorized"),
        ({"type": "BATCH", "stream": "users"}, "gives files in place of records"),
    ],
)
def test_a_tap_that_fails_says_why(script: Script, line: Any, told: str):
    script.write(lines={"users": [line]})
    with pytest.raises(ConnectorError, match=told):
        read(script.connector(streams=["users"]))


def test_a_secret_in_plain_text_is_known_by_its_name(
    script: Script, monkeypatch: pytest.MonkeyPatch
):
    with pytest.raises(ConfigError, match="plain text: password"):
        script.connector(config={"password": SECRET}).ensure_authenticated()
    monkeypatch.setenv("TAP_PASSWORD", SECRET)
    read(script.connector(config={"password": "env:TAP_PASSWORD"}))
    assert script.got[-1]["config"]["password"] == SECRET


def test_what_is_no_tap_is_told():
    from contextframe_beam.connectors.programs.singer import SingerConnector

    with pytest.raises(ConnectorError, match="gives no catalog of its streams"):
        SingerConnector("echo hello").ensure_authenticated()
