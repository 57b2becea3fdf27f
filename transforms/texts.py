"""What a run makes of texts: chunks and their vectors, as its settings say."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import DirectOptions
from apache_beam.utils.windowed_value import WindowedValue

from contextframe_beam.connectors import secrets
from contextframe_beam.errors import ConfigError
from contextframe_beam.frames.embedders import EmbedderIdentity, EmbedderSpec
from contextframe_beam.frames.record import Deletion, FrameRecord
from contextframe_beam.store.address import Address
from contextframe_beam.store.files import open_dataset
from contextframe_beam.store.state import read_embedder
from contextframe_beam.transforms.chunk import Chunk, ChunkerSpec
from contextframe_beam.transforms.chunkers.registry import NONE, chunker_identity
from contextframe_beam.transforms.elements import FrameBatch, batch_of_records, in_global_window
from contextframe_beam.transforms.embed import Embed

__all__ = ["PrepareTexts", "Texts"]

# Records that no connector made are cut and embedded together.
_RECORDS_TOGETHER = 256


@dataclass(frozen=True)
class Texts:
    """What becomes of the texts of a run.

    Attributes:
        chunker: What cuts documents; None where nothing is cut and nothing embedded.
        embedder: What makes vectors; None for none.
        max_tokens: So many tokens may be embedded; None for any number.
        dry_run: Whether all is only counted.
    """

    chunker: ChunkerSpec | None = None
    embedder: EmbedderSpec | None = None
    max_tokens: int | None = None
    dry_run: bool = False

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
        given = {"url": embed_url, "key": embed_key, "budget": _budget(embed_budget)}
        settings = {name: value for name, value in given.items() if value is not None}
        _refuse_plain(embed_key)
        secrets.register_store(at.storage_options)
        known = _recorded(at)
        name = embed.strip() if embed is not None else known.spec if known is not None else NONE
        embedder = None
        if name == NONE:
            _refuse_without(settings, max_tokens)
        else:
            dim = known.dim if known is not None and known.spec == name else None
            if embed_dim is not None and dim is not None and embed_dim != dim:
                raise ConfigError(
                    f"the vectors of {known} have {dim} dimensions, and `embed_dim` is "
                    f"{embed_dim}; leave one of the two out"
                )
            embedder = EmbedderSpec.of(name, settings, dim or embed_dim, asks=not dry_run)
        cuts = chunk_tokens is not None or chunk_overlap is not None
        if chunk is None:
            chunk = "markdown" if embedder is not None or cuts else NONE
        chunker = ChunkerSpec(chunk.strip(), chunk_tokens, chunk_overlap)
        chunker.load(embedder)  # refuses what cannot be, before anything is read
        if embedder is None and chunker.name == NONE and not dry_run:
            return cls()
        return cls(chunker, embedder, max_tokens, dry_run)

    @property
    def made_with(self) -> bytes:
        """What is another one when a document may have other chunks, or none that are embedded."""
        chunker = None if self.chunker is None else self.chunker.load(self.embedder)
        return chunker_identity(chunker) + bytes([self.embedder is not None])

    @property
    def identity(self) -> EmbedderIdentity | None:
        """Whose vectors the run brings; None where it brings none."""
        return None if self.embedder is None else self.embedder.identity


class PrepareTexts(beam.PTransform[Any, Any]):
    """Cuts and embeds the texts of batches, and of records that no connector made.

    Args:
        texts: What is to become of them.
        at: The dataset that the run ends in.
        version: The version of it whose vectors are reused; None without a dataset.
        run: Tells the run from others in the same process.
    """

    def __init__(self, texts: Texts, at: Address, version: int | None, run: str) -> None:
        super().__init__()
        self._texts, self._at, self._version, self._run = texts, at, version, run

    def expand(self, given: beam.PCollection[Any]) -> beam.PCollection[FrameBatch]:
        texts, embedder = self._texts, self._texts.embedder
        if texts.chunker is None:
            return given
        batches: beam.PCollection[FrameBatch] = given | "Collect" >> beam.ParDo(
            _CollectDoFn()
        ).with_output_types(FrameBatch)
        if embedder is not None:
            workers = given.pipeline.options.view_as(DirectOptions).direct_num_workers
            embedder = replace(embedder, workers=max(1, workers or 1))
        batches = batches | "Cut" >> Chunk(texts.chunker, embedder)
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


def _recorded(at: Address) -> EmbedderIdentity | None:
    dataset = open_dataset(at)
    return None if dataset is None else read_embedder(dataset)


def _budget(given: Mapping[str, Any] | str | None) -> dict[str, Any] | None:
    """Reads a budget that may be given as JSON text, as on the command line."""
    if isinstance(given, str):
        try:
            given = json.loads(given)
        except ValueError:
            given = None
        if not isinstance(given, Mapping):
            raise ConfigError(
                '`embed_budget` is not a JSON object; write it as in {"per_second": 5, '
                '"tokens_per_minute": 1000000}'
            )
    return None if given is None else dict(given)


def _refuse_plain(key: str | None) -> None:
    if key is not None and not secrets.is_reference(key):
        raise ConfigError(
            "`embed_key` is the key itself, which would travel to all workers; give a reference "
            "to it, such as env:OPENAI_API_KEY or file:PATH"
        )


def _refuse_without(settings: Mapping[str, Any], max_tokens: int | None) -> None:
    names = [f"embed_{name}" for name in settings] + (["max_tokens"] if max_tokens else [])
    if names:
        raise ConfigError(f"`{names[0]}` says nothing without an embedder; name one with `embed`")
