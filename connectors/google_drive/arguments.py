"""What the arguments of the connector mean: what is read, and with which credentials."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qs, urlsplit

from contextframe_beam.connectors.google_drive.feeds import ALL, Choice
from contextframe_beam.connectors.secrets import SecretReference
from contextframe_beam.errors import ConfigError

SCOPE = "https://www.googleapis.com/auth/drive.readonly"

_TOKENS = "https://oauth2.googleapis.com"
_ID = re.compile(r"[\w-]{10,}\Z")


def choice_of(
    folders: Sequence[str],
    drives: Sequence[str],
    my_drive: bool,
    shared_with_me: bool,
    subject: str | None,
    subjects: Sequence[str],
) -> Choice:
    """Returns what is read: all that the account sees, where nothing is named."""
    people = [*([subject] if subject else []), *several(subjects)]
    chosen = [one if one == ALL else _id_in(one, "drives") for one in several(drives)]
    named = [_id_in(one, "folders") for one in several(folders)]
    is_all = not (named or chosen or my_drive or shared_with_me)
    return Choice(
        tuple(dict.fromkeys(named)),
        (ALL,) if is_all else tuple(dict.fromkeys(chosen)),
        my_drive or is_all,
        shared_with_me or is_all,
        tuple(dict.fromkeys(people)) or ("",),
    )


def _id_in(text: str, argument: str) -> str:
    """Returns the id in an address of Drive, or the id itself.

    Raises:
        ConfigError: it is neither.
    """
    parts = urlsplit(text.strip())
    found = parts.path.rstrip("/").rpartition("/")[2] if parts.scheme else text.strip()
    found = parse_qs(parts.query).get("id", [found])[0]
    if not _ID.match(found):
        raise ConfigError(
            f"{argument}: {text!r} is no id and no address of Google Drive; copy the address of "
            "the folder from the browser"
        )
    return found


def auth_of(
    credentials: str | None,
    client_id: str | None,
    client_secret: str | None,
    refresh_token: str | None,
    quota_project: str | None,
    base_url: str | None,
) -> dict[str, Any]:
    """Returns the settings of the authentication.

    Raises:
        ConfigError: there are two kinds of credentials, or one lacks a part.
    """
    oauth = (client_id, client_secret, refresh_token)
    if not any(oauth):
        found: dict[str, Any] = {"type": "google", "scopes": [SCOPE]}
        if credentials is not None:
            found["credentials"] = _as_reference(credentials)
        return found if quota_project is None else {**found, "quota_project": quota_project}
    if credentials is not None or not all(oauth):
        raise ConfigError(
            "give credentials, or client_id, client_secret and refresh_token, or none of them for "
            "the application default credentials"
        )
    return {
        "type": "oauth2_refresh_token",
        "token_url": f"{(base_url or _TOKENS).rstrip('/')}/token",
        "client_id": client_id,
        "client_secret": client_secret,
        "refresh_token": refresh_token,
    }


def _as_reference(credentials: str) -> str:
    """Returns the path of a file as a reference to what is in it."""
    if isinstance(credentials, SecretReference):
        return credentials
    is_path = "{" not in credentials and ":" not in credentials
    return f"file:{os.path.expanduser(credentials)}" if is_path else credentials


def several(given: Sequence[str] | str) -> tuple[str, ...]:
    """Returns the texts of an argument that may also be one text."""
    return (given,) if isinstance(given, str) else tuple(given)
