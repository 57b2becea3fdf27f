"""Tells other programs of a run: Prometheus by metrics, and OpenLineage by events.

A program that cannot be told does not end a run: it is said in the log.
"""

from __future__ import annotations

import json
import logging
import os
import re
import uuid
from collections.abc import Set
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from contextframe_beam.connectors import secrets
from contextframe_beam.connectors.plain_secrets import has_credentials, without_credentials
from contextframe_beam.errors import ConfigError
from contextframe_beam.store import history
from contextframe_beam.store.address import absolute
from contextframe_beam.store.history import RunRecord, time_of

_LOGGER = logging.getLogger(__name__)

#: The variable with the key of an OpenLineage server, as its own clients read it.
LINEAGE_KEY = "OPENLINEAGE_API_KEY"

_PATIENCE = 10.0
_JOB = "contextframe_beam"
_SCHEMA = "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent"
_FACETS = "https://openlineage.io/spec/facets/{}.json#/$defs/{}"
_ABORTED = (history.INTERRUPTED, history.UNKNOWN)


def is_address(target: str) -> bool:
    """Returns whether a target is a server rather than a file."""
    return target.startswith(("http://", "https://"))


def _refuse_credentials(target: str, what: str) -> None:
    if has_credentials(target):
        raise ConfigError(
            f"the address of the {what} holds a credential: {without_credentials(target)}; give an "
            "address without one, such as that of a gateway on this machine"
        )


class Metrics:
    """Metrics of the last run of each source, as a text file of Prometheus or in a push gateway.

    The file is the one that the text file collector of node_exporter reads:
    https://prometheus.io/docs/instrumenting/exposition_formats/
    As in a gateway, metrics stay until a run of their source replaces them: those of other
    sources, and the time of the last success when a run fails.

    Args:
        target: A file, or the address of a push gateway.

    Raises:
        ConfigError: the library for metrics is not installed, or the address holds a credential.
    """

    def __init__(self, target: str) -> None:
        _refuse_credentials(target, "metrics")
        self._target = target
        try:
            self._library: Any = import_module("prometheus_client")
        except ImportError as error:
            raise ConfigError(
                "metrics need the package prometheus-client, which is not installed; run: "
                "pip install 'contextframe-beam[metrics]'"
            ) from error

    def begun(self, record: RunRecord, to: str) -> None:
        """Does nothing: metrics are of runs that have ended."""

    def ended(self, record: RunRecord, to: str) -> None:
        """Writes or pushes the metrics of a run."""
        registry = self._library.CollectorRegistry()
        labels = {"dataset": to, "connector": record.connector, "source": record.source}
        told = [(name, help, labels, value) for name, (help, value) in metrics_of(record).items()]
        gauges: dict[str, Any] = {}
        for name, help, names, value in [*self._kept(labels.keys()), *told]:
            if name not in gauges:
                gauges[name] = self._library.Gauge(name, help, list(labels), registry=registry)
            gauges[name].labels(**names).set(value)
        if is_address(self._target):
            key = {"source": record.source or record.connector}
            self._library.pushadd_to_gateway(
                self._target, _JOB, registry, grouping_key=key, timeout=_PATIENCE
            )
        else:
            Path(self._target).parent.mkdir(parents=True, exist_ok=True)
            self._library.write_to_textfile(self._target, registry)

    def _kept(self, labels: Set[str]) -> list[tuple[str, str, dict[str, str], float]]:
        """Returns the metrics in the file; those of an address are kept there.

        Raises:
            ValueError: it is the file of another program.
        """
        if is_address(self._target) or not os.path.exists(self._target):
            return []
        parser = import_module("prometheus_client.parser")
        text = Path(self._target).read_text(encoding="utf-8", errors="replace")
        try:
            families = list(parser.text_string_to_metric_families(text))
        except ValueError:
            families = []
        found = [
            (one.name, family.documentation, one.labels, one.value)
            for family in families
            for one in family.samples
            if one.labels.keys() == labels
        ]
        if len(found) < sum(1 for line in text.splitlines() if line and line[0] != "#"):
            raise ValueError(f"{self._target} has something else in it; name another file")
        return found


def metrics_of(record: RunRecord) -> dict[str, tuple[str, float]]:
    """Returns the metrics of a run that has ended: what each means, and its value."""
    end = time_of(record.ended).timestamp()
    told: dict[str, tuple[str, float]] = {
        "contextframe_run_success": ("Whether the last run succeeded.", float(record.succeeded)),
        "contextframe_run_end_time_seconds": ("When it ended, since 1970.", end),
        "contextframe_run_duration_seconds": ("How long it took.", record.seconds or 0.0),
    }
    if record.succeeded:
        told["contextframe_run_last_success_time_seconds"] = ("When a run last succeeded.", end)
    receipt = record.receipt
    if receipt is not None:
        for name, count in receipt.counts.items():
            plain = re.sub(r"\W", "_", name)
            told[f"contextframe_run_{plain}"] = (f"Its count of what is {name}.", float(count))
        told["contextframe_dataset_version"] = ("The version that it made.", receipt.version)
    return told


class Lineage:
    """Events of OpenLineage at the beginning and at the end of a run.

    Args:
        target: A file, to which a line is added for each event, or the address of a server. Its
            key, if it asks for one, is taken from the variable OPENLINEAGE_API_KEY.

    Raises:
        ConfigError: the address holds a credential.
    """

    def __init__(self, target: str) -> None:
        _refuse_credentials(target, "lineage")
        self._target = target

    def begun(self, record: RunRecord, to: str) -> None:
        """Sends the event of a beginning."""
        self._send(lineage_event(record, to))

    def ended(self, record: RunRecord, to: str) -> None:
        """Sends the event of an end."""
        self._send(lineage_event(record, to))

    def _send(self, event: dict[str, Any]) -> None:
        if not is_address(self._target):
            Path(self._target).parent.mkdir(parents=True, exist_ok=True)
            with open(self._target, "a", encoding="utf-8") as file:
                file.write(json.dumps(event) + "\n")
            return
        import requests

        address = self._target.rstrip("/")
        if not urlsplit(address).path.endswith("/lineage"):
            address += "/api/v1/lineage"
        headers = {}
        if LINEAGE_KEY in os.environ:
            key = secrets.resolve(f"env:{LINEAGE_KEY}")
            headers["Authorization"] = f"Bearer {key}"
        answer = requests.post(address, json=event, headers=headers, timeout=_PATIENCE)
        answer.raise_for_status()


def lineage_event(record: RunRecord, to: str) -> dict[str, Any]:
    """Returns the event of a run that begins or has ended.

    The format: https://openlineage.io/spec/2-0-2/OpenLineage.json

    Args:
        record: The run.
        to: The dataset's address.
    """
    producer = f"urn:contextframe-beam:{record.release or 'unknown'}"
    known = record.source or record.connector
    run_id = str(uuid.uuid5(uuid.NAMESPACE_URL, f"{producer}/{record.began}/{record.run_id}"))
    facets: dict[str, Any] = {}
    if record.error:
        facets["errorMessage"] = {
            **_facet(producer, "1-0-1/ErrorMessageRunFacet"),
            "message": record.error,
            "programmingLanguage": "Python",
        }
    return {
        "eventType": _event_type(record),
        "eventTime": record.ended or record.began,
        "producer": producer,
        "schemaURL": _SCHEMA,
        "run": {"runId": run_id, "facets": facets},
        "job": {
            "namespace": _JOB,
            "name": f"{record.connector}.{known}",
            "facets": {
                "jobType": {
                    **_facet(producer, "2-0-4/JobTypeJobFacet"),
                    "processingType": "BATCH",
                    "integration": "CONTEXTFRAME_BEAM",
                    "jobType": "INGEST",
                }
            },
        },
        "inputs": [{"namespace": record.connector, "name": known, "facets": {}}],
        "outputs": [_output(record, to, producer)],
    }


def _event_type(record: RunRecord) -> str:
    if not record.ended:
        return "START"
    if record.succeeded:
        return "COMPLETE"
    return "ABORT" if record.outcome in _ABORTED else "FAIL"


def _output(record: RunRecord, to: str, producer: str) -> dict[str, Any]:
    parts = urlsplit(to) if "://" in to else None
    output: dict[str, Any] = {
        "namespace": f"{parts.scheme}://{parts.netloc}" if parts else "file",
        "name": parts.path.lstrip("/") if parts else absolute(to),
        "facets": {},
    }
    receipt = record.receipt
    if receipt is not None:
        output["facets"]["version"] = {
            **_facet(producer, "1-0-1/DatasetVersionDatasetFacet"),
            "datasetVersion": str(receipt.version),
        }
        output["outputFacets"] = {
            "outputStatistics": {
                **_facet(producer, "1-0-2/OutputStatisticsOutputDatasetFacet"),
                "rowCount": receipt.rows_written + receipt.chunks,
                "size": receipt.bytes,
                "fileCount": receipt.fragments,
            }
        }
    return output


def _facet(producer: str, of: str) -> dict[str, str]:
    return {"_producer": producer, "_schemaURL": _FACETS.format(of, of.rpartition("/")[2])}


class Monitors:
    """Whoever is told of a run.

    Args:
        metrics: Where its metrics go; None for nowhere.
        lineage: Where its events go; None for nowhere.
        to: The dataset's address.

    Raises:
        ConfigError: one of them cannot be told.
    """

    def __init__(self, metrics: str | None, lineage: str | None, to: str) -> None:
        self._told: list[Metrics | Lineage] = []
        if metrics:
            self._told.append(Metrics(metrics))
        if lineage:
            self._told.append(Lineage(lineage))
        self._to = secrets.redact(to)

    def tell(self, record: RunRecord) -> None:
        """Tells all of them of a run that begins or has ended."""
        for one in self._told:
            try:
                (one.ended if record.ended else one.begun)(record, self._to)
            except Exception as error:  # clients of servers have their own errors
                what = type(one).__name__.lower()
                _LOGGER.warning("the %s of the run cannot be written: %s", what, error)
