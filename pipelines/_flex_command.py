"""`contextframe-beam flex-template`: the main job as a Dataflow Flex Template starts it.

A template has named parameters and no words before them, so the connector is one, and its arguments
are one JSON object. All others are options of `ingest` or of Beam, and are passed on.
"""

from __future__ import annotations

import json
from typing import Any

import click

from contextframe_beam.pipelines._shared import (
    PASSES_ON,
    command,
    option,
    say_done,
)


def ingest_arguments(connector: str, arguments: str, others: list[str]) -> list[str]:
    """Returns what is behind `contextframe-beam ingest` for the parameters of a template.

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
    own = [word for name, value in given.items() for word in _option(name, value)]
    return [connector, *own, *(one for one in others if not one.endswith("="))]


def _option(name: str, value: Any) -> list[str]:
    flag = name.replace("_", "-")
    if value is None:
        return []
    if isinstance(value, bool):
        return [f"--{flag}" if value else f"--no-{flag}"]
    if isinstance(value, list):
        return [word for element in value for word in _option(name, element)]
    return [f"--{flag}={value if isinstance(value, str) else json.dumps(value)}"]


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
    from contextframe_beam.pipelines._ingest_command import ingest_group
    from contextframe_beam.pipelines._ingestion import TemplateWritten
    from contextframe_beam.pipelines.connector_commands import LAUNCHED_BY_TEMPLATE

    words = ingest_arguments(connector, arguments, ctx.args)
    ctx.meta[LAUNCHED_BY_TEMPLATE] = True
    try:
        with ingest_group.make_context("ingest", words, parent=ctx) as context:
            ingest_group.invoke(context)
    except TemplateWritten as written:
        say_done(str(written))
