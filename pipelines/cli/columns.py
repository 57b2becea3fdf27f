"""`contextframe-beam columns`: fields of metadata as typed columns, to filter and index by."""

from __future__ import annotations

import json

import click

from contextframe_beam.pipelines.cli.shared import (
    CommandGroup,
    as_json,
    command,
    dataset_argument,
    examples,
    say_done,
    storage_options,
)
from contextframe_beam.store.address import Address


@click.group(
    "columns",
    cls=CommandGroup,
    short_help="List, add or drop columns of fields of metadata, to filter by.",
    epilog=examples("contextframe-beam columns add kb.lance price:float64 team"),
    no_args_is_help=True,
)
def columns_group() -> None:
    """List, add or drop columns of fields of metadata, to filter by.

    A column has the name of the field: `search --where "price > 5"` knows it by that. Documents
    keep their metadata as it is, with the column and without it.
    """


@command("list", "contextframe-beam columns list kb.lance", of=columns_group)
@dataset_argument
@as_json
@storage_options
def _list(dataset: str, as_json: bool, storage_options: dict[str, str]) -> None:
    """List the fields of DATASET that are columns, with their types and indices."""
    from contextframe_beam.pipelines.cli import show
    from contextframe_beam.store.dataset import FrameDataset

    found = show.fields_of(FrameDataset.open(dataset, storage_options=storage_options))
    if as_json:
        click.echo(json.dumps(found))
    elif found:
        show.show_columns(found)
    else:
        click.echo(
            f"no field of {dataset} is a column; `contextframe-beam columns add {dataset} "
            "NAME:TYPE` makes one"
        )


@command(
    "add",
    "contextframe-beam columns add kb.lance price:float64 team seen:timestamp",
    of=columns_group,
)
@dataset_argument
@click.argument("columns", nargs=-1, required=True, metavar="NAME[:TYPE]...")
@as_json
@storage_options
def _add(
    dataset: str, columns: tuple[str, ...], as_json: bool, storage_options: dict[str, str]
) -> None:
    """Make columns of fields in the metadata of DATASET, and fill them for all documents.

    TYPE is text (the default), int64, float64, bool, timestamp, date or list (of texts). What does
    not fit is null in the column, and is told. No source is read, and nothing else changes. Runs
    may go on meanwhile.
    """
    from contextframe_beam.frames.fields import parse_fields
    from contextframe_beam.store.schema import add_fields

    added = add_fields(Address(dataset, storage_options), parse_fields(columns))
    if added.misfits:
        click.echo(f"Warning: {added.what_is_null}", err=True)
    if as_json:
        facts = {"version": added.version, "columns": {one.name: one.kind for one in added.fields}}
        told = {"filled": dict(added.filled), "misfits": dict(added.misfits)}
        say_done(json.dumps({**facts, **told}))
    elif added.fields:
        listed = ", ".join(
            f"{one} ({added.filled.get(one.name, 0):,} filled)" for one in added.fields
        )
        say_done(f"added {listed} (version {added.version} of {dataset})")
    else:
        say_done(f"nothing to do: {dataset} has these columns already")


@command("drop", "contextframe-beam columns drop kb.lance price", of=columns_group)
@dataset_argument
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@storage_options
def _drop(dataset: str, names: tuple[str, ...], storage_options: dict[str, str]) -> None:
    """Drop columns of fields of DATASET, and their indices; the metadata of documents stays."""
    from contextframe_beam.store.schema import drop_fields

    version = drop_fields(Address(dataset, storage_options), names)
    say_done(f"dropped {', '.join(names)} (version {version} of {dataset})")
