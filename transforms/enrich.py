"""Enrich: passes records through enrichers, which are given as objects or by name."""

from __future__ import annotations

import inspect
import logging
import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import cache, reduce
from types import ModuleType
from typing import Any, NamedTuple, Protocol, TypeAlias, cast

import apache_beam as beam

from contextframe_beam.connectors.identity import FileClass, module_named, source_file
from contextframe_beam.errors import ConfigError, nearest
from contextframe_beam.frames.record import FrameRecord
from contextframe_beam.transforms.elements import FrameBatch, Step, required, type_shown

_LOGGER = logging.getLogger(__name__)
_WORD = re.compile(r"\b\w+\b")


class Enricher(Protocol):
    """Adds to one record at a time: keywords, a language, a summary."""

    def enrich(self, record: FrameRecord, source_item: Any) -> FrameRecord:
        """Returns the record, changed or replaced.

        Args:
            record: The mapped record.
            source_item: Its item; None for records without a connector.
        """


class BatchEnricher(Protocol):
    """Adds to many records at once, which suits models and services."""

    def enrich_batch(
        self, records: Sequence[FrameRecord], source_items: Sequence[Any]
    ) -> Sequence[FrameRecord]:
        """Returns the records, changed or replaced, in the same number and order.

        If it raises, it is called again with each record alone, so that a bad record does not
        affect the others.

        Args:
            records: The records of a batch.
            source_items: The item of each.
        """


class Expander(Protocol):
    """Makes several records from one, such as a document and its chunks."""

    def expand(self, record: FrameRecord, source_item: Any) -> Iterable[FrameRecord]:
        """Returns one or more records. They are stored together, or not at all if one fails.

        Args:
            record: The mapped record.
            source_item: Its item.
        """


AnyEnricher: TypeAlias = Enricher | BatchEnricher | Expander

#: The methods of enrichers. If an enricher has several, the first is called.
METHODS = ("enrich_batch", "expand", "enrich")


class Enrich(Step[beam.PCollection[FrameBatch], beam.PCollection[FrameBatch]]):
    """Passes records through enrichers, in order.

    Args:
        enrichers: Objects with one of the methods `enrich(record, source_item)`,
            `enrich_batch(records, source_items)` and `expand(record, source_item)`. They are
            pickled to the workers, so make anything that is costly or cannot be pickled (a model, a
            client) on first use.

    Raises:
        ConfigError: one of them has none of these methods.
    """

    takes = (FrameBatch,)
    gives = FrameBatch

    def __init__(self, enrichers: Sequence[AnyEnricher]) -> None:
        super().__init__()
        self._enrichers = checked_enrichers(enrichers)

    def expand(self, batches: beam.PCollection[FrameBatch]) -> beam.PCollection[FrameBatch]:
        enriched: beam.PCollection[FrameBatch] = batches | "Enrich" >> beam.ParDo(
            _EnrichDoFn(self._enrichers)
        ).with_output_types(FrameBatch)
        return enriched


def checked_enrichers(enrichers: Any) -> list[AnyEnricher]:
    """Returns enrichers as a list.

    Raises:
        ConfigError: they are not a list of enrichers, such as a single enricher without a list.
    """
    if method_of(enrichers) or isinstance(enrichers, type):
        name = enrichers.__name__ if isinstance(enrichers, type) else type(enrichers).__name__
        raise ConfigError(f"give enrichers as a list, even a single one: [{name}(...)]")
    if isinstance(enrichers, str) or not isinstance(enrichers, Iterable):
        shown = repr(enrichers) if isinstance(enrichers, str) else type(enrichers).__name__
        raise ConfigError(f"enrichers are a list of objects as in [KeywordEnricher()], not {shown}")
    found = list(enrichers)
    for enricher in found:
        if isinstance(enricher, type):
            name = enricher.__name__
            raise ConfigError(f"{name} is a class; give an object of it: {name}(...)")
        if method_of(enricher) is None:
            raise ConfigError(
                f"{enricher!r} is not an enricher: it has no method enrich(record, source_item), "
                "enrich_batch(records, source_items) or expand(record, source_item)"
            )
    return found


def method_of(enricher: Any) -> str | None:
    """Returns the method of an enricher, or of its class, that is called; None without one."""
    return next((name for name in METHODS if callable(getattr(enricher, name, None))), None)


class _EnrichDoFn(beam.DoFn):
    def __init__(self, enrichers: list[AnyEnricher]) -> None:
        self._enrichers = enrichers

    def process(self, batch: FrameBatch) -> Iterator[FrameBatch]:
        required(batch, FrameBatch, "Enrich")
        yield enrich_batch(batch, self._enrichers)


def enrich_batch(batch: FrameBatch, enrichers: Sequence[AnyEnricher]) -> FrameBatch:
    """Passes the records of a batch through every enricher, in order.

    A record that an enricher refuses, or for which it returns anything but a FrameRecord, becomes
    a dead letter of the stage `enrich`, with all other parts of its document. The others go on.
    """
    last_expander = max(
        (place for place, one in enumerate(enrichers) if method_of(one) == "expand"), default=-1
    )
    if last_expander >= 0:
        # Nobody knows what would have been made of the items that have failed before.
        batch.tally.stale = []
    numbers = batch.documents or range(len(batch.records))
    named = {
        number: _readers(record) for number, record in zip(numbers, batch.records, strict=True)
    }
    parts = [_Part(*one) for one in zip(numbers, batch.records, batch.items, strict=True)]
    refused: dict[int, tuple[Exception, Any, list[FrameRecord]]] = {}
    for place, enricher in enumerate(enrichers):
        made: list[_Part] = []
        for part, result in zip(parts, _results(enricher, parts), strict=True):
            if isinstance(result, Exception):
                known = [one.record for one in parts if one.document == part.document]
                about = (result, part.item, known if place > last_expander else [])
                refused.setdefault(part.document, about)
            else:
                for record in result:
                    # What is made of a document goes with it.
                    if record.parent is None:
                        record.place = record.place or part.record.place
                    if record.readers is None:
                        record.readers = part.record.readers
                    made.append(_Part(part.document, record, part.item))
        parts = [part for part in made if part.document not in refused]
    for part in parts:
        if _readers(part.record) != named[part.document]:
            # The source would be asked who may read it, and does not know what an enricher says.
            part.record.origin = None
    for number, (error, item, known) in sorted(refused.items(), key=lambda pair: pair[0]):
        batch.fail("enrich", error, item, number, known)
    batch.records = [part.record for part in parts]
    batch.items = [part.item for part in parts]
    batch.documents = [part.document for part in parts]
    return batch


def _readers(record: FrameRecord) -> list[Any] | None:
    """Returns a copy of who may read a record: an enricher may change the list itself."""
    readers = record.readers
    return list(readers) if isinstance(readers, list) else readers


class _Part(NamedTuple):
    document: int
    record: FrameRecord
    item: Any


def _results(enricher: Any, parts: Sequence[_Part]) -> Iterator[Exception | Sequence[FrameRecord]]:
    """Yields for each part the records from an enricher, or its exception."""
    method = method_of(enricher)
    if method == "enrich_batch" and len(parts) > 1:
        try:
            yield from [[record] for record in _batch(enricher, parts)]
            return
        except Exception as error:
            _LOGGER.debug("%s refused a batch; its records go alone", enricher, exc_info=error)
    calls: Mapping[str, Callable[[Any, Sequence[_Part]], Sequence[FrameRecord]]] = {
        "enrich_batch": _batch,
        "expand": _expanded,
        "enrich": _enriched,
    }
    call = calls[str(method)]
    for part in parts:
        try:
            yield call(enricher, [part])
        except Exception as error:
            yield error


def _batch(enricher: BatchEnricher, parts: Sequence[_Part]) -> Sequence[FrameRecord]:
    made = enricher.enrich_batch([part.record for part in parts], [part.item for part in parts])
    name = f"{type(enricher).__name__}.enrich_batch"
    if not isinstance(made, Sequence) or len(made) != len(parts):
        count = len(made) if isinstance(made, Sequence) else type_shown(made)
        raise TypeError(f"{name} returned {count} for {len(parts)} records; it must return each")
    return [_record(record, name) for record in made]


def _expanded(enricher: Expander, parts: Sequence[_Part]) -> Sequence[FrameRecord]:
    [part] = parts
    name = f"{type(enricher).__name__}.expand"
    made = [_record(record, name) for record in enricher.expand(part.record, part.item)]
    if not made:
        raise TypeError(f"{name} returned no record; it must return one FrameRecord or more")
    return made


def _enriched(enricher: Enricher, parts: Sequence[_Part]) -> Sequence[FrameRecord]:
    [part] = parts
    made = enricher.enrich(part.record, part.item)
    return [_record(made, f"{type(enricher).__name__}.enrich")]


def _record(made: Any, name: str) -> FrameRecord:
    if not isinstance(made, FrameRecord):
        raise TypeError(f"{name} returned {type_shown(made)}; it must return the FrameRecord")
    return made


class KeywordEnricher:
    """Puts a text's most frequent words into `context["keywords"]`.

    Args:
        limit: How many words.
        min_length: Words with fewer characters do not count.
        stop_words: Words that do not count; by default the common ones of the text's language.
    """

    def __init__(
        self, limit: int = 10, min_length: int = 1, stop_words: Iterable[str] | None = None
    ) -> None:
        self._limit = limit
        self._min_length = min_length
        given = None if stop_words is None else frozenset(word.lower() for word in stop_words)
        self._stop_words = given

    def enrich(self, record: FrameRecord, source_item: Any) -> FrameRecord:
        """Adds the keywords, most frequent first, then in the order of the text."""
        words = Counter(_WORD.findall((record.text_content or "").lower()))
        left_out = common_words(words) if self._stop_words is None else self._stop_words
        counted = (
            word
            for word, _ in words.most_common()
            if len(word) >= self._min_length and word not in left_out
        )
        keywords = [word for word, _ in zip(counted, range(self._limit), strict=False)]
        record.context = {**(record.context or {}), "keywords": keywords}
        return record


def common_words(words: Mapping[str, int]) -> Collection[str]:
    """Returns the stop words of the language that a text is in; none if that cannot be told.

    Args:
        words: The words of the text in lower case, each with its count.
    """
    total = sum(words.values())
    if total < _FEW_WORDS:
        return ()
    languages, known = _stop_words()
    counts = [0] * len(languages)
    for word, count in words.items():
        for language in known.get(word, ()):
            counts[language] += count
    most = max(counts, default=0)
    if most < _LIKELY * total:
        return ()
    return languages[counts.index(most)]


@cache
def _stop_words() -> tuple[list[frozenset[str]], dict[str, list[int]]]:
    """Returns the stop words of each language, and the languages of each stop word."""
    from stop_words import AVAILABLE_LANGUAGES, get_stop_words

    languages = [frozenset(get_stop_words(name)) for name in sorted(AVAILABLE_LANGUAGES)]
    known: dict[str, list[int]] = {}
    for number, words in enumerate(languages):
        for word in words:
            known.setdefault(word, []).append(number)
    return languages, known


# Of running text about half are stop words; of a list of names or numbers hardly any. A few words
# do not tell a language.
_LIKELY = 0.2
_FEW_WORDS = 10

_NAMED = {"keywords": "contextframe_beam.transforms.enrich:KeywordEnricher"}


class FileEnricher:
    """An enricher whose class is in a file; it travels to the workers as the file's text.

    Args:
        path: The file.
        text: The content of the file.
        qualname: The class.
        method: Its method that is called.
    """

    def __init__(self, path: str, text: str, qualname: str, method: str) -> None:
        self._parts = (path, text, qualname)
        self._method = method
        self._enricher: Any = None

    @property
    def spec(self) -> str:
        """Where its class is, as in `path/to/file.py:Class`."""
        return f"{os.path.abspath(self._parts[0])}:{self._parts[2]}"

    def __getattr__(self, name: str) -> Any:
        if name not in METHODS or name != self._method:
            raise AttributeError(f"{type(self).__name__!r} has no attribute {name!r}", name=name)
        if self._enricher is None:
            self._enricher = FileClass(*self._parts)()
        return getattr(self._enricher, name)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_enricher": None}


def enricher_spec(enricher: Any) -> str:
    """Returns the name by which `load_enrichers` finds the class of an enricher."""
    if isinstance(enricher, FileEnricher):
        return enricher.spec
    found = f"{type(enricher).__module__}:{type(enricher).__qualname__}"
    return next((name for name, path in _NAMED.items() if path == found), found)


def load_enrichers(specs: Iterable[str]) -> list[AnyEnricher]:
    """Makes the enrichers with these names, in order.

    Raises:
        ConfigError: an enricher is unknown, cannot be imported, or is not an enricher.
    """
    return [_load(spec) for spec in specs]


def _load(spec: str) -> AnyEnricher:
    where, _, qualname = _NAMED.get(spec, spec).rpartition(":")
    if not where or not qualname:
        raise ConfigError(
            f"there is no enricher {spec!r}{nearest(spec, _NAMED)} "
            f"(there are: {', '.join(_NAMED)}); "
            "one of your own is given as package.module:Class or path/to/file.py:Class"
        )
    cls = _class_in(module_named(where, spec), qualname, where)
    file = source_file(cls)
    try:
        enricher: AnyEnricher = cls()
    except Exception as error:
        raise ConfigError(
            f"{spec} cannot be made without arguments ({type(error).__name__}: {error}); "
            "give it defaults, or use it from Python"
        ) from error
    if file is None:
        return enricher
    from_file: Enricher = cast("Any", FileEnricher(*file, cls.__qualname__, str(method_of(cls))))
    return from_file


def _class_in(module: ModuleType, qualname: str, where: str) -> Any:
    try:
        found = reduce(getattr, qualname.split("."), module)
    except AttributeError:
        own = [
            name
            for name, value in vars(module).items()
            if inspect.isclass(value) and method_of(value)
        ]
        raise ConfigError(f"{where} has no class {qualname!r}{nearest(qualname, own)}") from None
    if not inspect.isclass(found) or method_of(found) is None:
        raise ConfigError(
            f"{where}:{qualname} is not an enricher: it must be a class with a method "
            "enrich(self, record, source_item), enrich_batch(self, records, source_items) or "
            "expand(self, record, source_item)"
        )
    return found
