"""The upsert that everybody writes first: `merge_insert` of all rows of a folder, in one process.

It changes the dataset like the same run of ours: rows with the format's columns, a digest of each
so that unchanged rows are left alone, and a row for the sync state, all in one transaction. It does
not support dead letters, retries, run ids, other runs at the same time, duplicates within the run,
or several workers. Like ours, it is a process that starts, imports and ends.

python benchmarks/upsert_by_hand.py DOCUMENTS_DIR DATASET         # the upsert
python benchmarks/upsert_by_hand.py --from OUR_DATASET DATASET    # makes the dataset, not measured
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import lance
import pyarrow as pa
from by_hand import SCHEMA, rows_of

_NAMES = [name for name in SCHEMA.names if name != "raw_data"]
_OWN = [("x_source", pa.string()), ("x_digest", pa.binary(16)), ("x_state", pa.string())]
_ALL = pa.schema([*(SCHEMA.field(name) for name in _NAMES), *(pa.field(*one) for one in _OWN)])
_SOURCE = "json_file"
_STATE = "00000000-0000-0000-0000-000000000000"
_AT_ONCE = 1000


def copy(source: str, to: str) -> None:
    """Copies the columns that the hand-written script has."""
    scanner = lance.dataset(source).scanner(columns=_ALL.names, filter="x_state IS NULL")
    rows = (batch.select(_ALL.names).cast(_ALL) for batch in scanner.to_batches())
    lance.write_dataset(pa.RecordBatchReader.from_batches(_ALL, rows), to)


def batches(folder: Path) -> Iterator[pa.RecordBatch]:
    """Yields the rows of all documents with their digests, and then the row of the state."""
    rows = []
    for row in rows_of(folder):
        digest = hashlib.blake2b(json.dumps(row).encode(), digest_size=16).digest()
        rows.append({**row, "x_source": _SOURCE, "x_digest": digest})
        if len(rows) == _AT_ONCE:
            yield pa.RecordBatch.from_pylist(rows, _ALL)
            rows = []
    state = json.dumps({"read_at": time.time()})
    digest = hashlib.blake2b(state.encode(), digest_size=16).digest()
    own = {"uuid": _STATE, "title": "state", "x_source": _SOURCE, "x_state": state}
    yield pa.RecordBatch.from_pylist([*rows, {**own, "x_digest": digest}], _ALL)


if __name__ == "__main__":
    if sys.argv[1] == "--from":
        copy(sys.argv[2], sys.argv[3])
    else:
        (
            lance.dataset(sys.argv[2])
            .merge_insert("uuid")
            .when_matched_update_all("target.x_digest <> source.x_digest")
            .when_not_matched_insert_all()
            .execute(pa.Table.from_batches(batches(Path(sys.argv[1])), _ALL))
        )
