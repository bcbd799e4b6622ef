"""Snapshots at a target: made, listed, and made a data folder again."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Final, NamedTuple

import blake3

from bezant.engine.archive.building import FolderBuilder
from bezant.engine.archive.manifest import (
    SNAPSHOT_FORMAT_VERSION,
    SNAPSHOT_NAME,
    SnapshotManifest,
    StoredFile,
    decode_manifest,
    encode_manifest,
    pack_indexes,
    snapshot_name,
    unpack_indexes,
)
from bezant.engine.archive.source import Source, open_source
from bezant.engine.checkpoints.folder import checkpoint_name
from bezant.engine.log.entry import public_log_id
from bezant.engine.log.log import FREE_SPACE_FLOOR_DEFAULT
from bezant.engine.log.storage import LogFile
from bezant.engine.node_file import NODE_NAME, shard_of_folder
from bezant.engine.replica import shard_directory
from bezant.net.archive.store import CHUNK_SIZE_BYTES, Store
from bezant.protocol.errors import CorruptLog, StorageError, UsageError

SNAPSHOTS_FOLDER: Final = "snapshots"
FILES_FOLDER: Final = "files"
MANIFEST_SUFFIX: Final = ".json"
MANIFEST_SIZE_MAX: Final = 64 << 20
"""Bytes of a manifest that are read, at most: some 200 for each segment."""

OnProgress = Callable[[int, int], None]
"""Told (bytes done, bytes in all)."""


class Listed(NamedTuple):
    """A snapshot at a target; without a manifest, what is wrong with it."""

    name: str
    manifest: SnapshotManifest | None
    problem: str = ""


class Restored(NamedTuple):
    """A snapshot that was restored, and of how many subjects metadata was left out: it has been erased since."""

    name: str
    manifest: SnapshotManifest
    left_out: int


class Created(NamedTuple):
    """A snapshot that was made; bytes that were written for it, the rest was there already."""

    name: str
    manifest: SnapshotManifest
    written_bytes: int


async def create_snapshot(
    data: Path, store: Store, *, with_history: bool = True, on_progress: OnProgress | None = None
) -> Created:
    """Make a snapshot of a data folder, whose node may run or not; nothing is changed there.

    Every file is read back and found to be right before the manifest is written. Raises `StorageError` and its kinds.
    """
    shard = shard_of_folder(data)
    source = open_source(shard_directory(data, shard), shard, with_history=with_history)
    try:
        return await _create(source, data, shard, store, on_progress or _silent)
    finally:
        source.close()


async def _create(source: Source, data: Path, shard: int, store: Store, on_progress: OnProgress) -> Created:
    total_bytes = sum(file.size_bytes for file in (*source.files, *source.history))
    done_bytes = written_bytes = 0
    stored: dict[str, StoredFile] = {}
    for name, file, size_bytes, full_size_bytes in (*source.history, *source.files):
        digest, written = await store_file(store, file, size_bytes)
        stored[name] = StoredFile(name, size_bytes, full_size_bytes, digest)
        done_bytes, written_bytes = done_bytes + size_bytes, written_bytes + written
        on_progress(done_bytes, total_bytes)
    point, checkpoint = source.state.point, source.state.checkpoint
    node_path = data / NODE_NAME
    manifest = SnapshotManifest(
        format=SNAPSHOT_FORMAT_VERSION,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        created_by=f"bezant {version('bezant')}",
        log_id=public_log_id(point.log_id),
        shard=shard,
        index=point.index,
        term=point.term,
        next_sequence=point.next_sequence,
        timestamp_ns=point.timestamp_ns,
        chain_hash=point.chain_hash.hex(),
        state_digest=source.state.state_digest,
        checkpoint="" if checkpoint is None else checkpoint_name(checkpoint.point.index),
        first_segment=source.first_segment,
        files=[stored[file.name] for file in source.files],
        history=[stored[file.name] for file in source.history],
        node_file=node_path.read_text() if node_path.exists() else "",
        metadata=pack_indexes(source.state.metadata),
    )
    encoded = encode_manifest(manifest)
    name = snapshot_name(manifest.index, encoded)
    await store.write(_manifest_path(name), [encoded])
    await read_manifest(store, name)
    await _check_still_there(store, manifest)
    return Created(name, manifest, written_bytes)


async def _check_still_there(store: Store, manifest: SnapshotManifest) -> None:
    """Whoever removed a snapshot meanwhile may have taken a file for one that no other needs."""
    for stored in (*manifest.files, *manifest.history):
        if await store.size(file_path(stored.digest)) != stored.size_bytes:
            raise StorageError(
                f"{store.address}/{file_path(stored.digest)} was removed while a snapshot was made: make it again"
            )


async def store_file(store: Store, file: LogFile, size_bytes: int) -> tuple[str, int]:
    """Keep the first bytes of a file; their BLAKE3, and how many had to be written. What is kept is read back."""
    hasher = blake3.blake3()
    for part in _parts(file, size_bytes):
        hasher.update(part)
    digest = hasher.hexdigest()
    path, written = file_path(digest), 0
    if await store.size(path) != size_bytes:
        await store.write(path, _parts(file, size_bytes))
        written = size_bytes
    await _read_back(store, file, digest)
    return digest, written


async def check_stored(store: Store, file: LogFile, size_bytes: int, digest: str) -> bool:
    """Whether the first bytes of a file have this BLAKE3; if so, raises `CorruptLog` unless they are kept."""
    hasher = blake3.blake3()
    for part in _parts(file, size_bytes):
        hasher.update(part)
    if hasher.hexdigest() != digest:
        return False
    await _read_back(store, file, digest)
    return True


async def _read_back(store: Store, file: LogFile, digest: str) -> None:
    path, hasher = file_path(digest), blake3.blake3()
    async for part in store.read(path):
        hasher.update(part)
    if hasher.hexdigest() != digest:
        raise CorruptLog(
            f"{store.address}/{path}: what was kept of {file.path.name} is not what is read back. Remove that file and "
            "try again, or see to the target"
        )


def _parts(file: LogFile, size_bytes: int) -> Iterator[bytes]:
    for offset in range(0, size_bytes, CHUNK_SIZE_BYTES):
        wanted = min(CHUNK_SIZE_BYTES, size_bytes - offset)
        part = file.read(wanted, offset)
        if len(part) != wanted:
            raise StorageError(f"{file.path}: it has become shorter while it was read")
        yield part


def file_path(digest: str) -> str:
    """Where a file with this content is kept."""
    return f"{FILES_FOLDER}/{digest}"


def _manifest_path(name: str) -> str:
    return f"{SNAPSHOTS_FOLDER}/{name}{MANIFEST_SUFFIX}"


def _silent(_done: int, _total: int) -> None:
    pass


async def read_small(store: Store, path: str, size_bytes_max: int) -> bytes:
    """All of a file that has no more than so many bytes. Raises `CorruptLog` for a larger one."""
    encoded = bytearray()
    async for part in store.read(path):
        encoded += part
        if len(encoded) > size_bytes_max:
            raise CorruptLog(f"{store.address}/{path}: over {size_bytes_max} bytes are no manifest")
    return bytes(encoded)


async def read_manifest(store: Store, name: str) -> SnapshotManifest:
    """What a snapshot says of itself. Raises `CorruptLog`, `UnsupportedFormat`, `StorageError`."""
    return decode_manifest(name, await read_small(store, _manifest_path(name), MANIFEST_SIZE_MAX))


async def list_snapshots(store: Store) -> list[Listed]:
    """All snapshots, the oldest position first; also those whose manifest is damaged."""
    found = []
    for name in await store.names(SNAPSHOTS_FOLDER):
        bare = name.removesuffix(MANIFEST_SUFFIX)
        if not name.endswith(MANIFEST_SUFFIX) or not SNAPSHOT_NAME.fullmatch(bare):
            continue
        try:
            found.append(Listed(bare, await read_manifest(store, bare)))
        except CorruptLog as error:
            found.append(Listed(bare, None, str(error)))
    return found


async def find_snapshot(store: Store, wanted: str = "") -> Listed:
    """The snapshot whose name or digest begins so, or the newest one. Raises `UsageError` unless it is one.

    The newest one is not the newest that happens to be whole: whoever restores an older one says so.
    """
    found = await list_snapshots(store)
    if wanted:
        found = [one for one in found if wanted in (one.name, one.name.partition("-")[2])] or [
            one for one in found if one.name.startswith(wanted) or one.name.partition("-")[2].startswith(wanted)
        ]
        if len(found) > 1:
            raise UsageError(f"several snapshots begin with {wanted!r}: {', '.join(one.name for one in found)}")
    if not found:
        raise UsageError(f"{store.address} has no {f'snapshot {wanted}' if wanted else 'snapshots'}")
    logs = {one.manifest.log_id for one in found if one.manifest is not None}
    if len(logs) > 1:
        raise UsageError(f"{store.address} has snapshots of {len(logs)} logs: name the one that you mean")
    return found[-1]


async def restore_snapshot(
    data: Path,
    store: Store,
    wanted: str = "",
    *,
    as_lost_node: bool = False,
    free_space_floor: int = FREE_SPACE_FLOOR_DEFAULT,
    as_it_was: bool = False,
    on_progress: OnProgress | None = None,
) -> Restored:
    """Make a data folder of a snapshot, with all of its history: there when it is proven, and not before.

    Metadata that the newest snapshot of the same log there does not have any more is left out, unless it is to be
    `as_it_was`.
    Raises `UsageError` for a place where something is, `CorruptLog` for a snapshot that is damaged, `StorageError`.
    """
    chosen = await find_snapshot(store, wanted)
    manifest = chosen.manifest
    if manifest is None:
        raise CorruptLog(chosen.problem)
    kept = None if as_it_was else kept_by_newer(manifest, await list_snapshots(store))
    builder = FolderBuilder(
        data,
        manifest,
        with_history=True,
        as_lost_node=as_lost_node,
        free_space_floor=free_space_floor,
    )
    try:
        await _fetch_files(builder, store, on_progress or _silent)
        left_out = builder.finish(kept)
    except BaseException:
        builder.discard()
        raise
    return Restored(chosen.name, manifest, left_out)


def kept_by_newer(manifest: SnapshotManifest, listed: list[Listed]) -> frozenset[int] | None:
    """Indexes of the entries whose metadata the newest snapshot of the same log has; None if there is none behind this
    one that says so. Raises `CorruptLog`."""
    newer = [
        one.manifest.metadata
        for one in listed
        if one.manifest is not None
        and one.manifest.log_id == manifest.log_id
        and one.manifest.index > manifest.index
        and one.manifest.metadata is not None
    ]
    return unpack_indexes(newer[-1]) if newer else None


async def _fetch_files(builder: FolderBuilder, store: Store, on_progress: OnProgress) -> None:
    total_bytes, done_bytes = sum(stored.size_bytes for stored in builder.files), 0
    for stored in builder.files:
        file = builder.begin_file(stored)
        try:
            async for part in store.read(file_path(stored.digest)):
                file.add(part)
                done_bytes += len(part)
                on_progress(done_bytes, total_bytes)
            file.finish()
        except CorruptLog as error:
            file.discard()
            raise CorruptLog(f"{store.address}/{file_path(stored.digest)}: {error}") from error
        except BaseException:
            file.discard()
            raise
