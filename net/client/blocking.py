"""The wallet without await: the same methods, run on an event loop in a thread of its own.

Any number of threads may share one; their concurrent commands share frames as concurrent awaits do.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Awaitable, Coroutine, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from decimal import Decimal
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import uvloop

from bezant.net.client import lookups
from bezant.net.client.blocking_history import BlockingHistory
from bezant.net.client.metadata import Subject
from bezant.net.client.prepared import Command, CommandMaker
from bezant.net.client.results import Account, Event, Result, Unlimited
from bezant.net.client.subscribing import AccountReference
from bezant.net.client.subscription import LOST_S_MAX, Subscription
from bezant.net.client.subscription_over_shards import After, AnySubscription, advanced
from bezant.net.client.transactions import TransactionLeg, TransactionResult
from bezant.net.client.wallet import Wallet
from bezant.protocol.errors import UsageError
from bezant.protocol.kinds import CommandKind
from bezant.protocol.messages import Welcome
from bezant.protocol.names import IdMaker
from bezant.protocol.records import Records
from bezant.protocol.statistics import Statistics
from bezant.protocol.transactions import TransactionMode

_Value = TypeVar("_Value")

_THREAD_NAME: Final = "bezant-wallet"
_CLOSED: Final = "the wallet has been closed"


class _LoopThread:
    """An event loop that runs in a thread until it is stopped."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stopped = False
        self._loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._run, name=_THREAD_NAME, daemon=True)
        self._thread.start()

    def call(self, work: Coroutine[Any, Any, _Value]) -> _Value:
        """Run a coroutine there and return what it returns. Raises `UsageError` when stopped, before or meanwhile."""
        with self._lock:
            if self._stopped:
                work.close()
                raise UsageError(_CLOSED)
            future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except CancelledError as error:
            raise UsageError(_CLOSED) from error
        except BaseException:
            # An interrupt came while waiting: let go there too. If the work itself raised, it is over already.
            future.cancel()
            raise

    def stop(self) -> None:
        """Stop the loop, with whatever still runs on it, and wait for its thread."""
        with self._lock:
            self._stopped = True
            self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            self._loop.run_until_complete(self._end_tasks())
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()

    @staticmethod
    async def _end_tasks() -> None:
        """End calls that came in while the wallet was closing, so that no thread waits for them for ever."""
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class BlockingWallet:
    """A `Wallet` without await. Made by `bezant.connect_blocking`; see `Wallet` for what the methods do and raise."""

    def __init__(self, opening: Awaitable[Wallet]) -> None:
        async def open_wallet() -> Wallet:
            return await opening

        self._lock = threading.Lock()
        self._closed = False
        self._ids = IdMaker()
        self._ids_lock = threading.Lock()
        self._command = CommandMaker(self._make_id)
        self._thread = _LoopThread()
        try:
            self._wallet = self._thread.call(open_wallet())
        except BaseException:
            self._thread.stop()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def welcome(self) -> Welcome:
        """Who answers: versions, the log's id, what it takes."""
        return self._wallet.welcome

    @property
    def timeout_s(self) -> float:
        """The deadline of calls that name none, in seconds."""
        return self._wallet.timeout_s

    def open_account(
        self,
        name: str,
        currency: str,
        *,
        limit: str | Decimal | Unlimited = "0",
        id: bytes | None = None,  # noqa: A002 - as in Wallet
        code: int = 0,
        timeout_s: float | None = None,
    ) -> Result:
        """Open an account; see `Wallet.open_account`."""
        return self._call(self._wallet.open_account(name, currency, limit=limit, id=id, code=code, timeout_s=timeout_s))

    def transfer(
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
        """Move an amount between two accounts; see `Wallet.transfer`."""
        return self._call(
            self._wallet.transfer(
                debit, credit, amount, currency, id=id, user_data=user_data, code=code, timeout_s=timeout_s
            )
        )

    def transfer_available(
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
        """Move at most an amount between two accounts; see `Wallet.transfer_available`."""
        return self._call(
            self._wallet.transfer_available(
                debit, credit, amount, currency, id=id, user_data=user_data, code=code, timeout_s=timeout_s
            )
        )

    def hold(
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
        """Set an amount of an account aside for another; see `Wallet.hold`."""
        return self._call(
            self._wallet.hold(
                debit,
                credit,
                amount,
                currency,
                hold_timeout_ms=hold_timeout_ms,
                id=id,
                user_data=user_data,
                code=code,
                timeout_s=timeout_s,
            )
        )

    def capture(
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
        """Move what is held, or an amount of it; see `Wallet.capture`."""
        return self._call(
            self._wallet.capture(
                hold_id,
                debit,
                credit,
                currency,
                amount=amount,
                keep_open=keep_open,
                id=id,
                user_data=user_data,
                code=code,
                timeout_s=timeout_s,
            )
        )

    def release(
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
        """Let what is left of a hold be free again; see `Wallet.release`."""
        return self._call(
            self._wallet.release(hold_id, debit, currency, id=id, user_data=user_data, code=code, timeout_s=timeout_s)
        )

    def set_limit(
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
        """Set how far below zero an account may go; see `Wallet.set_limit`."""
        return self._call(
            self._wallet.set_limit(name, currency, limit, id=id, user_data=user_data, code=code, timeout_s=timeout_s)
        )

    def freeze(
        self,
        name: str,
        currency: str,
        *,
        id: bytes | None = None,  # noqa: A002
        user_data: bytes = b"",
        code: int = 0,
        timeout_s: float | None = None,
    ) -> Result:
        """Keep an account out of every transfer, hold and capture; see `Wallet.freeze`."""
        return self._call(
            self._wallet.freeze(name, currency, id=id, user_data=user_data, code=code, timeout_s=timeout_s)
        )

    def unfreeze(
        self,
        name: str,
        currency: str,
        *,
        id: bytes | None = None,  # noqa: A002
        user_data: bytes = b"",
        code: int = 0,
        timeout_s: float | None = None,
    ) -> Result:
        """Let a frozen account take part again; see `Wallet.unfreeze`."""
        return self._call(
            self._wallet.unfreeze(name, currency, id=id, user_data=user_data, code=code, timeout_s=timeout_s)
        )

    def close_account(
        self,
        name: str,
        currency: str,
        *,
        id: bytes | None = None,  # noqa: A002
        user_data: bytes = b"",
        code: int = 0,
        timeout_s: float | None = None,
    ) -> Result:
        """Close an account, for ever; see `Wallet.close_account`."""
        return self._call(
            self._wallet.close_account(name, currency, id=id, user_data=user_data, code=code, timeout_s=timeout_s)
        )

    @property
    def command(self) -> CommandMaker:
        """Makes commands without sending them, for `linked`; any thread may use it."""
        return self._command

    def linked(self, commands: Sequence[Command], *, timeout_s: float | None = None) -> list[Result]:
        """Execute a chain of commands, all or none; see `Wallet.linked`."""
        return self._call(self._wallet.linked(commands, timeout_s=timeout_s))

    def transaction(
        self,
        legs: Sequence[TransactionLeg | tuple[str, str, str | Decimal, str]],
        *,
        mode: TransactionMode | str = TransactionMode.TCC,
        await_applied: bool = False,
        id: bytes | None = None,  # noqa: A002
        timeout_s: float | None = None,
    ) -> TransactionResult:
        """Do several transfers between accounts of any shards, all or none; see `Wallet.transaction`."""
        return self._call(
            self._wallet.transaction(legs, mode=mode, await_applied=await_applied, id=id, timeout_s=timeout_s)
        )

    def resolve(
        self,
        id: bytes,  # noqa: A002
        debit: str,
        currency: str,
        *,
        timeout_s: float | None = None,
    ) -> Result:
        """Settle what became of a command; see `Wallet.resolve`."""
        return self._call(self._wallet.resolve(id, debit, currency, timeout_s=timeout_s))

    def submit(self, commands: Records, timeout_s: float | None = None) -> Records:
        """Execute an array of COMMAND records; see `Wallet.submit`."""
        return self._call(self._wallet.submit(commands, timeout_s))

    def account(self, name: str, currency: str, *, timeout_s: float | None = None) -> Account | None:
        """Return the account with this name and currency, or None."""
        return self._call(self._wallet.account(name, currency, timeout_s=timeout_s))

    def accounts_by_id(self, ids: Sequence[bytes], *, timeout_s: float | None = None) -> list[Account | None]:
        """Return the accounts with these ids, None where there is none, in the order asked."""
        return self._call(self._wallet.accounts_by_id(ids, timeout_s=timeout_s))

    def accounts(self, *, timeout_s: float | None = None) -> Iterator[Account]:
        """Iterate over all accounts in the order in which they were opened; `timeout_s` is for each page of them."""
        # Page by page, because a change of threads for every account would cost more than the account.
        seconds = self.timeout_s if timeout_s is None else timeout_s
        cursor = 0
        while True:
            page = self._call(lookups.list_accounts(self._wallet.channel, cursor, seconds))
            if not page:
                return
            yield from page
            cursor += len(page)

    def event(
        self,
        id: bytes,  # noqa: A002
        debit: str,
        currency: str,
        *,
        timeout_s: float | None = None,
    ) -> Event | None:
        """Return the event that a command left, or None; see `Wallet.event`."""
        return self._call(self._wallet.event(id, debit, currency, timeout_s=timeout_s))

    def currencies(self, *, timeout_s: float | None = None) -> dict[str, int]:
        """Return the decimals of every registered currency, by its code."""
        return self._call(self._wallet.currencies(timeout_s=timeout_s))

    def register_currency(self, code: str, decimals: int, *, timeout_s: float | None = None) -> None:
        """Register a currency with 0 to 18 decimals, for ever."""
        self._call(self._wallet.register_currency(code, decimals, timeout_s=timeout_s))

    def statistics(self, *, timeout_s: float | None = None) -> Statistics:
        """Return the node's counters."""
        return self._call(self._wallet.statistics(timeout_s=timeout_s))

    def ping(self, *, timeout_s: float | None = None) -> float:
        """Ask for a sign of life; return the seconds that it took."""
        return self._call(self._wallet.ping(timeout_s=timeout_s))

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
    ) -> "BlockingSubscription":
        """Be told of committed events; see `Wallet.subscribe`. It begins before this returns."""

        async def begin() -> AnySubscription:
            subscription = self._wallet.subscribe(
                accounts=accounts,
                currency=currency,
                kinds=kinds,
                refused=refused,
                after=after,
                name=name,
                lost_s_max=lost_s_max,
            )
            await subscription.begin()
            return subscription

        return BlockingSubscription(self._call(begin()), self._thread)

    def set_metadata(self, subject: Subject, content: Mapping[str, Any], *, timeout_s: float | None = None) -> int:
        """Set the metadata of an account or an event to a JSON object; returns its version."""
        return self._call(self._wallet.set_metadata(subject, content, timeout_s=timeout_s))

    def metadata(self, subject: Subject, *, timeout_s: float | None = None) -> dict[str, Any] | None:
        """Return what was set last; None if there is none."""
        return self._call(self._wallet.metadata(subject, timeout_s=timeout_s))

    def erase_metadata(self, subject: Subject, *, timeout_s: float | None = None) -> int:
        """Have it erased on the disk of every node."""
        return self._call(self._wallet.erase_metadata(subject, timeout_s=timeout_s))

    @property
    def history(self) -> BlockingHistory:
        """What was: accounts, statements, transfers, holds and sums as of any time or position."""
        return BlockingHistory(self._wallet.history, self._call)

    def close(self) -> None:
        """Let go of the ledger and of the thread. Commands still unanswered end unknown. May be called again."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        try:
            self._thread.call(self._wallet.close())
        finally:
            self._thread.stop()

    def _make_id(self) -> bytes:
        with self._ids_lock:
            return self._ids.make()

    def _call(self, work: Coroutine[Any, Any, _Value]) -> _Value:
        return self._thread.call(work)


class BlockingSubscription:
    """A `Subscription` without await: an iterator that waits for the next event. Made by `BlockingWallet.subscribe`.

    One thread iterates; any other may `close` it, which ends the iterating.
    """

    def __init__(self, subscription: AnySubscription, thread: _LoopThread) -> None:
        self._subscription = subscription
        self._thread = thread
        self._events: deque[Event] = deque()
        self.position: After = subscription.position
        """Behind which event the iterating stands; see `Subscription`."""

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Event:
        """The next event."""
        if not self._events:
            # All that there are at a time, because a change of threads for every event would cost more than the event.
            self._events.extend(self._thread.call(self._subscription.next_events()))
        if not self._events:
            raise StopIteration
        event = self._events.popleft()
        is_token = isinstance(self.position, str)
        self.position = advanced(str(self.position), event.position) if is_token else event.position
        return event

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def acknowledge(self, position: After = None) -> None:
        """Have the reader remember a position, or that of the event iterated over last; see `Subscription`."""
        position = self.position if position is None else position
        if isinstance(self._subscription, Subscription):
            if isinstance(position, str):
                raise UsageError("this subscription is of one shard: it remembers a position, and no token")
            self._thread.call(self._subscription.acknowledge(position))
        else:
            self._thread.call(self._subscription.acknowledge(position))

    def close(self) -> None:
        """End it. May be called again."""
        self._thread.call(self._subscription.close())
