"""WriteToLance: batches of records become one transaction on a Lance dataset.

Workers write data files, which are invisible at first. One step gets their descriptions and commits
them all, together with the rows that they replace and the sync state.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import apache_beam as beam
import pyarrow as pa
from apache_beam.metrics import Metrics
from apache_beam.transforms.window import GlobalWindows
from apache_beam.utils.windowed_value import WindowedValue

from contextframe_beam.connectors import secrets
from contextframe_beam.connectors.page import SourceInfo
from contextframe_beam.connectors.read import runtime
from contextframe_beam.frames.embedders import EmbedderIdentity
from contextframe_beam.frames.fields import parse_fields
from contextframe_beam.frames.record import Deletion, FrameRecord
from contextframe_beam.frames.schema import check_storage_version
from contextframe_beam.store.address import Address
from contextframe_beam.store.files import DEFAULT_STORAGE_VERSION, size_of
from contextframe_beam.store.runs import COMMITS, check_run_id, new_run_id
from contextframe_beam.store.state import CommitReceipt
from contextframe_beam.store.writer import FragmentWriter
from contextframe_beam.transforms.begin import begin_run
from contextframe_beam.transforms.commit import commit_run
from contextframe_beam.transforms.dry_run import DryRun
from contextframe_beam.transforms.elements import (
    FrameBatch,
    RowBatch,
    Step,
    in_global_window,
)
from contextframe_beam.transforms.encode import encode
from contextframe_beam.transforms.letters import LetterFile, LetterPiece
from contextframe_beam.transforms.limits import (
    DEFAULT_MAX_DELETES,
    DEFAULT_MAX_FAILURES,
    DeletionLimit,
    FailureLimit,
)
from contextframe_beam.transforms.modes import Mode, mode_of
from contextframe_beam.transforms.newest import Deletions
from contextframe_beam.transforms.plan import Run
from contextframe_beam.transforms.recognise import StoredIn
from contextframe_beam.transforms.texts import PrepareTexts, Texts
from contextframe_beam.transforms.unchanged import (
    FEW_DIGESTS,
    MetRows,
    StoredRows,
    Units,
    stored_rows,
)
from contextframe_beam.transforms.written import Written

_LOGGER = logging.getLogger(COMMITS)

_WAITING_BYTES = 64 << 20


class WriteToLance(
    Step[beam.PCollection[FrameBatch | FrameRecord | Deletion], beam.PCollection[CommitReceipt]]
):
    """Writes records to a Lance dataset in parallel and commits them once.

    Args:
        uri: The dataset: a folder, or an address such as `s3://bucket/kb.lance`. It is made if
            there is none.
        mode: `upsert` replaces rows of the same key and leaves unchanged ones alone; `mirror` does
            that and deletes those rows of the source that a complete run did not see; `append` adds
            rows whose keys the caller knows to be new; `overwrite` replaces everything; `create`
            makes a new dataset, and fails if there is one.
        run_id: The id of the run. A run is not committed again if its id was committed before, so
            a scheduler that retries should pass its own. By default a new one.
        embed_dim: Length of the vectors of a new dataset, 1536 by default.
        storage_options: Credentials and settings of the object store.
        storage_version: The file format of a new dataset: 2.0, 2.1 or 2.2.
        max_failures: A number of items, or a share such as `"5%"`; if more items fail, or all of
            them, nothing is committed.
        max_deletes: A number of documents, or a share of a source's stored documents; a run that
            would delete more of them commits nothing. A share does not stop fewer than ten
            deletions, unless they are all that is stored. `"100%"` allows any.
        dead_letters: A JSON Lines file for the items that failed.
        chunk: How documents are cut into chunks, which are found and embedded by themselves:
            `markdown`, `package.module:Class`, or `none`. By default they are cut where texts are
            embedded.
        chunk_tokens: How long a chunk may be, in the embedder's own tokens.
        chunk_overlap: How many tokens of the chunk before a chunk repeats at most.
        embed: What makes vectors of texts, as in `wordllama` or `openai:text-embedding-3-small`;
            `none` for no vectors. By default the embedder that is recorded with the dataset.
        embed_url: Where the embedding service is.
        embed_key: Its key, as a reference such as `env:OPENAI_API_KEY`.
        embed_budget: How much it may be sent, by all processes together, as in
            `{"per_second": 5, "tokens_per_minute": 1000000}`.
        embed_options: Its further settings, as in `{"query_prefix": "query: "}`.
        max_tokens: Commit nothing if more tokens have to be embedded.
        dry_run: Count documents, chunks, texts and tokens, and commit nothing.
        columns: Fields of metadata to filter and index by, with the types of their columns, as in
            `{"price": "float64", "team": "text"}`. A dataset keeps its columns, so later runs need
            not name them.
        embedded_by: Whose vectors the records bring, where they were embedded before.
        mapping: A digest of how items become documents, to be kept in the state of their source.
        full: Cut and embed those documents too that are stored with the same content.

    Returns:
        A PCollection of one `CommitReceipt`.

    Raises:
        ConfigError: an argument is wrong, or the dataset has vectors of another embedder.
        EmbedderError: the embedder cannot be used.
        SchemaError: it is not a dataset of frames, or its vectors have another length.
        DatasetError: it exists and the mode is `create`, or it cannot be opened.
    """

    takes = (FrameBatch, FrameRecord, Deletion)
    gives = CommitReceipt
    keeps_others = True

    def __init__(
        self,
        uri: str,
        mode: str = "upsert",
        run_id: str | None = None,
        embed_dim: int | None = None,
        storage_options: Mapping[str, str] | None = None,
        storage_version: str = DEFAULT_STORAGE_VERSION,
        max_failures: int | str = DEFAULT_MAX_FAILURES,
        max_deletes: int | str = DEFAULT_MAX_DELETES,
        dead_letters: str | None = None,
        chunk: str | None = None,
        chunk_tokens: int | None = None,
        chunk_overlap: int | None = None,
        embed: str | None = None,
        embed_url: str | None = None,
        embed_key: str | None = None,
        embed_budget: Mapping[str, Any] | str | None = None,
        embed_options: Mapping[str, Any] | str | None = None,
        max_tokens: int | None = None,
        dry_run: bool = False,
        columns: Mapping[str, str] | Sequence[str] = (),
        embedded_by: EmbedderIdentity | None = None,
        mapping: str = "",
        full: bool = False,
    ) -> None:
        super().__init__()
        check_storage_version(storage_version)
        check_run_id(run_id, is_part=True)
        secrets.refuse_credentials(str(uri), "the dataset")
        secrets.refuse_credentials(dead_letters or "", "the dead letters")
        at = Address(str(uri), dict(storage_options) if storage_options else None)
        run_id = run_id or new_run_id()
        self._full = full
        self._texts = texts = Texts.of(
            at,
            chunk=chunk,
            chunk_tokens=chunk_tokens,
            chunk_overlap=chunk_overlap,
            embed=embed,
            embed_url=embed_url,
            embed_key=embed_key,
            embed_budget=embed_budget,
            embed_options=embed_options,
            embed_dim=embed_dim,
            max_tokens=max_tokens,
            dry_run=dry_run,
        )
        if texts.change and not dry_run:
            _LOGGER.warning("%s: %s", secrets.redact(at.uri), texts.change)
        self._run = begin_run(
            Run(
                at,
                mode_of(mode),
                run_id,
                storage_version,
                FailureLimit.of(max_failures),
                DeletionLimit.of(max_deletes),
                letters=LetterFile(dead_letters, run_id, at.storage_options)
                if dead_letters
                else None,
                texts=replace(texts.record, embedder=texts.identity or embedded_by),
                max_tokens=max_tokens,
                dry_run=dry_run,
                mapping=mapping,
                fields=parse_fields(columns),
            ),
            embed_dim,
        )

    @property
    def run_id(self) -> str:
        """The run's id."""
        return self._run.run_id

    @property
    def mode(self) -> Mode:
        """What it does with stored rows."""
        return self._run.mode

    @property
    def embedder(self) -> EmbedderIdentity | None:
        """Whose vectors it writes; None where it writes none."""
        return self._run.embedder

    @property
    def start(self) -> str:
        """Distinguishes this start of the run from others with the same id."""
        return self._run.start

    @property
    def stored(self) -> StoredIn | None:
        """Finds documents that need not be made again; None if all are made again."""
        run = self._run
        if run.base_version is None or not run.mode.goes_on:
            return None
        return StoredIn(run.address, run.base_version, run.run_id)

    def expand(
        self, batches: beam.PCollection[FrameBatch | FrameRecord | Deletion]
    ) -> beam.PCollection[CommitReceipt]:
        run = self._run
        if not batches.windowing.is_default():
            # One commit for all rows, in any windows.
            batches = batches | "OneWindow" >> beam.WindowInto(GlobalWindows())
        batches = batches | "Texts" >> PrepareTexts(
            self._texts,
            run.address,
            run.base_version,
            run.start,
            self.stored if run.mode.replaces_rows and not self._full else None,
        )
        if run.dry_run:
            counts: beam.PCollection[CommitReceipt] = batches | DryRun(self._texts, run)
            return counts
        rows = encode(batches, run)
        written = rows | "WriteFragments" >> beam.ParDo(_WriteFragmentsDoFn(run))
        # Makes a group even if there is nothing to write.
        header = batches.pipeline | beam.Impulse() | "RunHeader" >> beam.Map(_nothing_written)
        receipts: beam.PCollection[CommitReceipt] = (
            (written, header)
            | "Parts" >> beam.Flatten()
            | "Together" >> beam.GroupByKey()
            | "Commit" >> beam.ParDo(_CommitDoFn(run)).with_output_types(CommitReceipt)
        )
        return receipts


def _nothing_written(_: Any) -> tuple[int, Written]:
    return 0, Written()


class _WriteFragmentsDoFn(beam.DoFn):
    """Streams the rows of a bundle into fragments, and its dead letters into a piece of a file.

    It reports both to the commit.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._writer: FragmentWriter | None = None
        self._letters: LetterPiece | None = None
        self._rows = Metrics.counter(runtime.NAMESPACE, runtime.ROWS)
        self._unchanged = Metrics.counter(runtime.NAMESPACE, runtime.ROWS_UNCHANGED)
        self._failures = Metrics.counter(runtime.NAMESPACE, runtime.FAILURES)
        self._bytes = Metrics.counter(runtime.NAMESPACE, runtime.BYTES_WRITTEN)

    def setup(self) -> None:
        secrets.register_store(self._run.storage_options)

    def start_bundle(self) -> None:
        self._abort()
        self._letters = LetterPiece(self._run.letters) if self._run.letters else None
        self._written = Written()
        self._waiting: list[tuple[SourceInfo, pa.RecordBatch]] = []
        self._waiting_rows = self._waiting_bytes = 0
        self._met = MetRows()

    def process(self, batch: RowBatch) -> Iterable[Any]:
        info = batch.tally.info
        tally = self._written.tally(info)
        tally += batch.tally
        if batch.deletions:
            self._written.deletions.append(Deletions.of(batch.deletions))
        if batch.failures:
            self._written.fail(batch.failures)
            if self._letters is not None:
                self._letters.add(batch.failures)
            self._failures.inc(len(batch.failures))
        runtime.count(failures=len(batch.failures))
        rows = batch.rows
        if rows.num_rows and self._looks_up:
            # Looked up together, because one lookup may have to load all stored digests.
            self._waiting.append((info, rows))
            self._waiting_rows += rows.num_rows
            self._waiting_bytes += size_of(rows)
            if self._waiting_rows >= FEW_DIGESTS or self._waiting_bytes >= _WAITING_BYTES:
                self._write_waiting()
        elif rows.num_rows:
            self._write(rows)
        return ()

    def finish_bundle(self) -> Iterator[WindowedValue]:
        self._write_waiting()
        self._met.tell(self._written.sources)
        if self._writer is not None:
            writer, self._writer = self._writer, None
            self._written.fragments = writer.close()
            self._bytes.inc(sum(fragment.size for fragment in self._written.fragments))
        if self._letters is not None and self._letters.count:
            self._letters.close()
            self._written.letters = [self._letters.name]
        for part in self._written.parts():
            yield in_global_window((0, part))

    def teardown(self) -> None:
        self._abort()

    def _abort(self) -> None:
        if self._writer is not None:
            self._writer.abort()
            self._writer = None
        if self._letters is not None:
            self._letters.close()

    def _new_writer(self) -> FragmentWriter:
        return FragmentWriter(self._run.destination, self._run.schema)

    @property
    def _looks_up(self) -> bool:
        return self._run.mode.replaces_rows and self._run.base_version is not None

    def _write_waiting(self) -> None:
        """Writes the waiting rows, except those that are stored unchanged."""
        waiting, self._waiting = self._waiting, []
        self._waiting_rows = self._waiting_bytes = 0
        by_source: dict[str, list[pa.RecordBatch]] = {}
        for info, rows in waiting:
            by_source.setdefault(info.source_id, []).append(rows)
        for source, batches in by_source.items():
            units = Units.concat(map(Units.of, batches))
            numbers = self._stored(source).find(units.digests)
            is_stored = (numbers >= 0) & ~units.alone
            documents = is_stored & ~units.is_chunk
            count = int(documents.sum())
            if count:
                self._written.sources[source].unchanged += count
                self._met.add(source, numbers[documents], units.has_chunks[documents])
                self._unchanged.inc(count)
                runtime.count(unchanged=count)
            start = 0
            for rows in batches:
                same = is_stored[start : start + rows.num_rows]
                start += rows.num_rows
                self._write(rows if not same.any() else rows.filter(pa.array(~same)))

    def _stored(self, source: str) -> StoredRows:
        run = self._run
        options = tuple(sorted((run.storage_options or {}).items()))
        assert run.base_version is not None
        return stored_rows(run.uri, run.base_version, run.run_id, source, options)

    def _write(self, rows: pa.RecordBatch) -> None:
        if not rows.num_rows:
            return
        if self._writer is None:
            self._writer = self._new_writer()
        self._writer.add(rows)
        self._rows.inc(rows.num_rows)
        runtime.count(rows=rows.num_rows)


class _CommitDoFn(beam.DoFn):
    def __init__(self, run: Run) -> None:
        self._run = run

    def setup(self) -> None:
        secrets.register_store(self._run.storage_options)

    def process(self, element: tuple[int, Iterable[Written]]) -> Iterator[CommitReceipt]:
        run, written = self._run, Written.sum(element[1])
        if run.letters is not None:
            # First, because users look for the letters of a run that fails because of its failures.
            run.letters.join(written.letters)
        receipt = commit_run(run, written)
        if receipt.is_incomplete:
            letters = run.letters.path if run.letters and receipt.failed else None
            _LOGGER.warning("%s", receipt.what_is_missing(letters))
        yield receipt
