"""What a run makes of texts: chunks and their vectors, as its settings say."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import DirectOptions
from apache_beam.utils.windowed_value import WindowedValue

from contextframe_beam.connectors import secrets
from contextframe_beam.connectors.plain_secrets import (
    credentials_in,
    has_credentials,
    looks_secret,
    without_credentials,
)
from contextframe_beam.errors import ConfigError
from contextframe_beam.frames.embedders import EmbedderIdentity, EmbedderSpec
from contextframe_beam.frames.record import Deletion, FrameRecord
from contextframe_beam.frames.text_record import Cutting, TextRecord, recordable
from contextframe_beam.store.address import Address
from contextframe_beam.store.files import open_dataset
from contextframe_beam.store.state import read_texts
from contextframe_beam.transforms.chunk import Chunk, ChunkerSpec
from contextframe_beam.transforms.chunkers.registry import NONE, chunker_identity
from contextframe_beam.transforms.contents import ContentOrigins
from contextframe_beam.transforms.elements import FrameBatch, batch_of_records, in_global_window
from contextframe_beam.transforms.embed import Embed
from contextframe_beam.transforms.recognise import StoredIn

__all__ = ["PrepareTexts", "Texts", "embedder_settings"]

# Records that no connector made are cut and embedded together.
_RECORDS_TOGETHER = 256

_OPTIONS_OF_THEIR_OWN = {
    "url": "give `embed_url`",
    "key": "give `embed_key`",
    "budget": "give `embed_budget`",
}


@dataclass(frozen=True)
class Texts:
    """What becomes of the texts of a run.

    Attributes:
        chunker: What cuts documents; None where nothing is cut and nothing embedded.
        embedder: What makes vectors; None for none.
        max_tokens: So many tokens may be embedded; None for any number.
        dry_run: Whether all is only counted.
        known: What the dataset has recorded of its texts.
    """

    chunker: ChunkerSpec | None = None
    embedder: EmbedderSpec | None = None
    max_tokens: int | None = None
    dry_run: bool = False
    known: TextRecord = field(default_factory=TextRecord, repr=False)

    @classmethod
    def of(
        cls,
        at: Address,
        *,
        chunk: str | None = None,
        chunk_tokens: int | None = None,
        chunk_overlap: int | None = None,
        embed: str | None = None,
        embed_url: str | None = None,
        embed_key: str | None = None,
        embed_budget: Mapping[str, Any] | str | None = None,
        embed_options: Mapping[str, Any] | str | None = None,
        embed_dim: int | None = None,
        max_tokens: int | None = None,
        dry_run: bool = False,
    ) -> Texts:
        """Reads the settings of a run, which `Job` documents.

        The embedder is asked what its vectors are, unless that costs something and the run is dry.

        Raises:
            ConfigError: a setting cannot be, or two of them contradict each other.
            EmbedderError: the embedder cannot be used.
        """
        secrets.register_store(at.storage_options)
        known = _recorded(at)
        given = embedder_settings(embed_url, embed_key, embed_budget, embed_options)
        embedder = _embedder(known, at.uri, embed, given, embed_dim, asks=not dry_run)
        if embedder is None:
            _refuse_without(given, max_tokens)
        cutting = known.cutting_of(at.uri, chunk, chunk_tokens, chunk_overlap)
        if cutting is None:
            if embedder is None and not dry_run:
                return cls(known=known)
            cutting = Cutting("markdown" if embedder is not None else NONE)
        chunker = _chunker_of(cutting)
        chunker.load(embedder)  # refuses what cannot be, before anything is read
        return cls(chunker, embedder, max_tokens, dry_run, known)

    @classmethod
    def embedding(
        cls,
        at: Address,
        embed: str | None,
        given: Mapping[str, Any],
        max_tokens: int | None,
        dry_run: bool,
    ) -> Texts:
        """Reads the settings of what only embeds texts, and cuts none.

        Args:
            at: The dataset.
            embed: The embedder, or None for the one that is recorded.
            given: Its settings, as `embedder_settings` returns them.
            max_tokens: So many tokens may be embedded.
            dry_run: Whether all is only counted.

        Raises:
            ConfigError: a setting cannot be.
            EmbedderError: the embedder cannot be used.
        """
        secrets.register_store(at.storage_options)
        known = _recorded(at)
        embedder = _embedder(known, at.uri, embed, given, asks=not dry_run)
        return cls(None, embedder, max_tokens, dry_run, known)

    @property
    def made_with(self) -> bytes:
        """What is another one when a document may have other chunks, or none that are embedded."""
        return bytes.fromhex(self.known.meant_by(self.made_with_chunks_of(self.chunker)))

    def made_with_chunks_of(self, chunker: ChunkerSpec | None) -> str:
        """Returns what tells chunks of these texts by one chunker from others, as hex digits.

        Raises:
            ConfigError: there is no such chunker, or its chunks are longer than the embedder reads.
        """
        loaded = None if chunker is None else chunker.load(self.embedder)
        return (chunker_identity(loaded) + bytes([self.embedder is not None])).hex()

    @property
    def makes_something(self) -> bool:
        """Whether texts are cut, embedded or counted."""
        cuts = self.chunker is not None and self.chunker.name != NONE
        return cuts or self.embedder is not None or self.dry_run

    @property
    def identity(self) -> EmbedderIdentity | None:
        """Whose vectors the run brings; None where it brings none."""
        return None if self.embedder is None else self.embedder.identity

    @property
    def record(self) -> TextRecord:
        """What it makes of texts, for later runs; nothing where it makes nothing of them."""
        embedder, chunker = self.embedder, self.chunker
        record = TextRecord(
            self.identity, {} if embedder is None else recordable(embedder.settings)
        )
        if chunker is None:
            return record
        cutting = Cutting(chunker.name, chunker.tokens, chunker.overlap)
        return replace(record, cutting=cutting, made_with=self.made_with.hex())

    @property
    def change(self) -> str:
        """What it cuts in another way than runs before, in words; empty if nothing."""
        before, now = self.known.cutting, self.record.cutting
        if before is None or now is None or before == now:
            return ""
        return (
            f"so far documents were cut by {before}. This run cuts by {now}, and so will later "
            "runs that are not told how; documents that were cut in another way are made anew"
        )

    def standing(self, chunked: bool) -> TextRecord:
        """Returns the record after all was embedded anew, and nothing cut anew.

        By it the next run recognises documents, although another embedder counts their tokens now.

        Args:
            chunked: Whether there are any chunks.
        """
        known = self.known
        record = known.after(self.record)
        if not known and not chunked:  # a run that makes nothing of texts leaves no record
            record = replace(record, cutting=Cutting(NONE), made_with=Texts().made_with.hex())
        cutting = record.cutting
        if cutting is None or not record.made_with or ":" in cutting.chunker:
            return record
        try:
            anew = self.made_with_chunks_of(_chunker_of(cutting))
        except ConfigError:  # chunks are longer than the embedder reads: they have to be cut anew
            return record
        return replace(record, stands_for={**record.stands_for, anew: record.made_with})


class PrepareTexts(beam.PTransform[Any, Any]):
    """Cuts and embeds the texts of batches, and of records that no connector made.

    Args:
        texts: What is to become of them.
        at: The dataset that the run ends in.
        version: The version of it whose vectors are reused; None without a dataset.
        run: Tells the run from others in the same process.
        stored: Where documents are found that need not be cut again; None for nowhere.
    """

    def __init__(
        self,
        texts: Texts,
        at: Address,
        version: int | None,
        run: str,
        stored: StoredIn | None = None,
    ) -> None:
        super().__init__()
        self._texts, self._at, self._version, self._run = texts, at, version, run
        self._stored = stored

    def expand(self, given: beam.PCollection[Any]) -> beam.PCollection[FrameBatch]:
        texts, embedder = self._texts, self._texts.embedder
        if texts.chunker is None or not texts.makes_something:
            return given
        batches: beam.PCollection[FrameBatch] = given | "Collect" >> beam.ParDo(
            _CollectDoFn()
        ).with_output_types(FrameBatch)
        if embedder is not None:
            workers = given.pipeline.options.view_as(DirectOptions).direct_num_workers
            embedder = replace(embedder, workers=max(1, workers or 1))
        origins = ContentOrigins(texts.made_with, self._stored)
        batches = batches | "Cut" >> Chunk(texts.chunker, embedder, origins)
        if embedder is not None and embedder.identity is not None and not texts.dry_run:
            batches = batches | "Vectors" >> Embed(
                embedder, self._at, self._version, texts.max_tokens, self._run
            )
        return batches


class _CollectDoFn(beam.DoFn):
    """Makes batches of records that no connector made; other batches pass."""

    def start_bundle(self) -> None:
        self._records: list[FrameRecord | Deletion] = []

    def process(self, element: FrameBatch | FrameRecord | Deletion) -> Iterator[FrameBatch]:
        if isinstance(element, FrameBatch):
            yield element
            return
        self._records.append(element)
        if len(self._records) >= _RECORDS_TOGETHER:
            yield self._collected()

    def finish_bundle(self) -> Iterator[WindowedValue]:
        if self._records:
            yield in_global_window(self._collected())

    def _collected(self) -> FrameBatch:
        records, self._records = self._records, []
        return batch_of_records(records)


def _embedder(
    known: TextRecord,
    uri: str,
    embed: str | None,
    given: Mapping[str, Any],
    embed_dim: int | None = None,
    *,
    asks: bool,
) -> EmbedderSpec | None:
    chosen = None
    if embed is None or embed.strip() != NONE:
        chosen = known.embedder_of(uri, embed, given)
    if chosen is None:
        return None
    name, settings = chosen
    identity, dim = known.embedder, None
    if identity is not None and identity.spec == name and "dimensions" not in given:
        dim = identity.dim
    if embed_dim is not None and dim is not None and embed_dim != dim:
        raise ConfigError(
            f"the vectors of {identity} have {dim} dimensions, and `embed_dim` is {embed_dim}; "
            "leave one of the two out"
        )
    return EmbedderSpec.of(name, settings, dim or embed_dim, asks=asks)


def _chunker_of(cutting: Cutting) -> ChunkerSpec:
    return ChunkerSpec(cutting.chunker, cutting.tokens, cutting.overlap)


def _recorded(at: Address) -> TextRecord:
    """Returns what a dataset records of its texts; nothing where there is no dataset.

    Raises:
        DatasetError: it cannot be read.
    """
    dataset = open_dataset(at)
    return TextRecord() if dataset is None else read_texts(dataset)


def embedder_settings(
    url: str | None = None,
    key: str | None = None,
    budget: Mapping[str, Any] | str | None = None,
    options: Mapping[str, Any] | str | None = None,
) -> dict[str, Any]:
    """Returns the settings of an embedder that are given.

    Raises:
        ConfigError: one of them cannot be, or holds a credential, which would travel to all workers
            and stand in the dataset.
    """
    if key is not None and not secrets.is_reference(key):
        raise ConfigError(
            "`embed_key` is the key itself, which would travel to all workers; give a reference "
            "to it, such as env:OPENAI_API_KEY or file:PATH"
        )
    if url is not None and has_credentials(url):
        raise ConfigError(
            f"`embed_url` holds a credential: {without_credentials(url)}; give it by `embed_key`, "
            "as a reference such as env:OPENAI_API_KEY"
        )
    further = _mapping("embed_options", options, '{"query_prefix": "query: "}') or {}
    for name in sorted(further.keys() & _OPTIONS_OF_THEIR_OWN.keys()):
        raise ConfigError(f"`embed_options` cannot hold {name!r}: {_OPTIONS_OF_THEIR_OWN[name]}")
    _refuse_secrets(further)
    example = '{"per_second": 5, "tokens_per_minute": 1000000}'
    given = {"url": url, "key": key, "budget": _mapping("embed_budget", budget, example), **further}
    return {name: value for name, value in given.items() if value is not None}


def _mapping(
    name: str, given: Mapping[str, Any] | str | None, example: str
) -> dict[str, Any] | None:
    """Reads a setting that may be given as JSON text, as on the command line."""
    found: Any = given
    if isinstance(given, str):
        try:
            found = json.loads(given)
        except (ValueError, RecursionError):
            found = ()
    if found is not None and not isinstance(found, Mapping):
        raise ConfigError(f"`{name}` is not a JSON object; write it as in {example}")
    return None if found is None else dict(found)


def _refuse_secrets(value: Any, name: str = "") -> None:
    """Refuses credentials among the options of an embedder."""
    if isinstance(value, Mapping):
        for key, one in value.items():
            _refuse_secrets(one, str(key))
    elif isinstance(value, str) and not secrets.is_reference(value):
        is_secret = looks_secret(name) or bool(credentials_in(value, name))
        if is_secret:
            raise ConfigError(
                f"`embed_options` holds a credential in {name!r}, which would travel to all "
                'workers; give a reference to it, as in {"headers": {"X-Key": "env:X_KEY"}}'
            )


def _refuse_without(settings: Mapping[str, Any], max_tokens: int | None) -> None:
    names = [f"embed_{name}" for name in settings] + (["max_tokens"] if max_tokens else [])
    if names:
        raise ConfigError(f"`{names[0]}` says nothing without an embedder; name one with `embed`")
