"""A vault: the names of its files, where links lead, and what its settings say."""

from __future__ import annotations

import base64
import json
import re
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from posixpath import normpath
from typing import Any
from unicodedata import normalize

from xxhash import xxh3_64_hexdigest

SETTINGS = ".obsidian/"
_APP = f"{SETTINGS}app.json"
_TEMPLATES = f"{SETTINGS}templates.json"
_TEMPLATER = f"{SETTINGS}plugins/templater-obsidian/data.json"
_DAILY = f"{SETTINGS}daily-notes.json"
SETTING_FILES = (_APP, _TEMPLATES, _TEMPLATER, _DAILY)
_MOMENT = re.compile(r"\[[^\]]*\]|YYYY|[A-Za-z]+|[^A-Za-z\[]+")


def normal(path: str) -> str:
    """Returns a path with composed letters (NFC) and forward slashes."""
    return normalize("NFC", path)


@dataclass(frozen=True)
class Settings:
    """What the settings of a vault say about which files are read.

    Attributes:
        ignored: The filters of its files that are to be ignored: the beginning of a path each, or
            an expression between slashes.
        templates: The folders of templates.
        daily: The folder of daily notes, and the format of their names.
    """

    ignored: tuple[str, ...] = ()
    templates: tuple[str, ...] = ()
    daily: tuple[str, str] = ("", "YYYY-MM-DD")

    @classmethod
    def of(cls, files: Mapping[str, bytes]) -> Settings:
        """Returns the settings of a vault; what cannot be read says nothing.

        Args:
            files: The content of those `SETTING_FILES` that are there.
        """

        def value(path: str, name: str) -> Any:
            try:
                found = json.loads(files.get(path, b"{}"))
            except ValueError:
                return None
            return found.get(name) if isinstance(found, dict) else None

        ignored = value(_APP, "userIgnoreFilters")
        folders = (value(_TEMPLATES, "folder"), value(_TEMPLATER, "templates_folder"))
        daily = (value(_DAILY, "folder"), value(_DAILY, "format"))
        return cls(
            tuple(one for one in ignored or () if isinstance(one, str) and one)
            if isinstance(ignored, list)
            else (),
            tuple(one.strip("/") for one in folders if isinstance(one, str) and one.strip("/")),
            (_text(daily[0]).strip("/"), _text(daily[1]) or "YYYY-MM-DD"),
        )

    def ignores(self, path: str) -> bool:
        """Returns whether a filter of the vault means this path."""
        return any(_means(one, path) for one in self.ignored)

    def is_template(self, path: str) -> bool:
        """Returns whether a path is in a folder of templates."""
        return any(path.startswith(f"{one}/") for one in self.templates)

    def is_daily(self, path: str) -> bool:
        """Returns whether a path is that of a daily note."""
        folder, form = self.daily
        below = path.removeprefix(f"{folder}/") if folder else path
        if folder and below == path:
            return False
        pattern = "".join(_moment(one) for one in _MOMENT.findall(form))
        return re.fullmatch(rf"{pattern}\.md", below) is not None


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _moment(part: str) -> str:
    if part.startswith("["):
        return re.escape(part[1:-1])
    if not part[0].isalpha():
        return re.escape(part)
    if set(part) <= set("YMDdWwHhmsGgQ"):
        return r"[\w]+" if "MMM" in part or "dd" in part else rf"\d{{1,{max(len(part), 2)}}}"
    return r"\w+"


def _means(pattern: str, path: str) -> bool:
    if len(pattern) > 2 and pattern.startswith("/") and pattern.endswith("/"):
        try:
            return re.search(pattern[1:-1], path) is not None
        except re.error:
            return False
    return path.casefold().startswith(pattern.casefold())


@dataclass
class VaultIndex:
    """The names in a vault, by which links are resolved.

    Attributes:
        paths: The paths of all files, by their normal forms.
        about: What is known of notes by path: their other names, and their ids.
    """

    paths: list[str]
    about: dict[str, tuple[list[str], str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.paths = sorted(self.paths)
        self._by_name: dict[str, list[str]] = {}
        self._exact = set(self.paths)
        for path in self.paths:
            self._by_name.setdefault(_folded(path.rpartition("/")[2]), []).append(path)
        self._by_alias: dict[str, list[str]] = {}
        for path in sorted(self.about):
            for alias in self.about[path][0]:
                self._by_alias.setdefault(_folded(alias), []).append(path)

    @property
    def digest(self) -> str:
        """Is another one whenever a link may lead elsewhere."""
        return xxh3_64_hexdigest(self._told().encode("utf-8", "surrogatepass"))

    def pack(self) -> str:
        """Returns the index as short text."""
        data = self._told().encode("utf-8", "surrogatepass")
        return base64.b85encode(zlib.compress(data, 6)).decode("ascii")

    @classmethod
    def unpack(cls, packed: str) -> VaultIndex:
        """Returns the index that was packed.

        Raises:
            ValueError: it was not packed by this.
        """
        try:
            data = zlib.decompress(base64.b85decode(packed))
            paths, about = json.loads(data)
            return cls(paths, {path: (names, one) for path, (names, one) in about.items()})
        except (zlib.error, TypeError, AttributeError) as error:
            raise ValueError(str(error)) from error

    def resolve(self, target: str, source: str) -> str | None:
        """Returns the path that a link leads to; None where nothing has that name.

        A whole path counts first, then a file in the folder of the note, then the shortest path;
        letters count with their case before they count without. At last it may be another name
        that a note has given itself.

        Args:
            target: What the link names, without a heading.
            source: The path of the note that it is in.
        """
        if not target:
            return source
        target = normal(target).replace("\\", "/")
        folder = source.rpartition("/")[0]
        relative = target.startswith(("./", "../"))
        if relative:
            target = normpath(f"{folder}/{target}" if folder else target)
        target = target.strip("/")
        for name in (f"{target}.md", target):
            if name in self._exact:
                return name
        for name in (f"{target}.md", target):
            found = self._near(name, folder, relative)
            if found is not None:
                return found
        named = self._by_alias.get(_folded(target), ())
        return min(named, key=_shortness) if named and not relative else None

    def _near(self, name: str, folder: str, whole: bool) -> str | None:
        folded = _folded(name)
        ending = f"/{folded}"
        candidates = [
            path
            for path in self._by_name.get(folded.rpartition("/")[2], ())
            if _folded(path) == folded or (not whole and _folded(path).endswith(ending))
        ]
        if not candidates:
            return None

        def rank(path: str) -> tuple[Any, ...]:
            is_whole = _folded(path) == folded and "/" in folded
            near = f"{folder}/{folded}" if folder else folded
            same_case = path == name or path.endswith(f"/{name}")
            return (not is_whole, _folded(path) != _folded(near), not same_case, *_shortness(path))

        return min(candidates, key=rank)

    def _told(self) -> str:
        return json.dumps([self.paths, dict(sorted(self.about.items()))], ensure_ascii=False)


def _folded(name: str) -> str:
    return normal(name).casefold()


def _shortness(path: str) -> tuple[int, int, str]:
    return path.count("/"), len(path), path


def ids_of(
    read: Iterable[str], vault: str, about: Mapping[str, tuple[list[str], str]]
) -> dict[str, str]:
    """Returns the id of the record of each file: by its own id where it has one, else by its path.

    Args:
        read: The paths as they were listed.
        vault: The name of the vault.
        about: What is known of notes, by normal path.
    """
    ids: dict[str, str] = {}
    taken: set[str] = set()
    for path in sorted(read):
        own = about.get(normal(path), ([], ""))[1]
        for name in (own, normal(path), path):
            if name and f"obsidian:{vault}/{name}" not in taken:
                break
        ids[path] = f"obsidian:{vault}/{name}"
        taken.add(ids[path])
    return ids
