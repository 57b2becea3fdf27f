"""The commands that maintain a dataset: index, compact, cleanup, rollback, state."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from contextframe_beam.connectors import secrets
from contextframe_beam.pipelines.cli.connector import check_others
from contextframe_beam.pipelines.cli.shared import (
    PASSES_ON,
    CommandGroup,
    as_json,
    command,
    dataset_argument,
    examples,
    job_options,
    option,
    say_done,
    storage_options,
    version_option,
)
from contextframe_beam.pipelines.process import Settings
from contextframe_beam.pipelines.runners.worker_processes import serving
from contextframe_beam.store.address import Address


def age(text: object) -> timedelta:
    """Reads an age such as `7d` or `12h`."""
    from contextframe_beam.connectors.cursors import seconds_of

    try:
        return timedelta(seconds=seconds_of(str(text)))
    except (ValueError, OverflowError) as error:
        raise click.BadParameter(f"{text!r} is not an age; give one such as 7d or 12h") from error


@command("rollback", "contextframe-beam rollback kb.lance --to 12")
@dataset_argument
@version_option("--to", "The version to return to.", required=True)
@as_json
@storage_options
def rollback_command(
    dataset: str, version: int, as_json: bool, storage_options: dict[str, str]
) -> None:
    """Make an earlier version of DATASET the newest one again, in one commit.

    Its documents and its sync state return together. The next run reads what changed in the
    source since that version. Later runs count as never done, and runs under way will be refused.
    The versions in between stay until a cleanup.
    """
    from contextframe_beam.store.dataset import FrameDataset

    opened = FrameDataset.open(dataset, storage_options=storage_options)
    before = opened.version
    after = opened.rollback(version)
    if as_json:
        say_done(json.dumps({"uri": opened.uri, "version": after, "restored": version}))
    elif after == version:
        say_done(f"version {version} is already the newest one of {dataset}; nothing was done")
    else:
        say_done(
            f"{dataset} is as it was at version {version}, with "
            f"{opened.contents} and the sync state of that time. "
            f"This is version {after}; `contextframe-beam rollback {dataset} --to {before}` would "
            "undo it"
        )


@command(
    "index",
    context_settings=PASSES_ON,
    epilog="With --vector any other option is passed on to Apache Beam.\n\n"
    + examples(
        "contextframe-beam index kb.lance --language zh",
        "contextframe-beam index kb.lance --vector",
        "contextframe-beam index kb.lance --column price",
    ),
)
@dataset_argument
@option(
    "--language",
    metavar="LANG",
    help="Of the texts, as in de or pt, whose words are found by their stems, or zh, ja, ko and "
    "th, whose words are found in part as well; any suits all.  [default: the one given last, and "
    "at first any]",
)
@option(
    "--vector",
    is_flag=True,
    help="Make the index of the vectors instead, which pays beyond some 50,000.",
)
@option(
    "--column",
    "fields",
    metavar="NAME",
    multiple=True,
    help="Make the index of a field that `columns` lists instead, by which --where finds rows. "
    "Repeat it for several.",
)
@job_options("workers", "runner")
@as_json
@storage_options
@click.pass_context
def index_command(
    ctx: click.Context,
    /,
    dataset: str,
    language: str | None,
    vector: bool,
    fields: tuple[str, ...],
    workers: int,
    runner: str,
    as_json: bool,
    storage_options: dict[str, str],
) -> None:
    """Make the full-text index of DATASET, for a language or for any, or that of its vectors.

    `search` finds words by the first. It is brought up to date as well, and one that cuts text into
    words in another way is made anew. Without it the first search makes one that suits any
    language.

    With --vector it is the index by which `search` finds what is near in meaning. Without one all
    vectors are compared, which is exact, and fast up to some 50,000 of them.

    With --column it is the index of a field of metadata that is a column; see `columns`.
    """
    check_others(ctx)
    if vector + bool(fields) + (language is not None) > 1:
        raise click.UsageError(
            "--language is of texts, --vector of vectors, and --column of a field; give one", ctx
        )
    if vector:
        if workers > 1:
            ctx.with_resource(serving())
        _index_vectors(ctx, dataset, workers, runner, as_json, storage_options)
        return
    given = (ParameterSource.DEFAULT, ParameterSource.DEFAULT_MAP)
    if ctx.args or any(
        ctx.get_parameter_source(name) not in given for name in ("workers", "runner")
    ):
        raise click.UsageError("only --vector runs as a pipeline, on workers or an engine", ctx)
    if fields:
        _index_fields(dataset, fields, as_json, storage_options)
        return
    _index_text(dataset, language, as_json, storage_options)


def _index_vectors(
    ctx: click.Context,
    dataset: str,
    workers: int,
    runner: str,
    as_json: bool,
    storage_options: dict[str, str],
) -> None:
    from contextframe_beam.pipelines.cli.watch import run_upkeep
    from contextframe_beam.pipelines.vector_index import index_vectors

    receipt = run_upkeep(
        lambda: index_vectors(
            dataset,
            workers=workers,
            runner=runner,
            beam_args=ctx.args,
            storage_options=storage_options,
        ),
        ctx.ensure_object(Settings),
    )
    if as_json:
        say_done(json.dumps(asdict(receipt)))
        return
    what = "made the vector index of" if receipt.made else "there is a vector index already of"
    if receipt.updated:
        what = "brought up to date the vector index of"
    vectors = "1 vector" if receipt.vectors == 1 else f"{receipt.vectors:,} vectors"
    say_done(f"{what} {dataset}, which knows {vectors} (version {receipt.version})")
    if not receipt.pays:
        click.echo("So few are found about as fast without it.", err=True)


def _index_fields(
    dataset: str, fields: tuple[str, ...], as_json: bool, storage_options: dict[str, str]
) -> None:
    from contextframe_beam.store.schema import index_field

    at = Address(dataset, storage_options)
    made = {name: index_field(at, name) for name in fields}
    if as_json:
        click.echo(json.dumps(made))
        return
    for name, kind in made.items():
        what = f"made the index of {name} ({kind})" if kind else f"{name} has an index already"
        click.echo(f"{what} in {dataset}")


def _index_text(
    dataset: str, language: str | None, as_json: bool, storage_options: dict[str, str]
) -> None:
    from contextframe_beam.store.dataset import FrameDataset
    from contextframe_beam.store.text_index import analysis_wanted
    from contextframe_beam.store.upkeep import update_indices

    opened = FrameDataset.open(dataset, storage_options=storage_options)
    is_new = opened.index_text(language)
    updated = update_indices(Address(dataset, storage_options))
    opened = FrameDataset.open(dataset, storage_options=storage_options)
    finds = str(analysis_wanted(opened.lance))
    if as_json:
        facts = {"uri": opened.uri, "version": opened.version, "made": is_new}
        click.echo(json.dumps({**facts, "updated": updated, "finds": finds}))
        return
    what = "made the full-text index of" if is_new else "there is already a full-text index of"
    if updated:
        what = "brought up to date the full-text index of"
    click.echo(f"{what} {dataset}, which finds {finds} (version {opened.version})")


@command(
    "embed",
    "contextframe-beam embed kb.lance --embed wordllama",
    "contextframe-beam embed kb.lance --embed openai:text-embedding-3-small "
    "--embed-key env:OPENAI_API_KEY --dry-run",
)
@dataset_argument
@job_options(
    "embed", "embed_url", "embed_key", "embed_budget", "embed_options", "max_tokens", "dry_run"
)
@as_json
@storage_options
@click.pass_context
def embed_command(ctx: click.Context, /, dataset: str, as_json: bool, **values: Any) -> None:
    """Make the vectors of DATASET again, from the texts that it holds.

    No source is read. Chunks get vectors, and so do documents without chunks. All vectors change in
    one version, which may have another dimension. If the command dies, the same command goes on
    from there: vectors that were made are kept until all are there. Runs may go on meanwhile.
    """
    from contextframe_beam.pipelines.cli.watch import run_upkeep
    from contextframe_beam.pipelines.embed import embed

    receipt = run_upkeep(
        lambda: embed(dataset, **values), ctx.ensure_object(Settings), "" if as_json else "embed"
    )
    if receipt.failed:
        some = "1 text" if receipt.failed == 1 else f"{receipt.failed:,} texts"
        warning = f"Warning: {some} cannot be embedded and have no vector: {receipt.reason}"
        click.echo(secrets.redact(warning), err=True)
    if as_json:
        say_done(json.dumps(asdict(receipt)))
        return
    new = f"{receipt.texts_embedded:,} texts embedded"
    if values["dry_run"]:
        new = f"{receipt.texts_embedded:,} texts to embed, with about {receipt.tokens:,} tokens"
    parts = [str(receipt.embedded), new]
    if receipt.texts_reused:
        parts.append(f"{receipt.texts_reused:,} had a vector already")
    if values["dry_run"]:
        say_done(f"dry run: {', '.join(parts)}; nothing was written")
        return
    of = f"{dataset} has vectors of {receipt.embedder} now (version {receipt.version})"
    say_done(f"{of}\n{', '.join(parts)}")


@command(
    "compact",
    context_settings=PASSES_ON,
    epilog="Any other option is passed on to Apache Beam, as in --parallelism=4.\n\n"
    + examples("contextframe-beam compact kb.lance --workers 2"),
)
@dataset_argument
@job_options("workers", "runner")
@as_json
@storage_options
@click.pass_context
def compact_command(
    ctx: click.Context,
    /,
    dataset: str,
    workers: int,
    runner: str,
    as_json: bool,
    storage_options: dict[str, str],
) -> None:
    """Merge the many small data files of DATASET into few large ones.

    This also drops deleted rows and brings indices up to date. Runs may go on meanwhile.
    """
    check_others(ctx)
    if workers > 1:
        ctx.with_resource(serving())
    from contextframe_beam.pipelines.cli.watch import run_upkeep
    from contextframe_beam.pipelines.compact import compact

    receipt = run_upkeep(
        lambda: compact(
            dataset,
            workers=workers,
            runner=runner,
            beam_args=ctx.args,
            storage_options=storage_options,
        ),
        ctx.ensure_object(Settings),
    )
    if as_json:
        say_done(json.dumps(asdict(receipt)))
        return
    if receipt.did_nothing:
        say_done(f"nothing to do: {dataset} is compact, and its indices are up to date")
        return
    kept = "fragment" if receipt.fragments_after == 1 else "fragments"
    lines = [
        f"{dataset} now has {receipt.fragments_after:,} {kept}, and had "
        f"{receipt.fragments_before:,} (version {receipt.version})"
    ]
    if receipt.indices:
        lines.append(f"indices brought up to date: {', '.join(receipt.indices)}")
    if receipt.unfinished:
        lines.append("runs kept changing some of them; compact again when fewer are under way")
    say_done("\n".join(lines))


@command(
    "cleanup",
    "contextframe-beam cleanup kb.lance --keep 30d --dry-run",
    "contextframe-beam cleanup kb.lance --keep 30d",
)
@dataset_argument
@option(
    "--keep",
    type=age,
    metavar="AGE",
    default="7d",
    show_default=True,
    help="Versions younger than this stay; so do the newest one and those with a tag.",
)
@option(
    "--lost-after",
    type=age,
    metavar="AGE",
    default="7d",
    show_default=True,
    help="Files outside of all versions count as lost attempts when they are older than this, 7d "
    "at most. No run may last longer.",
)
@option(
    "--no-writers",
    is_flag=True,
    help="Promise that nobody is writing, so that --lost-after may be less than 1d.",
)
@option("--dry-run", is_flag=True, help="Only say what would be removed.")
@as_json
@storage_options
def cleanup_command(
    dataset: str, as_json: bool, storage_options: dict[str, str], **values: Any
) -> None:
    """Remove old versions of DATASET, and old files that killed runs left behind."""
    from contextframe_beam.pipelines.cli.outcome import in_bytes
    from contextframe_beam.pipelines.job import dead_letters_beside
    from contextframe_beam.store.upkeep import cleanup
    from contextframe_beam.transforms.embedders.vector_cache import remove_lost_vectors
    from contextframe_beam.transforms.letters import remove_lost_pieces

    receipt = cleanup(Address(dataset, storage_options), **values)
    about: dict[str, Any] = {"dry_run": receipt.dry_run, "storage_options": storage_options}
    letters = f"{dead_letters_beside(dataset)}/"
    for files, size in (
        remove_lost_pieces(letters, values["lost_after"], **about),
        remove_lost_vectors(dataset, values["lost_after"], **about),
    ):
        lost = receipt.lost_files + files
        receipt = replace(receipt, lost_files=lost, bytes=receipt.bytes + size)
    if as_json:
        say_done(json.dumps(asdict(receipt)))
        return
    verb = "would remove" if receipt.dry_run else "removed"
    say_done(
        f"{verb} {receipt.versions:,} old versions with {receipt.files:,} files, and "
        f"{receipt.lost_files:,} files of lost attempts: {in_bytes(receipt.bytes)}"
    )


_source = option(
    "--source",
    metavar="ID|NAME",
    help="Only this source: its id, the beginning of it, or the connector's name.",
)


@click.group(
    "state",
    cls=CommandGroup,
    short_help="Show, edit or reset how far the sources of a dataset were read.",
    epilog=examples("contextframe-beam state show kb.lance"),
    no_args_is_help=True,
)
def state_group() -> None:
    """Show, edit or reset how far the sources of a dataset were read."""


@command("show", "contextframe-beam state show kb.lance --json > state.json", of=state_group)
@dataset_argument
@_source
@option("--json", "as_json", is_flag=True, help="Print JSON that `state set` reads.")
@storage_options
def _show(dataset: str, source: str | None, as_json: bool, storage_options: dict[str, str]) -> None:
    """Show the state of each partition of the sources of DATASET."""
    from contextframe_beam.pipelines.cli import show
    from contextframe_beam.store.dataset import FrameDataset
    from contextframe_beam.store.upkeep import export_state, find_source

    states = {
        one.source: one
        for one in FrameDataset.open(dataset, storage_options=storage_options).states()
    }
    chosen = list(states.values()) if source is None else [find_source(states, source)]
    if as_json:
        exported = [export_state(one) for one in chosen]
        click.echo(json.dumps(exported, indent=2, ensure_ascii=False))
    elif chosen:
        show.show_states(chosen)
    else:
        click.echo(f"{dataset} has no sources")


@command("set", "contextframe-beam state set kb.lance state.json", of=state_group)
@dataset_argument
@click.argument("file")
@storage_options
def _set(dataset: str, file: str, storage_options: dict[str, str]) -> None:
    """Set the states of sources of DATASET from FILE (- reads the standard input).

    FILE is the output of `state show --json`. If a run was committed since then, the command sets
    nothing and says so.
    """
    from contextframe_beam.errors import ConfigError
    from contextframe_beam.store.upkeep import parse_states, set_states

    try:
        data = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
        text = data.decode()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"cannot read {file}: {reason}") from error
    states = parse_states(text, "standard input" if file == "-" else file)
    version = set_states(Address(dataset, storage_options), states)
    say_done(f"set the state of {_sources(len(states))} (version {version} of {dataset})")


@command("reset", "contextframe-beam state reset kb.lance --source crm", of=state_group)
@dataset_argument
@_source
@option(
    "--partition",
    multiple=True,
    metavar="NAME",
    help="Forget this partition only. Repeat it for several.",
)
@storage_options
def _reset(
    dataset: str,
    source: str | None,
    partition: tuple[str, ...],
    storage_options: dict[str, str],
) -> None:
    """Forget how far a source of DATASET was read; its next run reads everything.

    An unfinished backfill of it is forgotten too. Documents stay as they are.
    """
    from contextframe_beam.errors import ConfigError
    from contextframe_beam.store.dataset import FrameDataset
    from contextframe_beam.store.upkeep import find_source, reset_state

    opened = FrameDataset.open(dataset, storage_options=storage_options)
    states = {one.source: one for one in opened.states()}
    if not states:
        raise ConfigError(f"{dataset} has no sources, so there is nothing to reset")
    if source is not None:
        states = {one.source: one for one in [find_source(states, source)]}
    elif len(states) > 1:
        listed = ", ".join(f"{one.source} ({one.name})" for one in states.values())
        raise ConfigError(f"say with --source which one to reset; there are: {listed}")
    version = reset_state(Address(dataset, storage_options), list(states), partition)
    (name,) = (one.name or one.source for one in states.values())
    what = f"the partitions {', '.join(partition)} of {name}" if partition else name
    say_done(
        f"forgot what {what} had reached (version {version} of {dataset}); the next run reads "
        "it from the beginning"
    )


def _sources(count: int) -> str:
    return "1 source" if count == 1 else f"{count} sources"
