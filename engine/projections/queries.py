"""Questions to the history, each as of a stated moment: the answer does not change any more, whatever comes later.

Complexity: an account as of a moment takes a search in each file from the newest one back until it is found; a page of
a statement the same, and a read for each line. `find_transfers` without an account reads the events of the blocks that
its filter does not rule out, a bounded number a page. Holds as of a moment take all changes of holds since.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from bezant.engine.hashing import mix_words
from bezant.engine.projections.answers import LINES_MAX, AccountsAnswer, HoldsPage, Page, Range, Totals
from bezant.engine.projections.kernels import find_accounts
from bezant.engine.projections.layout import (
    ACCOUNT_CURRENCY,
    ACCOUNT_NAME,
    ACCOUNT_OPENED,
    CHANGE_ACCOUNT,
    CHANGE_AFTER,
    CHANGE_BEFORE,
    CHANGE_HOLD,
    CHANGE_SEQUENCE,
    HOLD_ACCOUNT,
    HOLD_REMAINING,
    HOLD_SEQUENCE,
    LIST_ALL,
    LIST_BITS,
    LIST_FLAGS,
    LIST_LIMIT,
    TOTAL_CLOSED,
    TOTAL_CURRENCY,
    TOTAL_HELD,
    TOTAL_MOVED,
    TOTAL_MOVES,
    TOTAL_OPENED,
    TOTAL_POSITIVE,
    TOTAL_SEQUENCE,
)
from bezant.engine.projections.projections import Projections, View
from bezant.engine.projections.reading import (
    EventReader,
    Moment,
    NotKnownYet,
    ReadEvents,
    last_of_lists,
    sequence_at,
    span_of,
    spans_within,
    walk_list,
)
from bezant.protocol.codes import ResultCode
from bezant.protocol.errors import CorruptLog, UsageError
from bezant.protocol.kinds import AccountFlag, CommandFlag, CommandKind
from bezant.protocol.names import currency_word
from bezant.protocol.records import ACCOUNT, EVENT, Records, Words, position_of, split_position

ACCOUNTS_MAX: Final = 6553
"""Accounts in one question."""
EVENTS_AT_ONCE: Final = 256
"""Events that are read at a time, at least, when one looks for ids."""

_NS_PER_S: Final = 10**9
_MOVES: Final = (
    int(CommandKind.TRANSFER),
    int(CommandKind.TRANSFER_AVAILABLE),
    int(CommandKind.CAPTURE),
    int(CommandKind.CONFIRM),
)
_COUNTED: Final = (int(CommandKind.OPEN), int(CommandKind.CLOSE), *_MOVES)
"""Kinds that sums are made of, besides what is held."""
_REFERRING: Final = (
    int(CommandKind.CAPTURE),
    int(CommandKind.RELEASE),
    int(CommandKind.EXPIRE),
    int(CommandKind.CONFIRM),
    int(CommandKind.CANCEL),
)


def _has_any(events: Records, field: str, identifiers: Sequence[tuple[int, int]]) -> npt.NDArray[np.bool_]:
    """Which events have one of these ids in a field."""
    wanted = set(identifiers)
    pairs = zip(events[f"{field}_head"].tolist(), events[f"{field}_tail"].tolist(), strict=True)
    return np.fromiter((pair in wanted for pair in pairs), np.bool_, len(events))


class AsOf(NamedTuple):
    """A moment, as a question states it: a position, or a time (ns since 1970), or neither for now."""

    position: int | None = None
    time_ns: int | None = None


class Questions:
    """Asks the projections of one shard. May be used by any thread, while another one feeds them."""

    def __init__(self, projections: Projections, read_events: ReadEvents, shard: int = 0) -> None:
        """`read_events` is that of the log that the projections are fed from; none but this object may call it."""
        self._projections = projections
        self._shard = shard
        self.reader = EventReader(read_events, projections.condemn)

    def view(self) -> View:
        """What is known now: questions that are given the same view agree with one another."""
        return self._projections.view()

    # ---- moments ----

    def moment(self, view: View, as_of: AsOf) -> Moment:
        """The moment that a question is as of.

        Raises `NotKnownYet` for one that lies ahead of what is known, `UsageError` for what is none of this log.
        """
        if as_of.position is not None:
            if as_of.time_ns is not None:
                raise UsageError("a question is as of a position or as of a time, not both")
            return self._moment_of(view, self.sequence_of(view, as_of.position))
        if as_of.time_ns is None:
            return Moment(view.sequence, view.timestamp_ns)
        if as_of.time_ns < 0:
            raise UsageError(f"{as_of.time_ns} is no time: it is before 1970")
        if as_of.time_ns > view.timestamp_ns:
            raise NotKnownYet(
                f"the time asked for is {(as_of.time_ns - view.timestamp_ns) / _NS_PER_S:.9f} s after the last event "
                "that is known here: what was then is not known yet. Ask for an earlier time, or for now"
            )
        return self._moment_of(view, sequence_at(view, self.reader, as_of.time_ns))

    def sequence_of(self, view: View, position: int) -> int:
        """The sequence of a position. Raises as `moment` does."""
        shard, sequence = split_position(position)
        if shard != self._shard:
            raise UsageError(f"position {position} is none of this log: it belongs to another shard")
        if sequence > view.sequence:
            raise NotKnownYet(
                f"position {position} is ahead of the last one known here, {position_of(self._shard, view.sequence)}: "
                "it is of another log, or not known yet"
            )
        return sequence

    def _moment_of(self, view: View, sequence: int) -> Moment:
        if sequence in (0, view.sequence):
            return Moment(sequence, view.timestamp_ns if sequence else 0)
        return Moment(sequence, int(self.reader.read(view, np.array([sequence]))[0]["timestamp_ns"]))

    # ---- accounts ----

    def accounts(self, view: View, ids: Words, moment: Moment) -> AccountsAnswer:
        """Accounts as they were, by their ids (count, 2): ACCOUNT records; zeros for one that was not open yet, or
        that nobody ever opened."""
        if len(ids) > ACCOUNTS_MAX:
            raise UsageError(f"{len(ids)} accounts in one question; it may have {ACCOUNTS_MAX}")
        records = np.zeros(len(ids), ACCOUNT)
        numbers = self._numbers(view, ids)
        rows = view.tables.accounts[np.maximum(numbers, 0)]
        there = np.flatnonzero((numbers >= 0) & (rows[:, ACCOUNT_OPENED] <= moment.sequence))
        if not len(there):
            return AccountsAnswer(moment, records)
        keys = numbers[there] << LIST_BITS
        last, counts = last_of_lists(view, keys | LIST_ALL, moment.sequence)
        limits, _ = last_of_lists(view, keys | LIST_LIMIT, moment.sequence)
        flags, _ = last_of_lists(view, keys | LIST_FLAGS, moment.sequence)
        events = _Events(self.reader, view, np.concatenate([last, limits, flags]))
        chosen, row = records[there], rows[there]
        chosen["id_head"], chosen["id_tail"] = ids[there, 0], ids[there, 1]
        found = events.of(last)
        is_debit = _is_side(found, "debit", chosen)
        wrong = np.flatnonzero(~is_debit & ~_is_side(found, "credit", chosen))
        if len(wrong):
            raise self.reader.damaged(span_of(view, int(last[wrong[0]])), "it leads to an event of other accounts")
        chosen["balance"] = np.where(is_debit, found["debit_balance"], found["credit_balance"])
        chosen["held"] = np.where(is_debit, found["debit_held"], found["credit_held"])
        chosen["limit"] = events.of(limits)["effective_amount"]
        chosen["flags"] = self._flags(view, events, keys, flags)
        # Nobody can change the limit of a transit account.
        opened = events.of(limits)
        is_transit = (opened["kind"] == CommandKind.OPEN) & (opened["flags"] & int(CommandFlag.TRANSIT) != 0)
        chosen["flags"] |= is_transit * int(AccountFlag.TRANSIT)
        self._describe(view, chosen, row, last, counts)
        records[there] = chosen
        return AccountsAnswer(moment, records)

    def _describe(self, view: View, records: Records, rows: Words, last: Words, counts: Words) -> None:
        """Fill in what does not change, and where the account stands in the history."""
        base = position_of(self._shard, 0)
        words = np.array([currency_word(code) for code, _ in view.currencies], np.int64)
        decimals = np.array([decimals for _, decimals in view.currencies], np.int64)
        records["currency"] = words[rows[:, ACCOUNT_CURRENCY]]
        records["decimals"] = decimals[rows[:, ACCOUNT_CURRENCY]]
        records["last_position"] = base + last
        records["event_count"] = counts
        records["opened_position"] = base + rows[:, ACCOUNT_OPENED]
        records["found"] = 1
        records["name"] = np.ascontiguousarray(rows[:, ACCOUNT_NAME:]).view("S48").reshape(len(rows))

    def _flags(self, view: View, events: "_Events", keys: Words, sequences: Words) -> Words:
        """Flags of accounts, given the last events that set any; a closed account may have been frozen before."""
        kinds = np.where(sequences > 0, events.of(sequences)["kind"], 0)
        flags = np.where(kinds == CommandKind.FREEZE, int(AccountFlag.FROZEN), 0)
        flags = np.where(kinds == CommandKind.MOVE_OPEN, events.of(sequences)["code"], flags)
        for place in np.flatnonzero(kinds == CommandKind.CLOSE).tolist():
            before, _ = last_of_lists(view, keys[place : place + 1] | LIST_FLAGS, int(sequences[place]) - 1)
            frozen = before[0] > 0 and _freezes(self.reader.read(view, before)[0])
            flags[place] = int(AccountFlag.CLOSED) | (int(AccountFlag.FROZEN) if frozen else 0)
        return flags

    def _numbers(self, view: View, ids: Words) -> Words:
        numbers = np.empty(len(ids), np.int64)
        find_accounts(view.tables, np.array(ids, np.int64), numbers)  # a copy, so that kernels know one type
        return numbers

    def account_number(self, view: View, identifier: tuple[int, int]) -> int:
        """The number of an account; -1 if nobody opened it."""
        return int(self._numbers(view, np.array([identifier], np.int64))[0])

    # ---- statements ----

    def statement(self, view: View, identifier: tuple[int, int], moment: Moment, wanted: Range) -> Page:
        """The events that touched an account, up to a moment. No lines if there is no such account."""
        number = self.account_number(view, identifier)
        low, high = self.bounds(view, moment, wanted)
        limit = page_limit(wanted.limit)
        chosen: list[Words] = []
        count = 0
        if number >= 0:
            for piece in walk_list(view, number, LIST_ALL, low, high, reverse=wanted.reverse):
                chosen.append(piece[: limit + 1 - count])
                count += len(chosen[-1])
                if count > limit:
                    break
        sequences = np.concatenate(chosen) if chosen else np.zeros(0, np.int64)
        return self.page(view, moment, sequences, limit, wanted.reverse)

    def bounds(self, view: View, moment: Moment, wanted: Range) -> tuple[int, int]:
        """First and last sequence that a range has, up to a moment."""
        if min(wanted.from_ns, wanted.to_ns) < 0:
            raise UsageError("a range of time begins and ends after 1970")
        low, high = 1, moment.sequence
        if wanted.from_ns:
            low = sequence_at(view, self.reader, wanted.from_ns - 1) + 1
        if wanted.to_ns:
            high = min(high, sequence_at(view, self.reader, wanted.to_ns - 1))
        if wanted.after:
            low, high = (low, min(high, wanted.after - 1)) if wanted.reverse else (max(low, wanted.after + 1), high)
        return low, high

    def page(self, view: View, moment: Moment, sequences: Words, limit: int, reverse: bool) -> Page:
        """A page of events, of one more than which at most it is known that they come."""
        more = len(sequences) > limit
        sequences = sequences[:limit]
        order = sequences[::-1] if reverse else sequences
        events = self.reader.read(view, np.ascontiguousarray(order))
        return Page(moment, sequences, events[::-1] if reverse else events, int(sequences[-1]) if more else 0)

    # ---- by id ----

    def transfer(
        self,
        view: View,
        identifiers: Sequence[tuple[int, int]],
        moment: Moment,
        wanted: Range,
        is_told: Callable[[Records], npt.NDArray[np.bool_]] | None = None,
    ) -> Page:
        """The events that have one of these ids, one for each slot of debit accounts in which it was used; and those
        that name it as the hold or try that they end.

        `is_told` says of which events whoever asks is told. The others leave no trace, not even in where the next page
        begins. None: of all.
        """
        hashes_wanted = np.array([mix_words(*one, 1, *view.salts) for one in identifiers], np.int64)
        try:
            _, values = view.runs.find(hashes_wanted, np.zeros(len(hashes_wanted), np.int64), len(hashes_wanted))
        except CorruptLog as error:
            raise self._projections.damaged_ids(error) from error
        found = [values, *(sequences[np.isin(hashes, hashes_wanted)] for hashes, sequences in view.unsealed)]
        low, high = self.bounds(view, moment, wanted)
        sequences = np.unique(np.concatenate(found))
        sequences = sequences[(sequences >= low) & (sequences <= high)]
        limit = page_limit(wanted.limit)
        order = sequences[::-1] if wanted.reverse else sequences
        found, count, step = [], 0, max(limit + 1, EVENTS_AT_ONCE)
        # An id may have been used by any number of accounts, of which a page needs as many as it has lines, and one.
        for start in range(0, len(order), step):
            part = np.sort(order[start : start + step])
            events = self.reader.read(view, part)
            own, refers = _has_any(events, "id", identifiers), _has_any(events, "reference", identifiers)
            refers &= np.isin(events["kind"], _REFERRING) & (events["result"] == ResultCode.COMMITTED)
            told = own | refers
            if is_told is not None:
                told &= is_told(events)
            found.append(part[told][::-1] if wanted.reverse else part[told])
            count += len(found[-1])
            if count > limit:
                break
        sequences = np.concatenate(found) if found else sequences
        return self.page(view, moment, sequences, limit, wanted.reverse)

    # ---- holds ----

    def open_holds(
        self, as_of: AsOf, identifier: tuple[int, int] | None = None, after: int = 0, limit: int = 100
    ) -> HoldsPage:
        """The holds and tries that were open, of one account that pays or of all, with what remained of each."""
        view, rows = self._projections.open_holds()
        moment = self.moment(view, as_of)
        held = _holds_as_of(view, rows, moment.sequence)
        if identifier is not None:
            held = held[held[:, 2] == self.account_number(view, identifier)]
        held = held[held[:, 0] > after]
        held = held[np.argsort(held[:, 0])]
        limit = page_limit(limit)
        page = self.page(view, moment, held[:, 0].copy(), limit, False)
        return HoldsPage(moment, page.sequences, page.events, held[:limit, 1].copy(), page.next_after)

    # ---- totals ----

    def totals(self, view: View, moment: Moment) -> list[Totals]:
        """The sums of each currency in which an account had been opened, in the order of registration."""
        sums = {}
        start, rows = _totals_before(view, moment.sequence)
        for row in rows.tolist():
            sums[row[TOTAL_CURRENCY]] = _sums_of(row)
        for first in range(start + 1, moment.sequence + 1, 1 << 14):
            sequences = np.arange(first, min(first + (1 << 14), moment.sequence + 1))
            self._add_events(view, sums, self.reader.read(view, sequences))
        for span in spans_within(view, start + 1, moment.sequence):
            changes = span.lists.changes
            changes = changes[(changes[:, CHANGE_SEQUENCE] > start) & (changes[:, CHANGE_SEQUENCE] <= moment.sequence)]
            currencies = view.tables.accounts[changes[:, CHANGE_ACCOUNT], ACCOUNT_CURRENCY]
            differences = changes[:, CHANGE_AFTER] - changes[:, CHANGE_BEFORE]
            for currency, difference in zip(currencies.tolist(), differences.tolist(), strict=True):
                sums[currency][_HELD] += difference
        return [Totals(*view.currencies[currency], *sums[currency]) for currency in sorted(sums)]

    def _add_events(self, view: View, sums: dict[int, list[int]], events: Records) -> None:
        """Add events to sums, but for what they hold."""
        events = events[(events["result"] == ResultCode.COMMITTED) & np.isin(events["kind"], _COUNTED)]
        debits = np.stack([events["debit_head"], events["debit_tail"]], axis=1)
        currencies = view.tables.accounts[self._numbers(view, debits), ACCOUNT_CURRENCY]
        for currency in np.unique(currencies).tolist():
            own = events[currencies == currency]
            total = sums.setdefault(currency, [0] * _SUMS)
            total[_OPENED] += int(np.count_nonzero(own["kind"] == CommandKind.OPEN))
            total[_CLOSED] += int(np.count_nonzero(own["kind"] == CommandKind.CLOSE))
            moves = own[np.isin(own["kind"], _MOVES)]
            amounts, debit, credit = moves["effective_amount"], moves["debit_balance"], moves["credit_balance"]
            total[_MOVES_COUNT] += len(moves)
            total[_MOVED] += sum(amounts.tolist())
            total[_POSITIVE] += sum(np.maximum(debit, 0).tolist()) - sum(np.maximum(debit + amounts, 0).tolist())
            total[_POSITIVE] += sum(np.maximum(credit, 0).tolist()) - sum(np.maximum(credit - amounts, 0).tolist())


def _freezes(event: Any) -> bool:
    """Whether an account is frozen after an event that set its flags."""
    moved_frozen = event["kind"] == CommandKind.MOVE_OPEN and event["code"] & int(AccountFlag.FROZEN) != 0
    return bool(event["kind"] == CommandKind.FREEZE or moved_frozen)


_OPENED, _CLOSED, _MOVES_COUNT, _MOVED, _POSITIVE, _HELD = range(6)
_SUMS: Final = 6
"""The sums of a currency, in the order of `Totals`."""


class _Events:
    """Events of a view by their sequences, each read once."""

    def __init__(self, reader: EventReader, view: View, sequences: Words) -> None:
        self._sequences = np.unique(sequences[sequences > 0])
        self._events = reader.read(view, self._sequences)

    def of(self, sequences: Words) -> Records:
        """An event for each sequence; for 0 it is one of zeros."""
        if not len(self._events):
            return np.zeros(len(sequences), EVENT)
        places = np.searchsorted(self._sequences, np.maximum(sequences, self._sequences[0]))
        events: Records = self._events[places]
        events[sequences == 0] = np.zeros(1, EVENT)
        return events


def page_limit(limit: int) -> int:
    """How many lines a page has, if that is what can be asked for. Raises `UsageError`."""
    if not 1 <= limit <= LINES_MAX:
        raise UsageError(f"a page of {limit} lines: it has 1 to {LINES_MAX}")
    return limit


def _is_side(events: Records, side: str, accounts: Records) -> "np.typing.NDArray[np.bool_]":
    same = (events[f"{side}_head"] == accounts["id_head"]) & (events[f"{side}_tail"] == accounts["id_tail"])
    return np.asarray(same, np.bool_)


def _holds_as_of(view: View, rows: Words, sequence: int) -> Words:
    """(sequence, remaining, account) of each hold that was open, in no order. `rows` are those open now."""
    parts = []
    for span in spans_within(view, sequence + 1, view.sequence):
        changes = span.lists.changes
        later = changes[(changes[:, CHANGE_SEQUENCE] > sequence) & (changes[:, CHANGE_HOLD] <= sequence)]
        # The first change behind the moment says what there was before it.
        _, first = np.unique(later[:, CHANGE_HOLD], return_index=True)
        parts.append(later[first][:, [CHANGE_HOLD, CHANGE_BEFORE, CHANGE_ACCOUNT]])
    changed = np.concatenate([*parts, np.zeros((0, 3), np.int64)])
    _, first = np.unique(changed[:, 0], return_index=True)
    changed = changed[first]
    unchanged = rows[(rows[:, HOLD_SEQUENCE] <= sequence) & ~np.isin(rows[:, HOLD_SEQUENCE], changed[:, 0])]
    return np.concatenate([changed, unchanged[:, [HOLD_SEQUENCE, HOLD_REMAINING, HOLD_ACCOUNT]]])


def _totals_before(view: View, sequence: int) -> tuple[int, Words]:
    """The sums at the last end of a block up to a sequence: that sequence, and a row for each currency in use."""
    for span in reversed(spans_within(view, 1, sequence)):
        rows = span.lists.totals
        end = int(np.searchsorted(rows[:, TOTAL_SEQUENCE], sequence, side="right"))
        if end:
            last = rows[end - 1, TOTAL_SEQUENCE]
            return int(last), rows[int(np.searchsorted(rows[:, TOTAL_SEQUENCE], last)) : end]
    return 0, np.zeros((0, TOTAL_SEQUENCE + 1), np.int64)


def _sums_of(row: list[int]) -> list[int]:
    moved, positive, held = ((row[word] << 32) + row[word + 1] for word in (TOTAL_MOVED, TOTAL_POSITIVE, TOTAL_HELD))
    return [row[TOTAL_OPENED], row[TOTAL_CLOSED], row[TOTAL_MOVES], moved, positive, held]
