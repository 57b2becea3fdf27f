"""Columns of fields of metadata in a dataset: made, filled, asked, indexed and dropped."""

from __future__ import annotations

import shlex
import signal
from collections.abc import Callable, Sequence
from datetime import date, datetime, timezone
from pathlib import Path
from typing import Any

import lance
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contextframe_beam import ConfigError, FrameDataset, FrameRecord, RecordError, SchemaError
from contextframe_beam.errors import ConcurrentRunError, DatasetError
from contextframe_beam.frames.fields import fields_of, parse_fields
from contextframe_beam.frames.record import uuid_of
from contextframe_beam.store import schema as store_schema
from contextframe_beam.store import versions
from contextframe_beam.store.address import Address
from contextframe_beam.store.columns import commit_columns_anew
from contextframe_beam.store.schema import add_fields, index_field, indices_of_fields
from contextframe_beam.store.upkeep import commit_tasks, do_task, plan_tasks, update_indices
from tests.support.cli_helpers import cli, run_code
from tests.support.laws import examples
from tests.support.pipeline_helpers import data_files, named_files

DIM = 4
COLUMNS = {
    "price": "float64",
    "count": "int64",
    "team": "text",
    "open": "bool",
    "seen": "timestamp",
    "day": "date",
    "labels": "list",
}
TEAMS = ("red", "blue", "it's", "")


def metadata_of(number: int) -> dict[str, Any]:
    """Returns metadata in which each field is missing, null or of any of some values."""
    made = {
        "price": number / 4 - 3,
        "count": number % 5,
        "team": TEAMS[number % 4],
        "open": number % 3 == 0,
        "seen": f"2026-01-{number % 28 + 1:02}T08:00:00+02:00",
        "day": f"2026-02-{number % 28 + 1:02}",
        "labels": [f"l{number % 3}", f"m{number % 2}"],
    }
    left_out = {name for place, name in enumerate(made) if (number + place) % 6 == 0}
    nulls = {name for place, name in enumerate(made) if (number + place) % 7 == 0}
    return {
        name: None if name in nulls else value
        for name, value in made.items()
        if name not in left_out
    }


def documents(count: int = 40) -> list[FrameRecord]:
    return [
        FrameRecord(f"text {number}", metadata_of(number), unique_id=str(number))
        for number in range(count)
    ]


def with_chunks() -> list[FrameRecord]:
    """Returns documents, of which every third has two chunks."""
    found = []
    for one in documents(12):
        found.append(one)
        for number in range(2) if int(one.unique_id or "") % 3 == 0 else ():
            parent = uuid_of(str(one.unique_id))
            name = f"{one.unique_id}#chunk={number}"
            found.append(FrameRecord("part", {"position": number}, unique_id=name, parent=parent))
    return found


def make(path: Path, records: Sequence[FrameRecord], **options: Any) -> FrameDataset:
    dataset = FrameDataset.create(str(path), embed_dim=DIM, **options)
    dataset.add_many(records)
    return dataset


def own_columns(dataset: FrameDataset) -> dict[str, dict[str, Any]]:
    """Returns the values of own fields of each row."""
    own = {one.column: one.name for one in fields_of(dataset.schema)}
    rows = dataset.lance.to_table(columns=["uri", *own]).to_pylist()
    return {row["uri"]: {name: row[column] for column, name in own.items()} for row in rows}


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> FrameDataset:
    return make(tmp_path_factory.mktemp("fields") / "kb.lance", documents(), columns=COLUMNS)


# Filters as SQL, and what they say of metadata: True, False, or None where a value is missing.
Condition = tuple[str, Callable[[dict[str, Any]], bool | None]]


def compared(name: str, sign: str, value: Any) -> Condition:
    said = repr(value) if not isinstance(value, bool) else str(value).lower()
    if isinstance(value, str):
        said = "'" + value.replace("'", "''") + "'"
    signs: dict[str, Callable[[Any, Any], bool]] = {
        "=": lambda a, b: a == b,
        "<>": lambda a, b: a != b,
        "<": lambda a, b: a < b,
        ">=": lambda a, b: a >= b,
    }

    def holds(metadata: dict[str, Any]) -> bool | None:
        have = metadata.get(name)
        return None if have is None else signs[sign](plain(name, have), plain(name, value))

    return f"{name} {sign} {said}", holds


def plain(name: str, value: Any) -> Any:
    if COLUMNS[name] != "timestamp":
        return value
    time = datetime.fromisoformat(value)
    return time if time.tzinfo else time.replace(tzinfo=timezone.utc)


def joined(one: Condition, other: Condition, word: str) -> Condition:
    deciding = word == "OR"

    def holds(metadata: dict[str, Any]) -> bool | None:
        both = (one[1](metadata), other[1](metadata))
        if deciding in both:
            return deciding
        return None if None in both else not deciding

    return f"({one[0]}) {word} ({other[0]})", holds


def negated(one: Condition) -> Condition:
    def holds(metadata: dict[str, Any]) -> bool | None:
        found = one[1](metadata)
        return None if found is None else not found

    return f"NOT ({one[0]})", holds


VALUES = {
    "price": st.sampled_from([-3, 0, 0.25, 1.5, 7]),
    "count": st.integers(-1, 5),
    "team": st.sampled_from([*TEAMS, "price > 1", "count"]),
    "open": st.booleans(),
    "seen": st.sampled_from(["2026-01-10", "2026-01-10T06:00:00+00:00", "2026-01-10T08:00:00"]),
    "day": st.dates(date(2026, 2, 1), date(2026, 2, 28)).map(str),
}
signs = st.sampled_from(["=", "<>", "<", ">="])
comparisons = st.sampled_from(sorted(VALUES)).flatmap(
    lambda name: st.builds(compared, st.just(name), signs, VALUES[name])
)
conditions = st.recursive(
    comparisons
    | st.sampled_from(sorted(COLUMNS)).map(
        lambda name: (f"{name} IS NULL", lambda metadata: metadata.get(name) is None)
    )
    | st.sampled_from(["l1", "m0", "none"]).map(
        lambda label: (
            f"array_has(labels, '{label}')",
            lambda metadata: (
                None if metadata.get("labels") is None else label in metadata["labels"]
            ),
        )
    ),
    lambda inner: (
        st.builds(joined, inner, inner, st.sampled_from(["AND", "OR"])) | inner.map(negated)
    ),
    max_leaves=5,
)


class Nothing(list[str]):
    """Stands for a missing value, which no comparison finds."""

    def __lt__(self, _: object) -> bool:
        return False

    __gt__ = __lt__


NONE = Nothing()


class Given:
    """The metadata of a document, by names."""

    def __init__(self, number: int) -> None:
        self._metadata = metadata_of(number)

    def __getattr__(self, name: str) -> Any:
        found = self._metadata.get(name)
        return NONE if found is None else found


class TestFilters:
    @settings(max_examples=examples(300))
    @given(conditions)
    def test_find_what_a_filter_over_metadata_finds(self, library, condition):
        sql, holds = condition
        wanted = [str(n) for n in range(40) if holds(metadata_of(n))]
        found = [
            uri for batch in library.batches(["uri"], where=sql) for uri in batch["uri"].to_pylist()
        ]
        assert sorted(found) == sorted(wanted)
        assert library.count(sql) == len(wanted)

    @pytest.mark.parametrize(
        ("where", "holds"),
        [
            ("count = 2 AND price > 0 -- OR count = 3", lambda m: m.count == 2 and m.price > 0),
            ("team = 'red' /* count */ AND Count < 1", lambda m: m.team == "red" and m.count < 1),
            (
                "seen BETWEEN '2026-01-10' AND '2026-01-10T06:00Z'",
                lambda m: m.seen == "2026-01-10T08:00:00+02:00",
            ),
            (
                "seen NOT IN ('2026-01-10T08:00+02:00') AND count = 4",
                lambda m: m.count == 4 and m.seen not in (NONE, "2026-01-10T08:00:00+02:00"),
            ),
            (
                "'2026-02-25' <= day AND day IS DISTINCT FROM '2026-02-28'",
                lambda m: m.day in ("2026-02-25", "2026-02-26", "2026-02-27"),
            ),
            ("lower(team) LIKE 'it%' OR team ILIKE 'R%'", lambda m: m.team in ("it's", "red")),
            (
                '"count" = 2 AND `team` = "red"',
                lambda m: m.count == 2 and m.team == "red",
            ),
            (
                "cast(price AS bigint) = 1 AND price IN (1.25, 1.5)",
                lambda m: m.price in (1.25, 1.5),
            ),
            ({"count": 2, "team": "blue"}, lambda m: m.count == 2 and m.team == "blue"),
            ({"team": "it's", "open": True}, lambda m: m.team == "it's" and m.open is True),
            (
                {"seen": datetime(2026, 1, 10, 6, tzinfo=timezone.utc)},
                lambda m: m.seen == "2026-01-10T08:00:00+02:00",
            ),
            ({"day": date(2026, 2, 5)}, lambda m: m.day == "2026-02-05"),
            ({"labels": "l1", "count": 3}, lambda m: m.count == 3 and "l1" in m.labels),
            ({"price": None, "count": 0}, lambda m: m.price is NONE and m.count == 0),
        ],
    )
    def test_know_fields_by_their_own_names_wherever_they_stand(self, library, where, holds):
        wanted = {str(n) for n in range(40) if holds(Given(n))}
        assert wanted
        records = [one for batch in library.batches(["uri"], where=where) for one in batch["uri"]]
        assert {one.as_py() for one in records} == wanted

    def test_choose_rows_whose_columns_are_read_by_their_own_names_too(self, library):
        [batch] = library.batches(["price", "uri", "title"], where="price = 0.25")
        assert batch.to_pylist() == [{"price": 0.25, "uri": "13", "title": "text 13"}]
        with pytest.raises(ConfigError, match="the dataset has no column prise"):
            next(library.batches(["prise"]))

    @pytest.mark.parametrize(
        ("where", "said"),
        [
            ("prise > 5", "there is no column prise; did you mean price?"),
            ("team = red", "text needs single quotes, as in team = 'red'"),
            ("price > 'dear'", "compares price with the text 'dear', and it holds numbers"),
            ("open = 'yes'", "it holds true or false; write them without quotes"),
            ("seen > 'soon'", "compares seen with 'soon', and it holds times such as 2026-01-31T"),
            ("day > '2026'", "compares day with '2026', and it holds days such as 2026-01-31"),
            ("labels = 'l1'", "ask for one that holds a text by array_has(labels, 'l1')"),
            ("unit price > 3", "names with spaces in backticks"),
            ({"prise": 5}, "no column prise; it has uuid"),
            ({"price": "dear"}, "compares price with the text 'dear'"),
            ({"labels": ["l1"]}, "cannot compare with ['l1']"),
        ],
    )
    def test_that_cannot_be_used_say_what_to_write(self, library, where, said):
        for ask in (library.count, lambda one: library.search("text", where=one)):
            with pytest.raises(ConfigError) as error:
                ask(where)
            assert said in str(error.value)

    def test_of_a_field_that_is_no_column_say_how_to_make_it_one(self, tmp_path):
        dataset = make(
            tmp_path / "kb.lance",
            [FrameRecord("a", {"price": 5, "unit price": 2.5, "a.b": [""]}, unique_id="a")],
        )
        dataset.add(FrameRecord("b", {"price": 5.5, "a.b": ["x"]}, unique_id="b"))
        for where, made in {
            "price > 5": "price:float64",
            "`unit price` > 2": "'unit price:float64'",
            "array_has(a.b, 'x')": "a.b:list",
        }.items():
            with pytest.raises(ConfigError) as error:
                dataset.search("a", where=where)
            command = str(error.value).split("`")[-2]
            assert command == f"contextframe-beam columns add {dataset.uri} {made}"
            assert cli(*shlex.split(command)[1:]).code == 0
            assert FrameDataset.open(dataset.uri).count(where) == 1

    def test_know_any_name_in_backticks(self, tmp_path):
        names = ["unit price", "a.b", "50%", "it's", "`tick`", 'say "hi"', "Größe", "order", "in"]
        names += ["date", "select", "x-y", "_id", "1st", "a\nb", "a\\b", "%41", " end ", "Price"]
        metadata = {name: place for place, name in enumerate([*names, "price"])}
        columns = dict.fromkeys(metadata, "int64")
        dataset = make(tmp_path / "kb.lance", [FrameRecord("a", metadata)], columns=columns)
        assert dataset.columns == columns
        for name, place in metadata.items():
            quoted = "`" + name.replace("`", "``") + "`"
            assert dataset.count(f"{quoted} = {place}") == 1, name
            assert dataset.count({name: place}) == 1, name
            assert dataset.count({name: place + 1}) == 0, name
        assert (
            dataset.count("a.b = 1 AND date = 9 AND Größe = 6 AND Price = 18 AND price = 19") == 1
        )


class TestAdding:
    @pytest.mark.parametrize("version", ["2.0", "2.1", "2.2"])
    def test_fills_stored_rows_as_if_the_columns_had_always_been_there(self, tmp_path, version):
        records = with_chunks()
        wanted = make(tmp_path / "a.lance", records, storage_version=version, columns=COLUMNS)
        dataset = make(tmp_path / "b.lance", records[:9], storage_version=version)
        dataset.add_many(records[6:])
        for one in (wanted, dataset):
            one.delete("4")
        assert dataset.add_columns({"labels": "list"}).version == 5
        assert [one.name for one in dataset.add_columns("price:float64").fields] == ["price"]
        added = dataset.add_columns(COLUMNS)
        assert [one.name for one in added.fields] == ["count", "team", "open", "seen", "day"]
        assert own_columns(dataset) == {
            uri: {name: row[name] for name in dataset.columns}
            for uri, row in own_columns(wanted).items()
        }
        assert list(dataset) == list(FrameDataset.open(dataset.uri, version=4))
        dataset.add(FrameRecord("new", {"price": 9, "labels": ["x"]}, unique_id="new"))
        assert dataset.count({"price": 9, "labels": "x"}) == 1

    def test_tells_of_values_that_do_not_fit_and_leaves_them_null(self, tmp_path):
        prices = [1, "n/a", 2.5, True, None]
        made = [FrameRecord("a", {"price": one}, unique_id=str(n)) for n, one in enumerate(prices)]
        added = make(tmp_path / "kb.lance", made).add_columns("price:float64")
        assert (added.filled, added.misfits) == ({"price": 2}, {"price": 2})
        assert added.what_is_null.startswith("2 values of price do not fit, and are null in the")
        assert "1: metadata['price'] is 'n/a', and the column price holds n" in added.what_is_null

    @pytest.mark.parametrize(
        ("other", "columns"),
        [
            (lambda one: one.add(FrameRecord("late", {"count": 9}, unique_id="late")), ["count"]),
            (lambda one: one.delete("0"), ["count"]),
            (lambda one: one.add_columns("price:float64"), ["price", "count"]),
            (lambda one: one.add_columns("count:int64"), ["count"]),
            (lambda one: one.rollback(1), ["count"]),
        ],
        ids=["a document", "a deletion", "another column", "the same column", "a rollback"],
    )
    def test_beside_a_writer_goes_on_from_what_it_wrote(
        self, tmp_path, monkeypatch, other, columns
    ):
        path = tmp_path / "kb.lance"
        make(path, documents(2)).add_many(documents(12))
        others = [other]

        def beside(*arguments: Any, **options: Any) -> Any:
            if others:
                others.pop()(FrameDataset.open(str(path)))
            return commit_columns_anew(*arguments, **options)

        monkeypatch.setattr(store_schema, "commit_columns_anew", beside)
        FrameDataset.open(str(path)).add_columns("count:int64")
        dataset = FrameDataset.open(str(path))
        assert list(dataset.columns) == columns
        counts = {str(one.unique_id): one.metadata.get("count") for one in dataset}
        stored = {uri: row["count"] for uri, row in own_columns(dataset).items() if uri in counts}
        assert stored == counts
        assert data_files(path) == named_files(path)

    def test_that_is_killed_leaves_the_dataset_as_it_was(self, tmp_path):
        path = tmp_path / "kb.lance"
        version = make(path, documents(3)).version
        code = (
            "import os, signal, sys\n"
            "from contextframe_beam import FrameDataset\n"
            "from contextframe_beam.store import schema\n"
            "schema.commit_columns_anew = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)\n"
            "FrameDataset.open(sys.argv[1]).add_columns('count:int64')\n"
        )
        assert run_code(code, path).code == -signal.SIGKILL
        dataset = FrameDataset.open(str(path))
        assert (dataset.version, dataset.columns) == (version, {})
        dataset.add_columns("count:int64")
        assert dataset.count("count >= 0") == 3

    def test_of_a_column_of_another_type_is_refused(self, library):
        with pytest.raises(SchemaError, match="ask for price:float64, or drop it first: `contextf"):
            library.add_columns("price:int64")

    def test_to_an_earlier_version_is_refused(self, library):
        with pytest.raises(DatasetError, match="was opened to read"):
            FrameDataset.open(library.uri, version=1).add_columns("more")

    def test_a_record_that_does_not_fit_is_refused_and_nothing_is_stored(self, library):
        version = library.version
        good = FrameRecord("a", {"price": 1}, unique_id="good")
        with pytest.raises(RecordError, match=r"bad: metadata\['price'\] is 'dear'"):
            library.add_many([good, FrameRecord("b", {"price": "dear"}, unique_id="bad")])
        assert FrameDataset.open(library.uri).version == version


class TestIndices:
    def test_suit_the_types_and_are_kept_up_by_compaction(self, tmp_path):
        dataset = make(tmp_path / "kb.lance", documents(20), columns=COLUMNS)
        at = Address(dataset.uri)
        made = {name: index_field(at, name) for name in COLUMNS}
        assert {kind for name, kind in made.items() if name not in ("open", "labels")} == {"BTREE"}
        assert (made["open"], made["labels"]) == ("BITMAP", "LABEL_LIST")
        assert index_field(at, "price") is None
        dataset.add_many(documents(40)[20:])
        wheres = {
            "price >= 4": lambda m: m.price > 3.9,
            "count = 3": lambda m: m.count == 3,
            "team = 'red'": lambda m: m.team == "red",
            "open": lambda m: m.open is True,
            "seen > '2026-01-28'": lambda m: m.seen == "2026-01-28T08:00:00+02:00",
            "day = '2026-02-05'": lambda m: m.day == "2026-02-05",
            "array_has(labels, 'l1')": lambda m: "l1" in m.labels,
        }
        wanted = {sql: sum(holds(Given(n)) for n in range(40)) for sql, holds in wheres.items()}
        assert {sql: dataset.count(sql) for sql in wheres} == wanted
        commit_tasks(at, [do_task(at, task) for task in plan_tasks(dataset.lance)])
        update_indices(at)
        dataset = FrameDataset.open(dataset.uri)
        assert {sql: dataset.count(sql) for sql in wheres} == wanted
        assert set(indices_of_fields(dataset.lance)) == set(COLUMNS)
        plan = dataset.lance.scanner(filter="x_f_price >= 4").explain_plan()
        assert "ScalarIndexQuery: query=[x_f_price >= 4]" in plan

    def test_and_drops_of_columns_do_not_happen_at_once(self, tmp_path, monkeypatch):
        # Lance would commit an index of a column that is gone, and read nothing from then on.
        dataset = make(tmp_path / "kb.lance", documents(3), columns=COLUMNS)
        at = Address(dataset.uri)
        monkeypatch.setattr(versions, "_PATIENCE", 0)
        nothing = "so nothing was dropped"
        with versions.indexing(at), pytest.raises(ConcurrentRunError, match=nothing):
            dataset.drop_columns(["price"])
        with versions.dropping(at), pytest.raises(ConcurrentRunError, match="a removal of columns"):
            index_field(at, "price")
        assert index_field(at, "price") == "BTREE"
        dataset.add(FrameRecord("a", {"price": 5}))
        with versions.dropping(at), pytest.raises(ConcurrentRunError, match="a removal of columns"):
            update_indices(at)
        dataset.drop_columns(["price"])
        assert lance.dataset(dataset.uri).tags.list() == {}

    def test_of_what_is_no_column_are_refused(self, library):
        with pytest.raises(ConfigError, match="no own column prise; did you mean price"):
            index_field(Address(library.uri), "prise")


def test_dropping_a_column_leaves_metadata_and_other_columns(tmp_path):
    dataset = make(tmp_path / "kb.lance", documents(10), columns=COLUMNS)
    before = {one.unique_id: one.metadata for one in dataset}
    index_field(Address(dataset.uri), "labels")
    with pytest.raises(ConfigError, match="no own column prise"):
        dataset.drop_columns(["prise"])
    dataset.drop_columns(["labels", "price"])
    assert set(dataset.columns) == set(COLUMNS) - {"labels", "price"}
    assert {one.unique_id: one.metadata for one in dataset} == before
    assert lance.dataset(dataset.uri).describe_indices() == []
    # The numbers of dropped columns, which their files still have, are not given again.
    dataset.add_columns({"labels": "text", "price": "text"})
    assert dataset.count("labels IS NOT NULL OR price IS NOT NULL") == 0
    assert add_fields(Address(dataset.uri), parse_fields("price:text")).fields == ()
