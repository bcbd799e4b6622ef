"""A set of runs as dictionaries, and what both it and real ones are made of."""

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np

from bezant.engine.ids.merge import Merge
from bezant.engine.ids.run import RunIdentity, RunInfo, write_run
from bezant.engine.ids.run_set import RunSet
from bezant.engine.log.storage import Directory
from bezant.protocol.records import SEQUENCE_BITS, Words

IDENTITY: Final = RunIdentity(3, -5_000_000_000, 0x1234567890ABCDEF, -77)
SEQUENCE_MASK: Final = (1 << SEQUENCE_BITS) - 1
HASH_MAX: Final = 2**63 - 1
WITHOUT_END: Final = 1 << 40
"""A budget for filters that is never used up."""

Entry = tuple[int, int]
"""(hash, value)"""


class ModelRun(NamedTuple):
    """A run: the value of each (hash, sequence)."""

    entries: dict[tuple[int, int], int]
    time_ms_max: int


def model_run(entries: Sequence[Entry], time_ms_max: int) -> ModelRun:
    return ModelRun({(hash_value, value & SEQUENCE_MASK): value for hash_value, value in entries}, time_ms_max)


def model_merge(runs: Sequence[ModelRun]) -> ModelRun:
    """Newest first."""
    merged: dict[tuple[int, int], int] = {}
    for run in reversed(runs):
        merged |= run.entries
    return ModelRun(merged, max(run.time_ms_max for run in runs))


def model_find(runs: Sequence[ModelRun], hashes: Sequence[int], times_ms: Sequence[int]) -> list[Entry]:
    """As `RunSet.find`, newest first; a hash that is asked for twice is asked with each of its times."""
    found: dict[tuple[int, int], int] = {}
    for run in reversed(runs):
        asked = {hash_value for hash_value, time in zip(hashes, times_ms, strict=True) if time <= run.time_ms_max}
        found |= {key: value for key, value in run.entries.items() if key[0] in asked}
    return [(hash_value, value) for (hash_value, _), value in sorted(found.items())]


def words(values: Sequence[int]) -> Words:
    return np.array(values, np.int64)


def write(directory: Directory, number: int, entries: Sequence[Entry], time_ms_max: int = 0) -> RunInfo:
    hashes, values = words([entry[0] for entry in entries]), words([entry[1] for entry in entries])
    return write_run(directory, IDENTITY, number, hashes, values, time_ms_max=time_ms_max)


def merge(directory: Directory, infos: Sequence[RunInfo], number: int) -> RunInfo:
    made = Merge(directory, IDENTITY, infos, number)
    for _ in made:
        pass
    return made.info


def find(runs: RunSet, hashes: Sequence[int], times_ms: Sequence[int] | None = None) -> list[Entry]:
    times_ms = [0] * len(hashes) if times_ms is None else times_ms
    found, values = runs.find(words(hashes), words(times_ms), len(hashes))
    return list(zip(found.tolist(), values.tolist(), strict=True))
