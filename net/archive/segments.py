"""Sealed segments at a target: kept, listed, and brought back to a folder that lacks them."""

import asyncio
import time
from pathlib import Path
from typing import Final, NamedTuple

import blake3
import msgspec

from bezant.engine.archive.dropping import (
    KEEP_DEFAULT,
    check_may_drop,
    droppable,
    first_segments_needed,
    lock_archive,
    remove_archived,
    still_here,
)
from bezant.engine.archive.sealed import (
    SealedSegment,
    SegmentReturn,
    check_room,
    check_sealed,
    has_same_bodies,
    missing_segments,
    note_history,
    sealed_segments,
    wanted_metadata,
)
from bezant.engine.log.archive_cache import CACHE_BYTES_DEFAULT, ArchivedSegment, fetch, open_cached, remove_others
from bezant.engine.log.archived import MARK_FORMAT_VERSION, ArchivedMark, read_archived, write_archived
from bezant.engine.log.entry import public_log_id
from bezant.engine.log.log import FREE_SPACE_FLOOR_DEFAULT
from bezant.engine.log.segment import read_segment_header, segment_name, segment_numbers
from bezant.engine.log.storage import Directory, LogFile, as_directory
from bezant.engine.metadata.kept import IsWanted
from bezant.engine.node_file import read_node_file, shard_of_folder
from bezant.engine.replica import shard_directory
from bezant.net.archive.snapshots import OnProgress, check_stored, file_path, read_small, store_file
from bezant.net.archive.store import Store
from bezant.protocol.errors import ArchiveUnavailable, CorruptLog, DataFolderInUse, StorageError, UsageError

SEGMENTS_FOLDER: Final = "segments"
RECORD_SUFFIX: Final = ".json"
RECORD_SIZE_MAX: Final = 16 << 20
"""Bytes of a record that are read, at most: 32 for each 64 KiB of a segment."""
RECORD_FORMAT_VERSION: Final = 1
DROP_WAIT_S: Final = 10.0
"""Seconds to wait for a node that runs to remove what it has been told to."""
_POLL_S: Final = 0.1


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


async def push_segments(data: Path, store: Store, *, replaces: bool = False) -> Pushed:
    """Keep every sealed segment of a folder, whose node may run, each verified before and read back after.

    With `replaces` what is there of a segment goes if it is not what is here to the byte: what was erased here since is
    erased there, too, once `remove_unneeded` has removed the files. Only the folder of a node alone may replace: those
    of the members of a group name what they have dropped.
    Raises `CorruptLog` at the first that is damaged here or there, `UsageError`, `StorageError`.
    """
    if replaces and read_node_file(data) is not None:
        raise UsageError(
            f"{data} is of a member of a group, and others may have dropped segments that are kept there: bring those "
            "back on all of them (bezant archive fetch), push to another target, and remove this one"
        )
    shard = shard_of_folder(data)
    directory = shard_directory(data, shard)
    known: dict[int, list[Record]] | None = None
    written = there = written_bytes = 0
    for sealed, file in sealed_segments(directory, shard):
        log_id = public_log_id(read_segment_header(directory, sealed.number).log_id)
        if known is None:
            known = await read_records(store, log_id)
        records = known.get(sealed.number, [])
        if any(record.sealed == sealed for record in records) and not (
            replaces and await _replace(store, sealed, file, records)
        ):
            there += 1
            continue
        check_sealed(sealed, file)
        _, new_bytes = await _keep(store, sealed, file, log_id)
        written, written_bytes = written + 1, written_bytes + new_bytes
    return Pushed(written, there, written_bytes)


async def _replace(store: Store, sealed: SealedSegment, file: LogFile, records: list[Record]) -> bool:
    """Have the records go of what is not the segment that is here; whether none is left."""
    hasher = blake3.blake3(file.map().data[: sealed.size_bytes])
    others = [record for record in records if record.digest != hasher.hexdigest()]
    for record in others:
        prefix = f"{segment_name(sealed.number)}-"
        for name in await store.names(_folder(record.log_id)):
            path = f"{_folder(record.log_id)}/{name}"
            if name.startswith(prefix) and record.digest.encode() in await read_small(store, path, RECORD_SIZE_MAX):
                await store.remove(path)
    return len(others) == len(records)


async def _keep(store: Store, sealed: SealedSegment, file: LogFile, log_id: str) -> tuple[str, int]:
    """Keep a segment, and say so; its digest, and the bytes that had to be written."""
    digest, new_bytes = await store_file(store, file, sealed.size_bytes)
    encoded = msgspec.json.encode(Record(RECORD_FORMAT_VERSION, log_id, sealed, digest))
    await store.write(f"{_folder(log_id)}/{_record_name(sealed.number, encoded)}", [encoded])
    if await store.size(file_path(digest)) != sealed.size_bytes:
        raise StorageError(f"{store.address}/{file_path(digest)} was removed while it was being kept: push again")
    return digest, new_bytes


def log_of(data: Path) -> str:
    """Which log is in a folder, for anyone to know. Raises `StorageError`."""
    directory = shard_directory(data, shard_of_folder(data))
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


class Dropped(NamedTuple):
    """Numbers of the segments that have left the disk now, their bytes; those that are about to, which takes the node
    that runs on the folder; and those that could go, but the archive does not have them."""

    dropped: list[int]
    dropped_bytes: int
    waiting: list[int]
    not_kept: list[int]


async def drop_segments(
    data: Path,
    store: Store,
    *,
    keep: int = KEEP_DEFAULT,
    cache_bytes_max: int = CACHE_BYTES_DEFAULT,
    wait_s: float = DROP_WAIT_S,
) -> Dropped:
    """Have sealed segments that a target has leave the disk, but for the newest `keep` and what a start needs.

    Each is compared with what the target gives back: to the byte, or entry by entry if another member pushed it. Of a
    folder whose node runs the node removes them.
    Raises `CorruptLog` for what is damaged here or there, `ArchiveUnavailable`, `UsageError` while the history is not
    whole, `StorageError`.
    """
    shard = shard_of_folder(data)
    directory = shard_directory(data, shard)
    check_may_drop(directory)
    lock = lock_archive(directory)
    try:
        mark = read_archived(directory, shard)
        gone = [] if mark is None else mark.segments
        chosen, not_kept = await _choose(directory, shard, store, gone, keep=keep, cache_bytes_max=cache_bytes_max)
        if chosen:
            log_id = read_segment_header(directory, segment_numbers(directory)[-1]).log_id
            write_archived(
                directory,
                ArchivedMark(MARK_FORMAT_VERSION, shard, log_id, [*gone, *chosen], cache_bytes_max),
            )
        await _remove(data, wait_s)
        here = frozenset(segment_numbers(directory))
        went = [segment for segment in chosen if segment.number not in here]
        return Dropped(
            [segment.number for segment in went],
            sum(segment.full_size_bytes for segment in went),
            [segment.number for segment in (*gone, *chosen) if segment.number in here],
            not_kept,
        )
    finally:
        lock.release()


async def _choose(
    directory: Directory, shard: int, store: Store, gone: list[ArchivedSegment], *, keep: int, cache_bytes_max: int
) -> tuple[list[ArchivedSegment], list[int]]:
    """The segments that may go and that the target has, and numbers of those that it has not."""
    starts = first_segments_needed(directory)
    numbers = [sealed.number for sealed, _ in sealed_segments(directory, shard)]
    wanted = droppable(numbers, starts, len(gone), keep)
    log_id = public_log_id(read_segment_header(directory, segment_numbers(directory)[-1]).log_id)
    records = await read_records(store, log_id) if wanted else {}
    chosen: list[ArchivedSegment] = []
    for sealed, file in sealed_segments(directory, shard):
        if sealed.number not in wanted:
            continue
        record = next((record for record in records.get(sealed.number, []) if record.sealed == sealed), None)
        if record is None:
            break  # None behind it may go before it.
        check_sealed(sealed, file)
        segment = _archived(sealed, record.digest, store.address)
        if not await check_stored(store, file, sealed.size_bytes, record.digest) and not await asyncio.to_thread(
            _has_same_entries, directory, file, sealed, segment, cache_bytes_max
        ):
            # Metadata was erased here since: what has been is not to come back from there.
            digest, _ = await _keep(store, sealed, file, log_id)
            segment = _archived(sealed, digest, store.address)
        chosen.append(segment)
    return chosen, wanted[len(chosen) :]


def _has_same_entries(
    directory: Directory, mine: LogFile, sealed: SealedSegment, segment: ArchivedSegment, cache_bytes_max: int
) -> bool:
    """Check that what another member of the group has pushed are the same entries, of which each stamps its own.

    Returns whether they have all that is here, and no more. Raises `CorruptLog`, `ArchiveUnavailable`.
    """
    fetch(directory, segment, cache_bytes_max)
    file = open_cached(directory, segment, checks=True)
    if file is None:
        raise ArchiveUnavailable(f"{segment.place} was fetched, and the cache has no room for it")
    try:
        check_sealed(sealed, file)
        is_same = has_same_bodies(sealed, mine, file)
        if not is_same:
            file.path.unlink(missing_ok=True)  # It has what was erased here.
        return is_same
    finally:
        file.close()


def _archived(sealed: SealedSegment, digest: str, address: str) -> ArchivedSegment:
    return ArchivedSegment(
        number=sealed.number,
        first_index=sealed.first_index,
        last_index=sealed.last_index,
        size_bytes=sealed.size_bytes,
        full_size_bytes=sealed.full_size_bytes,
        digest=digest,
        target=address if "://" in address else str(Path(address).resolve()),
        path=file_path(digest),
    )


async def _remove(data: Path, wait_s: float) -> None:
    """Have the files go that the mark names: here, or by the node that runs, for which this waits a little."""
    shard = shard_of_folder(data)
    directory = shard_directory(data, shard)
    try:
        lock = as_directory(data).lock()
    except DataFolderInUse:
        deadline_s = time.monotonic() + wait_s
        while still_here(directory, shard) and time.monotonic() < deadline_s:
            await asyncio.sleep(_POLL_S)
        return
    try:
        remove_archived(directory, shard)
    finally:
        lock.release()


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
    shard = shard_of_folder(data)
    directory = shard_directory(data, shard)
    lock = as_directory(data).lock()
    try:
        dropping = lock_archive(directory)
    except BaseException:
        lock.release()
        raise
    try:
        missing = missing_segments(directory)
        if not missing:
            return Fetched([], [])
        header = read_segment_header(directory, missing[0] + 1)
        records = await read_records(store, public_log_id(header.log_id))
        fetched: list[int] = []
        is_wanted = wanted_metadata(directory, shard)
        for number in missing:
            if number not in records:
                break  # What is before it cannot be proven to lead here.
            await _fetch(data, store, records[number], free_space_floor, is_wanted)
            note_history(directory, shard)  # Or it would be dropped again by the next start.
            mark = read_archived(directory, shard)
            remove_others(directory, [] if mark is None else mark.segments)
            fetched.append(number)
            if on_progress is not None:
                on_progress(len(fetched), len(missing))
        return Fetched(fetched, missing_segments(directory))
    finally:
        dropping.release()
        lock.release()


async def _fetch(
    data: Path, store: Store, records: list[Record], free_space_floor: int, is_wanted: IsWanted | None
) -> None:
    """Bring back the one of these that fits. Raises what the last of them failed with."""
    shard = shard_of_folder(data)
    directory = shard_directory(data, shard)
    problem: StorageError | None = None
    for record in records:
        try:
            check_room(directory, record.sealed.full_size_bytes, free_space_floor)
            returning = SegmentReturn(directory, shard, record.sealed, is_wanted)
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
