"""The limit: Arrow's JSON reader straight into Lance, without any mapping.

python benchmarks/limit.py DOCUMENTS_DIR DATASET
"""

from __future__ import annotations

import sys

import lance
import pyarrow.dataset

if __name__ == "__main__":
    documents = pyarrow.dataset.dataset(sys.argv[1], format="json")
    lance.write_dataset(documents.scanner().to_reader(), sys.argv[2])
