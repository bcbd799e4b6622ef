"""What a shard tells of the transfers to other shards that it coordinates; the page ``SHARDS.md`` has the rest."""

import msgspec


class TransferUnderWay(msgspec.Struct, frozen=True):
    """A transfer to another shard that has not ended.

    ``phase``: ``trying``, ``confirming`` or ``cancelling``; ``shard``: the other one; ``amount``: in minor units;
    ``age_ms``: since it was tried.
    """

    id: str
    phase: str
    shard: int
    amount: int
    currency: str
    age_ms: int


class TransactionsUnderWay(msgspec.Struct, frozen=True):
    """Those that one shard coordinates, the oldest first, and how many there are: perhaps more than are told."""

    transfers: list[TransferUnderWay]
    count: int
