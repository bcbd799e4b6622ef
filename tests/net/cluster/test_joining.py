"""Claim: a blank disk finds its group, gets all of the log, and counts from the moment at which it has it."""

import asyncio
import shutil
import time

import pytest

from bezant.cli.main import main
from bezant.engine.node_file import read_node_file
from bezant.protocol.errors import RequestRefused

from .nodes import LEADER_S, WAIT_S, Nodes, member_of, move, open_books


async def test_a_node_joins_and_a_wiped_voter_comes_back(nodes: Nodes) -> None:
    """One after the other in one group, because starting one takes seconds."""
    nodes.start()
    await nodes.ready()
    started_s = time.monotonic()
    await nodes.leader()
    assert time.monotonic() - started_s < LEADER_S
    async with nodes.connect() as wallet:
        await open_books(wallet)
        first = await nodes.leader()
        away, victim = {1, 2, 3} - {first}
        await nodes.stop(away)
        await move(wallet)

        nodes.init_joining(4)
        file = read_node_file(nodes.data(4))
        assert file is not None
        peer, client = nodes.places[4]
        await nodes.change("add", 4, incarnation=file.incarnation, peer_address=peer, client_address=client)
        asked_s = time.monotonic()
        with pytest.raises(RequestRefused, match="has not caught up"):
            await nodes.change("promote", 4, timeout_s=2.0)
        assert time.monotonic() - asked_s < WAIT_S / 2

        nodes.start(4)
        await nodes.ready(4)
        status = await nodes.await_status(
            lambda status: bool((member := member_of(status, 4)) and member.lag_entries == 0)
        )
        joined = member_of(status, 4)
        assert joined is not None
        assert joined.voting == "learner"

        promoted = await nodes.change("promote", 4)
        assert promoted.remark.startswith("4 voters survive the loss of 1, no more than 3 would")
        assert (await nodes.change("promote", 4)).index == 0

        # A node that was away: of the leader there is now, unless that changes again, it has never heard, and would not
        # let it in.
        await nodes.change("transfer", 4)
        nodes.start(away)
        await nodes.ready(away)
        await nodes.await_status(
            lambda status: bool((member := member_of(status, away)) and member.active and member.lag_entries == 0)
        )

        nodes.kill(victim)
        shutil.rmtree(nodes.data(victim))
        nodes.init_joining(victim)
        nodes.start(victim)
        await nodes.await_log(victim, f"waits to be let into its group: member {victim} has another disk")
        words = ["members", "replace", str(victim), "--connect", ",".join(nodes.addresses)]
        assert await asyncio.to_thread(main, words) == 0
        await nodes.ready(victim)

        leader = await nodes.leader_but(victim, 4)
        await nodes.change("remove", leader)
        await nodes.leader()
        await move(wallet)
        status = await nodes.await_status(lambda seen: seen.leader not in {0, leader})
        assert member_of(status, victim) is not None
        assert len(status.members) == 3
