"""`make demo`: the main job on input that every machine has, the installed Python packages.

What `pip inspect` tells about each package becomes one JSON document: its README as the text, its
requirements as relationships. They are ingested, searched and joined, then ingested again.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import click

from contextframe_beam.errors import ConnectorError, ContextFrameError
from contextframe_beam.pipelines.cli.main import DONE, FAILED, end_process_with, run
from contextframe_beam.pipelines.process import Settings

_REQUIREMENT = re.compile(r"\s*([A-Za-z0-9][A-Za-z0-9._-]*)")
_OPTIONAL = re.compile(r"\bextra\s*==")


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
    documents, dataset = target / "packages", target / "kb.lance"

    _say("The installed Python packages, one JSON document each:")
    began = time.monotonic()
    count = write_documents(installed_packages(), documents)
    click.echo(f"{count} documents in {documents} ({time.monotonic() - began:.1f} s)")

    job = ["ingest", "json", "--directory", str(documents), "--to", str(dataset)]
    job += ["--enrich", "keywords"]
    _say("Ingest them. Every run is one transaction on the dataset:")
    if code := _shell(job, settings):
        return code

    _say("Search what they say:")
    if code := _shell(["search", str(dataset), "data processing", "--limit", "3"], settings):
        return code

    _say("Requirements are relationships that point at rows, so a join tells who is needed most:")
    for name, dependents in most_required(str(dataset)):
        click.echo(f"{len(dependents):4}  {name}: {', '.join(dependents)}")

    _say("Ingest once more, now with two worker processes. Nothing has changed:")
    if code := _shell([*job, "--workers", "2"], settings):
        return code

    _say("What the dataset knows about itself, its runs and its sources, is shown by:")
    click.echo(f"$ contextframe-beam inspect {shlex.quote(str(dataset))}")
    return DONE


def installed_packages() -> list[dict[str, Any]]:
    """Returns the metadata of the packages of this Python, as `pip inspect` has it.

    Raises:
        ConnectorError: this Python has no packages.
    """
    command = [sys.executable, "-m", "pip", "inspect", "--local"]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode == 0:
        found = [one["metadata"] for one in json.loads(done.stdout)["installed"]]
    else:  # an environment made by another tool may have no pip
        found = [one.metadata.json for one in distributions()]
    if not found:
        raise ConnectorError(f"{sys.executable} has no packages installed; use another Python")
    return found


def write_documents(packages: list[dict[str, Any]], folder: Path) -> int:
    """Writes a JSON document for each package, with its requirements as relationships.

    A document's unique_id is made of its path, so a relationship points at the path of the
    document that it means.

    Returns:
        How many documents there are.
    """
    folder.mkdir(parents=True)
    paths = {
        canonical(one["name"]): str((folder / f"{canonical(one['name'])}.json").resolve())
        for one in packages
    }
    for one in packages:
        name = canonical(one["name"])
        document = {
            "title": one["name"],
            "content": one.get("description") or one.get("summary") or one["name"],
            "summary": one.get("summary"),
            "package_version": one.get("version"),
            "author": one.get("author") or one.get("author_email"),
            "tags": one.get("keywords") or [],
            "source_url": one.get("home_page"),
            "relationships": [
                {
                    "relationship_type": "reference",
                    "target_id": paths[required],
                    "metadata": {"requirement": text},
                }
                for required, text in requirements(one)
                if required in paths
            ],
        }
        kept = {key: value for key, value in document.items() if value}
        Path(paths[name]).write_text(json.dumps(kept, indent=1), encoding="utf-8")
    return len(paths)


def requirements(package: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yields name and text of each requirement that is not optional, once."""
    seen = set()
    for text in package.get("requires_dist") or []:
        match = _REQUIREMENT.match(text)
        if match and not _OPTIONAL.search(text):
            name = canonical(match[1])
            if name not in seen:
                seen.add(name)
                yield name, text


def canonical(name: str) -> str:
    """Returns a package's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def most_required(dataset: str, limit: int = 5) -> list[tuple[str, list[str]]]:
    """Joins relationships with the rows that they point at.

    Returns:
        The titles of the documents with most references to them, each with the titles of those
        that refer to it.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    from contextframe_beam.store.dataset import FrameDataset

    columns = ["uuid", "title", "relationships"]
    rows = pa.Table.from_batches(FrameDataset.open(dataset).batches(columns)).combine_chunks()
    links = rows["relationships"].combine_chunks()
    references = pa.table(
        {
            "from": rows["title"].take(pc.list_parent_indices(links)),
            "uuid": pc.struct_field(pc.list_flatten(links), "id"),
        }
    )
    joined = references.join(rows.select(["uuid", "title"]), "uuid", join_type="inner")
    grouped = joined.group_by("title").aggregate([("from", "list")]).to_pylist()
    grouped.sort(key=lambda row: (-len(row["from_list"]), row["title"]))
    return [(row["title"], sorted(row["from_list"], key=str.lower)) for row in grouped[:limit]]


def _say(text: str) -> None:
    click.echo()
    click.secho(f"# {text}", bold=True)


def _shell(arguments: list[str], settings: Settings) -> int:
    """Shows a command as it is typed, runs it, and returns its exit code."""
    click.echo(f"$ contextframe-beam {shlex.join(arguments)}")
    return run(arguments, settings)


if __name__ == "__main__":
    main()
