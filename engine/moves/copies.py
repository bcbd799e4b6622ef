"""Copies of another shard's events, from which a ledger knows the ids that were used in a slot before it came.

A copy has the kind of the first event plus COPY_OF, and what that one said, but:

    client_timestamp_ns   its time (of an imported one it was that already)
    credit_previous       its position
    event_reserved        what became of the hold or try that it made: its fate
    debit_previous        the sequence of the event, or copy, that this ledger knows the id by already; 0 if it does not

It touches no account and is no news to anybody: it is there to be found by its id.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from bezant.protocol.codes import ResultCode
from bezant.protocol.kinds import COPY_OF, CommandFlag, CommandKind, ResultFlag
from bezant.protocol.records import Records, Words, position_of

COPY_MARK: Final = 1
"""`event_reserved` of an event that was made out of a copy: its `credit_previous` is its position."""
MOVING_KINDS: Final = (
    CommandKind.MOVE_OPEN,
    CommandKind.MOVE_IN,
    CommandKind.MOVE_OUT,
    CommandKind.MOVE_HOLD_IN,
    CommandKind.MOVE_HOLD_OUT,
)
WITH_FATE: Final = (CommandKind.HOLD, CommandKind.TRY_DEBIT, CommandKind.TRY_CREDIT, CommandKind.TRY_PART)
"""Kinds whose events make something of which something becomes."""
MOVING_FIRST: Final = int(min(MOVING_KINDS))
"""From here on kinds of events are those that no command makes, but a move of slots."""


def is_copy(events: Records) -> npt.NDArray[np.bool_]:
    """Which events are copies."""
    return np.asarray(events["kind"] >= COPY_OF, np.bool_)


def as_copies(events: Records, positions: Words, fates: Words) -> Records:
    """Copies of events (not of copies) at these positions, whose holds or tries have these fates."""
    copies = events.copy()
    copies["kind"] += COPY_OF
    copies["client_timestamp_ns"] = events["timestamp_ns"]
    copies["timestamp_ns"] = 0
    copies["credit_previous"] = positions
    copies["event_reserved"] = fates
    copies["debit_previous"] = 0
    return copies


def without_copies(events: Records) -> Records:
    """These events, each copy as the event that it is a copy of: with COPY_MARK, and without back-pointers."""
    copied = is_copy(events)
    if not copied.any():
        return events
    restored = events.copy()
    rows = np.flatnonzero(copied)
    restored["kind"][rows] -= COPY_OF
    restored["timestamp_ns"][rows] = events["client_timestamp_ns"][rows]
    imported = events["flags"][rows] & int(CommandFlag.IMPORTED) != 0
    restored["client_timestamp_ns"][rows] = np.where(imported, events["client_timestamp_ns"][rows], 0)
    restored["event_reserved"][rows] = COPY_MARK
    restored["debit_previous"][rows] = 0
    return restored


def positions_of(shard: int, sequences: Words, events: Records) -> Words:
    """The positions of events that were found under these sequences: of what was a copy, where it was first."""
    own = position_of(shard, 0) + sequences
    return np.asarray(np.where(events["event_reserved"] == COPY_MARK, events["credit_previous"], own), np.int64)


def unmarked(events: Records) -> Records:
    """Events as they are told to others: without COPY_MARK, and what goes with it."""
    marked = events["event_reserved"] == COPY_MARK
    if not marked.any():
        return events
    told = events.copy()
    told["event_reserved"][marked] = 0
    told["credit_previous"][marked] = 0
    return told


def tell_first_positions(shard: int, originals: Records, sequences: Words, results: Records) -> None:
    """Answer repeats of what was executed in another shard, before its slot came here, with the position there.

    `originals` are the events, with these sequences, from which any of the results (RESULT) were made.
    """
    marked = np.flatnonzero(originals["event_reserved"] == COPY_MARK) if len(originals) else ()
    if not len(marked):
        return
    own = (position_of(shard, 0) + sequences[marked]).tolist()
    first_of = dict(zip(own, originals["credit_previous"][marked].tolist(), strict=True))
    told = (results["flags"] & int(ResultFlag.REPEATED) != 0) | (results["code"] == int(ResultCode.ID_CONFLICT))
    for row in np.flatnonzero(told).tolist():
        position = int(results["position"][row])
        results["position"][row] = first_of.get(position, position)
