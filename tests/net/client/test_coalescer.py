"""Claim: concurrent awaits share frames, each gets the answer to its own command, and nobody waits for ever."""

import asyncio
from collections.abc import Awaitable
from typing import Any

import msgspec
import numpy as np
import pytest

from bezant.net.client import coalescer as module
from bezant.net.client.channel import OutcomeUnknown, unknown_results
from bezant.net.client.coalescer import COALESCED_COUNT_MAX, Coalescer
from bezant.net.client.results import UNKNOWN_ROW, ResultRow
from bezant.protocol.errors import LedgerError, RequestRefused, UsageError
from bezant.protocol.frames import BATCH_COUNT_MAX
from bezant.protocol.records import COMMAND, COMMAND_SIZE, RESULT

from .fake_channel import FakeChannel
from .scripted import WELCOME

TIMEOUT_S = 5.0
POSITION = 3


def command(number: int) -> bytes:
    """A command that is told from others by its amount."""
    record = np.zeros(1, COMMAND)
    record["amount"] = number
    return record.tobytes()


async def settled(awaitable: Awaitable[ResultRow]) -> ResultRow:
    return await awaitable


async def turn() -> None:
    """Let what is ready run, a few times over."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_thousand_concurrent_awaits_are_two_frames() -> None:
    channel = FakeChannel()
    coalescer = Coalescer(channel)
    rows = await asyncio.gather(*(settled(coalescer.submit(command(n), TIMEOUT_S)) for n in range(1000)))
    assert channel.counts == [COALESCED_COUNT_MAX, 1000 - COALESCED_COUNT_MAX]
    assert [int(amount) for commands, _ in channel.frames for amount in commands["amount"]] == list(range(1000))
    assert [row[POSITION] for row in rows] == list(range(1, 1001))
    assert coalescer.pending_count == 0


async def test_callers_that_are_answered_together_ask_together() -> None:
    channel = FakeChannel()
    coalescer = Coalescer(channel)

    async def caller() -> None:
        for _ in range(5):
            await coalescer.submit(bytes(COMMAND_SIZE), TIMEOUT_S)

    await asyncio.gather(*(caller() for _ in range(100)))
    assert channel.counts == [100] * 5


@pytest.mark.parametrize("taken", [BATCH_COUNT_MAX, COALESCED_COUNT_MAX, 100])
async def test_a_frame_has_no_more_commands_than_the_node_takes(taken: int) -> None:
    channel = FakeChannel(msgspec.structs.replace(WELCOME, batch_count_max=taken))
    coalescer = Coalescer(channel)
    taken = min(taken, COALESCED_COUNT_MAX)
    count = 2 * taken + 1
    rows = await asyncio.gather(*(coalescer.submit(bytes(COMMAND_SIZE), TIMEOUT_S) for _ in range(count)))
    assert channel.counts == [taken, taken, 1]
    assert [row[POSITION] for row in rows] == list(range(1, count + 1))


async def test_every_timeout_has_its_own_frame() -> None:
    channel = FakeChannel()
    coalescer = Coalescer(channel)
    timeouts_s = [1.0, 2.0, 1.0, 3.0, 1.0]
    await asyncio.gather(*(coalescer.submit(bytes(COMMAND_SIZE), timeout_s) for timeout_s in timeouts_s))
    assert [(len(commands), timeout_s) for commands, timeout_s in channel.frames] == [(3, 1.0), (1, 2.0), (1, 3.0)]


async def test_an_unknown_outcome_is_a_row() -> None:
    channel = FakeChannel()
    coalescer = Coalescer(channel)
    results = unknown_results(2)
    results["code"][0] = 0
    results["position"][0] = 77
    channel.outcomes = [OutcomeUnknown("lost", np.zeros(2, COMMAND), results)]
    rows = await asyncio.gather(*(coalescer.submit(bytes(COMMAND_SIZE), TIMEOUT_S) for _ in range(2)))
    assert rows[0][POSITION] == 77
    assert rows[1] == UNKNOWN_ROW


@pytest.mark.parametrize("error", [RequestRefused(7, "because"), UsageError("no"), RuntimeError("a defect")])
async def test_a_refused_frame_is_refused_to_everybody_in_it(error: Exception) -> None:
    channel = FakeChannel()
    coalescer = Coalescer(channel)
    channel.outcomes = [error]
    outcomes: list[Any] = await asyncio.gather(
        *(coalescer.submit(bytes(COMMAND_SIZE), TIMEOUT_S) for _ in range(3)), return_exceptions=True
    )
    assert outcomes == [error] * 3
    assert coalescer.pending_count == 0
    assert (await coalescer.submit(bytes(COMMAND_SIZE), TIMEOUT_S))[0] == 0


async def test_an_answer_of_the_wrong_length_is_a_defect_that_everybody_hears_of() -> None:
    channel = FakeChannel()
    coalescer = Coalescer(channel)
    channel.outcomes = [np.zeros(2, RESULT)]
    outcomes = await asyncio.gather(
        *(coalescer.submit(bytes(COMMAND_SIZE), TIMEOUT_S) for _ in range(3)), return_exceptions=True
    )
    assert all(isinstance(outcome, LedgerError) for outcome in outcomes)
    assert coalescer.pending_count == 0


async def test_a_caller_that_leaves_does_not_stop_its_command_or_the_others() -> None:
    channel = FakeChannel()
    channel.answering.clear()
    coalescer = Coalescer(channel)
    callers = [asyncio.ensure_future(settled(coalescer.submit(command(n), TIMEOUT_S))) for n in range(3)]
    await turn()
    callers[1].cancel()
    await turn()
    channel.answering.set()
    rows = await asyncio.gather(*callers, return_exceptions=True)
    assert channel.counts == [3]
    assert isinstance(rows[1], asyncio.CancelledError)
    assert [row[POSITION] for row in (rows[0], rows[2]) if isinstance(row, tuple)] == [1, 3]


# Chains.


def chain(first: int, count: int) -> list[bytes]:
    return [command(number) for number in range(first, first + count)]


def amounts(channel: FakeChannel) -> list[list[int]]:
    return [commands["amount"].tolist() for commands, _ in channel.frames]


async def test_a_chain_travels_with_its_neighbours_and_nothing_comes_between() -> None:
    channel = FakeChannel()
    coalescer = Coalescer(channel)
    rows = await asyncio.gather(
        settled(coalescer.submit(command(1), TIMEOUT_S)),
        coalescer.submit_chain(chain(2, 3), TIMEOUT_S),
        settled(coalescer.submit(command(5), TIMEOUT_S)),
        coalescer.submit_chain(chain(6, 2), TIMEOUT_S),
    )
    assert amounts(channel) == [[1, 2, 3, 4, 5, 6, 7]]
    assert [row[POSITION] for row in rows[1]] == [2, 3, 4]
    assert [row[POSITION] for row in rows[3]] == [6, 7]
    assert coalescer.pending_count == 0


@pytest.mark.parametrize("before", [0, 1, 6, 7, 8, 9])
async def test_a_chain_is_never_cut(before: int) -> None:
    """Where it does not fit beside what is there, it has a frame of its own, and what comes later stays later."""
    channel = FakeChannel(msgspec.structs.replace(WELCOME, batch_count_max=10))
    coalescer = Coalescer(channel)
    singles = [settled(coalescer.submit(command(n), TIMEOUT_S)) for n in range(before)]
    await asyncio.gather(
        *singles,
        coalescer.submit_chain(chain(before, 4), TIMEOUT_S),
        *(settled(coalescer.submit(command(n), TIMEOUT_S)) for n in range(before + 4, 20)),
    )
    frames = amounts(channel)
    assert [amount for frame in frames for amount in frame] == list(range(20))
    assert max(channel.counts) <= 10
    assert any(set(range(before, before + 4)) <= set(frame) for frame in frames)


async def test_a_chain_that_fills_a_frame_is_sent_with_it() -> None:
    channel = FakeChannel(msgspec.structs.replace(WELCOME, batch_count_max=10))
    coalescer = Coalescer(channel)
    results = await asyncio.gather(*(coalescer.submit_chain(chain(n, 10), TIMEOUT_S) for n in (0, 10, 20)))
    assert amounts(channel) == [list(range(first, first + 10)) for first in (0, 10, 20)]
    assert [row[POSITION] for rows in results for row in rows] == list(range(1, 31))


async def test_a_chain_that_no_frame_can_hold_is_not_asked() -> None:
    channel = FakeChannel(msgspec.structs.replace(WELCOME, batch_count_max=10))
    coalescer = Coalescer(channel)
    with pytest.raises(UsageError, match="chains of up to 10 commands"):
        await coalescer.submit_chain(chain(0, 11), TIMEOUT_S)
    assert (channel.frames, coalescer.pending_count) == ([], 0)


async def test_a_chain_waits_for_room_as_a_whole_and_within_its_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "COMMANDS_PENDING_MAX", 4)
    channel = FakeChannel()
    channel.answering.clear()
    coalescer = Coalescer(channel)
    first = coalescer.submit_chain(chain(0, 3), TIMEOUT_S)
    second = coalescer.submit_chain(chain(3, 3), TIMEOUT_S)
    await turn()
    assert coalescer.pending_count == 6
    third = asyncio.ensure_future(coalescer.submit_chain(chain(6, 3), TIMEOUT_S))
    assert await coalescer.submit_chain(chain(9, 3), 0.01) == [UNKNOWN_ROW] * 3
    channel.answering.set()
    await asyncio.gather(first, second, third)
    assert amounts(channel) == [list(range(6)), [6, 7, 8]]
    assert coalescer.pending_count == 0


async def test_a_refused_frame_and_a_lost_one_are_told_to_a_chain(monkeypatch: pytest.MonkeyPatch) -> None:
    channel = FakeChannel()
    coalescer = Coalescer(channel)
    channel.outcomes = [RequestRefused(7, "because"), OutcomeUnknown("lost", np.zeros(2, COMMAND), unknown_results(2))]
    with pytest.raises(RequestRefused, match="because"):
        await coalescer.submit_chain(chain(0, 2), TIMEOUT_S)
    assert await coalescer.submit_chain(chain(0, 2), TIMEOUT_S) == [UNKNOWN_ROW] * 2
    assert coalescer.pending_count == 0


async def test_closing_ends_a_chain_that_has_not_been_sent_and_takes_no_more() -> None:
    channel = FakeChannel()
    coalescer = Coalescer(channel)
    waiting = coalescer.submit_chain(chain(0, 2), TIMEOUT_S)
    coalescer.close()
    assert await waiting == [UNKNOWN_ROW] * 2
    with pytest.raises(UsageError, match="closed"):
        await coalescer.submit_chain(chain(0, 2), TIMEOUT_S)
    assert (channel.frames, coalescer.pending_count) == ([], 0)


# Bounds and ends.


async def test_no_more_commands_are_pending_than_the_bound_and_the_rest_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "COMMANDS_PENDING_MAX", 10)
    channel = FakeChannel()
    channel.answering.clear()
    coalescer = Coalescer(channel)
    callers = [asyncio.ensure_future(settled(coalescer.submit(command(n), TIMEOUT_S))) for n in range(35)]
    await turn()
    assert coalescer.pending_count == 10
    assert channel.counts == [10]
    channel.answering.set()
    await asyncio.gather(*callers)
    assert max(channel.counts) <= 10
    assert sum(channel.counts) == 35
    assert [int(amount) for commands, _ in channel.frames for amount in commands["amount"]] == list(range(35))


async def test_who_waits_for_room_does_so_within_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "COMMANDS_PENDING_MAX", 1)
    channel = FakeChannel()
    channel.answering.clear()
    coalescer = Coalescer(channel)
    first = asyncio.ensure_future(settled(coalescer.submit(command(1), TIMEOUT_S)))
    await turn()
    assert await coalescer.submit(command(2), 0.01) == UNKNOWN_ROW
    channel.answering.set()
    await first
    assert channel.counts == [1]
    assert (await coalescer.submit(command(3), TIMEOUT_S))[0] == 0


async def test_closing_ends_what_has_not_been_sent_and_takes_no_more() -> None:
    channel = FakeChannel()
    coalescer = Coalescer(channel)
    waiter = coalescer.submit(command(1), TIMEOUT_S)
    coalescer.close()
    assert await waiter == UNKNOWN_ROW
    assert channel.counts == []
    with pytest.raises(UsageError, match="closed"):
        coalescer.submit(command(2), TIMEOUT_S)
    await coalescer.wait_settled()


async def test_the_end_of_the_loop_leaves_nobody_waiting() -> None:
    channel = FakeChannel()
    channel.answering.clear()
    coalescer = Coalescer(channel)
    waiter = asyncio.ensure_future(settled(coalescer.submit(command(1), TIMEOUT_S)))
    await turn()
    for task in asyncio.all_tasks() - {asyncio.current_task(), waiter}:
        task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiter
