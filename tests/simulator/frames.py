"""What clients and nodes say to each other."""

import enum
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import NamedTuple

import numpy as np

from bezant.engine import replica
from bezant.protocol.records import COMMAND, Records, Words


class Outcome(enum.Enum):
    """What a node answers to a frame."""

    DONE = 0
    NOT_LEADER = 1
    UNKNOWN = 2
    REFUSED = 3


class Frame(NamedTuple):
    """One sending of a request: commands, or the ids of accounts to be looked up."""

    operation: int
    client: int
    sending: int
    commands: Records
    keys: Words

    @property
    def is_write(self) -> bool:
        return len(self.commands) > 0


class Answer(NamedTuple):
    """`body`: results or accounts as they are told; `index`: what they rest on; `leader`: where to go, or 0."""

    outcome: Outcome
    body: bytes
    index: int  # type: ignore[assignment]
    leader: int


def joined(parts: Iterable[Records]) -> Records:
    """Commands in one array; NumPy's own way would compare all fields of the records first."""
    return np.frombuffer(bytearray(b"".join(part.tobytes() for part in parts)), COMMAND)


def count_for_batch(frames: Sequence[Frame]) -> int:
    """Of frames that have collected, how many a batch has room for, as a node takes them: the first of them."""
    return sum(commands <= replica.BATCH_COMMANDS_MAX for commands in accumulate(len(one.commands) for one in frames))


def rows_of(records: Records) -> list[dict[str, int]]:
    """Records as numbers by the names of their fields, which NumPy takes ten times as long to get out of a record."""
    names = records.dtype.names or ()
    return [dict(zip(names, row, strict=True)) for row in records.tolist()]


NO_COMMANDS: Records = np.zeros(0, COMMAND)
NO_KEYS: Words = np.zeros((0, 2), np.int64)
