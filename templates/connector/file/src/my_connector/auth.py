"""Whether the folder may be read."""

import os
from pathlib import Path

from contextframe_beam.errors import ConnectorError


def check_folder(folder: Path) -> None:
    """Verifies that a folder is there and can be listed.

    Raises:
        ConnectorError: it cannot.
    """
    if not folder.is_dir():
        raise ConnectorError(f"there is no folder {folder}; give another --directory")
    if not os.access(folder, os.R_OK | os.X_OK):
        raise ConnectorError(f"the folder {folder} may not be read; change its permissions")
