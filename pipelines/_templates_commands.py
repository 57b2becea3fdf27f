"""`contextframe-beam templates`: hands out the files that other systems schedule the jobs with."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

from contextframe_beam.pipelines._shared import (
    as_json,
    command,
    examples,
    option,
    say_done,
)


@click.group(
    "templates",
    short_help="Hand out files that schedule the jobs: Airflow, Kubernetes, systemd, ...",
    epilog=examples("contextframe-beam templates write systemd deploy"),
    no_args_is_help=True,
)
def templates_group() -> None:
    """Hand out files that schedule the jobs. Each runs when its values are edited."""


@command("list", "contextframe-beam templates list", of=templates_group)
@as_json
def _list(as_json: bool) -> None:
    """List the templates."""
    from contextframe_beam.templates import list_templates

    found = list_templates()
    if as_json:
        click.echo(json.dumps([asdict(one) for one in found]))
        return
    width = max(len(one.name) for one in found)
    for one in found:
        click.echo(f"{one.name:{width}}  {one.title}")


@command("write", "contextframe-beam templates write systemd deploy", of=templates_group)
@click.argument("name", metavar="TEMPLATE")
@click.argument("folder", metavar="DIR")
@option("--force", is_flag=True, help="Replace files that are there.")
def _write(name: str, folder: str, force: bool) -> None:
    """Write the files of TEMPLATE into DIR, and tell what to edit in them."""
    from contextframe_beam.templates import find_template, write_template

    template = find_template(name)
    written = write_template(template, Path(folder), overwrite=force)
    listed = "".join(f"wrote {path}\n" for path in written)
    readme = Path(folder, "README.md")
    say_done(f"{listed}\nEdit:\n\n{template.edit}\n\nHow to run it is in {readme}.")
