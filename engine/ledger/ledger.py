"""The ledger as the rest of the engine sees it: batches of commands in, events and results out; look-ups."""

import secrets
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from bezant.engine.compiled import direct, quick
from bezant.engine.ledger.cold import KEYS_PER_COMMAND_MAX, ColdIds, gather_keys, new_key_space, recall
from bezant.engine.ledger.digest import digest_of
from bezant.engine.ledger.generations import Generations
from bezant.engine.ledger.image import LedgerImage, restore_image, take_image, unsettled_records
from bezant.engine.ledger.index import PREPARE_AT_PERCENT, Index
from bezant.engine.ledger.invariants import check_state
from bezant.engine.ledger.kernel import execute_batch
from bezant.engine.ledger.listing import account_records
from bezant.engine.ledger.lookups import (
    PROGRESS_BASE_SEQUENCE,
    PROGRESS_EVENTS,
    PROGRESS_EXTRA_FIRST,
    PROGRESS_NEEDED,
    PROGRESS_NEXT,
    PROGRESS_SIZE,
    find_candidates,
    find_named,
    find_rows,
    find_used_keys,
    find_wanted,
    first_foreign,
)
from bezant.engine.ledger.state import (
    COUNTER_ACCOUNTS,
    COUNTER_CURRENCIES,
    COUNTER_ENTRY_TIMESTAMP_NS,
    COUNTER_HEAP,
    COUNTER_HOLDS_FREE,
    COUNTER_HOLDS_TOP,
    COUNTER_LAST_TIMESTAMP_NS,
    COUNTER_NEXT_SEQUENCE,
    COUNTER_RULES_VERSION,
    COUNTER_TRY_DEBITS,
    COUNTER_UNSETTLED,
    CURRENCIES_MAX,
    EXPIRES_PER_ENTRY_MAX,
    NO_ORIGINALS,
    RULES_VERSION_FIRST,
    SEQUENCE_MASK,
    LedgerArrays,
    Originals,
    new_arrays,
)
from bezant.engine.metadata.table import MetadataTable
from bezant.engine.moves.copies import tell_first_positions, without_copies
from bezant.engine.moves.kernels import execute_moves
from bezant.engine.moves.state import SlotMoves
from bezant.engine.tokens.table import TokenTable
from bezant.protocol.errors import LedgerError, UsageError
from bezant.protocol.kinds import CommandKind
from bezant.protocol.money import DECIMALS_MAX
from bezant.protocol.names import currency_word
from bezant.protocol.records import (
    COMMAND,
    EVENT,
    RESULT,
    RULES_VERSION,
    SEQUENCE_FIRST,
    Records,
    Words,
    position_of,
)

ACCOUNTS_MAX_DEFAULT = 1 << 22
HOLDS_MAX_DEFAULT = 1 << 22
IDS_CAPACITY_INITIAL_DEFAULT = 1 << 22
ACCOUNTS_CAPACITY_INITIAL = 1 << 10
HOLDS_CAPACITY_INITIAL = 1 << 10

IDS_CAPACITY_PREPARED_MAX = 1 << 26
"""Slots (16 bytes each) that `ids_capacity_for` prepares at most; beyond that the index grows as it goes."""

FetchEvents = Callable[[npt.NDArray[np.int64]], Records]
"""Returns the EVENT records with these sequences, in this order; all lie in earlier batches."""

KEYS_PER_COMMAND = 2
"""Ids that a command can add to the index: its own, and the hold whose fate it settles."""

TIMESTAMP_NS_MAX = 5_995_814_400 * 10**9
"""The first nanosecond of 2160: deadlines, up to a hundred years after earlier times, fit in 64 bits."""

_STOPS_THAT_LOOK_AHEAD = 2
"""How often an execution reads events for all commands to come; from then on it reads one at a time."""
_NO_PRESET = np.zeros(0, np.int64)


def new_salts() -> tuple[int, int]:
    """Salts for the hashes of one data folder (or of a ledger in memory), which nobody outside can know."""
    return secrets.randbits(63), secrets.randbits(63)


def ids_capacity_for(events: int, initial: int = IDS_CAPACITY_INITIAL_DEFAULT) -> int:
    """Slots, at least `initial`, of an id index that will not have to grow while so many events are replayed."""
    capacity = initial
    while capacity < IDS_CAPACITY_PREPARED_MAX and events * 100 > capacity * PREPARE_AT_PERCENT:
        capacity *= 2
    return capacity


class Execution(NamedTuple):
    """What became of a batch: events (those commands that left one, in order) and results (one a command)."""

    events: Records
    results: Records


class Ledger:
    """The state machine of one shard.

    `fetch_events` reads events of earlier batches back, for commands that repeat their ids. Without it the ledger
    keeps every event in memory, which suits tests.

    With `generation_capacity` (slots, a power of two) the ids in memory are bounded: whoever drives the ledger asks
    `has_room_for_ids`, freezes them in time, writes them to disk, drops them, and sets `cold_ids`. Without it the index
    grows with the history.
    """

    def __init__(
        self,
        *,
        shard: int = 0,
        accounts_max: int = ACCOUNTS_MAX_DEFAULT,
        holds_max: int = HOLDS_MAX_DEFAULT,
        ids_capacity_initial: int = IDS_CAPACITY_INITIAL_DEFAULT,
        generation_capacity: int = 0,
        salts: tuple[int, int] | None = None,
        fetch_events: FetchEvents | None = None,
    ) -> None:
        self.shard = shard
        self.salts = salts = new_salts() if salts is None else salts
        self._account_index = Index(ACCOUNTS_CAPACITY_INITIAL, salts)
        self._generations = Generations(generation_capacity, salts) if generation_capacity else None
        self._id_index = self._generations or Index(ids_capacity_initial, salts)
        self._hold_index = Index(HOLDS_CAPACITY_INITIAL, salts)
        self._arrays = new_arrays(
            accounts_max,
            holds_max,
            position_of(shard, 0),
            self._account_index.arrays,
            self._id_index.arrays,
            self._hold_index.arrays,
        )
        self._currency_decimals: dict[str, int] = {}
        self._decimals = np.zeros(CURRENCIES_MAX, np.int64)
        self._deadlines = self._arrays.holds.rows["deadline_ns"]
        self._kept: list[Records] | None = [] if fetch_events is None else None
        self._fetch_events = fetch_events if fetch_events is not None else self._fetch_kept
        self._progress = np.zeros(PROGRESS_SIZE, np.int64)
        self._half_done = False
        self._execute_batch = execute_batch
        self._key_space = new_key_space(0)
        self.cold_ids: ColdIds | None = None
        self.metadata = MetadataTable()
        self.positions: dict[str, int] = {}  # by the names of subscriptions
        self.moves = SlotMoves(shard)
        self.tokens = TokenTable()
        self.replaying = False

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
        self._currency_decimals[code] = self._decimals[count] = decimals
        self._arrays.counters[COUNTER_CURRENCIES] = count + 1

    def switch_rules(self, version: int) -> None:
        """Execute under these rules from the next entry on. Switching to those in force changes nothing.

        Raises `UsageError` for earlier ones, which would make history ambiguous, and for unknown ones.
        """
        if not self.rules_version <= version <= RULES_VERSION:
            raise UsageError(
                f"rules {version} cannot follow rules {self.rules_version}: those from there on up to "
                f"{RULES_VERSION} can"
            )
        self._arrays.counters[COUNTER_RULES_VERSION] = version

    def settle(self, try_sequences: npt.NDArray[np.int64]) -> None:
        """The other shards know what was decided on these tries (sequences of their TRY_DEBITs): forget it here.

        What is not unsettled is passed over, so that it does no harm to be told twice. Time: O((n + m) log (n + m)).
        """
        counters, rows = self._arrays.counters, self._arrays.holds.unsettled
        count = int(counters[COUNTER_UNSETTLED])
        if not count or not len(try_sequences):
            return
        kept = rows[:count][~np.isin(rows[:count, 0], try_sequences)]
        rows[: len(kept)] = kept
        counters[COUNTER_UNSETTLED] = len(kept)

    def restore(self, image: LedgerImage) -> None:
        """Take over the state of an image; this ledger must be new. Raises `StorageError`, `LedgerError`."""
        if self.next_sequence != SEQUENCE_FIRST or self._currency_decimals:
            raise LedgerError("only a ledger that has done nothing yet can take over an image")
        for code, decimals in image.currencies.items():
            self.register_currency(code, decimals)
        holds = len(image.holds) + len(image.tries)
        for index, keys in ((self._account_index, len(image.rows)), (self._hold_index, holds)):
            index.make_room(keys)
        self._take_tables()
        restore_image(self._arrays, image)
        self.metadata.restore(image.metadata)
        self.positions = dict(image.positions)
        self.moves.restore(image.moves)
        self.tokens.restore(image.tokens, image.tokens_forgotten)
        self.check_invariants()

    def image(self) -> LedgerImage:
        """The state without its ids; its account rows are views, good until the next entry."""
        image = take_image(self._arrays, self.currencies, self._open_holds())
        return image._replace(
            metadata=self.metadata.records(),
            positions=dict(self.positions),
            moves=self.moves.record(),
            tokens=self.tokens.records,
            tokens_forgotten=self.tokens.forgotten,
        )

    def execute(self, commands: Records, entry_timestamp_ns: int, preset: Words = _NO_PRESET) -> Execution:
        """Execute a batch (COMMAND records, contiguous) at one time, which is after `last_timestamp_ns`.

        `preset` may hold a code a command, which refuses it unseen unless it is 0.
        """
        commands = self._check_input(commands, entry_timestamp_ns, preset)
        count = len(commands)
        self._make_room(count)
        self._recall(commands)
        self._arrays.counters[COUNTER_ENTRY_TIMESTAMP_NS] = entry_timestamp_ns
        event_count_max = count + min(EXPIRES_PER_ENTRY_MAX, self.holds_with_deadline)
        events, results = np.empty(event_count_max, EVENT), np.empty(count, RESULT)
        self._half_done = True
        originals = self._run(commands, preset, events, results)
        self._half_done = False
        tell_first_positions(self.shard, originals.events, originals.sequences, results)
        execution = Execution(events[: int(self._progress[PROGRESS_EVENTS])], results)
        if self._kept is not None and len(execution.events):
            self._kept.append(execution.events)
        return execution

    def execute_moves(self, events: Records, entry_timestamp_ns: int) -> Records:
        """Execute events of moves (EVENT records) at one time, which is after `last_timestamp_ns`; see `engine/moves`.

        Returns them with what the ledger has made of them. Raises `LedgerError` for what cannot be: then the ledger is
        of no more use.
        """
        self._check_input(np.zeros(0, COMMAND), entry_timestamp_ns, _NO_PRESET)
        self._make_room(len(events))
        executed = _plain(events.copy())
        self._half_done = True
        words = executed.view(np.int64).reshape(len(executed), 24)
        failed = quick(execute_moves)(self._arrays, executed, words, entry_timestamp_ns)
        if failed >= 0:
            raise LedgerError(f"event {failed} of a move, of kind {events['kind'][failed]}, cannot be executed here")
        self._half_done = False
        if self._kept is not None and len(executed):
            self._kept.append(executed)
        return executed

    def originals_of(self, commands: Records) -> tuple[Words, Words]:
        """Sequences of the events before these commands that executing them may take: of those that used their ids, and
        of the holds that they name; 0 where there is none. There must be room for their ids."""
        self._make_room(len(commands))
        self._recall(commands)
        by_id, named = np.zeros(len(commands), np.int64), np.zeros(len(commands), np.int64)
        if not self.replaying:
            quick(find_candidates)(self._arrays, commands, 0, 0, by_id)
        quick(find_named)(self._arrays, commands, 0, False, named)
        return by_id & SEQUENCE_MASK, named & SEQUENCE_MASK

    def _check_input(self, commands: Records, entry_timestamp_ns: int, preset: Words) -> Records:
        """Refuse what the kernel must not see: it reads memory as it is told."""
        if self._half_done:
            raise LedgerError("an entry was broken off half executed; the ledger must be rebuilt from the log")
        if not RULES_VERSION_FIRST <= self.rules_version <= RULES_VERSION:
            raise LedgerError(
                f"rules {self.rules_version} are in force, and the kernels know none after {RULES_VERSION}"
            )
        if entry_timestamp_ns <= self.last_timestamp_ns:
            raise LedgerError(f"time stands still: {entry_timestamp_ns} is not after {self.last_timestamp_ns}")
        if entry_timestamp_ns > TIMESTAMP_NS_MAX:
            raise LedgerError(f"the time {entry_timestamp_ns} is beyond the year 2160: see to the clock")
        if (commands.dtype is not COMMAND and commands.dtype != COMMAND) or commands.ndim != 1:
            raise LedgerError(f"commands are a one-dimensional array of COMMAND records, not {commands.dtype}")
        if len(preset) not in (0, len(commands)) or preset.dtype != np.int64 or not preset.flags.c_contiguous:
            raise LedgerError(f"{len(preset)} preset codes of {preset.dtype} for {len(commands)} commands")
        return _plain(commands)

    def _run(self, commands: Records, preset: Words, events: Records, results: Records) -> Originals:
        """Run the kernel to the end of a batch, fetching events of earlier ones when it asks for them: which it did."""
        command_words = commands.view(np.int64).reshape(len(commands), 16)
        event_words = events.view(np.int64).reshape(len(events), 24)
        progress = self._progress
        progress[:] = 0
        progress[PROGRESS_BASE_SEQUENCE] = self.next_sequence
        originals, stops = NO_ORIGINALS, 0
        while True:
            self._execute_batch(
                self._arrays, commands, command_words, preset, events, event_words, results, originals, progress
            )
            if progress[PROGRESS_NEEDED] == 0:
                break
            stops += 1
            originals = self._fetch_originals(commands, originals, stops)
        if self._execute_batch is execute_batch:
            self._execute_batch = direct(execute_batch)  # Once: finding it takes tens of microseconds.
        return originals

    def _make_room(self, count: int) -> None:
        """Make room in the indexes: a command may add an id, an account or a hold, and the fate of a hold."""
        self._account_index.make_room(count)
        self._id_index.make_room(count, self._ids_at_most(count))
        self._hold_index.make_room(count)
        self._take_tables()

    def _ids_at_most(self, commands: int, entries: int = 1) -> int:
        """Ids that so many commands, in so many entries, may add to the index."""
        recalled = KEYS_PER_COMMAND_MAX * commands if self._generations is not None or self.cold_ids is not None else 0
        return KEYS_PER_COMMAND * commands + EXPIRES_PER_ENTRY_MAX * entries + recalled

    def _take_tables(self) -> None:
        """Have kernels see the tables as they are now."""
        accounts, ids, holds = self._account_index.arrays, self._id_index.arrays, self._hold_index.arrays
        arrays = self._arrays
        if arrays.id_index is not ids or arrays.account_index is not accounts or arrays.holds.index is not holds:
            self._arrays = arrays._replace(
                account_index=accounts, id_index=ids, holds=arrays.holds._replace(index=holds)
            )

    def _recall(self, commands: Records) -> None:
        """Take from disk into the index what these commands may meet of it."""
        if self.cold_ids is None:
            return
        if len(self._key_space.hashes) < len(commands) * KEYS_PER_COMMAND_MAX:
            self._key_space = new_key_space(len(commands))
        found = self._find_cold(self.cold_ids, commands, with_ids=not self.replaying)
        if found is not None:
            quick(recall)(self._arrays.id_index, *found)

    def _find_cold(self, cold_ids: ColdIds, commands: Records, *, with_ids: bool) -> tuple[Words, Words] | None:
        """(hashes, values) that lie on disk under the keys of commands; None if there are none."""
        count = quick(gather_keys)(self._arrays, commands, with_ids, cold_ids.time_ms_max, *self._key_space)
        found = cold_ids.find(*self._key_space, count) if count else None
        return found if found is not None and len(found[0]) else None

    def _fetch_originals(self, commands: Records, originals: Originals, stops: int) -> Originals:
        """Fetch the event that the kernel stopped for, and with it those that it may soon need.

        At its first stop those of all ids to come that are in use, and of all holds to come that are closed; at its
        second those of the holds that are open, which this batch itself may have closed; then one by one, which takes
        two keys of the same hash.
        """
        progress = self._progress
        if stops > _STOPS_THAT_LOOK_AHEAD:
            return self._joined(originals, progress[PROGRESS_NEEDED : PROGRESS_NEEDED + 1].copy())
        start, base = int(progress[PROGRESS_NEXT]), int(progress[PROGRESS_BASE_SEQUENCE])
        found = np.empty(2 * len(commands), np.int64)
        wanted = found[: quick(find_wanted)(self._arrays, commands, start, stops == 1, base, found)]
        if len(wanted) > 1:
            wanted = np.unique(wanted)
        if stops > 1:
            wanted = np.setdiff1d(wanted, originals.sequences, assume_unique=True)
        joined = self._joined(originals, wanted)
        progress[PROGRESS_EXTRA_FIRST] = len(joined.sequences)
        if not len(originals.sequences):
            return joined
        order = np.argsort(joined.sequences)
        return Originals(joined.events[order], joined.sequences[order])

    def _joined(self, originals: Originals, sequences: npt.NDArray[np.int64]) -> Originals:
        """Fetch more events."""
        fetched = self._fetch_checked(self._arrays, sequences)
        if not len(originals.sequences):
            return Originals(fetched, sequences)
        return Originals(_in_one([originals.events, fetched]), np.concatenate([originals.sequences, sequences]))

    def _fetch_checked(self, arrays: LedgerArrays, sequences: npt.NDArray[np.int64]) -> Records:
        """Fetch events and make sure that they are those that used their ids: money depends on it."""
        events = self._fetch_events(sequences)
        if len(events) != len(sequences):
            raise LedgerError(f"{len(sequences)} events were asked for and {len(events)} came")
        events = _plain(without_copies(events))
        foreign = quick(first_foreign)(arrays, events, sequences)
        if foreign >= 0:
            raise LedgerError(f"the event read back as {sequences[foreign]} is not the one with that sequence")
        return events

    def _fetch_kept(self, sequences: npt.NDArray[np.int64]) -> Records:
        """Events that the ledger kept itself."""
        kept = self._kept or [np.zeros(0, EVENT)]
        if len(kept) > 1:
            kept[:] = [_in_one(kept)]
        return kept[0][sequences - 1]

    # ---- ids in memory and on disk ----

    @property
    def id_index(self) -> Index:
        """All ids, by their hashes; `LedgerError` if this ledger does not keep all of them in memory."""
        if not isinstance(self._id_index, Index):
            raise LedgerError("this ledger keeps only the latest ids in memory")
        return self._id_index

    @property
    def generations(self) -> Generations:
        """The bounded index of ids; `LedgerError` if this ledger keeps all of them in memory."""
        if self._generations is None:
            raise LedgerError("this ledger keeps all ids in memory")
        return self._generations

    def has_room_for_ids(self, commands: int, entries: int = 1) -> bool:
        """Whether so many commands, in so many entries, can be executed before ids must leave the memory."""
        return self._generations is None or self._generations.has_room(self._ids_at_most(commands, entries))

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
    def rules_version(self) -> int:
        """The rules that the next entry is executed under."""
        return int(self._arrays.counters[COUNTER_RULES_VERSION])

    @property
    def account_count(self) -> int:
        """Accounts open or closed."""
        return int(self._arrays.counters[COUNTER_ACCOUNTS])

    @property
    def hold_count(self) -> int:
        """Holds and tries that are open."""
        counters = self._arrays.counters
        return int(counters[COUNTER_HOLDS_TOP] - counters[COUNTER_HOLDS_FREE])

    @property
    def holds_with_deadline(self) -> int:
        """Open holds that will expire."""
        return int(self._arrays.counters[COUNTER_HEAP])

    @property
    def next_deadline_ns(self) -> int:
        """When the next hold falls due (0: none does)."""
        arrays = self._arrays
        return int(self._deadlines[arrays.holds.heap[0]]) if arrays.counters[COUNTER_HEAP] else 0

    def open_tries(self, kind: CommandKind = CommandKind.TRY_DEBIT) -> npt.NDArray[np.int64]:
        """Sequences of the tries of a kind that have not ended, ascending."""
        if kind == CommandKind.TRY_DEBIT and not self._arrays.counters[COUNTER_TRY_DEBITS]:
            return np.zeros(0, np.int64)
        holds = self._arrays.holds.rows[: int(self._arrays.counters[COUNTER_HOLDS_TOP])]
        is_such = (holds["sequence"] != 0) & (holds["kind"] == int(kind))
        return np.sort(holds["sequence"][is_such])

    @property
    def unsettled_count(self) -> int:
        """Decisions on tries that are not settled."""
        return int(self._arrays.counters[COUNTER_UNSETTLED])

    def open_hold_rows(self) -> Records:
        """HOLD_ROW records of the open holds and tries, in order of their sequence."""
        return self._open_holds()

    def unsettled(self) -> Records:
        """UNSETTLED records of what was decided on tries and is not settled, in the order of the decisions."""
        return unsettled_records(self._arrays).copy()

    @property
    def arrays(self) -> LedgerArrays:
        """The state as kernels see it, for those that look at it in front of a batch; good until the next entry."""
        self._take_tables()
        return self._arrays

    @property
    def currencies(self) -> dict[str, int]:
        """Registered currencies and their decimals, in order of registration."""
        return dict(self._currency_decimals)

    @property
    def currency_words(self) -> Words:
        """Their words, likewise."""
        return self._arrays.currencies[: len(self._currency_decimals)]

    def lookup_accounts(self, ids: npt.NDArray[np.int64]) -> Records:
        """ACCOUNT records of these ids (int64 of shape (count, 2): head, tail); `found` is 0 where there is none."""
        numbers = np.full(len(ids), -1, np.int64)
        quick(find_rows)(self._arrays, np.ascontiguousarray(ids, np.int64), numbers)
        return account_records(self._arrays, numbers, self._decimals)

    def list_accounts(self, cursor: int, count: int) -> Records:
        """ACCOUNT records of up to `count` accounts in the order of opening, from the `cursor`-th on."""
        numbers = np.arange(max(cursor, 0), min(max(cursor, 0) + count, self.account_count), dtype=np.int64)
        return account_records(self._arrays, numbers, self._decimals)

    def find_events(self, keys: Records) -> tuple[npt.NDArray[np.int64], Records]:
        """(sequences, EVENT records) of the events that used these ids; sequence 0 where none did.

        `keys` are COMMAND records of which id and debit account count; and the kind, if it is one whose ids are apart.
        What a copy is found of has COPY_MARK; `moves/copies.py` says how that is to be told.
        """
        self._take_tables()
        keys = _plain(keys)
        sequences, events = self._find_events_in(self._arrays, keys)
        missing = np.flatnonzero(sequences == 0)
        if self.cold_ids is not None and len(missing):
            if len(self._key_space.hashes) < len(keys) * KEYS_PER_COMMAND_MAX:
                self._key_space = new_key_space(len(keys))
            found = self._find_cold(self.cold_ids, keys[missing], with_ids=True)
            if found is not None:
                # An index of its own: what is only looked at takes up no room among the ids in memory.
                index = Index(1 << (2 * len(found[0])).bit_length(), self.salts)
                quick(recall)(index.arrays, *found)
                arrays = self._arrays._replace(id_index=index.arrays)
                sequences[missing], events[missing] = self._find_events_in(arrays, keys[missing])
        return sequences, events

    def _find_events_in(self, arrays: LedgerArrays, keys: Records) -> tuple[npt.NDArray[np.int64], Records]:
        """`find_events` among the ids that are in the index of these arrays."""
        sequences, events = np.zeros(len(keys), np.int64), np.zeros(len(keys), EVENT)
        candidates = np.zeros(len(keys), np.int64)
        missing, skip = np.ones(len(keys), np.bool_), 0
        while True:
            quick(find_candidates)(arrays, keys, 0, skip, candidates)
            missing &= candidates > 0
            numbers = np.flatnonzero(missing)
            if not len(numbers):
                break
            unique, places = np.unique(candidates[numbers] & SEQUENCE_MASK, return_inverse=True)
            fetched = self._fetch_checked(arrays, unique)[places]
            same = np.zeros(len(numbers), np.bool_)
            quick(find_used_keys)(fetched, candidates[numbers], keys[numbers], same)
            sequences[numbers[same]] = candidates[numbers[same]] & SEQUENCE_MASK
            events[numbers[same]] = fetched[same]
            missing[numbers[same]] = False
            skip += 1
        return sequences, events

    def check_invariants(self) -> None:
        """Raise `LedgerError` unless the state is one that the rules can reach; for tests, verify and start-up."""
        self._take_tables()
        check_state(self._arrays, list(self._currency_decimals), self._open_holds())

    def _open_holds(self) -> Records:
        """HOLD_ROW records of the open holds and tries, in order of their sequence."""
        holds = self._arrays.holds.rows[: int(self._arrays.counters[COUNTER_HOLDS_TOP])]
        holds = holds[holds["sequence"] != 0]
        return holds[np.argsort(holds["sequence"])]

    def digest(self, image: LedgerImage | None = None) -> str:
        """BLAKE3 over currencies, accounts, open holds and tries, the unsettled, subjects of metadata, named positions,
        and tokens; of an image that has just been taken, if there is one.

        The same history gives the same everywhere.

        Ids, and what became of holds that are closed, are not in it: there is no end to them.
        """
        return digest_of(self.image() if image is None else image, self.list_accounts)


def _in_one(parts: list[Records]) -> Records:
    """Events one after the other: as words, since NumPy joins records a field at a time."""
    return np.concatenate([_plain(part).view(np.int64) for part in parts]).view(EVENT)


def _plain(records: Records) -> Records:
    """The same records as kernels take them, which ask for no more: in one piece, and not read-only."""
    flags = records.flags
    if flags.c_contiguous and flags.writeable:
        return records
    return np.require(records, requirements=["C_CONTIGUOUS", "WRITEABLE"])
