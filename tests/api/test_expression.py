"""Expressions compute values of JSON, say where they are wrong, and always end."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contextframe_beam.connectors.api.expression import ExpressionError, read, same
from contextframe_beam.connectors.api.functions import FUNCTIONS
from contextframe_beam.connectors.api.template import filled, paths_in
from contextframe_beam.connectors.secrets import SecretReference
from contextframe_beam.errors import ContextFrameError
from tests.support.laws import examples

KNOWN: dict[str, Any] = {
    "record": {
        "status": "open",
        "tags": ["a", "b"],
        "a name": {"in": 3},
        "n": 5,
        "day": "2026-01-31T10:20:30Z",
        "lines": [{"id": 1}, {"id": 2}],
        "price": "12.50",
    },
    "parent": {"id": "x/1", "owner.id": 4},
    "now": "2026-03-01T00:00:00Z",
}

VALUES: list[tuple[str, Any]] = [
    ("record.status == 'open' and length(record.tags) > 1", True),
    ("record['a name'].in * 2 + 1", 7),
    ("record.tags[-1] + record.status[1:3]", "bpe"),
    ("record.lines.id", [1, 2]),
    ("record.lines[1]['id']", 2),
    ("record.tags[7]", None),
    ("parent.owner.id", 4),
    ("'a' in record.tags and 'z' not in record.tags", True),
    ("'pe' in record.status", True),
    ("'status' in record", True),
    ("not record.none and record.n >= 5", True),
    ("record.none or record.n", 5),
    ("record.n if record.none else [1, 'x', null]", [1, "x", None]),
    ("1 if false else 2 if false else 3", 3),
    ("record.none + 'x'", None),
    ("record.none < 1 or 1 > record.none", False),
    ("1 == true", False),
    ("-record.n // 2 - 7 % 4 / 2", -4.5),
    ("2 + 3 * (4 - 1)", 11),
    ("'it\\'s' + \"\\n\"", "it's\n"),
    ("text(record.n, '-', record.tags)", '5-["a", "b"]'),
    ("text('a', record.none)", None),
    ("lower('ÄB') + upper('c') + trim('  d ') + trim('xex', 'x')", "äbCde"),
    ("replace('a-b-c', '-', '+')", "a+b+c"),
    ("split('a,b', ',')[1]", "b"),
    ("join(record.tags, '/')", "a/b"),
    ("starts_with(record.status, 'op') and ends_with(record.status, 'en')", True),
    ("length(record.none) + length('abc') + length(record)", 10),
    ("first(record.tags) + last(record.tags)", "ab"),
    ("default(record.none, 'x') + default('', 'y')", "x"),
    ("number(record.price) * 2", 25.0),
    ("integer('7') + integer(2.9)", 9),
    ("round(2.345, 2)", 2.35),
    ("round('2.6')", 3),
    ("max(1, record.none, 3) - min([4, 2])", 1),
    ("format_time(record.day, '%d.%m.%Y')", "31.01.2026"),
    ("format_time(record.day, 'epoch')", 1769854830),
    ("shift(now, '-1d')", "2026-02-28T00:00:00Z"),
    ("shift('2026-03-01', '12h')", "2026-03-01"),
    ("json(record.tags)", '["a", "b"]'),
    ("base64('a:b')", "YTpi"),
    ("hash('x', 'md5')", "9dd4e461268c8034f5c8564e155c67a6"),
    ("url_encode('a b/c')", "a%20b%2Fc"),
]


@pytest.mark.parametrize(("text", "value"), VALUES, ids=[one for one, _ in VALUES])
def test_an_expression_has_the_value_that_the_reference_says(text, value):
    found = read(text).value(KNOWN)
    assert same(found, value) and type(found) is type(value)


def test_every_function_is_among_the_examples():
    missing = [name for name in FUNCTIONS if not any(f"{name}(" in text for text, _ in VALUES)]
    assert missing == []


WRONG = [
    ("record.", "the name of a field is missing after the dot, at character 8"),
    ("(1 + ", "a value is missing at the end, at character 6"),
    ("splt('a', ',')", "there is no function 'splt'; did you mean split?, at character 1"),
    ("1 + split('a')", "split(text, separator) was given 1 value, at character 5"),
    ("a if b", "else is missing after if, at character 7"),
    ("1 2", "'2' was not expected, at character 3"),
    ("1 + 'abc", "a value is missing at the end, at character 5"),
    ("a not b", "in is missing after not, at character 7"),
    ("[1, 2", "']' is missing at the end, at character 6"),
    ("x" * 5000, "longer than 4,000 characters"),
    ("(" * 200 + "1" + ")" * 200, "too many parts inside each other"),
    ("not " * 200 + "1", "too many parts inside each other"),
    ("__import__('os')", "there is no function '__import__'"),
    ("record.n + 'x'", "+ does not take a number (5) and text (x)"),
    ("1 / 0", "a number is divided by 0, at character 3"),
    ("record.n < 'x'", "have no order"),
    ("1 + length(3)", "a number (3) has no length, at character 5"),
    ("number('x')", "text (x) is not a number"),
    ("shift(now, 'soon')", "is not a duration such as -30d or 12h"),
    ("format_time('1/2/2026', 'date')", "is not a time that can be read in only one way"),
    ("format_time(now, '%Q')", "is not the form of a time"),
    ("hash('x', 'crc')", "choose md5, sha1, sha256, sha512"),
    ("split('x', '')", "split needs a separator"),
    ("join('x')", "text (x) is not a list"),
    ("9000000000000000000 * 9", "larger than 64 bits"),
    ("integer(number('1e300') * number('1e300'))", "the number becomes too large"),
]


@pytest.mark.parametrize(("text", "problem"), WRONG, ids=[one[:20] for one, _ in WRONG])
def test_a_wrong_expression_says_what_is_wrong_and_where(text, problem):
    with pytest.raises(ExpressionError) as caught:
        read(text).value(KNOWN)
    assert problem in str(caught.value)


def test_an_expression_sees_no_attributes_of_python():
    known = {"record": {"x": "text"}}
    assert read("record.x.__class__").value(known) is None
    assert read("record['__class__'].__mro__").value(known) is None


def test_a_text_does_not_grow_without_limit():
    nested = "record.x"
    for _ in range(8):
        nested = f"replace({nested}, 'a', 'aaaaaaaaaaaaaaaaaaaa')"
    with pytest.raises(ExpressionError, match="longer than 1,000,000 characters"):
        read(nested).value({"record": {"x": "a" * 50}})


TOKENS = re.findall(
    r"\S+",
    "record.n 'a' 1 null ( ) [ ] , + - * // % < == in not and or if else .x "
    "lower( text( max( integer( round(",
)


@settings(max_examples=examples(300))
@given(
    st.lists(
        st.sampled_from(TOKENS),
        max_size=14,
    ),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda inner: st.lists(inner, max_size=3),
        max_leaves=5,
    ),
)
def test_whatever_is_written_gives_a_value_or_an_error_of_ours(parts, value):
    try:
        read(" ".join(parts)).value({"record": {"n": value}})
    except ContextFrameError as error:
        assert "at character" in str(error)


def test_a_text_that_is_one_placeholder_becomes_the_value_itself():
    asked = {
        "n": "{record.n}",
        "tags": "{= record.tags + ['c'] }",
        "text": "{record.n} of {= text(record.n, '}') }!",
        "query": "{ viewer { id } }",
        "missing": "{record.none}",
        "list": ["{record.none}", "{now}"],
    }
    assert filled(asked, KNOWN) == {
        "n": 5,
        "tags": ["a", "b", "c"],
        "text": "5 of 5}!",
        "query": "{ viewer { id } }",
        "list": ["2026-03-01T00:00:00Z"],
    }


def test_the_places_that_texts_read_are_known_before_they_are_filled():
    texts = {"a": "{parent.id}/{= parent['x y'].z or parent.n[0] }", "b": ["{since}"]}
    assert paths_in(texts) == {
        ("parent", "id"),
        ("parent", "x y", "z"),
        ("parent", "n"),
        ("since",),
    }


def test_a_placeholder_that_does_not_end_is_refused():
    with pytest.raises(ExpressionError, match="} is missing at its end"):
        filled("a{= 1 + 2", {})


def test_a_secret_is_handed_on_and_becomes_no_part_of_a_text(monkeypatch):
    monkeypatch.setenv("KEY_OF_TEST", "hunter22")
    known = {"settings": {"key": SecretReference("env:KEY_OF_TEST"), "other": None}}
    whole = filled("{= default(settings.other, settings.key) }", known)
    assert isinstance(whole, SecretReference) and whole.reference == "env:KEY_OF_TEST"
    for text in (
        "Token {settings.key}",
        "{= 'Token ' + settings.key }",
        "{= lower(settings.key) }",
        "{= settings.key[:2] }",
        "{= text(settings.key, 'x') }",
        "{= 'a' in settings.key }",
        "{= settings.key < 'b' }",
    ):
        with pytest.raises(ExpressionError, match="secret") as caught:
            filled(text, known)
        assert "hunter" not in str(caught.value)
