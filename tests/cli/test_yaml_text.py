"""YAML of any content gets one clear message at once."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from contextframe_beam.connectors.yaml_file import parse_yaml, read_yaml_file
from contextframe_beam.errors import ConfigError
from tests.support.cli_helpers import assert_error, cli


def aliases(first: str, form: str, levels: int = 12) -> str:
    """Returns lines of which each repeats the one before nine times."""
    lines = [f"a0: &a0 {first}"]
    for number in range(1, levels):
        lines.append(f"a{number}: &a{number} {form.replace('*', f'*a{number - 1}')}")
    return "\n".join(lines)


HOSTILE = {
    "a bomb of lists": (aliases("[x]", f"[{','.join('*' * 9)}]"), "more than 100,000 values"),
    "a bomb of mappings": (
        aliases("{k: v}", "{" + ",".join(f"k{one}: *" for one in range(9)) + "}"),
        "more than 100,000 values",
    ),
    "a bomb of merged mappings": (
        aliases("{k: v}", "{<<: [" + ",".join("*" * 9) + "]}"),
        "more than 100,000 values",
    ),
    "a bomb of keys": (aliases("[x]", "{? [" + ",".join("*" * 9) + "] : v}"), "100,000"),
    "a list within itself": ("k: &a [*a]", r"line 1: \*a is a part of itself"),
    "a mapping within itself": ("k: 1\nm: &a {k: *a}", r"line 2: \*a is a part of itself"),
    "a file within itself": ("&a\nk: *a", r"line 2: \*a is a part of itself"),
    "a mapping merged into itself": ("k: &a {<<: *a}", "is a part of itself"),
    "one within another within the one": ("k: &a [&b [*a]]", "is a part of itself"),
    "a key that holds itself": ("? &a [*a]\n: v", "is a part of itself"),
    "a list deep down": ("k: " + "[" * 5000 + "]" * 5000, "more than 64 levels deep"),
    "a mapping deep down": ("k: " + "{a: " * 3000 + "1" + "}" * 3000, "64 levels"),
    "a list that does not end": ("[" * 5000, "64 levels"),
    "blocks deep down": ("\n".join(" " * n + "a:" for n in range(500)), "64 levels"),
    "dashes deep down": ("- " * 3000, "64 levels"),
    "many values": ("k:\n" + "- x\n" * 150_000, "more than 100,000 values"),
    "NUL": ("k: v\nm: a\x00b", r"line 2: .* U\+0000"),
    "an escape": ("k: \x1b[2J", r"U\+001B"),
    "a character of no one": ("k: \ufffe", r"U\+FFFE"),
    "an object of Python": ("k: !!python/object/apply:os.system [id]", "could not determine"),
    "an unknown tag": ("k: !secret x", "could not determine"),
    "an alias of nothing": ("k: *nope", "undefined alias"),
    "a date of no calendar": (
        "a: 1\nk: 2026-99-99",
        "line 2: '2026-99-99' is not a valid timestamp",
    ),
    "a number of 6,000 digits": ("k: " + "9" * 6000, "too long for a number"),
    "a number of 3,000 parts": ("k: " + "1:" * 3000 + "1", "too long for a number"),
    "a number without a digit": ("k: !!int abc", "'abc' is not a valid int"),
    "a float without a digit": ("k: !!float abc", "'abc' is not a valid float"),
    "a time without a digit": ("k: !!timestamp nope", "'nope' is not a valid timestamp"),
    "bytes that are none": ("k: !!binary é", "no|ascii|YAML"),
    "a key that is a list": ("? [a]\n: v", "unhashable"),
    "two documents": ("k: 1\n---\nk: 2", "another document"),
    "a tab": ("k:\n\t- x", "line 2"),
    "half a flow": ("k: [a", "line 1|line 2"),
    "a directive": ("%YAML 9.9\n---\nk: 1", "YAML"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_it_is_refused_with_one_message(kind: str, tmp_path: Path) -> None:
    text, message = HOSTILE[kind]
    with pytest.raises(ConfigError, match=f"(?s)^some.yaml.*({message})") as caught:
        parse_yaml(text, "some.yaml")
    assert len(str(caught.value)) < 300
    (tmp_path / "some.yaml").write_bytes(text.encode())
    for command in (
        ["check", "api", "--config", "some.yaml"],
        ["ingest", "api", "--config", "some.yaml", "--to", "kb.lance"],
        ["test", "json", "--directory", ".", "--config", "some.yaml"],
    ):
        named = [
            str(tmp_path / part) if part.endswith((".yaml", ".lance")) else part for part in command
        ]
        result = cli(*named)
        assert_error(result, 2, "some.yaml")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"k: caf\xe9", "not UTF-8"),
        ("k: v".encode("utf-16"), "not UTF-8"),
        (b"k: " + b"x" * (1 << 20), "more than 1 MB"),
        (b"", "is empty"),
        (b"# nothing\n", "is empty"),
        (b"just text", "not a mapping"),
        (b"- a\n- b", "not a mapping"),
    ],
)
def test_files_that_are_no_configuration(data: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "some.yaml").write_bytes(data)
    assert_error(cli("check", "api", "--config", tmp_path / "some.yaml"), 2, message)


@pytest.mark.parametrize("name", ["gone.yaml", "folder", "~nobody-of-that-name/x.yaml"])
def test_files_that_cannot_be_read(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    with pytest.raises(ConfigError, match="give the path of a YAML file"):
        read_yaml_file(name, "the configuration")
    assert_error(cli("check", "api", "--config", name), 2, name)


@given(st.text(max_size=200))
def test_any_text_is_read_as_yaml_does_or_refused(text: str) -> None:
    try:
        read = parse_yaml(text, "x")
    except ConfigError as error:
        assert str(error).startswith("x")
    else:
        expected = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        assert repr(read.values) == repr(expected)


@pytest.mark.parametrize(
    "text",
    [
        "base: &b {k: v}\nother: {<<: *b, m: 1}",
        "a: &a [1, 2]\nb: [*a, *a]\nc: {x: *a}",
        "a: 0o17\nb: 1:30\nc: 2026-01-31\nd: 1e3\ne: ~\nf: yes",
        "text: |\n  line\n  line\nfolded: >\n  a\n  b",
        "",
    ],
)
def test_what_people_write_stays_what_it_was(text: str) -> None:
    assert parse_yaml(text, "x").values == yaml.safe_load(text)
