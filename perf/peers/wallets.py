"""A class for each peer: its servers started and filled, killed and brought back, and its books read."""

from abc import ABC, abstractmethod
from contextlib import ExitStack
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Final, Self

from bezant.cli.node_process import WRITE_SIDE_COMMAND, NodeProcess
from bezant.cli.session import run_async
from bezant.perf.peers.plan import START_BALANCE, CrashPoint, PeerKind, PeerPlan
from bezant.perf.peers.programs import POSTGRES, REDIS, PeerUnavailable, Programs, Say, Wanted, have_programs
from bezant.perf.peers.servers import PostgresServer, RedisServer, Server, Site

SHARDS: Final = 2
ACCOUNTS_MIN: Final = 2 * SHARDS
_EXTRA: Final = "install the extra: pip install 'bezant[peers]'"


class PeerWallet(ABC):
    """A peer that is ready for a load from the beginning of its context to the end, and leaves nothing running.

    `start_balance` is what all balances must always add up to.
    """

    kind: ClassVar[PeerKind]
    title: ClassVar[str]
    atomic_across: ClassVar[bool | None] = None
    """Whether a transfer between two servers happens whole or not at all; None with one server."""
    start_balance: int

    def __init__(self, accounts: int) -> None:
        self.accounts = accounts
        self.version = ""
        self.settings: list[str] = []
        self._cleaning = ExitStack()

    def __enter__(self) -> Self:
        try:
            self._open()
        except BaseException:
            self._cleaning.close()
            raise
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._cleaning.close()

    @property
    @abstractmethod
    def addresses(self) -> list[str]:
        """The servers, HOST:PORT."""

    @property
    @abstractmethod
    def process_ids(self) -> list[int]:
        """Numbers of the servers that run."""

    @abstractmethod
    def _open(self) -> None: ...

    @abstractmethod
    def kill(self) -> None:
        """SIGKILL the last server."""

    @abstractmethod
    def restart(self) -> None:
        """Start the server that was killed, and settle what it left unsettled, if the peer knows how to."""

    @abstractmethod
    def read_books(self) -> tuple[int, int]:
        """(sum of all balances in minor units, transfers that were made)."""

    @abstractmethod
    def is_durable(self) -> bool:
        """Whether the servers themselves say that an answer waits for the disk."""

    def plan(
        self,
        *,
        clients: int,
        pipeline: int,
        seconds: float,
        first_number: int,
        cross: float,
        seed: int,
        crash_at: CrashPoint = "",
        crash_after: int = 0,
    ) -> PeerPlan:
        """A load on this peer."""
        return PeerPlan(
            kind=self.kind,
            addresses=self.addresses,
            accounts=self.accounts,
            clients=clients,
            pipeline=pipeline,
            seconds=seconds,
            first_number=first_number,
            cross=cross,
            seed=seed,
            decisions=self._decisions(),
            crash_at=crash_at,
            crash_after=crash_after,
        )

    def _decisions(self) -> str:
        return ""


class _ServerWallet(PeerWallet):
    """A peer with one or two servers of the same sort."""

    server_count: ClassVar[int] = 1

    def __init__(self, accounts: int, site: Site, programs: Programs, connections: int) -> None:
        super().__init__(accounts)
        self.version = programs.version
        self.start_balance = accounts * START_BALANCE
        self._site = site
        self._programs = programs
        self._connections = connections
        self._servers: list[Server] = []

    @property
    def addresses(self) -> list[str]:
        """The servers, HOST:PORT."""
        return [server.address for server in self._servers]

    @property
    def process_ids(self) -> list[int]:
        """Numbers of the servers that run."""
        return [server.process_id for server in self._servers if server.process_id is not None]

    def _open(self) -> None:
        for number in range(self.server_count):
            server = self._make_server(f"{self.kind}-{number}")
            self._servers.append(server)
            self._cleaning.callback(server.end)
            server.start()
        run_async(self._set_up())

    @abstractmethod
    def _make_server(self, name: str) -> Server: ...

    @abstractmethod
    async def _set_up(self) -> None: ...

    def kill(self) -> None:
        """SIGKILL the last server."""
        self._servers[-1].kill()

    def restart(self) -> None:
        """Start the server that was killed."""
        self._servers[-1].start()


class PostgresWallet(_ServerWallet):
    """One PostgreSQL, a transaction for each transfer."""

    kind: ClassVar[PeerKind] = "postgres"
    title = "PostgreSQL, one transaction a transfer"

    def _make_server(self, name: str) -> Server:
        from bezant.perf.peers.postgres_client import USER

        self.settings = list(PostgresServer.SETTINGS)
        return PostgresServer(self._site, name, self._programs, user=USER, connections=self._connections)

    async def _set_up(self) -> None:
        from bezant.perf.peers.postgres_client import set_up

        for shard, address in enumerate(self.addresses):
            await set_up(address, shard, len(self.addresses), self.accounts)

    def read_books(self) -> tuple[int, int]:
        """(sum of all balances in minor units, transfers that were made)."""
        from bezant.perf.peers.postgres_client import read_books

        return run_async(read_books(self.addresses))

    def is_durable(self) -> bool:
        """Whether the servers themselves say that an answer waits for the disk."""
        from bezant.perf.peers.postgres_client import is_durable

        return run_async(is_durable(self.addresses))


class TwoPhaseWallet(PostgresWallet):
    """Two PostgreSQL servers and a coordinator of two-phase commit."""

    kind: ClassVar[PeerKind] = "postgres-2pc"
    title = "PostgreSQL x 2, two-phase commit"
    atomic_across = True
    server_count = SHARDS

    def __init__(self, accounts: int, site: Site, programs: Programs, connections: int) -> None:
        super().__init__(accounts, site, programs, connections)
        self.recovered = (0, 0)
        """Prepared transactions that the last recovery (committed, rolled back)."""

    def _decisions(self) -> str:
        return str(self._site.folder / "decisions")

    def restart(self) -> None:
        """Start the server that was killed, and settle what was prepared."""
        super().restart()
        self.recover()

    def recover(self) -> None:
        """Settle what a coordinator that was killed left prepared, as the next one does before it begins."""
        from bezant.perf.peers.two_phase import recover

        self.recovered = run_async(recover(self.addresses, Path(self._decisions())))


class RedisWallet(_ServerWallet):
    """One Redis, a Lua script for each transfer."""

    kind: ClassVar[PeerKind] = "redis"
    title = "Redis, Lua script with an id"

    def _make_server(self, name: str) -> Server:
        self.settings = [f"{name} {value}".rstrip() for name, value in RedisServer.SETTINGS]
        return RedisServer(self._site, name, self._programs)

    async def _set_up(self) -> None:
        from bezant.perf.peers.redis_client import set_up

        for shard, address in enumerate(self.addresses):
            await set_up(address, shard, len(self.addresses), self.accounts)

    def read_books(self) -> tuple[int, int]:
        """(sum of all balances in minor units, transfers that were made)."""
        from bezant.perf.peers.redis_client import read_books

        return run_async(read_books(self.addresses, self.accounts))

    def is_durable(self) -> bool:
        """Whether the servers themselves say that an answer waits for the disk."""
        from bezant.perf.peers.redis_client import is_durable

        return run_async(is_durable(self.addresses))


class ShardedRedisWallet(RedisWallet):
    """Two Redis servers, debit in one and credit in the other."""

    kind: ClassVar[PeerKind] = "redis-sharded"
    title = "Redis x 2, debit then credit"
    atomic_across = False
    server_count = SHARDS


class BezantWallet(PeerWallet):
    """A node of Bezant, of which the load is not part: see `bezant.perf.load`."""

    kind: ClassVar[PeerKind] = "bezant"
    title = "Bezant, one node"
    start_balance = 0

    def __init__(self, accounts: int, site: Site) -> None:
        super().__init__(accounts)
        self.version = f"bezant {version('bezant')}"
        self._node = NodeProcess(site.folder / "bezant", command=WRITE_SIDE_COMMAND)

    @property
    def addresses(self) -> list[str]:
        """The node, HOST:PORT."""
        return [self._node.address]

    @property
    def process_ids(self) -> list[int]:
        """Number of the node if it runs."""
        return [] if self._node.ended else [self._node.process_id]

    def _open(self) -> None:
        from bezant.perf.peers.bezant_client import set_up

        self._cleaning.callback(self._node.end)
        self.restart()
        run_async(set_up(self._node.address, self.accounts))

    def kill(self) -> None:
        """SIGKILL the node."""
        self._node.kill()

    def restart(self) -> None:
        """Start the node."""
        self._node.start()
        self._node.await_ready()

    def read_books(self) -> tuple[int, int]:
        """(sum of all balances in minor units, transfers that were made)."""
        from bezant.perf.peers.bezant_client import read_books

        return run_async(read_books(self._node.address, self.accounts))

    def is_durable(self) -> bool:
        """Whether the node says that an answer waits for the disk."""
        from bezant.perf.peers.bezant_client import is_durable

        return run_async(is_durable(self._node.address))


def make_wallet(kind: PeerKind, accounts: int, site: Site, connections: int, say: Say) -> PeerWallet:
    """The peer of a kind, for so many accounts and connections of a load. Raises `PeerUnavailable`."""
    if kind == "bezant":
        return BezantWallet(accounts, site)
    make, wanted, client = _SORTS[kind]
    if find_spec(client) is None:
        raise PeerUnavailable(f"the client {client} is not installed", _EXTRA)
    return make(accounts, site, have_programs(wanted, say), connections)


_SORTS: Final[dict[PeerKind, tuple[type[_ServerWallet], Wanted, str]]] = {
    "postgres": (PostgresWallet, POSTGRES, "asyncpg"),
    "postgres-2pc": (TwoPhaseWallet, POSTGRES, "asyncpg"),
    "redis": (RedisWallet, REDIS, "redis"),
    "redis-sharded": (ShardedRedisWallet, REDIS, "redis"),
}
