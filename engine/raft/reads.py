"""Reads that see everything acknowledged before them, without an entry in the log (ReadIndex; the dissertation, 6.4).

A read notes the commit index, then asks a quorum whether the leader still is the leader. One question, a *round* of
heartbeats, serves all reads that came before it.
"""

from collections import deque


class Reads:
    """The reads that a leader has not answered. No ticket is ever used again: no old answer is taken for a new one."""

    def __init__(self) -> None:
        self.round = 0  # the last question asked
        self._unasked: list[int] = []
        self._asked: deque[tuple[int, int, list[int]]] = deque()
        self._waiting_count = 0

    def __len__(self) -> int:
        return self._waiting_count

    @property
    def wants_round(self) -> bool:
        """Whether there are reads that no question covers."""
        return bool(self._unasked)

    def add(self, ticket: int) -> None:
        """A read arrived."""
        self._unasked.append(ticket)
        self._waiting_count += 1

    def ask(self) -> int:
        """The next question goes out, for no read; which one it is."""
        self.round += 1
        return self.round

    def begin_round(self, commit_index: int) -> None:
        """The next question goes out, for all reads that have come; they will see at least `commit_index`."""
        self.ask()
        self._asked.append((self.round, commit_index, self._unasked))
        self._unasked = []

    def confirmed(self, round_number: int) -> list[tuple[int, int]]:
        """(ticket, index) of the reads that may be answered, as a quorum has answered `round_number`."""
        ready: list[tuple[int, int]] = []
        while self._asked and self._asked[0][0] <= round_number:
            _, index, tickets = self._asked.popleft()
            ready += [(ticket, index) for ticket in tickets]
        self._waiting_count -= len(ready)
        return ready

    def lost(self) -> list[int]:
        """All tickets that wait."""
        return [ticket for _, _, tickets in self._asked for ticket in tickets] + self._unasked
