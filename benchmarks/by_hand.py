"""The loader that everybody writes first: a loop over lines that builds frames with `from_pylist`.

The rows have the same content as those of `contextframe-beam ingest json`, in the format's columns.

    python benchmarks/by_hand.py DOCUMENTS_DIR DATASET
"""

from __future__ import annotations

import json
import sys
import uuid
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import lance
import pyarrow as pa

from contextframe_beam.frames.record import NAMESPACE
from contextframe_beam.frames.schema import FORMAT_COLUMNS, frame_schema

_FULL = frame_schema()
# Without vectors, which from_pylist would fill with 6 KB of zeros for each row.
SCHEMA = pa.schema([_FULL.field(name) for name in FORMAT_COLUMNS if name != "vector"])


def row_of(item: dict[str, Any], path: Path, modified: str) -> dict[str, Any]:
    """Returns the row of one document."""
    unique_id = f"json_file:{path}#{item['id']}"
    metadata = {
        "source": "json_file",
        "file_path": str(path),
        "file_name": path.name,
        "modified_at": modified,
        "timestamp": modified,
        **{key: value for key, value in item.items() if key not in ("content", "title", "tags")},
    }
    return {
        "uuid": str(uuid.uuid5(NAMESPACE, unique_id)),
        "text_content": item["content"],
        "title": item["title"],
        "uri": unique_id,
        "author": item["author"]["name"],
        "created_at": item["created_at"][:10],
        "updated_at": item["updated_at"][:10],
        "tags": item["tags"],
        "custom_metadata": [
            {"key": key, "value": value if isinstance(value, str) else json.dumps(value)}
            for key, value in metadata.items()
            if value is not None
        ],
        "record_type": "document",
    }


def rows_of(folder: Path) -> Iterator[dict[str, Any]]:
    """Yields the rows of all documents."""
    for path in sorted(folder.glob("*.jsonl")):
        modified = datetime.fromtimestamp(path.stat().st_mtime, timezone.utc).isoformat()
        with path.open() as file:
            for line in file:
                yield row_of(json.loads(line), path, modified)


def batches(folder: Path) -> Iterator[pa.RecordBatch]:
    """Yields the rows of all documents in batches of 1,000."""
    rows = []
    for row in rows_of(folder):
        rows.append(row)
        if len(rows) == 1000:
            yield pa.RecordBatch.from_pylist(rows, SCHEMA)
            rows = []
    if rows:
        yield pa.RecordBatch.from_pylist(rows, SCHEMA)


if __name__ == "__main__":
    lance.write_dataset(
        pa.RecordBatchReader.from_batches(SCHEMA, batches(Path(sys.argv[1]))), sys.argv[2]
    )
