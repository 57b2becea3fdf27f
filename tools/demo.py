"""`make demo`: the main job on documents that every machine has, those of its Python packages.

The packages carry READMEs, guides and licences. They are copied into a folder, ingested, searched
by words and by meaning, and ingested again after one of them changed.
"""

from __future__ import annotations

import re
import shlex
import shutil
import sys
import sysconfig
import textwrap
from collections import Counter
from collections.abc import Iterable
from importlib.metadata import Distribution, distributions
from pathlib import Path, PurePath

import click

from contextframe_beam.errors import ConnectorError, ContextFrameError
from contextframe_beam.pipelines.cli.main import DONE, FAILED, end_process_with, run
from contextframe_beam.pipelines.process import Settings

#: The file that the demo adds a sentence to, and the one that it removes.
CHANGED = "apache-beam/README.md"
ADDED = "An okapi that reads a pipeline from left to right needs no map."
REMOVED = "apache-beam/yaml.md"

_README = {"text/markdown": "README.md", "text/x-rst": "README.rst"}
_GUIDES = {".md", ".rst", ".html", ".pdf"}
_WIDTH = 90
_TEXTS = {"", ".txt", ".md", ".rst"}
_LICENCE = re.compile(r"(LICEN[CS]E|COPYING|NOTICE|AUTHORS)([._-].*)?", re.IGNORECASE)
# A shorter description is a placeholder.
_SHORTEST = 100
# What stands in these folders is read by programs.
_OTHERS = {"_vendor", "data", "templates", "tests", "themes", "vendor"}
# The documentation that comes with Python itself.
_OF_PYTHON = ("LICENSE.txt", "idlelib/help.html")


def main() -> None:
    """Runs the demo in `build/demo`, in place of what an earlier one left there."""
    end_process_with(_demo)


def _demo(settings: Settings) -> int:
    try:
        return demo(Path("build/demo"), settings)
    except (OSError, ContextFrameError) as error:
        click.echo(f"Error: the demo cannot go on: {error}", err=True)
        return FAILED


def demo(target: Path, settings: Settings) -> int:
    """Runs the demo and returns its exit code.

    Args:
        target: The folder to work in, which is replaced.
        settings: How the process is interrupted.
    """
    shutil.rmtree(target, ignore_errors=True)
    docs, dataset = target / "docs", str(target / "kb.lance")
    ingest = ["ingest", "files", "--directory", str(docs), "--to", dataset, "--mode", "mirror"]
    ingest += ["--chunk", "markdown", "--embed", "wordllama"]

    _say("The READMEs, guides and licences of the installed Python packages:")
    copied = copy_documents(installed_packages(), docs)
    counted = ", ".join(f"{count} {kind}" for kind, count in copied.most_common())
    click.echo(f"{copied.total()} files in {docs} ({counted})")

    _say(
        "Parse them, cut them into chunks, make a vector of each chunk. It needs no network: the "
        "model comes in a package. Equal texts, such as licences, are embedded once. A run is one "
        "transaction:"
    )
    if code := _shell(ingest, settings):
        return code

    _say("Search by words and by meaning. A hit is a chunk, under the headings it stands below:")
    question = ["search", dataset, "what to do with bad records in a pipeline", "--hybrid"]
    if code := _shell([*question, "--parents", "--limit", "3"], settings):
        return code

    _say("Write something into one file, and remove another:")
    changed, removed = (docs / name for name in (CHANGED, REMOVED))
    with changed.open("a", encoding="utf-8") as file:
        file.write(f"\n{ADDED}\n")
    click.echo(f"$ echo {shlex.quote(ADDED)} >> {shlex.quote(str(changed))}")
    removed.unlink()
    click.echo(f"$ rm {shlex.quote(str(removed))}")

    _say("Ingest again. Only what changed is parsed, and a text that has a vector keeps it:")
    if code := _shell(ingest, settings):
        return code

    _say("The new sentence is found:")
    if code := _shell(["search", dataset, "okapi", "--limit", "1"], settings):
        return code

    _say("What the dataset knows about itself, its runs and its sources, is shown by:")
    click.echo(f"$ contextframe-beam inspect {shlex.quote(dataset)}")
    return DONE


def installed_packages() -> list[Distribution]:
    """Returns the packages of this Python, each once, by name.

    Raises:
        ConnectorError: this Python has no packages.
    """
    found: dict[str, Distribution] = {}
    for one in distributions():
        if one.metadata["Name"]:
            # The first of a name is the one that is imported.
            found.setdefault(canonical(one.metadata["Name"]), one)
    if not found:
        raise ConnectorError(f"{sys.executable} has no packages installed; use another Python")
    return [found[name] for name in sorted(found)]


def canonical(name: str) -> str:
    """Returns a package's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def copy_documents(packages: Iterable[Distribution], folder: Path) -> Counter[str]:
    """Copies what packages carry to read, a folder for each package, with the times of the files.

    Returns:
        How many files there are of each kind.
    """
    kinds: Counter[str] = Counter()
    for package in packages:
        name = canonical(package.metadata["Name"])
        kinds["READMEs"] += write_readme(package, folder / name)
        for path in package.files or ():
            kind = kind_of(path)
            if kind:
                kinds[kind] += _copy(Path(str(path.locate())), folder / name)
    python = Path(sysconfig.get_path("stdlib"))
    for name in _OF_PYTHON:
        kinds[kind_of(PurePath(name))] += _copy(python / name, folder / "python")
    return +kinds


def kind_of(path: PurePath) -> str:
    """Returns what a file of a package is to a reader; empty where it is nothing to read."""
    if _OTHERS & set(path.parts):
        return ""
    if _LICENCE.fullmatch(path.name) and path.suffix in _TEXTS:
        return "licences"
    return "guides" if path.suffix in _GUIDES else ""


def write_readme(package: Distribution, folder: Path) -> bool:
    """Writes the README of a package, which stands in its metadata; returns whether it has one."""
    metadata = package.metadata.json
    text = str(metadata.get("description") or "").strip()
    if len(text) < _SHORTEST:
        return False
    kind = str(metadata.get("description_content_type") or "").partition(";")[0]
    path = folder / _README.get(kind, "README.rst")
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{text}\n", encoding="utf-8")
    for file in package.files or ():
        if file.name == "METADATA":
            shutil.copystat(str(file.locate()), path)
    return True


def _copy(source: Path, folder: Path) -> bool:
    """Copies a file; returns whether it was there, and no other had its name."""
    target = folder / source.name
    if not source.is_file() or target.exists():
        return False
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy2(source, target)
    return True


def _say(text: str) -> None:
    click.echo()
    for line in textwrap.wrap(text, _WIDTH):
        click.secho(f"# {line}", bold=True)


def _shell(arguments: list[str], settings: Settings) -> int:
    """Shows a command as it is typed, runs it, and returns its exit code."""
    click.echo(f"$ contextframe-beam {shlex.join(arguments)}")
    return run(arguments, settings)


if __name__ == "__main__":
    main()
