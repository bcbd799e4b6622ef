"""Slot maps in a metadata group: an ordinary group whose log has them, asked over the connection of a client.

Its leader answers, and only while it leads still, so that what is read is in force. A watch asks again and again.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final

from bezant.net.client.connection import TcpChannel
from bezant.net.client.route import parse_addresses
from bezant.net.placement.store import BACKOFF_S_MAX, BACKOFF_S_MIN, REQUEST_TIMEOUT_S
from bezant.protocol.errors import ConnectionFailed, RequestRefused, UsageError
from bezant.protocol.frames import FrameError, Operation
from bezant.protocol.messages import decode_message, encode_message
from bezant.protocol.placement import METADATA_SHARD, ReplaceMap, SlotMap

WATCH_PERIOD_S: Final = 0.25
"""Seconds between two questions of a watch; each is some 10 KB."""


class MetadataStore:
    """A `PlacementStore`; see the module."""

    def __init__(self, addresses: str, timeout_s: float = REQUEST_TIMEOUT_S) -> None:
        """`addresses`: of clients, "host:port,host:port". Raises `UsageError`."""
        parse_addresses(addresses)
        self._addresses = addresses
        self._timeout_s = timeout_s
        self._channel: TcpChannel | None = None
        self._lock = asyncio.Lock()

    async def read(self) -> SlotMap | None:
        """See `PlacementStore.read`."""
        channel = await self._connected()
        try:
            return decode_message(await channel.request(Operation.MAP, b"", self._timeout_s), SlotMap)
        except RequestRefused as refusal:
            if refusal.code == FrameError.REQUEST_REFUSED:
                return None
            raise ConnectionFailed(f"the metadata group has no answer now: {refusal}") from refusal

    async def replace(self, expected_version: int, wanted: SlotMap) -> SlotMap:
        """See `PlacementStore.replace`."""
        channel = await self._connected()
        asked = encode_message(ReplaceMap(expected_version, wanted))
        try:
            return decode_message(await channel.request(Operation.REPLACE_MAP, asked, self._timeout_s), SlotMap)
        except RequestRefused as refusal:
            if refusal.code == FrameError.REQUEST_REFUSED:
                raise UsageError(f"the metadata group will not: {refusal}") from refusal
            raise ConnectionFailed(f"the metadata group cannot now: {refusal}") from refusal

    async def watch(self, after_version: int) -> AsyncIterator[SlotMap]:
        """See `PlacementStore.watch`."""
        backoff_s = BACKOFF_S_MIN
        while True:
            try:
                found = await self.read()
            except ConnectionFailed:
                # The caller goes on with the map that it has; a store that is away is no fault of this node's.
                await asyncio.sleep(backoff_s)
                backoff_s = min(2 * backoff_s, BACKOFF_S_MAX)
                continue
            backoff_s = BACKOFF_S_MIN
            if found is not None and found.version > after_version:
                after_version = found.version
                yield found
            await asyncio.sleep(WATCH_PERIOD_S)

    async def close(self) -> None:
        """See `PlacementStore.close`."""
        async with self._lock:
            channel, self._channel = self._channel, None
        if channel is not None:
            with contextlib.suppress(ConnectionFailed):
                await channel.close()

    async def _connected(self) -> TcpChannel:
        """The one connection, made at the first question. Raises `ConnectionFailed`; `UsageError` at another group."""
        async with self._lock:
            if self._channel is None:
                channel = await TcpChannel.open(self._addresses, self._timeout_s)
                if channel.welcome.shard != METADATA_SHARD:
                    shard = channel.welcome.shard
                    await channel.close()
                    raise UsageError(f"{self._addresses} is where shard {shard} is, and no metadata group")
                self._channel = channel
            return self._channel
