"""A wallet: what can be asked of a ledger. The same over TCP and over an engine in the same process.

Amounts are exact decimals, as strings or `Decimal`, in the currency's decimals. A refusal by the ledger is a `Result`
and so is not knowing; exceptions are for calls that could not be asked, and for reads that got no answer.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from decimal import Decimal
from types import TracebackType
from typing import Final, Self

from bezant.net.client import lookups
from bezant.net.client.batches import submit_array
from bezant.net.client.channel import Channel, check_timeout
from bezant.net.client.coalescer import Coalescer
from bezant.net.client.commands import (
    amount_units,
    cached_account_id,
    check_id,
    encode_open,
    encode_set_limit,
    encode_transfer,
    limit_units,
)
from bezant.net.client.results import Account, Event, Result, Unlimited, result_of
from bezant.protocol.errors import InvalidAmountOrName
from bezant.protocol.frames import Operation
from bezant.protocol.messages import Statistics, Welcome
from bezant.protocol.names import IdMaker
from bezant.protocol.records import Records

TIMEOUT_S_DEFAULT: Final = 5.0


class Wallet:
    """See the module. Made by `bezant.connect` and `bezant.open`; used from the event loop that made it.

    Every call takes a ``timeout_s``, its deadline in seconds; None is the one that the wallet was opened with. The
    commands (`open_account`, `transfer`, `set_limit`) take an ``id`` of 16 bytes: the same id again gets the first
    outcome and moves nothing twice, so a caller that keeps its ids may repeat a command until it knows the outcome.
    Without one a fresh UUIDv7 is used; the `Result` has it.

    Concurrent commands share frames: thousands of awaits at a time are the fast way to use this.
    """

    def __init__(self, channel: Channel, timeout_s: float = TIMEOUT_S_DEFAULT) -> None:
        """Stand over an open channel. `open_over` is the way to make one that knows its currencies."""
        self._channel = channel
        self._timeout_s = check_timeout(timeout_s)
        self._coalescer = Coalescer(channel)
        self._make_id = IdMaker().make
        self._decimals: dict[str, int] = {}
        self._refreshing: asyncio.Task[dict[str, int]] | None = None

    @classmethod
    async def open_over(cls, channel: Channel, timeout_s: float = TIMEOUT_S_DEFAULT) -> Self:
        """Stand over an open channel, whose currencies are fetched; the channel is closed if that fails."""
        try:
            wallet = cls(channel, timeout_s)
            await wallet.currencies()
        except BaseException:
            await channel.close()
            raise
        return wallet

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def welcome(self) -> Welcome:
        """Who answers: versions, the log's id, what it takes."""
        return self._channel.welcome

    @property
    def channel(self) -> Channel:
        """What carries the requests."""
        return self._channel

    @property
    def timeout_s(self) -> float:
        """The deadline of calls that name none, in seconds."""
        return self._timeout_s

    # Commands.

    async def open_account(
        self,
        name: str,
        currency: str,
        *,
        limit: str | Decimal | Unlimited = "0",
        id: bytes | None = None,  # noqa: A002 - the word that everybody looks for
        code: int = 0,
        timeout_s: float | None = None,
    ) -> Result:
        """Open an account; `limit` is how far below zero it may go. Raises `UsageError` if it cannot be asked."""
        decimals = self._decimals.get(currency)
        if decimals is None:
            decimals = await self._fetch_decimals(currency, timeout_s)
        identifier = self._make_id() if id is None else check_id(id)
        command = encode_open(identifier, name, currency, limit_units(limit, decimals), code)
        row = await self._coalescer.submit(command, self._timeout_s if timeout_s is None else timeout_s)
        return result_of(row, identifier, decimals)

    async def transfer(
        self,
        debit: str,
        credit: str,
        amount: str | Decimal,
        currency: str,
        *,
        id: bytes | None = None,  # noqa: A002
        user_data: bytes = b"",
        code: int = 0,
        timeout_s: float | None = None,
    ) -> Result:
        """Move an amount from the account named `debit` to the one named `credit`.

        `user_data` (up to 16 bytes) and `code` (32 bits) are the caller's own and come back in the event. Raises
        `UsageError` if it cannot be asked.
        """
        decimals = self._decimals.get(currency)
        if decimals is None:
            decimals = await self._fetch_decimals(currency, timeout_s)
        identifier = self._make_id() if id is None else check_id(id)
        command = encode_transfer(
            identifier,
            cached_account_id(debit, currency),
            cached_account_id(credit, currency),
            amount_units(amount, decimals),
            user_data=user_data,
            code=code,
        )
        row = await self._coalescer.submit(command, self._timeout_s if timeout_s is None else timeout_s)
        return result_of(row, identifier, decimals)

    async def set_limit(
        self,
        name: str,
        currency: str,
        limit: str | Decimal | Unlimited,
        *,
        id: bytes | None = None,  # noqa: A002
        user_data: bytes = b"",
        code: int = 0,
        timeout_s: float | None = None,
    ) -> Result:
        """Set how far below zero an account may go. Raises `UsageError` if it cannot be asked."""
        decimals = self._decimals.get(currency)
        if decimals is None:
            decimals = await self._fetch_decimals(currency, timeout_s)
        identifier = self._make_id() if id is None else check_id(id)
        account = cached_account_id(name, currency)
        command = encode_set_limit(identifier, account, limit_units(limit, decimals), user_data, code)
        row = await self._coalescer.submit(command, self._timeout_s if timeout_s is None else timeout_s)
        return result_of(row, identifier, decimals)

    async def submit(self, commands: Records, timeout_s: float | None = None) -> Records:
        """Execute an array of COMMAND records, in order, and return a RESULT record for each.

        The array goes as it is, in frames of up to BATCH_COUNT_MAX, and must not change meanwhile; `timeout_s` is the
        deadline of each frame. Raises `OutcomeUnknown` if any outcome is unknown, with those that are known.
        """
        return await submit_array(self._channel, commands, self._seconds(timeout_s))

    # Reads. They raise `RequestTimedOut`, or another `ConnectionFailed`, when no answer comes.

    async def account(self, name: str, currency: str, *, timeout_s: float | None = None) -> Account | None:
        """Return the account with this name and currency, or None if it has not been opened."""
        accounts = await self.accounts_by_id([cached_account_id(name, currency)], timeout_s=timeout_s)
        return accounts[0]

    async def accounts_by_id(self, ids: Sequence[bytes], *, timeout_s: float | None = None) -> list[Account | None]:
        """Return the accounts with these ids, None where there is none, in the order asked."""
        return await lookups.look_up_accounts(
            self._channel, [check_id(identifier) for identifier in ids], self._seconds(timeout_s)
        )

    async def accounts(self, *, timeout_s: float | None = None) -> AsyncIterator[Account]:
        """Iterate over all accounts in the order in which they were opened; `timeout_s` is for each page of them."""
        cursor = 0
        while True:
            page = await lookups.list_accounts(self._channel, cursor, self._seconds(timeout_s))
            if not page:
                return
            for account in page:
                yield account
            cursor += len(page)

    async def event(
        self,
        id: bytes,  # noqa: A002
        debit: str,
        currency: str,
        *,
        timeout_s: float | None = None,
    ) -> Event | None:
        """Return the event that the command with this id on this debit account left, or None if there is none."""
        decimals = self._decimals.get(currency)
        if decimals is None:
            decimals = await self._fetch_decimals(currency, timeout_s)
        account = cached_account_id(debit, currency)
        return await lookups.look_up_event(self._channel, check_id(id), account, decimals, self._seconds(timeout_s))

    async def currencies(self, *, timeout_s: float | None = None) -> dict[str, int]:
        """Return the decimals of every registered currency, by its code."""
        self._decimals = await lookups.list_currencies(self._channel, self._seconds(timeout_s))
        return dict(self._decimals)

    async def register_currency(self, code: str, decimals: int, *, timeout_s: float | None = None) -> None:
        """Register a currency with 0 to 18 decimals, for ever. Raises `RequestRefused` if the node will not."""
        self._decimals = await lookups.register_currency(self._channel, code, decimals, self._seconds(timeout_s))

    async def statistics(self, *, timeout_s: float | None = None) -> Statistics:
        """Return the node's counters."""
        return await lookups.read_statistics(self._channel, self._seconds(timeout_s))

    async def ping(self, *, timeout_s: float | None = None) -> float:
        """Ask for a sign of life; return the seconds that it took."""
        start_s = time.perf_counter()
        await self._channel.request(Operation.PING, b"", self._seconds(timeout_s))
        return time.perf_counter() - start_s

    async def close(self) -> None:
        """Let go of the ledger. Commands still unanswered end unknown. May be called again."""
        self._coalescer.close()
        await self._channel.close()
        await self._coalescer.wait_settled()

    def _seconds(self, timeout_s: float | None) -> float:
        return self._timeout_s if timeout_s is None else check_timeout(timeout_s)

    async def _fetch_decimals(self, currency: str, timeout_s: float | None) -> int:
        """Return the decimals of a currency that was not known: somebody may have registered it meanwhile."""
        if self._refreshing is None:
            # Callers share one request, however many name the currency at a time.
            self._refreshing = asyncio.ensure_future(self.currencies(timeout_s=timeout_s))
            self._refreshing.add_done_callback(self._forget_refresh)
        decimals = (await asyncio.shield(self._refreshing)).get(currency)
        if decimals is None:
            raise InvalidAmountOrName(f"the currency {currency!r} is not registered; register_currency() does that")
        return decimals

    def _forget_refresh(self, task: "asyncio.Task[dict[str, int]]") -> None:
        self._refreshing = None
