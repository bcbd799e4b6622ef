"""Tries of other shards that nobody there carries on: their leader was lost before it had done its own half.

Whoever leads that shard now has never heard of them, and no client was told anything. So what has been under way here
for some time is asked for there, and taken back if it is unknown. It never comes again after that: a repeat of such a
try is refused. The answer is the leader's, as of what is committed, so that a try which stands there is never unknown.
But it may come to stand there when that is on its way: a client repeats its transfer, and the same try comes here again
and is answered that it stands. So what comes again while the question is out is left for the next look. What comes
after the CANCEL was put into the lane is executed behind it.

Bounds: `TRIES_MAX` tries in a question; one question, and one look, at a time.
"""

import logging
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from bezant.engine.member import Member
from bezant.engine.transactions.ids import words_of
from bezant.engine.transactions.legs import build_orphan_cancels
from bezant.net.server.legs import LegsLane
from bezant.net.server.transits import Transit, Transits
from bezant.protocol.errors import BezantError, CorruptLog, StorageError
from bezant.protocol.frames import TRIES_COUNT_MAX
from bezant.protocol.kinds import CommandFlag, CommandKind
from bezant.protocol.records import Records, Words

ASK_S_MAX: Final = 5.0
"""Seconds that another shard may take to say what it has under way, before it is asked again at the next look."""
TRIES_MAX: Final = TRIES_COUNT_MAX
"""Tries that are asked for together."""

_log = logging.getLogger("bezant")

Execute = Callable[[Records, Callable[[Records], None]], Awaitable[bool]]


class AsksTries(Protocol):
    """How other shards are asked what they have under way."""

    async def ask_tries(self, shard: int, ids: Words, timeout_s: float) -> npt.NDArray[np.bool_]:
        """Which of these TRY_CREDITs (int64 of shape (count, 2)) that shard has under way. Raises `BezantError`."""
        ...


class Orphans:
    """See the module. All methods on the loop."""

    def __init__(self, member: Member, transits: Transits, links: AsksTries, lane: LegsLane, execute: Execute) -> None:
        """`execute` has commands executed past those of clients, and tells when they are committed."""
        self._member = member
        self._transits = transits
        self._links = links
        self._lane = lane
        self._execute = execute
        self._next_sequence = 0
        """Of the last look: what came before it, and is still there at the next, has had its time."""
        self._is_looking = False

    def lose(self) -> None:
        """This node leads no more."""
        self._next_sequence = 0
        self._is_looking = False

    async def sweep(self) -> None:
        """Ask for everything that was here at the last look already, unless that is being done."""
        if self._is_looking:
            return
        ledger = self._member.replica.ledger
        sequences = ledger.open_tries(CommandKind.TRY_CREDIT)
        sequences = sequences[sequences < self._next_sequence]
        self._next_sequence = ledger.next_sequence
        self._is_looking = True
        try:
            for first in range(0, len(sequences), TRIES_MAX):
                await self._ask_for(sequences[first : first + TRIES_MAX])
        finally:
            self._is_looking = False

    async def _ask_for(self, sequences: Words) -> None:
        try:
            tries = self._member.replica.log.read_events(sequences)
        except CorruptLog:
            raise
        except StorageError as error:
            _log.info("bezant: tries of other shards are looked at later: %s", error)
            return
        # Those of transactions are never tried before that is committed.
        tries = tries[tries["flags"] & int(CommandFlag.PART) == 0]
        for transit, numbers in self._transits.groups(tries, "debit"):
            await self._ask(transit, tries[numbers])

    async def _ask(self, transit: Transit, tries: Records) -> None:
        came_again = np.zeros(len(tries), np.bool_)

        def note(commands: Records) -> None:
            # Half of the id is enough: one that only looks the same waits for another look.
            np.logical_or(came_again, np.isin(tries["id_tail"], commands["id_tail"]), out=came_again)

        self._lane.watch = note
        try:
            is_known = await self._links.ask_tries(transit.shard, words_of(tries, "id"), ASK_S_MAX)
        except BezantError as error:
            _log.info("bezant: shard %d does not say what it has under way: %s; asked later", transit.shard, error)
            return
        finally:
            self._lane.watch = None
        orphans = tries[~is_known & ~came_again]
        if len(orphans) and await self._execute(build_orphan_cancels(orphans), _nothing_more):
            _log.warning(
                "bezant: %d tries of shard %d are unknown there, and are taken back: its leader was lost before it had "
                "committed them",
                len(orphans),
                transit.shard,
            )


def _nothing_more(results: Records) -> None:
    """They are cancelled, or have been meanwhile."""
