"""The page of a dataset, served in this process for tests."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn

from contextframe_beam.pipelines.ui.app import listening, page_of
from contextframe_beam.store.address import Address
from tests.support.cli_helpers import cli

SCRIPT = "<script>document.title='hacked'</script>"
PEARS = "Pears are green, sweet and soft, and they are best in autumn. " * 4
MARKDOWN = f"# Pears\n\n{PEARS}\n\n{SCRIPT}\n\n# Plums\n\nPlums are blue.\n"


def make_dataset(folder: Path) -> Path:
    """Makes a dataset with vectors, a failed run, failed items, and a relationship."""
    docs, records, kb = folder / "docs", folder / "records", folder / "kb.lance"
    docs.mkdir()
    records.mkdir()
    (docs / "fruit.md").write_text(MARKDOWN)
    (docs / "stone.md").write_text("# Stones\n\nStones are grey.\n")
    parent = '{"id": "p", "text": "apples", "title": "Parent"}'
    child = '{"id": "c", "text": "apple pie", "title": "Child", "parent_id": "p"}'
    (records / "a.jsonl").write_text(f"{parent}\n{child}\nbroken {SCRIPT}\n")
    reading = ("json", "--directory", records, "--pattern", "*.jsonl", "--prefix", "r:")
    embedding = ("--embed", "hash:64", "--chunk-tokens", 16)
    for code, command in (
        (0, ("files", "--directory", docs, *embedding, "--run-id", "first")),
        (0, (*reading, "--run-id", "second")),
        (1, ("files", "--directory", folder / "none", "--run-id", "third")),
    ):
        done = cli("ingest", *command, "--to", kb)
        assert done.code == code, done.err
    return kb


@contextmanager
def served(kb: Path) -> Iterator[str]:
    """Serves the page of a dataset; yields its address without a slash at the end."""
    with listening(0) as at:
        config = uvicorn.Config(page_of(Address(str(kb))), log_level="warning", lifespan="off")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [at]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{at.getsockname()[1]}"
        server.should_exit = True
        thread.join()
