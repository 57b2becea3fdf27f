"""APIs over HTTP as sources: configured, paged, read in parallel where they allow it."""

from __future__ import annotations

from contextframe_beam.connectors.api.check import CheckReport, check
from contextframe_beam.connectors.api.connector import APIConnector

__all__ = ["APIConnector", "CheckReport", "check"]
