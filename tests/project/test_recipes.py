"""The recipes of docs/how-to/search.md: a dataset as a retriever or a table of other libraries.

Each is run as it stands on the page where its library is installed.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.project.test_docs import blocks_of
from tests.support.cli_helpers import run_code
from tests.support.search_helpers import hash_embedder, make_library

RECIPES = {
    "langchain_retriever.py": "langchain_core",
    "llama_retriever.py": "llama_index",
    "lancedb_table.py": "lancedb",
}
SCRIPTS = {one.title: one.text for one in blocks_of("how-to/search.md") if one.kind == "python"}


def test_each_recipe_of_the_page_is_known_here():
    assert {title for title in SCRIPTS if title} == set(RECIPES)


@pytest.mark.parametrize("title", RECIPES)
def test_a_recipe_finds_the_passage(title: str, tmp_path: Path) -> None:
    if find_spec(RECIPES[title]) is None:
        pytest.skip(f"{RECIPES[title]} is not installed")
    guide = {
        "install.md": ["Install the program.", "Who gives a package away says so."],
        "use.md": ["Start the program and open a file."],
    }
    make_library(str(tmp_path / "kb.lance"), guide, hash_embedder(256)).search("program")
    result = run_code(SCRIPTS[title], cwd=tmp_path)
    assert result.code == 0, result.err
    assert " > " in result.out
    if title != "lancedb_table.py":
        assert result.out.strip() == "install.md > 1"
