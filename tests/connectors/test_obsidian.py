"""The obsidian connector: what notes become, where links lead, and what later runs read."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contextframe_beam import FrameDataset
from contextframe_beam.connectors.obsidian.canvas import parse_canvas
from contextframe_beam.connectors.obsidian.connector import ObsidianConnector
from contextframe_beam.connectors.obsidian.note import parse_note, tokens
from contextframe_beam.connectors.obsidian.vault import Settings, VaultIndex
from contextframe_beam.errors import ConnectorError, RecordError
from contextframe_beam.frames.record import FrameRecord
from contextframe_beam.pipelines.ingest import ingest

HOUR = 3600
GOLDEN = Path(__file__).parent.parent / "data" / "obsidian"


def put(vault: Path, path: str, content: bytes | str = "text", age: float = HOUR) -> Path:
    """Writes a file of a vault that was changed so many seconds ago."""
    file = vault / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    os.utime(file, (time.time() - age,) * 2)
    return file


def records(vault: Path, **settings: Any) -> dict[str, FrameRecord]:
    """Returns the records of a vault by the path of their files."""
    connector = ObsidianConnector(vault, **settings)
    connector.authenticate()
    found = {}
    for item in connector.sync_documents():
        record = connector.map_to_frame_record(item)
        assert isinstance(record, FrameRecord)
        found[item["path"]] = record
    return found


def targets(record: FrameRecord) -> list[tuple[str, str]]:
    """Returns the types of a record's relationships, with the paths that they lead to."""
    return [
        (one["relationship_type"], one["target_id"].partition("/")[2])
        for one in record.metadata.get("relationships", ())
    ]


class TestTagsAndLinks:
    @pytest.mark.parametrize(
        ("text", "tags"),
        [
            ("#a and (#b), #c/d.", ["a", "b", "c/d"]),
            ("#été #日本 #1a #123", ["été", "日本", "1a"]),
            ("a#b http://x.y/#c [x](#d) \\#e", []),
            ("`#a` ``#b ` #c`` #d", ["d"]),
            ("```\n#a\n```\n#b", ["b"]),
            ("~~~\n#a\n```\n~~~\n#b", ["b"]),
            ("%% #a %% #b <!-- #c -->", ["b"]),
            ("$#a x$ #b\n$$\n#c\n$$", ["b"]),
            ("It costs $5 and #a is $6", ["a"]),
            ("    #a\n\ntext\n\n    #b", []),
            ("- x\n\n    #a", ["a"]),
            ("---\ntags: [a b, '#c', C]\ntag: d, e\n---\n#A", ["a b", "c", "d", "e", "A"]),
        ],
    )
    def test_tags_are_those_that_a_reader_sees(self, text, tags):
        assert parse_note(text).tags == tags

    @pytest.mark.parametrize(
        ("text", "link"),
        [
            ("[[Note]]", ("Note", "", "Note", False)),
            ("[[Note|x]]", ("Note", "", "x", False)),
            ("| [[Note\\|x]] |", ("Note", "", "x", False)),
            ("[[Note#Head]]", ("Note", "Head", "Note > Head", False)),
            ("[[Note#^block]]", ("Note", "^block", "Note > ^block", False)),
            ("[[#Local]]", ("", "Local", "Local", False)),
            ("![[a.png|100]]", ("a.png", "", "100", True)),
            ("[x](<Note name.md>)", ("Note name.md", "", "x", False)),
            ("[x](Note%20name.md#A%20b)", ("Note name.md", "A b", "x", False)),
            ('[x](a(1).md "T")', ("a(1).md", "", "x", False)),
            ("---\nup: '[[Note|x]]'\n---\n", ("Note", "", "x", False)),
            ("---\nup:\n - a: ['[[Note]]']\n---\n", ("Note", "", "Note", False)),
        ],
    )
    def test_links_name_a_target_a_part_and_what_is_shown(self, text, link):
        (found,) = parse_note(text).links
        assert (found.target, found.part, found.shown, found.is_embed) == link

    @pytest.mark.parametrize(
        "text",
        ["`[[a]]`", "```\n[[a]]\n```", "%%[[a]]%%", "$[[a]]$", "[x](https://a.b)", "\\[[a]]"],
    )
    def test_what_is_no_text_has_no_links(self, text):
        assert parse_note(text).links == []

    @given(st.text(alphabet="[]()!#|`$%~\\<>-: \n\tabé1/^'\"*=", max_size=200))
    def test_any_text_is_parsed_with_right_offsets(self, text):
        note = parse_note(text)
        for link in note.links:
            if link.start >= 0:
                found = note.body[link.start : link.end].removeprefix("!")
                assert found.startswith("[") and found.endswith(("]]", ")"))
                assert link.is_embed == note.body.startswith("!", link.start)
        for kind, value in tokens(note.body):
            if kind == "tag":
                assert note.body[value[1] : value[2]] == f"#{value[0]}"

    @given(st.text(max_size=300), st.booleans())
    def test_any_properties_leave_a_note(self, text, is_open):
        note = parse_note(f"---\n{text}\n" + ("" if is_open else "---\nbody"))
        assert json.dumps(note.properties) and isinstance(note.body, str)


class TestProperties:
    def test_dates_and_yes_are_text_and_numbers_are_numbers(self):
        note = parse_note(
            "\ufeff---\r\nd: 2020-01-02\r\ny: yes\r\nn: 010\r\ni: 7\r\nb: true\r\n---\r\nT"
        )
        assert note.properties == {"d": "2020-01-02", "y": "yes", "n": "010", "i": 7, "b": True}
        assert note.body == "T"

    @pytest.mark.parametrize(
        "text",
        ["a: {{date}}", "a: [", "- a", "text", "a: b: c", "a: &x [*x]", "{" * 5000],
        ids=range(7),
    )
    def test_bad_ones_keep_the_note(self, text):
        note = parse_note(f"---\n{text}\n---\nBody #t")
        assert note.error
        assert (note.body, note.tags) == ("Body #t", ["t"])

    def test_anchors_that_stand_for_millions_are_refused(self):
        bomb = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
            f"{b}: &{b} [{','.join(['*' + a] * 9)}]\n"
            for a, b in zip("abcdefg", "bcdefgh", strict=True)
        )
        assert "too many" in parse_note(f"---\n{bomb}---\nBody").error

    def test_only_at_the_very_first_line(self):
        assert parse_note("\n---\na: 1\n---\n").properties == {}

    def test_inline_fields_outside_code(self):
        note = parse_note("k:: v\n- [ ] due:: x\n(a:: b) `c:: d`\n```\ne:: f\n```\nk:: w")
        assert note.fields == {"k": ["v", "w"], "due": "x", "a": "b"}


class TestResolution:
    INDEX = VaultIndex(
        ["A.md", "x/A.md", "x/y/B.md", "z/B.md", "p/pic.PNG", "x/C.md", "é.md"],
        {"x/C.md": (["See"], "")},
    )

    @pytest.mark.parametrize(
        ("target", "source", "path"),
        [
            ("A", "x/C.md", "A.md"),
            ("x/A", "z/B.md", "x/A.md"),
            ("B", "x/y/D.md", "x/y/B.md"),
            ("B", "A.md", "z/B.md"),
            ("b", "A.md", "z/B.md"),
            ("y/B", "A.md", "x/y/B.md"),
            ("./A", "x/C.md", "x/A.md"),
            ("../A.md", "x/C.md", "A.md"),
            ("pic.png", "A.md", "p/pic.PNG"),
            ("e\u0301", "A.md", "é.md"),
            ("See", "A.md", "x/C.md"),
            ("Nope", "A.md", None),
            ("../../A", "A.md", None),
        ],
    )
    def test_whole_path_then_same_folder_then_shortest(self, target, source, path):
        assert self.INDEX.resolve(target, source) == path

    def test_an_index_travels_whole(self):
        again = VaultIndex.unpack(self.INDEX.pack())
        assert again.digest == self.INDEX.digest and again.resolve("See", "A.md") == "x/C.md"


class TestVault:
    def test_a_note_becomes_a_record(self, tmp_path):
        put(tmp_path / "My Notes", "Dir/A b.md", "---\ncreated: 2020-01-02\n---\nSee [[B|it]] #t")
        put(tmp_path / "My Notes", "B.md", "![[A b]] [[None]]")
        found = records(tmp_path / "My Notes")
        record = found["Dir/A b.md"]
        assert record.unique_id == "obsidian:My Notes/Dir/A b.md"
        assert record.text_content == "See [it](B.md) #t"
        assert record.metadata["uri"] == "obsidian://open?vault=My%20Notes&file=Dir%2FA%20b"
        assert record.metadata["title"] == "A b"
        assert record.metadata["created_at"] == "2020-01-02"
        assert targets(record) == [("reference", "B.md")]
        assert targets(found["B.md"]) == [("child", "Dir/A b.md")]
        assert found["B.md"].metadata["unresolved_links"] == ["None"]

    def test_what_the_settings_leave_out(self, tmp_path):
        put(tmp_path, ".obsidian/app.json", '{"userIgnoreFilters": ["Old/", "/draft\\\\d/"]}')
        put(tmp_path, ".obsidian/templates.json", '{"folder": "Templates"}')
        put(tmp_path, ".obsidian/daily-notes.json", '{"folder": "Daily"}')
        for path in ("a.md", "Old/b.md", "draft1.md", "Templates/t.md", "Daily/2020-01-02.md"):
            put(tmp_path, path)
        assert sorted(records(tmp_path)) == ["Daily/2020-01-02.md", "a.md"]
        assert sorted(records(tmp_path, daily_notes=False)) == ["a.md"]
        assert len(records(tmp_path, ignore_filters=False, templates=True)) == 5

    def test_attachments(self, tmp_path):
        put(tmp_path, "a.md")
        put(tmp_path, "b.csv", "x,y\n1,2\n")
        put(tmp_path, "c.png", b"\x89PNG")
        assert sorted(records(tmp_path, attachments="none")) == ["a.md"]
        assert records(tmp_path, attachments="metadata")["b.csv"].text_content == ""
        texts = records(tmp_path, attachments="text")
        assert "| 1" in (texts["b.csv"].text_content or "")
        assert texts["c.png"].metadata["file_size"] == 4
        raw = records(tmp_path, attachments="bytes")["c.png"]
        assert (raw.raw_data, raw.raw_data_type) == (b"\x89PNG", "image/png")

    def test_a_canvas(self):
        note = parse_canvas(
            json.dumps(
                {
                    "nodes": [
                        {"id": "2", "type": "file", "file": "B.md", "y": 9},
                        {"id": "1", "type": "text", "text": "See [[A]] #t", "y": 1},
                        {"id": "3", "type": "group", "label": "G", "y": 0},
                    ],
                    "edges": [{"fromNode": "1", "toNode": "2", "label": "to"}],
                }
            )
        )
        assert note.body == "## G\n\nSee [[A]] #t\n\n![[B.md]]\n\n- See [[A]] #t → B.md: to"
        assert [note.body[one.start : one.end] for one in note.links] == ["[[A]]", "![[B.md]]"]
        assert note.tags == ["t"]

    @pytest.mark.parametrize("text", ["[", "[]", "1"])
    def test_what_is_no_canvas(self, text):
        with pytest.raises(RecordError, match="canvas"):
            parse_canvas(text)

    @given(st.binary(max_size=100))
    def test_any_settings(self, data):
        Settings.of({".obsidian/app.json": data})

    def test_an_empty_folder_is_an_error(self, tmp_path):
        with pytest.raises(ConnectorError, match="is the disk mounted"):
            records(tmp_path)


class TestGoldenVault:
    """A vault with every form, and what its files become."""

    @staticmethod
    def made(folder: Path) -> dict[str, Any]:
        """Returns the golden vault's records as JSON values."""
        for path, text in json.loads((GOLDEN / "vault.json").read_text()).items():
            put(folder / "Golden", path, text)
        return {
            str(one.unique_id): {"text": one.text_content, **one.metadata}
            for one in records(folder / "Golden", attachments="metadata").values()
        }

    def test_each_file_becomes_the_expected_record(self, tmp_path):
        expected = json.loads((GOLDEN / "records.json").read_text())
        found = self.made(tmp_path)
        assert sorted(found) == sorted(expected)
        assert [name for name in found if found[name] != expected[name]] == []


class TestLaterRuns:
    @pytest.fixture
    def vault(self, tmp_path: Path) -> Path:
        put(tmp_path / "v", "A.md", "[[B]] [[Later]]")
        put(tmp_path / "v", "B.md", "text")
        put(tmp_path / "v", "sub/C.md", "[[B]]")
        return tmp_path / "v"

    @staticmethod
    def run(vault: Path, **settings: Any) -> tuple[int, int, int]:
        """Returns how many documents a run has parsed, written and deleted."""
        how = {name: settings.pop(name) for name in ("full", "workers") if name in settings}
        connector = ObsidianConnector(vault, **settings)
        receipt = ingest(connector, vault.parent / "kb.lance", embed_dim=4, **how)
        return receipt.parsed, receipt.rows_written, receipt.rows_deleted

    def test_what_changed_is_written_and_what_is_gone_deleted(self, vault):
        assert self.run(vault) == (3, 3, 0)
        assert self.run(vault) == (0, 0, 0)
        os.utime(vault / "B.md", (time.time() - 99,) * 2)
        assert self.run(vault) == (0, 0, 0)
        put(vault, "Later.md")
        assert self.run(vault) == (2, 2, 0)
        (vault / "sub/C.md").rename(vault / "D.md")
        assert self.run(vault)[2] == 1
        (vault / "B.md").unlink()
        self.run(vault)
        rows = {one.unique_id: one for one in FrameDataset.open(vault.parent / "kb.lance")}
        assert sorted(rows) == [f"obsidian:v/{one}.md" for one in ("A", "D", "Later")]
        assert targets(rows["obsidian:v/A.md"]) == [("reference", "Later.md")]

    def test_a_file_that_is_not_utf8_is_a_dead_letter_until_it_is(self, vault):
        put(vault, "bad.md", b"caf\xe9")
        to = vault.parent / "kb.lance"
        assert ingest(ObsidianConnector(vault), to, embed_dim=4).failed == 1
        assert ingest(ObsidianConnector(vault), to, embed_dim=4).failed == 1
        put(vault, "bad.md", "café", age=99)
        assert self.run(vault) == (1, 1, 0)

    def test_a_renamed_note_with_an_id_stays_the_same(self, vault):
        put(vault, "N.md", "---\nid: 7\n---\n")
        put(vault, "M.md", "[[N]]")
        self.run(vault, id_property="id")
        (vault / "N.md").rename(vault / "sub/N.md")
        assert self.run(vault, id_property="id")[2] == 0
        rows = {one.unique_id: one for one in FrameDataset.open(vault.parent / "kb.lance")}
        assert rows["obsidian:v/7"].metadata["source_file"] == "sub/N.md"
        assert targets(rows["obsidian:v/M.md"]) == [("reference", "7")]

    def test_a_vault_that_is_gone_deletes_nothing(self, vault):
        self.run(vault)
        vault.rename(vault.parent / "away")
        vault.mkdir()
        with pytest.raises(ConnectorError, match="is the disk mounted"):
            self.run(vault)
        assert len(FrameDataset.open(vault.parent / "kb.lance")) == 3

    def test_later_runs_leave_what_a_whole_run_makes(self, vault):
        self.run(vault)
        put(vault, "sub/B.md", "nearer to C")
        put(vault, "A.md", "[[C]] now", age=99)
        self.run(vault)
        whole = vault.parent / "whole.lance"
        ingest(ObsidianConnector(vault), whole, embed_dim=4)
        made = [
            sorted((str(one.unique_id), one.text_content, str(one.metadata)) for one in rows)
            for rows in map(FrameDataset.open, (vault.parent / "kb.lance", whole))
        ]
        assert made[0] == made[1]

    def test_two_workers_make_the_same(self, vault):
        assert self.run(vault, workers=2) == (3, 3, 0)
        assert self.run(vault, workers=2) == (0, 0, 0)
        rows = {one.unique_id: one for one in FrameDataset.open(vault.parent / "kb.lance")}
        assert targets(rows["obsidian:v/sub/C.md"]) == [("reference", "B.md")]
