"""The house: imports point down its floors, without circles; files are neither hidden nor long."""

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

#: From the ground up: a file imports from its own floor and from those before it. The faces of the
#: package and the command line stand on the roof.
FLOORS = (
    "errors",
    "lazy",
    "frames",
    "store",
    "parsers",
    "connectors",
    "transforms",
    "templates",
    "pipelines",
)
BARE = ("connectors", "transforms", "pipelines", "templates")
MOST_LINES = 600


def files_of_ours() -> dict[str, Path]:
    """Returns the file of each of our modules, by its name."""
    # Links stand for the four folders, and `rglob` does not follow links.
    folders = [ROOT / one for one in FLOORS if one != "templates"]
    found = [*ROOT.glob("*.py"), *(file for folder in folders for file in folder.rglob("*.py"))]
    return {
        ".".join(["contextframe_beam", *file.relative_to(ROOT).with_suffix("").parts]).removesuffix(
            ".__init__"
        ): file
        for file in sorted(found)
    }


FILES = files_of_ours()
each_file = pytest.mark.parametrize("module", FILES)


def floor_of(module: str) -> int:
    """Returns how high a module stands; the face of the package and its program stand on top."""
    first = module.split(".")[1] if "." in module else ""
    return FLOORS.index(first) if first in FLOORS else len(FLOORS)


def imported(file: Path) -> Iterator[str]:
    """Yields the name of everything that a file imports anywhere in it, functions included."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{file} imports relatively"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole in FILES else str(node.module)


@each_file
def test_a_file_imports_nothing_from_above(module):
    for name in imported(FILES[module]):
        # The package itself gives its version and its place on disk.
        if name.startswith("contextframe_beam."):
            assert floor_of(name) <= floor_of(module), f"{module} imports {name}"
        assert name.split(".")[0] not in BARE, f"{module} imports {name} by its bare name"


def test_no_files_import_each_other_in_a_circle():
    imports = {name: {*imported(file)} & FILES.keys() - {name} for name, file in FILES.items()}
    require_no_circle(imports)


def test_a_circle_is_found():
    with pytest.raises(AssertionError, match="a -> b"):
        require_no_circle({"a": {"b"}, "b": {"a"}, "c": {"a"}})


def require_no_circle(imports: Mapping[str, set[str]]) -> None:
    try:
        graphlib.TopologicalSorter(imports).prepare()
    except graphlib.CycleError as error:
        raise AssertionError(" -> ".join(error.args[1])) from None


@each_file
def test_a_file_is_neither_hidden_nor_long(module):
    assert not re.search(r"\._(?!_)", module)
    assert len(FILES[module].read_text(encoding="utf-8").splitlines()) <= MOST_LINES


@each_file
def test_frames_and_the_store_do_not_import_beam(module):
    if floor_of(module) < FLOORS.index("connectors"):
        assert "apache_beam" not in {name.split(".")[0] for name in imported(FILES[module])}


def test_the_store_works_without_beam_and_without_what_is_above():
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
    assert "contextframe_beam.store.dataset" in loaded
    assert [name for name in loaded if name.split(".")[0] == "apache_beam"] == []
    above = FLOORS.index("connectors")
    assert [name for name in loaded if above <= floor_of(name) < len(FLOORS)] == []


@each_file
def test_no_floor_names_the_options_of_the_command_line(module):
    if floor_of(module) < FLOORS.index("pipelines"):
        text = FILES[module].read_text(encoding="utf-8")
        # In quotes of its own it is an argument of another program, such as git.
        named = re.findall(r"(?<![\w\"-])--[a-z][\w-]*", text)
        assert named == [], 'say it as Python does, as in max_deletes="100%"; see pipelines/job.py'


def test_everything_public_is_there():
    for name in contextframe_beam.__all__:
        assert getattr(contextframe_beam, name) is not None
    assert sorted(contextframe_beam.__all__) == list(contextframe_beam.__all__)
