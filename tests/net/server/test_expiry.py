"""Claim: a hold expires when its time is up, though nobody sends anything, and holds nobody else up."""

import asyncio
import time
from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import pytest

from bezant.engine.ledger.state import EXPIRES_PER_ENTRY_MAX
from bezant.engine.verify import verify
from bezant.net.server import expiry
from bezant.net.server.expiry import EXPIRY_INTERVAL_S_MIN, EXPIRY_WAIT_S_MAX, ExpiryTimer
from bezant.protocol.codes import ResultCode
from bezant.protocol.frames import Operation, encode_frame
from bezant.protocol.kinds import CommandKind
from bezant.protocol.names import account_id
from bezant.protocol.records import ACCOUNT, EVENT, Records

from .books import COMMITTED, CURRENCY, WORLD, transfer_frame, transfers
from .node import WAIT_S, Client, Node, SlowDisk, until


def holds(count: int, timeout_ms: int, first_id: int = 1) -> Records:
    """Holds of 1 on the outside world for ann."""
    commands = transfers(count, first_id)
    commands["kind"] = CommandKind.HOLD
    commands["timeout_ms"] = timeout_ms
    return commands


def last_events(node: Node, count: int) -> Records:
    last = node.replica.ledger.next_sequence - 1
    return np.asarray(node.replica.log.read_events(np.arange(last - count + 1, last + 1)), EVENT)


async def held(client: Client) -> int:
    reply = await client.ask(Operation.LOOKUP_ACCOUNTS, account_id(WORLD, CURRENCY))
    return int(np.frombuffer(reply.body, ACCOUNT)[0]["held"])


async def test_a_hold_expires_without_anybody_asking(node: Node, client: Client) -> None:
    (result,) = await client.execute(holds(1, timeout_ms=20))
    assert (result["code"], result["debit_held"]) == (COMMITTED, 1)
    await until(lambda: node.replica.log.durable_sequence == 5)
    (made, expired) = last_events(node, 2)
    assert (expired["kind"], expired["effective_amount"], expired["debit_held"]) == (CommandKind.EXPIRE, 1, 0)
    assert (expired["reference_head"], expired["reference_tail"]) == (made["id_head"], made["id_tail"])
    assert expired["timestamp_ns"] >= made["timestamp_ns"] + 20_000_000
    assert await held(client) == 0
    assert (await client.statistics()).events == 5


async def test_one_without_a_timeout_or_with_a_long_one_stays(node: Node, client: Client) -> None:
    assert not (await client.execute(np.concatenate([holds(1, 0), holds(1, 3_600_000, 2), holds(1, 1, 3)])))[
        "code"
    ].any()
    await until(lambda: node.replica.ledger.hold_count == 2)
    assert await held(client) == 2


async def test_many_that_are_due_together_take_turns_with_requests(large_node: Node) -> None:
    """An entry expires a bounded number, and the next comes a little later."""
    client = await large_node.connect()
    count = 2 * EXPIRES_PER_ENTRY_MAX + 10
    index = large_node.replica.log.last_index + 1  # of the holds, which may be due before they are told of
    assert not (await client.execute(holds(count, timeout_ms=1)))["code"].any()
    await until(lambda: large_node.replica.ledger.hold_count == 0)
    assert large_node.replica.log.last_index == index + 3
    expired = last_events(large_node, count)
    # Half of it, because the event loop counts in whole milliseconds, from the beginning of its turn.
    pauses_ns = np.diff(expired["timestamp_ns"][::EXPIRES_PER_ENTRY_MAX])
    assert (pauses_ns > EXPIRY_INTERVAL_S_MIN / 2 * 1e9).all()
    assert (expired["kind"] == CommandKind.EXPIRE).all()
    assert expired["reference_head"].tolist() == list(range(1, count + 1))


async def test_it_waits_for_the_disk_like_everything_else(node: Node, client: Client, slow_disk: SlowDisk) -> None:
    slow_disk.hold()
    await client.send(encode_frame(Operation.COMMANDS, 1, holds(1, timeout_ms=1).tobytes()))
    await slow_disk.busy()
    await until(lambda: node.reactor._expiry.is_due)
    assert node.replica.ledger.hold_count == 1
    slow_disk.release()
    assert (await client.reply()).codes == [COMMITTED]
    await until(lambda: node.replica.log.durable_sequence == 5)
    assert node.replica.ledger.hold_count == 0


async def test_requests_alone_do_not_keep_it_from_expiring(node: Node, client: Client, slow_disk: SlowDisk) -> None:
    slow_disk.hold()
    await client.send(encode_frame(Operation.COMMANDS, 1, holds(1, timeout_ms=1).tobytes()))
    await slow_disk.busy()
    await client.send(encode_frame(Operation.LOOKUP_ACCOUNTS, 2, account_id(WORLD, CURRENCY)))
    await until(lambda: node.reactor._expiry.is_due and bool(node.reactor.collecting.requests))
    slow_disk.release()
    _, looked_up = await client.replies(2)
    assert np.frombuffer(looked_up.body, ACCOUNT)[0]["held"] == 0


async def test_traffic_does_it_by_the_way(node: Node, client: Client) -> None:
    """No entry is made for a hold that one with commands has let expire."""
    assert not (await client.execute(holds(1, timeout_ms=1)))["code"].any()
    index, number = node.replica.log.last_index, 0
    while node.replica.ledger.hold_count:
        number += 1
        await client.send(transfer_frame(100 + number))
        assert (await client.reply()).codes == [COMMITTED]
    await client.ask(Operation.PING)
    assert node.replica.log.last_index - index <= number + 1
    assert not node.reactor._expiry.is_due


async def test_what_fell_due_while_the_node_was_down_expires_when_it_is_up(node: Node, client: Client) -> None:
    node.reactor._expiry.stop()  # or they might expire before the node is down
    assert not (await client.execute(holds(3, timeout_ms=30)))["code"].any()
    deadline_ns = node.replica.ledger.next_deadline_ns
    await node.stop()
    await until(lambda: time.time_ns() > deadline_ns + 1_000_000)
    again = Node(node.path)
    try:
        await again.start()
        assert again.replica.ledger.hold_count == 3
        await until(lambda: again.replica.log.durable_sequence == 9)
        assert again.replica.ledger.hold_count == 0
    finally:
        await again.stop()


async def test_an_entry_without_commands_is_history_like_any_other(node: Node, client: Client) -> None:
    assert not (await client.execute(holds(1, timeout_ms=1)))["code"].any()
    await until(lambda: node.replica.log.durable_sequence == 5)
    await node.stop()
    assert verify(node.path).events == 5
    again = Node(node.path)
    try:
        await again.start()
        assert (again.replica.ledger.next_sequence, again.replica.ledger.hold_count) == (6, 0)
    finally:
        await again.stop()


async def test_a_full_disk_is_asked_seldom_and_not_for_ever(node: Node, client: Client, monkeypatch) -> None:
    monkeypatch.setattr(expiry, "EXPIRY_WAIT_S_MAX", 0.1)
    assert not (await client.execute(holds(1, timeout_ms=1)))["code"].any()
    execute, times = node.replica.execute, []

    def counted(*arguments: object) -> object:
        times.append(time.monotonic())
        return execute(*arguments)

    monkeypatch.setattr(node.replica, "execute", counted)
    monkeypatch.setattr(node.replica.log, "has_room", lambda size: False)
    await until(lambda: len(times) == 3 or not node.replica.ledger.hold_count)
    if node.replica.ledger.hold_count:
        assert times[2] - times[1] >= 0.09
    monkeypatch.undo()
    await until(lambda: node.replica.ledger.hold_count == 0)


async def test_a_stop_does_not_wait_for_deadlines(node: Node, client: Client) -> None:
    assert not (await client.execute(holds(1, timeout_ms=3_600_000)))["code"].any()
    timer = node.reactor._expiry._timer
    assert timer is not None
    await node.stop()
    assert timer.cancelled()
    node.reactor._expiry.arm()
    assert node.reactor._expiry._timer is None


# The timer by itself, with a clock that the test sets.


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """The system's clock, `now_ns`."""
    set_by_test = SimpleNamespace(now_ns=10**18)
    monkeypatch.setattr(expiry, "time", SimpleNamespace(time_ns=lambda: set_by_test.now_ns))
    return set_by_test


class Timer(ExpiryTimer):
    """Over a ledger that has a deadline and nothing else."""

    def __init__(self) -> None:
        self.ledger = SimpleNamespace(next_deadline_ns=0, last_timestamp_ns=0)
        self.called = asyncio.Event()
        super().__init__(asyncio.get_running_loop(), self.ledger, self.called.set)  # type: ignore[arg-type]

    @property
    def wait_s(self) -> float:
        assert self._timer is not None
        return self._timer.when() - self._loop.time()


@pytest.mark.parametrize(
    ("deadline_after_s", "wait_s"),
    [
        (-3600.0, EXPIRY_INTERVAL_S_MIN),
        (0.0, EXPIRY_INTERVAL_S_MIN),
        (0.5, 0.5),
        (1e9, EXPIRY_WAIT_S_MAX),
    ],
)
async def test_how_long_it_waits(clock: SimpleNamespace, deadline_after_s: float, wait_s: float) -> None:
    timer = Timer()
    timer.ledger.next_deadline_ns = clock.now_ns + int(deadline_after_s * 1e9)
    timer.arm()
    assert timer.wait_s == pytest.approx(wait_s, abs=0.004)
    timer.stop()


async def test_it_waits_for_nothing_while_nothing_has_a_deadline() -> None:
    timer = Timer()
    timer.arm()
    assert timer._timer is None


async def test_an_earlier_deadline_moves_it_and_a_later_one_does_not(clock: SimpleNamespace) -> None:
    timer = Timer()
    for deadline_after_s, wait_s in ((0.9, 0.9), (0.4, 0.4), (0.8, 0.4)):
        timer.ledger.next_deadline_ns = clock.now_ns + int(deadline_after_s * 1e9)
        timer.arm()
        assert timer.wait_s == pytest.approx(wait_s, abs=0.05)
    timer.stop()


async def test_a_timer_that_is_early_is_armed_anew(clock: SimpleNamespace) -> None:
    timer = Timer()
    timer.ledger.next_deadline_ns = clock.now_ns
    timer.arm()
    timer.ledger.next_deadline_ns = clock.now_ns + 60 * 10**9
    early = timer._timer
    await until(lambda: timer._timer is not early)
    assert not timer.is_due
    clock.now_ns += 60 * 10**9  # the clock is set; the timer finds out when it reads it again
    assert timer.wait_s < EXPIRY_WAIT_S_MAX + 0.001
    async with asyncio.timeout(WAIT_S):
        await timer.called.wait()
    assert timer.is_due


async def test_a_clock_that_is_set_back_does_not_make_what_is_due_wait(clock: SimpleNamespace) -> None:
    """By the ledger's time, which never goes back, it is due already."""
    timer = Timer()
    timer.ledger.next_deadline_ns = clock.now_ns
    timer.ledger.last_timestamp_ns = clock.now_ns
    clock.now_ns -= 10 * 365 * 86_400 * 10**9
    timer.arm()
    assert timer.wait_s < EXPIRY_WAIT_S_MAX / 2
    async with asyncio.timeout(WAIT_S):
        await timer.called.wait()
    assert timer.is_due


async def test_a_code_for_a_capture_that_comes_too_late_does_not_depend_on_the_timer(
    node: Node, client: Client
) -> None:
    """The ledger looks at the deadline itself."""
    node.reactor._expiry.stop()
    assert not (await client.execute(holds(1, timeout_ms=1)))["code"].any()
    deadline_ns = node.replica.ledger.next_deadline_ns
    await until(lambda: time.time_ns() > deadline_ns)
    capture = transfers(1, 50)
    capture["kind"] = CommandKind.CAPTURE
    capture["amount"] = 0
    capture["reference_head"], capture["reference_tail"] = 1, 1
    assert (await client.execute(capture))["code"].tolist() == [ResultCode.HOLD_EXPIRED]
