"""Decisions that another shard is still to be told of: they ride with the next question to that shard.

Nobody waits for what a decision leads to there, but each question costs that shard a turn of its loop and a sync. So a
decision waits for the tries that follow it, which cost both anyway; if none do, END_S.

Bound: END_COMMANDS to one shard in one currency, END_S.
"""

import asyncio
from collections.abc import Callable
from typing import Final, NamedTuple

from bezant.engine.transactions.ids import joined
from bezant.engine.transactions.legs import build_second_legs
from bezant.net.server.failure import or_end
from bezant.net.server.flights import Asked, Decided, joined_decided
from bezant.net.server.transits import Transit
from bezant.protocol.records import Records

END_S: Final = 0.005
END_COMMANDS: Final = 1024
"""Seconds in which decisions collect that another shard is to be told of, unless there are so many, or tries are asked
for there."""


class Riders(NamedTuple):
    """Decisions, and what follows from each of them in the other shard (COMMAND records)."""

    decided: Decided
    legs: Records


class Question(NamedTuple):
    """Tries that another shard is asked for, and what rides with them."""

    asked: Asked
    riders: Riders | None


class WaitingRiders:
    """See the module. All methods on the loop."""

    def __init__(self, on_left: Callable[[Transit, Decided], None]) -> None:
        """`on_left` tells another shard of what nothing has taken along."""
        self._on_left = on_left
        self._waiting: dict[Transit, list[Riders]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        """The transit accounts for which there are some."""
        return len(self._waiting)

    def add(self, transit: Transit, decided: Decided) -> None:
        """Have a shard told of decisions, soon."""
        if len(decided.sequences) >= END_COMMANDS:
            self._on_left(transit, decided)
            return
        waiting = self._waiting.setdefault(transit, [])
        # Built now, and not when the try is there that takes them along: somebody waits for that.
        legs = build_second_legs(decided.tries, decided.decisions, transit.far_id, times=decided.times)
        waiting.append(Riders(decided, legs))
        if self._count(transit) >= END_COMMANDS:
            self._on_left(transit, self._joined(transit).decided)
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(END_S, or_end(self._leave))

    def take(self, transit: Transit, count_max: int) -> Riders | None:
        """What may be told together with a question; None if there is nothing, or too much for that."""
        if transit not in self._waiting or self._count(transit) > count_max:
            return None
        return self._joined(transit)

    def clear(self) -> None:
        """Forget all: this node leads no more, and whoever does will find them."""
        self._waiting.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _count(self, transit: Transit) -> int:
        return sum(len(riders.legs) for riders in self._waiting[transit])

    def _joined(self, transit: Transit) -> Riders:
        waiting = self._waiting.pop(transit)
        if len(waiting) == 1:
            return waiting[0]
        decided = joined_decided([riders.decided for riders in waiting])
        return Riders(decided, joined([riders.legs for riders in waiting]))

    def _leave(self) -> None:
        self._timer = None
        for transit in list(self._waiting):
            self._on_left(transit, self._joined(transit).decided)
