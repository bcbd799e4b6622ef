"""Snapshots are removed from a target, and with them every file there that nothing needs any more.

That is how what has been erased leaves the copies, too: a snapshot tells which metadata it has, and the newest one of
the same log which of that is there still. Nobody may make a snapshot at the target meanwhile: it may fail, and say so.
"""

from collections.abc import Collection
from typing import NamedTuple

from bezant.engine.archive.manifest import unpack_indexes
from bezant.net.archive.segments import SEGMENTS_FOLDER, read_records
from bezant.net.archive.snapshots import (
    FILES_FOLDER,
    MANIFEST_SUFFIX,
    SNAPSHOTS_FOLDER,
    Listed,
    kept_by_newer,
    list_snapshots,
)
from bezant.net.archive.store import Store
from bezant.protocol.errors import UsageError


class Removed(NamedTuple):
    """Snapshots that were removed, and files, with their bytes."""

    names: list[str]
    files: int
    files_bytes: int


def erased_since(listed: list[Listed]) -> dict[str, int | None]:
    """Of each snapshot, of how many subjects it has metadata that has been erased or replaced since, as far as the
    newest one of its log knows; None if that cannot be told."""
    found: dict[str, int | None] = {}
    for one in listed:
        if one.manifest is None:
            found[one.name] = None
            continue
        kept, own = kept_by_newer(one.manifest, listed), one.manifest.metadata
        found[one.name] = 0 if kept is None else None if own is None else len(unpack_indexes(own) - kept)
    return found


async def remove_snapshots(store: Store, names: Collection[str]) -> Removed:
    """Remove snapshots, by their whole names, and all files that no other one and no archived segment needs.

    Raises `UsageError` for one that is not there, or while another one is damaged, so that nobody can tell what it
    needs; `CorruptLog` for a damaged record of a segment, `StorageError`.
    """
    there = {one.name for one in await list_snapshots(store)}
    for name in names:
        if name not in there:
            raise UsageError(f"{store.address} has no snapshot {name}")
    await _needed(store, names)  # What cannot be read is to be known before anything goes.
    for name in names:
        await store.remove(f"{SNAPSHOTS_FOLDER}/{name}{MANIFEST_SUFFIX}")
    return Removed(sorted(names), *await remove_unneeded(store))


async def remove_unneeded(store: Store) -> tuple[int, int]:
    """Remove the files that no snapshot and no archived segment needs: how many, and their bytes.

    Raises `CorruptLog`, `StorageError`, and `UsageError` while a manifest is damaged.
    """
    needed = await _needed(store)
    files = files_bytes = 0
    for digest in await store.names(FILES_FOLDER):
        if digest not in needed:
            path = f"{FILES_FOLDER}/{digest}"
            files, files_bytes = files + 1, files_bytes + (await store.size(path) or 0)
            await store.remove(path)
    return files, files_bytes


async def _needed(store: Store, but: Collection[str] = ()) -> frozenset[str]:
    """Digests of the files that snapshots, but for some, and archived segments are made of."""
    found: set[str] = set()
    for one in await list_snapshots(store):
        if one.name in but:
            continue
        if one.manifest is None:
            raise UsageError(f"{one.problem}. Nobody can tell which files it needs: delete it as well")
        found.update(stored.digest for stored in (*one.manifest.files, *one.manifest.history))
    for log_id in await store.folders(SEGMENTS_FOLDER):
        records = await read_records(store, log_id)
        found.update(record.digest for of_segment in records.values() for record in of_segment)
    return frozenset(found)
