"""Reading an answer of the API: where its items are, and whether there are more."""

from typing import Any


def items_of(answer: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns the items of a page."""
    items: list[dict[str, Any]] = answer["items"]
    return items


def next_page_of(answer: dict[str, Any], page: int) -> int | None:
    """Returns the number of the page after this one; None on the last."""
    return page + 1 if answer.get("has_more") else None
