"""Another member of the group, as the one that dials it sees it: a connection that comes back, and what is sent on it.

    WAITING --backoff over--> DIALLING --greeted--> UP --lost--> WAITING
                              DIALLING --no answer, or refused--> WAITING

Messages are taken while the peer is up. What has been sent and not acknowledged when the connection is lost may have
arrived or not; nothing is sent again from here.
"""

import asyncio
import random
import ssl
from collections.abc import Callable, Sequence
from typing import Final

from typing_extensions import Buffer

from bezant.net.access.credentials import Credentials
from bezant.net.client.link import parse_address
from bezant.net.peers.clocks import ClockFilter, Clocks
from bezant.net.peers.connection import HELLO_S_MAX, PeerConnection
from bezant.net.peers.identity import Gate
from bezant.net.peers.inbox import PeerFrame
from bezant.protocol.errors import RemoteProtocolError
from bezant.protocol.frames import FrameFlag, Operation
from bezant.protocol.messages import PeerHello, decode_message, encode_message
from bezant.protocol.peer_frames import PeerClocks, encode_peer_head

QUEUE_BYTES_MAX: Final = 32 << 20
"""Bytes that wait here to be sent to one peer; beyond it messages are dropped."""
FLUSH_BYTES: Final = 64 << 10
"""Bytes that are not kept until the end of the step, since a write of their own costs little beside them."""
CONNECT_S_MAX: Final = 1.0
BACKOFF_S_MIN: Final = 0.02
BACKOFF_S_MAX: Final = 0.5
"""Seconds between attempts: doubled each time, less up to half of it by chance."""
REFUSED_S: Final = 1.0
"""Seconds until the next attempt after one end would not have the other."""
PING_S: Final = 1.0
"""Seconds between questions for the peer's clock, of which one at most is unanswered."""


class Peer:
    """See the module. Dials from when it is made until `close`."""

    def __init__(
        self,
        node_id: int,
        address: str,
        gate: Gate,
        clocks: Clocks,
        on_link: Callable[[int, bool], None],
        *,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.node_id = node_id
        self.address = address
        self.gate = gate
        self.clocks = clocks
        self.clock_filter = ClockFilter(clocks)
        self.hello: PeerHello | None = None
        """What it said when it was last up."""
        self.reason = "not connected yet"
        """Why it is not up; empty if it is."""
        self.dropped_count = 0
        """Messages that were not sent, because the peer was not up or its queue was full."""
        self._host, self._port = parse_address(address)
        self._on_link = on_link
        self._credentials = Credentials(tls=tls)
        self._connection: DialledConnection | None = None
        self._up: DialledConnection | None = None
        self._pending: list[Buffer] = []
        self._pending_bytes = 0
        self._flush_is_due = False
        self._is_closed = False
        self._loop = asyncio.get_running_loop()
        self._keeper = self._loop.create_task(self._keep_connected(), name=f"bezant peer {node_id} at {address}")
        self._keeper.add_done_callback(self._on_keeper_done)

    # ---- sending ----

    @property
    def is_up(self) -> bool:
        """Whether messages are taken."""
        return self._up is not None

    @property
    def unsent_bytes(self) -> int:
        """Bytes that were taken and the system has not."""
        transport = self._up.transport if self._up is not None else None
        return self._pending_bytes + (transport.get_write_buffer_size() if transport is not None else 0)

    def send(self, message: bytes, buffers: Sequence[Buffer]) -> bool:
        """Send an encoded message with its payload; see `PeerTransport.send`."""
        payload_size = sum(memoryview(buffer).nbytes for buffer in buffers)
        head = encode_peer_head(message, payload_size)
        size = len(head) + payload_size
        if self._up is None or self.unsent_bytes + size > QUEUE_BYTES_MAX:
            self.dropped_count += 1
            return False
        self._pending.append(head)
        self._pending += buffers
        self._pending_bytes += size
        if self._pending_bytes >= FLUSH_BYTES:
            self.flush()
        elif not self._flush_is_due:
            self._flush_is_due = True
            self._loop.call_soon(self._flush_due)
        return True

    def flush(self) -> None:
        """Write what waits for the end of the step."""
        if self._pending and self._up is not None and self._up.transport is not None:
            pending, self._pending, self._pending_bytes = self._pending, [], 0
            self._up.transport.writelines(pending)  # type: ignore[arg-type]  # any buffers, though stubs say bytes

    def _flush_due(self) -> None:
        self._flush_is_due = False
        self.flush()

    # ---- the connection ----

    def close(self) -> asyncio.Task[None]:
        """Drop the connection for ever; its task ends when the socket has been let go of."""
        self._is_closed = True
        connection = self._connection
        if connection is None or connection.transport is None:
            self._keeper.cancel()  # it dials, or waits to; else it ends when the connection has
        if connection is not None:
            connection.end("this node closed the connection")
        return self._keeper

    async def _keep_connected(self) -> None:
        backoff_s = BACKOFF_S_MIN
        while True:
            connection = DialledConnection(self)
            self._connection = connection
            await self._run(connection)
            if self._is_closed:
                return
            if connection.is_greeted:
                backoff_s = BACKOFF_S_MIN
            delay_s = REFUSED_S if connection.was_refused else backoff_s
            backoff_s = min(backoff_s * 2, BACKOFF_S_MAX)
            await asyncio.sleep(delay_s * random.uniform(0.5, 1.0))

    async def _run(self, connection: "DialledConnection") -> None:
        """Dial, and return when the connection is gone."""
        try:
            async with asyncio.timeout(CONNECT_S_MAX):
                arguments = self._credentials.dial_arguments(self._host, CONNECT_S_MAX)
                await self._loop.create_connection(lambda: connection, self._host, self._port, **arguments)
            await connection.wait_closed()
        except (OSError, UnicodeError) as error:  # the latter for names that no resolver takes
            connection.end(f"nobody answers at {self.address}: {error or 'timed out'}")
        except asyncio.CancelledError:
            connection.end("this node closed the connection")
            raise
        if not connection.is_greeted or connection.was_refused:
            self.reason = connection.reason

    def _on_keeper_done(self, keeper: asyncio.Task[None]) -> None:
        """A bug in there must not look like a peer that is never up."""
        if not keeper.cancelled() and keeper.exception() is not None:
            message = f"the connection to node {self.node_id} is not kept up any more"
            self._loop.call_exception_handler({"message": message, "exception": keeper.exception(), "task": keeper})

    def on_up(self, connection: "DialledConnection", hello: PeerHello) -> None:
        """The peer has greeted us back."""
        self.hello, self.reason = hello, ""
        self._up = connection
        self._on_link(self.node_id, True)

    def on_down(self, connection: "DialledConnection") -> None:
        """A connection that was up is lost."""
        self.reason = connection.reason
        self._up = None
        self._pending, self._pending_bytes = [], 0
        self.clock_filter = ClockFilter(self.clocks)
        self._on_link(self.node_id, False)


class DialledConnection(PeerConnection):
    """A connection to a peer on which this node sends. It receives the greeting and answers to pings."""

    def __init__(self, peer: Peer) -> None:
        super().__init__()
        self.is_greeted = False
        self._peer = peer
        self._ping_number = 0
        self._ping_asked_ns: int | None = None
        self._ping_timer: asyncio.TimerHandle | None = None

    def on_made(self) -> None:
        """Greet."""
        peer = self._peer
        if self.transport is not None:
            self.transport.set_write_buffer_limits(high=QUEUE_BYTES_MAX)  # `Peer.send` counts; nobody is to be paused
        incarnation = peer.gate.incarnations.get(peer.node_id, 0)
        hello = peer.gate.identity.hello(peer.node_id, incarnation, peer.clocks.wall_ns())
        self.send_control(Operation.PEER_HELLO, encode_message(hello))
        self.start_timer(HELLO_S_MAX, "the other end did not greet back in time")

    def on_frame(self, frame: PeerFrame) -> None:
        """Take the greeting, then answers to pings."""
        header = frame.header
        if header.flags != FrameFlag.REPLY:
            raise RemoteProtocolError("only replies come on a connection that this node dialled")
        if header.operation == Operation.PEER_HELLO and not self.is_greeted:
            self._on_hello(decode_message(frame.body, PeerHello))
        elif header.operation == Operation.PEER_PING and self._ping_asked_ns is not None:
            if header.request_id != self._ping_number:
                raise RemoteProtocolError(f"the answer to ping {header.request_id} came for {self._ping_number}")
            self._peer.clock_filter.add(self._ping_asked_ns, PeerClocks.decode(frame.body))
            self._ping_asked_ns = None
        else:
            raise RemoteProtocolError(f"a frame of operation {header.operation} answers nothing that was asked")

    def on_end(self) -> None:
        """The connection is gone."""
        if self._ping_timer is not None:
            self._ping_timer.cancel()
        if self.is_greeted:
            self._peer.on_down(self)

    def _on_hello(self, hello: PeerHello) -> None:
        self.stop_timer()
        peer = self._peer
        refusal = peer.gate.refusal_of(hello, peer.node_id)
        if refusal is not None:
            self.was_refused = True
            self.end(refusal[1])
            return
        self.is_greeted = True
        self._ping()
        peer.on_up(self, hello)

    def _ping(self) -> None:
        """Ask for the peer's clock, now and again and again."""
        if self._ping_asked_ns is None:
            self._ping_number += 1
            self._ping_asked_ns = self._peer.clocks.monotonic_ns()
            body = PeerClocks(self._peer.clocks.wall_ns()).encode()
            self.send_control(Operation.PEER_PING, body, request_id=self._ping_number)
        self._ping_timer = asyncio.get_running_loop().call_later(PING_S, self._ping)
