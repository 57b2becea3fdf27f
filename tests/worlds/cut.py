"""Cuts a vendor's description down to what a world answers, so that it is small enough to keep.

    python -m tests.worlds.cut openapi SOURCE TARGET 'GET /user' '/orgs/{org}/repos'
    python -m tests.worlds.cut graphql SOURCE TARGET Query.repository Discussion
    python -m tests.worlds.cut methods FOLDER TARGET conversations.list users.info
    python -m tests.worlds.cut discovery SOURCE TARGET files.list File.id File.name

`descriptions/README.md` says what each slice was cut from, and what it keeps.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

#: What tells people about a field, and says nothing about its values.
PROSE = frozenset(
    (
        *("description", "summary", "externalDocs", "example", "examples", "x-github"),
        *("enumDescriptions", "scopes", "annotations"),
    )
)
KEPT_METHODS = ("get", "post", "parameters")


def main(kind: str, source: str, target: str, *kept: str) -> None:
    """Writes the slice of the description at `source` to `target`."""
    text = "" if kind == "methods" else Path(source).read_text(encoding="utf-8")
    if kind == "methods":
        methods = cut_methods(Path(source), kept)
        Path(target).write_text(json.dumps(methods, separators=(",", ":"), sort_keys=True) + "\n")
    elif kind == "openapi":
        document = cut_openapi(json.loads(text), kept)
        Path(target).write_text(json.dumps(document, separators=(",", ":")) + "\n")
    elif kind == "graphql":
        Path(target).write_text(cut_graphql(text, kept))
    elif kind == "discovery":
        found = cut_discovery(json.loads(text), kept)
        Path(target).write_text(json.dumps(found, separators=(",", ":")) + "\n")
    else:
        sys.exit(f"openapi, graphql, methods or discovery, not {kind}")


def cut_methods(folder: Path, methods: Sequence[str]) -> dict[str, Any]:
    """Returns the types of some methods of Slack: of their arguments, and of their answers.

    Types of one name may differ from method to method. Those that are the same stand once, under
    `shared`.

    Args:
        folder: JSON Schemas of the types of Slack's client: `UsersInfoArguments.json`,
            `UsersInfoResponse.json` and so on, and `KnownBlock.json`, since what answers say of
            blocks is older.
        methods: Such as `users.info`.
    """

    def read(name: str) -> dict[str, Any]:
        schema: dict[str, Any] = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        return schema

    blocks = read("KnownBlock")["definitions"]
    made: dict[str, Any] = {}
    for method in methods:
        name = "".join(part[0].upper() + part[1:] for part in method.split("."))
        asked, answer = read(f"{name}Arguments"), read(f"{name}Response")
        definitions = answer["definitions"]
        if method == "conversations.replies":
            # Gathered from fewer answers, although they hold the same messages.
            more = read("ConversationsHistoryResponse")["definitions"]
            own = definitions["MessageElement"]["properties"]
            own |= {n: t for n, t in more["MessageElement"]["properties"].items() if n not in own}
            definitions = {**more, **definitions}
        for one in definitions.values():
            told = one.get("properties", {})
            if "blocks" in told and "ts" in told:
                told["blocks"] = {"type": "array", "items": {"$ref": "#/definitions/KnownBlock"}}
                definitions = {**blocks, **definitions}
        made[method] = {
            "arguments": _reachable(asked["$ref"], asked["definitions"]),
            "answer": _reachable(answer["$ref"], definitions),
        }
    shared: dict[str, Any] = {}
    for schema in [schema for one in made.values() for schema in one.values()]:
        own = schema["definitions"]
        for name in [name for name in own if shared.setdefault(name, own[name]) == own[name]]:
            del own[name]
    return {"shared": shared, "methods": made}


def _reachable(root: str, definitions: dict[str, Any]) -> dict[str, Any]:
    """Returns a schema with the definitions that it needs, without prose."""
    kept: dict[str, Any] = {}
    waiting = [root]
    while waiting:
        name = waiting.pop().rpartition("/")[2]
        if name not in kept:
            told = definitions[name]
            while list(told) == ["$ref"]:  # another name, made of places in the source
                told = definitions[unquote(told["$ref"].rpartition("/")[2])]
            kept[name] = _without_prose(told)
            waiting += _references(kept[name], "#/definitions/")
    return {"$ref": root, "definitions": kept}


def cut_openapi(document: dict[str, Any], paths: Sequence[str]) -> dict[str, Any]:
    """Returns an OpenAPI document with some of its paths, and what these refer to.

    Args:
        document: The whole document.
        paths: What is kept; a method before a path keeps this one alone.

    Raises:
        KeyError: a path is not there.
    """
    kept = {}
    for one in paths:
        method, _, path = one.rpartition(" ")
        names = {method.lower(), "parameters"} if method else KEPT_METHODS
        item = document["paths"][path]
        kept[path] = {name: part for name, part in item.items() if name in names}
    components: dict[str, dict[str, Any]] = {}
    waiting = list(_references(kept))
    while waiting:
        _, _, kind, name = waiting.pop().split("/")
        group = components.setdefault(kind, {})
        if name not in group and kind != "examples":
            group[name] = document["components"][kind][name]
            waiting += _references(group[name])
    components.pop("examples", None)
    head = {name: document[name] for name in ("openapi", "info") if name in document}
    whole = {**head, "paths": kept, "components": components}
    return {**head, **_without_prose({name: whole[name] for name in ("paths", "components")})}


def cut_graphql(text: str, kept: Sequence[str]) -> str:
    """Returns a GraphQL schema with some fields of some types.

    Args:
        text: The whole schema.
        kept: `Type.field` keeps this field; `Type` keeps all its fields whose types are kept.
            Scalars, enums, and the inputs that arguments of kept fields need come along; an input
            of which fields are named keeps these alone.
    """
    from graphql import parse, print_ast
    from graphql.language import ast

    whole = {
        d.name.value: d for d in parse(text, no_location=True).definitions if hasattr(d, "name")
    }
    wanted: dict[str, set[str]] = {}
    for one in kept:
        name, _, field = one.partition(".")
        wanted.setdefault(name, set()).update({field} if field else {"*"})
    leaves = (ast.ScalarTypeDefinitionNode, ast.EnumTypeDefinitionNode)
    found: dict[str, Any] = {}

    def is_kept(name: str) -> bool:
        node = whole.get(name)
        return node is None or name in wanted or isinstance(node, leaves)  # Int is in no schema

    def plain(node: Any, **changes: Any) -> Any:
        told = {name: getattr(node, name, None) for name in node.keys} | changes
        told |= {"description": None, "directives": ()}
        return type(node)(**{name: told[name] for name in node.keys})

    def add(name: str) -> None:
        node = whole.get(name)
        if node is None or name in found:
            return
        found[name] = node
        changes: dict[str, Any] = {}
        if isinstance(node, ast.EnumTypeDefinitionNode):
            changes["values"] = tuple(plain(value) for value in node.values)
        if hasattr(node, "fields"):
            changes["fields"] = tuple(chosen_fields(name, node))
        if hasattr(node, "interfaces"):
            changes["interfaces"] = tuple(
                i for i in node.interfaces or () if i.name.value in wanted
            )
        found[name] = plain(node, **changes)

    def chosen_fields(name: str, node: Any) -> Iterator[Any]:
        chosen = wanted.get(name, set())
        is_input = isinstance(node, ast.InputObjectTypeDefinitionNode)
        for field in node.fields or ():
            kind = _named(field.type)
            is_chosen = field.name.value in chosen or ("*" in chosen and is_kept(kind))
            if not (is_chosen or (is_input and name not in wanted)):
                continue
            add(kind)
            if is_input:
                yield plain(field)
                continue
            for argument in field.arguments or ():
                add(_named(argument.type))
            yield plain(field, arguments=tuple(plain(one) for one in field.arguments or ()))

    for name in wanted:
        add(name)
    return "\n\n".join(print_ast(found[name]) for name in sorted(found)) + "\n"


def cut_discovery(document: dict[str, Any], kept: Sequence[str]) -> dict[str, Any]:
    """Returns a discovery document of Google with some methods, and the schemas of their answers.

    Args:
        document: The whole document.
        kept: `files.list` keeps a method; `File.id` this property of a schema. A schema of which no
            property is named keeps all.

    Raises:
        KeyError: a method or property is not there.
    """
    wanted: dict[str, list[str]] = {}
    methods: dict[str, Any] = {}
    for one in kept:
        name, _, last = one.rpartition(".")
        if name[:1].isupper():
            wanted.setdefault(name, []).append(last)
            continue
        place: Any = document
        for part in name.split("."):
            place = place["resources"][part]
        methods[one] = place["methods"][last]
    schemas: dict[str, Any] = {}
    waiting = [one["response"]["$ref"] for one in methods.values() if "response" in one]
    while waiting:
        name = waiting.pop()
        if name in schemas:
            continue
        whole = document["schemas"][name]
        names = wanted.get(name, list(whole.get("properties", {})))
        schemas[name] = {**whole, "properties": {one: whole["properties"][one] for one in names}}
        waiting += _schemas_in(schemas[name])
    found = {name: document[name] for name in ("id", "revision", "rootUrl", "servicePath")}
    found["parameters"] = _without_prose(document["parameters"])
    found["methods"] = _without_prose(methods)
    found["schemas"] = {name: _without_prose(one) for name, one in schemas.items()}
    return found


def _schemas_in(node: Any) -> Iterator[str]:
    if isinstance(node, list):
        for value in node:
            yield from _schemas_in(value)
    elif isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for value in node.values():
            yield from _schemas_in(value)


def _named(kind: Any) -> str:
    while hasattr(kind, "type"):
        kind = kind.type
    return str(kind.name.value)


def _references(node: Any, below: str = "#/components/") -> Iterator[str]:
    if isinstance(node, list):
        for value in node:
            yield from _references(value, below)
    elif isinstance(node, dict):
        reference = node.get("$ref")
        if isinstance(reference, str) and reference.startswith(below):
            yield reference
        for name, value in node.items():
            if name != "examples":
                yield from _references(value, below)


def _without_prose(node: Any, are_names: bool = False) -> Any:
    """Returns a schema without its prose; the keys of `properties` are names, whatever they say."""
    if isinstance(node, list):
        return [_without_prose(value) for value in node]
    if not isinstance(node, dict):
        return node
    return {
        name: _without_prose(value, name == "properties" and not are_names)
        for name, value in node.items()
        if are_names or name not in PROSE
    }


if __name__ == "__main__":
    main(*sys.argv[1:])
