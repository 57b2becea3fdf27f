"""A manifest of Airbyte: YAML that describes a source declaratively, with resolved references.

Each part knows the line of the file that it is from, so that a message can name it. A `$ref` is
replaced by what it refers to, and `$parameters` reach all components below, as Airbyte's own tools
do it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from contextframe_beam.connectors.yaml_file import read_yaml_file
from contextframe_beam.errors import ConfigError

PARAMETERS = "$parameters"

_REF = "$ref"
_DEEPEST = 60
# Manifests hold the schemas of all their records.
_SCALE = 10


class Part(dict[str, Any]):
    """A mapping of the manifest, with its line in the file."""

    line = 0

    def child(self, name: str) -> Part:
        """Returns the mapping below a key; an empty one with this line if there is none."""
        found = self.get(name)
        return found if isinstance(found, Part) else made({}, self.line)

    def children(self, name: str) -> list[Part]:
        """Returns the mappings in the list below a key."""
        return [one for one in self.get(name) or [] if isinstance(one, Part)]

    def line_of(self, name: str) -> int:
        """Returns the line of a value if it is known, else that of this mapping."""
        return getattr(self.get(name), "line", 0) or self.line


class Text(str):
    """A text of the manifest, with its line in the file."""

    line = 0


def made(values: Mapping[str, Any], line: int) -> Part:
    """Returns a mapping that stands at a line."""
    part = Part(values)
    part.line = line
    return part


class Manifest:
    """A manifest that was read.

    Args:
        values: Its mapping, with references and parameters resolved.
        name: The name of the source.
    """

    def __init__(self, values: Part, name: str) -> None:
        self.values = values
        self.name = name

    @property
    def streams(self) -> list[Part]:
        """Its streams."""
        return self.values.children("streams")

    @property
    def spec(self) -> Mapping[str, Any]:
        """The JSON Schema of the settings that a user gives."""
        spec = self.values.child("spec")
        return spec.child("connection_specification") or spec.child("connectionSpecification")


def read_manifest(path: str | os.PathLike[str]) -> Manifest:
    """Reads a manifest.

    Args:
        path: The file, usually named manifest.yaml. The name of the source is that of the file, or
            of its folder, without `source-`.

    Raises:
        ConfigError: it cannot be read, or is no manifest.
    """
    name = os.fspath(path)
    root = _part_of(read_yaml_file(name, "the manifest", _SCALE).tree)
    if not isinstance(root, Part) or not isinstance(root.get("streams"), list):
        dynamic = isinstance(root, Part) and "dynamic_streams" in root
        found = "its streams are only known to its API" if dynamic else "it has no list of streams"
        raise ConfigError(
            f"the manifest {name} cannot be translated: {found}; give the manifest.yaml of a "
            "declarative Airbyte source"
        )
    resolved = _resolved(root, root, ())
    assert isinstance(resolved, Part)
    for number, stream in enumerate(resolved["streams"], 1):
        if not isinstance(stream, Part):
            raise ConfigError(f"{name}: stream {number} is not a mapping of keys to values")
    return Manifest(_propagated(resolved, {}), _name_of(Path(name)))


def _name_of(path: Path) -> str:
    found = path.stem
    if found == "manifest":
        # source-x/manifest.yaml, source-x/source_x/manifest.yaml
        found = path.resolve().parent.name
    for prefix in ("source-", "source_"):
        found = found.removeprefix(prefix)
    return "".join(c if c.isalnum() or c in "_.-" else "-" for c in found).strip("-.") or "source"


def _part_of(node: yaml.Node | None) -> Any:
    """Returns the value of a node, with the lines of mappings and texts."""
    if isinstance(node, yaml.MappingNode):
        _SCALARS.flatten_mapping(node)
        part = made({}, node.start_mark.line + 1)
        part.update({str(_part_of(key)): _part_of(value) for key, value in node.value})
        return part
    if isinstance(node, yaml.SequenceNode):
        return [_part_of(one) for one in node.value]
    if node is None:
        return None
    # Dates stay texts, as a manifest means them.
    if node.tag in ("tag:yaml.org,2002:str", "tag:yaml.org,2002:timestamp"):
        text = Text(node.value)
        text.line = node.start_mark.line + 1
        return text
    return _SCALARS.construct_object(node)


_SCALARS = yaml.constructor.SafeConstructor()


def _resolved(value: Any, root: Part, way: tuple[str, ...]) -> Any:
    """Returns a value with each reference replaced; keys beside a reference replace its own."""
    if len(way) > _DEEPEST:
        raise ConfigError(f"the references of the manifest make a circle: {' -> '.join(way[-4:])}")
    if isinstance(value, Part):
        own = {k: _resolved(v, root, way) for k, v in value.items() if k != _REF}
        if _REF not in value:
            return made(own, value.line)
        target = _target(value[_REF], root, way)
        if not isinstance(target, Part):
            return target
        merged = {**target, **own}
        if isinstance(target.get(PARAMETERS), Mapping) and isinstance(own.get(PARAMETERS), Mapping):
            merged[PARAMETERS] = made({**target[PARAMETERS], **own[PARAMETERS]}, value.line)
        return made(merged, value.line)
    if isinstance(value, list):
        return [_resolved(one, root, way) for one in value]
    if isinstance(value, str) and value.startswith("#/"):
        return _target(value, root, way)
    return value


def _target(reference: str, root: Part, way: tuple[str, ...]) -> Any:
    here: Any = root
    for step in reference.removeprefix("#/").split("/"):
        if isinstance(here, Part) and step in here:
            here = here[step]
        elif isinstance(here, list) and step.isdecimal() and int(step) < len(here):
            here = here[int(step)]
        else:
            line = getattr(reference, "line", 0)
            raise ConfigError(f"line {line}: {reference} refers to nothing in the manifest")
        if isinstance(here, Part) and _REF in here:
            here = _resolved(here, root, (*way, reference))
    return _resolved(here, root, (*way, reference))


def _propagated(part: Part, above: Mapping[str, Any]) -> Part:
    """Returns a component with its parameters, and with those of the components above it."""
    if part.get("type") == "object" or isinstance(part.get("type"), list | dict):
        return part  # a JSON Schema
    known = {**above, **(part.get(PARAMETERS) or {})}
    values = {name: value for name, value in part.items() if name != PARAMETERS}
    if not _is_component(part):
        return made(
            {
                name: _propagated(value, known)
                if isinstance(value, Part) and value.get("type")
                else value
                for name, value in values.items()
            },
            part.line,
        )
    for name, value in known.items():
        values[name] = values.get(name) or value
    for name, value in values.items():
        below = {key: one for key, one in known.items() if key != name}
        if isinstance(value, Part):
            values[name] = _propagated(value, below)
        elif isinstance(value, list):
            values[name] = [_propagated(e, below) if isinstance(e, Part) else e for e in value]
    return made({**values, PARAMETERS: known}, part.line)


# Components that manifests write without a type.
_UNTYPED = (
    "retriever",
    "requester",
    "record_selector",
    "extractor",
    "path",
    "streams",
    "field_path",
)


def _is_component(part: Part) -> bool:
    return "type" in part or any(name in part for name in _UNTYPED)
