"""The limit: each file is parsed, cut and embedded as ours are, in a loop that stores nothing.

python benchmarks/documents_limit.py FOLDER NOTE
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from contextframe_beam.parsers import Limits, Parsers
from contextframe_beam.parsers.parsing import parse_with
from contextframe_beam.parsers.registry import made
from contextframe_beam.transforms.chunkers.markdown import MarkdownChunker
from contextframe_beam.transforms.embedders.word_llama import WordLlamaEmbedder

if __name__ == "__main__":
    limits, parsers, ready = Limits(), Parsers(), {}
    embedder = WordLlamaEmbedder()
    chunker = MarkdownChunker(counter=embedder)
    files = sorted(path for path in Path(sys.argv[1]).rglob("*") if path.is_file())
    texts = 0
    for file in files:
        data = file.read_bytes()
        info = parsers.find(file.name, data)
        assert info is not None
        if info.path not in ready:
            ready[info.path] = made(info.path, info.settings)
        document = parse_with(ready[info.path], data, file.name, limits)
        chunks = chunker.chunk(document)
        embedder.embed([chunk.text for chunk in chunks])
        texts += len(chunks)
    Path(sys.argv[2]).write_text(json.dumps({"parsed": len(files), "texts_embedded": texts}))
