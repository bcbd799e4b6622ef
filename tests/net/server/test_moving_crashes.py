"""Claim: wherever a leader is lost while slots move, the move goes on to its end or back, and never do both serve."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import numpy as np
import pytest

from bezant.engine.moves.state import SlotMoves
from bezant.engine.moves.stepping import take_step
from bezant.engine.opening import open_member
from bezant.engine.placement.maps import first_map, with_slots_moved
from bezant.engine.transactions.legs import transit_id
from bezant.net.placement.memory import MemoryStore
from bezant.net.server import coordinating, ending, failure, moving, moving_out, syncing, transacting_steps
from bezant.net.server.checkpointing import Checkpointing
from bezant.net.server.coordinating import Coordinator
from bezant.net.server.moving import Moving
from bezant.net.server.moving_out import Around
from bezant.net.server.placing import Placing
from bezant.net.server.reactor import Reactor
from bezant.protocol.codes import ResultCode
from bezant.protocol.errors import ConnectionFailed, CorruptLog, RequestRefused
from bezant.protocol.frames import FrameError, Operation
from bezant.protocol.kinds import CommandKind, ResultFlag
from bezant.protocol.messages import decode_message, encode_message
from bezant.protocol.moves import MoveSlots, MoveStep, decode_part, encode_slots
from bezant.protocol.names import account_id, currency_word, slot_of
from bezant.protocol.placement import SLOT_COUNT, owners_of, slots_of_words
from bezant.protocol.records import LIMIT_UNLIMITED, Records, id_words
from bezant.protocol.transactions import Transact, Transacted, TransactionMode

from ...engine.commands import join, opening, transfer
from .node import LARGE_SETTINGS, WAIT_S, until
from .two_shards import Begun

COMMITTED = int(ResultCode.COMMITTED)
TRIES = [int(CommandKind.TRY_CREDIT), int(CommandKind.TRY_PART)]
FIRST_MAP = first_map({0: ["a:1"], 1: ["b:1"]})
SLOTS = owners_of(FIRST_MAP)


def name_in(shard: int, number: int) -> str:
    """The name of an account that lies in a shard at first."""
    tries = (f"{{s{shard}-{number}-{attempt}}}:wallet" for attempt in range(1000))
    return next(name for name in tries if SLOTS[slot_of(account_id(name, "EUR"))] == shard)


WORLD = name_in(0, 9)
MOVING = [name_in(0, number) for number in range(3)]
STAYING = name_in(0, 5)
FAR = name_in(1, 6)
NAMES = [*MOVING, STAYING, FAR]


class Shard:
    """The reactor of a shard over a folder of its own."""

    def __init__(self, path: Path, number: int, town: "Town") -> None:
        self.path, self.number, self.town = path, number, town
        self.open()

    def open(self) -> None:
        self.member = open_member(self.path, shard=self.number, settings=LARGE_SETTINGS)
        self.reactor = reactor = Reactor(self.member, asyncio.get_running_loop())
        self.placing = reactor.placing = Placing(self.number, self.town.store._map)
        links = Links(self.town)
        reactor.coordinator = Coordinator(self.member, self.placing, links, reactor.legs, reactor.schedule)
        store = self.town.store
        reactor.moving = Moving(Around(self.member, self.placing, links, lambda: store, reactor.schedule))
        reactor.schedule()

    @property
    def moves(self) -> SlotMoves:
        return self.member.replica.ledger.moves

    async def crash(self) -> None:
        """End without answering anybody, and open the folder again."""
        reactor = self.reactor
        while reactor._pump_scheduled:
            await asyncio.sleep(0)
        for part in (reactor.coordinator, reactor.moving):
            assert part is not None
            part.lose()
        reactor._settle_group()
        reactor._expiry.stop()
        reactor.end()
        reactor._sync_thread.stop()
        if reactor.publisher is not None:
            reactor.publisher.close()
        self.member.close()
        self.open()


class Town:
    """Two shards and a slot map."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.store = MemoryStore()
        self.shards: dict[int, Shard] = {}
        self.parts: list[str] = []
        self.crashing: asyncio.Task[None] | None = None
        self.is_cut = False
        """Whether shards do not hear each other's questions about legs."""
        self.is_move_cut = False
        """Whether no part of a move arrives."""
        self.trouble: Callable[[int, str], str] = lambda number, part: ""

    async def start(self) -> None:
        await self.store.replace(0, FIRST_MAP)
        for number in (0, 1):
            self.shards[number] = Shard(self.path / str(number), number, self)

    async def execute(self, command: Records) -> np.void:
        """What a client is told in the end, who asks until some shard serves the debit account."""
        async with asyncio.timeout(WAIT_S):
            while True:
                self.check_one_serves()
                for shard in self.shards.values():
                    future: asyncio.Future[Records] = asyncio.get_running_loop().create_future()
                    assert shard.reactor.submit(command, future)
                    try:
                        async with asyncio.timeout(3.0):
                            (result,) = await future
                    except TimeoutError:
                        continue  # The shard was lost before it answered.
                    if result["code"] != ResultCode.WRONG_SHARD:
                        return result
                await asyncio.sleep(0.005)

    def check_one_serves(self) -> None:
        """Of every slot at most one shard thinks, by all that it has executed, that it has it."""
        first, second = (shard.placing.owners == shard.number for shard in self.shards.values())
        assert not np.any(first & second)

    async def begin(self, move: bytes, names: list[str], source: int, to: int) -> None:
        slots = np.zeros(SLOT_COUNT, np.bool_)
        slots[[slot_of(account_id(name, "EUR")) for name in names]] = True
        asked = encode_message(MoveSlots(move, encode_slots(slots), to))
        await self.ask(source, Operation.MOVE_SLOTS, asked)

    async def ask(self, shard: int, operation: Operation, body: bytes) -> bytes:
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

        def respond(answer: bytes | Exception) -> None:
            if future.done():
                return
            if isinstance(answer, bytes):
                future.set_result(answer)
            else:
                future.set_exception(RequestRefused(FrameError.OVERLOADED, str(answer)))

        moving_of = self.shards[shard].reactor.moving
        assert moving_of is not None
        moving_of.ask(operation, body, respond)
        try:
            async with asyncio.timeout(1.0):
                return await future
        except TimeoutError as error:
            raise ConnectionFailed("no answer came") from error

    async def ended(self, source: int, move: bytes) -> bool:
        """Whether a move was carried on to its end, and not called off, when one of the two has come."""
        await until(lambda: move in (*self.shards[source].moves.ended, *self.shards[source].moves.called_off))
        return move in self.shards[source].moves.ended

    def account(self, name: str) -> np.void:
        """As the shard that serves it has it."""
        ids = np.array([id_words(account_id(name, "EUR"))], np.int64)
        (owner,) = (shard for shard in self.shards.values() if not shard.placing.is_elsewhere(ids[:, 0]).any())
        return owner.member.replica.ledger.lookup_accounts(ids)[0]

    def balances(self) -> list[int]:
        return [int(self.account(name)["balance"]) for name in NAMES]

    async def stop(self) -> None:
        for shard in self.shards.values():
            shard.member.replica.ledger.check_invariants()
            await shard.reactor.stop(settled=False)


class Links:
    """How the leader of one shard reaches others; trouble strikes when parts of moves are sent."""

    def __init__(self, town: Town) -> None:
        self._town = town

    async def ask(self, shard: int, commands: Records, timeout_s: float) -> Records:
        if self._town.is_cut:
            raise ConnectionFailed("the link is cut")
        future: asyncio.Future[Records] = asyncio.get_running_loop().create_future()

        def respond(answer: Records | Exception) -> None:
            if not future.done():
                if isinstance(answer, Exception):
                    future.set_exception(ConnectionFailed("no leader"))
                else:
                    future.set_result(answer.copy())

        self._town.shards[shard].reactor.submit_legs(commands.copy(), respond)
        try:
            async with asyncio.timeout(0.5):
                return await future
        except TimeoutError as error:
            raise ConnectionFailed("no answer came") from error

    def begin(self, shard: int, commands: Records, timeout_s: float) -> Begun:
        return Begun(self.ask(shard, commands, timeout_s))

    async def ask_tries(self, shard: int, ids: np.ndarray, timeout_s: float) -> np.ndarray:
        raise ConnectionFailed("nobody asks")

    async def request(self, shard: int, operation: Operation, body: bytes, timeout_s: float) -> bytes:
        town = self._town
        if town.is_move_cut:
            raise ConnectionFailed("the link is cut")
        part = decode_part(body)[0].part
        number = len(town.parts)
        town.parts.append(part)
        trouble = town.trouble(number, part)
        if trouble == "source before":
            town.crashing = asyncio.create_task(town.shards[1 - shard].crash())
            await asyncio.sleep(1.0)
        if trouble == "target before":
            await town.shards[shard].crash()
        reply = await town.ask(shard, operation, body)
        if trouble == "target after":
            await town.shards[shard].crash()
            raise ConnectionFailed("the answer was lost")
        if trouble == "source after":
            town.crashing = asyncio.create_task(town.shards[1 - shard].crash())
            await asyncio.sleep(1.0)
        return reply


@pytest.fixture
async def town(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Town]:
    bugs: list[BaseException] = []
    for module in (failure, syncing, coordinating, moving):
        monkeypatch.setattr(module, "end_after_bug", bugs.append)
    for module in (coordinating, ending, moving_out):
        monkeypatch.setattr(module, "ASK_AGAIN_S", 0.005)
    monkeypatch.setattr(coordinating, "SETTLE_S", 0.005)
    town = Town(tmp_path)
    await town.start()
    for name in (WORLD, *NAMES):
        limit = LIMIT_UNLIMITED if name == WORLD else 0
        assert (await town.execute(opening(name, limit)))["code"] == COMMITTED
    for name in NAMES:
        assert (await town.execute(transfer(WORLD, name, 100)))["code"] == COMMITTED
    yield town
    await town.stop()
    for bug in bugs:
        raise bug


async def until_settled(town: Town, expected: list[int]) -> None:
    await until(lambda: town.balances() == expected)


TROUBLES = ["source before", "source after", "target before", "target after"]


@pytest.mark.parametrize("trouble", TROUBLES)
@pytest.mark.parametrize("at", range(6))
async def test_a_leader_is_lost_at_each_part(town: Town, trouble: str, at: int) -> None:
    paid = [transfer(MOVING[0], MOVING[1], 10), transfer(MOVING[0], FAR, 20), transfer(MOVING[2], STAYING, 101)]
    before = [await town.execute(command) for command in paid]
    assert [int(result["code"]) for result in before] == [COMMITTED, COMMITTED, ResultCode.INSUFFICIENT_FUNDS]
    held = transfer(MOVING[0], MOVING[1], 5, kind=int(CommandKind.HOLD))
    assert (await town.execute(held))["code"] == COMMITTED
    await until(lambda: town.account(FAR)["balance"] == 120)
    town.trouble = lambda number, part: trouble if number == at else ""
    move = os.urandom(16)
    await town.begin(move, MOVING, 0, 1)
    assert await town.ended(0, move)
    assert len(town.parts) > at
    await until_settled(town, [70, 110, 100, 100, 120])
    assert (town.account(MOVING[0])["held"], town.account(MOVING[1])["held"]) == (5, 0)
    for command, result in zip(paid, before, strict=True):
        again = await town.execute(command)
        assert (again["code"], again["position"], again["timestamp_ns"]) == (
            result["code"],
            result["position"],
            result["timestamp_ns"],
        )
        assert again["flags"] & ResultFlag.REPEATED
    moved = slots_of_words(np.array([id_words(account_id(MOVING[0], "EUR"))[0]], np.int64))
    assert [int(shard.placing.owners[moved][0]) for shard in town.shards.values()] == [1, 1]
    for shard in town.shards.values():
        await shard.crash()
    assert town.balances() == [70, 110, 100, 100, 120]
    back = os.urandom(16)
    town.trouble = lambda number, part: ""
    await town.begin(back, MOVING, 1, 0)
    assert await town.ended(1, back)
    await until_settled(town, [70, 110, 100, 100, 120])
    assert town.account(MOVING[0])["held"] == 5


async def test_the_target_takes_no_legs_before_it_has_all(town: Town) -> None:
    """A source that is sealed sends them there at once: they must come again, and use no id up."""
    told: dict[str, list[int]] = {}

    def try_there(number: int, part: str) -> str:
        leg = transfer(WORLD, MOVING[0], 7, kind=int(CommandKind.TRY_CREDIT))
        leg["debit_head"], leg["debit_tail"] = id_words(transit_id(1, 0, "EUR"))
        codes = told.setdefault(part, [])
        town.shards[1].reactor.submit_legs(
            leg, lambda answer: codes.append(-1 if isinstance(answer, Exception) else int(answer["code"][0]))
        )
        return ""

    town.trouble = try_there
    move = os.urandom(16)
    await town.begin(move, MOVING, 0, 1)
    assert await town.ended(0, move)
    assert {"prepare", "copies", "accounts", "taken"} <= set(told)
    assert {code for codes in told.values() for code in codes} == {int(ResultCode.WRONG_SHARD)}
    await until_settled(town, [100, 100, 100, 100, 100])


async def test_what_waits_in_the_lane_finds_the_slot_sealed(town: Town) -> None:
    """Legs wait for a sync there, and the seal does not wait for them."""
    shard, codes = town.shards[0], list[int]()
    leg = transfer(WORLD, MOVING[0], 7, kind=int(CommandKind.TRY_CREDIT))
    leg["debit_head"], leg["debit_tail"] = id_words(transit_id(0, 1, "EUR"))
    opened = await town.execute(transfer(WORLD, FAR, 1))  # With it the transit account.
    assert opened["code"] == COMMITTED
    await until_settled(town, [100, 100, 100, 100, 101])
    slots = np.isin(np.arange(SLOT_COUNT), [slot_of(account_id(name, "EUR")) for name in MOVING])
    move = os.urandom(16)
    shard.reactor.submit_legs(
        leg, lambda answer: codes.append(-1 if isinstance(answer, Exception) else int(answer["code"][0]))
    )
    take_step(shard.member.replica, MoveStep(move, "begun", 1, encode_slots(slots)))
    take_step(shard.member.replica, MoveStep(move, "sealed", 1, encode_slots(slots)))
    shard.member.note_appended()
    assert await town.ended(0, move)
    assert codes == [int(ResultCode.WRONG_SHARD)]
    await until_settled(town, [100, 100, 100, 100, 101])


async def test_transfers_of_other_slots_are_decided_while_one_is_sealed(town: Town) -> None:
    """However long that lasts: the transit account of a decision may lie in any slot, which says nothing."""
    shard, move = town.shards[0], os.urandom(16)
    slots = np.isin(np.arange(SLOT_COUNT), [slot_of(account_id(name, "EUR")) for name in MOVING])
    town.is_move_cut = True
    for phase in ("begun", "sealed"):
        take_step(shard.member.replica, MoveStep(move, phase, 1, encode_slots(slots)))
    shard.member.note_appended()
    assert (await town.execute(transfer(STAYING, FAR, 3)))["code"] == COMMITTED
    assert (await town.execute(transfer(FAR, STAYING, 1)))["code"] == COMMITTED
    assert shard.moves.outgoing is not None
    assert shard.moves.outgoing.phase == "sealed"
    town.is_move_cut = False
    assert await town.ended(0, move)
    await until_settled(town, [100, 100, 100, 98, 102])


async def test_a_transaction_asks_nothing_of_a_slot_that_has_left_its_own_shard(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its halves were planned when the slot was here: what is left of the account here is to get nothing."""
    monkeypatch.setattr(transacting_steps, "TRY_S_MAX", 2.0)
    monkeypatch.setattr(transacting_steps, "ASK_AGAIN_S", 0.01)
    told: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
    legs = join(transfer(STAYING, FAR, 1), transfer(STAYING, MOVING[0], 2))
    legs["id_head"] = legs["id_tail"] = 0
    legs["currency"] = currency_word("EUR")
    asked = Transact(os.urandom(16), int(TransactionMode.SAGA), legs.tobytes(), await_applied=True)
    town.is_cut = True
    coordinator = town.shards[0].reactor.coordinator
    assert coordinator is not None
    coordinator.transactor.ask(encode_message(asked), 1, told.set_result)  # type: ignore[arg-type]
    move = os.urandom(16)
    await town.begin(move, MOVING, 0, 1)
    assert await town.ended(0, move)
    town.is_cut = False  # What is paid to the far account is done, and then the half for the one that has moved is due.
    async with asyncio.timeout(WAIT_S):
        assert decode_message(await told, Transacted).code == ResultCode.SHARD_UNREACHABLE
    await until_settled(town, [100, 100, 100, 100, 100])


@pytest.mark.parametrize("mode", list(TransactionMode))
async def test_a_part_that_comes_when_its_slot_is_back_finds_its_transaction_cancelled(
    town: Town, monkeypatch: pytest.MonkeyPatch, mode: TransactionMode
) -> None:
    """The slot was away when it was cancelled, and nobody would ever look for what the late try reserves."""
    monkeypatch.setattr(transacting_steps, "TRY_S_MAX", 0.5)
    monkeypatch.setattr(transacting_steps, "ASK_AGAIN_S", 0.01)
    await until_settled(town, [100, 100, 100, 100, 100])
    late: list[Records] = []
    whole = Links.ask

    async def ask(self: Links, shard: int, commands: Records, timeout_s: float) -> Records:
        if shard == 0 and np.isin(commands["kind"], TRIES).any() and not late:
            late.append(commands.copy())
            town.is_cut = True
        return await whole(self, shard, commands, timeout_s)

    monkeypatch.setattr(Links, "ask", ask)
    told: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
    legs = join(transfer(FAR, STAYING, 1), transfer(MOVING[1], FAR, 2), transfer(FAR, MOVING[0], 3))
    legs["id_head"] = legs["id_tail"] = 0
    legs["currency"] = currency_word("EUR")
    asked = Transact(os.urandom(16), int(mode), legs.tobytes(), await_applied=True)
    coordinator = town.shards[1].reactor.coordinator
    assert coordinator is not None
    coordinator.transactor.ask(encode_message(asked), 1, told.set_result)  # type: ignore[arg-type]
    await until(lambda: bool(late))
    there, back = os.urandom(16), os.urandom(16)
    await town.begin(there, MOVING, 0, 1)
    assert await town.ended(0, there)
    town.is_cut = False
    async with asyncio.timeout(WAIT_S):
        answer = decode_message(await told, Transacted)
    assert (answer.code, answer.applied) == (ResultCode.SHARD_UNREACHABLE, True)
    await town.begin(back, MOVING, 1, 0)
    assert await town.ended(1, back)
    answered: asyncio.Future[Records] = asyncio.get_running_loop().create_future()
    town.shards[0].reactor.submit_legs(late[0], answered.set_result)  # type: ignore[arg-type]
    async with asyncio.timeout(WAIT_S):
        codes = (await answered)["code"][np.isin(late[0]["kind"], TRIES)]
    assert set(codes.tolist()) == {int(ResultCode.ID_FORBIDDEN)}
    await until_settled(town, [100, 100, 100, 100, 100])
    assert not any(town.account(name)[field] for name in NAMES for field in ("held", "incoming"))


async def test_slots_leave_when_the_map_says_that_they_are_here(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the move that has brought them would have the map say, behind this one, that they are here."""
    monkeypatch.setattr(moving_out, "DRAIN_PAUSE_S", 0.001)
    slots = sorted({slot_of(account_id(name, "EUR")) for name in MOVING})
    late = await town.store.replace(1, with_slots_moved(FIRST_MAP, slots, 1))
    refused, done = os.urandom(16), os.urandom(16)
    await town.begin(refused, MOVING, 0, 1)
    assert not await town.ended(0, refused)
    await town.store.replace(late.version, with_slots_moved(late, slots, 0))
    await town.begin(done, MOVING, 0, 1)
    assert await town.ended(0, done)
    await until_settled(town, [100, 100, 100, 100, 100])


async def test_what_was_decided_finds_the_shard_where_it_was_tried(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    """The slot had come there when it was tried, and has left again when a new leader asks: whoever has it now has
    never heard of that, and refuses nothing."""
    monkeypatch.setattr(coordinating, "TRY_S_MAX", WAIT_S)
    monkeypatch.setattr(coordinating, "SETTLE_S", 2 * WAIT_S)
    await until_settled(town, [100, 100, 100, 100, 100])
    town.is_cut = True
    paid = asyncio.create_task(town.execute(transfer(FAR, MOVING[0], 7)))
    await until(lambda: len(town.shards[1].member.replica.ledger.open_tries()) == 1)
    there, back = os.urandom(16), os.urandom(16)
    await town.begin(there, MOVING, 0, 1)
    assert await town.ended(0, there)
    town.is_cut = False
    assert (await paid)["code"] == COMMITTED
    await until_settled(town, [107, 100, 100, 100, 93])
    await town.begin(back, MOVING, 1, 0)
    assert await town.ended(1, back)
    monkeypatch.setattr(coordinating, "SETTLE_S", 0.005)
    ledger = town.shards[0].member.replica.ledger
    before = ledger.next_sequence
    await town.shards[1].crash()
    assert len(town.shards[1].member.replica.ledger.unsettled()) == 1
    await until(lambda: not len(town.shards[1].member.replica.ledger.unsettled()))
    await until_settled(town, [107, 100, 100, 100, 93])
    assert ledger.next_sequence - before <= 1  # But for a transit account to the other shard.


async def test_an_account_in_one_more_currency_may_be_opened_while_its_slot_drains(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both shards need a transit account for it before the seal: behind it the source ended itself for want of one."""
    prepare, opened = moving_out.MoveOut._prepare, dict[str, int]()
    currencies = iter(["USD", "CHF", "JPY"])

    async def prepare_then_open(self: moving_out.MoveOut) -> None:
        await prepare(self)
        currency = next(currencies, "")
        if currency:
            told = await town.execute(opening(MOVING[0], LIMIT_UNLIMITED, currency=currency))
            opened[currency] = int(told["code"])

    monkeypatch.setattr(moving_out.MoveOut, "_prepare", prepare_then_open)
    await until_settled(town, [100, 100, 100, 100, 100])
    move = os.urandom(16)
    await town.begin(move, MOVING, 0, 1)
    assert await town.ended(0, move)
    assert set(opened.values()) == {COMMITTED}
    there = town.shards[1].member.replica.ledger
    ids = np.array([id_words(account_id(MOVING[0], currency)) for currency in opened], np.int64)
    assert there.lookup_accounts(ids)["found"].all()


async def test_no_slot_is_sealed_before_the_transit_account_has_found_room(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ids in memory are many just then: the source went on without it, and ended itself behind the seal."""
    assert (await town.execute(opening(MOVING[0], LIMIT_UNLIMITED, currency="USD")))["code"] == COMMITTED
    await until_settled(town, [100, 100, 100, 100, 100])
    source = town.shards[0]
    moving_of, ledger = source.reactor.moving, source.member.replica.ledger
    assert moving_of is not None
    is_full = True
    has_room = ledger.has_room_for_ids
    monkeypatch.setattr(ledger, "has_room_for_ids", lambda *counts: not is_full and has_room(*counts))
    monkeypatch.setattr(Checkpointing, "on_committed", lambda self: None)  # The checkpoint is under way.
    move = os.urandom(16)
    await town.begin(move, MOVING, 0, 1)
    await until(lambda: moving_of._out is not None and moving_of._out.status().problem != "")
    assert source.moves.outgoing is not None
    assert source.moves.outgoing.phase == "begun"
    is_full = False
    assert await town.ended(0, move)
    await until_settled(town, [100, 100, 100, 100, 100])


@pytest.mark.parametrize("what", ["events", "step"])
async def test_corruption_behind_the_seal_ends_the_source(
    town: Town, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """It was taken for a full disk, and waited for."""
    await until_settled(town, [100, 100, 100, 100, 100])
    bugs: list[BaseException] = []

    def fail(*asked: object) -> int:
        raise CorruptLog("the log is not what it was")

    with monkeypatch.context() as corrupt:
        corrupt.setattr(moving, "end_after_bug", bugs.append)
        if what == "events":
            corrupt.setattr(town.shards[0].member.replica, "execute_moves", fail)
        else:
            append = moving_out.MoveOut._append_step
            corrupt.setattr(
                moving_out.MoveOut,
                "_append_step",
                lambda self, phase: (fail if phase == "ended" else append)(self, phase),
            )
        move = os.urandom(16)
        await town.begin(move, MOVING, 0, 1)
        await until(lambda: bool(bugs))
    assert {type(bug) for bug in bugs} == {CorruptLog}
    assert await town.ended(0, move)


async def test_a_move_is_called_off_when_the_transit_account_finds_no_room_for_long(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(moving_out, "BEGIN_S_MAX", 0.02)
    monkeypatch.setattr(Checkpointing, "on_committed", lambda self: None)
    assert (await town.execute(opening(MOVING[0], LIMIT_UNLIMITED, currency="USD")))["code"] == COMMITTED
    await until_settled(town, [100, 100, 100, 100, 100])
    with monkeypatch.context() as full:
        full.setattr(town.shards[0].member.replica.ledger, "has_room_for_ids", lambda *counts: False)
        move = os.urandom(16)
        await town.begin(move, MOVING, 0, 1)
        assert not await town.ended(0, move)
    await until_settled(town, [100, 100, 100, 100, 100])


async def test_what_a_saga_gives_back_waits_until_its_slot_is_back(
    town: Town, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is parked meanwhile, and the log says where the slot has to go."""
    monkeypatch.setattr(transacting_steps, "TRY_S_MAX", WAIT_S)
    monkeypatch.setattr(transacting_steps, "ASK_AGAIN_S", 0.01)
    monkeypatch.setattr(transacting_steps, "PARKED_S", 0.05)
    await until_settled(town, [100, 100, 100, 100, 100])
    told: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
    legs = join(transfer(STAYING, FAR, 1), transfer(MOVING[0], name_in(1, 77), 2))
    legs["id_head"] = legs["id_tail"] = 0
    legs["currency"] = currency_word("EUR")
    asked = Transact(os.urandom(16), int(TransactionMode.SAGA), legs.tobytes(), await_applied=True)
    town.is_cut = True
    shard = town.shards[0]
    coordinator = shard.reactor.coordinator
    assert coordinator is not None
    coordinator.transactor.ask(encode_message(asked), 1, told.set_result)  # type: ignore[arg-type]
    await until(lambda: town.account(MOVING[0])["balance"] == 98)
    there, back = os.urandom(16), os.urandom(16)
    await town.begin(there, MOVING, 0, 1)
    assert await town.ended(0, there)
    town.is_cut = False
    await until(lambda: bool(shard.member.replica.parked))
    assert "move them back there (`bezant shards move --to 0`)" in caplog.text
    assert town.balances() == [98, 100, 100, 100, 100]
    await town.begin(back, MOVING, 1, 0)
    assert await town.ended(1, back)
    async with asyncio.timeout(WAIT_S):
        assert decode_message(await told, Transacted).code == ResultCode.CREDIT_ACCOUNT_UNKNOWN
    await until_settled(town, [100, 100, 100, 100, 100])
    assert not shard.member.replica.parked
