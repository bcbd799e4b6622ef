"""The tokens of a ledger, by control entries alone: the same on every node behind the same entry.

One that counts is never forgotten. Of one that was revoked no more is kept in the end, when there is no room, than its
id, as a number: it does not come back, whoever asks for it and whenever. Who it was the history says (`audit.py`).
`on_changed` is how a node learns at once that some count no more.
"""

from collections.abc import Callable, Sequence
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from bezant.engine.log.entry import Entry
from bezant.protocol.access import FORGOTTEN_MAX, TOKENS_MAX, Scope, Token, TokenChange, check_token
from bezant.protocol.errors import CorruptLog, RemoteProtocolError, UsageError
from bezant.protocol.messages import decode_control_entry


class TokenTable:
    """See the module."""

    def __init__(self) -> None:
        self._tokens: dict[str, Token] = {}
        self._forgotten: npt.NDArray[np.int64] = np.zeros(0, np.int64)  # sorted
        self.on_changed: Callable[[], None] = _nobody_cares

    def __len__(self) -> int:
        return len(self._tokens)

    @property
    def records(self) -> tuple[Token, ...]:
        """All tokens that are known, in the order of their making."""
        return tuple(self._tokens.values())

    @property
    def forgotten(self) -> bytes:
        """The numbers of those of which nothing else is known, int64, sorted."""
        return self._forgotten.tobytes()

    @property
    def to_forget(self) -> list[str]:
        """Who makes room if another one is created: nobody while there is some, else who was revoked for longest."""
        if len(self._tokens) < TOKENS_MAX or len(self._forgotten) >= FORGOTTEN_MAX:
            return []
        revoked = [token for token in self._tokens.values() if token.revoked_ns]
        return [min(revoked, key=lambda token: token.revoked_ns).token_id] if revoked else []

    def find(self, token_id: str) -> Token | None:
        """A token, revoked or not."""
        return self._tokens.get(token_id)

    def restore(self, records: Sequence[Token], forgotten: bytes = b"") -> None:
        """Begin with these. Raises `CorruptLog`."""
        self._tokens = {token.token_id: token for token in records}
        if len(forgotten) % np.dtype(np.int64).itemsize:
            raise CorruptLog(f"{len(forgotten)} bytes are no numbers of tokens")
        self._forgotten = np.frombuffer(forgotten, np.int64)
        self.on_changed()

    def changes_anything(self, change: TokenChange, *, has_other: bool = True) -> bool:
        """Whether a change would make a difference; what has been done already may be asked for again.

        `has_other`: whether an administrator can get in otherwise. Raises `UsageError` for a change that cannot be.
        """
        if (change.created is None) == (not change.revoked):
            raise UsageError("a change of tokens creates one or revokes one")
        if change.created is not None:
            return self._is_new(change.created, change.forgotten, has_other=has_other)
        if change.forgotten:
            raise UsageError("tokens are forgotten to make room for one that is created")
        known = self._tokens.get(change.revoked)
        if known is None:
            raise UsageError(f"there is no token {change.revoked[:_ID_SHOWN_MAX]!r}")
        if known.revoked_ns:
            return False
        others = [token for token in self._tokens.values() if token is not known and not token.revoked_ns]
        if not has_other and not any(Scope.ADMIN in token.scopes for token in others):
            raise UsageError("this is the last token with the scope admin: create another one before it is revoked")
        return True

    def _is_new(self, token: Token, forgotten: list[str], *, has_other: bool) -> bool:
        check_token(token)
        if token.created_ns or token.revoked_ns:
            raise UsageError("when a token was made, and revoked, the log says")
        known = self._tokens.get(token.token_id)
        if known is not None:
            same = (known.digest, known.scopes, known.prefixes) == (token.digest, token.scopes, token.prefixes)
            if same and not known.revoked_ns:
                return False
            raise UsageError(f"there is another token {token.token_id} already, or there was")
        if _number_of(token.token_id) in self._forgotten[self._place_of(token.token_id) :][:1]:
            raise UsageError(f"there was a token {token.token_id}, and it was revoked")
        self._check_forgotten(forgotten)
        if len(self._tokens) - len(forgotten) >= TOKENS_MAX:
            raise UsageError(f"a ledger has {TOKENS_MAX} tokens at most: revoke some")
        if not self._tokens and not has_other and Scope.ADMIN not in token.scopes:
            raise UsageError("the first token has the scope admin: from then on nobody gets in without one")
        return True

    def _check_forgotten(self, ids: list[str]) -> None:
        known = [self._tokens.get(token_id) for token_id in ids]
        if len(set(ids)) != len(ids) or not all(token is not None and token.revoked_ns for token in known):
            raise UsageError("only tokens that were revoked are forgotten")
        if len(self._forgotten) + len(ids) > FORGOTTEN_MAX:
            raise UsageError(f"{FORGOTTEN_MAX} tokens have been forgotten, and no more can be")

    def _place_of(self, token_id: str) -> int:
        return int(np.searchsorted(self._forgotten, _number_of(token_id)))

    def apply(self, change: TokenChange, timestamp_ns: int) -> None:
        """Take a change of the history in, made by the entry of this time. Raises `UsageError` for what no leader makes
        an entry of."""
        if not self.changes_anything(change):
            raise UsageError("the change of tokens changes nothing")
        for token_id in change.forgotten:
            self._forgotten = np.insert(self._forgotten, self._place_of(token_id), _number_of(token_id))
            del self._tokens[token_id]
        if change.created is not None:
            token = msgspec.structs.replace(change.created, created_ns=timestamp_ns)
        else:
            token = msgspec.structs.replace(self._tokens[change.revoked], revoked_ns=timestamp_ns)
        self._tokens[token.token_id] = token
        self.on_changed()


_ID_SHOWN_MAX: Final = 24


def _number_of(token_id: str) -> int:
    """An id, 12 of 36 characters, as the int64 that it is to the base of 36."""
    return int(token_id, 36)


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
