"""The leader's part in tokens: a change that changes something becomes a control entry."""

import msgspec

from bezant.engine.replica import Replica
from bezant.protocol.access import TokenChange, Tokens
from bezant.protocol.errors import StorageError
from bezant.protocol.messages import ControlEntry, encode_message
from bezant.protocol.records import ENTRIES_FORGOTTEN, ENTRIES_TOKENS


def change_tokens(replica: Replica, change: TokenChange, *, has_other: bool) -> Tokens:
    """Create or revoke a token; returns those there are, to be told when the log is durable up to its last index.

    `has_other`: whether an administrator can get in without a token of the log. Raises `UsageError`, `StorageError`.
    """
    tokens = replica.ledger.tokens
    known = change.created is not None and tokens.find(change.created.token_id) is not None
    if change.created is not None and not known and tokens.to_forget:
        change = msgspec.structs.replace(change, forgotten=tokens.to_forget)
    if tokens.changes_anything(change, has_other=has_other):
        replica.check_ready(ENTRIES_FORGOTTEN if change.forgotten else ENTRIES_TOKENS)
        control = ControlEntry(token=change)
        if not replica.log.has_room(len(encode_message(control))):
            raise StorageError("the disk is at its free-space floor; no token can be changed now")
        replica.append_control(control)
        tokens.apply(change, replica.log.last_timestamp_ns)
    return list_tokens(replica)


def list_tokens(replica: Replica) -> Tokens:
    """All tokens that are known, without their digests."""
    return Tokens([msgspec.structs.replace(token, digest=b"") for token in replica.ledger.tokens.records])
