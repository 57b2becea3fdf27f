"""Enrichers by name: `keywords`, `package.module:Class` or `path/to/file.py:Class`."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from functools import reduce
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from contextframe_beam.connectors._file_module import FileClass, read_module, source_file
from contextframe_beam.errors import ConfigError, nearest

if TYPE_CHECKING:
    from contextframe_beam.record import FrameRecord
    from contextframe_beam.transforms.enrich import Enricher

_NAMED = {"keywords": "contextframe_beam.transforms.enrich:KeywordEnricher"}


class FileEnricher:
    """An enricher whose class is in a file; it travels to the workers as the file's text.

    Args:
        path: The file.
        text: What is in it.
        qualname: The class.
    """

    def __init__(self, path: str, text: str, qualname: str) -> None:
        self._parts = (path, text, qualname)
        self._enricher: Any = None

    def enrich(self, record: FrameRecord, source_item: Any) -> FrameRecord:
        """Passes the record to the enricher, which is made when the first one comes."""
        if self._enricher is None:
            self._enricher = FileClass(*self._parts)()
        enriched: FrameRecord = self._enricher.enrich(record, source_item)
        return enriched

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_enricher": None}


def load_enrichers(specs: Iterable[str]) -> list[Enricher]:
    """Makes the enrichers that `specs` name, in order.

    Raises:
        ConfigError: there is none of that name, it cannot be imported, or it is no enricher.
    """
    return [_load(spec) for spec in specs]


def _load(spec: str) -> Enricher:
    where, _, qualname = _NAMED.get(spec, spec).rpartition(":")
    if not where or not qualname:
        raise ConfigError(
            f"there is no enricher {spec!r}{nearest(spec, _NAMED)} "
            f"(there are: {', '.join(_NAMED)}); "
            "one of your own is given as package.module:Class or path/to/file.py:Class"
        )
    cls = _class_in(_module(where, spec), qualname, where)
    file = source_file(cls)
    try:
        enricher: Enricher = cls()
    except Exception as error:
        raise ConfigError(
            f"{spec} cannot be made without arguments ({type(error).__name__}: {error}); "
            "give it defaults, or use it from Python"
        ) from error
    return enricher if file is None else FileEnricher(*file, cls.__qualname__)


def _module(where: str, spec: str) -> ModuleType:
    if where.endswith(".py"):
        return read_module(where)
    try:
        return import_module(where)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{where}.".startswith(f"{error.name}."):
            raise ConfigError(f"{spec}: importing {where} failed: {error}") from error
        raise ConfigError(
            f"{spec}: there is no module {error.name!r}; install its package, put its folder on "
            "PYTHONPATH, or give path/to/file.py:Class"
        ) from error
    except Exception as error:
        raise ConfigError(
            f"{spec}: importing {where} failed: {type(error).__name__}: {error}"
        ) from error


def _class_in(module: ModuleType, qualname: str, where: str) -> Any:
    try:
        found = reduce(getattr, qualname.split("."), module)
    except AttributeError:
        own = [
            name
            for name, value in vars(module).items()
            if inspect.isclass(value) and callable(getattr(value, "enrich", None))
        ]
        raise ConfigError(f"{where} has no class {qualname!r}{nearest(qualname, own)}") from None
    if not inspect.isclass(found) or not callable(getattr(found, "enrich", None)):
        raise ConfigError(
            f"{where}:{qualname} is no enricher: it must be a class with a method "
            "enrich(self, record, source_item)"
        )
    return found
