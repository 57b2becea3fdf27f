"""The commands for job files: run, and init, which writes one."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from contextframe_beam.connectors.base import BaseConnector
from contextframe_beam.connectors.identity import constructor_arguments, reading_arguments
from contextframe_beam.connectors.registry import (
    Parameter,
    connector_parameters,
    list_connectors,
    load_connector_class,
    sync_parameters,
)
from contextframe_beam.errors import ConfigError, nearest
from contextframe_beam.pipelines.cli.ingest import ingest_group
from contextframe_beam.pipelines.cli.shared import (
    command,
    flag_of,
    job_options,
    option,
    option_words,
    pairs,
    say_done,
    say_failed,
)
from contextframe_beam.pipelines.job import settings
from contextframe_beam.pipelines.process import (
    DONE,
    INCOMPLETE,
    InterruptedRunError,
    OutputError,
    Settings,
)

if TYPE_CHECKING:
    from contextframe_beam.pipelines.job_file import FileSource

_SCHEMA = "job.schema.json"


@command(
    "run",
    "contextframe-beam run job.yaml",
    "contextframe-beam run job.yaml --only docs --full",
    "contextframe-beam run job.yaml --since 2026-01-01 --until 2026-02-01",
)
@click.argument("file", type=click.Path(dir_okay=False), metavar="FILE")
@option(
    "--only", multiple=True, metavar="NAME", help="Run this source only. Repeat it for several."
)
@option("--full", is_flag=True, help="Read everything, whatever an earlier run has read.")
@job_options("bounds")
@option("--dry-run", is_flag=True, help="Count what would be done. Nothing is committed.")
@option(
    "--run-id",
    metavar="ID",
    help="Names the runs, each with its source's name behind. A run whose id was committed is not "
    "done again.",
)
@option("--strict", is_flag=True, help="Exit with 3 when a run was committed but is not complete.")
@option("--json", "as_json", is_flag=True, help="Print a JSON object for each source, a line each.")
@click.pass_context
def run_command(
    ctx: click.Context,
    file: str,
    only: tuple[str, ...],
    full: bool,
    since: str | None,
    until: str | None,
    slice: str | None,
    dry_run: bool,
    run_id: str | None,
    strict: bool,
    as_json: bool,
) -> None:
    """Bring the sources of a job file into its dataset, one after the other.

    Each source is a run in one transaction. If one fails, the others are still read, and the exit
    code is 1. The keys of the file are the options of `ingest`, and options given here hold in
    place of them; `init` writes one.
    """
    from contextframe_beam.pipelines.job_file import read_job_file

    sources = read_job_file(file)
    unknown = [name for name in only if name not in [one.name for one in sources]]
    if unknown:
        names = ", ".join(one.name for one in sources)
        raise click.UsageError(f"{file} has no source {unknown[0]} (there are: {names})", ctx)
    flags = {"--full": full, "--dry-run": dry_run, "--strict": strict, "--json": as_json}
    given = [flag for flag, asked in flags.items() if asked]
    bounds = {"since": since, "until": until, "slice": slice}
    given += [word for name, value in bounds.items() for word in option_words(name, value)]
    codes = [
        _run(ctx, one, [*given, *([f"--run-id={run_id}.{one.name}"] if run_id else [])], as_json)
        for one in sources
        if not only or one.name in only
    ]
    failed = [code for code in codes if code not in (DONE, INCOMPLETE)]
    ctx.exit(max(failed, default=max(codes)))


def _run(ctx: click.Context, source: FileSource, flags: list[str], as_json: bool) -> int:
    """Runs a source, reports an error, and returns its exit code."""
    if not as_json:
        click.echo(f"{source.name}:")
    try:
        words = [*source.words, *flags]
        with ingest_group.make_context("ingest", words, parent=ctx.parent) as context:
            ingest_group.invoke(context)
    except click.exceptions.Exit as end:
        return end.exit_code
    except (OutputError, InterruptedRunError, click.exceptions.Abort):
        raise
    except Exception as error:
        return say_failed(error, ctx.ensure_object(Settings), source.place_of)
    return DONE


@command(
    "init",
    "contextframe-beam init",
    "contextframe-beam init docs.yaml --connector files --argument directory=docs --to kb.lance",
)
@click.argument("file", type=click.Path(dir_okay=False), default="job.yaml", metavar="[FILE]")
@option("--connector", metavar="NAME", help="What to read.  [default: asks]")
@option(
    "--argument",
    "arguments",
    multiple=True,
    metavar="NAME=VALUE",
    callback=pairs,
    help="An argument of the connector, or a setting of its runs. Repeat it for several.",
)
@option("--to", metavar="DATASET", help="The dataset.  [default: asks]")
@option("--embed", metavar="NAME[:MODEL]", help="What makes vectors of texts.")
@option("--force", is_flag=True, help="Replace an existing file.")
@click.pass_context
def init_command(
    ctx: click.Context,
    file: str,
    connector: str | None,
    arguments: dict[str, str],
    to: str | None,
    embed: str | None,
    force: bool,
) -> None:
    """Write a job file, and its JSON schema for editors beside it.

    What is not given is asked for on a terminal.
    """
    from contextframe_beam.pipelines.job_file import job_schema, read_job_file

    asks = sys.stdin.isatty()
    path = Path(file)
    if path.exists() and not force:
        raise ConfigError(f"{file} exists already; choose another name, or replace it with --force")
    if connector is None:
        if not asks:
            raise click.UsageError("missing option --connector, as in --connector files", ctx)
        names = [one.name for one in list_connectors()]
        connector = click.prompt("What to read", type=click.Choice(names), default="files")
    cls = load_connector_class(connector)
    _check_arguments(ctx, connector, cls, arguments)
    needed = [one for one in connector_parameters(cls) if one.required]
    told: dict[str, Any] = dict(arguments)
    for one in needed:
        if one.name not in told and asks:
            told[one.name] = click.prompt(_question(one))
    missing = [one.name for one in needed if one.name not in told]
    if missing:
        raise click.UsageError(f"{connector} needs --argument {missing[0]}=...", ctx)
    if to is None:
        to = click.prompt("The dataset", default="kb.lance") if asks else "kb.lance"
    if embed is None and asks:
        embed = click.prompt("What makes vectors of texts, or none", default="none")
    told = {"connector": connector, **told}
    common = {"to": to, **({"embed": embed} if embed and embed != "none" else {})}
    schema = path.parent / _SCHEMA
    before = path.read_text(encoding="utf-8") if path.exists() else None
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(_lines(common, told)), encoding="utf-8")
    try:
        read_job_file(path)
    except ConfigError:
        if before is None:
            path.unlink()
        else:
            path.write_text(before, encoding="utf-8")
        raise
    schema.write_text(json.dumps(job_schema(), indent=1) + "\n", encoding="utf-8")
    say_done(
        f"wrote {file}, and {schema} for editors; next:\n\n  contextframe-beam run {file} --dry-run"
    )


def _check_arguments(
    ctx: click.Context, connector: str, cls: type[BaseConnector], given: Mapping[str, str]
) -> None:
    """Refuses names that neither the connector nor its runs have."""
    if constructor_arguments(cls).is_open or reading_arguments(cls).is_open:
        return
    own = [one.name for one in (*connector_parameters(cls), *sync_parameters(cls))]
    known = {*own, *(flag_of(one).lstrip("-").replace("-", "_") for one in settings())}
    for name in given:
        if name.replace("-", "_") not in known:
            hint = nearest(name, known)
            raise click.UsageError(f"{connector} has no argument {name!r}{hint}", ctx)


def _question(parameter: Parameter) -> str:
    text = (parameter.help or parameter.name).split(". ")[0].rstrip(".")
    secret = ", as a reference such as env:NAME" if parameter.secret else ""
    return f"{parameter.name} ({text}{secret})"


def _lines(common: dict[str, Any], source: dict[str, Any]) -> Iterator[str]:
    import yaml  # which only this command and job files need

    yield f"# yaml-language-server: $schema={_SCHEMA}"
    yield from yaml.safe_dump(common, sort_keys=False, allow_unicode=True).splitlines()
    yield "sources:"
    lines = yaml.safe_dump(source, sort_keys=False, allow_unicode=True).splitlines()
    for number, line in enumerate(lines):
        yield f"  {'-' if number == 0 else ' '} {line}"
    yield ""
