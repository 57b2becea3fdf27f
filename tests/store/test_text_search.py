"""Which words a search finds: in any language, long and common ones, and what it says otherwise."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contextframe_beam import FrameDataset, FrameRecord
from contextframe_beam.errors import ConfigError
from contextframe_beam.pipelines.compact import compact
from contextframe_beam.store.text_index import COLUMN, TextAnalysis, text_index
from tests.support.cli_helpers import assert_error, cli

DIGEST = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"

TEXTS = {
    "chinese": "认证系统使用令牌",
    "japanese": "コントロールパネルの設定を変更します",
    "thai": "ระบบยืนยันตัวตน",
    "khmer": "ប្រព័ន្ធផ្ទៀងផ្ទាត់",
    "korean": "서울에서 인증을 설정합니다",
    "hindi": "प्रमाणीकरण प्रणाली",
    "arabic": "نظام المصادقة",
    "german": "Die Straßenbahn fährt über die Brücken",
    "turkish": "ISPARTA ilçesi",
    "english": "IT decides who it is, and the runners were running",
    "digest": f"commit {DIGEST} broke that",
    "names": "see src/main/app_config.py, getUserName and foo.bar@example.com: error E1234_x",
    "signs": "C++ and .NET 3.14.159 are great 🎉",
    "accents": "cafe\u0301 na\u00efve \u00c5ngstr\u00f6m \uff21\uff22\uff23",
}

# Word, whose document comes first.
WHOLE_WORDS = [
    ("认证", "chinese"),
    ("令牌", "chinese"),
    ("设 系统", "chinese"),
    ("設定", "japanese"),
    ("ยืนยัน", "thai"),
    ("ផ្ទៀងផ្ទាត់", "khmer"),
    ("인증을", "korean"),
    ("प्रमाणीकरण", "hindi"),
    ("المصادقة", "arabic"),
    ("Strassenbahn", "german"),
    ("STRASSENBAHN", "german"),
    ("straßenbahn", "german"),
    ("fahrt", "german"),
    ("über", "german"),
    ("isparta", "turkish"),
    ("IT", "english"),
    ("who", "english"),
    ("the", "english"),
    ("runner", "english"),
    (DIGEST, "digest"),
    (DIGEST.upper(), "digest"),
    ("app_config.py", "names"),
    ("config", "names"),
    ("foo.bar@example.com", "names"),
    ("E1234", "names"),
    ("getusername", "names"),
    ("C++", "signs"),
    (".NET", "signs"),
    ("3.14", "signs"),
    ("caf\u00e9", "accents"),
    ("naive", "accents"),
    ("angstrom", "accents"),
    ("ABC", "accents"),
]

# What stands within a longer word, as each index may take it.
PARTS = [
    ("コントロール", "japanese"),
    ("认", "chinese"),
    ("인증", "korean"),
    ("مصادقة", "arabic"),
    (DIGEST[:8], "digest"),
    (DIGEST[20:30].upper(), "digest"),
    ("username", "names"),
    ("🎉", "signs"),
    ("nbahn", "german"),
]


def names(found: list[FrameRecord]) -> list[str | None]:
    return [record.unique_id for record in found]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> FrameDataset:
    dataset = FrameDataset.create(str(tmp_path_factory.mktemp("texts") / "kb.lance"), embed_dim=4)
    dataset.add_many(FrameRecord(text, unique_id=name) for name, text in TEXTS.items())
    dataset.index_text()
    return dataset


@pytest.fixture
def kb(tmp_path: Path) -> Iterator[FrameDataset]:
    dataset = FrameDataset.create(str(tmp_path / "kb.lance"), embed_dim=4)
    dataset.add_many(FrameRecord(text, unique_id=name) for name, text in TEXTS.items())
    yield dataset


class TestTheIndexForAnyLanguage:
    @pytest.mark.parametrize(("word", "name"), WHOLE_WORDS)
    def test_it_finds_whole_words(self, made: FrameDataset, word: str, name: str) -> None:
        found = made.search(word)
        assert names(found)[0] == name
        assert found[0].score

    @pytest.mark.parametrize(("word", "name"), PARTS)
    def test_what_only_stands_within_a_word_is_found_with_a_score_of_0(
        self, made: FrameDataset, word: str, name: str
    ) -> None:
        found = made.search(word)
        assert (names(found), found[0].score) == ([name], 0)

    def test_whole_words_come_alone(self, made: FrameDataset) -> None:
        assert names(made.search("it")) == ["english"]  # and not all with "it" within a word

    def test_who_holds_most_of_the_parts_comes_first(self, kb: FrameDataset) -> None:
        kb.add(FrameRecord("UserNames in exampleConfigs", unique_id="more"))
        assert names(kb.search("sername mple onfig")) == ["more", "names"]
        assert names(kb.search("sername mple onfig", limit=1)) == ["more"]

    def test_parts_are_looked_for_under_the_filter_too(self, made: FrameDataset) -> None:
        assert names(made.search("sername", where="uri = 'names'")) == ["names"]
        assert made.search("sername", where="uri = 'signs'") == []

    @settings(max_examples=30)
    @given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=80))
    def test_each_word_of_any_text_is_found(self, made: FrameDataset, text: str) -> None:
        words = text.split()
        if not words:
            return
        made.add(FrameRecord(f"before {text} after", unique_id="any"))
        for word in words:
            assert "any" in names(made.search(word, limit=50)), word


class TestTheIndexOfALanguage:
    @pytest.mark.parametrize("language", ["zh", "ja-JP", "Korean", "th"])
    def test_any_part_of_a_word_has_a_score(self, kb: FrameDataset, language: str) -> None:
        assert kb.index_text(language)
        for word in ("コントロール", "认证", "인증", "مصادقة", DIGEST[:8], "username"):
            assert kb.search(word)[0].score, word
        assert names(kb.search("เว็บ")) == []

    @pytest.mark.parametrize(("word", "name"), PARTS)
    def test_all_parts_are_found(self, kb: FrameDataset, word: str, name: str) -> None:
        kb.index_text("zh")
        assert names(kb.search(word)) == [name]

    @pytest.mark.sample
    @pytest.mark.parametrize("language", ["any", "zh", "ja", "de"])
    @pytest.mark.parametrize("word", ["7", "x", "茶", "é", "C", "ж"])
    def test_words_of_one_character_are_found(
        self, kb: FrameDataset, language: str, word: str
    ) -> None:
        kb.add(FrameRecord(f"among others {word} stands alone", unique_id="short"))
        kb.add(FrameRecord("77 xx Cx", unique_id="longer"))
        kb.index_text(language)
        assert names(kb.search(word))[0] == "short"
        assert "longer" not in names(kb.search(word))
        assert {"short", "chinese"} <= set(names(kb.search(f"{word} 令牌")))

    def test_a_sentence_without_spaces_finds_what_is_nearest_to_it(self, kb: FrameDataset) -> None:
        kb.index_text("zh")
        assert names(kb.search("令牌认证怎么使用"))[0] == "chinese"

    def test_its_stems_are_those_of_the_language(self, kb: FrameDataset) -> None:
        kb.index_text("de")
        assert kb.search("Brücke")[0].score
        assert names(kb.search("认证")) == ["chinese"]

    @pytest.mark.parametrize("language", ["de", "de-AT", "de_CH", "German", " GERMAN "])
    def test_a_language_may_be_written_in_several_ways(self, language: str) -> None:
        assert str(TextAnalysis.of(language)) == "words of German"

    @pytest.mark.parametrize("language", ["", "xx", "Klingon", "english please", "z"])
    def test_a_language_that_nobody_knows(self, kb: FrameDataset, language: str) -> None:
        if not language:
            assert str(TextAnalysis.of(language)) == "words of any language"
            return
        with pytest.raises(ConfigError, match=r"give any, .* ar, da, de"):
            kb.index_text(language)
        assert text_index(kb.lance) is None


class TestTheIndexOverTime:
    def test_it_is_made_once_and_anew_for_another_language(self, kb: FrameDataset) -> None:
        assert kb.index_text()
        version = kb.version
        assert not kb.index_text()
        assert kb.version == version
        assert kb.index_text("ja")
        assert not kb.index_text("ja")
        assert not kb.index_text()  # the one given last
        assert kb.index_text("any")
        assert len(kb.lance.describe_indices()) == 1

    def test_one_of_an_earlier_release_still_finds_every_word(self, kb: FrameDataset) -> None:
        kb.lance.create_scalar_index(COLUMN, "INVERTED")
        kb = FrameDataset.open(kb.uri)
        for word, name in (("认证", "chinese"), ("who", "english"), (DIGEST, "digest")):
            found = kb.search(word)
            assert name in names(found) and found[0].score == 0

    def test_one_of_another_name_is_replaced_and_not_doubled(self, kb: FrameDataset) -> None:
        kb.lance.create_scalar_index(COLUMN, "INVERTED", name="mine")
        assert kb.index_text()
        assert [index.name for index in kb.lance.describe_indices()] == ["mine"]

    def test_an_index_for_filters_on_the_text_is_none(self, kb: FrameDataset) -> None:
        kb.lance.create_scalar_index(COLUMN, "NGRAM", name="filters")
        kb = FrameDataset.open(kb.uri)
        assert kb.search("认证")[0].score
        assert {index.name for index in kb.lance.describe_indices()} == {
            "filters",
            "text_content_idx",
        }

    @pytest.mark.parametrize("language", ["any", "zh"])
    def test_rows_that_came_later_are_found_before_and_after_a_compaction(
        self, kb: FrameDataset, language: str
    ) -> None:
        kb.index_text(language)
        kb.add(FrameRecord("系统认证失败", unique_id="late"))
        assert set(names(kb.search("认证"))) == {"chinese", "late"}
        receipt = compact(kb.uri)
        assert "text_content_idx" in receipt.indices
        kb = FrameDataset.open(kb.uri)
        assert set(names(kb.search("认证"))) == {"chinese", "late"}
        assert not kb.index_text()  # it is as it was

    def test_the_language_outlasts_an_overwrite(self, kb: FrameDataset, tmp_path: Path) -> None:
        kb.index_text("ja")
        (tmp_path / "docs").mkdir()
        (tmp_path / "docs" / "a.json").write_text('{"id": "new", "text": "コントロールパネル"}')
        command = ["ingest", "json", "--directory", tmp_path / "docs", "--to", kb.uri]
        done = cli(*command, "--mode", "overwrite", "--embed-dim", 4)
        assert done.code == 0, done
        kb = FrameDataset.open(kb.uri)
        assert text_index(kb.lance) is None
        assert kb.search("コントロール")[0].score
        assert not kb.index_text("ja")

    def test_a_language_that_a_later_release_knows_disturbs_nobody(self, kb: FrameDataset) -> None:
        kb.lance.update_config({"contextframe.search.language": "Klingon"})
        assert names(FrameDataset.open(kb.uri).search("认证")) == ["chinese"]

    @pytest.mark.skipif(os.geteuid() == 0, reason="everything may be written by root")
    def test_a_dataset_that_cannot_be_written_is_searched(self, kb: FrameDataset) -> None:
        folders = [path for path in Path(kb.uri).rglob("*") if path.is_dir()]
        for folder in [*folders, Path(kb.uri)]:
            folder.chmod(0o555)
        try:
            assert names(FrameDataset.open(kb.uri).search("认证")) == ["chinese"]
        finally:
            for folder in [Path(kb.uri), *folders]:
                folder.chmod(0o755)

    def test_where_no_index_can_be_made_every_text_is_read(
        self, kb: FrameDataset, caplog: pytest.LogCaptureFixture
    ) -> None:
        # A file where Lance wants a folder: nobody, not even root, can write an index.
        Path(kb.uri, "_indices").write_text("")
        opened = FrameDataset.open(kb.uri)
        assert names(opened.search("Straßenbahn")) == ["german"]
        assert names(opened.search("认证")) == ["chinese"]
        assert "without a full-text index" in caplog.text

    def test_an_earlier_version_without_an_index_finds_them_too(self, kb: FrameDataset) -> None:
        earlier = FrameDataset.open(kb.uri, version=kb.version)
        for word, name in [*WHOLE_WORDS, *PARTS]:
            if word.lower() in TEXTS[name].lower():
                assert name in names(earlier.search(word)), word
        assert text_index(FrameDataset.open(kb.uri).lance) is None


class TestWordsInAFilter:
    @pytest.mark.parametrize(
        ("where", "better"),
        [
            ("author = Ada", "author = 'Ada'"),
            ("author = Ada Lovelace", "author = 'Ada Lovelace'"),
            ("author == Ada", "author == 'Ada'"),
            ("author != Ada and title = x", "author != 'Ada' and title = 'x'"),
            ("(author = Ada)", "(author = 'Ada')"),
            ("authr = Ada", "authr = 'Ada'"),
            ("status = in progress", "status = 'in progress'"),
            ("title LIKE %plan%", "title LIKE '%plan%'"),
            ("title not like plan%", "title not like 'plan%'"),
            ("author = 5", "author = '5'"),
            ("created_at > 2026-01-31", "created_at > '2026-01-31'"),
            ("source_url = https://x.org/a?b", "source_url = 'https://x.org/a?b'"),
        ],
    )
    def test_the_filter_with_quotes_is_told(
        self, made: FrameDataset, where: str, better: str
    ) -> None:
        with pytest.raises(ConfigError) as caught:
            made.search("who", where=where)
        assert str(caught.value) == (
            f"the filter {where} cannot be used: text needs single quotes, as in {better}"
        )

    @pytest.mark.parametrize(
        ("where", "message"),
        [
            ("author IN (Ada, Bob)", "no column Ada, and text needs single quotes"),
            ("authr = 'Ada'", "no column authr; did you mean author?"),
            ("author=O'Brien", "with text in single quotes"),
            ("author", "give SQL such as author = 'Ada'"),
            ("author: Ada", "give SQL such as author = 'Ada'"),
        ],
    )
    def test_other_mistakes(self, made: FrameDataset, where: str, message: str) -> None:
        with pytest.raises(ConfigError, match=message.replace("?", "[?]")):
            made.search("who", where=where)

    def test_a_filter_without_fault_is_left_alone(self, made: FrameDataset) -> None:
        for where in ("position = 3", "author = title", "position > -1", "title = null"):
            made.search("who", where=where)


class TestTheCommands:
    def test_index_says_what_it_finds(self, kb: FrameDataset) -> None:
        first = cli("index", kb.uri)
        assert (first.code, first.err) == (0, "")
        assert first.out.startswith("made the full-text index of ")
        assert "which finds words of any language" in first.out
        assert "already" in cli("index", kb.uri).out
        assert "any part of a word (Chinese)" in cli("index", kb.uri, "--language", "zh").out
        assert cli("index", kb.uri, "--json").json["made"] is False
        assert cli("search", kb.uri, "コントロール").code == 0

    def test_index_brings_it_up_to_date(self, kb: FrameDataset) -> None:
        kb.index_text()
        kb.add(FrameRecord("more", unique_id="late"))
        assert cli("index", kb.uri, "--json").json["updated"] == ["text_content_idx"]

    def test_a_wrong_language(self, kb: FrameDataset) -> None:
        assert_error(cli("index", kb.uri, "--language", "xx"), 2, "'xx'", "give any")

    def test_an_empty_answer_says_where_was_looked(self, made: FrameDataset) -> None:
        result = cli("search", made.uri, "zebra")
        assert (result.code, result.out.count("\n")) == (0, 1)
        assert "not even within a longer word" in result.err
        assert "--where" in result.err

    def test_an_empty_answer_under_a_filter_says_what_there_is_without(
        self, made: FrameDataset
    ) -> None:
        result = cli("search", made.uri, "who", "--where", "author = 'Ada'")
        assert result.err == "Without --where there is 1 document.\n"

    def test_what_stands_within_words_only_is_said(self, made: FrameDataset) -> None:
        result = cli("search", made.uri, "sername")
        assert "names" in result.out
        assert result.err == "These contain the words only within longer ones.\n"

    def test_an_index_that_leaves_out_words_is_told(self, kb: FrameDataset) -> None:
        kb.lance.create_scalar_index(COLUMN, "INVERTED")
        result = cli("search", kb.uri, "who")
        assert f"`contextframe-beam index {kb.uri}` makes it again" in result.err

    @pytest.mark.parametrize("text", ["-x", "-x y", "--flag", "-", "-1"])
    def test_a_text_that_begins_with_a_dash(self, made: FrameDataset, text: str) -> None:
        result = cli("search", made.uri, text)
        if text != "-":
            assert_error(result, 2, "after a lone --")
        assert cli("search", made.uri, "--", text).code == 0
