"""Whether the files that a version names are still there.

Lance's cleanup deletes the files of old versions before the versions themselves. One that was
killed in between leaves versions that can be opened, and not be read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from lance import LanceDataset

from contextframe_beam.errors import DatasetError
from contextframe_beam.fragments import reading, side_folder

# Blobs of these kinds lie in files beside their data file: one file for several, or one for each.
_SIDE_KINDS = pa.array([1, 2], pa.uint8())
_BESIDE = ("kind", "blob_id")


def require_files(dataset: LanceDataset) -> None:
    """Checks that nothing is missing of the version that `dataset` is.

    Raises:
        DatasetError: a file is missing or is shorter than it was.
    """
    with reading(dataset.uri):
        present: dict[str, int] = {}
        for batch in dataset.all_files():
            present.update(
                zip(batch["path"].to_pylist(), batch["size_bytes"].to_pylist(), strict=True)
            )
        lost = next(_lost(dataset, present), None)
    if lost is not None:
        raise DatasetError(
            f"version {dataset.version} of {dataset.uri} is not whole: {lost} is missing. A "
            "cleanup that was killed had begun to remove it; another one, with the same `keep`, "
            "removes the rest"
        )


def _lost(dataset: LanceDataset, present: Mapping[str, int]) -> Iterator[str]:
    """Yields what the version names in its own folder and is not there."""
    for fragment in dataset.get_fragments():
        for file in fragment.metadata.files:
            path = f"data/{file.path}"
            if file.base_id is None and present.get(path, -1) < (file.file_size_bytes or 0):
                yield path
        deletions: Any = fragment.metadata.deletion_file
        if deletions is not None and deletions.base_id is None:
            path = deletions.path(fragment.fragment_id)
            if path not in present:
                yield path
    for index in dataset.describe_indices():
        for segment in index.segments:
            folder = f"_indices/{segment.uuid}/"
            size = sum(size for path, size in present.items() if path.startswith(folder))
            if segment.base_id is None and size < (segment.size_bytes or 1):
                yield f"a part of the index {index.name}"
    if isinstance(dataset.schema.field("raw_data").type, pa.ExtensionType):
        yield from _lost_raw_data(dataset, present)


def _lost_raw_data(dataset: LanceDataset, present: Mapping[str, int]) -> Iterator[str]:
    """Yields data files whose raw data lies beside them, as in format 2.2, and is not all there.

    Nothing but the rows tells how many files that are.
    """
    beside = Counter(path.rpartition("/")[0] + "/" for path in present)
    for fragment in dataset.get_fragments():
        wanted = set()
        for batch in fragment.to_batches(columns=["raw_data"]):
            kind, number = (pc.struct_field(batch["raw_data"], name) for name in _BESIDE)
            wanted.update(number.filter(pc.is_in(kind, _SIDE_KINDS)).to_pylist())
        folders = [f"data/{side_folder(file.path)}" for file in fragment.metadata.files]
        if len(wanted) > sum(beside[folder] for folder in folders):
            yield f"raw data in {folders[0]}"
