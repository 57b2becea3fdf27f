"""Documents that are stored already, in the version that the source has, are recognised by origin.

An origin is 16 bytes: which document, which version of its content, and what it was made with. A
run looks origins up before it parses, maps or embeds, and leaves out what it finds.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, NamedTuple
from uuid import UUID

import lance
import numpy as np
from xxhash import xxh3_128_digest

from contextframe_beam.connectors.base import BaseConnector
from contextframe_beam.connectors.identity import (
    OURS,
    class_path,
    constructor_arguments,
    essential,
    jsonable,
    named_arguments,
    source_file,
)
from contextframe_beam.connectors.page import DocumentVersion
from contextframe_beam.errors import DatasetError
from contextframe_beam.frames.fingerprint import code_version
from contextframe_beam.frames.record import uuid_of
from contextframe_beam.frames.schema import frame_schema
from contextframe_beam.store.address import Address
from contextframe_beam.store.files import open_dataset, reading
from contextframe_beam.store.filters import sql_literal
from contextframe_beam.store.keys import Numbers, NumberSet, numbers_of
from contextframe_beam.store.rows import (
    Addresses,
    Places,
    RowNumbers,
    no_addresses,
    scan_rows,
)
from contextframe_beam.transforms.readers import collection_marks, marks_of

# What tells the digest of bytes from what a source calls a version.
_OF_BYTES, _OF_SOURCE = b"b", b"v"
_CONNECTORS = "contextframe_beam.connectors."


def origin_of(version: DocumentVersion, made_with: bytes, content: bytes | None = None) -> bytes:
    """Returns the origin of a document.

    Args:
        version: Which document, and which version of it.
        made_with: What `made_with` returned.
        content: The digest of its bytes, if the source does not give a version.
    """
    if version.version is None:
        told = _OF_BYTES + (content or b"")
    elif isinstance(version.version, bytes):
        told = _OF_SOURCE + version.version
    else:
        told = _OF_SOURCE + version.version.encode("utf-8", "surrogatepass")
    moved = b"" if version.place is None else b"\0" + version.place.mark
    return xxh3_128_digest(UUID(uuid_of(version.unique_id)).bytes + made_with + told + moved)


def made_with(connector: BaseConnector, parts: Iterable[Any], *identities: bytes) -> bytes:
    """Returns 16 bytes that change when a document may become another one from the same content.

    Args:
        connector: What maps its items.
        parts: What records pass through, such as enrichers.
        *identities: Of what else makes a document: parsers, a chunker.

    Raises:
        ConfigError: a part says wrongly what it is.
    """
    arguments = named_arguments(type(connector), *connector._arguments)
    # A connector of ours may say which of its arguments change what an item becomes.
    chosen = getattr(connector, "_maps_by", None)
    if chosen is None:
        arguments = essential(arguments, constructor_arguments(type(connector)))
    else:
        arguments = {name: arguments[name] for name in chosen if name in arguments}
    told = [
        _code_of(type(connector)),
        jsonable(arguments),
        [_part(one) for one in parts],
        [one.hex() for one in identities],
        frame_schema(1).names,
    ]
    return xxh3_128_digest(json.dumps(told, sort_keys=True).encode())


def mapped_with(connector: BaseConnector, parts: Iterable[Any]) -> bytes:
    """Returns 16 bytes that change when a user changes how items become documents.

    Our own code does not count, so that a new release is no change.

    Args:
        connector: What maps its items: the code of its class, and the mappers among its arguments.
        parts: What records pass through, such as enrichers.

    Raises:
        ConfigError: a part says wrongly what it is.
    """
    arguments = named_arguments(type(connector), *connector._arguments)
    chosen = getattr(connector, "_maps_by", ())
    mappers = {
        name: value
        for name, value in arguments.items()
        if name in chosen or callable(getattr(value, "map", None))
    }
    code = _code_of(type(connector)) if not _is_ours(type(connector)) else []
    told = [code, jsonable(mappers), [_part(one) for one in parts]]
    return xxh3_128_digest(json.dumps(told, sort_keys=True).encode())


def _is_ours(cls: type) -> bool:
    return cls.__module__.startswith(_CONNECTORS)


def _part(one: Any) -> Any:
    identity = getattr(one, "identity", None)
    if isinstance(identity, bytes):
        return identity.hex()
    return [_code_of(type(one)), jsonable(getattr(one, "__dict__", {}))]


def _code_of(cls: type) -> list[str]:
    """Returns what changes when the code of a class or of its bases changes."""
    told = []
    for one in cls.__mro__:
        if one.__module__ in OURS or one.__module__ in sys.stdlib_module_names:
            continue
        file = source_file(one)
        told += [class_path(one), code_version(one, None if file is None else file[1])]
    return told


class Found(NamedTuple):
    """Rows that were looked up.

    Attributes:
        numbers: The number of each row, or -1.
        readers: Who may read each, as `marks_of` tells it.
        places: The place of each among all documents of the source, or -1.
    """

    numbers: Places
    readers: Any
    places: Places


class StoredOrigins:
    """The documents of one source in one version of a dataset, by origin and by key.

    Args:
        dataset: The version.
        source: The source's id.
    """

    def __init__(self, dataset: lance.LanceDataset, source: str) -> None:
        self._dataset = dataset
        self._whole = ""
        origins: list[Numbers] = []
        keys: list[Numbers] = []
        readers: list[Any] = []
        addresses: list[Addresses] = [no_addresses()]
        if {"x_origin", "x_parent"} <= set(dataset.schema.names):
            ours = f"x_source = {sql_literal(source)}"
            self._whole = whole = f"{ours} AND x_parent IS NULL AND x_origin IS NOT NULL"
            known = ["x_readers"] if "x_readers" in dataset.schema.names else []
            for batch, at in scan_rows(dataset, ["x_origin", "uuid", *known], filter=whole):
                origins.append(Numbers.of_digests(batch.column("x_origin")))
                keys.append(numbers_of(batch.column("uuid"))[0])
                readers.append(
                    marks_of(batch.column("x_readers")) if known else np.zeros(len(at), np.uint64)
                )
                addresses.append(at)
        self._addresses = np.concatenate(addresses)
        self._numbers = RowNumbers(dataset).of(self._addresses)
        self._readers = np.concatenate([*readers, np.zeros(0, np.uint64)])
        self._origins = NumberSet(Numbers.concat(origins))
        self._keys = NumberSet(Numbers.concat(keys))

    def find_origins(self, origins: Sequence[bytes]) -> Found:
        """Finds the row with each origin."""
        return self._found(self._origins, origins)

    def find_keys(self, keys: Sequence[bytes]) -> Found:
        """Finds the row with each key (16 bytes)."""
        return self._found(self._keys, keys)

    def _found(self, known: NumberSet, asked: Sequence[bytes]) -> Found:
        places = known.find(Numbers.of_bytes(b"".join(asked)))
        if not len(known):
            return Found(places, np.zeros(len(places), np.uint64), places)
        numbers = np.where(places >= 0, self._numbers[places], -1)
        return Found(numbers, self._readers[places], places)

    @cached_property
    def collections(self) -> Any:
        """What the documents are filed in, as `collection_marks` tells it.

        Few sources tell that a document was filed elsewhere, so it is read when one does.
        """
        marks = np.zeros(len(self._addresses), np.uint64)
        order = np.argsort(self._addresses)
        for batch, at in scan_rows(self._dataset, ["collection"], filter=self._whole):
            places = order[np.searchsorted(self._addresses, at, sorter=order)]
            marks[places] = collection_marks(batch.column("collection"))
        return marks


@dataclass(frozen=True)
class StoredIn:
    """A version of a dataset in which documents are looked up.

    Attributes:
        address: The dataset.
        version: The version, which the run begins with.
        run_id: The run: another one may find another dataset of that version.
    """

    address: Address
    version: int
    run_id: str

    def of(self, source: str) -> StoredOrigins:
        """Returns the documents of a source; they are loaded once a process.

        Raises:
            DatasetError: the dataset is not there any more, or cannot be read.
        """
        options = tuple(sorted((self.address.storage_options or {}).items()))
        return _stored(self.address.uri, options, self.version, self.run_id, source)


@lru_cache(maxsize=4)
def _stored(
    uri: str, options: tuple[tuple[str, str], ...], version: int, run_id: str, source: str
) -> StoredOrigins:
    dataset = open_dataset(Address(uri, dict(options)), version)
    if dataset is None:
        raise DatasetError(f"there is no longer a dataset at {uri}")
    with reading(uri):
        return StoredOrigins(dataset, source)
