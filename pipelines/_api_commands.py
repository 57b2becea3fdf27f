"""The commands for APIs: `check api` shows what a configuration reads, `login` gets a token."""

from __future__ import annotations

import json

import click

from contextframe_beam.pipelines._shared import debug_option, examples, say_done

_CONFIG = click.Option(
    ["--config"],
    required=True,
    type=click.Path(exists=True, dir_okay=False),
    metavar="FILE",
    help="The API's configuration, a YAML file.",
)


def _check(ctx: click.Context, config: str, resource: tuple[str, ...], as_json: bool) -> None:
    from contextframe_beam.connectors.api.check import check

    report = check(config, only=list(resource) or None)
    click.echo(json.dumps(report.to_json()) if as_json else str(report))
    if not report.ok:
        ctx.exit(1)


def _login(config: str) -> None:
    from contextframe_beam.connectors.api.load import load_config
    from contextframe_beam.connectors.http.login import login

    _, values = load_config(config, {})
    reference = login(
        values,
        say=lambda text: click.echo(text, err=True),
        ask=lambda text: str(click.prompt(text.rstrip(" :"), err=True)),
    )
    say_done(f"logged in; the token is behind {reference}")


check_group = click.Group(
    "check",
    short_help="Read one page of a source and show how it is mapped; nothing is written.",
    help="Read one page of a source and show how it is mapped; nothing is written.",
    epilog=examples("contextframe-beam check api --config crm.yaml"),
    no_args_is_help=True,
)
check_group.add_command(
    click.Command(
        "api",
        callback=click.pass_context(_check),
        params=[
            _CONFIG,
            click.Option(
                ["--resource"],
                multiple=True,
                metavar="NAME",
                help="Check this resource only. Repeat it for several.",
            ),
            click.Option(
                ["--json", "as_json"], is_flag=True, help="Print one JSON value, for a script."
            ),
            debug_option(),
        ],
        help="Connect to the API, read one page of each resource, and show how it is mapped.\n\n"
        "The exit code is 1 when something could not be read or mapped.",
        epilog=examples(
            "contextframe-beam check api --config crm.yaml",
            "contextframe-beam check api --config crm.yaml --resource contacts --json",
        ),
    )
)
login_command = click.Command(
    "login",
    callback=_login,
    params=[_CONFIG, debug_option()],
    short_help="Log in to an API that wants a person, and keep the token behind a reference.",
    help="Log in to an API that wants a person (a browser, a device code), and keep the token "
    "behind a reference: in the system's keyring, else in a file that only its owner can read.",
    epilog=examples("contextframe-beam login --config crm.yaml"),
)
