"""Chunks of Markdown: none over the limit, blocks whole where they fit, the text covered."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from contextframe_beam.transforms.chunkers import MarkdownChunker
from contextframe_beam.transforms.document import Document, Heading
from tests.support.chunk_helpers import COUNTERS, MARKDOWN, WordCounter, assert_laws
from tests.support.laws import examples


def chunks_of(text, tokens=32, counter=None, overlap=0, **document):
    chunker = MarkdownChunker(tokens, overlap, counter or WordCounter())
    return chunker.chunk(Document(text, **document))


def texts_of(text, **settings):
    return [chunk.text for chunk in chunks_of(text, **settings)]


@settings(max_examples=examples(400))
@given(MARKDOWN, st.integers(16, 200), st.sampled_from(COUNTERS))
def test_chunks_keep_the_limit_and_cover_the_text(text, tokens, counter):
    document = Document(text)
    chunks = MarkdownChunker(tokens, counter=counter).chunk(document)
    assert_laws(document, chunks, counter, tokens)
    for before, after in itertools.pairwise(chunks):
        assert before.end <= after.start


@settings(max_examples=examples(200))
@given(MARKDOWN, st.integers(16, 100), st.data())
def test_chunks_that_overlap_keep_the_limit_and_cover_the_text(text, tokens, data):
    overlap = data.draw(st.integers(1, tokens // 2))
    counter = data.draw(st.sampled_from(COUNTERS))
    document = Document(text)
    chunks = MarkdownChunker(tokens, overlap, counter).chunk(document)
    assert_laws(document, chunks, counter, tokens)


@settings(max_examples=examples(200))
@given(MARKDOWN, st.lists(st.tuples(st.integers(0, 400), st.integers(1, 9)), max_size=6))
def test_chunks_of_a_document_that_knows_its_headings_keep_the_laws(text, places):
    headings = tuple(Heading(offset, level, f"{offset}") for offset, level in places)
    document = Document(text, headings=headings, pages=(0, 50, 100))
    counter = WordCounter()
    assert_laws(document, MarkdownChunker(40, counter=counter).chunk(document), counter, 40)
