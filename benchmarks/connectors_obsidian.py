"""Reads a vault with LangChain's or LlamaIndex's reader, and prints what it found.

python benchmarks/connectors_obsidian.py FOLDER langchain
"""

from __future__ import annotations

import json
import sys
from typing import Any


def langchain(folder: str) -> dict[str, int]:
    """Returns what LangChain's loader finds: notes with their properties and tags, and no links."""
    from langchain_community.document_loaders import ObsidianLoader

    found = ObsidianLoader(folder).load()
    return {"notes": len(found), "tags": sum(bool(one.metadata.get("tags")) for one in found)}


def llamaindex(folder: str) -> dict[str, int]:
    """Returns what LlamaIndex's reader finds: sections of notes with their links."""
    from llama_index.readers.obsidian import ObsidianReader

    found = ObsidianReader(folder).load_data()
    notes: dict[str, Any] = {one.metadata["note_name"]: one.metadata for one in found}
    links = sum(bool(told.get("wikilinks")) for told in notes.values())
    return {"notes": len(notes), "links": links}


print(json.dumps({"langchain": langchain, "llamaindex": llamaindex}[sys.argv[2]](sys.argv[1])))
