"""`contextframe-beam run job.yaml` and `init`: sources in a file, each a run of its own."""

from __future__ import annotations

import json
import os
import pty
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from contextframe_beam import FrameDataset
from contextframe_beam.errors import ConfigError
from contextframe_beam.pipelines.cli.shared import option_words
from contextframe_beam.pipelines.job_file import job_schema, read_job_file
from tests.support.cli_helpers import assert_error, cli, start

JOB = """
to: {kb}
max_failures: 7
sources:
  - connector: files
    directory: {docs}
    mode: mirror
  - connector: json
    name: records
    directory: {records}
    prefix: "r:"
"""


@pytest.fixture
def job(tmp_path: Path) -> Path:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.md").write_text("# A")
    (tmp_path / "records").mkdir()
    (tmp_path / "records" / "b.json").write_text('{"id": "b", "text": "B"}')
    return written(tmp_path, JOB)


def written(folder: Path, text: str) -> Path:
    file = folder / "job.yaml"
    names = {name: str(folder / name) for name in ("docs", "records")}
    file.write_text(text.format(kb=folder / "kb.lance", **names))
    return file


def ids(job: Path) -> set[str]:
    return {str(one.unique_id) for one in FrameDataset.open(str(job.parent / "kb.lance"))}


def test_each_source_is_a_run_of_its_own(job):
    done = cli("run", job, "--run-id", "nightly")
    assert done.code == 0
    assert ids(job) == {"files:a.md", "r:b"}
    history = cli("history", job.parent / "kb.lance", "--json").json
    assert {one["run_id"] for one in history} == {"nightly.files", "nightly.records"}
    assert {one["mode"] for one in history} == {"mirror", "upsert"}
    assert {one["settings"]["max_failures"] for one in history} == {"7"}


def test_a_source_that_fails_leaves_the_others(job):
    job.write_text(job.read_text().replace("/docs", "/none"))
    done = cli("run", job)
    assert done.code == 1
    assert f"Error: {job}, line 5: Directory not found" in done.err
    assert ids(job) == {"r:b"}


def test_one_source_can_be_run(job):
    assert cli("run", job, "--only", "records", "--json").json["rows_written"] == 1
    assert ids(job) == {"r:b"}
    assert_error(cli("run", job, "--only", "docs"), 2, "no source docs", "files, records")


def test_a_dry_run_writes_nothing(job):
    done = cli("run", job, "--dry-run")
    assert done.code == 0 and done.out.count("dry run:") == 2
    assert not (job.parent / "kb.lance").exists()


def test_a_range_of_time_on_the_command_line_holds_in_place_of_the_files(job):
    for day in (1, 2, 3):
        file = job.parent / "docs" / f"{day}.md"
        file.write_text(str(day))
        time = datetime(2026, 1, day, tzinfo=timezone.utc).timestamp()
        os.utime(file, (time, time))
    job.write_text(job.read_text().replace("mode: mirror", "since: 2026-01-03"))
    bounds = ("--since", "2026-01-02", "--until", "2026-01-03")
    assert cli("run", job, "--only", "files", *bounds).code == 0
    assert ids(job) == {"files:2.md"}


def test_keys_may_be_merged_from_elsewhere(tmp_path):
    text = (
        "to: x\nsources:\n  - &base {{connector: a, max_failures: 3}}\n  - {{<<: *base, name: b}}"
    )
    first, second = read_job_file(written(tmp_path, text))
    assert second.name == "b" and second.words == first.words


def test_options_of_beam_stand_in_a_list(tmp_path):
    text = "to: x\nbeam_args: [--parallelism=4]\nsources:\n  - connector: a\n  - connector: b\n"
    first, second = read_job_file(written(tmp_path, text + "    beam_args: [--job_endpoint=h:1]"))
    assert first.words == ("a", "--to=x", "--parallelism=4")
    assert second.words == ("b", "--to=x", "--job_endpoint=h:1")


def test_an_incomplete_run_is_told_by_its_exit_code(job):
    (job.parent / "records" / "c.json").write_text("{")
    assert cli("run", job).code == 0
    assert cli("run", job, "--strict", "--full").code == 3


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "has no keys"),
        ("[1]", "has no keys"),
        ("to: x", "has no sources"),
        ("to: x\nsources: []", "has no sources"),
        ("to: x\nsources:\n  - files", "line 3: a source needs the name of its `connector`"),
        ("sources:\n  - connector: files", "line 2: `to`, the dataset, is missing"),
        ("to: x\nmod: mirror\nsources: [{{connector: a}}]", "line 2: there is no setting 'mod'"),
        ("to: x\nyes: 1\nsources: [{{connector: a}}]", "there is no setting True"),
        ("to: x\nsource: [a]", "line 2: there is no setting 'source'; did you mean sources?"),
        (
            "to: x\nsources: [{{conector: a}}]",
            "line 2: a source needs the name of its `connector`; is",
        ),
        (
            "to: x\nrun_id: r\nsources: [{{connector: a}}]",
            "line 2: run_id is of one run; give --run-id",
        ),
        ("to: x\nsources:\n  - connector: a\n    dry_run: true", "line 4: dry_run is of one run"),
        (
            "to: x\nfull: maybe\nsources: [{{connector: a}}]",
            "line 2: full is 'maybe'; it is true or",
        ),
        (
            "to: x\nsources:\n  - connector: a\n    name: [b]",
            "line 3: `name` is ['b']; it is a text",
        ),
        ("to: x\nto: y\nsources: [{{connector: a}}]", "line 2: the key 'to' is there twice"),
        (
            "to: x\nsources:\n  - connector: a\n  - connector: a",
            "is named 'a' too",
        ),
        (
            "to: x\nsources:\n  - connector: a\n    token: s3cr3t-t0ken",
            "line 4: token holds a secret in plain text",
        ),
        (
            "to: x\nsources:\n  - connector: a\n    url: https://ada:pa55@x.example",
            "line 4: url holds a secret in plain text",
        ),
        ("to: x\nsources: {{connector: a}}", "has no sources"),
        (
            "to: x\nsources:\n  - connector: a\n    beam_args: --parallelism=4",
            "line 3: `beam_args` is a list of Beam's options",
        ),
        ("to: [", "this is not YAML"),
    ],
)
def test_a_mistake_is_said_with_its_line(tmp_path, text, said):
    with pytest.raises(ConfigError) as caught:
        read_job_file(written(tmp_path, text))
    assert said in str(caught.value) and "s3cr3t" not in str(caught.value)


def test_a_wrong_key_of_a_source_is_said_with_its_line(job):
    job.write_text(job.read_text().replace("    mode:", "    mod:"))
    done = cli("run", job, "--only", "files")
    assert done.code == 2
    assert "line 7: no such option: --mod; did you mean --mode?" in done.err


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("max_failures", 3, ["--max-failures=3"]),
        ("full", True, ["--full"]),
        ("full", False, []),
        ("follow_links", False, ["--no-follow-links"]),
        ("exclude", ["a", "b"], ["--exclude=a", "--exclude=b"]),
        ("embed_budget", {"per_second": 5}, ['--embed-budget={"per_second": 5}']),
        ("storage_options", {"region": "eu"}, ["--storage-option=region=eu"]),
        ("title", None, []),
        ("since", "2026-01-01", ["--since=2026-01-01"]),
    ],
)
def test_values_become_options(name, value, words):
    assert list(option_words(name, value)) == words


def test_a_file_may_name_a_date_without_quotes(tmp_path):
    text = "to: x\nsources:\n  - connector: a\n    since: 2026-01-01"
    (source,) = read_job_file(written(tmp_path, text))
    assert "--since=2026-01-01" in source.words


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    found = job_schema()
    jsonschema.Draft202012Validator.check_schema(found)
    return found


def complaints(schema: dict[str, Any], text: str) -> list[str]:
    validator = jsonschema.Draft202012Validator(schema)
    return [one.message for one in validator.iter_errors(yaml.safe_load(text))]


def test_the_schema_accepts_what_runs(schema, job):
    assert complaints(schema, job.read_text()) == []
    more = (
        "to: x\nembed: wordllama\nbeam_args: [--parallelism=4]\n"
        "sources: [{connector: 'crm.py:CRM', anything: 1}]"
    )
    assert complaints(schema, more) == []


@pytest.mark.parametrize(
    "text",
    [
        "to: x",
        "to: x\nmod: mirror\nsources: [{connector: files, directory: d}]",
        "to: x\nsources: [{connector: files, directry: d}]",
        "to: x\nsources: [{connector: files, directory: d, mode: miror}]",
        "to: x\nsources: [{connector: flies, directory: d}]",
        "to: x\nsources: [{directory: d}]",
        "to: x\nbeam_args: [parallelism]\nsources: [{connector: files, directory: d}]",
        "to: x\nworkers: 0\nsources: [{connector: files, directory: d}]",
    ],
)
def test_the_schema_marks_mistakes(schema, text):
    assert complaints(schema, text)


def test_init_writes_a_file_that_runs(job, monkeypatch):
    monkeypatch.chdir(job.parent)
    done = cli("init", "new.yaml", "--connector", "files", "--argument", "directory=docs")
    assert done.code == 0 and "contextframe-beam run new.yaml --dry-run" in done.out
    schema = json.loads(Path("job.schema.json").read_text())
    assert complaints(schema, Path("new.yaml").read_text()) == []
    assert cli("run", "new.yaml").code == 0
    assert_error(cli("init", "new.yaml", "--connector", "files"), 2, "exists already", "--force")


def test_init_says_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert_error(cli("init"), 2, "--connector")
    assert_error(cli("init", "--connector", "files"), 2, "files needs --argument directory=")
    misspelt = cli("init", "--connector", "files", "--argument", "directry=d")
    assert_error(misspelt, 2, "files has no argument 'directry'; did you mean directory?")
    plain = ("--argument", "repositories=a/b", "--argument", "token=plain-one")
    refused = cli("init", "--connector", "github", *plain)
    assert_error(refused, 2, "holds a secret in plain text")
    assert not list(tmp_path.glob("*.yaml"))


def test_init_asks_on_a_terminal(tmp_path):
    ours, theirs = pty.openpty()
    process = start("init", cwd=tmp_path, terminal=theirs)
    os.write(ours, b"files\ndocs\nkb.lance\nnone\n")
    assert process.wait() == 0
    os.close(ours)
    told = yaml.safe_load((tmp_path / "job.yaml").read_text())
    assert told == {"to": "kb.lance", "sources": [{"connector": "files", "directory": "docs"}]}
