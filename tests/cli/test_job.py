"""The settings of a run are the same for Python, the command line, the sink and Beam YAML."""

from __future__ import annotations

import dataclasses
import inspect
import re

import click
import pytest

from contextframe_beam.connectors import JSONFileConnector
from contextframe_beam.errors import ConfigError
from contextframe_beam.frames.schema import DEFAULT_EMBED_DIM, STORAGE_VERSIONS
from contextframe_beam.pipelines.cli.commands import commands
from contextframe_beam.pipelines.cli.shared import flag_of
from contextframe_beam.pipelines.ingest import ingest
from contextframe_beam.pipelines.job import Job, about, settings
from contextframe_beam.pipelines.yaml import transforms
from contextframe_beam.transforms import WriteToLance
from contextframe_beam.transforms.modes import MODES

#: What the command line has for a setting that is given in several options, or in none of its own.
WITHOUT_OPTION = {"connector", "beam_args", "sync_kwargs"}
SEVERAL_OPTIONS = {"bounds": {"--since", "--until", "--slice"}}

#: What is about the command and not about the run.
OF_THE_COMMAND = {"--strict", "--json", "--verbose", "-v", "--log-format", "--debug"}

NAMES = [one.name for one in settings()]
OF_SINK = [one.name for one in settings(in_sink=True)]


def options_of_ingest() -> dict[str, click.Parameter]:
    """Returns the options of `ingest` that no connector brings."""
    group = commands.commands["ingest"]
    assert isinstance(group, click.Group)
    command = group.get_command(click.Context(group, obj=None), "files")
    assert command is not None
    return {
        flag: one
        for one in command.params
        for flag in one.opts
        if not str(one.name).startswith(("source__", "reading__"))
    }


def parameters_of(function: object) -> dict[str, inspect.Parameter]:
    found = dict(inspect.signature(function).parameters)  # type: ignore[arg-type]
    found.pop("self", None)
    return found


def test_ingest_takes_every_setting():
    given = parameters_of(ingest)
    assert sorted(given) == sorted(NAMES)
    assert [one for one, of in given.items() if of.kind is not of.KEYWORD_ONLY] == [
        "connector",
        "to",
    ]


def test_ingest_documents_every_setting():
    documented = re.findall(r"^ {8}(\w+): ", str(ingest.__doc__), re.MULTILINE)
    assert documented[: len(NAMES)] == NAMES


def test_every_setting_is_an_option_and_every_option_a_setting():
    wanted = {
        flag
        for one in settings()
        if one.name not in WITHOUT_OPTION
        for flag in SEVERAL_OPTIONS.get(one.name, {flag_of(one)})
    }
    assert set(options_of_ingest()) == wanted | OF_THE_COMMAND


def test_an_option_that_is_not_given_means_the_default():
    options = {one.name: one for one in options_of_ingest().values()}
    for one in settings():
        if one.name in options and one.default is not dataclasses.MISSING:
            command = click.Command("ingest", params=[options[one.name]])
            value = command.make_context("ingest", []).params[one.name]
            assert str(value or None) == str(one.default or None), one.name


@pytest.mark.parametrize("sink", [WriteToLance, transforms.WriteToLance])
def test_a_sink_takes_its_settings_as_ingest_does(sink):
    given = parameters_of(sink.__init__)
    # A run finds these out from its settings; a sink alone has to be told.
    assert sorted(given.keys() - {"embedded_by", "full", "mapping"}) == sorted(["uri", *OF_SINK])
    of_ingest = parameters_of(ingest)
    for name in OF_SINK:
        assert given[name].default == of_ingest[name].default, name
        assert given[name].annotation == of_ingest[name].annotation, name


@pytest.mark.parametrize("sink", [WriteToLance, transforms.WriteToLance])
def test_a_sink_documents_its_settings(sink):
    documented = re.findall(r"^ {8}(\w+): ", str(sink.__doc__), re.MULTILINE)
    assert set(documented) >= {"uri", *OF_SINK}


def test_what_may_be_chosen_is_what_the_sink_knows():
    choices = {one.name: about(one).choices for one in settings() if about(one).choices}
    assert choices == {"mode": tuple(MODES), "storage_version": tuple(STORAGE_VERSIONS)}
    (embed_dim,) = (one for one in settings() if one.name == "embed_dim")
    assert about(embed_dim).unset == str(DEFAULT_EMBED_DIM)


def test_what_is_no_setting_is_refused_by_name(tmp_path):
    source = JSONFileConnector(str(tmp_path))
    with pytest.raises(TypeError, match=r"ingest\(\) got an unexpected keyword argument 'modus'"):
        ingest(source, str(tmp_path / "kb.lance"), modus="upsert")


def test_a_job_keeps_the_run_id_that_was_made_up_for_it(tmp_path):
    job = Job(JSONFileConnector(str(tmp_path)), "kb.lance")
    assert job.id == job.id
    assert job.letters == f"kb.lance.dead-letters/{job.id}.jsonl"


def test_a_job_shows_no_credentials(tmp_path):
    job = Job(JSONFileConnector(str(tmp_path)), "kb", storage_options={"secret": "hunter2"})
    assert "hunter2" not in repr(job)


def test_a_job_of_an_impossible_run_id_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="the run id"):
        Job(JSONFileConnector(str(tmp_path)), "kb.lance", run_id="")
