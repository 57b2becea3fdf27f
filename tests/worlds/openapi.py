"""Descriptions by JSON Schema: OpenAPI documents, and types where a vendor publishes no more.

They find what is wrong with the requests and answers of a world, and make the least answers that
are right, so that a world writes only what its tests care about.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import jsonschema_rs

from tests.worlds.described import Answer, Asked

DESCRIPTIONS = Path(__file__).parent / "descriptions"
METHODS = ("get", "post", "put", "patch", "delete")
#: So many findings of one request or answer are kept.
MOST_FINDINGS = 4


class OpenApi:
    """An OpenAPI 3 document.

    Args:
        document: Its JSON.
        greedy: Names in paths whose values may hold slashes.
        error: The schema of the answers of 400 and more that an operation does not list, where the
            vendor has one for all of them. Others are not allowed.
    """

    def __init__(
        self, document: Mapping[str, Any], greedy: Sequence[str] = (), error: str = ""
    ) -> None:
        is_new = str(document.get("openapi", "")).startswith("3.1")
        self.document: dict[str, Any] = dict(document) if is_new else _nullable(document)
        self._greedy = frozenset(greedy)
        self._error = self.schema(error) if error else None
        self._routes: list[tuple[str, re.Pattern[str], str]] = []
        for template, item in self.document["paths"].items():
            pattern = re.compile(self._pattern(template))
            self._routes += [(one, pattern, template) for one in METHODS if one in item]
        # Fixed parts come before placeholders.
        self._routes.sort(key=lambda route: (route[2].count("{"), -len(route[2])))
        self._checks: dict[int, Any] = {}

    @classmethod
    def read(cls, name: str, greedy: Sequence[str] = (), error: str = "") -> OpenApi:
        """Reads a document from `descriptions/`."""
        return cls(json.loads((DESCRIPTIONS / name).read_text(encoding="utf-8")), greedy, error)

    def find(self, method: str, path: str) -> tuple[str, dict[str, str]]:
        """Returns the path in the description and its values; an empty path if there is none."""
        for known, pattern, template in self._routes:
            if known == method.lower() and (hit := pattern.fullmatch(path)):
                return template, {name: unquote(value) for name, value in hit.groupdict().items()}
        return "", {}

    def request_problems(self, asked: Asked) -> list[str]:
        """Returns what is wrong with a request: its parameters, headers and body."""
        known = self._parameters(asked)
        found: list[str] = []
        for name, value in asked.params.items():
            if parameter := known.get(("path", name)):
                found += self._value_problems(name, value, parameter)
        for name, value in asked.query.items():
            parameter = known.get(("query", name)) or known.get(("query", name.removesuffix("[]")))
            if parameter is None:
                found.append(f"query parameter {name!r} is not in the description")
            else:
                found += self._value_problems(name, value, parameter)
        for (place, name), parameter in known.items():
            there = {"query": asked.query, "header": asked.headers}.get(place)
            if parameter.get("required") and there is not None and name not in there:
                found.append(f"{place} {name!r} is required")
        return found + self._body_problems(asked)

    def answer_problems(self, asked: Asked, answer: Answer) -> list[str]:
        """Returns what is wrong with an answer: its status, or its JSON."""
        responses = self.operation(asked)["responses"]
        status = answer.status
        names = (str(status), f"{status // 100}XX", "default")
        told = next((responses[name] for name in names if name in responses), None)
        if told is None and status == 304:
            return []
        if told is None and (status < 400 or self._error is None):
            return [f"status {status} is not in the description"]
        schema = self._error if told is None else _json_schema(self.at(told))
        if schema is None or isinstance(answer.body, bytes) or status == 304:
            return []
        return self._problems(schema, answer.body, "answer")

    def operation(self, asked: Asked) -> dict[str, Any]:
        """Returns what the description says of a request's path and method."""
        found: dict[str, Any] = self.document["paths"][asked.template][asked.method.lower()]
        return found

    def schema(self, name: str) -> dict[str, Any]:
        """Returns the reference of a named schema, as `filled` takes it."""
        return {"$ref": f"#/components/schemas/{name}"}

    def answer_schema(self, method: str, template: str, status: int = 200) -> dict[str, Any]:
        """Returns the schema of an answer's JSON."""
        told = self.document["paths"][template][method.lower()]["responses"][str(status)]
        schema = _json_schema(self.at(told))
        assert schema is not None, f"{method} {template} answers {status} without JSON"
        return schema

    def at(self, node: Any) -> Any:
        """Returns what a reference leads to, or the node itself."""
        while isinstance(node, dict) and "$ref" in node:
            target: Any = self.document
            for part in node["$ref"].lstrip("#/").split("/"):
                target = target[part.replace("~1", "/").replace("~0", "~")]
            node = target
        return node

    def filled(self, schema: Any, values: Any = None) -> Any:
        """Returns the least value that a schema allows, with `values` over it.

        Args:
            schema: A schema of this description.
            values: What is known of an object; its other required fields are filled.
        """
        schema = self.at(schema)
        if "allOf" in schema:
            parts = [self.at(part) for part in schema["allOf"]]
            schema = {
                "type": "object",
                "properties": {k: v for p in parts for k, v in p.get("properties", {}).items()},
                "required": [name for part in parts for name in part.get("required", ())],
            }
        options = schema.get("anyOf") or schema.get("oneOf")
        if options and "properties" not in schema:
            if values is None and any(self.at(one).get("type") == "null" for one in options):
                return None
            return self.filled(options[0], values)
        kinds = schema.get("type")
        if values is None and isinstance(kinds, list) and "null" in kinds:
            return None
        kind = kinds[0] if isinstance(kinds, list) else kinds
        if kind == "object" or "properties" in schema:
            return self._filled_object(schema, values if isinstance(values, dict) else {})
        return values if values is not None else _least(schema, kind)

    def _filled_object(self, schema: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
        properties = schema.get("properties", {})
        out = {
            name: self.filled(properties.get(name, {}))
            for name in schema.get("required", ())
            if name not in values
        }
        for name, value in values.items():
            whole = isinstance(value, dict) and name in properties
            out[name] = self.filled(properties[name], value) if whole else value
        return out

    def _pattern(self, template: str) -> str:
        pieces = []
        for piece in re.split(r"(\{[^}]+\})", template):
            if not piece.startswith("{"):
                pieces.append(re.escape(piece))
            elif piece[1:-1] in self._greedy:
                pieces.append(f"(?P<{piece[1:-1]}>.+)")
            else:
                pieces.append(f"(?P<{piece[1:-1]}>[^/]+)")
        return "".join(pieces)

    def _parameters(self, asked: Asked) -> dict[tuple[str, str], dict[str, Any]]:
        item = self.document["paths"][asked.template]
        told = [*item.get("parameters", ()), *self.operation(asked).get("parameters", ())]
        parameters = [self.at(one) for one in told]
        return {
            (one["in"], one["name"].lower() if one["in"] == "header" else one["name"]): one
            for one in parameters
        }

    def _body_problems(self, asked: Asked) -> list[str]:
        told = self.at(self.operation(asked).get("requestBody", {}))
        schema = next((one.get("schema") for one in told.get("content", {}).values()), None)
        if not told:
            return [] if asked.body in (None, {}) else ["this operation takes no body"]
        if asked.body is None:
            return ["a body is required"] if told.get("required") else []
        if schema is None:
            return []
        # A misspelt name passes most schemas, which do not forbid others.
        properties = self.at(schema).get("properties")
        unknown = [
            f"body.{name} is not in the description"
            for name in (asked.body if properties and isinstance(asked.body, dict) else ())
            if name not in properties
        ]
        return unknown + self._problems(schema, asked.body, "body")

    def _value_problems(self, name: str, text: str, parameter: Mapping[str, Any]) -> list[str]:
        schema = self.at(parameter.get("schema", {}))
        kind = schema.get("type")
        try:
            value = _read(text, kind, parameter.get("explode", True))
        except ValueError:
            return [f"{name}={text!r} is no {kind}"]
        return self._problems(schema, value, name)

    def _problems(self, schema: Any, value: Any, where: str) -> list[str]:
        check = self._checks.get(id(schema))
        if check is None:
            # References lead into the document, so the schema stands beside its components.
            whole = {"allOf": [schema], "components": self.document.get("components", {})}
            check = self._checks[id(schema)] = jsonschema_rs.Draft202012Validator(
                whole, validate_formats=True
            )
        return findings(check, value, where)


class JsonTypes:
    """Types as JSON Schema, one for the answer of each operation; for vendors that publish no more.

    Args:
        document: A JSON Schema whose `definitions` hold the types.
    """

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._definitions = dict(document["definitions"])
        self.check = cache(self._check)

    def problems(self, name: str, value: Any) -> list[str]:
        """Returns what is wrong with a value of the type `name`."""
        return findings(self.check(name), value, "answer")

    def _check(self, name: str) -> Any:
        whole = {"$ref": f"#/definitions/{name}", "definitions": self._definitions}
        return jsonschema_rs.Draft7Validator(whole, validate_formats=True)


def findings(check: Any, value: Any, where: str) -> list[str]:
    """Returns what a validator finds wrong with a value, in words, with the place of each."""
    if check.is_valid(value):
        return []
    found = []
    for error in check.iter_errors(value):
        place = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in error.instance_path)
        found.append(f"{where}{place}: {error.message[:200]}")
        if len(found) == MOST_FINDINGS:
            break
    return found


def _read(text: str, kind: Any, explode: bool) -> Any:
    """Returns a parameter's value from its text.

    Raises:
        ValueError: the text is not of that kind.
    """
    if kind == "integer":
        return int(text)
    if kind == "number":
        return float(text)
    if kind == "boolean":
        if text not in ("true", "false"):
            raise ValueError(text)
        return text == "true"
    if kind == "array":
        return [text] if explode else text.split(",")
    return text


def _json_schema(told: Mapping[str, Any]) -> Any:
    content = told.get("content", {})
    return next((one.get("schema") for kind, one in content.items() if "json" in kind), None)


def _nullable(node: Any) -> Any:
    """Returns an OpenAPI 3.0 document with `nullable` said as JSON Schema says it.

    Some enums of nullable fields leave null out, so null is an alternative of its own.
    """
    if isinstance(node, list):
        return [_nullable(value) for value in node]
    if not isinstance(node, dict):
        return node
    # `nullable` may also be the name of a property.
    said = node.get("nullable")
    out = {k: _nullable(v) for k, v in node.items() if k != "nullable" or not isinstance(v, bool)}
    return {"anyOf": [out, {"type": "null"}]} if said is True else out


def _least(schema: Mapping[str, Any], kind: str | None) -> Any:
    if "enum" in schema:
        return schema["enum"][0]
    if "const" in schema:
        return schema["const"]
    texts = {
        "uri": "https://example.test/x",
        "date-time": "2026-01-01T00:00:00Z",
        "timestamp": "2026-01-01T00:00:00Z",
        "date": "2026-01-01",
        "uuid": "00000000-0000-4000-8000-000000000000",
    }
    least: dict[str | None, Callable[[], Any]] = {
        "array": list,
        "integer": lambda: 1,
        "number": lambda: 1.0,
        "boolean": lambda: False,
        "string": lambda: texts.get(str(schema.get("format")), "x"),
        "null": lambda: None,
    }
    return least.get(kind, dict)()
