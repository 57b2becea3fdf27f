"""fsspec's file systems, opened with the settings that a dataset beside them is opened with.

Lance has its own client of object stores; what is no dataset, such as dead letters, is written with
fsspec. Here one set of options serves both.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import fsspec

from contextframe_beam.address import StorageOptions
from contextframe_beam.errors import ConfigError

# What Lance calls a setting of S3, without `aws_`, and what s3fs calls it.
_S3 = {
    "access_key_id": "key",
    "secret_access_key": "secret",
    "session_token": "token",
}
_S3_CLIENT = {
    "endpoint": "endpoint_url",
    "endpoint_url": "endpoint_url",
    "region": "region_name",
}

# What Lance calls a file of credentials of Google Cloud Storage, without `google_`.
_GCS_FILES = ("service_account", "service_account_path", "application_credentials")


def filesystem_of(path: str, storage_options: StorageOptions = None) -> tuple[Any, str]:
    """Returns the file system of an address, and the path in it.

    Args:
        path: A local path or an fsspec address.
        storage_options: Of the dataset's object store, by the names that Lance has for them; those
            of S3 and of Google are used for addresses there.

    Raises:
        ImportError: nothing is installed for such an address.
        ValueError: there is no such kind of address.
        ConfigError: a setting cannot be read.
    """
    options: dict[str, Any] = {}
    if storage_options and path.startswith(("s3://", "s3a://")):
        options = _s3_options(storage_options)
    elif storage_options and path.startswith(("gs://", "gcs://")):
        options = _gcs_options(storage_options)
    filesystem, plain = fsspec.core.url_to_fs(path, **options)
    return filesystem, plain


def _s3_options(storage_options: Mapping[str, str]) -> dict[str, Any]:
    options: dict[str, Any] = {}
    client: dict[str, str] = {}
    for name, value in storage_options.items():
        plain = name.lower().removeprefix("aws_")
        if plain in _S3:
            options[_S3[plain]] = value
        elif plain in _S3_CLIENT:
            client[_S3_CLIENT[plain]] = value
    if client:
        options["client_kwargs"] = client
    return options


def _gcs_options(storage_options: Mapping[str, str]) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for name, value in storage_options.items():
        plain = name.lower().removeprefix("google_")
        if plain in _GCS_FILES:
            options["token"] = value
        elif plain == "storage_token":
            from google.oauth2.credentials import Credentials  # slow, and seldom needed

            # Of a mere text gcsfs would first ask Google what it is.
            options["token"] = Credentials(value)  # type: ignore[no-untyped-call]
        elif plain == "base_url":
            options["endpoint_url"] = value
        elif plain == "skip_signature" and value.lower() == "true":
            options["token"] = "anon"
        elif plain == "service_account_key":
            options |= _of_service_account(name, value)
    return options


def _of_service_account(name: str, value: str) -> dict[str, Any]:
    """Reads a key as Google writes it, with what Lance's client adds for servers of one's own."""
    try:
        key = json.loads(value)
    except ValueError:
        key = None
    if not isinstance(key, dict):  # not with the error as its cause, which holds the secret
        raise ConfigError(f"the storage option {name} is not JSON as in a key file of Google's")
    options: dict[str, Any] = {"token": "anon" if key.get("disable_oauth") else key}
    if "gcs_base_url" in key:
        options["endpoint_url"] = key["gcs_base_url"]
    return options
