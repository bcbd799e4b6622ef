"""Claim: a chain of commands stays within the frame that it was sent in, whoever sends the next one."""

import asyncio

import numpy as np
import pytest

from bezant.protocol.codes import ResultCode
from bezant.protocol.frames import BATCH_COUNT_MAX, Operation, encode_frame
from bezant.protocol.kinds import CommandFlag
from bezant.protocol.records import RESULT, Records

from .books import COMMITTED, transfer_frame, transfers
from .node import Client, Node, SlowDisk, until

UNTERMINATED = ResultCode.CHAIN_UNTERMINATED


def linked(count: int, first_id: int, *, open_end: bool) -> Records:
    """Transfers that are linked to one another, and perhaps to whatever comes next."""
    commands = transfers(count, first_id)
    commands["flags"] = CommandFlag.LINKED
    if not open_end:
        commands["flags"][-1] = 0
    return commands


def frame(request_id: int, commands: Records, timeout_ms: int = 0) -> bytes:
    return encode_frame(Operation.COMMANDS, request_id, commands.tobytes(), timeout_ms=timeout_ms)


async def test_a_chain_within_a_frame(client: Client) -> None:
    assert (await client.execute(linked(4, 1, open_end=False)))["code"].tolist() == [COMMITTED] * 4


@pytest.mark.parametrize("count", [1, 2, BATCH_COUNT_MAX])
async def test_an_open_chain_takes_nothing_of_the_next_frame(large_node: Node, count: int) -> None:
    client = await large_node.connect()
    await client.send(
        frame(1, linked(count, 1, open_end=True)), transfer_frame(2), frame(3, linked(3, 9000, open_end=False))
    )
    first, second, third = await client.replies(3)
    assert first.codes == [UNTERMINATED] * count
    assert (second.codes, third.codes) == ([COMMITTED], [COMMITTED] * 3)


async def test_what_comes_before_an_open_chain_in_its_frame_is_executed(client: Client) -> None:
    commands = np.concatenate([transfers(2, 1), linked(3, 10, open_end=False), linked(2, 20, open_end=True)])
    assert (await client.execute(commands))["code"].tolist() == [COMMITTED] * 5 + [UNTERMINATED] * 2


async def test_an_open_chain_of_one_client_takes_nothing_of_another_s(node: Node, slow_disk: SlowDisk) -> None:
    """In the same batch, the one right behind the other."""
    attacker, victim = await node.connect(), await node.connect()
    slow_disk.hold()
    await victim.send(transfer_frame(1))
    await slow_disk.busy()
    await attacker.send(frame(2, linked(2, 100, open_end=True)))
    await until(lambda: node.reactor.collecting.command_count == 2)
    await victim.send(transfer_frame(3))
    await until(lambda: node.reactor.collecting.command_count == 3)
    slow_disk.release()
    assert [reply.codes for reply in await victim.replies(2)] == [[COMMITTED], [COMMITTED]]
    assert (await attacker.reply()).codes == [UNTERMINATED] * 2


async def test_an_open_chain_that_came_too_late_takes_nothing_either(node: Node, slow_disk: SlowDisk) -> None:
    """The code of its deadline must not hide that it is open."""
    client = await node.connect()
    slow_disk.hold()
    await client.send(transfer_frame(1))
    await slow_disk.busy()
    await client.send(frame(2, np.concatenate([transfers(1, 50), linked(2, 100, open_end=True)]), 1), transfer_frame(3))
    await until(lambda: node.reactor.collecting.command_count == 4)
    await asyncio.sleep(0.005)
    slow_disk.release()
    first, second, third = await client.replies(3)
    assert (first.codes, third.codes) == ([COMMITTED], [COMMITTED])
    assert second.codes == [ResultCode.DEADLINE_PASSED, UNTERMINATED, UNTERMINATED]


async def test_an_open_chain_of_one_submission_takes_nothing_of_the_next(node: Node) -> None:
    submitted: list[asyncio.Future[Records]] = []
    for commands in (linked(2, 1, open_end=True), transfers(2, 10), transfers(0, 1), linked(1, 20, open_end=True)):
        submitted.append(asyncio.get_running_loop().create_future())
        assert node.reactor.submit(commands, submitted[-1])
    results = await asyncio.gather(*submitted)
    assert [rows["code"].tolist() for rows in results] == [[UNTERMINATED] * 2, [COMMITTED] * 2, [], [UNTERMINATED]]
    assert results[0].dtype == RESULT
