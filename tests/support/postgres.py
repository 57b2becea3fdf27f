"""A real PostgreSQL on this machine, started once a session for the tests that ask for it."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.s3_server import ending_with_parent, free_ports

#: The user of the tests, who needs no password, and one who does.
USER = "keeper"
GUARDED = "guarded"
PASSWORD = "a-password:with@odd/signs"
ENCODED = "a-password%3Awith%40odd%2Fsigns"
_PATIENCE_SECONDS = 30
# Nothing has to outlive the tests, so nothing is synchronised with the disk.
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "shared_buffers": "16MB",
    "autovacuum": "off",
    "max_connections": "40",
    # A test that waits for another transaction fails instead of waiting for ever.
    "lock_timeout": "10s",
}


@dataclass
class Postgres:
    """A server that runs.

    Attributes:
        port: Its port on 127.0.0.1.
        database: The database of one module.
        writer: The connection that `run` uses, made by its first call.
    """

    port: int
    database: str = "postgres"
    writer: Any = None

    @property
    def uri(self) -> str:
        """The address with user and password."""
        return f"postgresql://{USER}:{ENCODED}@127.0.0.1:{self.port}/{self.database}"

    def connect(self) -> Any:
        """Returns a connection that writes, each statement at once."""
        from adbc_driver_postgresql import dbapi

        return dbapi.connect(self.uri, autocommit=True)

    def run(self, *statements: str) -> list[Any]:
        """Runs statements, and returns the rows of the last one."""
        rows: list[Any] = []
        if self.writer is None:
            self.writer = self.connect()
        with self.writer.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
                rows = cursor.fetchall() if cursor.description else []
        return rows

    def close(self) -> None:
        """Ends the connection that writes."""
        if self.writer is not None:
            self.writer.close()
            self.writer = None


def _program(name: str) -> str | None:
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    for folder in [*folders, *map(Path, os.environ.get("PATH", "").split(os.pathsep))]:
        if (folder / name).exists():
            return str((folder / name).resolve())
    return None


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Postgres]:
    """A server, or the reason why its tests are left out."""
    pytest.importorskip("adbc_driver_postgresql", reason="the driver of PostgreSQL is missing")
    initdb, server = _program("initdb"), _program("postgres")
    if initdb is None or server is None:
        pytest.skip("PostgreSQL is not installed (Debian's package postgresql)")
    # The server refuses to run as root.
    owner = None
    if os.geteuid() == 0:
        owner = pwd.getpwnam("nobody").pw_uid
    # Below /tmp, where another user may enter.
    folder = Path(tempfile.mkdtemp(prefix="frames-postgres-"))
    data, found = folder / "data", Postgres(0)
    if owner is not None:
        os.chown(folder, owner, -1)
    process = None
    try:
        make = [initdb, "-D", str(data), "-U", USER, "--no-sync"]
        done = subprocess.run(
            [*make, "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8"],
            user=owner,
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            pytest.skip(f"PostgreSQL cannot be set up: {done.stderr.strip()[-200:]}")
        # A password takes some thousand rounds of a digest, which most tests can do without.
        rules = data / "pg_hba.conf"
        guarded = f"host all {GUARDED} 127.0.0.1/32 scram-sha-256\n"
        rules.write_text(guarded + rules.read_text())
        (port,) = free_ports(1)
        flags = [text for name, value in _SETTINGS.items() for text in ("-c", f"{name}={value}")]
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                _as_owner([server, "-D", str(data), "-p", str(port), *flags], owner),
                cwd=folder,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        found.port = port
        _wait_for(found, process, folder / "log")
        found.run(f"CREATE ROLE {GUARDED} LOGIN SUPERUSER PASSWORD '{PASSWORD}'")
        yield found
    finally:
        if process is not None:
            found.close()
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(5)
            process.kill()
            process.wait()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def postgres(postgres_server: Postgres, request: pytest.FixtureRequest) -> Iterator[Postgres]:
    """A database of its own for each module."""
    name = request.module.__name__.rpartition(".")[2]
    postgres_server.run(f'DROP DATABASE IF EXISTS "{name}"', f'CREATE DATABASE "{name}"')
    found = Postgres(postgres_server.port, name)
    yield found
    found.close()


def _as_owner(command: list[str], owner: int | None) -> list[str]:
    """Returns a command that another user runs, and that the kernel ends with its parent."""
    if owner is None:
        return ending_with_parent(command)
    # Python itself may lie where that user cannot enter.
    return ["setpriv", f"--reuid={owner}", "--clear-groups", "--pdeathsig=KILL", "--", *command]


def _wait_for(server: Postgres, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        with suppress(Exception):
            server.run("SELECT 1")
            return
        time.sleep(0.05)
    pytest.skip(f"PostgreSQL does not start: {log.read_text(errors='replace')[-200:]}")
