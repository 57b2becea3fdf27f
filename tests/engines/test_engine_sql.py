"""PostgreSQL on Prism with two worker processes: one snapshot, and the rows of one process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lance
import pytest

from contextframe_beam.connectors.sql.connector import SqlConnector
from contextframe_beam.pipelines.ingest import ingest
from tests.support.engines import Engines, engines, worker_pool
from tests.support.postgres import Postgres

__all__ = ["engines"]

pytestmark = [pytest.mark.engine, pytest.mark.xdist_group("PrismRunner")]


def stored(kb: Path) -> Any:
    columns = ["uuid", "text_content", "custom_metadata", "x_digest"]
    table = lance.dataset(str(kb)).to_table(columns, filter="x_state IS NULL")
    return table.sort_by([("uuid", "ascending")])


def test_two_workers_read_each_row_once(
    engines: Engines, postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = engines.get("PrismRunner")
    monkeypatch.setenv("SQL_ENGINE", postgres.uri)
    postgres.run(
        "CREATE TABLE notes AS SELECT md5(n::text)::uuid AS id, repeat('text ' || n, 20) AS body, "
        "now() - n * interval '1 minute' AS changed, n / 7.0 AS price "
        "FROM generate_series(1, 20000) n",
        "ALTER TABLE notes ADD PRIMARY KEY (id)",
    )
    connector = SqlConnector("env:SQL_ENGINE", "notes", cursor="changed", timestamp="changed")
    ingest(connector, str(tmp_path / "here"), embed_dim=2)
    with worker_pool(tmp_path, SQL_ENGINE=postgres.uri) as pool:
        options = (f"--environment_config={pool}", "--sdk_worker_parallelism=2")
        how: dict[str, Any] = {
            "runner": engine.runner,
            "beam_args": engine.arguments(*options, workers="EXTERNAL"),
        }
        receipt = ingest(connector, str(tmp_path / "there"), embed_dim=2, **how)
        assert (receipt.rows_written, receipt.partial) == (20_000, ())
        assert stored(tmp_path / "there").equals(stored(tmp_path / "here"))
        postgres.run("UPDATE notes SET body = 'new', changed = now() WHERE price < 1")
        receipt = ingest(connector, str(tmp_path / "there"), embed_dim=2, **how)
    assert receipt.rows_written == 6
    assert receipt.rows_unchanged < 20
