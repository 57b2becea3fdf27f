"""Address: which database an address names, the driver that reads it, and what is shown of it.

An address is a URL: `postgresql://host/db`, `sqlite:///notes.db`, `duckdb:///notes.duckdb`, or one
of a driver's own scheme. PostgreSQL's `host=... dbname=...` works too.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from contextframe_beam.connectors.plain_secrets import credentials_in, without_credentials
from contextframe_beam.connectors.secrets import SecretReference
from contextframe_beam.errors import ConfigError, ConnectorError

#: The databases whose drivers are packages of Python: the module, and what installs it.
DRIVERS = {
    "postgresql": ("adbc_driver_postgresql", "contextframe-beam[postgresql]"),
    "sqlite": ("adbc_driver_sqlite", "contextframe-beam[sqlite]"),
    "duckdb": ("adbc_driver_duckdb", "contextframe-beam[duckdb]"),
    "snowflake": ("adbc_driver_snowflake", "contextframe-beam[snowflake]"),
    "bigquery": ("adbc_driver_bigquery", "contextframe-beam[bigquery]"),
    "flightsql": ("adbc_driver_flightsql", "contextframe-beam[flightsql]"),
}
_KINDS = {
    "postgres": "postgresql",
    "grpc": "flightsql",
    "grpc+tcp": "flightsql",
    "grpc+tls": "flightsql",
    "grpc+unix": "flightsql",
}
_SCHEME = re.compile(r"([A-Za-z][\w.-]*)(\+[\w.-]+)?://")
_PAIR = re.compile(r"(\w+)\s*=\s*('(?:[^'\\]|\\.)*'|\S*)")
_EXAMPLES = "postgresql://user@host/database, sqlite:///notes.db or duckdb:///notes.duckdb"
_PORT = "5432"
# Without a limit, a host that drops packets keeps a run waiting for two minutes.
_CONNECT_SECONDS = "15"


@dataclass(frozen=True, slots=True)
class Address:
    """Where a database is.

    Attributes:
        kind: The database: `postgresql`, `sqlite`, `duckdb`, or the scheme of another one.
        shown: The address without user, password and settings; it identifies the database.
        target: What the driver takes; it may hold a password.
    """

    kind: str
    shown: str
    target: str = field(repr=False)

    @property
    def is_file(self) -> bool:
        """Whether the database is a file on this machine."""
        return self.kind in ("sqlite", "duckdb")

    def connect(self) -> Any:
        """Opens a connection that can only read, where the driver knows how.

        Raises:
            ConfigError: the driver is not installed.
            Exception: the driver's own, if the database cannot be opened.
        """
        manager = _manager()
        if self.kind not in DRIVERS:
            return self._other(manager)
        library, entry = _library(self.kind)
        if self.kind == "duckdb":
            settings = {"path": self.target, "access_mode": "READ_ONLY"}
        else:
            settings = {"uri": self.target}
        if self.is_file:
            self._require_file()
        return manager.connect(driver=library, entrypoint=entry, db_kwargs=settings)

    def _other(self, manager: Any) -> Any:
        """Connects with a driver that is installed under the scheme's name."""
        try:
            return manager.connect(driver=self.kind, db_kwargs={"uri": self.target})
        except Exception as error:
            if "Could not load" not in str(error) and "not found" not in str(error).lower():
                raise
        raise ConfigError(
            f"no ADBC driver is installed for {self.kind}:// addresses; those with packages of "
            f"their own are for {', '.join(DRIVERS)}; another one has to be installed under the "
            f"name {self.kind}"
        )

    def _require_file(self) -> None:
        path = self.shown.partition("://")[2]
        if os.path.isfile(path):
            return
        hint = ""
        start = f"{os.getcwd()}{os.sep}"
        if path.startswith(start) and os.path.isfile(os.sep + path.removeprefix(start)):
            hint = (
                f"; an absolute path has four slashes: {self.kind}:////{path.removeprefix(start)}"
            )
        raise ConnectorError(f"there is no database file {path}{hint}")


def address_of(uri: str) -> Address:
    """Reads the address of a database.

    Args:
        uri: The address, or a reference to a secret that holds it.

    Raises:
        ConfigError: it is not an address, or it is plain text that holds a password.
        SecretError: the reference cannot be resolved.
    """
    if isinstance(uri, SecretReference):
        text, where = uri.get().strip(), f"the address in {uri.reference}"
    else:
        text, where = uri.strip(), "uri"
        refuse_password(text)
    match = _SCHEME.match(text)
    if match is None:
        pairs = {name.lower(): value.strip("'") for name, value in _PAIR.findall(text)}
        if "dbname" in pairs or "host" in pairs or "service" in pairs:
            return _of_pairs(text, pairs)
        if os.path.exists(text) or re.search(r"\.(?:db|sqlite3?|duckdb)\Z", text):
            kind = "duckdb" if text.endswith("duckdb") else "sqlite"
            hint = f"; a file is given as {kind}:///{text}"
        else:
            hint = f"; an address is one such as {_EXAMPLES}"
        raise ConfigError(f"{where} is not the address of a database{hint}")
    scheme = match[1].lower()
    kind = _KINDS.get(f"{scheme}{match[2] or ''}".lower()) or _KINDS.get(scheme, scheme)
    rest = text[match.end() :]
    if kind in ("sqlite", "duckdb"):
        return _of_file(kind, rest, where)
    if kind == "postgresql":
        return _of_postgresql(rest, where)
    own = rest if kind == "snowflake" else text
    return Address(kind, _without_user(f"{kind}://{rest}"), own)


def refuse_password(uri: str) -> None:
    """Refuses an address with a password in plain text, which would be stored and shown.

    Raises:
        ConfigError: it holds one.
    """
    if not isinstance(uri, SecretReference) and credentials_in(uri, "dsn"):
        raise ConfigError(
            f"uri holds a password: {without_credentials(uri, 'dsn')}; put the whole address into "
            "an environment variable or a file and give its name: env:DB or file:db.txt"
        )


def _of_file(kind: str, rest: str, where: str) -> Address:
    """Reads `sqlite:///PATH`: three slashes before a relative path, four before an absolute one."""
    if not rest.startswith("/") or rest.strip("/") in ("", ":memory:"):
        raise ConfigError(
            f"{where} names no file: give {kind}:///notes.db, or {kind}:////data/notes.db for "
            "an absolute path; a database in memory cannot be read from here"
        )
    path = unquote(rest[1:].partition("?")[0])
    path = os.path.abspath(os.path.expanduser(path))
    if kind == "duckdb":
        return Address(kind, f"duckdb://{path}", path)
    # A plain path would make a file that is missing, and a WAL that nobody asked for.
    return Address(kind, f"sqlite://{path}", f"file:{quote(path)}?mode=ro")


def _of_postgresql(rest: str, where: str) -> Address:
    text = f"postgresql://{rest}"
    try:
        parts = urlsplit(text)
        user, _, server = parts.netloc.rpartition("@")
        port = parts.port if "," not in server else None
        odd = "@" in user or "@" in parts.path
    except ValueError:
        odd = True
    if odd:
        raise ConfigError(
            f"{where} cannot be read as postgresql://user:password@host:port/database; if its "
            "password has one of the characters @ : / ? # % [ ], write it percent-encoded (%40 "
            "is @, %2F is /)"
        ) from None
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    named = _named(
        query.get("host") or query.get("hostaddr") or server.rpartition(":")[0] or server,
        query.get("port") or (str(port) if port else ""),
        query.get("dbname") or unquote(parts.path[1:]),
        query.get("service", ""),
        server if "," in server else "",
    )
    more = {"connect_timeout": _CONNECT_SECONDS, "application_name": "contextframe-beam"}
    query = {**more, **query}
    target = f"postgresql://{parts.netloc}{parts.path}?{urlencode(query, quote_via=quote)}"
    return Address("postgresql", named, target)


def _of_pairs(text: str, pairs: dict[str, str]) -> Address:
    named = _named(
        pairs.get("host") or pairs.get("hostaddr", ""),
        pairs.get("port", ""),
        pairs.get("dbname", ""),
        pairs.get("service", ""),
    )
    if "connect_timeout" not in pairs:
        text = f"connect_timeout={_CONNECT_SECONDS} {text}"
    return Address("postgresql", named, text)


def _named(host: str, port: str, database: str, service: str, servers: str = "") -> str:
    """Returns what identifies a database of PostgreSQL, however its address is written."""
    if service and not host:
        return f"postgresql:///{database}?service={service}"
    server = servers or f"{host.lower() or 'localhost'}:{port or _PORT}"
    return f"postgresql://{server}/{database}"


def _without_user(text: str) -> str:
    """Returns an address without its user and its settings."""
    scheme, _, rest = without_credentials(text, "dsn").partition("://")
    server, slash, path = rest.partition("?")[0].partition("/")
    return f"{scheme}://{server.rpartition('@')[2]}{slash}{path}"


def _manager() -> Any:
    try:
        return import_module("adbc_driver_manager.dbapi")
    except ImportError:
        raise ConfigError(
            "databases are read through ADBC, which is not installed; install "
            "contextframe-beam[sql] and the driver, as in contextframe-beam[postgresql]"
        ) from None


def _library(kind: str) -> tuple[str, str | None]:
    """Returns the driver's shared library, and where it begins if that is not usual."""
    module, package = DRIVERS[kind]
    try:
        driver = import_module(module)
    except ImportError:
        raise ConfigError(
            f"there is no driver for {kind} databases here; install {package} "
            f"({'the package duckdb' if kind == 'duckdb' else module.replace('_', '-')})"
        ) from None
    if kind == "duckdb":
        return str(driver.driver_path()), "duckdb_adbc_init"
    return str(driver._driver_path()), None
