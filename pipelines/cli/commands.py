"""The commands search, inspect, connectors, templates and worker-pool, and the group of all."""

from __future__ import annotations

import json
import sysconfig
import threading
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import contextframe_beam
from contextframe_beam.errors import ConfigError, nearest
from contextframe_beam.lazy import registered
from contextframe_beam.pipelines.cli.authors import (
    check_group,
    login_command,
    new_command,
    test_group,
)
from contextframe_beam.pipelines.cli.columns import columns_group
from contextframe_beam.pipelines.cli.history import (
    history_command,
    replay_command,
    status_command,
)
from contextframe_beam.pipelines.cli.ingest import flex_command, ingest_group
from contextframe_beam.pipelines.cli.run import init_command, run_command
from contextframe_beam.pipelines.cli.shared import (
    CommandGroup,
    as_json,
    command,
    completion_command,
    count,
    dataset_argument,
    examples,
    option,
    port_number,
    say_done,
    storage_options,
    version_option,
)
from contextframe_beam.pipelines.cli.translate import translate_group
from contextframe_beam.pipelines.cli.upkeep import (
    cleanup_command,
    compact_command,
    embed_command,
    index_command,
    rollback_command,
    state_group,
)
from contextframe_beam.pipelines.runners.errors import no_such_option

if TYPE_CHECKING:
    from contextframe_beam.store.dataset import FrameDataset


@click.group(
    "templates",
    cls=CommandGroup,
    short_help="List and write files for schedulers: Airflow, Kubernetes, systemd, ...",
    epilog=examples("contextframe-beam templates write systemd deploy"),
    no_args_is_help=True,
)
def templates_group() -> None:
    """List and write files for schedulers. Edit their values, and they run."""


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
@option("--force", is_flag=True, help="Replace existing files.")
def _write(name: str, folder: str, force: bool) -> None:
    """Write the files of TEMPLATE into DIR, and say what to edit in them."""
    from contextframe_beam.templates import find_template, write_template

    template = find_template(name)
    written = write_template(template, Path(folder), overwrite=force)
    listed = "".join(f"wrote {path}\n" for path in written)
    readme = Path(folder, "README.md")
    say_done(f"{listed}\nEdit:\n\n{template.edit}\n\nHow to run it is in {readme}.")


@command("worker-pool", "contextframe-beam worker-pool --port 50000")
@option(
    "--port",
    type=port_number,
    default=50000,
    show_default=True,
    metavar="PORT",
    help="The port to listen on; 0 takes a free one.",
)
@option(
    "--host",
    default="localhost",
    show_default=True,
    metavar="HOST",
    help="The address to listen on. Anyone who can reach it can run programs as this user.",
)
def worker_pool_command(port: int, host: str) -> None:
    """Start workers when an engine asks for them, until you interrupt this command.

    It runs on each of the engine's machines, for runs with --environment_type=EXTERNAL and
    --environment_config=HOST:PORT. A worker uses the environment that this command is installed
    in, and first installs the packages of --setup_file, --extra_package and
    --requirements_file. References to secrets are looked up here.
    """
    from contextframe_beam.pipelines.runners.engines import serve

    program = Path(sysconfig.get_path("scripts"), "contextframe-beam-worker")
    if not program.exists():
        raise ConfigError(f"there is no {program}; install contextframe-beam again")
    with serve(str(program), host, port) as address:
        click.echo(f"starting workers for engines at {address}; Ctrl-C ends them", err=True)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            click.echo("interrupted; the workers end", err=True)


_at = version_option("--at", "Look at this version instead of the newest one.")


def _json_object(text: object) -> Any:
    try:
        found = json.loads(text) if isinstance(text, str) else text
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise click.BadParameter('it is not a JSON object, as in \'{"query_prefix": "query: "}\'')
    return found


def _chunks_around(text: object) -> int:
    if str(text).isascii() and str(text).isdigit():
        return int(str(text))
    raise click.BadParameter(f"{text!r} is not a number of chunks, from 0 on")


# How many documents that the filter left out are counted.
_OTHERS = 100


class _SearchCommand(click.Command):
    """The search command, whose errors explain how to search for words that look like options."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        given = list(args)
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            flags = [flag for option in self.params for flag in option.opts]
            message = no_such_option(error.option_name, flags)
            rest = "a search text that begins with a dash goes after a lone --"
            if not nearest(error.option_name, flags) and len(given) > 1:
                word = next(one for one in given if one.startswith("-") and one not in flags)
                rest += f", as in: {ctx.command_path} {given[0]} -- {word!r}"
            raise click.UsageError(f"{message}; {rest}", ctx) from error


class _Program(CommandGroup):
    """All commands. It knows that a connector is named behind `ingest`."""

    def hint(self, name: str) -> str:
        if any(one.name == name for one in registered("contextframe.connectors")):
            return f"; {name} is a connector: write `ingest {name}`"
        return super().hint(name)


@click.group(
    cls=_Program,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    no_args_is_help=True,
    epilog=examples(
        "contextframe-beam ingest files --directory docs --to kb.lance --embed wordllama",
        "contextframe-beam search kb.lance 'quarterly report'",
    ),
)
@click.version_option(contextframe_beam.__version__, message="%(prog)s %(version)s")
def commands() -> None:
    """Bring documents from any system into a Lance dataset of frames, one transaction a run."""


@command(
    "search",
    "contextframe-beam search kb.lance 'quarterly report'",
    "contextframe-beam search kb.lance 'how do I orphan a package' --hybrid --parents",
    "contextframe-beam search kb.lance beam --where \"author = 'Ada'\" --limit 3",
    cls=_SearchCommand,
)
@dataset_argument
@click.argument("text")
@option("--hybrid", is_flag=True, help="Find by words and by meaning, and join both rankings.")
@option("--vector", is_flag=True, help="Find by meaning only, whatever the words.")
@option("--parents", is_flag=True, help="Show of each document its best passage only.")
@option(
    "--context",
    type=_chunks_around,
    metavar="N",
    default=0,
    help="Also show N chunks before and after each passage.",
)
@option(
    "--limit",
    type=count,
    metavar="N",
    default=10,
    show_default=True,
    help="The most passages to show.",
)
@option(
    "--where",
    metavar="SQL",
    help="Only passages for which this holds, as in "
    "\"author = 'Ada' AND created_at > '2026-01-01'\". `columns add` lets it know other metadata.",
)
@option(
    "--reader",
    "readers",
    metavar="WHO",
    multiple=True,
    help="Only what WHO may read, as in user:ana@example.com; again for each group of theirs.",
)
@option(
    "--embed",
    "embedder",
    metavar="NAME[:MODEL]",
    help="The embedder, where it is not found as it was recorded, as in onnx:models/minilm.  "
    "[default: the one that made the vectors]",
)
@option("--embed-url", metavar="URL", help="Where the embedder's service is, if it moved.")
@option("--embed-key", metavar="REF", help="The service's key, best as in env:OPENAI_API_KEY.")
@option(
    "--embed-options",
    metavar="JSON",
    type=_json_object,
    help="Further settings of the embedder that are not recorded, such as headers.",
)
@_at
@as_json
@storage_options
def _search(
    dataset: str,
    text: str,
    version: int | None,
    as_json: bool,
    storage_options: dict[str, str],
    **asked: Any,
) -> None:
    """Find the passages of DATASET that match TEXT best.

    A passage is a chunk, or a whole document without chunks.

    The first search makes the full-text index, for text of any language; `index` makes one for a
    language of your choice. What is near in meaning is found in datasets with vectors: TEXT is
    embedded as they were.
    """
    from contextframe_beam.pipelines.cli import show
    from contextframe_beam.store.dataset import FrameDataset
    from contextframe_beam.store.text_index import keeps_every_word

    if asked["hybrid"] and asked["vector"]:
        raise click.UsageError("--hybrid finds by words and by meaning, --vector by meaning only")
    opened = FrameDataset.open(dataset, version, storage_options)
    asked["readers"] = asked["readers"] or None
    found = opened.search(text, **asked)
    where = asked["where"]
    if as_json:
        click.echo(json.dumps([show.hit_of(record) for record in found]))
    elif found:
        show.show_hits(found, text)
    else:
        within = f" among those where {where}" if where else ""
        if asked["readers"]:
            within += f" and {' or '.join(asked['readers'])} may read it"
        click.echo(f"no document of {dataset} matches {text!r}{within}; it holds {opened.contents}")
    by_words = not (asked["hybrid"] or asked["vector"])
    if found and by_words and not any(record.score for record in found):
        old = "" if keeps_every_word(opened.lance) else f" {_old_index(dataset)}"
        click.echo(f"These contain the words only within longer ones.{old}", err=True)
    elif not found:
        click.echo(_why_nothing(opened, text, asked), err=True)


def _why_nothing(opened: FrameDataset, text: str, asked: Mapping[str, Any]) -> str:
    """Returns a hint after a search without results."""
    wider = {**asked, "where": None, "limit": _OTHERS}
    others = len(opened.search(text, **wider)) if asked["where"] else 0
    if others:
        more = " or more" if others == _OTHERS else ""
        what = "is 1 document" if others == 1 else f"are {others}{more} documents"
        return f"Without --where there {what}."
    if asked["readers"]:
        return (
            "Documents of which nobody knows who may read them are never found with --reader; "
            "connectors of services with permissions tell it, as their pages say."
        )
    return (
        "No text contains any of its words, not even within a longer word. Titles and metadata "
        "are not searched; use --where for those, as in --where \"title LIKE '%word%'\"."
    )


def _old_index(dataset: str) -> str:
    return (
        "The index is from an earlier release and leaves out very common and very long words; "
        f"`contextframe-beam index {dataset}` makes it again."
    )


@command(
    "inspect",
    "contextframe-beam inspect kb.lance",
    "contextframe-beam inspect s3://bucket/kb.lance --json",
    "contextframe-beam inspect kb.lance --where \"status = 'open'\"",
)
@dataset_argument
@option(
    "--where",
    metavar="SQL",
    help="Only count the documents and chunks for which this holds, as in search.",
)
@_at
@option("--columns", is_flag=True, help="Show the columns too.")
@as_json
@storage_options
def _inspect(
    dataset: str,
    where: str | None,
    version: int | None,
    columns: bool,
    as_json: bool,
    storage_options: dict[str, str],
) -> None:
    """Show what is in DATASET: sources and their state, runs, versions.

    It lists runs that were committed, and versions that still exist; `history` lists all runs.
    """
    from contextframe_beam.pipelines.cli import show
    from contextframe_beam.pipelines.cli.history import went_wrong
    from contextframe_beam.store.address import Address
    from contextframe_beam.store.dataset import FrameDataset
    from contextframe_beam.store.history import History

    opened = FrameDataset.open(dataset, version, storage_options)
    if where is not None:
        matching = opened.count(where)
        facts = {"uri": opened.uri, "version": opened.version, "matching": matching}
        all_of_them = f"of {len(opened):,} documents and chunks fulfil {where}"
        click.echo(json.dumps(facts) if as_json else f"{matching:,} {all_of_them}")
        return
    facts = show.facts_of(opened)
    if as_json:
        click.echo(json.dumps(facts, default=str))
    else:
        if version is None:
            records = History(Address(dataset, storage_options)).records(last=2 * show.SHOWN)
            facts["last_runs"] = len(records)
            facts["failed_runs"] = sum(went_wrong(one) and not one.counts for one in records)
        show.show_facts(facts, columns)


@command(
    "ui",
    "contextframe-beam ui kb.lance",
    "contextframe-beam ui s3://bucket/kb.lance --port 8000 --no-browser",
)
@dataset_argument
@option(
    "--port",
    type=port_number,
    default=0,
    metavar="PORT",
    help="The port to listen on.  [default: a free one]",
)
@option("--no-browser", is_flag=True, help="Do not open a browser.")
@storage_options
def _ui(dataset: str, port: int, no_browser: bool, storage_options: dict[str, str]) -> None:
    """Show DATASET in a browser: sources, runs, failures, versions, search, documents.

    The page is for this machine only, and only shows. Ctrl-C ends it.
    """
    import webbrowser

    from contextframe_beam.pipelines.history import runs_of
    from contextframe_beam.pipelines.ui.app import listening, page_of, serve
    from contextframe_beam.store.address import Address

    shown = Address(dataset, storage_options)
    app = page_of(shown)
    with listening(port) as at:
        address = f"http://127.0.0.1:{at.getsockname()[1]}/"
        if not runs_of(shown):
            click.echo(f"there is no dataset at {dataset} yet, and no run into it", err=True)
        click.echo(f"{dataset} is shown at {address}; Ctrl-C ends it", err=True)
        if not no_browser:
            # Once the server answers: the socket takes what comes before.
            at.listen()
            threading.Thread(target=webbrowser.open, args=[address], daemon=True).start()
        try:
            serve(app, at)
        except KeyboardInterrupt:
            click.echo("interrupted; the page is not shown any more", err=True)


@command("connectors", "contextframe-beam connectors")
@as_json
def _connectors(as_json: bool) -> None:
    """List the registered connectors.

    To use any other connector class, give it to `ingest` as package.module:Class or
    path/to/file.py:Class.
    """
    from contextframe_beam.connectors.registry import list_connectors
    from contextframe_beam.pipelines.cli import show

    found = [asdict(connector) for connector in list_connectors()]
    if as_json:
        click.echo(json.dumps(found))
    elif found:
        show.show_connectors(found)
    else:
        click.echo("no connector is registered; install contextframe-beam, or your own package")


for _command in (
    ingest_group,
    run_command,
    init_command,
    new_command,
    test_group,
    check_group,
    translate_group,
    login_command,
    _search,
    _inspect,
    _ui,
    history_command,
    status_command,
    replay_command,
    embed_command,
    index_command,
    columns_group,
    compact_command,
    cleanup_command,
    rollback_command,
    _connectors,
    state_group,
    templates_group,
    worker_pool_command,
    flex_command,
    completion_command,
):
    commands.add_command(_command)
