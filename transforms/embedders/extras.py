"""The error for a library that comes with an extra and is not installed."""

from __future__ import annotations

from contextframe_beam.errors import ConfigError


def missing_extra(embedder: str, extra: str, error: ImportError | None) -> ConfigError:
    """Returns the error for an embedder whose library is missing.

    Args:
        embedder: Its name.
        extra: The extra that brings it.
        error: What importing said.
    """
    missing = f" ({error})" if error is not None else ""
    return ConfigError(
        f"the embedder {embedder} needs packages that are not installed{missing}; run: "
        f"pip install 'contextframe-beam[{extra}]', on the machines of the workers too"
    )
