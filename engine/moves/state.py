"""What a ledger knows of moves of slots: replicated, by control entries, and a part of its checkpoints."""

from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from bezant.protocol.errors import UsageError
from bezant.protocol.moves import MoveStep, decode_slots
from bezant.protocol.placement import SLOT_COUNT

MOVES_REMEMBERED_MAX: Final = 1024
"""Moves that have ended, or been taken, and are known still, so that what comes again changes nothing: 32 KiB."""
_UNDECIDED: Final = -1


class MovesRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """All of it, for a checkpoint: ``owners`` int16 for each slot, or empty if no slot has ever moved here."""

    owners: bytes = b""
    outgoing: MoveStep | None = None
    sealed_index: int = 0
    taken: list[bytes] = []
    ended: list[bytes] = []
    called_off: list[bytes] = []


class SlotMoves:
    """See the module.

    ``owners``: the shard of each slot (int16) as this log has decided it, -1 where it has not: then the slot map does.
    ``outgoing``: the move out of this shard that is under way, ``begun`` or ``sealed``, by the entry ``sealed_index``.
    ``version`` rises with every change, and is no part of the state.
    """

    def __init__(self, shard: int) -> None:
        self.shard = shard
        self.version = 0
        self.owners: npt.NDArray[np.int16] = np.full(SLOT_COUNT, _UNDECIDED, np.int16)
        self.outgoing: MoveStep | None = None
        self.sealed_index = 0
        self.taken: list[bytes] = []
        self.ended: list[bytes] = []
        self.called_off: list[bytes] = []

    @property
    def outgoing_slots(self) -> npt.NDArray[np.bool_]:
        """Which slots are under way out of this shard."""
        return np.zeros(SLOT_COUNT, np.bool_) if self.outgoing is None else decode_slots(self.outgoing.slots)

    def check(self, step: MoveStep) -> None:
        """Raise `UsageError` for a step that cannot come next."""
        if step.peer == self.shard:
            raise UsageError("slots move from one shard to another")
        outgoing = self.outgoing
        if step.phase == "begun":
            if outgoing is not None:
                raise UsageError(f"a move of slots to shard {outgoing.peer} is under way: one at a time")
            if step.move in self.ended or step.move in self.called_off:
                raise UsageError("the move has ended")
        elif step.phase == "taken":
            if step.move in self.taken:
                raise UsageError("the slots of this move have been taken")
        elif (
            outgoing is None
            or (outgoing.move, outgoing.peer, outgoing.slots) != (step.move, step.peer, step.slots)
            or outgoing.phase != ("sealed" if step.phase == "ended" else "begun")
        ):
            raise UsageError(f"no move is under way that could be {step.phase}")

    def apply(self, step: MoveStep, index: int) -> None:
        """Take a step, that of the entry `index`. Raises `UsageError` as `check`."""
        self.check(step)
        if step.phase == "begun":
            self.outgoing = step
        elif step.phase == "sealed":
            self.outgoing, self.sealed_index = step, index
            self.owners[decode_slots(step.slots)] = step.peer
        elif step.phase == "taken":
            self.owners[decode_slots(step.slots)] = self.shard
            _remember(self.taken, step.move)
        else:
            self.outgoing, self.sealed_index = None, 0
            _remember(self.ended if step.phase == "ended" else self.called_off, step.move)
        self.version += 1

    def record(self) -> MovesRecord | None:
        """For a checkpoint; None as long as there has been no move."""
        owners = self.owners.tobytes() if (self.owners != _UNDECIDED).any() else b""
        record = MovesRecord(owners, self.outgoing, self.sealed_index, [*self.taken], [*self.ended], [*self.called_off])
        return None if record == MovesRecord() else record

    def restore(self, record: MovesRecord | None) -> None:
        """Take over what a checkpoint has."""
        if record is None:
            return
        if record.owners:
            self.owners = np.frombuffer(record.owners, np.int16).copy()
        self.outgoing, self.sealed_index = record.outgoing, record.sealed_index
        self.taken, self.ended, self.called_off = [*record.taken], [*record.ended], [*record.called_off]
        self.version += 1


def _remember(moves: list[bytes], move: bytes) -> None:
    moves.append(move)
    del moves[:-MOVES_REMEMBERED_MAX]
