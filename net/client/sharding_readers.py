"""Which reader answers a question to the history: that of the node that leads the shard with the accounts it is about.

A question about accounts of several shards, or about none, is refused here in words: whoever can make one answer of
those of several shards asks each by itself (`history_over_shards.py`).
"""

from typing import Protocol

from bezant.net.client.channel import Channel
from bezant.net.client.connection import TcpChannel
from bezant.net.client.members import ask_node
from bezant.net.client.readers import ReaderChannel, reader_address
from bezant.net.client.sharding import ShardedChannel
from bezant.protocol.errors import ConnectionFailed, ProtocolError, RequestRefused, UsageError
from bezant.protocol.frames import FrameError, Operation
from bezant.protocol.history_messages import QueryTotals
from bezant.protocol.messages import encode_message
from bezant.protocol.records import split_position

CONNECT_S_MAX = 5.0
"""Seconds that connecting to a shard may take before its reader can be asked."""


class Readers(Protocol):
    """Finds the reader to ask, and the id of the log that its answers are of."""

    async def reader_of(self, ids: bytes) -> tuple[ReaderChannel, str]:
        """For a question about accounts, ids of 16 bytes back to back; none: about the whole ledger."""
        ...

    async def reader_at(self, position: int) -> tuple[ReaderChannel, str]:
        """For a question about the event at a position; 0: about the whole ledger."""
        ...

    async def close(self) -> None:
        """Let go of all. May be called again."""
        ...


class OneReader:
    """The reader of a ledger that is one group, or in this process."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._reader = ReaderChannel(channel)

    async def reader_of(self, ids: bytes) -> tuple[ReaderChannel, str]:
        """See `Readers`."""
        return self._reader, self._channel.welcome.log_id

    async def reader_at(self, position: int) -> tuple[ReaderChannel, str]:
        """See `Readers`."""
        return self._reader, self._channel.welcome.log_id

    async def close(self) -> None:
        """See `Readers`."""
        await self._reader.close()


class ShardReaders:
    """The readers of a ledger of several shards."""

    def __init__(self, channel: ShardedChannel) -> None:
        self._channel = channel
        self._readers: dict[int, ReaderChannel] = {}

    async def reader_of(self, ids: bytes) -> tuple[ReaderChannel, str]:
        """See `Readers`. Raises `UsageError` for what one shard cannot answer, `ConnectionFailed`."""
        if ids:
            return await self.reader_in(self._channel.shard_of(ids))
        return await self.reader_in(self._only_shard())

    async def reader_at(self, position: int) -> tuple[ReaderChannel, str]:
        """See `Readers`."""
        shard = split_position(position)[0] if position else self._only_shard()
        if shard not in self._channel.shards:
            raise UsageError(f"position {position} is of no shard of this ledger")
        return await self.reader_in(shard)

    def _only_shard(self) -> int:
        shards = self._channel.shards
        if len(shards) > 1:
            raise UsageError(
                f"the ledger has {len(shards)} shards, and this is answered for one at a time: name an account"
            )
        return shards[0]

    async def reader_in(self, shard: int) -> tuple[ReaderChannel, str]:
        """For a question about what is in one shard."""
        channel = await self._channel.channel_of(shard, CONNECT_S_MAX)
        reader = self._readers.get(shard)
        if reader is None or reader.channel is not channel:
            self._readers[shard] = fresh = ReaderChannel(channel)
            if reader is not None:
                await reader.close()
            reader = fresh
        return reader, channel.welcome.log_id

    async def close(self) -> None:
        """See `Readers`."""
        for reader in self._readers.values():
            await reader.close()
        self._readers.clear()


def readers_of(channel: Channel) -> Readers:
    """The readers of the ledger that a channel leads to."""
    return ShardReaders(channel) if isinstance(channel, ShardedChannel) else OneReader(channel)


async def find_silent_reader(channel: Channel, timeout_s: float) -> str:
    """Where a reader of the ledger should be that answers no questions, as it is with one that is being started; "" if
    each does within `timeout_s`, or there is none. Raises `ConnectionFailed` if a shard cannot be reached.

    Readers are shown what this process shows to everybody.
    """
    nodes = [channel]
    if isinstance(channel, ShardedChannel):
        nodes = [await channel.channel_of(shard, CONNECT_S_MAX) for shard in channel.shards]
    for node in nodes:
        address = reader_address(node) if isinstance(node, TcpChannel) else ""
        if not address:
            continue
        try:
            await ask_node(address, Operation.TOTALS, encode_message(QueryTotals()), timeout_s)
        except ConnectionFailed:
            return address
        except RequestRefused as refusal:
            if refusal.code == FrameError.OVERLOADED:
                return address
        except ProtocolError:
            continue  # Whoever asks it something is told what is wrong with it.
    return ""
