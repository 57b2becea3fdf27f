"""Real sources of Airbyte and real taps of Singer, twice each with a change in between.

`make programs` installs them. They take seconds to start, so that only `make soak` runs them.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from contextframe_beam import FrameDataset
from tests.support.cli_helpers import Result, cli
from tests.support.postgres import PASSWORD, Postgres
from tests.support.small_server import Got, serving

pytestmark = pytest.mark.soak

_CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
PROGRAMS = _CACHE / "contextframe-beam" / "programs"
SECRET = "s3cr3t-k3y-of-callrail-0123456789"


def program(folder: str, name: str) -> Path:
    found = PROGRAMS / folder / "bin" / name
    if not found.exists():
        pytest.skip(f"{name} is not installed; run make programs")
    return found


def manifest(name: str, host: str, ours: str, folder: Path) -> Path:
    """Returns a manifest with a server of the test as its host, and with the specification in it.

    Older packages have the specification in a file of its own.
    """
    found = PROGRAMS / "manifests" / f"source_{name}" / "manifest.yaml"
    if not found.exists():
        pytest.skip(f"the manifest of {name} is not there; run make programs")
    text = found.read_text()
    assert host in text
    changed = folder / "manifests" / f"{name}.yaml"
    changed.parent.mkdir()
    specification = found.with_name("spec.yaml")
    if specification.exists():
        told = yaml.safe_load(specification.read_text())["connectionSpecification"]
        text += yaml.safe_dump({"spec": {"type": "Spec", "connection_specification": told}})
    changed.write_text(text.replace(host, ours))
    return changed


@contextmanager
def watched(secret: str) -> Iterator[list[str]]:
    """Looks into the arguments of all processes meanwhile, as everybody on the machine may."""
    seen: list[str] = []
    done = threading.Event()

    def look() -> None:
        while not done.wait(0.02):
            for file in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    if secret.encode() in file.read_bytes():
                        seen.append(file.read_text())
                except OSError:
                    continue

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield seen
    finally:
        done.set()
        watcher.join()


def ingested(kb: Path, *arguments: Any) -> dict[str, Any]:
    letters = kb.with_suffix(".letters")
    done: Result = cli(
        "ingest", *arguments, "--to", kb, "--dead-letters", letters, "--embed-dim", 4, "--json"
    )
    assert done.code == 0, done.err
    return dict(done.json)


def ids(kb: Path) -> set[str]:
    return {str(one.unique_id) for one in FrameDataset.open(str(kb))}


def assert_nowhere(secret: str, folder: Path, but: str) -> None:
    for file in folder.rglob("*"):
        if file.is_file() and file.name != but:
            assert secret.encode() not in file.read_bytes(), file


def test_a_source_in_python(tmp_path: Path):
    source, kb = program("faker", "source-faker"), tmp_path / "kb.lance"
    config = tmp_path / "faker.json"
    config.write_text(json.dumps({"count": 150, "seed": 3, "always_updated": True}))
    arguments = ["airbyte", "--command", source, "--config", config, "--streams", "users,products"]
    first = ingested(kb, *arguments, "--workers", 2)
    assert first["rows_written"] == 250
    # It calls everything new in each run.
    second = ingested(kb, *arguments)
    assert second["rows_replaced"] == 250
    assert {"users:1", "users:150", "products:100"} <= ids(kb)


def test_a_manifest_with_pages_slices_of_time_and_a_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    source = program("faker", "source-declarative-manifest")
    calls = [{"id": f"c{n}", "note": f"call {n}", "start_time": at(n)} for n in range(230)]

    def answer(got: Got) -> Any:
        page = got.number("page", 1)
        stream = "users" if "users" in got.path else "calls"
        known = [{"id": 1, "name": "Ada", "created_at": at(0)}] if stream == "users" else calls
        start = got.query.get("start_date", "")[:10]
        known = [one for one in known if one.get("start_time", "9")[:10] >= start]
        found = known[(page - 1) * 100 : page * 100]
        headers = {}
        if page * 100 < len(known):
            url = f"{got.url}{got.path}?page={page + 1}&start_date={start}"
            headers["Link"] = f'<{url}>; rel="next"'
        return 200, headers, {stream: found}

    monkeypatch.setenv("CALLRAIL_KEY", SECRET)
    monkeypatch.setenv("CALLRAIL_ACCOUNT", "acme")
    # The manifest finds its schemas in its package.
    command = f"env PYTHONPATH={PROGRAMS / 'manifests'} {source}"
    kb, config = tmp_path / "kb.lance", tmp_path / "callrail.yaml"
    config.write_text(
        "api_key: env:CALLRAIL_KEY\naccount_id: env:CALLRAIL_ACCOUNT\nstart_date: 2026-01-01\n"
    )
    with serving(answer) as server, watched(SECRET) as seen:
        file = manifest("callrail", "https://api.callrail.com", server.url, tmp_path)
        arguments = ["airbyte", "--manifest", file, "--command", command, "--config", config]
        arguments += ["--streams", "calls,users"]
        first = ingested(kb, *arguments, "--workers", 2)
        assert first["rows_written"] == 231
        calls += [{"id": "new", "note": "later", "start_time": at(240)}]
        before = len(server.requests)
        second = ingested(kb, *arguments)
        assert second["rows_written"] - second["rows_replaced"] == 1
        asked = [one.query["start_date"] for one in server.requests[before:] if "calls" in one.path]
        assert min(asked) >= at(229)[:10]
    assert "calls:new" in ids(kb) and not seen
    assert_nowhere(SECRET, tmp_path, but="")


def test_a_manifest_without_state(tmp_path: Path):
    source, kb = program("faker", "source-declarative-manifest"), tmp_path / "kb.lance"
    pokemon = {"id": 25, "name": "pikachu", "weight": 60}
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"pokemon_name": "pikachu"}))
    with serving(lambda _: pokemon) as server:
        file = manifest("pokeapi", "https://pokeapi.co", server.url, tmp_path)
        arguments = ["airbyte", "--manifest", file, "--command", source, "--config", config]
        assert ingested(kb, *arguments)["rows_written"] == 1
        assert ingested(kb, *arguments)["rows_written"] == 0
        pokemon["weight"] = 61
        assert ingested(kb, *arguments)["rows_replaced"] == 1
        (frame,) = FrameDataset.open(str(kb))
        assert frame.unique_id == "pokemon:25" and "weight: 61" in frame.text_content
        config.write_text(json.dumps({"pokemon_name": 3}))
        failed = cli("ingest", *arguments, "--to", kb)
    assert failed.code and "3 is not of type 'string'" in failed.err


@pytest.mark.xdist_group("postgres")
def test_a_tap_of_a_real_database(
    postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    tap, kb = program("tap-postgres", "tap-postgres"), tmp_path / "kb.lance"
    postgres.run(
        "CREATE TABLE notes (id int PRIMARY KEY, body text, updated_at timestamptz)",
        "INSERT INTO notes SELECT n, 'note ' || n, timestamptz '2026-01-01' + n * interval '1 h' "
        "FROM generate_series(1, 300) n",
        "CREATE TABLE loose (n int)",
    )
    monkeypatch.setenv("TAP_PASSWORD", PASSWORD)
    config = tmp_path / "tap.yaml"
    config.write_text(
        f"host: 127.0.0.1\nport: {postgres.port}\nuser: guarded\npassword: env:TAP_PASSWORD\n"
        f"database: {postgres.database}\nfilter_schemas: [public]\n"
    )
    arguments = ["singer", "--command", tap, "--config", config, "--cursor", "updated_at"]
    refused = cli("ingest", *arguments, "--to", kb)
    assert "public-loose has no primary key" in refused.err
    arguments += ["--streams", "public-notes"]
    with watched(PASSWORD) as seen:
        assert ingested(kb, *arguments, "--workers", 2)["rows_written"] == 300
        postgres.run(
            "UPDATE notes SET body = 'changed', updated_at = '2027-01-01' WHERE id IN (1, 2)",
            "INSERT INTO notes VALUES (301, 'new', '2027-01-02')",
        )
        second = ingested(kb, *arguments)
    # The row at the border is read again, and is what it was.
    assert (second["rows_written"], second["rows_replaced"], second["rows_unchanged"]) == (3, 2, 1)
    assert not seen
    assert_nowhere(PASSWORD, tmp_path, but="")
    monkeypatch.setenv("TAP_PASSWORD", "wrong")
    failed = cli("ingest", *arguments, "--to", kb)
    assert failed.code and "password authentication failed" in failed.err


def test_a_tap_of_files(tmp_path: Path):
    tap, kb = program("tap-jsonl", "tap-jsonl"), tmp_path / "kb.lance"
    file = tmp_path / "notes.jsonl"
    file.write_text('{"id": 1, "text": "one"}\n{"id": 2, "text": "two"}\n')
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"path": str(file), "primary_keys": ["id"]}))
    arguments = ["singer", "--command", tap, "--config", config]
    assert ingested(kb, *arguments)["rows_written"] == 2
    file.write_text('{"id": 2, "text": "TWO"}\n{"id": 3, "text": "three"}\n')
    second = ingested(kb, *arguments, "--mode", "mirror", "--full")
    assert (second["rows_replaced"], second["rows_deleted"]) == (1, 1)
    assert ids(kb) == {"jsonl:2", "jsonl:3"}


def at(hour: int) -> str:
    return f"2026-{1 + hour // 28 % 9:02d}-{1 + hour % 28:02d}T00:00:00.000000+0000"
