"""Claim: whatever is asked of webhooks at the same time, or left halfway, memory and folder say the same of them."""

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest

from bezant.net.gateway.problems import ProblemRaised
from bezant.net.gateway.settings import GatewaySettings
from bezant.net.gateway.webhooks.hooks import Webhooks
from bezant.net.gateway.webhooks.store import Hook, Store
from bezant.protocol.errors import ConnectionFailed

HOOK = Hook(id="wh_1", url="https://a.example", made_ns=1, secret=b"s", position="7")


class Own:
    """A ledger that is never followed, unless it is said to be."""

    def __init__(self) -> None:
        self.is_refused = False
        self.ledger = self.wallet = self
        self.may_follow = asyncio.Event()

    async def served(self) -> None:
        await self.may_follow.wait()

    def subscribe(self, **_: Any) -> Any:
        return self

    async def begin(self) -> None:
        raise ConnectionFailed("no reader")

    async def close(self) -> None:
        pass


class Hooks(Webhooks):
    """Whose folder can be held."""

    def __init__(self, folder: Path) -> None:
        self.fake = Own()
        super().__init__(cast(Any, self.fake), GatewaySettings(connect="127.0.0.1:1", webhooks=str(folder)))
        self._free = threading.Event()

    def hold(self) -> None:
        """Have whatever is asked of the folder wait."""
        self._free.clear()
        self._thread.submit(self._free.wait, 30)

    def let_go(self) -> None:
        self._free.set()


@pytest.fixture
async def hooks(tmp_path: Path) -> AsyncIterator[Hooks]:
    made = Hooks(tmp_path)
    yield made
    made.let_go()
    await made.close()


async def kept(hooks: Hooks) -> list[Hook]:
    """What the folder has, when all is written."""
    return await hooks._stored(hooks._store.hooks)


def states(hooks: Webhooks) -> dict[str, float]:
    (family,) = hooks.families()
    return {sample.labels["state"]: cast(float, sample.value) for sample in family.samples}


async def test_enabling_beside_deleting_brings_nothing_back(hooks: Hooks) -> None:
    await hooks.create(HOOK)
    await hooks._change(HOOK.id, disabled="why")
    await hooks._leave(HOOK.id)
    for first in (0, 1):
        hooks.hold()
        asked = [lambda: hooks.enable(HOOK.id), lambda: hooks.delete(HOOK.id)]
        both = [asyncio.create_task(cast(Any, one())) for one in (asked[first], asked[1 - first])]
        await asyncio.sleep(0.01)
        hooks.let_go()
        outcomes = await asyncio.gather(*both, return_exceptions=True)
        assert isinstance(outcomes[first], ProblemRaised), "it is told that there is none"
        assert (outcomes[1 - first], hooks.all(), await kept(hooks), hooks._following) == (None, [], [], {})
        await hooks.create(HOOK)
    assert list(hooks._following) == [HOOK.id]


async def test_what_is_left_halfway_is_undone_or_done(hooks: Hooks, tmp_path: Path) -> None:
    hooks.hold()
    making = asyncio.create_task(hooks.create(HOOK))
    await asyncio.sleep(0.01)
    making.cancel()
    with pytest.raises(asyncio.CancelledError):
        await making
    hooks.let_go()
    assert (hooks.all(), await kept(hooks), hooks._following) == ([], [], {})
    await hooks.create(HOOK)
    assert await kept(hooks) == [HOOK]
    hooks.hold()
    deleting = asyncio.create_task(hooks.delete(HOOK.id))
    await asyncio.sleep(0.01)
    deleting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await deleting
    hooks.let_go()
    assert (hooks.all(), await kept(hooks), hooks._following) == ([], [], {})
    await hooks.close()
    again = Store(tmp_path)
    assert again.hooks() == []
    again.close()
    hooks.__init__(tmp_path)  # type: ignore[misc]


async def test_hooks_that_cannot_be_told_are_counted(hooks: Hooks) -> None:
    await hooks.create(HOOK)
    assert states(hooks) == {"told": 1, "behind": 0, "disabled": 0}
    hooks.fake.is_refused = True
    assert states(hooks) == {"told": 0, "behind": 1, "disabled": 0}
    hooks.fake.is_refused = False
    hooks.fake.may_follow.set()
    async with asyncio.timeout(10):
        while states(hooks)["behind"] != 1:
            await asyncio.sleep(0.001)
    await hooks._change(HOOK.id, disabled="why")
    await hooks._leave(HOOK.id)
    assert states(hooks) == {"told": 0, "behind": 0, "disabled": 1}
