"""Which pages of a workspace are read: those below some roots, without what is left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from contextframe_beam.connectors.notion.properties import title_of
from contextframe_beam.connectors.notion.rich_text import page_id, page_in
from contextframe_beam.connectors.notion.workspace import NotionError, Workspace
from contextframe_beam.errors import ConfigError


class Scope:
    """Tells whether an object is to be read.

    Args:
        roots: Ids or addresses of pages, databases and data sources; all is read without any.
        exclude: Ids or addresses of what is left out with all below it, or patterns of titles.

    Attributes:
        roots: The ids of the roots, in order.

    Raises:
        ConfigError: a root is neither an id nor an address of Notion.
    """

    def __init__(self, roots: Sequence[str], exclude: Sequence[str]) -> None:
        self.roots = tuple(dict.fromkeys(_root(one) for one in roots))
        found = [(one, page_in(one) or page_id(one)) for one in exclude]
        self._without = frozenset(identifier for _, identifier in found if identifier)
        self._titles = tuple(one.lower() for one, identifier in found if not identifier)

    @property
    def identity(self) -> dict[str, list[str]]:
        """What is read, however it was written."""
        without = sorted({*self._without, *self._titles})
        return {
            **({"roots": sorted(self.roots)} if self.roots else {}),
            **({"exclude": without} if without else {}),
        }

    @property
    def is_all(self) -> bool:
        """Whether nothing is left out."""
        return not self.roots and not self._without and not self._titles

    def leaves_out(self, found: Mapping[str, Any]) -> bool:
        """Returns whether an object itself is left out, whatever lies above it."""
        return self._leaves_out(page_id(str(found.get("id"))) or "", title_of(found))

    def has(self, found: Mapping[str, Any], workspace: Workspace) -> bool:
        """Returns whether an object is to be read.

        Args:
            found: A page, a row or a data source.
            workspace: Is asked what lies above it, as far as that decides.
        """
        identifier = page_id(str(found.get("id"))) or ""
        is_below = not self.roots or identifier in self.roots
        if self._leaves_out(identifier, title_of(found)):
            return False
        if is_below and not self._without and not self._titles:
            return True
        for kind, above in workspace.above(found):
            if above in self.roots:
                is_below = True
            if self._leaves_out(above, self._title(kind, above, workspace)):
                return False
            if is_below and not self._without and not self._titles:
                return True
        return is_below

    def _title(self, kind: str, identifier: str, workspace: Workspace) -> str:
        if not self._titles or kind != "page":
            return ""
        return workspace.title(identifier) or ""

    def _leaves_out(self, identifier: str, title: str) -> bool:
        if identifier in self._without:
            return True
        return any(fnmatchcase(title.lower(), one) for one in self._titles)


def find_root(workspace: Workspace, identifier: str) -> Mapping[str, Any]:
    """Returns the page, database or data source with an id.

    Raises:
        NotionError: there is none, or the integration may not see it.
    """
    missing: NotionError | None = None
    for ask in (workspace.page, workspace.database, workspace.data_source):
        try:
            return ask(identifier)
        except NotionError as error:
            # An id of another kind is a 404, or a 400 that says which kind it is.
            if not error.is_missing and error.code != "validation_error":
                raise
            missing = error
    assert missing is not None
    raise missing


def _root(text: str) -> str:
    identifier = page_id(text.strip()) or page_in(text.strip())
    if identifier is None:
        raise ConfigError(
            f"{text!r} is no id and no address of Notion; give the link that Notion copies, as in "
            "https://www.notion.so/Handbook-0123456789abcdef0123456789abcdef"
        )
    return identifier
