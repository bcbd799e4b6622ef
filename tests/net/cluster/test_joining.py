"""Claim: a blank disk finds its group, gets all of the log, and counts from the moment at which it has it."""

import shutil
import time

import bezant

from .nodes import LEADER_S, Nodes, member_of


async def test_a_node_joins_and_a_wiped_voter_comes_back(nodes: Nodes) -> None:
    """One after the other in one group, because starting one takes seconds."""
    nodes.start()
    await nodes.ready()
    started_s = time.monotonic()
    await nodes.leader()
    assert time.monotonic() - started_s < LEADER_S
    async with nodes.connect() as wallet:
        await wallet.open_account("wallet:ann", "EUR", limit=bezant.UNLIMITED)
        await wallet.open_account("wallet:bob", "EUR")
        assert (await wallet.transfer("wallet:ann", "wallet:bob", "1.00", "EUR")).committed

        nodes.init_joining(4)
        nodes.start(4)
        await nodes.ready(4)
        status = await nodes.await_status(
            lambda status: bool((member := member_of(status, 4)) and member.lag_entries == 0)
        )
        joined = member_of(status, 4)
        assert joined is not None
        assert joined.voting == "learner"
        await nodes.change("promote", 4)

        victim = next(number for number in (1, 2, 3) if number != status.leader)
        nodes.kill(victim)
        shutil.rmtree(nodes.data(victim))
        nodes.init_joining(victim)
        nodes.start(victim)
        await nodes.await_log(victim, f"waits to be let into its group: member {victim} has another")
        await nodes.change("remove", victim)
        await nodes.ready(victim)
        await nodes.change("promote", victim)
        assert (await wallet.transfer("wallet:ann", "wallet:bob", "1.00", "EUR")).committed
