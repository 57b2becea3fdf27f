"""`contextframe-beam new NAME`: the package of a new connector."""

from __future__ import annotations

from pathlib import Path

import click

from contextframe_beam.pipelines._shared import command, option, say_done


@command("new", "contextframe-beam new my-connector", "contextframe-beam new our-wiki --kind api")
@click.argument("name")
@option(
    "--kind",
    type=click.Choice(["file", "api", "custom"]),
    default="custom",
    show_default=True,
    help="What it reads: files, an HTTP API, or any other system.",
)
@option(
    "--in",
    "folder",
    type=click.Path(file_okay=False),
    default=".",
    metavar="DIR",
    help="The folder in which the package's folder is made.  [default: here]",
)
def new_command(name: str, kind: str, folder: str) -> None:
    """Write the package of a new connector NAME: code, tests, README, continuous integration.

    It works as it is: it installs, its tests pass, and `ingest NAME` finds it.
    """
    from contextframe_beam.pipelines.new import KINDS, module_of, write_package

    written = write_package(name, kind, Path(folder))
    root = Path(folder, name)
    listed = "".join(f"wrote {path}\n" for path in written)
    say_done(
        f"{listed}\nThen:\n\n  cd {root}\n  pip install -r requirements.txt\n  pytest\n"
        f"  contextframe-beam ingest {name} {KINDS[kind].options} --to kb.lance\n\n"
        f"The connector is in src/{module_of(name)}/connector.py."
    )
