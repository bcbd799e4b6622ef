"""Which term each entry has, from the first one on: a term at a time, so that no entry need be looked at."""

from bisect import bisect_right
from itertools import pairwise

from bezant.protocol.errors import LedgerError
from bezant.protocol.records import ENTRY_INDEX_FIRST


class TermRuns:
    """The terms of a log and the index of the first entry of each: both rise. Memory: 16 bytes and more for a term."""

    def __init__(self) -> None:
        self.last_term = 0
        """Of the last entry; 0 while there is none."""
        self._terms: list[int] = []
        self._first_indexes: list[int] = []

    def note(self, index: int, term: int) -> None:
        """Take notice of the term of the entry that is behind all others. Raises `LedgerError` if it falls."""
        if term == self.last_term and self._terms:
            return
        if term < self.last_term:
            raise LedgerError(f"an entry of term {term} behind one of term {self.last_term}")
        self._terms.append(term)
        self._first_indexes.append(index)
        self.last_term = term

    def term_at(self, index: int) -> int:
        """The term of an entry, which must be there."""
        number = bisect_right(self._first_indexes, index) - 1
        if number < 0:
            raise LedgerError(f"no term is known of the entry with index {index}")
        return self._terms[number]

    def cut(self, index: int) -> None:
        """Forget all entries above an index."""
        count = bisect_right(self._first_indexes, index)
        del self._terms[count:], self._first_indexes[count:]
        self.last_term = self._terms[-1] if self._terms else 0

    def up_to(self, index: int) -> tuple[tuple[int, int], ...]:
        """(index of the first entry, term) of every term up to an entry."""
        count = bisect_right(self._first_indexes, index)
        return tuple(zip(self._first_indexes[:count], self._terms[:count], strict=True))

    def restore(self, runs: tuple[tuple[int, int], ...]) -> None:
        """Know what `up_to` has given."""
        self._first_indexes = [first for first, _ in runs]
        self._terms = [term for _, term in runs]
        self.last_term = self._terms[-1] if runs else 0


def are_term_runs(runs: tuple[tuple[int, int], ...], index: int, term: int) -> bool:
    """Whether these may be the terms of a log whose last entry has this index and this term."""
    if not runs or runs[0][0] != ENTRY_INDEX_FIRST or runs[0][1] < 0:
        return False
    rising = all(one[0] < two[0] and one[1] < two[1] for one, two in pairwise(runs))
    return rising and runs[-1][0] <= index and runs[-1][1] == term
