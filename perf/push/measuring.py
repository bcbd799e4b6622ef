"""Runs nodes, load and subscribers, one after the other, on temporary folders."""

import asyncio
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

import bezant
from bezant.cli.node_process import NodeProcess
from bezant.net.client.link import welcome_at
from bezant.net.client.subscription_over_shards import AnySubscription
from bezant.perf.load.processor import process_cpu_seconds
from bezant.perf.push.listeners import Plan, read_outcome
from bezant.perf.push.report import FanOut, Latency, PushReport
from bezant.protocol.errors import ConnectionFailed
from bezant.protocol.frames import BATCH_COUNT_MAX
from bezant.protocol.kinds import CommandKind
from bezant.protocol.names import account_id
from bezant.protocol.records import COMMAND, Records, id_words

CURRENCY: Final = "EUR"
LOAD_TICK_S: Final = 0.01
"""Seconds between two frames of the steady load."""
FRAMES_AHEAD: Final = 4
"""Frames that the load without a limit has under way."""
READER_WAIT_S: Final = 60.0
SETTLE_S_MAX: Final = 15.0
"""Seconds that the last pushes may take to arrive."""
_READER_MODULE: Final = b"bezant.net.reader.child"

Words = npt.NDArray[np.int64]


class PushSettings(msgspec.Struct, frozen=True):
    """How much of everything."""

    subscribers: int = 1000
    rate: int = 50_000
    seconds: float = 5.0
    latency_rate: int = 1000
    latency_transfers: int = 5000
    latency_warm_transfers: int = 1000
    """Transfers before those, which do not count: a node that has just begun makes its next segments on the same disk,
    and the reader's tables and the client's code are cold."""
    seed: int = 1
    directory: Path | None = None


class Loaded(NamedTuple):
    """What a load did: transfers a second, and of each transfer position, debit and credit account by number."""

    rate: float
    positions: Words
    payers: Words
    payees: Words


def measure_push(settings: PushSettings, say: Callable[[str], None]) -> PushReport:
    """Measure all of it; `say` is told what is going on."""
    return asyncio.run(_measure(settings, say))


async def _measure(settings: PushSettings, say: Callable[[str], None]) -> PushReport:
    folder = Path(tempfile.mkdtemp(prefix="bezant-push-", dir=settings.directory))
    accounts = Accounts(settings.subscribers, settings.seed)
    try:
        say("without a reader")
        async with _node(folder / "without", accounts, "--no-reader") as (wallet, _):
            without = await _load_steadily(wallet, accounts, settings)
            unbounded_without = await _load_unbounded(wallet, accounts, settings.seconds)
        async with _node(folder / "with", accounts) as (wallet, node):
            reader = await _reader_of(node)
            processor = _Processor(reader_process(node.process_id))
            say("one subscriber")
            latency = await _measure_latency(wallet, accounts, settings, processor)
            say("with a reader")
            processor.start()
            alone = await _load_steadily(wallet, accounts, settings)
            alone_us = processor.share_us(len(alone.positions))
            unbounded = await _load_unbounded(wallet, accounts, settings.seconds)
            say(f"with {settings.subscribers} subscribers")
            processor.start()
            loaded, told = await _with_listeners(wallet, accounts, settings, reader, folder / "outcome")
            loaded_us = processor.share_us(len(loaded.positions))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    delivered, missed, repeated, unordered = compare(loaded, told)
    return PushReport(
        latency,
        FanOut(
            subscribers=settings.subscribers,
            seconds=settings.seconds,
            offered_rate=float(settings.rate),
            rate_without_reader=without.rate,
            rate_without_subscribers=alone.rate,
            rate=loaded.rate,
            delivered=delivered,
            missed=missed,
            repeated=repeated,
            unordered=unordered,
            unbounded_rate_without_reader=unbounded_without,
            unbounded_rate=unbounded,
            reader_processor_us_without_subscribers=alone_us,
            reader_processor_us=loaded_us,
        ),
    )


class Accounts:
    """Accounts by number, and random transfers between them."""

    def __init__(self, count: int, seed: int) -> None:
        self.names = [f"wallet:{number}" for number in range(count)]
        self.ids = [account_id(name, CURRENCY) for name in self.names]
        self.words = np.array([id_words(identifier) for identifier in self.ids], np.int64)
        self._random = np.random.default_rng(seed)

    def transfers(self, count: int) -> tuple[Records, Words, Words]:
        """COMMAND records, and the numbers of the accounts of each."""
        payers = self._random.integers(0, len(self.ids), count)
        payees = (payers + self._random.integers(1, len(self.ids), count)) % len(self.ids)
        commands = np.zeros(count, COMMAND)
        commands["id_head"] = self._random.integers(1, 2**62, count)
        commands["id_tail"] = self._random.integers(1, 2**62, count)
        for side, numbers in (("debit", payers), ("credit", payees)):
            commands[f"{side}_head"], commands[f"{side}_tail"] = self.words[numbers].T
        commands["amount"] = 1
        commands["kind"] = int(CommandKind.TRANSFER)
        return commands, payers, payees


@asynccontextmanager
async def _node(data: Path, accounts: Accounts, *arguments: str) -> AsyncIterator[tuple[bezant.Wallet, NodeProcess]]:
    async with NodeProcess(data, arguments=arguments) as node:
        async with bezant.connect(node.address, timeout_s=60.0) as wallet:
            await asyncio.gather(
                *(wallet.open_account(name, CURRENCY, limit=bezant.UNLIMITED) for name in accounts.names)
            )
            yield wallet, node
        await node.stop()


async def _reader_of(node: NodeProcess) -> str:
    """Where the node's reader listens, once it does. Raises `ConnectionFailed`."""
    address, deadline_s = (await welcome_at(node.address, READER_WAIT_S)).reader, time.monotonic() + READER_WAIT_S
    while True:
        try:
            await welcome_at(address, READER_WAIT_S)
            return address
        except ConnectionFailed:
            if time.monotonic() > deadline_s:
                raise
            await asyncio.sleep(0.1)


def reader_process(node_process_id: int) -> int:
    """The number of the reader's process, a child of the node's. Raises `ConnectionFailed` if there is none."""
    for task in Path(f"/proc/{node_process_id}/task").iterdir():
        for child in (task / "children").read_text().split():
            if _READER_MODULE in Path(f"/proc/{child}/cmdline").read_bytes():
                return int(child)
    raise ConnectionFailed(f"process {node_process_id} has no reader")


class _Processor:
    """Processor time of a process between two moments."""

    def __init__(self, process_id: int) -> None:
        self._process_id = process_id
        self.start()

    def start(self) -> None:
        """Count from now on."""
        self._before_s = process_cpu_seconds(self._process_id) or 0.0

    def share_us(self, count: int) -> float:
        """Microseconds since, for each of so many."""
        return round(1e6 * ((process_cpu_seconds(self._process_id) or 0.0) - self._before_s) / max(count, 1), 2)


async def _measure_latency(
    wallet: bezant.Wallet, accounts: Accounts, settings: PushSettings, processor: _Processor
) -> Latency:
    """One subscriber to one account, and steady transfers to it, in this process."""
    warm, count = settings.latency_warm_transfers, settings.latency_warm_transfers + settings.latency_transfers
    told_s: dict[int, float] = {}
    received: list[tuple[int, float, int]] = []
    tasks: set[asyncio.Task[None]] = set()

    async def pay() -> None:
        result = await wallet.transfer(accounts.names[1], accounts.names[0], "0.01", CURRENCY)
        told_s[result.position or 0] = time.perf_counter()

    async def listen(subscription: AnySubscription) -> None:
        while len(received) < count:
            events = await subscription.next_events()
            now_s, now_ns = time.perf_counter(), time.time_ns()
            received.extend((event.position, now_s, now_ns - event.timestamp_ns) for event in events)

    async with wallet.subscribe(accounts=[accounts.names[0]], currency=CURRENCY) as subscription:
        listening = asyncio.create_task(listen(subscription))
        processor.start()
        start_s = time.perf_counter()
        for number in range(count):
            await asyncio.sleep(max(start_s + number / settings.latency_rate - time.perf_counter(), 0))
            tasks.add(task := asyncio.create_task(pay()))
            task.add_done_callback(tasks.discard)
        seconds = time.perf_counter() - start_s
        await asyncio.gather(*tasks)
        await asyncio.wait_for(listening, SETTLE_S_MAX)
    after_reply = np.array([1e3 * (at_s - told_s[position]) for position, at_s, _ in received[warm:]])
    after_timestamp = np.array([age_ns / 1e6 for _, _, age_ns in received[warm:]])
    (reply_p50, reply_p99), (timestamp_p50, timestamp_p99) = (
        np.percentile(ages, (50, 99)).tolist() for ages in (after_reply, after_timestamp)
    )
    return Latency(
        transfers=settings.latency_transfers,
        rate=count / seconds,
        after_reply_ms_p50=reply_p50,
        after_reply_ms_p99=reply_p99,
        after_timestamp_ms_p50=timestamp_p50,
        after_timestamp_ms_p99=timestamp_p99,
        reader_processor_us=processor.share_us(count),
    )


async def _load_steadily(wallet: bezant.Wallet, accounts: Accounts, settings: PushSettings) -> Loaded:
    """So many transfers a second, whatever the node does; the rate is that of answers."""
    count = max(round(settings.rate * LOAD_TICK_S), 1)
    frames: list[tuple[Words, Words, asyncio.Task[Records]]] = []
    made = [accounts.transfers(count) for _ in range(round(settings.seconds / LOAD_TICK_S))]
    start_s = time.perf_counter()
    for number, (commands, payers, payees) in enumerate(made):
        await asyncio.sleep(max(start_s + number * LOAD_TICK_S - time.perf_counter(), 0))
        frames.append((payers, payees, asyncio.create_task(wallet.submit(commands, 60.0))))
    results = await asyncio.gather(*(task for _, _, task in frames))
    seconds = max(time.perf_counter() - start_s, settings.seconds)
    answered = np.concatenate(results)
    committed = answered["code"] == 0
    payers = np.concatenate([payers for payers, _, _ in frames])[committed]
    payees = np.concatenate([payees for _, payees, _ in frames])[committed]
    return Loaded(int(committed.sum()) / seconds, answered["position"][committed].copy(), payers, payees)


async def _load_unbounded(wallet: bezant.Wallet, accounts: Accounts, seconds: float) -> float:
    """As many transfers as the node takes; returns how many a second."""
    done, end_s = 0, time.perf_counter() + seconds

    async def drive() -> None:
        nonlocal done
        commands, _, _ = accounts.transfers(BATCH_COUNT_MAX)
        while time.perf_counter() < end_s:
            commands["id_head"] += 1
            done += int((await wallet.submit(commands, 60.0))["code"].size)

    start_s = time.perf_counter()
    await asyncio.gather(*(drive() for _ in range(FRAMES_AHEAD)))
    return done / (time.perf_counter() - start_s)


async def _with_listeners(
    wallet: bezant.Wallet, accounts: Accounts, settings: PushSettings, reader: str, outcome: Path
) -> tuple[Loaded, list[Words]]:
    """The steady load while everyone listens, and what each was told."""
    host, _, port = reader.rpartition(":")
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "bezant.perf.push.listeners",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        if process.stdin is None or process.stdout is None:
            raise ConnectionFailed("the process with the subscribers has no pipes")
        process.stdin.write(msgspec.json.encode(Plan(host, int(port), accounts.ids, str(outcome))) + b"\n")
        if await asyncio.wait_for(process.stdout.readline(), READER_WAIT_S) != b"ready\n":
            raise ConnectionFailed("the subscribers could not subscribe")
        loaded = await _load_steadily(wallet, accounts, settings)
        await _settled(wallet, int(loaded.positions.max()))
        process.stdin.close()
        await asyncio.wait_for(process.wait(), SETTLE_S_MAX)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return loaded, read_outcome(outcome)


async def _settled(wallet: bezant.Wallet, position: int) -> None:
    """Return when one more subscriber has been told that everything up to a position has been sent, and a little later.

    What others were sent before lies in their sockets by then.
    """
    async with wallet.subscribe(currency=CURRENCY, after=position - 1) as subscription:
        await asyncio.wait_for(anext(subscription), SETTLE_S_MAX)
    await asyncio.sleep(1.0)


def compare(loaded: Loaded, told: list[Words]) -> tuple[int, int, int, int]:
    """(delivered, missed, repeated, out of order) of what the subscribers should have been told."""
    delivered = missed = repeated = unordered = 0
    order = np.argsort(loaded.positions, kind="stable")
    positions, payers, payees = loaded.positions[order], loaded.payers[order], loaded.payees[order]
    by_account: dict[int, list[int]] = {}
    for position, debit, credit in zip(positions.tolist(), payers.tolist(), payees.tolist(), strict=True):
        by_account.setdefault(debit, []).append(position)
        by_account.setdefault(credit, []).append(position)
    for number, found in enumerate(told):
        expected = np.array(by_account.get(number, []), np.int64)
        unique = np.unique(found)
        delivered += len(np.intersect1d(unique, expected))
        missed += len(np.setdiff1d(expected, unique))
        repeated += len(found) - len(unique)
        unordered += int((np.diff(found) < 0).sum())
    return delivered, missed, repeated, unordered
