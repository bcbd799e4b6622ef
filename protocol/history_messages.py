"""Messages of questions to the history, which a reader answers: see ``HISTORY.md``.

Every question may say what it is as of: ``as_of_position``, or ``as_of_time_ns``; neither is now. ``wait_for`` is a
position that must have been taken in first, so that a client that has a result finds its event. ``log_id`` is the log
that the positions are of, as in `Welcome`; "" if that is not known.
"""

import msgspec


class QueryAccounts(msgspec.Struct, frozen=True):
    """Asks for accounts, by ids of 16 bytes back to back."""

    accounts: bytes
    as_of_position: int | None = None
    as_of_time_ns: int | None = None
    wait_for: int = 0
    log_id: str = ""


class AccountsAsOf(msgspec.Struct, frozen=True):
    """The reply: of which position and time it is, and one ACCOUNT record for each id."""

    position: int
    timestamp_ns: int
    accounts: bytes


class QueryStatement(msgspec.Struct, frozen=True):
    """Asks for the events that touched an account, from ``from_ns`` on up to before ``to_ns`` (0: no bound).

    ``after``: the ``next_after`` of the page before; 0 for the first page.
    """

    account: bytes
    as_of_position: int | None = None
    as_of_time_ns: int | None = None
    from_ns: int = 0
    to_ns: int = 0
    after: int = 0
    limit: int = 100
    reverse: bool = False
    wait_for: int = 0
    log_id: str = ""


class QueryTransfers(msgspec.Struct, frozen=True):
    """Asks for events that match all of what is given.

    With an ``id`` (16 bytes; or several, back to back) only those that have it, or refer to it as their hold; nothing
    but a range goes with it.
    ``kinds``: none means all. ``refused``: also events of commands that were refused. ``own_name`` and
    ``own_currency``: an account of a token's own, if that is limited to accounts; where it is not open a node knows by
    this alone what is about it.
    """

    id: bytes = b""
    account: bytes = b""
    currency: str = ""
    code: int | None = None
    kinds: list[int] = []
    refused: bool = False
    as_of_position: int | None = None
    as_of_time_ns: int | None = None
    from_ns: int = 0
    to_ns: int = 0
    after: int = 0
    limit: int = 100
    reverse: bool = False
    wait_for: int = 0
    log_id: str = ""
    own_name: str = ""
    own_currency: str = ""


class HistoryPage(msgspec.Struct, frozen=True):
    """The reply to both: PUSHED_EVENT records. ``next_after`` is 0 on the last page."""

    position: int
    timestamp_ns: int
    events: bytes
    next_after: int


class QueryHolds(msgspec.Struct, frozen=True):
    """Asks for open holds, of the ``account`` (16 bytes) that pays or, if it is empty, of all."""

    account: bytes = b""
    as_of_position: int | None = None
    as_of_time_ns: int | None = None
    after: int = 0
    limit: int = 100
    wait_for: int = 0
    log_id: str = ""


class HoldsPage(msgspec.Struct, frozen=True):
    """The reply: a PUSHED_EVENT record of each HOLD, and what remained of it, as int64."""

    position: int
    timestamp_ns: int
    events: bytes
    remaining: bytes
    next_after: int


class QueryTotals(msgspec.Struct, frozen=True):
    """Asks for the sums of every currency in use."""

    as_of_position: int | None = None
    as_of_time_ns: int | None = None
    wait_for: int = 0
    log_id: str = ""


class CurrencyTotals(msgspec.Struct, frozen=True):
    """Sums of one currency; amounts, in minor units, as decimal text because they may not fit in 64 bits."""

    currency: str
    decimals: int
    accounts_opened: int
    accounts_closed: int
    moves: int
    moved: str
    positive: str
    held: str


class TotalsAsOf(msgspec.Struct, frozen=True):
    """The reply: currencies in the order of registration."""

    position: int
    timestamp_ns: int
    totals: list[CurrencyTotals]


class CloseTime(msgspec.Struct, frozen=True):
    """Asks a leader to see to it that nothing is dated at ``time_ns`` or before any more; 0 asks what the time is."""

    time_ns: int = 0


class TimeClosed(msgspec.Struct, frozen=True):
    """It is so; and what the time of this shard is, and its last event: position (0 as its sequence: none) and time."""

    time_ns: int
    position: int
    timestamp_ns: int
