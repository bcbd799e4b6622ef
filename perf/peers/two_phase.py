"""Transfers across two PostgreSQL servers by two-phase commit, with a coordinator that survives its own death.

Both servers execute their leg and PREPARE TRANSACTION, at the same time, in one round trip each. Once both have, the
coordinator writes the decision to its own file and syncs it (one sync for all that wait), and only then sends COMMIT
PREPARED. It writes no decision to abort: what is prepared and not in the file is rolled back (presumed abort; Mohan,
Lindsay and Obermarck, "Transaction management in the R* distributed database management system", 1986, section 4).
`recover` does so after any of them was killed.

Each leg may hold its row's lock while the other's waits for one, over two servers, where no database sees the circle:
so a lock is waited for briefly, and then all is rolled back and tried again.
"""

import asyncio
import os
import re
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import asyncpg

from bezant.perf.peers.plan import CrashPoint, PeerPlan, Trade
from bezant.perf.peers.postgres_client import LOSSES, call_transfer, close_all, connect, prepare_call

LOCK_TIMEOUT_MS: Final = 100
ATTEMPTS_MAX: Final = 30
"""Tries of one transfer, after which it is given up; it has moved nothing."""
SESSIONS_END_TIMEOUT_S: Final = 20.0
APPLICATION: Final = "coordinator"
_DECISION: Final = re.compile(rb"([0-9a-f]{32})\n")
_DECISION_SIZE: Final = 33
_POLL_S: Final = 0.02


class DecisionRecord:
    """The coordinator's file of transfers that are decided to commit: lines of 32 hexadecimal digits.

    A line that is not whole was never synced, so nobody acted on it.
    """

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        _sync_folder(path.parent)
        self._waiting: list[tuple[bytes, asyncio.Future[None]]] = []
        self._writer: asyncio.Task[None] | None = None

    async def write(self, identifier: str) -> None:
        """Return when the decision is durable. At most as many wait as there are clients. Raises `OSError`."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((identifier.encode() + b"\n", done))
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write_all())
        await done

    async def _write_all(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            try:
                await asyncio.to_thread(self._append, b"".join(line for line, _ in batch))
            except OSError as error:
                for _, done in batch:
                    done.set_exception(error)
            else:
                for _, done in batch:
                    done.set_result(None)

    def _append(self, lines: bytes) -> None:
        written = os.write(self._descriptor, lines)
        if written != len(lines):
            raise OSError(f"only {written} of {len(lines)} bytes of decisions were written")
        os.fdatasync(self._descriptor)

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)


def read_decisions(path: Path) -> set[str]:
    """The transfers that were decided to commit. A torn line is cut off, so that whoever appends next begins a line."""
    if not path.exists():
        return set()
    content = path.read_bytes()
    decided = set()
    end = 0
    while match := _DECISION.match(content, end):
        decided.add(match[1].decode())
        end += _DECISION_SIZE
    if end != len(content):
        with path.open("r+b") as file:
            file.truncate(end)
            os.fsync(file.fileno())
    return decided


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class TwoPhaseClient:
    """The coordinator: for every client a connection to each of two servers."""

    losses = LOSSES

    def __init__(
        self,
        connections: Sequence[tuple[Any, Any]],
        calls: Sequence[tuple[Any, Any]],
        decisions: DecisionRecord,
        crash_at: CrashPoint,
        crash_after: int,
    ) -> None:
        self.retries = 0
        self._connections = connections
        self._calls = calls
        self._decisions = decisions
        self._crash_at = crash_at
        self._crash_after = crash_after
        self._made = 0

    async def transfer(self, connection: int, trades: Sequence[Trade]) -> int:
        """Make transfers one after the other; those within one server take one transaction there."""
        made = 0
        for trade in trades:
            if trade.debit % 2 == trade.credit % 2:
                made += await call_transfer(self._calls[connection][trade.debit % 2], trade)
            else:
                made += await self._transfer_across(self._connections[connection], trade)
        self._made += made
        return made

    async def _transfer_across(self, pair: tuple[Any, Any], trade: Trade) -> int:
        identifier = f"{trade.number:032x}"
        for _ in range(ATTEMPTS_MAX):
            faults = await self._prepare(pair, identifier, trade)
            if not any(faults):
                break
            await self._roll_back(pair, identifier, faults)
            if not all(fault is None or isinstance(fault, asyncpg.LockNotAvailableError) for fault in faults):
                return 0  # too little money, or an id that is known
            self.retries += 1
        else:
            return 0
        self._maybe_crash("prepared")
        await self._decisions.write(identifier)
        self._maybe_crash("decided")
        await asyncio.gather(*(connection.execute(f"COMMIT PREPARED '{identifier}'") for connection in pair))
        return 1

    async def _prepare(
        self, pair: tuple[Any, Any], identifier: str, trade: Trade
    ) -> list[asyncpg.IntegrityConstraintViolationError | asyncpg.LockNotAvailableError | None]:
        """Execute and prepare both legs; why each was refused, None if it was not. Raises one of `LOSSES`."""
        payer = trade.debit % 2
        legs = ((payer, trade.debit, -trade.amount), (1 - payer, trade.credit, trade.amount))
        found = await asyncio.gather(
            *(
                pair[server].execute(
                    f"BEGIN; EXECUTE leg('{identifier}', {trade.debit}, {trade.credit}, {trade.amount}, {account},"
                    f" {change}); PREPARE TRANSACTION '{identifier}'"
                )
                for server, account, change in sorted(legs)
            ),
            return_exceptions=True,
        )
        faults: list[asyncpg.IntegrityConstraintViolationError | asyncpg.LockNotAvailableError | None] = []
        for one in found:
            if isinstance(one, asyncpg.IntegrityConstraintViolationError | asyncpg.LockNotAvailableError):
                faults.append(one)
            elif isinstance(one, BaseException):
                raise one
            else:
                faults.append(None)
        return faults

    @staticmethod
    async def _roll_back(pair: tuple[Any, Any], identifier: str, faults: Sequence[Exception | None]) -> None:
        for connection, fault in zip(pair, faults, strict=True):
            await connection.execute(f"ROLLBACK PREPARED '{identifier}'" if fault is None else "ROLLBACK")

    def _maybe_crash(self, point: CrashPoint) -> None:
        """Die as by a power cut, without a word to anybody, if this is where the plan says so."""
        if self._crash_at == point and self._made >= self._crash_after:
            os.kill(os.getpid(), signal.SIGKILL)

    async def close(self) -> None:
        """Let go of all connections."""
        for pair in self._connections:
            await close_all(pair)
        self._decisions.close()


async def _connect_pair(addresses: Sequence[str]) -> tuple[Any, Any]:
    first, second = await asyncio.gather(*map(connect, addresses))
    for connection in (first, second):
        await connection.execute(
            f"SET application_name = '{APPLICATION}'; SET lock_timeout = {LOCK_TIMEOUT_MS};"
            " PREPARE leg(uuid, integer, integer, bigint, integer, bigint) AS SELECT leg($1, $2, $3, $4, $5, $6)"
        )
    return first, second


async def open_two_phase(plan: PeerPlan) -> TwoPhaseClient:
    """Connect the clients of a plan to both servers."""
    decisions = DecisionRecord(Path(plan.decisions))
    pairs = [await _connect_pair(plan.addresses) for _ in range(plan.clients)]
    calls = [(await prepare_call(first), await prepare_call(second)) for first, second in pairs]
    return TwoPhaseClient(pairs, calls, decisions, plan.crash_at, plan.crash_after)


# ---- recovery ----


class Recovered(NamedTuple):
    """Transactions that were found prepared, by what became of them; one on each server counts as two."""

    committed: int
    rolled_back: int


async def recover(addresses: Sequence[str], path: Path) -> Recovered:
    """Settle what a coordinator or server that was killed left prepared, by the record of decisions; safe to repeat.

    First no session of the dead coordinator may be left, which could prepare one more. Raises `TimeoutError`.
    """
    decided = read_decisions(path)
    committed = rolled_back = 0
    for address in addresses:
        connection = await connect(address)
        try:
            await _end_sessions(connection)
            for row in await connection.fetch("SELECT gid FROM pg_prepared_xacts"):
                commit = row["gid"] in decided
                await connection.execute(f"{'COMMIT' if commit else 'ROLLBACK'} PREPARED '{row['gid']}'")
                committed += commit
                rolled_back += not commit
        finally:
            await connection.close()
    return Recovered(committed, rolled_back)


async def _end_sessions(connection: Any) -> None:
    deadline_s = time.monotonic() + SESSIONS_END_TIMEOUT_S
    ending = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = $1"
    while await connection.fetch(ending, APPLICATION):
        if time.monotonic() >= deadline_s:
            raise TimeoutError(f"sessions of the dead coordinator do not end within {SESSIONS_END_TIMEOUT_S:g} s")
        await asyncio.sleep(_POLL_S)
