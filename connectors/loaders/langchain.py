"""LangChainConnector: any document loader of LangChain as a source."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar

from contextframe_beam.connectors.loaders.connector import Loaded, LoaderConnector, built
from contextframe_beam.connectors.loaders.objects import first_parameter
from contextframe_beam.errors import ConfigError

_PATHS = ("file_path", "path", "filepath", "file", "html_path", "input_file")


class LangChainConnector(LoaderConnector):
    """Documents that a loader of LangChain gives, such as `BSHTMLLoader` or `CSVLoader`.

    A record's unique_id is `langchain:<file>` with `#<number>` for further documents of the file,
    or with their page or row. Without files it is made of the `source` that the loader states, and
    of its arguments where that is no whole address or path.

    Args:
        loader: The class, as `langchain_community.document_loaders:BSHTMLLoader`.
        args: Its arguments. An argument may be an object: `{"class": "package.module:Class",
            "args": {...}}`; without `args` it is the class itself. References to secrets are looked
            up when a loader is made.
        files: Which files it reads, each by a loader of its own, as in `site/**/*.html`. The path
            stands where `{file}` is among the arguments, else in the argument that takes a path.
            Without it one loader gives all documents.
        prefix: What ids begin with, `langchain` by default.

    Raises:
        ConfigError: an argument makes no sense, or there is no such class.
    """

    identity_args: ClassVar[tuple[str, ...] | None] = ("loader", "args", "files", "prefix")

    def __init__(
        self,
        loader: str,
        args: Mapping[str, Any] | None = None,
        files: str | None = None,
        prefix: str | None = None,
    ) -> None:
        super().__init__(loader, args, files, prefix)
        if not any(callable(getattr(self._class, name, None)) for name in ("lazy_load", "load")):
            raise ConfigError(
                f"{loader} has neither lazy_load nor load; name a document loader, as in "
                "langchain_community.document_loaders:TextLoader"
            )

    def _load(self, path: str | None) -> Iterable[Loaded]:
        args, is_placed = built(self.args, path)
        if path is None or is_placed:
            made = self._class(**args)
        else:
            name = first_parameter(self._class, [one for one in _PATHS if one not in args])
            made = (
                self._class(path, **args) if name is None else self._class(**{name: path, **args})
            )
        return _documents(made)


def _documents(loader: Any) -> Iterator[Loaded]:
    load = getattr(loader, "lazy_load", None) or loader.load
    for one in load():
        yield Loaded(one.page_content, one.metadata, getattr(one, "id", None))
