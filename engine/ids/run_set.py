"""Open runs, and how keys are found in them.

The filter of a run stops nearly every key that it does not have: one cache line a key and run. Filters are in the
process's own memory, because a page that has to come from the disk would hold up a batch; their sum is bounded by a
setting, and a run whose filter finds no room is searched without. Blocks are mapped, and each is believed only after
its checksum, at every use.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import xxhash

from bezant.engine.compiled import quick
from bezant.engine.ids.kernels import (
    SEARCH_DAMAGED,
    SEARCH_FOUND,
    SEARCH_NEXT,
    SEARCH_PROGRESS_SIZE,
    filter_bits,
    pass_filter,
    search_blocks,
)
from bezant.engine.ids.run import (
    BLOCK_SIZE,
    FILTER_ROW_SIZE,
    RunIdentity,
    RunInfo,
    corrupt,
    read_page,
    run_name,
)
from bezant.engine.log.storage import Directory, LogFile
from bezant.protocol.errors import LedgerError
from bezant.protocol.records import SEQUENCE_BITS, Bytes, Words

FIND_BATCH: Final = 8192
"""Hashes that go through the filters at a time."""
FOUND_BATCH: Final = 4096
"""Entries that a search returns before it goes on: 64 KiB, memory that need not be fetched from the system each time.
There are never so many with one hash."""
READ_PIECE_SIZE: Final = 4 << 20
"""Bytes of a filter that are read and hashed at a time."""
_SEQUENCE_MASK: Final = (1 << SEQUENCE_BITS) - 1
_NO_FILTER: Final = np.full((1, FILTER_ROW_SIZE // 8), -1, np.int64)
"""Lets everything pass."""
_NO_ENTRIES: Final = np.empty((0, 2), np.int64)


@dataclass(frozen=True, eq=False)
class Run:
    """One run, open; immutable, so that many sets and threads may share it."""

    info: RunInfo
    name: str
    filter: Words
    """Shape (rows, 8); a single row that lets everything pass if the filter is not loaded."""
    fences: Words
    data: Bytes
    """The blocks, mapped; `words` are the same bytes, shape (blocks, 512)."""
    words: Words

    @staticmethod
    def open(
        directory: Directory, identity: RunIdentity, info: RunInfo, load_filter: bool, at_random: bool = True
    ) -> "Run":
        """Open the run that a checkpoint remembers. Reads as much as its filter and fences take, and maps the rest.

        `at_random`: of the blocks only those that are used are read, not those behind them. Raises `CorruptLog` for
        another file than this one, `UnsupportedFormat`.
        """
        page = read_page(directory, identity, info)
        file = directory.open(run_name(info.number), writable=False)
        try:
            data_size = page.block_count * BLOCK_SIZE
            bloom = _NO_FILTER
            if load_filter:
                bloom = np.empty((page.filter_bytes // FILTER_ROW_SIZE, FILTER_ROW_SIZE // 8), np.int64)
                _read_checked(file, bloom, data_size, page.filter_checksum, "the filter")
            fences = np.empty(page.block_count, np.int64)
            _read_checked(file, fences, data_size + page.filter_bytes, page.fences_checksum, "the fences")
            data = file.map(at_random=at_random)[:data_size]
        finally:
            file.close()
        words = data.view(np.int64).reshape(page.block_count, BLOCK_SIZE // 8)
        return Run(info, str(file.path), bloom, fences, data, words)

    @property
    def has_filter(self) -> bool:
        """Whether its filter is loaded."""
        return self.filter is not _NO_FILTER

    def without_filter(self) -> "Run":
        """The same run, searched directly."""
        return replace(self, filter=_NO_FILTER)

    def damaged(self, block: int) -> Exception:
        """The error for a block whose checksum is wrong."""
        return corrupt(f"{self.name}, offset {block * BLOCK_SIZE}: a block of ids is damaged")

    def search(self, hashes: Words, candidates: Words) -> list[Words]:
        """All entries (count, 2) of the hashes whose numbers are the candidates. Raises `CorruptLog`."""
        found: list[Words] = []
        progress = np.zeros(SEARCH_PROGRESS_SIZE, np.int64)
        progress[SEARCH_DAMAGED] = -1
        is_through = False
        while not is_through:
            room = np.empty((FOUND_BATCH, 2), np.int64)
            before, progress[SEARCH_FOUND] = progress[SEARCH_NEXT], 0
            is_through = quick(search_blocks)(
                hashes,
                candidates,
                self.fences,
                self.data,
                self.words,
                self.info.number,
                self.info.count,
                room,
                progress,
            )
            if progress[SEARCH_DAMAGED] >= 0:
                raise self.damaged(int(progress[SEARCH_DAMAGED]))
            if not is_through and progress[SEARCH_NEXT] == before:
                raise LedgerError(f"{self.name}: over {FOUND_BATCH} ids have one hash")
            found.append(room[: progress[SEARCH_FOUND]])
        return found


class RunSet:
    """Runs, newest first, that are searched together; immutable."""

    def __init__(self, runs: Sequence[Run] = ()) -> None:
        self.runs = tuple(runs)
        self.time_ms_max = max((run.info.time_ms_max for run in self.runs), default=0)
        """The latest time that any key tells; 0 if none does."""

    @property
    def infos(self) -> list[RunInfo]:
        """What a checkpoint remembers of them, newest first."""
        return [run.info for run in self.runs]

    @property
    def count(self) -> int:
        """Entries; those that a newer run replaces count twice."""
        return sum(run.info.count for run in self.runs)

    @property
    def size_bytes(self) -> int:
        """Size of the files."""
        return sum(run.info.size_bytes for run in self.runs)

    @property
    def filter_bytes(self) -> int:
        """Memory of the filters that are loaded."""
        return sum(run.filter.nbytes for run in self.runs if run.has_filter)

    @property
    def fences_bytes(self) -> int:
        """Memory of the fences."""
        return sum(run.fences.nbytes for run in self.runs)

    def find(self, hashes: Words, times_ms: Words, count: int) -> tuple[Words, Words]:
        """Hashes and values of all entries that have one of the first `count` hashes, ascending by hash and sequence.

        Of entries with the same hash and sequence that of the newest run, once. `times_ms` are the times that the keys
        tell: a run whose keys are all older is not asked; 0 is for a key that tells none. Raises `CorruptLog`.
        """
        if count and hashes[:count].min() < 0:
            raise LedgerError("a hash of an id is never negative")
        found: list[Words] = []
        if self.runs:
            for start in range(0, count, FIND_BATCH):
                end = min(start + FIND_BATCH, count)
                found += self._find_batch(hashes[start:end], times_ms[start:end])
        entries = found[0] if len(found) == 1 else np.concatenate([_NO_ENTRIES, *found])
        if len(entries) < 2:
            return entries[:, 0], entries[:, 1]
        return _newest(entries)

    def _find_batch(self, hashes: Words, times_ms: Words) -> list[Words]:
        """Entries run by run, newest first."""
        bits, candidates = np.empty(len(hashes), np.int64), np.empty(len(hashes), np.int64)
        quick(filter_bits)(hashes, bits)
        found: list[Words] = []
        for run in self.runs:
            passed = quick(pass_filter)(hashes, bits, times_ms, run.info.time_ms_max, run.filter, candidates)
            if passed and run.info.count:
                found += run.search(hashes, candidates[:passed])
        return found


def open_runs(
    directory: Directory,
    identity: RunIdentity,
    infos: Sequence[RunInfo],
    filter_bytes_max: int,
    known: RunSet | None = None,
) -> RunSet:
    """Open runs, given newest first, with the filters of the newest that fit into so many bytes.

    Those of `known` that are named again are taken over instead of being read once more. Raises as `Run.open` does.
    """
    by_info = {run.info: run for run in known.runs} if known is not None else {}
    runs = []
    for info in infos:
        load_filter = info.filter_bytes <= filter_bytes_max
        if load_filter:
            filter_bytes_max -= info.filter_bytes
        run = by_info.get(info)
        if run is None or (load_filter and not run.has_filter):
            run = Run.open(directory, identity, info, load_filter)
        runs.append(run if load_filter else run.without_filter())
    return RunSet(runs)


def _newest(entries: Words) -> tuple[Words, Words]:
    """Hashes and values of entries that stand newest first: sorted, and the first of each hash and sequence."""
    sequences = entries[:, 1] & _SEQUENCE_MASK
    order = np.lexsort((sequences, entries[:, 0]))  # stable
    hashes, values, sequences = entries[order, 0], entries[order, 1], sequences[order]
    first = np.ones(len(hashes), np.bool_)
    first[1:] = (hashes[1:] != hashes[:-1]) | (sequences[1:] != sequences[:-1])
    return hashes[first], values[first]


def _read_checked(file: LogFile, target: Words, offset: int, checksum: int, what: str) -> None:
    """Fill an array from a file, in pieces, and check the whole."""
    view = target.reshape(-1).view(np.uint8)
    hasher = xxhash.xxh3_64()
    for start in range(0, len(view), READ_PIECE_SIZE):
        piece = view[start : start + READ_PIECE_SIZE]
        if file.read_into(piece.data, offset + start) < len(piece):
            raise corrupt(f"{file.path}: ends within {what}")
        hasher.update(piece.data)
    if hasher.intdigest() != checksum:
        raise corrupt(f"{file.path}, offset {offset}: {what} of {len(view)} bytes is damaged")
