"""What a request of an administrator says, in words for the audit: no secret, and no digest of one."""

from collections.abc import Callable
from typing import Final

import numpy as np

from bezant.engine.tokens.audit import token_summary
from bezant.protocol.access import OPERATION_RULES, ChangeTokens, NoteAct, Token, check_note, check_token
from bezant.protocol.errors import RemoteProtocolError, UsageError
from bezant.protocol.frames import Operation
from bezant.protocol.messages import ChangeMembers, Currency, decode_message
from bezant.protocol.metadata import SUBJECT_SIZE, SetMetadata, SubjectKind
from bezant.protocol.moves import MoveSlots, decode_slots
from bezant.protocol.placement import ReplaceMap

_UNREADABLE: Final = "a request that cannot be read"


def tell_request(operation: Operation, body: bytes) -> str:
    """What the body of an audited request asks for."""
    try:
        return _TELLERS[operation](body)
    except RemoteProtocolError:
        return _UNREADABLE


def _tell_tokens(body: bytes) -> str:
    asked = decode_message(body, ChangeTokens)
    told = [_tell_token(asked.create)] if asked.create is not None else []
    return ", ".join([*told, *([f"revoke {asked.revoke[:64]}"] if asked.revoke else [])])


def _tell_token(token: Token) -> str:
    try:
        check_token(token)
    except UsageError as error:
        return f"create a token that cannot be: {error}"
    return f"create {token_summary(token)}"


def _tell_note(body: bytes) -> str:
    """What whoever administers it says, behind its name: none of these acts is taken for one of the log's own."""
    asked = decode_message(body, NoteAct)
    try:
        check_note(asked)
    except UsageError as error:
        return f"a note that cannot be: {error}"
    return f"{asked.operation} {asked.what}"


def _tell_members(body: bytes) -> str:
    asked = decode_message(body, ChangeMembers)
    where = f" at {asked.peer_address}, {asked.client_address}" if asked.peer_address else ""
    return f"{asked.action} node {asked.node_id}{where}"


def _tell_currency(body: bytes) -> str:
    asked = decode_message(body, Currency)
    return f"register {asked.code[:16]} with {asked.decimals} decimals"


def _tell_map(body: bytes) -> str:
    asked = decode_message(body, ReplaceMap)
    shards = ", ".join(str(place.shard) for place in asked.map.shards)
    return f"version {asked.map.version} in the place of {asked.expected_version}: shards {shards}"


def _tell_move(body: bytes) -> str:
    asked = decode_message(body, MoveSlots)
    slots = np.flatnonzero(decode_slots(asked.slots))
    between = f"{slots[0]} to {slots[-1]}" if len(slots) else "none"
    return f"move {asked.move.hex()}: {len(slots)} slots ({between}) to shard {asked.to}"


def _tell_metadata(body: bytes) -> str:
    """What is erased, and not by what it is replaced: nobody could erase that here."""
    asked = decode_message(body, SetMetadata)
    kinds = {int(SubjectKind.ACCOUNT): "account", int(SubjectKind.EVENT): "event"}
    subject = f"{kinds.get(asked.subject_kind, 'nothing')} {asked.subject[:SUBJECT_SIZE].hex()}"
    return f"{'replace' if asked.content else 'erase'} the metadata of {subject}"


_TELLERS: Final[dict[Operation, Callable[[bytes], str]]] = {
    Operation.CHANGE_TOKENS: _tell_tokens,
    Operation.NOTE_ACT: _tell_note,
    Operation.CHANGE_MEMBERS: _tell_members,
    Operation.REGISTER_CURRENCY: _tell_currency,
    Operation.REPLACE_MAP: _tell_map,
    Operation.MOVE_SLOTS: _tell_move,
    Operation.SET_METADATA: _tell_metadata,
}

if set(_TELLERS) != {operation for operation, rule in OPERATION_RULES.items() if rule.audited}:
    raise AssertionError("every audited operation must be told in words")
