"""The beginning of a run: looks at the dataset before anything is read, and makes its columns."""

from __future__ import annotations

import logging
import uuid
from dataclasses import replace

import lance

from contextframe_beam.connectors import secrets
from contextframe_beam.errors import DatasetError, SchemaError
from contextframe_beam.frames.fields import fields_of
from contextframe_beam.frames.schema import DEFAULT_EMBED_DIM, embed_dim_of, frame_schema
from contextframe_beam.store.files import open_dataset
from contextframe_beam.store.runs import COMMITS
from contextframe_beam.store.schema import add_fields, adopt, joined_fields
from contextframe_beam.store.versions import open_newest
from contextframe_beam.transforms.guards import committed_receipt, refuse_other_embedder
from contextframe_beam.transforms.plan import Run

__all__ = ["begin_run"]

_LOGGER = logging.getLogger(COMMITS)


def begin_run(run: Run, embed_dim: int | None = None) -> Run:
    """Looks at the dataset before reading, and refuses a run that could not be committed.

    Args:
        run: The settings of the run.
        embed_dim: The requested length of vectors; None for the dataset's length.

    Returns:
        The run, completed from the dataset.
    """
    secrets.register_store(run.storage_options)
    run = replace(run, start=uuid.uuid4().hex[:16])
    dataset = open_dataset(run.address)
    embed_dim = embed_dim if run.embedder is None else run.embedder.dim
    if dataset is None:
        embed_dim = DEFAULT_EMBED_DIM if embed_dim is None else embed_dim
    else:
        if run.mode.needs_new and committed_receipt(run.address, run.run_id) is None:
            raise DatasetError(
                f"{run.uri} exists already; choose the mode upsert, append or overwrite, "
                "or another path"
            )
        try:
            stored = embed_dim_of(dataset.schema)
        except SchemaError as error:
            raise SchemaError(f"{run.uri}: {error}") from error
        refuse_other_embedder(run, dataset)
        changes = embed_dim is not None and embed_dim != stored and not run.mode.replaces_all
        if changes and run.embedder is None:
            raise SchemaError(
                f"{run.uri} is made for vectors of {stored} values, and the run asks for "
                f"{embed_dim}; leave `embed_dim` out, or write to another path"
            )
        if embed_dim is None:
            embed_dim = stored
        if not run.mode.replaces_all and not run.dry_run:
            dataset = _with_columns(adopt(dataset, run.address), run)
        run = replace(
            run,
            fields=joined_fields(dataset, run.fields),
            storage_version=dataset.data_storage_version,
            base_version=int(dataset.version),
            new_dim=changes,
        )
    frame_schema(embed_dim)  # refuses a length that no vector has
    return replace(run, embed_dim=embed_dim)


def _with_columns(dataset: lance.LanceDataset, run: Run) -> lance.LanceDataset:
    """Makes the run's own fields columns of the dataset, filled for what is stored already."""
    if len(joined_fields(dataset, run.fields)) == len(fields_of(dataset.schema)):
        return dataset
    added = add_fields(run.address, run.fields)
    if added.misfits:
        _LOGGER.warning("%s", added.what_is_null)
    return open_newest(run.address)
