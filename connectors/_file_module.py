"""Classes loaded from a file by its path, which a worker without that file can load as well.

The module gets a name made of its path and text, and the text travels with every pickled connector
of it; a process that has loaded the same text from the same path before uses its module again.
"""

from __future__ import annotations

import hashlib
import importlib.abc
import importlib.util
import re
import sys
from functools import reduce
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from contextframe_beam.errors import ConfigError

_PREFIX = "_contextframe_file_"


class _TextLoader(importlib.abc.InspectLoader):
    """Runs a module's text; `get_source` lets tracebacks show its lines where no file is."""

    def __init__(self, path: str, text: str) -> None:
        self.path = path
        self.text = text

    def get_source(self, fullname: str) -> str:
        return self.text

    def get_code(self, fullname: str) -> CodeType:
        code: CodeType = compile(self.text, self.path, "exec", dont_inherit=True)
        return code


class FileClass:
    """A class of a file, pickled as the file's path and text; calling it makes an instance."""

    def __init__(self, path: str, text: str, qualname: str) -> None:
        self.path = path
        self.text = text
        self.qualname = qualname

    def load(self) -> Any:
        """Returns the class itself."""
        return reduce(getattr, self.qualname.split("."), module_of(self.path, self.text))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.load()(*args, **kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        # Unpickling gives the class; by then its module is there for whatever else refers to it.
        return _load, (self.path, self.text, self.qualname)


def read_module(path: str) -> ModuleType:
    """Loads a Python file.

    Raises:
        ConfigError: there is no such file, it cannot be read, or it cannot be imported.
    """
    file = Path(path).expanduser()
    try:
        text = importlib.util.decode_source(file.read_bytes())
    except OSError as error:
        raise ConfigError(
            f"cannot read {path} ({error.strerror}); give an existing file as "
            "path/to/file.py:ClassName"
        ) from error
    except (UnicodeDecodeError, SyntaxError) as error:
        raise ConfigError(f"{path} is not a Python file: {error}") from error
    try:
        return module_of(str(file.resolve()), text)
    except Exception as error:
        raise ConfigError(f"cannot import {path}: {type(error).__name__}: {error}") from error


def module_of(path: str, text: str) -> ModuleType:
    """Returns the module of this path and text; runs it the first time in this process."""
    stem = re.sub(r"\W", "_", Path(path).stem)
    digest = hashlib.sha256(f"{path}\0{text}".encode("utf-8", "surrogatepass")).hexdigest()
    name = f"{_PREFIX}{stem}_{digest[:16]}"
    module = sys.modules.get(name)
    if module is not None:
        return module
    spec = importlib.util.spec_from_loader(name, _TextLoader(path, text), origin=path)
    assert spec is not None and spec.loader is not None
    spec.has_location = True
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def source_file(cls: type) -> tuple[str, str] | None:
    """Returns path and text of the file that `cls` was loaded from by path, else None."""
    if not cls.__module__.startswith(_PREFIX):
        return None
    loader = getattr(sys.modules.get(cls.__module__), "__loader__", None)
    return (loader.path, loader.text) if isinstance(loader, _TextLoader) else None


def _load(path: str, text: str, qualname: str) -> Any:
    return FileClass(path, text, qualname).load()
