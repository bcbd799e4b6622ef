"""The load of the demo: transfers between wallets in batches, with its own books kept beside the node's.

The books here are one NumPy sum over the transfers that were answered "committed", written without a look at the
engine: after a crash, every balance that the node reports must equal them.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from bezant.cli.errors import CommandFailed
from bezant.cli.pipeline import Pipeline, Submitter
from bezant.protocol.codes import ResultCode
from bezant.protocol.errors import ConnectionFailed
from bezant.protocol.frames import BATCH_COUNT_MAX
from bezant.protocol.kinds import CommandKind, ResultFlag
from bezant.protocol.names import account_id
from bezant.protocol.records import COMMAND, RESULT, Records, Words

if TYPE_CHECKING:
    import bezant

CURRENCY: Final = "EUR"
MINT: Final = "demo:mint"
FUNDS: Final = "10000.00"
FUNDS_UNITS: Final = 1_000_000
AMOUNT_UNITS_MAX: Final = 1_000
BATCHES_IN_FLIGHT: Final = 4
BATCHES_AT_CRASH: Final = 8
"""Batches sent in one go before the crash, so that several are under way in it: received, executed, being synced."""

SEED: Final = 1993


@dataclass(frozen=True, slots=True)
class Batch:
    """Commands of one frame, with the numbers of the wallets that pay and are paid."""

    commands: Records
    payers: Words
    payees: Words


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """A batch and the results that the node gave to it: what it must still know after a crash."""

    batch: Batch
    results: Records


class DemoLoad:
    """Wallets, a seeded stream of transfers between them, and what every balance must be."""

    def __init__(self, wallet_count: int) -> None:
        self.names = [f"demo:wallet:{number:05d}" for number in range(wallet_count)]
        identifiers = b"".join(account_id(name, CURRENCY) for name in self.names)
        self._ids = np.frombuffer(identifiers, "<i8").reshape(-1, 2)
        self._random = np.random.default_rng(SEED)
        self.expected: Words = np.zeros(wallet_count, np.int64)

    async def open_wallets(self, wallet: "bezant.Wallet") -> None:
        """Open the wallets, and give each of them FUNDS from an account of the outside world."""
        import bezant

        opened = await asyncio.gather(
            wallet.open_account(MINT, CURRENCY, limit=bezant.UNLIMITED),
            *(wallet.open_account(name, CURRENCY) for name in self.names),
        )
        funded = await asyncio.gather(*(wallet.transfer(MINT, name, FUNDS, CURRENCY) for name in self.names))
        refused = next((result for result in (*opened, *funded) if not result.committed), None)
        if refused is not None:
            raise CommandFailed(f"the node would not open and fund the wallets: {refused.code}")
        self.expected += FUNDS_UNITS

    def batches(self, transfer_count: int) -> Iterator[Batch]:
        """So many transfers, in batches that fill a frame each."""
        for start in range(0, transfer_count, BATCH_COUNT_MAX):
            yield self.make_batch(min(BATCH_COUNT_MAX, transfer_count - start))

    def make_batch(self, count: int) -> Batch:
        """Transfers of random amounts between random pairs of wallets, with new ids."""
        wallet_count = len(self.names)
        payers = self._random.integers(0, wallet_count, count)
        payees = (payers + self._random.integers(1, wallet_count, count)) % wallet_count
        commands = np.zeros(count, COMMAND)
        ids = _time_ids(self._random, count)
        for field, words in (("id", ids), ("debit", self._ids[payers]), ("credit", self._ids[payees])):
            commands[f"{field}_head"] = words[:, 0]
            commands[f"{field}_tail"] = words[:, 1]
        commands["amount"] = self._random.integers(1, AMOUNT_UNITS_MAX + 1, count)
        commands["kind"] = CommandKind.TRANSFER
        return Batch(commands, payers, payees)

    def book(self, batch: Batch, results: Records) -> int:
        """Add what the node says it committed to our own books; returns how many of the batch it was."""
        done = results["code"] == ResultCode.COMMITTED
        amounts = batch.commands["amount"][done]
        np.subtract.at(self.expected, batch.payers[done], amounts)
        np.add.at(self.expected, batch.payees[done], amounts)
        return int(np.count_nonzero(done))


def _time_ids(random: np.random.Generator, count: int) -> Words:
    """UUIDv7 ids as rows of (head, tail) words; see `bezant.protocol.names.IdMaker`, which makes them one by one."""
    octets = random.integers(0, 256, (count, 16), dtype=np.uint8)
    octets[:, :6] = np.frombuffer((time.time_ns() // 1_000_000).to_bytes(6, "big"), np.uint8)
    octets[:, 6] = octets[:, 6] & 0x0F | 0x70
    octets[:, 8] = octets[:, 8] & 0x3F | 0x80
    return octets.view("<i8")


async def push(wallet: Submitter, load: DemoLoad, transfer_count: int, on_done: Callable[[int], None]) -> int:
    """Send transfers with BATCHES_IN_FLIGHT frames unanswered; returns how many were committed."""
    committed = 0
    async with Pipeline[Batch](wallet, BATCHES_IN_FLIGHT) as pipeline:
        async for batch, results in pipeline.stream(load.batches(transfer_count)):
            committed += load.book(batch, results)
            on_done(len(batch.commands))
    return committed


async def push_until_crash(
    wallet: "bezant.Wallet", load: DemoLoad, acknowledged_count: int, crash: Callable[[], None]
) -> tuple[list[Acknowledged], list[Batch]]:
    """Send batches without end; once so many are answered, send BATCHES_AT_CRASH and call `crash` among their answers.

    Returns the batches that were acknowledged, with their results, and those that were not. Closes the wallet.
    """
    acknowledged: list[Acknowledged] = []
    unanswered: list[Batch] = []
    async with Pipeline[Batch](wallet, BATCHES_IN_FLIGHT + BATCHES_AT_CRASH) as pipeline:
        while len(acknowledged) < acknowledged_count:
            while len(pipeline) < BATCHES_IN_FLIGHT:
                await pipeline.send(load.make_batch(BATCH_COUNT_MAX))
            acknowledged.append(Acknowledged(*await pipeline.take()))
        for batch in [load.make_batch(BATCH_COUNT_MAX) for _ in range(BATCHES_AT_CRASH)]:
            await pipeline.send(batch)
        # With one more answer the node is in the midst of them.
        acknowledged.append(Acknowledged(*await pipeline.take()))
        crash()
        # The SDK would send what is pending again, to the next node at this address. Here nobody shall help: closing
        # makes every batch that was not answered unknown.
        await wallet.close()
        while pipeline:
            batch = pipeline.oldest
            try:
                _, results = await pipeline.take()
            except ConnectionFailed:
                unanswered.append(batch)
            else:
                acknowledged.append(Acknowledged(batch, results))
    return acknowledged, unanswered


def is_same_outcome(first: Records, again: Records) -> bool:
    """Whether `again` answers every command as a repeat of `first`: same code, position, time and balances."""
    if not np.all(again["flags"] & ResultFlag.REPEATED):
        return False
    names = [name for name in RESULT.names or () if name != "flags"]
    return all(np.array_equal(first[name], again[name]) for name in names)
