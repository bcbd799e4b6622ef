"""From what the SDK hands back to what is answered."""

import time
from functools import lru_cache
from typing import Final

from bezant.net.client.history import AsOf, CurrencySums
from bezant.net.client.results import Account, Event, Result
from bezant.net.gateway.bodies import AccountBody, AccountChanged, AsOfBody, EventBody, SumsBody, Transferred
from bezant.net.gateway.identity import text_of_id
from bezant.protocol.kinds import CommandKind
from bezant.protocol.money import format_amount

_NS_PER_S: Final = 1_000_000_000
_SECONDS_REMEMBERED_MAX: Final = 64
_NO_ID: Final = bytes(16)
_ONE_ACCOUNT: Final = frozenset(
    {CommandKind.OPEN, CommandKind.SET_LIMIT, CommandKind.FREEZE, CommandKind.UNFREEZE, CommandKind.CLOSE}
)


@lru_cache(maxsize=_SECONDS_REMEMBERED_MAX)
def _second_text(seconds: int) -> str:
    # Requests of one moment share it: to take a date apart costs more than all else in an answer.
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


def time_text(timestamp_ns: int) -> str:
    """Nanoseconds since 1970 as RFC 3339, all nine digits."""
    seconds, rest = divmod(timestamp_ns, _NS_PER_S)
    return f"{_second_text(seconds)}.{rest:09d}Z"


def position_text(position: int | None) -> str | None:
    """A position as the opaque string that it is told as: its 64 bits are more than a number of JSON holds."""
    return None if position is None else str(position)


def transferred(result: Result, transaction_id: str, currency: str, *, credit_known: bool) -> Transferred:
    """The answer to a transfer, a hold, a capture or a release that is done."""
    decimals = result.decimals
    return Transferred(
        transaction_id=transaction_id,
        repeated=result.repeated,
        position=position_text(result.position),
        time=time_text(result.timestamp_ns),
        amount=format_amount(result.amount, decimals),
        currency=currency,
        from_balance=format_amount(result.debit_balance, decimals),
        from_held=format_amount(result.debit_held, decimals),
        to_balance=format_amount(result.credit_balance, decimals) if credit_known else None,
        to_held=format_amount(result.credit_held, decimals) if credit_known else None,
    )


def account_changed(result: Result, transaction_id: str) -> AccountChanged:
    """The answer to a command about one account that is done."""
    return AccountChanged(
        transaction_id=transaction_id,
        repeated=result.repeated,
        position=position_text(result.position),
        time=time_text(result.timestamp_ns),
        balance=result.debit_balance_text,
        held=result.debit_held_text,
    )


def as_of_body(as_of: AsOf | None) -> AsOfBody:
    """What an answer is as of."""
    if as_of is None:
        return AsOfBody(None, None)
    return AsOfBody(
        str(as_of.position) if as_of.position else None,
        time_text(as_of.timestamp_ns) if as_of.timestamp_ns else None,
    )


def account_body(account: Account, as_of: AsOf | None = None) -> AccountBody:
    """An account, and what that is as of if it is about the past."""
    return AccountBody(
        name=account.name,
        currency=account.currency,
        balance=account.balance_text,
        held=account.held_text,
        available=account.available_text,
        limit=account.limit_text,
        frozen=account.frozen,
        closed=account.closed,
        event_count=account.event_count,
        opened_position=str(account.opened_position),
        last_position=str(account.last_position),
        as_of=None if as_of is None else as_of_body(as_of),
    )


def event_body(event: Event, debit: str, credit: str, currency: str) -> EventBody:
    """An event, with the names of its accounts ("" for none)."""
    has_credit = event.kind not in _ONE_ACCOUNT and event.credit != _NO_ID
    return EventBody(
        position=str(event.position),
        time=time_text(event.timestamp_ns),
        kind=event.kind.name.lower(),
        result=event.result.name,
        transaction_id=text_of_id(event.id),
        from_account=debit or None,
        to_account=credit or None,
        currency=currency,
        amount=event.amount_text,
        moved=event.effective_amount_text,
        from_balance=event.debit_balance_text,
        from_held=event.debit_held_text,
        to_balance=event.credit_balance_text if has_credit else None,
        to_held=event.credit_held_text if has_credit else None,
        hold_id=None if event.reference == _NO_ID else text_of_id(event.reference),
        code=event.code,
    )


def sums_body(sums: CurrencySums) -> SumsBody:
    """The sums of a currency."""
    decimals = sums.decimals
    return SumsBody(
        currency=sums.currency,
        accounts_opened=sums.accounts_opened,
        accounts_closed=sums.accounts_closed,
        moves=sums.moves,
        moved=format_amount(sums.moved, decimals),
        positive=format_amount(sums.positive, decimals),
        negative=format_amount(sums.negative, decimals),
        held=format_amount(sums.held, decimals),
        in_flight=format_amount(sums.in_flight, decimals),
    )
