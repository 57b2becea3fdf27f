"""Between reading and mapping: what is stored already is left out, and files are parsed.

Items that need no reading or parsing are looked up first: files that are as an earlier run left
them by their ids, items with a version by their origins. The rest is read, some files at a time,
looked up by the digests of the bytes, and parsed in processes that end no run when they crash.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from xxhash import xxh3_128_digest

from contextframe_beam.connectors.base import BaseConnector
from contextframe_beam.connectors.files.item import FileItem, GoneError
from contextframe_beam.connectors.files.listing import UNREADABLE, FileTooLargeError, reason_of
from contextframe_beam.connectors.files.seen import outcome_state
from contextframe_beam.connectors.page import DeadLetter, DocumentVersion, Page, Tally
from contextframe_beam.errors import ConfigError, ConnectorError, ContextFrameError, RecordError
from contextframe_beam.frames.record import FrameRecord, uuid_of
from contextframe_beam.parsers import ParseError, Parsing, UnknownTypeError
from contextframe_beam.parsers.contract import in_words
from contextframe_beam.transforms.elements import letter_of, uuid_of_record
from contextframe_beam.transforms.readers import collection_mark, mark_of
from contextframe_beam.transforms.recognise import Found, StoredOrigins, origin_of
from contextframe_beam.transforms.unchanged import pack

# So much is read before it is looked up, and so much text goes on before more is parsed.
_FILES_TOGETHER = 200
_BYTES_TOGETHER = 32 << 20
_TEXT_TOGETHER = 4 << 20
# What tells the type of a file whose name does not.
_HEAD_BYTES = 64 << 10
# Archives, whose types stand further back in them.
_ARCHIVES = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")


@dataclass(frozen=True)
class Making:
    """How a run makes documents of the items of a connector.

    Attributes:
        connector: What gives them, ready to be read.
        made_with: What tells these documents from those that other settings make.
        parsing: How files are parsed, where it gives files.
        stored: What the dataset holds of them; None where nothing is to be recognised.
    """

    connector: Any
    made_with: bytes = b""
    parsing: Parsing | None = None
    stored: StoredOrigins | None = None


@dataclass(slots=True)
class _One:
    """An item on its way.

    Attributes:
        place: Its place on the page.
        item: The item.
        version: Which document it is; None where the connector does not tell.
        data: The bytes of a file, from when it is read until it is parsed.
        origin: The origin of the document, once it is known.
    """

    place: int
    item: Any
    version: DocumentVersion | None = None
    data: bytes = b""
    origin: bytes | None = None

    @property
    def key(self) -> bytes:
        """The key of the document's row."""
        assert self.version is not None
        return UUID(uuid_of(self.version.unique_id)).bytes


@dataclass(slots=True)
class Ready:
    """Items that are to be mapped, and what became of others.

    Attributes:
        ones: The items.
        failures: Those that could not be read or parsed.
        tally: What the commit is to know of all of them.
    """

    ones: list[_One]
    failures: list[DeadLetter]
    tally: Tally

    @property
    def items(self) -> list[Any]:
        """The items themselves."""
        return [one.item for one in self.ones]

    @property
    def places(self) -> list[int]:
        """The place of each item on its page."""
        return [one.place for one in self.ones]

    def mapper(self, call: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """Returns what maps the items, one after the other, and gives records their origins.

        Args:
            call: Maps an item.
        """
        ones = iter(self.ones)

        def mapped(item: Any) -> Any:
            one = next(ones)
            if one.version is None:
                return call(item)
            try:
                record = call(item)
                if isinstance(record, FrameRecord):
                    _require_same(one.version, record)
                    record.origin = one.origin
            except Exception:
                self.tally.note_stale(one.version.readers, one.key)
                raise
            return record

        return mapped


def _require_same(version: DocumentVersion, record: FrameRecord) -> None:
    if uuid_of_record(record) != uuid_of(version.unique_id):
        raise ConnectorError(
            f"document_version names the document {version.unique_id!r}, and map_to_frame_record "
            f"gave {record.unique_id!r}; let both name the same"
        )
    if record.readers != version.readers:
        raise ConnectorError(
            f"document_version gives {version.unique_id!r} the readers {version.readers}, and "
            f"map_to_frame_record the readers {record.readers}; let both name the same"
        )
    if version.collection is not None and record.metadata.get("collection") != version.collection:
        raise ConnectorError(
            f"document_version gives {version.unique_id!r} the collection {version.collection!r}, "
            f"and map_to_frame_record {record.metadata.get('collection')!r}; let both name the same"
        )
    if record.place != version.place:
        raise ConnectorError(
            f"document_version gives {version.unique_id!r} the place {version.place}, and "
            f"map_to_frame_record the place {record.place}; let both name the same"
        )


def is_prepared(connector: Any) -> bool:
    """Returns whether a connector's items are looked at before they are mapped."""
    own = getattr(type(connector), "document_version", None)
    return connector.gives_files or own is not BaseConnector.document_version


def ready_items(page: Page, making: Making) -> Iterator[Ready]:
    """Yields what of a page is to be mapped, files as they are parsed.

    Args:
        page: The page.
        making: How documents are made of its items.

    Yields:
        Some items at a time; the last time with what the page itself tells the commit.

    Raises:
        ConfigError: a parser cannot be used.
        ConnectorError: files cannot be read, for a reason that concerns all of them.
    """
    work = _Work(page, making)
    left = work.unrecognised()
    files = [one for one in left if isinstance(one.item, FileItem)]
    for some in _portions(files):
        yield from work.parsed(work.changed(some))
        while parts := work.parts():
            for portion in _portions(parts):
                yield from work.parsed(work.changed(portion))
    yield work.rest([one for one in left if not isinstance(one.item, FileItem)])


class _Work:
    """The way of one page."""

    def __init__(self, page: Page, making: Making) -> None:
        self._page = page
        self._making = making
        self._failed: list[str] = []
        self._skipped: list[str] = []
        self._told = 0
        self._parts: list[FileItem] = []
        self._count = 0
        self._begin()

    @property
    def _parsing(self) -> Parsing:
        if self._making.parsing is None:
            raise ConfigError(f"{self._making.connector.name} gives files: say how to parse them")
        return self._making.parsing

    def _begin(self) -> None:
        self._ready: list[_One] = []
        self._failures: list[DeadLetter] = []
        self._tally = Tally(self._page.source)
        self._text = 0

    def _given(self) -> Ready:
        """Returns what there is since the last time."""
        given = Ready(self._ready, self._failures, self._tally)
        self._told += given.tally.read
        self._begin()
        return given

    def rest(self, ones: list[_One]) -> Ready:
        """Returns the last items, with what the page tells the commit."""
        for one in ones:
            self._pass_on(one)
        self._failures = [*self._page.failures, *self._failures]
        told = self._page.tally
        # Read in whatever way, an item counts once.
        told.read += self._count - self._told - self._tally.read
        if self._page.state is not None and self._making.connector.gives_files:
            outcome = outcome_state(filter(None, self._failed), filter(None, self._skipped))
            state = {**self._page.state, **(outcome or {})}
            told.partitions = {self._page.partition: state} if state else {}
        self._tally += told
        return self._given()

    def unrecognised(self) -> list[_One]:
        """Returns the items that are not known to be stored, as far as that is told unread."""
        items, connector = self._page.items, self._making.connector
        if connector.gives_files:
            # They may have travelled as rows, which hold what is in the dictionary.
            is_file = getattr(connector, "is_file", lambda _: True)
            items = [
                FileItem.of(one) if not isinstance(one, FileItem) and is_file(one) else one
                for one in items
            ]
        return self._unrecognised(items)

    def parts(self) -> list[_One]:
        """Returns what was found in other items since the last time and is not known either."""
        parts, self._parts = self._parts, []
        self._count += len(parts)
        return self._unrecognised(parts)

    def _unrecognised(self, items: Sequence[Any]) -> list[_One]:
        ones = [_One(place, item) for place, item in enumerate(items)]
        ones = [one for one in ones if self._has_version(one)]
        stored = self._making.stored
        if stored is not None:
            untouched = [one for one in ones if _is_untouched(one.item)]
            ones = self._without(ones, untouched, stored.find_keys([one.key for one in untouched]))
        for one in ones:
            if one.version is not None and one.version.version is not None:
                one.origin = origin_of(one.version, self._making.made_with)
        return self._unknown(ones)

    def changed(self, ones: list[_One]) -> list[_One]:
        """Reads files, and returns those whose bytes make another document than is stored."""
        at_once = getattr(self._making.connector, "files_at_once", 1)
        if at_once > 1 and len(ones) > 1:
            with ThreadPoolExecutor(at_once) as threads:
                read = list(threads.map(self._data_of, ones))
        else:
            read = [self._data_of(one) for one in ones]
        kept = []
        for one, data in zip(ones, read, strict=True):
            self._parts += one.item.parts
            if one.item.narrowed:
                self._tally.narrowed.add(one.item.narrowed)
            if not isinstance(data, Exception):
                self._tally.windows |= {(self._page.partition, it) for it in one.item.windows}
            if isinstance(data, UnknownTypeError):
                self._skip(one)
            elif isinstance(data, GoneError):
                self._leave(one, data)
            elif isinstance(data, Exception):
                self._fail("parse" if isinstance(data, ParseError) else "read", data, one)
            else:
                digest = xxh3_128_digest(data)
                one.data, one.item["digest"] = data, digest.hex()
                if one.version is not None and one.origin is None:
                    one.origin = origin_of(one.version, self._making.made_with, digest)
                kept.append(one)
        return self._unknown(kept)

    def parsed(self, ones: list[_One]) -> Iterator[Ready]:
        """Parses files, and yields them whenever there is some text."""
        for one in ones:
            data, one.data = one.data, b""
            try:
                document = one.item.document
                if document is None:
                    document = self._parsing.pool.parse(one.item["path"], data)
            except UnknownTypeError:
                self._skip(one)
                continue
            except ParseError as error:
                self._fail("parse", error, one)
                continue
            one.item.document = document
            self._tally.parsed += 1
            self._tally.documents += 1
            self._text += len(document.text)
            self._pass_on(one)
            if self._text >= _TEXT_TOGETHER:
                yield self._given()

    def _has_version(self, one: _One) -> bool:
        """Asks which version of which document an item is."""
        try:
            one.version = self._making.connector.document_version(one.item)
        except Exception as error:
            self._fail("read", error, one)
            return False
        if isinstance(one.item, FileItem) and one.item.is_skipped:
            self._skip(one)
            return False
        return True

    def _unknown(self, ones: list[_One]) -> list[_One]:
        """Returns those whose origins are not stored."""
        stored = self._making.stored
        told = [one for one in ones if one.origin is not None and not _is_anew(one.item)]
        if stored is None or not told:
            return ones
        return self._without(ones, told, stored.find_origins([one.origin or b"" for one in told]))

    def _without(self, ones: list[_One], asked: list[_One], found: Found) -> list[_One]:
        """Returns those that were not found, and notes the others as stored."""
        stored = set()
        for one, number, readers in zip(asked, found.numbers, found.readers, strict=True):
            if number >= 0:
                stored.add(id(one))
                if one.version is not None and mark_of(one.version.readers) != int(readers):
                    self._tally.note_readers(one.version.readers, one.key)
        self._note_moved(asked, found)
        if stored:
            self._tally.recognised_rows.append(pack(found.numbers[found.numbers >= 0]))
            self._tally.unchanged += len(stored)
            self._tally.documents += len(stored)
            self._tally.read += len(stored)
        return [one for one in ones if id(one) not in stored]

    def _note_moved(self, asked: list[_One], found: Found) -> None:
        """Notes the stored ones that are filed elsewhere by now."""
        told = [
            (one, place, collection)
            for one, number, place in zip(asked, found.numbers, found.places, strict=True)
            if number >= 0
            and one.version is not None
            and (collection := one.version.collection) is not None
        ]
        if not told or self._making.stored is None:
            return
        before = self._making.stored.collections
        for one, place, collection in told:
            if collection_mark(collection) != int(before[place]):
                self._tally.note_collection(collection, one.key)

    def _data_of(self, one: _One) -> bytes | Exception:
        """Returns the bytes of a file, or why it is not parsed."""
        item, parsing = one.item, self._parsing
        connector, path, size = self._making.connector, str(one.item["path"]), one.item["size"]
        most = parsing.limits.max_file_bytes
        read_head = getattr(connector, "read_head", None)
        try:
            own = getattr(connector, "own_document", None)
            if own is not None and (made := own(item, most)) is not None:
                item.document, content = made
                return bytes(content)
            is_small = size is not None and size <= min(_HEAD_BYTES, most)
            if read_head and not is_small and parsing.parsers.find(path) is None:
                head = read_head(item, _HEAD_BYTES)
                known = parsing.parsers.find(path, head) or head.startswith(_ARCHIVES)
                if head and not known:
                    return UnknownTypeError(path)
            if size is not None and size > most:
                raise FileTooLargeError(size, most)
            data: bytes = connector.read_file(item, most)
            return data
        except FileTooLargeError as error:
            most_told = in_words(most)
            return ParseError(f"it has {in_words(error.size)}, and max_file_bytes is {most_told}")
        except UNREADABLE as error:
            return ConnectorError(f"it cannot be read: {reason_of(error)}")
        except ConnectorError as error:
            if error.is_of_one:
                return error
            raise
        except RecordError as error:
            return error
        except ContextFrameError:
            raise
        except ValueError as error:  # a name that no file can have
            return ConnectorError(f"it cannot be read: {reason_of(error)}")
        except Exception as error:
            raise ConnectorError(
                f"{connector.name}: {path}: {reason_of(error)}; the disk or the network is in "
                "trouble, and nothing was committed"
            ) from error

    def _pass_on(self, one: _One) -> None:
        self._ready.append(one)
        self._tally.read += 1

    def _skip(self, one: _One) -> None:
        self._skipped.append(one.item.mark)
        self._tally.skipped += 1
        self._tally.read += 1

    def _leave(self, one: _One, why: GoneError) -> None:
        """Notes that what is stored of an item stays, since the item was not found any more."""
        self._tally.unread.add(str(why))
        self._tally.read += 1
        if one.version is not None:
            self._tally.note_stale(one.version.readers, one.key)

    def _fail(self, stage: str, error: Exception, one: _One) -> None:
        letter = letter_of(stage, error, one.item, self._page, one.place)
        if isinstance(one.item, FileItem):
            # A parser knows the name of a file, and many files may have it.
            name = letter.position.rpartition("/")[2]
            letter.message = f"{letter.position}: {letter.message.removeprefix(f'{name}: ')}"
            letter.partition = letter.position
        self._failures.append(letter)
        self._tally.read += 1
        if isinstance(one.item, FileItem):
            self._failed.append(one.item.mark)
        if one.version is not None:
            self._tally.note_stale(one.version.readers, one.key)


def _is_untouched(item: Any) -> bool:
    return isinstance(item, FileItem) and item.is_stored


def _is_anew(item: Any) -> bool:
    return isinstance(item, FileItem) and item.is_anew


def _portions(ones: Sequence[_One]) -> Iterator[list[_One]]:
    """Yields files that are read before the first of them is parsed."""
    portion: list[_One] = []
    size = 0
    for one in ones:
        more = one.item["size"] or 0
        if portion and (len(portion) >= _FILES_TOGETHER or size + more > _BYTES_TOGETHER):
            yield portion
            portion, size = [], 0
        portion.append(one)
        size += more
    if portion:
        yield portion
