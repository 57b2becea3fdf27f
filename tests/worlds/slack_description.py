"""What the types of Slack's own client say of its methods: their arguments, and their answers.

All fields of answers are optional there, so that kinds and names are checked; blocks are checked
against the types of blocks, which tell what each needs.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import jsonschema_rs

from tests.worlds.described import Answer, Asked
from tests.worlds.openapi import DESCRIPTIONS, findings


class SlackDescription:
    """What the types of Slack's client say of its methods."""

    def __init__(self) -> None:
        types = json.loads((DESCRIPTIONS / "slack.types.json").read_text(encoding="utf-8"))
        self._shared: dict[str, Any] = types["shared"]
        self._methods: dict[str, Any] = types["methods"]
        self._checks: dict[tuple[str, str], Any] = {}

    def find(self, method: str, path: str) -> tuple[str, dict[str, str]]:
        """Returns the path in the description and its values."""
        known = path.startswith("/api/") and path.removeprefix("/api/") in self._methods
        return (path if known and method in ("GET", "POST") else ""), {}

    def request_problems(self, asked: Asked) -> list[str]:
        """Returns what is wrong with a request, in words."""
        given = arguments(asked)
        told = self._schema(asked, "arguments")
        root = told["$ref"].rpartition("/")[2]
        kinds = dict(_kinds({**self._shared, **told["definitions"]}[root]))
        found, values = [], {}
        for name, text in given.items():
            try:
                values[name] = _read(text, kinds.get(name))
            except ValueError:
                found.append(f"{name}={text!r} is no {kinds[name]}")
        return found + self._problems(asked, "arguments", values, "request")

    def answer_problems(self, asked: Asked, answer: Answer) -> list[str]:
        """Returns what is wrong with an answer, in words."""
        if answer.status == 429:
            return [] if "Retry-After" in answer.headers else ["answer: 429 without Retry-After"]
        if answer.status != 200:
            return [f"status {answer.status} is not Slack's"]
        if answer.body.get("ok") is False:
            return [] if answer.body.get("error") else ["answer: a refusal without error"]
        return self._problems(asked, "answer", answer.body, "answer")

    def _schema(self, asked: Asked, part: str) -> dict[str, Any]:
        schema: dict[str, Any] = self._methods[asked.template.removeprefix("/api/")][part]
        return schema

    def _problems(self, asked: Asked, part: str, value: Any, where: str) -> list[str]:
        key = (asked.template, part)
        if key not in self._checks:
            schema = self._schema(asked, part)
            whole = {**schema, "definitions": {**self._shared, **schema["definitions"]}}
            self._checks[key] = jsonschema_rs.Draft7Validator(whole)
        return findings(self._checks[key], value, where)


DESCRIPTION = SlackDescription()


def arguments(asked: Asked) -> dict[str, str]:
    """Returns the arguments of a method, from the query or the body."""
    body = asked.body if isinstance(asked.body, dict) else {}
    return {**{name: str(one) for name, one in body.items()}, **asked.query}


def ok(**body: Any) -> Answer:
    """Answers with success."""
    return Answer(body={"ok": True, **body})


def refused(error: str, **more: Any) -> Answer:
    """Answers with an error of Slack's."""
    return Answer(body={"ok": False, "error": error, **more})


def page_of(name: str, found: list[Any], cursor: str, **more: Any) -> Answer:
    """Answers with a page of a list."""
    return Answer(
        body={
            "ok": True,
            name: found,
            "has_more": bool(cursor),
            "response_metadata": {"next_cursor": cursor},
            **more,
        }
    )


def cursor_of(told: str) -> str:
    """Returns a cursor that tells something to the world alone."""
    return base64.b64encode(told.encode()).decode()


def told_by(cursor: str) -> str:
    """Returns what a cursor tells."""
    return base64.b64decode(cursor).decode()


def _read(text: str, kind: Any) -> Any:
    if kind == "number":
        return float(text)
    if kind == "boolean":
        if text not in ("true", "false", "1", "0"):
            raise ValueError(text)
        return text in ("true", "1")
    return text


def _kinds(node: Any) -> Iterator[tuple[str, Any]]:
    """Yields the arguments of a method with their types, also from alternatives."""
    if isinstance(node, dict):
        for name, one in node.get("properties", {}).items():
            yield name, one.get("type")
        for part in (*node.get("anyOf", ()), *node.get("allOf", ())):
            yield from _kinds(part)
