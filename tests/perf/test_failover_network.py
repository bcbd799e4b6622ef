"""Claim: a cable that is cut passes nothing and says nothing, and what was on its way arrives when it is whole."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from bezant.perf.failover.network import CLIENTS, Network
from bezant.protocol.frames import Operation, encode_frame
from bezant.protocol.messages import PeerHello, encode_message

SILENCE_S = 0.1
LONG_S = 20.0
HELLO = encode_frame(Operation.PEER_HELLO, 0, encode_message(PeerHello("log", 1, 11, 2, 22, 1, 2, 1, 0, "test")))

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def bound() -> socket.socket:
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    return listening


@asynccontextmanager
async def echoing(network: Network, *, for_peers: bool) -> AsyncIterator[int]:
    """A node 2 that echoes, behind the network; the port where it is reached."""

    echoes: set[asyncio.Task[None] | None] = set()

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        echoes.add(asyncio.current_task())
        while data := await reader.read(65536):
            writer.write(data)
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    front = bound()
    port = front.getsockname()[1]
    await network.add(2, front, server.sockets[0].getsockname()[:2], for_peers=for_peers)
    try:
        yield port
    finally:
        await network.stop()
        server.close()
        if echoes:
            await asyncio.wait(echoes)


async def connected(port: int) -> Streams:
    return await asyncio.open_connection("127.0.0.1", port)


async def closed(streams: Streams) -> None:
    streams[1].close()
    await streams[1].wait_closed()


async def said(streams: Streams, data: bytes) -> None:
    """Send and get it back."""
    streams[1].write(data)
    async with asyncio.timeout(LONG_S):
        assert await streams[0].readexactly(len(data)) == data


async def is_silent(streams: Streams, data: bytes) -> None:
    """Send and hear nothing, not even an end."""
    streams[1].write(data)
    try:
        async with asyncio.timeout(SILENCE_S):
            heard = await streams[0].read(1)
    except TimeoutError:
        return
    raise AssertionError(f"a cut cable passed {heard!r}")


async def test_clients_are_cut_off_and_connected_again() -> None:
    network = Network()
    async with echoing(network, for_peers=False) as port:
        before = await connected(port)
        await said(before, b"one")
        network.cut([frozenset((CLIENTS, 2))])
        await is_silent(before, b"two")
        during = await connected(port)
        await is_silent(during, b"three")
        network.heal()
        for streams, late in ((before, b"two"), (during, b"three")):
            async with asyncio.timeout(LONG_S):
                assert await streams[0].readexactly(len(late)) == late
            await said(streams, b"four")
            await closed(streams)


async def test_a_peer_is_known_by_its_greeting_however_it_is_split() -> None:
    network = Network()
    async with echoing(network, for_peers=True) as port:
        for cut in (1, 20, len(HELLO) - 1, len(HELLO)):
            streams = await connected(port)
            streams[1].write(HELLO[:cut])
            await asyncio.sleep(0.01)
            streams[1].write(HELLO[cut:])
            async with asyncio.timeout(LONG_S):
                assert await streams[0].readexactly(len(HELLO)) == HELLO
            network.cut([frozenset((1, 2))])
            await is_silent(streams, b"x")
            network.cut([frozenset((2, 3))])
            async with asyncio.timeout(LONG_S):
                assert await streams[0].readexactly(1) == b"x"
            await closed(streams)


async def test_a_peer_that_dials_a_cut_cable_hears_nothing_until_it_is_whole() -> None:
    network = Network()
    async with echoing(network, for_peers=True) as port:
        network.cut([frozenset((1, 2))])
        streams = await connected(port)
        await is_silent(streams, HELLO)
        network.heal()
        async with asyncio.timeout(LONG_S):
            assert await streams[0].readexactly(len(HELLO)) == HELLO
        await closed(streams)


async def test_much_at_once_passes_whole() -> None:
    network = Network()
    data = bytes(range(256)) * 40_000
    async with echoing(network, for_peers=False) as port:
        streams = await connected(port)
        writing = asyncio.create_task(streams[1].drain())
        await said(streams, data)
        await writing
        await closed(streams)


async def test_a_node_that_is_down_is_told_as_such() -> None:
    network = Network()
    with bound() as nobody:
        front = bound()
        await network.add(2, front, nobody.getsockname()[:2], for_peers=False)
        port = front.getsockname()[1]
        streams = await connected(port)
        async with asyncio.timeout(LONG_S):
            assert await streams[0].read(1) == b""
        await closed(streams)
        await network.stop()
