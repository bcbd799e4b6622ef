"""When a connection has said nothing for so long that others are asked who leads; counted in ticks, without a clock.

A tick that comes late counts as one: a caller that holds up its own event loop suspects nobody.
"""

from typing import Final

TICK_S: Final = 0.1
"""Seconds between ticks."""
SUSPECT_S: Final = 0.5
"""Seconds without an answer to the oldest request in flight, and without a byte, after which a node is suspected."""
SUSPECT_S_MAX: Final = 2.0
"""What that grows to: doubled each time that it happens again without a byte in between."""
UNDECIDED_S: Final = 0.2
"""Seconds after which others are asked again if they know no leader: they are about to have one."""

_SUSPECT_TICKS: Final = round(SUSPECT_S / TICK_S)
_SUSPECT_TICKS_MAX: Final = round(SUSPECT_S_MAX / TICK_S)
_UNDECIDED_TICKS: Final = round(UNDECIDED_S / TICK_S)


class Silence:
    """See the module."""

    def __init__(self) -> None:
        self._limit_ticks = _SUSPECT_TICKS
        self._left_ticks = _SUSPECT_TICKS
        self._oldest: int | None = None
        self._received_count = 0

    def on_connected(self, received_count: int) -> None:
        """Count anew on another connection, which has received so much; a greeting is no answer."""
        self._oldest = None
        self._received_count = received_count
        self._left_ticks = self._limit_ticks

    def on_undecided(self) -> None:
        """Others were asked and know no leader: suspect again soon."""
        self._left_ticks = _UNDECIDED_TICKS

    def on_tick(self, oldest: int, received_count: int) -> bool:
        """Return whether the node is to be suspected now.

        `oldest` identifies the oldest request in flight; `received_count` grows with every arrival of bytes.
        """
        if received_count != self._received_count:
            self._limit_ticks = _SUSPECT_TICKS
        if (oldest, received_count) != (self._oldest, self._received_count):
            self._oldest = oldest
            self._received_count = received_count
            self._left_ticks = self._limit_ticks
            return False
        self._left_ticks -= 1
        if self._left_ticks > 0:
            return False
        self._limit_ticks = min(2 * self._limit_ticks, _SUSPECT_TICKS_MAX)
        self._left_ticks = self._limit_ticks
        return True
