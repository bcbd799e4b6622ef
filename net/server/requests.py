"""Answers to everything that is not a command: look-ups, lists, the registry of currencies.

Each is answered right after the batch that it came with has been executed, so it sees every command before it, and is
sent when that is durable.
"""

import numpy as np

from bezant.engine.replica import Replica
from bezant.protocol.errors import RemoteProtocolError
from bezant.protocol.frames import ACCOUNT_COUNT_MAX, EVENT_COUNT_MAX, Operation
from bezant.protocol.messages import Currencies, Currency, ListAccounts, decode_message, encode_message
from bezant.protocol.records import EVENT_QUERY

_ID_SIZE = 16


def answer_request(replica: Replica, operation: Operation, body: bytes) -> bytes:
    """The body of the reply. Raises `RemoteProtocolError` for a body that does not fit, `UsageError` and
    `StorageError` for what cannot be done."""
    if operation is Operation.LOOKUP_ACCOUNTS:
        return _lookup_accounts(replica, body)
    if operation is Operation.LOOKUP_EVENTS:
        return _lookup_events(replica, body)
    if operation is Operation.LIST_ACCOUNTS:
        asked = decode_message(body, ListAccounts)
        if asked.cursor < 0 or asked.count < 0:
            raise RemoteProtocolError("cursor and count are not negative")
        return replica.ledger.list_accounts(asked.cursor, min(asked.count, ACCOUNT_COUNT_MAX)).tobytes()
    if operation is Operation.REGISTER_CURRENCY:
        currency = decode_message(body, Currency)
        replica.register_currency(currency.code, currency.decimals)
    return encode_message(
        Currencies([Currency(code, decimals) for code, decimals in replica.ledger.currencies.items()])
    )


def _lookup_accounts(replica: Replica, body: bytes) -> bytes:
    if len(body) % _ID_SIZE or len(body) > ACCOUNT_COUNT_MAX * _ID_SIZE:
        raise RemoteProtocolError(f"LOOKUP_ACCOUNTS takes up to {ACCOUNT_COUNT_MAX} ids of {_ID_SIZE} bytes")
    ids = np.frombuffer(body, np.int64).reshape(-1, 2).copy()
    return replica.ledger.lookup_accounts(ids).tobytes()


def _lookup_events(replica: Replica, body: bytes) -> bytes:
    size = EVENT_QUERY.itemsize
    if len(body) % size or len(body) > EVENT_COUNT_MAX * size:
        raise RemoteProtocolError(f"LOOKUP_EVENTS takes up to {EVENT_COUNT_MAX} queries of {size} bytes")
    keys = np.frombuffer(body, np.int64).reshape(-1, 4).copy()
    return replica.lookup_events(keys).tobytes()
