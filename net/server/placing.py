"""What a node goes by when its group is one of several: which slots are its shard's own, and the map that says so.

A command whose debit account lies in another shard's slot is refused before the ledger sees it, a look-up of such an
account as a whole. A node of a metadata group has no slot. A node whose group is the only one has no `Placing` at all,
and pays nothing for there being one elsewhere.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from bezant.engine.compiled import direct, quick
from bezant.engine.moves.state import SlotMoves
from bezant.engine.replica import BATCH_COMMANDS_MAX
from bezant.engine.transactions.ids import words_of_records
from bezant.net.server.leg_kernels import any_for_slots
from bezant.net.server.placing_kernels import preset_wrong_shard
from bezant.net.server.requests import WrongShard
from bezant.protocol.codes import ResultCode
from bezant.protocol.frames import FrameHeader, Operation
from bezant.protocol.kinds import CommandKind
from bezant.protocol.messages import decode_message, encode_message
from bezant.protocol.metadata import SetMetadata, SubjectKind
from bezant.protocol.placement import (
    MAP_VERSION_MASK,
    METADATA_SHARD,
    SLOT_COUNT,
    SlotMap,
    owners_of,
    slots_of_words,
)
from bezant.protocol.records import EVENT_QUERY, Records, Words

_ID_SIZE: Final = 16
_DEBIT_WORD: Final = 2
_CREDIT_WORD: Final = 4
_KIND_WORD: Final = 14
_KIND_SHIFT: Final = 48
_NO_SLOTS: Final = np.zeros(0, np.bool_)


class Placing:
    """See the module. Used on the loop."""

    def __init__(self, shard: int, slot_map: SlotMap | None = None) -> None:
        """The map that a node of `shard` begins with; None: it has no slot, as in a metadata group."""
        self.shard = shard
        self.slot_map: SlotMap | None = None
        self.encoded = b""
        """The body of the reply to MAP; empty if this node goes by no map."""
        self._owners = np.full(SLOT_COUNT, shard, np.int64)
        self._own = np.zeros(SLOT_COUNT, np.uint8)
        self._moves = SlotMoves(shard)
        self._moves_version = 0
        self._draining = _NO_SLOTS
        self._looked_at = np.ones(SLOT_COUNT, np.uint8)
        self._codes = np.zeros(BATCH_COMMANDS_MAX, np.int64)
        self._preset = direct(preset_wrong_shard)
        if slot_map is not None:
            self.take(slot_map)

    @property
    def map_version(self) -> int:
        """The version of the map that this node goes by; 0 for none."""
        return 0 if self.slot_map is None else self.slot_map.version

    @property
    def header_fields(self) -> dict[str, int]:
        """What the header of a reply says."""
        version = self.map_version & MAP_VERSION_MASK
        return {"shard": self.shard, "map_version": version} if version else {}

    def take(self, slot_map: SlotMap) -> bool:
        """Go by a map from now on, unless it is not newer; whether it is."""
        if slot_map.version <= self.map_version:
            return False
        self.slot_map, self.encoded = slot_map, encode_message(slot_map)
        self._decide()
        return True

    # ---- slots that move ----

    def follow_moves(self, moves: SlotMoves) -> None:
        """Go by what the shard's own log says of slots that have moved, and by the map for all others."""
        self._moves = moves
        self._decide()

    def drain(self, slots: npt.NDArray[np.bool_] | None) -> None:
        """Refuse what would tie these slots (None: no more) to other shards, or to slots that stay."""
        self._draining = _NO_SLOTS if slots is None else slots
        self._note_looked_at()

    @property
    def owners(self) -> Words:
        """The shard of each slot; without a map, this one."""
        self._follow()
        return self._owners

    @property
    def shards(self) -> Words:
        """The numbers of all shards that the map names, ascending; without a map, this one's."""
        places = () if self.slot_map is None else self.slot_map.shards
        return np.array([place.shard for place in places] or [self.shard], np.int64)

    def has_moved(self, heads: Words) -> npt.NDArray[np.bool_]:
        """Which accounts, given by the first words of their ids, have come or gone with their slot at some time."""
        return np.asarray(self._moves.owners[slots_of_words(heads)] >= 0, np.bool_)

    def refuses_new(self, heads: Words) -> npt.NDArray[np.bool_]:
        """Which accounts, given by the first words of their ids, nothing new between shards can be about now."""
        self._follow()
        slots = slots_of_words(heads)
        refused = self._own[slots] == 0
        return np.asarray(refused | self._draining[slots] if len(self._draining) else refused, np.bool_)

    def may_refuse_any(self, legs: Records) -> bool:
        """Whether any of some legs (COMMAND records) is about a wallet that is another shard's, or drains, or has come
        or gone at some time: of all others `refuses_new`, `is_elsewhere` and `has_moved` say no."""
        self._follow()
        return bool(quick(any_for_slots)(words_of_records(legs), self._looked_at))

    def is_elsewhere(self, heads: Words) -> npt.NDArray[np.bool_]:
        """Which accounts, given likewise, are another shard's."""
        self._follow()
        return np.asarray(self._own[slots_of_words(heads)] == 0, np.bool_)

    def _follow(self) -> None:
        if self._moves_version != self._moves.version:
            self._decide()

    def _decide(self) -> None:
        """Whose each slot is: what the log has decided counts, whatever map it is; the rest the map says."""
        self._moves_version = self._moves.version
        if self.slot_map is None:
            return
        owners, decided = owners_of(self.slot_map).astype(np.int64), self._moves.owners
        owners[decided == self.shard] = self.shard
        gone = (decided >= 0) & (decided != self.shard) & (owners == self.shard)
        owners[gone] = decided[gone]
        self._owners = owners
        self._own = (owners == self.shard).astype(np.uint8)
        self._note_looked_at()

    def _note_looked_at(self) -> None:
        """Of which slots legs may not be for this shard; without a map, of all."""
        looked_at = (self._own == 0) | (self._moves.owners >= 0)
        self._looked_at = (looked_at | self._draining if len(self._draining) else looked_at).astype(np.uint8)

    # ---- what is refused ----

    def addresses_of(self, shard: int) -> str:
        """Where clients reach the members of a shard, "host:port,host:port"; "" if the map does not say."""
        places = () if self.slot_map is None else self.slot_map.shards
        return next((",".join(place.addresses) for place in places if place.shard == shard), "")

    def preset(self, frames: Records, frame_count: int, command_words: Words, count: int, preset: Words) -> Words:
        """The codes of a batch of `count` commands, with WRONG_SHARD for those of its frames that belong elsewhere.

        `preset` has a code for each or is empty, which means none, as does the answer.
        """
        codes = preset
        if not len(preset):
            codes = self._codes[:count]
            codes[:] = 0
        self._follow()
        refused = self._preset(frames, frame_count, command_words, self._own, codes)
        if len(self._draining):
            refused += self._refuse_ties(command_words[:count], codes)
        if int(frames["command_count"][:frame_count].sum()) < count:
            refused += self._refuse_elsewhere(command_words[:count], codes)
        return codes if refused else preset

    def _refuse_elsewhere(self, command_words: Words, codes: Words) -> int:
        """Refuse what belongs elsewhere also of clients in this process, who send no frames."""
        elsewhere = (self._own[slots_of_words(command_words[:, _DEBIT_WORD])] == 0) & (codes == 0)
        codes[elsewhere] = int(ResultCode.WRONG_SHARD)
        return int(np.count_nonzero(elsewhere))

    def _refuse_ties(self, command_words: Words, codes: Words) -> int:
        """Refuse transfers out of slots that drain to other shards, and holds between them and others."""
        kinds = command_words[:, _KIND_WORD] >> _KIND_SHIFT
        payers, payees = slots_of_words(command_words[:, _DEBIT_WORD]), slots_of_words(command_words[:, _CREDIT_WORD])
        pays, receives = self._draining[payers], self._draining[payees]
        ties = (kinds == int(CommandKind.TRANSFER)) & pays & (self._own[payees] == 0)
        ties |= (kinds == int(CommandKind.HOLD)) & (pays != receives)
        codes[ties & (codes == 0)] = int(ResultCode.WRONG_SHARD)
        return int(np.count_nonzero(ties))

    def check_header(self, header: FrameHeader) -> None:
        """Raise `WrongShard` for a frame other than COMMANDS that means another shard than this node's."""
        if header.map_version and header.shard != self.shard:
            raise self._wrong(f"the frame means shard {header.shard}")

    def check_request(self, operation: Operation, body: bytes) -> None:
        """Raise `WrongShard` for a request about an account in another shard's slot."""
        if operation is Operation.LOOKUP_ACCOUNTS and len(body) % _ID_SIZE == 0:
            heads = np.frombuffer(body, np.int64)[::2]
        elif operation is Operation.LOOKUP_EVENTS and len(body) % EVENT_QUERY.itemsize == 0:
            heads = np.frombuffer(body, np.int64)[2::4]
        elif operation is Operation.SET_METADATA:
            asked = decode_message(body, SetMetadata)
            if asked.subject_kind != SubjectKind.ACCOUNT or len(asked.subject) != _ID_SIZE:
                return
            heads = np.frombuffer(asked.subject, np.int64)[:1]
        else:
            return
        self._follow()
        elsewhere = np.flatnonzero(self._own[slots_of_words(heads)] == 0)
        if len(elsewhere):
            raise self._wrong(f"slot {int(slots_of_words(heads)[elsewhere[0]])} is another shard's")

    def _wrong(self, why: str) -> WrongShard:
        if self.shard == METADATA_SHARD:
            return WrongShard("this node keeps the slot map, and serves no accounts", self.map_version)
        return WrongShard(
            f"{why}; this node is of shard {self.shard}, and goes by version {self.map_version} of the slot map",
            self.map_version,
        )
