"""What a dataset records of its texts, and what is taken from such a record."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contextframe_beam.errors import ConfigError
from contextframe_beam.frames.embedders import EmbedderIdentity
from contextframe_beam.frames.text_record import Cutting, TextRecord, recordable

URL = "https://models.example.com/v1"


def by(name: str, model: str = "", **settings: Any) -> TextRecord:
    return TextRecord(EmbedderIdentity(name, model, 8, "cosine", True, "f" * 32), settings)


OURS = by("openai", "m", url=URL, query_prefix="query: ")

words = st.text(max_size=8)
cuttings = st.builds(Cutting, words, st.none() | st.integers(1, 999), st.none() | st.integers(0, 9))
digests = st.binary(max_size=4).map(bytes.hex)
records = st.builds(
    TextRecord,
    st.none()
    | st.builds(EmbedderIdentity, words, words, st.integers(1, 99), words, st.booleans(), words),
    st.dictionaries(words, words | st.integers() | st.booleans(), max_size=3),
    st.none() | cuttings,
    digests,
    st.dictionaries(digests, digests, max_size=3),
)


@given(records)
def test_is_read_as_it_was_written(record: TextRecord) -> None:
    assert TextRecord.from_json(record.to_json()) == record


@given(records)
def test_a_run_that_makes_nothing_of_texts_changes_nothing(record: TextRecord) -> None:
    assert record.after(TextRecord()) == record


def test_what_earlier_releases_recorded_is_an_embedder() -> None:
    identity = OURS.embedder
    assert identity is not None
    assert TextRecord.from_json(identity.to_json()) == TextRecord(identity)


@pytest.mark.parametrize(
    "wrong",
    [
        {"cutting": {"tokens": 8}},
        {"cutting": {"chunker": "markdown", "tokens": "8"}},
        {"cutting": 7},
        {"settings": 7},
        {"stands_for": []},
        {"stands_for": {"00": "x"}},
        {"made_with": 7},
        {"name": "hash"},
    ],
)
def test_what_is_no_record_is_refused(wrong: Any) -> None:
    with pytest.raises(ConfigError, match="not a record"):
        TextRecord.from_json(json.dumps(wrong))


@pytest.mark.parametrize(
    ("setting", "is_recorded"),
    [
        ({"url": URL}, True),
        ({"dimensions": 256}, True),
        ({"key": "env:KEY"}, True),
        ({"key": "sk-12345678"}, False),
        ({"query_prefix": "file:/etc/passwd"}, False),
        ({"headers": {"X-Key": "env:KEY"}}, False),
        ({"budget": {"per_second": 5}}, False),
        ({"dim": 8}, False),
    ],
)
def test_only_plain_values_and_references_to_keys_are_recorded(
    setting: dict[str, Any], is_recorded: bool
) -> None:
    assert recordable(setting) == (setting if is_recorded else {})


class TestTheEmbedder:
    def test_has_the_recorded_settings_beside_those_that_are_given(self) -> None:
        name, settings = OURS.embedder_of("kb", None, {"query_prefix": "q: ", "budget": None}) or ()
        assert name == "openai:m"
        assert settings == {"url": URL, "query_prefix": "q: "}

    def test_of_another_name_has_its_own(self) -> None:
        assert OURS.embedder_of("kb", "wordllama", {}) == ("wordllama", {})

    def test_that_is_a_class_is_only_used_where_it_is_named(self) -> None:
        record = by("mine.models:Model")
        with pytest.raises(ConfigError, match=r"mine\.models:Model"):
            record.embedder_of("kb", None, {})
        assert record.embedder_of("kb", "mine.models:Model", {}) == ("mine.models:Model", {})

    @pytest.mark.parametrize(
        "record", [by("openai", "m", url=URL, key="env:KEY"), by("vertex", "m", url=URL)]
    )
    def test_sends_no_credential_to_an_address_that_only_the_dataset_names(
        self, record: TextRecord
    ) -> None:
        with pytest.raises(ConfigError, match=URL):
            record.embedder_of("kb", None, {})
        _, settings = record.embedder_of("kb", None, {"url": URL}) or ("", {})
        assert settings["url"] == URL

    def test_at_its_own_address_has_the_recorded_key(self) -> None:
        record = by("openai", "m", key="env:KEY")
        assert record.embedder_of("kb", None, {}) == ("openai:m", {"key": "env:KEY"})


class TestTheCutting:
    @pytest.mark.parametrize(
        ("chunker", "tokens", "overlap", "expected"),
        [
            (None, None, None, Cutting("markdown", 64, 8)),
            (None, 32, None, Cutting("markdown", 32, 8)),
            ("markdown", None, 0, Cutting("markdown", 64, 0)),
            ("none", None, None, Cutting("none")),
            ("mine:Lines", 32, None, Cutting("mine:Lines", 32)),
        ],
    )
    def test_is_the_recorded_one_but_for_what_is_given(
        self, chunker: str | None, tokens: int | None, overlap: int | None, expected: Cutting
    ) -> None:
        record = TextRecord(cutting=Cutting("markdown", 64, 8))
        assert record.cutting_of("kb", chunker, tokens, overlap) == expected

    def test_is_nobody_s_where_nothing_is_known(self) -> None:
        assert TextRecord().cutting_of("kb", None, None, None) is None
        assert TextRecord().cutting_of("kb", None, 32, None) == Cutting("markdown", 32)

    def test_by_a_class_is_only_done_where_it_is_named(self) -> None:
        record = TextRecord(cutting=Cutting("mine:Lines", 32))
        with pytest.raises(ConfigError, match="mine:Lines"):
            record.cutting_of("kb", None, None, None)
        assert record.cutting_of("kb", "mine:Lines", None, None) == Cutting("mine:Lines", 32)
