"""`contextframe-beam state show|set|reset`: what sources have reached, and how to change it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from contextframe_beam.pipelines._shared import (
    command,
    dataset_argument,
    examples,
    option,
    say_done,
    storage_options,
)

_source = option(
    "--source",
    metavar="ID|NAME",
    help="Only this source: its id, the beginning of it, or the connector's name.",
)


@click.group(
    "state",
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
    from contextframe_beam.dataset import FrameDataset
    from contextframe_beam.pipelines import _tables
    from contextframe_beam.state_edit import export_state, find_source

    states = {
        one.source: one
        for one in FrameDataset.open(dataset, storage_options=storage_options).states()
    }
    chosen = list(states.values()) if source is None else [find_source(states, source)]
    if as_json:
        exported = [export_state(one) for one in chosen]
        click.echo(json.dumps(exported, indent=2, ensure_ascii=False))
    elif chosen:
        _tables.show_states(chosen)
    else:
        click.echo(f"{dataset} knows no source")


@command("set", "contextframe-beam state set kb.lance state.json", of=state_group)
@dataset_argument
@click.argument("file")
@storage_options
def _set(dataset: str, file: str, storage_options: dict[str, str]) -> None:
    """Set the states of sources of DATASET from FILE (- reads the standard input).

    FILE is what `state show --json` printed. A run that was committed since then is not undone:
    nothing is set, and the command says so.
    """
    from contextframe_beam.errors import ConfigError
    from contextframe_beam.state_edit import parse_states, set_states

    try:
        data = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
        text = data.decode()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"cannot read {file}: {reason}") from error
    states = parse_states(text, "standard input" if file == "-" else file)
    version = set_states(dataset, states, storage_options)
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

    An unfinished backfill of it is forgotten as well. Documents stay as they are.
    """
    from contextframe_beam.dataset import FrameDataset
    from contextframe_beam.errors import ConfigError
    from contextframe_beam.state_edit import find_source, reset_state

    opened = FrameDataset.open(dataset, storage_options=storage_options)
    states = {one.source: one for one in opened.states()}
    if not states:
        raise ConfigError(f"{dataset} knows no source, so there is nothing to reset")
    if source is not None:
        states = {one.source: one for one in [find_source(states, source)]}
    elif len(states) > 1:
        listed = ", ".join(f"{one.source} ({one.name})" for one in states.values())
        raise ConfigError(f"say with --source which one to reset; there are: {listed}")
    version = reset_state(dataset, list(states), partition, storage_options)
    (name,) = (one.name or one.source for one in states.values())
    what = f"the partitions {', '.join(partition)} of {name}" if partition else name
    say_done(
        f"forgot what {what} had reached (version {version} of {dataset}); the next run reads "
        "it from the beginning"
    )


def _sources(count: int) -> str:
    return "1 source" if count == 1 else f"{count} sources"
