"""The ledger as the rest of the engine sees it: batches of commands in, events and results out; look-ups."""

import secrets
from collections.abc import Callable
from typing import NamedTuple

import blake3
import numpy as np
import numpy.typing as npt

from bezant.engine.ledger.index import Index
from bezant.engine.ledger.kernel import (
    PROGRESS_BASE_SEQUENCE,
    PROGRESS_EVENTS,
    PROGRESS_EXTRA_FIRST,
    PROGRESS_NEEDED,
    PROGRESS_NEXT,
    PROGRESS_SIZE,
    execute_batch,
    first_candidates,
)
from bezant.engine.ledger.queries import find_rows
from bezant.engine.ledger.state import (
    COUNTER_ACCOUNTS,
    COUNTER_CURRENCIES,
    COUNTER_LAST_TIMESTAMP_NS,
    COUNTER_NEXT_SEQUENCE,
    CURRENCIES_MAX,
    NO_ORIGINALS,
    Originals,
    new_arrays,
)
from bezant.protocol.errors import LedgerError, UsageError
from bezant.protocol.money import DECIMALS_MAX
from bezant.protocol.names import currency_code, currency_word
from bezant.protocol.records import ACCOUNT, EVENT, POSITION_NONE, RESULT, Records, Words, position_of

ACCOUNTS_MAX_DEFAULT = 1 << 22
IDS_CAPACITY_INITIAL_DEFAULT = 1 << 22
ACCOUNTS_CAPACITY_INITIAL = 1 << 10

FetchEvents = Callable[[npt.NDArray[np.int64]], Records]
"""Returns the EVENT records with these sequences, in this order; all lie in earlier batches."""

_DIGEST_ACCOUNTS = 8192
_NO_PRESET = np.zeros(0, np.int64)


class Execution(NamedTuple):
    """What became of a batch: events (those commands that left one, in order) and results (one a command)."""

    events: Records
    results: Records


class Ledger:
    """The state machine of one shard.

    `fetch_events` reads events of earlier batches back, for commands that repeat their ids. Without it the ledger
    keeps every event in memory, which suits tests.
    """

    def __init__(
        self,
        *,
        shard: int = 0,
        accounts_max: int = ACCOUNTS_MAX_DEFAULT,
        ids_capacity_initial: int = IDS_CAPACITY_INITIAL_DEFAULT,
        fetch_events: FetchEvents | None = None,
    ) -> None:
        salt = secrets.randbits(62)
        self._account_index = Index(ACCOUNTS_CAPACITY_INITIAL, salt)
        self._id_index = Index(ids_capacity_initial, salt)
        self._arrays = new_arrays(
            accounts_max, position_of(shard, 0), self._account_index.arrays, self._id_index.arrays
        )
        self._currency_decimals: dict[str, int] = {}
        self._kept: list[Records] | None = [] if fetch_events is None else None
        self._fetch_events = fetch_events if fetch_events is not None else self._fetch_kept
        self._progress = np.zeros(PROGRESS_SIZE, np.int64)

    # ---- what changes it ----

    def register_currency(self, code: str, decimals: int) -> None:
        """Add a currency. Registering it again with the same decimals changes nothing; with others is refused."""
        known = self._currency_decimals.get(code)
        if known is not None:
            if known != decimals:
                raise UsageError(f"currency {code} is registered with {known} decimals, not {decimals}")
            return
        if not 0 <= decimals <= DECIMALS_MAX:
            raise UsageError(f"a currency has 0 to {DECIMALS_MAX} decimals, not {decimals}")
        count = len(self._currency_decimals)
        if count >= CURRENCIES_MAX:
            raise UsageError(f"{CURRENCIES_MAX} currencies are registered; there is no room for {code}")
        self._arrays.currencies[count] = currency_word(code)
        self._currency_decimals[code] = decimals
        self._arrays.counters[COUNTER_CURRENCIES] = count + 1

    def execute(self, commands: Records, entry_timestamp_ns: int, preset: Words = _NO_PRESET) -> Execution:
        """Execute a batch (COMMAND records, contiguous) at one time, which is after `last_timestamp_ns`.

        `preset` may hold a code a command, which refuses it unseen unless it is 0.
        """
        if entry_timestamp_ns <= self.last_timestamp_ns:
            raise LedgerError(f"time stands still: {entry_timestamp_ns} is not after {self.last_timestamp_ns}")
        count = len(commands)
        self._account_index.make_room(count)
        self._id_index.make_room(count)
        accounts, ids = self._account_index.arrays, self._id_index.arrays
        if self._arrays.id_index is not ids or self._arrays.account_index is not accounts:
            self._arrays = self._arrays._replace(account_index=accounts, id_index=ids)
        events, results = np.empty(count, EVENT), np.empty(count, RESULT)
        command_words = commands.view(np.int64).reshape(count, 16)
        event_words = events.view(np.int64).reshape(count, 24)
        progress = self._progress
        progress[PROGRESS_NEXT] = 0
        progress[PROGRESS_EVENTS] = 0
        progress[PROGRESS_BASE_SEQUENCE] = self.next_sequence
        originals = NO_ORIGINALS
        progress[PROGRESS_EXTRA_FIRST] = 0
        while True:
            execute_batch(
                self._arrays,
                commands,
                command_words,
                preset,
                entry_timestamp_ns,
                events,
                event_words,
                results,
                originals,
                progress,
            )
            if progress[PROGRESS_NEEDED] == 0:
                break
            originals = self._fetch_originals(commands, originals)
        execution = Execution(events[: int(progress[PROGRESS_EVENTS])], results)
        if self._kept is not None and len(execution.events):
            self._kept.append(execution.events)
        return execution

    def _fetch_originals(self, commands: Records, originals: Originals) -> Originals:
        """Fetch the event that the kernel needs: the first time those of all commands to come, then one by one."""
        progress = self._progress
        if len(originals.sequences) == 0:
            candidates = np.zeros(len(commands), np.int64)
            first_candidates(self._arrays, commands, int(progress[PROGRESS_NEXT]), candidates)
            candidates[candidates >= progress[PROGRESS_BASE_SEQUENCE]] = 0
            sequences, numbers = np.unique(candidates, return_inverse=True)
            if sequences[0] == 0:
                sequences, numbers = sequences[1:], numbers - 1
            progress[PROGRESS_EXTRA_FIRST] = len(sequences)
            return Originals(self._fetch_events(sequences), sequences, numbers.astype(np.int64))
        sequence = progress[PROGRESS_NEEDED : PROGRESS_NEEDED + 1].copy()
        return Originals(
            np.concatenate([originals.events, self._fetch_events(sequence)]),
            np.concatenate([originals.sequences, sequence]),
            originals.of_command,
        )

    def _fetch_kept(self, sequences: npt.NDArray[np.int64]) -> Records:
        """Events that the ledger kept itself."""
        kept = np.concatenate(self._kept or [np.zeros(0, EVENT)])
        self._kept = [kept]
        return kept[sequences - 1]

    # ---- what it knows ----

    @property
    def next_sequence(self) -> int:
        """Sequence of the next event."""
        return int(self._arrays.counters[COUNTER_NEXT_SEQUENCE])

    @property
    def last_timestamp_ns(self) -> int:
        """Timestamp of the last event (0: none yet)."""
        return int(self._arrays.counters[COUNTER_LAST_TIMESTAMP_NS])

    @property
    def account_count(self) -> int:
        """Accounts open or closed."""
        return int(self._arrays.counters[COUNTER_ACCOUNTS])

    @property
    def currencies(self) -> dict[str, int]:
        """Registered currencies and their decimals, in order of registration."""
        return dict(self._currency_decimals)

    def lookup_accounts(self, ids: npt.NDArray[np.int64]) -> Records:
        """ACCOUNT records of these ids (int64 of shape (count, 2): head, tail); `found` is 0 where there is none."""
        numbers = np.full(len(ids), -1, np.int64)
        find_rows(self._arrays, ids, numbers)
        accounts = np.zeros(len(ids), ACCOUNT)
        found = np.flatnonzero(numbers >= 0)
        accounts[found] = self._account_records(numbers[found])
        return accounts

    def list_accounts(self, cursor: int, count: int) -> Records:
        """ACCOUNT records of up to `count` accounts in the order of opening, from the `cursor`-th on."""
        return self._account_records(np.arange(max(cursor, 0), min(max(cursor, 0) + count, self.account_count)))

    def _account_records(self, numbers: npt.NDArray[np.int64]) -> Records:
        """ACCOUNT records of rows."""
        rows, cold = self._arrays.rows[numbers], self._arrays.rows_cold[numbers]
        accounts = np.zeros(len(numbers), ACCOUNT)
        for field in ("id_head", "id_tail", "balance", "held", "limit", "last_position", "event_count", "flags"):
            accounts[field] = rows[field]
        accounts["incoming"] = cold["incoming"]
        accounts["opened_position"] = cold["opened_position"]
        accounts["name"] = np.ascontiguousarray(cold["name"]).view("S48").reshape(len(numbers))
        accounts["currency"] = self._arrays.currencies[rows["currency_number"]]
        decimals = np.array([*self._currency_decimals.values(), 0], np.int64)
        accounts["decimals"] = decimals[rows["currency_number"]]
        accounts["found"] = 1
        return accounts

    def find_events(self, keys: Records) -> npt.NDArray[np.int64]:
        """Sequences (0: none) of the events that used these ids; `keys` are commands with id and debit account set."""
        sequences = np.zeros(len(keys), np.int64)
        first_candidates(self._arrays, keys, 0, sequences)
        return sequences

    def check_invariants(self) -> None:
        """Raise `LedgerError` unless the state is one that the rules can reach; for tests, verify and start-up."""
        rows = self._arrays.rows[: self.account_count]
        cold = self._arrays.rows_cold[: self.account_count]
        for number, code in enumerate(self._currency_decimals):
            of_currency = rows["currency_number"] == number
            total = sum(rows["balance"][of_currency].tolist())
            if total != 0:
                raise LedgerError(f"the balances in {code} add up to {total}, not to zero")
        if np.any(rows["held"] < 0) or np.any(cold["incoming"] < 0):
            raise LedgerError("a held or incoming sum is negative")
        if np.any(rows["event_count"] < 1) or np.any(rows["last_position"] == POSITION_NONE):
            raise LedgerError("an account has no event, not even the one that opened it")
        if self.account_count != len(self._arrays.account_index.current) and self.account_count:
            numbers = np.full(len(rows), -1, np.int64)
            find_rows(self._arrays, np.stack([rows["id_head"], rows["id_tail"]], axis=1), numbers)
            if not np.array_equal(numbers, np.arange(len(rows))):
                raise LedgerError("the account index does not lead to every account")

    def digest(self) -> str:
        """BLAKE3 over the logical state, as hexadecimal: the same history gives the same digest everywhere."""
        hasher = blake3.blake3()
        for code, decimals in self._currency_decimals.items():
            hasher.update(f"{code}:{decimals};".encode())
        hasher.update(f"{self.next_sequence}:{self.last_timestamp_ns};".encode())
        for cursor in range(0, self.account_count, _DIGEST_ACCOUNTS):
            hasher.update(self.list_accounts(cursor, _DIGEST_ACCOUNTS).tobytes())
        return hasher.hexdigest()

    def currency_of(self, number: int) -> str:
        """Code of a currency by its number in order of registration."""
        return currency_code(int(self._arrays.currencies[number]))
