"""A pipeline is bounded, keeps the order, and leaves nothing running."""

import asyncio
from dataclasses import dataclass

import numpy as np
import pytest

from bezant.cli.pipeline import Pipeline
from bezant.protocol.errors import ConnectionFailed
from bezant.protocol.records import COMMAND, RESULT, Records


@dataclass(frozen=True)
class Batch:
    commands: Records


def batch_of(count: int) -> Batch:
    return Batch(np.zeros(count, COMMAND))


class Waiting:
    """Answers a frame when the test says so; `started` lists the sizes of the frames in the order of their coming."""

    def __init__(self) -> None:
        self.started: list[int] = []
        self.answers: list[asyncio.Future[None]] = []

    async def submit(self, commands: Records, timeout_s: float | None = None) -> Records:
        self.started.append(len(commands))
        answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.answers.append(answer)
        await answer
        return np.zeros(len(commands), RESULT)


async def test_a_batch_has_left_when_send_returns() -> None:
    wallet = Waiting()
    async with Pipeline[Batch](wallet, 2) as pipeline:
        await pipeline.send(batch_of(1))
        assert wallet.started == [1]
        assert not pipeline.is_full
        await pipeline.send(batch_of(2))
        assert wallet.started == [1, 2]
        assert pipeline.is_full
        with pytest.raises(RuntimeError, match="2 batches are in flight"):
            await pipeline.send(batch_of(3))


async def test_answers_are_taken_in_the_order_of_sending() -> None:
    wallet = Waiting()
    async with Pipeline[Batch](wallet, 3) as pipeline:
        for count in (1, 2, 3):
            await pipeline.send(batch_of(count))
        for answer in reversed(wallet.answers):
            answer.set_result(None)
        assert [len((await pipeline.take())[1]) for _ in range(3)] == [1, 2, 3]
        assert len(pipeline) == 0


async def test_a_failed_batch_can_be_told_from_the_others() -> None:
    wallet = Waiting()
    async with Pipeline[Batch](wallet, 2) as pipeline:
        await pipeline.send(batch_of(1))
        await pipeline.send(batch_of(2))
        wallet.answers[0].set_exception(ConnectionFailed("gone"))
        wallet.answers[1].set_result(None)
        assert len(pipeline.oldest.commands) == 1
        with pytest.raises(ConnectionFailed):
            await pipeline.take()
        batch, results = await pipeline.take()
        assert len(batch.commands) == len(results) == 2


async def test_an_error_in_the_block_leaves_no_task() -> None:
    wallet = Waiting()
    with pytest.raises(ZeroDivisionError):
        async with Pipeline[Batch](wallet, 2) as pipeline:
            await pipeline.send(batch_of(1))
            raise ZeroDivisionError
    assert wallet.answers[0].cancelled()
    assert len(asyncio.all_tasks()) == 1


async def test_batches_are_asked_for_only_when_there_is_room() -> None:
    """So that the reader of answers can end the batches because of one."""
    wallet = Waiting()
    asked: list[int] = []

    def batches():
        for count in range(1, 10):
            asked.append(count)
            yield batch_of(count)

    async with Pipeline[Batch](wallet, 2) as pipeline:
        answers = pipeline.stream(batches())
        first = asyncio.ensure_future(anext(answers))
        while len(wallet.answers) < 2:
            await asyncio.sleep(0)
        assert asked == [1, 2]
        wallet.answers[0].set_result(None)
        batch, _ = await first
        assert len(batch.commands) == 1
        assert asked == [1, 2]
        await answers.aclose()
