"""Configurations of API sources: read, checked with lines and near names, and carried along."""

from __future__ import annotations

import inspect
import json
import pickle
from datetime import datetime, timezone
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contextframe_beam.connectors.api import APIConnector
from contextframe_beam.connectors.api.config import (
    PAGINATORS,
    ApiConfig,
    Incremental,
    paginator_of,
    setting_of,
)
from contextframe_beam.connectors.api.incremental import request_value, slices
from contextframe_beam.connectors.api.load import SCHEMA_FILE, load_config, schema_text
from contextframe_beam.connectors.api.mapping import ResourceMapper
from contextframe_beam.connectors.api.numbered import Offset
from contextframe_beam.connectors.cursors import newest_cursor, seconds_of
from contextframe_beam.connectors.http.auth import AUTH_TYPES
from contextframe_beam.errors import ConfigError

CRM = """
# A whole source.
name: crm
base_url: https://crm.example.com/api/v2
auth: {type: bearer, token: env:CRM_TOKEN}
budget: {per_second: 5, burst: 10}
cache: {ttl: 1h}
timeout: 30s
paginator: {type: page, size: 100, size_param: per_page}
resources:
  - name: contacts
    records: data.items
    params: {expand: owner}
    incremental: {field: updated_at, param: updated_since, start: 2024-01-01, lookback: 1h}
    filters:
      - {field: status, not_equals: deleted}
    mapping:
      title: name
      text: "# {name}\\n\\n{about}"
      timestamp: updated_at
      tags: labels
      relationships:
        - {type: reference, target: company.id, resource: companies}
      metadata: {author: owner.name, status: status}
  - name: companies
    paginator: auto
  - name: notes
    parent: contacts
    include: [name]
    path: /contacts/{parent.id}/notes
    paginator: link_header
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "crm.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_file_says_the_same_as_a_dict_and_as_arguments(tmp_path):
    path = written(tmp_path, CRM)
    from_file, values = load_config(path, {})
    assert from_file.resources[0].incremental.start == "2024-01-01"
    assert load_config(values, {})[0] == from_file
    assert load_config(None, values)[0] == from_file
    assert load_config(path, {"name": "other"})[0].name == "other"


def test_whatever_a_file_may_say_is_an_argument_as_well():
    arguments = set(inspect.signature(APIConnector).parameters)
    assert arguments == {*ApiConfig.model_fields, "api_key", "config"}


def test_json_is_yaml(tmp_path):
    file = written(tmp_path, json.dumps({"$schema": "x.json", "base_url": "https://a.example.com"}))
    assert load_config(file, {})[0].base_url == "https://a.example.com"


WRONG = [
    (
        "pagenator: auto",
        "line 2: pagenator is not a key that exists here; did you mean paginator",
    ),
    ("paginator: curser", "line 2: paginator is type 'curser'; did you mean cursor?"),
    ("paginator: {type: cursor}", "line 2: paginator.cursor is missing"),
    ("paginator:\n  size: 3", "line 2: paginator needs a type"),
    (
        "paginator:\n  type: page\n  size: ten",
        "line 4: paginator.size is 'ten'; it should be a whole number",
    ),
    ("paginator: {type: page, size: 0}", "line 2: paginator.size is 0; it should be greater"),
    ("paginator: {type: page, siz: 0}", "paginator.siz is not a key that exists here; did you m"),
    ("auth: {type: bearer, tokn: x}", "line 2: auth.tokn is not a key that exists here; did you"),
    ("auth: plain-text-token", "line 2: auth is a text; it should be a mapping of keys to values"),
    (
        "auth: {type: bearer, token: env:A, name: [x]}",
        "auth.name is a list; it should be text",
    ),
    (
        "auth:\n  type: session\n  login: {url: /login, jsn: {}}",
        "line 4: auth.login.jsn is not a key that exists here; did you mean json?",
    ),
    (
        "auth:\n  type: tokens\n  tokens: ['env:A']\n  budget: {per_hour: few}",
        "line 5: auth.budget.per_hour is a text; it should be a number",
    ),
    ("auth: {type: tokens, tokens: []}", "line 2: auth.tokens needs at least one token"),
    ("auth: {type: api_key, key: env:A, in: query}", "auth.in is 'query', so that auth needs name"),
    ("budget: {burst: 5}", "line 2: budget needs a limit: one of per_second, per_minute, per_hour"),
    ("paginator: cursor", "line 2: paginator.cursor is missing"),
    (
        "resources:\n- name: a\n  mapping: {id: {x: y}}",
        "line 4: resources[0].mapping.id is a mapping; it should be text or a list",
    ),
    ("auth: {type: barer}", "line 2: auth is type 'barer'; did you mean bearer?"),
    ("timeout: soon", "line 2: timeout is 'soon'; write a duration such as 90s, 12h or 30d"),
    ("resources:\n- nam: a", "line 3: resources[0].nam is not a key that exists here; did you me"),
    ("resources:\n- path: a", "line 3: resources[0].name is missing"),
    (
        "resources:\n- name: a\n  method: PSOT",
        "line 4: resources[0].method is 'PSOT'; did you mean POST? (there are: GET, POST, PUT)",
    ),
    (
        "resources:\n- name: a\n- name: b\n  parent: c",
        "line 5: resources[1].parent is 'c', which is not a resource",
    ),
    (
        "resources:\n- name: a\n- name: a",
        "line 4: resources[1].name is 'a', like that of another resource",
    ),
    (
        "resources:\n- name: a\n  parent: b\n- name: b\n  parent: a",
        "line 4: resources[0].parent makes a circle: a -> b -> a",
    ),
    ("resources:\n- name: a\n  path: /{parent.id}", "line 4: resources[0].path uses {parent...},"),
    ("resources:\n- name: a\n  params: {q: '{since}'}", "uses {since} or {until} without increm"),
    (
        "resources:\n- name: a\n  body: {}\n  form: {}",
        "line 5: resources[0].form a request has either a body or a form",
    ),
    (
        "resources:\n- name: a\n  mapping:\n    id: [1]\n    titel: x",
        "line 6: resources[0].mapping.titel is not a key that exists here; did you mean title?",
    ),
    ("resources:\n- name: a\n  filters: [{field: x}]", "filters[0] has no condition; give equals"),
    ("resources:\n- name: a\n  filters: [{field: x, matches: '('}]", "is not a regular expression"),
    (
        "resources:\n- name: a\n  incremental: {field: x, slice: 1d}",
        "line 4: resources[0].incremental.slice slices need a start",
    ),
    (
        "resources:\n- name: a\n  incremental: {field: x, slice: 1d, start: 2024-01-01}",
        "incremental.slice needs to tell the API its ends: set param and until_param",
    ),
    (
        "resources:\n- name: a\n  incremental: {field: x, format: isa}",
        "incremental.format is 'isa'; choose iso, date, epoch, epoch_ms, epoch_us, epoch_ns, "
        "number, or a pattern such as %Y-%m-%d; did you mean iso?",
    ),
    (
        "resources:\n- name: a\n  incremental: {field: x, field_format: '%d/%q'}",
        "incremental.field_format is '%d/%q': %q is not known in a pattern of times",
    ),
    (
        "resources:\n- name: a\n  incremental: {field: x, param: 'x y'}",
        "param is 'x y'; write a place such as page, header:X-Page, body:page or path:page",
    ),
    ("base_url: x", "line 2: the key 'base_url' is there a second time"),
    ("a: [1", "line 2, column 6: this is not YAML: expected ',' or ']'"),
]


@pytest.mark.parametrize(("text", "message"), WRONG)
def test_what_is_wrong_is_refused_with_line_key_and_the_nearest_name(tmp_path, text, message):
    path = written(tmp_path, f"base_url: https://a.example.com\n{text}")
    with pytest.raises(ConfigError) as error:
        APIConnector(config=path)
    assert message in str(error.value)
    assert str(path) in str(error.value)


def test_all_that_is_wrong_is_told_at_once(tmp_path):
    path = written(tmp_path, "pagenator: 1\nresources:\n- name: a\n  methd: GET\n- path: x\n")
    with pytest.raises(ConfigError) as error:
        APIConnector(config=path)
    assert [
        line.split(": ")[0].rpartition("line ")[2] for line in str(error.value).split("\n")
    ] == ["1"]
    path = written(tmp_path, "base_url: x\nresources:\n- name: a\n  methd: GET\n- path: x\n")
    with pytest.raises(ConfigError) as error:
        APIConnector(config=path)
    assert [
        line.split(": ")[0].rpartition("line ")[2] for line in str(error.value).split("\n")
    ] == [
        "4",
        "5",
    ]


def test_a_dict_is_refused_with_its_key():
    with pytest.raises(ConfigError, match=r"^resources\[0\].methd is not a key"):
        APIConnector("https://a.example.com", resources=[{"name": "a", "methd": "GET"}])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read (No such file or directory); give the path of a YAML file"),
        (b"", "is empty; it needs at least base_url"),
        (b"- a", "is not a mapping of keys to values"),
        (b"\xff\xfe\xfa", "is not UTF-8 text"),
    ],
)
def test_a_file_that_is_no_configuration(tmp_path, content, message):
    path = tmp_path / "crm.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError) as error:
        APIConnector(config=path)
    assert message in str(error.value)


def test_a_connector_needs_an_address_without_secrets():
    with pytest.raises(ConfigError, match="base_url is missing"):
        APIConnector()
    with pytest.raises(ConfigError, match=r"write it without user, query and fragment"):
        APIConnector("https://user:secret-word@a.example.com")
    with pytest.raises(ConfigError, match=r"only http:// and https:// are opened"):
        APIConnector("file:///etc/passwd")
    with pytest.raises(ConfigError, match="either api_key or auth"):
        APIConnector("https://a.example.com", "env:KEY", auth={"type": "bearer", "token": "env:K"})


# Secrets.


@pytest.mark.parametrize(
    "text",
    [
        "auth: {type: bearer, token: plain-text-token}",
        "auth: {type: basic, username: me, password: plain-text-token}",
        "headers: {X-Api-Key: plain-text-token}",
        "params: {api_key: plain-text-token}",
        "resources:\n- name: a\n  body: {deep: [{client_secret: plain-text-token}]}",
    ],
)
def test_a_secret_in_the_file_itself_is_refused_and_not_shown(tmp_path, text):
    path = written(tmp_path, f"base_url: https://a.example.com\n{text}\n")
    with pytest.raises(ConfigError, match=r"holds a secret in plain text; .* write env:NAME") as e:
        APIConnector(config=path)
    assert "plain-text-token" not in str(e.value)


def test_a_reference_stays_one(tmp_path, monkeypatch):
    monkeypatch.setenv("CRM_TOKEN", "very-secret-value")
    connector = APIConnector(config=written(tmp_path, CRM))
    for text in (repr(connector), pickle.dumps(connector).decode("latin-1")):
        assert "env:CRM_TOKEN" in text and "very-secret-value" not in text
    assert "CRM_TOKEN" not in json.dumps(connector.source_identity())


def test_the_file_stays_here_and_what_it_says_travels(tmp_path):
    path = written(tmp_path, CRM)
    connector = APIConnector(config=path)
    packed = pickle.dumps(connector)
    path.unlink()
    arrived = pickle.loads(packed)
    assert arrived.config == connector.config
    assert arrived.source_id() == connector.source_id()
    page_style = pickle.loads(pickle.dumps(APIConnector("https://a.example.com", "env:KEY")))
    assert page_style._auth_check == "https://a.example.com/api/v1/me"


# Which source it is.

CONTACTS: dict[str, Any] = {"name": "contacts", "path": "people", "params": {"kind": "c"}}


def identity_of(**settings: Any) -> str:
    resources = settings.pop("resources", [CONTACTS])
    return APIConnector("https://a.example.com", resources=resources, **settings).source_id()


def test_secrets_and_tuning_do_not_make_another_source():
    plain = identity_of()
    assert plain == identity_of(auth={"type": "bearer", "token": "env:A"}, retries=0, timeout=3)
    assert plain == identity_of(params={"api_key": "env:KEY"}, max_in_flight=2, paginator="page")
    assert plain == identity_of(
        resources=[CONTACTS | {"mapping": {"title": "x"}, "paginator": "auto"}],
        budget={"per_second": 1},
        cache={"ttl": 5},
    )


@pytest.mark.parametrize(
    "resource",
    [
        {"name": "people"},
        {"path": "others"},
        {"params": {"kind": "d"}},
        {"filters": [{"field": "a", "equals": 1}]},
        {"method": "POST"},
    ],
)
def test_what_is_asked_for_makes_another_source(resource):
    assert identity_of() != identity_of(resources=[CONTACTS | resource])


def test_a_named_source_stays_itself_when_resources_are_added():
    one = identity_of(name="crm")
    assert one == identity_of(name="crm", resources=[CONTACTS, {"name": "companies"}])
    assert one != identity_of(name="erp")


def test_another_endpoint_makes_another_source():
    page_style = APIConnector("https://a.example.com")
    assert page_style.source_id({"endpoint": "/api/v1/documents"}) == page_style.source_id()
    assert page_style.source_id({"endpoint": "/b"}) != page_style.source_id()


# The schema for editors.


def test_the_schema_that_is_shipped_is_that_of_the_code():
    assert SCHEMA_FILE.read_text(encoding="utf-8") == schema_text()


def test_the_schema_knows_every_key_type_and_setting():
    schema = json.loads(schema_text())
    assert set(schema["properties"]) == set(ApiConfig.model_fields)
    assert schema["additionalProperties"] is False and schema["required"] == ["base_url"]
    definitions = schema["$defs"]
    types = {one["properties"].get("type", {}).get("const") for one in definitions.values()}
    assert {*PAGINATORS, *AUTH_TYPES} <= types
    undescribed = [
        f"{name}.{key}"
        for name, one in definitions.items()
        for key, value in one["properties"].items()
        if "description" not in value
    ]
    assert undescribed == []


@pytest.mark.parametrize("name", PAGINATORS)
def test_a_paginator_is_its_setting(name):
    needed = {"cursor": "c", "header": "h", "link": "l", "param": "p", "page_info": "i"}
    fields = PAGINATORS[name].__dataclass_fields__
    setting = {"type": name, **{key: value for key, value in needed.items() if key in fields}}
    config, _ = load_config({"base_url": "x", "paginator": setting}, {})
    paginator = paginator_of(config.paginator)
    assert type(paginator) is PAGINATORS[name]
    assert paginator_of(setting_of(paginator)) == paginator
    assert pickle.loads(pickle.dumps(paginator)) == paginator


def test_a_setting_reaches_its_paginator():
    config, _ = load_config({"base_url": "x", "paginator": {"type": "offset", "size": 50}}, {})
    assert paginator_of(config.paginator) == Offset(size=50)


# Times.


@pytest.mark.parametrize(
    ("text", "seconds"), [(5, 5), (0.5, 0.5), ("90s", 90), ("2h", 7200), ("1w", 604800), ("7", 7)]
)
def test_a_duration(text, seconds):
    assert seconds_of(text) == seconds


@pytest.mark.parametrize(
    ("values", "known", "best"),
    [
        (["2026-01-02T00:00:00Z", "2026-01-02T01:00:00+02:00"], None, "2026-01-02T00:00:00Z"),
        (["2026-01-01", "2026-01-01T00:00:01.123456789Z"], None, "2026-01-01T00:00:01.123456789Z"),
        ([3, 10, 9.5], 4, 10),
        ([3], 4, 4),
        (["9", "10"], None, "10"),
        (["99"], "100", "100"),
        (["1.5", "1.25", 1], None, "1.5"),
        (["b", "a"], None, None),
        (
            ["Thu, 01 Jan 2026 10:00:00 GMT", "Wed, 31 Dec 2025 10:00:00 GMT"],
            None,
            "Thu, 01 Jan 2026 10:00:00 GMT",
        ),
        (["1/2/2026", "01/02/2026"], None, None),
        ([1767225600, "2026-01-01T00:00:01Z", 1767225599000], None, "2026-01-01T00:00:01Z"),
        ([99_999_999, 100_000_001, 100_000_000], 5, 100_000_001),
        (["4102444799", "4102444801"], None, "4102444801"),
        (["2026-01-01T10:00:00", "2026-01-01T11:00:00+02:00"], None, "2026-01-01T10:00:00"),
        (["N/A", "2026-01-01", "zzz"], None, "2026-01-01"),
        (["N/A"], "2026-01-01", "2026-01-01"),
        ([float("nan"), 3, float("nan")], None, 3),
        ([None, True, "", [1]], "a", "a"),
        ([5, "2026-01-01"], 4, 5),
        ([5, "2026-01-01"], None, "2026-01-01"),
        ([5], "2026-01-01", 5),
        ([], None, None),
    ],
)
def test_the_newest_value(values, known, best):
    assert newest_cursor([{"at": value} for value in values], "at", known) == best


@pytest.mark.parametrize(
    ("value", "settings", "expected"),
    [
        ("2026-01-02T00:00:00Z", {}, "2026-01-02T00:00:00Z"),
        (17, {}, 17),
        ("2026-01-02T00:00:00Z", {"lookback": "1h"}, "2026-01-01T23:00:00Z"),
        ("2026-01-02", {"lookback": "1d"}, "2026-01-01"),
        (1767312000, {"lookback": 60}, 1767311940),
        (1767312000000, {"lookback": 60}, 1767311940000),
        ("2026-01-02T00:00:00+02:00", {"format": "iso"}, "2026-01-01T22:00:00Z"),
        ("2026-01-02T00:00:00Z", {"format": "epoch_ms"}, 1767312000000),
        (1767312000, {"format": "date"}, "2026-01-02"),
        ("2026-01-02", {"format": "%d.%m.%Y %H:%M"}, "02.01.2026 00:00"),
    ],
)
def test_a_request_writes_a_value(value, settings, expected):
    assert request_value(value, Incremental(field="at", **settings)) == expected


def test_what_is_no_time_has_no_lookback():
    with pytest.raises(ConfigError, match="'abc' is not a time or a number"):
        request_value("abc", Incremental(field="at", lookback="1d"))


NOW = datetime(2026, 3, 1, tzinfo=timezone.utc)


@given(
    start=st.datetimes(datetime(2025, 6, 1), datetime(2026, 5, 1)),
    length=st.integers(43_200, 90 * 86_400),
)
def test_slices_cover_all_the_time_from_the_start_to_now(start, length):
    settings = Incremental(
        field="at", slice=f"{length}s", start=start.isoformat() + "Z", format="epoch"
    )
    found = list(slices(settings, settings.start, NOW))
    assert found[0].since == int(start.replace(tzinfo=timezone.utc).timestamp())
    assert found[-1].until >= int(NOW.timestamp())
    for one, following in pairwise(found):
        assert one.since < following.since < one.until <= following.until
    assert len({one.begin for one in found}) == len(found)


def test_slices_end_in_the_future_when_the_state_is_there():
    settings = Incremental(field="at", slice="1d", start="2027-01-01")
    assert [one.since for one in slices(settings, "2027-01-01", NOW)] == ["2027-01-01"]


def test_too_many_slices_are_refused():
    settings = Incremental(field="at", slice="1s", start="1970-01-01")
    with pytest.raises(ConfigError, match="are more than 100,000; make them longer"):
        list(slices(settings, "1970-01-01", NOW))


# From a record to a frame.


def mapped(item: dict[str, Any], **mapping: Any) -> Any:
    config, _ = load_config(
        {
            "base_url": "x",
            "resources": [{"name": "things", "mapping": mapping}, {"name": "people"}],
        },
        {},
    )
    prefixes = {"things": "crm:things#", "people": "crm:people#"}
    mapper = ResourceMapper(config.resources[0].mapping, "crm", "things", prefixes.__getitem__)
    return mapper.map(item)


def test_fields_become_what_the_mapping_says():
    item = {
        "key": 7,
        "name": "Seven",
        "about": "A number.",
        "changed": 1767312000,
        "labels": [{"name": "odd"}, {"name": "prime"}],
        "owner": {"name": "Ada", "id": 3},
        "linked": [{"id": 1}, {"id": 2}],
        "source": "theirs",
    }
    record = mapped(
        item,
        id="key",
        title="name",
        text="# {name}\n\n{about}",
        timestamp="changed",
        tags="labels",
        relationships=[
            {"type": "reference", "target": "linked"},
            {"type": "member_of", "target": "owner.id", "resource": "people"},
        ],
        metadata={"author": "owner.name", "source": "source"},
        constants={"kind": "number"},
    )
    assert record.unique_id == "crm:things#7"
    assert record.text_content == "# Seven\n\nA number."
    assert record.timestamp == "2026-01-02T00:00:00+00:00"
    assert record.metadata == {
        "author": "Ada",
        "source": "theirs",
        "kind": "number",
        "title": "Seven",
        "tags": ["odd", "prime"],
        "resource": "things",
        "relationships": [
            {"relationship_type": "reference", "target_id": "crm:things#1"},
            {"relationship_type": "reference", "target_id": "crm:things#2"},
            {"relationship_type": "member_of", "target_id": "crm:people#3"},
        ],
    }


def test_an_id_may_be_made_of_several_fields_or_of_none():
    assert mapped({"a": 1, "b": "x"}, id="{a}-{b}").unique_id == "crm:things#1-x"
    assert mapped({"a": 1, "content": "words"}, id="{a}-{b}").unique_id is None
    assert mapped({"a": 1, "b": "x"}, id=["c", "b"]).unique_id == "crm:things#x"
    assert mapped({"a": 1, "content": "words"}).unique_id is None
    assert mapped({"id": 0}).unique_id == "crm:things#0"


def test_a_prefix_of_ones_own():
    things = APIConnector(
        "https://a.example.com",
        name="crm",
        resources=[{"name": "things"}, {"name": "own", "mapping": {"prefix": "mine:"}}],
    )
    ids = [
        things.map_to_frame_record({"id": 5, "_resource": name}).unique_id
        for name in ("things", "own")
    ]
    assert ids == ["crm:things#5", "mine:5"]


def test_a_record_below_another_is_linked_to_it():
    record = mapped({"id": 1, "_parent": {"id": 9, "_unique_id": "crm:people#9"}})
    assert record.metadata["relationships"] == [
        {"relationship_type": "parent", "target_id": "crm:people#9"}
    ]
    assert "_parent" not in record.metadata
