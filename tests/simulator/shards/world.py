"""One seed of several shards: their groups, what is between them, and the trouble there, under one schedule."""

from collections import Counter
from types import SimpleNamespace
from unittest import mock

import numpy as np

from bezant.net.server import coordinating, transacting, transacting_steps
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
from .clients import map_of
from .faults import Troubles
from .group import ShardGroup
from .links import Between

PARKED_S = 0.3
APPLIED_S_MAX = 1.0
"""Instead of the tens of seconds that they are else."""


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
        self.books = Books(self.counts)
        chance, drawn = self.schedule.chance("world"), SHARD_PROFILES[profile]
        self.shards = chance.choice([2, 2, 2, 3])
        self.try_s_max = chance.choice([0.3, 1.0, 3.0])
        self.sweep_s = chance.choice([0.05, 0.2, 1.0])
        weather = Weather(chance.choice(drawn.loss), chance.choice(drawn.repeat), chance.choice(drawn.delay_us_max))
        weather = weather._replace(**{kind: 0.0 for kind in ("loss", "repeat") if kind in without})
        self.between = Between(self.schedule, self.counts, weather)
        self.places = SimpleNamespace(owners=owners_of(map_of(self.shards)).astype(np.int64))
        self.groups = [ShardGroup(self, number, drawn.group, without) for number in range(self.shards)]
        self.trouble_us = trouble_us or chance.randrange(TROUBLE_US_MIN, TROUBLE_US_MAX)
        self.troubles = Troubles(self, {kind: rate for kind, rate in drawn.rates.items() if kind not in without})

    def run(self) -> Report:
        """All of it. Raises `Violation`, or what a node has raised."""
        with (
            drawn_salts(self.schedule),
            small_start(),
            mock.patch.object(coordinating, "end_after_bug", _raise),
            mock.patch.object(coordinating, "TRY_S_MAX", self.try_s_max),
            mock.patch.object(coordinating, "SWEEP_S", self.sweep_s),
            mock.patch.object(coordinating, "PARKED_S", PARKED_S),
            mock.patch.object(transacting_steps, "TRY_S_MAX", self.try_s_max),
            mock.patch.object(transacting_steps, "LEG_S_MAX", self.try_s_max),
            mock.patch.object(transacting_steps, "PARKED_S", PARKED_S),
            mock.patch.object(transacting, "APPLIED_S_MAX", APPLIED_S_MAX),
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
        for group in self.groups:
            group._end_trouble()
            group.payer.is_quiet = True
            for node in group.nodes.values():
                node.clock_offset_ns = 0
        for group in self.groups:
            group._wait_until_well()
        for group in self.groups:
            group.relieve()
            group.payer.ask_all_again()
        self._wait_until_settled()
        for group in self.groups:
            group.payer.check()
            group._finish()
        self.books.check_end()

    def _wait_until_settled(self) -> None:
        """No transfer may be stuck."""
        until_us = self.schedule.now_us + HEALING_US_MAX
        while not all(group.is_settled() and group._is_level() and group.payer.knows_all for group in self.groups):
            if self.schedule.now_us >= until_us:
                begun = [transfer for transfer in self.books.transfers.values() if transfer.code == COMMITTED]
                stuck = [str(transfer) for transfer in begun if not transfer.is_settled]
                raise Violation(f"transfers are stuck {HEALING_US_MAX} us after all was well again: {stuck[:3]}")
            self.schedule.run_until(self.schedule.now_us + HEALING_STEP_US)


def _raise(error: BaseException) -> None:
    """What ends a process in the product fails a seed."""
    raise error
