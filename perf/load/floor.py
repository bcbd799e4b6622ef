"""The floor under every latency: what the same machine needs for the least that a durable answer takes.

Two parts, measured in the same run and outside the engine: an echo of a frame's bytes between the load process and the
node's process, and the sync of one small batch to the file system that the node writes to. An engine that answers a
lone transfer in little more than their sum has nothing left to take away.
"""

import asyncio
import mmap
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Final, cast

from bezant.perf.load.control import connection_failure, split_address
from bezant.protocol.errors import ConnectionFailed
from bezant.protocol.records import ENTRY_HEADER_SIZE, EVENT_SIZE

ECHO_COUNT_MAX: Final = 2000
ECHO_WARM_UP: Final = 50
ECHO_SECONDS_MAX: Final = 0.5
ECHO_TIMEOUT_S: Final = 10.0

SYNC_SIZE: Final = ENTRY_HEADER_SIZE + EVENT_SIZE
"""Bytes of the least batch there is: the entry of one event."""
SYNC_COUNT: Final = 200
SYNC_SECONDS_MAX: Final = 1.0
_SYNC_FILE_SIZE: Final = 1 << 20
_PAGE_SIZE: Final = 4096


class _EchoProbe(asyncio.BufferedProtocol):
    """Sends a payload, waits until all of it has come back, and sends it again."""

    def __init__(self, payload: bytes) -> None:
        self._payload = payload
        self._view = memoryview(bytearray(max(len(payload), _PAGE_SIZE)))
        self._missing = 0
        self._sent_ns = 0
        self._deadline_ns = 0
        self._transport: asyncio.Transport | None = None
        self.round_trips_ns: list[int] = []
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._deadline_ns = time.perf_counter_ns() + int(ECHO_SECONDS_MAX * 1e9)
        self._send(self._transport)

    def _send(self, transport: asyncio.Transport) -> None:
        self._missing = len(self._payload)
        self._sent_ns = time.perf_counter_ns()
        transport.write(self._payload)

    def get_buffer(self, _size_hint: int) -> memoryview:
        return self._view

    def buffer_updated(self, size: int) -> None:
        self._missing -= size
        if self._missing > 0 or self._transport is None:
            return
        now_ns = time.perf_counter_ns()
        self.round_trips_ns.append(now_ns - self._sent_ns)
        count = len(self.round_trips_ns)
        enough = count >= ECHO_COUNT_MAX + ECHO_WARM_UP or (count > ECHO_WARM_UP and now_ns > self._deadline_ns)
        if not enough:
            self._send(self._transport)
        elif not self.done.done():
            self.done.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(ConnectionFailed(f"the echo listener closed the connection: {error or 'end'}"))


async def measure_echo(address: str, payload_size: int) -> list[float]:
    """Round trips of a payload over the echo listener at `address`, in microseconds; the first ones are left out.

    Raises `ConnectionFailed`.
    """
    host, port = split_address(address)
    payload = bytes(payload_size)
    loop = asyncio.get_running_loop()
    try:
        transport, probe = await loop.create_connection(lambda: _EchoProbe(payload), host, port)
    except OSError as error:
        raise connection_failure(address, error) from error
    try:
        async with asyncio.timeout(ECHO_TIMEOUT_S):
            await probe.done
    except TimeoutError as error:
        raise ConnectionFailed(f"no echo from {address} within {ECHO_TIMEOUT_S:.0f} s") from error
    finally:
        transport.abort()
    return [round_trip_ns / 1000 for round_trip_ns in probe.round_trips_ns[ECHO_WARM_UP:]]


class SyncFloor:
    """Times of several ways to sync one small batch, on preallocated zeros, in microseconds, over several visits."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._times_us: dict[str, list[float]] = {}

    def measure(self) -> None:
        """Measure every way SYNC_COUNT times, or for SYNC_SECONDS_MAX in all, turn by turn so that all share the noise.

        What the file system does not support is left out. Leaves nothing behind in the folder.
        """
        with tempfile.TemporaryDirectory(prefix="sync-floor-", dir=self._directory) as folder, ExitStack() as stack:
            ways = _open_ways(Path(folder), stack)
            deadline = time.perf_counter() + SYNC_SECONDS_MAX
            for number in range(SYNC_COUNT):
                for name, way in ways.items():
                    offset = number * SYNC_SIZE
                    started = time.perf_counter()
                    way(offset)
                    self._times_us.setdefault(name, []).append((time.perf_counter() - started) * 1e6)
                if time.perf_counter() > deadline:
                    break

    def p50_us(self) -> dict[str, float]:
        """The median of each way, fastest first; the first is the floor."""
        medians = {name: round(statistics.median(times), 3) for name, times in self._times_us.items()}
        return dict(sorted(medians.items(), key=lambda item: item[1]))


def _open_ways(folder: Path, stack: ExitStack) -> dict[str, Callable[[int], object]]:
    """The ways to sync SYNC_SIZE bytes at an offset, each with a file of its own that `stack` closes."""
    batch = os.urandom(SYNC_SIZE)
    plain = _open_zeros(folder / "pwrite", stack)
    synced = _open_zeros(folder / "dsync", stack)
    mapped_file = _open_zeros(folder / "mmap", stack)
    mapped = stack.enter_context(mmap.mmap(mapped_file, _SYNC_FILE_SIZE))

    def write_and_sync(offset: int) -> None:
        os.pwrite(plain, batch, offset)
        os.fdatasync(plain)

    def write_synced(offset: int) -> None:
        os.pwritev(synced, [batch], offset, os.RWF_DSYNC)

    def store_and_sync(offset: int) -> None:
        mapped[offset : offset + SYNC_SIZE] = batch
        os.fdatasync(mapped_file)

    ways: dict[str, Callable[[int], object]] = {
        "pwrite_fdatasync": write_and_sync,
        "pwritev_dsync": write_synced,
        "mmap_fdatasync": store_and_sync,
    }
    try:
        direct = _open_zeros(folder / "direct", stack, os.O_DIRECT)
    except OSError:
        return ways  # a file system without direct writes, such as tmpfs
    page = stack.enter_context(mmap.mmap(-1, _PAGE_SIZE))

    def write_page(offset: int) -> None:
        os.pwritev(direct, [page], offset // _PAGE_SIZE * _PAGE_SIZE, os.RWF_DSYNC)

    ways["direct_page_dsync"] = write_page
    return ways


def _open_zeros(path: Path, stack: ExitStack, flags: int = 0) -> int:
    """Make a file of real zeros that are on the disk already; its descriptor."""
    with path.open("wb") as file:
        file.write(bytes(_SYNC_FILE_SIZE))
        file.flush()
        os.fsync(file.fileno())
    descriptor = os.open(path, os.O_RDWR | flags)
    stack.callback(os.close, descriptor)
    return descriptor
