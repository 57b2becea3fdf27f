"""A folder of 300 real documents, and what changes in it: 150 Markdown, 100 HTML and 50 text files.

They are found on this machine: in documentation packages of Debian, which are fetched with
`apt-get download` and unpacked, and in what is installed. Which ones depends on the machine, so
numbers of different machines are for different files; the run prints how large they are together.
"""

from __future__ import annotations

import os
import shutil
import site
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

from xxhash import xxh3_64_intdigest

PACKAGES = ("bash-doc", "debian-reference-en", "developers-reference", "git-doc", "sqlite3-doc")
COUNTS = {".md": 150, ".html": 100, ".txt": 50}
#: How much of each kind: documents of the usual sizes, and some long ones.
BYTES = {".md": 3_200_000, ".html": 3_000_000, ".txt": 800_000}
_SMALLEST, _LARGEST = 2_000, 300_000
_INSTALLED = (
    "/usr/share/doc",
    "/usr/lib/node_modules",
    "/usr/lib/python3/dist-packages",
    str(Path.home() / "go/pkg/mod"),
)
# Long before the runs, as files of a folder are.
_WRITTEN = 1_700_000_000
_TOUCHED = _WRITTEN + 3_600

_PARAGRAPH = "This paragraph was written anew, and nothing else in this file has changed since."


def make_corpus(folder: Path, kept: Path) -> None:
    """Fills a folder with documents.

    Args:
        folder: The folder, which is made.
        kept: Where packages are kept between runs.

    Raises:
        RuntimeError: there are too few on this machine.
    """
    folder.mkdir(parents=True)
    roots = [_unpacked(kept), *_INSTALLED, *site.getsitepackages()]
    found: dict[str, dict[int, bytes]] = {suffix: {} for suffix in COUNTS}
    for suffix, data in _documents(roots):
        found[suffix].setdefault(xxh3_64_intdigest(data), data)
    for suffix, documents in found.items():
        if len(documents) < COUNTS[suffix]:
            raise RuntimeError(f"there are {len(documents)} documents {suffix} on this machine")
        for number, data in enumerate(_chosen(documents, COUNTS[suffix], BYTES[suffix])):
            file = folder / f"{suffix[1:]}-{number // 25}" / f"document-{number:03d}{suffix}"
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(data)
            os.utime(file, (_WRITTEN, _WRITTEN))


def _unpacked(kept: Path) -> str:
    folder = kept / "debian"
    if not folder.exists() and shutil.which("apt-get"):
        part = kept / "debian.part"
        part.mkdir(parents=True, exist_ok=True)
        command = ["apt-get", "download", "--quiet", *PACKAGES]
        subprocess.run(command, cwd=part, check=True, capture_output=True)
        for package in part.glob("*.deb"):
            subprocess.run(["dpkg-deb", "--extract", package, part / "files"], check=True)
        part.rename(folder)
    return str(folder)


def _documents(roots: Iterable[str]) -> Iterator[tuple[str, bytes]]:
    for root in roots:
        for folder, folders, names in os.walk(root):
            folders.sort()
            for name in sorted(names):
                # What a wheel says of itself is its README.
                suffix = ".md" if name == "METADATA" else Path(name).suffix.lower()
                path = Path(folder, name)
                if suffix not in COUNTS or not path.is_file():
                    continue
                data = path.read_bytes()
                if _SMALLEST <= len(data) <= _LARGEST and _is_text(data):
                    yield suffix, data


def _is_text(data: bytes) -> bool:
    """Tells whether all of those that are compared read it."""
    try:
        return "\0" not in data.decode()
    except ValueError:
        return False


def _chosen(documents: dict[int, bytes], count: int, total: int) -> list[bytes]:
    """Returns `count` documents of about `total` bytes: the longest, and the rest by their digest.

    Of the rest those that bring the sum closest to what it is to be are taken one after the other.
    """
    ordered = [documents[key] for key in sorted(documents)]
    chosen = [max(ordered, key=len)]
    ordered.remove(chosen[0])
    left = total - len(chosen[0])
    while len(chosen) < count:
        wanted = left / (count - len(chosen))
        one = min(ordered[:4], key=lambda data: abs(len(data) - wanted))
        ordered.remove(one)
        chosen.append(one)
        left -= len(one)
    return chosen


def files_of(folder: Path) -> list[Path]:
    """Returns the documents of a folder, the longest first."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return sorted(files, key=lambda path: (-path.stat().st_size, path))


def touch(folder: Path) -> None:
    """Gives all files another time, and changes nothing in them."""
    for path in files_of(folder):
        os.utime(path, (_TOUCHED, _TOUCHED))


def change_paragraph(folder: Path) -> None:
    """Writes one paragraph in the midst of the longest Markdown file anew."""
    file = next(path for path in files_of(folder) if path.suffix == ".md")
    paragraphs = file.read_text().split("\n\n")
    middle = len(paragraphs) // 2
    plain = (n for n in range(middle, len(paragraphs)) if paragraphs[n][:1].isalpha())
    paragraphs[next(plain, middle)] = _PARAGRAPH
    file.write_text("\n\n".join(paragraphs))


def rename_long(folder: Path) -> None:
    """Gives a long HTML file another name."""
    file = next(path for path in files_of(folder) if path.suffix == ".html")
    file.rename(file.with_name("renamed.html"))


def delete_long(folder: Path) -> None:
    """Deletes another long HTML file."""
    next(
        path for path in files_of(folder) if path.suffix == ".html" and path.stem != "renamed"
    ).unlink()


def rewrite(folder: Path, count: int, mark: str) -> None:
    """Adds a paragraph to `count` files, the same ones each time.

    Args:
        folder: The folder.
        count: How many.
        mark: What tells this time from others.
    """
    for path in sorted(files_of(folder))[: count * 3 : 3]:
        with path.open("a") as file:
            file.write(f"\n\nWritten again: {mark}.\n")
