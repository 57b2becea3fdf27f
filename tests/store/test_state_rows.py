"""A state row of any content gets one clear message, or is read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import lance
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contextframe_beam import FrameDataset
from contextframe_beam.errors import DatasetError
from contextframe_beam.frames.embedders import load_embedder
from contextframe_beam.frames.text_record import TextRecord
from contextframe_beam.pipelines.cli.show import facts_of
from contextframe_beam.store.address import Address
from contextframe_beam.store.files import Destination
from contextframe_beam.store.rows import remove_keys
from contextframe_beam.store.state import SourceState, read_states, state_rows
from contextframe_beam.store.transaction import commit_update
from contextframe_beam.store.writer import write_rows
from tests.support.cli_helpers import assert_error, cli, write_documents

GOOD = {
    "source": "s",
    "name": "json_file",
    "identity": {"connector": "c", "arguments": {"directory": "d"}},
    "partitions": {"p": {"cursor": "2026-01-01"}},
    "runs": [{"run_id": "r", "mode": "upsert", "at": "2026-01-01T00:00:00+00:00", "version": 1}],
}

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)

BROKEN = {
    "no JSON": "{",
    "nothing": "",
    "no object": "[]",
    "a number": "7",
    "no source": json.dumps({**GOOD, "source": None}),
    "another source": json.dumps({**GOOD, "source": "other"}),
    "runs that are text": json.dumps({**GOOD, "runs": "abc"}),
    "runs that are numbers": json.dumps({**GOOD, "runs": [1]}),
    "a run without an id": json.dumps({**GOOD, "runs": [{}]}),
    "a run whose count is text": json.dumps({**GOOD, "runs": [{"run_id": "r", "written": "9"}]}),
    "a run whose version is true": json.dumps({**GOOD, "runs": [{"run_id": "r", "version": True}]}),
    "a run whose time is a list": json.dumps({**GOOD, "runs": [{"run_id": "r", "at": []}]}),
    "partitions in a list": json.dumps({**GOOD, "partitions": ["p"]}),
    "a state that is text": json.dumps({**GOOD, "partitions": {"p": "2026"}}),
    "an identity that is text": json.dumps({**GOOD, "identity": "c"}),
    "arguments that are a number": json.dumps({**GOOD, "identity": {"arguments": 5}}),
    "choices that are a list": json.dumps({**GOOD, "identity": {"sync": ["limit"]}}),
    "a backfill that is text": json.dumps({**GOOD, "backfill": "half"}),
    "JSON deep down": "[" * 100_000,
    "an object deep down": '{"a":' * 50_000,
    "a number without end": '{"source": ' + "9" * 10_000 + "}",
    "control characters": '\x1b[2J\x00"',
}


@given(
    st.dictionaries(st.sampled_from(sorted(GOOD)), anything).map(lambda new: {**GOOD, **new})
    | anything
)
def test_it_is_read_or_refused(value: object) -> None:
    try:
        state = SourceState.from_json(json.dumps(value))
    except DatasetError as error:
        assert "cannot be read (" in str(error)
    else:
        assert SourceState.from_json(state.to_json()) == state or "NaN" in json.dumps(value)


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    with pytest.raises(DatasetError, match="cannot be read"):
        SourceState.from_json(text)


def test_what_a_later_release_adds_is_passed_over() -> None:
    runs = [{**GOOD["runs"][0], "mood": "fine"}]  # type: ignore[dict-item]
    state = SourceState.from_json(json.dumps({**GOOD, "colour": "red", "runs": runs}))
    assert state.runs[0].run_id == "r"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("states")
    write_documents(folder / "docs", {"a.json": {"id": "a", "text": "words"}})
    command = ["ingest", "json", "--directory", folder / "docs", "--to", folder / "kb.lance"]
    assert cli(*command, "--embed-dim", 4).code == 0
    return folder


def with_state(made: Path, tmp_path: Path, text: str) -> Path:
    """Returns a copy of the dataset in which somebody has changed the state row."""
    kb = shutil.copytree(made / "kb.lance", tmp_path / "kb.lance")
    stored = lance.dataset(str(kb))
    ((source, _),) = read_states(stored).items()
    text = text.replace('"source": "s"', f'"source": "{source}"')
    (state,) = read_states(stored).values()
    row = state_rows([state], anchor=False, embed_dim=4)
    row = row.set_column(row.schema.get_field_index("x_state"), "x_state", pa.array([text]))
    written = write_rows(Destination(str(kb)), [row])
    commit_update(
        stored,
        remove_keys(stored, pa.array([state.key])),
        written,
        properties={},
        at=Address(str(stored.uri)),
    )
    return kb


@pytest.mark.sample(8)
@pytest.mark.parametrize("kind", BROKEN)
def test_every_command_says_so_once(kind: str, made: Path, tmp_path: Path) -> None:
    kb = with_state(made, tmp_path, BROKEN[kind])
    for command in (
        ["inspect", kb],
        ["state", "show", kb],
        ["state", "reset", kb],
        ["ingest", "json", "--directory", made / "docs", "--to", kb],
    ):
        result = cli(*command)
        assert_error(result, 1, "state row", "`contextframe-beam rollback`")
        assert len(result.err) < 600
    # Documents do not depend on it, and there is a way back.
    assert cli("search", kb, "words").code == 0
    assert cli("rollback", kb, "--to", 1).code == 0
    assert cli("inspect", kb).code == 0


def test_a_good_row_is_shown(made: Path, tmp_path: Path) -> None:
    kb = with_state(made, tmp_path, json.dumps(GOOD))
    assert "2026-01-01" in cli("state", "show", kb).out
    assert facts_of(FrameDataset.open(str(kb)))["runs"][0]["run_id"] == "r"


IDENTITY = load_embedder("hash:4").identity


def with_embedder(made: Path, tmp_path: Path, text: str) -> Path:
    """Returns a copy of the dataset whose embedder is recorded as `text`."""
    kb = shutil.copytree(made / "kb.lance", tmp_path / "kb.lance")
    row = state_rows([], anchor=False, embed_dim=4, texts=TextRecord(IDENTITY))
    row = row.set_column(row.schema.get_field_index("x_state"), "x_state", pa.array([text]))
    stored = lance.dataset(str(kb))
    nothing = remove_keys(stored, pa.array([], pa.string()))
    at = Destination(str(kb))
    commit_update(stored, nothing, write_rows(at, [row]), properties={}, at=at)
    return kb


def test_a_dataset_says_whose_vectors_it_holds(made: Path, tmp_path: Path) -> None:
    assert FrameDataset.open(str(made / "kb.lance")).embedder is None
    kb = with_embedder(made, tmp_path, IDENTITY.to_json())
    dataset = FrameDataset.open(str(kb))
    assert dataset.embedder == IDENTITY
    assert len(dataset) == len(FrameDataset.open(str(made / "kb.lance")))
    assert cli("ingest", "json", "--directory", made / "docs", "--to", kb).code == 0
    assert FrameDataset.open(str(kb)).embedder == IDENTITY


@pytest.mark.parametrize("text", ["{", "[]", "7", json.dumps({"name": "hash"}), "[" * 100_000])
def test_an_embedder_that_cannot_be_read_is_told_once(text, made: Path, tmp_path: Path) -> None:
    kb = with_embedder(made, tmp_path, text)
    result = cli("ingest", "json", "--directory", made / "docs", "--to", kb)
    assert_error(result, 1, "its embedder", "`contextframe-beam embed`")
    assert len(result.err) < 600
