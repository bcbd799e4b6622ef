"""What questions to the history take and give. Sequences here; whoever talks to clients makes positions of them."""

from typing import Final, NamedTuple

from bezant.engine.projections.reading import Moment
from bezant.protocol.kinds import CommandKind
from bezant.protocol.records import Records, Words

LINES_MAX: Final = 4096
"""Lines in one page of an answer."""


class AccountsAnswer(NamedTuple):
    """`records` are ACCOUNT records, as look-ups give them, in the order of the ids asked for."""

    moment: Moment
    records: Records


class Page(NamedTuple):
    """Lines of an answer: sequences and EVENT records, in the order asked for.

    `next_after` is what to give as `after` for the next page, with the same moment; 0 if this was the last one. It may
    come with no lines at all, when a search has looked at much and found nothing yet.
    """

    moment: Moment
    sequences: Words
    events: Records
    next_after: int


class HoldsPage(NamedTuple):
    """Open holds in the order in which they were made: sequence and EVENT record of each HOLD, and what remains."""

    moment: Moment
    sequences: Words
    events: Records
    remaining: Words
    next_after: int


class Totals(NamedTuple):
    """Sums of one currency. The balances of each add up to zero; `positive` is the sum of those above, so the sum of
    those below is as much with the sign changed. Amounts in minor units, not bounded to 64 bits."""

    currency: str
    decimals: int
    accounts_opened: int
    accounts_closed: int
    moves: int
    """Transfers and captures that were committed."""
    moved: int
    positive: int
    held: int


class Range(NamedTuple):
    """Which part of a history is asked for: from a time on (ns, inclusive), up to a time (ns, exclusive); 0: no bound.

    `after`: the sequence of the last line of the page before; 0: from the beginning. `limit`: lines, at most.
    """

    from_ns: int = 0
    to_ns: int = 0
    after: int = 0
    limit: int = 100
    reverse: bool = False


class Filter(NamedTuple):
    """Which events a search wants: all that is given must hold. Words of an account's id; a currency by its code."""

    account: tuple[int, int] | None = None
    currency: str = ""
    code: int | None = None
    kinds: tuple[CommandKind, ...] = (
        CommandKind.TRANSFER,
        CommandKind.TRANSFER_AVAILABLE,
        CommandKind.CAPTURE,
        CommandKind.CONFIRM,
    )
    """None of them: any kind."""
    refused: bool = False
    """Whether events that were refused are wanted, too."""
