"""`contextframe-beam ingest CONNECTOR`: the main job, with the connector's arguments as options."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from contextframe_beam.connectors import secrets
from contextframe_beam.connectors.cursors import Bounds
from contextframe_beam.connectors.registry import load_connector_class
from contextframe_beam.pipelines import logs
from contextframe_beam.pipelines.cli.connector import (
    ConnectorCommand,
    ConnectorGroup,
    check_others,
    flags_of,
    options_of,
    own_arguments,
    shortest_command,
)
from contextframe_beam.pipelines.cli.shared import (
    PASSES_ON,
    command,
    debug_option,
    examples,
    job_options,
    option,
    option_words,
    say_done,
)
from contextframe_beam.pipelines.job import RUN, Job, settings
from contextframe_beam.pipelines.process import (
    INCOMPLETE,
    Settings,
    as_it_is,
    import_beam,
    printable,
)
from contextframe_beam.pipelines.runners.worker_processes import serving

if TYPE_CHECKING:
    from contextframe_beam.store.state import CommitReceipt

_EXAMPLE = "contextframe-beam ingest files --directory docs --to kb.lance"

_BOUNDS = {"since", "until", "slice"}
_OF_FILES = {one.name for one in settings(for_files=True)}
_OUTPUT = "Output"


def _set_verbose(context: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        settings = context.ensure_object(Settings)
        settings.verbose = True
        logs.tell_more(settings)


def _set_log_format(context: click.Context, _: click.Parameter, value: str) -> None:
    context.ensure_object(Settings).json_logs = value == "json"


class IngestGroup(ConnectorGroup):
    """The connectors, each with a command that ingests its documents."""

    example = _EXAMPLE

    def command_of(self, name: str, settings: Settings) -> click.Command:
        cls = load_connector_class(name)
        settings.packages.append(cls.__module__.partition(".")[0])
        own = _ingest.params
        if _BOUNDS & own_arguments(cls):
            # A connector that has a `since` of its own is asked by that.
            own = [one for one in own if one.name not in _BOUNDS]
        if not cls.gives_files:
            own = [one for one in own if one.name not in _OF_FILES]
        found = options_of(cls, name, flags_of(own))
        summary = (cls.__doc__ or "").strip().partition("\n")[0]
        return ConnectorCommand(
            name,
            found,
            own,
            PASSES_ON,
            callback=_ingest.callback,
            help=f"Ingest documents of the connector {name}.\n\n{summary}",
            epilog=examples(f"{shortest_command('ingest', name, found)} --to kb.lance") + "\n\n"
            "Any other option is passed on to Apache Beam, as in --parallelism=4, and so is "
            "everything after a lone --. Any value of the connector may be a reference to a "
            "secret: env:NAME, file:PATH, keyring:NAME or gcp-secret:projects/P/secrets/S.",
        )


@click.group(
    "ingest",
    cls=IngestGroup,
    short_help="Bring a connector's documents into a dataset, in one transaction.",
    epilog=examples(
        f"{_EXAMPLE} --mode mirror --embed wordllama",
        "contextframe-beam ingest json --directory exports --to kb.lance --enrich keywords",
        "contextframe-beam ingest my_crm.py:CRM --token env:CRM_TOKEN --to kb.lance --workers 2",
    ),
)
def ingest_group() -> None:
    """Bring a connector's documents into a dataset, in one transaction.

    The connector's own arguments are options: `contextframe-beam ingest files --help` lists them.
    """


@click.command()
@job_options(in_sections=True)
@option(
    "--strict",
    section=RUN,
    is_flag=True,
    help="Exit with 3 when the run was committed but is not complete: items failed, or what was "
    "read may not be all.",
)
@option(
    "--json",
    "as_json",
    section=_OUTPUT,
    is_flag=True,
    help="Print the receipt as one JSON object, and show no progress.",
)
@option(
    "-v",
    "--verbose",
    section=_OUTPUT,
    is_flag=True,
    expose_value=False,
    callback=_set_verbose,
    help="Show what connectors and this program log.",
)
@option(
    "--log-format",
    section=_OUTPUT,
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    expose_value=False,
    is_eager=True,
    callback=_set_log_format,
    help="How lines on the standard error are written; json is one object a line.",
)
@debug_option(_OUTPUT)
@click.pass_context
def _ingest(ctx: click.Context, /, strict: bool, as_json: bool, **values: Any) -> None:
    began = time.monotonic()
    output = ctx.ensure_object(Settings)
    check_others(ctx)
    if not values["to"]:
        raise click.UsageError(f"missing option --to (the dataset), as in: {_EXAMPLE}", ctx)
    if sys.stderr.isatty() and not (as_json or output.json_logs):
        # Importing takes a second; the display then writes over it.
        terminal = as_it_is(sys.stderr)
        terminal.write(f"{printable(str(ctx.info_name))}: starting\r")
        terminal.flush()
    if values["workers"] > 1:
        # Now, so that it imports Beam while this process does.
        ctx.with_resource(serving())
    job = _job_of(ctx, values)

    from contextframe_beam.pipelines.cli.outcome import Outcome, existing
    from contextframe_beam.pipelines.cli.watch import run_job
    from contextframe_beam.pipelines.ingest import run, unfinished_run

    if job.run_id is None and job.commit_every:
        job = replace(job, run_id=unfinished_run(job))
    receipt = run_job(job, run, output, as_json, strict)
    kept = existing(job.letters) if receipt.failed else None
    if receipt.failed and job.commit_every:
        # Each commit leaves a file of its own beside that of the last one.
        kept = os.path.dirname(job.letters) or "."
    skips = getattr(job.connector, "skip_unchanged", False) and not job.reads_all
    left_out = "files that did not change since an earlier run were not read" if skips else ""
    seconds = time.monotonic() - began
    unindexed, scattered = (0, 0) if job.dry_run else _worth_upkeep(job, receipt)
    outcome = Outcome(receipt, job.to, kept, seconds, left_out, job.dry_run, unindexed, scattered)
    if receipt.is_incomplete:
        warning = logs.line(output, f"Warning: {receipt.what_is_missing(kept)}", logging.WARNING)
        click.echo(secrets.redact(warning), err=True)
    say_done(outcome.to_json() if as_json else outcome.text())
    if strict and receipt.is_incomplete:
        ctx.exit(INCOMPLETE)


def _worth_upkeep(job: Job, receipt: CommitReceipt) -> tuple[int, int]:
    """Returns how many vectors would be better with an index, and how many files too small."""
    from contextframe_beam.store.files import open_dataset
    from contextframe_beam.store.upkeep import small_files
    from contextframe_beam.store.vector_index import vectors_without_index

    dataset = open_dataset(job.address) if receipt.rows_written or receipt.chunks else None
    if dataset is None:
        return 0, 0
    return vectors_without_index(dataset) if receipt.chunks else 0, small_files(dataset)


def _job_of(ctx: click.Context, values: dict[str, Any]) -> Job:
    """Returns the job of what was given on the command line."""
    command = ctx.command
    assert isinstance(command, ConnectorCommand)
    given = {one.name: values[one.name] for one in settings() if one.name in values}
    given |= {
        "connector": command.found.connector(values),
        "sync_kwargs": command.found.sync_kwargs(values),
        "bounds": Bounds.of(**{name: values.get(name) for name in _BOUNDS}),
        "beam_args": ctx.args,
    }

    import_beam()
    from contextframe_beam.transforms.enrich import load_enrichers

    return Job(**{**given, "enrichers": load_enrichers(given["enrichers"])})


def ingest_arguments(connector: str, arguments: str, others: list[str]) -> list[str]:
    """Returns the arguments of `contextframe-beam ingest` for the parameters of a template.

    Args:
        connector: Its name.
        arguments: What it is made and read with, as a JSON object.
        others: Options of `ingest` and of Beam as `--name=value`. An empty value is one that was
            not given, since a template cannot leave out a parameter of a form.

    Raises:
        click.UsageError: `arguments` is no JSON object.
    """
    try:
        given = json.loads(arguments)
    except ValueError as error:
        raise click.UsageError(f"--arguments is not JSON: {error}") from error
    if not isinstance(given, dict):
        raise click.UsageError("--arguments is a JSON object of names and values")
    own = [word for name, value in given.items() for word in option_words(name, value)]
    return [connector, *own, *(one for one in others if not one.endswith("="))]


@command(
    "flex-template",
    "contextframe-beam flex-template --connector=json --to=gs://bucket/kb.lance "
    '--arguments=\'{"directory": "gs://bucket/docs"}\'',
    hidden=True,
    context_settings=PASSES_ON,
)
@option("--connector", required=True, help="A connector's name.")
@option("--arguments", default="{}", help="Its arguments, as a JSON object.")
@click.pass_context
def flex_command(ctx: click.Context, connector: str, arguments: str) -> None:
    """Run `ingest` as a Dataflow Flex Template starts it, with parameters only."""
    from contextframe_beam.pipelines.cli.connector import LAUNCHED_BY_TEMPLATE
    from contextframe_beam.pipelines.ingest import TemplateWritten

    words = ingest_arguments(connector, arguments, ctx.args)
    ctx.meta[LAUNCHED_BY_TEMPLATE] = True
    try:
        with ingest_group.make_context("ingest", words, parent=ctx) as context:
            ingest_group.invoke(context)
    except TemplateWritten as written:
        say_done(str(written))
