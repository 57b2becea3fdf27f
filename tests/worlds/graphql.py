"""A GraphQL schema as a description: its queries are validated and run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

from graphql import (
    GraphQLEnumType,
    GraphQLError,
    GraphQLList,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLResolveInfo,
    GraphQLScalarType,
    GraphQLSchema,
    build_schema,
    execute_sync,
    parse,
    validate,
)
from graphql.language import ast

from tests.worlds.described import Answer, Asked
from tests.worlds.openapi import DESCRIPTIONS

#: The least values of scalars by their names; of others it is a text.
LEAST_SCALARS = {
    "Int": 0,
    "Float": 0.0,
    "Boolean": False,
    "DateTime": "2026-01-01T00:00:00Z",
    "URI": "https://example.test/x",
}


class GraphQL:
    """A schema, at one path of an API.

    Args:
        text: The schema in its own language.
        path: Where queries are sent.
    """

    def __init__(self, text: str, path: str = "/graphql") -> None:
        self._text = text
        self._path = path
        # Clients ask the same few queries again and again.
        self._checked: dict[str, tuple[ast.DocumentNode | None, list[GraphQLError]]] = {}

    @classmethod
    def read(cls, name: str, path: str = "/graphql") -> GraphQL:
        """Reads a schema from `descriptions/`."""
        return cls((DESCRIPTIONS / name).read_text(encoding="utf-8"), path)

    @cached_property
    def schema(self) -> GraphQLSchema:
        """The schema, built when it is first asked for."""
        return build_schema(self._text, assume_valid=True)

    def find(self, method: str, path: str) -> tuple[str, dict[str, str]]:
        """Returns its path, or an empty one for another request."""
        return (path if method == "POST" and path == self._path else ""), {}

    def request_problems(self, asked: Asked) -> list[str]:
        """Returns what is wrong with a query, in words."""
        if not isinstance(asked.body, Mapping) or not isinstance(asked.body.get("query"), str):
            return ["the body is no GraphQL query"]
        unknown = asked.body.keys() - {"query", "variables", "operationName"}
        return [
            *(f"body.{name} is not in the description" for name in sorted(unknown)),
            *(error.message for error in self._parsed(asked.body["query"])[1]),
        ]

    def answer_problems(self, asked: Asked, answer: Answer) -> list[str]:
        """Returns nothing: `run` gives what the schema allows, or errors, which it told."""
        return []

    def run(self, body: Any, root: Mapping[str, Any]) -> dict[str, Any]:
        """Runs a query and returns its answer, `data` and `errors`.

        Args:
            body: The `query` and its `variables`.
            root: The fields of the query type: values, or functions of the field's arguments. What
                must not be null and is left out is the least value of its type.
        """
        query = body.get("query") if isinstance(body, Mapping) else None
        document, wrong = self._parsed(str(query))
        if document is None or wrong:
            return {"errors": [error.formatted for error in wrong]}
        result = execute_sync(
            self.schema,
            document,
            root_value=root,
            variable_values=body.get("variables") or {},
            field_resolver=_resolved,
        )
        told: dict[str, Any] = {"data": result.data}
        if result.errors:
            told["errors"] = [error.formatted for error in result.errors]
        return told

    def _parsed(self, query: str) -> tuple[ast.DocumentNode | None, list[GraphQLError]]:
        """Returns a query, and what is wrong with it; None if it cannot be parsed."""
        if query not in self._checked:
            try:
                document = parse(query)
                self._checked[query] = document, validate(self.schema, document)
            except GraphQLError as error:
                self._checked[query] = None, [error]
        return self._checked[query]


def fields_of(document: ast.DocumentNode, node: Any) -> Iterator[ast.FieldNode]:
    """Yields the fields that a node selects, those of its fragments included."""
    fragments = {
        one.name.value: one
        for one in document.definitions
        if isinstance(one, ast.FragmentDefinitionNode)
    }
    for chosen in node.selection_set.selections if node.selection_set else ():
        if isinstance(chosen, ast.FragmentSpreadNode):
            yield from fields_of(document, fragments[chosen.name.value])
        elif isinstance(chosen, ast.InlineFragmentNode):
            yield from fields_of(document, chosen)
        else:
            yield chosen


def _resolved(source: Any, info: GraphQLResolveInfo, **arguments: Any) -> Any:
    value = source.get(info.field_name) if isinstance(source, Mapping) else None
    if callable(value):
        value = value(**arguments)
    if value is None and isinstance(info.return_type, GraphQLNonNull):
        return _least(info.return_type.of_type)
    return value


def _least(kind: Any) -> Any:
    if isinstance(kind, GraphQLList):
        return []
    if isinstance(kind, GraphQLEnumType):
        return next(iter(kind.values.values())).value
    if isinstance(kind, GraphQLScalarType):
        return LEAST_SCALARS.get(kind.name, "x")
    is_connection = isinstance(kind, GraphQLObjectType) and kind.name.endswith("Connection")
    return {"nodes": [], "edges": []} if is_connection else {}
