"""The connector that works on a worker: built from its arguments and authenticated once.

The read and the mapping of one worker thread share it, so that a mapping may use what
`authenticate` prepared. Threads do not share, because connectors need not be thread-safe.
"""

from __future__ import annotations

import pickle
import threading
from typing import Any

from contextframe_beam.connectors.base import BaseConnector

_LOCAL = threading.local()


def live_connector(connector: BaseConnector) -> BaseConnector:
    """Returns this thread's authenticated connector of the same class and arguments.

    Raises:
        ConnectorError: the source refuses, or `authenticate` returns False.
    """
    known: dict[Any, BaseConnector] = vars(_LOCAL).setdefault("connectors", {})
    key = _key_of(connector)
    live = known.get(key)
    if live is None:
        connector.ensure_authenticated()
        live = known[key] = connector
    return live


def _key_of(connector: BaseConnector) -> Any:
    kind = type(connector)
    try:
        arguments = pickle.dumps(connector.__reduce__()[1][1:])
    except Exception:  # arguments that only Beam's pickler takes; shared with nobody then
        return id(connector)
    return kind, arguments
