"""The commands that look after a dataset: index, compact, cleanup, rollback."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from datetime import timedelta
from typing import Any

import click

from contextframe_beam.pipelines._settings import Settings
from contextframe_beam.pipelines._shared import (
    PASSES_ON,
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
from contextframe_beam.pipelines._worker_processes import serving
from contextframe_beam.pipelines.connector_commands import check_others


def _age(text: object) -> timedelta:
    """Reads an age such as `7d` or `12h`."""
    from contextframe_beam.connectors.bounds import seconds_of

    try:
        return timedelta(seconds=seconds_of(str(text)))
    except (ValueError, OverflowError) as error:
        raise click.BadParameter(f"{text!r} is no age; give one such as 7d or 12h") from error


@command("rollback", "contextframe-beam rollback kb.lance --to 12")
@dataset_argument
@version_option("--to", "The version to return to.", required=True)
@as_json
@storage_options
def rollback_command(
    dataset: str, version: int, as_json: bool, storage_options: dict[str, str]
) -> None:
    """Make an earlier version of DATASET the newest one again, in one commit.

    Its documents and its sync state return together. The next run reads what the source changed
    since that version. Runs after it count as never done, and a run that is under way is refused.
    The versions in between stay until they are cleaned up.
    """
    from contextframe_beam.dataset import FrameDataset
    from contextframe_beam.pipelines._receipt import count_documents

    opened = FrameDataset.open(dataset, storage_options=storage_options)
    before = opened.version
    after = opened.rollback(version)
    if as_json:
        say_done(json.dumps({"uri": opened.uri, "version": after, "restored": version}))
    elif after == version:
        say_done(f"version {version} is the newest one of {dataset} already; nothing was done")
    else:
        say_done(
            f"{dataset} is as it was at version {version}, with {count_documents(len(opened))} and "
            f"the sync state of then. This is version {after}; "
            f"`contextframe-beam rollback {dataset} --to {before}` would undo it"
        )


@command("index", "contextframe-beam index kb.lance --language zh")
@dataset_argument
@option(
    "--language",
    metavar="LANG",
    help="Of the texts, as in de or pt, whose words are found by their stems, or zh, ja, ko and "
    "th, whose words are found in part as well; any suits all.  [default: the one given last, and "
    "at first any]",
)
@as_json
@storage_options
def index_command(
    dataset: str, language: str | None, as_json: bool, storage_options: dict[str, str]
) -> None:
    """Make the full-text index of DATASET, for a language or for any.

    `search` finds words by it. It is brought up to date as well, and one that cuts text into
    words in another way is made anew. Without it the first search makes one that suits any
    language.
    """
    from contextframe_beam.compaction import update_indices
    from contextframe_beam.dataset import FrameDataset
    from contextframe_beam.text_index import analysis_wanted

    opened = FrameDataset.open(dataset, storage_options=storage_options)
    is_new = opened.index_text(language)
    updated = update_indices(dataset, storage_options)
    opened = FrameDataset.open(dataset, storage_options=storage_options)
    finds = str(analysis_wanted(opened.lance))
    if as_json:
        facts = {"uri": opened.uri, "version": opened.version, "made": is_new}
        click.echo(json.dumps({**facts, "updated": updated, "finds": finds}))
        return
    what = "made the full-text index of" if is_new else "there is a full-text index already of"
    if updated:
        what = "brought up to date the full-text index of"
    click.echo(f"{what} {dataset}, which finds {finds} (version {opened.version})")


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
    """Make few large data files of the many small ones of DATASET.

    Deleted rows go, and its indices are brought up to date. Runs may go on meanwhile.
    """
    check_others(ctx)
    if workers > 1:
        ctx.with_resource(serving())
    from contextframe_beam.pipelines._run import run_upkeep
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
        f"{dataset} has {receipt.fragments_after:,} {kept} now, and had "
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
    type=_age,
    metavar="AGE",
    default="7d",
    show_default=True,
    help="Versions younger than this stay; so do the newest one and those with a tag.",
)
@option(
    "--lost-after",
    type=_age,
    metavar="AGE",
    default="7d",
    show_default=True,
    help="Files that no version names are those of lost attempts when they are older than this, 7d "
    "at most. No run may last longer.",
)
@option(
    "--no-writers",
    is_flag=True,
    help="Promise that nobody is writing, so that --lost-after may be less than 1d.",
)
@option("--dry-run", is_flag=True, help="Only tell what would be removed.")
@as_json
@storage_options
def cleanup_command(
    dataset: str, as_json: bool, storage_options: dict[str, str], **values: Any
) -> None:
    """Remove old versions of DATASET, and old files that killed runs left behind."""
    from contextframe_beam.cleanup import cleanup
    from contextframe_beam.pipelines._receipt import in_bytes
    from contextframe_beam.pipelines.job import dead_letters_beside
    from contextframe_beam.transforms._letter_files import remove_lost_pieces

    receipt = cleanup(dataset, storage_options=storage_options, **values)
    pieces, size = remove_lost_pieces(
        f"{dead_letters_beside(dataset)}/",
        values["lost_after"],
        dry_run=receipt.dry_run,
        storage_options=storage_options,
    )
    receipt = replace(receipt, lost_files=receipt.lost_files + pieces, bytes=receipt.bytes + size)
    if as_json:
        say_done(json.dumps(asdict(receipt)))
        return
    verb = "would remove" if receipt.dry_run else "removed"
    say_done(
        f"{verb} {receipt.versions:,} old versions with {receipt.files:,} files, and "
        f"{receipt.lost_files:,} files of lost attempts: {in_bytes(receipt.bytes)}"
    )
