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


def floor_of(module: str) -> int:
    """Returns how high a module stands; the face of the package and its program stand on top."""
    first = module.split(".")[1] if "." in module else ""
    return FLOORS.index(first) if first in FLOORS else len(FLOORS)


@pytest.fixture(scope="module")
def imports() -> dict[str, list[str]]:
    """What each module imports."""
    return {module: list(imported(file)) for module, file in FILES.items()}


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


def test_no_file_imports_from_above(imports):
    pairs = [(module, name) for module, names in imports.items() for name in names]
    assert [pair for pair in pairs if pair[1].split(".")[0] in BARE] == [], "say contextframe_beam."
    # The package itself gives its version and its place on disk.
    ours = [pair for pair in pairs if pair[1].startswith("contextframe_beam.")]
    assert [(module, name) for module, name in ours if floor_of(name) > floor_of(module)] == []


def test_no_files_import_each_other_in_a_circle(imports):
    require_no_circle(
        {module: {*names} & FILES.keys() - {module} for module, names in imports.items()}
    )


def test_a_circle_is_found():
    with pytest.raises(AssertionError, match="a -> b"):
        require_no_circle({"a": {"b"}, "b": {"a"}, "c": {"a"}})


def require_no_circle(imports: Mapping[str, set[str]]) -> None:
    try:
        graphlib.TopologicalSorter(imports).prepare()
    except graphlib.CycleError as error:
        raise AssertionError(" -> ".join(error.args[1])) from None


def test_no_file_is_hidden_or_long():
    assert [module for module in FILES if re.search(r"\._(?!_)", module)] == []
    lines = {
        module: len(file.read_text(encoding="utf-8").splitlines()) for module, file in FILES.items()
    }
    assert {module: count for module, count in lines.items() if count > MOST_LINES} == {}


def test_frames_and_the_store_do_not_import_beam(imports):
    below = [module for module in FILES if floor_of(module) < FLOORS.index("connectors")]
    roots = {module: {name.split(".")[0] for name in imports[module]} for module in below}
    assert [module for module in below if "apache_beam" in roots[module]] == []


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


def test_no_floor_names_the_options_of_the_command_line():
    below = [module for module in FILES if floor_of(module) < FLOORS.index("pipelines")]
    # In quotes of its own it is an argument of another program, such as git.
    option = re.compile(r"(?<![\w\"-])--[a-z][\w-]*")
    named = {module: option.findall(FILES[module].read_text(encoding="utf-8")) for module in below}
    found = {module: options for module, options in named.items() if options}
    assert found == {}, 'say it as Python does, as in max_deletes="100%"; see pipelines/job.py'


def test_everything_public_is_there():
    for name in contextframe_beam.__all__:
        assert getattr(contextframe_beam, name) is not None
    assert sorted(contextframe_beam.__all__) == list(contextframe_beam.__all__)
