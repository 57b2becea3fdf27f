"""`contextframe-beam state show|set|reset`: a source's state by hand, in guarded transactions."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from contextframe_beam import FrameDataset, SourceState
from contextframe_beam.connectors import Page, Partition
from contextframe_beam.errors import ConcurrentRunError
from contextframe_beam.pipelines.ingest import ingest
from contextframe_beam.store.address import Address
from contextframe_beam.store.upkeep import reset_state
from tests.connectors.test_bounds import MODULE
from tests.support.cli_helpers import assert_error, cli
from tests.support.pipeline_helpers import Documents, documents, ids_in, run


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("made") / "kb.lance"
    run(documents(1, 2, 3), path)
    return path


@pytest.fixture
def kb(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "kb.lance")


def state(kb: Path) -> SourceState:
    (found,) = FrameDataset.open(str(kb)).states()
    return found


def exported(kb: Path, *more: object) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(cli("state", "show", kb, "--json", *more).out)
    return found


def test_what_is_shown_can_be_edited_and_set(tmp_path, kb):
    shown = exported(kb)
    assert shown[0]["partitions"] == {"part-0": {"read": 2}, "part-1": {"read": 1}}
    shown[0]["partitions"]["part-0"] = {"read": 99, "ü": [None]}
    file = tmp_path / "state.json"
    file.write_text(json.dumps(shown), encoding="utf-8")
    result = cli("state", "set", kb, file)
    assert (result.code, result.out) == (0, f"set the state of 1 source (version 2 of {kb})\n")
    assert state(kb).partitions["part-0"] == {"read": 99, "ü": [None]}
    assert [one.mode for one in state(kb).runs] == ["upsert", "state"]
    assert ids_in(kb) == ["1", "2", "3"]
    assert "99" in cli("state", "show", kb).out and "99" in cli("inspect", kb).out


def test_a_state_that_a_run_went_on_from_is_not_set(tmp_path, kb):
    file = tmp_path / "state.json"
    file.write_text(json.dumps(exported(kb)))
    run(documents(4), kb)
    assert_error(cli("state", "set", kb, file), 1, "was committed since this state was shown")
    assert len(state(kb).runs) == 2


@pytest.mark.parametrize(
    ("edit", "line", "reason"),
    [
        (lambda text: text[:-3], 10, "it is not JSON"),
        (lambda text: text.replace('"partitions"', '"partition"'), 6, "did you mean 'partitions'?"),
        (lambda text: text.replace('{\n        "read": 2\n      }', "7"), 7, "this is 7"),
        (lambda text: text.replace('"source"', '"name"', 1), 1, "needs the `source`"),
        (lambda text: "[]", 1, "there is no state in it"),
        (lambda text: "\n3", 1, "a state is a JSON object, and this is a int"),
    ],
)
def test_wrong_json_is_refused_with_its_line(tmp_path, kb, edit, line, reason):
    file = tmp_path / "state.json"
    file.write_text(edit(cli("state", "show", kb, "--json").out))
    result = cli("state", "set", kb, file)
    assert_error(result, 2, f"{file}, line ", reason)
    if "not JSON" not in reason:
        assert f"{file}, line {line}:" in result.err
    assert state(kb).partitions == {"part-0": {"read": 2}, "part-1": {"read": 1}}


def test_after_a_reset_the_next_run_reads_everything(tmp_path):
    (tmp_path / "days.py").write_text(MODULE)
    kb = tmp_path / "kb.lance"
    job = ("ingest", f"{tmp_path}/days.py:Days", "--to", kb, "--embed-dim", 4, "--json")
    assert cli(*job).json["rows_written"] == 10
    assert cli(*job).json["rows_unchanged"] == 0
    result = cli("state", "reset", kb)
    assert "forgot what Days had reached" in result.out and not state(kb).partitions
    assert cli(*job).json["rows_unchanged"] == 10


def test_one_partition_is_reset_alone(kb):
    assert cli("state", "reset", kb, "--partition", "part-1").code == 0
    assert state(kb).partitions == {"part-0": {"read": 2}}
    assert_error(cli("state", "reset", kb, "--partition", "part-00"), 2, "did you mean 'part-0'?")


def test_of_several_sources_one_must_be_named(kb):
    run(documents(7, source="others"), kb)
    assert_error(cli("state", "reset", kb), 2, "say with --source which one to reset")
    one, other = (found["source"] for found in exported(kb))
    assert_error(cli("state", "show", kb, "--source", "Documents"), 2, "several sources are called")
    assert_error(cli("state", "show", kb, "--source", "nobody"), 2, "no source is called nobody")
    assert [found["source"] for found in exported(kb, "--source", one[:6])] == [one]
    assert cli("state", "reset", kb, "--source", one).code == 0
    by_source = {found.source: found for found in FrameDataset.open(str(kb)).states()}
    assert not by_source[one].partitions and by_source[other].partitions


def test_a_run_that_read_before_a_reset_does_not_undo_it(tmp_path, kb):
    class Meeting(Documents):
        def fetch_page(self, partition: Partition, cursor: Any) -> Page:
            if not Path(f"{kb}.met").exists():
                Path(f"{kb}.met").touch()
                reset_state(Address(str(kb)), [self.source_id()])
            return super().fetch_page(partition, cursor)

    source = Meeting({"all": [[{"id": 9}]]})
    Path(f"{kb}.met").touch()
    ingest(source, str(kb))
    Path(f"{kb}.met").unlink()
    with pytest.raises(ConcurrentRunError, match="nothing of this one was committed"):
        ingest(source, str(kb))
    found = FrameDataset.open(str(kb)).state(source.source_id())
    assert found is not None and not found.partitions


def test_a_file_that_is_not_there_and_a_dataset_that_is_not(tmp_path, kb):
    assert_error(cli("state", "set", kb, tmp_path / "no.json"), 2, "cannot read")
    assert_error(cli("state", "show", tmp_path / "no.lance"), 1, "no dataset")
