"""Airbyte's CDK with a declarative manifest, concurrent, reading only. Runs in its own environment.

.venv-airbyte/bin/python benchmarks/http_airbyte.py SHAPE BASE_URL RECORDS
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from airbyte_cdk.entrypoint import AirbyteEntrypoint
from airbyte_cdk.models import AirbyteStateMessage, ConfiguredAirbyteCatalogSerializer
from airbyte_cdk.sources.declarative.concurrent_declarative_source import (
    ConcurrentDeclarativeSource,
)
from http_server import AT_ONCE, PAGE, PARTITIONS

_NO_STATE: list[AirbyteStateMessage] = []


def _option(name: str) -> dict[str, Any]:
    return {"type": "RequestOption", "inject_into": "request_parameter", "field_name": name}


def _manifest(shape: str, base_url: str) -> dict[str, Any]:
    if shape == "pages":
        path = "items"
        strategy: dict[str, Any] = {
            "type": "PageIncrement",
            "page_size": PAGE,
            "start_from_page": 1,
            "inject_on_first_request": True,
        }
        token = _option("page")
    else:
        path = "partitions/{{ stream_partition.part }}/items"
        strategy = {
            "type": "CursorPagination",
            "cursor_value": "{{ response.next }}",
            "stop_condition": "{{ not response.next }}",
        }
        token = _option("cursor")
    retriever: dict[str, Any] = {
        "type": "SimpleRetriever",
        "requester": {
            "type": "HttpRequester",
            "url_base": base_url,
            "path": path,
            "http_method": "GET",
        },
        "record_selector": {
            "type": "RecordSelector",
            "extractor": {"type": "DpathExtractor", "field_path": ["data"]},
        },
        "paginator": {
            "type": "DefaultPaginator",
            "page_token_option": token,
            "pagination_strategy": strategy,
        },
    }
    if shape != "pages":
        retriever["partition_router"] = {
            "type": "ListPartitionRouter",
            "cursor_field": "part",
            "values": [str(number) for number in range(PARTITIONS)],
        }
    schema = {"type": "object", "additionalProperties": True, "properties": {}}
    return {
        "version": "6.0.0",
        "type": "DeclarativeSource",
        "check": {"type": "CheckStream", "stream_names": ["items"]},
        # The same number as the others.
        "concurrency_level": {"type": "ConcurrencyLevel", "default_concurrency": AT_ONCE},
        "streams": [
            {
                "type": "DeclarativeStream",
                "name": "items",
                "primary_key": ["id"],
                "retriever": retriever,
                "schema_loader": {"type": "InlineSchemaLoader", "schema": schema},
            }
        ],
        "spec": {
            "type": "Spec",
            "connection_specification": {"type": "object", "properties": {}},
        },
    }


_CATALOG: dict[str, Any] = {
    "streams": [
        {
            "stream": {
                "name": "items",
                "json_schema": {"type": "object"},
                "supported_sync_modes": ["full_refresh"],
            },
            "sync_mode": "full_refresh",
            "destination_sync_mode": "append",
        }
    ]
}


def _read(shape: str, base_url: str, folder: Path) -> int:
    config, catalog = folder / "config.json", folder / "catalog.json"
    config.write_text("{}")
    catalog.write_text(json.dumps(_CATALOG))
    source = ConcurrentDeclarativeSource(
        catalog=ConfiguredAirbyteCatalogSerializer.load(_CATALOG),
        config={},
        state=_NO_STATE,
        source_config=_manifest(shape, base_url),
    )
    arguments = ["read", "--config", str(config), "--catalog", str(catalog)]
    messages = AirbyteEntrypoint(source).run(AirbyteEntrypoint.parse_args(arguments))
    return sum('"type":"RECORD"' in message[:2000] for message in messages)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        found = _read(sys.argv[1], sys.argv[2], Path(scratch))
    if found != int(sys.argv[3]):
        raise SystemExit(f"read {found} records, not {sys.argv[3]}")
