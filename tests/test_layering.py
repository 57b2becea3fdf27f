"""Imports point one way: frames <- connectors <- transforms <- pipelines; frames know no Beam."""

import ast
import graphlib
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

import contextframe_beam

ROOT = Path(contextframe_beam.__file__).parent
LAYERS = ("connectors", "transforms", "pipelines")


def layer_of(module: str) -> int:
    """Returns how high a module stands: 0 for frames, and the command line above all."""
    parts = module.split(".")
    if parts[1:] == ["__main__"]:
        return len(LAYERS)
    return LAYERS.index(parts[1]) + 1 if len(parts) > 1 and parts[1] in LAYERS else 0


def modules() -> list[tuple[str, Path]]:
    """Returns name and file of each of our modules."""
    folders = [ROOT, *(ROOT / layer for layer in LAYERS)]
    files = list(ROOT.glob("*.py"))
    files += [file for folder in folders[1:] for file in folder.rglob("*.py")]
    return [
        (".".join(["contextframe_beam", *file.relative_to(ROOT).with_suffix("").parts]), file)
        for file in sorted(files)
    ]


def imports_of(module: str, file: Path) -> Iterator[str]:
    """Yields the absolute name of everything that a module imports anywhere in it."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = module.split(".") if file.name == "__init__.py" else module.split(".")[:-1]
            base = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*base, *filter(None, [node.module])])
            yield origin
            yield from (f"{origin}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize(
    ("module", "file"), [pytest.param(*pair, id=pair[0]) for pair in modules()]
)
def test_a_module_imports_nothing_from_above(module, file):
    for name in imports_of(module.removesuffix(".__init__"), file):
        if name.split(".")[0] == "contextframe_beam":
            assert layer_of(name) <= layer_of(module), f"{module} imports {name}"
        assert name.split(".")[0] not in LAYERS, f"{module} imports {name} by its bare name"


@pytest.mark.parametrize("module", [name for name, _ in modules() if layer_of(name) == 0])
def test_frames_do_not_import_beam(module):
    [file] = [file for name, file in modules() if name == module]
    for name in imports_of(module, file):
        assert name.split(".")[0] != "apache_beam"


def test_frames_work_without_beam_and_without_what_is_above():
    program = (
        "import sys, tempfile, contextframe_beam as frames\n"
        "dataset = frames.FrameDataset.create(tempfile.mkdtemp() + '/kb', embed_dim=2)\n"
        "dataset.add(frames.FrameRecord('text', unique_id='1'))\n"
        "assert len(dataset.search('text')) == 1\n"
        "print(*(name for name in sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=True, text=True
    )
    loaded = done.stdout.split()
    assert "contextframe_beam.dataset" in loaded
    assert [name for name in loaded if name.split(".")[0] == "apache_beam"] == []
    assert [name for name in loaded if layer_of(name) and name.startswith("contextframe_")] == []


@pytest.mark.parametrize(
    "file",
    [
        pytest.param(file, id=name)
        for name, file in modules()
        if layer_of(name) < LAYERS.index("pipelines") + 1
    ],
)
def test_no_layer_names_the_options_of_the_command_line(file):
    named = re.findall(r"(?<![\w-])--[a-z][\w-]*", file.read_text(encoding="utf-8"))
    assert named == [], 'say it as Python does, as in max_deletes="100%"; see pipelines/flags.py'


def test_everything_public_is_there():
    for name in contextframe_beam.__all__:
        assert getattr(contextframe_beam, name) is not None
    assert sorted(contextframe_beam.__all__) == list(contextframe_beam.__all__)


# A record asks the encoder for its uuid, which may be made of all that its row stores.
ONE_PIECE = {"_fields", "_layout", "decoding", "encoding", "record"}


def test_no_files_import_each_other_in_a_circle():
    files = {name.removesuffix(".__init__"): file for name, file in modules()}
    of = {name: name for name in files}
    of |= {f"contextframe_beam.{name}": "contextframe_beam.record" for name in ONE_PIECE}
    imports: dict[str, set[str]] = {}
    for name, file in files.items():
        used = {of[one] for one in files_imported(file, files)}
        imports.setdefault(of[name], set()).update(used - {of[name]})
    try:
        graphlib.TopologicalSorter(imports).prepare()
    except graphlib.CycleError as error:
        raise AssertionError(" -> ".join(error.args[1])) from None


def files_imported(file: Path, files: Mapping[str, Path]) -> Iterator[str]:
    """Yields the modules of ours that a file imports anywhere in it, functions included."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in files)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                if whole in files or node.module in files:
                    yield whole if whole in files else node.module
