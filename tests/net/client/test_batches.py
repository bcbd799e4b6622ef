"""Claim: arrays of any length go in order, in full frames, a few under way, and what is known is never lost."""

import asyncio

import msgspec
import numpy as np
import pytest

from bezant.net.client.batches import FRAMES_UNDER_WAY_MAX, submit_array
from bezant.net.client.channel import CODE_UNKNOWN, OutcomeUnknown, unknown_results
from bezant.protocol.errors import RequestRefused, UsageError
from bezant.protocol.frames import BATCH_COUNT_MAX
from bezant.protocol.records import COMMAND, EVENT, RESULT, Records

from .fake_channel import FakeChannel
from .scripted import WELCOME

PER_FRAME = 10


def numbered(count: int) -> Records:
    commands = np.zeros(count, COMMAND)
    commands["amount"] = np.arange(count)
    return commands


@pytest.fixture
async def channel() -> FakeChannel:
    return FakeChannel(msgspec.structs.replace(WELCOME, batch_count_max=PER_FRAME))


@pytest.mark.parametrize(
    ("count", "counts"),
    [(0, []), (1, [1]), (10, [10]), (11, [10, 1]), (95, [10] * 9 + [5])],
)
async def test_an_array_goes_in_full_frames_and_comes_back_whole(
    channel: FakeChannel, count: int, counts: list[int]
) -> None:
    results = await submit_array(channel, numbered(count), 2.5)
    assert channel.counts == counts
    assert results.dtype == RESULT
    assert results["position"].tolist() == list(range(1, count + 1))
    assert {timeout_s for _, timeout_s in channel.frames} <= {2.5}
    if counts:
        assert np.array_equal(np.concatenate([commands for commands, _ in channel.frames]), numbered(count))


async def test_a_node_does_not_make_frames_larger_than_the_protocol() -> None:
    channel = FakeChannel(msgspec.structs.replace(WELCOME, batch_count_max=10**6))
    await submit_array(channel, numbered(BATCH_COUNT_MAX + 1), 1.0)
    assert channel.counts == [BATCH_COUNT_MAX, 1]


async def test_only_a_few_frames_are_under_way(channel: FakeChannel) -> None:
    channel.answering.clear()
    task = asyncio.ensure_future(submit_array(channel, numbered(200), 1.0))
    while channel.under_way < FRAMES_UNDER_WAY_MAX:
        await asyncio.sleep(0)
    channel.answering.set()
    await task
    assert channel.under_way_max == FRAMES_UNDER_WAY_MAX


async def test_an_unanswered_frame_stops_the_rest_and_keeps_what_is_known(channel: FakeChannel) -> None:
    commands = numbered(200)
    channel.outcomes = [None, OutcomeUnknown("lost", commands[10:20], unknown_results(10))]
    with pytest.raises(OutcomeUnknown, match="lost") as caught:
        await submit_array(channel, commands, 1.0)
    sent = sum(channel.counts)
    assert sent <= (2 + FRAMES_UNDER_WAY_MAX) * PER_FRAME
    unknown = caught.value
    assert unknown.commands is commands
    assert len(unknown.results) == 200
    assert np.flatnonzero(unknown.unknown).tolist() == [*range(10, 20), *range(sent, 200)]
    assert unknown.results["position"][~unknown.unknown].tolist() == [*range(1, 11), *range(21, sent + 1)]


async def test_rows_that_are_known_within_an_unanswered_frame_are_kept(channel: FakeChannel) -> None:
    rows = unknown_results(10)
    rows["code"][3] = 0
    channel.outcomes = [OutcomeUnknown("lost", numbered(10), rows)]
    with pytest.raises(OutcomeUnknown) as caught:
        await submit_array(channel, numbered(11), 1.0)
    assert np.flatnonzero(caught.value.results["code"] == CODE_UNKNOWN).tolist() == [0, 1, 2, 4, 5, 6, 7, 8, 9]


async def test_a_refused_frame_is_raised_and_nothing_stays_behind(channel: FakeChannel) -> None:
    channel.outcomes = [None, RequestRefused(7, "because")]
    with pytest.raises(RequestRefused, match="because"):
        await submit_array(channel, numbered(200), 1.0)
    assert channel.under_way == 0
    assert len(channel.frames) <= 2 + FRAMES_UNDER_WAY_MAX
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_caller_that_leaves_leaves_nothing_behind(channel: FakeChannel) -> None:
    channel.answering.clear()
    task = asyncio.ensure_future(submit_array(channel, numbered(200), 1.0))
    while channel.under_way < FRAMES_UNDER_WAY_MAX:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert channel.under_way == 0


@pytest.mark.parametrize("commands", [np.zeros(3, EVENT), np.zeros((2, 2), COMMAND), np.zeros(3, np.int64)])
async def test_other_arrays_are_refused(channel: FakeChannel, commands: Records) -> None:
    with pytest.raises(UsageError, match="COMMAND records"):
        await submit_array(channel, commands, 1.0)
    assert channel.frames == []
