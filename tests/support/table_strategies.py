"""Tables and items of any kind, for laws about mapping them by columns."""

from __future__ import annotations

from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
from hypothesis import strategies as st

from contextframe_beam.frames.record import ANCHOR_KEY, uuid_of
from contextframe_beam.frames.values import is_unicode

#: Names that mappers look at, of columns of the frame, and others.
NAMES = st.sampled_from(
    [
        "_id", "title", "name", "content", "text", "body", "description", "tags", "author",
        "created_at", "updated_at", "modified", "parent_id", "references", "version", "position",
        "status", "collection_id_type", "contributors", "n", "a", "a.b", "a.b.c", "", "_hidden",
        "source", "file_path", "é",
    ]
)  # fmt: skip
#: Names that mean something of their own.
_RARE = st.sampled_from(["uuid", "timestamp", "relationships", "blocks", "sections", "id"])

TEXTS = st.one_of(
    st.sampled_from(
        [
            "", " ", "x", "1.2.3", "uuid", "2024-01-31", "2024-01-31T08:00:00Z", "2024-13-01",
            "yesterday", "# Heading\ntext", "a, b,a", 'a "quote" \\ \x01\x7f\u2028', "\u2003é\x1f",
            "contextframe-beam:x", "p:1#2", "51190bb4-d7f6-4346-860e-5e9468c1ceed", "null", "uri",
            "half of a pair: \ud800",
        ]
    ),
    st.text(max_size=8),
)  # fmt: skip
_UNICODE = TEXTS.filter(is_unicode)
#: The ids of most items.
_IDS = st.sampled_from(["1", "b", "p:1#2", "é/.. x"])
#: Keys of rows: one of their own, the one that is made of the id "1", and the dataset's own.
_KEYS = st.one_of(
    *[st.sampled_from(["51190bb4-d7f6-4346-860e-5e9468c1ceed", uuid_of("1")])] * 6,
    st.sampled_from([ANCHOR_KEY, "51190BB4-D7F6-4346-860E-5E9468C1CEED", "x"]),
)
_MOMENTS = st.datetimes(min_value=datetime(1700, 1, 1), max_value=datetime(2200, 1, 1))
#: Names inside of objects.
_INNER = st.sampled_from(["name", "id", "b", "b.c", "c"])
_BYTES = st.binary(max_size=4)
#: Types, each with its values.
_PLAIN: list[tuple[pa.DataType, st.SearchStrategy[Any]]] = [
    (pa.string(), _UNICODE),
    (pa.string(), _UNICODE),
    (pa.string(), _UNICODE),
    (pa.large_string(), _UNICODE),
    (pa.string_view(), _UNICODE),
    (pa.dictionary(pa.int8(), pa.string()), _UNICODE),
    (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
    (pa.int64(), st.integers(0, 2)),
    (pa.uint64(), st.integers(0, 2**64 - 1)),
    (pa.int8(), st.integers(-128, 127)),
    (pa.bool_(), st.booleans()),
    (pa.float64(), st.floats()),
    (pa.float32(), st.floats(width=32)),
    (pa.float16(), st.floats(width=16)),
    (pa.decimal128(20, 3), st.decimals(-1000, 1000, places=3)),
    (pa.decimal256(40, 30), st.sampled_from([Decimal("0"), Decimal("1E-30"), Decimal(5)])),
    (pa.binary(), _BYTES),
    (pa.large_binary(), _BYTES),
    (pa.binary(2), st.binary(min_size=2, max_size=2)),
    (pa.binary_view(), _BYTES),
    (pa.date32(), st.dates(date(1, 1, 1), date(9999, 12, 31))),
    (pa.date64(), st.dates(date(1700, 1, 1), date(9999, 12, 31))),
    (pa.time32("s"), st.sampled_from([time(1, 2, 3), time(0)])),
    (pa.time64("us"), st.times()),
    (pa.timestamp("us"), _MOMENTS),
    (pa.timestamp("s"), _MOMENTS),
    (pa.timestamp("ms", "UTC"), _MOMENTS),
    (pa.timestamp("us", "Europe/Berlin"), _MOMENTS),
    (pa.timestamp("ns", "+05:30"), st.integers(-(2**62), 2**62)),
    (pa.duration("us"), st.timedeltas(timedelta(-1000), timedelta(1000))),
    (pa.null(), st.none()),
]


def _nested(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    lists = st.sampled_from([pa.list_, pa.large_list, pa.list_view])
    return st.one_of(
        st.builds(
            lambda make, one: (make(one[0]), st.lists(st.none() | one[1], max_size=3)), lists, inner
        ),
        st.builds(lambda one: (pa.list_(one[0]), st.lists(one[1], max_size=3)), inner),
        st.dictionaries(_INNER, inner, max_size=3).map(
            lambda kinds: (
                pa.struct([(name, kind) for name, (kind, _) in kinds.items()]),
                st.fixed_dictionaries(
                    {name: st.none() | values for name, (_, values) in kinds.items()}
                ),
            )
        ),
        inner.map(
            lambda one: (
                pa.map_(pa.string(), one[0]),
                st.lists(st.tuples(_UNICODE, st.none() | one[1]), max_size=2),
            )
        ),
    )


KINDS = st.one_of(
    st.sampled_from(_PLAIN),
    _nested(st.sampled_from(_PLAIN[:3])),
    _nested(st.sampled_from(_PLAIN)),
    _nested(_nested(st.sampled_from(_PLAIN[:12]))),
)


_TARGETS = st.sampled_from(["1", "p:1#2", "p:1", "x", ""])
_RELATED = pa.struct(
    [(name, pa.string()) for name in ("type", "id", "uri", "path", "cid", "title", "description")]
)
#: Relationships as a source may have them: in the form of rows, in that of records, and neither.
_RELATIONSHIPS = st.lists(
    st.one_of(
        st.fixed_dictionaries(
            {"type": TEXTS},
            optional={"id": _KEYS, "uri": _TARGETS, "title": TEXTS, "description": TEXTS},
        ),
        st.fixed_dictionaries(
            {"relationship_type": TEXTS, "target_id": _TARGETS | st.integers(0, 2)},
            optional={"metadata": st.none() | st.dictionaries(_INNER, TEXTS, max_size=2)},
        ),
        st.dictionaries(_INNER, TEXTS, max_size=2),
    ),
    max_size=3,
)
_TABLE_RELATIONSHIPS = st.lists(
    st.fixed_dictionaries(
        {field.name: st.none() | _UNICODE for field in _RELATED} | {"type": _UNICODE, "id": _KEYS}
    ),
    max_size=2,
)


@st.composite
def tables(draw: st.DrawFn) -> pa.Table:
    """Draws a table with one to four rows and columns of any types; names may be repeated."""
    count = draw(st.integers(1, 4))
    names = draw(st.lists(NAMES, min_size=1, max_size=7))
    names += draw(st.just([]) | st.just([]) | st.just([]) | st.lists(_RARE, max_size=1))
    columns = []
    for _ in names:
        kind, values = draw(KINDS)
        nulls = st.none() if draw(st.booleans()) else st.nothing()
        drawn = draw(st.lists(nulls | values, min_size=count + 1, max_size=count + 1))
        # A part of a longer column, whose offset is not zero.
        columns.append(pa.array(drawn, kind)[1:])
    if not draw(st.integers(0, 9)):
        names.append("relationships")
        found = st.lists(st.none() | _TABLE_RELATIONSHIPS, min_size=count, max_size=count)
        columns.append(pa.array(draw(found), pa.list_(_RELATED)))
    if not draw(st.integers(0, 9)):
        names.append("uuid")
        columns.append(pa.array(draw(st.lists(_KEYS, min_size=count, max_size=count))))
    if draw(st.integers(0, 4)):
        names.append("id")
        columns.append(pa.array(draw(st.lists(_IDS, min_size=count, max_size=count))))
    return pa.table(columns, names=names)


_JSON = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**70), 2**70),
        st.integers(0, 3),
        st.floats(),
        st.text(max_size=4),
        TEXTS,
        TEXTS,
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(TEXTS, max_size=3),
        st.dictionaries(_INNER | TEXTS, inner, max_size=3),
    ),
    max_leaves=6,
)


@st.composite
def json_items(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Draws objects that share most of their names, as lines of one file do."""
    count = draw(st.integers(1, 4))
    names = draw(st.lists(NAMES | st.text(max_size=3), unique=True, max_size=7))
    names += draw(st.just([]) | st.just([]) | st.just([]) | st.lists(_RARE, max_size=1))
    mixed = draw(st.booleans())
    kinds = [draw(st.sampled_from([_JSON, TEXTS, st.none() | TEXTS])) for _ in names]
    if not draw(st.integers(0, 4)) and "relationships" not in names:
        names.append("relationships")
        kinds.append(st.none() | _RELATIONSHIPS)
    if not draw(st.integers(0, 9)) and "uuid" not in names:
        names.append("uuid")
        kinds.append(st.none() | _KEYS)
    items: list[dict[str, Any]] = [{} for _ in range(count)]
    for name, kind in zip(names, kinds, strict=True):
        for item in items:
            if not mixed or draw(st.integers(0, 3)):
                item[name] = draw(kind)
    if draw(st.integers(0, 4)):
        for item in items:
            item["id"] = draw(_IDS | st.integers(0, 9))
    if not draw(st.integers(0, 3)):
        items = [dict(draw(st.permutations([*item.items()]))) for item in items]
    return items
