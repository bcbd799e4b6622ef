"""Holds what clients were told against what the nodes have: lost, repeated, changed, reordered, unexplained.

- Each transfer that was acknowledged is in the history exactly once, with the accounts and the amount that it was asked
  with and the outcome and balances that were told; each of unknown outcome at most once; and none of which a client was
  told that it was not executed.
- What was answered before another was asked lies before it (Herlihy and Wing, "Linearizability", TOPLAS 1990: one
  object, whose history is the log).
- Nothing else is there but the openings of the accounts, and every balance is the sum of what moved.
"""

from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from bezant.perf.crash.faults import FaultKind, Faults
from bezant.perf.failover.book import OUTCOME_FIELDS, UNANSWERED, UNKNOWN, Book
from bezant.perf.failover.history import History
from bezant.protocol.codes import ResultCode
from bezant.protocol.kinds import CommandKind
from bezant.protocol.records import Records, Words

_NO_ANSWER_NS: Final = np.iinfo(np.int64).max
Flags = npt.NDArray[np.bool_]


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """What was held against each other; faults are counted elsewhere.

    ``unknown_found`` and ``unknown_absent``: transfers of which no outcome was told, that are there or not.
    """

    acknowledged: int
    unknown_found: int
    unknown_absent: int
    events: int


def check(book: Book, history: History, faults: Faults) -> Checked:
    """Add to `faults` whatever contradicts the book, which must have an end for every transfer."""
    answers, events = book.answers, history.events
    is_ours = (events["id_head"] == book.prefix) & (events["kind"] == CommandKind.TRANSFER)
    rows: Words = events["id_tail"][is_ours]
    is_known = (rows >= 0) & (rows < len(book))
    _add(faults, FaultKind.UNEXPLAINED, rows[~is_known], "the event of transfer {} is there, which was never asked for")
    _check_openings(book, events[~is_ours], faults)
    rows, ours = rows[is_known], events[is_ours][is_known]
    positions: Words = history.positions[is_ours][is_known]
    counts = np.bincount(rows, minlength=len(book))
    _add(faults, FaultKind.REPEATED, np.flatnonzero(counts > 1), "transfer {} is there more than once")
    acknowledged = book.left_events
    _add(
        faults,
        FaultKind.MISSING,
        np.flatnonzero(acknowledged & (counts == 0)),
        "transfer {} was acknowledged, and is not there",
    )
    _add(
        faults,
        FaultKind.CHANGED,
        np.flatnonzero(book.left_nothing & (counts > 0)),
        "transfer {} was answered as not executed, and is there",
    )
    _check_contents(book, rows, ours, faults)
    _check_outcomes(book, rows, ours, positions, faults)
    _check_order(book, faults)
    _check_balances(events, faults)
    open_ended = np.isin(answers["code"], (UNANSWERED, UNKNOWN))
    return Checked(
        acknowledged=int(np.count_nonzero(acknowledged)),
        unknown_found=int(np.count_nonzero(open_ended & (counts > 0))),
        unknown_absent=int(np.count_nonzero(open_ended & (counts == 0))),
        events=len(events),
    )


def _add(faults: Faults, kind: FaultKind, rows: Words, text: str) -> None:
    """Add a fault for these rows, if there are any; the first is told."""
    if len(rows):
        faults.add(kind, text.format(rows[0]), len(rows))


def _check_openings(book: Book, others: Records, faults: Faults) -> None:
    """What is not one of our transfers opens one of our accounts, each once."""
    heads, tails = others["debit_head"], others["debit_tail"]
    expected = {(int(head), int(tail)) for head, tail in book.account_words}
    is_opening = np.array(
        [
            kind == CommandKind.OPEN and code == ResultCode.COMMITTED and (int(head), int(tail)) in expected
            for kind, code, head, tail in zip(others["kind"], others["result"], heads, tails, strict=True)
        ],
        np.bool_,
    )
    strange = others[~is_opening]
    _add(faults, FaultKind.UNEXPLAINED, strange["kind"], "an event of kind {} is there, which was never asked for")
    opened = list(zip(heads[is_opening].tolist(), tails[is_opening].tolist(), strict=True))
    if len(opened) != len(set(opened)):
        faults.add(FaultKind.REPEATED, "an account was opened twice", len(opened) - len(set(opened)))
    if set(opened) != expected:
        faults.add(FaultKind.MISSING, "an account is not there that was opened", len(expected - set(opened)))


def _check_contents(book: Book, rows: Words, events: Records, faults: Faults) -> None:
    """Events hold the transfers as they were asked for."""
    debit, credit, amount = book.asked(rows)
    words = book.account_words
    same = (
        (events["debit_head"] == words[debit, 0])
        & (events["debit_tail"] == words[debit, 1])
        & (events["credit_head"] == words[credit, 0])
        & (events["credit_tail"] == words[credit, 1])
        & (events["amount"] == amount)
        & (events["flags"] == 0)
    )
    same &= (events["effective_amount"] == amount) | (events["result"] != ResultCode.COMMITTED)
    _add(faults, FaultKind.CHANGED, rows[~same], "the event of transfer {} is not what was asked for")


def _check_outcomes(book: Book, rows: Words, events: Records, positions: Words, faults: Faults) -> None:
    """Acknowledged transfers came to what was told."""
    told = book.answers[rows]
    same: Flags = (told["code"] == events["result"]) & (told["position"] == positions)
    for name in OUTCOME_FIELDS:
        same &= told[name] == events[name]
    wrong = rows[book.left_events[rows] & ~same]
    _add(faults, FaultKind.CHANGED, np.unique(wrong), "the outcome of transfer {} is not the one that was told")


def _check_order(book: Book, faults: Faults) -> None:
    """What was answered before another was asked has the lower position."""
    rows = np.flatnonzero(book.left_events)
    if not len(rows):
        return
    answers = book.answers[rows]
    by_answer = np.argsort(answers["answered_ns"], kind="stable")
    highest = np.maximum.accumulate(answers["position"][by_answer])
    before = np.searchsorted(answers["answered_ns"][by_answer], answers["sent_ns"], side="left")
    bound = np.where(before > 0, highest[np.maximum(before, 1) - 1], 0)
    wrong = rows[answers["position"] <= bound]
    _add(faults, FaultKind.REORDERED, wrong, "transfer {} lies before one that was answered when it was asked for")


def _check_balances(events: Records, faults: Faults) -> None:
    """Every balance in the history is the sum of what moved until then."""
    moved = events[(events["kind"] == CommandKind.TRANSFER) & (events["result"] == ResultCode.COMMITTED)]
    if not len(moved):
        return

    def both(name: str) -> Words:
        return np.concatenate([moved[f"debit_{name}"], moved[f"credit_{name}"]])

    # Two steps for each transfer, one for each account; then the steps of each account lie side by side, in order.
    moves = np.tile(np.arange(len(moved)), 2)
    heads, tails = both("head"), both("tail")
    changes = np.concatenate([-moved["effective_amount"], moved["effective_amount"]])
    order = np.lexsort((moves, tails, heads))
    moves, heads, tails, changes = moves[order], heads[order], tails[order], changes[order]
    is_first = np.ones(len(order), np.bool_)
    is_first[1:] = (heads[1:] != heads[:-1]) | (tails[1:] != tails[:-1])
    starts = np.flatnonzero(is_first)
    totals = np.cumsum(changes)
    earlier = np.repeat(totals[starts] - changes[starts], np.diff(np.append(starts, len(order))))
    wrong = np.unique(moves[totals - earlier != both("balance")[order]])
    _add(faults, FaultKind.CHANGED, wrong, "a balance after move {} is not the sum of all moves")
