"""Questions to the history as they travel: from the body of a request to that of its reply."""

from collections.abc import Callable
from typing import Final, Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from bezant.engine.projections.answers import Filter, Page, Range
from bezant.engine.projections.kernels import find_accounts
from bezant.engine.projections.layout import ACCOUNT_CURRENCY, ACCOUNT_NAME
from bezant.engine.projections.projections import View
from bezant.engine.projections.queries import AsOf, Questions
from bezant.engine.projections.reading import Moment
from bezant.engine.projections.searching import find_transfers
from bezant.net.access.hiding import hide_in_history
from bezant.net.reader.history import HistoryProjection
from bezant.net.reader.projecting import Awaits
from bezant.protocol.errors import RemoteProtocolError, UsageError
from bezant.protocol.frames import HISTORY_ACCOUNTS_MAX, HISTORY_IDS_MAX, Operation
from bezant.protocol.history_messages import (
    AccountsAsOf,
    CurrencyTotals,
    HistoryPage,
    HoldsPage,
    QueryAccounts,
    QueryHolds,
    QueryStatement,
    QueryTotals,
    QueryTransfers,
    TotalsAsOf,
)
from bezant.protocol.kinds import CommandKind
from bezant.protocol.messages import decode_message, encode_message
from bezant.protocol.names import account_id, currency_word
from bezant.protocol.records import (
    EVENT,
    NAME_SIZE_MAX,
    POSITION_NONE,
    PUSHED_EVENT,
    Records,
    Words,
    id_words,
    position_of,
    split_position,
)

_ID_SIZE: Final = 16

Mask = npt.NDArray[np.bool_]


class NotForToken(UsageError):  # noqa: N818 - it says what happened
    """A token that is limited to accounts may not ask this."""


class _Question(Protocol):
    """What every question says."""

    @property
    def as_of_position(self) -> int | None: ...

    @property
    def as_of_time_ns(self) -> int | None: ...

    @property
    def wait_for(self) -> int: ...

    @property
    def log_id(self) -> str: ...


class HistoryQueries:
    """Answers; all methods may be called by any of a few threads.

    They raise `RemoteProtocolError` for a body that is none, `UsageError` for what cannot be asked, `Awaits` for
    what is to be waited for, `StorageError` for what can be asked later.
    """

    def __init__(self, history: HistoryProjection) -> None:
        self._history = history
        self._shard = history.shard

    def by_operation(self) -> dict[int, Callable[[bytes, int], bytes]]:
        """The queries, as a reader lists them."""
        return {
            Operation.QUERY_ACCOUNTS: self.accounts,
            Operation.STATEMENT: self.statement,
            Operation.FIND_TRANSFERS: self.transfers,
            Operation.OPEN_HOLDS: self.holds,
            Operation.TOTALS: self.totals,
        }

    def limited_by_operation(self) -> dict[int, Callable[[tuple[str, ...], bytes, int], bytes]]:
        """Those that may be asked with a token that is limited to prefixes of account names, which come first."""
        return {Operation.FIND_TRANSFERS: self.own_transfers}

    def accounts(self, body: bytes, published_index: int) -> bytes:
        """Answer QUERY_ACCOUNTS."""
        asked = decode_message(body, QueryAccounts)
        if len(asked.accounts) % _ID_SIZE:
            raise RemoteProtocolError(f"{len(asked.accounts)} bytes are no whole number of account ids")
        ids = np.frombuffer(asked.accounts, np.int64).reshape(-1, 2)
        if len(ids) > HISTORY_ACCOUNTS_MAX:
            raise UsageError(f"{len(ids)} accounts in one question: it has {HISTORY_ACCOUNTS_MAX} at most")
        questions, view, moment = self._begin(asked, published_index)
        answer = questions.accounts(view, ids, moment)
        return encode_message(AccountsAsOf(*self._told(moment), answer.records.tobytes()))

    def statement(self, body: bytes, published_index: int) -> bytes:
        """Answer STATEMENT."""
        asked = decode_message(body, QueryStatement)
        account = _id_of(asked.account, "account")
        questions, view, moment = self._begin(asked, published_index)
        return self._page(view, questions.statement(view, account, moment, self._range(questions, view, asked)))

    def transfers(self, body: bytes, published_index: int) -> bytes:
        """Answer FIND_TRANSFERS."""
        return self._transfers(decode_message(body, QueryTransfers), published_index)

    def _transfers(
        self, asked: QueryTransfers, published_index: int, is_told: Callable[[Records], Mask] | None = None
    ) -> bytes:
        """The same; by ids with those events alone of which `is_told` says so."""
        if asked.id and (asked.account or asked.currency or asked.code is not None or asked.kinds or asked.refused):
            raise UsageError("a question that names an id can have a range besides, and nothing else")
        identifiers = _ids_of(asked.id)
        wanted = Filter(
            account=_id_of(asked.account, "account") if asked.account else None,
            currency=asked.currency,
            code=asked.code,
            kinds=_kinds_of(asked.kinds),
            refused=asked.refused,
        )
        questions, view, moment = self._begin(asked, published_index)
        part = self._range(questions, view, asked)
        if identifiers:
            return self._page(view, questions.transfer(view, identifiers, moment, part, is_told))
        return self._page(view, find_transfers(questions, view, wanted, moment, part))

    def own_transfers(self, prefixes: tuple[str, ...], body: bytes, published_index: int) -> bytes:
        """Answer FIND_TRANSFERS by ids with the events of accounts whose names begin with a prefix.

        Raises `NotForToken` for another search, and for an account that is said to be its own and is not.
        """
        asked = decode_message(body, QueryTransfers)
        if not asked.id:
            raise NotForToken("a token that is limited to accounts finds transfers by their ids alone")
        named = None
        if asked.own_name:
            if not asked.own_name.startswith(prefixes):
                raise NotForToken("the account is none that this token is limited to")
            # This may be no shard of it, where nobody knows its name: whoever does proves it, for the id is a hash.
            named = np.frombuffer(account_id(asked.own_name, asked.own_currency), np.int64)

        def own(events: Records) -> tuple[Mask, Mask]:
            return self._are_own(prefixes, named, events, "debit"), self._are_own(prefixes, named, events, "credit")

        page = decode_message(
            self._transfers(asked, published_index, lambda events: np.logical_or(*own(events))), HistoryPage
        )
        pushed = np.frombuffer(page.events, PUSHED_EVENT).copy()
        events = np.frombuffer(pushed["event"].tobytes(), EVENT)
        return encode_message(msgspec.structs.replace(page, events=hide_in_history(pushed, *own(events)).tobytes()))

    def _are_own(self, prefixes: tuple[str, ...], named: Words | None, events: Records, side: str) -> Mask:
        """Whose account on one side has a name that begins with a prefix, or the id that is `named`. What an OPEN has
        there is a name."""
        view = self._history.questions.view()
        ids = np.ascontiguousarray(np.stack([events[f"{side}_head"], events[f"{side}_tail"]], axis=1))
        numbers = np.empty(len(ids), np.int64)
        find_accounts(view.tables, ids, numbers)
        rows = np.ascontiguousarray(view.tables.accounts[np.maximum(numbers, 0), ACCOUNT_NAME : ACCOUNT_NAME + 6])
        names = rows.view(f"S{NAME_SIZE_MAX}")[:, 0]
        found = np.zeros(len(ids), np.bool_)
        for prefix in prefixes:
            found |= np.char.startswith(names, prefix.encode("ascii"))
        found &= numbers >= 0
        return found if named is None else found | (ids == named).all(axis=1)

    def holds(self, body: bytes, published_index: int) -> bytes:
        """Answer OPEN_HOLDS."""
        asked = decode_message(body, QueryHolds)
        account = _id_of(asked.account, "account") if asked.account else None
        questions, view, _ = self._begin(asked, published_index)
        after = self._sequence(questions, view, asked.after)
        page = questions.open_holds(_as_of(asked), account, after, asked.limit)
        events = self._pushed(questions.view(), page.sequences, page.events)
        remaining = page.remaining.tobytes()
        return encode_message(HoldsPage(*self._told(page.moment), events, remaining, self._position(page.next_after)))

    def totals(self, body: bytes, published_index: int) -> bytes:
        """Answer TOTALS."""
        asked = decode_message(body, QueryTotals)
        questions, view, moment = self._begin(asked, published_index)
        told = [
            CurrencyTotals(*total[:5], str(total.moved), str(total.positive), str(total.held))
            for total in questions.totals(view, moment)
        ]
        return encode_message(TotalsAsOf(*self._told(moment), told))

    # ---- what they share ----

    def _begin(self, asked: _Question, published_index: int) -> tuple[Questions, View, Moment]:
        """What is known now, and the moment that a question is as of."""
        if asked.log_id and asked.log_id != self._history.public_id:
            raise UsageError(f"the positions are of log {asked.log_id}; this is log {self._history.public_id}")
        questions = self._history.questions
        view = questions.view()
        if asked.wait_for != POSITION_NONE:
            shard, sequence = split_position(asked.wait_for)
            if shard != self._shard:
                raise UsageError(f"position {asked.wait_for} is none of this log: it belongs to another shard")
            if sequence > view.sequence:
                raise Awaits(sequence=sequence)
        as_of = _as_of(asked)
        if as_of == AsOf() or (as_of.time_ns or 0) > view.timestamp_ns or self._is_ahead(view, as_of.position):
            self._history.check_level()
            if published_index > self._history.applied_index:
                raise Awaits(index=published_index, needed=False)
        return questions, view, questions.moment(view, as_of)

    def _is_ahead(self, view: View, position: int | None) -> bool:
        return position is not None and position > self._position(view.sequence)

    def _range(self, questions: Questions, view: View, asked: QueryStatement | QueryTransfers) -> Range:
        after = self._sequence(questions, view, asked.after)
        return Range(asked.from_ns, asked.to_ns, after, asked.limit, asked.reverse)

    def _sequence(self, questions: Questions, view: View, position: int) -> int:
        return 0 if position == POSITION_NONE else questions.sequence_of(view, position)

    def _position(self, sequence: int) -> int:
        return position_of(self._shard, sequence) if sequence else POSITION_NONE

    def _told(self, moment: Moment) -> tuple[int, int]:
        return self._position(moment.sequence), moment.timestamp_ns

    def _page(self, view: View, page: Page) -> bytes:
        events = self._pushed(view, page.sequences, page.events)
        return encode_message(HistoryPage(*self._told(page.moment), events, self._position(page.next_after)))

    def _pushed(self, view: View, sequences: Words, events: Records) -> bytes:
        """Events as PUSHED_EVENT records, with the currencies of their debit accounts."""
        pushed = np.zeros(len(events), PUSHED_EVENT)
        ids = np.ascontiguousarray(np.stack([events["debit_head"], events["debit_tail"]], axis=1))
        numbers = np.empty(len(ids), np.int64)
        find_accounts(view.tables, ids, numbers)
        words = np.array([*(currency_word(code) for code, _ in view.currencies), 0], np.int64)
        currencies = view.tables.accounts[np.maximum(numbers, 0), ACCOUNT_CURRENCY]
        pushed["position"] = position_of(self._shard, 0) + sequences
        pushed["currency"] = np.where(numbers >= 0, words[currencies], 0)
        pushed["event"] = np.ascontiguousarray(events).view(PUSHED_EVENT["event"])
        return pushed.tobytes()


def _as_of(asked: _Question) -> AsOf:
    return AsOf(asked.as_of_position, asked.as_of_time_ns)


def _id_of(identifier: bytes, what: str) -> tuple[int, int]:
    if len(identifier) != _ID_SIZE:
        raise RemoteProtocolError(f"an {what} has {_ID_SIZE} bytes, not {len(identifier)}")
    return id_words(identifier)


def _ids_of(identifiers: bytes) -> list[tuple[int, int]]:
    if len(identifiers) % _ID_SIZE:
        raise RemoteProtocolError(f"{len(identifiers)} bytes are no whole number of ids")
    if len(identifiers) > HISTORY_IDS_MAX * _ID_SIZE:
        raise UsageError(f"{len(identifiers) // _ID_SIZE} ids in one question: it has {HISTORY_IDS_MAX} at most")
    return [_id_of(identifiers[start : start + _ID_SIZE], "id") for start in range(0, len(identifiers), _ID_SIZE)]


def _kinds_of(numbers: list[int]) -> tuple[CommandKind, ...]:
    try:
        return tuple(CommandKind(number) for number in numbers)
    except ValueError as error:
        raise RemoteProtocolError(f"{error}: no command is of this kind") from error
