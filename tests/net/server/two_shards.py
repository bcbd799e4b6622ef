"""Two shards in one process, each a reactor over a folder of its own, and what can befall what they ask each other."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from bezant.engine.opening import open_member
from bezant.engine.placement.maps import first_map
from bezant.engine.transactions import legs, parts
from bezant.net.server.coordinating import Coordinator
from bezant.net.server.placing import Placing
from bezant.net.server.reactor import Reactor
from bezant.net.server.requests import AnsweredElsewhere, tries_of
from bezant.protocol.errors import ConnectionFailed, RequestRefused
from bezant.protocol.frames import FrameError
from bezant.protocol.names import account_id, slot_of
from bezant.protocol.placement import owners_of
from bezant.protocol.records import Records, Words, id_words
from bezant.protocol.transactions import Leg

from ...engine.commands import join, transfer
from .node import LARGE_SETTINGS, until

SLOTS = owners_of(first_map({0: ["a:1"], 1: ["b:1"]}))


def name_in(shard: int, number: int) -> str:
    """The name of an account that lies in a shard."""
    tries = (f"{{s{shard}-{number}-{attempt}}}:wallet" for attempt in range(1000))
    return next(name for name in tries if SLOTS[slot_of(account_id(name, "EUR"))] == shard)


class Shard:
    """A reactor over a folder of its own; a client is whoever submits."""

    def __init__(self, path: Path, number: int, network: "Network") -> None:
        self.path, self.number, self.network = path, number, network
        self.names = [name_in(number, n) for n in range(4)]
        self.asked: set[asyncio.Future[Any]] = set()
        """What clients wait for, who see when it is lost."""
        self.open()

    def open(self) -> None:
        self.member = open_member(self.path, shard=self.number, settings=LARGE_SETTINGS)
        self.reactor = Reactor(self.member, asyncio.get_running_loop())
        placing = Placing(self.number, first_map({0: ["a:1"], 1: ["b:1"]}))
        links = Asking(self.network, self.number)
        reactor = self.reactor
        reactor.coordinator = Coordinator(self.member, placing, links, reactor.legs, reactor.schedule)
        self.reactor.schedule()

    @property
    def ledger(self):
        return self.member.replica.ledger

    async def execute(self, commands: Records) -> Records:
        future = self.asking()
        assert self.reactor.submit(commands, future)
        async with asyncio.timeout(20):
            return await future

    def asking(self) -> asyncio.Future[Any]:
        """For an answer; it fails with `ConnectionFailed` if the shard is lost before."""
        future = asyncio.get_running_loop().create_future()
        self.asked.add(future)
        future.add_done_callback(self.asked.discard)
        return future

    def balances(self, *names: str) -> list[int]:
        return [int(self.account(name)["balance"]) for name in names]

    def account(self, name: str, currency: str = "EUR"):
        ids = np.array([id_words(account_id(name, currency))], np.int64)
        return self.ledger.lookup_accounts(ids)[0]

    def total(self) -> int:
        """What the wallets have, without the outside world and what is in transit."""
        return sum(self.balances(*self.names))

    @property
    def is_settled(self) -> bool:
        return not len(self.ledger.open_tries()) and not len(self.ledger.unsettled())

    @property
    def is_still(self) -> bool:
        """Whether all that was executed is durable, and the reactor is about to do nothing."""
        reactor = self.reactor
        return reactor._group is None and not reactor._pump_scheduled and not reactor._has_unwritten

    def crash(self) -> None:
        """End without answering anybody, and open the folder again. Nothing of the reactor may be under way."""
        self.reactor.coordinator.lose()
        self.reactor._expiry.stop()
        self.reactor.end()
        self.reactor._sync_thread.stop()
        self.reactor.publisher.close()
        self.member.close()
        for future in [*self.asked]:
            if not future.done():
                future.set_exception(ConnectionFailed("the node is gone"))
        self.open()


class Network:
    """Between two shards; `trouble` says of each question what becomes of it."""

    def __init__(self) -> None:
        self.shards: dict[int, Shard] = {}
        self.trouble: Callable[[Records], str] = lambda commands: ""
        self.legs: list[Records] = []
        self.questions = 0
        """Answers to what a shard has under way."""

    async def ask(self, asking: int, shard: int, commands: Records, timeout_s: float) -> Records:
        trouble = self.trouble(commands)
        self.legs.append(commands.copy())
        if trouble == "lost":
            raise ConnectionFailed("the question was lost")
        if trouble == "late":
            await asyncio.sleep(0.02)
        future = asyncio.get_running_loop().create_future()

        def respond(answer: Records | Exception) -> None:
            if future.done():
                return
            if isinstance(answer, Exception):
                is_refused = not isinstance(answer, AnsweredElsewhere)
                refusal = RequestRefused(int(FrameError.REQUEST_REFUSED), str(answer))
                future.set_exception(refusal if is_refused else ConnectionFailed("no leader"))
            else:
                future.set_result(answer.copy())

        for _ in range(2 if trouble == "twice" else 1):
            self.shards[shard].reactor.submit_legs(commands.copy(), respond)
        if trouble == "no answer":
            raise ConnectionFailed("the answer was lost")
        try:
            async with asyncio.timeout(0.5):
                return await future
        except TimeoutError as error:
            raise ConnectionFailed("no answer came") from error


class Begun:
    """Legs on their way: asked for by a task of its own."""

    def __init__(self, asking: Coroutine[Any, Any, Records]) -> None:
        self._task = asyncio.create_task(asking)
        self._task.add_done_callback(lambda task: task.cancelled() or task.exception())

    async def results(self) -> Records:
        return await self._task


class Asking:
    """How one shard's coordinator sees the others."""

    def __init__(self, network: Network, shard: int) -> None:
        self._network, self._shard = network, shard

    async def ask(self, shard: int, commands: Records, timeout_s: float) -> Records:
        return await self._network.ask(self._shard, shard, commands, timeout_s)

    def begin(self, shard: int, commands: Records, timeout_s: float) -> Begun:
        return Begun(self.ask(shard, commands, timeout_s))

    async def ask_tries(self, shard: int, ids: Words, timeout_s: float) -> npt.NDArray[np.bool_]:
        future = asyncio.get_running_loop().create_future()
        reactor = self._network.shards[shard].reactor

        def respond(answer: bytes | Exception) -> None:
            if isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(answer)

        reactor.ask_past_clients(tries_of(reactor.replica, ids.tobytes()), respond)
        known = np.frombuffer(await future, np.uint8) != 0
        self._network.questions += 1
        return known


async def fund(shard: Shard, amount: int = 100) -> None:
    world = f"{{{shard.names[0]}}}"
    results = await shard.execute(join(*(transfer(world, name, amount) for name in shard.names)))
    assert not results["code"].any()


async def settled(*shards: Shard) -> None:
    await until(lambda: all(shard.is_settled and not shard.reactor.coordinator.under_way_count for shard in shards))
    for shard in shards:
        shard.ledger.check_invariants()


def make_alike(monkeypatch: pytest.MonkeyPatch, alike: Sequence[Leg]) -> list[bool]:
    """Have all ids of some legs be the same, as if somebody had looked for such; returns which were asked for since.

    Those that are derived in another way are as they were.
    """
    of_words, of_records = legs.derived_ids_of, legs.derived_ids
    asked: list[bool] = []

    def made_alike(ids: npt.NDArray[np.int64], names: Leg | Words, salt: int) -> npt.NDArray[np.int64]:
        is_alike = np.isin(np.broadcast_to(np.asarray(names), len(ids)), alike)
        if salt == 0:
            ids[is_alike] = 5, 6
        asked.append(bool(is_alike.any()))
        return ids

    def alike_of(words: Words, names: Leg | Words, salt: int) -> npt.NDArray[np.int64]:
        return made_alike(of_words(words, names, salt), names, salt)

    def alike_of_records(tries: Records, names: Leg | Words, *, salt: int = 0) -> npt.NDArray[np.int64]:
        return made_alike(of_records(tries, names, salt=salt), names, salt)

    monkeypatch.setattr(legs, "derived_ids_of", alike_of)
    monkeypatch.setattr(legs, "derived_ids", alike_of_records)
    monkeypatch.setattr(parts, "derived_ids", alike_of_records)
    return asked
