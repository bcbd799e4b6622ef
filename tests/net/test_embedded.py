"""Claim: `bezant.open` is the same wallet without a node, on whatever event loop its caller has."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

import bezant
from bezant.engine.replica import IDS_MEMORY_BYTES_MIN, ReplicaSettings, open_replica
from bezant.net import embedded
from bezant.net.client.channel import CODE_UNKNOWN, OutcomeUnknown
from bezant.net.client.wallet import Wallet
from bezant.net.embedded import EngineChannel, open_channel
from bezant.protocol.codes import ResultCode
from bezant.protocol.errors import DataFolderInUse, RequestRefused, RequestTimedOut, UsageError
from bezant.protocol.frames import BATCH_COUNT_MAX, FrameError, Operation
from bezant.protocol.kinds import CommandKind
from bezant.protocol.names import account_id
from bezant.protocol.records import ACCOUNT, Records

from .server.books import CURRENCY, NAMES, opening, transfers
from .server.node import WAIT_S, SlowDisk, until

SETTINGS = ReplicaSettings(segment_size=8 << 20, accounts_max=1 << 10, ids_memory_bytes=IDS_MEMORY_BYTES_MIN)


@pytest.fixture
async def channel(tmp_path: Path) -> AsyncIterator[EngineChannel]:
    opened = await open_channel(tmp_path / "data", SETTINGS)
    await opened.submit(opening(*NAMES), WAIT_S)
    yield opened
    await opened.close()


@pytest.fixture
async def slow_disk(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[SlowDisk]:
    disk = SlowDisk(monkeypatch)
    yield disk
    disk.release()


async def balance(channel: EngineChannel, name: str) -> int:
    reply = await channel.request(Operation.LOOKUP_ACCOUNTS, account_id(name, CURRENCY), None)
    return int(np.frombuffer(reply, ACCOUNT)[0]["balance"])


async def test_what_nodes_alone_may_ask_is_refused_to_whoever_embeds_one(channel: EngineChannel) -> None:
    """And what comes with it is done."""
    legs = transfers(3, 100, "world", "ann", 5)
    legs["kind"][1] = int(CommandKind.TRY_DEBIT)
    results = await channel.submit(legs, WAIT_S)
    assert results["code"].tolist() == [ResultCode.COMMITTED, ResultCode.KIND_UNKNOWN, ResultCode.COMMITTED]
    assert await balance(channel, "ann") == 10


# The same wallet.


async def use(wallet: Wallet) -> list[object]:
    """A bit of everything, with what can be compared of each answer."""
    told: list[object] = []
    for name in ("world", "ann"):
        result = await wallet.open_account(name, "EUR", limit=bezant.UNLIMITED, id=name.encode().ljust(16, b"."))
        told.append((result.outcome, result.code, result.position))
    identifier = bytes(range(1, 17))
    for _ in range(2):
        result = await wallet.transfer("world", "ann", "12.50", "EUR", id=identifier, user_data=b"u", code=3)
        told.append((result.code, result.repeated, result.credit_balance_text, result.position))
    conflict = await wallet.transfer("world", "ann", "13.00", "EUR", id=identifier)
    told.append((conflict.code, conflict.conflict_field))
    told.append((await wallet.transfer("ann", "nobody", "1", "EUR")).code)
    told.append((await wallet.set_limit("ann", "EUR", "5.00")).code)
    event = await wallet.event(identifier, "world", "EUR")
    assert event is not None
    told.append((event.amount_text, event.user_data, event.code, event.position))
    told.append(await wallet.event(bytes(15) + b"x", "world", "EUR"))
    told.append([(account.name, account.balance_text, account.limit_text) async for account in wallet.accounts()])
    told.append(await wallet.account("nobody", "EUR"))
    await wallet.register_currency("GOLD", 3)
    told.append((await wallet.currencies())["GOLD"])
    with pytest.raises(RequestRefused) as refused:
        await wallet.register_currency("GOLD", 4)
    told.append((refused.value.code, str(refused.value)))
    told.append((await wallet.statistics()).accounts)
    assert await wallet.ping() >= 0
    rows = await wallet.submit(transfers(20_000, 100))
    told.append((rows["code"].tolist(), rows["credit_balance"].tolist()))
    return told


async def test_the_same_as_over_a_node(tmp_path: Path) -> None:
    from .server.node import Node  # a node needs uvloop no more than its client does

    node = Node(tmp_path / "node", SETTINGS)
    await node.start()
    async with bezant.connect(f"127.0.0.1:{node.port}", timeout_s=WAIT_S) as wallet:
        over_tcp = await use(wallet)
    await node.stop()
    async with bezant.open(tmp_path / "own", timeout_s=WAIT_S) as wallet:
        assert await use(wallet) == over_tcp


async def test_what_was_done_is_there_when_opened_again(tmp_path: Path) -> None:
    for turn in range(1, 4):
        async with bezant.open(tmp_path / "data", timeout_s=WAIT_S) as wallet:
            assert wallet.welcome.server.startswith("bezant ")
            for name in ("world", "ann"):
                await wallet.open_account(name, "EUR", limit=bezant.UNLIMITED)
            results = await asyncio.gather(*(wallet.transfer("world", "ann", "0.01", "EUR") for _ in range(500)))
            assert all(result.committed for result in results)
            account = await wallet.account("ann", "EUR")
            assert account is not None
            assert account.balance == 500 * turn


async def test_a_node_that_has_the_folder(tmp_path: Path) -> None:
    replica = open_replica(tmp_path / "data", settings=SETTINGS)
    with pytest.raises(DataFolderInUse, match="in use"):
        await bezant.open(tmp_path / "data")
    replica.close()
    async with bezant.open(tmp_path / "data") as first:
        with pytest.raises(DataFolderInUse):
            await bezant.open(tmp_path / "data")
        assert await first.ping() >= 0


async def test_an_opening_that_is_given_up_leaves_the_folder_free(tmp_path: Path, monkeypatch) -> None:
    """Whoever gives the opening up must not find the folder locked by nobody."""
    opened = asyncio.Event()
    loop = asyncio.get_running_loop()

    def open_slowly(path: Path, settings: ReplicaSettings | None):
        replica = open_replica(path, settings=settings)
        loop.call_soon_threadsafe(opened.set)
        return replica

    monkeypatch.setattr(embedded, "_open_warm", open_slowly)
    opening_task = asyncio.create_task(open_channel(tmp_path / "data", SETTINGS))
    await asyncio.sleep(0)
    opening_task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening_task
    await opened.wait()
    monkeypatch.undo()

    async def again() -> EngineChannel:
        while True:
            try:
                return await open_channel(tmp_path / "data", SETTINGS)
            except DataFolderInUse:
                await asyncio.sleep(0.001)

    await (await asyncio.wait_for(again(), WAIT_S)).close()


async def test_an_opening_that_fails_after_it_was_given_up_is_no_news(tmp_path: Path) -> None:
    replica = open_replica(tmp_path / "data", settings=SETTINGS)
    task = asyncio.create_task(open_channel(tmp_path / "data", SETTINGS))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    replica.close()


# Deadlines.


async def test_a_deadline_that_passes_leaves_the_outcome_unknown(channel: EngineChannel, slow_disk: SlowDisk) -> None:
    slow_disk.hold()
    commands = transfers(3, 1)
    with pytest.raises(OutcomeUnknown) as unknown:
        await channel.submit(commands, 0.2)
    assert unknown.value.results["code"].tolist() == [CODE_UNKNOWN] * 3
    assert unknown.value.commands is commands
    slow_disk.release()
    again = await channel.submit(commands, WAIT_S)
    assert (again["code"].tolist(), again["flags"].tolist()) == ([0] * 3, [1] * 3)  # it had been executed


async def test_a_wallet_says_unknown(tmp_path: Path, slow_disk: SlowDisk) -> None:
    async with bezant.open(tmp_path / "data", timeout_s=WAIT_S) as wallet:
        for name in ("world", "ann"):
            await wallet.open_account(name, "EUR", limit=bezant.UNLIMITED)
        slow_disk.hold()
        result = await wallet.transfer("world", "ann", "1.00", "EUR", id=b"i" * 16, timeout_s=0.2)
        assert (result.outcome, result.code) == (bezant.Outcome.UNKNOWN, None)
        slow_disk.release()
        assert (await wallet.transfer("world", "ann", "1.00", "EUR", id=b"i" * 16)).repeated


async def test_a_submission_that_finds_no_room_before_its_deadline_is_not_executed(
    channel: EngineChannel, slow_disk: SlowDisk
) -> None:
    slow_disk.hold()
    filling = [asyncio.create_task(channel.submit(transfers(8000, 10_000 * n), WAIT_S)) for n in range(1, 40)]
    await slow_disk.busy()
    await until(lambda: len(channel._waiting) > 0)
    with pytest.raises(OutcomeUnknown):
        await channel.submit(transfers(3, 1), 0.02)
    slow_disk.release()
    assert not any([(await task)["code"].any() for task in filling])
    assert (await channel.submit(transfers(3, 1), WAIT_S))["flags"].tolist() == [0, 0, 0]


async def test_a_look_up_that_gets_no_answer_in_time(channel: EngineChannel, slow_disk: SlowDisk) -> None:
    slow_disk.hold()
    working = asyncio.create_task(channel.submit(transfers(1, 1), WAIT_S))
    await slow_disk.busy()
    with pytest.raises(RequestTimedOut, match="LIST_CURRENCIES"):
        await channel.request(Operation.LIST_CURRENCIES, b"", 0.02)
    slow_disk.release()
    await working


@pytest.mark.parametrize("timeout_s", [0, -1.0, float("nan"), 1e9])
async def test_a_deadline_that_is_none(channel: EngineChannel, timeout_s: float) -> None:
    with pytest.raises(UsageError, match="timeout"):
        await channel.submit(transfers(1, 1), timeout_s)
    with pytest.raises(UsageError, match="timeout"):
        await channel.request(Operation.PING, b"", timeout_s)
    assert await balance(channel, "ann") == 0


# Many at a time.


async def test_submissions_larger_than_a_batch_together(channel: EngineChannel) -> None:
    """They are executed in the order in which they were made, whichever of them had to wait."""
    submitted = [
        asyncio.create_task(channel.submit(transfers(BATCH_COUNT_MAX, 1 + 10_000 * number), WAIT_S))
        for number in range(11)
    ]
    results = [await task for task in submitted]
    positions = np.concatenate([rows["position"] for rows in results])
    assert not np.concatenate([rows["code"] for rows in results]).any()
    assert positions.tolist() == list(range(4, 4 + 11 * BATCH_COUNT_MAX))


async def test_nobody_overtakes_those_who_wait_for_room(channel: EngineChannel, slow_disk: SlowDisk) -> None:
    slow_disk.hold()
    submitted = [
        asyncio.create_task(channel.submit(transfers(8000, 1 + 10_000 * number), WAIT_S)) for number in range(30)
    ]
    await until(lambda: len(channel._waiting) > 0)
    submitted.append(asyncio.create_task(channel.submit(transfers(1, 999_999), WAIT_S)))
    await asyncio.sleep(0)
    slow_disk.release()
    firsts = [(await task)["position"][0] for task in submitted]
    assert firsts == sorted(firsts)


async def test_two_arrays_larger_than_a_batch(tmp_path: Path) -> None:
    async with bezant.open(tmp_path / "data", timeout_s=WAIT_S) as wallet:
        await wallet.submit(opening(*NAMES))
        first, second = await asyncio.gather(
            wallet.submit(transfers(50_000, 1)), wallet.submit(transfers(40_000, 1_000_000, "ann", "bob"))
        )
        assert (len(first), len(second)) == (50_000, 40_000)
        assert not first["code"].any()
        assert not second["code"].any()
        assert (np.diff(first["position"]) > 0).all()
        account = await wallet.account("ann", CURRENCY)
        assert account is not None
        assert account.balance == 10_000


async def test_a_submission_has_only_so_many_commands(channel: EngineChannel) -> None:
    with pytest.raises(UsageError, match="8191"):
        await channel.submit(transfers(BATCH_COUNT_MAX + 1, 1), WAIT_S)
    assert len(await channel.submit(transfers(0, 1), WAIT_S)) == 0


async def test_a_caller_that_gives_up_changes_nothing_for_others(channel: EngineChannel, slow_disk: SlowDisk) -> None:
    slow_disk.hold()
    given_up = asyncio.create_task(channel.submit(transfers(2, 1), WAIT_S))
    asked = asyncio.create_task(channel.request(Operation.LIST_CURRENCIES, b"", WAIT_S))
    kept = asyncio.create_task(channel.submit(transfers(2, 10), WAIT_S))
    await slow_disk.busy()
    for task in (given_up, asked):
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    slow_disk.release()
    assert (await kept)["code"].tolist() == [0, 0]
    assert await balance(channel, "ann") == 4


async def test_results_are_the_caller_s_own(channel: EngineChannel) -> None:
    first: Records = await channel.submit(transfers(2, 1), WAIT_S)
    before = first.copy()
    first["code"] = 7
    await channel.submit(transfers(2, 10), WAIT_S)
    assert (first["position"] == before["position"]).all()


# Refusals.


@pytest.mark.parametrize(
    ("operation", "body", "code"),
    [
        (Operation.LOOKUP_ACCOUNTS, b"x", FrameError.BODY_MALFORMED),
        (Operation.LIST_ACCOUNTS, b"x", FrameError.BODY_MALFORMED),
        (Operation.REGISTER_CURRENCY, b"\x82\xa4code\xa3eur\xa8decimals\x02", FrameError.REQUEST_REFUSED),
    ],
)
async def test_requests_are_refused_as_by_a_node(
    channel: EngineChannel, operation: Operation, body: bytes, code: FrameError
) -> None:
    with pytest.raises(RequestRefused) as refused:
        await channel.request(operation, body, None)
    assert refused.value.code == code


async def test_the_disk_has_no_room(channel: EngineChannel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel._reactor.replica.log, "has_room", lambda size: False)
    assert (await channel.submit(transfers(1, 1), None))["code"].tolist() == [ResultCode.STORAGE_FULL]
    with pytest.raises(RequestRefused) as refused:
        await channel.request(Operation.REGISTER_CURRENCY, b"\x82\xa4code\xa3NEW\xa8decimals\x02", None)
    assert refused.value.code == FrameError.OVERLOADED


# Closing.


async def test_closing_finishes_what_was_submitted(tmp_path: Path, slow_disk: SlowDisk) -> None:
    channel = await open_channel(tmp_path / "data", SETTINGS)
    await channel.submit(opening(*NAMES), WAIT_S)
    slow_disk.hold()
    working = [asyncio.create_task(channel.submit(transfers(8000, 1 + 10_000 * n), WAIT_S)) for n in range(20)]
    asking = asyncio.create_task(channel.request(Operation.LIST_CURRENCIES, b"", WAIT_S))
    await until(lambda: len(channel._waiting) > 0)
    closing = [asyncio.create_task(channel.close()) for _ in range(2)]
    await asyncio.sleep(0)
    assert not any(task.done() for task in closing)
    slow_disk.release()
    await asyncio.gather(*closing)
    assert not any([(await task)["code"].any() for task in working])
    assert await asking
    replica = open_replica(tmp_path / "data", settings=SETTINGS)
    assert replica.log.recovery.clean_stop
    assert replica.ledger.next_sequence - 1 == len(NAMES) + 20 * 8000
    replica.close()


async def test_a_closing_that_is_given_up_goes_on(tmp_path: Path, slow_disk: SlowDisk) -> None:
    channel = await open_channel(tmp_path / "data", SETTINGS)
    slow_disk.hold()
    working = asyncio.create_task(channel.submit(opening(*NAMES), WAIT_S))
    await slow_disk.busy()
    closing = asyncio.create_task(channel.close())
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    slow_disk.release()
    await channel.close()
    assert not (await working)["code"].any()
    await (await open_channel(tmp_path / "data", SETTINGS)).close()


async def test_nothing_can_be_asked_of_a_closed_ledger(channel: EngineChannel) -> None:
    await channel.close()
    await channel.close()
    with pytest.raises(UsageError, match="closed"):
        await channel.submit(transfers(1, 1), None)
    for operation in (Operation.PING, Operation.STATISTICS, Operation.LIST_CURRENCIES):
        with pytest.raises(UsageError, match="closed"):
            await channel.request(operation, b"", None)


async def test_a_wallet_closed_with_transfers_under_way(tmp_path: Path) -> None:
    wallet = await bezant.open(tmp_path / "data", timeout_s=WAIT_S)
    for name in ("world", "ann"):
        await wallet.open_account(name, "EUR", limit=bezant.UNLIMITED)
    tasks = [asyncio.create_task(wallet.transfer("world", "ann", "0.01", "EUR")) for _ in range(1000)]
    for _ in range(5):
        await asyncio.sleep(0)  # until they are submitted; what is not yet is not asked
    await wallet.close()
    outcomes = [(await task).outcome for task in tasks]
    assert set(outcomes) <= {bezant.Outcome.COMMITTED, bezant.Outcome.UNKNOWN}
    replica = open_replica(tmp_path / "data")
    assert replica.ledger.next_sequence - 1 >= 2 + outcomes.count(bezant.Outcome.COMMITTED)
    replica.close()
