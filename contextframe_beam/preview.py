"""Reading data files that no transaction has named yet, as if they were a dataset.

Lance's reader of single files does not find the columns of every file format, nor the raw data
beside them. So the files are read through a dataset that exists in memory only and names them
where they are.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Sequence

import lance
import pyarrow as pa
from lance import DatasetBasePath
from lance.dataset import LanceOperation
from lance.fragment import FragmentMetadata

from contextframe_beam.errors import CommitError
from contextframe_beam.fragments import Destination, WrittenFragment, first_line, open_dataset
from contextframe_beam.transaction import lance_schema

_BASE = 1


def preview(
    destination: Destination, schema: pa.Schema, fragments: Sequence[WrittenFragment]
) -> lance.LanceDataset:
    """Returns a dataset of written fragments, in their order: the first one has the id 0.

    Args:
        destination: Where they were written to.
        schema: The columns that they were written with.
        fragments: At least one.

    Raises:
        CommitError: they do not fit together.
    """
    options = dict(destination.storage_options) if destination.storage_options else None
    dataset = open_dataset(destination.uri, options)
    if dataset is None:
        columns = lance_schema(schema, destination.storage_version, overwrites=False)
    elif destination.overwrites:
        columns = lance_schema(schema, dataset.data_storage_version, overwrites=True)
    else:
        columns = dataset.lance_schema
    uri = destination.uri
    base = DatasetBasePath(
        path=uri if "://" in uri else os.path.abspath(uri),
        id=_BASE,
        is_dataset_root=True,
    )
    try:
        return lance.LanceDataset.commit(
            f"memory://preview-{uuid.uuid4().hex}",
            LanceOperation.Overwrite(
                columns, [_at_base(fragment) for fragment in fragments], initial_bases=[base]
            ),
            storage_options=options,
        )
    except (OSError, ValueError) as error:
        raise CommitError(
            f"the data files that were written to {uri} cannot be read again: "
            f"{first_line(error)}; nothing was committed, run it again"
        ) from error


def _at_base(fragment: WrittenFragment) -> FragmentMetadata:
    """Describes a fragment whose files lie in the dataset that they were written to."""
    described = json.loads(fragment.metadata)
    for file in described["files"]:
        file["base_id"] = _BASE
    return FragmentMetadata.from_json(json.dumps(described))
