"""What goes wrong between shards, and when; within each, its own `Faults` see to it."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from ..faults import CLOG_US_MAX, US_PER_S

if TYPE_CHECKING:
    from .world import World

APART_US = (1_000_000, 3_000_000)
IN_MOVE_US_MAX = 60_000
MAPS_AWAY_US = (200_000, 1_500_000)


class Troubles:
    """Trouble between shards, until it ends."""

    def __init__(self, world: "World", rates: dict[str, float]) -> None:
        self._world = world
        self._schedule = world.schedule
        self.is_over = False
        self._kinds: dict[str, Callable[[], None]] = {
            "apart": lambda: self._cut(both_ways=True),
            "deaf": lambda: self._cut(both_ways=False),
            "together": self._heal,
            "clogged between": self._clog,
            "power of all shards": self._stop_all,
            "lost and apart": self._lose_and_cut,
            "lost in a move": self._lose_in_move,
            "maps away": self._take_maps_away,
        }
        for kind, rate in rates.items():
            self._arm(kind, rate * self._schedule.chance(kind).choice([0, 0.5, 1, 2]))

    def _arm(self, kind: str, rate: float) -> None:
        if rate:
            delay_us = int(self._schedule.chance(kind).expovariate(rate) * US_PER_S)
            self._schedule.after(delay_us, self._begin, kind, rate)

    def _begin(self, kind: str, rate: float) -> None:
        if not self.is_over:
            self._kinds[kind]()
            self._world.counts[f"fault: {kind}"] += 1
            self._arm(kind, rate)

    def _some_link(self, kind: str) -> tuple[int, int]:
        first, second = self._schedule.chance(kind).sample(range(self._world.shards), 2)
        return first, second

    def _cut(self, *, both_ways: bool) -> None:
        """Nothing goes from one shard to another; or neither way."""
        link = self._some_link("apart" if both_ways else "deaf")
        self._world.between.cut |= {link, link[::-1]} if both_ways else {link}

    def _heal(self) -> None:
        self._world.between.cut.clear()

    def _clog(self) -> None:
        kind = "clogged between"
        self._world.between.clog(self._some_link(kind), self._schedule.chance(kind).randrange(CLOG_US_MAX))

    def _lose_and_cut(self) -> None:
        """Who takes a saga over that has come some way does not reach a shard that the leader before it did."""
        self._world.books.parts.on_halfway = self._take_apart

    def _take_apart(self, shard: int) -> None:
        self._world.books.parts.on_halfway = None
        chance = self._schedule.chance("lost and apart")
        other = chance.choice([number for number in range(self._world.shards) if number != shard])
        self._schedule.after(0, self._stop_leader, shard)
        links = {(shard, other), (other, shard)}
        self._world.between.cut |= links
        self._schedule.after(chance.randrange(*APART_US), self._world.between.cut.difference_update, links)

    def _lose_in_move(self) -> None:
        """One of the two leaders is lost at the next step of a move, or a little later."""
        self._world.books.movements.on_step = self._lose_one

    def _lose_one(self, shard: int, peer: int) -> None:
        self._world.books.movements.on_step = None
        chance = self._schedule.chance("lost in a move")
        self._schedule.after(chance.randrange(IN_MOVE_US_MAX), self._stop_leader, chance.choice([shard, peer]))

    def _take_maps_away(self) -> None:
        maps = self._world.maps
        maps.is_away = True
        self._schedule.after(self._schedule.chance("maps away").randrange(*MAPS_AWAY_US), maps.come_back)

    def _stop_leader(self, shard: int) -> None:
        leader = self._world.groups[shard].faults._leader()
        if leader is not None and not self.is_over:
            leader.stop("kill")

    def _stop_all(self) -> None:
        for group in self._world.groups:
            for node in group.nodes.values():
                if node.is_up:
                    node.stop("power")
