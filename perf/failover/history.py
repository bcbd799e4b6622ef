"""The logs of the nodes of a group that has stopped, read beside each other: what they agree on, and where not."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from itertools import zip_longest
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from bezant.engine.log.entry import Entry
from bezant.engine.log.log import Log, open_log
from bezant.engine.replica import shard_directory
from bezant.perf.crash.faults import FaultKind, Faults
from bezant.protocol.kinds import EntryKind
from bezant.protocol.records import ENTRY_STAMP_SIZE, EVENT, Records, Words

SHARD: Final = 0
DIFFERING_MAX: Final = 100
"""Entries that differ which are remembered; one is too many."""


class History(NamedTuple):
    """What a majority of the logs has, entry for entry the same but for what each node stamps itself.

    ``events`` in order, with the ``positions`` that they have; ``entries`` that the majority agrees on, ``ends``: how
    many each node has; ``committed``: how many the node that says least knows to be committed.
    """

    events: Records
    positions: Words
    entries: int
    ends: dict[int, int]
    committed: int


def read_history(folders: Mapping[int, Path], faults: Faults) -> History:
    """Read the logs of nodes that have stopped, by node id. Adds a fault for entries that differ and were committed.

    Raises `CorruptLog` for a log whose checksums or whose chain of hashes is broken.
    """
    with ExitStack() as closing:
        logs: dict[int, Log] = {}
        for node, folder in folders.items():
            logs[node] = open_log(shard_directory(folder, SHARD), shard=SHARD, writable=False)
            closing.callback(logs[node].close)
        walk = _Walk(list(logs), len(logs) // 2 + 1)
        for entries in zip_longest(*(log.open() for log in logs.values())):
            walk.take(entries)
        committed = min(log.commit_index for log in logs.values())
        ends = {node: log.last_index for node, log in logs.items()}
    for index, text in walk.differing:
        if index <= committed:
            faults.add(FaultKind.CHANGED, f"entry {index} was committed, and is not the same on all nodes: {text}")
    if walk.agreed < committed:
        faults.add(FaultKind.MISSING, f"entry {committed} was committed, and a majority has them up to {walk.agreed}")
    return History(*walk.joined(), walk.agreed, ends, committed)


class _Walk:
    """Takes the entries of one index after the other, of all nodes that have them."""

    def __init__(self, nodes: list[int], majority: int) -> None:
        self._nodes = nodes
        self._majority = majority
        self._index = 0
        self._events: list[Records] = []
        self._positions: list[Words] = []
        self.agreed = 0
        self.differing: list[tuple[int, str]] = []

    def take(self, entries: Sequence[Entry | None]) -> None:
        """Compare the entries of the next index; None for a node that has none."""
        self._index += 1
        having: dict[bytes, list[int]] = {}
        for node, entry in zip(self._nodes, entries, strict=True):
            if entry is not None:
                having.setdefault(_replicated(entry), []).append(node)
        if len(having) > 1 and len(self.differing) < DIFFERING_MAX:
            self.differing.append((self._index, " and ".join(f"nodes {nodes}" for nodes in having.values())))
        largest = max(having.values(), key=len)
        if len(largest) >= self._majority and self.agreed == self._index - 1:
            self.agreed = self._index
            self._keep(next(entry for entry in entries if entry is not None and _is_of(entry, having, largest)))

    def _keep(self, entry: Entry) -> None:
        if entry.header.kind == EntryKind.EVENTS:
            events = np.frombuffer(entry.body, EVENT).copy()
            self._events.append(events)
            self._positions.append(entry.header.first_sequence + np.arange(len(events)))

    def joined(self) -> tuple[Records, Words]:
        """All events that a majority has, and their positions."""
        if not self._events:
            return np.zeros(0, EVENT), np.zeros(0, np.int64)
        return np.concatenate(self._events), np.concatenate(self._positions)


def _replicated(entry: Entry) -> bytes:
    """What is the same of an entry on all nodes that have it."""
    return entry.encoded[ENTRY_STAMP_SIZE:] + bytes(entry.body)


def _is_of(entry: Entry, having: dict[bytes, list[int]], nodes: list[int]) -> bool:
    return having[_replicated(entry)] is nodes
