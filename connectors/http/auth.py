"""Authentication as it is configured: from the settings of each type to what sends the credentials.

`settings` lists the types and what each can be told.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from contextframe_beam.connectors.http.budget import Budget
from contextframe_beam.connectors.http.credentials import (
    Auth,
    BasicAuth,
    KeyAuth,
    Placement,
    Sender,
)
from contextframe_beam.connectors.http.pool import TokenPool
from contextframe_beam.connectors.http.settings import (
    AUTH_TYPES,
    ApiKeySettings,
    AuthSettings,
    BasicSettings,
    BearerSettings,
    GoogleSettings,
    JwtBearerSettings,
    OAuth2Settings,
    SessionSettings,
    TokensSettings,
    settings_from_config,
)
from contextframe_beam.errors import ConfigError

__all__ = ["AUTH_TYPES", "Auth", "AuthSettings", "auth_from_config", "settings_from_config"]


def auth_from_config(config: Mapping[str, Any] | None, http: Sender | None = None) -> Auth | None:
    """Makes the authentication that a configuration describes.

    Args:
        config: `type` and the settings of that type; None or empty for none.
        http: A client whose TLS and timeouts are used to ask for tokens; relative addresses are
            below its base.

    Raises:
        ConfigError: an unknown type or setting, or one that is missing; the message says which.
    """
    if not config:
        return None
    return _auth(settings_from_config(config), http)


def _auth(settings: AuthSettings, http: Sender | None) -> Auth:
    # What needs a protocol is imported when it is used: authlib and google-auth take long.
    match settings:
        case ApiKeySettings():
            return KeyAuth(settings.key, Placement.of(settings, "X-API-Key", ""))
        case BearerSettings():
            return KeyAuth(settings.token, Placement.of(settings))
        case BasicSettings():
            return BasicAuth(settings.username, settings.password)
        case GoogleSettings():
            from contextframe_beam.connectors.http.google import google_auth

            return google_auth(settings, http)
        case JwtBearerSettings():
            from contextframe_beam.connectors.http.oauth import jwt_auth

            exchanged = settings.token_url is not None
            return jwt_auth(settings, _needed(settings, http) if exchanged else http)
        case TokensSettings():
            budget = Budget() if settings.budget is None else Budget.of(settings.budget)
            auths = [KeyAuth(token, Placement.of(settings)) for token in settings.tokens]
            return TokenPool(auths, budget, _needed(settings, http).origin)
        case SessionSettings():
            from contextframe_beam.connectors.http.session import session_auth

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
