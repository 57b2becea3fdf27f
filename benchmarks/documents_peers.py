"""What the peers of `documents` have in common: parsing, splitting and embedding, and counting it.

As a script it is the limit of their libraries, in the environment of one of them:

.venv-langchain/bin/python benchmarks/documents_peers.py FOLDER NOTE
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import wordllama
from html_to_markdown import convert
from langchain_text_splitters import RecursiveCharacterTextSplitter
from wordllama import WordLlama

DIM = 256
CHARACTERS, OVERLAP = 1_000, 100

#: What was done in this process.
done = {"parsed": 0, "texts_embedded": 0}

_model: Any = None


def splitter() -> RecursiveCharacterTextSplitter:
    """Returns what cuts texts."""
    return RecursiveCharacterTextSplitter(chunk_size=CHARACTERS, chunk_overlap=OVERLAP)


def parse(name: str, text: str) -> str:
    """Returns the text of a document as Markdown."""
    done["parsed"] += 1
    return str(convert(text).content) if name.endswith(".html") else text


def embed(texts: list[str]) -> Any:
    """Returns the vectors of texts."""
    global _model
    if _model is None:
        # The tokenizer is inside the package, too.
        inside = Path(wordllama.__file__).parent
        _model = WordLlama.load(cache_dir=inside, disable_download=True, dim=DIM)
    done["texts_embedded"] += len(texts)
    return _model.embed(texts, norm=True)


def files_in(folder: str) -> list[Path]:
    """Returns the files of a folder, in order."""
    return sorted(path for path in Path(folder).rglob("*") if path.is_file())


def note(path: str) -> None:
    """Writes what was done."""
    Path(path).write_text(json.dumps(done))


if __name__ == "__main__":
    cutter = splitter()
    for file in files_in(sys.argv[1]):
        embed(cutter.split_text(parse(file.name, file.read_text())))
    note(sys.argv[2])
