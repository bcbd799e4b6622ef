"""Claim: a node has a reader beside it that is always there again, and whose death harms nobody."""

import asyncio
import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bezant.net.client.link import welcome_at
from bezant.net.client.members import ask_node
from bezant.net.server import reading
from bezant.protocol.errors import ConnectionFailed, RequestRefused
from bezant.protocol.frames import FrameError, Operation
from bezant.protocol.messages import Welcome

from .books import NAMES, opening, transfers
from .process import NodeProcess, running

WAIT_S = 30.0


def address_of(node: NodeProcess) -> str:
    return "{}:{}".format(*node.address)


async def reader_of(node: NodeProcess) -> Welcome:
    """What the node's reader says, once it listens."""
    address = (await welcome_at(address_of(node), WAIT_S)).reader
    async with asyncio.timeout(WAIT_S):
        while True:
            try:
                return await welcome_at(address, WAIT_S)
            except ConnectionFailed:
                await asyncio.sleep(0.05)


def children(node: NodeProcess) -> list[int]:
    """Readers that the node has now."""
    found = []
    for number in Path(f"/proc/{node.process.pid}/task/{node.process.pid}/children").read_text().split():
        try:
            if b"bezant.net.reader.child" in Path(f"/proc/{number}/cmdline").read_bytes():
                found.append(int(number))
        except OSError:
            continue
    return found


async def test_a_reader_tells_who_it_is_and_takes_no_commands(tmp_path: Path) -> None:
    async with running(tmp_path / "data", reader=True) as node:
        told = await welcome_at(address_of(node), WAIT_S)
        reader = await reader_of(node)
        assert (reader.log_id, reader.shard, reader.reader) == (told.log_id, told.shard, told.reader)
        assert await ask_node(told.reader, Operation.PING, b"here", WAIT_S) == b"here"
        try:
            await ask_node(told.reader, Operation.COMMANDS, bytes(128), WAIT_S)
        except RequestRefused as refusal:
            assert refusal.code == FrameError.OPERATION_UNKNOWN
        else:
            raise AssertionError("a reader took a command")


async def test_a_reader_that_is_killed_again_and_again_comes_back_at_the_same_address(tmp_path: Path) -> None:
    async with running(tmp_path / "data", reader=True) as node:
        client = await node.connect()
        await client.execute(opening(*NAMES))
        address = (await reader_of(node)).reader
        for number in range(3):
            (process,) = children(node)
            os.kill(process, signal.SIGKILL)
            assert not (await client.execute(transfers(5, 100 * (number + 1))))["code"].any()
            async with asyncio.timeout(WAIT_S):
                while not (found := children(node)) or found == [process]:
                    await asyncio.sleep(0.02)
            assert (await reader_of(node)).reader == address
        assert await node.end(signal.SIGTERM) == 0


async def test_a_reader_ends_with_its_node_however_that_ends(tmp_path: Path) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        async with running(tmp_path / "data", reader=True) as node:
            await reader_of(node)
            (process,) = children(node)
            await node.end(number)
            async with asyncio.timeout(WAIT_S):
                while Path(f"/proc/{process}").exists():
                    await asyncio.sleep(0.02)


async def test_a_node_may_have_no_reader(tmp_path: Path) -> None:
    async with running(tmp_path / "data") as node:
        assert (await welcome_at(address_of(node), WAIT_S)).reader == ""
        client = await node.connect()
        assert np.array_equal((await client.execute(opening(*NAMES)))["code"], np.zeros(len(NAMES)))
        assert children(node) == []


async def test_a_reader_listens_where_it_is_told(tmp_path: Path) -> None:
    async with running(tmp_path / "data", reader=True, options=["--reader-listen", "[::1]:0"]) as node:
        reader = await reader_of(node)
        assert reader.reader.startswith("[::1]:")


class EndsWhenItIsKilled:
    """A child that has its time to end, and does so just before it is killed."""

    stdin = None
    returncode: int | None = None

    async def wait(self) -> int:
        while self.returncode is None:
            await asyncio.sleep(WAIT_S)
        return self.returncode

    def kill(self) -> None:
        self.returncode = 0
        raise ProcessLookupError


async def test_a_node_stops_whose_reader_ends_as_it_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who was stopped took that for a reader that cannot be started, and started another one, for ever."""
    started: list[EndsWhenItIsKilled] = []

    async def start(*_: Any, **__: Any) -> EndsWhenItIsKilled:
        started.append(EndsWhenItIsKilled())
        return started[-1]

    monkeypatch.setattr(asyncio, "create_subprocess_exec", start)
    monkeypatch.setattr(reading, "STOP_S_MAX", 0.01)
    checkpoints = SimpleNamespace(directory=SimpleNamespace(path="/data/shard/checkpoints"))
    replica = SimpleNamespace(log=SimpleNamespace(is_complete=True), checkpoints=checkpoints, shard=0)
    reactor: Any = SimpleNamespace(publisher=None, replica=replica)
    reader = reading.Reading(reactor, [], "127.0.0.1:1", "127.0.0.1:2")
    reader.start()
    async with asyncio.timeout(5):
        while not started:
            await asyncio.sleep(0.001)
        await reader.stop()
    assert len(started) == 1
