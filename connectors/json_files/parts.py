"""How files are cut into parts for several workers: blocks of lines, and groups of documents."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from contextframe_beam.connectors._jsonl import BLOCK_BYTES, Lines, parse_lines
from contextframe_beam.connectors.json_files.absence import printable
from contextframe_beam.connectors.json_files.content import (
    HEAD_BYTES,
    holds_lines,
    is_compressed,
    names_lines,
    require_readable,
)
from contextframe_beam.connectors.json_files.line_ids import holds_numbers
from contextframe_beam.connectors.json_files.listing import FileInfo, Files
from contextframe_beam.connectors.page import Partition
from contextframe_beam.errors import ConnectorError

FILES_IN_A_GROUP = 200
# A small source is cut smaller than is best for reading, because an enricher may take a second for
# each document, and then several workers want something to do.
LEAST_BLOCKS = 16
SMALLEST_BLOCK_BYTES = 64 << 10
# What a run that commits as it goes commits at once of one file, at least.
PART_BYTES = 8 << 20
GROUP_BYTES = 32 << 20
# How a file is read: as a whole, from its beginning, or in blocks in any order.
_WHOLE, _STREAM, _LINES, _NUMBERED_LINES = "whole", "stream", "lines", "numbered lines"


def partitions_of(
    files: Files, infos: Sequence[FileInfo], id_field: str, max_line_bytes: int
) -> Iterator[tuple[Partition, int]]:
    """Yields partitions and how many blocks each has: parts of a file of lines, or a group.

    Args:
        files: Access to the files.
        infos: Those to read.
        id_field: The field that identifies a line.
        max_line_bytes: The length of the longest line that is read.
    """

    def is_numbered(head: bytes) -> bool:
        lines = Lines(head[: head.rfind(b"\n") + 1], 0)
        return holds_numbers(parse_lines(lines, "", "", None, max_line_bytes)[0], id_field)

    lines = sum(info.size for info in infos if _may_be_lines(info))
    block_bytes = min(BLOCK_BYTES, max(-(-lines // LEAST_BLOCKS), SMALLEST_BLOCK_BYTES))
    shapes = list(_shapes(files, infos, block_bytes, is_numbered))
    count = sum(shape == _WHOLE for _, shape in shapes)
    group_files = min(FILES_IN_A_GROUP, -(-count // LEAST_BLOCKS))
    group: list[FileInfo] = []
    size = 0
    for info, shape in shapes:
        if shape in (_LINES, _NUMBERED_LINES):
            yield from _parts_of(info, block_bytes, shape == _NUMBERED_LINES)
            continue
        if shape != _WHOLE:
            packed = _packed(info)
            params = {"file": packed, "stream": True}
            yield Partition(printable(info.path), params, content=packed), 1
            continue
        if group and (len(group) == group_files or size + info.size > GROUP_BYTES):
            yield _grouped(group), 1
            group, size = [], 0
        group.append(info)
        size += info.size
    if group:
        yield _grouped(group), 1


def name_of(path: str) -> str:
    """Returns the name of a file for people."""
    return printable(path.rpartition("/")[2])


def _shapes(
    files: Files,
    infos: Sequence[FileInfo],
    block_bytes: int,
    is_numbered: Callable[[bytes], bool],
) -> Iterator[tuple[FileInfo, str]]:
    """Yields each file with how it is read: as a whole, from its beginning, or in blocks."""
    # A file of one block is recognised when it is read. To look into each of them before would
    # cost a request for each object of a store.
    asked = [info for info in infos if info.size > block_bytes and _may_be_lines(info)]
    heads = zip(asked, files.heads(asked, HEAD_BYTES), strict=True)
    looked_at, head = next(heads, (None, None))
    for info in infos:
        shape = _STREAM if names_lines(name_of(info.path)) else _WHOLE
        if info is looked_at:
            shape = shape if head is None else _shape_of(head, shape)
            if shape == _LINES and is_numbered(head or b""):
                shape = _NUMBERED_LINES
            looked_at, head = next(heads, (None, None))
        yield info, shape


def _may_be_lines(info: FileInfo) -> bool:
    return info.size > BLOCK_BYTES or names_lines(name_of(info.path))


def _shape_of(head: bytes, otherwise: str) -> str:
    """Returns how a file is read that begins so."""
    try:
        require_readable(head)
    except ConnectorError:
        return _STREAM  # which says what it is, whatever its size
    is_lines = otherwise == _STREAM or holds_lines(head)
    if is_compressed(head):
        return _STREAM if is_lines else _WHOLE
    return _LINES if is_lines else _WHOLE


def _packed(info: FileInfo) -> list[Any]:
    return [info.path, info.size, info.modified_at]


def _parts_of(info: FileInfo, block_bytes: int, numbered: bool) -> Iterator[tuple[Partition, int]]:
    """Yields the parts of a file of lines, and how many blocks each has.

    Where a part begins and ends depends on the file alone, so that a run which is continued finds
    the parts again that are done, whatever other files came meanwhile.
    """
    name, packed = printable(info.path), _packed(info)
    for start in range(0, info.size, PART_BYTES):
        stop = min(start + PART_BYTES, info.size)
        blocks = -(-(stop - start) // block_bytes)
        params = {
            "file": packed,
            "version": info.version,
            "numbered": numbered,
            "start": start,
            "stop": stop,
            # All of one size: with a short one at the end of each part, and blocks given out in
            # turn, one of two workers would get all that are long.
            "block_bytes": -(-(stop - start) // blocks),
        }
        is_whole = info.size <= PART_BYTES
        part = name if is_whole else f"{name}, bytes {start} to {stop}"
        yield Partition(part, params, content=packed), blocks


def _grouped(infos: list[FileInfo]) -> Partition:
    name = printable(infos[0].path)
    if len(infos) > 1:
        name = f"{name} and {len(infos) - 1} more"
    packed = [_packed(info) for info in infos]
    return Partition(name, {"files": packed}, content=packed)
