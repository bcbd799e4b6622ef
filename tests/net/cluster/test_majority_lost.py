"""Claim: one node of three can be told to go on alone; the others cannot come back but on new disks."""

import shutil

from bezant.cli.main import main

from .nodes import Nodes, member_of, move, open_books


async def test_what_is_left_goes_on(nodes: Nodes, capsys) -> None:
    nodes.start()
    await nodes.ready()
    leader = await nodes.leader()
    left, other, lost = (leader, *({1, 2, 3} - {leader}))
    async with nodes.connect() as wallet:
        await open_books(wallet)
        await move(wallet)
    for number in (other, lost, left):
        nodes.kill(number)
    flags = ["--node", str(left), "--i-accept-that-acknowledged-transfers-may-be-lost"]
    assert main(["members", "recover", "--data", str(nodes.data(left)), *flags]) == 0
    assert f"node {left} is the only voter" in capsys.readouterr().out
    nodes.start(left)
    await nodes.ready(left)
    async with nodes.connect() as wallet:
        await move(wallet)

        # The old disk of another is of another history now.
        nodes.start(other)
        await nodes.ready(other)
        await nodes.await_status(lambda seen: seen.leader == left)
        while not any("is no member" in member.problem for member in (await nodes.status(other)).members):
            pass
        assert (await nodes.status(other)).leader == 0
        await nodes.stop(other)

        # A new one is let in.
        shutil.rmtree(nodes.data(other))
        nodes.init_joining(other)
        nodes.start(other)
        await nodes.ready(other)
        await nodes.change("promote", other)
        await nodes.change("transfer", other)
        await move(wallet)
        status = await nodes.status(other)
        assert [member.voting for member in status.members] == ["voter", "voter"]
        assert member_of(status, lost) is None
