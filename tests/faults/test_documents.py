"""A folder that is parsed, cut and embedded by runs that are killed, and read while it changes.

Each document says in every paragraph which generation of it this is. In every version of the
dataset a document is there with all chunks and vectors of one generation, or it is not there; after
a run that succeeded it is there in the generation of its file.
"""

from __future__ import annotations

import random
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import lance
import numpy as np
import pytest

from contextframe_beam.frames.document import Document
from contextframe_beam.frames.embedders import load_embedder
from contextframe_beam.transforms.chunkers.markdown import MarkdownChunker
from tests.faults.forks import Forks, Job

DOCUMENTS = 120
CHANGED = 50
KILLS = 20
EMBEDDER = "hash:32"

_WORDS = ["river", "stone", "paper", "window", "garden", "music", "letter", "market", "winter"]
_NAME = re.compile(r"Section \d+ of (\S+)")
_GENERATION = re.compile(r"generation (\d+)")


class Folder:
    """Documents of several sections, some in HTML.

    Args:
        path: The folder, which is made.
        chance: What decides.
    """

    def __init__(self, path: Path, chance: random.Random) -> None:
        self.path = path
        path.mkdir()
        self._chance = chance
        self._names = [
            f"document-{number}.{'html' if number % 4 == 0 else 'md'}"
            for number in range(DOCUMENTS)
        ]
        self.generations = dict.fromkeys(self._names, 0)
        for name in self._names:
            self._write(name)

    def rewrite(self, count: int) -> None:
        """Writes so many documents anew, longer or shorter than they were."""
        for name in self._chance.sample(self._names, count):
            self.generations[name] += 1
            self._write(name)

    def _write(self, name: str) -> None:
        generation = f"generation {self.generations[name]}."
        sections = []
        for number in range(self._chance.randint(1, 8)):
            words = " ".join(self._chance.choices(_WORDS, k=self._chance.randint(20, 200)))
            sections.append((f"Section {number} of {name}", f"{words} {generation}"))
        if name.endswith(".html"):
            text = "".join(f"<h2>{title}</h2><p>{words}</p>" for title, words in sections)
        else:
            text = "\n\n".join(f"## {title}\n\n{words}" for title, words in sections)
        (self.path / name).write_text(text)


class Reader(threading.Thread):
    """Looks at the newest version again and again, and checks each that it has not seen."""

    def __init__(self, dataset: Path) -> None:
        super().__init__(daemon=True)
        self.wrong: list[str] = []
        self.seen = 0
        self._dataset = dataset
        self._ended = threading.Event()

    def __enter__(self) -> Reader:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self.join()

    def run(self) -> None:
        last = 0
        while True:
            is_last = self._ended.is_set()
            if self._dataset.exists():
                try:
                    dataset = lance.dataset(str(self._dataset))
                except ValueError:  # made, and nothing committed
                    dataset = None
                if dataset is not None and dataset.version > last:
                    last = dataset.version
                    self.seen += 1
                    self.wrong += [f"version {last}: {one}" for one in faults_of(dataset)]
            if is_last:
                return
            self._ended.wait(0.02)


def faults_of(dataset: lance.LanceDataset, want: dict[str, int] | None = None) -> Iterator[str]:
    """Yields what is wrong with the documents of a version.

    Args:
        dataset: The version.
        want: The generation of each document, where they are known.
    """
    columns = ["uuid", "x_parent", "position", "text_content", "vector"]
    rows = dataset.to_table(columns, filter="record_type = 'document'").to_pylist()
    documents = {row["uuid"]: row for row in rows if row["x_parent"] is None}
    chunks: dict[str, list[dict]] = {uuid: [] for uuid in documents}
    for row in rows:
        if row["x_parent"] is not None:
            parent = str(UUID(bytes=row["x_parent"]))
            if parent not in documents:
                yield f"a chunk of {parent} is an orphan"
            chunks.setdefault(parent, []).append(row)
    if len({row["uuid"] for row in rows}) < len(rows):
        yield "rows are doubled"
    found = {}
    for uuid, row in documents.items():
        (name,) = set(_NAME.findall(row["text_content"]))
        generations = set(_GENERATION.findall(row["text_content"]))
        if len(generations) != 1:
            yield f"{name} has generations {generations}"
        found[name] = int(max(generations))
        ordered = sorted(chunks[uuid], key=lambda one: one["position"])
        texts = [one["text_content"] for one in ordered]
        if texts != [one.text for one in _CHUNKER.chunk(Document(row["text_content"]))]:
            yield f"{name} has chunks of another text"
        elif texts:
            vectors = np.array([one["vector"] for one in ordered], np.float32)
            if not np.array_equal(vectors, _MODEL.embed(texts)):
                yield f"{name} has vectors of other texts"
    if want is not None and found != want:
        yield f"documents are {found}, not {want}"


_MODEL = load_embedder(EMBEDDER)
_CHUNKER = MarkdownChunker(counter=_MODEL)


@pytest.fixture(scope="module")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    with Forks(tmp_path_factory.mktemp("forks")) as started:
        yield started


def _job(folder: Folder, to: Path, kill_after: float | None = None) -> Job:
    arguments = ["ingest", "files", "--directory", str(folder.path), "--to", str(to)]
    arguments += ["--mode", "mirror", "--embed", EMBEDDER, "--json"]
    return Job("run", arguments, kill_after=kill_after)


def _succeed(forks: Forks, folder: Folder, to: Path) -> float:
    (outcome,) = forks.run(_job(folder, to))
    assert outcome.code == 0, outcome.err
    wrong = list(faults_of(lance.dataset(str(to)), folder.generations))
    assert not wrong, wrong[:5]
    return outcome.seconds


@pytest.mark.soak
def test_a_first_run_that_is_killed_leaves_nothing_half(forks, tmp_path, record_property):
    chance = random.Random()
    folder = Folder(tmp_path / "docs", chance)
    seconds = _succeed(forks, folder, tmp_path / "clean.lance")
    killed = 0
    for number in range(KILLS):
        to = tmp_path / f"{number}.lance"
        with Reader(to) as reader:
            (outcome,) = forks.run(_job(folder, to, chance.uniform(0, seconds)))
            _succeed(forks, folder, to)
        killed += outcome.killed
        assert not reader.wrong, reader.wrong[:5]
    record_property("told", f"{killed} of {KILLS} first runs were killed")
    assert killed


@pytest.mark.soak
def test_a_run_over_changed_files_that_is_killed_shows_no_two_generations(
    forks, tmp_path, record_property
):
    chance = random.Random()
    folder, to = Folder(tmp_path / "docs", chance), tmp_path / "kb.lance"
    _succeed(forks, folder, to)
    folder.rewrite(CHANGED)
    seconds = _succeed(forks, folder, to)
    killed = seen = 0
    for _ in range(KILLS):
        folder.rewrite(CHANGED)
        with Reader(to) as reader:
            (outcome,) = forks.run(_job(folder, to, chance.uniform(0, seconds)))
            _succeed(forks, folder, to)
        killed += outcome.killed
        seen += reader.seen
        assert not reader.wrong, reader.wrong[:5]
    record_property("told", f"{killed} of {KILLS} runs were killed, {seen} versions read meanwhile")
    assert killed


@pytest.mark.soak
@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("DELETE position = 0 AND x_parent IS NOT NULL", "chunks of another text"),
        ("DELETE x_parent IS NULL", "an orphan"),
        ("UPDATE vector", "vectors of other texts"),
    ],
)
def test_what_is_wrong_is_seen(change, told, forks, tmp_path):
    folder, to = Folder(tmp_path / "docs", random.Random(1)), tmp_path / "kb.lance"
    _succeed(forks, folder, to)
    dataset = lance.dataset(str(to))
    kind, _, condition = change.partition(" ")
    if kind == "DELETE":
        dataset.delete(condition)
    else:
        other = dataset.to_table(["vector"], filter="vector IS NOT NULL", limit=1)
        values = ", ".join(map(str, other.column("vector")[0].as_py()))
        dataset.update({"vector": f"[{values}]"}, where="position = 1")
    assert any(told in one for one in faults_of(lance.dataset(str(to))))
