"""What was: accounts, statements, transfers, holds and sums as of any time or position. Every answer says of which.

Times are integers of nanoseconds since 1970, or `datetime` objects with a time zone.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

import msgspec
import numpy as np

from bezant.net.client.commands import cached_account_id, check_id
from bezant.net.client.results import Account, Event, accounts_of, event_of
from bezant.net.client.sharding_readers import Readers
from bezant.net.client.tracing import EVENTS_MAX, Trace, trace_transactions
from bezant.protocol.errors import RemoteProtocolError, UsageError
from bezant.protocol.frames import HISTORY_ACCOUNTS_MAX, HISTORY_IDS_MAX, HISTORY_LINES_MAX, Operation
from bezant.protocol.history_messages import (
    AccountsAsOf,
    HistoryPage,
    HoldsPage,
    QueryAccounts,
    QueryHolds,
    QueryStatement,
    QueryTotals,
    QueryTransfers,
    TotalsAsOf,
)
from bezant.protocol.kinds import CommandKind
from bezant.protocol.messages import decode_message, encode_message
from bezant.protocol.money import format_amount
from bezant.protocol.names import currency_code
from bezant.protocol.records import ACCOUNT, ACCOUNT_SIZE, EVENT_ANSWER, PUSHED_EVENT, PUSHED_EVENT_SIZE, Records

Time = int | datetime
_Page = TypeVar("_Page", HistoryPage, HoldsPage)
_Line = TypeVar("_Line")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_PAGE_LINES: Final = 1000
"""Lines that are fetched at a time."""


class AsOf(msgspec.Struct, frozen=True):
    """What an answer is as of: behind the event with this position, at this time; both 0 before all events.

    An answer over several shards is as of a time alone, the same in all of them, and has position 0.
    """

    position: int
    timestamp_ns: int


class AccountsThen(msgspec.Struct, frozen=True):
    """Accounts as they were, None where one was not open yet, or never opened; in the order asked."""

    as_of: AsOf
    accounts: list[Account | None]


class OpenHold(msgspec.Struct, frozen=True):
    """A hold that was open: the event that made it, and what remained of it in minor units."""

    event: Event
    remaining: int

    @property
    def remaining_text(self) -> str:
        """What remained, as a decimal string."""
        return format_amount(self.remaining, self.event.decimals)


class CurrencySums(msgspec.Struct, frozen=True):
    """Sums of one currency, in minor units.

    ``in_flight``: what has left accounts of one shard and not come in to those of another yet; 0 in one group. The
    balances below zero, of the outside world, are together -(``positive`` + ``in_flight``). In ``moves`` and ``moved``
    a transfer between shards counts twice: where it leaves, and where it comes in.
    """

    currency: str
    decimals: int
    accounts_opened: int
    accounts_closed: int
    moves: int
    moved: int
    positive: int
    held: int
    in_flight: int = 0

    @property
    def negative(self) -> int:
        """The sum of the balances below zero."""
        return -self.positive - self.in_flight


class SumsThen(msgspec.Struct, frozen=True):
    """The sums of every currency that was in use."""

    as_of: AsOf
    currencies: list[CurrencySums]


class Lines(AsyncIterator[_Line]):
    """Lines as they are iterated over; ``as_of`` is what all of them are as of, known with the first page."""

    def __init__(self, lines: AsyncIterator[tuple[AsOf, _Line | None]]) -> None:
        self._lines = lines
        self.as_of: AsOf | None = None

    def __aiter__(self) -> "Lines[_Line]":
        return self

    async def __anext__(self) -> _Line:
        """The next line."""
        while True:
            self.as_of, line = await anext(self._lines)
            if line is not None:
                return line


Statement = Lines[Event]


class History:
    """See the module. Made by `Wallet.history`.

    Every question takes ``at`` or ``position``: what it is as of; neither is now, as far as the reader of the node has
    come. ``wait_for`` is a position, as a `Result` has it, that the reader must have come to first. Raises
    `RequestRefused` for what is not known (yet), with words that say why; `ConnectionFailed`, `RequestTimedOut`.
    """

    def __init__(
        self,
        readers: Readers,
        decimals_of: Callable[[str], Awaitable[int]],
        timeout_s: float,
    ) -> None:
        self._readers = readers
        self._decimals_of = decimals_of
        self._timeout_s = timeout_s

    async def account(
        self, name: str, currency: str, *, at: Time | None = None, position: int | None = None, wait_for: int = 0
    ) -> tuple[AsOf, Account | None]:
        """An account as it was, held included; None if it was not open yet."""
        then = await self.accounts([cached_account_id(name, currency)], at=at, position=position, wait_for=wait_for)
        return then.as_of, then.accounts[0]

    async def accounts(
        self, ids: Sequence[bytes], *, at: Time | None = None, position: int | None = None, wait_for: int = 0
    ) -> AccountsThen:
        """Up to HISTORY_ACCOUNTS_MAX accounts as they were at one moment, by their ids."""
        if len(ids) > HISTORY_ACCOUNTS_MAX:
            raise UsageError(f"{len(ids)} accounts in one question: it has {HISTORY_ACCOUNTS_MAX} at most")
        body = b"".join(check_id(identifier) for identifier in ids)
        asked = QueryAccounts(body, position, time_ns(at), wait_for)
        answer = decode_message(await self._ask(Operation.QUERY_ACCOUNTS, asked, body), AccountsAsOf)
        if len(answer.accounts) != len(ids) * ACCOUNT_SIZE:
            raise RemoteProtocolError(f"{len(ids)} accounts were asked for, and {len(answer.accounts)} bytes answered")
        records = np.frombuffer(answer.accounts, ACCOUNT)
        return AccountsThen(AsOf(answer.position, answer.timestamp_ns), accounts_of(records))

    def statement(
        self,
        name: str,
        currency: str,
        *,
        at: Time | None = None,
        position: int | None = None,
        start: Time | None = None,
        end: Time | None = None,
        reverse: bool = False,
        limit: int | None = None,
        wait_for: int = 0,
    ) -> Statement:
        """The events that touched an account, from `start` on up to before `end`, `limit` of them at most."""
        account = cached_account_id(name, currency)
        asked = QueryStatement(
            account,
            position,
            time_ns(at),
            time_ns(start) or 0,
            time_ns(end) or 0,
            reverse=reverse,
            wait_for=wait_for,
        )
        return Statement(self._lines(Operation.STATEMENT, asked, limit, account))

    def transfers(
        self,
        *,
        account: tuple[str, str] | None = None,
        currency: str = "",
        code: int | None = None,
        kinds: Sequence[CommandKind] = (),
        refused: bool = False,
        at: Time | None = None,
        position: int | None = None,
        start: Time | None = None,
        end: Time | None = None,
        reverse: bool = False,
        limit: int | None = None,
        wait_for: int = 0,
    ) -> Statement:
        """The events that match all of what is given; an account by its name and currency."""
        about = cached_account_id(*account) if account is not None else b""
        asked = QueryTransfers(
            b"",
            about,
            currency,
            code,
            [int(kind) for kind in kinds],
            refused,
            position,
            time_ns(at),
            time_ns(start) or 0,
            time_ns(end) or 0,
            reverse=reverse,
            wait_for=wait_for,
        )
        return Statement(self._lines(Operation.FIND_TRANSFERS, asked, limit, about))

    async def transfer(
        self,
        id: bytes,  # noqa: A002 - the word that everybody looks for
        *,
        at: Time | None = None,
        position: int | None = None,
        wait_for: int = 0,
    ) -> list[Event]:
        """The events with an id, whoever paid; and those that captured, released or expired the hold of that name."""
        return [event async for event in self.by_id(id, at=at, position=position, wait_for=wait_for)]

    def by_id(
        self,
        *ids: bytes,
        at: Time | None = None,
        position: int | None = None,
        start: Time | None = None,
        limit: int | None = None,
        wait_for: int = 0,
        own: tuple[str, str] = ("", ""),
    ) -> Statement:
        """The same of up to HISTORY_IDS_MAX ids, as they are iterated over: from `start` on, `limit` at most.

        `own`: name and currency of an account that a limited token is for; by them shards where it is not open tell
        what is about it.
        """
        if not 1 <= len(ids) <= HISTORY_IDS_MAX:
            raise UsageError(f"{len(ids)} ids in one question: it has 1 to {HISTORY_IDS_MAX}")
        asked = QueryTransfers(
            b"".join(check_id(one) for one in ids),
            as_of_position=position,
            as_of_time_ns=time_ns(at),
            from_ns=time_ns(start) or 0,
            wait_for=wait_for,
            own_name=own[0],
            own_currency=own[1],
        )
        return Statement(self._lines(Operation.FIND_TRANSFERS, asked, limit, b""))

    async def trace(
        self,
        id: bytes,  # noqa: A002
        *,
        payer: bytes | None = None,
        own: tuple[str, str] = ("", ""),
        at: Time | None = None,
        position: int | None = None,
        wait_for: int = 0,
    ) -> tuple[AsOf | None, list[Trace]]:
        """What became of the transaction or transfer with an id, leg by leg: one of each account that began one, or of
        the account with the id `payer` alone; `own` as in `by_id`. Raises `UsageError` for an id that too many have
        used."""
        as_of: AsOf | None = None
        count = 0

        async def find(ids: Sequence[bytes]) -> list[Event]:
            nonlocal as_of, count
            events: list[Event] = []
            for start in range(0, len(ids), HISTORY_IDS_MAX):
                part = ids[start : start + HISTORY_IDS_MAX]
                if as_of is None:
                    found = self.by_id(*part, at=at, position=position, wait_for=wait_for, own=own)
                elif as_of.position:
                    found = self.by_id(*part, position=as_of.position, own=own)
                else:
                    found = self.by_id(*part, at=as_of.timestamp_ns, own=own)
                async for event in found:
                    events.append(event)
                    count += 1
                    if count > EVENTS_MAX:
                        raise UsageError(f"more than {EVENTS_MAX} events have to do with this id, or with who used it")
                as_of = found.as_of
            return events

        traces = await trace_transactions(find, check_id(id), payer)
        return as_of, traces

    def holds(
        self,
        *,
        account: tuple[str, str] | None = None,
        at: Time | None = None,
        position: int | None = None,
        after: int = 0,
        limit: int | None = None,
        wait_for: int = 0,
    ) -> Lines[OpenHold]:
        """The holds that were open, of one account that pays or of all, in the order in which they were made; those
        `after` the position of one, `limit` of them at most."""
        about = cached_account_id(*account) if account is not None else b""
        asked = QueryHolds(about, position, time_ns(at), after, wait_for=wait_for)
        return Lines(self._holds(asked, limit, about))

    async def _holds(
        self, asked: QueryHolds, limit: int | None, about: bytes
    ) -> AsyncIterator[tuple[AsOf, OpenHold | None]]:
        """Holds; of a page without any, what it is as of."""
        async for page, left in self._pages(Operation.OPEN_HOLDS, asked, HoldsPage, limit, about):
            as_of = AsOf(page.position, page.timestamp_ns)
            yield as_of, None
            events = await self._events(page.events)
            remaining = np.frombuffer(page.remaining, np.int64).tolist()
            for event, rest in list(zip(events, remaining, strict=True))[:left]:
                yield as_of, OpenHold(event, rest)

    async def totals(self, *, at: Time | None = None, position: int | None = None, wait_for: int = 0) -> SumsThen:
        """The sums of every currency in use."""
        asked = QueryTotals(position, time_ns(at), wait_for)
        answer = decode_message(await self._ask(Operation.TOTALS, asked, b""), TotalsAsOf)
        try:
            sums = [
                CurrencySums(
                    total.currency,
                    total.decimals,
                    total.accounts_opened,
                    total.accounts_closed,
                    total.moves,
                    int(total.moved),
                    int(total.positive),
                    int(total.held),
                )
                for total in answer.totals
            ]
        except ValueError as error:
            raise RemoteProtocolError(f"a sum is not a number: {error}") from error
        return SumsThen(AsOf(answer.position, answer.timestamp_ns), sums)

    async def close(self) -> None:
        """Let go of the reader. May be called again."""
        await self._readers.close()

    # ---- what they share ----

    async def _ask(self, operation: Operation, asked: msgspec.Struct, about: bytes) -> bytes:
        """Ask the reader that has the accounts which a question is about, by their ids; none: the whole ledger."""
        reader, log_id = await self._readers.reader_of(about)
        try:
            body = encode_message(msgspec.structs.replace(asked, log_id=log_id))
        except OverflowError as error:
            raise UsageError("a time or a position of more than 64 bits was asked for") from error
        return await reader.request(operation, body, self._timeout_s)

    async def _pages(
        self, operation: Operation, asked: Any, kind: type[_Page], limit: int | None, about: bytes
    ) -> AsyncIterator[tuple[_Page, int | None]]:
        """Pages, all as of what the first one is of; and how many lines are left to be taken (None: all)."""
        left = limit
        while left is None or left > 0:
            lines = min(_PAGE_LINES if left is None else left, HISTORY_LINES_MAX)
            page = decode_message(await self._ask(operation, msgspec.structs.replace(asked, limit=lines), about), kind)
            yield page, left
            if not page.next_after:
                return
            if left is not None:
                left -= len(page.events) // PUSHED_EVENT_SIZE
            asked = msgspec.structs.replace(
                asked, as_of_position=page.position, as_of_time_ns=None, after=page.next_after
            )

    async def _lines(
        self, operation: Operation, asked: Any, limit: int | None, about: bytes
    ) -> AsyncIterator[tuple[AsOf, Event | None]]:
        """Lines; of a page without any, what it is as of."""
        async for page, left in self._pages(operation, asked, HistoryPage, limit, about):
            as_of = AsOf(page.position, page.timestamp_ns)
            yield as_of, None
            for event in (await self._events(page.events))[:left]:
                yield as_of, event

    async def _events(self, encoded: bytes) -> list[Event]:
        if len(encoded) % PUSHED_EVENT_SIZE:
            raise RemoteProtocolError(f"{len(encoded)} bytes are no whole number of events")
        pushed: Records = np.frombuffer(encoded, PUSHED_EVENT)
        answers = np.zeros(len(pushed), EVENT_ANSWER)
        answers["position"], answers["event"], answers["found"] = pushed["position"], pushed["event"], 1
        events = []
        for number, word in enumerate(pushed["currency"].tolist()):
            decimals = await self._decimals_of(currency_code(word)) if word else 0
            event = event_of(answers[number : number + 1], decimals)
            if event is not None:
                events.append(event)
        return events


def time_ns(time: Time | None) -> int | None:
    """A time in nanoseconds. Raises `UsageError` for a `datetime` that does not say where on earth it is meant."""
    if time is None or isinstance(time, int):
        return time
    if time.tzinfo is None:
        raise UsageError(f"{time} names no time zone: give one, such as datetime.UTC")
    since = time - _EPOCH
    return (since.days * 86_400 + since.seconds) * 10**9 + since.microseconds * 1000
