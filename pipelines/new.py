"""A package for a new connector: written once, then its author's own.

The files under `templates/connector/` are those of a working package, whose name is replaced. They
are in `common/` and in a folder for each kind.
"""

from __future__ import annotations

import keyword
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from contextframe_beam.connectors.registry import list_connectors
from contextframe_beam.errors import ConfigError

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable  # Python 3.10 has it elsewhere

LONGEST_NAME = 30

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
# Wheels leave out names that begin with a dot, and tools would heed settings where they lie.
_RENAMED = {
    "_github": ".github",
    "_gitignore": ".gitignore",
    "_pyproject.toml": "pyproject.toml",
}
_TAKEN = {"contextframe", "contextframe_beam", "tests", "src", "connector"}


@dataclass(frozen=True)
class Kind:
    """A kind of source that there is a package for.

    Attributes:
        summary: What its connector reads, for the README.
        options: How it is called from the command line.
        arguments: The same from Python.
        parameters: Its arguments: name, description, required, default.
    """

    summary: str
    options: str
    arguments: str
    parameters: tuple[tuple[str, str, str, str], ...]

    def table(self) -> str:
        """Returns the arguments as a Markdown table."""
        rows = [("Parameter", "Description", "Required", "Default"), ("---",) * 4]
        return "\n".join(f"| {' | '.join(row)} |" for row in [*rows, *self.parameters])


KINDS = {
    "file": Kind(
        "Brings the text files of a folder into a dataset of frames.",
        "--directory notes",
        '"notes"',
        (
            ("directory", "The folder; files in folders below it are read as well", "Yes", ""),
            ("pattern", "Which files, as in `*.md`", "No", "`*.txt`"),
        ),
    ),
    "api": Kind(
        "Brings the documents of an HTTP API into a dataset of frames.",
        "--base-url https://api.example.com/ --token env:API_TOKEN",
        '"https://api.example.com/", token="env:API_TOKEN"',
        (
            ("base_url", "Where the API is", "Yes", ""),
            ("token", "The token that it accepts, best as a reference", "Yes", ""),
            ("per_second", "How many requests may be sent a second", "No", "10"),
        ),
    ),
    "custom": Kind(
        "Brings the rows of an SQLite table into a dataset of frames.",
        "--path source.db",
        '"source.db"',
        (
            ("path", "The database file", "Yes", ""),
            ("table", "The table; it has a column `id`", "No", "documents"),
        ),
    ),
}


def write_package(name: str, kind: str, parent: Path) -> list[Path]:
    """Writes the package of a connector into a new folder of its name.

    Args:
        name: The connector's name, in small letters with dashes between words.
        kind: file, api or custom.
        parent: The folder in which the new one is made.

    Returns:
        The files that were written.

    Raises:
        ConfigError: the name cannot be, or the folder is there already; nothing was written.
    """
    _check_name(name)
    folder = parent / name
    if os.path.lexists(folder):
        raise ConfigError(
            f"{folder} is there already; nothing was written. Choose another name, or move it away"
        )
    chosen = KINDS[kind]
    replaced = {
        "{{SUMMARY}}": chosen.summary,
        "{{OPTIONS}}": chosen.options,
        "{{ARGUMENTS}}": chosen.arguments,
        "{{TABLE}}": chosen.table(),
        "my-connector": name,
        "my_connector": module_of(name),
        "MyConnector": class_of(name),
    }
    written = []
    root = files("contextframe_beam.templates") / "connector"
    try:
        for part in ("common", kind):
            for path, file in _files(root / part, PurePosixPath()):
                target = folder / _filled(str(path), replaced)
                target.parent.mkdir(parents=True, exist_ok=True)
                text = file.read_text(encoding="utf-8")
                target.write_text(_filled(text, replaced), encoding="utf-8")
                written.append(target)
    except OSError as error:
        raise ConfigError(f"cannot write to {folder} ({error.strerror})") from error
    return sorted(written)


def module_of(name: str) -> str:
    """Returns the module of a connector: `my_crm` for `my-crm`."""
    return name.replace("-", "_")


def class_of(name: str) -> str:
    """Returns the class of a connector: `MyCrm` for `my-crm`."""
    return "".join(part.capitalize() for part in name.split("-"))


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        words = re.findall(r"[a-z0-9]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "-", name).lower())
        better = "-".join(words).lstrip("0123456789-")
        hint = f", such as {better}" if _NAME.fullmatch(better) else ""
        raise ConfigError(
            f"{name!r} cannot name a connector: take small letters and digits, with single dashes "
            f"between words{hint}"
        )
    if len(name) > LONGEST_NAME:
        raise ConfigError(f"{name!r} is longer than {LONGEST_NAME} characters; shorten it")
    module = module_of(name)
    if keyword.iskeyword(module) or module in sys.stdlib_module_names or module in _TAKEN:
        raise ConfigError(
            f"{name!r} would make a package that hides Python's own {module!r}; call it "
            f"{name}-source, for instance"
        )
    if any(one.name == name for one in list_connectors()):
        raise ConfigError(f"there is a connector {name!r} already; choose another name")


def _files(
    folder: Traversable, below: PurePosixPath
) -> Iterator[tuple[PurePosixPath, Traversable]]:
    for entry in folder.iterdir():
        path = below / _RENAMED.get(entry.name, entry.name)
        if entry.is_dir() and entry.name != "__pycache__":
            yield from _files(entry, path)
        elif entry.is_file() and not entry.name.endswith(".pyc"):
            yield path, entry


def _filled(text: str, replaced: dict[str, str]) -> str:
    return re.sub("|".join(map(re.escape, replaced)), lambda match: replaced[match[0]], text)
