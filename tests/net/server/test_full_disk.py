"""Claim: a node whose disk runs full refuses, loses nothing that it acknowledged, and goes on when there is room.

On small file systems that really are full, where they can be had. With a limit of the size of files, and with a floor
that no disk has free, everywhere.
"""

import asyncio
import resource
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import pytest

from bezant.protocol.codes import ResultCode
from bezant.protocol.frames import FrameError, Operation
from bezant.protocol.kinds import ResultFlag
from bezant.protocol.messages import Currency, encode_message
from bezant.protocol.records import EVENT, EVENT_ANSWER, Records

from .books import COMMITTED, NAMES, opening, transfers
from .process import START_S, NodeProcess, running
from .small_disk import SmallDisk, small_disk

SEGMENT_SIZE = 1 << 20
OPTIONS = ("--segment-size-mib", "1", "--free-space-floor-mib", "1", "--ids-memory-mib", "64")
FULL = ResultCode.STORAGE_FULL
FRAME_SIZES = (1000, 100, 10, 1)
"""Commands of a frame; at first many, then so few that what is left of the last segment is used up."""


@pytest.fixture(params=["tmpfs", "ext4"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path, request.param) as made:
        yield made


class Books:
    """What a node has acknowledged, over all of its lives."""

    def __init__(self) -> None:
        self.acknowledged: list[Records] = []
        self.next_id = 1

    async def fill(self, node: NodeProcess) -> Records:
        """Make transfers until not a single one finds room; returns one that was refused."""
        client = await node.connect()
        for count in FRAME_SIZES:
            codes = {COMMITTED}
            while codes == {COMMITTED}:
                commands = transfers(count, self.next_id)
                results = await client.execute(commands)
                codes = set(results["code"].tolist())
                if codes == {COMMITTED}:
                    self.acknowledged.append(results)
                    self.next_id += count
            assert codes == {FULL}
            assert not results["position"].any()
        return commands

    async def check(self, node: NodeProcess) -> None:
        """Every acknowledged transfer has its place in the history, and nothing else is there."""
        client = await node.connect()
        results = np.concatenate(self.acknowledged)
        identifiers = np.arange(1, self.next_id)
        for start in range(0, len(identifiers), 5000):
            commands = transfers(len(identifiers[start : start + 5000]), start + 1)
            keys = commands.view(np.uint8).reshape(len(commands), -1)[:, :32].tobytes()
            answers = np.frombuffer((await client.ask(Operation.LOOKUP_EVENTS, keys)).body, EVENT_ANSWER)
            assert answers["position"].tolist() == results["position"][start : start + 5000].tolist()
            events = np.frombuffer(answers["event"].tobytes(), EVENT)
            assert events["credit_balance"].tolist() == results["credit_balance"][start : start + 5000].tolist()
        assert (await client.statistics()).durable_sequence == len(NAMES) + len(results)

    async def go_on(self, node: NodeProcess, refused: Records) -> None:
        """What was refused for want of room is executed now, by itself and for the first time."""
        client = await node.connect()
        results = await client.execute(refused)
        if set(results["code"].tolist()) == {FULL}:
            # An attempt to make a segment may have failed before there was room and be told only now; never twice.
            results = await client.execute(refused)
        assert set(results["code"].tolist()) == {COMMITTED}
        assert not (results["flags"] & ResultFlag.REPEATED).any()
        self.acknowledged.append(results)
        self.next_id += len(refused)


async def command(words: Sequence[str], within: Sequence[str] = ()) -> tuple[int, str]:
    """Run a command line of Bezant; returns its status and what it said."""
    process = await asyncio.create_subprocess_exec(
        *within,
        sys.executable,
        "-m",
        "bezant",
        *words,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await asyncio.wait_for(process.communicate(), START_S)
    assert process.returncode is not None
    return process.returncode, output.decode()


async def assert_verifies(data: Path, events: int, within: Sequence[str] = ()) -> None:
    status, said = await command(["verify", "--data", str(data)], within)
    assert status == 0, said
    assert f"verified: {events:,} events" in said


async def open_books(node: NodeProcess) -> None:
    assert not (await (await node.connect()).execute(opening(*NAMES)))["code"].any()


class Space(Protocol):
    """A disk whose space a test takes up and gives back."""

    def fill(self, *, leave_bytes: int = 0) -> None:
        """Take up all of the space that is left but so much."""
        ...

    def make_room(self) -> None:
        """Take up no more space."""
        ...


async def live_on_a_full_disk(data: Path, space: Space, within: Sequence[str] = ()) -> None:
    """Full while it runs, room, full again, killed and started on the full disk, stopped there, and room at last."""
    books = Books()
    space.fill(leave_bytes=6 * SEGMENT_SIZE)
    async with running(data, reader=True, options=OPTIONS, within=within) as node:
        await open_books(node)
        await books.fill(node)
        space.fill()
        refused = await books.fill(node)
        client = await node.connect()
        registered = await client.ask(Operation.REGISTER_CURRENCY, encode_message(Currency("NEW", 2)))
        assert registered.error.code == FrameError.OVERLOADED
        await books.check(node)
        space.make_room()
        await books.go_on(node, refused)
        space.fill(leave_bytes=3 * SEGMENT_SIZE)
        await books.fill(node)
        space.fill()
        await books.fill(node)
        await books.check(node)
        assert await node.end(signal.SIGKILL) == -signal.SIGKILL
    for end in (signal.SIGKILL, signal.SIGTERM):
        async with running(data, reader=True, options=OPTIONS, within=within) as node:
            refused = await books.fill(node)
            await books.check(node)
            await node.end(end)
    await assert_verifies(data, len(NAMES) + books.next_id - 1, within)
    async with running(data, reader=True, options=OPTIONS, within=within) as node:
        space.make_room()
        await books.go_on(node, refused)
        await books.check(node)
        assert await node.end(signal.SIGTERM) == 0
    await assert_verifies(data, len(NAMES) + books.next_id - 1, within)


async def test_a_file_system_that_is_full_to_the_last_byte(disk: SmallDisk) -> None:
    await live_on_a_full_disk(disk.inner / "data", disk, disk.within)


async def test_a_folder_cannot_be_made_on_a_full_disk_and_can_when_there_is_room(disk: SmallDisk) -> None:
    """However far it comes, it ends with one clear line, and what it has left behind is no obstacle."""
    data = disk.inner / "data"
    for leave_bytes in (0, 10_000, 100 << 10, 0):
        disk.fill(leave_bytes=leave_bytes)
        status, said = await command(["serve", "--data", str(data), "--listen", "127.0.0.1:0", *OPTIONS], disk.within)
        assert status == 1
        assert said.startswith("bezant: the disk: ")
        assert "No space left on device" in said
        assert said.count("\n") == 1
    disk.make_room()
    async with running(data, options=OPTIONS, within=disk.within) as node:
        await open_books(node)
        assert await node.end(signal.SIGTERM) == 0
    await assert_verifies(data, len(NAMES), disk.within)


# The same wherever the tests run.


class FileSizeLimit:
    """No new segment can be made, by a limit that the system puts on a running process: the error is a real one."""

    def __init__(self) -> None:
        self.pid = 0

    def fill(self) -> None:
        # All but the last bytes, so that what is there already can be written to.
        self._set(SEGMENT_SIZE - 1)

    def make_room(self) -> None:
        self._set(resource.RLIM_INFINITY)

    def _set(self, size_bytes: int) -> None:
        hard = resource.prlimit(self.pid, resource.RLIMIT_FSIZE)[1]
        resource.prlimit(self.pid, resource.RLIMIT_FSIZE, (size_bytes, hard))


async def test_files_that_cannot_be_made(tmp_path: Path) -> None:
    books, limit = Books(), FileSizeLimit()
    async with running(tmp_path / "data", options=OPTIONS) as node:
        limit.pid = node.process.pid
        await open_books(node)
        limit.fill()
        refused = await books.fill(node)
        await books.check(node)
        limit.make_room()
        await books.go_on(node, refused)
        limit.fill()
        await books.fill(node)
        assert await node.end(signal.SIGKILL) == -signal.SIGKILL
    async with running(tmp_path / "data", options=OPTIONS) as node:
        await books.check(node)
        assert await node.end(signal.SIGTERM) == 0
    await assert_verifies(tmp_path / "data", len(NAMES) + books.next_id - 1)


async def test_a_folder_whose_files_cannot_be_made_can_be_made_later(tmp_path: Path) -> None:
    """The process may write nothing, the control file alone, and not all of a segment."""
    data = tmp_path / "data"
    for size_kib in (0, 12, 100):
        limited = ("sh", "-c", f'ulimit -f {2 * size_kib}; exec "$@"', "sh")  # in blocks of 512 bytes
        status, said = await command(["serve", "--data", str(data), "--listen", "127.0.0.1:0", *OPTIONS], limited)
        assert (status, said.count("\n")) == (1, 1), said
        assert said.startswith("bezant: the disk: ")
        assert "File too large" in said
    async with running(data, options=OPTIONS) as node:
        await open_books(node)
        assert await node.end(signal.SIGTERM) == 0
    await assert_verifies(data, len(NAMES))


async def test_a_floor_that_no_disk_has_free(tmp_path: Path) -> None:
    """A node that is started with it takes what fits in the segments that are there; without it, it goes on."""
    data, books = tmp_path / "data", Books()
    high = ("--segment-size-mib", "1", "--free-space-floor-mib", str(1 << 30))
    async with running(data, options=high) as node:
        await open_books(node)
        await books.fill(node)
        assert await node.end(signal.SIGKILL) == -signal.SIGKILL
    async with running(data, options=high) as node:
        refused = await books.fill(node)
        await books.check(node)
        assert await node.end(signal.SIGTERM) == 0
    await assert_verifies(data, len(NAMES) + books.next_id - 1)
    async with running(data, options=OPTIONS) as node:
        await books.go_on(node, refused)
        await books.check(node)
