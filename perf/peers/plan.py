"""What the comparison and its load process say to each other, and the transfers that the load makes."""

import random
from collections.abc import Iterator, Sequence
from itertools import cycle
from pathlib import Path
from typing import Final, Literal, NamedTuple, Protocol

import msgspec

PeerKind = Literal["bezant", "postgres", "postgres-2pc", "redis", "redis-sharded"]
CrashPoint = Literal["", "prepared", "decided"]

START_BALANCE: Final = 1_000_000_000
"""Minor units that every account begins with, enough that no transfer is refused for want of money."""
AMOUNT_MAX: Final = 100
"""Minor units of the largest transfer."""
_DRAWN_COUNT: Final = 1 << 14


class ComparisonSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What `bezant bench compare` was asked for.

    ``seconds`` are those of each load, ``clients`` connections when there are several, ``pipeline`` transfers in flight
    on one where clients do so, and ``cross`` the share of transfers between two servers.
    """

    peers: list[PeerKind]
    seconds: float = 3.0
    clients: int = 16
    pipeline: int = 16
    accounts: int = 10_000
    cross: float = 1.0
    seed: int = 1
    directory: Path | None = None


class PeerPlan(msgspec.Struct, frozen=True, kw_only=True):
    """One load: ``clients`` connections (with two servers, one to each), and ``pipeline`` transfers in flight on each.

    ``addresses`` are the servers' HOST:PORT; an account lies in the server whose place in them is the account's number
    modulo their count. ``cross`` is the share of transfers between servers. ``first_number`` is that of the first
    transfer, higher than all before. ``decisions`` is the file of the two-phase coordinator; ``crash_at`` lets it kill
    itself once ``crash_after`` transfers are made: when all is prepared, or when its decision is durable.
    """

    kind: PeerKind
    addresses: list[str]
    accounts: int
    clients: int
    pipeline: int
    seconds: float
    first_number: int
    cross: float = 1.0
    seed: int = 1
    decisions: str = ""
    crash_at: CrashPoint = ""
    crash_after: int = 0


class PeerProgress(msgspec.Struct, frozen=True, tag="progress"):
    """So many transfers have been acknowledged."""

    made: int


class PeerFailure(msgspec.Struct, frozen=True, tag="failure"):
    """The load could not be run."""

    message: str


class PeerOutcome(msgspec.Struct, frozen=True, kw_only=True, tag="outcome"):
    """What one load saw. ``unknown`` transfers got no answer because their server was gone, ``refused`` ones were
    rejected or given up, ``retries`` were tried again after a lock that was not to be had. Latencies run from asking to
    answer, in microseconds, None if nothing was answered; ``cpu_s`` is the load's own processor time."""

    seconds: float
    made: int
    refused: int
    unknown: int
    retries: int
    latency_us_p50: float | None
    latency_us_p99: float | None
    cpu_s: float


PeerLine = PeerProgress | PeerFailure | PeerOutcome


class Trade(NamedTuple):
    """A transfer to make; accounts are numbers from 0 on, the amount minor units."""

    number: int
    debit: int
    credit: int
    amount: int


class PeerClient(Protocol):
    """How the load talks to a peer; it is open from its making by a function of the kind's module until `close`."""

    retries: int
    """Tries that were made again so far."""

    @property
    def losses(self) -> tuple[type[BaseException], ...]:
        """What is raised when a server is gone, so that outcomes are unknown."""
        ...

    async def transfer(self, connection: int, trades: Sequence[Trade]) -> int:
        """Make transfers over the connection with that number, all in flight at once; how many were made."""
        ...

    async def close(self) -> None:
        """Let go of all connections."""
        ...


def host_and_port(address: str) -> tuple[str, int]:
    """The parts of HOST:PORT."""
    host, _, port = address.rpartition(":")
    return host, int(port)


def make_trades(plan: PeerPlan) -> Iterator[Trade]:
    """Transfers without end between random accounts, of which the plan's share lies across two servers.

    Some thousands are drawn ahead and come again and again with new numbers, so that drawing takes no time from a load.
    """
    chance = random.Random(plan.seed)
    drawn = [_draw(chance, plan.accounts, len(plan.addresses), plan.cross) for _ in range(_DRAWN_COUNT)]
    for number, trade in enumerate(cycle(drawn), plan.first_number):
        yield Trade(number, *trade)


def _draw(chance: random.Random, accounts: int, shards: int, cross: float) -> tuple[int, int, int]:
    """Two different accounts and an amount."""
    debit, credit = chance.sample(range(accounts), 2)
    if shards > 1:
        # The next account of the wanted shard below the one that was drawn, or above it at the bottom.
        shift = 1 if chance.random() < cross else 0
        credit -= (credit - debit - shift) % shards
        credit = credit + shards if credit < 0 else credit
        if credit == debit:
            credit = debit + shards if debit + shards < accounts else debit - shards
    return debit, credit, chance.randint(1, AMOUNT_MAX)
