"""Measures the commit of many data files from workers: upsert_fragments.py FILES."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from contextframe_beam import FrameRecord
from contextframe_beam.connectors.page import SourceInfo
from contextframe_beam.frames.encode import encode_records
from contextframe_beam.frames.schema import frame_schema
from contextframe_beam.store.address import Address
from contextframe_beam.store.files import Destination
from contextframe_beam.store.writer import FragmentWriter
from contextframe_beam.transforms.begin import begin_run
from contextframe_beam.transforms.commit import commit_run
from contextframe_beam.transforms.limits import FailureLimit
from contextframe_beam.transforms.modes import mode_of
from contextframe_beam.transforms.plan import Run
from contextframe_beam.transforms.written import Written

EMBED_DIM = 4


def main() -> None:
    """Writes the files, then commits them and prints the seconds of the commit alone."""
    count = int(sys.argv[1])
    with tempfile.TemporaryDirectory() as folder:
        to = str(Path(folder) / "kb.lance")
        records = [FrameRecord(f"text {n}", unique_id=str(n)) for n in range(count)]
        rows, _ = encode_records(records, embed_dim=EMBED_DIM, source="files")
        run = begin_run(
            Run(Address(to), mode_of("upsert"), "many-files", failures=FailureLimit.of(0)),
            EMBED_DIM,
        )
        writer = FragmentWriter(Destination(to), frame_schema(EMBED_DIM), max_rows=1)
        writer.add(rows)
        written = Written(fragments=writer.close(), announced=count)
        tally = written.tally(SourceInfo("files", "files"))
        tally.read = count
        began = time.perf_counter()
        receipt = commit_run(run, written)
        seconds = time.perf_counter() - began
        assert receipt.rows_written == receipt.fragments == count
    print(f"commit of {count:,} data files: {seconds:.2f} s")


if __name__ == "__main__":
    main()
