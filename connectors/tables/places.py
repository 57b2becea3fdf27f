"""Places of tables: a path as a folder and a pattern, and the columns that folders name."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from urllib.parse import unquote

from contextframe_beam.connectors.files.listing import FileInfo, printable
from contextframe_beam.connectors.plain_secrets import without_credentials
from contextframe_beam.errors import ConfigError

_PARTITION = re.compile(r"([^/=]+)=([^/]*)")
_NO_VALUE = "__HIVE_DEFAULT_PARTITION__"


def placed(path: str | os.PathLike[str]) -> tuple[str, str]:
    """Returns the folder that a path begins with, and the pattern of what is read below it.

    The pattern is "" for a folder of which all tables are read.
    """
    text = os.fspath(path)
    text = text.removeprefix("file://")
    is_url = "://" in text or "::" in text
    if not is_url:
        text = os.path.abspath(os.path.expanduser(text)) if text else text
        if os.path.isdir(text):
            return text, ""
        if os.path.exists(text):
            return os.path.split(text)
    if not text:
        raise ConfigError("path is empty; give a file, a folder, or a pattern such as 'data/*.csv'")
    is_web = text.startswith(("http://", "https://"))
    scheme, mark, rest = text.rpartition("://") if is_url else ("", "", text)
    names = rest.split("/")
    for place, name in enumerate(names):
        if place and not is_web and set("*?[") & set(name):
            return scheme + mark + "/".join(names[:place]) or "/", "/".join(names[place:])
    last = names[-1]
    if is_url and ("." not in last or len(names) == 1):
        return text.rstrip("/"), ""
    return scheme + mark + "/".join(names[:-1]) or "/", last


def shown(info: FileInfo) -> str:
    """Returns the path of a file for people, without what may be a credential in an address."""
    return without_credentials(printable(info.path))


def texts_of(address: str, path: str) -> dict[str, str | None]:
    """Returns the columns that the folders of a file tell, as `year=2024` does; None is null.

    Args:
        address: The path or URL of the file.
        path: What the user gave. Only its last folders, and those below, count.
    """
    texts: dict[str, str | None] = {}
    *folders, _ = address.split("/")
    for folder in folders[_first_partition(path) :]:
        match = _PARTITION.fullmatch(folder)
        if match is not None:
            value = unquote(match[2])
            texts[unquote(match[1])] = None if value == _NO_VALUE else value
    return texts


def managed_by(folders: Sequence[str], name: str) -> str:
    """Returns what keeps a log of which files count in a folder; "" for plain files.

    Args:
        folders: Those on the way to a file of the folder.
        name: The file's name.
    """
    if "_delta_log" in folders:
        return "Delta Lake"
    if ".hoodie" in folders:
        return "Hudi"
    return "Iceberg" if "metadata" in folders and name.endswith(".metadata.json") else ""


def _first_partition(path: str) -> int:
    """Returns which folder of a path can be the first that names a column and a value."""
    names = path.split("/")
    fixed = next((n for n, name in enumerate(names) if set("*?[=") & set(name)), len(names))
    return min(fixed, len(names))
