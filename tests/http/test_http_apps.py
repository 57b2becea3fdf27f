"""GitHub Apps, refresh tokens that rotate, and tokens that end in the middle of a run."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from contextframe_beam.connectors.http import HttpClient, HttpError, HttpRequest
from contextframe_beam.connectors.http.tokens import Token
from contextframe_beam.errors import ConfigError
from tests.http.test_http_auth import API, behave, client, directories, refusal
from tests.http.test_http_renewal import refreshing
from tests.support.http_fixture import HttpServer

__all__ = ["directories"]

TOKENS = "/app/installations/7/access_tokens"


@pytest.fixture(scope="module")
def key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


@pytest.fixture
def auth(key, server, tmp_path) -> dict[str, Any]:
    """The settings of an app that the server knows, with its key in a file."""
    file = tmp_path / "app.pem"
    file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )
    )
    register(server, key)
    return {"type": "github_app", "app_id": 1234, "private_key": f"file:{file}"}


def register(server: HttpServer, key: rsa.RSAPrivateKey, **behaviour: Any) -> None:
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    told = {"key": public.decode(), "id": "1234", **behaviour}
    with HttpClient(server.url) as http:
        http.send(HttpRequest("PUT", "/app/installations", json=told))


def test_the_only_installation_of_an_app_is_found(server, auth):
    with client(server, auth) as http:
        assert [http.send(API).status for _ in range(3)] == [200] * 3
    assert server.count(TOKENS) == 1


def test_a_named_installation_is_not_looked_for(server, auth, key):
    register(server, key, installations=[5, 7])
    with client(server, {**auth, "installation_id": 7}) as http:
        assert http.send(API).status == 200
    assert [one["method"] for one in server.requests("/app/installations")] == ["PUT", "PUT"]


def test_of_several_installations_one_must_be_named(server, auth, key):
    register(server, key, installations=[5, 7])
    told = refusal(server, auth, "give installation_id", ConfigError)
    assert "5 (acme-5), 7 (acme-7)" in told


def test_an_app_that_is_installed_nowhere_says_so(server, auth, key):
    register(server, key, installations=[])
    refusal(server, auth, "none yet; install it", ConfigError)


def test_below_an_enterprise_address_the_app_is_asked_for_there(server, auth):
    http = HttpClient.from_config(f"{server.url}/api/v3", auth=auth)
    with http, pytest.raises(HttpError, match="404"):
        http.send(API)
    assert server.count("/api/v3/app/installations") == 1


@pytest.mark.parametrize(
    ("change", "advice"),
    [
        ({"app_id": "4321"}, "check app_id and private_key"),
        ({"installation_id": 9}, "check instal"),
    ],
)
def test_a_wrong_setting_is_named(server, auth, change, advice):
    told = refusal(server, {**auth, **change}, advice, HttpError)
    assert "PRIVATE" not in told


def test_a_key_of_another_kind_is_refused_without_showing_it(server, auth, tmp_path):
    (tmp_path / "app.pem").write_text("-----BEGIN NONSENSE-----\nhush-hush-hush\n")
    told = refusal(server, auth, "not an RSA private key", ConfigError)
    assert "hush" not in told


def test_a_key_in_a_variable_may_have_its_lines_escaped(server, auth, tmp_path, monkeypatch):
    text = (tmp_path / "app.pem").read_text().strip()
    monkeypatch.setenv("APP_KEY", text.replace("\n", "\\n"))
    with client(server, {**auth, "private_key": "env:APP_KEY"}) as http:
        assert http.send(API).status == 200


def test_a_token_that_ends_in_mid_run_is_renewed_once_for_all_that_wait(server, auth):
    asked = [HttpRequest("GET", "/oauth/api", params={"uses": 20}) for _ in range(50)]
    with client(server, auth) as http:
        answers = http.all(asked, at_once=8)
    assert len(answers) == 50 and server.count(TOKENS) == 3
    assert {answer.status for answer in answers} == {200}


def test_a_token_of_few_requests_serves_many_that_are_open_at_once(server, auth):
    """A request may find its renewed token used up by others, and waits for the next one."""
    asked = [HttpRequest("GET", "/oauth/api", params={"uses": 3}) for _ in range(60)]
    with client(server, auth) as http:
        assert len(http.all(asked, at_once=16)) == 60


def test_a_token_of_a_short_life_is_renewed_before_it_ends(server, auth, key):
    """One that has ended already when it comes, by our clock, is used until it is refused."""
    register(server, key, lifetime=0)
    with client(server, auth) as http:
        assert [http.send(API).status for _ in range(3)] == [200] * 3
    assert server.count(TOKENS) == 1


@pytest.mark.parametrize(
    "until",
    ["2999-01-01T00:00:00Z", "2999-01-01T00:00:00.123+02:00", 32472144000, "32472144000000"],
)
def test_the_end_of_a_token_is_read_in_any_form(until):
    token = Token.of({"access_token": "installation-t0ken", "expires_at": until})
    assert token.renew_at is not None and token.renew_at > 3e10 and token.fresh


def test_the_end_of_a_token_in_the_past_is_known(server):
    assert not Token.of({"access_token": "installation-t0ken", "expires_at": "2001-01-01"}).fresh


def rotating(file: Path, **change: Any) -> dict[str, Any]:
    return {**refreshing(file), "rotates": True, **change}


def test_a_refresh_token_that_rotates_is_stored_in_its_place(server, tmp_path):
    behave(server, rotate=True)
    with client(server, rotating(tmp_path / "token")) as http:
        assert http.send(API).status == 200
    assert (tmp_path / "token").read_text() == "refresh-t0ken-1\n"


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ("env:REFRESH", "env:REFRESH cannot be written"),
        ("gcp-secret:projects/p/secrets/s", "cannot be written"),
        ("a-plain-refresh-token", "given as plain text"),
    ],
)
def test_a_place_that_cannot_be_written_is_refused_before_anything_is_sent(
    server, tmp_path, monkeypatch, given, problem
):
    monkeypatch.setenv("REFRESH", "refresh-t0ken-0")
    with pytest.raises(ConfigError, match=f"{problem}.*give file:PATH") as caught:
        client(server, rotating(tmp_path / "token", refresh_token=given))
    assert "a-plain" not in str(caught.value)
    assert server.count("/oauth/token") == 0


@pytest.mark.skipif(os.getuid() == 0, reason="root may write anywhere")
def test_a_file_in_a_directory_that_cannot_be_written_is_refused(server, tmp_path):
    folder = tmp_path / "mounted"
    folder.mkdir()
    settings = rotating(folder / "token")
    folder.chmod(0o500)
    refusal(server, settings, "this user cannot write to", ConfigError)
    assert server.count("/oauth/token") == 0


def test_settings_with_a_number_for_an_id_are_those_with_its_text(server, auth):
    assert json.dumps(auth["app_id"]) == "1234"
    with client(server, {**auth, "app_id": "1234", "installation_id": "7"}) as http:
        assert http.send(API).status == 200
