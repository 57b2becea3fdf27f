"""How values of metadata fit into the columns of the format.

Each `fit` function returns what its column holds of a value: the value itself if the column can
hold all of it, a part (the date of a time, the name of an author), or None.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date
from functools import lru_cache
from typing import Any

from contextframe_beam._json import dump_json
from contextframe_beam.record import is_uuid, target_unique_id, uuid_of
from contextframe_beam.schema import COLLECTION_ID_TYPES

_TITLE_LENGTH = 120
_HEADING = re.compile(r"^#{1,6}[ \t]+(\S.*)$", re.MULTILINE)
_VERSION = re.compile(r"[0-9]+\.[0-9]+\.[0-9]+\Z")
_CANONICAL = ("type", "id", "uri", "path", "cid", "title", "description")


def title_of(text: str | None, unique_id: str | None) -> str:
    if text:
        head = text[:4096]
        if "#" in head:
            for heading in _HEADING.finditer(head):
                title = _without_closing(heading.group(1).rstrip())
                if title:
                    return title[:_TITLE_LENGTH]
        for line in head.splitlines():
            line = line.strip()
            if line:
                return line[:_TITLE_LENGTH]
    return unique_id or ""


def _without_closing(heading: str) -> str:
    """Returns a Markdown heading without the marks that may close it: `C#` keeps its own."""
    title = heading.rstrip("#")
    return title.rstrip() if not title or title[-1] in " \t" else heading


def fit_text(value: Any) -> str | None:
    return value if type(value) is str else None


def fit_title(value: Any) -> str | None:
    return value if type(value) is str and value else None


def _fit_author(value: Any) -> str | None:
    if type(value) is str:
        return value
    # What most systems give: an object with the name in it, kept whole beside the column.
    name = value.get("name") if isinstance(value, dict) else None
    return name if type(name) is str else None


def fit_date(value: Any) -> str | None:
    """Returns the date that ISO text begins with; the text itself when it is no more than that."""
    if type(value) is not str or value[4:5] != "-" or value[7:8] != "-":
        return None
    day = value if len(value) == 10 else value[:10]
    return day if is_date(day) else None


@lru_cache(maxsize=65536)
def is_date(text: str) -> bool:
    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


def _fit_version(value: Any) -> str | None:
    return value if type(value) is str and _VERSION.match(value) else None


def _fit_position(value: Any) -> int | None:
    return value if type(value) is int and 0 <= value < 2**31 else None


def _fit_id_type(value: Any) -> str | None:
    return value if type(value) is str and value in COLLECTION_ID_TYPES else None


def fit_texts(value: Any) -> list[str] | None:
    if type(value) is not list:
        return None
    for item in value:
        if type(item) is not str:
            return None
    return value


def fit_uuid(value: Any) -> str | None:
    if not is_uuid(value):
        return None
    return value if value == value.lower() else str(value).lower()


FIT: dict[Any, Callable[[Any], Any]] = {
    "uuid": fit_uuid,
    "title": fit_title,
    "version": _fit_version,
    "local_path": fit_text,
    "cid": fit_text,
    "collection": fit_text,
    "collection_id": fit_text,
    "collection_id_type": _fit_id_type,
    "position": _fit_position,
    "author": _fit_author,
    "contributors": fit_texts,
    "created_at": fit_date,
    "updated_at": fit_date,
    "tags": fit_texts,
    "status": fit_text,
    "source_file": fit_text,
    "source_type": fit_text,
    "source_url": fit_text,
    "relationships": lambda value: value,
}


def fit_relationships(
    value: Any, unique_id: str | None
) -> tuple[list[dict[str, Any]] | None, bool, bool]:
    """Returns the column's value, whether all have the target form, whether nothing is lost."""
    if type(value) is not list:
        return None, False, False
    column: list[dict[str, Any]] = []
    targets = 0
    exact = True
    for index, item in enumerate(value):
        row, kept = None, False
        if isinstance(item, dict) and "relationship_type" in item:
            row, kept = _target_relationship(item, unique_id, index)
            targets += 1
        elif isinstance(item, dict):
            row, kept = _canonical_relationship(item)
        exact = exact and kept
        if row is not None:
            column.append(row)
    if targets and targets < len(value):
        exact = False
    return column, targets > 0 and exact, exact


def _target_relationship(
    item: dict[str, Any], unique_id: str | None, index: int
) -> tuple[dict[str, Any] | None, bool]:
    kind, target, metadata = item["relationship_type"], item.get("target_id"), item.get("metadata")
    if type(kind) is not str or type(target) not in (str, int) or target == "":
        return None, False
    text = str(target)
    row: dict[str, Any] = dict.fromkeys(_CANONICAL)
    row["type"] = kind
    row["uri"] = text
    row["id"] = uuid_of(target_unique_id(unique_id, text))
    if metadata is not None:
        where = f"metadata['relationships'][{index}]['metadata']"
        row["description"] = dump_json(metadata, where)
    kept = (
        type(target) is str
        and item.keys() <= {"relationship_type", "target_id", "metadata"}
        and ("metadata" not in item or metadata is not None)
    )
    return row, kept


def _canonical_relationship(item: dict[str, Any]) -> tuple[dict[str, Any] | None, bool]:
    if type(item.get("type")) is not str:
        return None, False
    row = {name: item[name] if type(item.get(name)) is str else None for name in _CANONICAL}
    if row["id"] is not None:
        # The column holds lowercase uuids only, as the key does; what the source calls an id
        # otherwise is a name to the outside.
        own = fit_uuid(row["id"])
        if own is None:
            row["uri"] = row["uri"] or row["id"]
        row["id"] = own
    if not (row["id"] or row["uri"] or row["path"] or row["cid"]):
        return None, False
    return row, {name: text for name, text in row.items() if text is not None} == item
