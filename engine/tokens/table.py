"""The tokens of a ledger, by control entries alone: the same on every node behind the same entry.

None is ever forgotten: what a token did is in the history, and so must be who it was. `on_changed` is how a node learns
at once that some count no more.
"""

from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from bezant.engine.log.entry import Entry
from bezant.protocol.access import TOKENS_MAX, Scope, Token, TokenChange, check_token
from bezant.protocol.errors import CorruptLog, RemoteProtocolError, UsageError
from bezant.protocol.messages import decode_control_entry


class TokenTable:
    """See the module."""

    def __init__(self) -> None:
        self._tokens: dict[str, Token] = {}
        self.on_changed: Callable[[], None] = _nobody_cares

    def __len__(self) -> int:
        return len(self._tokens)

    @property
    def records(self) -> tuple[Token, ...]:
        """All tokens there ever were, in the order of their making."""
        return tuple(self._tokens.values())

    def find(self, token_id: str) -> Token | None:
        """A token, revoked or not."""
        return self._tokens.get(token_id)

    def restore(self, records: Sequence[Token]) -> None:
        """Begin with these."""
        self._tokens = {token.token_id: token for token in records}
        self.on_changed()

    def changes_anything(self, change: TokenChange, *, has_other: bool = True) -> bool:
        """Whether a change would make a difference; what has been done already may be asked for again.

        `has_other`: whether an administrator can get in otherwise. Raises `UsageError` for a change that cannot be.
        """
        if (change.created is None) == (not change.revoked):
            raise UsageError("a change of tokens creates one or revokes one")
        if change.created is not None:
            return self._is_new(change.created, has_other=has_other)
        known = self._tokens.get(change.revoked)
        if known is None:
            raise UsageError(f"there is no token {change.revoked[:_ID_SHOWN_MAX]!r}")
        if known.revoked_ns:
            return False
        others = [token for token in self._tokens.values() if token is not known and not token.revoked_ns]
        if not has_other and not any(Scope.ADMIN in token.scopes for token in others):
            raise UsageError("this is the last token with the scope admin: create another one before it is revoked")
        return True

    def _is_new(self, token: Token, *, has_other: bool) -> bool:
        check_token(token)
        if token.created_ns or token.revoked_ns:
            raise UsageError("when a token was made, and revoked, the log says")
        known = self._tokens.get(token.token_id)
        if known is not None:
            same = (known.digest, known.scopes, known.prefixes) == (token.digest, token.scopes, token.prefixes)
            if same and not known.revoked_ns:
                return False
            raise UsageError(f"there is another token {token.token_id} already, or there was")
        if len(self._tokens) >= TOKENS_MAX:
            raise UsageError(f"a ledger remembers {TOKENS_MAX} tokens at most")
        if not self._tokens and not has_other and Scope.ADMIN not in token.scopes:
            raise UsageError("the first token has the scope admin: from then on nobody gets in without one")
        return True

    def apply(self, change: TokenChange, timestamp_ns: int) -> None:
        """Take a change of the history in, made by the entry of this time. Raises `UsageError` for what no leader makes
        an entry of."""
        if not self.changes_anything(change):
            raise UsageError("the change of tokens changes nothing")
        if change.created is not None:
            token = msgspec.structs.replace(change.created, created_ns=timestamp_ns)
        else:
            token = msgspec.structs.replace(self._tokens[change.revoked], revoked_ns=timestamp_ns)
        self._tokens[token.token_id] = token
        self.on_changed()


_ID_SHOWN_MAX: Final = 24


def apply_tokens(table: TokenTable, entry: Entry) -> None:
    """Take what a control entry says of tokens into a table that is kept beside a log. Raises `CorruptLog`."""
    try:
        change = decode_control_entry(entry.body).token
        if change is not None:
            table.apply(change, entry.header.timestamp_ns)
    except (RemoteProtocolError, UsageError) as error:
        raise CorruptLog(f"control entry {entry.header.index} cannot be applied: {error}") from error


def _nobody_cares() -> None:
    """Nobody has come in with a token yet."""
