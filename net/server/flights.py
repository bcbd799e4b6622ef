"""Transfers to other shards on their way, many at a time, as a coordinator carries them (`coordinating.py`)."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from bezant.engine.transactions.ids import joined
from bezant.net.server.batch import Batch
from bezant.net.server.transits import Transit, Transits
from bezant.protocol.placement import slots_of_words
from bezant.protocol.records import Records, Words

_Item = TypeVar("_Item", bound=np.generic)


class Asked(Protocol):
    """Legs that are on their way to another shard."""

    async def results(self) -> Records:
        """Their RESULT records. Raises `BezantError` if no answer comes in time."""
        ...


class Places(Protocol):
    """Which shard has which slot."""

    @property
    def owners(self) -> Words:
        """The shard of each slot."""
        ...

    @property
    def shards(self) -> Words:
        """The numbers of all shards, ascending."""
        ...


def picked(records: npt.NDArray[_Item], numbers: npt.NDArray[np.intp] | slice) -> npt.NDArray[_Item]:
    """Those with these numbers, ascending; all of them are not copied."""
    if not isinstance(numbers, slice) and len(numbers) == len(records):
        return records
    return records[numbers]


class Flight(NamedTuple):
    """Tries of one batch to one shard in one currency: committed here, and not decided yet.

    `rows`: the number of each in `batch`; of tries that a leader has found when it took over, there is no batch.
    """

    events: Records
    sequences: Words
    transit: Transit
    batch: Batch | None
    rows: Words


class Answers(NamedTuple):
    """What came of each of some tries, and when."""

    codes: Words
    times: Words


class Decided(NamedTuple):
    """Tries that are decided here, of which the other shard is to be told; `times` are those of the decisions."""

    tries: Records
    decisions: Records
    sequences: Words
    times: Words

    def part(self, numbers: npt.NDArray[np.intp] | slice) -> "Decided":
        """Some of them, by their numbers, ascending."""
        tries, decisions = picked(self.tries, numbers), picked(self.decisions, numbers)
        return Decided(tries, decisions, picked(self.sequences, numbers), picked(self.times, numbers))


def joined_decided(parts: Sequence[Decided]) -> Decided:
    """All of them in one."""
    tries, decisions, sequences, times = zip(*parts, strict=True)
    return Decided(joined(tries), joined(decisions), np.concatenate(sequences), np.concatenate(times))


class Found(NamedTuple):
    """What was under way when this node began to lead; to be carried on when the log is committed up to `index`."""

    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody needs here
    open_tries: Words
    unsettled: Records


class Routes:
    """Which shard is asked about each of some tries: the one that their transit account leads to, unless that says that
    the slot of the credit account has moved, and has seen nothing of the try. Then the shard that has the slot now."""

    def __init__(self, transits: Transits, places: Places, transit: Transit, tries: Records) -> None:
        self._transits = transits
        self._places = places
        self._currency = transit.currency
        self._tries = tries
        self._shards = np.full(len(tries), transit.shard, np.int64)
        self._sought_counts = np.zeros(len(tries), np.int64)

    def groups(self, rows: Words) -> Iterator[tuple[Transit, Words]]:
        """Tries, given by their numbers, by the shard that is asked about them."""
        shards = self._shards[rows]
        if (shards == shards[0]).all():
            yield self._transits.towards(int(shards[0]), self._currency), rows
            return
        for shard in np.unique(shards).tolist():
            yield self._transits.towards(shard, self._currency), rows[shards == shard]

    def follow(self, rows: Words) -> None:
        """Ask about these where the slot map says from now on."""
        if len(rows):
            self._shards[rows] = self._owners_of(rows)

    def seek(self, rows: Words) -> npt.NDArray[np.bool_]:
        """The same for what stands in one of the shards: where the slot is now, then one shard after the other.

        A slot that had come to a shard when it was tried there may have left since, even to where the transit account
        leads. Returns which of them all shards have been asked about in vain.
        """
        counts, shards = self._sought_counts[rows], self._places.shards
        asked_next = shards[(counts - 1) % len(shards)]
        self._shards[rows] = np.where(counts == 0, self._owners_of(rows), asked_next)
        counts += 1
        is_in_vain = counts > len(shards) + 1
        self._sought_counts[rows] = np.where(is_in_vain, 0, counts)
        return np.asarray(is_in_vain, np.bool_)

    def _owners_of(self, rows: Words) -> Words:
        return self._places.owners[slots_of_words(self._tries["credit_head"][rows])]
