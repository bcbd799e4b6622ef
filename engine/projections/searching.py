"""Events that match a filter, page by page: through the list of an account, or block by block."""

from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from bezant.engine.projections.answers import Filter, Page, Range
from bezant.engine.projections.kernels import bit_of_code, find_accounts
from bezant.engine.projections.layout import (
    ACCOUNT_CURRENCY,
    LIST_ALL,
    SUMMARY_CODES,
    SUMMARY_COUNT,
    SUMMARY_CURRENCIES,
    SUMMARY_FIRST,
    SUMMARY_KINDS,
)
from bezant.engine.projections.projections import View
from bezant.engine.projections.queries import Questions, page_limit
from bezant.engine.projections.reading import EVENTS_AT_A_TIME, Moment, spans_within, walk_list
from bezant.protocol.codes import ResultCode
from bezant.protocol.errors import UsageError
from bezant.protocol.records import Records, Words

LIST_EVENTS_MAX: Final = 1 << 13
"""Events of an account that are looked at for one page; each is read singly."""
SCAN_EVENTS_MAX: Final = 1 << 18
"""Events that are looked at for one page where they lie side by side."""


class _Wanted(NamedTuple):
    """A filter, with everything looked up."""

    account: tuple[int, int] | None
    account_number: int
    currency: int
    """Number of the currency, or -1 for any."""
    code: int | None
    kinds: tuple[int, ...]
    refused: bool


def find_transfers(questions: Questions, view: View, wanted: Filter, moment: Moment, part: Range) -> Page:
    """Events that match, up to a moment, in order or backwards.

    A page may be short, or empty, and not be the last: one ends where it has looked at enough. Raises `UsageError`.
    """
    limit = page_limit(part.limit)
    low, high = questions.bounds(view, moment, part)
    looked_up = _look_up(questions, view, wanted)
    if looked_up is None:
        return questions.page(view, moment, np.zeros(0, np.int64), limit, False)
    by_list = looked_up.account is not None and not looked_up.refused
    if by_list:
        pieces = walk_list(view, looked_up.account_number, LIST_ALL, low, high, reverse=part.reverse)
        budget = LIST_EVENTS_MAX
    else:
        pieces, budget = _walk_blocks(view, looked_up, low, high, part.reverse), SCAN_EVENTS_MAX
    found: list[Words] = []
    events: list[Records] = []
    count, next_after = 0, 0
    for piece in _small(pieces, limit, budget):
        ascending = piece[::-1] if part.reverse else piece
        read = questions.reader.read(view, np.ascontiguousarray(ascending))
        read = read[::-1] if part.reverse else read
        hits = np.flatnonzero(_matches(view, looked_up, read))[: limit - count]
        found.append(piece[hits])
        events.append(read[hits])
        count += len(hits)
        budget -= len(piece)
        last = int(piece[hits[-1]]) if count == limit and len(hits) else int(piece[-1])
        if count == limit or budget <= 0:
            is_end = last <= low if part.reverse else last >= high
            next_after = 0 if is_end else last
            break
    if not found:
        return questions.page(view, moment, np.zeros(0, np.int64), limit, False)
    return Page(moment, np.concatenate(found), np.concatenate(events), next_after)


def _look_up(questions: Questions, view: View, wanted: Filter) -> _Wanted | None:
    """None if nothing can match: nobody opened the account, or no such currency is registered."""
    number, currency = -1, -1
    if wanted.account is not None:
        number = questions.account_number(view, wanted.account)
        if number < 0 and not wanted.refused:
            return None
    if wanted.currency:
        codes = [code for code, _ in view.currencies]
        if wanted.currency not in codes:
            return None
        currency = codes.index(wanted.currency)
    if wanted.code is not None and not -(2**31) <= wanted.code < 2**31:
        raise UsageError(f"a code has 32 bits; {wanted.code} has more")
    kinds = tuple(int(kind) for kind in wanted.kinds)
    return _Wanted(wanted.account, number, currency, wanted.code, kinds, wanted.refused)


def _small(pieces: Iterator[Words], limit: int, budget: int) -> Iterator[Words]:
    """The same in pieces that begin small, so that a page that is found at once reads no more than it needs."""
    size = min(max(2 * limit, 64), EVENTS_AT_A_TIME)
    for piece in pieces:
        start = 0
        while start < len(piece):
            yield piece[start : start + size]
            start += size
            size = min(4 * size, EVENTS_AT_A_TIME, budget)


def _walk_blocks(view: View, wanted: _Wanted, low: int, high: int, reverse: bool) -> Iterator[Words]:
    """The events, a block at a time, of the blocks that the filter does not rule out."""
    spans = spans_within(view, low, high)
    kinds = sum(1 << kind for kind in wanted.kinds)
    code = -1 if wanted.code is None else 1 << int(bit_of_code(wanted.code))
    currency = 1 << (max(wanted.currency, 0) & 63)
    for span in reversed(spans) if reverse else spans:
        summaries = span.lists.summaries
        for row in (summaries[::-1] if reverse else summaries).tolist():
            first, last = max(row[SUMMARY_FIRST], low), min(row[SUMMARY_FIRST] + row[SUMMARY_COUNT] - 1, high)
            is_possible = (not kinds or row[SUMMARY_KINDS] & kinds) and row[SUMMARY_CODES] & code
            # A block has no currency at all if none of its events names an account that there is.
            if first > last or not is_possible or not (wanted.currency < 0 or row[SUMMARY_CURRENCIES] & currency):
                continue
            for start in range(first, last + 1, EVENTS_AT_A_TIME):
                piece = np.arange(start, min(start + EVENTS_AT_A_TIME, last + 1))
                yield piece[::-1] if reverse else piece


def _matches(view: View, wanted: _Wanted, events: Records) -> npt.NDArray[np.bool_]:
    """Which events match."""
    match = np.ones(len(events), np.bool_)
    if not wanted.refused:
        match &= events["result"] == ResultCode.COMMITTED
    if wanted.kinds:
        match &= np.isin(events["kind"], wanted.kinds)
    if wanted.code is not None:
        match &= events["code"] == wanted.code
    if wanted.account is not None:
        head, tail = wanted.account
        match &= ((events["debit_head"] == head) & (events["debit_tail"] == tail)) | (
            (events["credit_head"] == head) & (events["credit_tail"] == tail)
        )
    if wanted.currency >= 0:
        ids = np.ascontiguousarray(np.stack([events["debit_head"], events["debit_tail"]], axis=1))
        numbers = np.empty(len(ids), np.int64)
        find_accounts(view.tables, ids, numbers)
        currencies = view.tables.accounts[np.maximum(numbers, 0), ACCOUNT_CURRENCY]
        match &= (numbers >= 0) & (currencies == wanted.currency)
    return match
