"""Connectors: sources of documents in other systems, and the tools to write new ones.

Names are imported when they are first used, so that a plain loop over a connector does not load
Apache Beam.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from contextframe_beam.lazy import lazy_names

if TYPE_CHECKING:
    from contextframe_beam.connectors.api.connector import APIConnector
    from contextframe_beam.connectors.base import BaseConnector
    from contextframe_beam.connectors.cursors import clamped_cursor, newest_cursor
    from contextframe_beam.connectors.files.connector import FilesConnector
    from contextframe_beam.connectors.files.item import FileItem
    from contextframe_beam.connectors.json_file import JSONFileConnector
    from contextframe_beam.connectors.kinds import (
        BatchConnector,
        IncrementalConnector,
        PaginatedConnector,
        PartsConnector,
        StreamingConnector,
    )
    from contextframe_beam.connectors.mapper import FieldMapper
    from contextframe_beam.connectors.page import (
        DeadLetter,
        DocumentVersion,
        Page,
        Partition,
        Place,
        SourceInfo,
        Window,
    )
    from contextframe_beam.connectors.read.reader import PlannedRun
    from contextframe_beam.connectors.read.transform import ReadFromConnector
    from contextframe_beam.connectors.registry import (
        build_connector,
        connector_parameters,
        list_connectors,
        load_connector_class,
        sync_parameters,
    )
    from contextframe_beam.connectors.secrets import (
        RedactingFilter,
        SecretReference,
        redact,
        resolved,
    )
    from contextframe_beam.connectors.tables.arrow import ArrowConnector
    from contextframe_beam.connectors.tables.csv_file import CSVConnector
    from contextframe_beam.connectors.tables.parquet import ParquetConnector

__all__ = [
    "APIConnector",
    "ArrowConnector",
    "BaseConnector",
    "BatchConnector",
    "CSVConnector",
    "DeadLetter",
    "DocumentVersion",
    "FieldMapper",
    "FileItem",
    "FilesConnector",
    "IncrementalConnector",
    "JSONFileConnector",
    "Page",
    "PaginatedConnector",
    "ParquetConnector",
    "Partition",
    "PartsConnector",
    "Place",
    "PlannedRun",
    "ReadFromConnector",
    "RedactingFilter",
    "SecretReference",
    "SourceInfo",
    "StreamingConnector",
    "Window",
    "build_connector",
    "clamped_cursor",
    "connector_parameters",
    "list_connectors",
    "load_connector_class",
    "newest_cursor",
    "redact",
    "resolved",
    "sync_parameters",
]

_HOMES = {
    "api.connector": ["APIConnector"],
    "base": ["BaseConnector"],
    "cursors": ["clamped_cursor", "newest_cursor"],
    "files.connector": ["FilesConnector"],
    "files.item": ["FileItem"],
    "json_file": ["JSONFileConnector"],
    "kinds": [
        "BatchConnector",
        "IncrementalConnector",
        "PaginatedConnector",
        "PartsConnector",
        "StreamingConnector",
    ],
    "mapper": ["FieldMapper"],
    "page": [
        "DeadLetter",
        "DocumentVersion",
        "Page",
        "Partition",
        "Place",
        "SourceInfo",
        "Window",
    ],
    "read.reader": ["PlannedRun"],
    "read.transform": ["ReadFromConnector"],
    "registry": [
        "build_connector",
        "connector_parameters",
        "list_connectors",
        "load_connector_class",
        "sync_parameters",
    ],
    "tables.arrow": ["ArrowConnector"],
    "tables.csv_file": ["CSVConnector"],
    "tables.parquet": ["ParquetConnector"],
    "secrets": ["RedactingFilter", "SecretReference", "redact", "resolved"],
}

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
