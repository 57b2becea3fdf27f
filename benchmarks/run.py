"""Measures speed against the limits and other loaders: whole processes, in turn, in one run.

make bench                                    # files: 1,000,000 documents; http: 20,000 records
make bench BENCH='ingest --documents 100000 --rounds 1'
make bench BENCH='http --http-records 200000 --rounds 1'
make bench BENCH=columns                      # JSON, Parquet, SQL by columns; when named only
make bench BENCH=upsert                       # into up to 5,000,000 rows; when named only
make bench BENCH=scale                        # costly enrichment, start-up by engine; when named
make bench BENCH=search                       # 100,000 chunks of documentation; when named only
make bench BENCH='documents --folder DIR'     # documents to vectors; when named
make bench BENCH=connectors                   # services beside peers' connectors; when named
"""

from __future__ import annotations

import argparse
from pathlib import Path

import columns_run
import connectors_run
import documents_run
import http_run
import ingest_run
import programs_run
import scale_run
import startup_run
import upsert_run

GROUPS = (
    "ingest",
    "http",
    "columns",
    "upsert",
    "scale",
    "search",
    "documents",
    "connectors",
    "programs",
)


def main() -> None:
    """Measures the groups that the arguments name."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "groups",
        nargs="*",
        metavar="GROUP",
        help="ingest (from files), http (from an API), columns, upsert, scale (costly "
        "enrichment and start-up), search, documents (to vectors), connectors, programs (of "
        "Airbyte); the first two by default",
    )
    parser.add_argument("--documents", type=int, default=1_000_000, help="for ingest and columns")
    parser.add_argument("--http-records", type=int, default=20_000, help="for http")
    parser.add_argument("--enriched", type=int, default=10_000, help="for scale")
    parser.add_argument("--chunks", type=int, default=100_000, help="for search")
    parser.add_argument("--issues", type=int, default=250, help="for connectors of GitHub")
    parser.add_argument("--records", type=int, default=100_000, help="for programs")
    parser.add_argument(
        "--messages", type=int, default=2000, help="for connectors of Discord and Slack"
    )
    parser.add_argument("--drive-documents", type=int, default=500, help="for connectors of Drive")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where inputs are kept between runs")
    parser.add_argument("--workers", type=int, default=1, help="of ours, for documents")
    options = parser.parse_args()
    groups = options.groups or ("ingest", "http")
    for name in groups:
        if name not in GROUPS:
            parser.error(f"there is no group {name!r}; choose from {', '.join(GROUPS)}")
    if "ingest" in groups:
        ingest_run.measure(options.documents, options.rounds, options.folder)
    if "http" in groups:
        http_run.measure(options.http_records, options.rounds)
    if "columns" in groups:
        columns_run.measure(options.documents, options.rounds, options.folder)
    if "upsert" in groups:
        upsert_run.measure(options.rounds)
    if "scale" in groups:
        scale_run.measure(options.enriched, options.rounds)
        startup_run.measure(options.rounds)
    if "search" in groups:
        import search_run  # with the extras documents and embed, which other groups do without

        search_run.measure(options.chunks, options.folder)
    if "documents" in groups:
        documents_run.measure(options.rounds, options.folder, options.workers)
    if "connectors" in groups:
        connectors_run.measure(options.issues, options.messages, options.drive_documents)
    if "programs" in groups:
        programs_run.measure(options.records)


if __name__ == "__main__":
    main()
