"""Fingerprints of what makes documents and vectors: of settings, of files and of code.

What has the same fingerprint makes the same of the same, so that it need not be made again.
"""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Iterable
from pathlib import Path
from types import CodeType
from typing import Any

import xxhash

_BLOCK = 1 << 20
# Where a class was written.
_PLACES = {"__firstlineno__", "__module__", "__qualname__"}
_PLAIN = (str, bytes, int, float, bool, type(None))


def fingerprint(*parts: object, files: Iterable[str | os.PathLike[str]] = ()) -> str:
    """Returns the XXH3-128 of settings and of the content of files, as 32 hexadecimal digits.

    Args:
        *parts: JSON values.
        files: Read to their end; their paths do not count.

    Raises:
        OSError: a file cannot be read.
    """
    state = xxhash.xxh3_128(json.dumps(parts, sort_keys=True).encode())
    for path in files:
        state.update(f"\0{Path(path).stat().st_size}\0".encode())
        with open(path, "rb") as file:
            while block := file.read(_BLOCK):
                state.update(block)
    return state.hexdigest()


def code_version(found: Any, source: str | None = None) -> str:
    """Returns the version of a class or function: what it says, else a digest of its source.

    Bases of a class count by themselves; `code_versions` has them all.

    Args:
        found: The class or function. Its attribute `version` is text or a number.
        source: Its source, where Python itself cannot find it.
    """
    version = vars(found).get("version")
    if isinstance(version, str | int):
        return str(version)
    if source is None:
        try:
            source = inspect.getsource(found)
        except (OSError, TypeError):  # written at a prompt, or installed without its source
            source = repr(_compiled(found))
    return xxhash.xxh3_128_hexdigest(source.encode("utf-8", "surrogatepass"))


def code_versions(found: Any) -> list[str]:
    """Returns the versions of a class and of all that it is based on, or that of a function."""
    classes = [one for one in found.__mro__ if one is not object] if inspect.isclass(found) else []
    return [code_version(one) for one in classes or [found]]


def _compiled(value: Any) -> Any:
    """Returns what Python runs, without where it was written."""
    if isinstance(value, CodeType):
        return [value.co_code, value.co_names, [_compiled(one) for one in value.co_consts]]
    if inspect.isclass(value):
        own = {name: one for name, one in vars(value).items() if name not in _PLACES}
        return [(name, _compiled(one)) for name, one in sorted(own.items())]
    if isinstance(value, staticmethod | classmethod):
        return _compiled(value.__func__)
    if isinstance(value, property):
        return [_compiled(one) for one in (value.fget, value.fset)]
    if inspect.isfunction(value):
        return [_compiled(value.__code__), _compiled(value.__defaults__)]
    if isinstance(value, frozenset):
        return sorted(map(repr, map(_compiled, value)))
    if isinstance(value, tuple):
        return [_compiled(one) for one in value]
    return value if isinstance(value, _PLAIN) else type(value).__qualname__
