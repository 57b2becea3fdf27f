"""CocoIndex with a memo of files and of vectors, into a LanceDB table.

.venv-cocoindex/bin/python benchmarks/documents_cocoindex.py FOLDER STORE NOTE
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import cocoindex as coco
import numpy as np
from cocoindex.connectors import lancedb, localfs
from cocoindex.resources.file import FileLike
from cocoindex.resources.id import IdGenerator
from cocoindex.resources.schema import VectorSchema
from documents_peers import DIM, embed, note, parse, splitter
from numpy.typing import NDArray

_STORE = coco.ContextKey[lancedb.LanceAsyncConnection]("store")
_cutter = splitter()


@dataclass
class _Row:
    id: int
    source: str
    text: str
    vector: Annotated[NDArray[np.float32], VectorSchema(np.dtype(np.float32), DIM)]


@coco.lifespan
async def _resources(builder: coco.EnvironmentBuilder) -> AsyncIterator[None]:
    builder.settings.db_path = Path(sys.argv[2], "state")
    builder.provide(_STORE, await lancedb.connect_async(sys.argv[2]))
    yield


@coco.fn.as_async(memo=True, batching=True, max_batch_size=100)
def _vectors(texts: list[str]) -> list[NDArray[np.float32]]:
    return list(embed(texts).astype(np.float32))


@coco.fn
async def _store(
    text: str, source: str, ids: IdGenerator, table: lancedb.TableTarget[_Row]
) -> None:
    table.declare_row(row=_Row(await ids.next_id(text), source, text, await _vectors(text)))


@coco.fn(memo=True)
async def _document(file: FileLike, table: lancedb.TableTarget[_Row]) -> None:
    source = str(file.file_path.path)
    chunks = _cutter.split_text(parse(source, await file.read_text()))
    await coco.map(_store, chunks, source, IdGenerator(), table)


@coco.fn
async def _folder(folder: Path) -> None:
    schema = await lancedb.TableSchema.from_class(_Row, primary_key=["id"])
    table = await lancedb.mount_table_target(_STORE, "chunks", schema)
    files = localfs.walk_dir(folder, recursive=True)
    await coco.mount_each(_document, files.items(), table)


if __name__ == "__main__":
    Path(sys.argv[2]).mkdir(parents=True, exist_ok=True)
    app = coco.App(coco.AppConfig(name="documents"), _folder, folder=Path(sys.argv[1]))
    app.update_blocking()
    note(sys.argv[3])
