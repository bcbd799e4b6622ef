"""The connections that other nodes dialled, on which this one receives.

States of one: greeting (PEER_HELLO must come first, and in time) -> open -> ended. One connection per node is open; a
second one of the same process takes the place of the first, which it has given up. One of another process with the same
identity does so only if the first has fallen silent: two that live are two nodes with one id.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final, Generic, NamedTuple, Protocol, TypeVar

from bezant.net.access.addresses import SHARE, place_of_peer
from bezant.net.peers.clocks import Clocks
from bezant.net.peers.connection import HELLO_S_MAX, PeerConnection
from bezant.net.peers.identity import Gate, Refusal
from bezant.net.peers.inbox import BadFrame, PeerFrame
from bezant.protocol.errors import RemoteProtocolError
from bezant.protocol.frames import FrameError, Operation
from bezant.protocol.messages import PeerHello, decode_message, encode_message
from bezant.protocol.peer_frames import PeerClocks

GREETING_CONNECTIONS_MAX: Final = 64
"""Connections that have not greeted yet; further ones are closed at once, as are more than one in SHARE of so many that
come from one address."""
SILENT_S: Final = 2.5
"""Seconds without a frame, pings included, after which another process may have the node's identity."""
REPLY_BYTES_MAX: Final = 64 << 10
"""Bytes of answers that a node may leave unread."""
REFUSALS_MAX: Final = 16
"""Refused connections that are remembered."""


class Addressed(Protocol):
    """What the transport needs to know of a message."""

    @property
    def sender(self) -> int:
        """Node id."""

    @property
    def receiver(self) -> int:
        """Node id."""


Message = TypeVar("Message", bound=Addressed)


class RefusedConnection(NamedTuple):
    """Somebody who was not let in, or was put out, and why."""

    clock_ns: int
    address: str
    reason: str


class AcceptedConnection(PeerConnection, Generic[Message]):
    """A connection that another node dialled; what it means is said by `Accepted`."""

    def __init__(self, accepted: "Accepted[Message]") -> None:
        super().__init__()
        self.hello: PeerHello | None = None
        self.heard_s = 0.0
        self.address = self.place = ""
        self._accepted = accepted

    def on_made(self) -> None:
        """Wait for the greeting."""
        if self.transport is not None:
            name = self.transport.get_extra_info("peername")
            self.address, self.place = str(name), place_of_peer(name)
        self.start_timer(HELLO_S_MAX, "no greeting came in time", FrameError.HELLO_EXPECTED)
        self._accepted.on_made(self)

    def on_frame(self, frame: PeerFrame) -> None:
        """Hand it on."""
        self._accepted.on_frame(self, frame)

    def on_end(self) -> None:
        """Be forgotten."""
        self._accepted.on_end(self)

    def on_closed(self) -> None:
        """Be forgotten altogether."""
        self._accepted.on_closed(self)


class Accepted(Generic[Message]):
    """All of them."""

    def __init__(
        self,
        gate: Gate,
        clocks: Clocks,
        *,
        decode: Callable[[memoryview], Message],
        on_message: Callable[[int, Message, memoryview], None],
        on_reset: Callable[[int], None],
    ) -> None:
        self._gate = gate
        self._clocks = clocks
        self._decode = decode
        self._on_message = on_message
        self._on_reset = on_reset
        self._loop = asyncio.get_running_loop()
        self._greeting: set[AcceptedConnection[Message]] = set()
        self._open: dict[int, AcceptedConnection[Message]] = {}
        self._ended: set[AcceptedConnection[Message]] = set()
        self._held: set[int] = set()
        self._is_closed = False
        self.refused: deque[RefusedConnection] = deque(maxlen=REFUSALS_MAX)

    def hears(self, node_id: int) -> bool:
        """Whether the node has a connection to this one."""
        return node_id in self._open

    def hold(self, node_id: int) -> None:
        """Receive nothing from the node, on this connection and later ones, until `release`."""
        self._held.add(node_id)
        if node_id in self._open:
            self._open[node_id].hold()

    def release(self, node_id: int) -> None:
        """Go on after `hold`."""
        self._held.discard(node_id)
        if node_id in self._open:
            self._open[node_id].release()

    def drop(self, node_id: int) -> None:
        """Close the connection of a node that is no member any more."""
        self._held.discard(node_id)
        if node_id in self._open:
            self._open[node_id].end(f"node {node_id} is no member any more")

    async def close(self) -> None:
        """Close all; returns when the sockets have been let go of."""
        self._is_closed = True
        for connection in [*self._greeting, *self._open.values()]:
            connection.end("this node closed the connection")
        for connection in tuple(self._ended):
            await connection.wait_closed()

    # ---- called by the connections ----

    def on_made(self, connection: AcceptedConnection[Message]) -> None:
        """Somebody has connected."""
        self._greeting.add(connection)
        if self._is_closed:
            connection.end("this node closed the connection")
        elif len(self._greeting) > GREETING_CONNECTIONS_MAX:
            connection.end("too many connections have not greeted yet")
        elif sum(other.place == connection.place for other in self._greeting) > GREETING_CONNECTIONS_MAX // SHARE:
            connection.end("too many connections of this address have not greeted yet")

    def on_end(self, connection: AcceptedConnection[Message]) -> None:
        """A connection has ended; its socket is let go of a little later."""
        self._greeting.discard(connection)
        if connection.transport is not None:
            self._ended.add(connection)
        if connection.code is not None:
            self.refused.append(RefusedConnection(self._clocks.wall_ns(), connection.address, connection.reason))
        if connection.hello is not None and self._open.get(connection.hello.node_id) is connection:
            del self._open[connection.hello.node_id]
            self._on_reset(connection.hello.node_id)

    def on_closed(self, connection: AcceptedConnection[Message]) -> None:
        """Its socket has been let go of."""
        self._ended.discard(connection)

    def on_frame(self, connection: AcceptedConnection[Message], frame: PeerFrame) -> None:
        """A frame has arrived."""
        connection.heard_s = self._loop.time()
        operation = frame.header.operation
        if frame.header.flags:
            raise RemoteProtocolError("what a node sends on a connection that it dialled has no flags")
        if connection.hello is None:
            if operation != Operation.PEER_HELLO:
                raise BadFrame(FrameError.HELLO_EXPECTED, "the first frame of a connection is PEER_HELLO")
            self._greet(connection, decode_message(frame.body, PeerHello), frame.header.request_id)
        elif operation == Operation.PEER_MESSAGE:
            self._receive(connection.hello.node_id, frame)
        elif operation == Operation.PEER_PING:
            self._answer_ping(connection, frame)
        else:
            raise BadFrame(FrameError.OPERATION_UNKNOWN, f"operation {operation} is not one for a node to ask another")

    def _greet(self, connection: AcceptedConnection[Message], hello: PeerHello, request_id: int) -> None:
        refusal = self._gate.refusal_of(hello) or self._duplicate_of(hello)
        if refusal is not None:
            code, reason = refusal
            connection.end(reason, code)
            return
        before = self._open.get(hello.node_id)
        self._open[hello.node_id] = connection
        if before is not None:
            before.end("the node has dialled again")
        self._greeting.discard(connection)
        connection.hello = hello
        connection.stop_timer()
        connection.inbox.takes_messages = True
        answer = self._gate.identity.hello(hello.node_id, hello.incarnation, self._clocks.wall_ns())
        connection.send_control(Operation.PEER_HELLO, encode_message(answer), request_id=request_id, is_reply=True)
        if hello.node_id in self._held:
            connection.hold()

    def _duplicate_of(self, hello: PeerHello) -> Refusal | None:
        """Refuse a second process on the same disk, or on a copy of it, while the first lives."""
        other = self._open.get(hello.node_id)
        if other is None or other.hello is None or other.hello.run_id == hello.run_id:
            return None
        if self._loop.time() - other.heard_s >= SILENT_S or hello.node_id in self._held:
            return None
        reason = f"two nodes have the id {hello.node_id}: another process, at {other.address}, is connected as such"
        return FrameError.REQUEST_REFUSED, reason

    def _receive(self, sender: int, frame: PeerFrame) -> None:
        message = self._decode(frame.body)
        if (message.sender, message.receiver) != (sender, self._gate.identity.node_id):
            raise RemoteProtocolError(
                f"a message from {message.sender} to {message.receiver} came over the connection of node {sender} "
                f"to node {self._gate.identity.node_id}"
            )
        self._on_message(sender, message, frame.payload)

    def _answer_ping(self, connection: AcceptedConnection[Message], frame: PeerFrame) -> None:
        now_ns = self._clocks.wall_ns()
        answer = PeerClocks.decode(frame.body)._replace(received_ns=now_ns, answered_ns=now_ns)
        if connection.transport is not None and connection.transport.get_write_buffer_size() > REPLY_BYTES_MAX:
            connection.end("the node does not read the answers to its pings")
            return
        connection.send_control(Operation.PEER_PING, answer.encode(), request_id=frame.header.request_id, is_reply=True)
