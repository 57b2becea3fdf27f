"""dlt's sql_database into its Lance destination. Runs in dlt's own environment.

.venv-dlt/bin/python benchmarks/dlt_sql.py DATABASE_URL TABLE DATASET_DIR [BACKEND]

Backends are sqlalchemy, the default, and pyarrow.
"""

from __future__ import annotations

import sys
import tempfile

import dlt
from dlt.sources.sql_database import sql_table

if __name__ == "__main__":
    database, table, target, *backend = sys.argv[1:]
    with tempfile.TemporaryDirectory() as state:
        pipeline = dlt.pipeline(
            "rows",
            pipelines_dir=state,
            destination=dlt.destinations.lance(storage={"bucket_url": target}),
            dataset_name="rows",
        )
        address = database.replace("postgresql://", "postgresql+psycopg2://")
        chosen = backend[0] if backend else "sqlalchemy"
        pipeline.run(sql_table(credentials=address, table=table, backend=chosen))
