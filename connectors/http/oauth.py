"""OAuth 2 and signed JWTs; authlib does the protocol, our client sends the requests.

Our client sends the requests to token endpoints, so its timeouts, TLS, size limits and redaction
apply to them too.
"""

from __future__ import annotations

import secrets as _random
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl, urlencode

from authlib.oauth2.base import OAuth2Error
from authlib.oauth2.client import OAuth2Client
from authlib.oauth2.rfc7523 import ClientSecretJWT, PrivateKeyJWT
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import import_key

from contextframe_beam.connectors import secrets
from contextframe_beam.connectors.http.credentials import Auth, Placement, Sender, TokenAuth
from contextframe_beam.connectors.http.request import HttpError, HttpRequest, HttpResponse
from contextframe_beam.connectors.http.settings import (
    AuthorizationCodeSettings,
    ClientCredentialsSettings,
    DeviceCodeSettings,
    GithubAppSettings,
    JwtBearerSettings,
    OAuth2Settings,
    RefreshTokenSettings,
)
from contextframe_beam.connectors.http.tokens import (
    Token,
    TokenSource,
    TokenStore,
    require_writable,
    seconds_of,
)
from contextframe_beam.errors import ConfigError, ConnectorError

JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
DEVICE_CODE = "urn:ietf:params:oauth:grant-type:device_code"

_METHODS = {"basic": "client_secret_basic", "post": "client_secret_post"}
_KEY_TYPES = {"HS": "oct", "RS": "RSA", "PS": "RSA", "ES": "EC", "Ed": "OKP"}


class OAuthRefusal(ConnectorError):
    """A token endpoint answered with an error instead of a token.

    Attributes:
        code: The error code of the protocol, such as `invalid_grant`.
    """

    def __init__(self, message: str, code: str = "") -> None:
        super().__init__(message)
        self.code = code


def oauth_auth(settings: OAuth2Settings, http: Sender) -> Auth:
    """Makes authentication with tokens from a token endpoint."""
    url = http.absolute(settings.token_url)
    endpoint = TokenEndpoint(settings, http)
    reference: str | None = None
    if isinstance(settings, RefreshTokenSettings):
        reference = _reference(settings.refresh_token)
    elif isinstance(settings, AuthorizationCodeSettings | DeviceCodeSettings):
        reference = _reference(settings.token)

    rotates = isinstance(settings, RefreshTokenSettings) and settings.rotates
    if rotates and (reference is None or not reference.startswith("file:")):
        require_writable(reference)

    def fetch(last: Token | None) -> Token:
        if rotates:
            # A file is looked at where it is written, before the old token is used up.
            require_writable(reference)
        if isinstance(settings, ClientCredentialsSettings):
            return endpoint.ask("client_credentials")
        if isinstance(settings, RefreshTokenSettings) and reference is None and last is None:
            last = Token("", str(settings.refresh_token))
        if last is None or not last.refresh:
            raise ConnectorError(
                f"there is no token yet that could be renewed at {endpoint.shown}; run "
                "contextframe-beam login with this configuration"
            )
        return endpoint.refresh(last.refresh)

    # Without a reference, a digest of the account names the token.
    store = TokenStore(reference, f"{url} {settings.account()}")
    return TokenAuth(TokenSource(fetch, store), Placement.of(settings), settings.account())


def jwt_auth(settings: JwtBearerSettings, http: Sender | None) -> Auth:
    """Makes authentication with JWTs that are signed here."""
    url = None if settings.token_url is None or http is None else http.absolute(settings.token_url)

    def fetch(last: Token | None) -> Token:
        signed = signed_jwt(settings, url)
        if url is None or http is None:
            return Token.of({"access_token": signed, "expires_in": settings.lifetime})
        form = {**settings.params, "grant_type": JWT_BEARER, "assertion": signed}
        if settings.scope:
            form["scope"] = _scope(settings.scope)
        request = HttpRequest("POST", url, form=form, safe_to_repeat=True)
        response = http.for_origin(url).send(request, raise_for_status=False)
        return Token.of(_object_of(response))

    store = TokenStore(None, f"{url} {settings.account()}")
    return TokenAuth(TokenSource(fetch, store), Placement.of(settings), settings.account())


def signed_jwt(settings: JwtBearerSettings, url: str | None) -> str:
    """Returns a new signed JWT.

    Raises:
        ConfigError: the key does not fit the algorithm, or the algorithm is unknown.
    """
    now = int(time.time())
    claims = {
        "iss": settings.issuer,
        "sub": settings.subject,
        "aud": settings.audience or url,
        "iat": now,
        "exp": now + int(settings.lifetime),
        "jti": _random.token_urlsafe(16),
        **settings.claims,
    }
    signed = _signed(claims, str(settings.key), str(settings.algorithm), settings.header)
    if signed is None:
        raise ConfigError(
            f"auth of type jwt_bearer: no JWT can be signed with {settings.algorithm} and this "
            "key; give a PEM private key for RS, PS, ES and EdDSA, any text for HS, and claims of "
            "JSON values"
        )
    return signed


_JWT_SECONDS = 540
_JWT_BACK = 60
_INSTALLATIONS_SHOWN = 5


def github_app_auth(settings: GithubAppSettings, http: Sender) -> Auth:
    """Makes authentication with the tokens of a GitHub App's installation.

    See https://docs.github.com/en/apps/creating-github-apps/authenticating-with-a-github-app.
    """
    account = settings.account()

    def fetch(_: Token | None) -> Token:
        installation = settings.installation_id or _installation(settings, http)
        path = f"app/installations/{installation}/access_tokens"
        answer = _asked_as_app(settings, http, "POST", path)
        return Token.of({**answer, "access_token": answer.get("token")})

    store = TokenStore(None, f"{http.absolute('app')} {account}")
    return TokenAuth(TokenSource(fetch, store), Placement(), account)


def _installation(settings: GithubAppSettings, http: Sender) -> str:
    """Returns the id of the only installation of an app.

    Raises:
        ConfigError: there is none, or there are several.
    """
    found = _asked_as_app(settings, http, "GET", "app/installations")
    ids = [str(one["id"]) for one in found if isinstance(one, Mapping) and "id" in one]
    if len(ids) == 1:
        return ids[0]
    names = [f"{one['id']} ({(one.get('account') or {}).get('login')})" for one in found]
    shown = ", ".join(names[:_INSTALLATIONS_SHOWN])
    raise ConfigError(
        f"auth of type github_app: the app {settings.app_id} has "
        + (f"several installations; give installation_id: one of {shown}" if ids else "none yet")
        + ("" if ids else "; install it for the account whose repositories are read")
    )


def _asked_as_app(settings: GithubAppSettings, http: Sender, method: str, path: str) -> Any:
    now = int(time.time())
    # GitHub's clock may be behind ours, and it takes at most ten minutes.
    claims = {"iss": settings.app_id, "iat": now - _JWT_BACK, "exp": now + _JWT_SECONDS}
    signed = _signed(claims, str(settings.private_key), "RS256", {})
    if signed is None:
        raise ConfigError(
            "auth of type github_app: private_key is not an RSA private key in PEM, as GitHub "
            "gives it for download"
        )
    url = http.absolute(path)
    headers = {"Authorization": f"Bearer {signed}", "Accept": "application/vnd.github+json"}
    request = HttpRequest(
        method,
        url,
        params={"per_page": 100} if method == "GET" else {},
        headers=headers,
        safe_to_repeat=True,
    )
    try:
        answer = http.for_origin(url).send(request).json()
    except HttpError as error:
        if error.status not in (401, 403, 404):
            raise
        what = "app_id and private_key" if error.status == 401 else "installation_id"
        reason, status = f"{error}; check {what} of the GitHub App", error.status
    else:
        if isinstance(answer, list if method == "GET" else dict):
            return answer
        raise ConnectorError(f"{method} {secrets.redact(url)} was answered, but not as GitHub does")
    raise HttpError(reason, status)


def _signed(
    claims: Mapping[str, Any], key: str, algorithm: str, header: Mapping[str, Any]
) -> str | None:
    """Returns a signed JWT; None where the key does not fit the algorithm."""
    kept = secrets.resolved({name: value for name, value in claims.items() if value is not None})
    algorithm = _checked_algorithm(algorithm)
    try:
        signed = jwt.encode(
            {"alg": algorithm, **secrets.resolved(dict(header))},
            kept,
            _imported_key(key, algorithm),
            algorithms=[algorithm],
        )
    except (JoseError, ValueError, TypeError):
        return None  # the text of these errors may contain a part of the key
    secrets.register(signed)
    return signed


class TokenEndpoint:
    """Sends requests to a token endpoint.

    Args:
        settings: The client's settings.
        http: A client whose TLS and timeouts are used.
    """

    def __init__(self, settings: OAuth2Settings, http: Sender) -> None:
        self._settings = settings
        self._url = http.absolute(settings.token_url)
        self._http = http.for_origin(self._url)

    @property
    def shown(self) -> str:
        """The address, for messages."""
        return secrets.redact(self._url)

    def ask(self, grant: str, **parameters: str) -> Token:
        """Asks for a token.

        Args:
            grant: The grant type.
            **parameters: The parameters of the grant.

        Raises:
            OAuthRefusal: the endpoint refuses.
        """
        extra = self._extra()
        client = self.client()
        return self._answered(
            lambda: client.fetch_token(self._url, grant_type=grant, **{**extra, **parameters})
        )

    def refresh(self, token: str) -> Token:
        """Asks for a new token with a refresh token.

        Raises:
            OAuthRefusal: the endpoint refuses.
        """
        # Without a scope the new token keeps the old one, which every server accepts.
        client = self.client(scope=None)
        asked = self._answered(
            lambda: client.refresh_token(self._url, refresh_token=token, **self._extra())
        )
        return asked

    def post(self, url: str, fields: Mapping[str, str]) -> Any:
        """Sends a form to another endpoint of the same server, and returns its JSON object.

        Raises:
            OAuthRefusal: the endpoint refuses.
        """
        client = self.client()
        session = _Session(self._http.for_origin(url), self._settings)
        headers = {"Accept": "application/json"}
        answer = session.post(
            url, fields, headers, client.client_auth(client.token_endpoint_auth_method)
        )
        return _object_of(answer.response)

    def client(self, **changes: Any) -> Any:
        """Returns authlib's client, which sends its requests through ours."""
        settings = self._settings
        secret = None if settings.client_secret is None else str(settings.client_secret)
        method = settings.client_auth or ("basic" if secret else "none")
        options: dict[str, Any] = {
            "client_id": str(settings.client_id),
            "client_secret": secret,
            "token_endpoint_auth_method": _METHODS.get(method, method),
            "scope": _scope(settings.scope),
            **changes,
        }
        if method in ("private_key_jwt", "client_secret_jwt"):
            default = "RS256" if method == "private_key_jwt" else "HS256"
            algorithm = _checked_algorithm(str(settings.algorithm or default))
            try:
                key = _imported_key(secret or "", algorithm)
            except (JoseError, ValueError, TypeError):
                key = None  # the text of these errors may contain a part of the key
            if key is None:
                raise ConfigError(
                    f"auth: the client_secret is not a key for {algorithm}; {method} needs "
                    + ("a PEM private key" if default == "RS256" else "a text that is long enough")
                )
            options["client_secret"] = key
            client = OAuth2Client(_Session(self._http, settings), **options)
            signer = PrivateKeyJWT if method == "private_key_jwt" else ClientSecretJWT
            client.register_client_auth_method(signer(self._url, alg=algorithm))
            return client
        return OAuth2Client(_Session(self._http, settings), **options)

    def _extra(self) -> dict[str, Any]:
        resolved: dict[str, Any] = secrets.resolved(dict(self._settings.params))
        return resolved

    def _answered(self, ask: Callable[[], Mapping[str, Any]]) -> Token:
        code = ""
        try:
            return Token.of(ask())
        except OAuth2Error as error:
            code = str(error.error)
            reason = f"{error.error}: {error.description}" if error.description else code
        except HttpError:
            raise
        except ValueError as error:
            reason = str(error)
        raise _refusal(self._url, reason, code)


class _Session:
    """Looks like a session of requests to authlib."""

    def __init__(self, http: Sender, settings: OAuth2Settings) -> None:
        self._http = http
        self._is_json = settings.token_body == "json"
        self._headers = settings.token_headers or {}

    def post(
        self, url: str, data: Mapping[str, str], headers: Mapping[str, str], auth: Any
    ) -> _Answer:
        """Sends a form, signed by `auth`; or its fields as JSON."""
        # authlib changes the headers that it gets, which all its clients share.
        url, signed, body = auth.prepare("POST", url, dict(headers), urlencode(dict(data)))
        ours = {"content-length", *(["content-type"] if self._is_json else ())}
        kept = {name: value for name, value in signed.items() if name.lower() not in ours}
        fields = dict(parse_qsl(body, keep_blank_values=True))
        request = HttpRequest(
            "POST",
            url,
            headers={**kept, **self._headers},
            json=fields if self._is_json else None,
            form=fields,
            # If the answer is lost, its token is lost in any case, and so is a used refresh token.
            safe_to_repeat=True,
        )
        return _Answer(self._http.send(request, raise_for_status=False))


class _Answer:
    """Looks like a response of requests to authlib."""

    def __init__(self, response: HttpResponse) -> None:
        self.response = response
        self.status_code = response.status

    def json(self) -> Any:
        answer = self.response.json()
        # authlib fails if this is not a number.
        if isinstance(answer, dict) and seconds_of(answer.get("expires_in")) is None:
            answer.pop("expires_in", None)
        return answer

    def raise_for_status(self) -> None:
        if self.status_code >= 400:
            raise HttpError(
                f"the token endpoint {self.response.url} answered {self.status_code}: "
                f"{self.response.excerpt()}",
                self.status_code,
            )


def _object_of(response: HttpResponse) -> dict[str, Any]:
    """Returns the JSON object of an answer.

    Raises:
    OAuthRefusal: the answer is a refusal.
    """
    try:
        answer = response.json()
    except ConnectorError:
        _Answer(response).raise_for_status()
        raise
    if isinstance(answer, dict) and "error" not in answer and response.status < 400:
        return answer
    code = str(answer.get("error", "")) if isinstance(answer, dict) else ""
    described = answer.get("error_description") if isinstance(answer, dict) else None
    reason = f"{code}: {described}" if described else code or response.excerpt()
    raise _refusal(response.url, reason, code)


def _refusal(url: str, reason: str, code: str) -> OAuthRefusal:
    advice = {
        "invalid_client": "; check client_id, client_secret and client_auth",
        "invalid_grant": "; it expired or was revoked: run contextframe-beam login again",
        "invalid_scope": "; check scope",
    }.get(code, "")
    return OAuthRefusal(
        secrets.redact(f"the token endpoint {url} gave no token: {reason}{advice}"), code
    )


def _reference(text: str | None) -> str | None:
    if text is None:
        return None
    plain = str.__str__(text)
    return plain if secrets.is_reference(plain) else None


def _scope(scope: str | list[str] | None) -> str | None:
    return " ".join(map(str, scope)) if isinstance(scope, list) else scope


def _imported_key(text: str, algorithm: str) -> Any:
    load: Any = import_key
    if text.startswith("-----BEGIN") and "\n" not in text.strip():
        text = text.replace("\\n", "\n")  # as variables of the environment often hold it
    return load(text, _KEY_TYPES[algorithm[:2]])


def _checked_algorithm(algorithm: str) -> str:
    if algorithm[:2] not in _KEY_TYPES:
        raise ConfigError(f"auth: the algorithm {algorithm!r} is not known (RS256, ES256, ...)")
    return algorithm
