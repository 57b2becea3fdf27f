"""The Dataflow template: its parameters are options, and its launch command runs with them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from apache_beam.options.pipeline_options import GoogleCloudOptions
from apache_beam.runners.runner import PipelineResult, PipelineRunner, PipelineState

from contextframe_beam import FrameDataset
from contextframe_beam.pipelines.cli.ingest import flex_command, ingest_arguments, ingest_group
from contextframe_beam.pipelines.process import Settings
from contextframe_beam.pipelines.runners.options import beam_options
from tests.support.cli_helpers import (
    ROOT,
    Result,
    assert_error,
    cli,
    environment,
    without_progress,
    write_documents,
)

FOLDER = ROOT / "templates" / "dataflow"
METADATA = json.loads((FOLDER / "metadata.json").read_text())
PARAMETERS = {one["name"]: one for one in METADATA["parameters"]}
LAUNCH = json.loads((FOLDER / "launch.json").read_text())["launchParameter"]

#: What the launcher adds to a template's parameters.
OF_THE_LAUNCHER = [
    "--project=p",
    "--region=europe-west1",
    "--job_name=contextframe-ingest",
    "--temp_location=gs://bucket/tmp",
    "--staging_location=gs://bucket/staging",
    "--service_account_email=contextframe@p.iam.gserviceaccount.com",
]


def launch(*arguments: str, cwd: Path) -> Result:
    """Runs the file that the image names, as the launcher of a Flex Template does."""
    (file,) = re.findall(r"FLEX_TEMPLATE_PYTHON_PY_FILE=/template/(\S+)", dockerfile())
    done = subprocess.run(
        [sys.executable, FOLDER / file, *arguments],
        cwd=cwd,
        env=environment(),
        capture_output=True,
        text=True,
    )
    return Result(done.returncode, done.stdout, done.stderr)


def dockerfile() -> str:
    return (FOLDER / "Dockerfile").read_text()


def options_of_ingest() -> set[str]:
    """Returns the names of all options that a launch understands, as a template writes them."""
    command = ingest_group.get_command(_context(), "json")
    ours = [flag for one in (*command.params, *flex_command.params) for flag in one.opts]
    return {flag.lstrip("-").replace("-", "_") for flag in (*ours, *beam_options())}


def _context() -> Any:
    import click

    return click.Context(ingest_group, obj=Settings())


def test_every_parameter_is_an_option() -> None:
    assert set(PARAMETERS) <= options_of_ingest()


def test_the_metadata_has_the_form_that_templates_need() -> None:
    assert set(METADATA) == {"name", "description", "parameters"}
    for one in METADATA["parameters"]:
        assert {"name", "label", "helpText"} <= set(one)
        assert set(one) <= {"name", "label", "helpText", "isOptional", "regexes"}
        assert re.fullmatch(r"[a-z][a-z_]*", one["name"])
    modes = next(
        one for one in ingest_group.get_command(_context(), "json").params if one.name == "mode"
    )
    (pattern,) = PARAMETERS["mode"]["regexes"]
    assert all(re.fullmatch(pattern, mode) for mode in modes.type.choices)  # type: ignore[attr-defined]


def test_the_scheduled_launch_gives_what_the_template_asks_for() -> None:
    given = LAUNCH["parameters"]
    assert set(given) <= set(PARAMETERS)
    required = {name for name, one in PARAMETERS.items() if not one.get("isOptional")}
    assert required <= set(given)
    readme = (FOLDER / "README.md").read_text()
    built = re.search(r"flex-template build (\S+)", readme)
    assert built is not None and built[1] == LAUNCH["containerSpecGcsPath"]
    assert f"IMAGE={given['sdk_container_image']}" in readme


def test_the_scheduled_launch_runs(tmp_path: Path) -> None:
    write_documents(tmp_path / "documents", {"a.json": {"id": 1}, "b.json": {"id": 2}})
    parameters = {
        name: value.replace("gs://BUCKET", str(tmp_path))
        for name, value in LAUNCH["parameters"].items()
    }
    arguments = [f"--{name}={value}" for name, value in parameters.items()]
    result = launch(*arguments, *OF_THE_LAUNCHER, "--runner=DirectRunner", cwd=tmp_path)
    assert (result.code, without_progress(result.err)) == (0, ""), result
    assert "wrote 2 documents" in result.out
    assert len(FrameDataset.open(str(tmp_path / "kb.lance"))) == 2


def test_a_parameter_that_was_left_empty_was_not_given(tmp_path: Path) -> None:
    write_documents(tmp_path / "documents", {"a.json": {"id": 1}})
    given = {"connector": "json", "arguments": '{"directory": "documents"}', "to": "kb.lance"}
    parameters = [f"--{name}={given.get(name, '')}" for name in PARAMETERS]
    result = launch(*parameters, "--runner=DirectRunner", cwd=tmp_path)
    assert result.code == 0, result.err


def test_a_wrong_parameter_is_one_message() -> None:
    for arguments, parts in (
        (["--connector=jsn"], ["did you mean json?"]),
        (["--connector=json", "--arguments={"], ["--arguments is not JSON"]),
        (["--connector=json", "--arguments=[1]"], ["a JSON object"]),
        (["--connector=json", '--arguments={"directry": "x"}'], ["did you mean --directory?"]),
        (["--to=kb.lance"], ["--connector"]),
    ):
        assert_error(cli("flex-template", *arguments), 2, *parts)


def test_arguments_of_all_kinds_become_options() -> None:
    given = {"a_b": "x", "n": 1, "yes": True, "no": False, "several": ["p", "q"], "none": None}
    given["nested"] = {"k": [1]}
    assert ingest_arguments("json", json.dumps(given), ["--to=kb", "--run_id="]) == [
        "json",
        *("--a-b=x", "--n=1", "--yes", "--no-no", "--several=p", "--several=q"),
        *('--nested={"k": [1]}', "--to=kb"),
    ]


class Describer(PipelineRunner):
    """Stands for Dataflow, which is not here: with a template's location it runs nothing."""

    def run_pipeline(self, pipeline: Any, options: Any) -> PipelineResult:
        location = options.view_as(GoogleCloudOptions).template_location
        Path(location).write_bytes(pipeline.to_runner_api().SerializeToString())
        result = PipelineResult(PipelineState.DONE)
        result.wait_until_finish = lambda duration=None: None
        return result


def test_a_launch_that_only_describes_the_job_is_no_failure(tmp_path: Path) -> None:
    write_documents(tmp_path / "documents", {"a.json": {"id": 1}})
    result = cli(
        "flex-template",
        "--connector=json",
        f'--arguments={{"directory": "{tmp_path}/documents"}}',
        f"--to={tmp_path}/kb.lance",
        "--run_id=run-1",
        f"--runner={__name__}.Describer",
        f"--template_location={tmp_path}/job",
    )
    assert (result.code, without_progress(result.err)) == (0, ""), result
    assert "run run-1 is described" in result.out
    assert (tmp_path / "job").stat().st_size > 0


def test_a_classic_template_which_could_run_once_only_is_refused(tmp_path: Path) -> None:
    write_documents(tmp_path / "documents", {"a.json": {"id": 1}})
    result = cli(
        *("ingest", "json", "--directory", tmp_path / "documents", "--to", tmp_path / "kb.lance"),
        *("--runner=DataflowRunner", f"--template_location={tmp_path}/job"),
    )
    assert_error(result, 2, "--template_location", "`contextframe-beam templates write dataflow")


def test_what_the_image_is_made_of_is_there() -> None:
    text = dockerfile()
    assert "COPY . /template" in text
    for file in re.findall(r"/template/(\S+)", text):
        assert (FOLDER / file).is_file(), file
    (entry,) = re.findall(r'ENTRYPOINT \["(.*)"\]', text)
    assert f"COPY --from=launcher {entry} {entry}" in text
