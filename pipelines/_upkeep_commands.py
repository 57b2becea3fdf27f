"""The commands that look after a dataset: index, compact, cleanup, rollback."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from datetime import timedelta
from typing import Any

import click

from contextframe_beam.pipelines._completion import folders
from contextframe_beam.pipelines._ingest_command import check_others
from contextframe_beam.pipelines._settings import Settings
from contextframe_beam.pipelines._shared import (
    count,
    debug_option,
    examples,
    say_done,
    storage_option,
    version_option,
)
from contextframe_beam.pipelines._worker_processes import serving


def _age(text: object) -> timedelta:
    """Reads an age such as `7d` or `12h`."""
    from contextframe_beam.connectors.bounds import seconds_of

    try:
        return timedelta(seconds=seconds_of(str(text)))
    except (ValueError, OverflowError) as error:
        raise click.BadParameter(f"{text!r} is no age; give one such as 7d or 12h") from error


def _rollback(dataset: str, version: int, as_json: bool, storage_option: dict[str, str]) -> None:
    from contextframe_beam.dataset import FrameDataset
    from contextframe_beam.pipelines._receipt import count_documents

    opened = FrameDataset.open(dataset, storage_options=storage_option)
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


def _index(
    dataset: str, language: str | None, as_json: bool, storage_option: dict[str, str]
) -> None:
    from contextframe_beam.compaction import update_indices
    from contextframe_beam.dataset import FrameDataset
    from contextframe_beam.text_index import analysis_wanted

    opened = FrameDataset.open(dataset, storage_options=storage_option)
    is_new = opened.index_text(language)
    updated = update_indices(dataset, storage_option)
    opened = FrameDataset.open(dataset, storage_options=storage_option)
    finds = str(analysis_wanted(opened.lance))
    if as_json:
        facts = {"uri": opened.uri, "version": opened.version, "made": is_new}
        click.echo(json.dumps({**facts, "updated": updated, "finds": finds}))
        return
    what = "made the full-text index of" if is_new else "there is a full-text index already of"
    if updated:
        what = "brought up to date the full-text index of"
    click.echo(f"{what} {dataset}, which finds {finds} (version {opened.version})")


@click.pass_context
def _compact(ctx: click.Context, /, dataset: str, as_json: bool, **values: Any) -> None:
    check_others(ctx)
    if values["workers"] > 1:
        ctx.with_resource(serving())
    from contextframe_beam.pipelines._run import run_upkeep
    from contextframe_beam.pipelines.compact import compact

    receipt = run_upkeep(
        lambda: compact(
            dataset,
            workers=values["workers"],
            runner=values["runner"],
            beam_args=ctx.args,
            storage_options=values["storage_option"],
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


def _cleanup(dataset: str, as_json: bool, storage_option: dict[str, str], **values: Any) -> None:
    from contextframe_beam.cleanup import cleanup
    from contextframe_beam.pipelines._receipt import in_bytes
    from contextframe_beam.pipelines.ingest import dead_letters_beside
    from contextframe_beam.transforms._letter_files import remove_lost_pieces

    receipt = cleanup(dataset, storage_options=storage_option, **values)
    pieces, size = remove_lost_pieces(
        f"{dead_letters_beside(dataset)}/",
        values["lost_after"],
        dry_run=receipt.dry_run,
        storage_options=storage_option,
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


_DATASET = click.Argument(["dataset"], shell_complete=folders)
_JSON = click.Option(
    ["--json", "as_json"], is_flag=True, help="Print one JSON value, for a script."
)

index_command = click.Command(
    "index",
    callback=_index,
    params=[
        _DATASET,
        click.Option(
            ["--language"],
            metavar="LANG",
            help="Of the texts, as in de or pt, whose words are found by their stems, or zh, ja, "
            "ko and th, whose words are found in part as well; any suits all.  [default: the one "
            "given last, and at first any]",
        ),
        _JSON,
        storage_option(),
        debug_option(),
    ],
    short_help="Make the full-text index, for a language or for any.",
    help="Make the full-text index of DATASET by which `search` finds words, anew where it is "
    "there and cuts text into words in another way, and bring it up to date.\n\n"
    "Without it the first search makes one that suits any language.",
    epilog=examples("contextframe-beam index kb.lance --language zh"),
)

compact_command = click.Command(
    "compact",
    callback=_compact,
    params=[
        _DATASET,
        click.Option(
            ["--workers"],
            type=count,
            metavar="N",
            default=1,
            show_default=True,
            help="Worker processes on this machine.",
        ),
        click.Option(
            ["--runner"],
            default="DirectRunner",
            show_default=True,
            metavar="NAME",
            help="What runs the job: this machine, or another of Beam's runners.",
        ),
        _JSON,
        storage_option(),
        debug_option(),
    ],
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    short_help="Make few large data files of many small ones, and bring the indices up to date.",
    help="Make few large data files of the many small ones of DATASET, without its deleted rows, "
    "and bring its indices up to date. Runs may go on meanwhile.",
    epilog="Any other option is passed on to Apache Beam, as in --parallelism=4.\n\n"
    + examples("contextframe-beam compact kb.lance --workers 2"),
)

cleanup_command = click.Command(
    "cleanup",
    callback=_cleanup,
    params=[
        _DATASET,
        click.Option(
            ["--keep"],
            type=_age,
            metavar="AGE",
            default="7d",
            show_default=True,
            help="Versions younger than this stay; so do the newest one and those with a tag.",
        ),
        click.Option(
            ["--lost-after"],
            type=_age,
            metavar="AGE",
            default="7d",
            show_default=True,
            help="Files that no version names are those of lost attempts when they are older than "
            "this, 7d at most. No run may last longer.",
        ),
        click.Option(
            ["--no-writers"],
            is_flag=True,
            help="Promise that nobody is writing, so that --lost-after may be less than 1d.",
        ),
        click.Option(["--dry-run"], is_flag=True, help="Only tell what would be removed."),
        _JSON,
        storage_option(),
        debug_option(),
    ],
    short_help="Remove old versions, and files that killed runs left behind.",
    help="Remove old versions of DATASET, and old files that runs left behind which were killed.",
    epilog=examples(
        "contextframe-beam cleanup kb.lance --keep 30d --dry-run",
        "contextframe-beam cleanup kb.lance --keep 30d",
    ),
)

rollback_command = click.Command(
    "rollback",
    callback=_rollback,
    params=[
        _DATASET,
        version_option("--to", "The version to return to.", required=True),
        _JSON,
        storage_option(),
        debug_option(),
    ],
    short_help="Return to an earlier version: documents and sync state together.",
    help="Make the documents and the sync state of an earlier version of DATASET the newest ones "
    "again, in one commit.\n\nThe next run reads what the source changed since that version. Runs "
    "after it count as never done, and a run that is under way is refused. The versions in between "
    "stay until they are cleaned up.",
    epilog=examples("contextframe-beam rollback kb.lance --to 12"),
)
