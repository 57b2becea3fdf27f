"""Makes the data for the upsert benchmark: a large dataset, cheaply, and documents to upsert.

python benchmarks/upsert_data.py DOCUMENTS_DIR DATASET ROWS

The dataset looks as if ROWS documents had been ingested from the one file in DOCUMENTS_DIR. A
thousand documents are encoded; the other rows repeat them with their own keys and digests.
"""

from __future__ import annotations

import itertools
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
from documents import write_documents

from contextframe_beam import FrameDataset
from contextframe_beam.connectors.json_file import JSONFileConnector
from contextframe_beam.frames.encode import encode_records
from contextframe_beam.frames.record import uuid_of
from contextframe_beam.store.address import Address
from contextframe_beam.store.files import Destination
from contextframe_beam.store.transaction import commit_guarded
from contextframe_beam.store.writer import FragmentWriter

EMBED_DIM = 384
FILE = "part-0000.jsonl"
_TEMPLATE = 1000


def write_changes(folder: Path, first: int, changes: int) -> None:
    """Writes the only file of `folder`: documents numbered from `first`."""
    made = folder.with_name(folder.name + ".made")
    shutil.rmtree(made, ignore_errors=True)
    write_documents(made, changes, 1)
    folder.mkdir(parents=True, exist_ok=True)
    with (made / FILE).open() as lines, (folder / FILE).open("w") as file:
        for number, line in zip(itertools.count(first), lines, strict=False):
            file.write(json.dumps({**json.loads(line), "id": f"doc-{number}"}) + "\n")
    shutil.rmtree(made)


def make_dataset(folder: Path, to: Path, rows: int) -> None:
    """Makes a dataset of the documents 0 to `rows` - 1 of the file in `folder`."""
    dataset = FrameDataset.create(str(to), embed_dim=EMBED_DIM)
    writer = FragmentWriter(Destination(str(to)), dataset.schema)
    for batch in _batches(folder, rows):
        writer.add(batch)
    commit_guarded(dataset.lance, writer.close(), properties={}, at=Address(str(dataset.lance.uri)))


def _batches(folder: Path, rows: int) -> Iterator[pa.RecordBatch]:
    connector = JSONFileConnector(directory=str(folder), pattern="*.jsonl")
    connector.authenticate()
    items = itertools.islice(connector.sync_documents_stream(), _TEMPLATE)
    template, _ = encode_records(
        [connector.map_to_frame_record(item) for item in items],
        embed_dim=EMBED_DIM,
        source=connector.source_id({}),
    )
    names, columns = template.schema.names, list(template.columns)
    chance = np.random.default_rng(20261101)
    for start in range(0, rows, _TEMPLATE):
        count = min(_TEMPLATE, rows - start)
        uris = [f"json_file:{folder / FILE}#doc-{start + index}" for index in range(count)]
        own = {
            "uuid": pa.array([uuid_of(uri) for uri in uris]),
            "uri": pa.array(uris),
            "x_digest": pa.FixedSizeBinaryArray.from_buffers(
                pa.binary(16), count, [None, pa.py_buffer(chance.bytes(16 * count))]
            ),
        }
        yield pa.RecordBatch.from_arrays(
            [
                own.get(name, column.slice(0, count))
                for name, column in zip(names, columns, strict=True)
            ],
            schema=template.schema,
        )


if __name__ == "__main__":
    make_dataset(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
