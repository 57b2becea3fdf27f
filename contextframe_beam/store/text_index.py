"""The full-text index of a dataset: how it splits text into words, and how to make and query it.

Lance offers ICU's dictionaries, which find the words of any language, even those without spaces,
and n-grams, which find any part of a word. The index never leaves out a word because it is long or
common.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lance import LanceDataset
from lance.query import BooleanQuery, FullTextQuery, MatchQuery, Occur

from contextframe_beam.errors import ConfigError
from contextframe_beam.store.address import Address
from contextframe_beam.store.files import WrittenFragment
from contextframe_beam.store.transaction import Pending, change, changing
from contextframe_beam.store.versions import open_newest

COLUMN = "text_content"

_INVERTED = "Inverted"

#: The key of the requested language in the dataset's configuration. It survives an overwrite, which
#: removes the index.
_LANGUAGE = "contextframe.search.language"

#: Languages whose words ICU finds and a stemmer reduces to their stems.
_STEMMED = {
    "ar": "Arabic",
    "da": "Danish",
    "de": "German",
    "el": "Greek",
    "en": "English",
    "es": "Spanish",
    "fi": "Finnish",
    "fr": "French",
    "hu": "Hungarian",
    "it": "Italian",
    "nb": "Norwegian",
    "nl": "Dutch",
    "no": "Norwegian",
    "pt": "Portuguese",
    "ro": "Romanian",
    "ru": "Russian",
    "sv": "Swedish",
    "ta": "Tamil",
    "tr": "Turkish",
}

#: Languages without spaces between words, or with endings that stemmers do not remove. N-grams find
#: any part of a word.
_BY_PARTS = {
    "ja": "Japanese",
    "km": "Khmer",
    "ko": "Korean",
    "lo": "Lao",
    "my": "Burmese",
    "th": "Thai",
    "zh": "Chinese",
}

_ANY = "any"

_EVERY_WORD = {"max_token_length": None, "remove_stop_words": False}

#: The length of parts of a word. With several lengths, Lance would search for any of the parts,
#: even if it is told to require all.
_PART = 2

#: A query uses only this many first words, and this many first parts of a word.
_MOST_WORDS = 64


@dataclass(frozen=True)
class TextAnalysis:
    """How text is split into words.

    Attributes:
        language: Its name in English; empty for text of any language.
        by_parts: Whether any part of a word is found.
    """

    language: str = ""
    by_parts: bool = False

    @classmethod
    def of(cls, language: str | None) -> TextAnalysis:
        """Returns the analysis for a language: `de`, `de-AT`, `German`; None and `any` mean all.

        Raises:
            ConfigError: the language is unknown.
        """
        asked = (language or _ANY).strip().casefold()
        if asked == _ANY:
            return cls()
        code = asked.replace("_", "-").partition("-")[0]
        for known, by_parts in ((_STEMMED, False), (_BY_PARTS, True)):
            for short, name in known.items():
                if code == short or asked == name.casefold():
                    return cls(name, by_parts)
        listed = ", ".join(sorted({**_STEMMED, **_BY_PARTS}))
        raise ConfigError(
            f"nothing special is known about the language {language!r}; give {_ANY}, which suits "
            f"all of them, or one of {listed}"
        )

    def settings(self) -> dict[str, Any]:
        """Returns Lance's settings for making the index."""
        if self.by_parts:
            length = {"min_ngram_length": _PART, "max_ngram_length": _PART}
            return {**_EVERY_WORD, **length, "base_tokenizer": "ngram", "stem": False}
        # English stems are harmless in other languages: a word always has the same stem.
        return {
            **_EVERY_WORD,
            "base_tokenizer": "icu/split",
            "stem": True,
            "language": self.language or "English",
        }

    def __str__(self) -> str:
        if self.by_parts:
            return f"any part of a word ({self.language})"
        return f"words of {self.language or 'any language'}"


def text_index(dataset: LanceDataset) -> Any | None:
    """Returns Lance's description of the full-text index, or None if there is no index."""
    return next(
        (
            index
            for index in dataset.describe_indices()
            if COLUMN in index.field_names and index.index_type == _INVERTED
        ),
        None,
    )


def analysis_wanted(dataset: LanceDataset) -> TextAnalysis:
    """Returns the analysis for a new index of this dataset: the last one that was requested."""
    try:
        return TextAnalysis.of(dataset.config().get(_LANGUAGE))
    except ConfigError:  # a later release knows more languages
        return TextAnalysis()


def keeps_every_word(dataset: LanceDataset) -> bool:
    """Returns whether the index has all words; earlier releases left out some.

    It is True without an index.
    """
    index = text_index(dataset)
    return index is None or _has(index.details, _EVERY_WORD)


def index_text(at: Address, language: str | None) -> bool:
    """Makes the full-text index for a language; by default for the one given last.

    Returns:
        Whether it was made; one of that kind may have been there.

    Raises:
        ConfigError: nothing is known about that language.
        DatasetError: the index cannot be written.
    """
    analysis = TextAnalysis.of(language) if language is not None else None

    def build(_: list[WrittenFragment]) -> Pending[bool] | bool:
        latest = open_newest(at)
        made: list[bool] = []

        def commit() -> LanceDataset:
            made.append(make_text_index(latest, analysis or analysis_wanted(latest)))
            return latest

        return Pending(commit, lambda _: made[-1])

    return change(at, build)


def make_text_index(dataset: LanceDataset, analysis: TextAnalysis) -> bool:
    """Makes the full-text index; replaces one with another analysis.

    Args:
        dataset: The newest version; afterwards it is at the next one.
        analysis: How to split text.

    Returns:
        Whether it was made; False if there was already one with this analysis.

    Raises:
        ConflictError: another commit came first.
        DatasetError: it cannot be written.
    """
    if dataset.config().get(_LANGUAGE, "") != analysis.language:
        changing(
            dataset.uri,
            lambda: dataset.update_config({_LANGUAGE: analysis.language}),
            "set the language of",
        )
    index = text_index(dataset)
    settings = analysis.settings()
    if index is not None and _has(index.details, settings):
        return False
    changing(
        dataset.uri,
        lambda: dataset.create_scalar_index(
            COLUMN, "INVERTED", name=index.name if index else None, **settings
        ),
        "make the full-text index of",
    )
    return True


def query_of(dataset: LanceDataset, text: str) -> FullTextQuery:
    """Returns the query for documents that contain any word of a text.

    Because it names the column, it also works without an index.
    """
    if not _knows_parts(dataset):
        return MatchQuery(text, COLUMN)
    # A document needs all parts of a word, but only one of the words.
    return _together(
        [
            _together([MatchQuery(part, COLUMN) for part in _parts_of(word)], Occur.MUST)
            for word in words_of(text) or [text]
        ],
        Occur.SHOULD,
    )


def loose_query_of(dataset: LanceDataset, text: str) -> FullTextQuery | None:
    """Returns the query for documents that contain some parts of the words of a text.

    It suits a sentence without spaces. It is None if the index has whole words.
    """
    return MatchQuery(text, COLUMN) if _knows_parts(dataset) else None


def unknown_words(dataset: LanceDataset, text: str) -> Sequence[str]:
    """Returns the words of a text that are too short for an index of parts of words."""
    return [word for word in words_of(text) if len(word) < _PART] if _knows_parts(dataset) else []


def _knows_parts(dataset: LanceDataset) -> bool:
    index = text_index(dataset)
    return index is not None and _has(index.details, TextAnalysis(by_parts=True).settings())


def _together(queries: list[FullTextQuery], occur: Occur) -> FullTextQuery:
    return BooleanQuery([(occur, one) for one in queries]) if queries[1:] else queries[0]


def _parts_of(word: str) -> list[str]:
    parts = [word[i : i + _PART] for i in range(max(len(word) - _PART, 0) + 1)]
    return list(dict.fromkeys(parts))[:_MOST_WORDS]


def words_of(text: str) -> Sequence[str]:
    """Returns the words between the spaces of a text, each once, in lower case."""
    return list(dict.fromkeys(text.lower().split()))[:_MOST_WORDS]


def _has(details: Mapping[str, Any], settings: Mapping[str, Any]) -> bool:
    return all(name in details and details[name] == settings[name] for name in settings)
