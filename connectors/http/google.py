"""Google's service accounts and application default credentials; google-auth does the work."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import timezone
from typing import Any

import google.auth
import requests
from google.auth.exceptions import GoogleAuthError
from google.auth.transport.requests import Request
from google.oauth2 import service_account

from contextframe_beam.connectors import secrets
from contextframe_beam.connectors.http.credentials import Auth, Placement, Sender, TokenAuth
from contextframe_beam.connectors.http.request import HttpRequest, HttpResponse
from contextframe_beam.connectors.http.settings import GoogleSettings
from contextframe_beam.connectors.http.tokens import Token, TokenSource, TokenStore
from contextframe_beam.errors import ConfigError, ConnectorError


class _GoogleAuth:
    """A token, and the project that pays for the requests."""

    def __init__(self, tokens: TokenAuth, project: str | None) -> None:
        self._tokens = tokens
        self._project = project

    def apply(self, request: HttpRequest) -> HttpRequest:
        """Returns the request with the current token."""
        request = self._tokens.apply(request)
        if self._project:
            request = request.with_header("X-Goog-User-Project", self._project)
        return request

    def renew(self, response: HttpResponse) -> bool:
        """Renews the token, unless another thread or process has done so."""
        return self._tokens.renew(response)

    def account(self) -> str:
        """Returns what tells this account from others; may hold secrets."""
        return self._tokens.account()


def google_auth(settings: GoogleSettings, http: Sender | None) -> Auth:
    """Makes authentication with a service account's key, or with the machine's own account."""
    verify = None if http is None else http.ca_bundle

    def fetch(last: Token | None) -> Token:
        with requests.Session() as session:
            if verify:
                session.verify = str(verify)
            try:
                credentials = _credentials(settings)
                credentials.refresh(Request(session=session))
            except (GoogleAuthError, requests.RequestException, ValueError) as error:
                if isinstance(error, ConfigError):
                    raise
                message = secrets.redact(f"{type(error).__name__}: {error}")
            else:
                answer = {"access_token": credentials.token}
                if credentials.expiry is not None:
                    expiry = credentials.expiry.replace(tzinfo=timezone.utc)
                    answer["expires_at"] = expiry.timestamp()
                return Token.of(answer)
        raise ConnectorError(f"Google gave no token ({message}); check the account and its scopes")

    account = settings.account()
    tokens = TokenSource(fetch, TokenStore(None, account))
    return _GoogleAuth(TokenAuth(tokens, Placement(), account), settings.quota_project)


def _credentials(settings: GoogleSettings) -> Any:
    scopes = [str(one) for one in settings.scopes]
    if settings.credentials is None:
        found, _ = google.auth.default(scopes=scopes)
        if settings.subject:
            raise ConfigError("auth of type google: subject needs credentials: a service account's")
        return found
    given = settings.credentials
    if isinstance(given, Mapping):
        info = secrets.resolved(dict(given))
    else:
        try:
            info = json.loads(str(given))
        except ValueError:
            info = None
    if not isinstance(info, dict) or "private_key" not in info:
        raise ConfigError(
            "auth of type google: credentials is not the JSON key of a service account; give it as "
            "file:PATH or another reference"
        )
    secrets.register(str(info["private_key"]))
    for line in str(info["private_key"]).splitlines():
        if len(line) >= 40 and not line.startswith("-"):
            secrets.register(line)
    load: Any = service_account.Credentials.from_service_account_info
    return load(info, scopes=scopes, subject=settings.subject)
