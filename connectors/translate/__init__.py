"""Sources that other programs describe, as configurations of `api`."""

from __future__ import annotations

from contextframe_beam.connectors.translate.manifest import Manifest, read_manifest
from contextframe_beam.connectors.translate.translation import (
    Problem,
    Translation,
    text_of,
    translate,
)

__all__ = ["Manifest", "Problem", "Translation", "read_manifest", "text_of", "translate"]
