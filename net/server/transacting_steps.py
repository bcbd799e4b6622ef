"""What shards are asked for a transaction of several legs, step by step: TC/C, and Saga.

**TC/C**: all halves are tried at once, each shard's as one question; then all are confirmed, or all cancelled.

**Saga**: one half after the other, the debit halves first; neighbours in one shard travel together. Each is tried and
confirmed at once, so money is between accounts, and not reserved, while the rest is still open. When one is refused, or
not answered in time, that is decided first; then those before it are taken back, the last one first. What was confirmed
is given back by a try the other way. If that is refused (the account is frozen, or the money is spent), it is parked:
told, and tried again every PARKED_S with an id that follows from the one before, until it succeeds.

A shard that gives no answer is not one that refuses: it is asked again. Every question may be asked again.

A try that is refused is never cancelled, so it must not be taken when it comes once more. Refusals that rest on what
the ledger has leave an event, and use its id up; one that is malformed, or whose id is another's (ID_CONFLICT), is so
for ever; and codes from 100 to 199 settle nothing: what has them is cancelled like what gave no answer. The rest is
refused for want of a transit account (its currency is unknown there, or the rules in force are too old for it): that is
opened first, so that no such try is ever sent.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from bezant.engine.member import Member
from bezant.engine.transactions.ids import joined, words_of
from bezant.engine.transactions.legs import OPENED, OTHER_IDS, build_transit_open
from bezant.engine.transactions.parts import (
    Halves,
    Legs,
    build_ends,
    build_forbids,
    build_given_back,
    make_halves,
    next_ids,
)
from bezant.engine.transactions.times import AHEAD_S_MAX, is_too_far_ahead
from bezant.protocol.codes import ResultCode
from bezant.protocol.errors import BezantError
from bezant.protocol.kinds import CommandKind, ResultFlag
from bezant.protocol.names import currency_code
from bezant.protocol.records import RESULT, Records, Words

TRY_S_MAX: Final = 10.0
"""Seconds that a shard may take to answer a try, before the transaction is cancelled: nobody else waits behind it."""
LEG_S_MAX: Final = 5.0
"""Seconds that one question to another shard may take, before it is asked again."""
PARKED_S: Final = 30.0
"""Seconds until what cannot be taken back, or will not be done, is tried again: only a person can see to that."""
ASK_AGAIN_S: Final = 0.2
"""Seconds until a shard is asked again that cannot do now what it must do in the end."""

_COMMITTED: Final = int(ResultCode.COMMITTED)
_UNANSWERED: Final = int(ResultCode.OVERLOADED)
_UNREACHABLE: Final = int(ResultCode.SHARD_UNREACHABLE)
_CAPTURED: Final = int(ResultCode.HOLD_CAPTURED)
_UNKNOWN: Final = int(ResultCode.HOLD_UNKNOWN)
_CURRENCY_UNKNOWN: Final = int(ResultCode.CURRENCY_UNKNOWN)
_ID_CONFLICT: Final = int(ResultCode.ID_CONFLICT)
_CONFIRM: Final = int(CommandKind.CONFIRM)
_MOVED: Final = int(ResultCode.WRONG_SHARD)
_REPEATED: Final = int(ResultFlag.REPEATED)

Execute = Callable[[Records], Awaitable[Records]]
_Way = Callable[[], Awaitable[list[Any]]]
"""What is to be done again for something that is parked; returns such ways to what is parked then."""

_log = logging.getLogger("bezant")


class Links(Protocol):
    """How other shards are asked."""

    async def ask(self, shard: int, commands: Records, timeout_s: float) -> Records:
        """Have the leader of a shard execute legs; returns their RESULT records. Raises `BezantError`."""
        ...


class Verdict(NamedTuple):
    """What is to be decided: the code (0: confirm) and the leg that it is about; and the halves to be told of it."""

    code: int
    leg: int
    numbers: Words


class Times:
    """The latest time of what a transaction has led to, in any shard: whatever follows is dated after it."""

    def __init__(self, begun_ns: int) -> None:
        self.latest_ns = begun_ns

    def note(self, results: Records) -> None:
        """Something has been executed, or had been before."""
        self.latest_ns = max(self.latest_ns, int(results["timestamp_ns"].max(initial=0)))

    def stamp(self, commands: Records) -> Records:
        """The commands as they are to be executed now."""
        stamped = commands.copy()
        stamped["client_timestamp_ns"] = self.latest_ns
        return stamped


class ShardAsker:
    """Asks shards, this one and others, for halves of transactions; opens the transit accounts that these need."""

    def __init__(self, member: Member, execute: Execute, links: Links) -> None:
        """`execute` executes commands in this shard, and returns when they are committed."""
        self._member = member
        self._replica = member.replica
        self._execute = execute
        self._links = links
        self._opened: set[tuple[int, int, int]] = set()
        """(shard, peer, currency) of transit accounts that are known to be open."""
        self._open_count = 0

    async def ask(self, halves: Halves, commands: Records, times: Times, timeout_s: float) -> Records | None:
        """Their results; None if the shard does not answer in time, which says nothing about what it has done.

        `halves` are those that the commands are about, all of one shard. Nothing leaves for a transit account that is
        not known to be open there: what is refused for want of one leaves no event, and would be taken, if it came a
        second time, when there is one. So of a half whose account a shard refuses to open no try has ever been sent.
        """
        shard, deadline_s = int(halves.shards[0]), asyncio.get_running_loop().time() + timeout_s
        results = np.zeros(len(commands), RESULT)
        keys = list(zip(halves.peers.tolist(), halves.currencies.tolist(), strict=True))
        missing = [key for key in sorted(set(keys)) if (shard, *key) not in self._opened]
        if missing:
            opened = await self._send(shard, joined([self._build_open(shard, *key) for key in missing]), deadline_s)
            if opened is None:
                return None
            codes = zip(missing, opened["code"].tolist(), strict=True)
            refused = {key: code for key, code in codes if code not in OPENED}
            self._opened.update((shard, *key) for key in missing if key not in refused)
            results["code"] = [refused.get(key, _COMMITTED) for key in keys]
        sent = np.flatnonzero(results["code"] == _COMMITTED)
        if len(sent):
            answers = await self._send(shard, times.stamp(commands[sent]), deadline_s)
            if answers is None:
                return None
            times.note(answers)
            results[sent] = answers
        return results

    async def _send(self, shard: int, commands: Records, deadline_s: float) -> Records | None:
        if shard == self._replica.shard:
            return await self._execute(commands)
        left_s = deadline_s - asyncio.get_running_loop().time()
        if left_s <= 0:
            return None
        try:
            results = await self._links.ask(shard, commands, left_s)
        except BezantError as error:
            _log.info("bezant: shard %d does not answer, and is asked again: %s", shard, error)
            return None
        if is_too_far_ahead(int(results["timestamp_ns"].max()), self._replica.clock_ns):
            _log.warning("bezant: the time of shard %d is over %d s ahead of this clock", shard, AHEAD_S_MAX)
            return None
        return results

    def _build_open(self, shard: int, peer: int, currency_word: int) -> Records:
        self._open_count += 1
        attempt = f"{self._replica.shard}:{self._member.term}:{self._open_count}"
        return build_transit_open(shard, peer, currency_code(currency_word), attempt)

    async def until_answered(
        self, halves: Halves, commands: Records, times: Times, results: Records, deadline_s: float | None = None
    ) -> None:
        """Ask one shard until all is answered, or until a time of the loop; `results` has 1xx codes where it is not.

        Without such a time WRONG_SHARD is an answer: that shard has nothing of it, and the slot has moved away.
        """
        loop = asyncio.get_running_loop()
        while True:
            left = np.flatnonzero(is_open(results["code"]) & ((deadline_s is not None) | (results["code"] != _MOVED)))
            left_s = LEG_S_MAX if deadline_s is None else deadline_s - loop.time()
            if not len(left) or left_s <= 0:
                return
            answered = await self.ask(halves.pick(left), commands[left], times, min(left_s, LEG_S_MAX))
            if answered is not None:
                results[left] = answered
            if is_open(results["code"][left]).any():
                await asyncio.sleep(ASK_AGAIN_S)


class Steps:
    """One transaction's way through its shards."""

    def __init__(self, legs: Legs, begun_ns: int, asker: ShardAsker, on_parked: Callable[[], None]) -> None:
        """`begun_ns`: when the TRY_DEBIT was executed. `on_parked`: something must be done, and cannot be for now."""
        self.legs = legs
        self.halves = make_halves(legs)
        self.times = Times(begun_ns)
        self._asker = asker
        self._on_parked = on_parked

    @property
    def all_numbers(self) -> Words:
        """The numbers of all halves."""
        return np.arange(len(self.halves.tries))

    # ---- TC/C ----

    async def try_all(self) -> Verdict:
        """Try all halves at once. What is refused decides at once, whoever has not answered by then."""
        halves = self.halves
        results = unanswered(len(halves.tries))
        deadline_s = asyncio.get_running_loop().time() + TRY_S_MAX
        parts = [np.flatnonzero(halves.shards == shard) for shard in np.unique(halves.shards)]
        asked = [asyncio.ensure_future(self._try_in(numbers, results, deadline_s)) for numbers in parts]
        try:
            pending = set(asked)
            while pending:
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                for part in done:
                    part.result()
                if _is_refused(results["code"]).any():
                    break
        finally:
            for part in asked:
                part.cancel()
        return self._verdict(results["code"], self.all_numbers)

    async def _try_in(self, numbers: Words, results: Records, deadline_s: float) -> None:
        found = results[numbers]
        try:
            await self._asker.until_answered(
                self.halves.pick(numbers), self.halves.tries[numbers], self.times, found, deadline_s
            )
        finally:
            results[numbers] = found

    def _verdict(self, codes: npt.NDArray[Any], numbers: Words) -> Verdict:
        """What follows from the answers to some halves."""
        refused = np.flatnonzero(_is_refused(codes))
        if not len(refused):
            refused = np.flatnonzero(codes != _COMMITTED)
        if not len(refused):
            return Verdict(_COMMITTED, 0, self.all_numbers)
        first = refused[np.argmin(self.halves.legs[numbers[refused]])]
        code = int(codes[first])
        told = numbers[(codes == _COMMITTED) | is_open(codes)]
        return Verdict(_UNREACHABLE if 100 <= code < 200 else code, int(self.halves.legs[numbers[first]]), told)

    async def end(self, verdict: Verdict) -> None:
        """Have all shards do what was decided, however long that takes."""
        shards = self.halves.shards[verdict.numbers]
        parts = [verdict.numbers[shards == shard] for shard in np.unique(shards)]
        asked = [asyncio.ensure_future(self._end_in(numbers, verdict.code)) for numbers in parts]
        try:
            await asyncio.gather(*asked)
        finally:
            for part in asked:
                part.cancel()

    async def _end_in(self, numbers: Words, code: int) -> None:
        """The same for one shard. What it refuses to do, though it was tried there, is parked."""
        while True:
            ends, results = await self._ask_ends(numbers, code)
            left = np.flatnonzero(~_is_ended(ends, results["code"]))
            if not len(left):
                return
            self._park(int(self.halves.shards[numbers[0]]), len(left), int(results["code"][left[0]]))
            numbers = numbers[left]
            await asyncio.sleep(PARKED_S)

    async def _ask_ends(self, numbers: Words, code: int) -> tuple[Records, Records]:
        """The CONFIRMs or CANCELs of these halves, all of one shard, and what it answers to them.

        Those whose ids are others' get other ones: see `OTHER_IDS`. Where the slot has left before a try came, it may
        be back when that does: the try is forbidden there all the same.
        """
        halves, ends = self.halves.pick(numbers), build_ends(self.legs, code)[numbers]
        results = await self._answers(halves, ends)
        taken = np.flatnonzero(results["code"] == _ID_CONFLICT)
        if len(taken):
            ends[taken] = build_ends(self.legs, code, change=OTHER_IDS)[numbers[taken]]
            results[taken] = await self._answers(halves.pick(taken), ends[taken])
        moved = np.flatnonzero((results["code"] == _MOVED) & (ends["kind"] == int(CommandKind.CANCEL)))
        if len(moved):
            forbids = build_forbids(halves.tries[moved], ends[moved])
            results[moved] = await self._answers(halves.pick(moved), forbids)
        return ends, results

    async def _answers(self, halves: Halves, commands: Records) -> Records:
        """The results of commands about these halves, all of one shard, however long that takes."""
        results = unanswered(len(commands))
        await self._asker.until_answered(halves, commands, self.times, results)
        return results

    # ---- Saga ----

    async def step_by_step(self, *, is_resumed: bool) -> Verdict:
        """Do the halves one after the other, up to the first that is not done.

        `is_resumed`: a leader before this one may have come further, so all halves have to be told of a failure.
        """
        confirms = build_ends(self.legs, _COMMITTED)
        for numbers in self._runs(self.all_numbers):
            for commands in (self.halves.tries[numbers], confirms[numbers]):
                results = unanswered(len(numbers))
                deadline_s = asyncio.get_running_loop().time() + TRY_S_MAX
                await self._asker.until_answered(self.halves.pick(numbers), commands, self.times, results, deadline_s)
                verdict = self._verdict(results["code"], numbers)
                if verdict.code:
                    # Of a half that is not confirmed the try stands.
                    own = numbers if commands["kind"][0] == _CONFIRM else verdict.numbers
                    told = np.concatenate([self.all_numbers[: numbers[0]], own])
                    return verdict._replace(numbers=self.all_numbers if is_resumed else told)
        return Verdict(_COMMITTED, 0, self.all_numbers[:0])

    def _runs(self, numbers: Words) -> Iterator[Words]:
        """Neighbours in one shard."""
        borders = np.flatnonzero(np.diff(self.halves.shards[numbers])) + 1
        return iter(np.split(numbers, borders)) if len(numbers) else iter(())

    async def take_back(self, verdict: Verdict) -> None:
        """Take halves back, the last one first; what was confirmed is given back. However long that takes.

        What is parked waits by itself: the halves before it are taken back meanwhile.
        """
        parked: list[asyncio.Future[None]] = []
        try:
            for numbers in self._runs(verdict.numbers[::-1]):
                ways = await self._take_back_run(numbers, verdict.code)
                parked += [asyncio.ensure_future(self._keep_on(way)) for way in ways]
            await asyncio.gather(*parked)
        finally:
            for part in parked:
                if not part.cancel() and not part.cancelled():
                    part.exception()  # Of several that fail, one is told.

    async def _keep_on(self, way: _Way) -> None:
        """Go a way that is parked every PARKED_S, and those that are left of it, until none is."""
        ways = [way]
        while ways:
            await asyncio.sleep(PARKED_S)
            ways = [left for one in ways for left in await one()]

    async def _take_back_run(self, numbers: Words, code: int) -> list[_Way]:
        """Take halves of one shard back, but for what is parked: returns the ways to that."""
        halves = self.halves.pick(numbers)
        ends, results = await self._ask_ends(numbers, code)
        is_over = _is_ended(ends, results["code"])
        confirmed = np.flatnonzero(results["code"] == _CAPTURED)
        if len(confirmed):
            # By this transaction: its CONFIRM is known there. Whoever chooses ids may have looked for one whose try is
            # another one's as well; what that has brought somebody is not to be given back.
            confirms = build_ends(self.legs, _COMMITTED)[numbers[confirmed]]
            results[confirmed] = await self._answers(halves.pick(confirmed), confirms)
            codes = results["code"][confirmed]
            is_over[confirmed] = np.isin(codes, (_COMMITTED, _CAPTURED, _ID_CONFLICT))
            confirmed = confirmed[codes == _COMMITTED]
        wrong = np.flatnonzero(~is_over)
        ways: list[_Way] = []
        if len(wrong):
            self._park(int(halves.shards[0]), len(wrong), int(results["code"][wrong[0]]))
            ways.append(partial(self._take_back_run, numbers[wrong], code))
        return ways + await self._give_back(numbers[confirmed], words_of(halves.tries[confirmed], "id"))

    async def _give_back(self, numbers: Words, ids: Words) -> list[_Way]:
        """Try once to give halves of one shard back, after the tries with these ids; returns the ways to what is
        refused now."""
        left, left_ids = numbers, ids
        ways: list[_Way] = []
        while len(left):
            halves = self.halves.pick(left)
            before, left_ids = left_ids, next_ids(halves, left_ids)
            tries, _ = build_given_back(halves, left_ids)
            results = await self._answers(halves, tries)
            done = np.flatnonzero(results["code"] == _COMMITTED)
            if len(done):
                ways += await self._confirm(halves.pick(done), left_ids[done])
            # Of a refusal that is a repeat a leader before this one has been told: the next try is due.
            refused = results["code"] != _COMMITTED
            is_known = refused & (results["flags"] & _REPEATED != 0)
            new = np.flatnonzero(refused & ~is_known)
            if len(new):
                self._park(int(halves.shards[0]), len(new), int(results["code"][new[0]]))
                # Where its slot has moved away nothing has happened, and the same try is due when it is back.
                is_moved = (results["code"][new] == _MOVED)[:, np.newaxis]
                ways.append(partial(self._give_back, left[new], np.where(is_moved, before[new], left_ids[new])))
            left, left_ids = left[is_known], left_ids[is_known]
        return ways

    async def _confirm(self, halves: Halves, ids: Words) -> list[_Way]:
        """Confirm what gives halves of one shard back, by tries with these ids; returns the way to what is refused."""
        _, confirms = build_given_back(halves, ids)
        results = await self._answers(halves, confirms)
        taken = np.flatnonzero(results["code"] == _ID_CONFLICT)
        if len(taken):
            _, others = build_given_back(halves.pick(taken), ids[taken], change=OTHER_IDS)
            results[taken] = await self._answers(halves.pick(taken), others)
        left = np.flatnonzero(results["code"] != _COMMITTED)
        if not len(left):
            return []
        self._park(int(halves.shards[0]), len(left), int(results["code"][left[0]]))
        return [partial(self._confirm, halves.pick(left), ids[left])]

    def _park(self, shard: int, count: int, code: int) -> None:
        self._on_parked()
        where = f"their slots have left it: move them back there (`bezant shards move --to {shard}`)"
        _log.error(
            "bezant: of transaction %s shard %d answers %d to %d steps that must be done: they are parked (`bezant "
            "transactions`) and tried again every %g s; %s",
            self.legs.id.hex(),
            shard,
            code,
            count,
            PARKED_S,
            where if code == _MOVED else "see what has become of their accounts",
        )


def unanswered(count: int) -> Records:
    """RESULT records of questions that are not answered."""
    results = np.zeros(count, RESULT)
    results["code"] = _UNANSWERED
    return results


def is_open(codes: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Which codes settle nothing: the command can be sent again."""
    return np.asarray((codes >= 100) & (codes < 200), np.bool_)


def _is_refused(codes: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    return np.asarray((codes != _COMMITTED) & ~is_open(codes), np.bool_)


def _is_ended(ends: Records, codes: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Which CONFIRMs and CANCELs have done their work.

    Nothing can come of a try whose id is something else's, nor of one that was never sent, as its transit account could
    not be opened (`ShardAsker.ask`).
    """
    never_tried = (ends["kind"] == int(CommandKind.CANCEL)) & np.isin(codes, (_UNKNOWN, _CURRENCY_UNKNOWN))
    return np.asarray((codes == _COMMITTED) | never_tried, np.bool_)
