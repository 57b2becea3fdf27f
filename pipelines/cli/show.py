"""What commands show: the receipt of a run, and tables; for people and as JSON."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from contextframe_beam.frames.embedders import EmbedderIdentity
from contextframe_beam.pipelines.cli.outcome import ago
from contextframe_beam.pipelines.process import as_it_is, one_line, printable

if TYPE_CHECKING:
    from contextframe_beam.frames.record import FrameRecord
    from contextframe_beam.store.dataset import FrameDataset
    from contextframe_beam.store.search import Hit
    from contextframe_beam.store.state import SourceState


#: How many of the newest runs and versions `inspect` shows; `--json` has all.
SHOWN = 10

_SNIPPET = 160
_CHUNK_SNIPPET = 400
_INDENT = 9
_SHORT = 2
_STATE_SHOWN = 300
_WORD = re.compile(r"\w+")
_WORKED = ("parsed", "chunks", "texts_embedded", "stale")
_COUNTED = ("written", "replaced", "deleted", "unchanged", "failed")


def hit_of(hit: Hit) -> dict[str, Any]:
    """Returns a search result as JSON values; what is only said of chunks is null of documents."""
    return {
        "score": hit.score,
        "title": hit.title,
        "unique_id": hit.unique_id,
        "uuid": hit.uuid,
        "parent": hit.parent,
        "position": hit.metadata.get("position"),
        "source_file": hit.metadata.get("source_file"),
        "page": hit.metadata.get("page"),
        "text_content": hit.text_content,
        "before": [one.text_content for one in hit.before],
        "after": [one.text_content for one in hit.after],
    }


def show_hits(hits: Iterable[Hit], query: str) -> None:
    """Prints search results: score and heading path, where it is, and the passage."""
    console = _console()
    words = {word.lower() for word in _WORD.findall(query)}
    found = list(hits)
    # Joined rankings have small scores.
    digits = 4 if 0 < max((hit.score or 0 for hit in found), default=0) < 0.1 else 2
    for hit in found:
        head = Text.assemble(
            (f"{hit.score or 0:7.{digits}f}  ", "dim"), (one_line(hit.title), "bold")
        )
        console.print(head, soft_wrap=True)
        _indented(console, Text(_place_of(hit), "dim"))
        for chunk in hit.before:
            _indented(console, Text(_on_one_line(chunk.text_content), "dim"))
        most = _CHUNK_SNIPPET if hit.parent else _SNIPPET
        if hit.before or hit.after:
            snippet = _on_one_line(hit.text_content)
        else:
            snippet = printable(snippet_of(hit.text_content or "", query, most))
        if snippet and snippet != hit.title:
            _indented(console, _with_words(snippet, words))
        for chunk in hit.after:
            _indented(console, Text(_on_one_line(chunk.text_content), "dim"))


def _place_of(hit: FrameRecord) -> str:
    page = hit.metadata.get("page")
    where = f", page {page}" if isinstance(page, int) else ""
    return f"{one_line(hit.unique_id or hit.uuid)}{where}"


def _on_one_line(text: str | None) -> str:
    return printable(" ".join((text or "").split()))


def _with_words(text: str, words: set[str]) -> Text:
    shown = Text(text)
    for one in _WORD.finditer(text):
        # Articles and the like stand everywhere.
        if len(one[0]) > _SHORT and one[0].lower() in words:
            shown.stylize("bold", one.start(), one.end())
    return shown


def _indented(console: Console, text: Text) -> None:
    """Prints lines below a score; on a terminal they are broken where it ends."""
    if console.is_terminal:
        console.print(Padding(text, (0, 0, 0, _INDENT)))
    else:
        console.print(Text(" " * _INDENT).append_text(text), soft_wrap=True)


def snippet_of(text: str, query: str, most: int = _SNIPPET) -> str:
    """Returns the place of a text where a word of the query stands first, on one line."""
    words = {word.lower() for word in _WORD.findall(query)}
    first = next((one.start() for one in _WORD.finditer(text) if one[0].lower() in words), 0)
    start = max(first - most // 4, 0)
    if start:
        start = text.find(" ", start, first) + 1 or start
    part = text[start : start + most]
    shown = " ".join(part.split())
    before = "... " if start else ""
    after = " ..." if start + most < len(text) else ""
    return f"{before}{shown}{after}"


def facts_of(dataset: FrameDataset) -> dict[str, Any]:
    """Returns what there is to know about a dataset, as JSON values."""
    stored = dataset.lance
    states = dataset.states()
    documents, chunks = dataset.contents
    runs: dict[str, dict[str, Any]] = {}
    for state in states:
        for run in state.runs:
            known = runs.setdefault(run.run_id, {**run.facts(), "sources": []})
            known["sources"].append(state.source)
    return {
        "uri": dataset.uri,
        "version": dataset.version,
        "documents": documents,
        "chunks": chunks,
        "embed_dim": dataset.embed_dim,
        "embedder": None if dataset.embedder is None else asdict(dataset.embedder),
        "storage_version": stored.data_storage_version,
        "fragments": len(stored.get_fragments()),
        "columns": [
            {"name": column.name, "type": str(column.type), "nullable": column.nullable}
            for column in dataset.schema
        ],
        "fields": fields_of(dataset),
        "sources": [
            {
                "source": state.source,
                "name": state.name,
                "identity": dict(state.identity),
                "partitions": dict(state.partitions),
                "backfill": dict(state.backfill),
                "runs": [run.run_id for run in state.runs],
            }
            for state in states
        ],
        "runs": sorted(runs.values(), key=lambda run: int(run["version"])),
        "versions": [
            {
                "version": one.version,
                "at": one.at.isoformat(timespec="seconds"),
                "run_id": one.run_id,
                "mode": one.mode,
                "restored": one.restored,
                "counts": dict(one.counts),
            }
            for one in dataset.history()
        ],
    }


def _by(embedder: Mapping[str, Any] | None) -> str:
    return f" by {EmbedderIdentity(**embedder).spec}" if embedder else ""


def show_facts(facts: Mapping[str, Any], columns: bool = False) -> None:
    """Prints what `facts_of` found.

    Args:
        facts: The facts.
        columns: Whether to print the columns too.
    """
    from contextframe_beam.store.state import Contents

    console = _console()
    console.print(
        f"{printable(facts['uri'])}: {Contents(facts['documents'], facts['chunks'])}, "
        f"version {facts['version']}, "
        f"{facts['fragments']} fragments, vectors of {facts['embed_dim']}{_by(facts['embedder'])}, "
        f"storage version {facts['storage_version']}",
        markup=False,
        soft_wrap=True,
    )
    _print_table(
        console,
        "Sources",
        ("source", "connector", "runs", "partitions with a state", "arguments"),
        [
            (
                one["source"],
                one["name"],
                len(one["runs"]),
                len(one["partitions"]),
                _arguments(one["identity"]),
            )
            for one in facts["sources"]
        ],
    )
    counts = [*_COUNTED, *(one for one in _WORKED if any(run.get(one) for run in facts["runs"]))]
    _print_table(
        console,
        "Runs",
        ("run", "mode", "at", "version", *map(_in_words, counts)),
        [
            (
                run["run_id"],
                run["mode"],
                _with_age(run["at"]),
                run["version"],
                *(run.get(name, 0) for name in counts),
            )
            for run in facts["runs"]
        ],
        at_most=SHOWN,
    )
    for run in facts["runs"][-SHOWN:]:
        for reason in run["partial"]:
            told = f"run {run['run_id']} is partial: {reason}"
            console.print(told, markup=False, soft_wrap=True)
    if facts.get("failed_runs"):
        of = f"{facts['failed_runs']} of the last {facts['last_runs']} runs"
        told = "the last run" if facts["last_runs"] == 1 else of
        console.print(
            f"{told} did not succeed; `contextframe-beam history {facts['uri']} --failed` says why",
            markup=False,
            soft_wrap=True,
        )
    for source in facts["sources"]:
        _print_state(
            console, source["name"], source["source"], source["partitions"], source["backfill"]
        )
    _print_table(
        console,
        "Versions",
        ("version", "at", "made by", "run", "counts"),
        [
            (
                one["version"],
                _with_age(one["at"]),
                _made_by(one),
                one["run_id"] or "",
                _counts(one["counts"]),
            )
            for one in facts["versions"]
        ],
        at_most=SHOWN,
    )
    show_columns(facts["fields"], "Own columns")
    if not columns:
        return
    _print_table(
        console,
        "Columns",
        ("column", "type", "null"),
        [
            (one["name"], one["type"], "" if one["nullable"] else "never")
            for one in facts["columns"]
        ],
    )


def _with_age(time: str) -> str:
    try:
        return f"{time} ({ago(time)})" if time else ""
    except ValueError:  # written by another program
        return time


def show_states(states: Iterable[SourceState]) -> None:
    """Prints what sources have reached, all of it."""
    console = _console()
    for one in states:
        if one.partitions or one.backfill:
            _print_state(console, one.name, one.source, one.partitions, one.backfill, at_most=None)
        else:
            console.print(
                one_line(f"{one.name} {one.source} has no state: its next run reads everything"),
                markup=False,
                soft_wrap=True,
            )


def _print_state(
    console: Console,
    name: str,
    source: str,
    partitions: Mapping[str, Any],
    backfill: Mapping[str, Any],
    at_most: int | None = SHOWN,
) -> None:
    _print_table(
        console,
        f"State of {name} {source}",
        ("partition", "state"),
        [(partition, _short(state)) for partition, state in partitions.items()],
        at_most=at_most,
    )
    _print_table(
        console,
        f"Unfinished backfill of {name} {source}",
        ("run", "began", "commits", "parts done"),
        [[backfill.get(key, "") for key in ("run_id", "began", "commits", "parts")]]
        if backfill
        else [],
    )


#: Under these names states keep marks of files, which say nothing to a reader but their number.
_MARKS = ("seen", "failed", "skipped", "names", "sizes")


def _short(state: Any) -> str:
    if isinstance(state, Mapping):
        state = {name: _counted(name, one) for name, one in state.items()}
    text = json.dumps(state, ensure_ascii=False)
    return text if len(text) <= _STATE_SHOWN else f"{text[:_STATE_SHOWN]}..."


def _counted(name: str, value: Any) -> Any:
    from contextframe_beam.store.runs import Marks

    if name not in _MARKS or not isinstance(value, str):
        return value
    try:
        count = len(Marks(value))
    except ValueError:
        return value
    return "1 file" if count == 1 else f"{count:,} files"


def show_columns(found: Sequence[Mapping[str, Any]], title: str = "") -> None:
    """Prints the fields of metadata that are columns."""
    rows = [(one["name"], one["type"], one["filled"], one["index"] or "") for one in found]
    _print_table(_console(), title, ("column", "type", "filled", "index"), rows)


def fields_of(dataset: FrameDataset) -> list[dict[str, Any]]:
    """Returns the fields of metadata that are columns of a dataset, as JSON values."""
    from contextframe_beam.store.schema import indices_of_fields

    indices = indices_of_fields(dataset.lance)
    return [
        {
            "name": name,
            "type": kind,
            "filled": dataset.count() - dataset.count({name: None}),
            "index": indices.get(name),
        }
        for name, kind in dataset.columns.items()
    ]


def show_connectors(found: Sequence[Mapping[str, str]]) -> None:
    """Prints the registered connectors."""
    _print_table(
        _console(),
        "",
        ("connector", "what it reads", "package"),
        [
            (
                one["name"],
                f"cannot be used: {one['error']}" if one["error"] else one["summary"],
                f"{one['distribution']} {one['version']}",
            )
            for one in found
        ],
    )


def show_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Prints rows under their columns."""
    _print_table(_console(), title, columns, rows)


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Leaves it to the command line what a reader that went away means."""
        raise BrokenPipeError


def _console() -> Console:
    console = _Console(highlight=False, file=as_it_is(sys.stdout))
    if not console.is_terminal:
        # A pipe has no width; wrapping there only breaks what reads it.
        console.width = 10_000
    return console


def _print_table(
    console: Console,
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[Any]],
    at_most: int | None = None,
) -> None:
    """Prints the last `at_most` rows as a table; prints nothing without rows."""
    if not rows:
        return
    left_out = len(rows) - at_most if at_most and len(rows) > at_most else 0
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in columns:
        table.add_column(name, overflow="fold")
    for row in rows[left_out:]:
        table.add_row(*(escape(printable(_text(value))) for value in row))
    console.print()
    if title:
        earlier = f" (the last {at_most} of {len(rows)}; --json shows all)" if left_out else ""
        console.print(Text(one_line(f"{title}{earlier}"), "bold underline"))
    if console.is_terminal and _is_too_wide(console, table):
        _print_records(console, columns, rows[left_out:])
        return
    console.print(table)


def _is_too_wide(console: Console, table: Table) -> bool:
    unbounded = console.options.update(max_width=10_000)
    return Measurement.get(console, unbounded, table).maximum > console.width


def _print_records(console: Console, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Prints each row as lines of names and values, where a table would break its words."""
    for number, row in enumerate(rows):
        if number:
            console.print()
        for name, value in zip(columns, row, strict=True):
            text = printable(_text(value))
            if text:
                console.print(Text.assemble((f"{name or 'when'}: ", "bold"), text), soft_wrap=True)


def _text(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def _arguments(identity: Mapping[str, Any]) -> str:
    found = {**(identity.get("arguments") or {}), **(identity.get("sync") or {})}
    return ", ".join(f"{name}={value}" for name, value in found.items())


def _made_by(version: Mapping[str, Any]) -> str:
    restored = version["restored"]
    return f"{version['mode']} to {restored}" if restored else str(version["mode"])


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(
        f"{value:,} {_in_words(name, value)}"
        for name, value in counts.items()
        if value and name in (*_COUNTED, *_WORKED, "embedded")
    )


def _in_words(name: str, count: int = 0) -> str:
    words = name.replace("_", " ")
    return words.replace("chunks", "chunk").replace("texts", "text") if count == 1 else words
