"""The command translate: writes what other programs say of a source as a configuration of ours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Any

import click

from contextframe_beam.errors import ConfigError
from contextframe_beam.pipelines.cli.shared import command, examples, option, say_done

_EXAMPLE = "contextframe-beam translate airbyte --manifest manifest.yaml --to crm.yaml"


@click.group(
    "translate",
    short_help="Write the YAML of an API from what another program says of it.",
    epilog=examples(_EXAMPLE),
    no_args_is_help=True,
)
def translate_group() -> None:
    """Write the YAML of an API from what another program says of it."""


@command("airbyte", _EXAMPLE, of=translate_group)
@option(
    "--manifest",
    required=True,
    metavar="FILE",
    help="The manifest.yaml of a declarative Airbyte source.  [required]",
)
@option(
    "--config",
    "config_file",
    metavar="FILE",
    help="The settings of the source, in YAML or JSON, as Airbyte takes them; secrets in it are "
    "references such as env:NAME.",
)
@option(
    "--to",
    metavar="FILE",
    help="The file to write.  [default: the standard output]",
)
@option("--force", is_flag=True, help="Replace an existing file.")
@click.pass_context
def _airbyte(
    ctx: click.Context, manifest: str, config_file: str | None, to: str | None, force: bool
) -> None:
    """Write the YAML of an API for a manifest of Airbyte.

    Streams that cannot be translated are left out; the standard error says what stands in the way
    of each, with its line in the manifest, and the exit code is 1. A source with several servers or
    ways to authenticate becomes several files: crm.yaml, crm-2.yaml.
    """
    from contextframe_beam.connectors.translate import read_manifest, text_of, translate

    found = translate(read_manifest(manifest), _settings_in(config_file))
    texts = [text_of(one, found.about) for one in found.configs]
    if to is None:
        for number, text in enumerate(texts):
            click.echo(f"---\n{text}" if number else text, nl=False)
    else:
        _write(Path(to), texts, force)
    for line in _summary(found, to):
        click.echo(line, err=True)
    if found.problems:
        ctx.exit(1)


def _settings_in(file: str | None) -> Mapping[str, Any]:
    from contextframe_beam.connectors.yaml_file import read_yaml_file

    if file is None:
        return {}
    values = read_yaml_file(file, "the settings").values
    if not isinstance(values, dict):
        raise ConfigError(f"the settings {file} are not a mapping of names to values")
    return {name: _as_text(value) for name, value in values.items()}


def _as_text(value: Any) -> Any:
    # YAML turns text that looks like a date into a date.
    if isinstance(value, dict):
        return {name: _as_text(one) for name, one in value.items()}
    return value.isoformat() if isinstance(value, date) else value


def _write(target: Path, texts: list[str], force: bool) -> None:
    files = [
        target if not number else target.with_name(f"{target.stem}-{number + 1}{target.suffix}")
        for number in range(len(texts))
    ]
    there = [str(one) for one in files if one.exists()]
    if there and not force:
        raise ConfigError(f"{there[0]} already exists; give --force to replace it")
    for file, text in zip(files, texts, strict=True):
        try:
            file.write_text(text, encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"cannot write {file} ({error.strerror})") from error
        say_done(f"wrote {file}")


def _summary(found: Any, to: str | None) -> Iterator[str]:
    yield from map(str, found.problems)
    total = len(found.streams) + len(found.problems)
    yield f"{len(found.streams)} of {total} streams were translated"
    if found.needed:
        yield f"write before you use it: {', '.join(f'settings.{one}' for one in found.needed)}"
    if found.configs:
        yield f"see what it reads: contextframe-beam check api --config {to or 'FILE'}"
