"""Claim: slots move there and back between real nodes that are killed meanwhile, and nothing is lost or done twice."""

import asyncio
import contextlib
import json
import os
import random
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import bezant
from bezant.cli.local_shards import LocalShards, Plan, init_shards
from bezant.cli.node_process import WRITE_SIDE_COMMAND
from bezant.cli.shards_move import ask_moves
from bezant.protocol.codes import ResultCode
from bezant.protocol.errors import ConnectionFailed

from .processes import SMALL, say_nothing
from .shards import CURRENCY

WAIT_S = 180.0
WALLETS = 16
FUNDS = 100_000
CLIENTS = 6
ANSWERS = {ResultCode.COMMITTED, ResultCode.INSUFFICIENT_FUNDS, ResultCode.SHARD_UNREACHABLE}


async def run(*arguments: str) -> dict[str, Any]:
    """What a command says with --json."""
    command = [sys.executable, "-m", "bezant", *arguments, "--json"]
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(WAIT_S):
        told, errors = await process.communicate()
    assert process.returncode == 0, (told, errors)
    return dict(json.loads(told))


class Bank:
    """Clients that pay each other, and what they were told."""

    def __init__(self, wallet: bezant.Wallet) -> None:
        self.wallet = wallet
        self.names = [f"wallet:{number}" for number in range(WALLETS)]
        self.left = dict.fromkeys(self.names, FUNDS)
        self.outcomes: Counter[str] = Counter()
        self.stopping = asyncio.Event()

    async def open(self) -> None:
        assert (await self.wallet.open_account("bank", CURRENCY, limit=bezant.UNLIMITED)).committed
        for name in self.names:
            assert (await self.wallet.open_account(name, CURRENCY)).committed
            assert (await self.wallet.transfer("bank", name, f"{FUNDS / 100:.2f}", CURRENCY)).committed

    async def pay(self, seed: int) -> None:
        chance = random.Random(seed)
        while not self.stopping.is_set():
            debit, credit = chance.sample(self.names, 2)
            identifier, cents = os.urandom(16), chance.randrange(1, 500)
            amount = f"{cents / 100:.2f}"
            first = await self.wallet.transfer(debit, credit, amount, CURRENCY, id=identifier, timeout_s=WAIT_S)
            assert first.code in ANSWERS, first
            self.outcomes[first.code.name] += 1
            if first.committed:
                self.left[debit] -= cents
                self.left[credit] += cents
            again = await self.wallet.transfer(debit, credit, amount, CURRENCY, id=identifier, timeout_s=WAIT_S)
            assert (again.code, again.position) == (first.code, first.position)

    async def balances(self) -> list[int]:
        accounts = [await self.wallet.account(name, CURRENCY) for name in self.names]
        return [account.balance for account in accounts if account is not None]


async def moves_out_of(shards: LocalShards, shard: int) -> set[str]:
    """All that a shard knows of, whether they have ended or not; as soon as its node is there."""
    async with asyncio.timeout(WAIT_S):
        while True:
            with contextlib.suppress(ConnectionFailed):
                return {status.move for status in await ask_moves(",".join(shards.shards[shard].addresses), WAIT_S)}
            await asyncio.sleep(0.02)


async def kill(shards: LocalShards, shard: int) -> None:
    for node in shards.shards[shard].nodes.values():
        node.kill()


async def test_slots_move_there_and_back_while_nodes_are_killed(tmp_path: Path) -> None:
    chance = random.Random(7)
    init_shards(tmp_path, Plan(2, 1, 0))
    async with LocalShards(tmp_path, say_nothing, arguments=SMALL, command=WRITE_SIDE_COMMAND) as shards:
        stopping = asyncio.Event()
        watching = asyncio.create_task(shards.watch(stopping))
        async with bezant.connect(",".join(shards.addresses), timeout_s=WAIT_S) as wallet:
            bank = Bank(wallet)
            await bank.open()
            async with asyncio.TaskGroup() as tasks:
                for client in range(CLIENTS):
                    tasks.create_task(bank.pay(client))
                for round_number, to in enumerate((1, 0, 1, 0)):
                    nodes = ",".join(shards.addresses)
                    asked = ("shards", "move", "--connect", nodes, "--slots", "0-2047", "--to", str(to))
                    await moves_out_of(shards, to)
                    known = await moves_out_of(shards, 1 - to)
                    moving = asyncio.create_task(run(*asked))
                    if round_number:
                        async with asyncio.timeout(WAIT_S):  # Before it has begun, both must be there to be asked.
                            while await moves_out_of(shards, 1 - to) == known:
                                await asyncio.sleep(0.01)
                        await asyncio.sleep(chance.uniform(0.0, 1.0))
                        await kill(shards, chance.randrange(2))
                    told = await moving
                    assert [move["phase"] for move in told["moves"]] == ["ended"], told
                bank.stopping.set()
            expected = [bank.left[name] for name in bank.names]
            async with asyncio.timeout(WAIT_S):
                while await bank.balances() != expected:
                    await asyncio.sleep(0.1)
            account = await wallet.account("bank", CURRENCY)
            assert account is not None
            assert account.balance == -WALLETS * FUNDS
            assert bank.outcomes["COMMITTED"] > 20
        stopping.set()
        await watching
        await shards.stop()
