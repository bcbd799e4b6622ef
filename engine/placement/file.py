"""The slot map that a node goes by, kept in its data folder: a start needs nobody else.

    0   8   XXH3-64 of all that follows
    8   8   `BZSLTMAP`
    16      the message SlotMap

Written whole under another name, synced, and renamed.
"""

import struct
from pathlib import Path
from typing import Final

import msgspec
import xxhash

from bezant.engine.log.storage import Directory, as_directory
from bezant.protocol.errors import CorruptLog
from bezant.protocol.placement import SlotMap

MAP_NAME: Final = "slot-map"
_MAGIC: Final = b"BZSLTMAP"
_HEAD: Final = struct.Struct("<Q8s")
_FILE_SIZE_MAX: Final = 1 << 20


def write_map(data: Path | Directory, slot_map: SlotMap) -> None:
    """Keep a map in a data folder, durably, in the place of the one before. Raises `StorageError`."""
    body = msgspec.msgpack.encode(slot_map)
    checksum = xxhash.xxh3_64_intdigest(_MAGIC + body)
    as_directory(data).write_file(MAP_NAME, [_HEAD.pack(checksum, _MAGIC), body])


def read_map(data: Path | Directory) -> SlotMap | None:
    """The map that a data folder has; None if it has none. Raises `CorruptLog`."""
    directory = as_directory(data)
    if MAP_NAME not in directory.names():
        return None
    file = directory.open(MAP_NAME, writable=False)
    try:
        encoded = file.read(_FILE_SIZE_MAX, 0)
    finally:
        file.close()
    advice = "Remove it: the node asks for the map again where maps are kept"
    if len(encoded) <= _HEAD.size:
        raise CorruptLog(f"{file.path}: {len(encoded)} bytes are less than a slot map has. {advice}")
    checksum, magic = _HEAD.unpack_from(encoded)
    if magic != _MAGIC or xxhash.xxh3_64_intdigest(encoded[8:]) != checksum:
        raise CorruptLog(f"{file.path}, offset 0: the slot map is damaged. {advice}")
    try:
        return msgspec.msgpack.decode(encoded[_HEAD.size :], type=SlotMap)
    except msgspec.DecodeError as error:
        raise CorruptLog(f"{file.path}: the slot map makes no sense: {error}. {advice}") from error
