"""Secrets in plain text: found by the names that they have and the forms in which they stand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from urllib.parse import quote, unquote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contextframe_beam.connectors import BaseConnector, secrets
from contextframe_beam.connectors.api.load import read_yaml
from contextframe_beam.connectors.http.request import shown
from contextframe_beam.connectors.plain_secrets import (
    credentials_in,
    has_credentials,
    looks_secret,
    without_credentials,
)
from contextframe_beam.errors import ConfigError
from contextframe_beam.transforms import WriteToLance

HIDDEN = "hunter2Zq8"
AWS_ID = "AKIA" + "IOSFODNN7EXAMPLE"
SIGNED = (
    "https://b.s3.amazonaws.com/docs/a.json?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential="
    f"{AWS_ID}%2F20260101%2Feu%2Fs3%2Faws4_request&X-Amz-Date=20260101T000000Z&X-Amz-Expires=60&"
    f"X-Amz-SignedHeaders=host&X-Amz-Signature={HIDDEN}"
)

ADDRESSES = [
    f"https://me:{HIDDEN}@host/path",
    f"https://:{HIDDEN}@host",
    f"postgres://me:{HIDDEN}@db:5432/x?sslmode=require",
    f"postgresql+psycopg://me:{HIDDEN}@[::1]:5432/x",
    f"mongodb+srv://me:{HIDDEN}@h1:27017,h2:27017/x",
    f"redis://:{HIDDEN}@cache:6379/0",
    f"amqp://me:{HIDDEN}@mq/vhost",
    f"https://me:p@ss{HIDDEN}@host/",
    f"https://me:pa/ss{HIDDEN}@host/",
    f"https://me:pa?ss{HIDDEN}#@host/",
    f"https://me:p%40ss{HIDDEN}@host/a@b",
    f"s3://id:{HIDDEN}@bucket/kb.lance",
    f"ftp://me:{HIDDEN}@host/file",
    f"https://{HIDDEN}{HIDDEN}@github.com/me/repository.git",
    f"https://x-access-token:{HIDDEN}@github.com/me/repository.git",
    f"https://host/items?api_key={HIDDEN}",
    f"https://host/items?a=1&apikey={HIDDEN}&b=2",
    f"https://host/items?token={HIDDEN}",
    f"https://host/items?access_token={HIDDEN}",
    f"https://host/items?key={HIDDEN}{HIDDEN}",
    f"https://host/cb#access_token={HIDDEN}&state=1",
    f"https://fn.azurewebsites.net/api/f?code={HIDDEN}{HIDDEN}==",
    f"https://a.blob.core.windows.net/c?sv=2024-01-01&sr=c&sp=rl&se=2026-01-01&sig={HIDDEN}%3D",
    SIGNED,
    f"https://storage.googleapis.com/b/o?X-Goog-Credential=a&X-Goog-Signature={HIDDEN}",
    f"https://b.s3.amazonaws.com/k?AWSAccessKeyId={HIDDEN}&Expires=1&Signature=xyzxyz",
    f"https://d.cloudfront.net/k?Policy=e&Signature={HIDDEN}&Key-Pair-Id=K",
    f"https://hooks.slack.com/services/T000/B000/{HIDDEN}",
    f"https://hooks.slack.com/workflows/T000/A000/1/{HIDDEN}",
    f"https://cdn.discordapp.com/attachments/1/2/a.pdf?ex=6b0d&is=6b0c&hm={HIDDEN}",
    f"https://discord.com/api/webhooks/123456/{HIDDEN}",
    f"https://discordapp.com/api/v10/webhooks/123456/{HIDDEN}",
    f"https://x.webhook.office.com/webhookb2/1@2/IncomingWebhook/{HIDDEN}/3",
    f"https://api.telegram.org/bot123456:{HIDDEN}/getUpdates",
    f"https://chat.googleapis.com/v1/spaces/A/messages?key=k&token={HIDDEN}",
    f"https://hooks.zapier.com/hooks/catch/1/{HIDDEN}/",
    f"items?api_key={HIDDEN}",
    f"/v1/items?X-Api-Key={HIDDEN}",
]
TEXTS = [
    f"host=db user=me password={HIDDEN} dbname=x",
    f"host=db user=me password='a {HIDDEN}' dbname=x",
    f"DefaultEndpointsProtocol=https;AccountName=a;AccountKey={HIDDEN}==;EndpointSuffix=core",
    f"Endpoint=sb://x/;SharedAccessKeyName=root;SharedAccessKey={HIDDEN}=",
    f"Server=db;Database=x;Uid=me;Pwd={HIDDEN};",
    f"Driver={{ODBC}};Server=db;UID=me;PWD={{a;{HIDDEN}}};",
    f'{{"user": "me", "password": "{HIDDEN}"}}',
    f"{{'client_secret': '{HIDDEN}', 'id': 1}}",
    f"Authorization: Bearer {HIDDEN}",
    f"{{'Authorization': 'Basic {HIDDEN}'}}",
    f"refused: bearer {HIDDEN}{HIDDEN}",
    f"aws_secret_access_key={HIDDEN}",
    f"<Error><Code>SignatureDoesNotMatch</Code><AWSAccessKeyId>{HIDDEN}</AWSAccessKeyId></Error>",
    f"<StringToSign>AWS4\n{HIDDEN}</StringToSign>",
    f"<SignatureProvided>{HIDDEN}</SignatureProvided>",
    f"token ghp_{HIDDEN * 3}",
    f"xoxb-{HIDDEN}-{HIDDEN}",
    f"the key AKIA{HIDDEN.upper()}ABCDEF is not known",
    f"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.{HIDDEN}",
    f"-----BEGIN RSA PRIVATE KEY-----\nMII{HIDDEN}\n-----END RSA PRIVATE KEY-----",
]
HARMLESS = [
    "https://host/items?page=2&page_token=abcabcabcabcabcabc&sort_key=id",
    "https://host:8080/a@b?email=me@host.com",
    "http://[::1]:8080/a@b",
    "https://me@host/repository.git",
    "ssh://git@github.com/me/repository.git",
    "s3://bucket/folder/kb.lance",
    "/home/me/docs/*.json",
    "https://host/items?code=DE&key=users",
    "https://host/items?next_token=abc&continuation_token=def&$skiptoken=ghi",
    "https://host/items?api_key=env:API_KEY",
    "https://host/items?token={parent.token}",
    "https://slack.com/api/conversations.list",
    "the password is wrong; the token has expired",
    "select key, token from users where keyword = 'x'",
    "task-1 risk-assessment-of-the-sky sk-ating",
    "https://me:***@host/path?token=***",
]


@pytest.fixture(autouse=True)
def _of_this_test_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keeps what a test registers from the tests after it."""
    monkeypatch.setattr(secrets, "_labels", {})
    monkeypatch.setattr(secrets, "_plain_forms", ())
    monkeypatch.setattr(secrets, "_base64_forms", ())


@pytest.mark.parametrize("address", ADDRESSES)
def test_a_credential_in_an_address_is_found(address: str) -> None:
    assert has_credentials(address)
    assert HIDDEN in address
    assert HIDDEN.lower() not in without_credentials(address).lower()
    assert any(HIDDEN in one for one in credentials_in(address))


@pytest.mark.parametrize("address", ADDRESSES)
def test_neither_a_message_nor_a_log_shows_it(address: str) -> None:
    message = f"GET {address!r} failed: 403 for url: {address}"
    assert HIDDEN not in secrets.redact(message)
    assert HIDDEN not in shown(address)


@pytest.mark.parametrize("text", TEXTS)
def test_a_credential_in_a_text_is_taken_out(text: str) -> None:
    assert HIDDEN.lower() in text.lower()
    assert HIDDEN.lower() not in secrets.redact(text).lower()


@pytest.mark.parametrize("text", HARMLESS)
def test_what_holds_none_stays(text: str) -> None:
    assert without_credentials(text) == text
    assert not has_credentials(text)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(max_size=200))
def test_what_was_taken_out_is_not_taken_out_again(text: str) -> None:
    once = without_credentials(text)
    assert without_credentials(once) == once


@pytest.mark.parametrize(
    "name",
    [
        "pat",
        "github_pat",
        "sas",
        "sasToken",
        "SASToken",
        "azure_storage_sas_key",
        "private_key_pem",
        "privateKey",
        "api_key_2",
        "APIKey",
        "AWSAccessKeyId",
        "aws_access_key_id",
        "signature",
        "X-Amz-Signature",
        "x-api-key",
        "token_value",
        "service_account_key_json",
        "otp",
        "creds",
        "SharedAccessSignature",
        "passphrase",
        "jwt",
        "bearer_token",
        "client_secret_v2",
    ],
)
def test_names_of_secrets(name: str) -> None:
    assert looks_secret(name)


@pytest.mark.parametrize(
    "name",
    [
        "path",
        "pattern",
        "patch",
        "design",
        "assignee",
        "token_url",
        "key_field",
        "sorting_key_name",
        "max_tokens",
        "next_token",
        "significance",
        "dsn_name",
        "patient",
        "code",
        "secret_name",
    ],
)
def test_names_that_are_none(name: str) -> None:
    assert not looks_secret(name)


# What stays of the arguments of a source when they are stored with the dataset.


class Source(BaseConnector):
    def __init__(self, **arguments: object) -> None:
        super().__init__()


@pytest.mark.parametrize(
    ("name", "value", "other"),
    [
        ("dsn", f"postgres://me:{HIDDEN}@db/x", "postgres://me:{}@db/y"),
        ("dsn", f"me/{HIDDEN}@db:1521/x", "me/{}@db:1521/y"),
        ("connection_string", f"AccountName=a;AccountKey={HIDDEN}", "AccountName=b;AccountKey={}"),
        ("conn_str", f"Server=a;Pwd={HIDDEN}", "Server=b;Pwd={}"),
        ("url", f"https://host/a?sig={HIDDEN}", "https://host/b?sig={}"),
        ("urls", [f"https://host/a?token={HIDDEN}"], ["https://host/b"]),
        ("options", {"endpoint": f"https://me:{HIDDEN}@a"}, {"endpoint": "https://b"}),
        ("webhook_url", f"https://a.example/in/{HIDDEN}", "https://b.example/in/{}"),
        ("feed", f"https://hooks.slack.com/services/T/B/{HIDDEN}", "https://other.example"),
    ],
)
def test_an_address_is_stored_without_its_credential_and_still_tells_sources_apart(
    name: str, value: object, other: object
) -> None:
    source = Source(**{name: value})
    assert HIDDEN not in json.dumps(source.source_identity())
    assert HIDDEN not in repr(source)
    # Another password is the same source, another place is not.
    if isinstance(value, str):
        assert (
            Source(**{name: value.replace(HIDDEN, "changed9X")}).source_id() == source.source_id()
        )
    assert Source(**{name: other}).source_id() != source.source_id()


@pytest.mark.parametrize(
    "name",
    [
        "pat",
        "sas",
        "private_key",
        "api_key_2",
        "otp",
    ],
)
def test_a_secret_is_no_part_of_what_is_stored(name: str) -> None:
    assert Source(**{name: HIDDEN}).source_id() == Source(**{name: "another"}).source_id()
    assert HIDDEN not in repr(Source(**{name: HIDDEN}))


@pytest.mark.parametrize("encoded", [HIDDEN + "%40x", quote(HIDDEN + "/ü", safe="")])
def test_the_driver_that_names_the_decoded_password_shows_it_neither(encoded: str) -> None:
    Source(dsn=f"postgres://me:{encoded}@db/x")
    assert HIDDEN not in secrets.redact(f"no user me with the password {unquote(encoded)} here")


# A secret that is known is found in whatever way an address writes it.


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=6, max_size=20), st.randoms())
def test_a_known_secret_is_found_however_it_is_encoded(value: str, random: Random) -> None:
    secrets.register(value, "#")
    pieces = []
    for character in value:
        whole = "".join(f"%{byte:02{random.choice('xX')}}" for byte in character.encode())
        safe = character not in "%+"
        pieces.append(random.choice([character, whole] if safe else [whole]))
    text = "".join(pieces)
    for written in (text, text.replace("%", "%25")):
        assert written not in secrets.redact(f"https://host/{written}/x") or written in "#"


@pytest.mark.parametrize(
    "form",
    [
        lambda value: value.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;"),
        lambda value: json.dumps(value).replace("/", "\\/"),
        lambda value: f"https://h/?q={quote(value, safe=':/@')}",
        lambda value: f"https://h/?q={quote(quote(value, safe=''), safe='')}",
        lambda value: f"  {value.strip()}",
    ],
)
def test_servers_write_what_they_got_in_many_ways(form: Callable[[str], str]) -> None:
    value = ' s3cr:t/a&b<c"d@e+f '
    secrets.register(value, "env:SHOWN")
    assert "s3cr" not in secrets.redact(f"you sent {form(value)}!")


def test_the_lines_and_the_fields_of_a_secret_are_secret() -> None:
    pem = "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w\nAoGBAKj34GkxFhD90vcNLY\n-----END"
    secrets.register(json.dumps({"client_email": "me@host", "private_key": pem}), "file:key.json")
    assert "AoGBAKj34GkxFhD90vcNLY" not in secrets.redact("bad line AoGBAKj34GkxFhD90vcNLY")
    assert secrets.redact("me@host is not known") == "me@host is not known"


# Where a credential is refused, the message says where it stands.


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (f"base_url: https://me:{HIDDEN}@host\n", 1),
        (f"base_url: https://host\nresources:\n- name: a\n  path: items?api_key={HIDDEN}\n", 4),
        (
            f"base_url: https://host\nresources:\n- name: a\n  params: {{pat: {HIDDEN}}}\n",
            4,
        ),
        (f"base_url: https://host\nheaders:\n  X-Sig: '{HIDDEN}'\n", 3),
        (f"base_url: https://host/\nauth_check: /me?access_token={HIDDEN}\n", 2),
        (f"base_url: https://host\nauth_check: https://hooks.slack.com/services/T/B/{HIDDEN}\n", 2),
    ],
)
def test_a_configuration_with_a_credential_is_refused_with_its_line(
    text: str, line: int, tmp_path: Path
) -> None:
    path = tmp_path / "api.yaml"
    path.write_text(text)
    with pytest.raises(
        ConfigError, match=rf"line {line}: .* in plain text; .* write env:NAME"
    ) as raised:
        read_yaml(path)
    assert HIDDEN not in str(raised.value)


@pytest.mark.parametrize(
    "address",
    [f"s3://id:{HIDDEN}@bucket/kb", f"az://c/kb?sig={HIDDEN}", f"gs://b/kb?token={HIDDEN}"],
)
def test_a_dataset_whose_address_holds_a_credential_is_refused(address: str) -> None:
    with pytest.raises(
        ConfigError, match=r"the dataset holds a credential: .*storage option"
    ) as raised:
        WriteToLance(address)
    assert HIDDEN not in str(raised.value)
    with pytest.raises(ConfigError, match=r"the dead letters holds a credential"):
        WriteToLance("kb", dead_letters=address)
