"""How the lines of a file are told apart: by their own ids, and without one by where they begin.

A line without an id is named by its byte offset, which may be another line's own id. Where it is,
or where a file is too large to know, such a line is named `byte 31` and not `31`. Files that hold
lines of one kind only keep their names whatever their size.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any


def id_text(value: Any) -> str:
    """Returns an id as text; "" where there is none."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)


def holds_numbers(items: Sequence[dict[str, Any]], id_field: str) -> bool:
    """Tells whether the own id of a line could be an offset."""
    return any(id_text(item.get(id_field)).isdigit() for item in items)


def tell_apart(items: Sequence[dict[str, Any]], id_field: str, are_all: bool) -> None:
    """Changes the offsets of lines without an id into names that no other line has.

    Args:
        items: The items of lines.
        id_field: The field that holds a line's own id.
        are_all: Whether they are all of the file; else some other line may have any number.
    """
    nameless = [item for item in items if item.get(id_field) in (None, "")]
    if not nameless or (are_all and len(nameless) == len(items)):
        return
    own = {id_text(item.get(id_field)) for item in items} if are_all else set()
    for item in nameless:
        name = str(item["_line_offset"])
        if are_all and name not in own:
            continue
        name = f"byte {name}"
        while name in own:
            name += "_"
        item["_line_offset"] = name
