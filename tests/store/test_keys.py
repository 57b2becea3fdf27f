"""Keys and digests as numbers: exact, whatever other programs wrote."""

from __future__ import annotations

import uuid

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from contextframe_beam.store.keys import KeySet, Numbers, NumberSet, numbers_of

# Few different halves, so that numbers share one.
HALF = st.sampled_from([0, 1, 2, 2**63, 2**64 - 1])
NUMBER = st.builds(lambda high, low: high << 64 | low, HALF, HALF)
UUID = st.one_of(NUMBER.map(lambda number: str(uuid.UUID(int=number))), st.uuids().map(str))
ODD = st.one_of(
    st.none(),
    st.text(max_size=40),
    UUID.map(str.upper),
    UUID.map(lambda key: key.replace("-", "a", 1)),
    UUID.map(lambda key: key[:-1]),
    UUID.map(lambda key: key[:-1] + "g"),
)
KEYS = st.lists(st.one_of(UUID, ODD))


def numbers(*values: int) -> Numbers:
    return Numbers.of_bytes(b"".join(value.to_bytes(16, "big") for value in values))


def is_uuid(key: str | None) -> bool:
    try:
        return str(uuid.UUID(key)) == key
    except (ValueError, TypeError, AttributeError):
        return False


class TestNumbers:
    @given(st.lists(NUMBER), st.lists(NUMBER))
    def test_a_number_is_found_where_it_first_stands(self, stored, asked):
        found = NumberSet(numbers(*stored)).find(numbers(*asked))
        expected = [stored.index(one) if one in stored else -1 for one in asked]
        assert found.tolist() == expected

    @given(st.lists(NUMBER))
    def test_every_repeated_number_is_marked(self, values):
        marked = numbers(*values).repeated().tolist()
        assert all(mark for mark, one in zip(marked, values, strict=True) if values.count(one) > 1)

    def test_numbers_that_occur_once_are_hardly_ever_marked(self):
        data = np.random.default_rng(1).bytes(16 * 100_000)
        assert not Numbers.of_bytes(data).repeated().any()
        counted = numbers(*(7 << 96 | number for number in range(100_000)))
        assert not counted.repeated().any()

    @given(st.lists(NUMBER))
    def test_they_come_back_from_bytes(self, values):
        assert Numbers.of_bytes(numbers(*values).to_bytes()).to_bytes() == b"".join(
            value.to_bytes(16, "big") for value in values
        )


class TestKeys:
    @given(KEYS, st.integers(0, 3))
    def test_a_canonical_uuid_is_its_number_and_nothing_else_is_one(self, keys, start):
        found, odd = numbers_of(pa.array([*["x"] * start, *keys], pa.string()).slice(start))
        assert odd.tolist() == [not is_uuid(key) for key in keys]
        canonical = [key for key in keys if is_uuid(key)]
        assert found.take(~odd).to_bytes() == b"".join(uuid.UUID(key).bytes for key in canonical)

    @given(KEYS, KEYS)
    def test_membership_is_that_of_the_texts(self, stored, asked):
        known = KeySet.of([pa.array(stored, pa.string())])
        found = known.contains(pa.array(asked, pa.string()))
        assert found.tolist() == [one is not None and one in stored for one in asked]

    @given(st.sets(st.one_of(UUID, ODD.filter(bool))))
    def test_its_texts_come_back(self, keys):
        assert set(KeySet.of([pa.array(sorted(keys), pa.string())]).texts()) == keys
