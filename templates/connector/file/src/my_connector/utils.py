"""From a file to an item."""

from datetime import datetime, timezone
from pathlib import Path
from typing import Any


def read_file(path: Path, folder: Path) -> dict[str, Any]:
    """Returns a file's text, its path below the folder, and when it was changed last.

    Raises:
        OSError: it cannot be read.
        UnicodeDecodeError: it is not UTF-8 text.
    """
    modified = datetime.fromtimestamp(path.stat().st_mtime, timezone.utc)
    return {
        "path": path.relative_to(folder).as_posix(),
        "text": path.read_text(encoding="utf-8"),
        "modified_at": modified.isoformat(),
    }


def title_of(text: str) -> str | None:
    """Returns the first line that says something, without the marks of a heading."""
    lines = (line.strip().lstrip("# ") for line in text.splitlines())
    return next((line[:120] for line in lines if line), None)
