"""Reads: accounts, events, currencies, counters. Each is one request; long lists come in pages."""

from collections.abc import Sequence
from typing import Final

import numpy as np

from bezant.net.client.channel import Answerer, Channel
from bezant.net.client.results import Account, Event, accounts_of, event_of
from bezant.protocol.errors import RemoteProtocolError
from bezant.protocol.frames import EVENT_COUNT_MAX, FRAME_HEADER_SIZE, FRAME_SIZE_MAX, Operation
from bezant.protocol.messages import Currencies, Currency, ListAccounts, decode_message, encode_message
from bezant.protocol.names import currency_word
from bezant.protocol.records import ACCOUNT, ACCOUNT_SIZE, EVENT_ANSWER, EVENT_ANSWER_SIZE, Records
from bezant.protocol.statistics import Statistics

ACCOUNTS_PER_PAGE: Final = 4096

if ACCOUNTS_PER_PAGE * ACCOUNT_SIZE + FRAME_HEADER_SIZE > FRAME_SIZE_MAX:
    raise AssertionError("a page of accounts must fit in a frame")


async def look_up_accounts(channel: Channel, ids: Sequence[bytes], timeout_s: float) -> list[Account | None]:
    """Return the accounts with these 16-byte ids, None where there is none, in the order asked."""
    accounts: list[Account | None] = []
    for start in range(0, len(ids), ACCOUNTS_PER_PAGE):
        page = ids[start : start + ACCOUNTS_PER_PAGE]
        records = _account_records(await channel.request(Operation.LOOKUP_ACCOUNTS, b"".join(page), timeout_s))
        if len(records) != len(page):
            raise RemoteProtocolError(f"{len(page)} accounts were asked for and {len(records)} answered")
        accounts += accounts_of(records)
    return accounts


async def list_accounts(channel: Answerer, cursor: int, timeout_s: float) -> list[Account]:
    """Return a page of accounts in the order in which they were opened.

    `cursor` is how many to skip. An empty page ends the list.
    """
    message = encode_message(ListAccounts(cursor=cursor, count=ACCOUNTS_PER_PAGE))
    records = _account_records(await channel.request(Operation.LIST_ACCOUNTS, message, timeout_s))
    return [account for account in accounts_of(records) if account is not None]


async def look_up_event(
    channel: Channel, identifier: bytes, debit: bytes, decimals: int, timeout_s: float
) -> Event | None:
    """Return the event that the command with this id on this debit account left, if any."""
    reply = await channel.request(Operation.LOOKUP_EVENTS, identifier + debit, timeout_s)
    if len(reply) != EVENT_ANSWER_SIZE:
        raise RemoteProtocolError(f"one event was asked for and {len(reply)} bytes answered")
    return event_of(np.frombuffer(reply, EVENT_ANSWER), decimals)


async def look_up_events(
    channel: Channel, keys: Sequence[tuple[bytes, bytes]], decimals: int, timeout_s: float
) -> list[Event]:
    """Return the events that commands left, each given by its id and debit account: those that there are."""
    events: list[Event] = []
    for start in range(0, len(keys), EVENT_COUNT_MAX):
        page = keys[start : start + EVENT_COUNT_MAX]
        reply = await channel.request(Operation.LOOKUP_EVENTS, b"".join(b"".join(key) for key in page), timeout_s)
        if len(reply) != len(page) * EVENT_ANSWER_SIZE:
            raise RemoteProtocolError(f"{len(page)} events were asked for and {len(reply)} bytes answered")
        answers = np.frombuffer(reply, EVENT_ANSWER)
        found = (event_of(answers[number : number + 1], decimals) for number in np.flatnonzero(answers["found"]))
        events += [event for event in found if event is not None]
    return events


async def list_currencies(channel: Channel, timeout_s: float) -> dict[str, int]:
    """Return the decimals of every registered currency."""
    return _decimals(await channel.request(Operation.LIST_CURRENCIES, b"", timeout_s))


async def register_currency(channel: Channel, code: str, decimals: int, timeout_s: float) -> dict[str, int]:
    """Register a currency, for ever, and return the decimals of all.

    Raises `InvalidAmountOrName`, or `RequestRefused` if the node will not.
    """
    currency_word(code)
    message = encode_message(Currency(code, decimals))
    return _decimals(await channel.request(Operation.REGISTER_CURRENCY, message, timeout_s))


async def read_statistics(channel: Channel, timeout_s: float) -> Statistics:
    """Return the node's counters."""
    return decode_message(await channel.request(Operation.STATISTICS, b"", timeout_s), Statistics)


def _decimals(reply: bytes) -> dict[str, int]:
    return {currency.code: currency.decimals for currency in decode_message(reply, Currencies).currencies}


def _account_records(reply: bytes) -> Records:
    if len(reply) % ACCOUNT_SIZE != 0:
        raise RemoteProtocolError(f"{len(reply)} bytes are no whole number of account records")
    return np.frombuffer(reply, ACCOUNT)
