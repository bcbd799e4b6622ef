"""One seed of several shards: their groups, what is between them, and the trouble there, under one schedule."""

from collections import Counter
from unittest import mock

import numpy as np

from bezant.engine.moves import leaving
from bezant.net.server import coordinating, ending, failure, moving, moving_out, transacting, transacting_steps
from bezant.protocol.placement import owners_of

from ..network import Weather
from ..profiles import SHARD_PROFILES
from ..schedule import Schedule, Violation
from ..simulation import (
    HEALING_STEP_US,
    HEALING_US_MAX,
    TROUBLE_US_MAX,
    TROUBLE_US_MIN,
    Report,
    drawn_salts,
    small_start,
)
from .books import COMMITTED, Books
from .clients import map_of, names_of
from .faults import Troubles
from .group import ShardGroup
from .links import Between
from .loop import NodeLoop
from .maps import Maps
from .movers import Mover
from .wanderers import WANDERERS, Wanderer, WanderersAudit, wandering_names, wandering_slot

PARKED_S = 0.3
APPLIED_S_MAX = 1.0
MOVING = {
    "PART_S_MAX": 0.5,
    "BEGIN_S_MAX": 1.0,
    "DRAIN_S_MAX": 0.5,
    "DRAIN_PAUSE_S": 0.1,
    "DRAIN_LOOK_S": 0.01,
    "CAUGHT_UP_ENTRIES": 4,
}
"""Instead of the seconds, and tens of seconds, that they are else."""
PART_RECORDS_MAX = 60
"""What a move brings at a time, at most: half as many events as a segment has room for."""
MOVES_EVERY = 3
"""Of so many seeds one has slots that move."""


class World:
    """See the module."""

    def __init__(
        self,
        seed: int,
        profile: str = "shards",
        *,
        without: frozenset[str] = frozenset(),
        trouble_us: int | None = None,
    ) -> None:
        """As `Simulation`."""
        self.seed = seed
        self.profile = profile
        self.schedule = Schedule(seed)
        self.counts: Counter[str] = Counter()
        self.running_loop: NodeLoop | None = None
        """That of the node which does something just now."""
        chance, drawn = self.schedule.chance("world"), SHARD_PROFILES[profile]
        self.shards = chance.choice([2, 2, 2, 3])
        self.try_s_max = chance.choice([0.3, 1.0, 3.0])
        self.sweep_s = chance.choice([0.05, 0.2, 1.0])
        weather = Weather(chance.choice(drawn.loss), chance.choice(drawn.repeat), chance.choice(drawn.delay_us_max))
        weather = weather._replace(**{kind: 0.0 for kind in ("loss", "repeat") if kind in without})
        self.between = Between(self.schedule, self.counts, weather)
        self.maps = Maps(self)
        self.has_moves = seed % MOVES_EVERY == 0
        numbers = range(WANDERERS if self.has_moves else 0)
        self.owners = owners_of(map_of(self.shards)).astype(np.int64)
        """The shard of each slot, but for those that move."""
        slots = [wandering_slot(self.shards, number) for number in numbers]
        self.books = Books(self.counts, {slot: int(self.owners[slot]) for slot in slots}, self.shards)
        self.names = [names_of(self.shards, shard) for shard in range(self.shards)]
        """Of the accounts in each shard, but for those in slots that move."""
        self.wandering = [wandering_names(self.shards)[number] for number in numbers]
        self.part_records_max = chance.choice([4, PART_RECORDS_MAX])
        self.groups = [ShardGroup(self, number, drawn.group, without) for number in range(self.shards)]
        self.wanderers = [Wanderer(self, number) for number in numbers]
        self.payers = [one.payer for one in (*self.groups, *self.wanderers)]
        self.trouble_us = trouble_us or chance.randrange(TROUBLE_US_MIN, TROUBLE_US_MAX)
        self.troubles = Troubles(self, {kind: rate for kind, rate in drawn.rates.items() if kind not in without})
        self.mover = Mover(self) if self.has_moves else None

    def run(self) -> Report:
        """All of it. Raises `Violation`, or what a node has raised."""
        with (
            drawn_salts(self.schedule),
            small_start(),
            mock.patch.object(coordinating, "end_after_bug", _raise),
            mock.patch.multiple(failure, end_after_bug=_raise, end_after_failed_sync=_raise),
            mock.patch.object(coordinating, "TRY_S_MAX", self.try_s_max),
            mock.patch.object(coordinating, "SWEEP_S", self.sweep_s),
            mock.patch.object(ending, "PARKED_S", PARKED_S),
            mock.patch.object(transacting_steps, "TRY_S_MAX", self.try_s_max),
            mock.patch.object(transacting_steps, "LEG_S_MAX", self.try_s_max),
            mock.patch.object(transacting_steps, "PARKED_S", PARKED_S),
            mock.patch.object(transacting, "APPLIED_S_MAX", APPLIED_S_MAX),
            mock.patch.object(moving, "end_after_bug", _raise),
            mock.patch.multiple(moving_out, **MOVING, PART_RECORDS_MAX=self.part_records_max),
            mock.patch.multiple(leaving, PART_RECORDS_MAX=self.part_records_max, OUT_RECORDS_MAX=self.part_records_max),
        ):
            try:
                self._run()
            finally:
                for group in self.groups:
                    group.end()
        for name, value in sorted(self.counts.items()):
            self.schedule.note(name, value)
        entries = sum(group.checks.commit_index for group in self.groups)
        return Report(self.seed, self.profile, self.schedule.trace_hash, self.counts, entries, self.schedule.now_us)

    def _run(self) -> None:
        self.schedule.run_until(self.trouble_us)
        self.troubles.is_over = True
        self.between.heal()
        self.maps.is_away, self.maps.loss = False, 0.0
        for wanderer in self.wanderers:
            wanderer.fall_silent()
        for group in self.groups:
            group._end_trouble()
            for node in group.nodes.values():
                node.clock_offset_ns = 0
        for payer in self.payers:
            payer.is_quiet = True
        for group in self.groups:
            group._wait_until_well()
        self._relieve()
        for payer in self.payers:
            payer.ask_all_again()
        for wanderer in self.wanderers:
            wanderer.ask_again()
        self._wait_until_settled()
        for payer in self.payers:
            payer.check()
        for group in self.groups:
            group._finish()
        if self.wanderers:
            WanderersAudit(self.wanderers, {group.shard: group.audit for group in self.groups}).run()
        self.books.check_end()

    def _relieve(self) -> None:
        """What stands in the way of giving money back is seen to."""
        for one in (*self.groups, *self.wanderers):
            one.relieve()

    def _wait_until_settled(self) -> None:
        """No transfer may be stuck."""
        until_us = self.schedule.now_us + HEALING_US_MAX
        late_us = self.schedule.now_us + HEALING_US_MAX // 2
        while not (
            all(group.is_settled() and group._is_level() for group in self.groups)
            and all(one.knows_all for one in (*self.payers, *self.wanderers))
        ):
            if self.schedule.now_us >= late_us:
                late_us = until_us
                self._relieve()  # A FREEZE that had been on its way until then is in the way again.
            if self.schedule.now_us >= until_us:
                begun = [transfer for transfer in self.books.transfers.values() if transfer.code == COMMITTED]
                stuck = [str(transfer) for transfer in begun if not transfer.is_settled]
                moves = [leader.move_status() for group in self.groups if (leader := group.shard_leader())]
                what = f"{stuck[:3]}, moves: {moves}"
                raise Violation(f"something is stuck {HEALING_US_MAX} us after all was well again: {what}")
            if self.mover is not None:
                self.mover.bring_back()
            self.schedule.run_until(self.schedule.now_us + HEALING_STEP_US)


def _raise(error: BaseException) -> None:
    """What ends a process in the product fails a seed."""
    raise error
