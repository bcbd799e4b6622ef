"""Sends NumPy arrays of commands: cut into frames, a few of them under way at a time, nothing done per command."""

import asyncio
from collections import deque
from typing import Final

from bezant.net.client.channel import Channel, OutcomeUnknown, unknown_results
from bezant.protocol.errors import UsageError
from bezant.protocol.frames import BATCH_COUNT_MAX
from bezant.protocol.records import COMMAND, Records

FRAMES_UNDER_WAY_MAX: Final = 4
"""Frames of one array that wait for answers at a time: enough that the node never waits for the next."""


async def submit_array(channel: Channel, commands: Records, timeout_s: float) -> Records:
    """Execute an array of COMMAND records of any length, in order, and return one RESULT row for each.

    `timeout_s` is the deadline of each frame. Raises `UsageError` if the array is of another kind, `OutcomeUnknown`
    with all that is known as soon as a frame is not answered (later frames are not sent), `RequestRefused` if the
    node refused a frame.
    """
    if commands.dtype != COMMAND or commands.ndim != 1:
        raise UsageError(f"commands are a one-dimensional array of COMMAND records, not {commands.dtype}")
    frame_count_max = min(BATCH_COUNT_MAX, channel.welcome.batch_count_max)
    if 0 < len(commands) <= frame_count_max:
        # A copy, so that the caller may write to the rows, and does not keep what else arrived with them.
        return (await channel.submit(commands, timeout_s)).copy()
    results = unknown_results(len(commands))
    under_way: deque[tuple[int, asyncio.Task[Records]]] = deque()
    unknown: OutcomeUnknown | None = None
    try:
        for start in range(0, len(commands), frame_count_max):
            if len(under_way) == FRAMES_UNDER_WAY_MAX:
                unknown = await _collect(under_way, results)
                if unknown is not None:
                    break
            frame = channel.submit(commands[start : start + frame_count_max], timeout_s)
            under_way.append((start, asyncio.ensure_future(frame)))
        while under_way:
            unknown = await _collect(under_way, results) or unknown
    finally:
        tasks = [task for _, task in under_way]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    if unknown is not None:
        raise OutcomeUnknown(str(unknown), commands, results) from unknown
    return results


async def _collect(under_way: deque[tuple[int, asyncio.Task[Records]]], results: Records) -> OutcomeUnknown | None:
    """Await the oldest frame and put its rows in their place."""
    start, task = under_way[0]
    unknown = None
    try:
        rows = await task
    except OutcomeUnknown as error:
        unknown = error
        rows = error.results
    under_way.popleft()
    results[start : start + len(rows)] = rows
    return unknown
