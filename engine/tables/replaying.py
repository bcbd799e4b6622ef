"""Goes through a history once and knows, behind each batch of events, every account, open hold and currency.

Accounts, holds and currencies are found by the kernels of the projections; what those leave in the log (balances, what
is held, limits, flags) is taken from the events here, whole batches at a time: an event says what it left of its
accounts, so the last one that touched an account is all that counts.
"""

from collections.abc import Iterable
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from bezant.engine.ledger.image import LedgerImage
from bezant.engine.ledger.ledger import new_salts
from bezant.engine.projections.kernels import take_events
from bezant.engine.projections.layout import (
    CHANGE_WORDS,
    COUNTER_POSTINGS,
    IDS_PER_EVENT,
    POSTINGS_PER_EVENT,
    SUMMARY_WORDS,
    BlockArrays,
)
from bezant.engine.projections.tables import Tables
from bezant.engine.tables.seeding import seed
from bezant.protocol.codes import ResultCode
from bezant.protocol.errors import CorruptLog
from bezant.protocol.kinds import COPY_OF, AccountFlag, CommandKind
from bezant.protocol.records import EVENT, EVENT_SIZE, Records, Words

BATCH_EVENTS_MAX: Final = 1 << 14
"""Events in a batch: 3 MiB."""
MOVES: Final = (
    CommandKind.TRANSFER,
    CommandKind.TRANSFER_AVAILABLE,
    CommandKind.CAPTURE,
    CommandKind.CONFIRM,
)
"""Kinds that move money."""
_OPENS: Final = (CommandKind.OPEN, CommandKind.MOVE_OPEN)
_STATE: Final = np.dtype(
    [
        ("balance", "<i8"),
        ("held", "<i8"),
        ("limit", "<i8"),
        ("opened_ns", "<i8"),
        ("last_sequence", "<i8"),
        ("event_count", "<i8"),
        ("frozen", "?"),
        ("closed", "?"),
    ]
)

Flags = npt.NDArray[np.bool_]


class Batch(NamedTuple):
    """Events that follow one another, and the numbers of their accounts; -1 where there was none (yet)."""

    first_sequence: int
    events: Records
    debit: Words
    credit: Words

    @property
    def moves(self) -> Flags:
        """Which events moved money: committed, and of a kind that does."""
        is_move = np.isin(self.events["kind"], [int(kind) for kind in MOVES])
        return np.asarray(is_move & (self.events["result"] == ResultCode.COMMITTED), np.bool_)


class Replay:
    """See the module. Events are to be given in order, each once."""

    def __init__(self) -> None:
        self.tables = Tables(new_salts())
        self.sequence = 0
        """Of the last event that was taken."""
        self.timestamp_ns = 0
        self._state = np.zeros(0, _STATE)
        size = BATCH_EVENTS_MAX
        self._arrays = BlockArrays(
            np.empty(POSTINGS_PER_EVENT * size, np.int64),
            np.empty(IDS_PER_EVENT * size, np.int64),
            np.empty(IDS_PER_EVENT * size, np.int64),
            np.empty((size, CHANGE_WORDS), np.int64),
            np.empty(size, np.int64),
            np.empty(size, np.uint32),
            np.zeros(SUMMARY_WORDS, np.int64),
        )

    def begin_behind(self, image: LedgerImage) -> None:
        """Begin behind the events that led to an image. What accounts are like (`states`) is not known then."""
        seed(self.tables, image)
        self.sequence, self.timestamp_ns = image.next_sequence - 1, image.last_timestamp_ns

    @property
    def states(self) -> Records:
        """What accounts are like, by their numbers: fields of `_STATE`."""
        return self._state[: self.tables.account_count]

    def take(self, events: Records) -> Batch:
        """Take the next events in, at most `BATCH_EVENTS_MAX`. Raises `CorruptLog` for what cannot follow."""
        count = len(events)
        events.flags.writeable = False  # kernels know one type
        words = events.view(np.int64).reshape(count, EVENT_SIZE // 8)
        tables, first = self.tables.make_room(count), self.sequence + 1
        self.tables.arrays.counters[COUNTER_POSTINGS:] = 0  # lists are for those who keep projections
        data = events.view(np.uint8)
        taken = take_events(tables, self._arrays, events, words, data, 0, count, 0, first, BATCH_EVENTS_MAX)
        if taken != count:
            raise CorruptLog(
                f"event {first - taken - 1} names an account, a currency or a hold that no event before it made; "
                "verify the log"
            )
        self.sequence += count
        self.timestamp_ns = int(events[-1]["timestamp_ns"])
        batch = self.batch_of(events, first)
        self._apply(batch)
        return batch

    def batch_of(self, events: Records, first: int) -> Batch:
        """Events that were taken in before, with the numbers of their accounts."""
        return Batch(first, events, self._numbers(events, "debit", first), self._numbers(events, "credit", first))

    def _numbers(self, events: Records, side: str, first: int) -> Words:
        """Numbers of the accounts on one side, -1 for those that were not open by then."""
        numbers = self.tables.numbers_of(np.stack([events[f"{side}_head"], events[f"{side}_tail"]], axis=1))
        if self.tables.account_count:
            opened = self.tables.opened_sequences(numbers)
            numbers[opened > np.arange(first, first + len(events))] = -1
        return numbers

    def _apply(self, batch: Batch) -> None:
        """Note what events left of their accounts."""
        count = self.tables.account_count
        if count > len(self._state):
            self._state = np.concatenate([self._state, np.zeros((1 << count.bit_length()) - len(self._state), _STATE)])
        state, events, kinds = self._state, batch.events, batch.events["kind"]
        committed = (events["result"] == ResultCode.COMMITTED) & (kinds < COPY_OF)
        opens = np.isin(kinds, [int(kind) for kind in _OPENS])
        sequences = np.arange(batch.first_sequence, batch.first_sequence + len(events))
        # Debit and credit by turns, so that the last one that touched an account is the last one written.
        numbers = np.stack([batch.debit, batch.credit], axis=1)
        # An event names the one before it on every account that it touches; an OPEN has none.
        touches_debit = committed & ((events["debit_previous"] != 0) | opens)
        touched = np.stack([touches_debit, committed & (events["credit_previous"] != 0)], axis=1)
        chosen = numbers[touched]
        for name in ("balance", "held"):
            state[name][chosen] = np.stack([events[f"debit_{name}"], events[f"credit_{name}"]], axis=1)[touched]
        state["last_sequence"][chosen] = np.stack([sequences, sequences], axis=1)[touched]
        np.add.at(state["event_count"], chosen, 1)
        for kind_set, name, values in (
            ((*_OPENS, CommandKind.SET_LIMIT), "limit", events["effective_amount"]),
            (_OPENS, "opened_ns", events["timestamp_ns"]),
            ((CommandKind.FREEZE, CommandKind.UNFREEZE), "frozen", kinds == CommandKind.FREEZE),
            ((CommandKind.CLOSE,), "closed", kinds == CommandKind.CLOSE),
            ((CommandKind.MOVE_OPEN,), "frozen", events["code"] & int(AccountFlag.FROZEN) != 0),
            ((CommandKind.MOVE_OPEN,), "closed", events["code"] & int(AccountFlag.CLOSED) != 0),
        ):
            which = committed & np.isin(kinds, [int(kind) for kind in kind_set])
            state[name][batch.debit[which]] = values[which]


def joined(bodies: Iterable["bytes | memoryview"]) -> Records:
    """Events of entries that follow one another, in memory of their own."""
    return np.frombuffer(b"".join(bodies), EVENT)
