"""A wallet on one PostgreSQL: a function that inserts the transfer and changes two balances, in one transaction.

A transfer is one round trip, a call of the function through a prepared statement. The rows are changed in the order of
their accounts, so that transfers between the same accounts do not wait for each other in a circle.
"""

import asyncio
import uuid
from collections.abc import Sequence
from typing import Any, Final

import asyncpg

from bezant.perf.peers.plan import START_BALANCE, PeerPlan, Trade, host_and_port

USER: Final = "bezant"
DATABASE: Final = "postgres"
CONNECT_TIMEOUT_S: Final = 10.0
COMMAND_TIMEOUT_S: Final = 30.0
LOSSES: Final = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InternalClientError,
)
"""What asyncpg raises when a server is gone, or just starts or ends. The last is what it says of a connection that is
lost at the very moment at which a call begins."""

MADE: Final = 1
KNOWN: Final = 2
"""The id was used before: nothing is moved."""

# Half of a page stays free, so that a balance changes within its page and the index is left alone (a HOT update).
SCHEMA: Final = """
CREATE TABLE accounts (
    id integer PRIMARY KEY,
    balance bigint NOT NULL CHECK (balance >= 0)
) WITH (fillfactor = 50);
CREATE TABLE transfers (
    id uuid PRIMARY KEY,
    debit integer NOT NULL,
    credit integer NOT NULL,
    amount bigint NOT NULL,
    made_at timestamptz NOT NULL DEFAULT now()
);
CREATE FUNCTION transfer(t uuid, d integer, c integer, a bigint) RETURNS integer LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO transfers (id, debit, credit, amount) VALUES (t, d, c, a) ON CONFLICT (id) DO NOTHING;
    IF NOT FOUND THEN
        RETURN 2;
    END IF;
    IF d < c THEN
        UPDATE accounts SET balance = balance - a WHERE id = d;
        UPDATE accounts SET balance = balance + a WHERE id = c;
    ELSE
        UPDATE accounts SET balance = balance + a WHERE id = c;
        UPDATE accounts SET balance = balance - a WHERE id = d;
    END IF;
    RETURN 1;
END $$;
CREATE FUNCTION leg(t uuid, d integer, c integer, a bigint, account integer, change bigint) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO transfers (id, debit, credit, amount) VALUES (t, d, c, a);
    UPDATE accounts SET balance = balance + change WHERE id = account;
END $$;
"""


async def connect(address: str) -> Any:
    """One connection. Raises one of `LOSSES`, or `asyncpg.PostgresError`."""
    host, port = host_and_port(address)
    return await asyncpg.connect(
        host=host,
        port=port,
        user=USER,
        database=DATABASE,
        ssl=False,
        timeout=CONNECT_TIMEOUT_S,
        command_timeout=COMMAND_TIMEOUT_S,
    )


async def set_up(address: str, shard: int, shards: int, accounts: int) -> None:
    """Make the tables, and the accounts that lie in this server, with their money."""
    connection = await connect(address)
    try:
        await connection.execute(SCHEMA)
        await connection.execute(
            "INSERT INTO accounts SELECT number, $1 FROM generate_series($2::integer, $3::integer, $4::integer) number",
            START_BALANCE,
            shard,
            accounts - 1,
            shards,
        )
        await connection.execute("VACUUM (ANALYZE) accounts")
    finally:
        await connection.close()


async def read_books(addresses: Sequence[str]) -> tuple[int, int]:
    """(sum of all balances, number of transfers) over all servers; a transfer counts where it is paid from."""
    balance = made = 0
    for shard, address in enumerate(addresses):
        connection = await connect(address)
        try:
            balance += int(await connection.fetchval("SELECT sum(balance) FROM accounts"))
            made += await connection.fetchval(
                "SELECT count(*) FROM transfers WHERE debit % $1 = $2", len(addresses), shard
            )
        finally:
            await connection.close()
    return balance, made


async def is_durable(addresses: Sequence[str]) -> bool:
    """Whether all servers say that a commit waits for the disk."""
    for address in addresses:
        connection = await connect(address)
        try:
            told = [await connection.fetchval(f"SHOW {name}") for name in ("fsync", "synchronous_commit")]
        finally:
            await connection.close()
        if told != ["on", "on"]:
            return False
    return True


async def close_all(connections: Sequence[Any]) -> None:
    """Let go of connections, of which the servers may be gone."""
    for connection in connections:
        connection.terminate()


class PostgresClient:
    """One connection for every client, each with the prepared call."""

    losses = LOSSES

    def __init__(self, connections: Sequence[Any], calls: Sequence[Any]) -> None:
        self.retries = 0
        self._connections = connections
        self._calls = calls

    async def transfer(self, connection: int, trades: Sequence[Trade]) -> int:
        """Make transfers one after the other: the client has no pipeline."""
        made = 0
        for trade in trades:
            made += await call_transfer(self._calls[connection], trade)
        return made

    async def close(self) -> None:
        """Let go of all connections."""
        await close_all(self._connections)


async def call_transfer(call: Any, trade: Trade) -> int:
    """Make a transfer by a prepared call: 1 if it was made, 0 if the account has too little or the id was known."""
    try:
        code = await call.fetchval(uuid.UUID(int=trade.number), trade.debit, trade.credit, trade.amount)
    except asyncpg.CheckViolationError:
        return 0
    return int(code == MADE)


async def prepare_call(connection: Any) -> Any:
    """The prepared call of the function."""
    return await connection.prepare("SELECT transfer($1, $2, $3, $4)")


async def open_postgres(plan: PeerPlan) -> PostgresClient:
    """Connect the clients of a plan."""
    (address,) = plan.addresses
    connections = await asyncio.gather(*(connect(address) for _ in range(plan.clients)))
    return PostgresClient(connections, [await prepare_call(connection) for connection in connections])
