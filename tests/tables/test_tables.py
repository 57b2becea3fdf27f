"""Tables in files: how they are found, what names columns, what a run leaves out, and says."""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from pyarrow import feather

from contextframe_beam.connectors import PlannedRun
from contextframe_beam.connectors.look import look
from contextframe_beam.connectors.tables import connector as connector_module
from contextframe_beam.connectors.tables import csv_file, table_format
from contextframe_beam.connectors.tables.arrow import ArrowConnector
from contextframe_beam.connectors.tables.csv_file import CSVConnector
from contextframe_beam.connectors.tables.parquet import ParquetConnector
from contextframe_beam.connectors.tables.places import placed
from contextframe_beam.errors import ConfigError, ConnectorError
from tests.support.cli_helpers import cli
from tests.support.pipeline_helpers import texts_in
from tests.support.table_reading import pages_of, read


def table(path: Path, ids: Any, **more: list[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    ids = list(ids)
    columns = {"id": ids, "text": [f"text {one}" for one in ids], **more}
    pq.write_table(pa.table(columns), path)
    return path


def aged(path: Path) -> Path:
    """Makes a file old enough that its time shows any change."""
    before = time.time() - 60
    os.utime(path, (before, before))
    return path


def csv(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


class TestPaths:
    """A path is a file, a folder, or a pattern."""

    def test_of_a_folder_all_tables_below_are_read(self, tmp_path: Path) -> None:
        table(tmp_path / "a.parquet", [1])
        table(tmp_path / "deep" / "b.PQ", [2])
        table(tmp_path / "_metadata.parquet", [3])
        table(tmp_path / ".hidden.parquet", [4])
        (tmp_path / "_SUCCESS").touch()
        (tmp_path / "notes.txt").write_text("no table")
        assert read(ParquetConnector(tmp_path)).column("id") == [1, 2]

    @pytest.mark.parametrize(
        ("log", "name"),
        [
            ("_delta_log/00000000000000000000.json", "Delta Lake"),
            ("metadata/v1.metadata.json", "Iceberg"),
        ],
    )
    def test_a_table_of_which_only_some_files_count_is_refused(
        self, log: str, name: str, tmp_path: Path
    ) -> None:
        table(tmp_path / "data" / "a.parquet", [1])
        (tmp_path / log).parent.mkdir()
        (tmp_path / log).write_text("{}")
        with pytest.raises(ConfigError, match=f"a table of {name}.*rows that were deleted"):
            read(ParquetConnector(tmp_path))
        assert read(ParquetConnector(tmp_path / "data" / "*.parquet")).column("id") == [1]

    def test_what_programs_leave_beside_tables_narrows_nothing(self, tmp_path: Path) -> None:
        table(tmp_path / "part-0.parquet", [1])
        (tmp_path / ".part-0.parquet.crc").write_bytes(b"x")
        table(tmp_path / "_temporary" / "0" / "part-1.parquet", [2])
        found = read(ParquetConnector(tmp_path))
        assert found.column("id") == [1] and not found.narrowed

    def test_a_pattern_names_files_whatever_they_are_called(self, tmp_path: Path) -> None:
        for number, name in enumerate(["a.data", "b.data", "c.other"]):
            table(tmp_path / "x" / name, [number])
        assert read(ParquetConnector(tmp_path / "*" / "*.data")).column("id") == [0, 1]

    def test_a_file_may_have_the_signs_of_patterns_in_its_name(self, tmp_path: Path) -> None:
        assert read(ParquetConnector(table(tmp_path / "a[1].parquet", [1]))).column("id") == [1]

    def test_a_path_that_leads_nowhere_says_what_is_there(self, tmp_path: Path) -> None:
        table(tmp_path / "a.parquet", [1])
        with pytest.raises(ConnectorError, match=r"matches 'b.parquet'; there are 1 \*.parquet"):
            read(ParquetConnector(tmp_path / "b.parquet"))

    @pytest.mark.parametrize(
        ("path", "known"),
        [
            ("s3://bucket/a/*.csv", ("s3://bucket/a", "*.csv")),
            ("s3://bucket/a/b.csv", ("s3://bucket/a", "b.csv")),
            ("s3://bucket/a/", ("s3://bucket/a", "")),
            ("s3://bucket", ("s3://bucket", "")),
            ("gs://b/year=*/**/x.csv", ("gs://b", "year=*/**/x.csv")),
            ("https://host/a.csv?x=*", ("https://host", "a.csv?x=*")),
            ("/no/such/*/x.csv", ("/no/such", "*/x.csv")),
        ],
    )
    def test_a_path_is_a_folder_and_a_pattern(self, path: str, known: tuple[str, str]) -> None:
        assert placed(path) == known

    def test_files_in_another_file_system_are_read_in_their_version(self, tmp_path: Path) -> None:
        import fsspec

        memory = fsspec.filesystem("memory")
        memory.pipe_file("/tables/a.csv", b"id,text\n1,one\n")
        memory.pipe_file("/tables/b.csv", b"id,text\n2,two\n")
        assert read(CSVConnector("memory://tables/*.csv")).column("id") == ["1", "2"]
        assert read(CSVConnector("memory://tables/b.csv")).column("id") == ["2"]


class TestFolders:
    """Folders such as year=2024 are columns."""

    @pytest.fixture()
    def folder(self, tmp_path: Path) -> Path:
        for number, path in enumerate(
            ["year=2023/lang=en", "year=2024/lang=de", "year=2024/lang=a%20b"]
        ):
            table(tmp_path / "notes" / path / "p.parquet", [number])
        table(tmp_path / "notes/year=__HIVE_DEFAULT_PARTITION__/lang=en/p.parquet", [3])
        return tmp_path / "notes"

    def test_they_are_texts(self, folder: Path) -> None:
        rows = {
            item["id"]: (item["year"], item["lang"])
            for item in read(ParquetConnector(folder)).items
        }
        assert rows == {0: ("2023", "en"), 1: ("2024", "de"), 2: ("2024", "a b"), 3: (None, "en")}

    def test_a_filter_compares_them_with_numbers_and_reads_no_other_file(
        self, folder: Path
    ) -> None:
        found = read(ParquetConnector(folder, filter="year >= 2024 AND lang != 'de'"))
        assert found.column("id") == [2] and len(found.partitions) == 1

    def test_a_pattern_may_lead_through_them(self, folder: Path) -> None:
        found = read(ParquetConnector(folder / "year=2024" / "**" / "*.parquet"))
        assert {item["year"] for item in found.items} == {"2024"}

    def test_a_column_of_the_file_comes_first(self, tmp_path: Path) -> None:
        table(tmp_path / "year=2024" / "a.parquet", [1], year=[1999])
        assert read(ParquetConnector(tmp_path)).column("year") == [1999]


class TestColumns:
    """Names of columns are checked before anything is read."""

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"id": "idd"}, r"id names 'idd'.*did you mean id\?.*there are: id, text, n"),
            ({"text": "# {titel}"}, r"text names 'titel'"),
            ({"title": ["head", "name"]}, r"title names 'head', 'name'"),
            ({"filter": "m > 1"}, r"filter names 'm'"),
            ({"mapping": {"metadata": {"x": "y.z"}}}, r"metadata names 'y.z'"),
            ({"tags": "labels"}, r"tags names 'labels'"),
        ],
    )
    def test_a_column_that_is_missing_is_named(
        self, arguments: Any, message: str, tmp_path: Path
    ) -> None:
        file = table(tmp_path / "a.parquet", [1], n=[2])
        with pytest.raises(ConfigError, match=message):
            read(ParquetConnector(file, **arguments))

    def test_a_table_without_a_text_asks_for_it(self, tmp_path: Path) -> None:
        file = csv(tmp_path / "a.csv", "id,notes\n1,x\n")
        with pytest.raises(ConfigError, match=r'text="notes" \(there are: id, notes\)'):
            read(CSVConnector(file))

    def test_a_column_that_only_newer_files_have_is_null_in_the_others(
        self, tmp_path: Path
    ) -> None:
        table(tmp_path / "1.parquet", [1])
        table(tmp_path / "2.parquet", [2], lang=["en"])
        found = read(ParquetConnector(tmp_path, tags="lang"))
        assert [item.get("lang") for item in found.items] in ([None, "en"], ["en", None])
        assert read(ParquetConnector(tmp_path, filter="lang = 'en'")).column("id") == [2]
        assert read(ParquetConnector(tmp_path, filter="lang is null")).column("id") == [1]

    def test_a_mapping_may_say_where_a_row_is_from(self, tmp_path: Path) -> None:
        file = csv(tmp_path / "a.csv", "n,text\n1,x\n")
        connector = CSVConnector(file, id="{_file_name}/{n}", prefix="")
        (item,) = read(connector).items
        assert connector.map_to_frame_record(item).unique_id == "a.csv/1"

    def test_each_file_may_have_a_mapping_of_its_own(self, tmp_path: Path) -> None:
        csv(tmp_path / "users.csv", "u,bio\n1,x\n")
        csv(tmp_path / "posts.csv", "p,words\n2,y\n")
        streams = {
            "users": {"id": "u", "text": "bio", "prefix": "u:"},
            "posts": {"id": "p", "text": "words", "prefix": "p:"},
        }
        connector = CSVConnector(tmp_path, mapping=streams)
        records = map(connector.map_to_frame_record, read(connector).items)
        assert sorted((one.unique_id, one.text_content) for one in records) == [
            ("p:2", "y"),
            ("u:1", "x"),
        ]


class TestIdentity:
    """Ids of documents are unique and stay."""

    def test_an_id_is_unique_among_sources_unless_a_prefix_says_otherwise(
        self, tmp_path: Path
    ) -> None:
        item = {"id": "007", "text": "x"}
        file = tmp_path / "a.csv"
        assert CSVConnector(file).map_to_frame_record(item).unique_id == f"csv:{file}#007"
        assert CSVConnector(file, prefix="n:").map_to_frame_record(item).unique_id == "n:007"


class TestChanges:
    """What a run leaves out is said, and what has changed is never read as something else."""

    def test_files_that_did_not_change_are_left_out_on_request(self, tmp_path: Path) -> None:
        aged(table(tmp_path / "a.parquet", [1]))
        connector = ParquetConnector(tmp_path, skip_unchanged=True)
        states = read(connector).states
        aged(table(tmp_path / "b.parquet", [2]))
        found = read(connector, states)
        assert found.column("id") == [2]
        assert found.narrowed == "1 files that did not change were not read"

    def test_a_file_that_could_not_be_read_is_read_again(self, tmp_path: Path) -> None:
        (tmp_path / "a.parquet").write_bytes(b"broken")
        aged(tmp_path / "a.parquet")
        connector = ParquetConnector(tmp_path, skip_unchanged=True)
        found = read(connector)
        assert len(found.failures) == 1
        assert len(read(connector, found.states).failures) == 1

    def test_a_large_file_that_is_replaced_is_not_read_as_a_mixture(self, tmp_path: Path) -> None:
        file = tmp_path / "a.csv"
        lines = "".join(f"{n},{'x' * 100}\n" for n in range(5000))
        file.write_text(f"id,text\n{lines}")
        connector = CSVConnector(file)
        connector.authenticate()
        planned = list(connector.plan(PlannedRun()))
        assert sum(one.blocks for one in planned) > 3
        file.write_text(f"id,text\n{lines.replace('x', 'y')}")
        pages = pages_of(connector, planned)
        assert sum(page.count for page in pages) == 0
        assert all("it changed after it was listed" in page.failures[0].message for page in pages)

    def test_a_mirror_deletes_the_rows_of_files_that_are_gone(self, tmp_path: Path) -> None:
        folder, to = tmp_path / "in", tmp_path / "kb"
        table(folder / "a.parquet", range(5))
        table(folder / "b.parquet", range(5, 8))
        arguments = ("ingest", "parquet", "--path", folder, "--prefix", "n:", "--to", to)
        assert cli(*arguments).code == 0
        assert len(texts_in(to)) == 8
        (folder / "b.parquet").unlink()
        table(folder / "a.parquet", [None, *range(1, 5)])
        result = cli(*arguments, "--mode", "mirror", "--json").json
        assert (result["rows_deleted"], result["rows_unchanged"]) == (4, 4)


class TestIds:
    """Without an id an upsert cannot work, and a run says so before it reads."""

    def test_an_upsert_names_the_columns_that_look_unique(self, tmp_path: Path) -> None:
        csv(tmp_path / "a.csv", "nr,text,lang\n1,x,en\n2,y,en\n")
        arguments = ("ingest", "csv", "--path", tmp_path / "a.csv", "--to", tmp_path / "kb")
        refused = cli(*arguments)
        assert refused.code != 0 and "these look unique: nr, text" in refused.err
        assert not (tmp_path / "kb").exists()
        assert cli(*arguments, "--mode", "append").code == 0
        assert cli(*arguments[:-1], tmp_path / "other", "--id", "nr").code == 0

    def test_a_row_with_a_null_text_is_a_document(self, tmp_path: Path) -> None:
        csv(tmp_path / "a.csv", "id,text\n1,\n")
        arguments = ("--path", tmp_path / "a.csv", "--prefix", "", "--to", tmp_path / "kb")
        assert cli("ingest", "csv", *arguments).code == 0
        assert texts_in(tmp_path / "kb") == {"1": ""}


class TestCheck:
    """A look shows how files are written, the columns, what is not mapped, and three frames."""

    def test_it_shows_all_that_a_run_would_take_for_granted(self, tmp_path: Path) -> None:
        csv(tmp_path / "a.csv", "id;body;n;m\n1;x;5;7\n2;y;6\n3;z;7;8\n")
        mapping = {"text": "body", "metadata": ["n"]}
        found = look(CSVConnector(tmp_path / "a.csv", mapping=mapping))
        assert [one.text for one in found.samples] == ["x", "z"]
        assert found.fields == dict.fromkeys(["id", "body", "n", "m"], "string")
        assert found.unmapped == ["m"]
        assert "line 3: it has 3 values" in found.failures[0] and not found.ok
        text = str(found)
        assert "values separated by semicolons" in text and "all columns are text" in text
        assert "not mapped: m" in text

    def test_it_says_that_there_is_no_id(self, tmp_path: Path) -> None:
        csv(tmp_path / "a.csv", "nr,text\n1,x\n")
        assert "no column is the id; these look unique: nr, text" in str(
            look(CSVConnector(tmp_path / "a.csv"))
        )

    def test_it_says_what_of_json_is_not_mapped(self, tmp_path: Path) -> None:
        (tmp_path / "a.jsonl").write_text('{"id": 1, "body": "x", "n": 2, "_x": 3}\n')
        plain = cli("check", "json", "--directory", tmp_path, "--pattern", "*.jsonl", "--json").json
        assert plain["unmapped"] == ["_x"] and plain["fields"]["n"] == "a number"
        mapping = '{"text": "body", "metadata": []}'
        mapped = cli(
            "check",
            "json",
            "--directory",
            tmp_path,
            "--pattern",
            "*.jsonl",
            "--mapping",
            mapping,
            "--json",
        ).json
        assert mapped["unmapped"] == ["n", "_x"]


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_trouble_with_a_disk_or_a_network_ends_the_run_and_loses_no_row(
    kind: str, tmp_path: Path
) -> None:
    rows = pa.table({"id": range(20_000), "text": ["x" * 40] * 20_000})
    file = tmp_path / f"a.{kind}"
    if kind == "parquet":
        pq.write_table(rows, file, row_group_size=1000, compression="none", use_dictionary=False)
    else:
        pa.csv.write_csv(rows, file)
    cls = ParquetConnector if kind == "parquet" else CSVConnector
    connector = cls(file)
    connector.authenticate()
    planned = list(connector.plan(PlannedRun()))
    assert sum(one.blocks for one in planned) > 3

    class Shaky(type(connector._files)):  # type: ignore[misc]
        @contextmanager
        def reader(self, info: Any, as_listed: bool = True) -> Any:
            with super().reader(info, as_listed) as (now, read):

                def failing(offset: int, size: int) -> bytes:
                    if offset > 500_000:
                        raise ConnectionError("the connection was reset")
                    return bytes(read(offset, size))

                yield now, failing

    connector._files = Shaky(tmp_path)
    with pytest.raises(ConnectionError):
        pages_of(connector, planned)


def test_a_column_of_a_path_has_its_stated_type(tmp_path: Path) -> None:
    for year in ("2024", "old"):
        (tmp_path / f"year={year}").mkdir()
        csv(tmp_path / f"year={year}" / "a.csv", "id,text\n1,x\n")
    found = read(CSVConnector(tmp_path, types=["year:int64"]))
    assert [item["year"] for item in found.items] == [2024]
    assert "year is 'old' in its path, which is not int64" in found.messages


def test_a_run_says_how_files_are_written(tmp_path: Path, caplog: Any) -> None:
    caplog.set_level("INFO")
    read(CSVConnector(csv(tmp_path / "a.csv", "id;text\n1;x\n"), types=["id:int64"]))
    said = "encoding utf-8, values separated by semicolons; id is int64; all others are text"
    assert f"{tmp_path}/a.csv: {said}" in caplog.text


@pytest.mark.parametrize("count", [1, 200_000])
def test_quotes_that_stand_where_they_should_not_are_told(
    count: int, tmp_path: Path, caplog: Any
) -> None:
    """A quote that is never closed makes one row of two, and nobody would see it."""
    rows = "".join(f'{number},"{"x" * 80}"\n' for number in range(count))
    file = csv(tmp_path / "a.csv", f'id,text\n0,5" nails\n{rows}')
    found = read(CSVConnector(file))
    assert len(found.items) == count + 1 and len(found.partitions) == 1
    assert f"{file}: quotes stand where values neither begin nor end" in caplog.text


def test_a_record_that_is_too_long_is_the_only_one_that_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csv_file, "_LONGEST_RECORD", 1000)
    file = csv(tmp_path / "a.csv", 'id,text\n1,a\n2,"' + "y\n" * 600 + '"\n3,c\n4,d\n')
    found = read(CSVConnector(file))
    assert found.column("id") == ["1", "3", "4"]
    assert "line 3: the record at line 3 has 1,205 bytes" in found.messages
    assert found.failures[0].item["data"].startswith('2,"y')


@pytest.mark.parametrize("kind", ["csv", "parquet", "arrow"])
def test_where_the_parts_of_a_file_begin_depends_on_the_file_alone(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that is continued finds the parts that are done, whatever files came meanwhile."""
    for module in (connector_module, csv_file, table_format):
        monkeypatch.setattr(module, "PART_BYTES", 64 << 10)
    monkeypatch.setattr(connector_module, "_SMALLEST_PIECE_BYTES", 4 << 10)
    rows = pa.table({"id": range(8000), "text": ["x" * 40] * 8000})
    cls: Any = {"csv": CSVConnector, "parquet": ParquetConnector, "arrow": ArrowConnector}[kind]

    def write(name: str, times: int) -> None:
        more, file = pa.concat_tables([rows] * times), tmp_path / f"{name}.{kind}"
        if kind == "csv":
            pa.csv.write_csv(more, file)
        elif kind == "parquet":
            pq.write_table(more, file, row_group_size=200, compression="none", use_dictionary=False)
        else:
            feather.write_feather(more, str(file), chunksize=200, compression="uncompressed")

    def parts() -> dict[str, int]:
        planned = cls(tmp_path).plan(PlannedRun())
        return {one.id: one.blocks for one in planned if "a." in one.id}

    write("a", 1)
    before = parts()
    write("b", 6)
    after = parts()
    assert list(after) == list(before) and len(before) > 4
    assert sum(after.values()) < sum(before.values())
    assert read(cls(tmp_path / f"a.{kind}")).blocks == sum(before.values())
    assert len(read(cls(tmp_path)).items) == 7 * 8000


def test_a_mirror_reads_files_that_did_not_change_and_does_not_say_otherwise(
    tmp_path: Path,
) -> None:
    aged(csv(tmp_path / "a.csv", "id,text\n1,x\n"))
    arguments = ("ingest", "csv", "--path", tmp_path, "--skip-unchanged", "--to", tmp_path / "kb")
    assert cli(*arguments).code == 0
    told = "files that did not change since an earlier run were not read"
    assert told in cli(*arguments).out
    mirrored = cli(*arguments, "--mode", "mirror")
    assert mirrored.code == 0 and told not in mirrored.out
    assert len(texts_in(tmp_path / "kb")) == 1
