"""One part of a history, executed again from a checkpoint up to the next one, or from the beginning, or to the end."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from bezant.engine.checkpoints.file import read_checkpoint
from bezant.engine.checkpoints.folder import CheckpointFolder
from bezant.engine.ids.run_set import RunSet, open_runs
from bezant.engine.ledger.ledger import KEYS_PER_COMMAND, Ledger, ids_capacity_for
from bezant.engine.ledger.state import SEQUENCE_MASK
from bezant.engine.log.log import open_log
from bezant.engine.log.resume import ResumePoint
from bezant.engine.metadata.kept import check_kept
from bezant.engine.replay import read_configuration, replay_entry
from bezant.engine.replica import shard_directory
from bezant.engine.verifying.sums import NO_IDS, IdSum, sum_part
from bezant.protocol.errors import StorageError
from bezant.protocol.records import Words

RECALLED_MAX: Final = 1 << 20
"""Ids of earlier parts that a part may ask for: holds closed before it that are captured again, for example."""
IDS_CAPACITY_INITIAL: Final = 1 << 16
"""Slots of a part's table of ids at least; its pages are all touched first."""
FILTER_BYTES_MAX: Final = 0
"""Such ids are so rare that reading the filters would take longer than searching the files without."""


class Order(msgspec.Struct, frozen=True):
    """What is to be verified.

    `begin` is the file name of the checkpoint to begin with, "" for nothing; `end_index` the entry to end with, 0 for
    the last one. `ids_from` is the file name of the checkpoint whose files of ids are asked for those before the part,
    and `salts` what those are hashed with; `sum_salts` are for `sum_part`. `events_max` bounds the events of the part,
    and `rows_max` the accounts and open holds.
    """

    number: int
    data_directory: str
    shard: int
    begin: str
    end_index: int
    ids_from: str
    salts: tuple[int, int]
    sum_salts: tuple[int, int]
    events_max: int
    rows_max: int


class Place(msgspec.Struct, frozen=True):
    """A place between two entries, the history before it, and the state there.

    `facts` are those of a `ResumePoint`, encoded, but for what it knows of segments, which serves to find events, and
    each that is found is checked there; empty at the beginning.
    """

    state_digest: str
    facts: bytes = b""


def place_at(point: ResumePoint | None, state_digest: str) -> Place:
    """The place behind an entry; None: the beginning."""
    if point is None:
        return Place(state_digest)
    facts = msgspec.structs.asdict(point)
    del facts["segments"]
    return Place(state_digest, msgspec.msgpack.encode(facts))


class Outcome(msgspec.Struct, frozen=True):
    """What executing a part has led to. `begin` and `end` as found, not as written in a checkpoint.

    `entries` and `events` are those of the part, `ids` the sum over what it made of ids; `log_id` (for anyone to know),
    `chain_hash` and `accounts` are as at its end. `doubt`: what was wrong, in words; nothing else counts then.
    """

    number: int
    doubt: str = ""
    begin: Place | None = None
    end: Place | None = None
    entries: int = 0
    events: int = 0
    accounts: int = 0
    log_id: str = ""
    chain_hash: str = ""
    torn_bytes: int = 0
    ids: IdSum = IdSum()


class EarlierIds:
    """The ids used before a part, as the files of a later checkpoint have them; remembers all that it has told.

    What became of a hold or try that was open when the part began is left out: the part finds that out itself.
    """

    def __init__(self, runs: RunSet, first_sequence: int, open_sequences: Words) -> None:
        self._runs = runs
        self._first_sequence = first_sequence
        self._open_sequences = open_sequences
        self._told: list[Words] = []
        self._count = 0

    @property
    def time_ms_max(self) -> int:
        """The latest time in a time-ordered id among them."""
        return self._runs.time_ms_max

    def find(self, hashes: Words, times_ms: Words, count: int) -> tuple[Words, Words]:
        """As `RunSet.find`. Raises `StorageError` when it has told more than can be remembered."""
        found, values = self._runs.find(hashes, times_ms, count)
        sequences = values & SEQUENCE_MASK
        wanted = (sequences < self._first_sequence) & ~np.isin(sequences, self._open_sequences)
        found, values = found[wanted], values[wanted]
        self._told.append(np.stack([found, values], axis=1))
        self._count += len(found)
        if self._count > RECALLED_MAX:
            raise StorageError(f"a part asks for over {RECALLED_MAX} ids that were used before it")
        return found, values

    def told(self) -> Words:
        """Hash and value of all ids that were told, each once; shape (count, 2)."""
        return np.unique(np.concatenate(self._told), axis=0) if self._told else NO_IDS


def execute_part(
    order: Order, on_progress: Callable[[int], None], take_hashes: Callable[[int], Words] | None = None
) -> Outcome:
    """Execute a part. `take_hashes` gives room for the sorted hashes of so many new ids, if anybody needs them.

    Raises `BezantError` for whatever does not come out right, and MemoryError.
    """
    directory = shard_directory(Path(order.data_directory), order.shard)
    folder = CheckpointFolder(directory)
    log = open_log(directory, shard=order.shard, writable=False)
    ledger = Ledger(
        shard=order.shard,
        accounts_max=order.rows_max,
        holds_max=order.rows_max,
        ids_capacity_initial=ids_capacity_for(order.events_max, IDS_CAPACITY_INITIAL),
        salts=order.salts,
        fetch_events=log.read_events,
    )
    ledger.replaying, is_alone = True, True
    earlier: EarlierIds | None = None
    start: ResumePoint | None = None
    try:
        if order.begin:
            checkpoint = read_checkpoint(folder.directory, order.begin)
            start = checkpoint.manifest.point
            ledger.restore(checkpoint.image)
            is_alone = checkpoint.manifest.configuration is None
            asked = read_checkpoint(folder.directory, order.ids_from).manifest
            runs = open_runs(folder.directory, asked.identity, asked.runs, FILTER_BYTES_MAX)
            is_open = np.concatenate([checkpoint.image.holds["sequence"], checkpoint.image.tries["sequence"]])
            earlier = EarlierIds(runs, ledger.next_sequence, is_open)
            ledger.cold_ids = earlier
        begin = place_at(start, ledger.digest())
        first_sequence, entries = ledger.next_sequence, 0
        for entry in log.open(start, order.end_index or None):
            replay_entry(ledger, entry)
            is_alone = is_alone and read_configuration(entry) is None
            entries += 1
            on_progress(ledger.next_sequence - first_sequence)
        if not order.end_index:
            ledger.check_invariants()
            if is_alone:
                check_kept(ledger, log)
        return Outcome(
            number=order.number,
            begin=begin,
            end=place_at(log.resume_point(), ledger.digest()),
            entries=entries,
            events=ledger.next_sequence - first_sequence,
            accounts=ledger.account_count,
            log_id=log.public_id,
            chain_hash=log.chain_hash.hex(),
            torn_bytes=log.recovery.torn_bytes,
            ids=_sum_ids(ledger, first_sequence, order, earlier, take_hashes),
        )
    finally:
        log.close()


def _sum_ids(
    ledger: Ledger,
    first_sequence: int,
    order: Order,
    earlier: EarlierIds | None,
    take_hashes: Callable[[int], Words] | None,
) -> IdSum:
    recalled = NO_IDS if earlier is None else earlier.told()
    own = KEYS_PER_COMMAND * (ledger.next_sequence - first_sequence) if take_hashes is not None else 0
    room = np.empty(own, np.int64)
    ids = sum_part(ledger.id_index.tables(), first_sequence, order.sum_salts, recalled, room)
    if take_hashes is not None:
        hashes = take_hashes(ids.count)
        hashes[:] = room[: ids.count]
        hashes.sort()
    return ids
