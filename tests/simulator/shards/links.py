"""Between shards: questions of coordinators and their answers are lost, late, repeated, clogged and cut off."""

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from bezant.protocol.errors import ConnectionFailed, RequestRefused
from bezant.protocol.frames import FrameError, Operation
from bezant.protocol.records import RESULT, Records, Words

from ..frames import Outcome
from ..network import FINE, Weather
from ..schedule import Schedule

if TYPE_CHECKING:
    from .group import ShardGroup
    from .node import ShardNode

RESEND_S_MIN, RESEND_S_MAX = 0.08, 0.3
"""Seconds without an answer after which another node is asked."""
BACK_OFF_S_MAX = 0.04

Link = tuple[int, int]


class Question(NamedTuple):
    """One sending: who asks, in which life, by what number; legs, which tries are known, or a part of a move."""

    group: "ShardGroup"
    node_id: int
    boot: int
    number: int
    body: bytes
    operation: Operation


class LegsAnswer(NamedTuple):
    """What a node answers, or where to go (`leader`, or 0)."""

    outcome: Outcome
    body: bytes
    node_id: int
    leader: int


class Between:
    """The network between shards; a link is (shard, shard)."""

    def __init__(self, schedule: Schedule, counts: Counter[str], weather: Weather) -> None:
        self._schedule = schedule
        self._counts = counts
        self.weather = weather
        self.cut: set[Link] = set()
        self._clogged_until_us: dict[Link, int] = {}

    def send(self, link: Link, action: Callable[..., None], *arguments: Any) -> None:
        """Have something done at the other end."""
        weather, chance = self.weather, self._schedule.chance("between shards")
        if link in self.cut:
            self._counts["legs cut off"] += 1
            return
        if chance.random() < weather.loss:
            self._counts["legs lost"] += 1
            return
        copies = 1
        if chance.random() < weather.repeat:
            copies = 2
            self._counts["legs repeated on their way"] += 1
        for _ in range(copies):
            delay_us = chance.randrange(100, weather.delay_us_max + 101)
            clogged_us = self._clogged_until_us.get(link, 0) - self._schedule.now_us
            if clogged_us > 0:
                self._counts["legs clogged"] += 1
                delay_us += clogged_us
            self._schedule.after(delay_us, self._arrive, link, action, arguments)

    def _arrive(self, link: Link, action: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        if link not in self.cut:
            action(*arguments)

    def clog(self, link: Link, duration_us: int) -> None:
        """Nothing arrives for a while, and then all of it."""
        self._clogged_until_us[link] = self._schedule.now_us + duration_us

    def heal(self) -> None:
        """End all faults."""
        self.weather = FINE
        self.cut.clear()
        self._clogged_until_us.clear()


class _Asked:
    """A question that waits for its answer."""

    def __init__(self, shard: int, body: bytes, operation: Operation, future: asyncio.Future[bytes]) -> None:
        self.shard = shard
        self.body = body
        self.operation = operation
        self.future = future
        self.sendings = 0


class _Begun:
    """Legs that are on their way."""

    def __init__(self, answer: asyncio.Future[bytes]) -> None:
        self._answer = answer

    async def results(self) -> Records:
        return np.frombuffer(bytearray(await self._answer), RESULT)


class Links:
    """How the coordinator of one life of a node asks other shards: as a client's channel does, of whoever leads."""

    def __init__(self, node: "ShardNode", group: "ShardGroup") -> None:
        self._node = node
        self._group = group
        self._boot = node.boot
        self._asked: dict[int, _Asked] = {}
        self._last = 0
        self._leaders: dict[int, int] = {}

    async def ask(self, shard: int, commands: Records, timeout_s: float) -> Records:
        """See `bezant.net.server.coordinating.Links`."""
        return await self.begin(shard, commands, timeout_s).results()

    def begin(self, shard: int, commands: Records, timeout_s: float) -> _Begun:
        """See `bezant.net.server.coordinating.Links`."""
        return _Begun(self._begin(shard, commands.tobytes(), timeout_s, Operation.LEGS))

    async def ask_tries(self, shard: int, ids: Words, timeout_s: float) -> npt.NDArray[np.bool_]:
        """See `bezant.net.server.orphans.AsksTries`."""
        self._group.counts["tries asked for"] += len(ids)
        return np.frombuffer(await self._ask(shard, ids.tobytes(), timeout_s, Operation.TRIES), np.uint8) != 0

    async def request(self, shard: int, operation: Operation, body: bytes, timeout_s: float) -> bytes:
        """See `bezant.net.server.moving_out.PartLinks`."""
        return await self._ask(shard, body, timeout_s, operation)

    async def _ask(self, shard: int, body: bytes, timeout_s: float, operation: Operation) -> bytes:
        return await self._begin(shard, body, timeout_s, operation)

    def _begin(self, shard: int, body: bytes, timeout_s: float, operation: Operation) -> asyncio.Future[bytes]:
        loop = asyncio.get_running_loop()
        self._last += 1
        number, future = self._last, loop.create_future()
        self._asked[number] = _Asked(shard, body, operation, future)
        timer = loop.call_later(timeout_s, self._give_up, number)

        def forget(answer: asyncio.Future[bytes]) -> None:
            timer.cancel()
            self._asked.pop(number, None)
            if not answer.cancelled():
                answer.exception()  # Who asked may have given it up.

        future.add_done_callback(forget)
        self._send(number)
        return future

    def _give_up(self, number: int) -> None:
        asked = self._asked.get(number)
        if asked is not None and not asked.future.done():
            self._group.counts["questions without an answer"] += 1
            asked.future.set_exception(ConnectionFailed("no answer came"))

    def _send(self, number: int) -> None:
        asked = self._asked.get(number)
        if asked is None or asked.future.done():
            return
        asked.sendings += 1
        self._group.counts["legs sent again"] += asked.sendings > 1
        far, chance = self._group.world.groups[asked.shard], self._group.schedule.chance("links")
        node_id = self._leaders.get(asked.shard) or chance.choice(list(far.nodes))
        question = Question(self._group, self._node.node_id, self._boot, number, asked.body, asked.operation)
        self._group.world.between.send((self._group.shard, far.shard), far.on_legs, node_id, question)
        delay_s = chance.uniform(RESEND_S_MIN, RESEND_S_MAX)
        asyncio.get_running_loop().call_later(delay_s, self._on_silence, number, asked.sendings)

    def _on_silence(self, number: int, sendings: int) -> None:
        asked = self._asked.get(number)
        if asked is not None and asked.sendings == sendings:
            self._leaders.pop(asked.shard, None)
            self._send(number)

    def on_answer(self, number: int, answer: LegsAnswer) -> None:
        """An answer has arrived, perhaps to what nobody waits for any more."""
        asked = self._asked.get(number)
        if asked is None or asked.future.done():
            self._group.counts["legs answered too late"] += 1
            return
        if answer.outcome is Outcome.DONE:
            self._leaders[asked.shard] = answer.node_id
            asked.future.set_result(answer.body)
            return
        if answer.outcome is Outcome.REFUSED:
            asked.future.set_exception(
                RequestRefused(FrameError.REQUEST_REFUSED, answer.body.decode() or "of another time")
            )
            return
        self._leaders[asked.shard] = answer.leader
        back_off_s = self._group.schedule.chance("links").uniform(0, BACK_OFF_S_MAX)
        asyncio.get_running_loop().call_later(back_off_s, self._on_silence, number, asked.sendings)
