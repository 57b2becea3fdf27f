"""The files of a directory, wherever it is; and those of an object store, read in one version."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import date, datetime, timezone
from itertools import islice
from pathlib import Path
from typing import Any

from contextframe_beam.connectors.files.listing import (
    ANY_FOLDERS,
    UNREADABLE,
    Exclusion,
    FileChangedError,
    FileInfo,
    Files,
    FileTooLargeError,
    Links,
    Listing,
    Match,
    ReadAt,
    changed,
    fixed_folders,
    match_name,
    match_names,
    parts_of,
    reason_of,
    utc_text,
)
from contextframe_beam.connectors.files.local import LocalFiles
from contextframe_beam.connectors.secrets import redact
from contextframe_beam.errors import ConfigError, ConnectorError

_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs"}
_TIMES = ("LastModified", "last_modified", "mtime", "updated", "modified", "created")
_VERSIONS = ("generation", "ETag", "etag", "e_tag", "md5Hash", "content_md5")
_REQUESTS_AT_ONCE = 16


def files_in(directory: str | os.PathLike[str]) -> Files:
    """Returns access to a directory, given as a path or a URL.

    Raises:
        ConfigError: the URL is of a kind that nothing installed can read.
    """
    text = os.fspath(directory)
    if text.startswith("file://"):
        text = text[len("file://") :]
    if "://" in text or "::" in text:
        return StoreFiles(text)
    if not text:
        raise ConfigError("directory is empty; use '.' for the current one")
    return LocalFiles(Path(os.path.abspath(os.path.expanduser(text))))


class StoreFiles:
    """The files below a URL.

    Args:
        url: The folder.

    Raises:
        ConfigError: the library for this kind of URL is not installed.
    """

    is_remote = True

    def __init__(self, url: str) -> None:
        import fsspec

        try:
            self._fs, self._path = fsspec.core.url_to_fs(url)
        except ImportError as error:
            extra = _EXTRAS.get(url.partition(":")[0])
            install = f"contextframe-beam[{extra}]" if extra else "the package named above"
            raise ConfigError(f"{_shown(url)}: {error}; run: pip install '{install}'") from error
        except ValueError as error:
            raise ConfigError(f"{_shown(url)}: {error}; use a path, s3:// or gs://") from error
        self._path = self._path.rstrip("/")
        self._is_web = "http" in _protocols(self._fs)
        self.root: Path | str = url.rstrip("/")
        self._shown = _shown(str(self.root))

    def path_of(self, address: str) -> str:
        """As `Files` says."""
        return self._name(address)[len(self._path) + 1 :]

    def address_of(self, path: str) -> str:
        """As `Files` says."""
        address: str = self._fs.unstrip_protocol(f"{self._path}/{path}")
        return address

    def check(self) -> None:
        """As `Files` says."""
        try:
            self._fs.invalidate_cache()
            exists, is_folder = self._fs.exists(self._path), self._fs.isdir(self._path)
        except Exception as error:
            raise self._unlisted(error) from error
        if not exists:
            raise ConnectorError(f"Directory not found: {self._shown}; check the URL")
        if not is_folder:
            raise ConnectorError(
                f"Not a directory: {self._shown}; give its folder, and its name as the pattern"
            )

    def list(
        self,
        pattern: str,
        hidden: bool = False,
        links: Links = Links.FILES,
        exclusion: Exclusion | None = None,
    ) -> Listing:
        """As `Files` says."""
        parts = parts_of(pattern)
        try:
            self._fs.invalidate_cache()
            found = dict(self._below(parts))
        except OSError as error:
            raise self._unlisted(error) from error
        listing = Listing()
        for name, info in sorted(found.items()):
            names = name[len(self._path) + 1 :].split("/")
            path = self._fs.unstrip_protocol(name)
            if exclusion is not None and exclusion.leaves_out_some(names):
                continue
            if not names[-1]:
                # What some programs put in place of a folder is empty.
                if info.get("size") and match_names(parts, names[:-1]) is Match.YES:
                    listing.unnamed.append(path)
                continue
            match = match_names(parts, names)
            if match is Match.YES or (match is Match.HIDDEN and hidden):
                listing.files.append(_info_of(path, info))
            elif match is Match.HIDDEN:
                listing.hidden.append(path)
        return listing

    def some(self, limit: int) -> Iterator[str]:
        """As `Files` says."""
        left = limit
        folders = deque([self._path])
        while folders and left > 0:
            for info in islice(self._entries(folders.popleft()), left):
                left -= 1
                name = info["name"].rstrip("/")
                if name.rpartition("/")[2].startswith("."):
                    continue
                if info.get("type") == "directory":
                    folders.append(name)
                else:
                    yield name[len(self._path) + 1 :]
            # Each folder is a request.
            left -= limit // 100

    @contextmanager
    def reader(self, info: FileInfo, as_listed: bool = True) -> Iterator[tuple[FileInfo, ReadAt]]:
        """As `Files` says."""
        now = info

        def read(offset: int, size: int) -> bytes:
            nonlocal now
            try:
                return self._range(now, offset, size)
            except FileChangedError:
                if as_listed or offset:
                    raise
            now = self._info(info)
            return self._range(now, offset, size)

        yield now, read

    def contents(
        self, infos: Sequence[FileInfo], limit: int
    ) -> Iterator[tuple[FileInfo, bytes | Exception]]:
        """As `Files` says."""

        def whole(info: FileInfo) -> bytes | Exception:
            if info.size > limit:
                return FileTooLargeError(info.size, limit)
            try:
                return self._get(info.path)
            except UNREADABLE as error:
                return error

        # Many small files at once: one after the other would wait for the network each time.
        with ThreadPoolExecutor(_REQUESTS_AT_ONCE) as pool:
            yield from zip(infos, pool.map(whole, infos), strict=True)

    def heads(self, infos: Sequence[FileInfo], size: int) -> Iterator[bytes | None]:
        """As `Files` says."""

        def head(info: FileInfo) -> bytes | None:
            try:
                with self.reader(info) as (_, read):
                    return read(0, size)
            except (*UNREADABLE, FileChangedError):
                return None

        with ThreadPoolExecutor(_REQUESTS_AT_ONCE) as pool:
            for first in range(0, len(infos), _REQUESTS_AT_ONCE):
                yield from pool.map(head, infos[first : first + _REQUESTS_AT_ONCE])

    def _below(self, parts: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yields the names and descriptions of objects among which are all that match."""
        fixed = fixed_folders(parts)
        folders = ["/".join([self._path, *parts[:fixed]])]
        signs = set("*[") if self._is_web else set("*?[")
        if fixed == len(parts) - 1 and not signs & set(parts[-1]):
            # One request, however many objects lie beside it.
            with suppress(FileNotFoundError):
                info = self._fs.info("/".join([self._path, *parts]))
                if info.get("type") != "directory":
                    yield info["name"], info
            return
        rest = list(parts[fixed:])
        while rest and rest[0] != ANY_FOLDERS:
            first, rest = rest[0], rest[1:]
            below = []
            for folder in folders:
                for info in self._entries(folder):
                    name = info["name"]
                    if info.get("type") != "directory":
                        if not rest:
                            yield name, info
                    elif match_name(first, name.rstrip("/").rpartition("/")[2]) is not Match.NO:
                        below.append(name.rstrip("/"))
            folders = below
        if rest:
            for folder in folders:
                for name, info in self._fs.find(folder, detail=True).items():
                    if info.get("type") != "directory":
                        yield name, info

    def _entries(self, folder: str) -> Iterator[dict[str, Any]]:
        with suppress(FileNotFoundError):
            yield from self._fs.ls(folder, detail=True)

    def _name(self, path: str) -> str:
        # Not _strip_protocol, which would take off a slash at the end, and more.
        name: str = path
        if self._is_web:
            return name
        for protocol in _protocols(self._fs):
            name = name.removeprefix(f"{protocol}://")
        return name

    def _info(self, info: FileInfo) -> FileInfo:
        self._fs.invalidate_cache()
        return _info_of(info.path, self._fs.info(self._name(info.path)))

    def _range(self, info: FileInfo, start: int, size: int) -> bytes:
        """Reads bytes of one version of an object."""
        # Object stores refuse a range that begins after the end.
        end = min(start + size, info.size)
        if start >= end:
            return b""
        name = self._name(info.path)
        if "s3" in _protocols(self._fs) and info.version:
            return self._from_s3(name, info, Range=f"bytes={start}-{end - 1}", IfMatch=info.version)
        pins = {}
        if "gs" in _protocols(self._fs) and info.version:
            pins["generation"] = info.version
        try:
            data: bytes = self._fs.cat_file(name, start=start, end=end, **pins)
        except FileNotFoundError:
            if pins and self._fs.exists(name):
                raise changed(info, self._info(info)) from None
            raise
        if len(data) > end - start:
            data = data[start:end]  # of a server that only gives all of it
        if not pins:
            now = self._info(info)
            if (now.size, now.version) != (info.size, info.version):
                raise changed(info, now)
        return data

    def _get(self, path: str) -> bytes:
        """Reads an object by one request, and so one version of it."""
        name = self._name(path)
        if "s3" in _protocols(self._fs):
            return self._from_s3(name, None)
        data: bytes = self._fs.cat_file(name)
        return data

    def _from_s3(self, name: str, info: FileInfo | None, **conditions: str) -> bytes:
        from s3fs.core import S3_RETRYABLE_ERRORS

        bucket, key, _ = self._fs.split_path(name)
        for left in reversed(range(self._fs.retries)):
            try:
                answer = self._fs.call_s3("get_object", Bucket=bucket, Key=key, **conditions)
                return _body(self._fs, answer)
            except S3_RETRYABLE_ERRORS:  # while the body came; others are tried again by call_s3
                if not left:
                    raise
            except OSError as error:
                if info is not None and "pre-condition" in str(error):
                    raise changed(info, self._info(info)) from error
                raise
        raise AssertionError("unreachable")

    def _unlisted(self, error: Exception) -> ConnectorError:
        return ConnectorError(
            f"{self._shown} cannot be listed: {reason_of(error)}; "
            "check the address and the credentials"
        )


def _body(fs: Any, answer: dict[str, Any]) -> bytes:
    from fsspec.asyn import sync

    async def read() -> bytes:
        body = answer["Body"]
        try:
            data: bytes = await body.read()
            return data
        finally:
            body.close()

    data: bytes = sync(fs.loop, read)
    return data


def _protocols(fs: Any) -> tuple[str, ...]:
    return (fs.protocol,) if isinstance(fs.protocol, str) else tuple(fs.protocol)


def _info_of(path: str, info: dict[str, Any]) -> FileInfo:
    modified_at = _time_of(info)
    version = next((str(info[name]) for name in _VERSIONS if info.get(name)), modified_at)
    return FileInfo(path, int(info.get("size") or 0), modified_at, version or "")


def _shown(url: str) -> str:
    return redact(url)


def _time_of(info: dict[str, Any]) -> str | None:
    for name in _TIMES:
        value = info.get(name)
        if isinstance(value, datetime) and value.tzinfo is None:
            return value.replace(tzinfo=timezone.utc).isoformat()
        if isinstance(value, date):
            return value.isoformat()
        if isinstance(value, int | float):
            return utc_text(value)
        if isinstance(value, str):
            return value
    return None
