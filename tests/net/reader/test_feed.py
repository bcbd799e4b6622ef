"""Claim: a feed that always finds a little more leaves the processor to others, whoever is to be told."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from bezant.engine.publication import NO_DESCRIPTOR
from bezant.net.reader import feed as feed_module
from bezant.net.reader.feed import POLL_S, REST_FROM_S, REST_RATIO, Feed

STEP_S = REST_FROM_S / 4
"""What the processor is said to have been taken by each batch."""
RUN_S = 0.05
WAIT_S = 20.0


class AlwaysBehind:
    """A follower for whom another entry is published while it takes one."""

    def __init__(self) -> None:
        self.published_index, self.applied_index = 1, 0
        self.publication = SimpleNamespace(refresh=lambda: None, announce_waiting=lambda: None)
        self.taken_s = 0.0

    def take(self) -> list[Any]:
        self.applied_index += 1
        self.published_index = self.applied_index + 1
        self.taken_s += STEP_S
        return [object()]


async def count_batches(monkeypatch: pytest.MonkeyPatch, *, awaited: bool, least: int) -> int:
    """How many batches a feed takes within RUN_S that was level once; however slow this machine, so many at least."""
    follower = AlwaysBehind()
    monkeypatch.setattr(feed_module, "time", SimpleNamespace(thread_time=lambda: follower.taken_s))
    failures: list[Exception] = []
    feed = Feed(
        follower,  # type: ignore[arg-type]
        lambda _: None,
        wake=NO_DESCRIPTOR,
        is_awaited=lambda: awaited,
        on_failure=failures.append,
    )
    feed.is_level.set()
    feed.start()
    await asyncio.sleep(RUN_S)
    async with asyncio.timeout(WAIT_S):
        while follower.applied_index < least:
            await asyncio.sleep(0.001)
    feed.stop()
    assert failures == []
    return follower.applied_index


async def test_nobody_is_told_in_small_batches_without_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    assert await count_batches(monkeypatch, awaited=False, least=1) <= RUN_S / POLL_S + 2


async def test_small_batches_without_a_pause_are_rested_after_as_large_ones_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rest_s = REST_RATIO * REST_FROM_S
    assert await count_batches(monkeypatch, awaited=True, least=4) <= 4 * (RUN_S / rest_s + 4)
