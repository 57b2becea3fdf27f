"""A document that fails stays as it is stored, and does not keep a mirror from deleting others."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from contextframe_beam import FrameRecord
from contextframe_beam.connectors.page import Tally
from contextframe_beam.frames.record import uuid_of
from tests.support.chunked import chunked, chunks_in
from tests.support.pipeline_helpers import (
    EVERY_WAY,
    OTHER,
    SOURCE,
    commit,
    document,
    documents,
    ids_in,
    run,
    texts_in,
)


def key(name: str) -> bytes:
    return bytes.fromhex(uuid_of(f"doc:{name}").replace("-", ""))


def failed(*names: str) -> Tally:
    return Tally(SOURCE, stale=[key(name) for name in names])


class Chunks:
    """Cuts texts at blanks, or at the word cut."""

    def expand(self, record: FrameRecord, source_item: Any) -> Iterator[FrameRecord]:
        if record.text_content == "cannot be cut":
            raise ValueError("it cannot be cut")
        yield record
        for number, word in enumerate((record.text_content or "").split()):
            yield FrameRecord(
                "\ud800" if word == "broken" else f"{record.text_content} {number}",
                unique_id=f"{record.unique_id}#chunk={number}",
                parent=record.uuid,
            )


class Refuses:
    """Refuses chunks that say so."""

    def enrich(self, record: FrameRecord, source_item: Any) -> FrameRecord:
        if (record.text_content or "").startswith("refused"):
            raise ValueError("it is refused")
        return record


class TestInPipelines:
    @EVERY_WAY
    def test_one_that_cannot_be_enriched_stays_and_others_go(self, kb: Path, how: Any) -> None:
        first = documents({"id": 1, "text": "one two three"}, {"id": 2, "text": "four"}, 3)
        enrichers = [Chunks(), Refuses()]
        run(first, kb, enrichers=enrichers, mode="mirror")
        bad = documents({"id": 1, "text": "refused"}, {"id": 2, "text": "new text"})
        receipt = run(bad, kb, enrichers=enrichers, mode="mirror", **how)
        assert chunks_in(kb) == {"1": 3, "2": 2}
        assert (receipt.failed, receipt.stale, receipt.rows_deleted) == (1, 1, 1)
        assert receipt.kept == ""
        assert texts_in(kb)["1"] == "one two three"

    def test_where_an_expander_fails_nobody_knows_what_else_it_makes(self, kb: Path) -> None:
        run(documents({"id": 1, "text": "one two"}, 2), kb, enrichers=[Chunks()], mode="mirror")
        bad = documents({"id": 1, "text": "cannot be cut"}, 3)
        receipt = run(bad, kb, enrichers=[Refuses(), Chunks()], mode="mirror")
        assert (receipt.kept, receipt.stale, receipt.rows_deleted) == ("1 item failed", 0, 0)
        refused = documents({"id": 1, "text": "refused"}, 3)
        receipt = run(refused, kb, enrichers=[Refuses(), Chunks()], mode="mirror")
        assert (receipt.kept, chunks_in(kb)) == ("1 item failed", {"1": 2, "2": 3, "3": 3})

    def test_one_of_which_a_chunk_cannot_be_stored_stays_whole(self, kb: Path) -> None:
        run(documents({"id": 1, "text": "one two three"}, 2), kb, enrichers=[Chunks()])
        bad = documents({"id": 1, "text": "one two broken four"}, 3)
        receipt = run(bad, kb, enrichers=[Chunks()], mode="mirror")
        assert (chunks_in(kb), receipt.stale) == ({"1": 3, "3": 3}, 1)

    def test_the_next_run_that_can_read_it_replaces_it(self, kb: Path) -> None:
        run(documents({"id": 1, "text": "one two three"}), kb, enrichers=[Chunks()])
        bad = documents({"id": 1, "text": "refused"}, 2)
        run(bad, kb, enrichers=[Refuses()], mode="mirror")
        receipt = run(documents({"id": 1, "text": "four"}, 2), kb, enrichers=[Chunks()])
        assert (chunks_in(kb), receipt.stale) == ({"1": 1, "2": 3}, 0)


class TestCommits:
    def test_what_is_stored_of_it_counts_as_met(self, kb):
        commit(kb, *chunked("a", 5), *chunked("b", 2), *chunked("c", 1), run_id="first")
        tally = failed("a") + Tally(read=1)
        receipt = commit(kb, *chunked("b", 2), run_id="second", mode="mirror", tally=tally)
        assert chunks_in(kb) == {"a": 5, "b": 2}
        assert (receipt.stale, receipt.rows_deleted, receipt.rows_unchanged) == (1, 1, 1)

    def test_one_that_was_never_stored_is_not_stale(self, kb):
        commit(kb, "a", "b", run_id="first")
        receipt = commit(kb, "b", run_id="second", mode="mirror", tally=failed("new"))
        assert (receipt.stale, receipt.rows_deleted, ids_in(kb)) == (0, 1, ["b"])

    def test_one_that_failed_and_came_again_is_replaced(self, kb):
        commit(kb, *chunked("a", 5), run_id="first")
        receipt = commit(kb, *chunked("a", 2, "new"), run_id="second", tally=failed("a", "a"))
        assert (receipt.stale, chunks_in(kb)) == (0, {"a": 2})

    def test_one_that_another_source_has_written_stays_too(self, kb):
        commit(kb, *chunked("a", 2), run_id="first", source=OTHER)
        receipt = commit(kb, document("b"), run_id="second", mode="mirror", tally=failed("a"))
        assert (receipt.stale, chunks_in(kb)) == (1, {"a": 2, "b": 0})

    def test_the_receipt_says_so_in_words(self, kb):
        commit(kb, *chunked("a", 2), run_id="first")
        told = failed("a") + Tally(SOURCE, documents=2, parsed=1, texts_embedded=1200, skipped=3)
        receipt = commit(kb, *chunked("b", 1), run_id="second", tally=told)
        assert receipt.work == (
            "2 documents, 1 parsed, 1 chunk, 1,200 texts embedded, 1 stale (stays as it was), "
            "3 skipped (nothing reads their type)"
        )
