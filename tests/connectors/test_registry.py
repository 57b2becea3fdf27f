"""Connectors by name: entry points, module:Class, file.py:Class, and arguments from text."""

from __future__ import annotations

import enum
import pickle
import sys
import traceback
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Dict, List, Literal, Optional, Union  # noqa: UP035

import pytest

from contextframe_beam.connectors import (
    BaseConnector,
    BatchConnector,
    IncrementalConnector,
    PaginatedConnector,
    StreamingConnector,
)
from contextframe_beam.connectors.registry import (
    Parameter,
    argument_help,
    build_connector,
    connector_parameters,
    list_connectors,
    load_connector_class,
    sync_parameters,
)
from contextframe_beam.errors import ConfigError
from tests.support.cli_helpers import run_code

CONNECTOR = '''
"""A module of connectors."""
from dataclasses import dataclass
from contextframe_beam.connectors.base import BaseConnector

@dataclass
class Rule:
    word: str

class WikiConnector(BaseConnector):
    """Reads a wiki.

    More about it.
    """
    def __init__(self, space: str, rule: Rule | None = None):
        super().__init__()
        self.space = space
        self.rule = rule

    class Inner(BaseConnector):
        pass

    def fail(self):
        raise ValueError("here")

not_a_connector = 1
'''


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Installs a distribution that registers connectors."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def install(distribution: str, entries: dict[str, str], **modules: str) -> None:
        info = tmp_path / f"{distribution.replace('-', '_')}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.2\n"
        )
        lines = "\n".join(f"{name} = {value}" for name, value in entries.items())
        (info / "entry_points.txt").write_text(f"[contextframe.connectors]\n{lines}\n")
        for name, text in modules.items():
            (tmp_path / f"{name}.py").write_text(text)
            monkeypatch.delitem(sys.modules, name, raising=False)

    return install


@pytest.fixture
def wiki_file(tmp_path):
    path = tmp_path / "my wiki.py"
    path.write_text(CONNECTOR)
    return path


def test_a_registered_connector_is_found_by_its_name(install):
    install("wiki-plugin", {"wiki": "wiki_module:WikiConnector"}, wiki_module=CONNECTOR)
    cls = load_connector_class("wiki")
    assert cls.__module__ == "wiki_module"
    assert cls("s").name == "wiki"
    (info,) = [one for one in list_connectors() if one.name == "wiki"]
    assert (info.class_path, info.distribution, info.version) == (
        "wiki_module:WikiConnector",
        "wiki-plugin",
        "1.2",
    )
    assert info.summary == "Reads a wiki." and info.error == ""


def test_an_unknown_name_gets_the_nearest_and_all_there_are(install):
    install("wiki-plugin", {"wiki": "wiki_module:WikiConnector"}, wiki_module=CONNECTOR)
    with pytest.raises(ConfigError, match=r"no connector 'wikki'; did you mean wiki\?.*wiki"):
        load_connector_class("wikki")
    with pytest.raises(ConfigError, match=r"path/to/file\.py:Class"):
        load_connector_class("")


def test_a_broken_plug_in_is_reported_with_its_package_and_harms_no_other(install):
    install("good-plugin", {"good": "good_module:WikiConnector"}, good_module=CONNECTOR)
    install("bad-plugin", {"bad": "bad_module:X"}, bad_module="import surely_not_installed")
    install("odd-plugin", {"odd": "odd_module:X"}, odd_module="X = 1")
    assert load_connector_class("good")
    errors = {one.name: one.error for one in list_connectors()}
    assert errors["good"] == ""
    assert "bad-plugin 1.2" in errors["bad"] and "surely_not_installed" in errors["bad"]
    assert "not a connector" in errors["odd"]
    with pytest.raises(ConfigError, match=r"bad-plugin 1\.2"):
        load_connector_class("bad")


def test_two_packages_of_one_name_are_told_apart(install):
    install("one-plugin", {"same": "first_module:WikiConnector"}, first_module=CONNECTOR)
    install("two-plugin", {"same": "second_module:WikiConnector"}, second_module=CONNECTOR)
    with pytest.raises(ConfigError, match=r"more than once, by .*(one|two)-plugin"):
        load_connector_class("same")


def test_a_class_of_a_module(install):
    install("any", {}, some_module=CONNECTOR, failing_module="import surely_not_installed")
    assert load_connector_class("some_module:WikiConnector").__name__ == "WikiConnector"
    assert load_connector_class("some_module:WikiConnector.Inner").__name__ == "Inner"
    for spec, message in {
        "some_module:WikiConector": r"no class 'WikiConector'; did you mean WikiConnector\?",
        "some_module:not_a_connector": "derive it from BaseConnector",
        "some_module:Rule": "derive it from BaseConnector",
        "some_module:": "say which class.*some_module:WikiConnector",
        "missing_module:X": "no module 'missing_module'; install",
        "some_module.deeper:X": "no module 'some_module.deeper'",
        "failing_module:X": "importing failing_module failed.*surely_not_installed",
    }.items():
        with pytest.raises(ConfigError, match=message):
            load_connector_class(spec)


def test_a_class_of_a_file(wiki_file, monkeypatch):
    cls = load_connector_class(f"{wiki_file}:WikiConnector")
    monkeypatch.chdir(wiki_file.parent)
    assert load_connector_class("my wiki.py:WikiConnector") is cls
    connector = cls("s")
    assert connector.source_identity()["connector"] == "my wiki.py:WikiConnector"
    assert connector.name == "WikiConnector"
    assert sys.modules[cls.__module__].__file__ == str(wiki_file)


def test_a_changed_file_is_loaded_anew(wiki_file):
    before = load_connector_class(f"{wiki_file}:WikiConnector")
    wiki_file.write_text(CONNECTOR.replace("Reads a wiki.", "Reads two."))
    after = load_connector_class(f"{wiki_file}:WikiConnector")
    assert before is not after and after.__doc__.startswith("Reads two.")


def test_wrong_files_are_told(tmp_path, wiki_file):
    (tmp_path / "broken.py").write_text("def")
    (tmp_path / "raising.py").write_text("1 / 0")
    (tmp_path / "latin.py").write_bytes(b"x = '\xff'")
    for spec, message in {
        "missing.py:X": r"cannot read missing.py \(No such file",
        f"{tmp_path}/broken.py:X": "broken.py.*SyntaxError",
        f"{tmp_path}/raising.py:X": "raising.py: ZeroDivisionError",
        f"{tmp_path}/latin.py:X": "not a Python file",
        f"{wiki_file}": "say which class.*WikiConnector",
        f"{wiki_file}:WikiConector": "no class .WikiConector.; did you mean",
    }.items():
        with pytest.raises(ConfigError, match=message):
            load_connector_class(spec)


@pytest.mark.parametrize("pickler", ["pickle", "apache_beam.internal.pickler"])
def test_a_connector_of_a_file_reaches_a_worker_that_has_no_such_file(wiki_file, pickler):
    cls = load_connector_class(f"{wiki_file}:WikiConnector")
    rule = sys.modules[cls.__module__].Rule("w")
    module = __import__(pickler, fromlist=["dumps"])
    data = module.dumps({"first": cls("s", rule=rule), "second": cls("t", rule)})
    name = cls.__module__
    wiki_file.unlink()
    check = f"""
import sys, traceback
from {pickler} import loads
data = loads(sys.stdin.read().encode("latin-1"))
first, second = data["first"], data["second"]
assert type(first) is type(second) and type(first).__module__ == {name!r}
assert first.space == "s" and second.rule.word == "w" and type(first.rule) is type(second.rule)
try:
    first.fail()
except ValueError:
    assert 'raise ValueError("here")' in traceback.format_exc()
print(first.source_id())
"""
    assert run_code(check, told=data.decode("latin-1")).out == cls("s", rule).source_id() + "\n"
    assert type(pickle.loads(pickle.dumps(cls("s")))) is cls


def test_tracebacks_show_the_lines_of_the_file(wiki_file):
    connector = load_connector_class(f"{wiki_file}:WikiConnector")("s")
    try:
        connector.fail()
    except ValueError:
        assert 'raise ValueError("here")' in traceback.format_exc()


class Colour(enum.Enum):
    RED = "r"
    BLUE = "b"


class Everything(BaseConnector):
    """Takes all that a command line can give.

    Args:
        directory: Where the files are, as a path
            that may go on in a second line.
        mode (str): How.
        **extra: Not an argument.
    """

    def __init__(
        self,
        directory: Path,
        count: int = 1,
        ratio: float = 0.5,
        recursive: bool = False,
        names: list[str] = (),  # type: ignore[assignment]
        numbers: Optional[List[int]] = None,  # noqa: UP006, UP045
        options: Optional[Dict[str, Any]] = None,  # noqa: UP006, UP045
        mode: Literal["a", "b", 3] = "a",
        colour: Colour = Colour.RED,
        day: date | None = None,
        when: datetime | None = None,
        price: Decimal | None = None,
        either: Union[int, str] = 0,  # noqa: UP007
        pair: tuple[int, str] = (0, ""),
        anything: Any = None,
        untyped=True,
        unknown: "Missing" = None,  # type: ignore[name-defined]  # noqa: F821, UP037
        api_key: str | None = None,
        handler: object | None = None,
    ):
        """Makes it.

        Args:
            count: How many.
        """
        super().__init__()
        self.values = {k: v for k, v in locals().items() if k not in ("self", "__class__")}


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("directory", "/a/b", Path("/a/b")),
        ("count", "12", 12),
        ("ratio", "1e3", 1000.0),
        ("recursive", "yes", True),
        ("recursive", "False", False),
        ("names", "a, b", ["a", "b"]),
        ("names", '["a,b", "c"]', ["a,b", "c"]),
        ("names", ["a,b", "c"], ["a,b", "c"]),
        ("names", "", []),
        ("numbers", "1,2", [1, 2]),
        ("numbers", ["1", "2"], [1, 2]),
        ("options", '{"a": [1]}', {"a": [1]}),
        ("options", "null", None),
        ("mode", "b", "b"),
        ("mode", "3", 3),
        ("colour", "BLUE", Colour.BLUE),
        ("colour", "b", Colour.BLUE),
        ("day", "2024-01-02", date(2024, 1, 2)),
        ("day", "", None),
        ("when", "2024-01-02T03:04:05", datetime(2024, 1, 2, 3, 4, 5)),
        ("price", "1.10", Decimal("1.10")),
        ("either", "5", 5),
        ("either", "five", "five"),
        ("pair", "5,x", (5, "x")),
        ("anything", "text", "text"),
        ("anything", '{"a": 1}', {"a": 1}),
        ("untyped", "no", False),
        ("api_key", "none", "none"),
        ("count", 7, 7),
        ("options", {"a": 1}, {"a": 1}),
    ],
)
def test_text_becomes_what_the_annotation_says(name, text, value):
    connector = build_connector(Everything, {"directory": "d", name: text})
    assert connector.values[name] == value  # type: ignore[attr-defined]
    assert type(connector.values[name]) is type(value)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("count", "many", "count of the connector Everything: 'many' is not a whole number"),
        ("recursive", "perhaps", "'perhaps' is not true or false"),
        ("options", "[1]", 'is not a JSON object such as {"key": "value"}'),
        ("options", "{", r"'{' is not JSON"),
        ("numbers", "1,x", "is not a whole number"),
        ("mode", "c", "'c' is not one of a, b, 3"),
        ("colour", "green", "is not one of RED, BLUE"),
        ("day", "tomorrow", "is not a date such as"),
        ("pair", "1", "holds 1 values instead of 2"),
        ("drectory", "x", "takes no argument 'drectory'; did you mean directory"),
    ],
)
def test_what_does_not_fit_is_told(name, text, message):
    with pytest.raises(ConfigError) as caught:
        build_connector(Everything, {"directory": "d", name: text})
    assert message in str(caught.value)


def test_a_missing_argument_and_a_refusing_constructor_are_wrong_usage():
    with pytest.raises(ConfigError, match="Everything needs directory"):
        build_connector(Everything, {})

    class Refusing(BaseConnector):
        def __init__(self, url: str):
            super().__init__()
            raise ValueError(f"{url} is no URL")

    with pytest.raises(ConfigError, match="Refusing: x is no URL"):
        build_connector(Refusing, {"url": "x"})


def test_references_to_secrets_stay_references(monkeypatch):
    monkeypatch.setenv("THE_COUNT", "5")
    connector = build_connector(
        Everything, {"directory": "d", "api_key": "env:THE_COUNT", "count": "env:THE_COUNT"}
    )
    assert "count='env:THE_COUNT'" in repr(connector)
    assert "api_key='env:THE_COUNT'" in repr(connector)


def test_the_value_of_a_secret_argument_is_not_in_the_message():
    class Numbered(BaseConnector):
        def __init__(self, token: int):
            super().__init__()

    with pytest.raises(ConfigError) as caught:
        build_connector(Numbered, {"token": "not-a-number"})
    assert "not-a-number" not in str(caught.value)


def test_parameters_are_described():
    found = {one.name: one for one in connector_parameters(Everything)}
    assert found["directory"] == Parameter(
        name="directory",
        annotation=Path,
        default=None,
        required=True,
        help="Where the files are, as a path that may go on in a second line.",
        secret=False,
    )
    assert found["count"].help == "How many."
    assert found["mode"].help == "How."
    assert found["ratio"].help == "" and found["ratio"].default == 0.5
    assert found["directory"].required and not found["count"].required
    assert found["api_key"].secret and not found["mode"].secret


def test_an_unresolvable_annotation_does_not_spoil_the_others():
    found = {one.name: one for one in connector_parameters(Everything)}
    assert found["count"].annotation is int
    assert found["unknown"].annotation is Any


class Base(BaseConnector):
    """A base.

    Args:
        url: Where.
    """

    def __init__(self, url: str, timeout: int = 30):
        super().__init__()
        self.url, self.timeout = url, timeout


class Derived(Base):
    def __init__(self, space: str, **kwargs: Any):
        super().__init__(**kwargs)
        self.space = space


class Open(BaseConnector):
    """The page's: keeps whatever it is given."""

    def __init__(self, **kwargs: Any):
        super().__init__()
        self.given = kwargs


class Plain(BaseConnector):
    pass


def test_arguments_passed_on_to_a_base_class_are_known():
    assert [one.name for one in connector_parameters(Derived)] == ["space", "url", "timeout"]
    connector = build_connector(Derived, {"url": "u", "space": "s", "timeout": "5"})
    assert connector.timeout == 5  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match=r"'timeot'; did you mean timeout\?"):
        build_connector(Derived, {"url": "u", "space": "s", "timeot": "5"})


def test_a_class_that_takes_any_name_gets_any_name():
    assert build_connector(Open, {"test_mode": "x"}).given == {"test_mode": "x"}  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match=r"takes no argument 'x' \(there are none\)"):
        build_connector(Plain, {"x": "1"})


class Reader(BaseConnector):
    def sync_documents(self, pattern: str = "*.json", params: dict[str, Any] | None = None):
        """Reads.

        Args:
            pattern: Which files.
        """
        return []


class Streamer(StreamingConnector):
    def sync_documents_stream(self, since: date | None = None, **kwargs: Any):
        yield {}


class Pages(PaginatedConnector):
    def partitions(self, folder: str = "all"):
        return [folder]


class Changes(IncrementalConnector):
    pass


@pytest.mark.parametrize(
    ("cls", "names"),
    [
        (Reader, ["pattern", "params"]),
        (Streamer, ["since"]),
        (Pages, ["folder"]),
        (BatchConnector, ["total_items"]),
        (Changes, []),
        (Plain, []),
    ],
)
def test_what_reading_takes_is_found_where_it_is_written(cls, names):
    assert [one.name for one in sync_parameters(cls)] == names


def test_reading_arguments_are_described():
    pattern, params = sync_parameters(Reader)
    assert pattern.help == "Which files." and pattern.annotation is str
    assert params.default is None and not params.required


def test_help_is_read_from_google_style_docstrings():
    text = """Reads.

    Arguments:
        a: One: with a colon.

            And a paragraph.
        b (int, optional): Two.

    Returns:
        c: Nothing.
    """
    assert argument_help(__import__("inspect").cleandoc(text)) == {
        "a": "One: with a colon. And a paragraph.",
        "b": "Two.",
    }
    assert argument_help("No arguments.") == {}
