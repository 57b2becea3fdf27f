"""References to secrets: what travels, what is resolved where, what is taken out of text."""

from __future__ import annotations

import base64
import copy
import json
import logging
import pickle
import subprocess
import sys
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st
from requests import Request
from requests.auth import HTTPBasicAuth

from contextframe_beam.connectors import secrets
from contextframe_beam.connectors.plain_secrets import looks_secret
from contextframe_beam.connectors.secrets import (
    RedactingFilter,
    SecretReference,
    is_reference,
    redact,
    referenced,
    resolve,
    resolved,
)
from contextframe_beam.errors import SecretError

VALUE = "s3cr/t+välue &1"


@pytest.fixture(autouse=True)
def only_our_secrets(monkeypatch):
    """Each test starts in a process that has used no secret yet."""
    monkeypatch.setattr(secrets, "_cache", {})
    monkeypatch.setattr(secrets, "_labels", {})
    monkeypatch.setattr(secrets, "_plain_forms", ())
    monkeypatch.setattr(secrets, "_base64_forms", ())


@pytest.fixture
def reference(monkeypatch):
    monkeypatch.setenv("API_KEY", VALUE)
    return SecretReference("env:API_KEY")


@pytest.mark.parametrize(
    "text", ["env:API_KEY", "file:/run/secrets/key", "file:key", "file:~/k e y"]
)
def test_these_are_references(text):
    assert is_reference(text)


@pytest.mark.parametrize(
    "text",
    [
        *("", "env:", "env:A B", "env:A=B", "environment:X", "https://host/env:X", None, 5),
        *("file:", "file:///data/x", "file://host/x", "file: see below", "file:a\nb"),
    ],
)
def test_these_are_not(text):
    assert not is_reference(text)


def test_a_variable_is_read_each_time(monkeypatch):
    monkeypatch.setenv("ROTATED", "first")
    assert resolve("env:ROTATED") == "first"
    monkeypatch.setenv("ROTATED", "second")
    assert resolve("env:ROTATED") == "second"


def test_a_missing_or_empty_variable_is_named(monkeypatch):
    monkeypatch.delenv("NOT_THERE", raising=False)
    with pytest.raises(SecretError, match="NOT_THERE is not set"):
        resolve("env:NOT_THERE")
    monkeypatch.setenv("NOT_THERE", "")
    with pytest.raises(SecretError, match="env:NOT_THERE is empty"):
        resolve("env:NOT_THERE")


@pytest.mark.parametrize("content", ["key", "key\n", "key\r\n"])
def test_a_file_loses_the_newline_at_its_end_and_nothing_else(tmp_path, content):
    path = tmp_path / "key"
    path.write_bytes(content.encode())
    assert resolve(f"file:{path}") == "key"
    path.write_bytes(b" k\n\n")
    secrets._cache.clear()
    assert resolve(f"file:{path}") == " k\n"


def test_a_rotated_file_is_read_again_after_a_while(tmp_path, monkeypatch):
    now = 1000.0
    monkeypatch.setattr(secrets.time, "monotonic", lambda: now)
    path = tmp_path / "key"
    path.write_text("old")
    assert resolve(f"file:{path}") == "old"
    path.write_text("new")
    assert resolve(f"file:{path}") == "old"
    now += secrets.CACHE_SECONDS
    assert resolve(f"file:{path}") == "new"


def test_an_unreadable_file_is_named(tmp_path):
    with pytest.raises(SecretError, match=r"missing \(No such file"):
        resolve(f"file:{tmp_path}/missing")
    with pytest.raises(SecretError, match="Is a directory"):
        resolve(f"file:{tmp_path}")
    (tmp_path / "latin").write_bytes(b"\xff\xfe")
    with pytest.raises(SecretError, match="not UTF-8"):
        resolve(f"file:{tmp_path}/latin")


def test_what_is_no_reference_is_refused():
    with pytest.raises(SecretError, match="env:NAME"):
        resolve("plain")


def test_a_reference_is_its_value_where_it_is_used_as_text(reference):
    assert f"Bearer {reference}" == f"Bearer {VALUE}"
    assert "Bearer " + reference == f"Bearer {VALUE}"
    assert reference + "!" == f"{VALUE}!"
    assert "Bearer %s" % reference == f"Bearer {VALUE}"  # noqa: UP031
    assert "{:>20}".format(reference) == f"{VALUE:>20}"  # noqa: UP032
    assert str(reference) == VALUE
    assert reference.encode() == VALUE.encode()
    assert reference.upper() == VALUE.upper()
    assert reference[:2] == "s3"
    assert "cr/t" in reference
    assert list(reference) == list(VALUE)
    assert reference.get() == VALUE


def test_requests_sends_the_value(reference):
    basic = Request("GET", "http://host/", auth=HTTPBasicAuth("user", "x")).prepare()
    secret = Request("GET", "http://host/", auth=HTTPBasicAuth("user", reference)).prepare()
    assert secret.headers["Authorization"] != basic.headers["Authorization"]
    encoded = secret.headers["Authorization"].removeprefix("Basic ")
    assert base64.b64decode(encoded) == f"user:{VALUE}".encode("latin-1")


def test_everything_else_sees_the_reference(reference):
    assert repr(reference) == "'env:API_KEY'"
    assert repr({"key": [reference]}) == "{'key': ['env:API_KEY']}"
    assert json.dumps({"key": reference}) == '{"key": "env:API_KEY"}'
    assert reference == "env:API_KEY" and hash(reference) == hash("env:API_KEY")
    for travelled in (pickle.loads(pickle.dumps(reference)), copy.deepcopy(reference)):
        assert type(travelled) is SecretReference and travelled.reference == "env:API_KEY"
    assert VALUE.encode() not in pickle.dumps(reference)


def test_references_inside_containers_are_found_and_resolved(reference):
    given_ = {"headers": {"X-Key": "env:API_KEY"}, "list": ["a", ("env:API_KEY",)], "n": 1}
    found = referenced(given_)
    assert type(found["headers"]["X-Key"]) is SecretReference
    assert type(found["list"][1][0]) is SecretReference
    assert resolved(found) == {"headers": {"X-Key": VALUE}, "list": ["a", (VALUE,)], "n": 1}
    plain = {"a": [1, {"b": "c"}]}
    assert referenced(plain) is plain


@pytest.mark.parametrize(
    "shape",
    [
        lambda value: f"key={value}&x",
        lambda value: f"https://host/?key={quote(value, safe='')}",
        lambda value: f"https://host/?key={quote_plus(value)}",
        lambda value: f"https://host/{quote(value).replace('%26', '%26'.lower())}",
        lambda value: json.dumps({"key": value}),
        lambda value: repr([value]),
        lambda value: "Basic " + base64.b64encode(f"user:{value}".encode()).decode(),
        lambda value: "Basic " + base64.b64encode(f"me:{value}".encode()).decode(),
        lambda value: "Basic " + base64.b64encode(f"you:{value}".encode()).decode(),
        lambda value: base64.urlsafe_b64encode(f"{value}:".encode()).decode(),
    ],
)
def test_a_used_value_is_taken_out_of_text_in_every_form(reference, shape):
    text = shape(VALUE)
    assert secrets.without_known(text) == text
    str(reference)
    redacted = redact(text)
    assert "env:API_KEY" in redacted
    assert "s3cr" not in redacted and "lue" not in redacted
    assert base64.b64encode(VALUE.encode()).decode()[4:12] not in redacted


@given(
    value=st.text(st.characters(exclude_categories=["Cs"]), min_size=4, max_size=30),
    user=st.text("abcdef", max_size=4),
    around=st.text("xyz ", max_size=5),
)
def test_no_value_of_four_characters_survives(value, user, around):
    secrets.register(value, "#")
    secrets.register("zzzz other zzzz", "#")
    if value not in "#":
        assert value not in redact(f"{around}{value}{around}")
    token = base64.b64encode(f"{user}:{value}".encode()).decode()
    if len(value.encode()) >= 8:
        assert token not in redact(f"Basic {token}")


def test_short_values_stay(monkeypatch):
    monkeypatch.setenv("SHORT", "abc")
    resolve("env:SHORT")
    assert redact("abcdef") == "abcdef"


def test_the_longest_secret_wins(monkeypatch):
    monkeypatch.setenv("LONG", "token-and-more")
    monkeypatch.setenv("INNER", "token")
    resolve("env:INNER")
    resolve("env:LONG")
    assert redact("token-and-more, token") == "env:LONG, env:INNER"


def test_old_secrets_are_forgotten_in_the_end(monkeypatch):
    monkeypatch.setattr(secrets, "MOST_REDACTED", 3)
    for number in range(5):
        secrets.register(f"secret-{number}", f"<{number}>")
    assert redact("secret-0 secret-4") == "secret-0 <4>"


def test_passwords_in_urls_are_taken_out_without_being_known():
    text = "GET https://me:pass@host/a@b?x=1 failed; https://host:80/a@b is fine"
    assert redact(text) == "GET https://me:***@host/a@b?x=1 failed; https://host:80/a@b is fine"


@pytest.mark.parametrize(
    "name",
    [
        "api_key",
        "apiKey",
        "token",
        "access_token",
        "password",
        "client_secret",
        "X-Api-Key",
        "key",
        "Authorization",
        "db_password",
        "tokens",
        "private_key",
        "credentials",
    ],
)
def test_names_that_look_secret(name):
    assert looks_secret(name)


@pytest.mark.parametrize(
    "name",
    [
        "keyword",
        "max_tokens",
        "page_token",
        "primary_key",
        "key_field",
        "token_url",
        "monkey",
        "directory",
        "secret_name",
        "author",
        "keys",
    ],
)
def test_names_that_do_not(name):
    assert not looks_secret(name)


def test_log_records_are_redacted_with_arguments_and_traceback(reference, caplog):
    logger = logging.getLogger("test_secrets.filtered")
    logger.addFilter(RedactingFilter())
    try:
        raise ValueError(f"refused {reference}")
    except ValueError:
        logger.exception("asked with %s and %d", VALUE, 7, stack_info=True)
    assert "asked with env:API_KEY and 7" in caplog.text
    assert "ValueError: refused env:API_KEY" in caplog.text
    assert VALUE not in caplog.text


def test_without_googles_client_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "google.cloud.secretmanager", None)
    with pytest.raises(SecretError, match=r"install contextframe-beam\[secrets\]"):
        resolve("gcp-secret:projects/p/secrets/s")


def test_connectors_without_secrets_or_pipelines_do_not_load_beam():
    code = """
import sys
from contextframe_beam.connectors import BaseConnector, FieldMapper, PaginatedConnector, redact
from contextframe_beam.connectors.registry import load_connector_class
assert "apache_beam" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
