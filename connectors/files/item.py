"""Files as items: what is known of each, and what a connector that gives files tells of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from contextframe_beam.errors import ConnectorError
from contextframe_beam.frames.place import Window


class FileItem(dict[str, Any]):
    """A file that a run parses before it maps it.

    What is known of it is in the dictionary: its `path` in the source with slashes, `size` in
    bytes, `modified_at` as ISO 8601 text, and what else the connector knows. Beside that, where
    neither messages nor dead letters show it, stand these.

    Attributes:
        document: The `Document` that it was parsed to; None before that.
        handle: By what its connector finds it.
        mark: What stays the same as long as the file does; kept from run to run.
        is_stored: Whether an earlier run has made a document of it as it is.
        is_skipped: Whether an earlier run has skipped it as it is, because nothing reads its type.
        is_anew: Whether it is read although the dataset may hold it in this version, because what
            belongs to it would otherwise not be found.
        parts: Other documents that were found in it while it was read, such as attachments. They
            are read after it.
        narrowed: Why something that belongs to it was not read; a mirror then deletes nothing.
        windows: What its parts are all of, once it is read: of these stretches of the source, what
            is stored and was not met is deleted.
    """

    __slots__ = (
        "document",
        "handle",
        "is_anew",
        "is_skipped",
        "is_stored",
        "mark",
        "narrowed",
        "parts",
        "windows",
    )

    def __init__(
        self,
        path: str,
        size: int | None = None,
        modified_at: str | None = None,
        handle: Any = None,
        mark: str = "",
        is_stored: bool = False,
        is_skipped: bool = False,
        is_anew: bool = False,
        **more: Any,
    ) -> None:
        super().__init__(path=path, size=size, modified_at=modified_at, **more)
        self.document: Any = None
        self.handle = handle
        self.mark = mark
        self.is_stored = is_stored
        self.is_skipped = is_skipped
        self.is_anew = is_anew
        self.parts: list[FileItem] = []
        self.narrowed = ""
        self.windows: list[Window] = []

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> FileItem:
        """Returns the item from its dictionary, as in a dead letter."""
        item = cls("")
        item.clear()
        item.update({"size": None, "modified_at": None, **values})
        return item

    def __reduce__(self) -> tuple[Any, ...]:
        slots = {name: getattr(self, name) for name in self.__slots__}
        return _made_again, (dict(self), slots)


def _made_again(values: dict[str, Any], slots: dict[str, Any]) -> FileItem:
    item = FileItem.of(values)
    for name, value in slots.items():
        setattr(item, name, value)
    return item


class GoneError(ConnectorError):
    """A listed item that is gone, or that the account may no longer read.

    What is stored of it stays, and the run goes on: a mirror then deletes nothing.
    """


class GivesFiles(Protocol):
    """What a connector has whose items are files, beside `gives_files = True`.

    It may have an attribute `files_at_once`, how many files are read at the same time (1 if it has
    none), and a method `read_head(item, size)` that returns the first bytes of a file, so that of
    large files of unknown types no more is read.

    One of whose items only some are files has `is_file(item)`, which says of an item whether it is
    one. The others are mapped as they are.

    One that parses some files itself also has `own_document(item, most)`. It returns the document,
    which has a `text`, with bytes that differ whenever the document does, and None for a file that
    a parser makes a document of. It may set the item's `parts`, `narrowed` and `windows`.
    """

    def read_file(self, item: FileItem, most: int) -> bytes:
        """Returns the bytes of a file.

        Args:
            item: The file; what is found to be another size or time is set in it.
            most: How many bytes it may have.

        Raises:
            FileTooLargeError: it has more.
            GoneError: it is not there any more.
            HttpError: a server refuses it. Where it fails altogether, or refuses the account, the
                run ends.
            ConnectorError: it cannot be read, for a reason that concerns it alone.
            OSError: it cannot be read.
        """
