"""The commands for authors of connectors: new, test, check and login."""

from __future__ import annotations

import json
import keyword
import os
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import click

from contextframe_beam.connectors.identity import constructor_arguments
from contextframe_beam.connectors.registry import (
    build_connector,
    list_connectors,
    load_connector_class,
)
from contextframe_beam.errors import ConfigError
from contextframe_beam.pipelines import logs
from contextframe_beam.pipelines.cli.connector import (
    ConnectorCommand,
    ConnectorGroup,
    flags_of,
    options_of,
    shortest_command,
)
from contextframe_beam.pipelines.cli.shared import (
    as_json,
    command,
    count,
    debug_option,
    examples,
    option,
    pairs,
    say_done,
)
from contextframe_beam.pipelines.process import Settings

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable  # Python 3.10 has it elsewhere

    from contextframe_beam.connectors.testing.subject import Outcome


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
    written = write_package(name, kind, Path(folder))
    root = Path(folder, name)
    listed = "".join(f"wrote {path}\n" for path in written)
    say_done(
        f"{listed}\nThen:\n\n  cd {root}\n  pip install -r requirements.txt\n  pytest\n"
        f"  contextframe-beam ingest {name} {KINDS[kind].options} --to kb.lance\n\n"
        f"The connector is in src/{module_of(name)}/connector.py."
    )


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
            "check passes, fails with a reason and a way to fix it, or cannot tell. The exit code "
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
    help="An argument that the source must refuse.  [default: nonsense for each secret]",
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
    build_connector(found.cls, arguments)  # reports a wrong argument before any check
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
                logs.show_traceback(one.error)
            if one.mend:
                click.echo(f"     {'':{width}}  to fix it: {_mend(one)}")
    if any(one.status is Status.FAILED for one in outcomes):
        raise click.exceptions.Exit(1)


def _mend(outcome: Outcome) -> str:
    return f"{outcome.mend}, which --debug shows" if outcome.error is not None else outcome.mend


def _read(path: str | None) -> Mapping[str, Any]:
    if path is None:
        return {}
    from contextframe_beam.connectors.yaml_file import read_yaml_file

    arguments = read_yaml_file(path, "the file of arguments").values
    if not isinstance(arguments, dict):
        raise ConfigError(f"{path} must hold names and values of arguments, as in `token: env:T`")
    return {str(name): value for name, value in arguments.items()}


_config = option(
    "--config",
    required=True,
    type=click.Path(exists=True, dir_okay=False),
    metavar="FILE",
    help="The API's configuration, a YAML file.",
)


class _CheckGroup(ConnectorGroup):
    """The connectors, each with a command that looks at its source."""

    example = "contextframe-beam check files --directory docs"

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command:
        # APIs have more to tell: each resource, and where its pages go on.
        return self.commands.get(cmd_name) or super().get_command(ctx, cmd_name)

    def command_of(self, name: str, settings: Settings) -> click.Command:
        cls = load_connector_class(name)
        settings.packages.append(cls.__module__.partition(".")[0])
        found = options_of(cls, name, flags_of(_look.params))
        return ConnectorCommand(
            name,
            found,
            _look.params,
            callback=_look.callback,
            help=f"Show what {name} may read, and three frames; nothing is written.\n\nThe exit "
            "code is 1 when something could not be read or mapped.",
            epilog=examples(shortest_command("check", name, found)),
        )


@click.group(
    "check",
    cls=_CheckGroup,
    short_help="Show what a source gives and how it is mapped; nothing is written.",
    epilog=examples(
        "contextframe-beam check files --directory docs",
        "contextframe-beam check api --config crm.yaml",
    ),
)
def check_group() -> None:
    """Show what a source gives and how it is mapped; nothing is written."""


@click.command()
@as_json
@debug_option(_CHECKING)
@click.pass_context
def _look(ctx: click.Context, /, as_json: bool, **values: Any) -> None:
    from contextframe_beam.connectors.look import look

    assert isinstance(ctx.command, ConnectorCommand)
    found = ctx.command.found
    connector = found.connector(values)
    report = look(connector, found.sync_kwargs(values))
    click.echo(json.dumps(report.to_json()) if as_json else str(report))
    if not report.ok:
        ctx.exit(1)


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
    """Log in to an API that requires a person, with a browser or a device code.

    The token is stored in the system's keyring, or else in a file that only its owner can read.
    The command prints its reference.
    """
    from contextframe_beam.connectors.api.load import load_config
    from contextframe_beam.connectors.http.login import login

    _, values = load_config(config, {})
    reference = login(
        values,
        say=lambda text: click.echo(text, err=True),
        ask=lambda text: str(click.prompt(text.rstrip(" :"), err=True)),
    )
    say_done(f"logged in; the token is in {reference}")


LONGEST_NAME = 30

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
# Wheels leave out names that begin with a dot, and tools would apply settings files in this folder.
_RENAMED = {
    "_github": ".github",
    "_gitignore": ".gitignore",
    "_pyproject.toml": "pyproject.toml",
}
_TAKEN = {"contextframe", "contextframe_beam", "tests", "src", "connector"}


@dataclass(frozen=True)
class Kind:
    """A kind of source with a package template.

    Attributes:
        summary: What its connector reads, for the README.
        options: Its example options on the command line.
        arguments: The same arguments in Python.
        parameters: Its arguments: name, description, required, default.
    """

    summary: str
    options: str
    arguments: str
    parameters: tuple[tuple[str, str, str, str], ...]

    def table(self) -> str:
        """Returns the arguments as a Markdown table."""
        rows = [("Parameter", "Description", "Required", "Default"), ("---",) * 4]
        return "\n".join(f"| {' | '.join(row)} |" for row in [*rows, *self.parameters])


KINDS = {
    "file": Kind(
        "Brings the text files of a folder into a dataset of frames.",
        "--directory notes",
        '"notes"',
        (
            ("directory", "The folder; files in folders below it are read as well", "Yes", ""),
            ("pattern", "Which files, as in `*.md`", "No", "`*.txt`"),
        ),
    ),
    "api": Kind(
        "Brings the documents of an HTTP API into a dataset of frames.",
        "--base-url https://api.example.com/ --token env:API_TOKEN",
        '"https://api.example.com/", token="env:API_TOKEN"',
        (
            ("base_url", "Where the API is", "Yes", ""),
            ("token", "The token that it accepts, best as a reference", "Yes", ""),
            ("per_second", "How many requests may be sent a second", "No", "10"),
        ),
    ),
    "custom": Kind(
        "Brings the rows of an SQLite table into a dataset of frames.",
        "--path source.db",
        '"source.db"',
        (
            ("path", "The database file", "Yes", ""),
            ("table", "The table; it has a column `id`", "No", "documents"),
        ),
    ),
}


def write_package(name: str, kind: str, parent: Path) -> list[Path]:
    """Writes the package of a connector into a new folder of its name.

    Args:
        name: The connector's name, in lower case with dashes between words.
        kind: file, api or custom.
        parent: The folder in which the new one is made.

    Returns:
        The files that were written.

    Raises:
        ConfigError: the name is not valid, or the folder already exists; nothing was written.
    """
    _check_name(name)
    folder = parent / name
    if os.path.lexists(folder):
        raise ConfigError(
            f"{folder} already exists; nothing was written. Choose another name, or move it away"
        )
    chosen = KINDS[kind]
    replaced = {
        "{{SUMMARY}}": chosen.summary,
        "{{OPTIONS}}": chosen.options,
        "{{ARGUMENTS}}": chosen.arguments,
        "{{TABLE}}": chosen.table(),
        "my-connector": name,
        "my_connector": module_of(name),
        "MyConnector": class_of(name),
    }
    written = []
    root = files("contextframe_beam.templates") / "connector"
    try:
        for part in ("common", kind):
            for path, file in _files(root / part, PurePosixPath()):
                target = folder / _filled(str(path), replaced)
                target.parent.mkdir(parents=True, exist_ok=True)
                text = file.read_text(encoding="utf-8")
                target.write_text(_filled(text, replaced), encoding="utf-8")
                written.append(target)
    except OSError as error:
        raise ConfigError(f"cannot write to {folder} ({error.strerror})") from error
    return sorted(written)


def module_of(name: str) -> str:
    """Returns the module of a connector: `my_crm` for `my-crm`."""
    return name.replace("-", "_")


def class_of(name: str) -> str:
    """Returns the class of a connector: `MyCrm` for `my-crm`."""
    return "".join(part.capitalize() for part in name.split("-"))


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        words = re.findall(r"[a-z0-9]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "-", name).lower())
        better = "-".join(words).lstrip("0123456789-")
        hint = f", such as {better}" if _NAME.fullmatch(better) else ""
        raise ConfigError(
            f"{name!r} cannot name a connector: use lower-case letters and digits, with single "
            f"dashes between words{hint}"
        )
    if len(name) > LONGEST_NAME:
        raise ConfigError(f"{name!r} is longer than {LONGEST_NAME} characters; shorten it")
    module = module_of(name)
    if keyword.iskeyword(module) or module in sys.stdlib_module_names or module in _TAKEN:
        raise ConfigError(
            f"{name!r} would make a package that hides Python's own {module!r}; call it "
            f"{name}-source, for instance"
        )
    if any(one.name == name for one in list_connectors()):
        raise ConfigError(f"there is already a connector {name!r}; choose another name")


def _files(
    folder: Traversable, below: PurePosixPath
) -> Iterator[tuple[PurePosixPath, Traversable]]:
    for entry in folder.iterdir():
        path = below / _RENAMED.get(entry.name, entry.name)
        if entry.is_dir() and entry.name != "__pycache__":
            yield from _files(entry, path)
        elif entry.is_file() and not entry.name.endswith(".pyc"):
            yield path, entry


def _filled(text: str, replaced: dict[str, str]) -> str:
    return re.sub("|".join(map(re.escape, replaced)), lambda match: replaced[match[0]], text)
