"""The requester of a manifest: its address, and what its requests send."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

from contextframe_beam.connectors.translate.jinja import template_of
from contextframe_beam.connectors.translate.manifest import Part
from contextframe_beam.connectors.translate.values import Names, Untranslatable

_METHODS = ("GET", "POST", "PUT")


def url_of(requester: Part, names: Names) -> str:
    """Returns the whole address of a requester.

    Raises:
        Untranslatable: a template in it says something that ours cannot.
    """
    base, path = base_of(requester, names), path_of(requester, names)
    return f"{base.rstrip('/')}/{path.lstrip('/')}" if path else base


def base_of(requester: Part, names: Names) -> str:
    """Returns the address that the paths of a requester are below."""
    found = template_of(requester.get("url_base") or requester.get("url") or "", names)
    return str(found).strip()


def path_of(requester: Part, names: Names) -> str:
    """Returns the path of a requester; empty if its address is complete."""
    if not requester.get("url_base"):
        return ""
    found = template_of(requester.get("path") or "", names)
    return "" if found is None else str(_text(found)).strip()


def request_of(requester: Part, names: Names) -> dict[str, Any]:
    """Returns what the requests of a requester are made of: method, params, headers and a body.

    Raises:
        Untranslatable: a part of it says something that ours cannot.
    """
    if requester.get("type") not in (None, "HttpRequester"):
        name = requester.get("class_name") or requester.get("type")
        raise Untranslatable("a custom requester", str(name), requester.line)
    made: dict[str, Any] = {}
    method = str(requester.get("http_method", "GET")).upper()
    if method not in _METHODS:
        raise Untranslatable(f"the method {method}", "", requester.line_of("http_method"))
    if method != "GET":
        made["method"] = method
    for name, own in (("request_parameters", "params"), ("request_headers", "headers")):
        found = _mapping(requester, name, names)
        if found:
            made[own] = found
    made.update(_body(requester, names))
    if "params" in made:
        made["params"] = {name: _text(value) for name, value in made["params"].items()}
    return made


def _mapping(requester: Part, name: str, names: Names) -> dict[str, Any]:
    given = requester.get(name)
    if not given:
        return {}
    if isinstance(given, Part) and given.get("type") == "QueryProperties":
        raise Untranslatable("properties of a query", "", given.line)
    found = template_of(given, names)
    if isinstance(found, str) and "{" not in found and "=" in found:
        found = dict(parse_qsl(found, keep_blank_values=True))
    if found in (None, ""):
        return {}
    if not isinstance(found, Mapping):
        raise Untranslatable(f"{name} as one template", str(given)[:80], requester.line_of(name))
    for one in found.values():
        if isinstance(one, Mapping) and "type" in one:
            raise Untranslatable("properties of a query", "", requester.line_of(name))
    return dict(found)


def _body(requester: Part, names: Names) -> dict[str, Any]:
    kind, value = "", None
    for name in ("request_body_json", "request_body_data", "request_body"):
        if requester.get(name):
            kind, value = name, requester[name]
    if kind == "request_body" and isinstance(value, Part):
        kind, value = str(value.get("type")), value.get("value")
    if value is None:
        return {}
    line = requester.line_of("request_body_json")
    found = template_of(value, names)
    if isinstance(found, str):
        found = _parsed(found)
    if kind in ("request_body_json", "RequestBodyJsonObject"):
        if not isinstance(found, Mapping | list):
            raise Untranslatable("a JSON body as one template", str(value)[:80], line)
        return {"body": found}
    if kind == "RequestBodyGraphQL":
        return {"body": found}
    if not isinstance(found, Mapping):
        raise Untranslatable("a body as text", str(value)[:80], line)
    return {"form": {name: _text(one) for name, one in found.items()}}


def _parsed(text: str) -> Any:
    """Returns the value of a body that is written as a text of JSON or of a form."""
    try:
        return json.loads(text)
    except ValueError:
        pass
    if "{" not in text and "=" in text and "<" not in text:
        return dict(parse_qsl(text, keep_blank_values=True))
    return text


def _text(value: Any) -> Any:
    """Returns a value of a parameter; a list or an object as the text that stands for it."""
    if isinstance(value, bool):
        return str(value)
    return (
        value if value is None or isinstance(value, str | int | float | list) else json.dumps(value)
    )
