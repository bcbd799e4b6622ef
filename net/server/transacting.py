"""Transactions of several legs: takes them from clients, and carries them from their first try to their end.

    request -> PLANs and TRY_DEBIT (one entry here) -> steps in all shards -> CONFIRM or CANCEL (an event here: decided)
                                                                              rest of the steps -> settled: applied

What is written down of a transaction, and how it is found again, is in `engine/transactions/parts.py`; the steps of
TC/C and Saga are in `transacting_steps.py`. A TRY_DEBIT that is not decided, or decided and not settled, is the phase
table, as it is of transfers between shards: a leader that takes over goes on with what it finds there, and every step
may be repeated.

A client that asks again is answered with the first outcome, for ever; with other content, ID_CONFLICT.

Bounds: TRANSACTIONS_MAX transactions of clients are under way in a shard; more are answered OVERLOADED.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Final, NamedTuple

import numpy as np

from bezant.engine.ledger.ledger import Ledger
from bezant.engine.member import Member
from bezant.engine.transactions.ids import joined
from bezant.engine.transactions.legs import OTHER_IDS, build_transit_open, is_transit_open
from bezant.engine.transactions.parts import (
    Legs,
    build_decision,
    build_plans,
    find_decision,
    first_other_leg,
    make_legs,
    read_legs,
    reason_of,
)
from bezant.net.server.legs import LegsLane
from bezant.net.server.requests import AnsweredElsewhere, WrongShard
from bezant.net.server.transacting_steps import ASK_AGAIN_S, Links, ShardAsker, Steps, Verdict, is_open
from bezant.protocol.codes import ResultCode
from bezant.protocol.errors import CorruptLog, LedgerError, RemoteProtocolError, StorageError, UsageError
from bezant.protocol.frames import FrameError
from bezant.protocol.kinds import TRANSACTION_LEGS_MAX, CommandField, CommandKind, ResultFlag
from bezant.protocol.messages import decode_message, encode_message
from bezant.protocol.names import currency_code
from bezant.protocol.placement import slots_of_words
from bezant.protocol.records import COMMAND, COMMAND_SIZE, RULES_ACROSS_SHARDS, Records, Words
from bezant.protocol.transactions import NO_LEG, TRANSACTION_ID_SIZE, Transact, Transacted, TransactionMode

TRANSACTIONS_MAX: Final = 256
"""Transactions of clients that are under way in one shard, at most: of up to 32 KiB each, and as much for its steps."""
APPLIED_S_MAX: Final = 30.0
"""Seconds that who waits for all legs to be done waits once that is decided; then it is told that they are not yet."""

_COMMITTED: Final = int(ResultCode.COMMITTED)
_UNDECIDED: Final = int(ResultCode.UNDECIDED)
_WRONG_SHARD: Final = int(ResultCode.WRONG_SHARD)
_ID_CONFLICT: Final = int(ResultCode.ID_CONFLICT)
_REPEATED: Final = int(ResultFlag.REPEATED)
_IDS_INVALID: Final = (bytes(TRANSACTION_ID_SIZE), b"\xff" * TRANSACTION_ID_SIZE)

_log = logging.getLogger("bezant")

RespondBody = Callable[[bytes | Exception], None]
Key = tuple[bytes, bytes]


class _Waiter(NamedTuple):
    respond: RespondBody
    awaits_applied: bool
    is_repeated: bool


class Running:
    """A transaction that is under way here."""

    def __init__(self, legs: Legs) -> None:
        self.legs = legs
        self.sequence = 0
        """Of its TRY_DEBIT; 0 until that is committed."""
        self.map_version = 0
        """Of the slot map that this node went by when it was asked."""
        self.begun_ns = 0
        """When that was executed, or decided, if it was decided before this node led."""
        self.told: Transacted | None = None
        """What was decided, once that is committed."""
        self.is_of_client = True
        self.waiters: list[_Waiter] = []
        self.timer: asyncio.TimerHandle | None = None

    def answer(self, *, is_over: bool) -> None:
        """Tell those who wait for no more than there is now; if it is over, all."""
        told = self.told
        if told is None:
            return
        left = []
        for waiter in self.waiters:
            if waiter.awaits_applied and not (is_over or told.applied):
                left.append(waiter)
                continue
            repeated = told.repeated or waiter.is_repeated
            waiter.respond(
                encode_message(Transacted(told.code, told.leg, told.detail, repeated=repeated, applied=told.applied))
            )
        self.waiters = left

    def fail(self, error: Exception) -> None:
        """Tell all who wait that nobody here knows what becomes of it."""
        waiters, self.waiters = self.waiters, []
        for waiter in waiters:
            waiter.respond(error)
        self.stop_timer()

    def stop_timer(self) -> None:
        """Wait no longer for the legs to be done."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


class Hooks(NamedTuple):
    """What the coordinator of the shard does for its transactions."""

    begin_term: Callable[[], None]
    start: Callable[[Coroutine[Any, Any, None]], None]
    schedule: Callable[[], None]
    settle: Callable[[Words], None]
    tell_repeats: Callable[[int, Any], None]


class Transactor:
    """See the module. All methods on the loop, while this node leads."""

    def __init__(self, member: Member, owners: Callable[[], Words], links: Links, lane: LegsLane, hooks: Hooks) -> None:
        """`owners`: the shard of each slot."""
        self._member = member
        self._owners = owners
        self._lane = lane
        self._hooks = hooks
        self._asker = ShardAsker(member, self._execute, links)
        self._running: dict[Key, Running] = {}

    @property
    def _ledger(self) -> Ledger:
        return self._member.replica.ledger

    # ---- what clients ask ----

    def ask(self, body: bytes, map_version: int, respond: RespondBody) -> None:
        """Take a request. Raises `RemoteProtocolError` for one that cannot be, `WrongShard`, `UsageError`."""
        asked = decode_message(body, Transact)
        commands = _check(asked)
        if self._ledger.rules_version < RULES_ACROSS_SHARDS:
            raise UsageError("the rules in force know no transactions yet: update every node of the shard")
        if not self._member.is_leader:
            raise self._elsewhere(FrameError.NOT_LEADER)
        self._hooks.begin_term()
        slots = slots_of_words(commands["debit_head"]), slots_of_words(commands["credit_head"])
        owners = self._owners()
        if owners[slots[0][0]] != self._member.replica.shard:
            raise WrongShard(
                f"slot {int(slots[0][0])} of the first leg's debit account is another shard's", map_version
            )
        refused = _malformed(asked.id, commands, self._ledger)
        if refused is not None:
            respond(encode_message(refused))
            return
        legs = make_legs(asked.id, TransactionMode(asked.mode), commands, owners, slots)
        running = self._running.get(legs.key)
        if running is not None:
            refused = _conflict(running.legs, legs)
        elif sum(one.is_of_client for one in self._running.values()) >= TRANSACTIONS_MAX:
            refused = Transacted(int(ResultCode.OVERLOADED))
        if refused is not None:
            respond(encode_message(refused))
            return
        is_new = running is None
        if running is None:
            running = self._running[legs.key] = Running(legs)
            running.map_version = map_version
        running.waiters.append(_Waiter(respond, asked.await_applied, not is_new))
        if not is_new:
            running.answer(is_over=False)
        else:
            self._hooks.start(self._run(running, partial(self._begin, running)))

    # ---- one transaction ----

    async def _run(self, running: Running, way: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Go a way with a transaction, and tell who waits what has become of it."""
        try:
            await way()
            running.answer(is_over=True)
        except CorruptLog:
            raise
        except (AnsweredElsewhere, WrongShard, StorageError) as error:
            # Storage: what it rests on is in an archive, out of reach.
            running.fail(error)
        finally:
            running.stop_timer()
            if self._running.get(running.legs.key) is running:
                del self._running[running.legs.key]

    def _opens_for(self, legs: Legs) -> list[Records]:
        """The OPEN of the transit account that the first leg needs here, unless it is open."""
        own, peer = int(legs.debit_shards[0]), int(legs.credit_shards[0])
        currency = currency_code(int(legs.currencies[0]))
        if is_transit_open(self._ledger, peer, currency):
            return []
        return [build_transit_open(own, peer, currency, f"own:{self._ledger.next_sequence}")]

    async def _begin(self, running: Running) -> None:
        """Write a transaction down, or find what became of it, and carry it on."""
        legs = running.legs
        if self._ledger.find_events(legs.tries[:1])[0][0]:
            commands = legs.tries[:1]
        else:
            commands = joined([*self._opens_for(legs), build_plans(legs), legs.tries[:1]])
        result = (await self._execute(commands))[-1]
        code, is_repeated = int(result["code"]), bool(result["flags"] & _REPEATED)
        if code == _WRONG_SHARD:
            raise WrongShard("the slot of the first leg's debit account leaves, or has left", running.map_version)
        if code != _UNDECIDED:
            leg = NO_LEG if 100 <= code < 200 else 0
            running.told = Transacted(code, leg, int(result["detail"]), repeated=is_repeated, applied=code >= 300)
            return
        # Not that of the result: a transaction that has come with its slot has another one there.
        found, events = self._ledger.find_events(legs.tries[:1])
        running.sequence, running.begun_ns = int(found[0]), int(result["timestamp_ns"])
        verdict = None
        if is_repeated:
            running.legs = read_legs(self._ledger, events)
            running.told = _conflict(running.legs, legs)
            if running.told is not None:
                return
            decision = find_decision(self._ledger, events)
            if decision is not None:
                verdict = _verdict_of(running.legs, decision)
                running.begun_ns = int(decision["timestamp_ns"][0])
        await self._carry(running, verdict, is_repeated=is_repeated)

    async def _carry(self, running: Running, verdict: Verdict | None, *, is_repeated: bool) -> None:
        """Try and decide, unless there is a verdict already; then have done what was decided."""
        legs, sequence = running.legs, running.sequence
        is_saga = legs.mode is TransactionMode.SAGA
        parked = self._member.replica.parked
        steps = Steps(legs, running.begun_ns, self._asker, lambda: parked.add(sequence))
        if verdict is None:
            verdict = await (steps.step_by_step(is_resumed=is_repeated) if is_saga else steps.try_all())
            is_settled = bool(verdict.code) and not len(verdict.numbers)
            build = partial(build_decision, legs, verdict.code, verdict.leg, is_settled=is_settled)
            told = await self._decide(steps, build)
            told["code"] = verdict.code
            self._hooks.tell_repeats(sequence, told)
        else:
            is_settled = sequence not in self._ledger.unsettled()["try_sequence"]
        running.told = Transacted(verdict.code, leg_of(verdict), repeated=is_repeated, applied=is_settled)
        running.answer(is_over=False)
        if is_settled:
            return
        if running.waiters:
            loop = asyncio.get_running_loop()
            running.timer = loop.call_later(APPLIED_S_MAX, lambda: running.answer(is_over=True))
        try:
            if not is_saga:
                await steps.end(verdict)
            elif verdict.code:
                await steps.take_back(verdict)
        finally:
            parked.discard(sequence)
        self._hooks.settle(np.array([sequence], np.int64))
        running.told = Transacted(verdict.code, leg_of(verdict), repeated=is_repeated, applied=True)

    async def _decide(self, steps: Steps, build: Callable[..., Records]) -> Any:
        """Have a decision executed; returns its RESULT. While there is no room for it, it stays what was decided.

        `build` makes it, with `salt` as in `build_decision`.
        """
        salt = 0
        while True:
            decided = await self._execute(steps.times.stamp(build(salt=salt)))
            if int(decided["code"][0]) == _ID_CONFLICT and salt != OTHER_IDS:
                salt = OTHER_IDS
            elif is_open(decided["code"]).any():
                await asyncio.sleep(ASK_AGAIN_S)
            else:
                break
        if int(decided["code"][0]) != _COMMITTED:
            identifier, code = steps.legs.id.hex(), decided["code"][0]
            raise LedgerError(f"transaction {identifier} was decided twice: the ledger answers {code}")
        steps.times.note(decided)
        return decided[0].copy()

    async def _execute(self, commands: Records) -> Records:
        """Have commands executed here; returns their results when they are committed. Raises `AnsweredElsewhere`."""
        future: asyncio.Future[Records] = asyncio.get_running_loop().create_future()

        def respond(answer: Records | Exception) -> None:
            if future.done():
                return
            if isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(answer)

        self._lane.add(commands, respond)
        self._hooks.schedule()
        return await future

    # ---- what was under way ----

    def carry_on(self, begun: Records, sequences: Words, decisions: Records | None) -> None:
        """Carry on what a leader before this one had under way: TRY_DEBITs (EVENT records) and, if there are, the
        decisions on them."""
        for number, sequence in enumerate(sequences.tolist()):
            decision = None if decisions is None else decisions[number : number + 1]
            self._hooks.start(self._resume(begun[number : number + 1], sequence, decision))

    async def _resume(self, begun: Records, sequence: int, decision: Records | None) -> None:
        while True:
            try:
                legs = read_legs(self._ledger, begun)
                # What was open when this node began to lead may have been decided since, for a client who asked again.
                decision = find_decision(self._ledger, begun) if decision is None else decision
                break
            except CorruptLog:
                raise
            except StorageError as error:
                _log.warning("bezant: a transaction waits to be carried on: %s", error)
                await asyncio.sleep(ASK_AGAIN_S)
        if legs.key in self._running:
            return  # A client has asked again, and been sooner.
        running = self._running[legs.key] = Running(legs)
        running.sequence, running.is_of_client = sequence, False
        running.begun_ns = int((begun if decision is None else decision)["timestamp_ns"][0])
        verdict = None if decision is None else _verdict_of(legs, decision)
        await self._run(running, partial(self._carry, running, verdict, is_repeated=True))

    def lose(self) -> None:
        """This node leads no more: whoever leads now carries on."""
        left, self._running = list(self._running.values()), {}
        for running in left:
            running.fail(self._elsewhere(FrameError.OUTCOME_UNKNOWN))

    def _elsewhere(self, code: FrameError) -> AnsweredElsewhere:
        why = "this node does not lead its shard, and another one carries its transactions on"
        return AnsweredElsewhere(code, why, self._member.leader_address)


def leg_of(verdict: Verdict) -> int:
    """The number of the leg that was refused; NO_LEG if all is confirmed."""
    return verdict.leg if verdict.code else NO_LEG


def _verdict_of(legs: Legs, decision: Records) -> Verdict:
    """What a decision in the history (EVENT[1]) says; all halves may have to be told."""
    code, leg = reason_of(decision)
    return Verdict(code, leg, np.arange(2 * len(legs.tries) - 1))


def _check(asked: Transact) -> Records:
    """The legs (COMMAND records) of a request. Raises `RemoteProtocolError` for one that is none."""
    if len(asked.id) != TRANSACTION_ID_SIZE:
        raise RemoteProtocolError(f"the id of a transaction has {TRANSACTION_ID_SIZE} bytes, not {len(asked.id)}")
    if asked.mode not in list(TransactionMode):
        raise RemoteProtocolError(f"{asked.mode} is no mode of transactions")
    count, rest = divmod(len(asked.legs), COMMAND_SIZE)
    if rest or not 1 <= count <= TRANSACTION_LEGS_MAX:
        raise RemoteProtocolError(f"a transaction has 1 to {TRANSACTION_LEGS_MAX} legs of {COMMAND_SIZE} bytes")
    commands = np.frombuffer(asked.legs, COMMAND)
    zeros = ("id_head", "id_tail", "reference_head", "reference_tail", "client_timestamp_ns", "timeout_ms", "flags")
    is_plain = (commands["kind"] == int(CommandKind.TRANSFER)) & (commands["reserved"] == 0)
    for name in zeros:
        is_plain &= commands[name] == 0
    if not is_plain.all():
        raise RemoteProtocolError("the legs of a transaction are plain TRANSFERs without ids")
    return commands


def _malformed(identifier: bytes, commands: Records, ledger: Ledger) -> Transacted | None:
    """What is wrong with a transaction by itself: nothing happens, and the id is not used."""
    if identifier in _IDS_INVALID:
        return Transacted(int(ResultCode.ID_INVALID))
    same = (commands["debit_head"] == commands["credit_head"]) & (commands["debit_tail"] == commands["credit_tail"])
    for wrong, code in (
        (commands["amount"] <= 0, ResultCode.AMOUNT_NOT_POSITIVE),
        (same, ResultCode.ACCOUNTS_EQUAL),
        (~(commands["currency"][:, None] == ledger.currency_words).any(axis=1), ResultCode.CURRENCY_UNKNOWN),
    ):
        if wrong.any():
            return Transacted(int(code), int(np.argmax(wrong)))
    return None


def _conflict(known: Legs, asked: Legs) -> Transacted | None:
    """That the id has another meaning, if it has."""
    if (known.mode, len(known.tries)) != (asked.mode, len(asked.tries)):
        return Transacted(int(ResultCode.ID_CONFLICT), NO_LEG, int(CommandField.TIMEOUT_MS))
    leg, field = first_other_leg(known, asked)
    return None if leg < 0 else Transacted(int(ResultCode.ID_CONFLICT), leg, field)
