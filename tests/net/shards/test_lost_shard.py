"""Claim: a shard that is lost keeps nobody waiting but those who pay into it, and these not for ever."""

import asyncio
import time
from collections import Counter
from pathlib import Path

import bezant
from bezant.cli.local_shards import LocalShards, Plan, init_shards
from bezant.cli.node_process import WRITE_SIDE_COMMAND

from .processes import SMALL
from .shards import names_of
from .test_bank import CURRENCY, WAIT_S, say_nothing, settled

PAYERS = 12
"""More than a reactor has batches."""
LOOK_S = 4.5
"""Longer than a first try may take."""
WITHIN_S_MAX = 1.5
"""Half of what such a try may take, on a busy machine; as a rule it is a twentieth of a second."""


async def pay_across(wallet: bezant.Wallet, debit: str, credit: str, told: Counter[str], until_s: float) -> None:
    while time.monotonic() < until_s:
        result = await wallet.transfer(debit, credit, "0.01", CURRENCY, timeout_s=WAIT_S)
        told[str(result.code.name)] += 1


async def test_who_pays_within_a_shard_does_not_wait_for_another(tmp_path: Path) -> None:
    init_shards(tmp_path, Plan(2, 1, 0))
    async with LocalShards(tmp_path, say_nothing, arguments=SMALL, command=WRITE_SIDE_COMMAND) as shards:
        addresses = ",".join(shards.addresses)
        async with bezant.connect(addresses, timeout_s=60) as across, bezant.connect(addresses, timeout_s=60) as within:
            own, far = names_of(across, 0, PAYERS + 2), names_of(across, 1, 1)
            for name in (*own, *far):
                await across.open_account(name, CURRENCY, limit=bezant.UNLIMITED)
            assert (await across.transfer(own[0], far[0], "1.00", CURRENCY)).committed
            assert (await within.transfer(own[0], own[1], "1.00", CURRENCY)).committed
            for node in shards.shards[1].nodes.values():
                node.kill()
            told: Counter[str] = Counter()
            until_s = time.monotonic() + LOOK_S
            waited_s = []
            async with asyncio.TaskGroup() as tasks:
                for name in own[2:]:
                    tasks.create_task(pay_across(across, name, far[0], told, until_s))
                while time.monotonic() < until_s:
                    begun_s = time.monotonic()
                    assert (await within.transfer(own[0], own[1], "0.01", CURRENCY)).committed
                    waited_s.append(time.monotonic() - begun_s)
            assert max(waited_s) < WITHIN_S_MAX
            assert set(told) == {"SHARD_UNREACHABLE"}
            assert told.total() > 2 * PAYERS  # The first waits for as long as a try may take, those behind it do not.
            for node in shards.shards[1].nodes.values():
                node.start()
            accounts = await settled(within, [*own, *far])
            assert sum(account.balance for account in accounts) == 0
            assert accounts[-1].balance == 100
        await shards.stop()
