"""The properties of a page or row of Notion become plain values.

The types are those of `PageObjectResponse` in the types of Notion's own client.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from contextframe_beam.connectors.notion.rich_text import (
    Found,
    Names,
    RichText,
    date_text,
    page_id,
    plain_text,
)

#: Of these, an answer shows no more than 25 parts.
LONG = frozenset({"relation", "people", "rich_text", "title"})
SHOWN_AT_ONCE = 25

_AS_IT_IS = frozenset(
    {
        *("number", "url", "email", "phone_number", "checkbox", "created_time"),
        *("last_edited_time", "string", "boolean"),
    }
)
# They do something, or say nothing.
_WITHOUT_VALUE = frozenset({"button"})


class Properties:
    """Makes plain values of properties.

    Args:
        names: Tells the names of people.
        found: Where relations, mentions and unknown types are noted.
    """

    def __init__(self, names: Names, found: Found) -> None:
        self._names = names
        self._found = found
        self._rich = RichText(names, found)

    def values(self, properties: Any, only: frozenset[str] | None = None) -> dict[str, Any]:
        """Returns the values of a page's properties by their names, without the empty ones.

        The title is left out, which is the document's own.

        Args:
            properties: The `properties` of a page.
            only: The names to take; None takes all.
        """
        made: dict[str, Any] = {}
        for name, told in properties.items() if isinstance(properties, Mapping) else ():
            if not isinstance(told, Mapping) or told.get("type") == "title":
                continue
            if only is not None and name not in only:
                continue
            value = self.value(told)
            if value is not None and value != [] and value != "":
                made[str(name)] = value
        return made

    def value(self, told: Mapping[str, Any]) -> Any:
        """Returns the value of a property; None where it is empty."""
        kind = told.get("type")
        value = told.get(kind) if isinstance(kind, str) else None
        if kind in _WITHOUT_VALUE or value is None:
            return None
        if kind in _AS_IT_IS:
            return value
        if kind in ("title", "rich_text"):
            return self._rich.markdown(value)
        if kind in ("select", "status"):
            return _named(value)
        if kind == "multi_select":
            return [one for one in map(_named, _listed(value)) if one]
        if kind == "date":
            return date_text(value) or None
        if kind == "people":
            return [name for one in _listed(value) if (name := self._person(one))]
        if kind in ("created_by", "last_edited_by"):
            return self._person(value)
        if kind == "files":
            return [name for one in _listed(value) if (name := _named(one))]
        if kind == "relation":
            return list(self._related(value))
        if kind in ("formula", "rollup"):
            return self._computed(value)
        if kind == "array":
            return [made for one in _listed(value) if (made := self.value(one)) is not None]
        if kind == "unique_id":
            return _unique(value)
        if kind == "verification":
            return self._verification(value)
        if kind == "place":
            return _place(value)
        self._found.unknown[f"property {kind}"] += 1
        return value

    def _computed(self, value: Any) -> Any:
        """Returns the result of a formula or a rollup, which is a value with a type again."""
        if not isinstance(value, Mapping):
            return None
        kind = value.get("type")
        if kind in ("unsupported", "incomplete"):
            self._found.unknown[f"property {kind}"] += 1
            return None
        return self.value(value)

    def _related(self, value: Any) -> Iterator[str]:
        for one in _listed(value):
            identifier = page_id(str(one.get("id")))
            if identifier is not None:
                target = f"notion:page/{identifier}"
                self._found.references[target] = None
                yield target

    def _person(self, value: Any) -> str | None:
        """Returns the name of a person, a bot or a group; the id where it cannot be found out."""
        if not isinstance(value, Mapping):
            return None
        identifier = page_id(str(value.get("id")))
        if isinstance(value.get("name"), str) and value["name"]:
            return str(value["name"])
        return (self._names.user(identifier) or identifier) if identifier else None

    def _verification(self, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return None
        made = {
            "state": value.get("state"),
            "verified_by": self._person(value.get("verified_by")),
            "date": date_text(value.get("date")) or None,
        }
        return {name: one for name, one in made.items() if one is not None}


def title_of(page: Mapping[str, Any]) -> str:
    """Returns the title of a page, a row, a data source or a database; "" where it has none."""
    if isinstance(page.get("title"), list):
        return " ".join(plain_text(page["title"]).split())
    properties = page.get("properties")
    for told in properties.values() if isinstance(properties, Mapping) else ():
        if isinstance(told, Mapping) and told.get("type") == "title":
            return " ".join(plain_text(told.get("title")).split())
    return ""


def tags_of(page: Mapping[str, Any]) -> list[str]:
    """Returns the tags of a page: the choices of its property Tags, if it has several of them."""
    properties = page.get("properties")
    for name, told in properties.items() if isinstance(properties, Mapping) else ():
        if isinstance(told, Mapping) and str(name).strip().lower() in ("tags", "tag"):
            if told.get("type") == "multi_select":
                return [one for one in map(_named, _listed(told.get("multi_select"))) if one]
            if told.get("type") == "select":
                return [one for one in [_named(told.get("select"))] if one]
    return []


def long_properties(page: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Yields name, id and type of the properties of which a page may show only a part."""
    properties = page.get("properties")
    for name, told in properties.items() if isinstance(properties, Mapping) else ():
        if not isinstance(told, Mapping) or told.get("type") not in LONG:
            continue
        kind = str(told["type"])
        is_long = len(_listed(told.get(kind))) >= SHOWN_AT_ONCE or told.get("has_more") is True
        if is_long and isinstance(told.get("id"), str):
            yield str(name), told["id"], kind


def file_properties(page: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yields the id of a property and a file in it, for each file that Notion keeps."""
    properties = page.get("properties")
    for told in properties.values() if isinstance(properties, Mapping) else ():
        if isinstance(told, Mapping) and told.get("type") == "files":
            for one in _listed(told.get("files")):
                yield str(told.get("id")), one


def _listed(value: Any) -> list[Mapping[str, Any]]:
    return [one for one in value if isinstance(one, Mapping)] if isinstance(value, list) else []


def _named(value: Any) -> str | None:
    name = value.get("name") if isinstance(value, Mapping) else None
    return name if isinstance(name, str) and name else None


def _unique(value: Any) -> str | None:
    number = value.get("number") if isinstance(value, Mapping) else None
    if number is None:
        return None
    return f"{value['prefix']}-{number}" if value.get("prefix") else str(number)


def _place(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return None
    wanted = ("name", "address", "lat", "lon")
    return {name: value[name] for name in wanted if value.get(name) is not None} or None
