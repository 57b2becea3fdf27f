"""Enrich: records pass through enrichers; and the enricher that finds keywords."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

import apache_beam as beam

from contextframe_beam.errors import ConfigError
from contextframe_beam.record import FrameRecord
from contextframe_beam.transforms.batches import FrameBatch, enrich_batch
from contextframe_beam.transforms.order import Step, required

_WORD = re.compile(r"\b\w+\b")


class Enricher(Protocol):
    """Anything that adds to a record: keywords, a language, a vector, a summary."""

    def enrich(self, record: FrameRecord, source_item: Any) -> FrameRecord:
        """Returns the record, changed or replaced.

        Args:
            record: What mapping made.
            source_item: The item it was made of; None for records that no connector made.
        """


class Enrich(Step[beam.PCollection[FrameBatch], beam.PCollection[FrameBatch]]):
    """Passes each record through enrichers, in order.

    Args:
        enrichers: Objects with `enrich(record, source_item)`. They are pickled to the workers, so
            what is costly or cannot be pickled (a model, a client) is best made on first use.

    Raises:
        ConfigError: something without an `enrich` method is among them.
    """

    takes = (FrameBatch,)
    gives = FrameBatch

    def __init__(self, enrichers: Sequence[Enricher]) -> None:
        super().__init__()
        self._enrichers = checked_enrichers(enrichers)

    def expand(self, batches: beam.PCollection[FrameBatch]) -> beam.PCollection[FrameBatch]:
        enriched: beam.PCollection[FrameBatch] = batches | "Enrich" >> beam.ParDo(
            _EnrichDoFn(self._enrichers)
        ).with_output_types(FrameBatch)
        return enriched


def checked_enrichers(enrichers: Any) -> list[Enricher]:
    """Returns what was given as enrichers as a list of them.

    Raises:
        ConfigError: it is none, as one enricher outside of a list is.
    """
    if callable(getattr(enrichers, "enrich", None)) or isinstance(enrichers, type):
        name = enrichers.__name__ if isinstance(enrichers, type) else type(enrichers).__name__
        raise ConfigError(f"enrichers are given as a list, also a single one: [{name}(...)]")
    if isinstance(enrichers, str) or not isinstance(enrichers, Iterable):
        shown = repr(enrichers) if isinstance(enrichers, str) else type(enrichers).__name__
        raise ConfigError(f"enrichers are a list of objects as in [KeywordEnricher()], not {shown}")
    found = list(enrichers)
    for enricher in found:
        if isinstance(enricher, type):
            name = enricher.__name__
            raise ConfigError(f"{name} is a class; give an object of it: {name}(...)")
        if not callable(getattr(enricher, "enrich", None)):
            raise ConfigError(
                f"{enricher!r} is no enricher: it has no method enrich(record, source_item)"
            )
    return found


class _EnrichDoFn(beam.DoFn):
    def __init__(self, enrichers: list[Enricher]) -> None:
        self._enrichers = enrichers

    def process(self, batch: FrameBatch) -> Iterator[FrameBatch]:
        required(batch, FrameBatch, "Enrich")
        yield enrich_batch(batch, self._enrichers)


class KeywordEnricher:
    """Puts a text's most frequent words into `context["keywords"]`.

    Args:
        limit: How many words.
        min_length: Words with fewer characters do not count.
        stop_words: Words that do not count.
    """

    def __init__(
        self, limit: int = 10, min_length: int = 1, stop_words: Iterable[str] = ()
    ) -> None:
        self._limit = limit
        self._min_length = min_length
        self._stop_words = frozenset(word.lower() for word in stop_words)

    def enrich(self, record: FrameRecord, source_item: Any) -> FrameRecord:
        """Adds the keywords, most frequent first, then in the order of the text."""
        words = Counter(_WORD.findall((record.text_content or "").lower()))
        counted = (
            word
            for word, _ in words.most_common()
            if len(word) >= self._min_length and word not in self._stop_words
        )
        keywords = [word for word, _ in zip(counted, range(self._limit), strict=False)]
        record.context = {**(record.context or {}), "keywords": keywords}
        return record
