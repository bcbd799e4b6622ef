"""Where a subscription goes when the accounts are spread over several shards: to those that have what it is about."""

from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

import msgspec

from bezant.net.access.credentials import Credentials
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


class Place(NamedTuple):
    """How to prepare a subscription in one shard, the addresses of nodes with a reader for it, the log it is of, and
    what is shown to them.

    ``shard`` is None for a ledger that is one group. The log of a shard is known, and said by what is prepared, when
    that shard has been reached.
    """

    shard: int | None
    prepare: Prepare
    addresses: Callable[[], list[str]]
    log_id: str
    credentials: Credentials | None = None


def place_subscription(
    channel: Channel, references: Sequence[AccountReference], preparing: Callable[[Sequence[AccountReference]], Prepare]
) -> list[Place]:
    """Where a subscription goes: to the shards with accounts that it is about, to all if it names none.

    `preparing` says how to prepare one for some of the accounts. Raises `UsageError` for what no reader can tell.
    """
    if isinstance(channel, TcpChannel):
        log_id = channel.welcome.log_id
        return [Place(None, preparing(references), lambda: channel.node_addresses, log_id, channel.credentials)]
    if not isinstance(channel, ShardedChannel):
        raise UsageError("a ledger in this process tells nobody of events: run a node, and connect to it")
    if not references:
        return [_place(channel, shard, preparing(())) for shard in channel.shards]
    owners = channel.shards_of(b"".join(_place_of(reference) for reference in references))
    return [
        _place(
            channel, shard, preparing([one for one, owner in zip(references, owners, strict=True) if owner == shard])
        )
        for shard in sorted(set(owners))
    ]


def _place(channel: ShardedChannel, shard: int, prepare: Prepare) -> Place:
    async def prepare_there() -> Subscribe:
        leader = await channel.channel_of(shard, CONNECT_S_MAX)
        return msgspec.structs.replace(await prepare(), log_id=leader.welcome.log_id)

    return Place(shard, prepare_there, lambda: channel.addresses_of(shard), "", channel.credentials)


def _place_of(reference: AccountReference) -> bytes:
    """An id in the slot of an account."""
    if isinstance(reference, bytes):
        return check_id(reference)
    return account_id(reference if isinstance(reference, str) else reference[0], _ANY_CURRENCY)
