"""The limit for tables: Parquet straight into Lance, without any mapping.

python benchmarks/limit_parquet.py FOLDER DATASET
"""

from __future__ import annotations

import sys

import lance
import pyarrow.dataset

if __name__ == "__main__":
    rows = pyarrow.dataset.dataset(sys.argv[1], format="parquet")
    lance.write_dataset(rows.scanner().to_reader(), sys.argv[2])
