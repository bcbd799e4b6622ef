"""What a leader knows of one member, and how much it may send it.

PROBE: where the logs part is not known; one `Append` at a time, until it is answered. REPLICATE: `next_index` runs
ahead of what is acknowledged, within a window. SNAPSHOT: the entries that the member needs cannot be sent; nothing is,
until the state has reached it by another way.
"""

import enum
from collections import deque


class Mode(enum.IntEnum):
    """How entries go to a member."""

    PROBE = 0
    REPLICATE = 1
    SNAPSHOT = 2


class Progress:
    """One member as its leader sees it."""

    __slots__ = (
        "bytes_in_flight",
        "first_index",
        "heard_ticks",
        "in_flight",
        "is_barred",
        "is_paused",
        "match_index",
        "may_lead",
        "mode",
        "next_index",
        "node_id",
        "rejoin_round",
        "round",
        "session",
        "snapshot_index",
        "told_commit_index",
    )

    def __init__(self, node_id: int, session: int, next_index: int, now_ticks: int) -> None:
        self.node_id = node_id
        self.session = session  # answers to an earlier session are not about this one
        self.mode = Mode.PROBE
        self.match_index = 0  # durable there, and the same as here; below next_index; never falls within a session
        self.next_index = next_index
        self.is_paused = False  # PROBE: an Append is on its way
        self.in_flight: deque[tuple[int, int]] = deque()  # REPLICATE: (last index, bytes) of each unacknowledged Append
        self.bytes_in_flight = 0
        self.heard_ticks = now_ticks
        self.round = 0  # the last of the leader's questions that it answered, not being barred
        self.rejoin_round = 0  # it has lost what it knew, and does not count before a quorum has answered this question
        self.told_commit_index = 0
        self.is_barred = True  # as far as known: it would not vote
        self.may_lead = True  # as far as known; and what it has begins there:
        self.first_index = 1
        self.snapshot_index = 0  # SNAPSHOT: what it should get is of no use once it has this

    def become_probe(self, next_index: int) -> None:
        """Look for the place where the logs part, from before `next_index`."""
        self.mode = Mode.PROBE
        self.next_index = max(next_index, self.match_index + 1)
        self.is_paused = False
        self._forget_in_flight()

    def become_replicate(self) -> None:
        """Send ahead, from behind what is acknowledged."""
        self.mode = Mode.REPLICATE
        self.next_index = self.match_index + 1
        self.is_paused = False
        self._forget_in_flight()

    def become_snapshot(self, snapshot_index: int = 0) -> None:
        """Send nothing, unless the member turns out to have `snapshot_index`, and what can be sent behind it."""
        self.mode = Mode.SNAPSHOT
        self.snapshot_index = snapshot_index
        self.is_paused = False
        self._forget_in_flight()

    def note_sent(self, last_index: int, size_bytes: int) -> None:
        """An Append that ends with `last_index` is on its way, ahead of what is acknowledged."""
        self.in_flight.append((last_index, size_bytes))
        self.bytes_in_flight += size_bytes
        self.next_index = last_index + 1

    def _forget_in_flight(self) -> None:
        self.in_flight.clear()
        self.bytes_in_flight = 0

    def acknowledge(self, match_index: int, first_index: int) -> None:
        """The member has the log through `match_index`; what the leader can send begins at `first_index`."""
        if match_index < self.match_index:
            return
        in_flight = self.in_flight
        while in_flight and in_flight[0][0] <= match_index:
            self.bytes_in_flight -= in_flight.popleft()[1]
        self.match_index = match_index
        self.next_index = max(self.next_index, match_index + 1)
        is_beyond = match_index + 1 >= first_index and match_index >= self.snapshot_index
        if self.mode is Mode.PROBE or (self.mode is Mode.SNAPSHOT and is_beyond):
            self.become_replicate()

    def reject(self, prev_index: int, next_index: int) -> bool:
        """The member lacks `prev_index`, but may have the entry before `next_index`. False if that is old news."""
        if self.mode is Mode.REPLICATE:
            if prev_index <= self.match_index:
                return False
            self.become_probe(self.match_index + 1)
            return True
        if self.mode is not Mode.PROBE or prev_index != self.next_index - 1:
            return False
        self.become_probe(min(prev_index, next_index))
        return True
