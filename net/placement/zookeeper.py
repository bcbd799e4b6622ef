"""Slot maps in ZooKeeper: one node whose data are the message SlotMap. Needs the extra `zookeeper` (kazoo).

A map is replaced only if the node's version is still that at which the map before was read, so that two who replace at
the same time do not both succeed. Reads have the server catch up with the leader first (`sync`), or would be old.
Kazoo has threads of its own; its calls are made in a thread here, and what it tells comes to the loop.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any, Final, TypeVar

from bezant.engine.placement.maps import may_replace
from bezant.net.placement.store import BACKOFF_S_MAX, BACKOFF_S_MIN, REQUEST_TIMEOUT_S, ZOOKEEPER_SCHEME
from bezant.protocol.errors import ConnectionFailed, RemoteProtocolError, UsageError
from bezant.protocol.messages import decode_message, encode_message
from bezant.protocol.placement import SlotMap

try:
    from kazoo.client import KazooClient
    from kazoo.exceptions import BadVersionError, KazooException, NodeExistsError, NoNodeError
    from kazoo.handlers.threading import KazooTimeoutError
except ImportError as error:
    raise UsageError("slot maps in ZooKeeper need the extra: pip install 'bezant[zookeeper]'") from error

WATCH_PERIOD_S: Final = 5.0
"""Seconds after which a watch looks again though nothing was told: a notice may have been lost with a session."""
_Value = TypeVar("_Value")


def parse_zookeeper(place: str) -> tuple[str, str]:
    """(servers "host:port,host:port", path) of "zookeeper://HOST:PORT,.../PATH". Raises `UsageError`."""
    servers, slash, path = place.removeprefix(ZOOKEEPER_SCHEME).partition("/")
    if not place.startswith(ZOOKEEPER_SCHEME) or not servers or not slash or not path or path.endswith("/"):
        raise UsageError(f"a place in ZooKeeper is written zookeeper://HOST:PORT,HOST:PORT/PATH, not {place!r}")
    return servers, f"/{path}"


class ZooKeeperStore:
    """A `PlacementStore`; see the module."""

    def __init__(self, place: str, timeout_s: float = REQUEST_TIMEOUT_S) -> None:
        """Raises `UsageError` for a place that cannot be."""
        self._servers, self._path = parse_zookeeper(place)
        self._timeout_s = timeout_s
        self._client: Any = None
        self._lock = asyncio.Lock()

    async def read(self) -> SlotMap | None:
        """See `PlacementStore.read`."""
        found = await self._read(None)
        return None if found is None else found[0]

    async def replace(self, expected_version: int, wanted: SlotMap) -> SlotMap:
        """See `PlacementStore.replace`."""
        data = encode_message(wanted)
        while True:
            found = await self._read(None)
            current = None if found is None else found[0]
            if not may_replace(current, expected_version, wanted):
                if current is None:
                    raise UsageError("there is no slot map yet, and so none with the version that was expected")
                return current
            if await self._call(partial(_put, self._path, data, -1 if found is None else found[1])):
                return wanted

    async def watch(self, after_version: int) -> AsyncIterator[SlotMap]:
        """See `PlacementStore.watch`."""
        loop = asyncio.get_running_loop()
        changed = asyncio.Event()
        backoff_s = BACKOFF_S_MIN

        def on_event(_event: object) -> None:
            loop.call_soon_threadsafe(changed.set)

        while True:
            changed.clear()
            try:
                found = await self._read(on_event)
            except ConnectionFailed:
                await asyncio.sleep(backoff_s)
                backoff_s = min(2 * backoff_s, BACKOFF_S_MAX)
                continue
            backoff_s = BACKOFF_S_MIN
            if found is not None and found[0].version > after_version:
                after_version = found[0].version
                yield found[0]
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(WATCH_PERIOD_S):
                    await changed.wait()

    async def close(self) -> None:
        """See `PlacementStore.close`."""
        async with self._lock:
            client, self._client = self._client, None
        if client is not None:
            await asyncio.to_thread(_end, client)

    async def _read(self, watch: Callable[[object], None] | None) -> tuple[SlotMap, int] | None:
        """The map and the version of its node; None if there is none. `watch` is told, once, when that has changed."""
        found = await self._call(lambda client: _get(client, self._path, watch))
        if found is None:
            return None
        try:
            return decode_message(found[0], SlotMap), found[1]
        except RemoteProtocolError as error:
            raise UsageError(f"what lies in ZooKeeper at {self._path} is no slot map: {error}") from error

    async def _call(self, work: Callable[[Any], _Value]) -> _Value:
        """Have kazoo do something, connected. Raises `ConnectionFailed`."""
        async with self._lock:
            if self._client is None:
                self._client = await asyncio.to_thread(self._connect)
            client = self._client
        try:
            return await asyncio.to_thread(work, client)
        except (KazooException, KazooTimeoutError) as error:
            raise ConnectionFailed(f"ZooKeeper at {self._servers} has no answer: {error!r}") from error

    def _connect(self) -> Any:
        client = KazooClient(hosts=self._servers, timeout=self._timeout_s)
        try:
            client.start(timeout=self._timeout_s)
        except KazooTimeoutError as error:
            _end(client)
            raise ConnectionFailed(f"ZooKeeper at {self._servers} cannot be reached: {error}") from error
        return client


def _get(client: Any, path: str, watch: Callable[[object], None] | None) -> tuple[bytes, int] | None:
    client.sync("/")
    try:
        data, stat = client.get(path, watch=watch)
    except NoNodeError:
        if watch is None or client.exists(path, watch=watch) is None:
            return None
        return _get(client, path, watch)
    return data, stat.version


def _put(path: str, data: bytes, version: int, client: Any) -> bool:
    """Write the node if it still has this version (-1: if it is not there); False if it has not."""
    try:
        if version < 0:
            client.create(path, data, makepath=True)
        else:
            client.set(path, data, version=version)
    except (BadVersionError, NodeExistsError):
        return False
    return True


def _end(client: Any) -> None:
    client.stop()
    client.close()
