"""Chunks of Markdown: none over the limit, blocks whole where they fit, the text covered."""

from __future__ import annotations

import itertools
import json

import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from contextframe_beam.errors import ConfigError
from contextframe_beam.frames.document import Chunk, Document, Heading
from contextframe_beam.transforms.chunkers import ChunkError, MarkdownChunker, PlainCounter
from contextframe_beam.transforms.chunkers.blocks import blocks_of
from tests.support.chunk_helpers import COUNTERS, MARKDOWN, ByteCounter, WordCounter, assert_laws
from tests.support.laws import examples


def chunks_of(text, tokens=32, counter=None, overlap=0, **document):
    chunker = MarkdownChunker(tokens, overlap, counter or WordCounter())
    return chunker.chunk(Document(text, **document))


def texts_of(text, **settings):
    return [chunk.text for chunk in chunks_of(text, **settings)]


@settings(max_examples=examples(200))
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


@settings(max_examples=examples(200))
@given(MARKDOWN, st.integers(64, 120))
def test_no_chunk_leaves_a_fence_open(text, tokens):
    for chunk in chunks_of(text, tokens):
        assert not any(block.is_left_open for block in blocks_of(chunk.text)), chunk.text


def test_a_short_text_is_one_chunk():
    text = "\n# A\n\nb\n\n- c\n- d\n\n"
    assert chunks_of(text, 32) == [Chunk(text.strip(), 1, len(text) - 2, ("A",), None, 9)]


@pytest.mark.parametrize("text", ["", " \n\t\n"])
def test_white_space_has_no_chunks(text):
    assert chunks_of(text) == []


def test_blocks_are_kept_whole_where_they_fit():
    paragraphs = [" ".join([f"w{number}"] * 20) for number in range(6)]
    assert texts_of("\n\n".join(paragraphs), tokens=32) == paragraphs


def test_a_list_that_fits_is_kept_whole():
    items = "\n".join(f"- item {number}" for number in range(8))
    before, after = "a " * 20, "b " * 20
    assert items in texts_of(f"{before}\n\n{items}\n\n{after}", tokens=32)


def test_a_fence_that_is_cut_is_closed_and_opened_again():
    code = [f"call_{number}();" for number in range(30)]
    text = "\n".join(["~~~~js x", *code, "~~~~"])
    chunks = texts_of(text, tokens=40)
    assert len(chunks) > 2
    found = []
    for chunk in chunks:
        first, *inner, last = chunk.split("\n")
        assert (first, last) == ("~~~~js x", "~~~~")
        found += inner
    assert found == code


def test_a_fence_that_is_never_closed_ends_with_its_chunk():
    assert texts_of("```\na") == ["```\na\n```"]
    assert texts_of("- ```\n  a\n\nb") == ["- ```\n  a\n  ```", "b"]


def test_parts_of_a_table_repeat_its_head():
    rows = [f"| row {number} | x |" for number in range(20)]
    chunks = texts_of("\n".join(["| a | b |", "|---|---|", *rows]), tokens=48)
    assert len(chunks) > 2
    found = []
    for chunk in chunks:
        head, marks, *some = chunk.split("\n")
        assert (head, marks) == ("| a | b |", "|---|---|")
        found += some
    assert found == rows


def test_a_head_that_leaves_no_room_is_not_repeated():
    head = "|" + " wide |" * 20
    rows = "\n".join(f"|{' x |' * 20}" for _ in range(4))
    text = f"{head}\n|{'-|' * 20}\n{rows}"
    assert len(chunks_of(text, 50)) > 2


def test_a_heading_goes_with_what_follows_it():
    long = "word " * 70
    first, *_ = texts_of(f"a {'b ' * 25}\n\n# Title\n\n{long}", tokens=32)[1:]
    assert first.startswith("# Title\n\nword")


def test_an_anchor_goes_with_the_heading_that_follows_it():
    text = f'# A\n\n{"a " * 20}\n\n<a id="b"></a>\n\n# B\n\n{"b " * 20}'
    assert [chunk.headings for chunk in chunks_of(text, 40)] == [("A",), ("B",)]
    assert texts_of(text, tokens=40)[1].startswith("<a id")


def test_small_sections_share_a_chunk_but_none_with_what_stands_higher():
    text = "# A\n\n## a\n\nx\n\n## b\n\ny\n\n# B\n\nz"
    assert [(chunk.text, chunk.headings) for chunk in chunks_of(text, 32)] == [
        ("# A\n\n## a\n\nx\n\n## b\n\ny", ("A",)),
        ("# B\n\nz", ("B",)),
    ]


def test_a_chunk_tells_the_headings_that_all_of_it_stands_under():
    text = f"# A\n\n## a\n\n{'x ' * 25}\n\n## b\n\n{'y ' * 25}\n\nPart\n----\n\n{'z ' * 25}"
    assert [chunk.headings for chunk in chunks_of(text, 40)] == [
        ("A", "a"),
        ("A", "b"),
        ("A", "Part"),
    ]


def test_text_before_the_first_heading_takes_no_title_away():
    [chunk] = chunks_of("badge\n\n# Title\n\ntext")
    assert chunk.headings == ("Title",)


def test_the_outline_of_a_document_gives_the_headings_and_its_pages_the_page():
    text = f"{'a ' * 25}\n# no heading\n{'b ' * 25}"
    middle = text.index("b")
    chunks = chunks_of(
        text, 32, headings=(Heading(0, 1, "One"), Heading(middle, 2, "Two")), pages=(0, middle)
    )
    assert [(chunk.headings, chunk.page) for chunk in chunks] == [
        (("One",), 1),
        (("One", "Two"), 2),
    ]


def test_a_scrap_shares_with_its_neighbour():
    counts = [chunk.tokens for chunk in chunks_of("\n\n".join(["w " * 9] * 3 + ["w"]), 32)]
    assert min(counts) > 8


@pytest.mark.parametrize(
    "text",
    [
        "\u6a5f\u68b0\u5b66\u7fd2\u306f" * 60,
        "\U0001f469\u200d\U0001f469\u200d\U0001f467" * 60,
        "e\u0301" * 200,
        "\U0001f1e9\U0001f1ea" * 100,
        "https://a.example/" + "b" * 900,
        "\u0915\u094d\u0937" * 100,
    ],
)
def test_characters_that_belong_together_are_not_cut(text):
    chunks = chunks_of(text, 64, ByteCounter())
    assert len(chunks) > 4
    for chunk in chunks[1:]:
        assert chunk.text[0] not in "\u0301\u200d\u094d"
        assert chunk.text[:1] + chunk.text[1:2] != "\U0001f1ea\U0001f1e9"


@pytest.mark.parametrize("text", ["." * 50_000, "e" + "\u0301" * 50_000, "> " * 25_000])
def test_a_long_run_of_one_character_is_cut(text):
    document = Document(text)
    counter = WordCounter()
    assert_laws(document, MarkdownChunker(256, counter=counter).chunk(document), counter, 256)


def test_sentences_are_kept_whole_where_they_fit():
    sentences = [f"This is sentence number {number} of a long paragraph." for number in range(30)]
    for chunk in chunks_of(" ".join(sentences), 40):
        assert chunk.text.startswith("This") and chunk.text.endswith("paragraph.")


def test_an_overlap_repeats_the_end_of_the_chunk_before():
    sentences = [f"Sentence number {number} is here." for number in range(30)]
    chunks = chunks_of(" ".join(sentences), 40, overlap=10)
    for before, after in itertools.pairwise(chunks):
        assert after.start < before.end
        assert before.text.endswith(after.text.split(".")[0] + ".")


def test_no_overlap_reaches_over_a_heading():
    text = f"# A\n\n{'a ' * 25}\n\n# B\n\n{'b ' * 25}"
    assert texts_of(text, tokens=40, overlap=10)[1].startswith("# B")


def test_a_character_that_is_longer_than_a_chunk_is_refused():
    class Heavy(ByteCounter):
        def count(self, texts):
            return [text.count("x") * 99 + len(text) for text in texts]

    with pytest.raises(ChunkError, match="'x' at 2 has 100 tokens"):
        chunks_of("a x", 20, Heavy())


def test_a_counter_that_forgets_a_text_is_refused():
    class Forgetful:
        def count(self, texts):
            return [1, 1] if texts == ["", "a"] else []

    with pytest.raises(ChunkError, match=r"Forgetful\.count gave 0 lengths for 1 texts"):
        chunks_of("a", 20, Forgetful())


@pytest.mark.parametrize(("tokens", "overlap"), [(15, 0), (0, 0), (32, 17), (32, -1)])
def test_limits_that_no_chunk_can_keep_are_refused(tokens, overlap):
    with pytest.raises(ConfigError):
        MarkdownChunker(tokens, overlap)


def test_a_model_that_needs_all_tokens_for_itself_is_refused():
    class Chatty(ByteCounter):
        def count(self, texts):
            return [12 + len(text) for text in texts]

    with pytest.raises(ConfigError, match="12 special tokens"):
        MarkdownChunker(16, counter=Chatty())


def test_without_an_embedder_tokens_are_counted_from_the_characters():
    assert PlainCounter().count(["", "two words", "\u6a5f\u68b0.", "abcdefgh12"]) == [0, 3, 3, 3]
    [chunk] = MarkdownChunker().chunk(Document("two words"))
    assert chunk.tokens == 3


def test_the_same_text_gives_the_same_chunks_on_every_python():
    # A digest of chunks of text of each kind, with characters that some versions of Unicode lack.
    text = "\n\n".join(
        [
            "---\na: b\n---\n# T\u00eftle",
            "Sentence one. Sentence two! " * 30,
            "\n".join(["```py", *(f"line({number})" for number in range(60)), "```"]),
            "\n".join(["|a|b|", "|-|-|", *(f"|{number}|\u5b57|" for number in range(60))]),
            "\n".join(f"{number}. item" for number in range(60)),
            "\u6a5f\u68b0\u5b66\u7fd2\u3002\u306f\u3001" * 80,
            "\U0001fae8\U0001f6dc\U00010efd\U0001e4d0\u0c3c\u1acf" * 60,
            "\U0001f469\u200d\U0001f469\u200d\U0001f467" * 60,
        ]
    )
    digest = xxhash.xxh3_64()
    for overlap in (0, 8):
        for one in MarkdownChunker(48, overlap).chunk(Document(text)):
            told = [one.text, one.start, one.end, one.headings, one.tokens]
            digest.update(json.dumps(told).encode())
    assert digest.hexdigest() == "29771c3bc29d3ee6"
