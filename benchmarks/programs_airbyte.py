"""A source of Airbyte into a local file of DuckDB, by Airbyte's own library, in its environment.

.venv-pyairbyte/bin/python benchmarks/programs_airbyte.py PROGRAM CONFIG FOLDER
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

os.environ.update(DO_NOT_TRACK="1", AIRBYTE_OFFLINE_MODE="1")

import airbyte
from airbyte.caches import DuckDBCache

if __name__ == "__main__":
    program, config, folder = sys.argv[1:]
    source = airbyte.get_source(
        "source-faker",
        config=json.loads(Path(config).read_text()),
        local_executable=Path(program),
        streams=["users"],
    )
    cache = DuckDBCache(db_path=f"{folder}/faker.duckdb", cache_dir=folder)
    result = source.read(cache=cache, force_full_refresh=True)
    print(result.processed_records)
