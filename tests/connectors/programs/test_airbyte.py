"""Sources of Airbyte: what their messages become, and what becomes of a run that goes wrong."""

from __future__ import annotations

import json
import logging
import pickle
from pathlib import Path
from typing import Any

import pytest

from contextframe_beam import FrameDataset
from contextframe_beam.connectors.look import look
from contextframe_beam.connectors.programs.airbyte import AirbyteConnector
from contextframe_beam.connectors.testing import ConnectorTests
from contextframe_beam.errors import ConfigError, ConnectorError
from contextframe_beam.pipelines.ingest import ingest
from tests.support.programs import SECRET, SPEC, Script, read, record, stream

USERS = [
    {"id": 1, "name": "Ada", "at": "2026-01-01T00:00:00Z"},
    {"id": 2, "name": "Grace", "at": "2026-01-02T00:00:00Z"},
]


@pytest.fixture(autouse=True)
def spec(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPEAKING_SPEC", json.dumps(SPEC))
    monkeypatch.setenv("AIRBYTE_TOKEN", SECRET)


@pytest.fixture
def script(tmp_path: Path) -> Script:
    return Script(tmp_path / "script.json", "airbyte").write(
        streams=[stream("users", cursor="at"), stream("teams")],
        records={"users": USERS, "teams": [{"id": 1, "body": "Red"}, {"id": 2, "body": "Blue"}]},
    )


class TestAirbyteConnector(ConnectorTests):
    @pytest.fixture(autouse=True)
    def _script(self, script: Script) -> None:
        # What has the last value of a cursor is read once more, and teams have none.
        self.script = script.write(streams=[stream("teams")])

    def connector(self) -> AirbyteConnector:
        made = self.script.connector()
        assert isinstance(made, AirbyteConnector)
        return made


def test_each_stream_has_ids_of_its_own_and_a_record_without_text_is_described(script: Script):
    found = read(script.connector())
    assert set(found.frames) == {"users:1", "users:2", "teams:1", "teams:2"}
    ada = found.frames["users:1"]
    assert ada.text_content == "id: 1\nname: Ada\nat: 2026-01-01T00:00:00Z"
    assert ada.timestamp == "2026-01-01T00:00:00Z"
    assert ada.metadata["stream"] == "users"
    assert found.frames["teams:1"].text_content == "Red"


def test_a_run_goes_on_where_the_last_one_ended_stream_by_stream(script: Script):
    first = read(script.connector())
    assert first.states == {
        "users": {"kind": "STREAM", "streams": {"users": {"cursor": "2026-01-02T00:00:00Z"}}}
    }
    new = {"id": 3, "name": "Edsger", "at": "2026-01-03T00:00:00Z"}
    script.write(records={"users": [*USERS, new], "teams": []})
    second = read(script.connector(), first.states)
    assert set(second.frames) == {"users:2", "users:3"}
    assert second.narrowed and not first.narrowed


def test_states_hold_whatever_processes_the_streams_are_read_in(script: Script):
    apart = read(script.connector())
    both = script.write(streams=[stream("users", cursor="at"), stream("teams", cursor="id")])
    together = read(both.connector(together=True), apart.states)
    assert set(together.frames) == {"users:2", "teams:1", "teams:2"}
    again = read(both.connector(), together.states)
    assert set(again.frames) == {"users:2", "teams:2"}
    merged = both.connector().merge_states({**apart.states, **together.states})
    assert set(merged) == {"users", "teams"}


def test_several_fields_may_be_the_key(script: Script):
    script.write(streams=[stream("users", keys=[["id"], ["at", "day"]])])
    script.write(records={"users": [{"id": "a/b", "at": {"day": 3}}]})
    assert set(read(script.connector()).frames) == {"users:a%2Fb/3"}


@pytest.mark.parametrize("mode", ["upsert", "mirror"])
def test_a_stream_without_a_key_is_refused_where_rows_are_replaced(
    script: Script, mode: str, tmp_path: Path
):
    script.write(streams=[stream("users", keys=[])])
    kb = str(tmp_path / "kb.lance")
    with pytest.raises(ConfigError, match=rf"users has no primary key, so {mode} cannot tell"):
        ingest(script.connector(), kb, mode=mode, embed_dim=4)
    assert not script.connector(id="name")._unsuitable(mode)
    assert not script.connector(mapping={"users": {"id": "name"}})._unsuitable(mode)
    assert not script.connector()._unsuitable("append")


def test_a_deleted_record_deletes_its_document(script: Script, tmp_path: Path):
    kb = str(tmp_path / "kb.lance")
    ingest(script.connector(), kb, embed_dim=4)
    gone = record("users", id=1, _ab_cdc_deleted_at="2026-02-01")
    stays = record("users", id=2, name="G.", at="2026-01-02T00:00:00Z", _ab_cdc_deleted_at=None)
    script.write(records={}, lines={"users": [gone, stays]})
    receipt = ingest(script.connector(), kb, embed_dim=4)
    assert (receipt.deleted, receipt.rows_replaced) == (1, 1)
    assert {one.unique_id for one in FrameDataset.open(kb)} == {"users:2", "teams:1", "teams:2"}


FAILED: list[tuple[list[Any], str]] = [
    ([{"do": "exit", "code": 3, "stderr": "no route"}], "ended with code 3 .* users: no route"),
    ([{"do": "kill"}], "was ended by signal 9 while it read users"),
    (
        [
            {
                "type": "TRACE",
                "trace": {
                    "type": "ERROR",
                    "error": {"message": "Token expired.", "internal_message": "401"},
                },
            },
            {"do": "exit", "code": 1, "stderr": "Traceback"},
        ],
        "ended with code 1 while it read users: Token expired.: 401",
    ),
    (
        [
            {
                "type": "TRACE",
                "trace": {
                    "type": "STREAM_STATUS",
                    "stream_status": {
                        "stream_descriptor": {"name": "users"},
                        "status": "INCOMPLETE",
                    },
                },
            }
        ],
        "failed while it read users: the stream users is incomplete",
    ),
]


@pytest.mark.parametrize(("lines", "told"), FAILED)
def test_a_source_that_fails_commits_nothing_and_says_why(
    script: Script, lines: list[Any], told: str, tmp_path: Path
):
    script.write(records={}, lines={"users": [record("users", **USERS[0]), *lines]})
    with pytest.raises(ConnectorError, match=told):
        read(script.connector(streams=["users"]))


def test_a_failed_run_leaves_the_dataset_and_the_next_one_is_right(script: Script, tmp_path: Path):
    kb = str(tmp_path / "kb.lance")
    ingest(script.connector(), kb, embed_dim=4)
    version = FrameDataset.open(kb).lance.version
    changed = {**USERS[1], "name": "G."}
    script.write(
        records={"users": [changed]}, lines={"users": [record("users", **changed), {"do": "kill"}]}
    )
    with pytest.raises(ConnectorError, match="signal 9"):
        ingest(script.connector(), kb, embed_dim=4)
    assert FrameDataset.open(kb).lance.version == version
    script.write(lines={})
    assert ingest(script.connector(), kb, embed_dim=4).rows_replaced == 1


def test_a_source_that_cannot_be_asked_says_why(script: Script):
    script.write(before=[{"do": "exit", "code": 1, "stderr": "config.script is wrong"}])
    with pytest.raises(ConnectorError, match=r"ended with code 1: config\.script is wrong"):
        script.connector().ensure_authenticated()
    with pytest.raises(ConfigError, match="there is no program 'source-nobody'"):
        AirbyteConnector("source-nobody").ensure_authenticated()
    with pytest.raises(ConnectorError, match="gives no catalog"):
        AirbyteConnector("true").ensure_authenticated()
    with pytest.raises(ConfigError, match="nothing says which program"):
        AirbyteConnector()


def test_one_state_for_all_streams_is_kept_by_one_process(script: Script):
    def state(number: int) -> Any:
        streams = [{"stream_descriptor": {"name": "users"}, "stream_state": {"n": number}}]
        told = {"shared_state": {"lsn": number}, "stream_states": streams}
        return {"type": "STATE", "state": {"type": "GLOBAL", "global": told}}

    script.write(records={}, lines={"users": [record("users", **USERS[0]), state(7)]})
    with pytest.raises(ConfigError, match="give together=True"):
        read(script.connector())
    found = read(script.connector(together=True))
    script.write(lines={"users": [state(8)]})
    # The state itself says that it is one for all.
    second = read(script.connector(), found.states)
    assert second.states["all streams"]["shared"] == {"lsn": 8}
    (given,) = script.got[-1]["state"]
    assert given["type"] == "GLOBAL" and given["global"]["shared_state"] == {"lsn": 7}
    assert given["global"]["stream_states"][0]["stream_state"] == {"n": 7}


def test_a_state_of_the_old_form_is_handed_back_as_it_was(script: Script):
    state = {"type": "STATE", "state": {"data": {"users": {"at": "2026-01-02"}}}}
    script.write(records={}, lines={"users": [record("users", **USERS[0]), state]})
    found = read(script.connector())
    read(script.connector(), found.states)
    given = [one["state"] for one in script.got if one["catalog"]]
    assert [one for one in given if one] == [{"users": {"at": "2026-01-02"}}]


def test_a_configuration_that_is_cut_off_is_not_logged(
    script: Script, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.DEBUG, logger="contextframe_beam")
    script.write(lines={"users": ['{"type": "CONTROL", "control": {"token": "n3w-t0ken', "Hello"]})
    read(script.connector(streams=["users"]))
    assert "n3w-t0ken" not in caplog.text and "speaking: Hello" in caplog.text


def test_lines_that_are_no_messages_are_left_out_and_broken_records_become_letters(
    script: Script, caplog: pytest.LogCaptureFixture
):
    lines = [
        "Picked up JAVA_TOOL_OPTIONS",
        "",
        "[1, 2]",
        '{"type": "RECORD", "record": {"stream": "users", "data": {"id": 1, "na',
        {"type": "RECORD", "record": {"stream": "users"}},
        record("others", id=1),
        record("users", id=12345678901234567890123),
        '{"type": "RECORD", "record": {"stream": "users", "data": {"id": 2, "n": NaN}}}',
    ]
    script.write(records={}, lines={"users": lines})
    found = read(script.connector(streams=["users"]))
    assert set(found.frames) == {"users:12345678901234567890123", "users:2"}
    assert [letter.item.get("type", "line") for letter in found.letters] == ["line", "RECORD"]
    assert "left out others, which was not asked for" in caplog.text


def test_a_secret_in_plain_text_is_refused_before_the_source_gets_it(script: Script):
    plain = script.connector(config={"credentials": {"token": SECRET}})
    with pytest.raises(ConfigError, match=r"plain text: credentials\.token; .* env:TOKEN") as told:
        plain.ensure_authenticated()
    assert SECRET not in str(told.value) and not Path(f"{script.path}.got").exists()
    assert SECRET not in repr(plain)


def test_a_secret_by_reference_reaches_the_source_and_nothing_else(
    script: Script, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.DEBUG)
    log = {"type": "LOG", "log": {"level": "INFO", "message": f"using {SECRET}"}}
    control = {
        "type": "CONTROL",
        "control": {"connectorConfig": {"config": {"credentials": {"token": SECRET}}}},
    }
    bad = '{"type": "RECORD", "record": {"token": "' + SECRET
    script.write(lines={"users": [log, control, bad]})
    connector = script.connector(config={"credentials": {"token": "env:AIRBYTE_TOKEN"}})
    kb, letters = str(tmp_path / "kb.lance"), tmp_path / "letters.jsonl"
    receipt = ingest(connector, kb, embed_dim=4, dead_letters=str(letters))
    assert receipt.failed == 1
    assert all(one["config"]["credentials"]["token"] == SECRET for one in script.got)
    assert all(SECRET not in str(one["arguments"]) for one in script.got)
    stored = [path.read_bytes() for path in (tmp_path / "kb.lance").rglob("*") if path.is_file()]
    texts = [*stored, letters.read_bytes(), caplog.text.encode(), pickle.dumps(connector)]
    assert all(SECRET.encode() not in text for text in texts)
    assert "using env:AIRBYTE_TOKEN" in caplog.text


@pytest.mark.parametrize("kind", ["file", "env"])
def test_a_renewed_token_goes_back_to_where_its_reference_points(
    script: Script, tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str
):
    (tmp_path / "token").write_text(f"{SECRET}\n")
    new = "renewed-t0ken-9876543210"
    config = {"script": str(script.path), "credentials": {"token": new}}
    control = {"type": "CONTROL", "control": {"connectorConfig": {"config": config}}}
    told = {"type": "LOG", "log": {"level": "WARN", "message": f"now {new}"}}
    script.write(lines={"users": [control, told]})
    reference = f"file:{tmp_path / 'token'}" if kind == "file" else "env:AIRBYTE_TOKEN"
    connector = script.connector(config={"credentials": {"token": reference}}, streams=["users"])
    read(connector)
    assert new not in caplog.text and f"now {reference}" in caplog.text
    if kind == "file":
        assert (tmp_path / "token").read_text() == f"{new}\n"
        read(connector)
        assert script.got[-1]["config"]["credentials"]["token"] == new
    else:
        assert "cannot be stored in env:AIRBYTE_TOKEN" in caplog.text


def test_a_mapping_may_say_what_each_stream_is(script: Script):
    mapping = {"users": {"text": "# {name}", "id": "name"}, "*": {"title": "body"}}
    assert set(read(script.connector(mapping=mapping, streams=["teams"])).frames) == {
        "teams:1",
        "teams:2",
    }
    frames = read(script.connector(mapping=mapping, prefix="acme/")).frames
    assert frames["acme/users:Ada"].text_content == "# Ada"
    assert frames["acme/teams:1"].metadata["title"] == "Red"
    with pytest.raises(ConfigError, match=r"mapping has 'user', .* did you mean users\?"):
        read(script.connector(mapping={"user": {"text": "name"}}))


def test_a_look_asks_the_source_whether_it_can_connect(script: Script):
    found = look(script.connector())
    assert found.access == [
        "users: key id, read from the last at on",
        "teams: key id, read whole each time",
    ]
    assert not found.problem and len(found.samples) == 3
    status = {"status": "FAILED", "message": "wrong password"}
    script.write(check={"type": "CONNECTION_STATUS", "connectionStatus": status})
    assert "speaking cannot connect: wrong password" in look(script.connector()).problem


def test_a_stream_that_does_not_exist_is_refused_with_those_that_do(script: Script):
    with pytest.raises(ConfigError, match=r"no stream 'user'; did you mean users\? \(there are: t"):
        script.connector(streams=["user"]).ensure_authenticated()


def test_a_cursor_is_chosen_where_the_source_leaves_the_choice(script: Script):
    free = stream("users", supported_sync_modes=["full_refresh", "incremental"])
    script.write(streams=[free, stream("teams")])
    first = read(script.connector(cursor="at"))
    assert set(read(script.connector(cursor={"users": "at"}), first.states).frames) == {
        "users:2",
        "teams:1",
        "teams:2",
    }
    assert not read(script.connector()).states
    with pytest.raises(ConfigError, match="no such field; did you mean at"):
        read(script.connector(cursor={"users": "att"}))


def test_the_state_of_a_stream_that_is_read_whole_is_not_handed_back(script: Script):
    read(script.connector(), {"teams": {"kind": "STREAM", "streams": {"teams": {"cursor": 1}}}})
    assert all(one["state"] is None for one in script.got)


def test_a_program_that_is_not_asked_again_is_known_to_workers(script: Script):
    connector = script.connector()
    connector.ensure_authenticated()
    connector._unsuitable("mirror")
    asked = len(script.got)
    there = pickle.loads(pickle.dumps(connector))
    there.ensure_authenticated()
    assert there.catalog == connector.catalog and len(script.got) == asked
    assert there.source_id() == connector.source_id()


def test_the_same_source_is_known_by_its_program_its_configuration_and_its_streams():
    def source(command: str, streams: Any = (), **config: Any) -> str:
        return AirbyteConnector(command, streams=streams, config=config).source_id()

    one = source("uvx --from x==1 source-x", site="a", token="env:A")
    assert one == source("/opt/x/bin/source-x", site="a", token="env:A")
    assert one != source("source-x", site="b", token="env:A")
    assert one != source("source-x", site="a", token="env:B")
    assert one != source("source-x", ["users"], site="a", token="env:A")
    assert one != source("source-y", site="a", token="env:A")
