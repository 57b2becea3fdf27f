"""`contextframe-beam templates`: what schedules the jobs, handed out."""

from __future__ import annotations

from pathlib import Path

import pytest

from contextframe_beam.templates import find_template, list_templates
from tests.support.cli_helpers import ROOT, assert_error, cli, without_progress

NAMES = [one.name for one in list_templates()]


def files_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_every_template_is_listed_with_what_it_is_for() -> None:
    lines = cli("templates", "list").out.splitlines()
    assert [line.split()[0] for line in lines] == NAMES
    assert {"cron", "kubernetes", "systemd"} <= set(NAMES)
    assert all(len(line) <= 100 for line in lines)


def test_the_list_for_scripts_is_one_json_value() -> None:
    found = cli("templates", "list", "--json").json
    assert [one["name"] for one in found] == NAMES
    assert all("README.md" in one["files"] for one in found)


@pytest.mark.parametrize("name", NAMES)
def test_it_is_written_whole_and_its_edits_are_told(name: str, tmp_path: Path) -> None:
    result = cli("templates", "write", name, tmp_path / "new" / "folder")
    assert (result.code, without_progress(result.err)) == (0, "")
    written = tmp_path / "new" / "folder"
    assert files_in(written) == sorted(find_template(name).files)
    for file in files_in(written):
        assert (written / file).read_bytes() == (ROOT / "templates" / name / file).read_bytes()
        assert f"wrote {written / file}" in result.out
    assert "\nEdit:\n\n- `" in result.out


@pytest.mark.parametrize("name", NAMES)
def test_what_is_to_be_edited_names_files_that_are_there(name: str) -> None:
    template = find_template(name)
    for line in template.edit.splitlines():
        if line.startswith("- "):
            named = line.removeprefix("- ").split(":")[0].replace("`", "")
            assert named in template.files, line


def test_files_that_are_there_are_not_replaced_unless_asked(tmp_path: Path) -> None:
    (tmp_path / "crm.yaml").write_text("mine")
    result = cli("templates", "write", "systemd", tmp_path)
    assert_error(result, 2, "crm.yaml", "nothing was written", "--force")
    assert files_in(tmp_path) == ["crm.yaml"] and (tmp_path / "crm.yaml").read_text() == "mine"
    assert cli("templates", "write", "systemd", tmp_path, "--force").code == 0
    assert (tmp_path / "crm.yaml").read_text() != "mine"


def test_a_misspelt_template_is_told_the_nearest(tmp_path: Path) -> None:
    result = cli("templates", "write", "sytemd", tmp_path / "new")
    assert_error(result, 2, "sytemd", "did you mean systemd?", "cron, ")
    assert not (tmp_path / "new").exists()


def test_a_folder_that_cannot_be_written_to_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert_error(cli("templates", "write", "cron", tmp_path / "file"), 2, "cannot write to")
