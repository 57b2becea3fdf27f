"""How many streams of Airbyte's manifests are translated, and whether they read the same records.

.venv/bin/python benchmarks/translate_airbyte.py FOLDER [--compare N] [--cdk PYTHON]

FOLDER holds manifests, such as airbyte-integrations/connectors of Airbyte's repository. The table
lists the causes that stand in the way. With `--compare` instead, N sources spread over the alphabet
are read by us and by Airbyte's own CDK from a server that is made of the manifest, and the records
compared.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import yaml
from airbyte_mock import kinds_of, moved, serving, settings_of

from contextframe_beam.connectors.api import APIConnector
from contextframe_beam.connectors.read.source import Source
from contextframe_beam.connectors.translate import read_manifest, translate
from contextframe_beam.errors import ConfigError, ContextFrameError

MOST_STREAMS = 4
MARKS = ("_resource", "_parent")


def main() -> None:
    """Prints the table, and the comparison if it is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--compare", type=int, default=0)
    parser.add_argument("--cdk", default=".venv-airbyte/bin/python", type=os.path.abspath)
    parser.add_argument("--only", nargs="*", default=[])
    given = parser.parse_args()
    files = sorted(given.folder.glob("**/manifest.yaml"))
    if given.compare or given.only:
        compare(files, given.compare, given.cdk, given.only)
    else:
        count(files)


def count(files: list[Path]) -> None:
    """Prints how many streams are translated, and what stands in the way of the others."""
    sources = whole = some = streams = translated = 0
    causes: Counter[str] = Counter()
    affected: Counter[str] = Counter()
    for file in files:
        try:
            found = translate(read_manifest(file))
        except ConfigError as error:
            print(f"{file}: {error}", file=sys.stderr)
            continue
        sources += 1
        whole += not found.problems
        some += bool(found.streams)
        translated += len(found.streams)
        streams += len(found.streams) + len(found.problems)
        causes.update(one.cause for one in found.problems)
        affected.update({one.cause for one in found.problems})
    print(f"{translated} of {streams} streams ({translated / max(streams, 1):.1%})")
    print(f"{whole} of {sources} sources wholly, {some} at least one stream\n")
    print("streams  sources  cause")
    for cause, number in causes.most_common():
        print(f"{number:7}  {affected[cause]:7}  {cause}")


def compare(files: list[Path], number: int, cdk: str, only: list[str]) -> None:
    """Prints for some sources whether both read the same records."""
    with ExitStack() as stack, tempfile.TemporaryDirectory() as folder:
        jobs: list[tuple[str, str, Any, list[str]]] = []
        servers: dict[str, tuple[str, list[str]]] = {}
        for file in chosen(files, number, only):
            name = read_manifest(file).name
            url, kinds, unknown = stack.enter_context(serving())
            made = Path(folder, name, "manifest.yaml")
            made.parent.mkdir()
            manifest = moved(yaml.safe_load(file.read_text()), url)
            made.write_text(yaml.safe_dump(manifest, sort_keys=False))
            read = read_manifest(made)
            kinds.extend(kinds_of(read.values))
            wanted = translate(read).streams[:MOST_STREAMS]
            jobs.append((name, str(made), settings_of(read.spec, url), wanted))
            servers[name] = url, unknown
        theirs = by_cdk(jobs, cdk, Path(folder))
        os.chdir(folder)  # tokens that are renewed are files
        total: Counter[str] = Counter()
        for name, path, settings, wanted in jobs:
            result, lines = compared(path, settings, theirs.get(name), wanted)
            total.update(result)
            sources = "same" if result["same"] and not result["different"] else "other"
            total[f"sources {sources}"] += 1
            print(f"{name}: {', '.join(f'{n} {what}' for what, n in result.items() if n)}")
            print("\n".join(f"  {line}" for line in lines), end="\n" if lines else "")
        print(", ".join(f"{count} {what}" for what, count in total.items()))


def chosen(files: list[Path], number: int, only: list[str]) -> Iterator[Path]:
    """Yields sources that are translated, without code of their own, spread over the alphabet."""
    step = max(len(files) // number, 1) if number else 1
    for begin in range(0, step * number, step):
        for file in files[begin : begin + step] if not only else ():
            try:
                manifest = read_manifest(file)
            except ConfigError:
                continue
            own = "class_name" in file.read_text() or not manifest.spec.get("properties")
            if not own and translate(manifest).streams:
                yield file
                break
    yield from (one for one in files if any(f"source-{name}/" in str(one) for name in only))


def by_cdk(jobs: list[tuple[str, str, Any, list[str]]], cdk: str, folder: Path) -> dict[str, Any]:
    """Returns the records that Airbyte's CDK reads."""
    asked, found = folder / "jobs.json", folder / "found.json"
    asked.write_text(json.dumps(jobs))
    script = Path(__file__).with_name("airbyte_records.py")
    subprocess.run([cdk, str(script), str(asked), str(found)], check=True)
    results: dict[str, Any] = json.loads(found.read_text())
    return results


def compared(
    path: str, settings: dict[str, Any], theirs: Any, wanted: list[str]
) -> tuple[Counter[str], list[str]]:
    """Returns how many streams of a source agree, and lines about those that do not."""
    result: Counter[str] = Counter()
    found = translate(read_manifest(path), without_secrets(read_manifest(path).spec, settings))
    if isinstance(theirs, str):
        return Counter({"refused by the CDK": 1}), [theirs]
    lines = []
    for config in found.configs:
        config = {**config, "retries": 0}
        config["settings"] = completed(config.get("settings") or {}, settings)
        for variable, value in secrets_in(config["settings"], settings):
            if variable.startswith("file:"):
                Path(variable.removeprefix("file:")).write_text(str(value))
            os.environ[variable] = str(value)
        try:
            connector = APIConnector(config=config)
        except ContextFrameError as error:
            result["different"] += 1
            lines.append(f"ours: {error}")
            continue
        own = [one["name"] for one in config["resources"] if one.get("ingest", True)]
        for stream in own:
            # Names of resources have fewer signs than those of streams.
            name = next(
                (one for one in wanted if re.sub(r"\W+", "_", one) == re.sub(r"\W+", "_", stream)),
                None,
            )
            if name is None:
                continue
            expected = theirs.get(name)
            if not isinstance(expected, list):
                result["not read by the CDK"] += 1
                lines.append(f"{stream}: {expected}")
                continue
            try:
                ours: Any = records_of(connector, stream)
            except ContextFrameError as error:
                ours = str(error)
            problem = difference(ours, expected)
            result["different" if problem else "same"] += 1
            result["records"] += len(ours) if not problem else 0
            if not problem and not expected:
                result["same but empty"] += 1
            lines += [f"{stream}: {problem}"] if problem else []
    return result, lines


def records_of(connector: APIConnector, name: str) -> list[Any]:
    """Returns the records that we read of a resource."""
    connector.ensure_authenticated()
    pages = list(Source(connector, {"only": [name]}).pages())
    failed = [letter.message for page in pages for letter in page.failures]
    if failed:
        raise ContextFrameError(f"{len(failed)} dead letters: {failed[0]}")
    return [
        {key: value for key, value in one.items() if key not in MARKS}
        for page in pages
        for one in page.items
    ]


def difference(ours: Any, theirs: list[Any]) -> str:
    """Returns how our records differ from theirs; each counts once, as slices may overlap."""
    if isinstance(ours, str):
        return f"we fail: {ours[:300]}"
    left, right = (
        {json.dumps(one, sort_keys=True): one for one in map(without_empty, each)}
        for each in (ours, theirs)
    )
    if left.keys() == right.keys():
        return ""
    shown = f"{len(left)} of ours, {len(right)} of theirs"
    extra = [one for one in left if one not in right][:1]
    missing = [one for one in right if one not in left][:1]
    if extra and missing:
        one, other = left[extra[0]], right[missing[0]]
        fields = [
            k for k in {**one, **other} if one.get(k) != other.get(k) or (k in one) != (k in other)
        ]
        told = {k: (one.get(k, "-"), other.get(k, "-")) for k in fields[:3]}
        return f"{shown}; {str(told)[:300]}"
    return f"{shown}; ours {extra}, theirs {missing}"[:400]


def without_empty(record: Any) -> Any:
    """Returns a record with null for empty texts: a field that is missing becomes one of them."""
    return {name: None if value == "" else value for name, value in record.items()}


def without_secrets(spec: Any, settings: dict[str, Any]) -> dict[str, Any]:
    """Returns settings without those that the schema calls secret, or that look so."""
    probe = translate_secrets(spec)
    return {
        key: without_secrets((spec.get("properties") or {}).get(key, {}), value)
        if isinstance(value, dict)
        else value
        for key, value in settings.items()
        if key not in probe
    }


def translate_secrets(spec: Any) -> set[str]:
    """Returns the names of the secrets in a schema."""
    from contextframe_beam.connectors.plain_secrets import looks_secret

    found = set()
    for one in (spec, *(spec.get("oneOf") or []), *(spec.get("anyOf") or [])):
        for name, schema in (one.get("properties") or {}).items():
            if (schema or {}).get("airbyte_secret") or looks_secret(name):
                found.add(name)
    return found


def completed(made: dict[str, Any], values: Any) -> dict[str, Any]:
    """Returns the settings of a configuration, with those that a user would have to write."""
    given = values if isinstance(values, dict) else {}
    return {
        name: completed(one, given.get(name))
        if isinstance(one, dict)
        else given.get(name)
        if one is None
        else one
        for name, one in made.items()
    }


def secrets_in(settings: dict[str, Any], values: Any) -> Iterator[tuple[str, Any]]:
    """Yields the variables and files that settings refer to, with their values."""
    for name, value in settings.items():
        given = values.get(name) if isinstance(values, dict) else None
        if isinstance(value, dict):
            yield from secrets_in(value, given)
        elif isinstance(value, str) and value.startswith("file:"):
            yield value, given if given is not None else f"{name}-1"
        elif isinstance(value, str) and value.startswith("env:"):
            yield value.removeprefix("env:"), given if given is not None else f"{name}-1"


if __name__ == "__main__":
    main()
