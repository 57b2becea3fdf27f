"""Loaders of documents for tests: on LangChain's own base class, and of LlamaIndex's form."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

from langchain_core.document_loaders import BaseLoader
from langchain_core.documents import Document


class Lines(BaseLoader):
    """A document of each line of a file; the line `boom` fails."""

    def __init__(self, file_path: str, encoding: str = "utf-8", key: str = "") -> None:
        self.file_path, self.encoding, self.key = file_path, encoding, key

    def lazy_load(self) -> Iterator[Document]:
        """Yields the documents."""
        text = Path(self.file_path).read_text(self.encoding)
        for line in text.splitlines():
            if line == "boom":
                raise ValueError(f"this line fails with {self.key}")
            yield Document(line, metadata={"source": self.file_path, "at": Path(self.file_path)})


class Pages(BaseLoader):
    """Documents with pages, of which one has two."""

    def __init__(self, sources: list[str], style: Any = None) -> None:
        self.sources, self.style = sources, style

    def lazy_load(self) -> Iterator[Document]:
        """Yields the documents."""
        for source in self.sources:
            for page, text in ((1, "one"), (2, "two"), (2, "two again")):
                told = {"source": source, "page": page, "uuid": "no-key", "style": repr(self.style)}
                yield Document(f"{text} of {source}", metadata=told)


class Style:
    """An object among arguments."""

    def __init__(self, name: str) -> None:
        self.name = name

    @classmethod
    def plain(cls) -> Style:
        """Makes one in another way."""
        return cls("plain")

    def __repr__(self) -> str:
        return f"<{self.name}>"


class Node:
    """What a reader of LlamaIndex gives."""

    def __init__(self, text: str, id_: str | None = None, **metadata: Any) -> None:
        self.text, self.id_, self.metadata = text, id_ or str(uuid4()), metadata


class FileReader:
    """A reader of one file, whose path is an argument of `load_data`."""

    def load_data(self, file: Path, extra_info: dict[str, Any] | None = None) -> list[Node]:
        """Returns one document, with an id that is made up."""
        assert isinstance(file, Path)
        return [Node(file.read_text(), **(extra_info or {}))]


class FilesReader:
    """A reader whose files are an argument of its own."""

    def __init__(self, input_files: list[str]) -> None:
        self.input_files = input_files

    def load_data(self) -> list[Node]:
        """Returns a document of each file, with ids of its own."""
        return [Node(Path(one).read_text(), f"own-{Path(one).name}") for one in self.input_files]
