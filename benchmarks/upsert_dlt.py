"""dlt's merge into its Lance destination. Runs in dlt's own environment.

.venv-dlt/bin/python benchmarks/upsert_dlt.py DOCUMENTS_DIR DATASET_DIR STATE_DIR
.venv-dlt/bin/python benchmarks/upsert_dlt.py --make ROWS DOCUMENTS_DIR DATASET_DIR STATE_DIR

The second form makes the target of the first one and is not measured: dlt loads the documents, and
their rows are repeated with other ids until there are ROWS of them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import dlt
import lance
import pyarrow as pa
from dlt.sources.filesystem import filesystem, read_jsonl


def merge(folder: str, to: str, state: str) -> None:
    """Merges the documents of a folder."""
    pipeline = dlt.pipeline(
        "documents",
        pipelines_dir=state,
        destination=dlt.destinations.lance(storage={"bucket_url": to}),
        dataset_name="documents",
    )
    files = filesystem(bucket_url=folder, file_glob="*.jsonl")
    pipeline.run(
        (files | read_jsonl()).with_name("documents"),
        write_disposition={"disposition": "merge", "strategy": "upsert"},
        primary_key="id",
    )


def grow(to: str, count: int) -> None:
    """Repeats the rows of dlt's table under the ids doc-0, doc-1, ... until there are `count`."""
    (path,) = Path(to).rglob("*$documents")
    template = lance.dataset(str(path)).to_table()

    def batches() -> Iterator[pa.RecordBatch]:
        for start in range(0, count, len(template)):
            numbers = range(start, min(start + len(template), count))
            part = template.slice(0, len(numbers))
            for name, made in (("id", "doc-{}"), ("_dlt_id", "made-{}")):
                column = pa.array([made.format(number) for number in numbers], pa.string())
                at = part.schema.get_field_index(name)
                part = part.set_column(at, part.schema.field(name), column)
            yield from part.combine_chunks().to_batches()

    rows = pa.RecordBatchReader.from_batches(template.schema, batches())
    lance.write_dataset(rows, str(path), mode="overwrite")


if __name__ == "__main__":
    if sys.argv[1] == "--make":
        merge(*sys.argv[3:])
        grow(sys.argv[4], int(sys.argv[2]))
    else:
        merge(*sys.argv[1:])
