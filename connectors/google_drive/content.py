"""The content of files of Google Drive: what is exported, what is downloaded, and what cannot be.

A file of which nothing can be read is still a document with what is told of it, and says why.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable
from functools import cached_property

from contextframe_beam.connectors.attachments import RemoteFile
from contextframe_beam.connectors.files.item import FileItem, GoneError
from contextframe_beam.connectors.files.listing import FileChangedError, FileTooLargeError
from contextframe_beam.connectors.google_drive.account import Account, DriveError, judged
from contextframe_beam.connectors.google_drive.comments import comments_inline
from contextframe_beam.connectors.google_drive.editors import (
    document_to_markdown,
    presentation_to_markdown,
    spreadsheet_to_markdown,
)
from contextframe_beam.connectors.google_drive.items import EDITED, OFFICE, Taken
from contextframe_beam.connectors.google_drive.records import DriveDocument
from contextframe_beam.connectors.http.request import BodyTooLargeError
from contextframe_beam.connectors.markdown import apart
from contextframe_beam.parsers import Parsers

_HEAD_BYTES = 4 << 20
_TRIES = 3
# Why there is no content, where the list already tells.
_LEFT_OUT = {"large": "too large", "refused": "cannotDownload"}
_TOO_LARGE = "exportSizeLimitExceeded"
_MARKDOWN, _PLAIN, _CSV = "text/markdown", "text/plain", "text/csv"
_ENDING_OF = dict(EDITED.values())


class Contents:
    """Reads the content of one file at a time, from any thread.

    Args:
        account: Returns the account of a subject.
        taken: How files are read.
        may_harm: Whether files that Google takes for malware are read.
        tell: Is told of what cannot be read, and why, once for each reason.
        count: Counts forms that are not known, each with how often it occurred.
    """

    def __init__(
        self,
        account: Callable[[str], Account],
        taken: Taken,
        may_harm: bool,
        tell: Callable[[str, str], object],
        count: Callable[[str, int], object],
    ) -> None:
        self._account = account
        self._taken = taken
        self._may_harm = may_harm
        self._tell = tell
        self._count = count
        self._disabled: set[str] = set()

    def own(self, item: FileItem, most: int) -> DriveDocument | None:
        """Returns what a file becomes; None for one that a parser makes a document of.

        Args:
            item: The item.
            most: How many bytes it may have.

        Raises:
            GoneError: it is not there any more.
            DriveError: Google refuses all requests.
        """
        try:
            if item.get("how") == "export":
                return self._exported(item, most)
            if item.get("how") in ("text", "bytes"):
                return self._downloaded(item, min(most, self._taken.attachments.most_bytes))
        except DriveError as error:
            if error.is_missing:
                raise GoneError(f"{item['path']}: {error}") from error
            if not error.is_of_one:
                raise
            return self._left_out(item, error.reason, str(error))
        except (FileTooLargeError, BodyTooLargeError) as error:
            return self._left_out(item, "too large", f"it has {error.size:,} bytes or more")
        return DriveDocument("", left_out=_LEFT_OUT.get(str(item.get("how")), ""))

    def head(self, item: FileItem, size: int) -> bytes:
        """Returns the first bytes of a file.

        Raises:
            HttpError: it cannot be had.
        """
        if isinstance(item.handle, bytes):
            return item.handle[:size]
        return self._file(item).head(size)

    def read(self, item: FileItem, most: int) -> bytes:
        """Returns the bytes of a file, whose checksum is that which Drive tells.

        Raises:
            FileTooLargeError: it has more than `most`.
            FileChangedError: it changes all the time.
            GoneError: it is not there any more.
            HttpError: it cannot be had.
        """
        if isinstance(item.handle, bytes):
            data, item.handle = item.handle, None
            if len(data) > most:
                raise FileTooLargeError(len(data), most)
            return data
        if item.get("size") == 0:
            return b""
        file, expected = self._file(item), item.get("digest_told")
        item.handle = None
        for _ in range(_TRIES):
            data = file.read(most)
            if not expected or hashlib.md5(data, usedforsecurity=False).hexdigest() == expected:
                item["size"] = len(data)
                return data
            # It changed after it was listed, or while it was read.
            told = self._account(str(item["subject"])).file(str(item["id"]))
            if told.get("md5Checksum") == hashlib.md5(data, usedforsecurity=False).hexdigest():
                item["size"] = len(data)
                return data
            expected, file = told.get("md5Checksum"), self._file(item)
        raise FileChangedError("the file changes whenever it is read; run again later")

    def _exported(self, item: FileItem, most: int) -> DriveDocument | None:
        """Returns a document of an editor."""
        kind, mode = str(item["kind"]), self._taken.export
        read = self._account(str(item["subject"]))
        if mode == "office":
            self._export_office(item, read)
            return None
        text = self._text(item, read, kind, mode)
        if text is None:
            self._export_office(item, read)
            return None
        if self._taken.comments == "inline":
            (comments,) = read.comments([str(item["id"])])
            if not isinstance(comments, DriveError):
                text = apart(text, comments_inline(comments))
        return DriveDocument(text)

    def _export_office(self, item: FileItem, read: Account) -> None:
        """Lets a parser read a document of an editor as the file that it is exported as."""
        ending = _ENDING_OF[str(item["kind"])]
        if not str(item["path"]).endswith(ending):
            item["path"] = f"{item['path']}{ending}"
        item.handle = read.export(str(item["id"]), OFFICE[ending])

    def _text(self, item: FileItem, read: Account, kind: str, mode: str) -> str | None:
        """Returns the text of a document of an editor; None for what a parser reads instead."""
        identifier = str(item["id"])
        if mode == "text" or kind in self._disabled:
            return self._plain(item, read, kind, mode)
        try:
            if kind == "spreadsheet":
                return spreadsheet_to_markdown(read.spreadsheet(identifier))
            if kind == "presentation":
                unknown: Counter[str] = Counter()
                text = presentation_to_markdown(read.presentation(identifier), unknown)
                for form, count in unknown.items():
                    self._count(form, count)
                return text
        except DriveError as error:
            if not error.is_disabled:
                raise
            self._disabled.add(kind)
            self._tell(f"{kind}s", f"{error}; until then they are exported in a plainer form")
            return self._plain(item, read, kind, mode)
        return document_to_markdown(self._document(identifier, read), _address(item))

    def _plain(self, item: FileItem, read: Account, kind: str, mode: str) -> str | None:
        if kind == "spreadsheet" and mode != "text" and self._parsers.find("a.xlsx"):
            return None
        form = _CSV if kind == "spreadsheet" else _PLAIN
        return _decoded(read.export(str(item["id"]), form))

    def _document(self, identifier: str, read: Account) -> str:
        """Returns a document as Markdown; by its link if it is too large for an export."""
        try:
            return _decoded(read.export(identifier, _MARKDOWN))
        except DriveError as error:
            if error.reason != _TOO_LARGE:
                raise
            data = read.export_by_link(identifier, _MARKDOWN)
            if data is None:
                raise
            return _decoded(data)

    def _downloaded(self, item: FileItem, most: int) -> DriveDocument | None:
        """Returns what a file with bytes becomes, if no parser reads it."""
        size, path = item.get("size"), str(item["path"])
        if isinstance(size, int) and size > most:
            raise FileTooLargeError(size, most)
        if item["how"] == "bytes":
            data = self.read(item, most)
            return DriveDocument("", data, _media_type(item))
        head = b""
        if size != 0:
            # What may not be read is refused here, where it still becomes a document.
            item.handle = file = self._file(item)
            head = file.head(_HEAD_BYTES)
        if self._parsers.find(path, head) is not None:
            return None
        if _text_of(head[:-4] or head) is None:
            return DriveDocument("")
        return DriveDocument(_text_of(self.read(item, most)) or "")

    def _file(self, item: FileItem) -> RemoteFile:
        if not isinstance(item.handle, RemoteFile):
            client, path = self._account(str(item["subject"])).bytes_of(
                str(item["id"]), self._may_harm
            )
            return RemoteFile(client, path, judged)
        return item.handle

    def _left_out(self, item: FileItem, reason: str, told: str) -> DriveDocument:
        self._tell(f"the content of {item['path']}", told)
        item.handle = None
        return DriveDocument("", left_out=reason)

    @cached_property
    def _parsers(self) -> Parsers:
        return Parsers()


def _address(item: FileItem) -> str:
    return f"https://drive.google.com/open?id={item['id']}"


def _media_type(item: FileItem) -> str:
    return str(json.loads(str(item["file"])).get("mimeType"))


def _decoded(data: bytes) -> str:
    return data.decode("utf-8-sig", "replace")


def _text_of(data: bytes) -> str | None:
    """Returns the text of bytes; None where they are none."""
    if b"\0" in data:
        return None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return None
