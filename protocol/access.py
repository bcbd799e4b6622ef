"""Who may do what: the scopes of a token, and one table that says for every operation which of them it takes.

A **principal** is whoever is at the other end of a connection: a token, a node that has shown its certificate, or
nobody in particular where a node asks for no tokens. `operation_refusal` and `command_refusal` are the whole decision;
what serves requests (a node, its reader, an HTTP gateway) asks them first, and executes nothing that they refuse. An
operation or a command kind that has no row is refused to everybody, and a test wants a row for each.

Tokens are random, 32 bytes; what is kept of one is its BLAKE3 digest, from which nobody gets it back. There is nothing
to be guessed in a token, so the digest needs no salt, and no slow function.
"""

import hmac
import re
from enum import StrEnum, unique
from typing import Final, NamedTuple

import blake3
import msgspec

from bezant.protocol.errors import UsageError
from bezant.protocol.frames import Operation
from bezant.protocol.kinds import CommandFlag, CommandKind
from bezant.protocol.records import NAME_SIZE_MAX

TOKENS_MAX: Final = 1_000
"""Tokens that a ledger knows all about: those that count and, as far as there is room, those that were revoked."""
FORGOTTEN_MAX: Final = 1 << 18
"""Revoked tokens of which a ledger knows no more than that they do not come back: five years in which a thousand are
replaced every week."""
PREFIXES_MAX: Final = 16
"""Prefixes of account names that a token may be limited to, at most."""
NOTE_SIZE_MAX: Final = 100
"""Characters of what a token is for."""
NOTED_NAME_SIZE_MAX: Final = 32
"""Bytes of the name of what is administered beside the log."""
NOTED_WHAT_SIZE_MAX: Final = 400
"""Bytes of what is said of it: the longest name of a host, of 253, fits, and an id or two."""
TOKEN_SECRET_SIZE: Final = 32
"""Random bytes of a token."""
DIGEST_SIZE: Final = 32
TOKEN_PREFIX: Final = "bezant_"
"""How every token begins, so that one that lies where it should not is found."""
ID_SIZE: Final = 12
"""Characters of the id of a token, which is no secret: in lists, in the audit, in what a node logs."""
CLUSTER_ID: Final = "cluster"
"""Stands for the id of the token that the nodes of a cluster share, which no log knows."""

_DIGEST_CONTEXT: Final = "bezant: the digest of a token"
_TOKEN: Final = re.compile(r"bezant_([0-9a-z]{12})_([0-9A-Za-z_-]{43})")
_NOTED_NAME: Final = re.compile(rf"[A-Z][A-Z_]{{0,{NOTED_NAME_SIZE_MAX - 1}}}")


@unique
class Scope(StrEnum):
    """What a token may be for. None contains another; a token has one or several."""

    READ = "read"
    TRANSFER = "transfer"
    ADMIN = "admin"
    PEER = "peer"


@unique
class Limited(StrEnum):
    """What a request means to a token that is limited to accounts whose names begin with certain prefixes."""

    FREE = "free"  # it is about no account
    CHECKED = "checked"  # each account in it is looked up, and its name must begin so
    NEVER = "never"  # it tells of, or changes, more than certain accounts


class Rule(NamedTuple):
    """A row of the table: any of the scopes will do. `audited`: the log says who asked for it."""

    scopes: frozenset[Scope]
    limited: Limited = Limited.NEVER
    audited: bool = False


EVERYBODY: Final = frozenset(Scope)
NOBODY: Final[frozenset[Scope]] = frozenset()
_READ: Final = frozenset({Scope.READ})
_TRANSFER: Final = frozenset({Scope.TRANSFER})
_ADMIN: Final = frozenset({Scope.ADMIN})
_PEER: Final = frozenset({Scope.PEER})
_O: Final = Operation

OPERATIONS: Final = frozenset(int(operation) for operation in Operation)
"""The numbers that have a row; others are no operations."""

OPERATION_RULES: Final[dict[Operation, Rule]] = {
    _O.HELLO: Rule(EVERYBODY, Limited.FREE),
    _O.PING: Rule(EVERYBODY, Limited.FREE),
    # Decided command by command: see COMMAND_SCOPES.
    _O.COMMANDS: Rule(_TRANSFER | _ADMIN, Limited.CHECKED),
    _O.LOOKUP_ACCOUNTS: Rule(_READ, Limited.CHECKED),
    _O.LOOKUP_EVENTS: Rule(_READ, Limited.CHECKED),
    _O.LIST_ACCOUNTS: Rule(_READ),
    _O.LIST_CURRENCIES: Rule(EVERYBODY, Limited.FREE),
    _O.REGISTER_CURRENCY: Rule(_ADMIN, audited=True),
    _O.STATISTICS: Rule(_READ | _ADMIN | _PEER),
    _O.MEMBERS: Rule(_READ | _ADMIN | _PEER),
    # A node that joins has itself taken in; what a node may do between nodes weighs more than any of these.
    _O.CHANGE_MEMBERS: Rule(_ADMIN | _PEER, audited=True),
    _O.JOIN: Rule(_PEER),
    _O.MAP: Rule(EVERYBODY, Limited.FREE),
    _O.KEEP_POSITIONS: Rule(_PEER),
    _O.REPLACE_MAP: Rule(_ADMIN | _PEER, audited=True),
    _O.PEER_HELLO: Rule(_PEER),
    _O.PEER_MESSAGE: Rule(_PEER),
    _O.PEER_PING: Rule(_PEER),
    _O.LEGS: Rule(_PEER),
    _O.TRANSACTIONS: Rule(_READ | _ADMIN | _PEER),
    _O.TRIES: Rule(_PEER),
    _O.TRANSACT: Rule(_TRANSFER),
    _O.MOVE_SLOTS: Rule(_ADMIN, audited=True),
    _O.TAKE_SLOTS: Rule(_PEER),
    _O.MOVES: Rule(_READ | _ADMIN | _PEER),
    _O.TOKENS: Rule(_ADMIN),
    _O.CHANGE_TOKENS: Rule(_ADMIN, audited=True),
    _O.NOTE_ACT: Rule(_ADMIN, audited=True),
    _O.QUERY_ACCOUNTS: Rule(_READ),
    _O.STATEMENT: Rule(_READ),
    # By ids alone, and only what is about accounts that the token is limited to.
    _O.FIND_TRANSFERS: Rule(_READ, Limited.CHECKED),
    _O.OPEN_HOLDS: Rule(_READ),
    _O.TOTALS: Rule(_READ),
    # What takes the place of something erases it, which nothing else that is asked for can.
    _O.SET_METADATA: Rule(_TRANSFER | _ADMIN, audited=True),
    _O.GET_METADATA: Rule(_READ),
    # Asked before a question as of a time goes to several shards: it closes what is past for good.
    _O.CLOSE_TIME: Rule(_READ | _PEER, Limited.FREE),
    _O.SUBSCRIBE: Rule(_READ),
    _O.EVENTS: Rule(NOBODY),
    _O.PROGRESS: Rule(NOBODY),
    _O.UNSUBSCRIBE: Rule(_READ),
    _O.ACKNOWLEDGE: Rule(_READ),
    _O.TREE_HEAD: Rule(_READ, Limited.FREE),
    _O.RECEIPT: Rule(_READ),
    _O.CONSISTENCY: Rule(_READ, Limited.FREE),
    _O.ERROR: Rule(NOBODY),
}

COMMAND_SCOPES: Final[dict[CommandKind, frozenset[Scope]]] = {
    CommandKind.OPEN: _TRANSFER | _ADMIN,
    CommandKind.TRANSFER: _TRANSFER,
    CommandKind.SET_LIMIT: _ADMIN,
    CommandKind.HOLD: _TRANSFER,
    CommandKind.CAPTURE: _TRANSFER,
    CommandKind.RELEASE: _TRANSFER,
    CommandKind.EXPIRE: NOBODY,
    CommandKind.FREEZE: _ADMIN,
    CommandKind.UNFREEZE: _ADMIN,
    CommandKind.CLOSE: _ADMIN,
    CommandKind.TRANSFER_AVAILABLE: _TRANSFER,
    CommandKind.FORBID: _TRANSFER,
    CommandKind.TRY_DEBIT: NOBODY,
    CommandKind.TRY_CREDIT: NOBODY,
    CommandKind.CONFIRM: NOBODY,
    CommandKind.CANCEL: NOBODY,
    CommandKind.TRY_PART: NOBODY,
    CommandKind.PLAN: NOBODY,
    CommandKind.MOVE_OPEN: NOBODY,
    CommandKind.MOVE_IN: NOBODY,
    CommandKind.MOVE_OUT: NOBODY,
    CommandKind.MOVE_HOLD_IN: NOBODY,
    CommandKind.MOVE_HOLD_OUT: NOBODY,
}
"""Of a COMMANDS frame. Kinds that only nodes send come in LEGS, or are only ever events."""

IMPORTED_SCOPES: Final = _ADMIN
"""To say when something happened, with the flag IMPORTED, is an administrator's, whatever the kind."""
LIMIT_SCOPES: Final = _ADMIN
"""And so is an OPEN with a limit: an account that may fall below zero is where money comes from."""


class Principal(NamedTuple):
    """Who is at the other end of a connection. `token_id` is no secret: what the audit names."""

    token_id: str
    scopes: frozenset[Scope]
    prefixes: tuple[str, ...] = ()

    @property
    def may_command_all(self) -> bool:
        """Whether no command needs to be looked at."""
        return not self.prefixes and self.scopes >= _TRANSFER | _ADMIN

    def may_use(self, name: str) -> bool:
        """Whether an account of this name may pay, or be told of, as far as prefixes go."""
        return not self.prefixes or name.startswith(self.prefixes)


ANYBODY: Final = Principal("", EVERYBODY)
"""Whoever connects to a node that asks for no tokens."""


def operation_refusal(principal: Principal, operation: int) -> str:
    """Why a principal may not ask this of a node or a reader; "" if it may.

    Of a principal that is limited to prefixes, and an operation whose rule is CHECKED, each account must be looked at
    besides (`Principal.may_use`).
    """
    rule = OPERATION_RULES.get(Operation(operation)) if operation in OPERATIONS else None
    if rule is None:
        return f"operation {operation} is nobody's to ask"
    name = Operation(operation).name
    if not principal.scopes & rule.scopes:
        return f"{name} takes {_told(rule.scopes)}, and the token has {_told(principal.scopes)}"
    if principal.prefixes and rule.limited is Limited.NEVER:
        return f"{name} is not for a token that is limited to accounts {_told_prefixes(principal)}"
    return ""


def command_refusal(principal: Principal, kind: int, flags: int = 0, limit: int = 0) -> str:
    """Why a principal may not send a command of this kind; "" if it may, as far as scopes go.

    `limit`: of an OPEN, else 0. The name of the debit account must be looked at besides (`Principal.may_use`).
    """
    scopes = COMMAND_SCOPES.get(CommandKind(kind), NOBODY) if kind in _KINDS else NOBODY
    if not principal.scopes & scopes:
        return f"a command of kind {kind} takes {_told(scopes)}, and the token has {_told(principal.scopes)}"
    if flags & CommandFlag.IMPORTED and not principal.scopes & IMPORTED_SCOPES:
        return f"to give a time takes {_told(IMPORTED_SCOPES)}, and the token has {_told(principal.scopes)}"
    if kind == CommandKind.OPEN and limit and not principal.scopes & LIMIT_SCOPES:
        return f"an account with a limit takes {_told(LIMIT_SCOPES)}, and the token has {_told(principal.scopes)}"
    return ""


_KINDS: Final = frozenset(int(kind) for kind in CommandKind)


def _told(scopes: frozenset[Scope]) -> str:
    return "the scope " + " or ".join(sorted(scopes)) if scopes else "no scope that there is"


def _told_prefixes(principal: Principal) -> str:
    return " or ".join(f"{prefix}*" for prefix in principal.prefixes)


# ---- tokens ----


class Token(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is kept of a token. ``digest``: see `digest_of`.

    ``prefixes`` limit it to accounts whose names begin with one of them; none: it is not limited. ``created_ns`` and
    ``revoked_ns`` are the times of the entries that say so, 0 in a request, and of a token that is not revoked.
    """

    token_id: str
    digest: bytes
    scopes: list[Scope]
    prefixes: list[str] = []
    note: str = ""
    created_ns: int = 0
    revoked_ns: int = 0

    @property
    def principal(self) -> Principal:
        """Whom it lets in."""
        return Principal(self.token_id, frozenset(self.scopes), tuple(self.prefixes))

    def matches(self, text: str) -> bool:
        """Whether a text is this token; takes as long whatever it is."""
        return hmac.compare_digest(self.digest, digest_of(text))


class StrictToken(Token, frozen=True, forbid_unknown_fields=True):
    """A token, and nothing else."""


class ChangeTokens(msgspec.Struct, frozen=True):
    """Asks the leader to create a token, or to revoke the one with this id. The reply is `Tokens`."""

    create: Token | None = None
    revoke: str = ""


class Tokens(msgspec.Struct, frozen=True):
    """All tokens that the group knows, revoked ones too, in the order of their making; without digests."""

    tokens: list[Token]


class Act(msgspec.Struct, frozen=True, omit_defaults=True):
    """What an administrator did, in the log: who asked for which operation, and what it said, in words.

    ``outcome`` is "" for what was done, and else why it was not.
    """

    token_id: str
    operation: str
    what: str
    outcome: str = ""


class StrictAct(Act, frozen=True, forbid_unknown_fields=True):
    """An act, and nothing else."""


class NoteAct(msgspec.Struct, frozen=True):
    """Has the log say what is about to be administered beside it, and by whom; see `check_note`.

    The reply is empty, and comes when that is committed. Whoever is not answered so leaves it undone.
    """

    operation: str
    what: str


class TokenChange(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a control entry says of tokens: one that is there from now on, or the id of one that is revoked.

    ``forgotten``: the ids of revoked ones, which make room for the one that is created.
    """

    created: Token | None = None
    revoked: str = ""
    forgotten: list[str] = []


class StrictTokenChange(TokenChange, frozen=True, forbid_unknown_fields=True):
    """A change, and nothing else."""

    created: StrictToken | None = None


def token_text(token_id: str, secret: str) -> str:
    """A token as its owner has it: `secret` is TOKEN_SECRET_SIZE random bytes in URL-safe base64 without padding."""
    text = f"{TOKEN_PREFIX}{token_id}_{secret}"
    if not _TOKEN.fullmatch(text):
        raise UsageError("a token has an id of 12 characters 0-9 and a-z, and a secret of 43")
    return text


def token_id_of(text: str) -> str:
    """The id in a token. Raises `UsageError` for a text that is none, which it does not repeat."""
    match = _TOKEN.fullmatch(text)
    if match is None:
        raise UsageError("this is no token of Bezant's: they begin with bezant_, and have 63 characters")
    return match[1]


def digest_of(text: str) -> bytes:
    """What is kept of a token: BLAKE3 of its text, DIGEST_SIZE bytes."""
    return blake3.blake3(text.encode(), derive_key_context=_DIGEST_CONTEXT).digest()


def check_token(token: Token) -> None:
    """Raise `UsageError` for a token that cannot be made."""
    if not re.fullmatch(r"[0-9a-z]{12}", token.token_id):
        raise UsageError("the id of a token is 12 characters 0-9 and a-z")
    if len(token.digest) != DIGEST_SIZE:
        raise UsageError(f"the digest of a token has {DIGEST_SIZE} bytes")
    if not token.scopes or len(set(token.scopes)) != len(token.scopes):
        raise UsageError("a token has one or several scopes, each once")
    if len(token.note) > NOTE_SIZE_MAX or not token.note.isprintable():
        raise UsageError(f"what a token is for is said in up to {NOTE_SIZE_MAX} printable characters")
    if len(token.prefixes) > PREFIXES_MAX:
        raise UsageError(f"a token is limited to {PREFIXES_MAX} prefixes at most")
    for prefix in token.prefixes:
        if not 1 <= len(prefix) <= NAME_SIZE_MAX or not all("!" <= character <= "~" for character in prefix):
            raise UsageError(f"no account name begins with {prefix!r}")
    if token.prefixes and {Scope.ADMIN, Scope.PEER} & set(token.scopes):
        raise UsageError("a token with the scope admin or peer is not limited to accounts: its power is over the whole")


def check_note(note: NoteAct) -> None:
    """Raise `UsageError` for a note that no act can be made of."""
    if not _NOTED_NAME.fullmatch(note.operation):
        raise UsageError(f"what is noted has a name of up to {NOTED_NAME_SIZE_MAX} characters A to Z and _")
    if not note.what.isprintable() or len(note.what.encode()) > NOTED_WHAT_SIZE_MAX:
        raise UsageError(f"what is noted is said in up to {NOTED_WHAT_SIZE_MAX} bytes of printable characters")
