"""A run that may not have read everything commits its rows, and trusts its reading no further."""

from __future__ import annotations

import pytest

from contextframe_beam import Deletion, FrameDataset
from contextframe_beam.connectors import PaginatedConnector
from contextframe_beam.connectors.page import Page, Partition
from contextframe_beam.errors import CommitError
from tests.support.pipeline_helpers import EVERY_WAY, commit, document, ids_in, run, texts_in

REASON = "notes may go on after page 1: state `paginator`"


def state_in(kb):
    (state,) = FrameDataset.open(str(kb)).states()
    return state


class Pages(PaginatedConnector):
    """Reads one page a partition; the last one may not be all that there is."""

    def __init__(self, names: str, partial: str = "") -> None:
        super().__init__()
        self.names = names
        self.partial = partial

    def partitions(self):
        return [Partition(name) for name in self.names]

    def fetch_page(self, partition, cursor):
        is_last = partition.id == self.names[-1]
        return Page([partition.id], partial=self.partial if is_last else "")

    def map_to_frame_record(self, item):
        return document(item)

    def source_identity(self, sync_kwargs=None):
        return {"connector": "pages"}


class TestInPipelines:
    @EVERY_WAY
    def test_it_commits_what_was_read_and_says_why_more_may_be_there(self, kb, how):
        receipt = run(Pages("abc", partial=REASON), kb, **how)
        assert (ids_in(kb), list(receipt.partial)) == (["a", "b", "c"], [REASON])

    def test_a_mirror_deletes_nothing(self, kb):
        run(Pages("abcd"), kb, mode="mirror")
        receipt = run(Pages("ab", partial=REASON), kb, mode="mirror")
        assert (ids_in(kb), receipt.rows_deleted) == (["a", "b", "c", "d"], 0)
        assert receipt.kept == "what was read may not be all of the source"
        assert run(Pages("ab"), kb, mode="mirror").rows_deleted == 2

    def test_the_reasons_stay_with_the_run(self, kb):
        run(Pages("ab", partial=REASON), kb, run_id="first")
        assert state_in(kb).run("first").partial == (REASON,)
        assert not run(Pages("ab"), kb, run_id="second").partial


class TestInCommits:
    def test_no_state_moves(self, kb):
        commit(kb, 1, run_id="first", state={"cursor": 1})
        commit(kb, 2, run_id="second", state={"cursor": 2}, partial=REASON)
        assert state_in(kb).partitions == {"all": {"cursor": 1}}
        commit(kb, 3, run_id="third", state={"cursor": 3})
        assert state_in(kb).partitions == {"all": {"cursor": 3}}

    def test_what_the_source_says_is_gone_is_deleted_all_the_same(self, kb):
        commit(kb, 1, 2, run_id="first")
        receipt = commit(kb, Deletion("doc:2"), run_id="second", partial=REASON)
        assert (ids_in(kb), receipt.rows_deleted) == (["1"], 1)

    def test_it_overwrites_nothing_that_is_stored(self, kb):
        commit(kb, 1, 2, run_id="first")
        with pytest.raises(CommitError, match=r"may not have read all .*notes may go on"):
            commit(kb, 2, run_id="second", mode="overwrite", partial=REASON)
        assert texts_in(kb) == {"1": "text of 1", "2": "text of 2"}

    def test_a_new_dataset_takes_what_was_read(self, kb):
        assert commit(kb, 1, mode="overwrite", partial=REASON).partial == (REASON,)
