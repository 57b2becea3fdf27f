"""`contextframe-beam ingest CONNECTOR`: the main job, with the connector's arguments as options."""

from __future__ import annotations

import difflib
import logging
import os
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from contextframe_beam.connectors import secrets
from contextframe_beam.connectors.bounds import Bounds
from contextframe_beam.connectors.registry import list_connectors, load_connector_class
from contextframe_beam.errors import ConfigError
from contextframe_beam.pipelines import _logs
from contextframe_beam.pipelines._completion import folders
from contextframe_beam.pipelines._errors import no_such_option
from contextframe_beam.pipelines._options import ConnectorOptions, options_of, own_arguments
from contextframe_beam.pipelines._settings import Settings
from contextframe_beam.pipelines._shared import (
    SectionOption,
    count,
    debug_option,
    examples,
    pairs,
    say_done,
    storage_option,
)
from contextframe_beam.pipelines._worker_processes import serving
from contextframe_beam.run_id import check_run_id

if TYPE_CHECKING:
    from contextframe_beam.transforms.receipt import CommitReceipt

_EXAMPLE = "contextframe-beam ingest json --directory docs --to kb.lance"

#: The exit code of a run that was committed and is not complete, where that is asked for.
INCOMPLETE = 3

#: In a context's `meta`: set where the launcher of a Flex Template runs the command.
LAUNCHED_BY_TEMPLATE = "contextframe_beam.launched_by_template"

_BOUNDS = {"since", "until", "slice"}
_DESTINATION = "Dataset"
_RUN = "Run"
_OUTPUT = "Output"


def _own_options() -> list[SectionOption]:
    return [
        SectionOption(
            ["--to"],
            section=_DESTINATION,
            metavar="DATASET",
            shell_complete=folders,
            help="The dataset: a folder, or an address such as s3://bucket/kb.lance; made if there "
            "is none.  [required]",
        ),
        SectionOption(
            ["--mode"],
            section=_DESTINATION,
            type=click.Choice(["create", "append", "overwrite", "upsert", "mirror"]),
            default="upsert",
            show_default=True,
            help="upsert replaces documents of the same id and leaves unchanged ones alone; mirror "
            "also deletes those of this source that it no longer has; append adds without looking; "
            "overwrite replaces the whole dataset; create wants none there.",
        ),
        SectionOption(
            ["--embed-dim"],
            section=_DESTINATION,
            type=count,
            metavar="N",
            help="Length of the vectors of a new dataset.  [default: 1536]",
        ),
        SectionOption(
            ["--storage-version"],
            section=_DESTINATION,
            type=click.Choice(["2.0", "2.1", "2.2"]),
            default="2.1",
            show_default=True,
            help="File format of a new dataset.",
        ),
        storage_option(_DESTINATION),
        SectionOption(
            ["--enrich"],
            section=_RUN,
            multiple=True,
            metavar="ENRICHER",
            help="Adds to each record: keywords, package.module:Class or path/to/file.py:Class. "
            "Repeat it for several, in order.",
        ),
        SectionOption(
            ["--workers"],
            section=_RUN,
            type=count,
            metavar="N",
            default=1,
            show_default=True,
            help="Worker processes on this machine.",
        ),
        SectionOption(
            ["--runner"],
            section=_RUN,
            default="DirectRunner",
            show_default=True,
            metavar="NAME",
            help="What runs the job: this machine, or another of Beam's runners.",
        ),
        SectionOption(
            ["--run-id"],
            section=_RUN,
            metavar="ID",
            help="Names the run. A run whose id was committed is not done again: for a scheduler "
            "that may start it twice.",
        ),
        SectionOption(
            ["--full"],
            section=_RUN,
            is_flag=True,
            help="Read everything, whatever an earlier run has read.",
        ),
        SectionOption(
            ["--since"],
            section=_RUN,
            metavar="TIME",
            help="Read only what changed at this time or later, as in 2026-01-31 or "
            "2026-01-31T08:00Z. It moves no sync state: the next run without it misses nothing.",
        ),
        SectionOption(
            ["--until"],
            section=_RUN,
            metavar="TIME",
            help="Read only what changed before this time.",
        ),
        SectionOption(
            ["--slice"],
            section=_RUN,
            metavar="DURATION",
            help="Cut the time from --since to --until, or to now, into slices that are read in "
            "parallel, as in 12h, 1d or 4w.",
        ),
        SectionOption(
            ["--commit-every"],
            section=_RUN,
            metavar="N|Nk-rows|TIME",
            help="Commit as the run goes on, whole partitions at a time (of a large file, 8 MiB): "
            "10 of them, about 100k-rows, or what takes about 15m. If it dies, the same command "
            "goes on from there. By default a run is one transaction.",
        ),
        SectionOption(
            ["--dead-letters"],
            section=_RUN,
            metavar="FILE",
            help="Where items that fail are written, as JSON Lines.  "
            "[default: DATASET.dead-letters/RUN.jsonl]",
        ),
        SectionOption(
            ["--max-failures"],
            section=_RUN,
            metavar="N|P%",
            help="Commit nothing if more items fail, or all do.  [default: 1000]",
        ),
        SectionOption(
            ["--max-deletes"],
            section=_RUN,
            metavar="N|P%",
            help="Commit nothing if more documents, or a larger share of those stored of this "
            "source, would be deleted. A share never stops fewer than ten, except when all would "
            "go; 100% allows any.  [default: 50%]",
        ),
        SectionOption(
            ["--strict"],
            section=_RUN,
            is_flag=True,
            help="Exit with 3 when the run was committed but is not complete: items failed, or "
            "what was read may not be all.",
        ),
        SectionOption(
            ["--json"],
            section=_OUTPUT,
            is_flag=True,
            help="Print the receipt as one JSON object, and show no progress.",
        ),
        SectionOption(
            ["-v", "--verbose"],
            section=_OUTPUT,
            is_flag=True,
            expose_value=False,
            callback=_set_verbose,
            help="Show what connectors and this program log.",
        ),
        SectionOption(
            ["--log-format"],
            section=_OUTPUT,
            type=click.Choice(["text", "json"]),
            default="text",
            show_default=True,
            expose_value=False,
            is_eager=True,
            callback=_set_log_format,
            help="How lines on the standard error are written; json is one object a line.",
        ),
        debug_option(_OUTPUT),
    ]


def _set_verbose(context: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        settings = context.ensure_object(Settings)
        settings.verbose = True
        _logs.tell_more(settings)


def _set_log_format(context: click.Context, _: click.Parameter, value: str) -> None:
    context.ensure_object(Settings).json_logs = value == "json"


class IngestGroup(click.Group):
    """A group whose subcommands are the connectors: registered ones, and any class by its path."""

    #: Shown where the connector is missing.
    example: str = _EXAMPLE

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0].startswith("-") and args[0] not in ctx.help_option_names:
            raise click.UsageError(f"name the connector first, as in: {self.example}", ctx)
        return super().parse_args(ctx, args)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command:
        return _command(cmd_name, ctx.ensure_object(Settings))

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [connector.name for connector in list_connectors()]

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        known = [
            CompletionItem(one.name, help=one.summary)
            for one in list_connectors()
            if one.name.startswith(incomplete)
        ]
        return known or [CompletionItem(incomplete, type="file")]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = [(one.name, one.error or one.summary) for one in list_connectors()]
        rows.append(("package.module:Class", "a connector class that Python can import"))
        rows.append(("path/to/file.py:Class", "a connector class in a file"))
        with formatter.section("Connectors"):
            formatter.write_dl(rows)


class ConnectorCommand(click.Command):
    """Lists its options by section."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                section = getattr(parameter, "section", _OUTPUT)
                sections.setdefault(section, []).append(record)
        for section, records in sections.items():
            with formatter.section(section):
                formatter.write_dl(records)


def _command(name: str, settings: Settings) -> click.Command:
    cls = load_connector_class(name)
    settings.packages.append(cls.__module__.partition(".")[0])
    own = _own_options()
    if _BOUNDS & own_arguments(cls):
        # A connector that has a `since` of its own is asked by that.
        own = [option for option in own if option.name not in _BOUNDS]
    taken = {"--help", *(flag for option in own for flag in option.opts)}
    found = options_of(cls, name, taken)
    options = list(found.options)
    if found.is_open:
        options.append(
            SectionOption(
                ["--argument"],
                section=f"Options of the connector {name}",
                multiple=True,
                metavar="NAME=VALUE",
                callback=pairs,
                help="Any other argument that it takes. Repeat it for several.",
            )
        )

    @click.pass_context
    def ingest(ctx: click.Context, /, **values: Any) -> None:
        _ingest(ctx, name, found, values)

    summary = (cls.__doc__ or "").strip().partition("\n")[0]
    return ConnectorCommand(
        name,
        params=[*options, *own],
        callback=ingest,
        help=f"Ingest documents of the connector {name}.\n\n{summary}",
        epilog=examples(f"{shortest_command('ingest', name, found)} --to kb.lance") + "\n\n"
        "Any other option is passed on to Apache Beam, as in --parallelism=4, and so is all "
        "that stands behind a lone --. Any value of the connector may be a reference to a secret: "
        "env:NAME, file:PATH, keyring:NAME or gcp-secret:projects/P/secrets/S.",
        context_settings={
            "ignore_unknown_options": True,
            "allow_extra_args": True,
            # So that an argument may be written as in Python: --max_line_bytes.
            "token_normalize_func": lambda text: text.replace("_", "-"),
            "max_content_width": 100,
        },
    )


def shortest_command(command: str, name: str, found: ConnectorOptions) -> str:
    """Returns a command for a connector with the options that it requires, and no others."""
    required = {
        parameter.name
        for parameter in (*found.constructor.values(), *found.reading.values())
        if parameter.required
    }
    given = [
        f"{option.opts[0]} {option.make_metavar(click.Context(click.Command(name)))}"
        for option in found.options
        if (option.name or "").partition("__")[2] in required
    ]
    return " ".join(["contextframe-beam", command, name, *given])


def _ingest(ctx: click.Context, name: str, found: ConnectorOptions, values: dict[str, Any]) -> None:
    began = time.monotonic()
    settings = ctx.ensure_object(Settings)
    check_others(ctx)
    if not values["to"]:
        raise click.UsageError(f"missing option --to (the dataset), as in: {_EXAMPLE}", ctx)
    if values["workers"] > 1:
        # Now, so that it imports Beam while this process does.
        ctx.with_resource(serving())
    connector = found.connector(values)
    sync_kwargs = found.sync_kwargs(values)
    bounds = Bounds.of(**{name: values.get(name) for name in _BOUNDS})
    storage_options = values["storage_option"]

    from contextframe_beam.pipelines._enrichers import load_enrichers
    from contextframe_beam.pipelines._receipt import Outcome, existing
    from contextframe_beam.pipelines._run import Job, run_job
    from contextframe_beam.pipelines.ingest import (
        default_dead_letters,
        ingest,
        new_run_id,
        unfinished_run,
    )
    from contextframe_beam.pipelines.runners import is_local, pipeline_options, starts_engine

    to = values["to"]
    run_id = values["run_id"]
    check_run_id(run_id)
    if run_id is None and values["commit_every"]:
        run_id = unfinished_run(
            connector,
            to,
            mode=values["mode"],
            full=values["full"],
            bounds=bounds,
            storage_options=storage_options,
            sync_kwargs=sync_kwargs,
        )
    run_id = run_id or new_run_id()
    dead_letters = values["dead_letters"] or default_dead_letters(to, run_id)
    enrichers = load_enrichers(values["enrich"])
    optional = {name: values[name] for name in ("max_failures", "max_deletes") if values[name]}

    def start() -> CommitReceipt:
        return ingest(
            connector,
            to,
            mode=values["mode"],
            enrichers=enrichers,
            workers=values["workers"],
            runner=values["runner"],
            beam_args=ctx.args,
            run_id=run_id,
            full=values["full"],
            bounds=bounds,
            commit_every=values["commit_every"],
            dead_letters=dead_letters,
            embed_dim=values["embed_dim"],
            storage_options=storage_options,
            storage_version=values["storage_version"],
            sync_kwargs=sync_kwargs,
            **optional,
        )

    runner = values["runner"]
    options = pipeline_options(runner, values["workers"], ctx.args)
    job = Job(
        start=start,
        name=connector.name,
        to=to,
        run_id=run_id,
        storage_options=storage_options,
        dead_letters=dead_letters,
        runner=runner,
        is_local=is_local(runner),
        starts_engine=starts_engine(options, runner),
        source=connector.source_id(sync_kwargs),
    )
    receipt = run_job(job, settings, quiet=values["json"])
    kept = existing(dead_letters) if receipt.failed else None
    if receipt.failed and values["commit_every"]:
        # Each commit leaves a file of its own beside that of the last one.
        kept = os.path.dirname(dead_letters) or "."
    skips = getattr(connector, "skip_unchanged", False) and not values["full"]
    left_out = "files that did not change since an earlier run were not read" if skips else ""
    outcome = Outcome(receipt, to, kept, time.monotonic() - began, left_out)
    if receipt.is_incomplete:
        warning = _logs.line(settings, f"Warning: {receipt.what_is_missing(kept)}", logging.WARNING)
        click.echo(secrets.redact(warning), err=True)
    say_done(outcome.to_json() if values["json"] else outcome.text())
    if values["strict"] and receipt.is_incomplete:
        ctx.exit(INCOMPLETE)


def check_others(ctx: click.Context) -> None:
    """Refuses what neither we nor the connector nor Beam knows, with the nearest that one does."""
    if not ctx.args:
        return
    from contextframe_beam.pipelines.runners import beam_options, unknown_options

    unknown = unknown_options(ctx.args)
    if not unknown:
        _check_beam(ctx)
        return
    name = unknown[0].partition("=")[0]
    if not name.startswith("-"):
        raise click.UsageError(f"unexpected argument {name!r}; values go behind an option", ctx)
    own = [flag for option in ctx.command.params for flag in _flags(option)]
    raise click.UsageError(no_such_option(name, _nearest(name, own, beam_options())), ctx)


def _flags(option: click.Parameter) -> Iterable[str]:
    return (*option.opts, *option.secondary_opts)


def _nearest(name: str, own: Sequence[str], others: Sequence[str]) -> list[str]:
    plain = name.replace("_", "-")
    nearest = difflib.get_close_matches(plain, own, n=1)
    return nearest or difflib.get_close_matches(name, others, n=1)


def _check_beam(ctx: click.Context) -> None:
    for argument in ctx.args:
        option = argument.partition("=")[0]
        if option in ("--direct_num_workers", "--direct_running_mode"):
            raise ConfigError(f"{option} is set by --workers; give --workers N")
        if option == "--template_location" and not ctx.meta.get(LAUNCHED_BY_TEMPLATE):
            raise ConfigError(
                f"{option} would describe one run, with its id and the sync state of now, and "
                "starting that again would change nothing; schedule a Flex Template, which plans "
                "each run when it starts: `contextframe-beam templates write dataflow DIR`"
            )


ingest_group = IngestGroup(
    "ingest",
    short_help="Bring a connector's documents into a dataset, in one transaction.",
    help="Bring a connector's documents into a dataset, in one transaction.\n\n"
    "The connector's own arguments are options: `contextframe-beam ingest json --help` lists them.",
    subcommand_metavar="CONNECTOR [OPTIONS]",
    epilog=examples(
        f"{_EXAMPLE} --enrich keywords",
        "contextframe-beam ingest my_crm.py:CRM --token env:CRM_TOKEN --to kb.lance --workers 2",
    ),
    no_args_is_help=True,
    context_settings={"max_content_width": 100},
)
