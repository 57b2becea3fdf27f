"""Counters of tokens, Markdown texts, and the laws that every chunk keeps."""

from __future__ import annotations

import re
from collections.abc import Sequence

from hypothesis import strategies as st

from contextframe_beam.frames.document import Chunk, Document


class WordCounter:
    """One token a word, one a mark, and two around each text, as models of the BERT family do."""

    def count(self, texts: Sequence[str]) -> list[int]:
        return [2 + len(re.findall(r"[0-9A-Za-z]+|[^0-9A-Za-z\s]", text)) for text in texts]


class ByteCounter:
    """One token a byte, white space included: what adds up to no more and no less."""

    def count(self, texts: Sequence[str]) -> list[int]:
        return [len(text.encode("utf-8", "surrogatepass")) for text in texts]


class RoundedCounter:
    """Four bytes a token, rounded down: pieces count less than what they make together."""

    def count(self, texts: Sequence[str]) -> list[int]:
        return [len(text.encode("utf-8", "surrogatepass")) // 4 for text in texts]


class PrefixCounter:
    """A prefix of five tokens before each text, and three tokens a word: `passage: ` does so."""

    def count(self, texts: Sequence[str]) -> list[int]:
        return [5 + 3 * len(text.split()) for text in texts]


COUNTERS = (WordCounter(), ByteCounter(), RoundedCounter(), PrefixCounter())


def assert_laws(document: Document, chunks: list[Chunk], counter, limit: int) -> None:
    """Checks what holds for the chunks of every document."""
    text = document.text
    covered = 0
    for chunk in chunks:
        assert 0 <= chunk.start < chunk.end <= len(text)
        assert not text[covered : max(covered, chunk.start)].strip()
        assert chunk.end > covered
        assert text[chunk.start : chunk.end] in chunk.text
        assert chunk.text.strip()
        covered = chunk.end
    assert not text[covered:].strip()
    counts = counter.count([chunk.text for chunk in chunks])
    assert counts == [chunk.tokens for chunk in chunks]
    assert max(counts, default=0) <= limit


_WORD = st.sampled_from(
    [
        *(
            "alpha",
            "beta",
            "Gamma.",
            "delta,",
            "x",
            "`code`",
            "e.g.",
            "[link](https://a.example/b)",
        ),
        *(
            "\u6a5f\u68b0\u5b66\u7fd2\u3002",
            "\U0001f469\u200d\U0001f469\u200d\U0001f467",
            "e\u0301",
        ),
        *("a" * 60, "**bold**", "|", "1.", "-", "#", ">", "\u00a0", "\u2028", "\t"),
    ]
)
_LINE = st.lists(_WORD, min_size=1, max_size=12).map(" ".join)
_LINES = st.lists(_LINE, min_size=1, max_size=5)


def _indented(lines: list[str], by: str) -> str:
    return "\n".join(by + line for line in lines)


_FENCES = st.builds(
    lambda mark, info, lines, by, closed: "\n".join(
        [by + mark + info, _indented(lines, by), *([by + mark] if closed else [])]
    ),
    st.sampled_from(["```", "~~~", "`````"]),
    st.sampled_from(["", "python", ' js title="a b"']),
    st.lists(st.one_of(_LINE, st.just("")), min_size=1, max_size=30),
    st.sampled_from(["", "  ", "    "]),
    st.integers(0, 9).map(bool),
)
_TABLES = st.builds(
    lambda head, rows: "\n".join(
        [f"| {head} | b |", "|---|:-:|", *(f"| {row.replace('|', '/')} | x |" for row in rows)]
    ),
    st.sampled_from(["a", "Name of the column"]),
    st.lists(_LINE, max_size=30),
)
_LISTS = st.builds(
    lambda marks, items: "\n".join(
        f"{mark}{item}" for mark, item in zip(marks, items, strict=False)
    ),
    st.lists(st.sampled_from(["- ", "  - ", "1. ", "- ```\n  ", "      - "]), min_size=12),
    st.lists(_LINE, min_size=1, max_size=12),
)
_FLAT = st.one_of(
    _LINES.map("\n".join),
    _LINES.map(lambda lines: _indented(lines, "> ")),
    _LINES.map(lambda lines: _indented(lines, "    ")),
    st.builds(lambda level, line: "#" * level + " " + line, st.integers(1, 6), _LINE),
    st.builds(lambda line, mark: f"{line}\n{mark}", _LINE, st.sampled_from(["===", "---"])),
    _FENCES,
    _TABLES,
    _LISTS,
    st.just("---"),
    _LINES.map(lambda lines: "<details>\n" + "\n".join(lines) + "\n</details>"),
    st.just("<!-- a comment\n\nthat goes on -->"),
    st.builds(
        lambda word, count: word * count,
        st.sampled_from(["a", "\u5b57", "\U0001f600", "/x"]),
        st.integers(1, 200),
    ),
)


def _inside(first: str, rest: str, text: str) -> str:
    """Returns a text in a list or quote."""
    return "\n".join(
        (rest if number else first) + line if line.strip() or rest.strip() else line
        for number, line in enumerate(text.split("\n"))
    )


_BLOCKS = st.recursive(
    _FLAT,
    lambda inner: st.builds(
        lambda marks, texts: _inside(*marks, "\n\n".join(texts)),
        st.sampled_from([("> ", "> "), ("- ", "  "), ("12. ", "    "), ("* ", "      ")]),
        st.lists(inner, min_size=1, max_size=3),
    ),
    max_leaves=4,
)

#: Texts of blocks of all kinds, and texts of any characters.
MARKDOWN = st.one_of(
    st.lists(_BLOCKS, max_size=12).flatmap(
        lambda blocks: st.sampled_from(["\n\n", "\n", "\n \n\n"]).map(lambda gap: gap.join(blocks))
    ),
    st.text(max_size=200),
)
