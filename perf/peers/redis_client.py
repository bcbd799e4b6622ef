"""Wallets on Redis: a Lua script moves the money, with the transfer's id as the key that makes it happen once.

On one server the script is the whole transfer, and Redis runs it without interruption. On two servers a transfer across
is a debit by one script and then a credit by another, and nothing binds them: that is what is built when a wallet is
sharded by hand.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

import hiredis
import redis.asyncio

from bezant.cli.node_process import ProcessFailed
from bezant.perf.peers.plan import START_BALANCE, PeerPlan, Trade, host_and_port

Call = tuple[str | int, ...]
"""What follows EVALSHA: a script's hash, the count of keys, the keys, the arguments."""

SOCKET_TIMEOUT_S: Final = 30.0
_KEYS_AT_ONCE: Final = 10_000
_READ_SIZE: Final = 1 << 16
_pack: Callable[[Call], bytes] = hiredis.pack_command  # type: ignore[assignment]  # its stub takes one word alone
_TRANSFER_KEYS: Final = "t:*"

# KEYS: the id, the account that pays, the account that is paid; ARGV: the amount, the record of the transfer. The
# scripts answer 1 if money was moved, 2 if the id was known, 3 if the account has too little.
TRANSFER: Final = """
if redis.call('EXISTS', KEYS[1]) == 1 then return 2 end
if tonumber(redis.call('GET', KEYS[2])) < tonumber(ARGV[1]) then return 3 end
redis.call('DECRBY', KEYS[2], ARGV[1])
redis.call('INCRBY', KEYS[3], ARGV[1])
redis.call('SET', KEYS[1], ARGV[2])
return 1
"""
DEBIT: Final = """
if redis.call('EXISTS', KEYS[1]) == 1 then return 2 end
if tonumber(redis.call('GET', KEYS[2])) < tonumber(ARGV[1]) then return 3 end
redis.call('DECRBY', KEYS[2], ARGV[1])
redis.call('SET', KEYS[1], ARGV[2])
return 1
"""
CREDIT: Final = """
if redis.call('EXISTS', KEYS[1]) == 1 then return 2 end
redis.call('INCRBY', KEYS[2], ARGV[1])
redis.call('SET', KEYS[1], ARGV[2])
return 1
"""
MADE: Final = 1


def connect(address: str) -> "redis.asyncio.Redis":
    """redis-py's client, for all that is not measured."""
    host, port = host_and_port(address)
    return redis.asyncio.Redis(
        host=host,
        port=port,
        single_connection_client=True,
        socket_timeout=SOCKET_TIMEOUT_S,
        protocol=2,
    )


def account_key(number: int) -> str:
    """The key of an account's balance."""
    return f"a:{number}"


async def set_up(address: str, shard: int, shards: int, accounts: int) -> None:
    """Make the accounts that lie in this server, with their money."""
    async with connect(address) as client:
        numbers = range(shard, accounts, shards)
        for start in range(0, len(numbers), _KEYS_AT_ONCE):
            part = numbers[start : start + _KEYS_AT_ONCE]
            await client.mset({account_key(number): START_BALANCE for number in part})


async def read_books(addresses: Sequence[str], accounts: int) -> tuple[int, int]:
    """(sum of all balances, number of transfers) over all servers; a transfer counts where it is paid from."""
    balance = made = 0
    for shard, address in enumerate(addresses):
        async with connect(address) as client:
            numbers = range(shard, accounts, len(addresses))
            for start in range(0, len(numbers), _KEYS_AT_ONCE):
                part = numbers[start : start + _KEYS_AT_ONCE]
                balance += sum(int(value or 0) for value in await client.mget([account_key(number) for number in part]))
            made += len({key async for key in client.scan_iter(match=_TRANSFER_KEYS, count=_KEYS_AT_ONCE)})
    return balance, made


async def is_durable(addresses: Sequence[str]) -> bool:
    """Whether all servers say that an answer waits for the disk."""
    for address in addresses:
        async with connect(address) as client:
            told = await client.config_get("append*")
        if (told.get("appendonly"), told.get("appendfsync")) != ("yes", "always"):
            return False
    return True


class Connection:
    """A connection of the load, with hiredis alone: redis-py's pipelines would take more time than the server.

    It never asks again by itself: whether somebody should is what is measured.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._stream, self._writer = reader, writer
        self._replies = hiredis.Reader()

    async def run(self, calls: Sequence[Call]) -> list[int]:
        """Run scripts by their hashes, in one pipeline; their codes. Raises `OSError` if the server is gone."""
        if not calls:
            return []
        if self._writer.is_closing():
            raise ConnectionResetError("the server closed the connection")
        self._writer.writelines([_pack(("EVALSHA", *call)) for call in calls])
        codes: list[int] = []
        while len(codes) < len(calls):
            part = await asyncio.wait_for(self._stream.read(_READ_SIZE), SOCKET_TIMEOUT_S)
            if not part:
                raise ConnectionResetError("the server closed the connection")
            self._replies.feed(part)
            while (reply := self._replies.gets()) is not False:
                if not isinstance(reply, int):
                    raise ProcessFailed(f"Redis says {reply!r}")
                codes.append(reply)
        return codes

    def close(self) -> None:
        """Let go of it."""
        self._writer.close()


class RedisClient:
    """For every client a connection to each server."""

    losses = (OSError, TimeoutError)

    def __init__(self, connections: Sequence[Sequence[Connection]], scripts: Sequence[str]) -> None:
        self.retries = 0
        self._connections = connections
        self._transfer, self._debit, self._credit = scripts

    async def transfer(self, connection: int, trades: Sequence[Trade]) -> int:
        """Make transfers in one pipeline to each server, and then, of those across, the credits in another."""
        servers = self._connections[connection]
        count = len(servers)
        calls: list[list[Call]] = [[] for _ in servers]
        asked: list[list[Trade]] = [[] for _ in servers]
        for trade in trades:
            shard = trade.debit % count
            key, pays, paid = f"t:{trade.number}", account_key(trade.debit), account_key(trade.credit)
            record = f"{trade.debit} {trade.credit} {trade.amount}"
            if trade.credit % count == shard:
                calls[shard].append((self._transfer, 3, key, pays, paid, trade.amount, record))
            else:
                calls[shard].append((self._debit, 2, key, pays, trade.amount, record))
            asked[shard].append(trade)
        codes = await self._execute(servers, calls)
        made = sum(code == MADE for part in codes for code in part)
        if count == 1:
            return made
        second: list[list[Call]] = [[] for _ in servers]
        for shard in range(count):
            for trade, code in zip(asked[shard], codes[shard], strict=True):
                if code == MADE and trade.credit % count != shard:
                    record = f"{trade.debit} {trade.credit} {trade.amount}"
                    call = (self._credit, 2, f"c:{trade.number}", account_key(trade.credit), trade.amount, record)
                    second[trade.credit % count].append(call)
        await self._execute(servers, second)
        return made

    @staticmethod
    async def _execute(servers: Sequence[Connection], calls: Sequence[Sequence[Call]]) -> list[list[int]]:
        """Run the calls of each server, all servers at once; the codes in the same order."""
        if len(servers) == 1:
            return [await servers[0].run(calls[0])]
        # All are waited for, also when one fails: the others' money moves all the same.
        found = await asyncio.gather(*map(Connection.run, servers, calls), return_exceptions=True)
        codes: list[list[int]] = []
        for one in found:
            if isinstance(one, BaseException):
                raise one
            codes.append(one)
        return codes

    async def close(self) -> None:
        """Let go of all connections."""
        for servers in self._connections:
            for server in servers:
                server.close()


async def open_redis(plan: PeerPlan) -> RedisClient:
    """Connect the clients of a plan, and load the scripts into the servers."""
    scripts: list[str] = []
    for address in plan.addresses:
        async with connect(address) as client:
            scripts = [await client.script_load(script) for script in (TRANSFER, DEBIT, CREDIT)]
    connections = [
        [Connection(*await asyncio.open_connection(*host_and_port(address))) for address in plan.addresses]
        for _ in range(plan.clients)
    ]
    return RedisClient(connections, scripts)
