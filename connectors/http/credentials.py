"""Adds credentials to requests: keys, names with passwords, tokens that expire."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timezone
from os import PathLike
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import parse_qsl, urlsplit

import google.auth
import requests
from google.auth.exceptions import GoogleAuthError
from google.auth.transport.requests import Request
from google.oauth2 import credentials as user
from google.oauth2 import service_account

from contextframe_beam.connectors import secrets
from contextframe_beam.connectors.http import request as urls
from contextframe_beam.connectors.http.buckets import Buckets
from contextframe_beam.connectors.http.budget import Budget
from contextframe_beam.connectors.http.request import HttpRequest, HttpResponse
from contextframe_beam.connectors.http.settings import GoogleSettings, PlacedSettings
from contextframe_beam.connectors.http.tokens import Token, TokenSource, TokenStore
from contextframe_beam.errors import ConfigError, ConnectorError


class Auth(Protocol):
    """Adds credentials to requests, so that a server accepts them."""

    def apply(self, request: HttpRequest) -> HttpRequest:
        """Returns the request with credentials."""

    def renew(self, response: HttpResponse) -> bool:
        """Is called once after an answer of 401; True means that the request may be sent again."""


class Sender(Protocol):
    """The part of a client that authentication needs, to request tokens."""

    @property
    def origin(self) -> str:
        """The origin of the server that it is for."""

    @property
    def ca_bundle(self) -> str | PathLike[str] | None:
        """The certificates to trust instead of the usual ones."""

    def absolute(self, url: str) -> str:
        """Returns the whole address."""

    def for_origin(self, url: str) -> Sender:
        """Returns a sender for the server of an address, without credentials."""

    def send(self, request: HttpRequest, *, raise_for_status: bool = True) -> HttpResponse:
        """Sends a request and returns its answer."""


@dataclass(frozen=True, slots=True)
class Placement:
    """The place of a credential in a request.

    Attributes:
        where: header, query or cookie.
        name: Of the header, parameter or cookie.
        prefix: The text before the credential in a header.
    """

    where: str = "header"
    name: str = "Authorization"
    prefix: str = "Bearer "

    @classmethod
    def of(
        cls, settings: PlacedSettings, name: str = "Authorization", prefix: str = "Bearer "
    ) -> Placement:
        """Returns the place from settings.

        Args:
            settings: The settings.
            name: The header, unless they name one.
            prefix: The text before the credential in the Authorization header.
        """
        if settings.in_ != "header":
            return cls(settings.in_, str(settings.name), "")
        chosen = str(settings.name or name)
        usual = prefix if chosen.lower() == "authorization" else ""
        return cls("header", chosen, usual if settings.prefix is None else str(settings.prefix))

    def put(self, request: HttpRequest, value: str) -> HttpRequest:
        """Returns the request with the credential at its place."""
        if self.where == "query":
            return request.with_param(self.name, value)
        if self.where == "cookie":
            return request.with_cookie(self.name, value)
        return request.with_header(self.name, self.prefix + value)

    def found(self, request: HttpRequest) -> str | None:
        """Returns the credential that a request carries."""
        if self.where == "query":
            query = dict(parse_qsl(urlsplit(request.url).query, keep_blank_values=True))
            value: str | None = request.params.get(self.name, query.get(self.name))
            return value
        if self.where == "cookie":
            pairs = (one.partition("=") for one in (request.header("Cookie") or "").split("; "))
            return next((value for name, _, value in pairs if name == self.name), None)
        header = request.header(self.name)
        return None if header is None else header.removeprefix(self.prefix)


class KeyAuth:
    """A fixed key or token.

    Args:
        key: The key, or a reference to it, which is resolved again for each request.
        placement: Its place in a request.
    """

    def __init__(self, key: str, placement: Placement) -> None:
        self._key = key
        self._placement = placement

    def apply(self, request: HttpRequest) -> HttpRequest:
        """Returns the request with the key."""
        return self._placement.put(request, str(self._key))

    def renew(self, response: HttpResponse) -> bool:
        """Returns whether the reference now leads to another key."""
        return self._placement.found(response.sent) != str(self._key)

    def account(self) -> str:
        """Returns what tells this account from others; holds secrets."""
        return f"{self._placement.name} {self._key!s}"

    def __repr__(self) -> str:
        return f"KeyAuth({self._placement!r})"


class BasicAuth:
    """A user's name and password.

    Args:
        username: The name.
        password: The password; either may be a reference.
    """

    def __init__(self, username: str, password: str) -> None:
        self._username = username
        self._password = password

    def apply(self, request: HttpRequest) -> HttpRequest:
        """Returns the request with both."""
        return request.with_header("Authorization", f"Basic {self._encoded()}")

    def renew(self, response: HttpResponse) -> bool:
        """Returns whether the reference now leads to another password."""
        return response.sent.header("Authorization") != f"Basic {self._encoded()}"

    def account(self) -> str:
        """Returns what tells this account from others; holds secrets."""
        return f"basic {self._encoded()}"

    def _encoded(self) -> str:
        pair = f"{self._username!s}:{self._password!s}".encode()
        encoded = base64.b64encode(pair).decode("ascii")
        secrets.register(encoded)
        return encoded

    def __repr__(self) -> str:
        return "BasicAuth(***)"


class TokenAuth:
    """A token that expires.

    Args:
        tokens: Returns the current token and renews it.
        placement: Its place in a request.
        account: Identifies this account; may contain secrets.
    """

    def __init__(self, tokens: TokenSource, placement: Placement, account: str) -> None:
        self._tokens = tokens
        self._placement = placement
        self._account = account

    def apply(self, request: HttpRequest) -> HttpRequest:
        """Returns the request with the current token.

        Raises:
            ConnectorError: none can be had.
        """
        return self._placement.put(request, self._tokens.current().access)

    def renew(self, response: HttpResponse) -> bool:
        """Renews the token, unless another thread or process has done so.

        Raises:
            ConnectorError: none can be had.
        """
        return self._tokens.renew(self._used(response))

    def may_have_ended(self, response: HttpResponse) -> bool:
        """Returns whether other requests were sent with a refused token as well.

        Another one may help then, even if the request was sent with a renewed token already: the
        others may have used that one up meanwhile.
        """
        return self._tokens.is_shared(self._used(response))

    def _used(self, response: HttpResponse) -> str:
        return self._placement.found(response.sent) or ""

    def account(self) -> str:
        """Returns what tells this account from others; may hold secrets."""
        return self._account

    def __repr__(self) -> str:
        return f"TokenAuth({self._placement!r})"


@dataclass(frozen=True, slots=True)
class Lane:
    """The credentials and the budget of one request.

    Attributes:
        auth: The credentials.
        buckets: The budgets for these credentials; a server's refusal pauses these only.
    """

    auth: Auth | None
    buckets: Buckets


class TokenPool:
    """Uses tokens in turn, and skips those whose quota is used up while another has some left.

    Args:
        tokens: The credentials of each token.
        budget: How many requests each token may send; each is counted on its own, in all processes.
        server: The server's base address.
    """

    def __init__(self, tokens: Sequence[KeyAuth], budget: Budget, server: str) -> None:
        self._lanes = [Lane(one, Buckets(_own(budget, one, server), server)) for one in tokens]
        self._turn = itertools.count()
        self._lock = threading.Lock()

    def next(self, request: HttpRequest) -> Lane:
        """Returns the token whose turn it is, or the one with the shortest wait for a request."""
        with self._lock:
            first = next(self._turn) % len(self._lanes)
        turns = [*self._lanes[first:], *self._lanes[:first]]
        return min(turns, key=lambda lane: lane.buckets.paused(request))

    def apply(self, request: HttpRequest) -> HttpRequest:
        """Returns the request with the token whose turn it is."""
        auth = self.next(request).auth
        assert auth is not None
        return auth.apply(request)

    def renew(self, response: HttpResponse) -> bool:
        """Returns False, because each token is renewed by its own credentials."""
        return False

    def account(self) -> str:
        """Returns a text that identifies these accounts; it contains secrets."""
        return " ".join(one.auth.account() for one in self._lanes if isinstance(one.auth, KeyAuth))

    def __repr__(self) -> str:
        return f"TokenPool({len(self._lanes)} tokens)"


def _own(budget: Budget, token: KeyAuth, server: str) -> Budget:
    digest = hashlib.sha256(token.account().encode("utf-8", "surrogatepass")).hexdigest()[:16]
    name = f"{budget.name or urls.origin_of(server)} token {digest}"
    return Budget(budget.limits, name, budget.redis, paths=budget.paths)


class _GoogleAuth(TokenAuth):
    """A token, and the project that pays for the requests."""

    def __init__(self, tokens: TokenSource, account: str, project: str | None) -> None:
        super().__init__(tokens, Placement(), account)
        self._project = project

    def apply(self, request: HttpRequest) -> HttpRequest:
        """Returns the request with the current token."""
        request = super().apply(request)
        if self._project:
            request = request.with_header("X-Goog-User-Project", self._project)
        return request


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
    if settings.credentials is None:
        # Tokens are shared with other processes, whose machine's own account may be another one.
        account = f"{account} {_default_account()}"
    tokens = TokenSource(fetch, TokenStore(None, account))
    return _GoogleAuth(tokens, account, settings.quota_project)


def _default_account() -> str:
    """Returns what tells the machine's own account from others: a digest of its file."""
    folder = os.environ.get("CLOUDSDK_CONFIG") or "~/.config/gcloud"
    usual = Path(folder).expanduser() / "application_default_credentials.json"
    file = Path(os.environ.get("GOOGLE_APPLICATION_CREDENTIALS") or usual)
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError:  # the account of the virtual machine, or none
        return str(file)


def _credentials(settings: GoogleSettings) -> Any:
    scopes = [str(one) for one in settings.scopes]
    if settings.credentials is None:
        found, _ = google.auth.default(scopes=scopes)
        if not settings.subject:
            return found
        if not isinstance(found, service_account.Credentials):
            raise ConfigError(
                "auth of type google: subject needs a service account's key, as credentials or in "
                "GOOGLE_APPLICATION_CREDENTIALS"
            )
        act_for: Any = found.with_subject
        return act_for(settings.subject)
    given = settings.credentials
    if isinstance(given, Mapping):
        info = secrets.resolved(dict(given))
    else:
        try:
            info = json.loads(str(given))
        except ValueError:
            info = None
    if isinstance(info, dict) and info.get("type") == "authorized_user" and not settings.subject:
        return _of_person(info, scopes)
    if not isinstance(info, dict) or "private_key" not in info:
        raise ConfigError(
            "auth of type google: credentials is neither the JSON key of a service account nor "
            "that of an authorized user, which has no subject; give it as file:PATH or another "
            "reference"
        )
    secrets.register(str(info["private_key"]))
    for line in str(info["private_key"]).splitlines():
        if len(line) >= 40 and not line.startswith("-"):
            secrets.register(line)
    load: Any = service_account.Credentials.from_service_account_info
    return load(info, scopes=scopes, subject=settings.subject)


def _of_person(info: Mapping[str, Any], scopes: list[str]) -> Any:
    """Returns the credentials of a person who logged in, as Google's tools keep them."""
    for name in ("refresh_token", "client_secret"):
        if isinstance(info.get(name), str):
            secrets.register(info[name])
    load: Any = user.Credentials.from_authorized_user_info
    return load(info, scopes)
