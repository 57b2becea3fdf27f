"""Authentication as it is configured: each `type` with its settings, checked by name.

    {"type": "bearer", "token": "env:TOKEN"}
    {"type": "oauth2_client_credentials", "token_url": "...", "client_id": "...",
     "client_secret": "file:/run/secrets/crm"}

Each setting may be a reference to a secret. The classes below are the whole list of types and
settings; `AUTH_TYPES` is what a schema of configuration files is made of.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field
from types import UnionType
from typing import TYPE_CHECKING, Any, ClassVar, Union, get_args, get_origin, get_type_hints

from contextframe_beam.connectors import secrets
from contextframe_beam.connectors.http.credentials import Auth, BasicAuth, KeyAuth, Placement
from contextframe_beam.errors import ConfigError

if TYPE_CHECKING:
    from contextframe_beam.connectors.http.client import HttpClient

__all__ = ["AUTH_TYPES", "Auth", "AuthSettings", "auth_from_config", "settings_from_config"]

_PLACES = ("header", "query", "cookie")
_CLIENT_AUTHS = ("basic", "post", "none", "private_key_jwt", "client_secret_jwt")


def _about(text: str, choices: tuple[str, ...] = ()) -> Mapping[str, Any]:
    """Returns what a schema says about a setting."""
    return {"doc": text, "choices": choices}


@dataclass(repr=False)
class AuthSettings(ABC):
    """The settings of one type of authentication."""

    #: The name in `type`.
    type: ClassVar[str]

    @abstractmethod
    def build(self, http: HttpClient | None) -> Auth:
        """Makes what is put onto requests.

        Args:
            http: A client whose TLS and timeouts are used to ask for tokens.

        Raises:
            ConfigError: a setting that cannot be, or a client is needed.
        """

    def account(self) -> str:
        """Returns what tells this account from others, as text that may hold secrets.

        A token that rotates does not tell; its reference does.
        """
        told = {
            one.name: (
                str.__str__(value)
                if one.name in ("token", "refresh_token") and isinstance(value, str)
                else secrets.resolved(value)
            )
            for one in dataclasses.fields(self)
            if (value := getattr(self, one.name)) is not None
        }
        return json.dumps([self.type, told], default=str, sort_keys=True)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(***)"


@dataclass(repr=False)
class _Placed(AuthSettings):
    in_: str = field(default="header", metadata=_about("Where the credential stands.", _PLACES))
    name: str | None = field(
        default=None, metadata=_about("Name of the header, query parameter or cookie.")
    )
    prefix: str | None = field(
        default=None, metadata=_about("What stands before it in a header, such as 'Token '.")
    )

    def placement(self, name: str = "Authorization", prefix: str = "Bearer ") -> Placement:
        """Returns where the credential stands.

        Args:
            name: The header, unless one is named.
            prefix: What stands before it in the Authorization header.
        """
        if self.in_ != "header":
            if not self.name:
                raise ConfigError(f"auth: in: {self.in_} needs name: that of the {self.in_}")
            return Placement(self.in_, str(self.name), "")
        chosen = str(self.name or name)
        usual = prefix if chosen.lower() == "authorization" else ""
        return Placement("header", chosen, usual if self.prefix is None else str(self.prefix))


@dataclass(repr=False, kw_only=True)
class ApiKeySettings(_Placed):
    """A key in a header, in the query or in a cookie."""

    type: ClassVar[str] = "api_key"
    key: str = field(metadata=_about("The key, best as a reference: env:NAME."))

    def build(self, http: HttpClient | None) -> Auth:
        return KeyAuth(self.key, self.placement("X-API-Key", ""))


@dataclass(repr=False, kw_only=True)
class BearerSettings(_Placed):
    """A token that stays as it is, as `Authorization: Bearer ...`."""

    type: ClassVar[str] = "bearer"
    token: str = field(metadata=_about("The token, best as a reference."))

    def build(self, http: HttpClient | None) -> Auth:
        return KeyAuth(self.token, self.placement())


@dataclass(repr=False, kw_only=True)
class TokensSettings(_Placed):
    """Several tokens that take turns, each with limits of its own."""

    type: ClassVar[str] = "tokens"
    tokens: list[str] = field(metadata=_about("The tokens, best as references."))
    budget: dict[str, Any] | None = field(
        default=None,
        metadata=_about("How many requests each token may send, as in {per_hour: 5000}."),
    )

    def build(self, http: HttpClient | None) -> Auth:
        from contextframe_beam.connectors.http.budget import Budget
        from contextframe_beam.connectors.http.pool import TokenPool

        if not self.tokens:
            raise ConfigError("auth of type tokens needs at least one token")
        budget = Budget.from_config(self.budget) if self.budget else Budget()
        auths = [KeyAuth(token, self.placement()) for token in self.tokens]
        return TokenPool(auths, budget, _needed(http, self.type).origin)


@dataclass(repr=False, kw_only=True)
class BasicSettings(AuthSettings):
    """A user's name and password."""

    type: ClassVar[str] = "basic"
    username: str = field(metadata=_about("The user's name."))
    password: str = field(default="", metadata=_about("The password, best as a reference."))

    def build(self, http: HttpClient | None) -> Auth:
        return BasicAuth(self.username, self.password)


@dataclass(repr=False, kw_only=True)
class SessionSettings(_Placed):
    """A token that a login request gives: `login: {url: /login, json: {user: ..}}`."""

    type: ClassVar[str] = "session"
    login: dict[str, Any] = field(
        metadata=_about("The login request: url, method (POST), json, form, headers.")
    )
    token_path: str = field(
        default="token", metadata=_about("Where the token is in the JSON answer; dots go deeper.")
    )
    token_header: str | None = field(
        default=None, metadata=_about("The header of the answer that holds it instead.")
    )
    token_cookie: str | None = field(
        default=None, metadata=_about("The cookie of the answer that holds it instead.")
    )
    expires_in: float | None = field(
        default=None, metadata=_about("After how many seconds it expires, where that is known.")
    )
    totp_secret: str | None = field(
        default=None, metadata=_about("The secret of time-based one-time codes (base32).")
    )
    code_field: str | None = field(
        default=None, metadata=_about("The field of the login body that takes the code.")
    )
    code_header: str | None = field(
        default=None, metadata=_about("The header of the login request that takes the code.")
    )
    challenge: dict[str, Any] | None = field(
        default=None,
        metadata=_about(
            "The second request of a login of two steps: url, method (POST), json, form, headers. "
            "{challenge} in it stands for what the first answer gave, {code} for the code."
        ),
    )
    challenge_path: str = field(
        default="session_id",
        metadata=_about(
            "Where the first answer has the challenge's id; without it the token is there already."
        ),
    )
    token: str | None = field(
        default=None, metadata=_about("Where contextframe-beam login leaves the token: file:PATH.")
    )

    def build(self, http: HttpClient | None) -> Auth:
        from contextframe_beam.connectors.http.session import session_auth

        return session_auth(self, _needed(http, self.type))


@dataclass(repr=False, kw_only=True)
class OAuth2Settings(_Placed):
    """What all types of OAuth 2 with a token endpoint share."""

    token_url: str = field(metadata=_about("The token endpoint."))
    client_id: str = field(metadata=_about("The client's id."))
    client_secret: str | None = field(
        default=None, metadata=_about("Its secret or private key, best as a reference.")
    )
    client_auth: str | None = field(
        default=None,
        metadata=_about(
            "How the client shows itself; basic with a secret, else none.", _CLIENT_AUTHS
        ),
    )
    algorithm: str | None = field(
        default=None, metadata=_about("The algorithm of private_key_jwt or client_secret_jwt.")
    )
    scope: str | list[str] | None = field(
        default=None, metadata=_about("What is asked for; several as a list.")
    )
    params: dict[str, Any] = field(
        default_factory=dict,
        metadata=_about("More parameters for the token endpoint, such as audience."),
    )

    def build(self, http: HttpClient | None) -> Auth:
        from contextframe_beam.connectors.http.oauth import oauth_auth

        return oauth_auth(self, _needed(http, self.type))


@dataclass(repr=False, kw_only=True)
class ClientCredentialsSettings(OAuth2Settings):
    """OAuth 2, client credentials: the program itself has the account."""

    type: ClassVar[str] = "oauth2_client_credentials"


@dataclass(repr=False, kw_only=True)
class RefreshTokenSettings(OAuth2Settings):
    """OAuth 2 with a refresh token; one that rotates is stored back to its file or keyring."""

    type: ClassVar[str] = "oauth2_refresh_token"
    refresh_token: str = field(
        metadata=_about("The refresh token: file:PATH or keyring:NAME, env: if it stays.")
    )


@dataclass(repr=False, kw_only=True)
class AuthorizationCodeSettings(OAuth2Settings):
    """OAuth 2, a user who agrees in the browser (with PKCE): run contextframe-beam login."""

    type: ClassVar[str] = "oauth2_authorization_code"
    authorize_url: str = field(metadata=_about("The page on which the user agrees."))
    authorize_params: dict[str, Any] = field(
        default_factory=dict, metadata=_about("More parameters for it.")
    )
    redirect_port: int = field(
        default=0, metadata=_about("The port of http://127.0.0.1 to come back to; 0: any.")
    )
    redirect_path: str = field(default="/callback", metadata=_about("The path to come back to."))
    token: str | None = field(
        default=None,
        metadata=_about("Where the login leaves the token: file:PATH or keyring:NAME."),
    )


@dataclass(repr=False, kw_only=True)
class DeviceCodeSettings(OAuth2Settings):
    """OAuth 2, a code that is typed in on another device: run contextframe-beam login."""

    type: ClassVar[str] = "oauth2_device_code"
    device_url: str = field(metadata=_about("The endpoint that gives the code."))
    token: str | None = field(
        default=None,
        metadata=_about("Where the login leaves the token: file:PATH or keyring:NAME."),
    )


@dataclass(repr=False, kw_only=True)
class JwtBearerSettings(_Placed):
    """A JWT that is signed here: exchanged for a token at `token_url`, or sent itself."""

    type: ClassVar[str] = "jwt_bearer"
    key: str = field(
        metadata=_about("The private key (PEM) or shared secret, best as a reference.")
    )
    algorithm: str = field(default="RS256", metadata=_about("RS256, ES256, HS256, EdDSA, ..."))
    token_url: str | None = field(
        default=None, metadata=_about("Where it is exchanged for a token (RFC 7523).")
    )
    issuer: str | None = field(default=None, metadata=_about("The claim iss."))
    subject: str | None = field(default=None, metadata=_about("The claim sub."))
    audience: str | list[str] | None = field(
        default=None, metadata=_about("The claim aud; token_url by default.")
    )
    lifetime: float = field(default=300, metadata=_about("After how many seconds it expires."))
    claims: dict[str, Any] = field(default_factory=dict, metadata=_about("More claims."))
    header: dict[str, Any] = field(
        default_factory=dict, metadata=_about("More header fields, such as kid.")
    )
    scope: str | list[str] | None = field(
        default=None, metadata=_about("What is asked for at token_url.")
    )
    params: dict[str, Any] = field(
        default_factory=dict, metadata=_about("More parameters for token_url.")
    )

    def build(self, http: HttpClient | None) -> Auth:
        from contextframe_beam.connectors.http.oauth import jwt_auth

        return jwt_auth(self, http if self.token_url is None else _needed(http, self.type))


@dataclass(repr=False, kw_only=True)
class GoogleSettings(AuthSettings):
    """A Google service account, or the application default credentials of the machine."""

    type: ClassVar[str] = "google"
    scopes: list[str] = field(metadata=_about("The scopes to ask for."))
    credentials: str | dict[str, Any] | None = field(
        default=None,
        metadata=_about(
            "The service account's JSON key as a reference; the machine's own account by default."
        ),
    )
    subject: str | None = field(
        default=None, metadata=_about("The user to act for (domain-wide delegation).")
    )
    quota_project: str | None = field(default=None, metadata=_about("The project that pays."))

    def build(self, http: HttpClient | None) -> Auth:
        from contextframe_beam.connectors.http.google import google_auth

        return google_auth(self, http)


#: Each type by its name.
AUTH_TYPES: Mapping[str, type[AuthSettings]] = {
    one.type: one
    for one in (
        ApiKeySettings,
        BearerSettings,
        TokensSettings,
        BasicSettings,
        SessionSettings,
        ClientCredentialsSettings,
        RefreshTokenSettings,
        AuthorizationCodeSettings,
        DeviceCodeSettings,
        JwtBearerSettings,
        GoogleSettings,
    )
}


def auth_from_config(
    config: Mapping[str, Any] | None, http: HttpClient | None = None
) -> Auth | None:
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
    return settings_from_config(config).build(http)


def settings_from_config(config: Mapping[str, Any]) -> AuthSettings:
    """Returns the checked settings.

    Raises:
        ConfigError: an unknown type or setting, or one that is missing; the message says which.
    """
    name = config.get("type")
    kind = AUTH_TYPES.get(str(name)) if name is not None else None
    if kind is None:
        raise ConfigError(f"auth: {_unknown('type', name, AUTH_TYPES)}")
    where = f"auth of type {name}"
    fields = {one.name.rstrip("_"): one for one in dataclasses.fields(kind)}
    given = {key: value for key, value in config.items() if key != "type" and value is not None}
    for key in given:
        if key not in fields:
            raise ConfigError(f"{where}: {_unknown('setting', key, fields)}")
    missing = [
        key
        for key, one in fields.items()
        if key not in given and one.default is MISSING and one.default_factory is MISSING
    ]
    if missing:
        raise ConfigError(f"{where} needs {' and '.join(missing)}")
    hints = get_type_hints(kind)
    for key, value in given.items():
        _check(where, key, fields[key], hints[fields[key].name], value)
        secrets.register_literals(value, key)
    values = {fields[key].name: secrets.referenced(value) for key, value in given.items()}
    return kind(**values)


def _check(where: str, key: str, one: dataclasses.Field[Any], hint: Any, value: Any) -> None:
    choices = one.metadata["choices"]
    if choices and value not in choices:
        raise ConfigError(f"{where}: {_unknown(key, value, choices)}")
    if not _fits(hint, value):
        expected = str(one.type).replace(" | None", "").replace("|", "or")
        raise ConfigError(f"{where}: {key} is {type(value).__name__}, not {expected}")


def _fits(hint: Any, value: Any) -> bool:
    kind = get_origin(hint) or hint
    if kind in (Union, UnionType):
        return any(_fits(one, value) for one in get_args(hint))
    if kind is float:
        kind = (int, float)
    return isinstance(value, kind) and not isinstance(value, bool)


def _unknown(what: str, name: Any, known: Any) -> str:
    near = difflib.get_close_matches(str(name), list(known), 1, cutoff=0.5)
    hint = f"; did you mean {near[0]}?" if near else ""
    given = "is missing" if name is None else f"{name!r} is not known"
    return f"{what} {given}{hint} (known: {', '.join(known)})"


def _needed(http: HttpClient | None, name: str) -> HttpClient:
    if http is None:
        raise ConfigError(f"auth of type {name} asks a server for tokens, so it needs a client")
    return http
