"""The upsert that everybody writes first: `merge_insert` of all rows of a folder.

python benchmarks/upsert_by_hand.py DOCUMENTS_DIR DATASET         # the upsert
python benchmarks/upsert_by_hand.py --from OUR_DATASET DATASET    # makes the dataset, not measured
"""

from __future__ import annotations

import sys
from pathlib import Path

import lance
import pyarrow as pa
from by_hand import SCHEMA, batches


def copy(source: str, to: str) -> None:
    """Copies the columns that the hand-written script has."""
    names = [name for name in SCHEMA.names if name != "raw_data"]
    schema = pa.schema([SCHEMA.field(name) for name in names])
    scanner = lance.dataset(source).scanner(columns=names, filter="x_state IS NULL")
    rows = (batch.select(names).cast(schema) for batch in scanner.to_batches())
    lance.write_dataset(pa.RecordBatchReader.from_batches(schema, rows), to)


if __name__ == "__main__":
    if sys.argv[1] == "--from":
        copy(sys.argv[2], sys.argv[3])
    else:
        rows = pa.Table.from_batches(batches(Path(sys.argv[1])), SCHEMA).drop_columns("raw_data")
        (
            lance.dataset(sys.argv[2])
            .merge_insert("uuid")
            .when_matched_update_all()
            .when_not_matched_insert_all()
            .execute(rows)
        )
