"""A manifest of Airbyte becomes the YAML of an API that reads the same records, or says why not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from contextframe_beam.connectors.api import APIConnector, check
from contextframe_beam.connectors.read.source import Source
from contextframe_beam.connectors.translate import Manifest, read_manifest, translate
from contextframe_beam.connectors.translate.jinja import (
    condition_of,
    duration_of,
    template_of,
)
from contextframe_beam.connectors.translate.values import Names, Untranslatable
from contextframe_beam.errors import ConfigError
from tests.support.cli_helpers import cli
from tests.support.small_server import Got, serving

SHOP = Path(__file__).with_name("shop.yaml")
LINES = [
    {"id": 1, "name": "pen", "count": 2, "price": 3, "internal": "x"},
    {"id": 2, "name": "ink", "count": 0, "price": 9, "internal": "y"},
    {"id": 3, "name": "pad", "count": 1, "price": 5, "kind": "a4"},
]


def shop(got: Got) -> Any:
    """A shop with two orders, on a page each, which have lines; one region is closed."""
    if got.path == "/v1/reports":
        region = got.query["region"]
        if region == "us":
            return 403, {}, {"error": "closed"}
        return {"data": {"items": [{"id": region, "mode": got.query["mode"]}]}}
    if got.path == "/v1/shops/main/orders":
        first = "after" not in got.query
        items = [{"id": "a" if first else "b", "changed": got.query["from"]}]
        return {"data": {"items": items}, "next": {"after": "2"} if first else {}}
    page = got.number("page", 1) - 1
    return LINES[2 * page : 2 * page + 2]


def read(connector: APIConnector, name: str) -> list[dict[str, Any]]:
    connector.authenticate()
    pages = Source(connector, {"only": [name]}).pages()
    found = [item for one in pages for item in one.items]
    return [{k: v for k, v in one.items() if k not in ("_resource", "_parent")} for one in found]


@pytest.fixture(scope="module")
def server():
    with serving(shop) as running:
        yield running


@pytest.fixture
def connector(server, monkeypatch) -> APIConnector:
    monkeypatch.setenv("SHOP_API_KEY", "sesame-42")
    (config,) = translate(read_manifest(SHOP), {"url": server.url}).configs
    start = {**config["settings"], "start_date": "2026-01-01"}
    return APIConnector(config={**config, "settings": start})


def test_the_configuration_reads_the_records_that_the_manifest_describes(connector):
    lines = sorted(read(connector, "lines"), key=lambda one: (one["order"], one["id"]))
    pen = {"id": 1, "name": "pen", "count": 2, "price": 3, "order": "a"}
    pad = {"id": 3, "name": "pad", "count": 1, "price": 5, "kind": "a4", "order": "a"}
    assert lines[:2] == [
        {**pen, "about": {"total": 6, "label": "PEN/none"}},
        {**pad, "about": {"total": 5, "label": "PAD/a4"}},
    ]
    assert [one["order"] for one in lines] == ["a", "a", "b", "b"]


def test_the_configuration_passes_the_check_of_an_api(connector):
    report = check(connector)
    assert {one.name: one.ok for one in report.resources} == {
        "orders": True,
        "lines": True,
        "reports": True,
    }


def test_lists_parameters_and_ignored_answers_are_those_of_the_manifest(connector, server):
    server.requests.clear()
    assert read(connector, "reports") == [{"id": "eu", "mode": "short"}]
    assert {one.query["region"] for one in server.requests} == {"eu", "us"}


def test_slices_of_time_are_asked_for_as_the_manifest_says(connector, server):
    server.requests.clear()
    read(connector, "orders")
    asked = [one.query for one in server.requests]
    assert {one["size"] for one in asked} == {"2"}
    assert min(one["from"] for one in asked) == "2026-01-01" and len(asked) > 2


def test_each_stream_that_is_left_out_is_named_with_its_cause_and_its_line():
    found = translate(read_manifest(SHOP))
    assert found.streams == ["orders", "lines", "reports"]
    lines = SHOP.read_text().splitlines()
    told = [str(one) for one in found.problems]
    assert told == [
        f"line {lines.index('      type: AsyncRetriever') + 1}: stream jobs: an asynchronous job "
        "(AsyncRetriever)",
        f"line {lines.index('          type: CustomRecordExtractor') + 1}: stream odd: a custom "
        "extractor (source_shop.components.Extractor)",
    ]


def test_settings_come_from_the_specification_and_secrets_become_references():
    found = translate(read_manifest(SHOP))
    (config,) = found.configs
    assert config["settings"] == {
        "api_key": "env:SHOP_API_KEY",
        "full": None,
        "shop": "main",
        "start_date": None,
        "url": None,
    }
    assert config["auth"]["prefix"] == "Token "
    assert set(found.needed) == {"url", "start_date"}


def test_a_parent_that_is_no_stream_of_its_own_is_read_and_not_stored(tmp_path):
    manifest = yaml.safe_load(SHOP.read_text())
    lines = manifest["streams"][1]
    odd = {**lines, "name": "odd", "transformations": [{"type": "CustomTransformation"}]}
    manifest["streams"] = [lines, odd]
    file = tmp_path / "shop.yaml"
    file.write_text(yaml.safe_dump(manifest))
    (config,) = translate(read_manifest(file)).configs
    assert [(one["name"], one.get("ingest", True)) for one in config["resources"]] == [
        ("orders", False),
        ("lines", True),
    ]


def test_a_stream_with_several_parents_is_read_for_each_of_them(tmp_path):
    manifest = yaml.safe_load(SHOP.read_text())
    lines = manifest["streams"][1]
    (parent,) = lines["retriever"]["partition_router"]["parent_stream_configs"]
    other = {"$ref": "#/definitions/orders", "name": "quotes", "$parameters": {"path": "quotes"}}
    lines["retriever"]["partition_router"]["parent_stream_configs"].append(
        {**parent, "stream": other}
    )
    manifest["streams"] = [lines]
    file = tmp_path / "shop.yaml"
    file.write_text(yaml.safe_dump(manifest))
    (config,) = translate(read_manifest(file)).configs
    below = {one["parent"]: one for one in config["resources"] if "parent" in one}
    assert set(below) == {"orders", "quotes"}
    assert {one["mapping"]["prefix"] for one in below.values()} == {"shop:lines#"}


def test_a_refresh_token_that_its_server_replaces_is_kept_in_a_file(tmp_path):
    manifest = yaml.safe_load(SHOP.read_text())
    manifest["definitions"]["requester"]["authenticator"] = {
        "type": "OAuthAuthenticator",
        "token_refresh_endpoint": "https://shop.example.com/token",
        "client_id": "{{ config['client'] }}",
        "client_secret": "{{ config['api_key'] }}",
        "refresh_token": "{{ config['credentials']['refresh_token'] }}",
        "refresh_token_updater": {"refresh_token_config_path": ["credentials", "refresh_token"]},
    }
    file = tmp_path / "shop.yaml"
    file.write_text(yaml.safe_dump(manifest))
    (config,) = translate(read_manifest(file)).configs
    assert config["auth"]["rotates"] is True
    assert config["settings"]["credentials"] == {"refresh_token": "file:shop-refresh_token"}
    assert config["settings"]["api_key"] == "env:SHOP_API_KEY"


def test_a_secret_in_plain_text_is_refused_and_not_repeated():
    with pytest.raises(ConfigError, match="api_key in the settings is a secret") as caught:
        translate(read_manifest(SHOP), {"api_key": "hunter2-plain"})
    assert "hunter2" not in str(caught.value)


def test_the_command_writes_the_file_and_says_what_is_missing(tmp_path):
    target = tmp_path / "shop.yaml"
    settings = tmp_path / "settings.yaml"
    settings.write_text("{url: 'http://127.0.0.1:1', api_key: 'env:KEY', start_date: 2026-01-01}")
    arguments = ("translate", "airbyte", "--manifest", SHOP, "--config", settings, "--to", target)
    done = cli(*arguments)
    assert done.code == 1
    assert "stream odd: a custom extractor" in done.err
    assert "3 of 5 streams were translated" in done.err
    written = yaml.safe_load(target.read_text())
    assert written["settings"]["start_date"] == "2026-01-01"
    assert APIConnector(config=target).source_name == "shop"
    assert "--force" in cli(*arguments).err
    assert cli(*arguments, "--force").code == 1


def test_a_source_with_several_servers_becomes_several_files(tmp_path):
    manifest = yaml.safe_load(SHOP.read_text())
    other = {**manifest["streams"][2], "name": "elsewhere"}
    requester = {**other["retriever"]["requester"], "url_base": "https://other.example.com/"}
    other["retriever"] = {**other["retriever"], "requester": requester}
    manifest["streams"] = [manifest["streams"][0], other]
    file = tmp_path / "two.yaml"
    file.write_text(yaml.safe_dump(manifest))
    done = cli("translate", "airbyte", "--manifest", file, "--to", tmp_path / "out.yaml")
    assert done.code == 0, done.err
    bases = [
        yaml.safe_load((tmp_path / name).read_text())["base_url"]
        for name in ("out.yaml", "out-2.yaml")
    ]
    assert bases == ["{settings.url}/v1/", "https://other.example.com/"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("streams: []\ndefinitions: {}", ""),
        ("- 1", "it has no list of streams"),
        ("dynamic_streams: []", "its streams are only known to its API"),
        ("streams: ['#/definitions/x']", "line 1: #/definitions/x refers to nothing"),
        ("streams: [{$ref: '#/streams/0'}]", "make a circle"),
        ("streams: [5]", "stream 1 is not a mapping"),
    ],
)
def test_a_file_that_is_no_manifest_is_refused(tmp_path, text, problem):
    file = tmp_path / "manifest.yaml"
    file.write_text(text)
    if not problem:
        assert isinstance(read_manifest(file), Manifest)
        return
    with pytest.raises(ConfigError) as caught:
        read_manifest(file)
    assert problem in str(caught.value)


REQUESTER = "url_base: 'https://x.example.com', path: a"


@pytest.mark.parametrize(
    ("stream", "cause"),
    [
        ("retriever: text", "a stream without an address"),
        (f"retriever: {{requester: {{{REQUESTER}, http_method: DELETE}}}}", "the method DELETE"),
        (f"retriever: {{requester: {{{REQUESTER}, request_parameters: [1]}}}}", "as one template"),
        (
            f"retriever: {{requester: {{{REQUESTER}, "
            "authenticator: {type: ApiKeyAuthenticator}}}",
            "a value that no manifest has",
        ),
        (
            f"retriever: {{requester: {{{REQUESTER}, error_handler: {{response_filters: "
            "[{action: IGNORE, http_codes: [x]}]}}}",
            "a value that no manifest has",
        ),
        (
            "retriever: {requester: {url_base: 'https://x.example.com', path: '{{ a.b( }}'}}",
            "Jinja",
        ),
        (
            f"retriever: {{requester: {{{REQUESTER}}}, partition_router: "
            "{type: ListPartitionRouter, cursor_field: c, values: 5}}",
            "refused by api",
        ),
    ],
)
def test_a_stream_with_nonsense_is_left_out_with_its_line(tmp_path, stream, cause):
    file = tmp_path / "manifest.yaml"
    file.write_text(f"streams:\n  - {{name: a, {stream}}}\n")
    found = translate(read_manifest(file))
    assert (found.configs, found.streams) == ([], [])
    (problem,) = map(str, found.problems)
    assert problem.startswith("line 2: stream a: ") and cause in problem


NAMES = Names(
    {"name": "orders", "size": 100},
    {"id": "parent.id", "start_time": "since", "cursor": "cursor"},
    {"record": "record", "response": "response", "headers": "headers"},
)
TEMPLATES = [
    ("plain", "plain"),
    ("{{ config['a'] }}", "{settings.a}"),
    ("{{ config.get('a', {}).get('b') }}/x", "{settings.a.b}/x"),
    ("{{ config['a b'] }}", "{= settings['a b'] }"),
    ("{{ config.get('a', 'b') }}", "{= default(settings.a, 'b') }"),
    ("{{ config['a'] or 'it\\'s' }}", "{= settings.a or 'it\\'s' }"),
    ("{{ parameters['name'] }}/{{ stream_slice.id }}", "orders/{parent.id}"),
    ("{{ parameters.size }}", 100),
    ("{{ parameters['none'] or 'x' }}", "x"),
    ("{{ 'a' if parameters.name == 'orders' else 'b' }}", "a"),
    ("{{ record.a[0]['x-y'] }}", "{= record.a.0['x-y'] }"),
    ("{{ record['items'][-1].id }}", "{= record.items[-1].id }"),
    (
        "{{ record.a + 1 if record.a is not none else 0 }}",
        "{= (record.a + 1) if (record.a != null) else 0 }",
    ),
    ("{{ record.a ~ '-' ~ record.b }}", "{= text(record.a, '-', record.b) }"),
    ("{{ now_utc().strftime('%Y-%m-%d') }}", "{= format_time(now, 'date') }"),
    (
        "{{ (now_utc() - duration('P1M')).isoformat() }}",
        "{= format_time(shift(now, '-30d'), 'iso') }",
    ),
    ("{{ today_utc() }}", "{= format_time(now, 'date') }"),
    ("{{ day_delta(-1, format='%Y') }}", "{= format_time(shift(now, '-1d'), '%Y') }"),
    ("{{ timestamp(stream_interval['start_time']) }}", "{= format_time(since, 'epoch') }"),
    (
        "{{ format_datetime(config.x, '%s') | int }}",
        "{= integer(format_time(settings.x, 'epoch')) }",
    ),
    ("{{ ','.join(config['a']) }}", "{= join(settings.a, ',') }"),
    ("{{ record.name.split(' ')[0] | lower }}", "{= lower(split(record.name, ' ')[0]) }"),
    ("{{ next_page_token['next_page_token'] or 0 }}", "{= cursor or 0 }"),
    (
        "{% if config.a %}x{% elif config.b %}y{% else %}z{% endif %}",
        "{= 'x' if settings.a else ('y' if settings.b else 'z') }",
    ),
    ("{% set u = config.a.split('/') %} {{ u[0] }}.com", "{= split(settings.a, '/')[0] }.com"),
    (
        "{{ {'a': 1, 'b': 2}[config.k] }}",
        "{= 1 if settings.k == 'a' else 2 if settings.k == 'b' else null }",
    ),
    ("{{ headers['X-Next'] }}", "{= headers['x-next'] }"),
    ('{{ record["text"] | string | length }}', "{= length(text(record.text)) }"),
]


@pytest.mark.parametrize(("jinja", "ours"), TEMPLATES, ids=[one for one, _ in TEMPLATES])
def test_a_template_becomes_a_placeholder(jinja, ours):
    assert template_of(jinja, NAMES) == ours


@pytest.mark.parametrize(
    ("jinja", "cause"),
    [
        ("{{ stream_state.x }}", "the name stream_state"),
        ("{{ stream_slice.other }}", "a value of the slice"),
        ("{{ record.a | regex_search('x') }}", "the filter regex_search"),
        ("{{ record.a.items() }}", "the method items"),
        ("{{ range(5) }}", "the function range"),
        ("{% for x in record.a %}{{ x }}{% endfor %}", "for in a template"),
        ("{{ {'a': record.b} }}", "an object in a template"),
        ("{{ record. }}", "a template that Jinja cannot read"),
        ("{{ headers['link']['prev'] }}", "a part of the header Link"),
    ],
)
def test_a_template_that_cannot_be_said_names_its_cause(jinja, cause):
    with pytest.raises(Untranslatable) as caught:
        template_of(jinja, NAMES)
    assert caught.value.cause.startswith(cause)


def test_conditions_are_expressions_or_known_now():
    assert condition_of("{{ record.a in ['x', 'y'] }}", NAMES) == "record.a in ['x', 'y']"
    assert condition_of("{{ not record.a }}", NAMES) == "not record.a"
    assert condition_of("{{ True }}", NAMES) is True
    assert condition_of("False", NAMES) is False


def test_durations_are_written_in_the_largest_unit_that_fits():
    found = [duration_of(one, NAMES) for one in ("P1D", "PT36H", "P1M", "P1Y", "PT90S", "P2W")]
    assert found == ["1d", "36h", "30d", "365d", "90s", "14d"]
    assert duration_of("P{{ config['days'] }}D", NAMES) == "{settings.days}d"
    with pytest.raises(Untranslatable):
        duration_of("soon", NAMES)
