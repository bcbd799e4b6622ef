"""The index of a run of events: in memory, or in a file that is mapped. Node-local, and no part of the protocol.

A file is a page of 4096 bytes (magic, whose it is, counts, checksum) and then the arrays, one after the other, each
from a multiple of 8 bytes on. It is written once, durably, under a number that is never used again; RocksDB says which
files count, and what each must be like. A file is hashed whole when it is opened; what a search finds is held against
the event itself, too, so damage that comes later gives an error and never a wrong answer.
"""

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

import msgspec
import numpy as np
import xxhash

from bezant.engine.log.storage import Directory
from bezant.engine.projections.layout import (
    CHANGE_WORDS,
    SUMMARY_WORDS,
    TOTAL_WORDS,
    Checksums,
    Halves,
)
from bezant.protocol.errors import CorruptLog
from bezant.protocol.records import Bytes, Words

SPAN_MAGIC: Final = b"BZINDEX1"
PAGE_SIZE: Final = 4096
_PAGE: Final = struct.Struct("<8s16sqqqq8qQ")
_PIECE_SIZE: Final = 4 << 20
"""Bytes that are hashed or written at a time."""


class Lists(NamedTuple):
    """The arrays of a span; ``lists.py`` and ``layout.py`` say what is in them.

    `checksums` has one for each event; `times` the time of every so-many-th event, from the first on; `summaries` a row
    for each block; `totals` rows at the end of each block; `changes` of holds in the order of events.
    """

    keys: Words
    starts: Words
    before: Words
    postings: Halves
    checksums: Checksums
    times: Words
    summaries: Words
    totals: Words
    changes: Words

    @property
    def size_bytes(self) -> int:
        """Memory or disk that they take."""
        return sum(_padded(array.nbytes) for array in self)


class Span(NamedTuple):
    """The index of the events from one sequence on. `number` is that of its file; 0 in memory."""

    number: int
    first_sequence: int
    event_count: int
    timestamp_ns: int
    """Of its last event."""
    lists: Lists

    @property
    def last_sequence(self) -> int:
        """Sequence of its last event."""
        return self.first_sequence + self.event_count - 1


class SpanInfo(msgspec.Struct, frozen=True):
    """What RocksDB remembers of a file. `lengths` are the lengths (first dimension) of its arrays, in order."""

    number: int
    first_sequence: int
    event_count: int
    timestamp_ns: int
    lengths: tuple[int, ...]
    checksum: int
    """XXH3 of all behind the page, unsigned 64 bits."""

    @property
    def last_sequence(self) -> int:
        """Sequence of its last event."""
        return self.first_sequence + self.event_count - 1


def span_name(number: int) -> str:
    """File name of an index."""
    return f"index-{number:010d}"


_TYPES: Final[tuple[tuple[type[np.generic], int], ...]] = (
    (np.int64, 1),
    (np.int64, 1),
    (np.int64, 1),
    (np.int32, 1),
    (np.uint32, 1),
    (np.int64, 1),
    (np.int64, SUMMARY_WORDS),
    (np.int64, TOTAL_WORDS),
    (np.int64, CHANGE_WORDS),
)


def _padded(size: int) -> int:
    return -(-size // 8) * 8


def _page(identity: str, info: SpanInfo) -> bytes:
    # The length of `starts` is that of `keys` and one more, so eight numbers say all.
    lengths = info.lengths[:1] + info.lengths[2:]
    head = _PAGE.pack(
        SPAN_MAGIC,
        identity.encode(),
        info.number,
        info.first_sequence,
        info.event_count,
        info.timestamp_ns,
        *lengths,
        info.checksum,
    )
    return head.ljust(PAGE_SIZE, b"\0")


def write_span(directory: Directory, identity: str, number: int, span: Span) -> SpanInfo:
    """Write a span as a file, durably. `identity` is the public id of the log. Raises `StorageError`."""
    hasher = xxhash.xxh3_64()
    for piece in _pieces(span.lists):
        hasher.update(piece)
    lengths = tuple(len(array) for array in span.lists)
    info = SpanInfo(number, span.first_sequence, span.event_count, span.timestamp_ns, lengths, hasher.intdigest())

    def chunks() -> Iterator[memoryview]:
        yield memoryview(_page(identity, info))
        yield from _pieces(span.lists)

    directory.write_file(span_name(number), chunks())
    return info


def _pieces(lists: Lists) -> Iterator[memoryview]:
    for array in lists:
        data = array.reshape(-1).view(np.uint8)
        for start in range(0, len(data), _PIECE_SIZE):
            yield data[start : start + _PIECE_SIZE].data
        padding = _padded(array.nbytes) - array.nbytes
        if padding:
            yield memoryview(bytes(padding))


def open_span(directory: Directory, identity: str, info: SpanInfo) -> Span:
    """Map a file, and check every byte of it. Raises `CorruptLog`, which says what is wrong."""
    path = directory.path / span_name(info.number)
    try:
        file = directory.open(span_name(info.number), writable=False)
    except FileNotFoundError as error:
        raise CorruptLog(f"{path}: is not there") from error
    try:
        size, expected = file.size(), PAGE_SIZE + sum(_sizes(info))
        if size != expected:
            raise CorruptLog(f"{path}: {size} bytes where {expected} were expected")
        data = file.map()
    finally:
        file.close()
    if data[:PAGE_SIZE].tobytes() != _page(identity, info):
        raise CorruptLog(f"{path}, offset 0: the page that describes the file is not the one that was written")
    hasher = xxhash.xxh3_64()
    for start in range(PAGE_SIZE, size, _PIECE_SIZE):
        hasher.update(data[start : start + _PIECE_SIZE].data)
    if hasher.intdigest() != info.checksum:
        raise CorruptLog(f"{path}: what is in the file is damaged")
    return Span(info.number, info.first_sequence, info.event_count, info.timestamp_ns, _views(data, info))


def _sizes(info: SpanInfo) -> list[int]:
    sizes = []
    for (kind, width), length in zip(_TYPES, info.lengths, strict=True):
        sizes.append(_padded(np.dtype(kind).itemsize * width * length))
    return sizes


def _views(data: Bytes, info: SpanInfo) -> Lists:
    arrays: list[np.ndarray[tuple[int, ...], np.dtype[np.generic]]] = []
    offset = PAGE_SIZE
    for (kind, width), length, size in zip(_TYPES, info.lengths, _sizes(info), strict=True):
        used = np.dtype(kind).itemsize * width * length
        array = data[offset : offset + used].view(kind)
        arrays.append(array if width == 1 else array.reshape(length, width))
        offset += size
    return Lists(*arrays)  # type: ignore[arg-type]  # the types are those of the table above
