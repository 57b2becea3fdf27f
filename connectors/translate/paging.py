"""The paginator of a stream in a manifest as a paginator of `api`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from contextframe_beam.connectors.translate.jinja import (
    condition_of,
    expression_of,
    reference_of,
    template_of,
)
from contextframe_beam.connectors.translate.manifest import Part
from contextframe_beam.connectors.translate.values import Code, Names, Ref, Untranslatable

#: What a template of a paginator can name.
PAGE_ROOTS = {
    "response": "response",
    "headers": "headers",
    "last_record": "records[-1]",
    "last_page_size": "length(records)",
}

_PLACES = {"request_parameter": "", "header": "header:", "body_json": "body:", "body_data": "form:"}


def paginator_of(retriever: Part, names: Names) -> tuple[Any, dict[str, Any]]:
    """Returns the paginator of a retriever, and the parts of requests that it adds.

    Args:
        retriever: The retriever.
        names: What the names of its templates stand for.

    Returns:
        The paginator, and values by the places in a request.

    Raises:
        Untranslatable: it pages in a way that `api` does not.
    """
    paginator = retriever.child("paginator")
    if not paginator or paginator.get("type") in (None, "NoPagination"):
        return "single", {}
    if paginator.get("type") != "DefaultPaginator":
        raise Untranslatable("a custom paginator", str(paginator.get("class_name")), paginator.line)
    strategy = paginator.child("pagination_strategy")
    kind = strategy.get("type")
    if kind in ("PageIncrement", "OffsetIncrement"):
        return _numbered(retriever, paginator, strategy, names), {}
    if kind == "CursorPagination":
        return _cursor(retriever, paginator, strategy, names)
    raise Untranslatable("a custom paginator", str(strategy.get("class_name")), strategy.line)


def place_of(option: Part, names: Names) -> str:
    """Returns where an option of a request goes, as in `header:X-Page`.

    Raises:
        Untranslatable: it goes to a place that `api` does not know.
    """
    into = str(option.get("inject_into", "request_parameter"))
    path = option.get("field_path")
    name = ".".join(map(str, template_of(path, names))) if path else option.get("field_name")
    found = template_of(name, names) if name is not None else None
    found = found.strip() if isinstance(found, str) else found
    if into not in _PLACES or not isinstance(found, str) or re.search(r"[\s{]", found):
        raise Untranslatable("a place in a request", f"{into} {found}", option.line)
    place = f"{_PLACES[into]}{found}"
    return f"query:{place}" if ":" in found and not _PLACES[into] else place


def _numbered(retriever: Part, paginator: Part, strategy: Part, names: Names) -> dict[str, Any]:
    by_page = strategy.get("type") == "PageIncrement"
    option = paginator.child("page_token_option")
    made: dict[str, Any] = {"type": "page" if by_page else "offset"}
    if option.get("type") == "RequestPath":
        raise Untranslatable("a number in the path of pages", "", option.line)
    if option:
        made["param"] = place_of(option, names)
    elif "next_page_token" in str(retriever.child("requester")):
        made["param"] = None
    else:
        raise Untranslatable("pages without a place for their number", "", paginator.line)
    if by_page:
        made["first"] = int(strategy.get("start_from_page") or 0)
    size = template_of(strategy.get("page_size"), names)
    if size is not None:
        made["size"] = int(size) if isinstance(size, str) and size.isdecimal() else size
        made["stop_at_short_page"] = True
    size_option = paginator.child("page_size_option")
    if size_option and size is not None:
        made["size_param"] = place_of(size_option, names)
    elif not by_page:
        made["size_param"] = None
    return made


def _cursor(
    retriever: Part, paginator: Part, strategy: Part, names: Names
) -> tuple[dict[str, Any] | str, dict[str, Any]]:
    own = Names(names.parameters, {}, PAGE_ROOTS)
    option = paginator.child("page_token_option")
    added: dict[str, Any] = {}
    size = template_of(strategy.get("page_size"), names)
    if size is not None and paginator.child("page_size_option"):
        added[place_of(paginator.child("page_size_option"), names)] = size
    value, condition = strategy.get("cursor_value"), strategy.get("stop_condition")
    if _is_next_link(value, condition, option):
        return "link_header", added
    cursor = expression_of(value, own)
    if not isinstance(cursor, Code):
        raise Untranslatable("a cursor that is always the same", str(value), strategy.line)
    if "settings." in cursor.text:
        raise Untranslatable("a setting in a cursor", cursor.text, strategy.line_of("cursor_value"))
    by_link = option.get("type") == "RequestPath"
    made: dict[str, Any] = {"type": "link" if by_link else "cursor"}
    made["link" if by_link else "cursor"] = _place(value, cursor)
    if not by_link:
        if option:
            made["param"] = place_of(option, names)
        elif "next_page_token" in str(retriever.child("requester")):
            made["param"] = None
        else:
            raise Untranslatable("pages without a place for their cursor", "", paginator.line)
    stop = True if condition is None else _stop(condition, value, own)
    if isinstance(stop, str):
        if "settings." in stop:
            raise Untranslatable("a setting in a cursor", stop, strategy.line_of("stop_condition"))
        made["stop_when"] = stop
    return made, added


def _is_next_link(value: Any, condition: Any, option: Part) -> bool:
    found = reference_of(value)
    if isinstance(found, Ref):
        return found.root == "headers" and found.path[:2] in (("link", "next"), ("Link", "next"))
    # The header taken apart by hand, as far as it is that of the next page.
    by_hand = re.search(r"headers\W+(?:get\W+)?link\b", str(value), re.I) is not None
    by_link = option.get("type") == "RequestPath"
    return by_hand and by_link and "next" in f"{value} {condition}"


def _place(value: Any, cursor: Code) -> str:
    """Returns a plain path where the cursor is a value of the answer."""
    match = re.fullmatch(r"response((?:\.[\w]+)+)", cursor.text)
    return match[1][1:] if match else f"{{= {cursor.text} }}"


def _stop(condition: Any, value: Any, names: Names) -> str | bool:
    """Returns the condition that ends the pages; a bool if the cursor says it already."""
    found = condition_of(condition, names)
    if isinstance(found, bool):
        if found:
            raise Untranslatable("pages that always end", str(condition))
        return False
    cursor = expression_of(value, names)
    assert isinstance(cursor, Code)
    plain = re.sub(r"default\((.+?), (?:''|null|\[\])\)", r"\1", cursor.text)
    same = {f"not {one}" for one in (cursor.text, f"({cursor.text})", plain)}
    same |= {f"{plain} == null", f"{plain} == ''", f"not ({plain} != null)"}
    return True if found in same else found


def with_added(resource: dict[str, Any], added: Mapping[str, Any]) -> None:
    """Adds values to the requests of a resource, by their places."""
    for place, value in added.items():
        where, colon, name = place.partition(":")
        if not colon or where == "query":
            resource.setdefault("params", {})[name if colon else place] = value
        elif where == "header":
            resource.setdefault("headers", {})[name] = value
        elif where == "form":
            resource.setdefault("form", {})[name] = value
        else:
            here = resource.setdefault("body", {})
            *above, last = name.split(".")
            for step in above:
                here = here.setdefault(step, {})
            here[last] = value
