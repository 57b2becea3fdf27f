"""Logs a person in before a pipeline starts, and stores the token under a reference.

The browser comes back to a port of this machine (authorization code with PKCE), a person types a
code on another device (device code), or a login request takes a one-time code. Afterwards a worker
needs only the reference.
"""

from __future__ import annotations

import hashlib
import os
import time
import webbrowser
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from authlib.common.security import generate_token

from contextframe_beam.connectors import secrets
from contextframe_beam.connectors.http import request
from contextframe_beam.connectors.http.auth import log_in, needs_person
from contextframe_beam.connectors.http.client import HttpClient
from contextframe_beam.connectors.http.oauth import DEVICE_CODE, OAuthRefusal, TokenEndpoint
from contextframe_beam.connectors.http.request import HttpError, logger
from contextframe_beam.connectors.http.settings import (
    AuthorizationCodeSettings,
    AuthSettings,
    DeviceCodeSettings,
    OAuth2Settings,
    SessionSettings,
    settings_from_config,
)
from contextframe_beam.connectors.http.tokens import Token, write_token
from contextframe_beam.errors import ConfigError, ConnectorError

#: How many seconds a person may take to agree.
PATIENCE = 300.0

_DEFAULT_INTERVAL = 5.0
_SLOWER = 5.0
_PAGE = "<!doctype html><meta charset=utf-8><title>{0}</title><p>{0}. You can close this window."


def login(
    config: Mapping[str, Any],
    *,
    open_browser: Callable[[str], object] = webbrowser.open,
    say: Callable[[str], object] = logger.warning,
    ask: Callable[[str], str] = input,
    patience: float = PATIENCE,
) -> str:
    """Logs a person in, and stores the token.

    Args:
        config: `base_url` and `auth` as for a connector (`ca_bundle` and `timeout` apply too), or
            the settings of `auth` alone.
        open_browser: Shows an address to the person.
        say: Tells the person what to do.
        ask: Asks the person for a code.
        patience: How many seconds the person may take.

    Returns:
        The reference of the stored token: the `token` of the configuration, else one in the
        system's keyring, else a file that only its owner can read.

    Raises:
        ConfigError: this type of authentication needs no login.
        ConnectorError: the login was refused, or took too long.
    """
    settings = settings_from_config(config.get("auth") or config)
    http = _client(config, settings)
    if isinstance(settings, AuthorizationCodeSettings):
        token = _authorized(settings, http, open_browser, say, patience)
    elif isinstance(settings, DeviceCodeSettings):
        token = _entered(settings, http, open_browser, say, patience)
    elif isinstance(settings, SessionSettings) and needs_person(settings):
        prompt = f"One-time code for {request.shown(http.absolute(settings.login.url))}: "
        token = log_in(settings, http, lambda: ask(prompt))
    else:
        raise ConfigError(f"auth of type {settings.type} needs no login: a run logs in by itself")
    reference = str.__str__(settings.token) if settings.token else _new_reference(settings)
    write_token(reference, token)
    return reference


def _authorized(
    settings: AuthorizationCodeSettings,
    http: HttpClient,
    open_browser: Callable[[str], object],
    say: Callable[[str], object],
    patience: float,
) -> Token:
    endpoint = TokenEndpoint(settings, http)
    verifier = generate_token(64)
    with _Loopback(settings.redirect_port, settings.redirect_path) as loopback:
        client = endpoint.client(redirect_uri=loopback.url, code_challenge_method="S256")
        address, state = client.create_authorization_url(
            http.absolute(settings.authorize_url),
            code_verifier=verifier,
            **secrets.resolved(settings.authorize_params),
        )
        say(f"Agree in the browser; if none opens, go to {address}")
        open_browser(address)
        came_back = loopback.wait(patience)
    answer = {name: values[0] for name, values in parse_qs(urlsplit(came_back).query).items()}
    if "error" in answer:
        described = answer.get("error_description") or answer["error"]
        raise ConnectorError(secrets.redact(f"the login was refused: {described}"))
    secrets.register(answer.get("code", ""))
    return endpoint.ask(
        "authorization_code",
        authorization_response=came_back,
        state=state,
        redirect_uri=loopback.url,
        code_verifier=verifier,
    )


def _entered(
    settings: DeviceCodeSettings,
    http: HttpClient,
    open_browser: Callable[[str], object],
    say: Callable[[str], object],
    patience: float,
) -> Token:
    endpoint = TokenEndpoint(settings, http)
    fields = {"client_id": str(settings.client_id)}
    if settings.scope:
        scope = settings.scope
        fields["scope"] = " ".join(scope) if isinstance(scope, list) else str(scope)
    url = http.absolute(settings.device_url)
    given = endpoint.post(url, fields)
    try:
        code, shown = str(given["device_code"]), str(given["user_code"])
        address = str(given.get("verification_uri") or given["verification_url"])
    except KeyError as error:
        raise ConnectorError(f"{request.shown(url)} gave no {error.args[0]}") from None
    secrets.register(code)
    interval = float(given.get("interval", _DEFAULT_INTERVAL))
    until = time.monotonic() + min(patience, float(given.get("expires_in", patience)))
    say(f"Go to {address} and enter {shown}")
    open_browser(str(given.get("verification_uri_complete") or address))
    while time.monotonic() + interval < until:
        time.sleep(interval)
        try:
            return endpoint.ask(DEVICE_CODE, device_code=code, client_id=str(settings.client_id))
        except OAuthRefusal as refusal:
            if refusal.code == "slow_down":
                interval += _SLOWER
            elif refusal.code != "authorization_pending":
                raise
        except HttpError as error:
            if 0 < error.status < 500:
                raise
            logger.info("asking again for the token: %s", error)
    raise ConnectorError("nobody entered the code in time; log in again")


class _Loopback:
    """Waits on a port of this machine for the browser to come back."""

    def __init__(self, port: int, path: str) -> None:
        came_back: list[str] = []

        class Handler(BaseHTTPRequestHandler):
            timeout = 10

            def do_GET(self) -> None:
                found = urlsplit(self.path).path == path
                if found:
                    came_back.append(self.path)
                text = "The login is done" if found else "There is nothing here"
                page = _PAGE.format(text).encode()
                self.send_response(200 if found else 404)
                self.send_header("Content-Type", "text/html; charset=utf-8")
                self.send_header("Content-Length", str(len(page)))
                self.end_headers()
                self.wfile.write(page)

            def log_message(self, *_: object) -> None:
                """Logs nothing, because the address contains the code."""

        self._came_back = came_back
        try:
            self._server = HTTPServer(("127.0.0.1", port), Handler)
        except OSError as error:
            raise ConnectorError(
                f"the port {port} to which the browser comes back cannot be opened "
                f"({error.strerror}); choose another redirect_port"
            ) from error
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}{path}"

    def wait(self, seconds: float) -> str:
        """Returns the address that the browser came back to.

        Raises:
            ConnectorError: it did not come back in time.
        """
        until = time.monotonic() + seconds
        while not self._came_back:
            left = until - time.monotonic()
            if left <= 0:
                raise ConnectorError("nobody agreed in the browser in time; log in again")
            self._server.timeout = left
            self._server.handle_request()
        return request.joined(self.url, self._came_back[0])

    def __enter__(self) -> _Loopback:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.server_close()


def _client(config: Mapping[str, Any], settings: AuthSettings) -> HttpClient:
    base = config.get("base_url")
    if base is None:
        if isinstance(settings, OAuth2Settings):
            base = settings.token_url
        elif isinstance(settings, SessionSettings):
            base = settings.login.url
        if not urlsplit(str(base or "")).scheme:
            raise ConfigError("give base_url beside auth, or whole addresses in auth")
        base = request.origin_of(str(base))
    options = {name: config[name] for name in ("ca_bundle", "timeout") if config.get(name)}
    return HttpClient(str(base), **options)


def _new_reference(settings: AuthSettings) -> str:
    digest = hashlib.sha256(settings.account().encode()).hexdigest()[:12]
    name = f"{settings.type}-{digest}"
    if _has_keyring():
        return f"keyring:contextframe-beam/{name}"
    home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return f"file:{home / 'contextframe-beam' / 'tokens' / name}.json"


def _has_keyring() -> bool:
    try:
        import keyring
        from keyring.core import recommended
    except ImportError:
        return False
    return bool(recommended(keyring.get_keyring()))
