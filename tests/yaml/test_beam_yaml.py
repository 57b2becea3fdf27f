"""Beam YAML with our transforms, run by Beam's own main: in rows, in batches, one transaction."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from apache_beam.yaml import main

from contextframe_beam import FrameDataset
from contextframe_beam.pipelines.yaml import rows as _yaml_rows
from contextframe_beam.pipelines.yaml import transforms as yaml_transforms
from contextframe_beam.store.address import Address
from contextframe_beam.store.files import open_dataset
from contextframe_beam.store.state import read_states
from contextframe_beam.transforms.modes import MODES
from tests.support.cli_helpers import ROOT, cli_process, lines, write_documents
from tests.support.http_fixture import HttpServer

FOLDER = ROOT / "templates" / "beam_yaml"
DOCUMENTS = {
    f"{name}.json": {"id": name, "title": f"Title {name}", "text": f"text of {name}", "rank": rank}
    for rank, name in enumerate("abcdef")
}


def run_template(name: str, **variables: object) -> None:
    """Runs a template as its users do, with Beam's own main, in this process."""
    texts = {key: str(value) for key, value in variables.items()}
    main.run([f"--yaml_pipeline_file={FOLDER / name}", f"--jinja_variables={json.dumps(texts)}"])


def run_chain(*transforms: dict[str, Any], **options: Any) -> None:
    """Runs a chain of transforms that is written here; each is a type with its config."""
    run_pipeline("chain", [as_transform(one) for one in transforms], **options)


def run_pipeline(kind: str, transforms: list[dict[str, Any]], **options: Any) -> None:
    pipeline = {
        "pipeline": {"type": kind, "transforms": transforms},
        "providers": [{"include": str(FOLDER / "providers.yaml")}],
        "options": {"runner": "FnApiRunner", **options},
    }
    main.run([f"--yaml_pipeline={yaml.safe_dump(pipeline)}"])


def as_transform(one: dict[str, Any]) -> dict[str, Any]:
    ((kind, config),) = one.items()
    return {"type": kind, "config": config} if config else {"type": kind}


def keep(expression: str) -> dict[str, Any]:
    return {"Filter": {"language": "python", "keep": expression}}


def records_of(dataset: Path) -> dict[str, Any]:
    """Returns the records of a dataset by the `id` of their item."""
    return {str(one.metadata["id"]): one for one in FrameDataset.open(str(dataset))}


def states_of(dataset: Path) -> dict[str, Any]:
    opened = open_dataset(Address(str(dataset)))
    assert opened is not None
    return {state.name: state for state in read_states(opened).values()}


def letters(dataset: Path) -> list[dict[str, Any]]:
    files = sorted(Path(f"{dataset}.dead-letters").glob("*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


@pytest.fixture
def documents(tmp_path: Path) -> Path:
    """Six documents, and a file that is not JSON."""
    return write_documents(tmp_path / "docs", {**DOCUMENTS, "z.json": "{broken"})


def test_a_folder_of_json_by_the_command_that_users_type(documents: Path, tmp_path: Path) -> None:
    variables = {"directory": "docs", "dataset": "kb.lance", "run_id": "run-1"}
    done = cli_process(
        f"--yaml_pipeline_file={FOLDER / 'json-folder.yaml'}",
        f"--jinja_variables={json.dumps(variables)}",
        module="apache_beam.yaml.main",
        cwd=tmp_path,
    )
    assert done.code == 0, done.err
    found = records_of(tmp_path / "kb.lance")
    assert sorted(found) == sorted("abcdef")
    assert found["a"].context == {"keywords": ["text", "of", "a"]}
    assert [one["stage"] for one in letters(tmp_path / "kb.lance")] == ["read"]
    assert '"rows_written": 6' in done.err and '"failed": 1' in done.err


def test_a_run_id_is_committed_once(documents: Path, tmp_path: Path) -> None:
    kb = tmp_path / "kb.lance"
    for _ in range(2):
        run_template("json-folder.yaml", directory=documents, dataset=kb, run_id="run-1")
    (state,) = states_of(kb).values()
    assert [run.run_id for run in state.runs] == ["run-1"]
    assert FrameDataset.open(str(kb)).version == 1


def test_rows_of_csv_through_stock_transforms(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text(
        "id,category,headline,body,status,stars\n"
        '1,news,First,"Some text, really",published,5\n'
        "2,news,Second,Body,draft,1\n"
        "3,tech,Third,,published,4\n"
    )
    kb = tmp_path / "kb.lance"
    run_template("csv.yaml", files=tmp_path / "*.csv", dataset=kb, run_id="run-1")
    found = {one.unique_id: one for one in FrameDataset.open(str(kb))}
    assert sorted(found) == ["article:news-1", "article:tech-3"]
    first = found["article:news-1"]
    assert (first.title, first.text_content) == ("First", "# First\n\nSome text, really")
    assert (first.metadata["category"], first.metadata["stars"]) == ("news", 5)
    assert "status" not in first.metadata


def api_config(server: HttpServer, tmp_path: Path, n: int) -> Path:
    text = (FOLDER / "crm.yaml").read_text()
    for old, new in (
        ("https://crm.example.com", server.url),
        ("path: contacts", f"path: pages?n={n}"),
    ):
        assert old in text
        text = text.replace(old, new)
    (tmp_path / "crm.yaml").write_text(text)
    return tmp_path / "crm.yaml"


def test_an_api_from_its_configuration_with_its_secret_only_by_reference(
    server: HttpServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    monkeypatch.setenv("CRM_TOKEN", "planted-secret-4711")
    kb = tmp_path / "kb.lance"
    run_template("api.yaml", config=api_config(server, tmp_path, 5), dataset=kb, run_id="run-1")
    assert len(FrameDataset.open(str(kb))) == 5
    assert {one["headers"]["Authorization"] for one in server.requests("/api/pages")} == {
        "Bearer planted-secret-4711"
    }
    assert "planted-secret-4711" not in caplog.text
    assert [run.run_id for run in states_of(kb)["api"].runs] == ["run-1"]


CHANGES = """
from contextframe_beam import FrameRecord
from contextframe_beam.connectors import IncrementalConnector


class Changes(IncrementalConnector):
    def _full_sync(self):
        return [{"id": "all"}]

    def _incremental_sync(self, since, until=None):
        return [{"id": f"{since[:10]} to {until[:10]}" if until else "changed"}]

    def map_to_frame_record(self, item):
        return FrameRecord("text", dict(item), unique_id=item["id"])
"""


def read_changes(tmp_path: Path, **sink: Any) -> None:
    """Reads what changed since the last run; rows flow between source and sink."""
    (tmp_path / "changes.py").write_text(CHANGES)
    kb = str(tmp_path / "kb.lance")
    source = {"connector": f"{tmp_path}/changes.py:Changes", "resume_from": kb}
    run_chain(
        *({"ReadFromConnector": source}, keep("True"), {"MapToFrames": {}}),
        {"WriteToLance": {"uri": kb, **sink}},
    )


def test_a_run_goes_on_from_the_state_that_the_last_one_committed(tmp_path: Path) -> None:
    read_changes(tmp_path)
    assert sorted(records_of(tmp_path / "kb.lance")) == ["all"]
    read_changes(tmp_path)
    assert sorted(records_of(tmp_path / "kb.lance")) == ["all", "changed"]


def test_a_range_of_time_is_read_and_moves_no_state(tmp_path: Path) -> None:
    read_changes(tmp_path)
    (before,) = states_of(tmp_path / "kb.lance").values()
    bounds = {"since": "2026-01-01", "until": "2026-02-01"}
    (tmp_path / "changes.py").write_text(CHANGES)
    run_chain(
        {"ReadFromConnector": {"connector": f"{tmp_path}/changes.py:Changes", "bounds": bounds}},
        {"MapToFrames": {}},
        {"WriteToLance": {"uri": str(tmp_path / "kb.lance")}},
    )
    assert sorted(records_of(tmp_path / "kb.lance")) == ["2026-01-01 to 2026-02-01", "all"]
    (after,) = states_of(tmp_path / "kb.lance").values()
    assert before.partitions == after.partitions


@pytest.mark.parametrize("mode", [mode.name for mode in MODES.values() if mode.reads_all])
def test_what_changed_only_is_refused_where_all_is_wanted(tmp_path: Path, mode: str) -> None:
    read_changes(tmp_path)
    with pytest.raises(Exception, match="older documents would be lost"):
        read_changes(tmp_path, mode=mode)
    assert sorted(records_of(tmp_path / "kb.lance")) == ["all"]


def test_rows_and_batches_end_in_the_same_dataset(documents: Path, tmp_path: Path) -> None:
    source = {"ReadFromJson": {"directory": str(documents)}}
    enrich = {"Enrich": {"enrichers": ["keywords"]}}
    plain, rows = tmp_path / "plain.lance", tmp_path / "rows.lance"
    run_chain(source, {"MapToFrames": {}}, enrich, {"WriteToLance": {"uri": str(plain)}})
    everything = keep("True")
    run_chain(
        *(source, everything, {"MapToFrames": {}}, everything, enrich, everything),
        {"WriteToLance": {"uri": str(rows)}},
    )
    assert records_of(plain) == records_of(rows)
    for one, other in zip(states_of(plain).values(), states_of(rows).values(), strict=True):
        assert (one.source, one.partitions) == (other.source, other.partitions)
        assert (one.runs[0].written, one.runs[0].failed) == (6, 1)
        assert (other.runs[0].written, other.runs[0].failed) == (6, 1)
    same = ("stage", "position", "item", "message")
    assert [[one[key] for key in same] for one in letters(plain)] == [
        [one[key] for key in same] for one in letters(rows)
    ]


def test_a_field_of_the_items_can_be_filtered_by_before_and_after_it_is_stored(
    documents: Path, tmp_path: Path
) -> None:
    kb = tmp_path / "kb.lance"
    run_chain(
        {"ReadFromJson": {"directory": str(documents), "fields": {"rank": "integer"}}},
        keep("rank >= 4"),
        {"MapToFrames": {}},
        {"WriteToLance": {"uri": str(kb), "columns": {"rank": "int64"}}},
    )
    assert sorted(records_of(kb)) == ["e", "f"]
    assert FrameDataset.open(str(kb)).count("rank > 4") == 1
    assert len(letters(kb)) == 1


def test_metadata_of_the_frames_can_be_changed(documents: Path, tmp_path: Path) -> None:
    kb = tmp_path / "kb.lance"
    shout = {"callable": "lambda row: row.title.upper()", "output_type": "string"}
    mapping = {"language": "python", "append": True, "drop": ["title"], "fields": {"loud": shout}}
    run_chain(
        {"ReadFromJson": {"directory": str(documents)}},
        {"MapToFrames": {"fields": {"title": "string"}}},
        {"MapToFields": mapping},
        {"WriteToLance": {"uri": str(kb)}},
    )
    found = records_of(kb)["a"]
    assert (found.title, found.metadata["loud"]) == ("Title a", "TITLE A")


def test_an_item_whose_field_has_another_type_is_a_dead_letter(tmp_path: Path) -> None:
    folder = write_documents(
        tmp_path / "docs", {**DOCUMENTS, "odd.json": {"id": "odd", "text": "t", "rank": "high"}}
    )
    kb = tmp_path / "kb.lance"
    run_chain(
        {"ReadFromJson": {"directory": str(folder), "fields": {"rank": "integer"}}},
        keep("rank >= 0"),
        {"MapToFrames": {}},
        {"WriteToLance": {"uri": str(kb)}},
    )
    (letter,) = letters(kb)
    assert letter["item"]["id"] == "odd" and "rank" in letter["message"]
    assert sorted(records_of(kb)) == sorted("abcdef")


def test_an_item_that_only_another_sink_would_miss_fails_the_run(tmp_path: Path) -> None:
    folder = write_documents(tmp_path / "docs", {"odd.json": {"id": 1, "text": "t", "rank": "?"}})
    mapping = {"type": "MapToFrames", "config": {"fields": {"rank": "integer"}}}
    kb, out = str(tmp_path / "kb.lance"), str(tmp_path / "out")
    with pytest.raises(Exception, match="the field rank is str"):
        run_pipeline(
            "composite",
            [
                {"type": "ReadFromJson", "config": {"directory": str(folder)}},
                {**mapping, "input": "ReadFromJson"},
                {"type": "WriteToLance", "input": "MapToFrames", "config": {"uri": kb}},
                {"type": "WriteToJson", "input": "MapToFrames", "config": {"path": out}},
            ],
        )


def test_too_many_failures_commit_nothing_also_where_rows_flow(tmp_path: Path) -> None:
    folder = write_documents(
        tmp_path / "docs", {"a.json": '{"id": 1}', "b.json": "{", "c.json": "{"}
    )
    with pytest.raises(Exception, match="2 of 3 items failed, more than"):
        run_chain(
            {"ReadFromJson": {"directory": str(folder)}},
            keep("True"),
            {"MapToFrames": {}},
            keep("True"),
            {"WriteToLance": {"uri": str(tmp_path / "kb.lance"), "max_failures": 1}},
        )
    assert open_dataset(Address(str(tmp_path / "kb.lance"))) is None


def test_a_mirror_of_an_emptied_folder_deletes_nothing_unless_it_may(tmp_path: Path) -> None:
    folder = write_documents(
        tmp_path / "docs", {f"{n}.json": {"id": n, "text": "t"} for n in range(12)}
    )
    kb = str(tmp_path / "kb.lance")

    def mirrored(**how: Any) -> None:
        run_chain(
            {"ReadFromJson": {"directory": str(folder)}},
            {"MapToFrames": {}},
            {"WriteToLance": {"uri": kb, "mode": "mirror", **how}},
        )

    mirrored()
    for file in folder.iterdir():
        file.unlink()
    with pytest.raises(Exception, match="the source gave nothing, and 12 of its documents are"):
        mirrored()
    assert len(FrameDataset.open(kb)) == 12
    mirrored(max_deletes="100%")
    assert len(FrameDataset.open(kb)) == 0


def test_several_sources_in_one_transaction_with_the_state_of_each(tmp_path: Path) -> None:
    first = write_documents(tmp_path / "first", {"a.json": {"id": "a", "text": "t"}, "x.json": "{"})
    second = write_documents(tmp_path / "second", {"b.jsonl": lines([{"id": "b"}, {"id": "c"}])})
    kb = tmp_path / "kb.lance"
    steps: list[dict[str, Any]] = []
    for name, folder in (("one", first), ("two", second)):
        config = {"directory": str(folder), "pattern": "**/*.json*"}
        steps += [
            {"type": "ReadFromJson", "name": f"read {name}", "config": config},
            {"type": "MapToFrames", "name": name, "input": f"read {name}"},
        ]
    steps += [
        {"type": "Flatten", "input": ["one", "two"]},
        {"type": "WriteToLance", "input": "Flatten", "config": {"uri": str(kb), "run_id": "r"}},
    ]
    run_pipeline("composite", steps)
    assert sorted(records_of(kb)) == ["a", "b", "c"]
    assert FrameDataset.open(str(kb)).version == 1
    opened = open_dataset(Address(str(kb)))
    assert opened is not None
    states = read_states(opened)
    assert len(states) == 2 and {run.run_id for one in states.values() for run in one.runs} == {"r"}
    table = opened.to_table(columns=["x_source", "uri"], filter="x_state IS NULL").to_pylist()
    assert {row["x_source"] for row in table} == set(states)
    assert len(letters(kb)) == 1


def test_failed_items_that_nobody_takes_fail_the_run(documents: Path, tmp_path: Path) -> None:
    written = {"WriteToJson": {"path": str(tmp_path / "out")}}
    with pytest.raises(Exception, match="nothing in this pipeline takes failed items"):
        run_chain({"ReadFromJson": {"directory": str(documents)}}, {"MapToFrames": {}}, written)


def test_failed_items_as_rows_of_their_own(documents: Path, tmp_path: Path) -> None:
    kb, out = tmp_path / "kb.lance", tmp_path / "failed"
    config = {"directory": str(documents), "error_handling": {"output": "failed"}}
    run_pipeline(
        "composite",
        [
            {"type": "ReadFromJson", "config": config},
            {"type": "MapToFrames", "input": "ReadFromJson"},
            {"type": "WriteToLance", "input": "MapToFrames", "config": {"uri": str(kb)}},
            {"type": "WriteToJson", "input": "ReadFromJson.failed", "config": {"path": str(out)}},
        ],
    )
    text = "".join(file.read_text() for file in tmp_path.glob("failed*"))
    (failure,) = [json.loads(line) for line in text.splitlines()]
    assert failure["stage"] == "read" and "z.json" in failure["position"]
    assert json.loads(failure["element"])["data"] == "{broken"
    assert letters(kb) == [] and len(records_of(kb)) == 6


def test_rows_are_made_only_where_something_takes_them(
    documents: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    for name in ("row_of_item", "row_of_record"):
        make = getattr(_yaml_rows, name)
        noted = lambda *given, name=name, make=make: made.append(name) or make(*given)  # noqa: E731
        monkeypatch.setattr(_yaml_rows, name, noted)
    source, target = {"ReadFromJson": {"directory": str(documents)}}, {"uri": str(tmp_path / "kb")}
    run_chain(source, {"MapToFrames": {}}, {"WriteToLance": target})
    assert made == []
    run_chain(source, {"MapToFrames": {}}, keep("True"), {"WriteToLance": target})
    assert made == ["row_of_record"] * 6


def test_two_worker_processes(documents: Path, tmp_path: Path) -> None:
    kb = tmp_path / "kb.lance"
    run_chain(
        {"ReadFromJson": {"directory": str(documents)}},
        {"MapToFrames": {"fields": {"rank": "integer"}}},
        keep("rank < 3"),
        {"WriteToLance": {"uri": str(kb)}},
        direct_num_workers=2,
        direct_running_mode="multi_processing",
    )
    assert sorted(records_of(kb)) == ["a", "b", "c"] and len(letters(kb)) == 1


@pytest.mark.parametrize(
    ("chain", "message"),
    [
        ([{"MapToFrames": {}}, {"MapToFrames": {}}], "given frames already"),
        ([{"Enrich": {"enrichers": ["keywords"]}}], "put MapToFrames before it"),
        ([{"MapToFrames": {"titel": "name"}}], "titel"),
        ([{"MapToFrames": {"fields": {"a": "text"}}}], "choose one of string, integer"),
        ([{"MapToFrames": {}}, {"Enrich": {"enrichers": ["keyword"]}}], "did you mean keywords"),
        ([{"MapToFrames": {"error_handling": {"to": "x"}}}], "error_handling"),
    ],
)
def test_a_pipeline_that_makes_no_sense_is_refused_before_it_runs(
    chain: list[dict[str, Any]], message: str, documents: Path, tmp_path: Path
) -> None:
    source = {"ReadFromJson": {"directory": str(documents)}}
    with pytest.raises(Exception, match=message):
        run_chain(source, *chain, {"WriteToLance": {"uri": str(tmp_path / "kb.lance")}})
    assert not (tmp_path / "kb.lance").exists()


def test_every_transform_of_the_provider_file_exists() -> None:
    (provider,) = yaml.safe_load((FOLDER / "providers.yaml").read_text())
    for name, path in provider["transforms"].items():
        assert path == f"{yaml_transforms.__name__}.{name}"
        assert getattr(yaml_transforms, name).__doc__


@pytest.mark.parametrize("between", [[], [keep("True")]], ids=["batches", "rows"])
def test_files_are_parsed_where_they_are_mapped(tmp_path, between):
    write_documents(
        tmp_path / "docs", {"a.md": "# Alpha", "b.html": "<p>Beta</p>", "c.md": "x" * 99}
    )
    to = str(tmp_path / "kb.lance")
    run_chain(
        {
            "ReadFromConnector": {
                "connector": "files",
                "arguments": {"directory": f"{tmp_path}/docs"},
            }
        },
        *between,
        {"MapToFrames": {"max_file_bytes": 50}},
        {"WriteToLance": {"uri": to, "embed_dim": 4}},
    )
    found = {record.unique_id: record.text_content for record in FrameDataset.open(to)}
    assert found == {"files:a.md": "# Alpha", "files:b.html": "Beta"}
