"""Answers to everything that is not a command: look-ups, lists, the registry of currencies.

Each is answered right after the batch that it came with has been executed, so it sees every command before it, and is
sent when that is durable.
"""

import secrets
import time
from collections.abc import Callable
from typing import Final

import numpy as np

from bezant.engine.compiled import quick
from bezant.engine.keeping_positions import keep_positions
from bezant.engine.metadata.setting import set_metadata
from bezant.engine.placement.replacing import replace_map
from bezant.engine.raft.interface import NotYet
from bezant.engine.replica import Replica
from bezant.engine.tokens.changing import change_tokens, list_tokens
from bezant.engine.transactions.ids import words_of_records
from bezant.engine.transactions.under_way import known_tries, transactions_under_way
from bezant.net.server.leg_kernels import are_all_legs
from bezant.protocol.access import ChangeTokens, NoteAct, TokenChange, check_note
from bezant.protocol.errors import BezantError, RemoteProtocolError, UsageError
from bezant.protocol.frames import (
    ACCOUNT_COUNT_MAX,
    EVENT_COUNT_MAX,
    FRAME_SIZE_MAX,
    KEEP_POSITIONS_MAX,
    TRIES_COUNT_MAX,
    FrameError,
    Operation,
)
from bezant.protocol.messages import Currencies, Currency, KeepPositions, ListAccounts, decode_message, encode_message
from bezant.protocol.metadata import SALT_SIZE, MetadataSet, SetMetadata
from bezant.protocol.placement import METADATA_SHARD, ReplaceMap
from bezant.protocol.records import ACCOUNT_SIZE, COMMAND, COMMAND_SIZE, EVENT_ANSWER_SIZE, EVENT_QUERY, Records

AMONG_COMMANDS: Final = frozenset(
    {
        Operation.LOOKUP_ACCOUNTS,
        Operation.LOOKUP_EVENTS,
        Operation.LIST_ACCOUNTS,
        Operation.LIST_CURRENCIES,
        Operation.REGISTER_CURRENCY,
        Operation.TRANSACTIONS,
        Operation.SET_METADATA,
        Operation.MAP,
        Operation.REPLACE_MAP,
        Operation.KEEP_POSITIONS,
        Operation.TOKENS,
        Operation.CHANGE_TOKENS,
        Operation.NOTE_ACT,
    }
)
"""Operations that are answered in their place among the commands."""
_ID_SIZE: Final = 16


class AnsweredElsewhere(BezantError):  # noqa: N818 - it says what to do, as the other errors do
    """This node cannot answer, and the leader can. ``leader`` is its address, if that is known."""

    def __init__(self, code: FrameError, message: str, leader: str) -> None:
        super().__init__(message)
        self.code = code
        self.leader = leader


class Forbidden(UsageError):  # noqa: N818 - likewise
    """Whoever asks may not ask this; nothing of it is executed."""


class WrongShard(UsageError):  # noqa: N818 - likewise
    """An account of the request is another shard's. ``map_version`` is that of the map which this node goes by."""

    def __init__(self, message: str, map_version: int) -> None:
        super().__init__(message)
        self.map_version = map_version


def error_code(error: Exception) -> FrameError:
    """The code of the ERROR frame that says why a request was not answered: the client's fault, or not now."""
    if isinstance(error, WrongShard):
        return FrameError.WRONG_SHARD
    if isinstance(error, Forbidden):
        return FrameError.FORBIDDEN
    if isinstance(error, AnsweredElsewhere):
        return error.code
    if isinstance(error, RemoteProtocolError):
        return FrameError.BODY_MALFORMED
    is_final = isinstance(error, UsageError) and not isinstance(error, NotYet)
    return FrameError.REQUEST_REFUSED if is_final else FrameError.OVERLOADED


def reply_size_max(operation: Operation, body: bytes) -> int:
    """Bytes that the reply will have at most, as far as the request decides it; 0 if it does not."""
    if operation is Operation.LOOKUP_ACCOUNTS:
        return len(body) // _ID_SIZE * ACCOUNT_SIZE
    if operation is Operation.LOOKUP_EVENTS:
        return len(body) // EVENT_QUERY.itemsize * EVENT_ANSWER_SIZE
    return FRAME_SIZE_MAX if operation is Operation.LIST_ACCOUNTS else 0


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
        # A cursor beyond the end may be beyond 64 bits, too.
        cursor = min(asked.cursor, replica.ledger.account_count)
        return replica.ledger.list_accounts(cursor, min(asked.count, ACCOUNT_COUNT_MAX)).tobytes()
    if operation in (Operation.MAP, Operation.REPLACE_MAP):
        return _slot_map(replica, operation, body)
    if operation in (Operation.SET_METADATA, Operation.KEEP_POSITIONS, Operation.NOTE_ACT):
        return _keep(replica, operation, body)
    return _tell(replica, operation, body)


def _tell(replica: Replica, operation: Operation, body: bytes) -> bytes:
    """What is there: transactions under way, tokens, or currencies, with the new one if one is registered."""
    if operation is Operation.CHANGE_TOKENS:
        wanted = decode_message(body, ChangeTokens)
        change = TokenChange(wanted.create, wanted.revoke)
        return encode_message(change_tokens(replica, change, has_other=replica.has_cluster_token))
    if operation is Operation.REGISTER_CURRENCY:
        currency = decode_message(body, Currency)
        replica.register_currency(currency.code, currency.decimals)
    elif body:
        raise RemoteProtocolError(f"{operation.name} has no body")
    elif operation is Operation.TOKENS:
        return encode_message(list_tokens(replica))
    elif operation is Operation.TRANSACTIONS:
        return encode_message(
            transactions_under_way(replica.ledger, replica.log.read_events, time.time_ns(), replica.parked)
        )
    return encode_message(
        Currencies([Currency(code, decimals) for code, decimals in replica.ledger.currencies.items()])
    )


def _slot_map(replica: Replica, operation: Operation, body: bytes) -> bytes:
    if operation is Operation.REPLACE_MAP:
        asked = decode_message(body, ReplaceMap)
        return encode_message(replace_map(replica, asked.expected_version, asked.map))
    if body:
        raise RemoteProtocolError("MAP has no body")
    if replica.slot_map is None:
        keeps = replica.shard == METADATA_SHARD
        raise UsageError("there is no slot map yet" if keeps else "this group has every slot: there is no slot map")
    return encode_message(replica.slot_map)


def _keep(replica: Replica, operation: Operation, body: bytes) -> bytes:
    """Keep what is beside the money: metadata, named positions, and what is administered elsewhere."""
    if operation is Operation.NOTE_ACT:
        # It has been written down before it came here, as all that is audited is; nothing else is to be done.
        check_note(decode_message(body, NoteAct))
        return b""
    if operation is Operation.SET_METADATA:
        version = set_metadata(replica, decode_message(body, SetMetadata), secrets.token_bytes(SALT_SIZE))
        return encode_message(MetadataSet(version))
    asked = decode_message(body, KeepPositions)
    if len(asked.positions) > KEEP_POSITIONS_MAX:
        raise UsageError(f"{len(asked.positions)} positions at a time: {KEEP_POSITIONS_MAX} is the most of them")
    if asked.log_id and asked.log_id != replica.log.public_id:
        raise UsageError(f"the positions are of log {asked.log_id}; this is log {replica.log.public_id}")
    keep_positions(replica, asked.positions)
    return b""


def legs_of(body: bytes) -> Records:
    """The commands of LEGS, COMMAND records. Raises `RemoteProtocolError` for what is no coordinator's."""
    if not body or len(body) % COMMAND_SIZE:
        raise RemoteProtocolError("LEGS has a body of 1 to 8191 whole commands")
    commands = np.frombuffer(bytearray(body), COMMAND)  # The ledger would copy what it might not write to.
    if not quick(are_all_legs)(words_of_records(commands)):
        raise RemoteProtocolError("LEGS has commands of coordinators only")
    return commands


def tries_of(replica: Replica, body: bytes) -> Callable[[], bytes]:
    """What answers TRIES: which of another shard's tries are of what is under way here.

    Raises `RemoteProtocolError` for a body that does not fit.
    """
    if len(body) % _ID_SIZE or len(body) > TRIES_COUNT_MAX * _ID_SIZE:
        raise RemoteProtocolError(f"TRIES takes up to {TRIES_COUNT_MAX} ids of {_ID_SIZE} bytes")
    ids = np.frombuffer(body, np.int64).reshape(-1, 2)
    return lambda: known_tries(replica.ledger, replica.log.read_events, ids).tobytes()


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
