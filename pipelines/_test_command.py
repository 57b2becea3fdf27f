"""`contextframe-beam test CONNECTOR`: what every connector must do, checked against its source."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from contextframe_beam.connectors._identity import constructor_arguments
from contextframe_beam.connectors.registry import build_connector, load_connector_class
from contextframe_beam.errors import ConfigError
from contextframe_beam.pipelines import _logs
from contextframe_beam.pipelines._options import options_of
from contextframe_beam.pipelines._settings import Settings
from contextframe_beam.pipelines._shared import count, debug_option, examples, option, pairs
from contextframe_beam.pipelines.connector_commands import (
    ConnectorCommand,
    ConnectorGroup,
    flags_of,
    shortest_command,
)

if TYPE_CHECKING:
    from contextframe_beam.connectors.testing.outcome import Outcome

_EXAMPLE = "contextframe-beam test my_crm.py:CRM --token env:CRM_TOKEN"
_CHECKING = "Checking"
_MARKS = {"passed": "ok  ", "failed": "FAIL", "not applicable": "--  "}


class _TestGroup(ConnectorGroup):
    """The connectors, each with a command that checks it."""

    example = _EXAMPLE

    def command_of(self, name: str, settings: Settings) -> click.Command:
        cls = load_connector_class(name)
        settings.packages.append(cls.__module__.partition(".")[0])
        own = _test.params
        if "config" in constructor_arguments(cls).named:
            own = [one for one in own if one.name != "config_file"]
        found = options_of(cls, name, flags_of(own))
        return ConnectorCommand(
            name,
            found,
            own,
            callback=_test.callback,
            help=f"Check the connector {name} against its source; nothing is written.\n\nEach "
            "check passes, fails with a reason and a way to mend it, or cannot tell. The exit code "
            "is 1 when one fails.",
            epilog=examples(shortest_command("test", name, found)),
        )


@click.group(
    "test",
    cls=_TestGroup,
    short_help="Check a connector against its source: credentials, splits, ids, errors, memory.",
    epilog=examples(_EXAMPLE),
)
def test_group() -> None:
    """Check a connector against its source: credentials, splits, ids, errors, memory.

    The connector's own arguments are options, as for `ingest`.
    """


@click.command()
@option(
    "--limit",
    section=_CHECKING,
    type=count,
    metavar="N",
    default=20_000,
    show_default=True,
    help="The most items that a check reads.",
)
@option(
    "--wrong",
    section=_CHECKING,
    multiple=True,
    metavar="NAME=VALUE",
    callback=pairs,
    help="An argument with which the source must refuse.  [default: nonsense for each secret]",
)
@option(
    "--json",
    "as_json",
    section=_CHECKING,
    is_flag=True,
    help="Print one JSON value, for a script.",
)
@debug_option(_CHECKING)
@option(
    "--config",
    "config_file",
    section=_CHECKING,
    type=click.Path(exists=True, dir_okay=False),
    metavar="FILE",
    help="A YAML file of the connector's arguments; options come before it.",
)
@click.pass_context
def _test(
    ctx: click.Context, /, limit: int, wrong: dict[str, str], as_json: bool, **values: Any
) -> None:
    from contextframe_beam.connectors.testing import Status, Subject, run_checks

    assert isinstance(ctx.command, ConnectorCommand)
    found = ctx.command.found
    arguments = found.arguments(values, _read(values.get("config_file")))
    sync_kwargs = found.sync_kwargs(values)
    build_connector(found.cls, arguments)  # a wrong argument is told before any check
    subject = Subject(
        lambda: build_connector(found.cls, arguments),
        wrong=(lambda: build_connector(found.cls, {**arguments, **wrong})) if wrong else None,
        sync_kwargs=sync_kwargs,
        limit=limit,
    )
    outcomes = run_checks(subject)
    if as_json:
        click.echo(
            json.dumps(
                [
                    {
                        "check": one.check,
                        "status": one.status.value,
                        "reason": one.reason,
                        "mend": _mend(one),
                    }
                    for one in outcomes
                ]
            )
        )
    else:
        width = max(len(one.check) for one in outcomes)
        for one in outcomes:
            told = one.status.value if one.status is Status.NOT_APPLICABLE else ""
            reason = f"{told}: {one.reason}" if told else one.reason
            click.echo(f"{_MARKS[one.status.value]} {one.check:{width}}  {reason}")
            if ctx.ensure_object(Settings).debug and one.error is not None:
                _logs.show_traceback(one.error)
            if one.mend:
                click.echo(f"     {'':{width}}  to mend it: {_mend(one)}")
    if any(one.status is Status.FAILED for one in outcomes):
        raise click.exceptions.Exit(1)


def _mend(outcome: Outcome) -> str:
    return f"{outcome.mend}, which --debug shows" if outcome.error is not None else outcome.mend


def _read(path: str | None) -> Mapping[str, Any]:
    if path is None:
        return {}
    from contextframe_beam.connectors.yaml_text import read_yaml_file

    arguments = read_yaml_file(path, "the file of arguments").values
    if not isinstance(arguments, dict):
        raise ConfigError(f"{path} must hold names and values of arguments, as in `token: env:T`")
    return {str(name): value for name, value in arguments.items()}
