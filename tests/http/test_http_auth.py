"""Authentication against a real server: every type, renewal once for all, and logins of persons."""

from __future__ import annotations

import json
import threading
import time
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import keyring
import pyotp
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey, RSAKey
from keyring.backend import KeyringBackend
from keyring.backends.fail import Keyring as NoKeyring

from contextframe_beam.connectors import secrets
from contextframe_beam.connectors.api.load import config_schema
from contextframe_beam.connectors.http import HttpClient, HttpError, HttpRequest, auth_from_config
from contextframe_beam.connectors.http.auth import AUTH_TYPES
from contextframe_beam.connectors.http.login import login
from contextframe_beam.connectors.http.tokens import Token, read_token, write_token
from contextframe_beam.errors import ConfigError, ConnectorError, SecretError
from tests.support.cli_helpers import start_code
from tests.support.http_fixture import HttpServer

API = HttpRequest("GET", "/oauth/api")


@pytest.fixture(autouse=True)
def directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokens of their own for each test."""
    monkeypatch.setenv("CONTEXTFRAME_BEAM_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    keyring.set_keyring(NoKeyring())


def client(server: HttpServer, auth: dict[str, Any], **options: Any) -> HttpClient:
    return HttpClient.from_config(server.url, auth=auth, **{"backoff": 0.001, **options})


def refusal(
    server: HttpServer,
    auth: dict[str, Any],
    match: str,
    error: type[Exception] = ConnectorError,
    request: HttpRequest = API,
    **options: Any,
) -> str:
    """Sends a request that must fail so; returns the message."""
    http = client(server, auth, **options)
    with pytest.raises(error, match=match) as caught:
        http.send(request)
    http.close()
    return str(caught.value)


def behave(server: HttpServer, **settings: Any) -> dict[str, Any]:
    """Tells the token endpoint how to behave; returns what it gave out."""
    with HttpClient(server.url) as http:
        answer: dict[str, Any] = http.send(
            HttpRequest("POST", "/oauth/settings", json=settings)
        ).json()
    return answer


def guard(server: HttpServer, where: str, name: str, value: str) -> None:
    with HttpClient(server.url) as http:
        http.send(
            HttpRequest("POST", "/guarded", json={"where": where, "name": name, "value": value})
        )


def client_credentials(server: HttpServer, **more: Any) -> dict[str, Any]:
    return {
        "type": "oauth2_client_credentials",
        "token_url": "/oauth/token",
        "client_id": "me",
        "client_secret": "client-s3cret",
        **more,
    }


# Credentials that stay.


@pytest.mark.parametrize(
    ("auth", "where", "name", "value"),
    [
        ({"type": "api_key", "key": "k3y-text"}, "header", "X-API-Key", "k3y-text"),
        ({"type": "api_key", "key": "k3y-text", "name": "Api"}, "header", "Api", "k3y-text"),
        (
            {"type": "api_key", "key": "k3y-text", "name": "Authorization", "prefix": "Token "},
            "header",
            "Authorization",
            "Token k3y-text",
        ),
        (
            {"type": "api_key", "key": "k3y&te=xt", "in": "query", "name": "api_key"},
            "query",
            "api_key",
            "k3y&te=xt",
        ),
        ({"type": "api_key", "key": "k3y", "in": "cookie", "name": "sid"}, "cookie", "sid", "k3y"),
        ({"type": "bearer", "token": "b3arer"}, "header", "Authorization", "Bearer b3arer"),
        (
            {"type": "basic", "username": "ann", "password": "pä:ss"},
            "header",
            "Authorization",
            "Basic YW5uOnDDpDpzcw==",
        ),
    ],
)
def test_a_key_stands_where_the_server_wants_it(server, auth, where, name, value):
    guard(server, where, name, value)
    with client(server, auth) as http:
        assert http.send(HttpRequest("GET", "/guarded")).status == 200
        # A next link that repeats the key or carries an old one is put right.
        again = HttpRequest("GET", f"{server.url}/guarded?api_key=old&page=2")
        assert http.send(again).status == 200
        assert http.stats.requests == 2
    wrong = {**auth, "key": "0ther"} if "key" in auth else {"type": "bearer", "token": "0ther"}
    before = server.count("/guarded")
    asked = HttpRequest("GET", "/guarded")
    refusal(server, wrong, r"401 .*does not accept the credentials", HttpError, asked)
    assert server.count("/guarded") == before + 1


def test_a_key_at_a_reference_is_read_where_it_is_used(server, monkeypatch, tmp_path):
    guard(server, "header", "X-API-Key", "k3y-text")
    monkeypatch.setenv("KEY", "old-k3y")
    with client(server, {"type": "api_key", "key": "env:KEY"}) as http:
        monkeypatch.setenv("KEY", "k3y-text")
        assert http.send(HttpRequest("GET", "/guarded")).status == 200
    refusal(server, {"type": "api_key", "key": "env:NO_SUCH"}, "NO_SUCH is not set", SecretError)


# OAuth 2.


def test_client_credentials(server):
    for more in ({}, {"client_auth": "post"}, {"scope": ["read", "write"], "params": {"aud": "x"}}):
        with client(server, client_credentials(server, **more)) as http:
            assert http.send(API).status == 200
    *_, last = server.requests("/oauth/token")
    assert "scope=read+write" in last["body"] and "aud=x" in last["body"]
    assert last["headers"]["Authorization"].startswith("Basic ")


def test_a_token_is_asked_for_once_by_all_threads(server):
    behave(server, delay=0.05)
    with client(server, client_credentials(server)) as http, ThreadPoolExecutor(16) as pool:
        assert all(pool.map(lambda _: http.send(API).status == 200, range(64)))
    assert server.count("/oauth/token") == 1


def test_a_token_that_expires_in_mid_sequence_is_renewed_once(server):
    """Sixteen threads see the same token refused; one of them gets a new one."""
    behave(server, delay=0.02)
    request = HttpRequest("GET", "/oauth/api", params={"uses": 30})
    http = client(server, client_credentials(server), retries=0)
    with http, ThreadPoolExecutor(16) as pool:
        assert all(pool.map(lambda _: http.send(request).status == 200, range(60)))
    assert server.count("/oauth/token") == 2


def test_a_token_is_renewed_before_it_expires(server):
    behave(server, lifetime=0.001)
    with client(server, client_credentials(server)) as http:
        for _ in range(3):
            time.sleep(0.05)
            assert http.send(API).status == 200
    assert server.count("/oauth/token") == 3
    refused = [
        one for one in server.requests("/oauth/api") if "Authorization" not in one["headers"]
    ]
    assert server.count("/oauth/api") == 3 and not refused


WORKER = """
import json, sys
from concurrent.futures import ThreadPoolExecutor
from contextframe_beam.connectors.http import HttpClient, HttpRequest
url, auth, count, params = json.loads(sys.argv[1])
http = HttpClient.from_config(url, auth=auth, backoff=0.001)
request = HttpRequest("GET", "/oauth/api", params=params)
with ThreadPoolExecutor(8) as pool:
    print(sum(pool.map(lambda _: http.send(request).status == 200, range(count))))
"""


def run_workers(server: HttpServer, auth: dict[str, Any], count: int, **params: Any) -> int:
    arguments = json.dumps([server.url, auth, count, params])
    running = [start_code(WORKER, arguments) for _ in range(2)]
    return sum(int(one.communicate()[0]) for one in running)


def test_processes_share_one_token_and_one_renewal(server):
    behave(server, delay=0.05)
    assert run_workers(server, client_credentials(server), 40, uses=50) == 80
    assert server.count("/oauth/token") == 2


def test_a_rotating_refresh_token_is_stored_back(server, tmp_path):
    behave(server, rotate=True, lifetime=3600)
    file = tmp_path / "token"
    file.write_text("refresh-t0ken-0\n")
    file.chmod(0o600)
    auth = {
        "type": "oauth2_refresh_token",
        "token_url": "/oauth/token",
        "client_id": "me",
        "client_secret": "client-s3cret",
        "refresh_token": f"file:{file}",
    }
    assert run_workers(server, auth, 40, uses=50) == 80
    assert server.count("/oauth/token") == 2
    given = behave(server)["refresh"]
    assert given == "refresh-t0ken-2" and file.read_text() == f"{given}\n"
    assert file.stat().st_mode & 0o077 == 0
    # A later run goes on with it.
    with client(server, auth) as http:
        behave(server, access="another")
        assert http.send(API).status == 200
    assert file.read_text() == "refresh-t0ken-3\n"


def test_a_refresh_token_that_cannot_be_stored_back_is_kept_beside(server, monkeypatch, caplog):
    behave(server, rotate=True)
    monkeypatch.setenv("REFRESH", "refresh-t0ken-0")
    auth = {
        "type": "oauth2_refresh_token",
        "token_url": "/oauth/token",
        "client_id": "me",
        "refresh_token": "env:REFRESH",
    }
    for number in range(3):
        with client(server, auth) as http:
            assert http.send(API).status == 200
        behave(server, access=f"gone-{number}")
    assert server.count("/oauth/token") == 3
    assert "cannot be stored there" in caplog.text and "t0ken" not in caplog.text
    # Whoever puts a new one there means it.
    monkeypatch.setenv("REFRESH", "refresh-put-there")
    behave(server, refresh="refresh-put-there", rotate=False)
    with client(server, auth) as http:
        assert http.send(API).status == 200


def test_a_wrong_client_secret_is_told_once(server):
    http = client(server, client_credentials(server, client_secret="wr0ng-secret"))
    with http, ThreadPoolExecutor(8) as pool:
        errors = [pool.submit(http.send, API).exception() for _ in range(16)]
    assert server.count("/oauth/token") == 1 and server.count("/oauth/api") == 0
    for error in errors:
        assert isinstance(error, ConnectorError)
        assert "invalid_client" in str(error) and "check client_id, client_secret" in str(error)
        assert "wr0ng" not in str(error)


def test_a_revoked_refresh_token_says_to_log_in_again(server):
    auth = {
        "type": "oauth2_refresh_token",
        "token_url": "/oauth/token",
        "client_id": "me",
        "refresh_token": "revoked-t0ken",
    }
    refusal(server, auth, r"invalid_grant.*contextframe-beam login again")
    assert server.count("/oauth/token") == 1  # a refresh is not safe to repeat


def test_a_token_endpoint_that_answers_nonsense_is_told(server):
    behave(server, broken=True)
    refusal(server, client_credentials(server), r"oauth/token.*502", retries=1)
    assert server.count("/oauth/token") == 2  # client credentials may be asked for again
    refusal(server, client_credentials(server, token_url="/bad/html"), "/bad/html")


def test_a_token_that_is_refused_for_good_is_renewed_once_only(server):
    behave(server)
    asked = HttpRequest("GET", "/status/401")
    refusal(server, client_credentials(server), "answered 401", HttpError, asked)
    assert server.count("/status/401") == 2 and server.count("/oauth/token") == 2


def test_signed_client_authentication(server):
    key = rsa.generate_private_key(65537, 2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()
    auth = client_credentials(server, client_secret=pem, client_auth="private_key_jwt")
    with client(server, auth) as http:
        assert http.send(API).status == 200
    (request,) = server.requests("/oauth/token")
    form = urllib.parse.parse_qs(request["body"])
    assertion = form["client_assertion"][0]
    claims = jwt.decode(assertion, RSAKey.import_key(pem), ["RS256"]).claims
    assert claims["iss"] == "me" and claims["aud"] == f"{server.url}/oauth/token"
    wrong = {**auth, "client_secret": "n0t-a-key"}
    assert "n0t-a-key" not in refusal(server, wrong, "is not a key for RS256", ConfigError)


# JWTs and Google.


@pytest.mark.parametrize("algorithm", ["RS256", "PS256", "ES256", "HS256"])
def test_a_jwt_is_signed_and_exchanged(server, algorithm):
    if algorithm == "HS256":
        text, public = "a-shared-s3cret-of-some-length-and-more", None
        check: Any = OctKey.import_key(text)
    else:
        key: Any = (
            ec.generate_private_key(ec.SECP256R1())
            if algorithm == "ES256"
            else rsa.generate_private_key(65537, 2048)
        )
        text = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ).decode()
        public = (ECKey if algorithm == "ES256" else RSAKey).import_key(text)
        check = public
    auth = {
        "type": "jwt_bearer",
        "key": text,
        "algorithm": algorithm,
        "issuer": "me",
        "subject": "ann",
        "header": {"kid": "k1"},
        "claims": {"role": "reader"},
        "token_url": "/oauth/token",
        "scope": "read",
    }
    with client(server, auth) as http:
        assert http.send(API).status == 200
    (request,) = server.requests("/oauth/token")
    form = {name: values[0] for name, values in urllib.parse.parse_qs(request["body"]).items()}
    assert form["grant_type"].endswith("jwt-bearer") and form["scope"] == "read"
    signed = jwt.decode(form["assertion"], check, [algorithm])
    assert signed.header["kid"] == "k1"
    assert signed.claims["aud"] == f"{server.url}/oauth/token"
    assert (signed.claims["iss"], signed.claims["sub"]) == ("me", "ann")
    assert signed.claims["role"] == "reader" and signed.claims["exp"] > signed.claims["iat"]

    # Without a token_url it is sent itself.
    del auth["token_url"]
    with client(server, {**auth, "audience": "https://api.example.com"}) as http:
        sent = http.send(HttpRequest("GET", "/echo")).json()["headers"]["authorization"]
    claims = jwt.decode(sent.removeprefix("Bearer "), check, [algorithm]).claims
    assert claims["aud"] == "https://api.example.com"


def test_a_key_that_does_not_fit_is_told(server):
    auth = {"type": "jwt_bearer", "key": "n0t-a-key", "issuer": "me"}
    assert "n0t-a-key" not in refusal(server, auth, "signed with RS256", ConfigError)
    auth["algorithm"] = "XX256"
    assert "n0t-a-key" not in refusal(server, auth, "'XX256' is not known", ConfigError)


def service_account(server: HttpServer) -> dict[str, str]:
    key = rsa.generate_private_key(65537, 2048)
    return {
        "type": "service_account",
        "client_email": "robot@project.iam.gserviceaccount.com",
        "private_key_id": "1",
        "private_key": key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ).decode(),
        "token_uri": f"{server.url}/oauth/token",
    }


def test_google_service_accounts_and_default_credentials(server, tmp_path, monkeypatch):
    file = tmp_path / "account.json"
    file.write_text(json.dumps(service_account(server)))
    scopes = ["https://www.googleapis.com/auth/drive.readonly"]
    auth = {"type": "google", "credentials": f"file:{file}", "scopes": scopes}
    with client(server, {**auth, "quota_project": "payer"}) as http:
        assert http.send(API).status == 200
        behave(server, access="another")
        assert http.send(API).status == 200
    assert server.count("/oauth/token") == 2
    assert server.requests("/oauth/api")[0]["headers"]["X-Goog-User-Project"] == "payer"
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file))
    with client(server, {"type": "google", "scopes": scopes}) as http:
        assert http.send(API).status == 200
    # Another file is another account, whose token is another one.
    other = tmp_path / "other.json"
    other.write_text(json.dumps(service_account(server)))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(other))
    before = server.count("/oauth/token")
    with client(server, {"type": "google", "scopes": scopes}) as http:
        assert http.send(API).status == 200
    assert server.count("/oauth/token") == before + 1
    wrong = {**auth, "credentials": '{"a": 1}'}
    refusal(server, wrong, "neither the JSON key of a service account", ConfigError)


# Sessions.


SESSION: dict[str, Any] = {
    "type": "session",
    "login": {"url": "/login", "json": {"user": "ann", "password": "passw0rd-of-ann"}},
    "token_path": "data.token",
    "name": "X-Session",
}


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"token_header": "X-Session"},
        {"token_cookie": "sid", "in": "cookie", "name": "sid"},
        {"login": {"url": "/login", "form": {"user": "ann", "password": "passw0rd-of-ann"}}},
    ],
)
def test_a_session_is_begun_once_and_again_when_it_ends(server, change):
    request = HttpRequest("GET", "/session/api", params={"uses": 30})
    with client(server, {**SESSION, **change}) as http, ThreadPoolExecutor(8) as pool:
        assert all(pool.map(lambda _: http.send(request).status == 200, range(50)))
    assert server.count("/login") == 2


def test_a_session_with_one_time_codes(server):
    secret = "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP"
    login_request = {**SESSION["login"], "url": f"/login?otp={secret}"}
    for place in ({"code_field": "otp"}, {"code_header": "X-OTP"}):
        auth = {**SESSION, "login": login_request, "totp_secret": secret, **place}
        with client(server, auth) as http:
            assert http.send(HttpRequest("GET", "/session/api")).status == 200
    wrong = {**auth, "totp_secret": "n0t base32!"}
    assert "n0t base" not in refusal(server, wrong, "totp_secret is not base32", ConfigError)


def test_a_login_that_fails_says_so(server):
    wrong = {**SESSION["login"], "json": {"user": "ann", "password": "wr0ng-password"}}
    said = refusal(server, {**SESSION, "login": wrong}, r"POST .*/login.*403", HttpError)
    assert "wr0ng" not in said
    refusal(server, {**SESSION, "token_path": "token"}, "no token in it at token; set token_path")


# Logins of persons.


def browser(url: str) -> None:
    """Opens a page as a browser does, and follows it back."""

    def visit() -> None:
        with urllib.request.urlopen(url) as page:
            page.read()

    threading.Thread(target=visit, daemon=True).start()


def authorization_code(server: HttpServer, **more: Any) -> dict[str, Any]:
    return {
        "base_url": server.url,
        "auth": {
            "type": "oauth2_authorization_code",
            "authorize_url": "/oauth/authorize",
            "token_url": "/oauth/token",
            "client_id": "me",
            "scope": "read",
            **more,
        },
    }


def test_a_person_agrees_in_the_browser(server, tmp_path, caplog):
    config = authorization_code(server, token=f"file:{tmp_path}/tokens/crm.json")
    config["auth"]["authorize_params"] = {"prompt": "consent"}
    refusal(server, config["auth"], "run contextframe-beam login", SecretError)
    said: list[str] = []
    assert login(config, open_browser=browser, say=said.append) == config["auth"]["token"]
    asked = behave(server)["asked"]
    assert asked["code_challenge_method"] == "S256" and len(asked["code_challenge"]) == 43
    assert asked["prompt"] == "consent" and asked["scope"] == "read" and asked["state"]
    assert asked["redirect_uri"].startswith("http://127.0.0.1:")
    assert f"{server.url}/oauth/authorize?" in said[0]
    file = tmp_path / "tokens" / "crm.json"
    assert file.stat().st_mode & 0o077 == 0 and file.parent.stat().st_mode & 0o077 == 0
    # A worker goes on with what was left behind, and renews it.
    with client(server, config["auth"]) as http:
        assert http.send(API).status == 200
        behave(server, access="another", rotate=True)
        assert http.send(API).status == 200
    assert json.loads(file.read_text())["refresh_token"] == "refresh-t0ken-2"
    assert "t0ken" not in caplog.text and "c0de" not in caplog.text


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"state": "of-somebody-else"}, "mismatching_state"),
        ({"answer": {"error": "access_denied", "error_description": "Ann said no"}}, "Ann said no"),
        ({"answer": {"code": "wr0ng-code"}}, "invalid_grant"),
    ],
)
def test_a_login_that_is_not_in_order_is_refused(server, settings, message):
    behave(server, **settings)
    with pytest.raises(ConnectorError, match=message) as caught:
        login(authorization_code(server), open_browser=browser, say=str)
    assert "wr0ng" not in str(caught.value)


def test_a_login_that_nobody_finishes_ends(server):
    with pytest.raises(ConnectorError, match="nobody agreed in the browser in time"):
        login(authorization_code(server), open_browser=str, say=str, patience=0.05)


def test_a_person_enters_a_code_elsewhere(server):
    config = {
        "base_url": server.url,
        "auth": {
            "type": "oauth2_device_code",
            "device_url": "/oauth/device",
            "token_url": "/oauth/token",
            "client_id": "me",
        },
    }
    said: list[str] = []
    reference = login(config, open_browser=str, say=said.append)
    assert said == [f"Go to {server.url}/enter and enter WDJB-MJHT"]
    assert server.count("/oauth/token") == 3  # two of them were too early
    config["auth"]["token"] = reference
    with client(server, config["auth"]) as http:
        assert http.send(API).status == 200
    behave(server, polls=0, device_error="access_denied")
    with pytest.raises(ConnectorError, match="access_denied"):
        login(config, open_browser=str, say=str)


def test_a_person_is_asked_for_a_code(server):
    secret = "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP"
    auth = {
        **SESSION,
        "login": {**SESSION["login"], "url": f"/login?otp={secret}"},
        "code_field": "otp",
    }
    from tests.support.http_routes import one_time_codes

    questions: list[str] = []

    def ask(question: str) -> str:
        questions.append(question)
        return one_time_codes(secret)[0]

    refusal(server, auth, "a person types in; run contextframe-beam login")
    auth["token"] = login({"base_url": server.url, "auth": auth}, ask=ask)
    assert "/login" in questions[0]
    with client(server, auth) as http:
        assert http.send(HttpRequest("GET", "/session/api")).status == 200


def test_what_needs_no_person_is_told(server):
    with pytest.raises(ConfigError, match="needs no login"):
        login({"base_url": server.url, "auth": client_credentials(server)})


class MemoryKeyring(KeyringBackend):
    """A keyring like that of a desktop, for this process."""

    priority = 5  # type: ignore[assignment]

    def __init__(self) -> None:
        super().__init__()
        self.entries: dict[tuple[str, str], str] = {}

    def get_password(self, service: str, username: str) -> str | None:
        return self.entries.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self.entries[service, username] = password


@pytest.fixture
def memory_keyring() -> MemoryKeyring:
    found = MemoryKeyring()
    keyring.set_keyring(found)
    return found


def test_a_token_goes_to_the_keyring_where_there_is_one(server, memory_keyring):
    config = authorization_code(server)
    reference = login(config, open_browser=browser, say=str)
    assert reference.startswith("keyring:contextframe-beam/oauth2_authorization_code-")
    with client(server, {**config["auth"], "token": reference}) as http:
        behave(server, access="another", rotate=True)
        assert http.send(API).status == 200
    (stored,) = memory_keyring.entries.values()
    assert json.loads(stored)["refresh_token"] == "refresh-t0ken-2"
    with pytest.raises(SecretError, match="no token in keyring:crm"):
        read_token("keyring:crm")


def test_without_a_keyring_the_token_is_in_a_file_of_its_owner(server, tmp_path):
    reference = login(authorization_code(server), open_browser=browser, say=str)
    file = Path(reference.removeprefix("file:"))
    assert file.is_relative_to(tmp_path / "config") and file.stat().st_mode & 0o777 == 0o600


# Settings.


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {"type": "baerer"},
            "auth is type 'baerer'; did you mean bearer? (there are: api_k",
        ),
        ({"token": "x"}, "auth needs a type (there are: api_key, bearer, "),
        ("bearer-t0ken", "auth is a text; it should be a mapping"),
        (
            {"type": "bearer", "tokn": "x"},
            "auth.tokn is not a key that exists here; did you mean token?",
        ),
        ({"type": "bearer"}, "auth.token is missing"),
        ({"type": "bearer", "token": 5}, "auth.token is a number; it should be text"),
        (
            {"type": "api_key", "key": "k", "in": "body"},
            "auth.in is 'body' (there are: header, query, cookie)",
        ),
        ({"type": "api_key", "key": "k", "in": "query"}, "needs name"),
        ({"type": "google", "scopes": "a"}, "auth.scopes is a text; it should be a list"),
        ({"type": "session", "login": {"path": "/"}}, "auth.login.path is not a key that exists"),
        ({"type": "session", "login": {"json": {}}}, "auth.login.url is missing"),
        (
            {"type": "oauth2_client_credentials", "client_id": "a"},
            "auth.token_url is missing",
        ),
    ],
)
def test_wrong_settings_are_refused(config, message):
    with pytest.raises(ConfigError) as caught:
        auth_from_config(config, HttpClient("https://api.example.com"))
    assert message in str(caught.value)


def test_no_authentication_is_none():
    assert auth_from_config(None) is None and auth_from_config({}) is None


def test_each_type_tells_what_each_setting_is():
    definitions = config_schema()["$defs"]
    for kind in AUTH_TYPES.values():
        for setting in definitions[kind.__name__]["properties"].values():
            assert setting["description"].endswith((".", ")"))


# Tokens at references.


@pytest.mark.parametrize(
    ("text", "token"),
    [
        ("refresh-only", Token("", "refresh-only")),
        ('{"refresh_token": "r-token"}', Token("", "r-token")),
        (
            '{"access_token": "a-token", "refresh_token": "r-token", "renew_at": 5}',
            Token("a-token", "r-token", 5.0),
        ),
    ],
)
def test_a_file_holds_a_refresh_token_or_a_document(tmp_path, text, token):
    (tmp_path / "t").write_text(text)
    assert read_token(f"file:{tmp_path}/t") == token


@pytest.mark.parametrize("text", ["", '{"token": "x"}', "{not json"])
def test_what_is_no_token_is_told(tmp_path, text):
    (tmp_path / "t").write_text(text)
    with pytest.raises(SecretError, match="run contextframe-beam login"):
        read_token(f"file:{tmp_path}/t")


def test_a_token_is_written_as_it_was_found(tmp_path):
    file = tmp_path / "t"
    token = Token("a-token", "r-token", 5.0)
    write_token(f"file:{file}", token)
    assert read_token(f"file:{file}") == token and file.stat().st_mode & 0o777 == 0o600
    file.write_text("bare")
    write_token(f"file:{file}", token)
    assert file.read_text() == "r-token\n"
    link = tmp_path / "link"
    link.symlink_to(file)
    write_token(f"file:{link}", Token("a", "other"))
    assert link.is_symlink() and file.read_text() == "other\n"
    with pytest.raises(ConfigError, match="nothing can be stored in env:X"):
        write_token("env:X", token)


def test_expiry_is_understood_in_each_form():
    read: Callable[[dict[str, Any]], Token] = Token.of
    assert read({"access_token": "a-token", "expires_in": "3600"}).fresh
    for never in (0, -1, "0", "-1", "never", None, float("nan"), True):
        assert read({"access_token": "a-token", "expires_in": never}).fresh
    assert read({"access_token": "a-token", "expires_at": 4_000_000_000}).fresh
    assert not read({"access_token": "a-token", "expires_at": 1_000_000_000}).fresh
    assert read({"access_token": "a-token"}).fresh
    with pytest.raises(ConnectorError, match="gave no access_token \\(it gave token\\)"):
        read({"token": "x"})


ONE_TIME_SECRET = "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP"
TWO_STEPS = {
    "type": "session",
    "login": {
        "url": f"/login/challenge?otp={ONE_TIME_SECRET}",
        "json": {"user": "ann", "password": "passw0rd-of-ann"},
    },
    "challenge": {
        "url": "/login/code",
        "json": {"session_id": "{challenge}", "code": "{code}"},
    },
    "name": "X-Session",
}


def test_a_login_of_two_steps_brings_the_challenge_back_with_the_code(server):
    auth = {**TWO_STEPS, "totp_secret": ONE_TIME_SECRET}
    with HttpClient.from_config(server.url, auth=auth) as client:
        assert client.send(HttpRequest("GET", "/session/api")).status == 200
    assert server.count("/login/challenge") == server.count("/login/code") == 1


def test_a_login_of_two_steps_needs_one_where_the_server_asks_for_no_code(server):
    login_request = {**TWO_STEPS["login"], "url": "/login/challenge"}
    auth = {**TWO_STEPS, "login": login_request, "totp_secret": ONE_TIME_SECRET}
    with HttpClient.from_config(server.url, auth=auth) as client:
        assert client.send(HttpRequest("GET", "/session/api")).status == 200
    assert server.count("/login/code") == 0


def test_a_person_is_asked_for_the_code_after_the_first_step(server, tmp_path):
    steps = []

    def ask(prompt):
        steps.append(server.count("/login/challenge"))
        return pyotp.TOTP(ONE_TIME_SECRET).now()

    reference = login(
        {"base_url": server.url, "auth": {**TWO_STEPS, "token": f"file:{tmp_path / 'token'}"}},
        ask=ask,
    )
    assert steps == [1] and read_token(reference).access == "sess1on-1"


def test_a_challenge_that_is_not_described_is_told(server):
    auth = {**TWO_STEPS, "challenge": {"ulr": "/login/code"}, "totp_secret": ONE_TIME_SECRET}
    with pytest.raises(ConfigError, match=r"challenge\.ulr is not a key .*; did you mean url"):
        HttpClient.from_config(server.url, auth=auth)


def test_any_argument_may_be_in_the_keyring(server, memory_keyring):
    memory_keyring.set_password("crm", "token", "a-token-of-the-keyring")
    client = HttpClient.from_config(
        server.url, auth={"type": "bearer", "token": "keyring:crm/token"}
    )
    sent = client.send(HttpRequest("GET", "/echo")).json()["headers"]
    assert sent["authorization"] == "Bearer a-token-of-the-keyring"
    assert secrets.redact("say a-token-of-the-keyring") == "say keyring:crm/token"
    with pytest.raises(SecretError, match="keyring:crm/none is empty"):
        secrets.resolve("keyring:crm/none")


TOKENS = {"type": "tokens", "tokens": ["first-t0ken", "second-t0ken", "third-t0ken"]}


def tokens_of(client: HttpClient, count: int, path: str = "/quota?each=100") -> list[str]:
    return [client.send(HttpRequest("GET", path)).json()["token"] for _ in range(count)]


def test_several_tokens_take_turns(server):
    with HttpClient.from_config(server.url, auth=TOKENS) as client:
        assert tokens_of(client, 6) == TOKENS["tokens"] * 2
        assert "t0ken" not in repr(client)


def test_a_token_whose_quota_is_used_up_lets_the_others_go_on(server):
    """The first token is refused for a minute; nobody waits, and the others do its work."""
    first = {"type": "bearer", "token": "first-t0ken"}
    with HttpClient.from_config(server.url, auth=first) as client:
        tokens_of(client, 2, "/quota?each=2")
    with HttpClient.from_config(server.url, auth=TOKENS, total_timeout=30) as client:
        found = tokens_of(client, 4, "/quota?each=2")
        assert sorted(found) == ["second-t0ken"] * 2 + ["third-t0ken"] * 2
        assert client.stats.wait_ms == 0


def test_each_token_has_a_budget_of_its_own(server):
    """Nine requests at three an hour for each of three tokens wait for nothing."""
    auth = {**TOKENS, "budget": {"per_hour": 3, "name": f"own {server.url}"}}
    with HttpClient.from_config(server.url, auth=auth) as client:
        assert sorted(tokens_of(client, 9)) == sorted(TOKENS["tokens"] * 3)
        assert client.stats.wait_ms == 0


def test_no_token_is_no_pool(server):
    with pytest.raises(ConfigError, match="at least one token"):
        HttpClient.from_config(server.url, auth={"type": "tokens", "tokens": []})
