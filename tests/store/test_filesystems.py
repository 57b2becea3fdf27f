"""What Lance is told of an object store, fsspec's file systems are told as well."""

from __future__ import annotations

import json

import pytest

from contextframe_beam.errors import ConfigError
from contextframe_beam.store.address import filesystem_of

ON_GOOGLE = "gs://bucket/kb.dead-letters/x.jsonl"


def test_a_path_on_this_machine_needs_nothing():
    assert filesystem_of("/tmp/x.jsonl", {"region": "eu"})[1] == "/tmp/x.jsonl"


def test_s3():
    options = {
        "aws_access_key_id": "id",
        "secret_access_key": "key",
        "endpoint": "http://127.0.0.1:1",
        "region": "eu",
        "allow_http": "true",
    }
    filesystem, path = filesystem_of("s3://bucket/kb.dead-letters/x.jsonl", options)
    assert path == "bucket/kb.dead-letters/x.jsonl"
    assert (filesystem.key, filesystem.secret) == ("id", "key")
    assert filesystem.client_kwargs == {"endpoint_url": "http://127.0.0.1:1", "region_name": "eu"}


@pytest.mark.parametrize("name", ["google_storage_token", "GOOGLE_STORAGE_TOKEN", "storage_token"])
def test_google_with_an_access_token(name):
    filesystem, path = filesystem_of(ON_GOOGLE, {name: "ya29.token"})
    assert path == "bucket/kb.dead-letters/x.jsonl"
    assert filesystem.credentials.credentials.token == "ya29.token"


def service_account() -> dict[str, str]:
    rsa = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.rsa")
    forms = pytest.importorskip("cryptography.hazmat.primitives.serialization")
    pem = rsa.generate_private_key(65537, 2048).private_bytes(
        forms.Encoding.PEM, forms.PrivateFormat.PKCS8, forms.NoEncryption()
    )
    return {
        "type": "service_account",
        "client_email": "robot@project.iam.gserviceaccount.com",
        "private_key": pem.decode(),
        "private_key_id": "1",
        "token_uri": "https://oauth2.googleapis.com/token",
    }


def test_google_with_a_key_or_the_file_that_it_is_in(tmp_path):
    key = json.dumps(service_account())
    (tmp_path / "key.json").write_text(key)
    for options in (
        {"google_service_account_key": key},
        {"service_account": str(tmp_path / "key.json")},
        {"google_application_credentials": str(tmp_path / "key.json")},
    ):
        filesystem, _ = filesystem_of(ON_GOOGLE, options)
        account = filesystem.credentials.credentials.service_account_email
        assert account == "robot@project.iam.gserviceaccount.com"


def test_google_without_credentials():
    options = {"google_skip_signature": "true", "google_base_url": "http://127.0.0.1:1"}
    filesystem, _ = filesystem_of(ON_GOOGLE, options)
    assert filesystem.credentials.token == "anon"
    assert filesystem._endpoint == "http://127.0.0.1:1"


@pytest.mark.parametrize("key", ["planted-secret", '["planted-secret"]'])
def test_a_key_that_is_none_is_told_without_showing_it(key):
    with pytest.raises(ConfigError, match="google_service_account_key is not JSON") as told:
        filesystem_of(ON_GOOGLE, {"google_service_account_key": key})
    assert "planted" not in str(told.value)
    assert told.value.__cause__ is None and told.value.__context__ is None
