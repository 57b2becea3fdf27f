"""Which files of a repository changed: by comparing two commits, or else by the whole tree."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from contextframe_beam.connectors.files.listing import Exclusion, Match, match_names, parts_of
from contextframe_beam.errors import ConnectorError

#: GitHub compares at most so many files, and does not say whether there are more.
MOST_COMPARED = 300

_LINK, _SUBMODULE = "120000", "160000"
_LFS = b"version https://git-lfs.github.com/spec/v1"
_LFS_FIELD = re.compile(r"^(oid|size) (\S+)$", re.M)
# The patch of what is one line without an end: a link, or such a file. Only the tree tells which.
_ONE_LINE = re.compile(r"@@ -[0-9,]+ \+1 @@[^\n]*\n(?:[-\\][^\n]*\n)*\+[^\n]*\n\\[^\n]*")

# Files with text inside that only parsers find.
_PARSED = frozenset(
    (
        *("docm", "docx", "epub", "ipynb", "ods", "pdf", "potx", "pptm", "pptx", "xls", "xlsm"),
        "xlsx",
    )
)
# Files without text. What others hold is seen when they are read.
_MEDIA = frozenset(
    (
        *("avif", "bmp", "gif", "icns", "ico", "jpeg", "jpg", "png", "psd", "tif", "tiff", "webp"),
        *("3gp", "aac", "avi", "flac", "m4a", "mkv", "mov", "mp3", "mp4", "ogg", "wav", "webm"),
        *("7z", "bz2", "gz", "jar", "rar", "tar", "tgz", "whl", "xz", "zip", "zst"),
        *("a", "bin", "class", "dll", "dylib", "exe", "o", "pyc", "so", "wasm"),
        *("eot", "otf", "ttf", "woff", "woff2"),
    )
)

#: Asks for JSON below the repository: a path and parameters.
Ask = Callable[..., Any]


@dataclass(frozen=True)
class TreeFile:
    """A file of a commit.

    Attributes:
        path: Its path, with slashes.
        sha: The name of its content.
        size: Its size in bytes, where it is told.
    """

    path: str
    sha: str
    size: int | None = None


@dataclass
class Changes:
    """What is to be read of the files of a repository.

    Attributes:
        commit: The commit that they are of.
        files: The files that are new or changed, or all.
        gone: The paths of files that are no longer there, as far as that was told.
        whole: Whether `files` are all that there are.
    """

    commit: str
    files: list[TreeFile] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    whole: bool = False


class Selection:
    """The files that are wanted.

    Args:
        paths: Patterns, as in `docs/**`, or paths of files and folders; all by default.
        exclude: What is left out, as in `vendor/**` or `*.min.js`.
    """

    def __init__(self, paths: Sequence[str], exclude: Sequence[str]) -> None:
        self._paths = [parts_of(one) for one in paths]
        self._exclusion = Exclusion(exclude)

    def __contains__(self, path: object) -> bool:
        names = str(path).split("/")
        wanted = not self._paths or any(_matches(one, names) for one in self._paths)
        return wanted and not self._exclusion.leaves_out_some(names)


def _matches(pattern: Sequence[str], names: Sequence[str]) -> bool:
    # A plain path of a folder means all that is in it.
    if not any(sign in part for part in pattern for sign in "*?["):
        return list(names[: len(pattern)]) == list(pattern)
    return match_names(pattern, names) is not Match.NO


class Git:
    """The files of one repository.

    Args:
        ask: Asks for JSON below the repository, `ask("git/trees/main", recursive=1)`; None where
            there is no such thing.
        wanted: The files that are wanted.
    """

    def __init__(self, ask: Ask, wanted: Selection) -> None:
        self._ask = ask
        self._wanted = wanted

    def all(self, ref: str) -> Changes | None:
        """Returns all files of a commit or a branch; None where there is no such commit."""
        told = self._ask(f"git/trees/{quote(ref, safe='')}", recursive=1)
        if told is None:
            return None
        commit = str(told.get("sha"))
        entries = _entries(told) if not told.get("truncated") else self._walked(commit, "")
        files = [
            TreeFile(path, str(one.get("sha")), _size(one))
            for path, one in entries
            if one.get("type") == "blob" and one.get("mode") != _LINK and path in self._wanted
        ]
        return Changes(commit, files, whole=True)

    def since(self, old: str, branch: str) -> Changes | None:
        """Returns what a branch changed since a commit; all files where that cannot be told.

        None where there is no such branch.
        """
        told = self._ask(f"compare/{quote(old, safe='')}...{quote(branch, safe='')}")
        if told is None:  # another history took its place
            return self.all(branch)
        commits = told.get("commits") or []
        head = str(commits[-1]["sha"]) if commits else old
        status, files = told.get("status"), told.get("files") or []
        if status not in ("ahead", "identical") or len(files) >= MOST_COMPARED:
            return self.all(head if status == "ahead" else branch)
        changes = Changes(head)
        doubtful = False
        for one in files:
            path, before = str(one.get("filename")), one.get("previous_filename")
            patch = one.get("patch")
            if one.get("status") == "removed":
                changes.gone.append(path)
                continue
            if one.get("status") == "renamed" and before:
                changes.gone.append(str(before))
            if isinstance(patch, str) and _is_submodule(patch):
                # It may have taken the place of a file.
                changes.gone.append(path)
                continue
            # A link is renamed without a patch, and always has one otherwise.
            may_be_link = (
                one.get("status") == "renamed" if not patch else _ONE_LINE.fullmatch(patch)
            )
            # What is not opened needs its size, which is not told here.
            doubtful = doubtful or bool(may_be_link) or is_media(path) or has_parser(path)
            if path in self._wanted:
                changes.files.append(TreeFile(path, str(one.get("sha"))))
        # What changed its type may be told as removed and added.
        there = {one.path for one in changes.files}
        changes.gone = [one for one in changes.gone if one in self._wanted and one not in there]
        return self._as_in_the_tree(changes) if doubtful and changes.files else changes

    def _as_in_the_tree(self, changes: Changes) -> Changes:
        """Returns changes with sizes and without links, both of which only the tree tells."""
        whole = self.all(changes.commit)
        if whole is None:  # it was pushed away meanwhile
            return changes
        there = {one.path: one for one in whole.files}
        kept = [there[one.path] for one in changes.files if one.path in there]
        links = [one.path for one in changes.files if one.path not in there]
        return Changes(changes.commit, kept, [*changes.gone, *links])

    def _walked(self, ref: str, folder: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Yields the entries of a tree that is too large for one answer, folder by folder."""
        told = self._ask(f"git/trees/{quote(ref, safe='')}")
        if told is None or told.get("truncated"):
            where = folder or "the top folder"
            raise ConnectorError(
                f"{where} has more files than GitHub lists; leave it out with exclude_paths"
            )
        for name, one in _entries(told):
            path = f"{folder}{name}"
            if one.get("type") != "tree":
                yield path, one
                continue
            sha = str(one.get("sha"))
            below = self._ask(f"git/trees/{quote(sha, safe='')}", recursive=1)
            if below is None or below.get("truncated"):
                yield from self._walked(sha, f"{path}/")
            else:
                yield from ((f"{path}/{inner}", each) for inner, each in _entries(below))


def lfs_of(data: bytes) -> dict[str, str]:
    """Returns what a pointer of Git LFS says, `oid` and `size`; empty for other files."""
    if not data.startswith(_LFS) or len(data) > 1024:
        return {}
    return dict(_LFS_FIELD.findall(data.decode("utf-8", "replace")))


def text_of(data: bytes) -> str | None:
    """Returns the text of a file; None where it has none: it is not UTF-8, or holds a NUL."""
    if b"\0" in data:
        return None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return None


def has_parser(path: str) -> bool:
    """Returns whether a file's text is found by a parser, by its name."""
    return _ending(path) in _PARSED


def is_media(path: str) -> bool:
    """Returns whether a file has no text, by its name."""
    return _ending(path) in _MEDIA


def _ending(path: str) -> str:
    return os.path.splitext(path)[1].lower().removeprefix(".")


def _entries(told: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for one in told.get("tree") or ():
        yield str(one.get("path")), one


def _size(entry: Mapping[str, Any]) -> int | None:
    size = entry.get("size")
    return size if isinstance(size, int) else None


def _is_submodule(patch: str) -> bool:
    return "\n+Subproject commit " in patch or "\n-Subproject commit " in patch
