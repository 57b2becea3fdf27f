"""Reads everything in a configuration, like a pipeline's worker, and does nothing else.

It writes the seconds of reading, without imports, to a file.

    python benchmarks/http_read.py CONFIG RECORDS SECONDS_FILE
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from contextframe_beam.connectors.api import APIConnector
from contextframe_beam.connectors.read.source import Source

if __name__ == "__main__":
    connector = APIConnector(config=sys.argv[1])
    connector.authenticate()
    began = time.perf_counter()
    read = sum(len(page.items) for page in Source(connector).pages())
    seconds = time.perf_counter() - began
    if read != int(sys.argv[2]):
        raise SystemExit(f"read {read} records, not {sys.argv[2]}")
    Path(sys.argv[3]).write_text(str(seconds))
