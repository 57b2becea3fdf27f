"""What is imported late or not at all, so that a process starts soon."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path

import pytest

from contextframe_beam.connectors.registry import list_connectors, load_connector_class
from contextframe_beam.lazy import left_out, registered
from tests.support.cli_helpers import run_code


class TestLeftOut:
    def test_a_module_cannot_be_imported_in_the_block_and_can_be_after_it(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delitem(sys.modules, "wave", raising=False)
        with left_out("wave"), pytest.raises(ImportError):
            importlib.import_module("wave")
        assert importlib.import_module("wave").__name__ == "wave"

    def test_a_module_that_is_there_stays(self) -> None:
        with left_out("json"):
            assert importlib.import_module("json") is sys.modules["json"]
        assert sys.modules["json"] is not None

    def test_what_is_left_out_of_beam_is_there_to_be_left_out(self) -> None:
        for name in ("bson", "apache_beam.io.gcp.bigquery"):
            assert importlib.util.find_spec(name) is not None


def test_what_lists_connectors_imports_none_of_them() -> None:
    code = (
        "import sys; from contextframe_beam.pipelines.cli.main import run;"
        "codes = [run(words) for words in (['connectors'], ['ingest', '--help'])];"
        "heavy = {'apache_beam', 'lance', 'pyarrow', 'requests', 'pydantic'} & set(sys.modules);"
        "print('\\n', codes, heavy)"
    )
    done = run_code(code, executed=True)
    assert done.out.splitlines()[-1].strip() == "[0, 0] set()", done
    for one in list_connectors():
        doc = load_connector_class(one.class_path).__doc__ or ""
        assert one.summary == doc.strip().splitlines()[0]


def test_entry_points_of_a_package_that_is_installed_meanwhile_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    assert registered("tests.lazy") == []
    info = tmp_path / "late-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: late\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[tests.lazy]\nlate = late:Late\n")
    assert [one.name for one in registered("tests.lazy")] == ["late"]
