"""What is written about requests: one line each at debug level, as text or as JSON.

Lines name method, host, path, status, milliseconds and attempt; never a query, a header or a body.
What the libraries below write at debug level goes through the same filter, because they log whole
addresses.
"""

from __future__ import annotations

import json
import logging
from datetime import datetime, timezone
from urllib.parse import urlsplit

from contextframe_beam.connectors.page import encode_item
from contextframe_beam.connectors.secrets import RedactingFilter, redact, redacted

logger = logging.getLogger("contextframe_beam.http")

_FILTER = RedactingFilter()
_CHATTY = (
    "urllib3.connectionpool",
    "urllib3.connection",
    "urllib3.poolmanager",
    "urllib3.util.retry",
)

for _name in (logger.name, *_CHATTY):
    logging.getLogger(_name).addFilter(_FILTER)


_STANDARD = frozenset({*vars(logging.makeLogRecord({})), "message", "asctime", "http"})


class JsonFormatter(logging.Formatter):
    """Writes each log record as one line of JSON without secrets.

    Fields: time, level, logger, message; those of a request (method, host, path, status, ms,
    attempt) where there is one; what `extra={...}` gave; exception, where there is one.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Returns the line."""
        given = {name: one for name, one in vars(record).items() if name not in _STANDARD}
        line: dict[str, object] = {
            **redacted(encode_item(given)),
            "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": redact(record.getMessage()),
            **getattr(record, "http", {}),
        }
        if record.exc_info and not record.exc_text:
            record.exc_text = self.formatException(record.exc_info)
        if record.exc_text:
            line["exception"] = redact(record.exc_text)
        return json.dumps(line, default=str)


def log_request(method: str, url: str, status: int | str, seconds: float, attempt: int) -> None:
    """Writes the line of one request, if anybody listens.

    Args:
        method: GET, POST, ...
        url: The address; only its host and path are written.
        status: The answer's status, or what happened instead.
        seconds: From the request to the end of the body.
        attempt: 1 for the first.
    """
    if not logger.isEnabledFor(logging.DEBUG):
        return
    parts = urlsplit(url)
    fields = {
        "method": method,
        "host": parts.netloc.rpartition("@")[2],
        "path": redact(parts.path or "/"),
        "status": status,
        "ms": round(seconds * 1000, 1),
        "attempt": attempt,
    }
    logger.debug(
        "%(method)s %(host)s%(path)s %(status)s in %(ms)s ms, attempt %(attempt)d",
        fields,
        extra={"http": fields},
    )
