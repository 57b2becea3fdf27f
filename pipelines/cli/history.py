"""The commands about earlier runs: history, status for a monitor, and replay of dead letters."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click

from contextframe_beam.pipelines.cli.outcome import ago, took
from contextframe_beam.pipelines.cli.shared import (
    as_json,
    command,
    count,
    dataset_argument,
    option,
    pairs,
    say_done,
    storage_options,
)
from contextframe_beam.pipelines.cli.upkeep import age
from contextframe_beam.pipelines.process import Settings
from contextframe_beam.store.address import Address

if TYPE_CHECKING:
    from contextframe_beam.pipelines.replay import Replayed
    from contextframe_beam.store.history import RunRecord, SourceStatus

_COUNTS = ("written", "deleted", "unchanged", "failed")


@command(
    "history",
    "contextframe-beam history kb.lance",
    "contextframe-beam history kb.lance --failed",
    "contextframe-beam history kb.lance --run-id nightly-2026-11-28",
)
@dataset_argument
@option("--source", metavar="NAME", help="Only runs of this connector, or of this source id.")
@option("--failed", is_flag=True, help="Only runs that failed, or in which items failed.")
@option("--run-id", metavar="ID", help="All that is known of this run.")
@option(
    "--limit",
    type=count,
    metavar="N",
    default=20,
    show_default=True,
    help="The most runs to show.",
)
@as_json
@storage_options
def history_command(
    dataset: str,
    source: str | None,
    failed: bool,
    run_id: str | None,
    limit: int,
    as_json: bool,
    storage_options: dict[str, str],
) -> None:
    """Show the runs into DATASET, the newest one first, also those that failed.

    Each run leaves a small file in DATASET.runs. Committed runs of other programs are known from
    the dataset.
    """
    from contextframe_beam.pipelines.history import runs_of

    address = Address(dataset, storage_options)
    known = runs_of(address, run_id) or runs_of(address)
    found = [
        one
        for one in known
        if (not source or source in (one.source, one.connector))
        and (not failed or went_wrong(one))
        and (not run_id or one.run_id == run_id)
    ]
    shown = found[:limit]
    if as_json:
        click.echo(json.dumps([facts_of_run(one) for one in shown]))
    elif run_id and shown:
        say_done("\n\n".join(map(_all_of, shown)))
    elif shown:
        _show_runs(shown, len(found))
    else:
        click.echo(_why_none(dataset, known, source, failed, run_id))


@command("status", "contextframe-beam status kb.lance --max-age 26h")
@dataset_argument
@option(
    "--max-age",
    metavar="AGE",
    callback=lambda _, __, text: None if text is None else age(text),
    help="How long ago the last success of each source may be, as in 26h or 8d.  [default: any "
    "time]",
)
@as_json
@storage_options
@click.pass_context
def status_command(
    ctx: click.Context,
    dataset: str,
    max_age: timedelta | None,
    as_json: bool,
    storage_options: dict[str, str],
) -> None:
    """Tell a monitor how the sources of DATASET are doing.

    It exits with 1 if the last run of a source failed, or its last success is too long ago.
    """
    from contextframe_beam.errors import DatasetError
    from contextframe_beam.pipelines.history import runs_of
    from contextframe_beam.store.history import statuses

    found = statuses(runs_of(Address(dataset, storage_options)), max_age)
    if not found:
        raise DatasetError(f"no run into {dataset} is known; check the address")
    if as_json:
        click.echo(json.dumps([_status_facts(one) for one in found]))
    else:
        for one in found:
            click.echo(_status_line(one))
    if not all(one.is_well for one in found):
        ctx.exit(1)


@command(
    "replay",
    "contextframe-beam replay kb.lance --run-id nightly-2026-11-28",
)
@dataset_argument
@option("--run-id", metavar="ID", required=True, help="The run whose dead letters to try again.")
@option("--letters", metavar="FILE", help="Their file.  [default: the one of the run]")
@option(
    "--argument",
    "arguments",
    multiple=True,
    metavar="NAME=VALUE",
    callback=pairs,
    help="An argument of the connector in place of that of the run, such as a secret that was "
    "given in plain text. Repeat it for several.",
)
@as_json
@storage_options
@click.pass_context
def replay_command(
    ctx: click.Context,
    dataset: str,
    run_id: str,
    letters: str | None,
    arguments: dict[str, str],
    as_json: bool,
    storage_options: dict[str, str],
) -> None:
    """Try the dead letters of a run into DATASET again, after you mended their cause.

    Items that failed after they were read are taken from their letters; what could not be read or
    parsed is read again. It is one run of its own. Letters that succeed are marked and not tried
    again. A letter is left out where the dataset holds something newer.
    """
    from contextframe_beam.pipelines.cli.watch import run_upkeep
    from contextframe_beam.pipelines.replay import replay

    settings = ctx.ensure_object(Settings)
    done = run_upkeep(
        lambda: replay(
            dataset, run_id, letters, arguments=arguments, storage_options=storage_options
        ),
        settings,
        "" if as_json else "replay",
    )
    if as_json:
        told = None if done.receipt is None else done.receipt.values()
        say_done(json.dumps({**asdict(done), "receipt": told}))
    elif not done.letters:
        say_done(f"no letters to try: {done.path} has none of run {run_id} that are still open")
    else:
        say_done("\n".join(_words_of(done)))
    if done.succeeded + done.superseded < done.letters:
        ctx.exit(1)


def _words_of(done: Replayed) -> Iterator[str]:
    letters = "1 letter" if done.letters == 1 else f"{done.letters:,} letters"
    yield f"tried {letters} again: {done.succeeded:,} succeeded"
    if done.superseded:
        yield f"{done.superseded:,} left out, since the dataset holds something newer"
    failed = done.letters - done.succeeded - done.superseded
    if failed:
        yield f"{failed:,} failed again, and stay open in {done.path}:"
        yield from (f"  {reason}" for reason in done.reasons)
    if done.receipt is not None:
        yield f"run {done.receipt.run_id}, version {done.receipt.version}"


def went_wrong(record: RunRecord) -> bool:
    """Returns whether a run failed, died, or left items out."""
    from contextframe_beam.store.history import RUNNING

    receipt = record.receipt
    incomplete = receipt is not None and receipt.is_incomplete
    return incomplete or not (record.succeeded or record.state == RUNNING)


def facts_of_run(record: RunRecord) -> dict[str, Any]:
    """Returns what is known of a run as JSON values."""
    told = {**asdict(record), "state": record.state, "seconds": record.seconds}
    del told["mark"]
    return told


def _show_runs(shown: Sequence[RunRecord], known: int) -> None:
    from contextframe_beam.pipelines.cli import show

    rows = [
        (
            one.began[:19].replace("T", " "),
            ago(one.began),
            one.connector,
            one.mode,
            one.state,
            took(one.seconds),
            *(one.counts.get(name, "") for name in _COUNTS),
            one.run_id,
        )
        for one in shown
    ]
    title = f"Runs (the last {len(shown)} of {known})" if known > len(shown) else "Runs"
    columns = ("began (UTC)", "", "connector", "mode", "ended", "took", *_COUNTS, "run")
    show.show_table(title, columns, rows)
    for one in shown:
        for line in _what_went_wrong(one):
            click.echo(line)


def _what_went_wrong(record: RunRecord) -> list[str]:
    name = f"{record.began[:16].replace('T', ' ')} {record.connector}"
    if record.error:
        return [f"{name}: {record.error.splitlines()[0]}"]
    receipt = record.receipt
    if receipt is None or not receipt.is_incomplete:
        return []
    first, *rest = receipt.what_is_missing(record.dead_letters or None).splitlines()
    return [f"{name}: {first}", *rest]


def _all_of(record: RunRecord) -> str:
    receipt = record.receipt
    lines = [
        ("run", record.run_id),
        ("began", f"{record.began} ({ago(record.began)})"),
        (
            "ended",
            f"{record.state}, after {took(record.seconds)}" if record.ended else record.state,
        ),
        ("exit code", "" if record.exit_code is None else record.exit_code),
        ("connector", f"{record.connector} {record.source}"),
        ("mode", record.mode),
        ("arguments", _pairs({**record.arguments, **record.reading})),
        ("settings", _pairs(record.settings)),
        ("counts", _pairs(receipt.counts if receipt else {}, said=bool)),
        ("version", receipt.version if receipt else ""),
        ("error", record.error),
        ("missing", receipt.what_is_missing(record.dead_letters or None) if receipt else ""),
        ("release", record.release),
    ]
    width = max(len(name) for name, _ in lines)
    indent = "\n" + " " * (width + 2)
    return "\n".join(
        f"{name:{width}}  {str(value).replace(chr(10), indent)}"
        for name, value in lines
        if value not in ("", None)
    )


def _pairs(values: Mapping[str, Any], said: Any = lambda _: True) -> str:
    return ", ".join(f"{name}={value}" for name, value in values.items() if said(value))


def _why_none(
    dataset: str, known: Sequence[RunRecord], source: str | None, failed: bool, run_id: str | None
) -> str:
    if not known:
        return f"no run into {dataset} is known; check the address"
    if run_id:
        return f"no run {run_id} into {dataset} is known; the last one is {known[0].run_id}"
    names = ", ".join(sorted({one.connector for one in known if one.connector}))
    if source and not any(source in (one.source, one.connector) for one in known):
        return f"no run of {source} into {dataset} is known; there are runs of {names}"
    runs = "the only known run" if len(known) == 1 else f"none of {len(known):,} known runs"
    return f"{runs} failed" if len(known) > 1 else f"{runs} did not fail"


def _status_facts(status: SourceStatus) -> dict[str, Any]:
    return {
        "source": status.source,
        "connector": status.connector,
        "last_success": status.succeeded or None,
        "last_run": status.last.run_id,
        "last_state": status.last.state,
        "error": status.last.error,
        "late": status.is_late,
        "failing": status.is_failing,
    }


def _status_line(status: SourceStatus) -> str:
    word = "FAILING" if status.is_failing else "LATE" if status.is_late else "ok"
    success = f"last success {ago(status.succeeded)}" if status.succeeded else "never succeeded"
    last = status.last
    after = f"; {last.state} {ago(last.ended or last.began)}" if not last.succeeded else ""
    why = f": {last.error.splitlines()[0]}" if last.error else ""
    return f"{word:8}{status.connector} {status.source}  {success}{after}{why}"
