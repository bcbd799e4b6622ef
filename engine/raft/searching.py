"""Where two logs part. Terms never fall along a log, so all of this is found by halving (the paper, section 5.3)."""

from bezant.engine.raft.interface import LogView
from bezant.protocol.errors import LedgerError
from bezant.protocol.raft_messages import Append, TermRun


def known_term(log: LogView, index: int) -> int:
    """The term of an entry that must be there. Raises `LedgerError` if it is not."""
    term = log.term_at(index)
    if term is None:
        raise LedgerError(f"entry {index} is missing: the log has {log.first_index} to {log.last_index}")
    return term


def last_index_of_term(log: LogView, floor: int, index: int, term: int) -> int:
    """The last entry at or before `index` whose term is at most `term`; `floor` if that is not above it."""
    low, high = floor, min(index, log.last_index)
    while low < high:
        middle = (low + high + 1) // 2
        found = log.term_at(middle)
        if found is None or found <= term:
            low = middle
        else:
            high = middle - 1
    return max(low, floor)


def term_runs(log: LogView, first_index: int, last_index: int, runs_max: int) -> tuple[TermRun, ...]:
    """The terms of the entries first_index..last_index, which must be there: the first `runs_max` that differ."""
    last_term = known_term(log, last_index)
    runs: list[TermRun] = []
    while first_index <= last_index and len(runs) < runs_max:
        term = known_term(log, first_index)
        runs.append(TermRun(first_index, term))
        if term == last_term:
            break
        first_index = last_index_of_term(log, first_index, last_index, term) + 1
    return tuple(runs)


def term_in(message: Append, index: int) -> int:
    """The term that the leader's log has at `index`, between the message's `prev_index` and `last_index`."""
    return next((run.term for run in reversed(message.runs) if run.first_index <= index), message.prev_term)


def first_difference(log: LogView, prev_index: int, runs: tuple[TermRun, ...], last_index: int) -> int:
    """The first of the entries prev_index + 1..last_index, of these terms, that the log does not have.

    It has `prev_index`. Two logs that have the same term at an index are the same up to it, so within a run the entries
    that the log has come first.
    """
    known = min(last_index, log.last_index)
    if prev_index >= known:
        return prev_index + 1
    for number, run in enumerate(runs):
        end = runs[number + 1].first_index - 1 if number + 1 < len(runs) else last_index
        if end <= prev_index:
            continue
        if end <= known and log.term_at(end) == run.term:
            continue
        low, high = max(run.first_index - 1, prev_index), min(end, known)
        while low < high:
            middle = (low + high + 1) // 2
            if log.term_at(middle) == run.term:
                low = middle
            else:
                high = middle - 1
        return low + 1
    return last_index + 1
