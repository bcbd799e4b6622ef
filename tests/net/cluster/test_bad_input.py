"""Claim: a node that is not what it should be harms nobody, and the group says what is wrong with it."""

import asyncio
import re
import shutil
import time

import msgspec

from bezant.cli.ports import free_addresses
from bezant.engine.log.segment import segment_name
from bezant.engine.node_file import NODE_NAME, new_cluster_id, read_node_file

from .nodes import WAIT_S, Nodes, member_of, move, open_books

AHEAD = "import time; clock = time.time_ns; time.time_ns = lambda: clock() + 3 * 3600 * 10**9\n"
"""Makes a Bezant whose clock is three hours ahead."""
STOP_S = 20.0
CALM_S = 1.0
"""Several times as long as a node waits that hears of no leader."""
PATIENT = f"from bezant.net.server import peering; peering.HAND_OVER_S_MAX = {2 * STOP_S}\n"
"""Makes a Bezant that waits for long until another node takes the leadership, if it waits for that at all."""
LATER_RULES = f"{PATIENT}from bezant.protocol import records; records.RULES_VERSION += 1\n"
"""Makes a later Bezant, which knows one more version of the rules."""


def problem_with(nodes: Nodes, number: int, words: str):
    """A question to a status: whether it says this of the node."""

    def is_told(status) -> bool:
        member = member_of(status, number)
        return member is not None and words in member.problem

    return is_told


async def test_nodes_that_do_not_belong_there_stay_outside(nodes: Nodes) -> None:
    nodes.start()
    await nodes.ready()
    leader = await nodes.leader()
    other = next(number for number in (1, 2, 3) if number != leader)
    async with nodes.connect() as wallet:
        await open_books(wallet)

        # A second process on a copy of the disk.
        copied = nodes.places[9] = tuple(free_addresses(2))
        file = read_node_file(nodes.data(other))
        assert file is not None
        shutil.copytree(nodes.data(other), nodes.data(9), ignore=shutil.ignore_patterns("*.new"))  # They come and go.
        (nodes.data(9) / "lock").unlink()
        changed = msgspec.structs.replace(file, peer_address=copied[0], client_address=copied[1])
        (nodes.data(9) / NODE_NAME).write_bytes(msgspec.json.encode(changed))
        nodes.start(9)
        await nodes.ready(9)
        leader = await nodes.leader()
        seen_by_copy = await nodes.status(9)
        assert seen_by_copy.leader in {0, leader}
        await _until_told(nodes, 9, "two nodes have the id")
        await move(wallet)
        await _until_calm(nodes)
        await nodes.stop(9)
        del nodes.places[9]

        # A node of another cluster at the place of one of ours.
        await nodes.stop(other)
        nodes.data(other).rename(nodes.data(7))
        ours, nodes.cluster_id = nodes.cluster_id, new_cluster_id()
        nodes.init(other)
        nodes.start(other)
        await nodes.ready(other)
        await nodes.await_status(problem_with(nodes, other, "is of the group"))
        await move(wallet)
        assert (await nodes.status(other)).leader == 0
        await nodes.stop(other)
        nodes.cluster_id = ours

        # The same place, and the right disk, but damaged: it starts only when told to give up what it has.
        shutil.rmtree(nodes.data(other))
        nodes.data(7).rename(nodes.data(other))
        with (nodes.data(other) / "shard-0000" / segment_name(1)).open("r+b") as segment:
            segment.seek(4096 + 200)
            segment.write(b"rot")
        assert await nodes.run_to_the_end(other) != 0
        assert "--repair-from-group" in nodes.log(other)
        nodes.start(other, arguments=("--repair-from-group",))
        await nodes.ready(other)
        assert re.search(r"cut behind entry 0; .* set aside in .*rot-", nodes.log(other))
        await nodes.await_status(
            lambda seen: bool((member := member_of(seen, other)) and member.active and member.lag_entries == 0)
        )
        await nodes.change("transfer", other)
        await move(wallet)


async def _until_told(nodes: Nodes, number: int, words: str) -> None:
    """Wait until a node has been told this by another."""
    deadline_s = time.monotonic() + WAIT_S
    while not any(words in member.problem for member in (await nodes.status(number)).members):
        assert time.monotonic() < deadline_s, await nodes.status(number)


async def _until_calm(nodes: Nodes) -> None:
    """Wait until nobody has stood for election for some time, as a node would be doing all along that disturbs."""
    deadline_s, before = time.monotonic() + WAIT_S, -1
    while before != (now := (await nodes.await_status(lambda seen: seen.leader == seen.node_id)).term):
        assert time.monotonic() < deadline_s
        before = now
        await asyncio.sleep(CALM_S)


async def test_clocks_versions_and_the_last_node(nodes: Nodes) -> None:
    """A clock that is hours off does not lead; a later version works beside earlier ones; the last node stops soon."""
    nodes.start(1, program=AHEAD)
    nodes.start(2, 3)
    await nodes.ready()
    await nodes.leader()
    async with nodes.connect() as wallet:
        await open_books(wallet)
        await nodes.change("transfer", 1)
        await move(wallet)
        await nodes.await_status(lambda seen: seen.leader in {2, 3})
        assert re.search(r"the clock of this node is 10\d{6} ms off the others'", nodes.log(1))
        await move(wallet)
        assert 10_000_000 < abs(_offset_ms(await nodes.status(3), 1)) < 11_000_000

        # An upgrade, one after the other: each starts again on what the earlier version has begun.
        for number in (2, 1, 3):
            await nodes.stop(number)
            nodes.start(number, program=LATER_RULES)
            await nodes.ready(number)
            await nodes.await_status(lambda seen: all(member.lag_entries == 0 for member in seen.members))
            await nodes.change("transfer", number)
            await move(wallet)
        await nodes.await_status(lambda seen: all(member.lag_entries == 0 for member in seen.members))
    leader = await nodes.leader()
    for number in {1, 2, 3} - {leader}:
        await nodes.stop(number)
    asked_s = time.monotonic()
    await nodes.stop(leader)
    assert time.monotonic() - asked_s < STOP_S


def _offset_ms(status, number: int) -> float:
    member = member_of(status, number)
    assert member is not None
    return (member.clock_offset_ns or 0) / 1_000_000
