"""Where a subscription goes when the accounts are spread over several shards: to the one that has those it is about."""

from collections.abc import Awaitable, Callable, Sequence

import msgspec

from bezant.net.client.channel import Channel
from bezant.net.client.commands import check_id
from bezant.net.client.connection import TcpChannel
from bezant.net.client.sharding import ShardedChannel
from bezant.net.client.sharding_readers import CONNECT_S_MAX
from bezant.net.client.subscribing import AccountReference
from bezant.protocol.errors import UsageError
from bezant.protocol.messages import Subscribe
from bezant.protocol.names import account_id

Prepare = Callable[[], Awaitable[Subscribe]]
_ANY_CURRENCY = "X"  # the slot of an account comes from its name alone


def place_subscription(
    channel: Channel, references: Sequence[AccountReference], prepare: Prepare
) -> tuple[Prepare, Callable[[], list[str]], str]:
    """How to prepare a subscription, the addresses of nodes with a reader for it, and the log that it is of.

    The log of a shard is known, and said by what is prepared, when that shard has been reached. Raises `UsageError` for
    what no one reader can tell.
    """
    if isinstance(channel, TcpChannel):
        return prepare, lambda: channel.node_addresses, channel.welcome.log_id
    if not isinstance(channel, ShardedChannel):
        raise UsageError("a ledger in this process tells nobody of events: run a node, and connect to it")
    shard = _shard_of(channel, references)
    sharded = channel

    async def prepare_there() -> Subscribe:
        leader = await sharded.channel_of(shard, CONNECT_S_MAX)
        return msgspec.structs.replace(await prepare(), log_id=leader.welcome.log_id)

    def addresses() -> list[str]:
        return sharded.addresses_of(shard)

    return prepare_there, addresses, ""


def _shard_of(channel: ShardedChannel, references: Sequence[AccountReference]) -> int:
    if references:
        return channel.shard_of(b"".join(_place_of(reference) for reference in references))
    if len(channel.shards) > 1:
        raise UsageError(f"the ledger has {len(channel.shards)} shards: name the accounts, all of one shard")
    return channel.shards[0]


def _place_of(reference: AccountReference) -> bytes:
    """An id in the slot of an account."""
    if isinstance(reference, bytes):
        return check_id(reference)
    return account_id(reference if isinstance(reference, str) else reference[0], _ANY_CURRENCY)
