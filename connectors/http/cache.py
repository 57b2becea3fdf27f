"""Keeps answers on disk, so that the same request is not sent to a source again.

All processes of a user share one SQLite file. An answer is fresh for the time to live; after that
we ask the server whether it changed, if it gave a validator (ETag or Last-Modified). Keys are
digests of the request before credentials are added to it. Different accounts never share an
answer; the key has a slow salted digest of the account, from which it cannot be guessed.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from urllib3 import HTTPHeaderDict

from contextframe_beam.connectors import secrets
from contextframe_beam.connectors.cursors import seconds_of
from contextframe_beam.connectors.http.request import HttpRequest, HttpResponse, logger
from contextframe_beam.connectors.http.section import checked
from contextframe_beam.connectors.http.settings import CacheSettings
from contextframe_beam.connectors.plain_secrets import looks_secret
from contextframe_beam.connectors.shared_files import locked

_MAX_BYTES = 1 << 30
# The number of stored answers between two checks of the size of the file.
_CHECKED_EVERY = 100
_NOT_KEPT = frozenset({"set-cookie", "set-cookie2", "www-authenticate", "connection"})
_OWN_CONDITIONS = ("If-None-Match", "If-Modified-Since", "Range", "If-Range", "Cookie")

_T = TypeVar("_T")

_TABLES = """
CREATE TABLE IF NOT EXISTS answers (
    key TEXT PRIMARY KEY, stored REAL, used REAL, headers TEXT, body BLOB
);
CREATE INDEX IF NOT EXISTS answers_used ON answers (used);
CREATE TABLE IF NOT EXISTS salt (id INTEGER PRIMARY KEY CHECK (id = 0), value BLOB);
"""


@dataclass(slots=True)
class Kept:
    """A kept answer.

    Attributes:
        headers: Its headers.
        body: Its body.
        fresh: Whether it may be used without asking the server.
    """

    headers: HTTPHeaderDict
    body: bytes
    fresh: bool


class Cache:
    """Answers on disk.

    Args:
        ttl: Seconds for which an answer is used without asking.
        path: The SQLite file; below the user's cache directory by default.
        max_bytes: How many bytes of bodies are kept; the least recently used go first.
        clock: Returns seconds since 1970.
    """

    def __init__(
        self,
        ttl: float,
        path: str | os.PathLike[str] | None = None,
        max_bytes: int = _MAX_BYTES,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.ttl = ttl
        self.path = Path(path).expanduser() if path else _default_path()
        self.max_bytes = max_bytes
        self._clock = clock
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._process = 0
        self._stores = 0
        self._accounts: dict[str, str] = {}
        self._failed = False

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Cache:
        """Makes a cache from `ttl` (seconds, or a duration such as 12h), `path` and `max_bytes`.

        Raises:
            ConfigError: a name is unknown or a value is invalid; the message says which.
        """
        settings = checked(CacheSettings, config, "cache")
        return cls(seconds_of(settings.ttl), settings.path, settings.max_bytes or _MAX_BYTES)

    def key(self, request: HttpRequest, account: str) -> str | None:
        """Returns the key of a request, or None if its answer cannot be kept.

        Args:
            request: The request, absolute, before credentials are added.
            account: Identifies the account; may contain secrets.
        """
        if request.method.upper() != "GET" and request.safe_to_repeat is not True:
            return None
        if any(request.header(name) is not None for name in _OWN_CONDITIONS):
            return None
        asked = json.dumps(
            [
                request.method.upper(),
                request.url,
                sorted((name, str(value)) for name, value in request.params.items()),
                sorted((name.lower(), value) for name, value in request.headers.items()),
                request.json,
                request.form,
            ],
            sort_keys=True,
            default=str,
        )
        named = [*request.params, *request.headers, *(request.form or ())]
        # The secret in a request could be guessed from its digest.
        if any(map(looks_secret, named)) or secrets.without_known(asked) != asked:
            return None
        salted = self._account(account)
        if salted is None:
            return None
        return hashlib.sha256(f"{salted}\0{asked}".encode("utf-8", "surrogatepass")).hexdigest()

    def find(self, key: str) -> Kept | None:
        """Returns the answer with a key."""
        now = self._clock()

        def look(connection: sqlite3.Connection) -> Kept | None:
            row = connection.execute(
                "SELECT stored, headers, body FROM answers WHERE key = ?", (key,)
            ).fetchone()
            if row is None:
                return None
            headers = HTTPHeaderDict(json.loads(row[1]))
            fresh = 0 <= now - row[0] < self.ttl
            if not fresh and not _conditions(headers):
                return None
            connection.execute("UPDATE answers SET used = ? WHERE key = ?", (now, key))
            return Kept(headers, row[2], fresh)

        return self._in_file("read", look)

    def conditional(self, request: HttpRequest, kept: Kept) -> HttpRequest:
        """Returns the request with conditions, for which the server answers 304 without changes."""
        for name, value in _conditions(kept.headers):
            request = request.with_header(name, value)
        return request

    def store(self, key: str, response: HttpResponse) -> None:
        """Keeps a complete answer, unless its headers forbid it."""
        control = (response.headers.get("Cache-Control") or "").lower()
        if response.status != 200 or "no-store" in control or response.headers.get("Vary") == "*":
            return
        text = response.body.decode("utf-8", "replace")
        if secrets.without_known(text) != text:
            return  # careless servers repeat secrets in their answers
        kept = [
            (name, value)
            for name, value in response.headers.items()
            if name.lower() not in _NOT_KEPT
        ]
        now = self._clock()
        row = (key, now, now, secrets.without_known(json.dumps(kept)), response.body)

        def write(connection: sqlite3.Connection) -> None:
            connection.execute("INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?, ?)", row)
            self._stores += 1
            if self._stores % _CHECKED_EVERY == 1:
                self._shrink(connection)

        self._in_file("written", write)

    def confirm(self, key: str) -> None:
        """Makes an answer fresh again, because the server said that it has not changed."""
        change = "UPDATE answers SET stored = ? WHERE key = ?"
        now = self._clock()
        self._in_file("written", lambda connection: connection.execute(change, (now, key)))

    def close(self) -> None:
        """Closes the file."""
        with self._lock:
            if self._connection is not None and self._process == os.getpid():
                self._connection.close()
            self._connection = None

    def _shrink(self, connection: sqlite3.Connection) -> None:
        (size,) = connection.execute("SELECT TOTAL(LENGTH(body)) FROM answers").fetchone()
        if size <= self.max_bytes:
            return
        # We make some extra room, so that this does not happen for each answer.
        excess = size - 0.9 * self.max_bytes
        for key, length in connection.execute(
            "SELECT key, LENGTH(body) FROM answers ORDER BY used"
        ).fetchall():
            connection.execute("DELETE FROM answers WHERE key = ?", (key,))
            excess -= length
            if excess <= 0:
                break

    def _account(self, account: str) -> str | None:
        if not account or account in self._accounts:
            return self._accounts.get(account, "")

        def read_salt(connection: sqlite3.Connection) -> bytes:
            connection.execute("INSERT OR IGNORE INTO salt VALUES (0, ?)", (os.urandom(16),))
            return bytes(connection.execute("SELECT value FROM salt").fetchone()[0])

        salt = self._in_file("read", read_salt)
        if salt is None:
            return None
        digest = hashlib.scrypt(account.encode(), salt=salt, n=2**14, r=8, p=1, dklen=16)
        self._accounts[account] = digest.hex()
        return self._accounts[account]

    def _in_file(self, what: str, do: Callable[[sqlite3.Connection], _T]) -> _T | None:
        """Does something in the file; if the file cannot be used, no answers are kept."""
        with self._lock:
            try:
                if self._connection is None or self._process != os.getpid():
                    self._connection = self._open()
                    self._process = os.getpid()
                with self._connection:
                    return do(self._connection)
            except (sqlite3.Error, OSError) as error:
                level = logging.DEBUG if self._failed else logging.WARNING
                logger.log(level, "the HTTP cache %s cannot be %s: %s", self.path, what, error)
                self._failed = True
                return None

    def _open(self) -> sqlite3.Connection:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(self.path, os.O_CREAT | os.O_CLOEXEC, 0o600))
        connection = sqlite3.connect(self.path, timeout=30, check_same_thread=False)
        # SQLite does not wait for other processes that change to WAL.
        with locked(self.path.with_name(self.path.name + ".lock")):
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")
            connection.executescript(_TABLES)
        return connection


def _conditions(headers: Mapping[str, str]) -> list[tuple[str, str]]:
    found = [
        ("If-None-Match", headers.get("ETag")),
        ("If-Modified-Since", headers.get("Last-Modified")),
    ]
    return [(name, value) for name, value in found if value]


def _default_path() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "contextframe-beam" / "http.sqlite"
