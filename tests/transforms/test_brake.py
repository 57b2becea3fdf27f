"""The brake on deletion: what takes away too much of a source commits nothing."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import lance
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contextframe_beam import (
    CommitError,
    ConfigError,
    ContextFrameError,
    Deletion,
    FrameDataset,
    TooManyDeletes,
)
from contextframe_beam.connectors.api import APIConnector
from contextframe_beam.pipelines.ingest import ingest
from contextframe_beam.store.runs import StateChange
from contextframe_beam.store.state import read_states
from contextframe_beam.transforms.commit import commit_run
from contextframe_beam.transforms.limits import DeletionLimit
from tests.support.cli_helpers import cli, state_of, without_progress, write_documents
from tests.support.pipeline_helpers import (
    OTHER,
    SOURCE,
    Documents,
    begin,
    commit,
    document,
    documents,
    ids_in,
    write,
)

mirror = partial(commit, mode="mirror", run_id="second")
overwrite = partial(commit, mode="overwrite", run_id="second")
upsert = partial(commit, run_id="second")


@pytest.fixture
def kb(tmp_path: Path) -> Path:
    return tmp_path / "kb.lance"


def refused(kb: Path, run, *records, **what) -> str:
    """Checks that a run commits nothing for what it would delete, and returns what it says."""
    version, before = lance.dataset(str(kb)).version, ids_in(kb)
    with pytest.raises(TooManyDeletes) as caught:
        run(kb, *records, **what)
    assert isinstance(caught.value, CommitError)
    assert (lance.dataset(str(kb)).version, ids_in(kb)) == (version, before)
    return str(caught.value)


def deletions(*ids: object) -> list[Deletion]:
    return [Deletion(f"doc:{one}") for one in ids]


class TestLimit:
    @pytest.mark.parametrize(
        ("limit", "deleted", "stored", "allowed"),
        [
            ("50%", 10, 20, True),
            ("50%", 11, 20, False),
            ("50%", 9, 10, True),
            ("50%", 10, 11, False),
            ("50%", 3, 3, False),
            ("50%", 1, 1, False),
            ("50%", 0, 0, True),
            ("10%", 9, 20, True),
            ("29%", 29, 100, True),
            ("100%", 20, 20, True),
            ("0%", 1, 100, False),
            ("5", 5, 5, True),
            (5, 6, 1000, False),
            (0, 1, 1000, False),
        ],
    )
    def test_it_is_a_number_or_a_share_that_few_deletions_do_not_exceed(
        self, limit, deleted, stored, allowed
    ):
        assert DeletionLimit.of(limit).allows(deleted, stored) is allowed

    @given(st.integers(0, 500), st.integers(0, 500), st.integers(0, 100))
    def test_what_a_larger_share_refuses_a_smaller_one_refuses(self, deleted, stored, share):
        deleted = min(deleted, stored)
        if not DeletionLimit.of("100%" if share == 100 else f"{share + 1}%").allows(
            deleted, stored
        ):
            assert not DeletionLimit.of(f"{share}%").allows(deleted, stored)

    @pytest.mark.parametrize("wrong", ["half", "101%", "-1", "", "0.5", None, True])
    def test_anything_else_is_refused_before_a_run(self, kb, wrong):
        with pytest.raises(ConfigError, match="max deletes is"):
            begin(kb, max_deletes=wrong)


class TestReadingNothing:
    @pytest.mark.parametrize("run", [mirror, overwrite])
    @pytest.mark.parametrize("stored", [1, 3, 120])
    def test_a_source_that_gave_nothing_empties_nothing(self, kb, run, stored):
        commit(kb, *range(stored))
        its = "1 of its documents is" if stored == 1 else f"{stored} of its documents are"
        assert refused(kb, run) == (
            f"the source gave nothing, and {its} stored; nothing was deleted. If it really is "
            'empty: max_deletes="100%"'
        )

    @pytest.mark.parametrize("run", [mirror, overwrite])
    @pytest.mark.parametrize("allowed", ["100%", 3])
    def test_it_does_where_that_is_allowed(self, kb, run, allowed):
        commit(kb, 1, 2, 3)
        assert run(kb, max_deletes=allowed).rows_deleted == 3
        assert ids_in(kb) == []

    def test_an_upsert_of_nothing_is_an_ordinary_run(self, kb):
        commit(kb, 1, 2, 3)
        assert upsert(kb).rows_deleted == 0

    def test_a_mirror_that_asked_for_changes_only_is_an_ordinary_run(self, kb):
        commit(kb, 1, 2, 3)
        receipt = mirror(kb, narrowed="--since was given")
        assert (receipt.rows_deleted, receipt.kept) == (0, "--since was given")

    def test_a_mirror_that_may_not_have_read_all_is_refused_too(self, kb):
        commit(kb, 1, 2, 3)
        assert "the source gave nothing" in refused(kb, mirror, partial="a share is not there")

    def test_a_source_of_which_nothing_is_stored_may_be_empty(self, kb):
        commit(kb, 1, source=OTHER)
        assert mirror(kb).rows_deleted == 0
        assert ids_in(kb) == ["1"]

    def test_nothing_does_not_overwrite_what_others_brought(self, kb):
        commit(kb, 1, 2, source=OTHER)
        assert f"overwriting {kb} would delete all 2 documents in it" in refused(kb, overwrite)

    def test_of_two_sources_the_empty_one_is_named(self, kb):
        commit(kb, 1, 2, source=SOURCE, run_id="a")
        commit(kb, 3, source=OTHER, run_id="b")
        started = begin(kb, "both", "mirror")
        both = [write(started, source=SOURCE), write(started, 3, source=OTHER)]
        with pytest.raises(TooManyDeletes, match="documents gave nothing, and 2 of its"):
            commit_run(started, type(both[0]).sum(both))


class TestTooMuch:
    @pytest.mark.parametrize("run", [mirror, overwrite])
    def test_more_than_half_is_refused_with_both_numbers(self, kb, run):
        commit(kb, *range(20))
        said = refused(kb, run, *range(9))
        assert "would delete 11 of the 20 stored documents of documents" in said
        assert 'max_deletes="100%", or a number such as 11' in said

    def test_half_is_not(self, kb):
        commit(kb, *range(20))
        assert mirror(kb, *range(10)).rows_deleted == 10

    def test_items_that_ask_for_deletions_are_counted(self, kb):
        commit(kb, *range(20))
        assert "11 of the 20" in refused(kb, upsert, *deletions(*range(11)))
        assert upsert(kb, *deletions(*range(11)), max_deletes=11).rows_deleted == 11

    def test_so_are_those_of_another_source(self, kb):
        commit(kb, *range(20), source=OTHER)
        commit(kb, *range(20, 60), run_id="own")
        said = refused(kb, upsert, *deletions(*range(11)))
        assert "11 of the 20 stored documents of others" in said

    def test_what_is_not_stored_is_no_deletion(self, kb):
        commit(kb, *range(20))
        assert upsert(kb, *deletions(*range(100, 200))).rows_deleted == 0

    @pytest.mark.parametrize("run", [mirror, overwrite])
    def test_replaced_documents_do_not_count(self, kb, run):
        commit(kb, *range(20))
        receipt = run(kb, *(document(one, "new") for one in range(20)))
        assert (receipt.rows_replaced, receipt.rows_deleted) == (20, 0)

    def test_a_document_that_is_deleted_and_brought_anew_does_not_count(self, kb):
        commit(kb, *(document(one, timestamp="2026-01-01") for one in range(20)))
        deleted = [Deletion(f"doc:{one}", "2026-01-02") for one in range(20)]
        later = [document(one, "new", timestamp="2026-01-03") for one in range(20)]
        assert upsert(kb, *deleted, *later).rows_deleted == 0

    def test_a_renamed_document_is_one(self, kb):
        commit(kb, *range(20))
        kept, renamed = range(10), [f"new {one}" for one in range(10)]
        assert mirror(kb, *kept, *renamed).rows_deleted == 10
        commit(kb, *range(20), run_id="back", mode="overwrite", max_deletes="100%")
        assert "11 of the 20" in refused(kb, mirror, *range(9), *renamed, run_id="third")

    def test_fewer_than_ten_are_not_stopped_unless_they_are_all(self, kb):
        commit(kb, *range(10))
        assert mirror(kb, 0, run_id="nine").rows_deleted == 9
        said = refused(kb, mirror, "an error that looks like a document")
        assert "would delete 1 of the 1 stored document of documents, all of them" in said

    def test_state_rows_and_others_documents_do_not_count(self, kb):
        commit(kb, *range(12), run_id="own")
        commit(kb, *range(100, 200), source=OTHER, run_id="others")
        assert "10 of the 12" in refused(kb, mirror, 0, 1)

    def test_an_overwrite_counts_what_of_its_own_source_vanishes(self, kb):
        commit(kb, *range(100, 200), source=OTHER, run_id="others")
        commit(kb, *range(20), run_id="own")
        assert "11 of the 20" in refused(kb, overwrite, *range(9))
        assert overwrite(kb, *range(10)).rows_deleted == 110

    def test_records_that_no_connector_made_can_be_overwritten(self, kb):
        FrameDataset.create(str(kb), embed_dim=4).add_many(map(document, range(20)))
        assert overwrite(kb, 1).rows_deleted == 19

    def test_files_of_a_refused_run_are_named_by_no_version(self, kb):
        commit(kb, *range(20))
        started = begin(kb, "second", "mirror")
        written = write(started, document(0, "new"), document(0, "newer", timestamp="2026-01-01"))
        files = {path for one in written.fragments for path in one.paths}
        with pytest.raises(TooManyDeletes):
            commit_run(started, written)
        left = {file.name for file in (kb / "data").iterdir()}
        named = {
            file.path
            for fragment in lance.dataset(str(kb)).get_fragments()
            for file in fragment.data_files()
        }
        assert left - named <= {Path(one).name for one in files}


class TestRaces:
    def test_what_others_deleted_meanwhile_is_no_part_of_the_count(self, kb):
        """The count is made in the version that the run is committed to."""
        commit(kb, *range(40))
        started = begin(kb, "slow")
        written = write(started, *deletions(*range(20)))
        by_hand = FrameDataset.open(str(kb))
        for one in range(20, 35):
            by_hand.delete(f"doc:{one}")
        with pytest.raises(TooManyDeletes, match="would delete 20 of the 25"):
            commit_run(started, written)

    def test_what_others_added_meanwhile_is(self, kb):
        commit(kb, *range(20))
        started = begin(kb, "slow")
        written = write(started, *deletions(*range(12)))
        commit(kb, *range(20, 40), run_id="quick")
        assert commit_run(started, written).rows_deleted == 12


class TestBackfills:
    """The commits of one run with commit_every are counted together."""

    def part(self, kb: Path, number: int, *records, continues: bool = True, **what):
        change = StateChange(
            backfill={"last": f"part-{number}"},
            continues=f"part-{number - 1}" if continues else "",
        )
        return commit(kb, *records, run_id=f"part-{number}", change=change, **what)

    def test_small_parts_do_not_add_up_to_more_than_the_limit(self, kb):
        commit(kb, *range(100))
        self.part(kb, 1, *deletions(*range(0, 30)), continues=False)
        self.part(kb, 2, *deletions(*range(30, 50)))
        with pytest.raises(TooManyDeletes, match="would delete 60 of the 100"):
            self.part(kb, 3, *deletions(*range(50, 60)))
        assert len(ids_in(kb)) == 50
        self.part(kb, 3, *deletions(*range(50, 60)), max_deletes="60%")
        assert len(ids_in(kb)) == 40

    def test_new_documents_do_not_make_room_for_deletions(self, kb):
        commit(kb, *range(20))
        self.part(kb, 1, *range(100, 200), continues=False)
        with pytest.raises(TooManyDeletes, match="would delete 11 of the 20"):
            self.part(kb, 2, *deletions(*range(11)))

    def test_what_the_backfill_itself_has_added_may_go_again(self, kb):
        commit(kb, *range(20))
        self.part(kb, 1, *range(100, 200), continues=False)
        assert self.part(kb, 2, *deletions(*range(100, 190))).rows_deleted == 90

    def test_so_in_a_dataset_that_it_made(self, kb):
        self.part(kb, 1, *range(20), continues=False)
        assert self.part(kb, 2, *deletions(*range(20))).rows_deleted == 20

    def test_versions_that_were_cleaned_up_do_not_lift_it(self, kb):
        commit(kb, *range(100))
        self.part(kb, 1, *deletions(*range(40)), continues=False)
        lance.dataset(str(kb)).cleanup_old_versions(older_than=timedelta(0))
        with pytest.raises(TooManyDeletes, match="would delete 51 of the 100"):
            self.part(kb, 2, *deletions(*range(40, 51)))

    def test_the_next_run_begins_at_nothing(self, kb):
        commit(kb, *range(100))
        self.part(kb, 1, *deletions(*range(40)), continues=False)
        commit(kb, run_id="last", change=StateChange(backfill={}, continues="part-1"))
        (state,) = read_states(lance.dataset(str(kb))).values()
        assert state.backfill == {}
        self.part(kb, 1, *deletions(*range(40, 70)), continues=False)
        assert len(ids_in(kb)) == 30


class Leaving(Documents):
    """Documents, of which an item with `gone` says that one is there no more."""

    def map_to_frame_record(self, item):
        return (
            Deletion(f"doc:{item['gone']}") if "gone" in item else super().map_to_frame_record(item)
        )


class TestRuns:
    def test_an_emptied_folder_is_told_to_the_user_and_nothing_is_deleted(self, tmp_path):
        folder, kb = tmp_path / "documents", tmp_path / "kb.lance"
        write_documents(folder, {f"{n}.json": {"id": n, "text": f"{n}"} for n in range(12)})
        job = ("ingest", "json", "--directory", folder, "--to", kb)
        assert cli(*job).code == 0
        for file in folder.iterdir():
            file.unlink()
        before = state_of(kb)
        for mode in ("mirror", "overwrite"):
            result = cli(*job, "--mode", mode)
            warning, *message = without_progress(result.err).splitlines()
            assert result.code == 1
            assert f"no file in {folder} matches" in warning
            assert message == [
                "Error: the source gave nothing, and 12 of its documents are stored; nothing was "
                "deleted. If it really is empty: --max-deletes 100%"
            ]
            assert state_of(kb) == before
        result = cli(*job, "--mode", "mirror", "--max-deletes", "100%", "--json")
        assert result.json["rows_deleted"] == 12

    @pytest.mark.sample(4)
    @pytest.mark.parametrize(
        ("status", "body"),
        [
            (202, {}),
            (200, {"code": 99991400, "msg": "too many requests", "data": {}}),
            (200, {"data": {"items": []}}),
            (200, {"error": {"message": "the backend is away"}}),
            (200, []),
        ],
    )
    @pytest.mark.parametrize("mode", ["mirror", "overwrite"])
    def test_no_answer_of_an_api_empties_a_dataset(self, tmp_path, status, body, mode):
        items = [{"id": number, "text": f"text {number}"} for number in range(12)]
        with answering({"data": {"items": items}}) as (url, answer):
            connector = APIConnector(
                url, name="docs", retries=0, resources=[{"name": "docs", "paginator": "single"}]
            )
            kb = tmp_path / "kb.lance"
            assert ingest(connector, str(kb), embed_dim=4).rows_written == 12
            answer.update(status=status, body=body)
            with pytest.raises(ContextFrameError):
                ingest(connector, str(kb), mode=mode)
        assert len(ids_in(kb)) == 12

    def test_deletions_do_not_slip_through_one_commit_after_another(self, kb):
        ingest(documents(*range(40)), str(kb), embed_dim=4)
        gone = [{"gone": one} for one in range(30)]
        pages = documents(*gone, partitions=6).pages
        with pytest.raises(TooManyDeletes, match="would delete 25 of the 40") as caught:
            ingest(Leaving(pages), str(kb), commit_every=1)
        assert "4 parts in 4 commits stay committed" in str(caught.value)
        with pytest.raises(TooManyDeletes, match="would delete 25 of the 40"):
            ingest(Leaving(pages), str(kb), commit_every=1)
        assert len(ids_in(kb)) == 20
        ingest(Leaving(pages), str(kb), commit_every=1, max_deletes="100%")
        assert len(ids_in(kb)) == 10


@contextmanager
def answering(body: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Runs a server that answers everything alike, and gives what it answers, to be changed."""
    answer: dict[str, Any] = {"status": 200, "body": body}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = json.dumps(answer["body"]).encode()
            self.send_response(answer["status"])
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}", answer
        http.shutdown()
