"""The libraries that parsers read files with; they come with the extra `documents`."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from contextframe_beam.errors import ConfigError


def library(name: str) -> Any:
    """Returns a module of a library, which is imported when the first file needs it.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        return import_module(name)
    except ImportError as error:
        raise ConfigError(
            f"parsing it needs {error.name or name}, which is not installed; run: "
            "pip install 'contextframe-beam[documents]', on the machines of the workers too"
        ) from error
