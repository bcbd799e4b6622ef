"""Sealed segments at a target: kept, listed, and brought back to a folder that lacks them."""

from pathlib import Path
from typing import Final, NamedTuple

import blake3
import msgspec

from bezant.engine.archive.sealed import (
    SealedSegment,
    SegmentReturn,
    check_room,
    check_sealed,
    missing_segments,
    note_history,
    sealed_segments,
)
from bezant.engine.log.entry import public_log_id
from bezant.engine.log.log import FREE_SPACE_FLOOR_DEFAULT
from bezant.engine.log.segment import read_segment_header, segment_name, segment_numbers
from bezant.engine.log.storage import as_directory
from bezant.engine.replica import shard_directory
from bezant.net.archive.snapshots import OnProgress, file_path, read_small, store_file
from bezant.net.archive.store import Store
from bezant.protocol.errors import CorruptLog, StorageError

SEGMENTS_FOLDER: Final = "segments"
RECORD_SUFFIX: Final = ".json"
RECORD_SIZE_MAX: Final = 16 << 20
"""Bytes of a record that are read, at most: 32 for each 64 KiB of a segment."""
RECORD_FORMAT_VERSION: Final = 1
_SHARD: Final = 0


class Record(msgspec.Struct, frozen=True):
    """A segment that is kept: which one, and BLAKE3 (hexadecimal) of its bytes up to the end of its last entry."""

    format: int
    log_id: str
    sealed: SealedSegment
    digest: str


class Pushed(NamedTuple):
    """Segments that were written, and those that were there already."""

    written: int
    there: int
    written_bytes: int


async def push_segments(data: Path, store: Store) -> Pushed:
    """Keep every sealed segment of a folder, whose node may run, each verified before and read back after.

    Raises `CorruptLog` at the first that is damaged here or there, `StorageError`.
    """
    directory = shard_directory(data, _SHARD)
    known: dict[int, list[Record]] | None = None
    written = there = written_bytes = 0
    for sealed, file in sealed_segments(directory, _SHARD):
        log_id = public_log_id(read_segment_header(directory, sealed.number).log_id)
        if known is None:
            known = await read_records(store, log_id)
        if any(record.sealed == sealed for record in known.get(sealed.number, [])):
            there += 1
            continue
        check_sealed(sealed, file)
        digest, new_bytes = await store_file(store, file, sealed.size_bytes)
        encoded = msgspec.json.encode(Record(RECORD_FORMAT_VERSION, log_id, sealed, digest))
        await store.write(f"{_folder(log_id)}/{_record_name(sealed.number, encoded)}", [encoded])
        written, written_bytes = written + 1, written_bytes + new_bytes
    return Pushed(written, there, written_bytes)


def log_of(data: Path) -> str:
    """Which log is in a folder, for anyone to know. Raises `StorageError`."""
    directory = shard_directory(data, _SHARD)
    numbers = segment_numbers(directory)
    if not numbers:
        raise StorageError(f"{directory.path} holds no log")
    return public_log_id(read_segment_header(directory, numbers[-1]).log_id)


def _folder(log_id: str) -> str:
    return f"{SEGMENTS_FOLDER}/{log_id}"


def _record_name(number: int, encoded: bytes) -> str:
    return f"{segment_name(number)}-{blake3.blake3(encoded).hexdigest(16)}{RECORD_SUFFIX}"


async def read_records(store: Store, log_id: str) -> dict[int, list[Record]]:
    """What is kept of a log, by number: members of a group may have cut it differently. Raises `CorruptLog`."""
    found: dict[int, list[Record]] = {}
    for name in await store.names(_folder(log_id)):
        if not name.endswith(RECORD_SUFFIX):
            continue
        path = f"{_folder(log_id)}/{name}"
        encoded = await read_small(store, path, RECORD_SIZE_MAX)
        try:
            record = msgspec.json.decode(encoded, type=Record)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise CorruptLog(f"{store.address}/{path} is damaged: {error}. Remove it and push again") from error
        if _record_name(record.sealed.number, encoded) != name or record.log_id != log_id:
            raise CorruptLog(
                f"{store.address}/{path} is damaged, or not the one it should be. Remove it and push again"
            )
        found.setdefault(record.sealed.number, []).append(record)
    return found


class Fetched(NamedTuple):
    """Numbers of the segments that came back, and of those that are missing still."""

    fetched: list[int]
    missing: list[int]


async def fetch_segments(
    data: Path,
    store: Store,
    *,
    free_space_floor: int = FREE_SPACE_FLOOR_DEFAULT,
    on_progress: OnProgress | None = None,
) -> Fetched:
    """Bring back the segments that a folder lacks, whose node is stopped; each is proven before it has its place.

    Raises `DataFolderInUse`, `CorruptLog` for what is damaged at the target, `StorageError`.
    """
    directory = shard_directory(data, _SHARD)
    lock = as_directory(data).lock()
    try:
        missing = missing_segments(directory)
        if not missing:
            return Fetched([], [])
        header = read_segment_header(directory, missing[0] + 1)
        records = await read_records(store, public_log_id(header.log_id))
        fetched: list[int] = []
        for number in missing:
            if number not in records:
                break  # What is before it cannot be proven to lead here.
            await _fetch(data, store, records[number], free_space_floor)
            fetched.append(number)
            if on_progress is not None:
                on_progress(len(fetched), len(missing))
        note_history(directory, _SHARD)
        return Fetched(fetched, missing_segments(directory))
    finally:
        lock.release()


async def _fetch(data: Path, store: Store, records: list[Record], free_space_floor: int) -> None:
    """Bring back the one of these that fits. Raises what the last of them failed with."""
    directory = shard_directory(data, _SHARD)
    problem: StorageError | None = None
    for record in records:
        try:
            check_room(directory, record.sealed.full_size_bytes, free_space_floor)
            returning = SegmentReturn(directory, _SHARD, record.sealed)
            try:
                async for part in store.read(file_path(record.digest)):
                    returning.add(part)
                returning.finish()
            except BaseException:
                returning.discard()
                raise
        except StorageError as error:
            problem = error
            continue
        return
    if problem is not None:
        raise problem
