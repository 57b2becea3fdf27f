"""dlt into its Lance destination, as its documentation sets it up. Runs in dlt's own environment.

.venv-dlt/bin/python benchmarks/dlt_load.py DOCUMENTS_DIR DATASET_DIR
"""

from __future__ import annotations

import sys
import tempfile

import dlt
from dlt.sources.filesystem import filesystem, read_jsonl

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as state:
        pipeline = dlt.pipeline(
            "documents",
            pipelines_dir=state,
            destination=dlt.destinations.lance(storage={"bucket_url": sys.argv[2]}),
            dataset_name="documents",
        )
        files = filesystem(bucket_url=sys.argv[1], file_glob="*.jsonl")
        pipeline.run((files | read_jsonl()).with_name("documents"))
