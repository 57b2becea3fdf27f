"""What the pages show, read from the dataset and the history beside it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any

from contextframe_beam.connectors.secrets import redact
from contextframe_beam.errors import ConfigError, ContextFrameError
from contextframe_beam.frames.record import FrameRecord, target_unique_id
from contextframe_beam.pipelines.history import runs_of
from contextframe_beam.pipelines.ui.chart import bars
from contextframe_beam.store.address import Address
from contextframe_beam.store.dataset import FrameDataset
from contextframe_beam.store.files import open_dataset
from contextframe_beam.store.history import RunRecord, statuses
from contextframe_beam.store.runs import FailureReason, Reasons
from contextframe_beam.store.vector_index import count_vectors
from contextframe_beam.transforms.letters import read_letters

#: Sources whose last success is older are shown as old.
OLD = timedelta(days=2)

_RUNS, _CHARTED, _VERSIONS, _HITS, _LISTED, _CHUNKS, _LETTERS = 50, 30, 20, 10, 50, 500, 1000
_WAYS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("Words", {}),
    ("Meaning", {"vector": True}),
    ("Both", {"hybrid": True}),
)


def overview(address: Address) -> dict[str, Any]:
    """Returns sources, runs, charts, failures and versions.

    Raises:
        DatasetError: the dataset or its history cannot be read.
    """
    runs = runs_of(address)
    dataset = _opened(address)
    return {
        "dataset": dataset,
        "contents": None if dataset is None else dataset.contents,
        "vectors": 0 if dataset is None else count_vectors(dataset.lance),
        "sources": statuses(runs, OLD),
        "runs": runs[:_RUNS],
        "others": len(runs) - _RUNS,
        "charts": [] if dataset is None else _charts(runs, dataset.contents.documents),
        "failures": _failures(runs, address),
        "versions": [] if dataset is None else list(reversed(dataset.history()))[:_VERSIONS],
        "place": redact(address.uri),
    }


def run(address: Address, run_id: str) -> dict[str, Any] | None:
    """Returns all that is known of a run, or None if it is unknown.

    Raises:
        DatasetError: the dataset or its history cannot be read.
    """
    found = [one for one in runs_of(address) if one.run_id == run_id]
    if not found:
        return None
    return {"starts": found, "failures": _failures(found, address)}


def found(address: Address, text: str) -> dict[str, Any]:
    """Returns what a search finds by words, by meaning and by both, side by side.

    Raises:
        DatasetError: the dataset cannot be read.
    """
    dataset = _opened(address)
    ways = []
    for name, how in _WAYS if text.strip() and dataset is not None else ():
        assert dataset is not None
        try:
            ways.append((name, dataset.search(text, _HITS, **how), ""))
        except (ConfigError, ContextFrameError) as error:
            ways.append((name, [], redact(str(error))))
    return {"text": text, "ways": ways, "dataset": dataset}


def documents(address: Address, start: str) -> dict[str, Any] | None:
    """Returns the titles of some documents, from a place on; None if there is no such place.

    Raises:
        DatasetError: the dataset cannot be read.
    """
    if not (start.isascii() and start.isdigit()):
        return None
    dataset = _opened(address)
    first = int(start)
    rows: list[dict[str, Any]] = []
    if dataset is not None:
        from contextframe_beam.store.state import documents_in

        rows = (
            dataset.lance.scanner(
                columns=["uuid", "title", "uri", "updated_at"],
                filter=documents_in(dataset.lance),
                limit=_LISTED,
                offset=first,
            )
            .to_table()
            .to_pylist()
        )
    total = 0 if dataset is None else dataset.contents.documents
    after = first + len(rows)
    return {
        "rows": rows,
        "first": first,
        "total": total,
        "before": max(first - _LISTED, 0) if first else None,
        "after": after if after < total else None,
    }


def document(address: Address, id: str) -> dict[str, Any] | None:
    """Returns a document with its chunks and relationships, or None if it is not there.

    A chunk is shown with the document that it is a part of.

    Raises:
        DatasetError: the dataset cannot be read.
    """
    dataset = _opened(address)
    record = None if dataset is None else dataset.get(id)
    if dataset is None or record is None:
        return None
    chunks: list[FrameRecord] = []
    if record.parent is None and "x_parent" in dataset.lance.schema.names:
        chunks = _chunks_of(dataset, record.uuid)
    return {
        "record": record,
        "metadata": _as_json(
            {name: one for name, one in record.metadata.items() if name != "relationships"}
        ),
        "relationships": _relationships(record, dataset),
        "parent": None if record.parent is None else dataset.get(record.parent),
        "chunks": chunks,
    }


def _opened(address: Address) -> FrameDataset | None:
    newest = open_dataset(address)
    if newest is None:
        return None
    # Of a version that was chosen, a search makes no index.
    return FrameDataset.open(address.uri, int(newest.version), address.storage_options)


def _chunks_of(dataset: FrameDataset, key: str) -> list[FrameRecord]:
    digits = key.replace("-", "")
    table = dataset.lance.to_table(
        columns=["uuid", "position"], filter=f"x_parent = X'{digits}'", limit=_CHUNKS
    )
    ordered = sorted(table.to_pylist(), key=lambda row: row["position"] or 0)
    found = (dataset.get(row["uuid"]) for row in ordered)
    return [one for one in found if one is not None]


def _relationships(record: FrameRecord, dataset: FrameDataset) -> list[dict[str, Any]]:
    told = []
    for one in record.metadata.get("relationships") or ():
        if not isinstance(one, dict):
            continue
        # As frames store them, or as connectors give them.
        target = str(one.get("target_id") or one.get("uri") or one.get("id") or "")
        whole = one.get("id") or (target and target_unique_id(record.unique_id, target))
        known = dataset.get(str(whole)) if whole else None
        told.append(
            {
                "kind": one.get("relationship_type") or one.get("type") or "",
                "target": target,
                "uuid": known.uuid if known else None,
                "title": known.title if known else one.get("title") or target,
            }
        )
    return told


def _charts(runs: Sequence[RunRecord], documents: int) -> list[str]:
    """Returns charts of the committed runs, the oldest one first."""
    committed = [one for one in runs if one.receipt is not None][:_CHARTED]
    names = [f"{one.began[:16].replace('T', ' ')} {one.connector}" for one in committed]
    stored, embedded, failed = [], [], []
    now = documents
    for one in committed:
        receipt = one.receipt
        assert receipt is not None
        stored.append(now)
        embedded.append(receipt.texts_embedded)
        failed.append(receipt.failed)
        now = max(now - receipt.rows_written + receipt.rows_replaced + receipt.rows_deleted, 0)
    written = [int(one.counts.get("written", 0)) for one in committed]
    charts = [
        ("Documents in the dataset after each run", stored),
        ("Documents written by each run", written),
        ("Texts embedded by each run", embedded),
        ("Items that failed in each run", failed),
    ]
    return [bars(title, names[::-1], values[::-1]) for title, values in charts if any(values)]


def _failures(runs: Iterable[RunRecord], address: Address) -> list[dict[str, Any]]:
    """Returns the reasons why items failed in runs with letters, each with one whole item."""
    told: list[dict[str, Any]] = []
    for one in runs:
        if not one.dead_letters or len(told) >= _VERSIONS:
            continue
        try:
            letters = read_letters(one.dead_letters, address.storage_options)[:_LETTERS]
        except ContextFrameError as error:
            told.append({"run": one, "reason": redact(str(error)), "count": 0, "item": ""})
            continue
        by_kind: dict[tuple[str, str], dict[str, Any]] = {}
        reasons = Reasons()
        for letter in letters:
            reason = FailureReason.of(
                letter["error_type"], letter["message"], f"{letter['stage']} {letter['position']}"
            )
            reasons.add([reason])
            by_kind.setdefault(reason.kind, letter)
        for found in reasons.most():
            letter = by_kind.get(found.kind) or letters[0]
            told.append(
                {
                    "run": one,
                    "reason": redact(str(found)),
                    "count": found.count,
                    "item": redact(_as_json(letter["item"])),
                }
            )
    return told


def _as_json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)
