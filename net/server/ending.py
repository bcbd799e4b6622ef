"""What was decided on transfers to other shards is done there, however long that takes: the second phase.

Most decisions ride with the tries that follow (`riders.py`). What is left over, what the other shard has not done at
the first question, and what a leader finds when it takes over, is here until it is done. A shard that is silent
(`silence.py`) is asked for what there was when that began; what is decided after that waits until it is heard of.

Bound: what was decided and is not settled, which a leader finds in its ledger.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, NamedTuple

import numpy as np

from bezant.engine.member import Member
from bezant.engine.replica import BATCH_COMMANDS_MAX
from bezant.engine.transactions.legs import OTHER_IDS, build_second_legs
from bezant.net.server.flights import Decided, Places, Routes, joined_decided
from bezant.net.server.transacting_steps import ASK_AGAIN_S, LEG_S_MAX, PARKED_S, is_open
from bezant.net.server.transits import Transit, Transits
from bezant.protocol.codes import ResultCode
from bezant.protocol.kinds import CommandKind
from bezant.protocol.records import Records, Words

_CONFIRM: Final = int(CommandKind.CONFIRM)
_COMMITTED: Final = int(ResultCode.COMMITTED)
_WRONG_SHARD: Final = int(ResultCode.WRONG_SHARD)
_ID_CONFLICT: Final = int(ResultCode.ID_CONFLICT)
_CURRENCY_UNKNOWN: Final = int(ResultCode.CURRENCY_UNKNOWN)
_UNANSWERED: Final = int(ResultCode.OVERLOADED)

_log = logging.getLogger("bezant")


class EndingHooks(NamedTuple):
    """What the coordinator of the shard does for its second phase.

    `ask` has a shard execute legs within so many seconds; None if it does not answer now.
    """

    start: Callable[[Coroutine[Any, Any, None]], None]
    settle: Callable[[Words], None]
    is_silent: Callable[[int], bool]
    ask: Callable[[Transit, Records, float], Awaitable[Records | None]]


class Ending:
    """See the module. All methods on the loop."""

    def __init__(self, member: Member, places: Places, transits: Transits, hooks: EndingHooks) -> None:
        self._member = member
        self._places = places
        self._transits = transits
        self._hooks = hooks
        self._asking: Counter[int] = Counter()
        """What is under way, by shard."""
        self._waiting: dict[Transit, list[Decided]] = {}
        """What waits until a shard is heard of."""

    def end_now(self, transit: Transit, decided: Decided) -> None:
        """Have that done from now on, a batch at a time; what is done is settled."""
        if self._asking[transit.shard] and self._hooks.is_silent(transit.shard):
            self._waiting.setdefault(transit, []).append(decided)
            return
        for first in range(0, len(decided.sequences), BATCH_COMMANDS_MAX):
            self._hooks.start(self._end(transit, decided.part(slice(first, first + BATCH_COMMANDS_MAX))))

    def on_heard(self, shard: int) -> None:
        """A shard that was silent has answered: have everything done that waits for it."""
        for transit in [one for one in self._waiting if one.shard == shard]:
            self.end_now(transit, joined_decided(self._waiting.pop(transit)))

    def lose(self) -> None:
        """Forget what waits: this node leads no more, and whoever does will find it."""
        self._waiting.clear()

    async def _end(self, transit: Transit, decided: Decided) -> None:
        """Have the other shard do what was decided, however long that takes, and note that all is done.

        What it refuses to do, though it was tried there, is parked: told at each question, and never dropped.
        """
        self._asking[transit.shard] += 1
        try:
            await self._end_parking(transit, decided, self._member.replica.parked)
        finally:
            self._member.replica.parked.difference_update(decided.sequences.tolist())
            self._asking[transit.shard] -= 1
        if not self._asking[transit.shard]:
            self.on_heard(transit.shard)  # Of another one: slots have moved. Somebody must go on asking this one.

    async def _end_parking(self, transit: Transit, decided: Decided, all_parked: set[int]) -> None:
        loop = asyncio.get_running_loop()
        tries, sequences = decided.tries, decided.sequences
        is_confirm = decided.decisions["kind"] == _CONFIRM
        routes = Routes(self._transits, self._places, transit, tries)
        left, due_s = np.arange(len(tries)), np.full(len(tries), loop.time())
        changes = np.zeros(len(tries), np.int64)
        while len(left):
            asked = left[due_s[left] <= max(loop.time(), due_s[left].min())]
            codes = np.full(len(tries), _UNANSWERED, np.int64)
            for there, rows in routes.groups(asked):
                results = await self._hooks.ask(
                    there, _second_legs(decided, rows, changes[rows], there.far_id), LEG_S_MAX
                )
                if results is not None:
                    codes[rows] = results["code"]
            # What a shard has no transit account for was never tried there (`Coordinator._ask`).
            never_there = codes == _CURRENCY_UNKNOWN
            codes[never_there] = np.where(is_confirm[never_there], _WRONG_SHARD, _COMMITTED)
            is_done = codes == _COMMITTED
            done = asked[is_done[asked]]
            self._hooks.settle(sequences[done])
            if all_parked:
                all_parked.difference_update(sequences[done].tolist())
            left = left[~is_done[left]]
            if not len(left):
                return
            is_taken = (codes == _ID_CONFLICT) & (changes == 0)
            changes[is_taken] = OTHER_IDS
            moved = asked[codes[asked] == _WRONG_SHARD]
            routes.follow(moved[~is_confirm[moved]])
            is_in_vain = routes.seek(moved[is_confirm[moved]])
            is_refused = ~is_open(codes) & ~is_done & ~is_taken
            parked = np.concatenate([asked[is_refused[asked]], moved[is_confirm[moved]][is_in_vain]])
            all_parked.update(sequences[parked].tolist())
            if len(parked):
                _tell_parked(transit, codes[parked], sequences[parked])
            due_s[asked] = loop.time() + ASK_AGAIN_S
            due_s[parked] = loop.time() + PARKED_S
            await asyncio.sleep(max(float(due_s[left].min()) - loop.time(), 0.0))


def _tell_parked(transit: Transit, codes: Words, sequences: Words) -> None:
    _log.error(
        "bezant: shard %d answers %d to what was decided of %d transfers, the first with sequence %d: its books "
        "and ours do not agree. They stay as they are (`bezant transactions`) and are asked for again; see what "
        "has become of that shard's log",
        transit.shard,
        codes[0],
        len(codes),
        sequences[0],
    )


def _second_legs(decided: Decided, rows: Words, changes: Words, far_id: Words) -> Records:
    """What the other shard is to do of these; `changes` are OTHER_IDS for those whose first ids are taken, else 0."""
    part = decided.part(rows)
    legs = build_second_legs(part.tries, part.decisions, far_id, times=part.times)
    taken = np.flatnonzero(changes)
    if len(taken):
        part = part.part(taken)
        legs[taken] = build_second_legs(part.tries, part.decisions, far_id, times=part.times, change=OTHER_IDS)
    return legs
