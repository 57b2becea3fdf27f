"""Rows of Arrow tables as items: which value each type becomes."""

from decimal import Decimal
from uuid import UUID

import pyarrow as pa
import pytest

from contextframe_beam.frames.cells import items_of, values_of

UUID_BYTES = UUID("51190bb4-d7f6-4346-860e-5e9468c1ceed").bytes


def stored(kind, *numbers):
    width = pa.int64() if kind.bit_width == 64 else pa.int32()
    return pa.array([*numbers, None], width).view(kind)


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (stored(pa.timestamp("s"), 0), "1970-01-01T00:00:00"),
        (stored(pa.timestamp("ms"), 1), "1970-01-01T00:00:00.001"),
        (stored(pa.timestamp("ns"), 1), "1970-01-01T00:00:00.000000001"),
        (stored(pa.timestamp("us", "UTC"), 0), "1970-01-01T00:00:00+00:00"),
        (stored(pa.timestamp("us", "Europe/Berlin"), 0), "1970-01-01T01:00:00+01:00"),
        (stored(pa.timestamp("us", "-05:30"), 0), "1969-12-31T18:30:00-05:30"),
        (stored(pa.timestamp("s", "Europe/Berlin"), -(10**10)), "1653-02-10T07:06:48+00:53:28"),
        (stored(pa.timestamp("us", "No/where"), 0), "1970-01-01T00:00:00+00:00"),
        (stored(pa.timestamp("us"), 2**63 - 1), "<value out of range: 9223372036854775807>"),
        (stored(pa.timestamp("us"), 10**18), "<value out of range: 1000000000000000000>"),
        (stored(pa.timestamp("us"), 10**6), "1970-01-01T00:00:01"),
        (stored(pa.date32(), 1), "1970-01-02"),
        (stored(pa.date64(), 86_400_000), "1970-01-02"),
        (stored(pa.time64("ns"), 1), "00:00:00.000000001"),
        (stored(pa.time32("s"), 5), "00:00:05"),
        (stored(pa.duration("us"), 1_500_000), "PT1.5S"),
        (stored(pa.duration("ns"), -1), "PT-0.000000001S"),
        (pa.array([(1, 2, 3), None], pa.month_day_nano_interval()), "P1M2DT0.000000003S"),
        (pa.array([Decimal("1.50"), None]), Decimal("1.50")),
        (pa.array([1.5, None], pa.float16()), 1.5),
        (pa.array([float("nan"), None]), None),
        (pa.array([b"\xff", None]), b"\xff"),
        (pa.array([b"\xff", None], pa.binary(1)), b"\xff"),
        (pa.array([b"\xff", None], pa.binary_view()), b"\xff"),
        (pa.array(["a", None], pa.string_view()), "a"),
        (pa.array(["a", None]).dictionary_encode(), "a"),
        (pa.RunEndEncodedArray.from_arrays([1, 2], ["a", None]), "a"),
        (
            pa.ExtensionArray.from_storage(pa.uuid(), pa.array([UUID_BYTES, None], pa.binary(16))),
            "51190bb4-d7f6-4346-860e-5e9468c1ceed",
        ),
        (pa.array([True, None]), True),
        (pa.array([[b"\xff", None], None]), ["/w==", None]),
        (pa.array([[1, 2], None], pa.list_(pa.int8(), 2)), [1, 2]),
        (pa.array([[1, 2], None], pa.list_view(pa.int8())), [1, 2]),
        (pa.array([{"at": b"\xff", "n": 1}, None]), {"at": "/w==", "n": 1}),
        (pa.array([[(1, "a")], None], pa.map_(pa.int8(), pa.string())), {"1": "a"}),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else "",
)  # fmt: skip
def test_a_value_of_each_type(column, expected):
    assert values_of(column) == [expected, None]
    assert values_of(pa.concat_arrays([column, column])[1:]) == [None, expected, None]
    assert values_of(column[:0]) == []


def test_text_that_is_not_unicode_stays_so_that_encoding_can_say_where():
    offsets = pa.array([0, 1, 4], pa.int32()).buffers()[1]
    broken = pa.Array.from_buffers(pa.string(), 2, [None, offsets, pa.py_buffer(b"a\xed\xa0\x80")])
    assert values_of(broken) == ["a", "\udced\udca0\udc80"]


def test_items_are_dictionaries_of_the_columns():
    table = pa.table([[1, None], ["x", "y"], [2, 3]], names=["n", "", "n"])
    assert items_of(table) == [{"n": 2, "": "x"}, {"n": 3, "": "y"}]
    assert items_of(pa.concat_tables([table, table]))[2:] == items_of(table)
