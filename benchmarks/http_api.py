"""The configurations of APIConnector for the benchmark's server, as YAML (in the form of JSON).

python benchmarks/http_api.py SHAPE BASE_URL > CONFIG
"""

from __future__ import annotations

import json
import sys
from typing import Any

from http_server import PARTITIONS

_MAPPING = {"id": "id", "title": "title", "text": "text", "timestamp": "updated_at"}


def configuration(shape: str, base_url: str) -> str:
    """Returns the configuration for `pages` or `partitions`."""
    resources: list[dict[str, Any]]
    if shape == "pages":
        resources = [{"name": "items", "paginator": "page"}]
    else:
        resources = [
            {
                "name": f"part{number}",
                "path": f"partitions/{number}/items",
                "paginator": {"type": "cursor", "cursor": "next"},
            }
            for number in range(PARTITIONS)
        ]
    for resource in resources:
        resource.update(records="data", mapping=_MAPPING)
    return json.dumps({"base_url": base_url, "name": "bench", "resources": resources}, indent=1)


if __name__ == "__main__":
    print(configuration(sys.argv[1], sys.argv[2]))
