"""A real node in a process of its own, and clients that may do to it whatever a socket can do."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from bezant.protocol.frames import Operation

from .node import HELLO, Client

START_S = 120.0
"""Compiling, if nothing is compiled, counts."""
STOP_S = 30.0
READY = b"listening on "
SMALL = ("--segment-size-mib", "8", "--ids-memory-mib", "64")
"""Two segments are written in full, and the memory for ids is touched, before a node takes the first command."""


class NodeProcess:
    """`bezant serve`, or a broken version of it, in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process, address: tuple[str, int], connected: list[Client]) -> None:
        self.process = process
        self.address = address
        self.connected = connected

    async def connect(self) -> Client:
        client = Client(*await asyncio.open_connection(*self.address))
        self.connected.append(client)
        await client.send(HELLO)
        assert (await client.reply()).operation == Operation.HELLO
        return client

    async def end(self, number: int) -> int:
        """Send a signal and return the exit status."""
        self.process.send_signal(number)
        return await asyncio.wait_for(self.process.wait(), STOP_S)

    @property
    def resident_bytes(self) -> int:
        """Memory that it has now."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")


@asynccontextmanager
async def running(
    data: Path,
    program: str | None = None,
    *,
    reader: bool = False,
    options: Sequence[str] = (),
    within: Sequence[str] = (),
) -> AsyncIterator[NodeProcess]:
    """A node on a data folder; killed at the end unless it has ended by then.

    It has a reader only if told so: to start one takes longer than to start the node. `options` are added to the
    command line of `bezant serve`; `within` is a command that runs the node's.
    """
    command = ["-c", program, str(data)] if program else ["-m", "bezant", "serve", "--data", str(data)]
    if not program:
        command += ["--listen", "127.0.0.1:0", *SMALL, *options, *(() if reader else ("--no-reader",))]
    process = await asyncio.create_subprocess_exec(
        *within, sys.executable, *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    connected: list[Client] = []
    try:
        line = await asyncio.wait_for(process.stdout.readline(), START_S)
        assert line.startswith(READY), (line, (await process.communicate())[1])
        host, _, port = line.removeprefix(READY).decode().strip().rpartition(":")
        yield NodeProcess(process, (host, int(port)), connected)
    finally:
        for client in connected:
            client.abort()
        if process.returncode is None:
            process.kill()
        await process.communicate()
