"""Names of a package that are imported when they are first used, rather than at once."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint


def lazy_names(
    package: str, homes: Mapping[str, Sequence[str]]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Returns the `__getattr__` and `__dir__` of a package (PEP 562).

    Args:
        package: The package's `__name__`.
        homes: Modules of the package, each with its names for the package.
    """
    home_of = {name: home for home, names in homes.items() for name in names}

    def get(name: str) -> Any:
        if name not in home_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}", name=name)
        value = getattr(import_module(f"{package}.{home_of[name]}"), name)
        vars(sys.modules[package])[name] = value
        return value

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *home_of})

    return get, names


def registered(group: str) -> list[EntryPoint]:
    """Returns the entry points of a group, each once, by name."""
    # Imported here, because this module comes with every part of the package.
    from importlib.metadata import entry_points

    # An editable install and a copy beside it show the same entry point twice.
    found = {(one.name, one.value): one for one in entry_points(group=group)}
    return [found[key] for key in sorted(found)]
