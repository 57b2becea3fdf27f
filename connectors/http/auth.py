"""Makes authentication from the settings of each type.

`settings` lists the types and their settings.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from http.cookies import CookieError, SimpleCookie
from typing import Any

from contextframe_beam.connectors import secrets
from contextframe_beam.connectors.http.budget import Budget
from contextframe_beam.connectors.http.credentials import (
    Auth,
    BasicAuth,
    KeyAuth,
    Placement,
    Sender,
    TokenAuth,
    TokenPool,
)
from contextframe_beam.connectors.http.request import HttpRequest, HttpResponse
from contextframe_beam.connectors.http.settings import (
    AUTH_TYPES,
    ApiKeySettings,
    AuthSettings,
    BasicSettings,
    BearerSettings,
    GithubAppSettings,
    GoogleSettings,
    JwtBearerSettings,
    LoginRequest,
    OAuth2Settings,
    SessionSettings,
    TokensSettings,
    settings_from_config,
)
from contextframe_beam.connectors.http.tokens import Token, TokenSource, TokenStore
from contextframe_beam.errors import ConfigError, ConnectorError

__all__ = ["AUTH_TYPES", "Auth", "AuthSettings", "auth_from_config", "settings_from_config"]


def auth_from_config(config: Mapping[str, Any] | None, http: Sender | None = None) -> Auth | None:
    """Makes the authentication that a configuration describes.

    Args:
        config: `type` and the settings of that type; None or empty means no authentication.
        http: A client whose TLS settings and timeouts are used to request tokens; relative
            addresses are below its base.

    Raises:
        ConfigError: a type or setting is unknown or missing; the message says which.
    """
    if not config:
        return None
    return _auth(settings_from_config(config), http)


def _auth(settings: AuthSettings, http: Sender | None) -> Auth:
    # Protocols are imported when they are used, because authlib and google-auth load slowly.
    match settings:
        case ApiKeySettings():
            return KeyAuth(settings.key, Placement.of(settings, "X-API-Key", ""))
        case BearerSettings():
            return KeyAuth(settings.token, Placement.of(settings))
        case BasicSettings():
            return BasicAuth(settings.username, settings.password)
        case GoogleSettings():
            from contextframe_beam.connectors.http.credentials import google_auth

            return google_auth(settings, http)
        case JwtBearerSettings():
            from contextframe_beam.connectors.http.oauth import jwt_auth

            exchanged = settings.token_url is not None
            return jwt_auth(settings, _needed(settings, http) if exchanged else http)
        case GithubAppSettings():
            from contextframe_beam.connectors.http.oauth import github_app_auth

            return github_app_auth(settings, _needed(settings, http))
        case TokensSettings():
            budget = Budget() if settings.budget is None else Budget.of(settings.budget)
            auths = [KeyAuth(token, Placement.of(settings)) for token in settings.tokens]
            return TokenPool(auths, budget, _needed(settings, http).absolute(""))
        case SessionSettings():
            return session_auth(settings, _needed(settings, http))
        case OAuth2Settings():
            from contextframe_beam.connectors.http.oauth import oauth_auth

            return oauth_auth(settings, _needed(settings, http))
    raise TypeError(f"there is no authentication for {type(settings).__name__}")


def _needed(settings: AuthSettings, http: Sender | None) -> Sender:
    if http is None:
        raise ConfigError(
            f"auth of type {settings.type} asks a server for tokens, so it needs a client"
        )
    return http


def session_auth(settings: SessionSettings, http: Sender) -> Auth:
    """Makes authentication with the token from a login request.

    Raises:
        ConfigError: a token is configured although the login does not ask a person.
    """
    reference = None if settings.token is None else str.__str__(settings.token)
    store = TokenStore(reference, f"{http.absolute(settings.login.url)} {settings.account()}")

    def fetch(last: Token | None) -> Token:
        if needs_person(settings):
            raise ConnectorError(
                f"the session at {secrets.redact(str(settings.login.url))} has ended, and its "
                "login asks for a code that a person types in; run contextframe-beam login"
            )
        return log_in(settings, http)

    account = settings.account()
    if reference is not None and not needs_person(settings):
        raise ConfigError(
            "auth of type session: token is for logins that ask a person for a code; without "
            "code_field, code_header or challenge, or with totp_secret, leave it out"
        )
    return TokenAuth(TokenSource(fetch, store), Placement.of(settings), account)


def needs_person(settings: SessionSettings) -> bool:
    """Returns whether a login asks a person for a code."""
    takes_code = (settings.code_field, settings.code_header, settings.challenge)
    return any(one is not None for one in takes_code) and settings.totp_secret is None


def log_in(settings: SessionSettings, http: Sender, ask: Callable[[], str] | None = None) -> Token:
    """Logs in and returns the token that the server gives.

    Args:
        settings: What to send, and where the token is in the answer.
        http: A client whose TLS and timeouts are used.
        ask: Asks a person for the one-time code. A login in two steps asks after the first step,
            which may send the code to the person.

    Raises:
        HttpError: the login is refused.
        ConnectorError: there is no token in the answer.
    """
    login = _values(settings.login)
    if settings.challenge is None:
        code = _code(settings, ask)
        if code is not None and settings.code_header:
            login["headers"] = {**(login["headers"] or {}), settings.code_header: code}
        elif code is not None:
            body = "form" if login["form"] is not None else "json"
            login[body] = {**(login[body] or {}), settings.code_field or "otp": code}
    response = _sent(login, http)
    if settings.challenge is not None:
        challenge = _at(response.json(), settings.challenge_path)
        # Without a challenge the server already trusts this client and gives the token.
        if challenge:
            told = {"challenge": str(challenge), "code": _code(settings, ask) or ""}
            response = _sent(_filled(_values(settings.challenge), told), http)
    access = _token_in(response, settings)
    renew: dict[str, Any] = {"access_token": access, "expires_in": settings.expires_in}
    return Token.of(renew)


def _values(request: LoginRequest) -> dict[str, Any]:
    values: dict[str, Any] = secrets.resolved(request.model_dump(by_alias=True))
    return values


def _sent(login: Mapping[str, Any], http: Sender) -> HttpResponse:
    url = http.absolute(str(login["url"]))
    request = HttpRequest(
        str(login["method"]).upper(),
        url,
        params=login["params"] or {},
        headers=login["headers"] or {},
        json=login["json"],
        form=login["form"],
        safe_to_repeat=True,
    )
    return http.for_origin(url).send(request)


def _code(settings: SessionSettings, ask: Callable[[], str] | None) -> str | None:
    code = None
    if settings.totp_secret is not None:
        code = _one_time_code(str(settings.totp_secret))
    elif ask is not None:
        code = ask().strip()
    if code:
        secrets.register(code)
    return code


def _filled(value: Any, told: Mapping[str, str]) -> Any:
    """Returns a request with its placeholders for the challenge and the code filled in."""
    if isinstance(value, str):
        return re.sub(r"\{(challenge|code)\}", lambda match: told[match[1]], value)
    if isinstance(value, dict):
        return {key: _filled(one, told) for key, one in value.items()}
    return [_filled(one, told) for one in value] if isinstance(value, list) else value


def _at(value: Any, path: str) -> Any:
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _token_in(response: HttpResponse, settings: SessionSettings) -> str:
    if settings.token_header is not None:
        found: Any = response.headers.get(settings.token_header)
        where = f"header {settings.token_header}"
    elif settings.token_cookie is not None:
        found = _cookie(response.headers.getlist("Set-Cookie"), settings.token_cookie)
        where = f"cookie {settings.token_cookie}"
    else:
        found = _at(response.json(), settings.token_path)
        where = settings.token_path
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


def token_or_refresh(
    needs: str,
    token: str | None,
    client_id: str | None,
    client_secret: str | None,
    refresh_token: str | None,
    **oauth: Any,
) -> dict[str, Any]:
    """Returns the settings of an account that has a token, or a refresh token of an app.

    Args:
        needs: What to say where there are no credentials, or two kinds of them.
        token: The token.
        client_id: The id of the app.
        client_secret: Its secret.
        refresh_token: The refresh token.
        **oauth: What else the service needs to know for a new token, such as `token_url`.

    Raises:
        ConfigError: there are no credentials, or two kinds of them.
    """
    if token is not None and client_id is None and refresh_token is None:
        return {"type": "bearer", "token": token}
    if token is None and client_id and client_secret and refresh_token:
        return {
            "type": "oauth2_refresh_token",
            "client_id": client_id,
            "client_secret": client_secret,
            "refresh_token": refresh_token,
            **oauth,
        }
    raise ConfigError(needs)
