"""dlt's rest_api source into its Lance destination. Runs in dlt's own environment.

.venv-dlt/bin/python benchmarks/http_dlt.py SHAPE BASE_URL DATASET_DIR
"""

from __future__ import annotations

import os
import sys
import tempfile
from typing import Any

import dlt
from dlt.sources.rest_api import rest_api_source
from http_server import AT_ONCE, PARTITIONS

# The same number as the others; by default dlt reads 5 partitions at once.
os.environ.setdefault("EXTRACT__WORKERS", str(AT_ONCE))

_PAGES = {"type": "page_number", "base_page": 1, "total_path": "total_pages"}
_CURSOR = {"type": "cursor", "cursor_path": "next", "cursor_param": "cursor"}


def _resources(shape: str) -> list[dict[str, Any]]:
    if shape == "pages":
        return [_resource("items", "items", _PAGES)]
    return [
        _resource(f"part{number}", f"partitions/{number}/items", _CURSOR)
        for number in range(PARTITIONS)
    ]


def _resource(name: str, path: str, paginator: dict[str, Any]) -> dict[str, Any]:
    endpoint = {"path": path, "data_selector": "data", "paginator": paginator}
    return {"name": name, "table_name": "items", "endpoint": endpoint}


if __name__ == "__main__":
    source: Any = {"client": {"base_url": sys.argv[2]}, "resources": _resources(sys.argv[1])}
    with tempfile.TemporaryDirectory() as state:
        pipeline = dlt.pipeline(
            "items",
            pipelines_dir=state,
            destination=dlt.destinations.lance(storage={"bucket_url": sys.argv[3]}),
            dataset_name="items",
        )
        pipeline.run(rest_api_source(source, parallelized=True))
