"""Descriptions by Google's discovery documents: requests, masks of fields, and answers.

Google answers a name that it does not know in `fields` with an error, and gives what the mask names
and no more; a world does the same with `masked`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

import jsonschema_rs

from tests.worlds.described import Answer, Asked
from tests.worlds.openapi import DESCRIPTIONS, findings

#: What a mask names, each with what it names inside; an empty one is all of it.
Mask = dict[str, Any]

_ERROR = {
    "type": "object",
    "required": ["error"],
    "additionalProperties": False,
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "message"],
            "properties": {
                "code": {"type": "integer"},
                "message": {"type": "string"},
                "status": {"type": "string"},
                "details": {"type": "array"},
                "errors": {
                    "type": "array",
                    "items": {"type": "object", "required": ["domain", "reason", "message"]},
                },
            },
        }
    },
}


class Discovery:
    """A discovery document, as `tests.worlds.cut discovery` leaves it.

    Args:
        document: Its JSON.
    """

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.document = document
        self._routes: list[tuple[str, re.Pattern[str], str, dict[str, Any]]] = []
        for method in document["methods"].values():
            template = f"/{document['servicePath']}{method['path']}"
            pattern = re.sub(r"\\\{\\?\+?(\w+)\\\}", r"(?P<\1>[^/]+)", re.escape(template))
            told = (method["httpMethod"], re.compile(pattern), template, method)
            self._routes.append(told)
        # Fixed parts come before placeholders.
        self._routes.sort(key=lambda route: route[2].count("{"))
        self._checks: dict[str, Any] = {}
        self._error = jsonschema_rs.Draft202012Validator(_ERROR)

    @classmethod
    def read(cls, name: str) -> Discovery:
        """Reads a document from `descriptions/`."""
        return cls(json.loads((DESCRIPTIONS / name).read_text(encoding="utf-8")))

    def find(self, method: str, path: str) -> tuple[str, dict[str, str]]:
        """Returns the path in the description and its values; an empty path if there is none."""
        for known, pattern, template, _ in self._routes:
            if known == method and (hit := pattern.fullmatch(path)):
                return template, {name: unquote(value) for name, value in hit.groupdict().items()}
        return "", {}

    def request_problems(self, asked: Asked) -> list[str]:
        """Returns what is wrong with a request, in words."""
        method = self._method(asked)
        known = {**self.document["parameters"], **method.get("parameters", {})}
        found = []
        for name, value in asked.query.items():
            parameter = known.get(name)
            if parameter is None or parameter.get("location") != "query":
                found.append(f"query parameter {name!r} is not in the description")
            elif parameter.get("deprecated"):
                found.append(f"query parameter {name!r} is deprecated")
            else:
                found += _value_problems(name, value, parameter)
        found += [
            f"query parameter {name!r} is required"
            for name, parameter in known.items()
            if parameter.get("required") and name not in {**asked.query, **asked.params}
        ]
        if asked.body not in (None, {}):
            found.append("this operation takes no body")
        if "fields" in asked.query and "response" in method:
            try:
                mask = mask_of(asked.query["fields"])
            except ValueError as error:
                return [*found, f"fields: {error}"]
            found += self._mask_problems(mask, method["response"]["$ref"], "fields")
        return found

    def answer_problems(self, asked: Asked, answer: Answer) -> list[str]:
        """Returns what is wrong with an answer, in words."""
        if isinstance(answer.body, bytes):
            return []
        if answer.status >= 400:
            return findings(self._error, answer.body, "answer")
        method = self._method(asked)
        if "response" not in method:
            return ["answer: it is JSON where bytes are expected"]
        found = findings(self.check(method["response"]["$ref"]), answer.body, "answer")
        if "fields" in asked.query:
            there = masked(answer.body, mask_of(asked.query["fields"]))
            if there != answer.body:
                found.append("answer: it has more than the mask of fields names")
        return found

    def check(self, name: str) -> Any:
        """Returns what checks a value of the schema `name`."""
        if name not in self._checks:
            whole = {
                "$ref": f"#/$defs/{name}",
                "$defs": {one: _schema(told) for one, told in self.document["schemas"].items()},
            }
            self._checks[name] = jsonschema_rs.Draft202012Validator(whole, validate_formats=True)
        return self._checks[name]

    def _method(self, asked: Asked) -> dict[str, Any]:
        return next(
            method
            for known, _, template, method in self._routes
            if (known, template) == (asked.method, asked.template)
        )

    def _mask_problems(self, mask: Mask, schema: str, where: str) -> list[str]:
        """Returns the names in a mask that no answer has."""
        told = self.document["schemas"][schema].get("properties", {})
        found = []
        for name, inner in mask.items():
            if name == "*":
                continue
            if name not in told:
                found.append(f"{where}: {schema} has no {name!r}")
                continue
            part = told[name].get("items", told[name])
            while "items" in part:
                part = part["items"]
            if "$ref" in part and inner:
                found += self._mask_problems(inner, part["$ref"], f"{where}.{name}")
            elif inner and "properties" in part:
                wrong = [one for one in inner if one != "*" and one not in part["properties"]]
                found += [f"{where}.{name} has no {one!r}" for one in wrong]
            elif inner and "additionalProperties" not in part:
                found.append(f"{where}: nothing is inside of {name!r}")
        return found


def mask_of(text: str) -> Mask:
    """Returns a mask from its text, as in `nextPageToken,files(id,owners/emailAddress)`.

    Raises:
        ValueError: it is no mask.
    """
    parts = re.findall(r"[^,()/\s]+|[,()/]", text)
    mask, rest = _read_mask(parts)
    if rest:
        raise ValueError(f"{text!r} goes on at {rest[0]!r}")
    return mask


def masked(value: Any, mask: Mask) -> Any:
    """Returns of a value what a mask names."""
    if not mask or "*" in mask:
        return value
    if isinstance(value, list):
        return [masked(one, mask) for one in value]
    if not isinstance(value, dict):
        return value
    return {name: masked(value[name], inner) for name, inner in mask.items() if name in value}


def _read_mask(parts: list[str]) -> tuple[Mask, list[str]]:
    mask: Mask = {}
    while True:
        if not parts or parts[0] in ",()/":
            raise ValueError("a name is missing")
        at, parts = mask.setdefault(parts[0], {}), parts[1:]
        while parts[:1] == ["/"]:
            if len(parts) < 2:
                raise ValueError("a name is missing")
            at, parts = at.setdefault(parts[1], {}), parts[2:]
        if parts[:1] == ["("]:
            inner, parts = _read_mask(parts[1:])
            if parts[:1] != [")"]:
                raise ValueError("a bracket is not closed")
            at.update(inner)
            parts = parts[1:]
        if parts[:1] != [","]:
            return mask, parts
        parts = parts[1:]


def _value_problems(name: str, text: str, parameter: Mapping[str, Any]) -> list[str]:
    kind = parameter.get("type")
    if kind == "boolean":
        return [] if text in ("true", "false") else [f"{name}={text!r} is no boolean"]
    if kind == "integer":
        if not re.fullmatch(r"-?\d+", text):
            return [f"{name}={text!r} is no integer"]
        least, most = parameter.get("minimum"), parameter.get("maximum")
        if (least and int(text) < int(least)) or (most and int(text) > int(most)):
            return [f"{name}={text} is not between {least} and {most}"]
    if "enum" in parameter and text not in parameter["enum"]:
        return [f"{name}={text!r} is none of {', '.join(parameter['enum'])}"]
    return []


def _schema(told: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a schema of a discovery document as JSON Schema, which allows no other names."""
    if "$ref" in told:
        return {"$ref": f"#/$defs/{told['$ref']}"}
    kind = told.get("type", "any")
    if kind == "any":
        return {}
    found: dict[str, Any] = {"type": kind}
    if "enum" in told:
        found["enum"] = told["enum"]
    if told.get("format") in ("date-time", "google-datetime"):
        found["format"] = "date-time"
    if told.get("format") in ("int64", "uint64"):
        found["pattern"] = r"^-?\d+$"
    if kind == "array":
        found["items"] = _schema(told["items"])
    if kind == "object":
        found["properties"] = {n: _schema(one) for n, one in told.get("properties", {}).items()}
        more = told.get("additionalProperties")
        found["additionalProperties"] = False if more is None else _schema(more)
    return found
