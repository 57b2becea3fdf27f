"""The commands for APIs: `check api` shows what a configuration reads, `login` gets a token."""

from __future__ import annotations

import json

import click

from contextframe_beam.pipelines._shared import (
    as_json,
    command,
    examples,
    option,
    say_done,
)

_config = option(
    "--config",
    required=True,
    type=click.Path(exists=True, dir_okay=False),
    metavar="FILE",
    help="The API's configuration, a YAML file.",
)


@click.group(
    "check",
    short_help="Read one page of a source and show how it is mapped; nothing is written.",
    epilog=examples("contextframe-beam check api --config crm.yaml"),
    no_args_is_help=True,
)
def check_group() -> None:
    """Read one page of a source and show how it is mapped; nothing is written."""


@command(
    "api",
    "contextframe-beam check api --config crm.yaml",
    "contextframe-beam check api --config crm.yaml --resource contacts --json",
    of=check_group,
)
@_config
@option(
    "--resource",
    multiple=True,
    metavar="NAME",
    help="Check this resource only. Repeat it for several.",
)
@as_json
@click.pass_context
def _check(ctx: click.Context, config: str, resource: tuple[str, ...], as_json: bool) -> None:
    """Connect to the API, read one page of each resource, and show how it is mapped.

    The exit code is 1 when something could not be read or mapped.
    """
    from contextframe_beam.connectors.api.check import check

    report = check(config, only=list(resource) or None)
    click.echo(json.dumps(report.to_json()) if as_json else str(report))
    if not report.ok:
        ctx.exit(1)


@command("login", "contextframe-beam login --config crm.yaml")
@_config
def login_command(config: str) -> None:
    """Log in to an API that wants a person: with a browser or a device code.

    The token is kept behind a reference: in the system's keyring, else in a file that only its
    owner can read.
    """
    from contextframe_beam.connectors.api.load import load_config
    from contextframe_beam.connectors.http.login import login

    _, values = load_config(config, {})
    reference = login(
        values,
        say=lambda text: click.echo(text, err=True),
        ask=lambda text: str(click.prompt(text.rstrip(" :"), err=True)),
    )
    say_done(f"logged in; the token is behind {reference}")
