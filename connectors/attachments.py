"""Attachments: which of them are read, and how their bytes are had, the same for all connectors."""

from __future__ import annotations

import mimetypes
import os
import re
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from contextframe_beam.connectors.files.listing import FileChangedError, FileTooLargeError
from contextframe_beam.connectors.plain_secrets import looks_secret
from contextframe_beam.errors import ConfigError

if TYPE_CHECKING:
    from contextframe_beam.connectors.http.client import HttpClient
    from contextframe_beam.connectors.http.judges import Judge
    from contextframe_beam.connectors.http.request import HttpResponse

CHOICES = ("none", "metadata", "text", "bytes")
#: Of larger attachments only metadata is read.
MOST_BYTES = 10 << 20

# Nothing reads text in these.
_MEDIA = frozenset(
    (
        *("avif", "bmp", "gif", "heic", "ico", "jpeg", "jpg", "png", "svg", "tif", "tiff", "webp"),
        *("3gp", "avi", "flac", "m4a", "mkv", "mov", "mp3", "mp4", "ogg", "ogv", "wav", "webm"),
    )
)
_PIECE = 4 << 20
_TRIES = 3
_RANGE = re.compile(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)", re.I)
# Names of a signed address besides those that look secret.
_SIGNED = re.compile(
    r"(?:x-(?:amz|goog|oss|ms)-.+|expires?|expirationtimestamp|expiry|policy|key-pair-id"
    r"|googleaccessid|awsaccesskeyid|se|st|sp|sv|sr|skoid|sktid|ske|sks|skv|hm|is|ex)\Z",
    re.I,
)


@dataclass(frozen=True)
class Attachments:
    """What becomes of attachments.

    Attributes:
        choice: `none`, `metadata` (their names, types and sizes), `text` or `bytes`.
        most_bytes: Of larger ones only metadata is read.
    """

    choice: str
    most_bytes: int = MOST_BYTES

    @classmethod
    def of(cls, choice: str | None = None, most_bytes: int = MOST_BYTES) -> Attachments:
        """Returns it, checked; by default `text` where the parsers of documents are installed.

        Raises:
            ConfigError: there is no such choice, or the limit makes no sense.
        """
        if choice is None:
            choice = "text" if find_spec("pypdfium2") else "metadata"
        if choice not in CHOICES:
            raise ConfigError(f"attachments is {choice!r}; it must be one of {', '.join(CHOICES)}")
        if most_bytes < 0:
            raise ConfigError(f"max_attachment_bytes is {most_bytes}; give 0 or more")
        return cls(choice, most_bytes)

    def of_file(self, name: str, size: int | None = None) -> str | None:
        """Returns how a file is read: `metadata`, `text`, `bytes`, or None for not at all.

        Args:
            name: Its name; nothing reads text in images, sound and films.
            size: Its bytes, if they are known.
        """
        if self.choice == "none":
            return None
        if size is not None and size > self.most_bytes:
            return "metadata"
        ending = os.path.splitext(name)[1].lower().removeprefix(".")
        return "metadata" if self.choice == "text" and ending in _MEDIA else self.choice


def media_type(name: str) -> str:
    """Returns the media type of a file by the ending of its name."""
    return mimetypes.guess_type(name)[0] or "application/octet-stream"


def without_signature(address: str) -> str:
    """Returns an address without its signature, so that it is the same each time, and no secret.

    An address without a signature stays as it is.
    """
    try:
        parts = urlsplit(address)
        names = [name for name, _ in parse_qsl(parts.query, keep_blank_values=True)]
    except ValueError:
        return address.partition("?")[0]
    if not any(looks_secret(name) or _SIGNED.match(name) for name in names):
        return address
    return urlunsplit((parts.scheme, parts.netloc, parts.path, "", ""))


class RemoteFile:
    """A file at an address, read in ranges.

    A range that breaks off is asked for again, and not what came before it. A server that knows no
    ranges gives all of it at once.

    Args:
        client: Sends the requests. Its `max_response_bytes` bounds what such a server may give.
        url: The address.
        judge: Looks at each answer, as a client's judge does.

    Attributes:
        size: The bytes of the file; None before the first range, or if the server does not tell.
    """

    def __init__(self, client: HttpClient, url: str, judge: Judge | None = None) -> None:
        self._client = client
        self._url = url
        self._judge = judge or (lambda _: None)
        self._begin()

    def head(self, size: int) -> bytes:
        """Returns the first bytes of the file.

        Raises:
            FileTooLargeError: a server without ranges gives more than the client takes.
            HttpError: it cannot be had.
        """
        if not self._data and not self._is_whole:
            self._more(size)
        return bytes(self._data[:size])

    def read(self, most: int) -> bytes:
        """Returns the bytes of the file.

        Args:
            most: How many it may have.

        Raises:
            FileTooLargeError: it has more.
            FileChangedError: it changes all the time.
            HttpError: it cannot be had.
        """
        for _ in range(_TRIES):
            try:
                while not self._is_whole:
                    self._require_fits(most)
                    self._more(min(_PIECE, max(most + 1 - len(self._data), 1)))
                self._require_fits(most)
            except FileChangedError:
                self._begin()
                continue
            return bytes(self._data)
        raise FileChangedError("the file changes whenever it is read; try again later")

    def _begin(self) -> None:
        self.size: int | None = None
        self._data = bytearray()
        self._is_whole = False
        self._version: str | None = None

    def _require_fits(self, most: int) -> None:
        size = max(self.size or 0, len(self._data))
        if size > most:
            raise FileTooLargeError(size, most)

    def _more(self, size: int) -> None:
        """Reads the next bytes."""
        from contextframe_beam.connectors.http.request import BodyTooLargeError, HttpRequest

        start = len(self._data)
        headers = {
            "Range": f"bytes={start}-{start + max(size, 1) - 1}",
            # A compressed answer has ranges of its own.
            "Accept-Encoding": "identity",
            "Accept": "*/*",
        }
        request = HttpRequest("GET", self._url, headers=headers, judge=self._judge)
        try:
            response = self._client.send(request, raise_for_status=False)
        except BodyTooLargeError as error:
            raise FileTooLargeError(error.size, error.size - 1) from error
        told = _RANGE.match(response.headers.get("Content-Range") or "")
        if response.status == 416 and told is not None and told[3] == str(start):
            self.size, self._is_whole = start, True
            return
        if response.status >= 400:
            verdict = self._judge(response)
            refused = response.refused("to a request for the bytes of a file")
            raise verdict if isinstance(verdict, Exception) else refused
        if response.status != 206 or told is None:
            self._data = bytearray(response.body)
            self.size, self._is_whole = len(self._data), True
            return
        self._check(response, start, told)
        self._data += response.body
        if told[3] != "*":
            self.size = int(told[3])
            self._is_whole = len(self._data) >= self.size
        else:
            self._is_whole = len(response.body) < size

    def _check(self, response: HttpResponse, start: int, told: re.Match[str]) -> None:
        version = response.headers.get("ETag") or response.headers.get("Last-Modified") or ""
        if self._version is not None and version != self._version:
            raise FileChangedError("the file changed while it was read")
        self._version = version
        if told[1] is not None and int(told[1]) != start:
            raise response.error(f"begins at byte {told[1]} and not at {start}, as was asked for")
        if not response.body:
            raise response.error("is empty, although the file goes on")
