"""A session: a login request gives a token, which the other requests carry."""

from __future__ import annotations

import time
from collections.abc import Mapping
from http.cookies import CookieError, SimpleCookie
from typing import TYPE_CHECKING, Any

from contextframe_beam.connectors import secrets
from contextframe_beam.connectors.http.auth import SessionSettings
from contextframe_beam.connectors.http.credentials import Auth, TokenAuth
from contextframe_beam.connectors.http.request import HttpRequest, HttpResponse
from contextframe_beam.connectors.http.tokens import Token, TokenSource, TokenStore
from contextframe_beam.errors import ConfigError, ConnectorError

if TYPE_CHECKING:
    from contextframe_beam.connectors.http.client import HttpClient

_LOGIN_FIELDS = ("url", "method", "json", "form", "headers", "params")


def session_auth(settings: SessionSettings, http: HttpClient) -> Auth:
    """Makes authentication with the token of a login request.

    Raises:
        ConfigError: the login request is not described.
    """
    _check(settings)
    reference = None if settings.token is None else str.__str__(settings.token)
    store = TokenStore(reference, f"{http.absolute(settings.login['url'])} {settings.account()}")

    def fetch(last: Token | None) -> Token:
        if needs_person(settings):
            raise ConnectorError(
                f"the session at {secrets.redact(str(settings.login['url']))} has ended, and its "
                "login asks for a code that a person types in; run contextframe-beam login"
            )
        return log_in(settings, http)

    account = settings.account()
    if reference is not None and not needs_person(settings):
        raise ConfigError(
            "auth of type session: token is for logins that ask a person for a code; without "
            "code_field or code_header, or with totp_secret, leave it out"
        )
    return TokenAuth(TokenSource(fetch, store), settings.placement(), account)


def needs_person(settings: SessionSettings) -> bool:
    """Tells whether a login asks somebody for a code."""
    takes_code = settings.code_field is not None or settings.code_header is not None
    return takes_code and settings.totp_secret is None


def log_in(settings: SessionSettings, http: HttpClient, code: str | None = None) -> Token:
    """Sends the login request and returns the token it gives.

    Args:
        settings: What to send, and where the token is in the answer.
        http: A client whose TLS and timeouts are used.
        code: The one-time code, when a person typed it in.

    Raises:
        HttpError: the login is refused.
        ConnectorError: there is no token in the answer.
    """
    _check(settings)
    login: Mapping[str, Any] = secrets.resolved(dict(settings.login))
    json, form = login.get("json"), login.get("form")
    headers = dict(login.get("headers") or {})
    if code is None and settings.totp_secret is not None:
        code = _one_time_code(str(settings.totp_secret))
    if code is not None:
        secrets.register(code)
        if settings.code_header:
            headers[settings.code_header] = code
        elif form is not None:
            form = {**form, settings.code_field or "otp": code}
        else:
            json = {**(json or {}), settings.code_field or "otp": code}
    url = http.absolute(str(login["url"]))
    request = HttpRequest(
        str(login.get("method", "POST")).upper(),
        url,
        params=login.get("params") or {},
        headers=headers,
        json=json,
        form=form,
    )
    response = http.for_origin(url).send(request)
    access = _token_in(response, settings)
    renew: dict[str, Any] = {"access_token": access, "expires_in": settings.expires_in}
    return Token.of(renew)


def _token_in(response: HttpResponse, settings: SessionSettings) -> str:
    if settings.token_header is not None:
        found: Any = response.headers.get(settings.token_header)
        where = f"header {settings.token_header}"
    elif settings.token_cookie is not None:
        found = _cookie(response.headers.getlist("Set-Cookie"), settings.token_cookie)
        where = f"cookie {settings.token_cookie}"
    else:
        found = response.json()
        where = settings.token_path
        for name in settings.token_path.split("."):
            found = found.get(name) if isinstance(found, dict) else None
    if not isinstance(found, str | int) or isinstance(found, bool) or found == "":
        raise ConnectorError(
            f"the login at {response.url} was answered {response.status}, but there is no token "
            f"in it at {where}; set token_path, token_header or token_cookie"
        )
    return str(found)


def _cookie(headers: list[str], name: str) -> str | None:
    for header in headers:
        jar: SimpleCookie = SimpleCookie()
        try:
            jar.load(header)
        except CookieError:
            continue
        if name in jar:
            return jar[name].value
    return None


def _one_time_code(secret: str) -> str:
    import pyotp

    try:
        return pyotp.TOTP(secret.replace(" ", "")).at(int(time.time()))
    except (ValueError, TypeError):
        message = "auth of type session: totp_secret is not base32 text, as a QR code holds it"
    raise ConfigError(message)


def _check(settings: SessionSettings) -> None:
    unknown = [key for key in settings.login if key not in _LOGIN_FIELDS]
    if "url" not in settings.login or unknown:
        known = ", ".join(_LOGIN_FIELDS)
        problem = f"has no {unknown[0]!r}" if unknown else "needs url"
        raise ConfigError(f"auth of type session: login {problem} (it has {known})")
