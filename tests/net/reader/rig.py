"""A reader in the test's own process and event loop, on a log that the test writes, and raw clients of it."""

import asyncio
import socket
from pathlib import Path

import pytest

from bezant.net.reader import server as server_module
from bezant.net.reader.parts import Parts
from bezant.net.reader.server import ReaderServer
from bezant.net.reader.setup import Setup
from bezant.net.server.listening import address_of, bind_address

from ..server.node import HELLO, Client
from .histories import History

WAIT_S = 20.0
SYSTEM_BUFFER_SIZE = 64 << 10


class ReaderRig:
    """A reader of whatever log is in a data folder; `stop` leaves nothing behind."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clients: list[Client] = []
        self.task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        sockets = bind_address("127.0.0.1:0")
        sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SYSTEM_BUFFER_SIZE)
        self.address = address_of(sockets[0])
        self.server = ReaderServer(Setup(str(self.folder), 0, self.address), sockets)
        self.task = asyncio.create_task(self.server.run())

    async def connect(self, *, greet: bool = True, buffer_size: int | None = None) -> Client:
        async with asyncio.timeout(WAIT_S):
            while True:
                assert self.task is not None and not self.task.done()
                connecting = socket.socket()
                if buffer_size is not None:
                    connecting.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_size)
                host, _, port = self.address.rpartition(":")
                try:
                    connecting.connect((host, int(port)))
                    break
                except ConnectionRefusedError:
                    connecting.close()
                    await asyncio.sleep(0.01)
        client = Client(*await asyncio.open_connection(sock=connecting))
        self.clients.append(client)
        if greet:
            await client.send(HELLO)
            await client.reply()
        return client

    async def stop(self) -> None:
        for client in self.clients:
            client.abort()
        if self.task is not None:
            self.server.stop()
            async with asyncio.timeout(WAIT_S):
                await self.task


class Rig(ReaderRig):
    """A log in a data folder, and a reader of it that keeps nothing."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(folder)
        monkeypatch.setattr(server_module, "make_parts", lambda *_: Parts([], {}, {}))
        self.history = History(folder / "shard-0000", segment_size=1 << 20)

    async def stop(self) -> None:
        await super().stop()
        self.history.close()
