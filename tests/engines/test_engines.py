"""Finding the engines on this machine, and what is said when a tool to fetch them is missing."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from contextframe_beam.errors import ConfigError
from contextframe_beam.pipelines.runners.engines import ENGINES, FOLDER_VARIABLE, engines_folder
from contextframe_beam.pipelines.runners.options import (
    is_local,
    pipeline_options,
    runner_for,
    starts_engine,
)
from tests.support.cli_helpers import assert_error, cli, write_documents
from tests.support.engines import free_port
from tools import engine_install


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """An empty folder for engines."""
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "engines"))
    return tmp_path / "engines"


@pytest.fixture
def java(tmp_path, monkeypatch) -> None:
    """A Java that nobody starts."""
    program = tmp_path / "jdk" / "bin" / "java"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent))


def put(name: str) -> str:
    """Makes a file in place of an engine, and returns its path."""
    engine = ENGINES[name]
    engine.folder.mkdir(parents=True)
    path = engine.folder / engine.file
    path.write_text("")
    engine_install.write_about(engine.folder, "a stand-in")
    return str(path)


def test_engines_are_kept_in_the_cache_folder(monkeypatch, tmp_path):
    monkeypatch.delenv(FOLDER_VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert engines_folder() == tmp_path / "contextframe-beam" / "engines"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert engines_folder() == Path.home() / ".cache" / "contextframe-beam" / "engines"


@pytest.mark.usefixtures("folder", "java")
class TestOptions:
    @pytest.mark.parametrize("runner", ENGINES)
    def test_an_engine_that_is_there_is_used(self, runner):
        path = put(runner)
        assert pipeline_options(runner).get_all_options()[ENGINES[runner].option] == path

    @pytest.mark.parametrize("runner", ENGINES)
    def test_the_name_of_a_runner_may_be_in_any_case(self, runner):
        path = put(runner)
        options = pipeline_options(runner.lower())
        assert options.get_all_options()[ENGINES[runner].option] == path
        assert is_local("directrunner")

    @pytest.mark.parametrize("runner", ENGINES)
    def test_one_that_is_not_there_is_left_to_beam(self, runner):
        assert pipeline_options(runner).get_all_options()[ENGINES[runner].option] is None

    def test_what_the_options_name_comes_first(self, tmp_path):
        put("FlinkRunner")
        own = tmp_path / "own.jar"
        own.write_text("")
        options = pipeline_options("FlinkRunner", beam_args=[f"--flink_job_server_jar={own}"])
        assert options.get_all_options()["flink_job_server_jar"] == str(own)

    def test_a_file_that_is_not_there_is_refused(self, tmp_path):
        with pytest.raises(ConfigError, match=r"^--flink_job_server_jar: there is no file"):
            pipeline_options("FlinkRunner", beam_args=["--flink_job_server_jar=/no.jar"])

    def test_without_java_it_says_so_before_anything_is_read(self, monkeypatch):
        monkeypatch.setenv("PATH", "/nowhere")
        with pytest.raises(ConfigError, match=r"^Flink needs Java, and there is no java on PATH"):
            pipeline_options("FlinkRunner")
        pipeline_options("FlinkRunner", beam_args=["--job_endpoint=localhost:8099"])

    @pytest.mark.parametrize(
        ("runner", "arguments", "starts"),
        [
            ("FlinkRunner", [], True),
            ("FlinkRunner", ["--flink_master=localhost:8081"], False),
            ("FlinkRunner", ["--job_endpoint=localhost:8099"], False),
            ("SparkRunner", ["--spark_master_url=local[2]"], True),
            ("SparkRunner", ["--spark_master_url=spark://localhost:7077"], False),
            ("PrismRunner", [], True),
            ("DataflowRunner", [], False),
            ("DirectRunner", [], False),
        ],
    )
    def test_only_an_engine_of_this_machine_ends_with_the_launcher(self, runner, arguments, starts):
        assert starts_engine(pipeline_options(runner, beam_args=arguments), runner) is starts


class TestPackagesForWorkers:
    @pytest.mark.parametrize(
        ("runner", "arguments"),
        [
            ("DirectRunner", []),
            ("PrismRunner", ["--job_endpoint=localhost:8099"]),
            ("FlinkRunner", ["--job_endpoint=localhost:8099"]),
            ("SparkRunner", ["--job_endpoint=localhost:8099"]),
            ("PortableRunner", ["--environment_type=LOOPBACK"]),
        ],
    )
    def test_workers_of_the_launcher_install_nothing_so_they_are_refused(
        self, runner, arguments, tmp_path
    ):
        (tmp_path / "setup.py").write_text("")
        given = [*arguments, f"--setup_file={tmp_path}/setup.py"]
        with pytest.raises(ConfigError, match=r"^--setup_file is for other workers"):
            pipeline_options(runner, beam_args=given)

    @pytest.mark.parametrize("option", ["setup_file", "extra_package", "requirements_file"])
    def test_a_file_that_is_not_there_is_refused(self, option):
        given = ["--environment_type=EXTERNAL", f"--{option}=no/setup.py"]
        with pytest.raises(ConfigError, match=f"^--{option}: there is no file no/setup.py$"):
            pipeline_options("PortableRunner", beam_args=given)

    @pytest.mark.parametrize(
        ("name", "message"),
        [("build.py", "neither setup.py nor pyproject.toml"), ("pyproject.toml", "pip install bu")],
    )
    def test_a_setup_file_that_beam_cannot_build_is_refused(
        self, name, message, tmp_path, monkeypatch
    ):
        (tmp_path / name).write_text("")
        (tmp_path / "build").mkdir()  # what building the package by hand leaves there
        monkeypatch.syspath_prepend(tmp_path)
        with pytest.raises(ConfigError, match=message):
            pipeline_options("DataflowRunner", beam_args=[f"--setup_file={tmp_path / name}"])

    def test_a_setup_file_may_be_named_from_here(self, tmp_path, monkeypatch):
        (tmp_path / "setup.py").write_text("")
        monkeypatch.chdir(tmp_path)
        options = pipeline_options("DataflowRunner", beam_args=["--setup_file=setup.py"])
        assert options.get_all_options()["setup_file"] == str(tmp_path / "setup.py")


class TestJobEndpoint:
    def test_where_nobody_listens_it_says_so_and_does_not_wait(self, tmp_path):
        folder = write_documents(tmp_path / "docs", {"a.json": {"content": "x"}})
        endpoint = f"localhost:{free_port()}"
        result = cli(
            *("ingest", "json", "--directory", folder, "--to", tmp_path / "kb.lance"),
            *("--runner", "PortableRunner", f"--job_endpoint={endpoint}"),
        )
        assert_error(result, 1, f"no job server answers at {endpoint} (--job_endpoint)")
        assert not (tmp_path / "kb.lance").exists()

    @pytest.mark.parametrize("endpoint", ["localhost", ":8099", "localhost:flink", "localhost:0"])
    def test_what_is_no_address_is_refused(self, endpoint):
        arguments = [f"--job_endpoint={endpoint}"]
        options = pipeline_options("PortableRunner", beam_args=arguments)
        with pytest.raises(ConfigError, match="is not an address; write HOST:PORT"):
            runner_for(options, "PortableRunner")


class TestInstalling:
    def test_a_missing_tool_is_named(self, folder, monkeypatch, tmp_path, capsys):
        monkeypatch.setenv("PATH", str(tmp_path))
        assert engine_install.main() == 1
        errors = capsys.readouterr().err.splitlines()
        assert errors == [
            "Error: Flink: needs java and mvn, and there is no java and no mvn on PATH; install a "
            "JDK (11 or 17) and Maven, then run `make engines` again",
            "Error: Spark: needs java and mvn, and there is no java and no mvn on PATH; install a "
            "JDK (11 or 17) and Maven, then run `make engines` again",
            "Error: Prism: needs go, and there is no go on PATH; install Go, then run "
            "`make engines` again",
        ]

    def test_a_tool_that_fails_leaves_nothing_behind(self, folder, monkeypatch, tmp_path, capsys):
        for tool in ("java", "mvn", "go"):
            (tmp_path / tool).write_text("#!/bin/sh\necho no such thing\nexit 1\n")
            (tmp_path / tool).chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
        assert engine_install.main() == 1
        assert "`go install" in capsys.readouterr().err
        assert list(folder.iterdir()) == []

    def test_what_is_there_is_not_fetched_again(self, folder, monkeypatch, tmp_path, capsys):
        monkeypatch.setenv("PATH", str(tmp_path))
        for runner in ENGINES:
            put(runner)
        assert engine_install.main() == 0
        assert capsys.readouterr().out.count("a stand-in: ") == 3

    def test_the_jar_names_its_libraries_in_lines_that_java_reads(self, tmp_path):
        (tmp_path / "lib").mkdir()
        names = [f"library-number-{number}-1.0.jar" for number in range(20)]
        for name in names:
            (tmp_path / "lib" / name).write_text("")
        engine_install._write_jar(tmp_path / "x.jar", "org.example.Main")
        with zipfile.ZipFile(tmp_path / "x.jar") as jar:
            text = jar.read("META-INF/MANIFEST.MF").decode()
        assert max(map(len, text.split("\r\n"))) <= 72
        unfolded = text.replace("\r\n ", "").split("\r\n")
        assert unfolded[1] == "Main-Class: org.example.Main"
        assert unfolded[2] == "Class-Path: " + " ".join(f"lib/{name}" for name in sorted(names))
