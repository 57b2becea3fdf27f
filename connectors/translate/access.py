"""The authenticator of a stream in a manifest as the `auth` of `api`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from contextframe_beam.connectors.translate.jinja import template_of
from contextframe_beam.connectors.translate.manifest import Part
from contextframe_beam.connectors.translate.paging import place_of, with_added
from contextframe_beam.connectors.translate.requests import request_of, url_of
from contextframe_beam.connectors.translate.values import Names, Untranslatable, seconds_of

_SECRET = re.compile(r"(?P<before>[^{}]*)(?P<secret>\{(?:=.*|[^{}]+)\})\Z", re.S)


def auth_of(
    part: Part, names: Names, config: Mapping[str, Any]
) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    """Returns the authentication of an authenticator, and the parts of requests that it adds.

    Args:
        part: The authenticator.
        names: What the names of its templates stand for.
        config: The settings that the user gave, which choose among several authenticators.

    Raises:
        Untranslatable: it authenticates in a way that `api` does not.
    """
    kind = part.get("type")
    if not part or kind in (None, "NoAuth"):
        return None, {}
    translate = _KINDS.get(str(kind))
    if translate is None:
        name = part.get("class_name") or kind
        raise Untranslatable("a custom authenticator", str(name), part.line)
    return translate(part, names, config)


def _api_key(
    part: Part, names: Names, config: Mapping[str, Any]
) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    key = template_of(part.get("api_token", ""), names)
    option = part.child("inject_into")
    place = place_of(option, names) if option else f"header:{template_of(part['header'], names)}"
    where, colon, name = place.partition(":")
    if where in ("body", "form"):
        return None, {place: key}
    made = {"type": "api_key", **_with_prefix("key", key, part)}
    if where == "header":
        return {**made, "name": name}, {}
    if "prefix" in made:
        raise Untranslatable("a secret within a parameter", place, part.line)
    return {**made, "in": "query", "name": name if colon else place}, {}


def _bearer(
    part: Part, names: Names, config: Mapping[str, Any]
) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    token = template_of(part.get("api_token", ""), names)
    made = _with_prefix("token", token, part)
    if "prefix" in made:
        made["prefix"] = f"Bearer {made['prefix']}"
    return {"type": "bearer", **made}, {}


def _basic(
    part: Part, names: Names, config: Mapping[str, Any]
) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    user, password = (template_of(part.get(one) or "", names) for one in ("username", "password"))
    made = {"type": "basic", "username": user or ""}
    return ({**made, "password": password} if password else made), {}


def _oauth(
    part: Part, names: Names, config: Mapping[str, Any]
) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    def given(name: str, default: Any = None) -> Any:
        found = template_of(part.get(name), names) if part.get(name) is not None else None
        return default if found in (None, "") else found

    for name in ("use_profile_assertion", "profile_assertion"):
        if part.get(name):
            raise Untranslatable("an assertion of OAuth", "", part.line_of(name))
    if given("access_token_name", "access_token") != "access_token":
        raise Untranslatable("a token of OAuth with another name", "", part.line)
    grant = given("grant_type", "refresh_token")
    made: dict[str, Any] = {
        "token_url": given("token_refresh_endpoint"),
        "client_id": given("client_id"),
        "client_secret": given("client_secret"),
        "client_auth": "post",
    }
    if made["token_url"] is None or made["client_id"] is None:
        raise Untranslatable("OAuth without a token endpoint", "", part.line)
    scopes = given("scopes")
    if scopes:
        made["scope"] = scopes
    body = dict(given("refresh_request_body", {}))
    own = ("grant_type", "client_id", "client_secret", "refresh_token", "scope")
    params = {name: value for name, value in body.items() if name not in own}
    if "scope" in body and not scopes:
        made["scope"] = body["scope"]
    if params:
        made["params"] = params
    headers = given("refresh_request_headers")
    if headers:
        made["token_headers"] = headers
        if any(str(one).lower() == "authorization" for one in headers):
            raise Untranslatable("OAuth with a header of its own", "", part.line)
    if grant == "client_credentials":
        return {"type": "oauth2_client_credentials", **made}, {}
    if grant != "refresh_token" or given("refresh_token") is None:
        raise Untranslatable(f"the OAuth grant {grant}", "", part.line)
    made["refresh_token"] = given("refresh_token")
    if part.get("refresh_token_updater"):
        made["rotates"] = True
    return {"type": "oauth2_refresh_token", **made}, {}


def _session(
    part: Part, names: Names, config: Mapping[str, Any]
) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    login = part.child("login_requester")
    resource: dict[str, Any] = request_of(login, names)
    inner, added = auth_of(login.child("authenticator"), names, config)
    with_added(resource, added)
    if inner is not None:
        if inner.get("type") != "api_key" or inner.get("prefix"):
            raise Untranslatable("a login with credentials of its own", "", login.line)
        where = "query" if inner.get("in") == "query" else "header"
        with_added(resource, {f"{where}:{inner['name']}": inner["key"]})
    request: dict[str, Any] = {
        "url": url_of(login, names),
        "method": resource.get("method", "GET"),
        **{k: resource[k] for k in ("headers", "params", "form") if k in resource},
    }
    if "body" in resource:
        request["json"] = resource["body"]
    path = [str(template_of(one, names)) for one in part.get("session_token_path") or ["token"]]
    made: dict[str, Any] = {"type": "session", "login": request, "token_path": ".".join(path)}
    expires = part.get("expiration_duration")
    if isinstance(expires, str) and seconds_of(expires):
        made["expires_in"] = seconds_of(expires)
    use = part.child("request_authentication")
    if use.get("type") == "Bearer":
        return made, {}
    where, colon, name = place_of(use.child("inject_into"), names).partition(":")
    if where in ("body", "form"):
        raise Untranslatable("the token of a session in a body", "", use.line)
    if where == "header":
        return {**made, "name": name, "prefix": ""}, {}
    return {**made, "in": "query", "name": name if colon else where}, {}


def _selective(
    part: Part, names: Names, config: Mapping[str, Any]
) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    choices = part.child("authenticators")
    chosen: Any = config
    for step in part.get("authenticator_selection_path") or []:
        chosen = chosen.get(str(step)) if isinstance(chosen, Mapping) else None
    if isinstance(chosen, str) and chosen in choices:
        return auth_of(choices.child(chosen), names, config)
    problem = None
    # Without a choice, the first way that can be said; the file can be made again with another.
    for name in choices:
        try:
            return auth_of(choices.child(name), names, config)
        except Untranslatable as error:
            problem = problem or error
    raise problem or Untranslatable("a choice without authenticators", "", part.line)


def _jwt(
    part: Part, names: Names, config: Mapping[str, Any]
) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    def given(name: str) -> Any:
        return template_of(part.get(name), names)

    if part.get("base64_encode_secret_key"):
        raise Untranslatable("a key of a JWT in base64", "", part.line)
    payload = template_of(dict(part.child("jwt_payload")), names)
    headers = template_of(dict(part.child("jwt_headers")), names)
    made = {
        "type": "jwt_bearer",
        "key": given("secret_key"),
        "algorithm": given("algorithm"),
        "issuer": payload.pop("iss", None),
        "subject": payload.pop("sub", None),
        "audience": payload.pop("aud", None),
        "lifetime": given("token_duration"),
        "claims": {**payload, **template_of(dict(part.child("additional_jwt_payload")), names)},
        "header": {**headers, **template_of(dict(part.child("additional_jwt_headers")), names)},
    }
    prefix = given("header_prefix")
    if prefix and prefix != "Bearer":
        made["prefix"] = f"{prefix} "
    return {name: value for name, value in made.items() if value not in (None, {}, "")}, {}


_KINDS: Mapping[
    str,
    Callable[[Part, Names, Mapping[str, Any]], tuple[dict[str, Any] | None, dict[str, Any]]],
] = {
    "ApiKeyAuthenticator": _api_key,
    "BearerAuthenticator": _bearer,
    "BasicHttpAuthenticator": _basic,
    "OAuthAuthenticator": _oauth,
    "SessionTokenAuthenticator": _session,
    "SelectiveAuthenticator": _selective,
    "JwtAuthenticator": _jwt,
}


def _with_prefix(name: str, value: Any, part: Part) -> dict[str, Any]:
    """Returns a credential, and the text before it as a prefix of its own."""
    match = _SECRET.match(value) if isinstance(value, str) else None
    if match is None:
        if isinstance(value, str) and "{" in value:
            raise Untranslatable("a secret within a text", value, part.line)
        return {name: value}
    made = {name: match["secret"]}
    return {**made, "prefix": match["before"]} if match["before"] else made
