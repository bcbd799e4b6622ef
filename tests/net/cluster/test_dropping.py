"""Claim: running nodes let segments go that an archive has, and miss nothing: old ids are answered, queries over the
running node's folder see one position, and a blank disk gets the whole history from a group that has dropped it."""

import asyncio
import shutil
import time
from pathlib import Path

from bezant.cli.main import main
from bezant.engine.tables.history import HistoryTables
from bezant.net.archive.segments import drop_segments, push_segments
from bezant.net.archive.store import LocalStore
from bezant.protocol.codes import ResultCode

from ...engine.commands import transfers
from .nodes import Nodes, member_of, move, open_books
from .test_snapshots import BATCH, BATCHES, SMALL, WAIT_S, has_checkpoint, load, verified

PAUSE_S = 0.3
"""Between two batches, while something is waited for: all that is written meanwhile is read again in the end."""
HASTE_S = 2.0
"""For what is answered OVERLOADED until somebody has fetched it: asked for again by the test, and not by the wallet."""


async def test_a_group_that_has_dropped_its_history_still_has_it(nodes: Nodes, tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "kept")
    nodes.start(arguments=SMALL)
    await nodes.ready()
    leader = await nodes.leader()
    victim = ({1, 2, 3} - {leader}).pop()
    async with nodes.connect(timeout_s=30) as wallet:
        await open_books(wallet)
        old = transfers("wallet:ann", "wallet:bob", BATCH)
        first = await wallet.submit(old.copy())
        batches, deadline_s = await load(wallet, BATCHES), time.monotonic() + WAIT_S
        while not all(has_checkpoint(nodes, number, BATCHES // 2) for number in nodes.running):
            assert time.monotonic() < deadline_s
            batches += await load(wallet, 1)
            await asyncio.sleep(PAUSE_S)
        for number in list(nodes.running):
            await push_segments(nodes.data(number), store)
            done = await drop_segments(nodes.data(number), store, wait_s=WAIT_S)
            assert done.dropped
            assert (done.waiting, done.not_kept) == ([], [])
        again, deadline_s = await wallet.submit(old.copy(), timeout_s=HASTE_S), time.monotonic() + WAIT_S
        assert (again["code"] == ResultCode.OVERLOADED).all()  # Nobody has asked for them before.
        while (again["code"] == ResultCode.OVERLOADED).any():
            assert time.monotonic() < deadline_s
            await move(wallet)  # Nobody waits for who does.
            again = await wallet.submit(old.copy(), timeout_s=HASTE_S)
        assert (again["position"] == first["position"]).all()
        assert not again["code"].any()
        status = await nodes.status(leader)
        assert [member.history_percent == 100.0 for member in status.members if member.node_id == leader] == [True]

        nodes.kill(victim)
        shutil.rmtree(nodes.data(victim))
        nodes.init_joining(victim)
        nodes.start(victim, arguments=SMALL)
        await nodes.await_log(victim, "waits to be let into its group")
        words = ["members", "replace", str(victim), "--connect", ",".join(nodes.addresses)]
        assert await asyncio.to_thread(main, words) == 0
        await nodes.await_log(victim, "the state of the group behind entry")
        await move(wallet)
        deadline_s = time.monotonic() + WAIT_S
        while (nodes.data(victim) / "shard-0000" / "incomplete").exists():
            assert time.monotonic() < deadline_s
            batches += await load(wallet, 1)
            await asyncio.sleep(PAUSE_S)
        status = await nodes.await_status(
            lambda seen: bool((member := member_of(seen, victim)) and (member.history_percent or 0) > 99), WAIT_S
        )
        tables = HistoryTables(nodes.data(leader))
        batches += await load(wallet, 1)
        assert sum(len(batch.events) for _, batch in tables.batches()) == tables.until_sequence
    for number in list(nodes.running):
        nodes.kill(number)
    reports = [await verified(nodes, number) for number in (leader, victim)]
    assert reports[1].events > batches * BATCH
