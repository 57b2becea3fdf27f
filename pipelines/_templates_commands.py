"""`contextframe-beam templates`: hands out the files that other systems schedule the jobs with."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

from contextframe_beam.pipelines._shared import debug_option, examples, say_done


def _list(as_json: bool) -> None:
    from contextframe_beam.templates import list_templates

    found = list_templates()
    if as_json:
        click.echo(json.dumps([asdict(one) for one in found]))
        return
    width = max(len(one.name) for one in found)
    for one in found:
        click.echo(f"{one.name:{width}}  {one.title}")


def _write(name: str, folder: str, force: bool) -> None:
    from contextframe_beam.templates import find_template, write_template

    template = find_template(name)
    written = write_template(template, Path(folder), overwrite=force)
    listed = "".join(f"wrote {path}\n" for path in written)
    readme = Path(folder, "README.md")
    say_done(f"{listed}\nEdit:\n\n{template.edit}\n\nHow to run it is in {readme}.")


templates_group = click.Group(
    "templates",
    short_help="Hand out files that schedule the jobs: Airflow, Kubernetes, systemd, ...",
    help="Hand out files that schedule the jobs. Each runs when its values are edited.",
    epilog=examples("contextframe-beam templates write systemd deploy"),
    no_args_is_help=True,
)
templates_group.add_command(
    click.Command(
        "list",
        callback=_list,
        params=[
            click.Option(
                ["--json", "as_json"], is_flag=True, help="Print one JSON value, for a script."
            ),
            debug_option(),
        ],
        help="List the templates.",
        epilog=examples("contextframe-beam templates list"),
    )
)
templates_group.add_command(
    click.Command(
        "write",
        callback=_write,
        params=[
            click.Argument(["name"], metavar="TEMPLATE"),
            click.Argument(["folder"], metavar="DIR"),
            click.Option(["--force"], is_flag=True, help="Replace files that are there."),
            debug_option(),
        ],
        short_help="Write the files of a template.",
        help="Write the files of TEMPLATE into DIR, and tell what to edit in them.",
        epilog=examples("contextframe-beam templates write systemd deploy"),
    )
)
