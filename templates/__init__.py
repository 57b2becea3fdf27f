"""What schedules the jobs: files to hand to other systems, and what hands them out.

A template is a folder with a README.md, whose first line says what it is for and whose section
`Edit` lists the values to change.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from contextframe_beam.errors import ConfigError, nearest

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable  # Python 3.10 has it elsewhere

_README = "README.md"
_IGNORED = ("__pycache__",)


@dataclass(frozen=True)
class Template:
    """A folder of files for one system.

    Attributes:
        name: The folder's name.
        title: What it is for, in one line.
        edit: What to change in it, as Markdown.
        files: The paths of its files, below the folder.
    """

    name: str
    title: str
    edit: str
    files: tuple[str, ...]


def list_templates() -> list[Template]:
    """Returns all templates by name."""
    folders = (entry for entry in files(__name__).iterdir() if entry.is_dir())
    found = (folder for folder in folders if (folder / _README).is_file())
    return sorted(map(_template, found), key=lambda one: one.name)


def find_template(name: str) -> Template:
    """Returns the template of that name.

    Raises:
        ConfigError: there is none.
    """
    known = {one.name: one for one in list_templates()}
    if name not in known:
        hint = nearest(name, known)
        raise ConfigError(f"there is no template {name!r}{hint} (there are: {', '.join(known)})")
    return known[name]


def write_template(template: Template, folder: Path, overwrite: bool = False) -> list[Path]:
    """Copies a template's files into a folder, which is made if it is missing.

    Args:
        template: What to copy.
        folder: Where to.
        overwrite: Replace files that are there.

    Returns:
        The files that were written.

    Raises:
        ConfigError: one of the files is there already, or the folder cannot be written to; in the
            first case nothing was written.
    """
    targets = {name: folder / name for name in template.files}
    present = [name for name, target in targets.items() if os.path.lexists(target)]
    if present and not overwrite:
        raise ConfigError(
            f"{folder} has {', '.join(present)} already; nothing was written. Choose another "
            "folder, or replace them with --force"
        )
    origin = files(__name__) / template.name
    try:
        for name, target in targets.items():
            target.parent.mkdir(parents=True, exist_ok=True)
            with as_file(origin / name) as source:
                target.write_bytes(source.read_bytes())
                target.chmod(source.stat().st_mode & 0o777)
    except OSError as error:
        raise ConfigError(
            f"cannot write to {folder} ({error.strerror}); name another folder"
        ) from error
    return list(targets.values())


def _template(folder: Traversable) -> Template:
    text = (folder / _README).read_text(encoding="utf-8")
    title = text.partition("\n")[0].lstrip("# ")
    section = re.search(r"^## Edit\n+(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    edit = section[1].strip() if section else ""
    names = sorted(str(path) for path in _files(folder, PurePosixPath()))
    return Template(folder.name, title, edit, tuple(names))


def _files(folder: Traversable, below: PurePosixPath) -> Iterator[PurePosixPath]:
    for entry in folder.iterdir():
        if entry.is_dir() and entry.name not in _IGNORED:
            yield from _files(entry, below / entry.name)
        elif entry.is_file():
            yield below / entry.name
