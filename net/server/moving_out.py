"""A move of slots out of a shard, carried on by its leader from wherever the log says that it is.

    copying   copies of events go to the target, from the first entry on, while clients are served
    draining  nothing new is begun that ties the slots to other shards; what is under way ends
    sealed    the slots are served nowhere; accounts and holds go out of the books here, and into those of the target
    taken     the target serves; the slot map is replaced, and the move has ended

Until the seal a move can be called off. From then on it goes on to its end, whoever leads, and waits for whoever is
away. A leader that takes over reads the log from its beginning again; what the target knows already it passes over.
"""

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Final, NamedTuple, Protocol

import msgspec
import numpy as np

from bezant.engine.member import Member
from bezant.engine.moves.leaving import (
    CopyReader,
    account_outs,
    check_history,
    find_hindrance,
    hold_outs,
    outline,
    went_out,
)
from bezant.engine.moves.stepping import take_step
from bezant.engine.placement.maps import with_slots_moved
from bezant.engine.transactions.legs import OPENED, build_transit_open, is_transit_open
from bezant.net.placement.store import PlacementStore
from bezant.net.server.placing import Placing
from bezant.protocol.errors import BezantError, ConnectionFailed, CorruptLog, RequestRefused, StorageError, UsageError
from bezant.protocol.frames import FrameError, Operation
from bezant.protocol.messages import decode_message
from bezant.protocol.moves import (
    PART_RECORDS_MAX,
    MoveStatus,
    MoveStep,
    PartOfMove,
    SlotsTaken,
    TakeSlots,
    decode_slots,
    encode_part,
)
from bezant.protocol.placement import owners_of
from bezant.protocol.records import EVENT, Records

PART_S_MAX: Final = 5.0
"""Seconds that the target may take for a part, before it is sent again."""
ASK_AGAIN_S: Final = 0.1
"""Seconds until a shard, or the place where slot maps are kept, is asked again that did not answer."""
BEGIN_S_MAX: Final = 30.0
"""Seconds that the target may be away before the slots are sealed, until the move is called off."""
DRAIN_S_MAX: Final = 3.0
"""Seconds in which what ties the slots to other shards must end, before clients are served in full again."""
DRAIN_PAUSE_S: Final = 1.0
"""Seconds until that is tried again."""
DRAINS_MAX: Final = 5
"""How often it is tried, until the move is called off."""
DRAIN_LOOK_S: Final = 0.005
"""Seconds between two looks at what is left."""
CAUGHT_UP_ENTRIES: Final = 64
"""Entries of which the target may lack copies when draining begins: what is copied while nobody serves is little."""

_NOTHING: Final = np.zeros(0, EVENT)

_log = logging.getLogger("bezant")


class PartLinks(Protocol):
    """How the leaders of other shards are asked."""

    async def request(self, shard: int, operation: Operation, body: bytes, timeout_s: float) -> bytes:
        """The body of the reply of a shard's leader. Raises `BezantError`."""
        ...


class Around(NamedTuple):
    """What a move works with. `open_store`: where slot maps are kept; `schedule` has the reactor write what it has."""

    member: Member
    placing: Placing
    links: PartLinks
    open_store: Callable[[], PlacementStore]
    schedule: Callable[[], None]


class MoveOut:
    """See the module. All methods on the loop."""

    def __init__(self, around: Around, step: MoveStep) -> None:
        self.step = step
        self._member, self._placing, self._links, self._open_store, self._schedule = around
        self._replica = around.member.replica
        self._slots = decode_slots(step.slots)
        self._reader = CopyReader(self._replica, step)
        self._commits: list[tuple[int, asyncio.Future[None]]] = []
        self._phase = "sealed" if step.phase == "sealed" else "copying"
        self._copied = 0
        self._prepared: set[str] = set()
        """Currencies that the target has been asked about, and for which there are transit accounts."""
        self._problem = ""
        self._sealed_s = 0.0
        self._gap_s = 0.0

    def status(self) -> MoveStatus:
        """How far it is."""
        percent = 100.0 * (self._reader.next_index - 1) / max(self._replica.log.last_index, 1)
        return MoveStatus(
            move=self.step.move.hex(),
            to=self.step.peer,
            slots=int(self._slots.sum()),
            phase=self._phase,
            copied=self._copied,
            log_percent=round(min(percent, 100.0), 1),
            gap_ms=round(self._gap_s * 1000, 3),
            problem=self._problem,
        )

    def on_committed(self, committed_index: int) -> None:
        """More of the log is committed."""
        while self._commits and self._commits[0][0] <= committed_index:
            _, future = self._commits.pop(0)
            if not future.done():
                future.set_result(None)

    async def run(self) -> None:
        """Carry the move on to its end, or call it off."""
        await self._committed(self._replica.log.last_index)
        if self.step.phase == "begun":
            try:
                check_history(self._replica)
                await self._prepare()
                await self._copy()
                await self._drain_and_seal()
            except CorruptLog:
                raise
            except (_CallOff, UsageError, StorageError) as why:
                self._problem = str(why)
                _log.warning("bezant: the move of slots to shard %d is called off: %s", self.step.peer, why)
                await self._take_step("called_off")
                return
        await self._hand_over()
        await self._replace_map()
        if self._sealed_s:
            self._gap_s = asyncio.get_running_loop().time() - self._sealed_s
        await self._take_step("ended")
        _log.warning(
            "bezant: %d slots have moved to shard %d; nobody served them for %.0f ms",
            int(self._slots.sum()),
            self.step.peer,
            self._gap_s * 1000,
        )

    # ---- before the seal ----

    async def _prepare(self) -> None:
        """See whether the target can take what would move now. Raises `_CallOff`, `UsageError`."""
        told = outline(self._replica.ledger, self._slots)
        for currency in told.currencies:
            await self._open_transit(currency.code)
        self._prepared = {currency.code for currency in told.currencies}
        part = self._part("prepare")
        part = msgspec.structs.replace(part, accounts=told.accounts, holds=told.holds, currencies=told.currencies)
        await self._send(part, _NOTHING)

    async def _open_transit(self, currency: str) -> None:
        """Open the transit account that balances leave through, when there is room for it. Raises `_CallOff`."""
        ledger, peer = self._replica.ledger, self.step.peer
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + BEGIN_S_MAX
        while not is_transit_open(ledger, peer, currency):
            opening = build_transit_open(self._replica.shard, peer, currency, f"own:{ledger.next_sequence}")
            code = int(self._member.execute(opening, np.zeros(0, np.int64)).results["code"][0])
            self._schedule()
            if code not in OPENED:
                error = StorageError(f"the transit account to shard {peer} cannot be opened now: code {code}")
                if loop.time() > deadline_s:
                    raise _CallOff(str(error)) from error
                await self._wait(error)

    async def _copy(self) -> None:
        """Copy until the target lacks little of what is committed."""
        while self._reader.next_index + CAUGHT_UP_ENTRIES <= self._member.committed_index:
            await self._copy_on()

    async def _copy_on(self) -> None:
        """Copy a part of what is committed and not copied yet."""
        if self._reader.next_index > self._member.committed_index:
            return
        copies = await self._read(partial(self._reader.read, self._member.committed_index))
        # What became of a hold is known here before it is committed: it must be, before others know it.
        await self._committed(self._replica.log.last_index)
        await self._send_copies(copies)

    async def _read(self, read: Callable[[], Records]) -> Records:
        """The next copies. What cannot be read calls the move off or, behind the seal, is waited for."""
        while True:
            try:
                return read()
            except CorruptLog:
                raise
            except StorageError as error:
                if self._phase != "sealed":
                    raise _CallOff(str(error)) from error
                await self._wait(error)

    async def _drain_and_seal(self) -> None:
        """Have what ties the slots to other shards end, and seal them. Raises `_CallOff`."""
        for _ in range(DRAINS_MAX):
            if await self._may_replace_map():
                await self._prepare()
                self._phase = "draining"
                self._placing.drain(self._slots)
                try:
                    if await self._seal_when_drained():
                        return
                finally:
                    self._placing.drain(None)
                self._phase = "copying"
            await asyncio.sleep(DRAIN_PAUSE_S)
            await self._copy()
        raise _CallOff(self._problem)

    async def _seal_when_drained(self) -> bool:
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + DRAIN_S_MAX
        while loop.time() < deadline_s:
            await self._copy_on()
            self._problem = find_hindrance(self._replica, self._slots)
            # From here to the seal nothing is waited for, so nothing comes between.
            if not self._problem and self._reader.next_index + CAUGHT_UP_ENTRIES > self._replica.log.last_index:
                told = outline(self._replica.ledger, self._slots)
                if not self._prepared.issuperset(currency.code for currency in told.currencies):
                    self._problem = "an account in one more currency has been opened meanwhile"
                    return False
                self._sealed_s = loop.time()
                self._append_step("sealed")
                self._phase = "sealed"
                return True
            await asyncio.sleep(DRAIN_LOOK_S)
        return False

    async def _may_replace_map(self) -> bool:
        """See whether the slot map can be replaced now: a seal without that would leave the slots to nobody.

        False while it does not say that the slots are here: the move that has brought them has not replaced it yet, and
        would do so after this one. Raises `_CallOff`.
        """
        store = self._open_store()
        try:
            found = await store.read()
        except ConnectionFailed as error:
            raise _CallOff(f"the slot map cannot be read now: {error}") from error
        finally:
            await store.close()
        if found is None:
            raise _CallOff("there is no slot map where maps are kept")
        if (owners_of(found)[self._slots] == self._placing.shard).all():
            return True
        self._problem = (
            "the slot map does not say yet that these slots are here: the move that has brought them goes on"
        )
        return False

    # ---- behind the seal ----

    async def _hand_over(self) -> None:
        """Take accounts and holds out of the books, and have the target take all of it in."""
        replica, slots = self._replica, self._slots
        for make in (hold_outs, lambda ledger, slots: account_outs(ledger, slots, self.step.peer)):
            while len(events := make(replica.ledger, slots)):
                try:
                    replica.execute_moves(events)
                except CorruptLog:
                    raise
                except StorageError as error:
                    await self._wait(error)
                    continue
                self._appended()
                await asyncio.sleep(0)
        last_index = replica.log.last_index
        await self._committed(last_index)
        while self._reader.next_index <= last_index:
            await self._send_copies(await self._read(partial(self._reader.read, last_index)))
        while len(copies := await self._read(self._reader.read_deferred)):
            await self._send_copies(copies)
        accounts, holds = went_out(replica, self.step, replica.ledger.moves.sealed_index, last_index)
        if await self._send_in_parts("accounts", accounts) or await self._send_in_parts("holds", holds):
            return
        while not await self._send(self._part("taken"), _NOTHING):
            await asyncio.sleep(ASK_AGAIN_S)

    async def _replace_map(self) -> None:
        """Have the slot map say where the slots are."""
        store = self._open_store()
        try:
            while True:
                try:
                    found = await store.read()
                    if found is None:
                        raise ConnectionFailed("there is no slot map where maps are kept")
                    stale = np.flatnonzero(self._slots & (owners_of(found) == self._placing.shard))
                    if not len(stale):
                        self._placing.take(found)
                        return
                    await store.replace(found.version, with_slots_moved(found, stale.tolist(), self.step.peer))
                except BezantError as error:
                    await self._wait(error)
        finally:
            await store.close()

    # ---- what it stands on ----

    def _part(self, part: PartOfMove) -> TakeSlots:
        return TakeSlots(self.step.move, self._replica.shard, self.step.slots, part)

    async def _send_copies(self, copies: Records) -> None:
        await self._send_in_parts("copies", copies)
        self._copied += len(copies)

    async def _send_in_parts(self, part: PartOfMove, records: Records) -> bool:
        """Whether the target says that it has taken the slots already."""
        is_taken = False
        for first in range(0, len(records), PART_RECORDS_MAX):
            is_taken = await self._send(self._part(part), records[first : first + PART_RECORDS_MAX])
        return is_taken

    async def _send(self, part: TakeSlots, records: Records) -> bool:
        """Send a part until it is answered. Raises `_CallOff` before the seal, if that takes too long or is refused."""
        body = encode_part(part, records)
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + BEGIN_S_MAX
        while True:
            try:
                reply = await self._links.request(self.step.peer, Operation.TAKE_SLOTS, body, PART_S_MAX)
                self._problem = ""
                return decode_message(reply, SlotsTaken).is_taken
            except BezantError as error:
                is_refused = isinstance(error, RequestRefused) and error.code == FrameError.REQUEST_REFUSED
                if self._phase != "sealed" and (is_refused or loop.time() > deadline_s):
                    raise _CallOff(f"shard {self.step.peer} does not take them: {error}") from error
                await self._wait(error)

    async def _wait(self, error: BezantError) -> None:
        """Wait a little for what cannot be done now."""
        if str(error) != self._problem:
            _log.warning("bezant: the move of slots to shard %d waits: %s", self.step.peer, error)
        self._problem = str(error)
        await asyncio.sleep(ASK_AGAIN_S)

    async def _take_step(self, phase: str) -> None:
        """Append a step, when there is room for it, and wait until it is committed."""
        while True:
            try:
                self._append_step(phase)
                break
            except CorruptLog:
                raise
            except StorageError as error:
                await self._wait(error)
        self._phase = phase
        await self._committed(self._replica.log.last_index)

    def _append_step(self, phase: str) -> None:
        self.step = msgspec.structs.replace(self.step, phase=phase)
        take_step(self._replica, self.step)
        self._appended()

    def _appended(self) -> None:
        self._member.note_appended()
        self._schedule()

    async def _committed(self, index: int) -> None:
        """Wait until the log is committed up to an entry."""
        if self._member.committed_index < index:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._commits.append((index, future))
            self._schedule()
            await future


class _CallOff(BezantError):  # noqa: N818 - it says what happens
    """Why a move that has not been sealed does not go on."""
