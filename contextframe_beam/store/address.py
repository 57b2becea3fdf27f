"""The address of a dataset, its file system, and the messages of object stores in plain words."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from contextframe_beam.errors import ConfigError

StorageOptions = Mapping[str, str] | None


@dataclass(frozen=True)
class Address:
    """The address of a dataset, which need not exist.

    Attributes:
        uri: A folder, or an address such as `s3://bucket/kb.lance`.
        storage_options: Credentials and settings of the object store, by Lance's names for them.
    """

    uri: str
    storage_options: StorageOptions = field(default=None, repr=False)


# Lance's name for a setting of S3, without `aws_`, and the name in s3fs.
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

# Lance's name for a file of credentials of Google Cloud Storage, without `google_`.
_GCS_FILES = ("service_account", "service_account_path", "application_credentials")


def filesystem_of(path: str, storage_options: StorageOptions = None) -> tuple[Any, str]:
    """Returns the file system of an address, and the path in it.

    Args:
        path: A local path or an fsspec address.
        storage_options: Options of the dataset's object store, by Lance's names; options for S3 and
            Google apply to addresses there.

    Raises:
        ImportError: the library for this kind of address is not installed.
        ValueError: this kind of address is unknown.
        ConfigError: a setting cannot be read.
    """
    options: dict[str, Any] = {}
    if storage_options and path.startswith(("s3://", "s3a://")):
        options = _s3_options(storage_options)
    elif storage_options and path.startswith(("gs://", "gcs://")):
        options = _gcs_options(storage_options)
    # Imported here, so that the command line answers at once.
    import fsspec

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

            # For a plain text, gcsfs would first ask Google what it is.
            options["token"] = Credentials(value)  # type: ignore[no-untyped-call]
        elif plain == "base_url":
            options["endpoint_url"] = value
        elif plain == "skip_signature" and value.lower() == "true":
            options["token"] = "anon"
        elif plain == "service_account_key":
            options |= _of_service_account(name, value)
    return options


def _of_service_account(name: str, value: str) -> dict[str, Any]:
    """Reads a key file of Google, with the fields that Lance's client adds for other servers."""
    try:
        key = json.loads(value)
    except ValueError:
        key = None
    if not isinstance(key, dict):  # without the error as its cause, which contains the secret
        raise ConfigError(f"the storage option {name} is not JSON as in a Google key file")
    options: dict[str, Any] = {"token": "anon" if key.get("disable_oauth") else key}
    if "gcs_base_url" in key:
        options["endpoint_url"] = key["gcs_base_url"]
    return options


_STATUS = re.compile(r"status code: (?P<code>\d{3})\b ?(?P<words>[A-Z][A-Za-z ]*)?")
_ADVICE = {
    "401": "check the credentials",
    "403": "check the credentials, and what they may do there",
    "404": "check that the bucket exists",
    "429": "the store asks for fewer requests, try again later",
    "500": "the store is in trouble, try again later",
    "503": "the store is in trouble or asks for fewer requests, try again later",
}


def in_words(message: str) -> str:
    """Returns the answer of an object store in plain words, in place of the client's message.

    A message about something else stays as it is.
    """
    status = _STATUS.search(message)
    if status is not None:
        advice = _ADVICE.get(status["code"])
        answer = " ".join([status["code"], *(status["words"] or "").split()])
        return f"the object store answered {answer}" + (f" ({advice})" if advice else "")
    if "error sending request" in message or "HTTP error" in message:
        return "the object store cannot be reached (check the endpoint and the network)"
    return message


def file_uri(uri: str, path: str) -> str:
    """Returns the address of a data file of the dataset."""
    return f"{uri.rstrip('/')}/data/{path}"


def absolute(path: str | os.PathLike[str]) -> str:
    """Returns an address independent of later changes of the working directory."""
    address = os.fspath(path)
    return os.path.abspath(address) if "://" not in address else address


def is_local(uri: str) -> bool:
    """Returns whether a dataset's address is a path on this machine."""
    return "://" not in uri or uri.startswith(("file://", "file-object-store://"))


def _local_path(address: str) -> str:
    scheme, mark, path = address.partition("://")
    return unquote(path) if mark else scheme


def as_dict(options: StorageOptions) -> dict[str, str] | None:
    """Returns storage options in Lance's form."""
    return dict(options) if options else None


def first_line(error: BaseException | None) -> str:
    """Returns the text of a Lance error, without the Rust source location after it."""
    text = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return in_words(text.split(", /")[0])
