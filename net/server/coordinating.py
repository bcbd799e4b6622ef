"""The coordinator of a shard: carries transfers to accounts of other shards from their try to their end (TC/C).

    a client's batch -> tries (held here)        \\
                        legs to the other shards  > both committed -> decisions (events here) -> reply
                                                                      second legs -> settled

The other shard is asked as soon as the try is executed here, and a try that is small is written together with its
decision (`deferring.py`). If this node is lost before the try is committed, what the other shard has reserved belongs
to nobody: that shard finds it out (`orphans.py`).

Nobody waits for the second legs: they ride with the tries that follow (`riders.py`), or go on their own (`ending.py`).

A batch travels as a whole, or as one part for each shard and currency. All that is done is commands with ids of their
own, so every step may be repeated; and all that matters is in the log, so a leader that takes over finds in the ledger
what it has to carry on: tries without a decision, and decisions that the other shard has not carried out yet.

A shard that gives no answer is not one that refuses: it is asked again until it answers, or until TRY_S_MAX have
passed; then the transfer is cancelled, here at once, and there when it can be told. Those that follow are cancelled
sooner, as long as nothing is heard of that shard (`silence.py`).

Bounds: the tries of clients' batches, of which the reactor has a fixed number beside those that it holds
(`telling.py`), and no more than so many bytes of requests at a time; and what a leader finds when it takes over, which
is what its predecessor had under way.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from bezant.engine.compiled import quick
from bezant.engine.member import Member
from bezant.engine.replica import BATCH_COMMANDS_MAX, SETTLED_MAX
from bezant.engine.transactions.ids import joined
from bezant.engine.transactions.legs import (
    OPENED,
    OTHER_IDS,
    build_decisions,
    build_try_credits,
    find_decisions,
)
from bezant.engine.transactions.times import AHEAD_S_MAX, latest_time_ns
from bezant.net.server.batch import Batch
from bezant.net.server.ending import Ending, EndingHooks
from bezant.net.server.failure import end_after_bug, or_end
from bezant.net.server.flight_kernels import FOUND_SIZE, find_tries, note_answers, write_outcomes
from bezant.net.server.flights import Answers, Asked, Decided, Flight, Found, Places, Routes, picked
from bezant.net.server.legs import LegsLane
from bezant.net.server.orphans import AsksTries, Orphans
from bezant.net.server.riders import Question, WaitingRiders
from bezant.net.server.silence import Silence
from bezant.net.server.transacting import Hooks, Transactor
from bezant.net.server.transacting_steps import ASK_AGAIN_S, LEG_S_MAX, is_open
from bezant.net.server.transits import Transit, Transits
from bezant.protocol.codes import ResultCode
from bezant.protocol.errors import BezantError, CorruptLog, LedgerError, RequestRefused, StorageError
from bezant.protocol.frames import BATCH_COUNT_MAX, FrameError
from bezant.protocol.kinds import ResultFlag
from bezant.protocol.records import EVENT, RESULT, SEQUENCE_BITS, Records, Words, position_of

TRY_S_MAX: Final = 3.0
"""Seconds that another shard may take to answer a try, before it is cancelled."""
TRY_S_MIN: Final = 0.001
"""Seconds that must be left of these, if it is to be asked again."""
SWEEP_S: Final = 5.0
"""Seconds between two looks for what nobody carries on: it is as long under way, at least, before anybody asks."""
SETTLE_S: Final = 0.05
"""Seconds in which transactions that have ended collect, to be settled by one entry."""

_COMMITTED: Final = int(ResultCode.COMMITTED)
_UNDECIDED: Final = int(ResultCode.UNDECIDED)
_WRONG_SHARD: Final = int(ResultCode.WRONG_SHARD)
_ID_CONFLICT: Final = int(ResultCode.ID_CONFLICT)
_UNANSWERED: Final = int(ResultCode.OVERLOADED)
_SEQUENCE_MASK: Final = (1 << SEQUENCE_BITS) - 1
_NO_ROWS: Final = np.zeros(0, np.int64)

_log = logging.getLogger("bezant")


class Links(AsksTries, Protocol):
    """How other shards are asked."""

    async def ask(self, shard: int, commands: Records, timeout_s: float) -> Records:
        """Have the leader of a shard execute legs; returns their RESULT records. Raises `BezantError`."""
        ...

    def begin(self, shard: int, commands: Records, timeout_s: float) -> Asked | None:
        """The same, but they leave at once; None if they cannot: nothing is done then. Raises `BezantError`."""
        ...


class Coordinator:
    """See the module. All methods on the loop."""

    def __init__(
        self, member: Member, places: Places, links: Links, lane: LegsLane, schedule: Callable[[], None]
    ) -> None:
        """`schedule` has the reactor look at what has been added to the lane, or decided of a batch."""
        self._member = member
        self._places = places
        self._links = links
        self._lane = lane
        self._schedule = schedule
        self._transits = Transits(member)
        self._term = 0
        self._found: Found | None = None
        self._repeats: dict[int, list[tuple[Batch, int]]] = {}
        """Who has asked again for a try that is under way, by the try's sequence."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._settled: list[Words] = []
        hooks = Hooks(self.begin_term, self._start, schedule, self._settle, self._tell_repeats)
        self.transactor = Transactor(member, lambda: places.owners, links, lane, hooks)
        """Carries on transactions of several legs."""
        self._settle_timer: asyncio.TimerHandle | None = None
        self._silence = Silence(self._on_heard)
        ending_hooks = EndingHooks(self._start, self._settle, self._silence.is_silent, self._ask)
        self._ending = Ending(member, places, self._transits, ending_hooks)
        self._riders = WaitingRiders(self._ending.end_now)
        self._new, self._repeated, self._tries = np.zeros((3, BATCH_COMMANDS_MAX), np.int64)
        self._counts = np.zeros(FOUND_SIZE, np.int64)
        self._orphans = Orphans(member, self._transits, links, lane, self._execute)
        self._sweep_timer: asyncio.TimerHandle | None = None
        self._end_riders = or_end(self._on_riders_answered)
        self._run_settle, self._run_sweep = or_end(self._settle_now), or_end(self._sweep)
        self._departs = False
        self._has_stopped = False

    # ---- what the reactor tells ----

    def prepare(self, batch: Batch, preset: Words) -> Words:
        """Turn the transfers of a batch that go to other shards into tries; returns the codes that refuse commands."""
        self.begin_term()
        return self._transits.mark(batch.commands[: batch.command_count], self._places.owners, preset)

    def on_executed(self, batch: Batch, events: Records) -> None:
        """A batch has been executed: note its tries, those that are new, and those that a client has asked for again.

        `events` are those of the batch. What has been decided of the latter is told with the batch.
        """
        results = batch.results
        quick(find_tries)(results, events, self._new, self._repeated, self._tries, self._counts)
        new, repeated, tried = self._counts.tolist()
        if repeated:
            self._note_repeated(batch, self._repeated[:repeated].copy())
        batch.undecided_count += new
        if new:
            if tried != new:
                raise LedgerError(f"{new} results say that a try stands, and {tried} events do")
            rows = self._new[:new].copy()
            self._send_on(picked(events, self._tries[:new]), results["position"][rows] & _SEQUENCE_MASK, batch, rows)

    def on_committed(self) -> None:
        """More of the log is committed: carry on what was found, if that is."""
        self.begin_term()
        if self._found is not None and self._found.index <= self._member.committed_index:
            found, self._found = self._found, None
            self._start(self._carry_on(found))

    def lose(self) -> None:
        """This node leads no more: whoever leads now carries on."""
        self._term, self._found = 0, None
        self._repeats.clear()
        self._settled.clear()
        self._riders.clear()
        self._ending.lose()
        self._orphans.lose()
        self.transactor.lose()
        for timer in (self._settle_timer, self._sweep_timer):
            if timer is not None:
                timer.cancel()
        self._settle_timer = self._sweep_timer = None
        tasks, self._tasks = self._tasks, set()
        for task in tasks:
            task.cancel()

    def stop(self) -> None:
        """Begin nothing any more: this node ends."""
        self.lose()
        self._has_stopped = True

    @property
    def under_way_count(self) -> int:
        """Parts of batches, and of what was found, that have not ended."""
        return len(self._riders) + len(self._tasks)

    def take_departure(self) -> bool:
        """Whether something is about to leave for another shard since this was asked last."""
        departs, self._departs = self._departs, False
        return departs

    def _on_heard(self, shard: int) -> None:
        self._ending.on_heard(shard)

    # ---- what was under way ----

    def begin_term(self) -> None:
        """See, before anything is executed in a term that this node leads, what its predecessor had under way."""
        member = self._member
        if member.is_leader and self._term != member.term and not self._has_stopped:
            self.lose()  # What was carried on in an earlier term is found again.
            ledger = member.replica.ledger
            self._term = member.term
            self._found = Found(member.replica.log.last_index, ledger.open_tries(), ledger.unsettled())
            self._sweep_later()

    async def _carry_on(self, found: Found) -> None:
        """Carry on what was found; it is read a part in each turn of the loop."""
        sequences = found.open_tries
        tries = await self._events_read(sequences)
        is_part = tries["timeout_ms"] != 0
        if is_part.any():
            self.transactor.carry_on(tries[is_part], sequences[is_part], None)
        self._send_on(tries[~is_part], sequences[~is_part], None, _NO_ROWS)
        sequences = found.unsettled["try_sequence"]
        tries, decisions = (
            await self._events_read(sequences),
            await self._events_read(found.unsettled["decision_sequence"]),
        )
        is_part = tries["timeout_ms"] != 0
        if is_part.any():
            self.transactor.carry_on(tries[is_part], sequences[is_part], decisions[is_part])
        decided = Decided(tries, decisions, sequences, decisions["timestamp_ns"]).part(np.flatnonzero(~is_part))
        for transit, numbers in self._transits.groups(decided.tries):
            self._ending.end_now(transit, decided.part(numbers))

    async def _events_read(self, sequences: Words) -> Records:
        """The events with these sequences, however long an archive takes that has them."""
        parts = [np.zeros(0, EVENT)]
        first = 0
        while first < len(sequences):
            try:
                parts.append(self._events_of(sequences[first : first + BATCH_COMMANDS_MAX]))
                first += BATCH_COMMANDS_MAX
            except CorruptLog:
                raise
            except StorageError as error:
                _log.warning("bezant: transfers to other shards wait to be carried on: %s", error)
                await asyncio.sleep(ASK_AGAIN_S)
            await asyncio.sleep(0)
        return np.concatenate(parts)

    def _events_of(self, sequences: Words) -> Records:
        """The events with these sequences. Raises `StorageError` while they are not to be had, and `CorruptLog`."""
        wanted, places = np.unique(sequences, return_inverse=True)
        return self._member.replica.log.read_events(wanted)[places]

    # ---- one flight ----

    def _send_on(self, events: Records, sequences: Words, batch: Batch | None, rows: Words) -> None:
        for transit, group in self._transits.groups(events):
            # What is found at a start may be more than the lane takes at a time.
            for first in range(0, len(group), BATCH_COMMANDS_MAX):
                numbers = group[first : first + BATCH_COMMANDS_MAX]
                own_rows = rows if batch is None else picked(rows, numbers)
                flight = Flight(picked(events, numbers), picked(sequences, numbers), transit, batch, own_rows)
                self._start(self._carry(flight, self._begin_try(flight)))
                self._departs = True

    def _start(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._on_done)

    def _on_done(self, task: asyncio.Task[None]) -> None:
        is_own = task in self._tasks
        self._tasks.discard(task)
        error = LedgerError("a flight was given up, and nobody carries it on") if task.cancelled() else task.exception()
        if isinstance(error, Exception) and (is_own or not task.cancelled()):
            end_after_bug(error)

    def _begin_try(self, flight: Flight) -> Question | None:
        """Have the question leave now, and with it what was decided of earlier tries there; None if it cannot."""
        transit, count = flight.transit, len(flight.events)
        if not transit.is_open_there:
            return None
        legs = build_try_credits(flight.events, transit.far_id)
        timeout_s, riders = self._silence.patience_s(transit.shard, TRY_S_MAX), None
        if not self._silence.is_silent(transit.shard):
            riders = self._riders.take(transit, -count % BATCH_COUNT_MAX)  # A frame more would take its time.
        try:
            asked = self._links.begin(transit.shard, legs if riders is None else joined([legs, riders.legs]), timeout_s)
        except BezantError as error:
            _tell_unanswered(transit, error)
            asked = None
        if asked is not None:
            return Question(asked, riders)
        if riders is not None:
            self._ending.end_now(transit, riders.decided)
        return None

    async def _carry(self, flight: Flight, question: Question | None) -> None:
        """Try in the other shard, decide here, and have the other shard do what was decided."""
        # Built while the other shard tries: as a rule it refuses none.
        decisions = build_decisions(flight.events, np.zeros(len(flight.events), np.int64))
        codes, times = answers = await self._try(flight, question)
        decisions["client_timestamp_ns"] = times
        if codes.any():
            refused = np.flatnonzero(codes)
            decisions[refused] = build_decisions(flight.events[refused], codes[refused], times=times[refused])
        if not await self._decide(flight, answers, decisions):
            return  # This node leads no more.
        must_be_told = np.flatnonzero((codes == _COMMITTED) | is_open(codes))
        if len(must_be_told):
            decided = Decided(flight.events, decisions, flight.sequences, times)
            self._riders.add(flight.transit, decided.part(must_be_told))

    async def _try(self, flight: Flight, question: Question | None) -> Answers:
        """What the other shard answers to each try, and when it was executed there; a code that settles nothing where
        it has not answered in time, or with a time that nothing here may be dated after."""
        count, loop = len(flight.events), asyncio.get_running_loop()
        answers = Answers(np.full(count, _UNANSWERED, np.int64), np.zeros(count, np.int64))
        begun_s = loop.time()
        until_s = begun_s + self._silence.patience_s(flight.transit.shard, TRY_S_MAX)
        rows = np.arange(count)
        if question is None:
            is_answered = await self._try_at(flight.transit, flight.events, rows, answers, until_s - begun_s)
        else:
            results = await self._answer_to(flight.transit, question, count)
            is_answered = results is not None and self._note_answers(flight.transit, results, rows, answers)
        if is_answered:
            return answers
        routes = Routes(self._transits, self._places, flight.transit, flight.events)
        while True:
            routes.follow(np.flatnonzero(answers.codes == _WRONG_SHARD))
            left = np.flatnonzero(is_open(answers.codes))
            if not len(left):
                return answers
            await asyncio.sleep(min(ASK_AGAIN_S, max(until_s - loop.time(), 0.0)))
            left_s = until_s - loop.time()
            if left_s < TRY_S_MIN:
                self._silence.on_given_up(flight.transit.shard, begun_s)
                return answers
            for transit, rows in routes.groups(left):
                await self._try_at(transit, flight.events, rows, answers, min(left_s, LEG_S_MAX))

    async def _try_at(self, transit: Transit, tries: Records, rows: Words, answers: Answers, timeout_s: float) -> bool:
        """Ask one shard for the tries with these numbers; returns whether none of them is open still."""
        results = await self._ask(transit, build_try_credits(picked(tries, rows), transit.far_id), timeout_s)
        return results is not None and self._note_answers(transit, results, rows, answers)

    def _note_answers(self, transit: Transit, results: Records, rows: Words, answers: Answers) -> bool:
        """Note what one shard has answered to the tries with these numbers; whether none of them is open still."""
        latest_ns = latest_time_ns(self._member.replica.clock_ns)
        open_count = int(quick(note_answers)(results, rows, answers.codes, answers.times, latest_ns))
        if open_count < 0:
            transit.tell(f"its time is over {AHEAD_S_MAX} s ahead of this node's clock")
        return open_count == 0

    async def _answer_to(self, transit: Transit, question: Question, count: int) -> Records | None:
        """What is answered to the `count` tries of a question; as `_ask`."""
        asked, riders = question
        try:
            results = await asked.results()
            self._silence.on_answer(transit.shard)
        except BezantError as error:
            _tell_unanswered(transit, error)
            if riders is not None:
                self._ending.end_now(transit, riders.decided)
            return None
        if riders is not None:
            # When those have been decided who wait for it: they are executed in the next turn of the loop.
            loop = asyncio.get_running_loop()
            done = results["code"][count:] == _COMMITTED
            loop.call_soon(loop.call_soon, self._end_riders, self._term, transit, riders.decided, done)
        return results[:count]

    def _on_riders_answered(self, term: int, transit: Transit, decided: Decided, done: npt.NDArray[np.bool_]) -> None:
        if term != self._term:
            return  # This node leads no more, or again: it has found them.
        self._settle(decided.sequences[done])
        if not done.all():
            self._ending.end_now(transit, decided.part(np.flatnonzero(~done)))

    async def _ask(self, transit: Transit, legs: Records, timeout_s: float) -> Records | None:
        """Their results; None if the shard does not answer now, which says nothing about what it has done."""
        try:
            if not transit.is_open_there:
                opened = await self._links.ask(transit.shard, transit.far_open(self._term), timeout_s)
                code = opened["code"]
                if is_open(code).any():
                    return None
                if int(code[0]) not in OPENED:
                    return np.repeat(opened, len(legs))  # A currency that it does not know: it has no such account.
                transit.is_open_there = True
            results = await self._links.ask(transit.shard, legs, timeout_s)
            self._silence.on_answer(transit.shard)
            return results
        except BezantError as error:
            _tell_unanswered(transit, error)
            return None

    async def _decide(self, flight: Flight, answers: Answers, decisions: Records) -> bool:
        """Have decisions executed, and told when they are committed; False if this node leads no more.

        Their times take the place of those of the answers. Those for which there is no room now, on the disk, stay what
        was decided, and are executed when there is some.
        """
        left = np.arange(len(decisions))
        while len(left):
            undone: list[Words] = []
            tell = partial(self._tell_done, flight, answers, left, undone, decisions=decisions)
            if not await self._execute(picked(decisions, left), tell):
                return False
            (left,) = undone
            if len(left):
                _log.info("bezant: %d decisions on transfers to other shards find no room now", len(left))
                await asyncio.sleep(ASK_AGAIN_S)
        return True

    def _tell_done(
        self,
        flight: Flight,
        answers: Answers,
        numbers: Words,
        undone: list[Words],
        decided: Records,
        *,
        decisions: Records,
    ) -> None:
        """Tell what became of the tries with these numbers, but for those whose decisions were not executed."""
        if not decided["code"].any():
            answers.times[numbers] = decided["timestamp_ns"]
            self._tell(flight, numbers, answers.codes[numbers], decided)
            undone.append(_NO_ROWS)
            return
        is_taken = decided["code"] == _ID_CONFLICT
        if is_taken.any():
            self._take_other_ids(flight, answers, decisions, numbers[is_taken])
        is_undone = is_open(decided["code"]) | is_taken
        done = numbers[~is_undone]
        answers.times[done] = decided["timestamp_ns"][~is_undone]
        self._tell(flight, done, answers.codes[done], decided[~is_undone])
        undone.append(numbers[is_undone])

    def _take_other_ids(self, flight: Flight, answers: Answers, decisions: Records, numbers: Words) -> None:
        """Have other ids for decisions whose own are those of others': see `OTHER_IDS`. Raises `LedgerError`."""
        others = build_decisions(
            flight.events[numbers], answers.codes[numbers], times=answers.times[numbers], salt=OTHER_IDS
        )
        is_open_still = np.isin(flight.sequences[numbers], self._member.replica.ledger.open_tries())
        if not is_open_still.all() or (others["id_tail"] == decisions["id_tail"][numbers]).any():
            raise LedgerError(f"the ids of {len(numbers)} decisions are used, and of other decisions on the same tries")
        _log.warning("bezant: the ids of %d decisions are those of others: they get other ones", len(numbers))
        decisions[numbers] = others

    async def _execute(self, commands: Records, on_committed: Callable[[Records], None]) -> bool:
        """Execute commands here, past those of clients; False if this node leads no more, and nobody knows."""
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

        def respond(answer: Records | Exception) -> None:
            if future.done():
                return
            if not isinstance(answer, Exception):
                on_committed(answer)
            future.set_result(not isinstance(answer, Exception))

        self._lane.add(commands, respond)
        self._schedule()
        return await future

    # ---- what clients are told ----

    def _tell(self, flight: Flight, numbers: Words, codes: Words, decided: Records) -> None:
        """Put what became of the tries with these numbers into the results of those who wait.

        The decisions are committed.
        """
        if flight.batch is None:
            rows, told = np.arange(len(decided)), np.zeros(len(decided), RESULT)
        else:
            rows, told = picked(flight.rows, numbers), flight.batch.results
        wrong = int(quick(write_outcomes)(decided, codes, rows, told))
        if wrong >= 0:
            code = int(decided["code"][wrong])
            what = f"was decided twice: the ledger answers {code} to the second decision"
            raise LedgerError(
                f"the transfer with sequence {flight.sequences[numbers[wrong]]} "
                + (what if code != _COMMITTED else "has been answered before it was decided")
            )
        if flight.batch is not None:
            flight.batch.undecided_count -= len(decided)
        if self._repeats:
            for row, sequence in zip(rows.tolist(), flight.sequences[numbers].tolist(), strict=True):
                self._tell_repeats(sequence, told[row])

    def _tell_repeats(self, sequence: int, told: Any) -> None:
        """Tell those who have asked again for a try that is decided now."""
        for batch, row in self._repeats.pop(sequence, ()):
            _tell_again(batch, row, told)
            batch.undecided_count -= 1

    def _tries_of(self, batch: Batch, rows: Words) -> tuple[Words, Records]:
        """(sequences, events) of the tries that are asked for again: of what came here with a slot, those of copies."""
        positions = batch.results["position"][rows]
        sequences = positions & _SEQUENCE_MASK
        if (positions - sequences == position_of(self._member.replica.shard, 0)).all():
            return sequences, self._events_of(sequences)
        return self._member.replica.ledger.find_events(batch.commands[rows])

    def _note_repeated(self, batch: Batch, rows: Words) -> None:
        """Tell those who ask again what was decided, or have them wait for it.

        By the try's event: whoever asks what became of an id need not know the account that pays.
        """
        ledger = self._member.replica.ledger
        try:
            sequences, tries = self._tries_of(batch, rows)
            found = find_decisions(ledger, tries)
        except CorruptLog:
            raise
        except StorageError as error:
            _log.info("bezant: what became of %d transfers is not to be had now: %s", len(rows), error)
            batch.results["code"][rows] = _UNANSWERED
            return
        is_undecided = found["code"] == _UNDECIDED
        if is_undecided.any() and not np.isin(sequences[is_undecided], ledger.open_tries()).all():
            raise LedgerError("a transfer to another shard has neither ended nor is it under way")
        for row, sequence, result in zip(rows.tolist(), sequences.tolist(), found, strict=True):
            if int(result["code"]) == _UNDECIDED:
                self._repeats.setdefault(sequence, []).append((batch, row))
                batch.undecided_count += 1
            else:
                result["code"] = _told_codes(result["code"])
                _tell_again(batch, row, result)

    # ---- what others have left here ----

    def _sweep_later(self) -> None:
        self._sweep_timer = asyncio.get_running_loop().call_later(SWEEP_S, self._run_sweep)

    def _sweep(self) -> None:
        self._sweep_later()
        self._start(self._orphans.sweep())

    # ---- what has ended ----

    def _settle(self, sequences: Words) -> None:
        """Note transactions that have ended, to be taken from the table with others."""
        if len(sequences):
            self._settled.append(sequences)
        if self._settled and self._settle_timer is None:
            self._settle_timer = asyncio.get_running_loop().call_later(SETTLE_S, self._run_settle)

    def _settle_now(self) -> None:
        self._settle_timer = None
        settled, self._settled = np.concatenate(self._settled or [_NO_ROWS]), []
        if not self._member.is_leader:
            return
        first = 0
        try:
            for first in range(0, len(settled), SETTLED_MAX):
                self._member.replica.settle(settled[first : first + SETTLED_MAX])
        except CorruptLog:
            raise
        except StorageError as error:
            # Nothing is lost: who leads next asks the other shard again, and is told that all is done.
            _log.warning("bezant: transfers to other shards that are done are not settled yet: %s", error)
            self._settled.append(settled[first:])
            self._settle_timer = asyncio.get_running_loop().call_later(ASK_AGAIN_S, self._run_settle)
        self._member.note_appended()
        self._schedule()


def _tell_unanswered(transit: Transit, error: BezantError) -> None:
    if isinstance(error, RequestRefused) and error.code == FrameError.REQUEST_REFUSED:
        transit.tell(str(error))
    else:
        _log.info("bezant: shard %d does not answer, and is asked again: %s", transit.shard, error)


def _told_codes(codes: npt.NDArray[Any]) -> npt.NDArray[np.int16]:
    """What clients are told: of a shard that did not answer in time, that it did not."""
    return np.where(is_open(codes), int(ResultCode.SHARD_UNREACHABLE), codes).astype(np.int16)


def _tell_again(batch: Batch, row: int, result: Any) -> None:
    batch.results[row] = result
    batch.results["flags"][row] = int(ResultFlag.REPEATED)
