"""`ingest api`, `check api` and `login` on a real server, through the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from contextframe_beam import FrameDataset
from tests.support.cli_helpers import cli
from tests.support.http_fixture import HttpServer

CONFIG = """\
base_url: {url}/api
name: crm
resources:
  - name: things
    path: pages
    params: {{n: 25}}
    paginator: page
"""


@pytest.fixture
def config(server: HttpServer, tmp_path: Path) -> Path:
    path = tmp_path / "crm.yaml"
    path.write_text(CONFIG.format(url=server.url))
    return path


def test_an_api_is_ingested_by_its_configuration(config, tmp_path):
    kb = tmp_path / "kb.lance"
    result = cli("ingest", "api", "--config", config, "--to", kb)
    assert result.code == 0, result.err
    assert len(FrameDataset.open(str(kb))) == 25


def test_a_check_reads_one_page_and_shows_how_it_maps(config, server):
    result = cli("check", "api", "--config", config)
    assert result.code == 0, result.err
    assert "connected" in result.out and "crm:things#0" in result.out
    assert server.count("/api/pages") == 1


def test_a_check_for_scripts_is_one_json_value(config):
    report = cli("check", "api", "--config", config, "--json").json
    assert report["ok"] is True
    assert [one["name"] for one in report["resources"]] == ["things"]


def test_a_check_that_finds_a_problem_says_so_and_fails(config):
    config.write_text(config.read_text().replace("path: pages", "path: nowhere"))
    result = cli("check", "api", "--config", config)
    assert result.code == 1
    assert "404" in result.out


def test_a_wrong_key_is_refused_with_its_line_and_the_nearest_name(config):
    config.write_text(config.read_text().replace("paginator:", "paginater:"))
    for command in (["check", "api"], ["ingest", "api", "--to", config.parent / "kb.lance"]):
        result = cli(*command, "--config", config)
        assert result.code == 2
        assert "line 7" in result.err and "paginater" in result.err and "paginator" in result.err


def test_a_login_that_needs_nobody_is_refused(config):
    config.write_text(config.read_text() + "auth: {type: bearer, token: 'env:CRM_TOKEN'}\n")
    result = cli("login", "--config", config)
    assert result.code == 2
    assert "bearer" in result.err


def test_a_device_login_leaves_the_token_in_its_reference(config, server, tmp_path):
    token = tmp_path / "token.json"
    config.write_text(
        config.read_text()
        + f"""auth:
  type: oauth2_device_code
  client_id: me
  device_url: {server.url}/oauth/device
  token_url: {server.url}/oauth/token
  token: file:{token}
"""
    )
    result = cli("login", "--config", config)
    assert result.code == 0, result.err
    assert f"in file:{token}" in result.out
    assert token.stat().st_mode & 0o077 == 0
    assert "dev1ce-code" not in result.out + result.err
