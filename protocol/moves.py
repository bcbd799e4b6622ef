"""Slots on their way from one shard to another: what nodes say of them, and what logs keep; see SHARDS.md."""

import struct
from typing import Final, Literal

import msgspec
import numpy as np
import numpy.typing as npt
from typing_extensions import Buffer

from bezant.protocol.errors import RemoteProtocolError
from bezant.protocol.placement import SHARD_MAX, SLOT_COUNT
from bezant.protocol.records import EVENT, Records

MOVE_ID_SIZE: Final = 16
SLOT_BITS_SIZE: Final = SLOT_COUNT // 8
"""Bytes of a set of slots: a bit a slot, the lowest bit of the first byte for slot 0."""

PART_RECORDS_MAX: Final = 4096
"""EVENT records that one TAKE_SLOTS brings: 768 KiB."""
_HEAD: Final = struct.Struct("<I")

MovePhase = Literal["begun", "sealed", "ended", "called_off", "taken"]
PartOfMove = Literal["prepare", "copies", "accounts", "holds", "taken"]


class MoveStep(msgspec.Struct, frozen=True):
    """A step of a move in the log of one of its two shards; ``peer`` is the other one.

    ``move`` is the random id of the move, ``slots`` a set of slots. In the source: ``begun``, ``sealed`` (from here on
    the slots are the other shard's), ``ended``, or ``called_off``. In the target: ``taken`` (from here on they are its
    own).
    """

    move: bytes
    phase: MovePhase
    peer: int
    slots: bytes

    def __post_init__(self) -> None:
        """Raises ValueError, in words, for a step that cannot be."""
        _check(self.move, self.peer, self.slots)


class StrictMoveStep(MoveStep, frozen=True, forbid_unknown_fields=True):
    """A step of which every field is known here."""


class MoveSlots(msgspec.Struct, frozen=True):
    """Asks the leader of the shard that has these slots to move them to another one; answered when that has begun.

    ``move`` is an id that the asker has made up. Asked again with the same one, nothing more happens.
    """

    move: bytes
    slots: bytes
    to: int

    def __post_init__(self) -> None:
        """Raises ValueError, in words, for what cannot be."""
        _check(self.move, self.to, self.slots)


class MoveCurrency(msgspec.Struct, frozen=True):
    """A currency of accounts that move, and the sum of their balances."""

    code: str
    decimals: int
    total: int


class TakeSlots(msgspec.Struct, frozen=True):
    """A part of what a move brings to its target, from the leader of the source; each may be sent again.

    ``prepare``: can it come at all? ``copies``: of events whose ids the slots have used; ``accounts``, ``holds``:
    the state, when the source is sealed; ``taken``: that was all.
    """

    move: bytes
    source: int
    slots: bytes
    part: PartOfMove
    accounts: int = 0
    holds: int = 0
    currencies: list[MoveCurrency] = []

    def __post_init__(self) -> None:
        """Raises ValueError, in words, for what cannot be."""
        _check(self.move, self.source, self.slots)


class SlotsTaken(msgspec.Struct, frozen=True):
    """The answer to TAKE_SLOTS, when it is committed. ``is_taken``: the slots of this move are the target's."""

    is_taken: bool


class MoveStatus(msgspec.Struct, frozen=True):
    """A move as its source tells of it.

    ``move``: in hexadecimal; ``phase``: ``copying``, ``draining``, ``sealed``, ``ended`` or ``called_off``;
    ``copied``: events whose ids have been copied; ``log_percent``: of the source's log that has been read for that;
    ``gap_ms``: how long nobody has served the slots; ``problem``: what it waits for, or why it was called off.
    """

    move: str
    to: int
    slots: int
    phase: str
    copied: int = 0
    log_percent: float = 0.0
    gap_ms: float = 0.0
    problem: str = ""


class Moves(msgspec.Struct, frozen=True):
    """The answer to MOVES: the move out of this shard, if one is under way, and those that ended lately, last first."""

    moves: list[MoveStatus]


def encode_part(part: TakeSlots, records: Records) -> bytes:
    """The body of TAKE_SLOTS: the size of the message (uint32), the message, EVENT records complete but for what the
    target's ledger makes of them."""
    head = msgspec.msgpack.encode(part)
    return _HEAD.pack(len(head)) + head + records.tobytes()


def decode_part(body: Buffer) -> tuple[TakeSlots, Records]:
    """The inverse of `encode_part`. Raises `RemoteProtocolError`."""
    view = memoryview(body).cast("B")
    if len(view) < _HEAD.size:
        raise RemoteProtocolError("TAKE_SLOTS without a message")
    end = _HEAD.size + _HEAD.unpack_from(view)[0]
    if end > len(view) or (len(view) - end) % EVENT.itemsize or len(view) - end > PART_RECORDS_MAX * EVENT.itemsize:
        raise RemoteProtocolError(f"TAKE_SLOTS with {len(view) - end} bytes of records")
    try:
        part = msgspec.msgpack.decode(view[_HEAD.size : end], type=TakeSlots)
    except msgspec.DecodeError as error:
        raise RemoteProtocolError(f"TAKE_SLOTS cannot be read: {error}") from error
    return part, np.frombuffer(view[end:], EVENT).copy()


def encode_slots(slots: npt.NDArray[np.bool_]) -> bytes:
    """A set of slots (shape (SLOT_COUNT,)) as it travels."""
    return np.packbits(slots, bitorder="little").tobytes()


def decode_slots(encoded: bytes) -> npt.NDArray[np.bool_]:
    """Which slots are in a set (shape (SLOT_COUNT,))."""
    return np.unpackbits(np.frombuffer(encoded, np.uint8), bitorder="little").astype(np.bool_)


def _check(move: bytes, shard: int, slots: bytes) -> None:
    if len(move) != MOVE_ID_SIZE:
        raise ValueError(f"the id of a move has {MOVE_ID_SIZE} bytes, not {len(move)}")
    if not 0 <= shard <= SHARD_MAX:
        raise ValueError(f"the number of a shard is 0 to {SHARD_MAX}, not {shard}")
    if len(slots) != SLOT_BITS_SIZE or not any(slots):
        raise ValueError(f"a set of slots has {SLOT_BITS_SIZE} bytes, and one slot at least")
