"""Claim: whatever the pace of the disk, everything is answered once, after it is durable; and a bug ends the node."""

import asyncio
import logging
import os
import random
import time
import types

import pytest

from bezant.engine.log.group import Group
from bezant.net.server import coordinating, failure, reactor, syncing
from bezant.net.server.reactor import BATCHES_MAX, EXECUTE_EARLY_COMMANDS_MIN
from bezant.protocol.codes import ResultCode
from bezant.protocol.errors import LedgerError
from bezant.protocol.frames import Operation, encode_frame

from ...engine.commands import transfer
from .books import COMMITTED, transfer_frame
from .node import WAIT_S, Client, Node, Reply, SlowDisk, until
from .two_shards import Shard, settled

DEADLINE_PASSED = ResultCode.DEADLINE_PASSED


# The pipeline.


async def test_results_wait_for_the_disk(node: Node, client: Client, slow_disk: SlowDisk) -> None:
    slow_disk.hold()
    await client.send(transfer_frame(1))
    await slow_disk.busy()
    await client.ask(Operation.PING)
    assert client.arrived == []
    assert node.replica.ledger.next_sequence - 1 == 4
    assert node.replica.log.durable_sequence == 3
    slow_disk.release()
    assert (await client.reply()).codes == [COMMITTED]


async def test_what_comes_during_a_sync_goes_into_the_next_one_together(
    node: Node, client: Client, slow_disk: SlowDisk
) -> None:
    slow_disk.hold()
    await client.send(transfer_frame(0))
    await slow_disk.busy()
    syncs = node.reactor.counters.syncs
    for number in range(1, 40):
        await client.send(transfer_frame(number))
    await until(lambda: node.reactor.collecting.command_count == 39)
    slow_disk.release()
    assert [reply.request_id for reply in await client.replies(40)] == list(range(40))
    assert node.reactor.counters.syncs == syncs + 1


async def test_a_disk_that_is_slower_than_the_load(large_node: Node, slow_disk: SlowDisk) -> None:
    """Batches that are executed come back only with the disk. When all are out, the rest waits, and nothing breaks."""
    count = EXECUTE_EARLY_COMMANDS_MIN + 1000
    frames = 6 * BATCHES_MAX
    client = await large_node.connect()
    client.writer.transport.set_write_buffer_limits(high=1 << 30)
    slow_disk.hold()
    writes = slow_disk.writes
    for number in range(frames):
        client.write(transfer_frame(number, count))
        # Each is executed by itself while there are batches, the first of them being written.
        if number < BATCHES_MAX - 1:
            await until(lambda number=number: large_node.reactor.counters.commands == 3 + (number + 1) * count)
            await slow_disk.busy(writes + 1)
    assert large_node.reactor.counters.commands == 3 + (BATCHES_MAX - 1) * count
    # The next write has nearly all of them; whoever comes meanwhile must not take more than are left.
    slow_disk.release_one()
    await slow_disk.busy(writes + 2)
    other = await large_node.connect()
    for number in range(4):
        await other.send(transfer_frame(1000 + number, count))
        await asyncio.sleep(0.01)
    slow_disk.release()
    assert len(await other.replies(4)) == 4
    replies = await client.replies(frames)
    assert [reply.request_id for reply in replies] == list(range(frames))
    assert not any(reply.results["code"].any() for reply in replies)


async def test_requests_take_turns_with_everything_else(node: Node, client: Client, monkeypatch) -> None:
    """Only as many are answered in one step as there is time for; those that are left do not lose their place."""
    monkeypatch.setattr(reactor, "STEP_S_MAX", 0.0)
    steps: list[int] = []
    execute = node.reactor._execute

    def counted() -> None:
        before = node.reactor.counters.bytes_out
        execute()
        steps.append(len(node.reactor._executed[-1].answers))
        assert node.reactor.counters.bytes_out == before

    monkeypatch.setattr(node.reactor, "_execute", counted)
    await client.send(*(encode_frame(Operation.LIST_CURRENCIES, number) for number in range(30)))
    assert [reply.request_id for reply in await client.replies(30)] == list(range(30))
    assert max(steps) == 1


@pytest.mark.parametrize("seed", range(5))
async def test_stress_with_tiny_limits(node: Node, limits, slow_disk: SlowDisk, seed: int) -> None:
    """Many connections, limits that almost everything exceeds, a disk that stutters: nobody waits for ever."""
    chance = random.Random(seed)
    limits(
        CONNECTION_BYTES_IN_FLIGHT_MAX=chance.choice([1, 200, 3000]),
        TOTAL_BYTES_IN_FLIGHT_MAX=chance.choice([1, 1000, 10_000]),
        REPLY_BYTES_DUE_MAX=chance.choice([1, 100_000]),
        FRAMES_PER_STEP_MAX=chance.choice([1, 3]),
        START_SIZE_MAX=chance.choice([100, 5000]),
        OWN_BUFFERS_BYTES_MAX=200_000,
        READ_SIZE_MIN=chance.choice([1, 700]),
        STEP_S_MAX=chance.choice([0.0, 0.001]),
        WRITE_BUFFER_BYTES_MAX=chance.choice([100, 10_000]),
        EXECUTE_EARLY_COMMANDS_MIN=chance.choice([1, 50]),
    )
    if chance.random() < 0.5:
        limits(INLINE_SYNC_BYTES_MAX=16 << 10)
    committed = 0

    async def work(number: int) -> int:
        own = random.Random(seed * 1000 + number)
        client = await node.connect()
        expected: dict[int, int] = {}
        frames = []
        for turn in range(40):
            request_id = (number << 10) + turn
            operation, frame = _any_request(own, request_id)
            expected[request_id] = operation
            frames.append(frame)
        stream = b"".join(frames)
        receiving = asyncio.create_task(client.replies(len(frames)))
        while stream:
            size = own.choice([1, 50, 500, 5000])
            await client.send(stream[:size])
            stream = stream[size:]
            if own.random() < 0.3:
                await asyncio.sleep(0)
        replies: list[Reply] = await receiving
        in_order = [reply.request_id for reply in replies if reply.operation == Operation.COMMANDS]
        assert in_order == sorted(in_order)
        answered = {reply.request_id: reply.operation for reply in replies}
        # A large frame may have found no buffer; all else is answered as it was asked.
        assert {request_id: answered[request_id] for request_id in answered if answered[request_id] != 255} == {
            request_id: expected[request_id] for request_id in answered if answered[request_id] != 255
        }
        assert answered.keys() == expected.keys()
        return sum(len(reply.results) for reply in replies if reply.operation == Operation.COMMANDS)

    async def stutter() -> None:
        while True:
            slow_disk.hold()
            await asyncio.sleep(0.002)
            slow_disk.release()
            await asyncio.sleep(0.002)

    stuttering = asyncio.create_task(stutter())
    committed = sum(await asyncio.gather(*(work(number) for number in range(25))))
    stuttering.cancel()
    slow_disk.release()
    assert node.replica.ledger.next_sequence - 1 == 3 + committed


def _any_request(chance: random.Random, request_id: int) -> tuple[int, bytes]:
    operation = chance.choice(
        [Operation.COMMANDS] * 5 + [Operation.PING, Operation.STATISTICS, Operation.LIST_CURRENCIES]
    )
    if operation == Operation.COMMANDS:
        return operation, transfer_frame(request_id, chance.choice([1, 1, 1, 2, 7, 60]))
    body = bytes(chance.choice([0, 10, 20_000])) if operation == Operation.PING else b""
    return operation, encode_frame(operation, request_id, body)


# Deadlines.


async def test_commands_that_come_too_late_are_not_executed(node: Node, client: Client, slow_disk: SlowDisk) -> None:
    """They wait behind a sync for longer than their clients would; their ids are not used."""
    slow_disk.hold()
    await client.send(transfer_frame(1))
    await slow_disk.busy()
    await client.send(transfer_frame(2, 3, timeout_ms=1), transfer_frame(3), transfer_frame(4, timeout_ms=1 << 31))
    await until(lambda: node.reactor.collecting.command_count == 5)
    await asyncio.sleep(0.005)
    slow_disk.release()
    replies = await client.replies(4)
    assert [reply.codes for reply in replies] == [[COMMITTED], [DEADLINE_PASSED] * 3, [COMMITTED], [COMMITTED]]
    assert not any(replies[1].results["position"])
    await client.send(transfer_frame(2, 3, timeout_ms=60_000))
    again = await client.reply()
    assert (again.codes, again.results["flags"].tolist()) == ([COMMITTED] * 3, [0] * 3)


async def test_once_executed_it_is_answered_even_if_late(node: Node, client: Client, slow_disk: SlowDisk) -> None:
    slow_disk.hold()
    await client.send(transfer_frame(1, timeout_ms=100))
    await slow_disk.busy()
    assert node.replica.ledger.next_sequence == 5
    await asyncio.sleep(0.11)
    slow_disk.release()
    assert (await client.reply()).codes == [COMMITTED]


async def test_frames_that_wait_for_room_keep_their_time(
    node: Node, client: Client, slow_disk: SlowDisk, limits
) -> None:
    limits(FRAMES_PER_STEP_MAX=1)
    slow_disk.hold()
    await client.send(transfer_frame(1))
    await slow_disk.busy()
    waiting = await node.connect()
    await (await node.connect()).send(transfer_frame(9))
    await until(lambda: node.reactor.collecting.command_count == 1)
    await waiting.send(encode_frame(Operation.PING, 2) + transfer_frame(3, timeout_ms=1))
    await waiting.reply()
    await until(lambda: node.connections[-2]._inbox.has_kept)
    await asyncio.sleep(0.01)
    slow_disk.release()
    assert (await waiting.reply()).codes == [DEADLINE_PASSED]


@pytest.mark.parametrize("operation", [Operation.PING, Operation.LIST_CURRENCIES, Operation.STATISTICS])
async def test_other_operations_ignore_deadlines(client: Client, slow_disk: SlowDisk, operation: Operation) -> None:
    slow_disk.hold()
    await client.send(transfer_frame(1))
    await slow_disk.busy()
    await client.send(encode_frame(operation, 2, timeout_ms=1))
    await asyncio.sleep(0.005)
    slow_disk.release()
    assert {reply.operation for reply in await client.replies(2)} == {Operation.COMMANDS, operation}


# Stopping.


async def test_a_stop_answers_what_came_in(node: Node, slow_disk: SlowDisk) -> None:
    clients = [await node.connect() for _ in range(5)]
    slow_disk.hold()
    for number, client in enumerate(clients):
        await client.send(transfer_frame(number), encode_frame(Operation.LIST_CURRENCIES, 10 + number))
    await slow_disk.busy()
    await until(lambda: node.reactor.bytes_in_flight == 5 * 192)
    stopping = asyncio.create_task(node.clients.stop())
    await asyncio.sleep(0.01)
    assert not stopping.done()
    slow_disk.release()
    for number, client in enumerate(clients):
        assert sorted(reply.request_id for reply in await client.rest()) == [number, 10 + number]
        client.abort()
    await stopping


async def test_a_stop_under_load_answers_all_that_is_executed(node: Node) -> None:
    answered = 0

    async def flood(number: int) -> None:
        nonlocal answered
        client = await node.connect()
        client.write(*(transfer_frame((number << 20) + turn) for turn in range(50)))
        turn = 50
        while await client._receive():
            answered += len(client.arrived)
            client.write(*(transfer_frame((number << 20) + turn + more) for more in range(len(client.arrived))))
            turn += len(client.arrived)
            client.arrived.clear()
        client.abort()

    flooding = [asyncio.create_task(flood(number)) for number in range(5)]
    await until(lambda: answered > 2000)
    await asyncio.wait_for(node.clients.stop(), WAIT_S)
    await asyncio.gather(*flooding)
    assert node.replica.ledger.next_sequence - 1 == 3 + answered


async def test_a_stop_does_not_wait_for_ever_for_clients_that_stay(node: Node, limits) -> None:
    limits(STOP_S_MAX=0.05, WRITE_BUFFER_BYTES_MAX=1000)
    for _ in range(3):
        await node.connect()
        reader = await node.connect()
        reader.write(encode_frame(Operation.PING, 1, bytes(500_000)) * 20)
    await node.connect(greet=False)
    await asyncio.sleep(0.01)
    await node.clients.stop()
    assert node.reactor.counters.connections == 0


async def test_a_stop_while_frames_wait_for_room(node: Node, slow_disk: SlowDisk, limits) -> None:
    """They have come in whole, so they are executed and answered."""
    limits(FRAMES_PER_STEP_MAX=1)
    client, waiting = await node.connect(), await node.connect()
    slow_disk.hold()
    await client.send(transfer_frame(1))
    await slow_disk.busy()
    await client.send(transfer_frame(2))
    await until(lambda: node.reactor.collecting.command_count == 1)
    await waiting.send(encode_frame(Operation.PING, 3) + transfer_frame(4) + encode_frame(Operation.PING, 5))
    await waiting.reply()
    await until(lambda: node.connections[-1]._inbox.has_kept)
    stopping = asyncio.create_task(node.clients.stop())
    await asyncio.sleep(0.01)
    assert not stopping.done()
    slow_disk.release()
    assert sorted(reply.request_id for reply in await waiting.rest()) == [4, 5]
    assert [reply.request_id for reply in await client.rest()] == [1, 2]
    for end in (client, waiting):
        end.abort()
    await stopping


# Bugs.


def test_a_bug_ends_the_process_with_a_status_and_a_message(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ended: list[int] = []
    monkeypatch.setattr(failure, "os", types.SimpleNamespace(_exit=ended.append))
    try:
        raise LedgerError("the balances in EUR add up to 1, not to zero")
    except LedgerError as error:
        failure.end_after_bug(error)
    failure.end_after_failed_sync(OSError(5, "Input/output error"))
    assert ended == [70, 74]
    assert [record.levelno for record in caplog.records] == [logging.CRITICAL] * 2
    assert "LedgerError: the balances in EUR add up to 1, not to zero" in caplog.text
    assert "test_reactor.py" in caplog.text  # where it was raised
    assert "Input/output error" in caplog.text


async def test_a_bug_in_the_kernel_is_fatal(node: Node, client: Client, bugs, monkeypatch) -> None:
    def fail(*_: object) -> None:
        raise LedgerError("time stands still")

    monkeypatch.setattr(node.replica, "execute", fail)
    await client.send(transfer_frame(1))
    await until(lambda: len(bugs) == 1)
    assert str(bugs.pop()) == "time stands still"
    await node.abandon()


async def test_a_bug_in_the_helper_thread_is_fatal(node: Node, client: Client, bugs, monkeypatch) -> None:
    def fail(_: Group) -> None:
        raise LedgerError("a segment is closed and has an entry to write")

    monkeypatch.setattr(Group, "write_and_sync", fail)
    monkeypatch.setattr(reactor, "INLINE_SYNC_BYTES_MAX", -1)
    await client.send(transfer_frame(1))
    await until(lambda: len(bugs) >= 1)
    bugs.clear()
    await node.abandon()


@pytest.mark.parametrize("inline", [True, False])
async def test_a_failed_sync_is_fatal(node: Node, client: Client, monkeypatch, limits, inline: bool) -> None:
    failed: list[OSError] = []

    def fail(_: Group) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(syncing, "end_after_failed_sync", failed.append)
    monkeypatch.setattr(Group, "write_and_sync", fail)
    limits(INLINE_SYNC_BYTES_MAX=1 << 20 if inline else -1)
    await client.send(transfer_frame(1))
    await until(lambda: len(failed) == 1)
    await node.abandon()


async def test_a_disk_that_hangs_is_told_to_the_member(node: Node, client: Client, slow_disk: SlowDisk, limits) -> None:
    """Who cannot write should not lead; a member of a group steps down."""
    limits(INLINE_SYNC_BYTES_MAX=-1, DISK_HANG_S_MAX=60.0)
    slow_disk.hold()
    await client.send(transfer_frame(1))
    await slow_disk.busy()
    node.reactor.on_tick()
    told = [node.reactor.member._disk_hangs]
    limits(DISK_HANG_S_MAX=0.02)
    await asyncio.sleep(0.03)
    node.reactor.on_tick()
    told.append(node.reactor.member._disk_hangs)
    slow_disk.release()
    assert (await client.reply()).codes == [COMMITTED]
    node.reactor.on_tick()
    assert [*told, node.reactor.member._disk_hangs] == [False, True, False]


async def test_results_are_never_told_before_they_are_durable(node: Node, client: Client, bugs, monkeypatch) -> None:
    """Were the log to say less than it should, the node would end rather than tell."""
    monkeypatch.setattr(type(node.replica), "durable_index", 0)
    await client.send(transfer_frame(1))
    await until(lambda: len(bugs) >= 1)
    assert "before they were durable" in str(bugs[0])
    bugs.clear()
    await node.abandon()


def test_exit_statuses_are_those_of_sysexits() -> None:
    assert (failure.EXIT_STATUS_BUG, failure.EXIT_STATUS_SYNC_FAILED) == (os.EX_SOFTWARE, os.EX_IOERR)


# The order of what is done when a sync has ended.


async def test_what_waits_to_be_sent_goes_before_what_nobody_waits_for(
    node: Node, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A follower's acknowledgement is all that the leader and its clients wait for; the rest takes as long again."""
    done: list[str] = []

    def note(name: str, owner: object, step: str) -> None:
        inner = getattr(owner, step)
        monkeypatch.setattr(owner, step, lambda *args: (done.append(name), inner(*args))[1])

    note("finish", node.reactor.member, "finish_group")
    note("flush", node.reactor, "flush_messages")
    note("publish", node.reactor, "_publish")
    note("tidy", node.replica, "tidy")
    await client.send(transfer_frame(1))
    assert (await client.reply()).codes == [COMMITTED]
    await until(lambda: "tidy" in done)
    assert done[done.index("finish") :][:4] == ["finish", "flush", "publish", "tidy"]


async def test_what_nobody_waits_for_keeps_the_loop_all_the_same(
    node: Node, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Among the longest steps of the loop it has to be seen."""
    tidied: list[None] = []
    monkeypatch.setattr(node.replica, "tidy", lambda: (time.sleep(0.05), tidied.append(None)))
    node.reactor.counters.take_longest_steps()
    await client.send(transfer_frame(1))
    assert (await client.reply()).codes == [COMMITTED]
    await until(lambda: bool(tidied))
    assert node.reactor.counters.take_longest_steps()[1] >= 0.05


@pytest.mark.parametrize("child_is_waited_for", [False, True])
async def test_what_comes_between_the_last_answer_and_the_end_is_left_to_the_next_start(
    pair: tuple[Shard, Shard],
    bugs: list[BaseException],
    monkeypatch: pytest.MonkeyPatch,
    child_is_waited_for: bool,
) -> None:
    """It ended the process as after a bug: a turn of the loop that was due then found the log closed."""
    first, second = pair
    reactor, loop = first.reactor, asyncio.get_running_loop()
    coordinator = reactor.coordinator
    assert coordinator is not None
    settle_s = coordinating.SETTLE_S
    monkeypatch.setattr(coordinating, "SETTLE_S", 60.0)  # What has ended stays noted, however late it is looked at.
    assert not (await first.execute(transfer(first.names[0], second.names[0], 30)))["code"].any()
    await until(lambda: bool(coordinator._settled))
    if child_is_waited_for:
        reactor._checkpointing._task = loop.create_task(reactor._checkpointing._run())
        await asyncio.sleep(0)
    stopping = asyncio.create_task(reactor.stop())
    await asyncio.sleep(0)
    loop.call_soon(coordinator._settle_now)
    await stopping
    await asyncio.sleep(0.02)
    assert bugs == []
    monkeypatch.setattr(coordinating, "SETTLE_S", settle_s)
    first.open()
    await settled(first, second)
    assert (first.balances(first.names[0]), second.balances(second.names[0])) == ([70], [130])
