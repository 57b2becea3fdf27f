"""Parsers by name, and what tells them apart from those of another run."""

import pytest

from contextframe_beam.errors import ConfigError
from contextframe_beam.parsers import Limits, ParserPool, Parsers, ParserSpec
from tests.support.own_parsers import Lines, Told, Versioned


def test_a_class_of_ones_own_reads_its_files_with_its_settings():
    parsers = Parsers([ParserSpec("tests.support.own_parsers:Lines", {"start": 5})])
    with ParserPool(parsers) as pool:
        assert pool.parse("a.LINES", b"x\ny").text == "5. x\n6. y"
        assert pool.parse("a.txt", b"x").text == "x"


def test_a_function_without_suffixes_reads_every_file_and_gives_clean_text():
    with ParserPool(Parsers(["tests.support.own_parsers:shout"])) as pool:
        assert pool.parse("a.pdf", b"text").text == "TEXT\n"


def test_a_registered_name_can_be_put_first():
    found = Parsers(["text", "tests.support.own_parsers:shout"]).find
    assert [found(name).name for name in ("a.txt", "a.md")] == [
        "text",
        "tests.support.own_parsers:shout",
    ]


def test_every_suffix_has_one_parser():
    seen: dict[str, str] = {}
    for one in Parsers().found:
        for suffix in one.suffixes or ():
            assert seen.setdefault(suffix, one.name) == one.name
    assert {".md", ".html", ".pdf", ".docx", ".xlsx", ".epub", ".eml", ".py"} <= seen.keys()


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ("pfd", "there is no parser 'pfd'; did you mean pdf?"),
        ("no.such:Class", "importing no.such failed"),
        ("tests.support.own_parsers:Line", "has no 'Line'; did you mean Lines?"),
        ("tests.support.own_parsers:", "write package.module:Class"),
        ("contextframe_beam.parsers.contract:Limits", "lacks the method parse"),
        ("tests.support.own_parsers:__doc__", "neither a class"),
    ],
)
def test_what_is_no_parser_is_refused_at_once(named, message):
    with pytest.raises(ConfigError, match=message):
        Parsers([named])


def test_a_class_inside_a_function_is_refused():
    class Inner(Lines):
        pass

    with pytest.raises(ConfigError, match="top of a module"):
        Parsers([Inner])


class TestIdentity:
    def test_it_is_the_same_in_each_process(self):
        assert Parsers([Told]).identity == Parsers(["tests.support.own_parsers:Told"]).identity

    def test_settings_change_it(self):
        one, other = (
            Parsers([ParserSpec("tests.support.own_parsers:Lines", {"start": start})])
            for start in (1, 2)
        )
        assert one.identity != other.identity
        assert one.find("a.lines").identity != other.find("a.lines").identity
        assert one.find("a.pdf").identity == other.find("a.pdf").identity

    def test_it_holds_the_version_or_else_a_digest_of_the_source(self, monkeypatch):
        before = Parsers([Lines]).find("a.lines").identity
        monkeypatch.setattr(Lines, "version", "1", raising=False)
        assert Parsers([Lines]).find("a.lines").identity != before

    def test_what_a_class_is_based_on_counts(self, monkeypatch):
        before = Parsers([Versioned]).find("a.lines").identity
        monkeypatch.setattr(Lines, "version", "9", raising=False)
        assert Parsers([Versioned]).find("a.lines").identity != before


@pytest.mark.parametrize("name", ["max_file_bytes", "timeout", "max_nesting"])
def test_a_limit_is_above_zero(name):
    with pytest.raises(ConfigError, match=name):
        Limits(**{name: 0})
