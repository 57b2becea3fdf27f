"""Documents and their chunks as rows: one digest for all of a document, without vectors."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contextframe_beam import FrameRecord, RecordError
from contextframe_beam.frames.encode import decode_rows, encode_records
from contextframe_beam.frames.record import uuid_of

DIM = 4
PARENT = uuid_of("files:a.md")
ORIGIN = bytes(range(16))


def document(text: str = "whole", **more: Any) -> FrameRecord:
    return FrameRecord(text, unique_id="files:a.md", **{"origin": ORIGIN, **more})


def chunk(number: int, text: str = "part", **more: Any) -> FrameRecord:
    given = {"vector": [1.0, 0, 0, 0], "embedder": "e1", **more}
    name = f"files:a.md#chunk={number}"
    return FrameRecord(text, {"position": number}, unique_id=name, parent=PARENT, **given)


def rows_of(*records: FrameRecord, documents: tuple[int, ...] | None = None) -> list[dict]:
    numbers = (0,) * len(records) if documents is None else documents
    batch, errors = encode_records(records, embed_dim=DIM, documents=numbers)
    assert not errors
    return batch.to_pylist()


def test_a_chunk_is_a_row_that_names_its_document_and_comes_back_equal():
    part = chunk(3)
    [row] = rows_of(part, documents=())
    assert row["x_parent"].hex() == PARENT.replace("-", "")
    assert row["x_embedder"] == "e1"
    batch, _ = encode_records([part], embed_dim=DIM)
    assert next(decode_rows(batch)) == part


def test_rows_without_any_of_these_have_the_digest_that_they_always_had():
    [row] = rows_of(FrameRecord("Beam", {"author": "Ada"}, unique_id="a"))
    assert row["x_digest"].hex() == "b2af863bac0bc5fd0b04f56f890cf09a"
    assert row["x_parent"] is row["x_origin"] is row["x_embedder"] is None


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("parent", "a.md", "parent is 'a.md'; expected the uuid of a document"),
        ("parent", PARENT.upper(), "in lower case"),
        ("parent", b"a", "parent is a bytes; expected the uuid of a document or None"),
        ("origin", b"short", "origin has 5 bytes; expected 16"),
        ("origin", "text", "origin is 'text'; expected 16 bytes or None"),
        ("embedder", "\ud800", "not Unicode"),
        ("embedder", 7, "embedder is 7; expected text or None"),
    ],
)
def test_what_no_row_can_hold_is_refused(name, value, said):
    record = FrameRecord("a", unique_id="a")
    setattr(record, name, value)
    _, [(_, error)] = encode_records([record], embed_dim=DIM)
    assert isinstance(error, RecordError)
    assert said in str(error)


def test_a_chunk_has_no_origin_of_its_own():
    _, [(_, error)] = encode_records([chunk(0, origin=ORIGIN)], embed_dim=DIM)
    assert "only its document has one" in str(error)


class TestDigests:
    def test_a_vector_counts_by_its_embedder(self):
        noisy = np.array([1.001, 0, 0, 0])
        same = [rows_of(chunk(0), documents=()), rows_of(chunk(0, vector=noisy), documents=())]
        assert same[0][0]["x_digest"] == same[1][0]["x_digest"]
        [other] = rows_of(chunk(0, embedder="e2"), documents=())
        assert other["x_digest"] != same[0][0]["x_digest"]

    def test_a_vector_of_an_unknown_embedder_counts_by_its_numbers(self):
        rows = [
            rows_of(chunk(0, embedder=None, vector=[one, 0, 0, 0]), documents=())[0]
            for one in (1.0, 1.001)
        ]
        assert rows[0]["x_digest"] != rows[1]["x_digest"]

    def test_a_vector_that_is_missing_counts(self):
        rows = [rows_of(chunk(0, vector=one), documents=())[0] for one in ([1, 0, 0, 0], None)]
        assert rows[0]["x_digest"] != rows[1]["x_digest"]

    def test_a_document_counts_by_what_it_was_made_of(self):
        [one], [other] = rows_of(document()), rows_of(document(origin=bytes(16)))
        assert one["x_digest"] != other["x_digest"]

    def test_a_document_has_one_digest_with_its_chunks_and_they_hold_it(self):
        whole, *parts = rows_of(document(), chunk(0), chunk(1))
        assert {part["x_origin"] for part in parts} == {whole["x_digest"]}
        assert whole["x_origin"] == ORIGIN

    @pytest.mark.parametrize(
        "changed",
        [
            (document("other"), chunk(0), chunk(1)),
            (document(), chunk(0), chunk(1, "other")),
            (document(), chunk(0)),
            (document(), chunk(0), chunk(1), chunk(2)),
            (document(), chunk(0), chunk(1, embedder="e2")),
            (document(),),
        ],
    )
    def test_whatever_changes_in_a_document_changes_its_digest(self, changed):
        before, *_ = rows_of(document(), chunk(0), chunk(1))
        after, *_ = rows_of(*changed)
        assert before["x_digest"] != after["x_digest"]

    @given(st.permutations(range(6)))
    def test_the_digest_depends_neither_on_the_order_nor_on_neighbours(self, order):
        own = [document(), chunk(0), chunk(1)]
        twin = [FrameRecord("b", unique_id="b"), *(chunk(one) for one in (2, 3))]
        records, numbers = [*own, *twin], (7, 7, 7, 8, 8, 8)
        rows = rows_of(*(records[at] for at in order), documents=tuple(numbers[at] for at in order))
        [found] = [row for row in rows if row["uri"] == "files:a.md"]
        assert found["x_digest"] == rows_of(*own)[0]["x_digest"]
        # The twin's chunks name a document that did not come with them.
        assert [row["x_origin"] for row in rows if row["position"] in (2, 3)] == [None, None]

    def test_two_states_of_one_document_in_one_batch_stay_apart(self):
        rows = rows_of(document("one"), chunk(0), document("two"), chunk(0), documents=(0, 0, 1, 1))
        assert rows[0]["x_digest"] == rows[1]["x_origin"] != rows[2]["x_digest"]
        assert rows[2]["x_digest"] == rows[3]["x_origin"]

    def test_a_part_that_is_refused_shifts_no_other(self):
        bad = chunk(9, vector=[float("nan")] * DIM)
        batch, errors = encode_records(
            [bad, document(), chunk(0)], embed_dim=DIM, documents=[0, 1, 1]
        )
        assert [index for index, _ in errors] == [0]
        whole, part = batch.to_pylist()
        assert part["x_origin"] == whole["x_digest"]
