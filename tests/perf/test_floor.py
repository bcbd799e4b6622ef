"""Claim: the floor is measured on the real file system and over a real echo, and leaves nothing behind."""

import asyncio
from pathlib import Path

import pytest

from bezant.perf.load.floor import SyncFloor, measure_echo
from bezant.protocol.errors import ConnectionFailed


def test_sync_is_measured_in_several_ways(tmp_path: Path) -> None:
    sync = SyncFloor(tmp_path)
    assert sync.p50_us() == {}
    sync.measure()
    sync.measure()
    medians = sync.p50_us()
    assert {"pwrite_fdatasync", "pwritev_dsync", "mmap_fdatasync"} <= set(medians)
    assert list(medians.values()) == sorted(medians.values())
    assert all(median > 0 for median in medians.values())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("payload_size", [1, 160, 300_000])
async def test_echo_is_measured(good_node, payload_size: int) -> None:
    round_trips_us = await measure_echo(good_node.echo, payload_size)
    assert len(round_trips_us) == 5
    assert all(round_trip_us > 0 for round_trip_us in round_trips_us)


async def test_no_listener_and_an_echo_that_closes_are_told() -> None:
    class Closer(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            transport.close()

    server = await asyncio.get_running_loop().create_server(Closer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    with pytest.raises(ConnectionFailed, match="closed the connection"):
        await measure_echo(f"127.0.0.1:{port}", 10)
    server.close()
    await server.wait_closed()
    with pytest.raises(ConnectionFailed, match="refused"):
        await measure_echo(f"127.0.0.1:{port}", 10)
