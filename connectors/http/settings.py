"""The settings of a client in a configuration: authentication, budget and cache.

    {"type": "bearer", "token": "env:TOKEN"}
    {"type": "oauth2_client_credentials", "token_url": "...", "client_id": "...",
     "client_secret": "file:/run/secrets/crm"}

Each setting may be a reference to a secret. The classes below are the complete list of types and
settings, for Python and for the configuration file of an API. The text below each setting is its
description in the JSON Schema.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias, cast, get_args

from pydantic import BeforeValidator, Discriminator, Field, model_validator

from contextframe_beam.connectors import secrets
from contextframe_beam.connectors.cursors import seconds_of
from contextframe_beam.connectors.http.section import Section, checked, needs_type, wrong

#: The largest number of requests that a limit may allow.
MOST_REQUESTS = 10_000_000


def _checked_duration(value: Any) -> Any:
    try:
        seconds_of(value)
    except ValueError:
        shown = repr(value) if isinstance(value, str) else json.dumps(value, default=str)
        raise wrong((), f"is {shown}; write a duration such as 90s, 12h or 30d") from None
    return value


Duration = Annotated[
    str | float,
    BeforeValidator(_checked_duration),
    Field(json_schema_extra={"examples": ["90s", "12h", "30d"]}),
]
Rate = Annotated[float, Field(gt=0, le=MOST_REQUESTS)]


class LimitSettings(Section):
    """How many requests may be sent to one path; none of these where only the server knows."""

    per_second: Rate | None = None
    """Requests a second."""
    per_minute: Rate | None = None
    """Requests a minute."""
    per_hour: Rate | None = None
    """Requests an hour."""

    @property
    def is_limited(self) -> bool:
        """Whether it states a limit."""
        return any(one is not None for one in (self.per_second, self.per_minute, self.per_hour))


class BudgetSettings(LimitSettings):
    """How many requests may be sent, by all threads and worker processes together."""

    burst: Annotated[int, Field(ge=1, le=MOST_REQUESTS)] | None = None
    """How many requests may be sent at once after a pause."""
    paths: dict[str, LimitSettings] = Field(default_factory=dict)
    """Paths that the server counts each for itself, as patterns, and their limits."""
    name: str | None = None
    """Budgets with the same name and server are shared, even between sources."""
    redis: str | None = Field(default=None, repr=False)
    """The address of a Redis server that workers on several machines share."""

    @model_validator(mode="after")
    def _check_limits(self) -> BudgetSettings:
        if not self.is_limited and (self.burst is not None or not self.paths):
            raise wrong((), "needs a limit: one of per_second, per_minute, per_hour")
        return self


def _as_text(value: Any) -> Any:
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _as_name(value: Any) -> Any:
    """Returns text for an id that YAML read as a number."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _as_whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


class CacheSettings(Section):
    """Answers that are kept on disk, shared by all worker processes."""

    ttl: Duration
    """How long an answer is used without asking again."""
    path: Annotated[str, BeforeValidator(_as_text)] | None = None
    """The file for the answers."""
    max_bytes: Annotated[int, Field(ge=1), BeforeValidator(_as_whole)] | None = None
    """The largest number of bytes to keep."""


class AuthSettings(Section):
    """The settings of one type of authentication."""

    type: str
    """The name of the type."""

    def account(self) -> str:
        """Returns a text that identifies this account; it may contain secrets.

        A token that rotates does not identify it; the token's reference does.
        """
        told = {
            name: (
                str.__str__(value)
                if name in ("token", "refresh_token") and isinstance(value, str)
                else secrets.resolved(_plain(value))
            )
            for name in type(self).model_fields
            if name != "type" and (value := getattr(self, name)) is not None
        }
        return json.dumps([self.type, told], default=str, sort_keys=True)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(***)"

    __str__ = __repr__


class PlacedSettings(AuthSettings):
    """An authentication that can put its credential in several places of a request."""

    in_: Literal["header", "query", "cookie"] = Field(default="header", alias="in")
    """Where the credential goes."""
    name: str | None = None
    """Name of the header, query parameter or cookie."""
    prefix: str | None = None
    """The text before it in a header, such as 'Token '."""

    @model_validator(mode="after")
    def _check_name(self) -> PlacedSettings:
        if self.in_ != "header" and not self.name:
            raise wrong(
                ("in",), f"is {self.in_!r}, so that auth needs name: that of the {self.in_}"
            )
        return self


class ApiKeySettings(PlacedSettings):
    """A key in a header, in the query or in a cookie."""

    type: Literal["api_key"]
    key: str
    """The key, best as a reference: env:NAME."""


class BearerSettings(PlacedSettings):
    """A fixed token, as `Authorization: Bearer ...`."""

    type: Literal["bearer"]
    token: str
    """The token, best as a reference."""


class TokensSettings(PlacedSettings):
    """Several tokens that take turns, each with its own limits."""

    type: Literal["tokens"]
    tokens: list[str]
    """The tokens, best as references."""
    budget: BudgetSettings | None = None
    """How many requests each token may send, as in {per_hour: 5000}."""

    @model_validator(mode="after")
    def _check_tokens(self) -> TokensSettings:
        if not self.tokens:
            raise wrong(("tokens",), "needs at least one token")
        return self


class BasicSettings(AuthSettings):
    """A user's name and password."""

    type: Literal["basic"]
    username: str
    """The user's name."""
    password: str = ""
    """The password, best as a reference."""


class LoginRequest(Section):
    """A request of a login."""

    url: str
    """Its address."""
    method: str = "POST"
    """Its HTTP method."""
    json_: Any = Field(default=None, alias="json")
    """The JSON body that it sends."""
    form: dict[str, Any] | None = None
    """The form that it sends."""
    headers: dict[str, Any] | None = None
    """Its headers."""
    params: dict[str, Any] | None = None
    """Its query parameters."""


class SessionSettings(PlacedSettings):
    """A token that a login request gives: `login: {url: /login, json: {user: ..}}`."""

    type: Literal["session"]
    login: LoginRequest
    """The login request: url, method (POST), json, form, headers."""
    token_path: str = "token"
    """Where the token is in the JSON answer; dots go deeper."""
    token_header: str | None = None
    """The header of the answer that contains it instead."""
    token_cookie: str | None = None
    """The cookie of the answer that contains it instead."""
    expires_in: float | None = None
    """After how many seconds it expires, if that is known."""
    totp_secret: str | None = None
    """The secret of time-based one-time codes (base32)."""
    code_field: str | None = None
    """The field of the login body that takes the code."""
    code_header: str | None = None
    """The header of the login request that takes the code."""
    challenge: LoginRequest | None = None
    """The second request of a login of two steps: url, method (POST), json, form, headers.
    {challenge} in it stands for the id from the first answer, {code} for the code."""
    challenge_path: str = "session_id"
    """Where the first answer has the challenge's id; an answer without it has the token."""
    token: str | None = None
    """Where contextframe-beam login stores the token: file:PATH."""


class OAuth2Settings(PlacedSettings):
    """The settings that all types of OAuth 2 with a token endpoint share."""

    token_url: str
    """The token endpoint."""
    client_id: str
    """The client's id."""
    client_secret: str | None = None
    """Its secret or private key, best as a reference."""
    client_auth: Literal["basic", "post", "none", "private_key_jwt", "client_secret_jwt"] | None = (
        None
    )
    """How the client identifies itself; by default basic with a secret, else none."""
    algorithm: str | None = None
    """The algorithm of private_key_jwt or client_secret_jwt."""
    scope: str | list[str] | None = None
    """The scope to ask for, or a list of scopes."""
    params: dict[str, Any] = Field(default_factory=dict)
    """More parameters for the token endpoint, such as audience."""
    token_body: Literal["form", "json"] | None = None
    """How the token endpoint takes parameters: as a form, like nearly all servers, or as JSON."""
    token_headers: dict[str, str] | None = None
    """Headers that the token endpoint asks for."""


class ClientCredentialsSettings(OAuth2Settings):
    """OAuth 2, client credentials: the account belongs to the program itself."""

    type: Literal["oauth2_client_credentials"]


class RefreshTokenSettings(OAuth2Settings):
    """OAuth 2 with a refresh token; a new one is stored in its file or keyring in its place."""

    type: Literal["oauth2_refresh_token"]
    refresh_token: str
    """The refresh token: file:PATH or keyring:NAME, or env: if it does not change."""
    rotates: bool = False
    """Whether each renewal gives a new one, so that a place that cannot be written is refused."""


class AuthorizationCodeSettings(OAuth2Settings):
    """OAuth 2, a user who agrees in the browser (with PKCE): run contextframe-beam login."""

    type: Literal["oauth2_authorization_code"]
    authorize_url: str
    """The page on which the user agrees."""
    authorize_params: dict[str, Any] = Field(default_factory=dict)
    """More parameters for it."""
    redirect_port: int = 0
    """The port of http://127.0.0.1 to come back to; 0: any."""
    redirect_path: str = "/callback"
    """The path to come back to."""
    token: str | None = None
    """Where the login leaves the token: file:PATH or keyring:NAME."""


class DeviceCodeSettings(OAuth2Settings):
    """OAuth 2, with a code to type on another device: run contextframe-beam login."""

    type: Literal["oauth2_device_code"]
    device_url: str
    """The endpoint that gives the code."""
    token: str | None = None
    """Where the login leaves the token: file:PATH or keyring:NAME."""


class JwtBearerSettings(PlacedSettings):
    """A JWT that we sign: it is exchanged for a token at `token_url`, or sent itself."""

    type: Literal["jwt_bearer"]
    key: str
    """The private key (PEM) or shared secret, best as a reference."""
    algorithm: str = "RS256"
    """RS256, ES256, HS256, EdDSA, ..."""
    token_url: str | None = None
    """Where it is exchanged for a token (RFC 7523)."""
    issuer: str | None = None
    """The claim iss."""
    subject: str | None = None
    """The claim sub."""
    audience: str | list[str] | None = None
    """The claim aud; token_url by default."""
    lifetime: float = 300
    """After how many seconds it expires."""
    claims: dict[str, Any] = Field(default_factory=dict)
    """More claims."""
    header: dict[str, Any] = Field(default_factory=dict)
    """More header fields, such as kid."""
    scope: str | list[str] | None = None
    """The scope to ask for at token_url."""
    params: dict[str, Any] = Field(default_factory=dict)
    """More parameters for token_url."""


class GithubAppSettings(AuthSettings):
    """A GitHub App: its key signs a JWT, which asks for the tokens of one installation."""

    type: Literal["github_app"]
    app_id: Annotated[str, BeforeValidator(_as_name)]
    """The app's id, or its client id."""
    private_key: str
    """The app's private key (PEM), best as a reference: file:PATH."""
    installation_id: Annotated[str, BeforeValidator(_as_name)] | None = None
    """The installation; found where the app has only one."""


class GoogleSettings(AuthSettings):
    """A Google service account, or the application default credentials of the machine."""

    type: Literal["google"]
    scopes: list[str]
    """The scopes to ask for."""
    credentials: str | dict[str, Any] | None = None
    """The JSON key of a service account or an authorized user as a reference; the machine's own
    account by default."""
    subject: str | None = None
    """The user to act for (domain-wide delegation)."""
    quota_project: str | None = None
    """The project that pays."""


_AnyAuth: TypeAlias = (
    ApiKeySettings
    | BearerSettings
    | TokensSettings
    | BasicSettings
    | SessionSettings
    | ClientCredentialsSettings
    | RefreshTokenSettings
    | AuthorizationCodeSettings
    | DeviceCodeSettings
    | JwtBearerSettings
    | GithubAppSettings
    | GoogleSettings
)

#: Each type of authentication by its name.
AUTH_TYPES: Mapping[str, type[AuthSettings]] = {
    get_args(one.model_fields["type"].annotation)[0]: one for one in get_args(_AnyAuth)
}

#: The settings of any type; `type` selects the class.
AuthSetting = Annotated[_AnyAuth, Discriminator("type"), needs_type(AUTH_TYPES)]


def settings_from_config(config: Mapping[str, Any]) -> AuthSettings:
    """Returns the checked settings of an authentication.

    Args:
        config: `type` and the settings of that type.

    Raises:
        ConfigError: a type or setting is unknown, missing or invalid; the message says which.
    """
    return checked(cast("type[AuthSettings]", AuthSetting), config, "auth")


def _plain(value: Any) -> Any:
    if isinstance(value, Section):
        return value.model_dump(by_alias=True, exclude_unset=True)
    return value
