"""What the pages show, read from the dataset and the history beside it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any

from contextframe_beam.connectors.secrets import redact
from contextframe_beam.errors import ConfigError, ContextFrameError
from contextframe_beam.frames.encode import decode_rows
from contextframe_beam.frames.record import FrameRecord, is_uuid, target_unique_id, uuid_of
from contextframe_beam.frames.values import is_unicode
from contextframe_beam.pipelines.history import runs_of
from contextframe_beam.pipelines.ui.chart import bars
from contextframe_beam.store.address import Address
from contextframe_beam.store.dataset import FrameDataset
from contextframe_beam.store.files import open_dataset
from contextframe_beam.store.filters import sql_literal
from contextframe_beam.store.history import RunRecord, statuses
from contextframe_beam.store.runs import FailureReason, Reasons
from contextframe_beam.store.vector_index import count_vectors
from contextframe_beam.transforms.letters import read_letters

#: Sources whose last success is older are shown as old.
OLD = timedelta(days=2)

_RUNS, _CHARTED, _VERSIONS, _HITS, _LISTED, _CHUNKS, _LETTERS = 50, 30, 20, 10, 50, 500, 1000
_TARGETS = 1000
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
    found = runs_of(address, run_id)
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
    # Of a version that was chosen, a search makes no index.
    return None if newest is None else FrameDataset(newest, address.storage_options, pinned=True)


def _chunks_of(dataset: FrameDataset, key: str) -> list[FrameRecord]:
    digits = key.replace("-", "")
    found = dataset.lance.to_table(
        filter=f"x_parent = X'{digits}'", limit=_CHUNKS, blob_handling="all_binary"
    )
    chunks = [one for batch in found.to_batches() for one in decode_rows(batch)]
    return sorted(chunks, key=lambda one: one.metadata.get("position") or 0)


def _relationships(record: FrameRecord, dataset: FrameDataset) -> list[dict[str, Any]]:
    given = [one for one in record.metadata.get("relationships") or () if isinstance(one, dict)]
    wholes = [_target_of(one, record) for one in given]
    titles = _titles(dataset, filter(None, wholes))
    told = []
    for one, whole in zip(given, wholes, strict=True):
        target = str(one.get("target_id") or one.get("uri") or one.get("id") or "")
        key, title = titles.get(whole, (None, one.get("title") or target))
        kind = one.get("relationship_type") or one.get("type") or ""
        told.append({"kind": kind, "target": target, "uuid": key, "title": title})
    return told


def _target_of(relationship: Mapping[str, Any], record: FrameRecord) -> str:
    """Returns the id of a target: as frames store it, or as connectors give it; "" without one."""
    target = str(relationship.get("target_id") or relationship.get("uri") or "")
    whole = target_unique_id(record.unique_id, target) if target else ""
    return str(relationship.get("id") or whole)


def _titles(dataset: FrameDataset, ids: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Returns the key and the title of each document that one of the ids names."""
    asked = sorted({one for one in ids if is_unicode(one)})[:_TARGETS]
    if not asked:
        return {}
    keys = {uuid_of(one): one for one in asked} | {
        one.lower(): one for one in asked if is_uuid(one)
    }
    uuids, uris = (", ".join(map(sql_literal, some)) for some in (keys, asked))
    rows = dataset.lance.to_table(
        columns=["uuid", "uri", "title"],
        filter=f"x_state IS NULL AND (uuid IN ({uuids}) OR uri IN ({uris}))",
    )
    named = ((keys.get(row["uuid"], row["uri"]), row) for row in rows.to_pylist())
    return {name: (row["uuid"], row["title"] or name) for name, row in named}


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
