"""Reads manifests with Airbyte's own CDK and writes their records. Runs in its own environment.

.venv-airbyte/bin/python benchmarks/airbyte_records.py JOBS OUT

JOBS is a JSON list of [name, manifest, settings, streams]; OUT gets a JSON object of records by
source and stream. A stream that fails has the text of its error instead.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import signal
import sys
from pathlib import Path
from typing import Any, NoReturn

import yaml
from airbyte_cdk.sources.declarative.concurrent_declarative_source import (
    ConcurrentDeclarativeSource,
)

MOST_PARTITIONS = 110
MOST_SECONDS = 120


class OutOfTimeError(BaseException):
    """A stream never ends; no handler of errors may take it for one to try again."""


def out_of_time(*_: object) -> NoReturn:
    """Ends a stream that waits for something that the server never gives."""
    raise OutOfTimeError


def records_of(stream: Any) -> Any:
    """Returns the records of a stream, or why there are none."""
    found: list[Any] = []
    for number, partition in enumerate(stream.generate_partitions()):
        if number >= MOST_PARTITIONS:
            return f"more than {MOST_PARTITIONS} partitions"
        found += [dict(record.data) for record in partition.read()]
    return found


signal.signal(signal.SIGALRM, out_of_time)
logging.disable(logging.CRITICAL)
results: dict[str, Any] = {}
for name, manifest, settings, wanted in json.loads(Path(sys.argv[1]).read_text()):
    results[name] = {}
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            source = ConcurrentDeclarativeSource(
                catalog=None,
                config=settings,
                state=None,
                source_config=yaml.safe_load(Path(manifest).read_text()),
            )
            streams = source.streams(settings)
    except Exception as error:
        results[name] = f"{type(error).__name__}: {error}"[:300]
        continue
    for stream in streams:
        if stream.name not in wanted:
            continue
        signal.alarm(MOST_SECONDS)
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                results[name][stream.name] = records_of(stream)
        except Exception as error:
            results[name][stream.name] = f"{type(error).__name__}: {error}"[:300]
        except OutOfTimeError:
            results[name][stream.name] = f"no end after {MOST_SECONDS} seconds"
        finally:
            signal.alarm(0)
    print(name, file=sys.stderr, flush=True)
Path(sys.argv[2]).write_text(json.dumps(results, default=str))
