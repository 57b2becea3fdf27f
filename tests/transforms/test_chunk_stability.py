"""A local edit of a long document makes few new chunks, wherever it is."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contextframe_beam.frames.document import Document
from contextframe_beam.transforms.chunkers import MarkdownChunker
from tests.support.laws import examples

WORDS = [
    *("the", "of", "and", "to", "in", "is", "that", "for", "it", "with", "as", "was", "on", "be"),
    *("by", "this", "are", "or", "from", "at", "which", "an", "have", "not", "they", "but", "had"),
    *("you", "all", "were", "their", "one", "we", "can", "has", "been", "more", "when", "will"),
]


def texts_of(text):
    return {chunk.text for chunk in MarkdownChunker(256).chunk(Document(text))}


def sentence(rng):
    return " ".join(rng.choices(WORDS, k=rng.randint(5, 25))).capitalize() + "."


def paragraph(rng):
    return " ".join(sentence(rng) for _ in range(rng.randint(1, 8)))


def section(paragraphs):
    return "\n\n".join(paragraphs)


def book(paragraphs):
    return "\n\n".join(
        f"{'#' * (len(one) % 3 + 1)} {one[:20]}\n\n{one}" if len(one) % 4 == 0 else one
        for one in paragraphs
    )


def plain_lines(paragraphs):
    return "\n".join(paragraphs)


def one_line(paragraphs):
    return " ".join(paragraphs)


def no_spaces(paragraphs):
    return "".join(paragraphs).replace(" ", "").replace(".", "")


def items(paragraphs):
    return "\n".join(f"- {one}" for one in paragraphs)


def table(paragraphs):
    return "\n".join(["| a | b |", "|---|---|", *(f"| {one} | x |" for one in paragraphs)])


def fence(paragraphs):
    lines = (one.replace(". ", ";\n    ") for one in paragraphs)
    return "\n".join(["```py", *lines, "```"])


@pytest.mark.sample(2)
@pytest.mark.parametrize(
    "shape", [section, book, plain_lines, one_line, no_spaces, items, table, fence]
)
def test_an_edit_of_a_long_text_without_an_end_makes_three_new_chunks_at_most(shape):
    rng = random.Random(1)
    paragraphs = [paragraph(rng) for _ in range(120)]
    before = texts_of(shape(paragraphs))
    fresh = []
    for number in range(60):
        edited = paragraphs.copy()
        place = rng.randrange(len(edited))
        if number % 4 == 0:
            edited[place] = paragraph(rng)
        elif number % 4 == 1:
            edited.insert(place, paragraph(rng))
        elif number % 4 == 2:
            del edited[place]
        else:
            edited[place] = edited[place].replace(" ", " quokka ", 1)
        fresh.append(len(texts_of(shape(edited)) - before))
    # Now and then the order of the borders near an edit lets it reach one chunk further.
    assert sum(count > 3 for count in fresh) <= 3
    assert max(fresh) <= 5
    assert sum(fresh) / len(fresh) < 2


@settings(max_examples=examples(200))
@given(st.integers(0, 2**32), st.integers(10, 120), st.data())
def test_chunks_far_from_an_edit_stay(seed, count, data):
    rng = random.Random(seed)
    paragraphs = [paragraph(rng) for _ in range(count)]
    place = data.draw(st.integers(0, count - 1))
    edited = [*paragraphs[:place], paragraph(rng), *paragraphs[place + 1 :]]
    assert len(texts_of(section(edited)) - texts_of(section(paragraphs))) <= 6


def test_text_of_equal_lines_keeps_its_chunks():
    line = "the same line again"
    before = texts_of("\n\n".join([line] * 2000))
    after = texts_of("\n\n".join([line] * 900 + ["another line"] + [line] * 1100))
    assert len(after - before) <= 3
