"""A source of Airbyte into dlt's Lance destination. Runs in dlt's own environment.

.venv-dlt/bin/python benchmarks/programs_dlt.py PROGRAM CONFIG FOLDER

dlt has no reader of such programs, so a resource of a few lines hands it the records.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dlt
import orjson

_IN_A_BATCH = 1000


def main() -> None:
    """Loads the stream users."""
    program, config, folder = sys.argv[1:]
    stream = {
        "name": "users",
        "json_schema": {},
        "supported_sync_modes": ["full_refresh", "incremental"],
    }
    configured = {"stream": stream, "sync_mode": "full_refresh", "destination_sync_mode": "append"}
    catalog = Path(folder) / "catalog.json"
    catalog.write_text(json.dumps({"streams": [configured]}))
    command = [program, "read", "--config", config, "--catalog", str(catalog)]

    @dlt.resource(primary_key="id", write_disposition="merge")
    def users() -> Iterator[list[Any]]:
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            batch = []
            for line in process.stdout:
                message = orjson.loads(line)
                if message["type"] == "RECORD":
                    batch.append(message["record"]["data"])
                if len(batch) == _IN_A_BATCH:
                    yield batch
                    batch = []
            yield batch

    pipeline = dlt.pipeline(
        "faker",
        pipelines_dir=f"{folder}/state",
        destination=dlt.destinations.lance(storage={"bucket_url": f"{folder}/dlt"}),
        dataset_name="faker",
    )
    pipeline.run(users())


if __name__ == "__main__":
    main()
