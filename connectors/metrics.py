"""The names of the counters that a run shows, on every engine. They do not change."""

from __future__ import annotations

NAMESPACE = "contextframe"

PAGES = "pages"
ITEMS = "items"
FAILURES = "failures"
ROWS = "rows"
ROWS_UNCHANGED = "rows_unchanged"
BYTES_READ = "bytes_read"
BYTES_WRITTEN = "bytes_written"
HTTP_REQUESTS = "http_requests"
HTTP_RETRIES = "http_retries"
HTTP_WAIT_MS = "http_wait_ms"
FETCH_MS = "fetch_ms"
