"""The vote file: two slots that say which term a node is in and whom it voted for, lest a crash make it vote twice.

A write goes to the slot that is older, and is synced before it goes to the other: at any moment one slot is whole and
holds what was written last or, while a write is under way, what was written before. After a write that has returned,
both hold it, so that either may rot.

Opening writes what was found to both slots again. Else a crash between the two would leave a state that is acted on in
one slot only; and after a kill, or a failed sync, the page cache may show what the disk has never got.
"""

import struct
from typing import Final, NamedTuple

import xxhash

from bezant.engine.log.storage import Directory, LogFile
from bezant.engine.raft.hard_state import HardState
from bezant.protocol.errors import CorruptLog, LedgerError, UnsupportedFormat
from bezant.protocol.records import VOTE_FORMAT_VERSION, VOTE_MAGIC, VOTE_SLOT_SIZE

VOTE_NAME: Final = "vote"
_SLOT: Final = struct.Struct("<Q8siiqqqi")
_CHECKSUM: Final = struct.Struct("<Q")
_SLOTS: Final = (0, 1)
BLANK: Final = HardState(barred=True)
"""What is written at first: a disk that is blank may be one that was wiped, and have voted before."""
_WHAT_NOW: Final = (
    "whom this node voted for is lost, and voting again could elect two leaders. Remove the node from its group, and "
    "bring it back on a new data folder: bezant init --join"
)


class _Slot(NamedTuple):
    """What a whole slot says."""

    write_count: int
    state: HardState


class VoteFile:
    """The hard state of one shard on one node. Use `open_vote_file`."""

    def __init__(self, file: LogFile, shard: int, newest: int, slot: _Slot) -> None:
        self._file = file
        self._shard = shard
        self._newest = newest
        self._write_count = slot.write_count
        self._state = slot.state
        self._is_broken = False

    def read(self) -> HardState:
        """What was written last; durable."""
        return self._state

    def write(self, state: HardState) -> None:
        """Return when the state is durable, in both slots.

        Raises `LedgerError` for a lower term, for another vote in the same term, and after a write that failed; OSError
        for one that fails: the process must then end, because what is on the disk is not known any more.
        """
        before = self._state
        if state.term < before.term:
            raise LedgerError(f"the term would fall from {before.term} to {state.term}")
        if state.term == before.term and before.voted_for not in {0, state.voted_for}:
            raise LedgerError(
                f"the vote of term {state.term} went to node {before.voted_for} and cannot go to {state.voted_for}"
            )
        if state != before:
            self._write(state)

    def _write(self, state: HardState) -> None:
        if self._is_broken:
            raise LedgerError("a write of the vote file has failed, and the process went on")
        self._is_broken = True
        encoded = _encode(self._shard, self._write_count + 1, state)
        for slot in (1 - self._newest, self._newest):
            self._file.write_durably([encoded], slot * VOTE_SLOT_SIZE)
        self._write_count += 1
        self._state = state
        self._is_broken = False

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def open_vote_file(directory: Directory, *, shard: int, log_is_empty: bool) -> VoteFile:
    """Open the vote file of a shard's folder, and make it if there is neither one nor a log.

    Raises `CorruptLog` if what it said is lost, `UnsupportedFormat`, `StorageError`; and OSError, after which the
    process must end.
    """
    if VOTE_NAME not in directory.names():
        if not log_is_empty:
            raise CorruptLog(f"{directory.path / VOTE_NAME}: the file is not there, and the log is: {_WHAT_NOW}")
        first = _encode(shard, 1, BLANK)
        directory.create_file(VOTE_NAME, len(_SLOTS) * VOTE_SLOT_SIZE, first + first)
    file = directory.open(VOTE_NAME, writable=True)
    try:
        slots = [_read_slot(file, number, shard) for number in _SLOTS]
        found = {number: slot for number, slot in enumerate(slots) if isinstance(slot, _Slot)}
        if not found:
            raise CorruptLog(f"{file.path}: the first slot {slots[0]}, the second {slots[1]}: {_WHAT_NOW}")
        newest = max(found, key=lambda number: found[number].write_count)
        vote = VoteFile(file, shard, newest, found[newest])
        vote._write(found[newest].state)
    except BaseException:
        file.close()
        raise
    return vote


def _read_slot(file: LogFile, number: int, shard: int) -> _Slot | str:
    """What a slot says, or what is wrong with it. Raises `UnsupportedFormat`."""
    encoded = file.read(VOTE_SLOT_SIZE, number * VOTE_SLOT_SIZE)
    if len(encoded) != VOTE_SLOT_SIZE:
        return f"has {len(encoded)} bytes of {VOTE_SLOT_SIZE}"
    checksum, magic, version, slot_shard, write_count, term, voted_for, barred = _SLOT.unpack_from(encoded)
    if magic != VOTE_MAGIC or xxhash.xxh3_64_intdigest(encoded[_CHECKSUM.size :]) != checksum:
        return "does not match its checksum"
    if version > VOTE_FORMAT_VERSION:
        raise UnsupportedFormat(
            f"{file.path} has format {version}; this version of Bezant reads up to {VOTE_FORMAT_VERSION}: start the "
            "newer version that wrote it"
        )
    if slot_shard != shard:
        return f"is of shard {slot_shard}, not {shard}"
    return _Slot(write_count, HardState(term, voted_for, bool(barred)))


def _encode(shard: int, write_count: int, state: HardState) -> bytes:
    """A whole slot."""
    slot = bytearray(VOTE_SLOT_SIZE)
    fields = (VOTE_MAGIC, VOTE_FORMAT_VERSION, shard, write_count, state.term, state.voted_for, int(state.barred))
    _SLOT.pack_into(slot, 0, 0, *fields)
    _CHECKSUM.pack_into(slot, 0, xxhash.xxh3_64_intdigest(memoryview(slot)[_CHECKSUM.size :]))
    return bytes(slot)
