"""The limit of the scale benchmark: reads and enriches in plain Python, without writing.

python benchmarks/scale_alone.py DOCUMENTS_DIR PROCESSES
"""

from __future__ import annotations

import json
import multiprocessing
import sys
from pathlib import Path

from fingerprints import fingerprint_of


def _read(path: Path) -> int:
    with path.open() as lines:
        return sum(len(fingerprint_of(json.loads(line)["content"])) > 0 for line in lines)


if __name__ == "__main__":
    files = sorted(Path(sys.argv[1]).glob("*.jsonl"))
    with multiprocessing.Pool(int(sys.argv[2])) as pool:
        print(sum(pool.imap_unordered(_read, files)))
