"""What the routes share: the ledger behind the gateway, and what every request says about itself."""

import asyncio
from bisect import bisect_right
from collections.abc import Sequence
from typing import Annotated, Final

import msgspec
from litestar.di import NamedDependency
from litestar.params import HeaderParameter, SkipValidation

from bezant.net.client.commands import cached_account_id
from bezant.net.client.connection import State, TcpChannel
from bezant.net.client.results import Account, Event, Result
from bezant.net.client.sharding import ShardedChannel
from bezant.net.client.transactions import TransactionResult
from bezant.net.client.wallet import Wallet
from bezant.net.gateway.bodies import EventBody
from bezant.net.gateway.conversions import event_body
from bezant.net.gateway.identity import TEXT_SIZE_MAX, id_of_text, text_of_request
from bezant.net.gateway.problems import GatewayProblem, ProblemRaised, problem_of_result, refusal
from bezant.net.gateway.settings import DEADLINES_S
from bezant.protocol.access import NoteAct, check_note
from bezant.protocol.errors import AccessDenied, RequestRefused
from bezant.protocol.frames import FrameError, Operation
from bezant.protocol.messages import encode_message

NAMES_REMEMBERED_MAX: Final = 4096
"""Accounts whose names are not asked for again, of each token: some 600 kB."""
SHOWN_AT_ONCE: Final = 64
"""Accounts that are asked for one by one, at a time."""
HIDDEN: Final = ("", "")
"""Name and currency of an account that whoever asks is not told of."""
SLASH_IN_NAME: Final = "\ue000"
"""Stands in paths for an escaped slash in the name of an account; names are ASCII, so no other does."""

_NO_ID: Final = bytes(16)


class Ledger:
    """The wallet that a gateway stands over, what is remembered of it, and the deadline of requests that name none."""

    def __init__(self, wallet: Wallet, timeout_s: float) -> None:
        self.wallet = wallet
        self.timeout_s = timeout_s
        self._decimals: dict[str, int] = {}
        self._fetching: asyncio.Task[None] | None = None
        self._named: dict[bytes, tuple[str, str]] = {}
        self._may_watch = self._may_administer = False

    async def decimals_of(self, currency: str) -> int:
        """The decimals of a currency.

        Raises `ProblemRaised` if it is not registered, which a list says that was asked for after the request came: a
        request that was sent before may have moved money in it. Raises `BezantError` if there is no list to be had.
        """
        if currency not in self._decimals and self._fetching is not None:
            await asyncio.shield(self._fetching)
        if currency not in self._decimals:
            await self.fetch_currencies()
        decimals = self._decimals.get(currency)
        if decimals is None:
            raise refusal(GatewayProblem.CURRENCY_NOT_REGISTERED, f"{currency} is not registered")
        return decimals

    async def fetch_currencies(self) -> None:
        """Ask for the currencies, once for all who want to know at a time.

        Raises `BezantError`, and `ProblemRaised` if the node declines: that says nothing of what was asked for.
        """
        if self._fetching is None:
            self._fetching = asyncio.create_task(self._fetch())
            # All who wait may have gone before it fails.
            self._fetching.add_done_callback(lambda task: task.cancelled() or task.exception())
        await asyncio.shield(self._fetching)

    async def _fetch(self) -> None:
        try:
            self._decimals = await self.wallet.currencies(timeout_s=self.timeout_s)
        except AccessDenied:
            raise
        except RequestRefused as error:
            raise refusal(GatewayProblem.NODE_REFUSED, f"it does not tell its currencies: {error}") from error
        finally:
            self._fetching = None

    @property
    def is_over(self) -> bool:
        """Whether nodes serve it no more, for the token that it was opened with does not count any more."""
        channel = self.wallet.channel
        if isinstance(channel, TcpChannel):
            return channel.was_put_out or channel.state is State.FAILED
        return isinstance(channel, ShardedChannel) and channel.was_put_out

    async def check_may_watch(self) -> None:
        """Raise `BezantError` unless nodes tell whoever it is opened for how they are: scopes never change."""
        if not self._may_watch:
            await self.wallet.channel.request(Operation.STATISTICS, b"", self.timeout_s)
            self._may_watch = True

    async def check_may_administer(self) -> None:
        """Raise `BezantError` unless whoever it is opened for may see, and so make, tokens."""
        if not self._may_administer:
            await self.wallet.channel.request(Operation.TOKENS, b"", self.timeout_s)
            self._may_administer = True

    async def note(self, operation: str, what: str) -> None:
        """Have the log say what whoever it is opened for is about to administer at the gateway.

        Nothing of it is to be done if this raises `BezantError`, or is cancelled.
        """
        note = NoteAct(operation, what)
        check_note(note)
        await self.wallet.channel.request(Operation.NOTE_ACT, encode_message(note), self.timeout_s)

    def learn(self, currencies: dict[str, int]) -> None:
        """Note the decimals of all currencies."""
        self._decimals = currencies

    def same_shard(self, debit: str, credit: str, currency: str) -> bool:
        """Whether an answer knows the balance of the account that is credited, too."""
        channel = self.wallet.channel
        if not isinstance(channel, ShardedChannel):
            return True
        first, second = channel.shards_of(cached_account_id(debit, currency) + cached_account_id(credit, currency))
        return first == second

    async def event_bodies(self, events: Sequence[Event]) -> list[EventBody]:
        """Events with the names of their accounts; nothing of those that whoever asks is not told of."""
        named = await self.names_of({one for event in events for one in (event.debit, event.credit)} - {_NO_ID})
        bodies = []
        for event in events:
            debit, debit_currency = named.get(event.debit, ("", ""))
            credit, credit_currency = named.get(event.credit, ("", ""))
            currency = event.currency or debit_currency or credit_currency
            body = event_body(event, event.name or debit, credit, currency)
            if named.get(event.debit) == HIDDEN:
                body = msgspec.structs.replace(body, from_balance=None, from_held=None)
            if named.get(event.credit) == HIDDEN:
                body = msgspec.structs.replace(body, to_balance=None, to_held=None)
            bodies.append(body)
        return bodies

    async def names_of(self, ids: set[bytes]) -> dict[bytes, tuple[str, str]]:
        """Names and currencies of accounts; the id in hexadecimal for one that does not exist, or HIDDEN."""
        named = {one: self._named[one] for one in ids if one in self._named}
        missing = [one for one in ids if one not in named]
        if missing:
            try:
                found = await self.wallet.accounts_by_id(missing, timeout_s=self.timeout_s)
            except AccessDenied as error:
                if error.code != FrameError.FORBIDDEN:
                    raise
                # A token that is limited to accounts: one that is not its own has everything refused.
                shown = await self._shown(missing)
                named |= {one: HIDDEN for one in missing if shown[one] is None}
                missing = [one for one in missing if shown[one] is not None]
                found = [shown[one] for one in missing]
            if len(self._named) + len(missing) > NAMES_REMEMBERED_MAX:
                self._named.clear()
            for one, account in zip(missing, found, strict=True):
                if account is None:
                    named[one] = (one.hex(), "")  # it may be opened later
                else:
                    named[one] = self._named[one] = (account.name, account.currency)
        return named

    async def _shown(self, ids: Sequence[bytes]) -> dict[bytes, Account | None]:
        """Accounts, each asked for by itself; None for one that is not told of."""

        async def ask(one: bytes) -> Account | None:
            try:
                return (await self.wallet.accounts_by_id([one], timeout_s=self.timeout_s))[0]
            except AccessDenied as error:
                if error.code != FrameError.FORBIDDEN:
                    raise
                return None

        found: list[Account | None] = []
        for start in range(0, len(ids), SHOWN_AT_ONCE):
            found += await asyncio.gather(*(ask(one) for one in ids[start : start + SHOWN_AT_ONCE]))
        return dict(zip(ids, found, strict=True))


class Question(msgspec.Struct, frozen=True):
    """A request that changes nothing: whom to ask, and its deadline in seconds."""

    ledger: Ledger
    timeout_s: float

    @property
    def wallet(self) -> Wallet:
        """Whom to ask."""
        return self.ledger.wallet


class Call(msgspec.Struct, frozen=True):
    """A request that may change something: the same, and its Idempotency-Key."""

    ledger: Ledger
    timeout_s: float
    key: str | None

    @property
    def wallet(self) -> Wallet:
        """Whom to ask."""
        return self.ledger.wallet

    def name(self, transaction_id: str | None) -> tuple[str, bytes]:
        """The text and the id that name the command. Raises `ProblemRaised` if it has none."""
        return name_of_command(transaction_id, self.key)


def name_of_command(transaction_id: str | None, key: str | None) -> tuple[str, bytes]:
    """The text and the id that name a command. Raises `ProblemRaised` if it has none."""
    text = text_of_request(transaction_id, key)
    if text is None:
        raise refusal(GatewayProblem.REQUEST_INVALID, "a command has a transaction_id, or an Idempotency-Key")
    return text, id_of_text(text)


def deadline_s(asked: str | None, default_s: float) -> float:
    """The deadline that the header Request-Timeout asks for: the greatest of DEADLINES_S that is not above it.

    Raises `ProblemRaised` for what is no number of seconds, or less than the shortest.
    """
    if asked is None:
        return default_s
    try:
        seconds = float(asked)
    except ValueError:
        seconds = 0.0
    if not seconds >= DEADLINES_S[0]:
        raise refusal(
            GatewayProblem.REQUEST_INVALID, f"Request-Timeout is a number of seconds, {DEADLINES_S[0]:g} or more"
        )
    return DEADLINES_S[bisect_right(DEADLINES_S, seconds) - 1]


def account_of_path(name: str) -> str:
    """The name of an account as it stands in a path."""
    return name.replace(SLASH_IN_NAME, "/")


def check_done(result: Result | TransactionResult, transaction_id: str) -> None:
    """Raise `ProblemRaised` unless a command, or a transaction, was done."""
    if not result.committed:
        raise ProblemRaised(problem_of_result(result, transaction_id))


TimeoutHeader = Annotated[
    str | None,
    HeaderParameter(
        name="Request-Timeout",
        description="Seconds to wait for an answer, rounded down to one of "
        + ", ".join(f"{seconds:g}" for seconds in DEADLINES_S)
        + ". After that the answer is 504.",
        required=False,
    ),
]
KeyHeader = Annotated[
    str | None,
    HeaderParameter(
        name="Idempotency-Key",
        description="Names the command, as `transaction_id` does; given both, they must be the same.",
        max_length=TEXT_SIZE_MAX + 2,
        required=False,
    ),
]
AnyLedger = NamedDependency[SkipValidation[Ledger]]
AnyQuestion = NamedDependency[SkipValidation[Question]]
AnyCall = NamedDependency[SkipValidation[Call]]


def make_question(ledger: AnyLedger, request_timeout: TimeoutHeader = None) -> Question:
    """What routes get as ``question``."""
    return Question(ledger, deadline_s(request_timeout, ledger.timeout_s))


def make_call(ledger: AnyLedger, request_timeout: TimeoutHeader = None, idempotency_key: KeyHeader = None) -> Call:
    """What routes get as ``call``."""
    return Call(ledger, deadline_s(request_timeout, ledger.timeout_s), idempotency_key)
