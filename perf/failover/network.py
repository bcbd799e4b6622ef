"""Cables between processes on one machine that can be cut: a proxy in front of every node, for peers and for clients.

A cut cable takes no byte and gives no sign, in either direction; what was on its way arrives when it is whole again, as
TCP would send it again. Who dialled is read off the first frame: a peer's greeting names it, and clients can be told
apart by theirs. What this does not show is a system that gives a connection up because nothing is acknowledged: the
proxy's system goes on acknowledging.
"""

import asyncio
import socket
from collections.abc import Callable, Iterable
from typing import Final, cast

from bezant.protocol.errors import RemoteProtocolError
from bezant.protocol.frames import FRAME_HEADER_SIZE, decode_header
from bezant.protocol.messages import PeerHello, decode_message

CLIENTS: Final = 0
"""Stands for all clients where a node id is asked for."""
PIPES_MAX: Final = 1000
"""Connections that go through one network."""
GREETING_SIZE_MAX: Final = 64 << 10

Cable = frozenset[int]
"""The two ends of a cable: node ids, or CLIENTS."""
NamesDialler = Callable[[bytes], int]
"""Who has dialled, by the body of a greeting. Raises `RemoteProtocolError` for what is none."""


class Network:
    """See the module. All methods on one event loop."""

    def __init__(self) -> None:
        self._cut: frozenset[Cable] = frozenset()
        self._pipes: set[_Pipe] = set()
        self._servers: list[asyncio.Server] = []
        self._open_count = 0
        self._all_closed = asyncio.Event()

    async def add(
        self,
        node: int,
        listen: socket.socket,
        backend: tuple[str, int],
        *,
        for_peers: bool,
        client_of: NamesDialler | None = None,
    ) -> None:
        """Forward what comes to a bound socket to where a node listens, for its peers or for clients.

        `client_of` tells clients apart, by the body of their greeting; else all are CLIENTS.
        """
        loop = asyncio.get_running_loop()
        dialler_of = _peer_of if for_peers else client_of

        def accept() -> asyncio.Protocol:
            pipe = _Pipe(self, node, backend, dialler_of)
            if len(self._pipes) < PIPES_MAX:
                self._pipes.add(pipe)
            return pipe.front

        self._servers.append(await loop.create_server(accept, sock=listen))

    def cut(self, cables: Iterable[Cable]) -> None:
        """Cut these cables, and make all others whole."""
        self._cut = frozenset(cables)
        for pipe in tuple(self._pipes):
            pipe.update()

    def heal(self) -> None:
        """Make all cables whole."""
        self.cut(())

    def is_cut(self, one: int, other: int) -> bool:
        """Whether nothing passes between two ends."""
        return frozenset((one, other)) in self._cut

    def forget(self, pipe: "_Pipe") -> None:
        """A connection is gone."""
        self._pipes.discard(pipe)

    def note_open(self, change: int) -> None:
        """Ends of connections that are open are so many more, or fewer."""
        self._open_count += change
        if self._open_count:
            self._all_closed.clear()
        else:
            self._all_closed.set()

    async def stop(self) -> None:
        """Close everything, and return when it is closed."""
        for server in self._servers:
            server.close()
        for pipe in tuple(self._pipes):
            pipe.end()
        for server in self._servers:
            await server.wait_closed()
        if self._open_count:
            await self._all_closed.wait()


def _peer_of(greeting: bytes) -> int:
    return decode_message(greeting, PeerHello).node_id


class _Pipe:
    """One connection: what the dialler sends goes to the node, and the other way round, unless the cable is cut."""

    def __init__(self, network: Network, node: int, backend: tuple[str, int], dialler_of: NamesDialler | None) -> None:
        self._network = network
        self._node = node
        self._backend = backend
        self._dialler_of = dialler_of
        self._dialler: int | None = CLIENTS if dialler_of is None else None
        self._greeting = bytearray()
        self._task: asyncio.Task[None] | None = None
        self.front = _End(network, self._on_front, self._on_front_made, self.end)
        self.back = _End(network, self._on_back, lambda: None, self.end)
        self._is_open = self._has_ended = False

    def _on_front_made(self) -> None:
        if self._dialler is not None:
            self.update()

    def _on_front(self, data: bytes) -> None:
        if not self._is_open:
            self._greeting += data
            if self._dialler is None:
                self._dialler = self._read_dialler()
            if self._dialler is not None:
                self.update()
            return
        self.back.write(data, self.front)

    def _on_back(self, data: bytes) -> None:
        self.front.write(data, self.back)

    def _read_dialler(self) -> int | None:
        """Who greets; None until the greeting is whole. What greets otherwise is none of ours."""
        if self._dialler_of is None or len(self._greeting) < FRAME_HEADER_SIZE:
            return None
        try:
            length = decode_header(bytes(self._greeting[:FRAME_HEADER_SIZE])).length
            if length > GREETING_SIZE_MAX:
                raise RemoteProtocolError(f"a greeting of {length} bytes")
            if len(self._greeting) < length:
                return None
            return self._dialler_of(bytes(self._greeting[FRAME_HEADER_SIZE:length]))
        except RemoteProtocolError:
            self.end()
            return None

    def update(self) -> None:
        """Stop both directions, or let them flow."""
        if self._dialler is None or self._has_ended:
            return
        is_cut = self._network.is_cut(self._dialler, self._node)
        self.front.hold(is_cut or not self._is_open)
        self.back.hold(is_cut)
        if not is_cut and self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._connect())

    async def _connect(self) -> None:
        try:
            await asyncio.get_running_loop().create_connection(lambda: self.back, *self._backend)
        except OSError:
            self.end()  # The node is down: its system would refuse, and so do we.
            return
        if self._has_ended:
            self.back.abort()
            return
        if self._greeting:
            self.back.write(bytes(self._greeting), self.front)
            self._greeting.clear()
        self._is_open = True
        self.update()

    def end(self) -> None:
        """Close both ends, once what was passed on is sent."""
        if not self._has_ended:
            self._has_ended = True
            self._network.forget(self)
            self.front.close()
            self.back.close()


class _End(asyncio.Protocol):
    """One end of a pipe."""

    def __init__(
        self,
        network: Network,
        on_data: Callable[[bytes], None],
        on_made: Callable[[], None],
        on_end: Callable[[], None],
    ) -> None:
        self._network = network
        self._on_data = on_data
        self._on_made = on_made
        self._on_end = on_end
        self._is_held = self._is_full = self._is_reading = False
        self._feeder: _End | None = None
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Of asyncio."""
        self.transport = cast(asyncio.Transport, transport)  # a stream's; uvloop's are of no common class
        self._is_reading = True
        self._network.note_open(1)
        self._on_made()

    def data_received(self, data: bytes) -> None:
        """Of asyncio."""
        self._on_data(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """Of asyncio."""
        self._network.note_open(-1)
        self._on_end()

    def pause_writing(self) -> None:
        """Of asyncio: whoever is at this end does not take what we send."""
        if self._feeder is not None:
            self._feeder.note_full(True)

    def resume_writing(self) -> None:
        """Of asyncio."""
        if self._feeder is not None:
            self._feeder.note_full(False)

    def write(self, data: bytes, feeder: "_End") -> None:
        """Send what came from the other end."""
        self._feeder = feeder
        if self.transport is not None:
            self.transport.write(data)

    def hold(self, is_held: bool) -> None:
        """Take nothing from this end, or go on."""
        self._is_held = is_held
        self._apply()

    def note_full(self, is_full: bool) -> None:
        """The other end does not take what comes from here, or does again."""
        self._is_full = is_full
        self._apply()

    def _apply(self) -> None:
        if self.transport is None or self.transport.is_closing():
            return
        is_reading = not (self._is_held or self._is_full)
        if is_reading is self._is_reading:
            return
        self._is_reading = is_reading
        if is_reading:
            self.transport.resume_reading()
        else:
            self.transport.pause_reading()

    def close(self) -> None:
        """Close it behind what was written."""
        if self.transport is not None:
            self.transport.close()

    def abort(self) -> None:
        """Close it now."""
        if self.transport is not None:
            self.transport.abort()
