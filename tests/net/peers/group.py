"""Nodes of a group that only talk: a transport each, and a record of what it said."""

import asyncio
import socket
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from bezant.cli.ports import free_ports
from bezant.net.peers.clocks import Clocks
from bezant.net.peers.identity import Identity
from bezant.net.peers.transport import PeerStatus, PeerTransport
from bezant.protocol.errors import RemoteProtocolError
from bezant.protocol.frames import FrameHeader, FrameReader, Operation, encode_frame
from bezant.protocol.messages import PeerHello, encode_message

WAIT_S = 10.0
LOG_ID = "00c0ffee00c0ffee"


class Note(msgspec.Struct, frozen=True, array_like=True):
    """Stands in for a message of Raft."""

    sender: int
    receiver: int
    text: str = ""


def encode_note(note: Note) -> bytes:
    """Encode a message."""
    return msgspec.msgpack.encode(note)


def decode_note(body: memoryview) -> Note:
    """Decode a message. Raises `RemoteProtocolError`."""
    try:
        return msgspec.msgpack.decode(body, type=Note)
    except msgspec.DecodeError as error:
        raise RemoteProtocolError(f"not a note: {error}") from error


async def until(condition: Callable[[], object]) -> None:
    """Wait for what the network is about to do."""
    async with asyncio.timeout(WAIT_S):
        while not condition():
            await asyncio.sleep(0.002)


def bound_socket(port: int = 0) -> socket.socket:
    """A socket at an address of this machine; by itself, at one that nobody is given who asks for any: it may be left
    for a while, and taken again."""
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.setblocking(False)
    bound.bind(("127.0.0.1", port or free_ports(1)[0]))
    return bound


def identity_of(node_id: int, **changes: Any) -> Identity:
    """Who a node of the tests is."""
    fields = {
        "log_id": LOG_ID,
        "incarnation": 1000 + node_id,
        "log_format_version": 2,
        "rules_version_max": 1,
        "server": "bezant test",
    }
    return Identity(node_id=node_id, **(fields | changes))


class Node:
    """One node, at an address of its own."""

    def __init__(self, node_id: int, *, port: int = 0, clocks: Clocks | None = None, **changes: Any) -> None:
        self.node_id = node_id
        self._socket = bound_socket(port)
        self.port = self._socket.getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"
        self.notes: list[tuple[int, str, memoryview]] = []
        self.links: list[tuple[int, bool]] = []
        self.resets: list[int] = []
        self.verdict: Callable[[PeerHello], str | None] = lambda hello: None
        self.on_note: Callable[[int], None] = lambda sender: None
        self.transport: PeerTransport[Note] = PeerTransport(
            identity_of(node_id, **changes),
            encode=encode_note,
            decode=decode_note,
            judge=self._judge,
            on_message=self._on_message,
            on_link=lambda node_id, is_up: self.links.append((node_id, is_up)),
            on_reset=self.resets.append,
            clocks=clocks,
        )

    async def listen(self) -> None:
        """Begin to accept."""
        await self.transport.listen([self._socket])

    async def stop(self) -> None:
        """Stop, listening or not."""
        await self.transport.stop()
        self._socket.close()

    def _judge(self, hello: PeerHello) -> str | None:
        return self.verdict(hello)

    def _on_message(self, sender: int, note: Note, payload: memoryview) -> None:
        self.notes.append((sender, note.text, payload))
        self.on_note(sender)

    def send(self, receiver: int, text: str = "", *buffers: Any) -> bool:
        """Send a note."""
        return self.transport.send(receiver, Note(self.node_id, receiver, text), buffers)

    @property
    def texts(self) -> list[str]:
        """What was received, without payloads."""
        return [text for _, text, _ in self.notes]

    def status(self, node_id: int) -> PeerStatus:
        """How the connections with another stand."""
        return {status.node_id: status for status in self.transport.status()}[node_id]

    def join(self, others: Mapping[int, str] | None = None, incarnations: Mapping[int, int] | None = None) -> None:
        """Take these, and itself, for the group."""
        self.transport.set_members({self.node_id: self.address, **(others or {})}, incarnations)


class Stranger:
    """A bare socket that says to a node what the test wants."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self._frames = FrameReader()
        self._received: list[tuple[FrameHeader, bytes]] = []

    @classmethod
    async def connect(cls, node: Node) -> "Stranger":
        """Connect to a node."""
        return cls(*await asyncio.open_connection("127.0.0.1", node.port))

    async def greet(self, node: Node, sender: int, **changes: Any) -> None:
        """Say hello as the member that a node knows by this id."""
        hello = identity_of(sender).hello(node.node_id, 1000 + node.node_id, 0)
        self.send(encode_frame(Operation.PEER_HELLO, 0, encode_message(msgspec.structs.replace(hello, **changes))))

    def send(self, data: bytes) -> None:
        """Send bytes."""
        self.writer.write(data)

    async def receive(self) -> tuple[FrameHeader, bytes]:
        """The next frame. Raises `EOFError` at the end of the connection."""
        async with asyncio.timeout(WAIT_S):
            while not self._received:
                data = await self.reader.read(1 << 16)
                if not data:
                    raise EOFError
                self._received += [(header, bytes(body)) for header, body in self._frames.feed(data)]
        return self._received.pop(0)

    async def wait_closed(self) -> None:
        """Until the node has closed the connection, whatever it still says."""
        async with asyncio.timeout(WAIT_S):
            try:
                while await self.reader.read(1 << 16):
                    pass
            except ConnectionResetError:
                pass

    async def close(self) -> None:
        """Close the socket."""
        self.writer.close()
        try:
            await self.writer.wait_closed()
        except OSError:
            pass
