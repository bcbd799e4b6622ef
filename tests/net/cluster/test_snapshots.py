"""Claim: a node that lacks much begins with the state of its group, counts, and then gets the history behind it."""

import asyncio
import shutil
import time

from bezant.cli.main import main
from bezant.engine.verify import VerifyReport, verify
from bezant.net.client.wallet import Wallet
from bezant.protocol.errors import DataFolderInUse

from ...engine.commands import transfers
from .nodes import Nodes, member_of, move, open_books

SMALL = ("--segment-size-mib", "1", "--checkpoint-entries", "20", "--snapshot-behind-mib", "1")
WAIT_S = 90.0
"""Seconds for what takes one or two, but for the child that makes checkpoints: it gives way to all others."""
BATCHES = 120
BATCH = 1_500
"""Transfers: some 280 KiB of the log, and so three batches fill a segment, and all together are twice what a leader has
in flight to a member: less than that would be there before the state is."""


async def load(wallet: Wallet, batches: int) -> int:
    for _ in range(batches):
        results = await wallet.submit(transfers("wallet:ann", "wallet:bob", BATCH))
        assert not results["code"].any()
    return batches


def has_checkpoint(nodes: Nodes, number: int, index: int) -> bool:
    """Whether a node has a checkpoint behind this entry, or a later one."""
    folder = nodes.data(number) / "shard-0000" / "checkpoints"
    return any(int(path.name[len("checkpoint-") :]) >= index for path in folder.glob("checkpoint-??????????"))


async def verified(nodes: Nodes, number: int) -> VerifyReport:
    """What verify says once the child of a node that was killed has noticed that, too."""
    deadline_s = time.monotonic() + WAIT_S
    while True:
        try:
            return verify(nodes.data(number))
        except DataFolderInUse:
            assert time.monotonic() < deadline_s
        await asyncio.sleep(0.1)


async def test_a_wiped_node_begins_with_the_state_and_ends_with_the_whole_history(nodes: Nodes) -> None:
    nodes.start(arguments=SMALL)
    await nodes.ready()
    leader = await nodes.leader()
    victim = ({1, 2, 3} - {leader}).pop()
    async with nodes.connect() as wallet:
        await open_books(wallet)
        batches, deadline_s = await load(wallet, BATCHES), time.monotonic() + WAIT_S
        while not all(has_checkpoint(nodes, number, BATCHES) for number in nodes.running):  # Whoever will lead then.
            assert time.monotonic() < deadline_s
            batches += await load(wallet, 1)
            await asyncio.sleep(0.3)
        nodes.kill(victim)
        shutil.rmtree(nodes.data(victim))
        nodes.init_joining(victim)
        nodes.start(victim, arguments=SMALL)
        await nodes.await_log(victim, "waits to be let into its group")
        words = ["members", "replace", str(victim), "--connect", ",".join(nodes.addresses)]
        assert await asyncio.to_thread(main, words) == 0
        await nodes.await_log(victim, "the state of the group behind entry")
        await move(wallet)
        status = await nodes.await_status(
            lambda seen: bool((member := member_of(seen, victim)) and member.history_percent == 100.0), WAIT_S
        )
        member = member_of(status, victim)
        assert member is not None
        assert member.voting == "voter"
        while (nodes.data(victim) / "shard-0000" / "incomplete").exists():
            assert time.monotonic() < deadline_s + WAIT_S
            await asyncio.sleep(0.05)
    for number in list(nodes.running):
        nodes.kill(number)  # All at once, so that none of them elects another leader.
    reports = [await verified(nodes, number) for number in (leader, victim)]
    assert reports[1].events > batches * BATCH
    assert reports[0].chain_hash == reports[1].chain_hash
    assert reports[0].state_digest == reports[1].state_digest
    assert not list(nodes.data(victim).glob("shard-0000/before-*"))
