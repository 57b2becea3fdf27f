"""LlamaIndexConnector: any reader of LlamaIndex as a source."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

from contextframe_beam.connectors.loaders.connector import Loaded, LoaderConnector, built
from contextframe_beam.connectors.loaders.objects import first_parameter
from contextframe_beam.errors import ConfigError

_OF_LOADING = ("file", "file_path", "input_file", "path")
_OF_READERS = ("input_files", "file_path", "input_file", "file")


class LlamaIndexConnector(LoaderConnector):
    """Documents that a reader of LlamaIndex gives, such as `SimpleDirectoryReader`.

    A record's unique_id is `llamaindex:<file>` with `#<number>` for further documents of the file,
    or with their page or row. Without files it is the id that the reader gives, unless that is made
    up at each reading, else it is made of the file or address that the reader states.

    Args:
        reader: The class, as `llama_index.core:SimpleDirectoryReader`.
        args: Its arguments. An argument may be an object: `{"class": "package.module:Class",
            "args": {...}}`; without `args` it is the class itself. References to secrets are looked
            up when a reader is made.
        load: The arguments of its `load_data`.
        files: Which files it reads, each by a reader of its own, as in `site/**/*.html`. The path
            stands where `{file}` is among the arguments, else in the argument that takes a path.
            Without it one reader gives all documents.
        prefix: What ids begin with, `llamaindex` by default.

    Raises:
        ConfigError: an argument makes no sense, or there is no such class.
    """

    identity_args: ClassVar[tuple[str, ...] | None] = ("reader", "args", "load", "files", "prefix")

    def __init__(
        self,
        reader: str,
        args: Mapping[str, Any] | None = None,
        load: Mapping[str, Any] | None = None,
        files: str | None = None,
        prefix: str | None = None,
    ) -> None:
        super().__init__(reader, args, files, prefix)
        if not isinstance(load, Mapping | None):
            raise ConfigError(f"load is a {type(load).__name__}; give an object, as in JSON")
        self.load = dict(load or {})
        if not callable(getattr(self._class, "load_data", None)):
            raise ConfigError(
                f"{reader} has no load_data; name a reader, as in "
                "llama_index.core:SimpleDirectoryReader"
            )

    def _load(self, path: str | None) -> Iterable[Loaded]:
        args, in_args = built(self.args, path)
        load, in_load = built(self.load, path)
        if path is not None and not (in_args or in_load):
            name = first_parameter(self._class.load_data, _OF_LOADING)
            if name is not None:
                load = {name: Path(path), **load}
            else:
                name = first_parameter(self._class, _OF_READERS)
                if name is None:
                    raise ConfigError(
                        f"{self.loader} has no argument that is known to take a path; write "
                        '{file} where it stands, as in {"source": "{file}"}'
                    )
                args = {name: [path] if name == "input_files" else path, **args}
        return _documents(self._class(**args).load_data(**load))


def _documents(found: Iterable[Any]) -> Iterator[Loaded]:
    for one in found:
        text = getattr(one, "text", None)
        if not isinstance(text, str):
            text = one.get_content()
        own = getattr(one, "id_", None) or getattr(one, "doc_id", None)
        yield Loaded(text, getattr(one, "metadata", None) or {}, own)
