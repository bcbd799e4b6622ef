"""A wallet: what can be asked of a ledger. The same over TCP and over an engine in the same process.

Amounts are exact decimals, as strings or `Decimal`, in the currency's decimals. A refusal by the ledger is a `Result`
and so is not knowing; exceptions are for calls that could not be asked, and for reads that got no answer.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from types import TracebackType
from typing import Any, Final, Self
from weakref import WeakSet

import msgspec
import numpy as np

from bezant.net.client import lookups
from bezant.net.client.batches import submit_array
from bezant.net.client.channel import Channel, check_timeout
from bezant.net.client.coalescer import Coalescer
from bezant.net.client.commands import (
    amount_units,
    cached_account_id,
    check_id,
    encode_transfer,
)
from bezant.net.client.history import History
from bezant.net.client.history_over_shards import history_of
from bezant.net.client.metadata import MetadataClient, Subject
from bezant.net.client.prepared import Command, CommandMaker
from bezant.net.client.receipts import Receipts
from bezant.net.client.results import UNKNOWN_ROW, Account, Event, Result, Unlimited, result_of
from bezant.net.client.sharding import ShardedChannel, shard_channels
from bezant.net.client.sharding_readers import readers_of
from bezant.net.client.sharding_subscribing import Place, place_subscription
from bezant.net.client.subscribing import AccountReference, account_ids, check_subscription_name, kind_numbers
from bezant.net.client.subscription import LOST_S_MAX, Subscription
from bezant.net.client.subscription_over_shards import (
    After,
    AnySubscription,
    SubscriptionOverShards,
    after_in,
)
from bezant.net.client.transactions import TransactionClient, TransactionLeg, TransactionResult
from bezant.protocol.errors import InvalidAmountOrName, UsageError
from bezant.protocol.frames import Operation
from bezant.protocol.kinds import CHAIN_COMMANDS_MAX, CommandKind
from bezant.protocol.messages import Subscribe, Welcome
from bezant.protocol.names import IdMaker
from bezant.protocol.records import COMMAND, Records
from bezant.protocol.statistics import Statistics
from bezant.protocol.transactions import TransactionMode

TIMEOUT_S_DEFAULT: Final = 5.0

_NOT_EXECUTED: Final = range(100, 200)
"""Result codes of commands that a node has not executed."""


class Wallet:
    """See the module. Made by `bezant.connect` and `bezant.open`; used from the event loop that made it.

    Every call takes a ``timeout_s``, its deadline in seconds; None is the one that the wallet was opened with. The
    commands (from `open_account` to `close_account`) take an ``id`` of 16 bytes: the same id again gets the first
    outcome and moves nothing twice, so a caller that keeps its ids may repeat a command until it knows the outcome, or
    give it up with `resolve`. Without one a fresh UUIDv7 is used; the `Result` has it. ``user_data`` (up to 16 bytes)
    and ``code`` (32 bits) are the caller's own and come back in the event. Commands raise `UsageError` if they cannot
    be asked.

    Concurrent commands share frames: thousands of awaits at a time are the fast way to use this.
    """

    def __init__(self, channel: Channel, timeout_s: float = TIMEOUT_S_DEFAULT) -> None:
        """Stand over an open channel. `open_over` is the way to make one that knows its currencies."""
        self._channel = channel
        self._timeout_s = check_timeout(timeout_s)
        self._coalescer = Coalescer(channel)
        self._make_id = IdMaker().make
        self._command = CommandMaker(self._make_id)
        self._decimals: dict[str, int] = {}
        self._refreshing: asyncio.Task[dict[str, int]] | None = None
        readers = readers_of(channel)
        self._receipts = Receipts(readers, self._timeout_s)
        self._history = history_of(
            channel, readers, lambda currency: self._decimals_of(currency, None), self._timeout_s
        )
        self._metadata = MetadataClient(readers)
        self._transactions = TransactionClient(channel, self._coalescer, lambda code: self._decimals_of(code, None))
        self._subscriptions: WeakSet[AnySubscription] = WeakSet()

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
        """Open an account; `limit` is how far below zero it may go."""
        return await self._execute(self._command.open_account(name, currency, limit=limit, id=id, code=code), timeout_s)

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
        """Move an amount from the account named `debit` to the one named `credit`."""
        # Not by way of `_execute`: this is the one that is done a hundred thousand times a second.
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

    async def transfer_available(
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
        """Move at most an amount: as much of it as is available. The result's ``amount`` says how much that was."""
        command = self._command.transfer_available(
            debit, credit, amount, currency, id=id, user_data=user_data, code=code
        )
        return await self._execute(command, timeout_s)

    async def hold(
        self,
        debit: str,
        credit: str,
        amount: str | Decimal,
        currency: str,
        *,
        hold_timeout_ms: int = 0,
        id: bytes | None = None,  # noqa: A002
        user_data: bytes = b"",
        code: int = 0,
        timeout_s: float | None = None,
    ) -> Result:
        """Set an amount of the account named `debit` aside for the one named `credit`, to be captured or released.

        The result's ``id`` names the hold. After `hold_timeout_ms` it expires, and what is left of it is free again; 0
        is no end. (`timeout_s` is the deadline of the call, as everywhere.)
        """
        command = self._command.hold(
            debit, credit, amount, currency, hold_timeout_ms=hold_timeout_ms, id=id, user_data=user_data, code=code
        )
        return await self._execute(command, timeout_s)

    async def capture(
        self,
        hold_id: bytes,
        debit: str,
        credit: str,
        currency: str,
        *,
        amount: str | Decimal | None = None,
        keep_open: bool = False,
        id: bytes | None = None,  # noqa: A002
        user_data: bytes = b"",
        code: int = 0,
        timeout_s: float | None = None,
    ) -> Result:
        """Move what is held, or an amount of it, from `debit` to `credit`, the accounts of the hold.

        What is left of the hold is free again; with `keep_open` it stays held, to be captured or released later.
        """
        command = self._command.capture(
            hold_id, debit, credit, currency, amount=amount, keep_open=keep_open, id=id, user_data=user_data, code=code
        )
        return await self._execute(command, timeout_s)

    async def release(
        self,
        hold_id: bytes,
        debit: str,
        currency: str,
        *,
        id: bytes | None = None,  # noqa: A002
        user_data: bytes = b"",
        code: int = 0,
        timeout_s: float | None = None,
    ) -> Result:
        """Let what is left of a hold on the account named `debit` be free again."""
        command = self._command.release(hold_id, debit, currency, id=id, user_data=user_data, code=code)
        return await self._execute(command, timeout_s)

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
        """Set how far below zero an account may go."""
        command = self._command.set_limit(name, currency, limit, id=id, user_data=user_data, code=code)
        return await self._execute(command, timeout_s)

    async def freeze(
        self,
        name: str,
        currency: str,
        *,
        id: bytes | None = None,  # noqa: A002
        user_data: bytes = b"",
        code: int = 0,
        timeout_s: float | None = None,
    ) -> Result:
        """Keep an account out of every transfer, hold and capture. What is held of it can still be released."""
        return await self._execute(
            self._command.freeze(name, currency, id=id, user_data=user_data, code=code), timeout_s
        )

    async def unfreeze(
        self,
        name: str,
        currency: str,
        *,
        id: bytes | None = None,  # noqa: A002
        user_data: bytes = b"",
        code: int = 0,
        timeout_s: float | None = None,
    ) -> Result:
        """Let a frozen account take part again."""
        return await self._execute(
            self._command.unfreeze(name, currency, id=id, user_data=user_data, code=code), timeout_s
        )

    async def close_account(
        self,
        name: str,
        currency: str,
        *,
        id: bytes | None = None,  # noqa: A002
        user_data: bytes = b"",
        code: int = 0,
        timeout_s: float | None = None,
    ) -> Result:
        """Close an account, for ever. It must have no balance and nothing held. (`close` is for the ledger.)"""
        return await self._execute(
            self._command.close_account(name, currency, id=id, user_data=user_data, code=code), timeout_s
        )

    # Several commands, and what became of one.

    @property
    def command(self) -> CommandMaker:
        """Makes commands without sending them, for `linked`."""
        return self._command

    async def linked(self, commands: Sequence[Command], *, timeout_s: float | None = None) -> list[Result]:
        """Execute a chain of up to CHAIN_COMMANDS_MAX commands, made with `command`: all of them are done, or none.

            rent = wallet.command.transfer("wallet:ann", "wallet:bob", "700.00", "EUR")
            fee = wallet.command.transfer("wallet:ann", "bank:fees", "1.50", "EUR")
            results = await wallet.linked([rent, fee])

        There is one `Result` for each. Either all are committed; or one has the code that says why not, and the others
        have CHAIN_MEMBER_REFUSED (all ids are used up) or CHAIN_MEMBER_NOT_EXECUTED (none is); or all have a code that
        concerns the chain. Each command finds what those before it did. After an unknown outcome, link the same
        commands again: nothing is done twice. Raises `UsageError` if it cannot be asked.
        """
        if not 1 <= len(commands) <= CHAIN_COMMANDS_MAX:
            raise UsageError(f"a chain has 1 to {CHAIN_COMMANDS_MAX} commands, not {len(commands)}")
        chain = tuple(commands)
        decimals = [await self._decimals_of(command.currency, timeout_s) for command in chain]
        encoded = [
            command.encode(of_currency, linked=number < len(chain))
            for number, (command, of_currency) in enumerate(zip(chain, decimals, strict=True), start=1)
        ]
        if isinstance(self._channel, ShardedChannel):
            self._channel.check_chains(np.frombuffer(b"".join(encoded), COMMAND))
        rows = await self._coalescer.submit_chain(encoded, self._timeout_s if timeout_s is None else timeout_s)
        return [
            result_of(row, command.id, of_currency)
            for row, command, of_currency in zip(rows, chain, decimals, strict=True)
        ]

    async def transaction(
        self,
        legs: Sequence[TransactionLeg | tuple[str, str, str | Decimal, str]],
        *,
        mode: TransactionMode | str = TransactionMode.TCC,
        await_applied: bool = False,
        id: bytes | None = None,  # noqa: A002
        timeout_s: float | None = None,
    ) -> TransactionResult:
        """Do up to TRANSACTION_LEGS_MAX transfers, between accounts of any shards: all of them are done, or none.

            await wallet.transaction([("shop", "wallet:ann", "9.50", "EUR"), ("shop", "wallet:bob", "4.00", "EUR")])

        What each leg takes must be there without what the others bring. `mode`: "tcc" tries all legs at once and then
        confirms or cancels all; "saga" does one step after the other, deductions first, and takes them back if one is
        refused. (Where there are no shards the legs are a chain, as of `linked`, whatever the mode.) The result comes
        when it is decided, durably; with `await_applied` when every leg is done or taken back. The id and the first
        leg's debit account name the transaction for ever: after an unknown outcome ask again with the same.
        """
        return await self._transactions.ask(
            legs,
            TransactionMode.of(mode),
            check_id(id) if id is not None else self._make_id(),
            await_applied=await_applied,
            timeout_s=self._seconds(timeout_s),
        )

    async def resolve(
        self,
        id: bytes,  # noqa: A002
        debit: str,
        currency: str,
        *,
        timeout_s: float | None = None,
    ) -> Result:
        """Settle what became of the command with this id, whose debit account is `debit`; of a chain, any will do.

        Ids belong to the debit account: asked with another, this says nothing about the command.

        - Committed, or rejected with any other code: that was its outcome, whatever it asked.
        - Rejected with ID_FORBIDDEN: it has not been executed and, from now on, never will be, even if it is still on
          its way.
        - Unknown: no answer came, or the node cannot do it now. Nothing is settled; call again.
        """
        decimals = await self._decimals_of(currency, timeout_s)
        forbid = Command(CommandKind.FORBID, check_id(id), debit, currency).encode(decimals)
        row = await self._coalescer.submit(forbid, self._timeout_s if timeout_s is None else timeout_s)
        # Such a code is that of the asking, not of what was asked about.
        return result_of(UNKNOWN_ROW if row[0] in _NOT_EXECUTED else row, id, decimals)

    async def submit(self, commands: Records, timeout_s: float | None = None) -> Records:
        """Execute an array of COMMAND records, in order, and return a RESULT record for each.

        The array goes as it is, in frames of up to BATCH_COUNT_MAX, and must not change meanwhile; `timeout_s` is the
        deadline of each frame. Raises `OutcomeUnknown` if any outcome is unknown, with those that are known.
        """
        if isinstance(self._channel, ShardedChannel) and commands.dtype == COMMAND:
            self._channel.check_chains(commands)
        return await submit_array(self._channel, commands, self._seconds(timeout_s))

    async def _execute(self, command: Command, timeout_s: float | None) -> Result:
        decimals = await self._decimals_of(command.currency, timeout_s)
        record = command.encode(decimals)
        row = await self._coalescer.submit(record, self._timeout_s if timeout_s is None else timeout_s)
        return result_of(row, command.id, decimals)

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
        """Iterate over all accounts in the order in which they were opened, of each shard after those of another.

        `timeout_s` is for each page of them.
        """
        for channel in shard_channels(self._channel):
            cursor = 0
            while page := await lookups.list_accounts(channel, cursor, self._seconds(timeout_s)):
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
        decimals = await self._decimals_of(currency, timeout_s)
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

    # Metadata: JSON on accounts and events, which can be erased. See `bezant.net.client.metadata.Subject`.

    async def set_metadata(
        self, subject: Subject, content: Mapping[str, Any], *, timeout_s: float | None = None
    ) -> int:
        """Set the metadata of an account, ``(name, currency)``, or of an event, as by its `Result`, to a JSON object.

        It has METADATA_SIZE_MAX bytes at most, and takes the place of what was there. To set the same again changes
        nothing, so this can be repeated when no answer came. Returns its version. Raises `UsageError` for what is no
        such object; `RequestRefused` for an account or event that is not there, or while the group cannot do it.
        """
        return await self._metadata.set(subject, content, self._seconds(timeout_s))

    async def metadata(self, subject: Subject, *, timeout_s: float | None = None) -> dict[str, Any] | None:
        """Return what was set last, from the reader of the node; None if there is none, or none any more."""
        return await self._metadata.get(subject, self._seconds(timeout_s))

    async def erase_metadata(self, subject: Subject, *, timeout_s: float | None = None) -> int:
        """Have it erased on the disk of every node. Returns the version of that; 0 if there was none."""
        return await self._metadata.erase(subject, self._seconds(timeout_s))

    @property
    def history(self) -> History:
        """What was: accounts, statements, transfers, holds and sums as of any time or position."""
        return self._history

    @property
    def receipts(self) -> Receipts:
        """Proofs that a client checks alone: receipts for events, and signed heads of the history."""
        return self._receipts

    def subscribe(
        self,
        *,
        accounts: Iterable[AccountReference] = (),
        currency: str = "",
        kinds: Iterable[CommandKind | str] = (),
        refused: bool = False,
        after: After = None,
        name: str = "",
        lost_s_max: float = LOST_S_MAX,
    ) -> AnySubscription:
        """Be told of committed events, in order, those there are and those to come:

            async for event in wallet.subscribe(accounts=["wallet:ann"], currency="EUR", after=position):
                ...

        An event is told that touches one of the `accounts`, if there are any: names in the `currency` (or in any, if
        that is not given), pairs of name and currency, or ids. `kinds` are such as "transfer"; `refused` has events of
        commands that were refused told as well. It begins behind `after`, a position (0: the beginning), else behind
        what was acknowledged under `name`, else with what is committed from now on; "now" is when the iterating, or
        ``async with``, begins. It finds another reader by itself, for up to `lost_s_max` seconds at a time.

        Over several shards it is a `SubscriptionOverShards`, and goes on behind a token, as its ``position`` is.

        Raises `UsageError` if it cannot be asked; see `Subscription` for the rest.
        """
        references = tuple(accounts)
        check_subscription_name(name)
        if isinstance(after, int) and not -(1 << 63) <= after < 1 << 63:
            raise UsageError(f"a position has 64 bits; {after} has more")
        wanted = Subscribe(currency=currency, kinds=kind_numbers(kinds), refused=refused, name=name)

        def preparing(own: Sequence[AccountReference]) -> Callable[[], Awaitable[Subscribe]]:
            async def prepare() -> Subscribe:
                codes = [currency] if currency else []
                if currency:
                    await self._decimals_of(currency, None)
                elif any(isinstance(reference, str) for reference in own):
                    codes = list(await self.currencies())
                return msgspec.structs.replace(wanted, accounts=account_ids(own, codes))

            return prepare

        places = place_subscription(self._channel, references, preparing)
        if len(places) > 1 and isinstance(after, int) and after:
            raise UsageError(f"this is about {len(places)} shards, and a position is of one: give a token, or 0")
        parts = {place.shard: self._subscribe_at(place, after, check_timeout(lost_s_max)) for place in places}
        subscription: AnySubscription = next(iter(parts.values()))
        if len(parts) > 1:
            subscription = SubscriptionOverShards({shard or 0: part for shard, part in parts.items()})
        self._subscriptions.add(subscription)
        return subscription

    def _subscribe_at(self, place: Place, after: After, lost_s_max: float) -> Subscription:
        shard = self.welcome.shard if place.shard is None else place.shard
        own_after = after_in(after, shard)

        async def prepare() -> Subscribe:
            return msgspec.structs.replace(await place.prepare(), after=own_after)

        return Subscription(
            prepare,
            place.addresses,
            lambda code: self._decimals_of(code, None),
            log_id=place.log_id,
            lost_s_max=lost_s_max,
            credentials=place.credentials,
        )

    async def close(self) -> None:
        """Let go of the ledger. Commands still unanswered end unknown; subscriptions end. May be called again."""
        for subscription in tuple(self._subscriptions):
            await subscription.close()
        await self._history.close()
        self._coalescer.close()
        await self._channel.close()
        await self._coalescer.wait_settled()

    def _seconds(self, timeout_s: float | None) -> float:
        return self._timeout_s if timeout_s is None else check_timeout(timeout_s)

    async def _decimals_of(self, currency: str, timeout_s: float | None) -> int:
        decimals = self._decimals.get(currency)
        return await self._fetch_decimals(currency, timeout_s) if decimals is None else decimals

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
