"""Compiled work on a batch whose transfers go to other shards: which are tries, and what was answered to them."""

# ruff: noqa: PLR0917 - plain arrays and integers as arguments are the point of a kernel

from typing import Final

from bezant.engine.compiled import kernel
from bezant.protocol.codes import ResultCode
from bezant.protocol.kinds import CommandKind, ResultFlag
from bezant.protocol.records import Records, Words

FOUND_NEW: Final = 0
FOUND_REPEATED: Final = 1
FOUND_EVENTS: Final = 2
FOUND_SIZE: Final = 3
"""Places of the counts that `find_tries` makes."""

_TRY_DEBIT: Final = int(CommandKind.TRY_DEBIT)
_COMMITTED: Final = int(ResultCode.COMMITTED)
_UNDECIDED: Final = int(ResultCode.UNDECIDED)
_REPEATED: Final = int(ResultFlag.REPEATED)
_SHARD_UNREACHABLE: Final = int(ResultCode.SHARD_UNREACHABLE)
_OPEN_FIRST: Final = 100
_OPEN_END: Final = 200


@kernel
def find_tries(results: Records, events: Records, new: Words, repeated: Words, tries: Words, found: Words) -> None:
    """Write the numbers of the results that say that a try stands, new or asked for again, and of the events of tries.

    Each array has room for the numbers of all results; of events that would be more, `found` tells all the same.
    """
    found[:] = 0
    for number in range(len(results)):
        if results[number]["code"] == _UNDECIDED:
            if results[number]["flags"] & _REPEATED:
                repeated[found[FOUND_REPEATED]] = number
                found[FOUND_REPEATED] += 1
            else:
                new[found[FOUND_NEW]] = number
                found[FOUND_NEW] += 1
    if found[FOUND_NEW] == 0:
        return
    for number in range(len(events)):
        if events[number]["kind"] == _TRY_DEBIT and events[number]["result"] == _COMMITTED:
            if found[FOUND_EVENTS] < len(tries):
                tries[found[FOUND_EVENTS]] = number
            found[FOUND_EVENTS] += 1


@kernel
def note_answers(results: Records, rows: Words, codes: Words, times: Words, latest_ns: int) -> int:
    """Note what was answered to the tries with these numbers, and when; returns how many are open still.

    -1, and nothing noted, for a time after `latest_ns`.
    """
    open_count = 0
    for number in range(len(results)):
        if results[number]["timestamp_ns"] > latest_ns:
            return -1
    for number in range(len(results)):
        code = results[number]["code"]
        codes[rows[number]] = code
        times[rows[number]] = results[number]["timestamp_ns"]
        if _OPEN_FIRST <= code < _OPEN_END:
            open_count += 1
    return open_count


@kernel
def write_outcomes(decided: Records, codes: Words, rows: Words, results: Records) -> int:
    """Write what clients are told of transfers: the results of their decisions, and what the other shard has answered.

    Into the results with these numbers. A shard that has not answered was not to be reached. Returns -1, or the number
    of a decision that was refused, or for which there is no result: then nothing of it, or behind it, is written.
    """
    for number in range(len(decided)):
        if decided[number]["code"] != _COMMITTED or not 0 <= rows[number] < len(results):
            return number
        decision, told, code = decided[number], results[rows[number]], codes[number]
        told["code"] = _SHARD_UNREACHABLE if _OPEN_FIRST <= code < _OPEN_END else code
        told["flags"] = 0
        told["detail"] = decision["detail"]
        told["position"] = decision["position"]
        told["timestamp_ns"] = decision["timestamp_ns"]
        told["effective_amount"] = decision["effective_amount"] if code == _COMMITTED else 0
        told["debit_balance"] = decision["debit_balance"]
        told["debit_held"] = decision["debit_held"]
        told["credit_balance"] = told["credit_held"] = 0
    return -1


@kernel
def has_repeats(results: Records) -> bool:
    """Whether any of the results repeats what was executed before."""
    flags = 0
    for number in range(len(results)):
        flags |= results[number]["flags"]
    return flags & _REPEATED != 0
