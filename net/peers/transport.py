"""The front of this room: messages to and from the other members of a group."""

import asyncio
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Generic, NamedTuple

from typing_extensions import Buffer

from bezant.net.access.tls import PeerTls, TlsListener
from bezant.net.client.link import parse_address
from bezant.net.peers.accepted import Accepted, AcceptedConnection, Message, RefusedConnection
from bezant.net.peers.clocks import Clocks
from bezant.net.peers.identity import Gate, Identity, Judge
from bezant.net.peers.peer import Peer
from bezant.protocol.errors import UsageError
from bezant.protocol.messages import PeerHello

LISTEN_BACKLOG: Final = 64
"""Connections that the system keeps until they are accepted."""


class PeerStatus(NamedTuple):
    """How the connections with one member stand."""

    node_id: int
    address: str
    is_up: bool
    """This node can send to it."""
    is_heard: bool
    """It has a connection to this node."""
    reason: str
    """Why it is not up: a refusal in the words of either end, or what the network says. Empty if it is."""
    hello: PeerHello | None
    """What it said when it was last up: its versions, among others."""
    unsent_bytes: int
    dropped_count: int
    clock_offset_ns: int | None
    round_trip_ns: int | None


class PeerTransport(Generic[Message]):
    """Carries messages, each with a payload of bytes, between this node and the other members of its group.

    To be made and used within one running event loop, asyncio's or uvloop's. Callbacks are called from the loop, one at
    a time, and may call everything here but `stop`; what they raise ends the connection and goes to the loop's
    exception handler. None is called once `stop` has begun.

    - ``judge(hello)``: whether to take a node that dials or is dialled; None, or why not in words. What can be told
      from the identity and the members is checked before.
    - ``on_message(sender, message, payload)``: the payload is a writable buffer of its own, which stays valid as long
      as anyone keeps it. What ``decode`` is given does not: it must copy what it keeps. It raises
      `RemoteProtocolError`.
    - ``on_link(node_id, is_up)``: messages can, or cannot, be sent to the node any more.
    - ``on_reset(node_id)``: the connection on which the node sent is gone. A hint that it may be, no more.
    """

    def __init__(
        self,
        identity: Identity,
        *,
        encode: Callable[[Message], bytes],
        decode: Callable[[memoryview], Message],
        judge: Judge,
        on_message: Callable[[int, Message, memoryview], None],
        on_link: Callable[[int, bool], None],
        on_reset: Callable[[int], None],
        clocks: Clocks | None = None,
        tls: PeerTls | None = None,
    ) -> None:
        """`tls`: how the connections are kept private, and who they are with is proven; None: they are not."""
        self.identity = identity
        self._encode = encode
        self._on_link_callback = on_link
        self._on_reset_callback = on_reset
        self._clocks = clocks or Clocks()
        self._gate = Gate(identity, judge, has_tls=tls is not None)
        self._peers: dict[int, Peer] = {}
        self._accepted: Accepted[Message] = Accepted(
            self._gate, self._clocks, decode=decode, on_message=on_message, on_reset=self._on_reset
        )
        self._closing: set[asyncio.Task[None]] = set()
        self._servers: list[asyncio.Server | TlsListener] = []
        self._tls = tls
        self._is_stopped = False

    # ---- life ----

    async def listen(self, where: str | Sequence[socket.socket]) -> None:
        """Accept connections of other nodes at "host:port", or on bound sockets, which then belong to the transport.

        Call `set_members` first, so that nobody is refused who will be let in. Raises `UsageError` if the address
        cannot be taken.
        """
        loop = asyncio.get_running_loop()
        for bound in [_bind(where)] if isinstance(where, str) else where:
            # Listening by hand, because uvloop would not tell that somebody else listens there.
            try:
                bound.listen(LISTEN_BACKLOG)
            except OSError as error:
                raise UsageError(f"cannot listen at {bound.getsockname()}: {error}") from error
            if self._tls is not None:
                self._servers.append(TlsListener(self._accept, bound, self._tls.listening))
                continue
            self._servers.append(await loop.create_server(self._accept, sock=bound, backlog=LISTEN_BACKLOG))

    def _accept(self) -> AcceptedConnection[Message]:
        return AcceptedConnection(self._accepted)

    async def stop(self) -> None:
        """Close everything; returns when all sockets have been let go of. May be called again."""
        self._is_stopped = True
        for server in self._servers:
            server.close()
        self.set_members({})
        await self._accepted.close()
        if self._closing:
            await asyncio.wait(self._closing)
        for server in self._servers:
            await server.wait_closed()
        self._servers.clear()
        # A connection that was just being made is let go of in the loop's next step.
        await asyncio.sleep(0)

    def set_members(self, addresses: Mapping[int, str], incarnations: Mapping[int, int] | None = None) -> None:
        """Make these the members: node id to peer address ("host:port"). This node's own is passed over.

        Who is new is dialled, who is no member any more is dropped both ways, and who has moved is dialled anew; who
        has no address ("") is not dialled, but may dial. `incarnations`, where known, are told and compared. Raises
        `UsageError` if an address is none, or after `stop`; then nothing has changed.
        """
        others = {node_id: address for node_id, address in addresses.items() if node_id != self.identity.node_id}
        if self._is_stopped and others:
            raise UsageError("the transport has been stopped")
        for address in filter(None, others.values()):
            parse_address(address)
        for node_id in self._gate.incarnations.keys() - others.keys():
            self._accepted.drop(node_id)
        known = incarnations or {}
        self._gate.incarnations.clear()
        self._gate.incarnations.update({node_id: known.get(node_id, 0) for node_id in others})
        for node_id, peer in list(self._peers.items()):
            if others.get(node_id) != peer.address:
                del self._peers[node_id]
                self._close(peer)
        for node_id, address in others.items():
            if address and node_id not in self._peers:
                tls = None if self._tls is None else self._tls.dialling
                self._peers[node_id] = Peer(node_id, address, self._gate, self._clocks, self._on_link, tls=tls)

    # ---- messages ----

    def send(self, node_id: int, message: Message, buffers: Sequence[Buffer] = ()) -> bool:
        """Send a message with the bytes of `buffers`, one after the other, as its payload; never waits.

        Returns False, and forgets it, if the node is not up or has as much as QUEUE_BYTES_MAX unsent. Small messages
        leave together at the end of the loop's step, or at `flush`. The buffers are not copied (on asyncio's own loop
        they are): they must not change until they are sent. Raises `LocalProtocolError` if the frame would have more
        than PEER_FRAME_SIZE_MAX bytes, or the message more than PEER_MESSAGE_SIZE_MAX.
        """
        peer = self._peers.get(node_id)
        return peer is not None and peer.send(self._encode(message), buffers)

    def flush(self) -> None:
        """Write what waits for the end of the step, to every node: for whoever knows that the step is over."""
        for peer in self._peers.values():
            peer.flush()

    def hold(self, node_id: int) -> None:
        """Receive nothing more from the node until `release`; it is left to wait, and will drop what it cannot send."""
        self._accepted.hold(node_id)

    def release(self, node_id: int) -> None:
        """Go on after `hold`."""
        self._accepted.release(node_id)

    # ---- what is known of the others ----

    def is_up(self, node_id: int) -> bool:
        """Whether messages can be sent to the node now."""
        peer = self._peers.get(node_id)
        return peer is not None and peer.is_up

    def unsent_bytes(self, node_id: int) -> int:
        """Bytes for the node that the system has not taken yet; 0 if it is not up."""
        peer = self._peers.get(node_id)
        return 0 if peer is None else peer.unsent_bytes

    def clock_offset_ns(self, node_id: int) -> int | None:
        """How far the node's clock is ahead of ours; None while that is not known, as when it is not up."""
        peer = self._peers.get(node_id)
        return None if peer is None else peer.clock_filter.offset_ns

    def status(self) -> list[PeerStatus]:
        """How the connections with every other member stand, by node id."""
        return [
            PeerStatus(
                node_id=node_id,
                address=peer.address,
                is_up=peer.is_up,
                is_heard=self._accepted.hears(node_id),
                reason=peer.reason,
                hello=peer.hello,
                unsent_bytes=peer.unsent_bytes,
                dropped_count=peer.dropped_count,
                clock_offset_ns=peer.clock_filter.offset_ns,
                round_trip_ns=peer.clock_filter.round_trip_ns,
            )
            for node_id, peer in sorted(self._peers.items())
        ]

    def refused(self) -> list[RefusedConnection]:
        """The last connections that were not let in here, or were put out, and why; latest last."""
        return list(self._accepted.refused)

    # ---- within ----

    def _close(self, peer: Peer) -> None:
        task = peer.close()
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def _on_link(self, node_id: int, is_up: bool) -> None:
        if not self._is_stopped:
            self._on_link_callback(node_id, is_up)

    def _on_reset(self, node_id: int) -> None:
        if not self._is_stopped:
            self._on_reset_callback(node_id)


def _bind(address: str) -> socket.socket:
    """Take an address and listen there. Raises `UsageError`."""
    host, port = parse_address(address)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        bound = socket.create_server((host, port), family=family, backlog=LISTEN_BACKLOG)
    except OSError as error:
        raise UsageError(f"cannot listen at {address}: {error}") from error
    bound.setblocking(False)
    return bound
