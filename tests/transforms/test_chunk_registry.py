"""Chunkers by name, and what tells one from another."""

from __future__ import annotations

import importlib
import linecache
import sys

import pytest

from contextframe_beam.errors import ConfigError
from contextframe_beam.frames.document import Chunk, Document
from contextframe_beam.transforms.chunkers import (
    Chunker,
    MarkdownChunker,
    chunker_identity,
    chunker_names,
    load_chunker,
)
from tests.support.chunk_helpers import ByteCounter, WordCounter

OWN = """
from contextframe_beam.frames.document import Chunk

class Lines:
    def __init__(self, tokens=10):
        self.tokens = tokens
    def chunk(self, document):
        return [Chunk(line, 0, 1) for line in document.text.splitlines()]

class Versioned(Lines):
    version = "7"

class Broken:
    def __init__(self):
        raise ValueError("no luck")
    def chunk(self, document):
        return []

class NoChunker:
    pass
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / "own_chunkers.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    yield "own_chunkers"
    sys.modules.pop("own_chunkers", None)


class Short(WordCounter):
    max_tokens = 128


def test_the_names_are_those_of_the_entry_points_and_none():
    assert {"markdown", "none"} <= set(chunker_names())


def test_none_leaves_documents_whole():
    assert load_chunker("none") is None
    with pytest.raises(ConfigError, match="tokens says nothing without a chunker"):
        load_chunker("none", tokens=100)


def test_markdown_takes_its_settings():
    counter = WordCounter()
    chunker = load_chunker("markdown", tokens=100, overlap=7, counter=counter)
    assert isinstance(chunker, MarkdownChunker)
    assert (chunker.tokens, chunker.overlap, chunker.counter) == (100, 7, counter)


def test_a_class_of_ones_own_gets_what_it_takes(own):
    chunker = load_chunker(f"{own}:Lines", tokens=3, counter=WordCounter())
    assert isinstance(chunker, Chunker)
    assert chunker.tokens == 3
    assert chunker.chunk(Document("a\nb")) == [Chunk("a", 0, 1), Chunk("b", 0, 1)]


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("markdwon", {}, "no chunker 'markdwon'; did you mean markdown.*package.module:Class"),
        ("no_such_module:A", {}, "importing no_such_module failed"),
        (":A", {}, "write package.module:Class"),
        ("own_chunkers:Linse", {}, "own_chunkers has no 'Linse'; did you mean Lines"),
        ("own_chunkers:NoChunker", {}, "is not a chunker: give a class with the method chunk"),
        ("own_chunkers:Broken", {}, "cannot be made: ValueError: no luck"),
        ("own_chunkers:Lines", {"overlap": 3}, "has no setting 'overlap'"),
        ("markdown", {"tokens": 3}, "3 tokens is too short"),
    ],
)
@pytest.mark.usefixtures("own")
def test_a_wrong_name_or_setting_says_what_to_do(name, settings, message):
    with pytest.raises(ConfigError, match=message):
        load_chunker(name, **settings)


def test_chunks_are_no_longer_than_the_embedder_reads():
    chunker = load_chunker("markdown", counter=Short())
    assert isinstance(chunker, MarkdownChunker)
    assert chunker.tokens == 128
    with pytest.raises(ConfigError, match="reads 128 tokens"):
        load_chunker("markdown", tokens=200, counter=Short())


def test_the_identity_stays_while_the_chunks_do():
    one, other = MarkdownChunker(100), MarkdownChunker(100)
    assert chunker_identity(one) == chunker_identity(other)
    assert len(chunker_identity(None)) == 16


def test_the_identity_changes_with_settings_counter_and_class(own):
    words = WordCounter()
    chunkers = [
        None,
        MarkdownChunker(100),
        MarkdownChunker(101),
        MarkdownChunker(100, 1),
        MarkdownChunker(100, counter=words),
        MarkdownChunker(100, counter=ByteCounter()),
        load_chunker(f"{own}:Lines"),
        load_chunker(f"{own}:Lines", tokens=11),
        load_chunker(f"{own}:Versioned"),
    ]
    assert len({chunker_identity(one) for one in chunkers}) == len(chunkers)


def test_a_change_of_the_source_changes_the_identity_unless_there_is_a_version(own, tmp_path):
    def identities():
        sys.modules.pop(own, None)
        return [chunker_identity(load_chunker(f"{own}:{name}")) for name in ("Lines", "Alone")]

    alone = OWN + "\n\nclass Alone:\n    version = 1\n    chunk = Lines.chunk\n"
    file = tmp_path / "own_chunkers.py"
    file.write_text(alone)
    lines, versioned = identities()
    file.write_text(alone.replace("splitlines()", "split()"))
    importlib.invalidate_caches()
    linecache.clearcache()
    changed, same = identities()
    assert changed != lines
    assert same == versioned
