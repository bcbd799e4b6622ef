"""The connections of one loop: how many there may be, what they share, and how those end that say no HELLO or are late.

For whoever listens to clients: a node, and its reader.
"""

import asyncio
import resource
from collections import Counter
from collections.abc import Awaitable, Callable
from itertools import islice
from typing import Final, Protocol

from bezant.engine.tokens.table import TokenTable
from bezant.net.access.addresses import SHARE
from bezant.net.access.guard import Guard
from bezant.net.server.inbox import ReceiveBuffer

CONNECTIONS_MAX: Final = 16_384
"""Connections at a time. Beside what they all share, each may hold up to START_SIZE_MAX bytes of an unfinished frame,
and as many of unread replies as `OpenConnections.write_buffer_bytes` said when it came."""
WRITE_BUFFER_BYTES_MAX: Final = 1 << 20
"""Unsent reply bytes at which a connection is not read any more, until its client has read most of them."""
WRITE_BUFFER_BYTES_MIN: Final = 64 << 10
"""The same when there are many connections."""
UNSENT_BYTES_MAX: Final = 256 << 20
"""Bytes of replies that connections which are not read for that reason hold together; who adds to it is disconnected.
As many again are shared out among all connections as their write buffers."""
GREETING_S_MAX: Final = 20.0
"""Seconds that a connection has to say HELLO, or those that never do would keep others out. Those of one address that
have not are at most one in SHARE of all that there may be."""
GREETING_GRACE_S: Final = 0.1
"""Seconds in which what has been sent in time is still read, if the loop or the whole machine was held up."""
GREETINGS_PER_STEP_MAX: Final = 256
"""Connections without a HELLO in time that are told so before it is others' turn."""
FILES_RESERVED: Final = 256
"""Open files that the log and the rest of the process may need; clients get what is left of the system's limit."""
STOP_S_MAX: Final = 1.0
"""Seconds that clients have to take their last replies when the node stops."""


class Ending(Protocol):
    """A connection, as far as its end goes."""

    def on_greeting_late(self) -> None:
        """End because HELLO has not come in time."""
        ...

    def check_access(self) -> None:
        """End if whoever is at the other end would not be let in any more."""
        ...

    def stop(self) -> None:
        """Take no more requests; close when those that came are answered."""
        ...

    def abort(self) -> None:
        """Close at once."""
        ...


class OpenConnections:
    """See the module."""

    def __init__(self, connections_max: int = CONNECTIONS_MAX, guard: Guard | None = None) -> None:
        """`guard` says whom to let in; everybody if there is none."""
        self.guard = guard or Guard(TokenTable())
        self.guard.tokens.on_changed = self.check_access
        self.receive_buffer = ReceiveBuffer()
        self.unsent_bytes = 0
        self.connections_max = connections_max
        self._connections: set[Ending] = set()
        self._ungreeted: dict[Ending, tuple[float, str]] = {}
        """Until when each has to say HELLO, by the loop's clock, and where it comes from; the earliest comes first."""
        self._ungreeted_of: Counter[str] = Counter()
        self._greeting_timer: asyncio.TimerHandle | None = None
        self._all_gone = asyncio.Event()
        self._all_gone.set()

    @property
    def count(self) -> int:
        """Connections that are open."""
        return len(self._connections)

    def add(self, connection: Ending, place: str = "") -> bool:
        """Take a connection in; False if there are too many, or too many of one place without a HELLO."""
        if len(self._connections) >= self.connections_max:
            return False
        if place and self._ungreeted_of[place] >= max(self.connections_max // SHARE, 1):
            return False
        self._connections.add(connection)
        self._ungreeted[connection] = (asyncio.get_running_loop().time() + GREETING_S_MAX, place)
        self._ungreeted_of[place] += 1
        self._arm_greeting_timer()
        self._all_gone.clear()
        self._note_count()
        return True

    def note_greeted(self, connection: Ending) -> None:
        """Take notice that a connection has said HELLO, or never will."""
        self._forget_ungreeted(connection)
        if not self._ungreeted and self._greeting_timer is not None:
            self._greeting_timer.cancel()
            self._greeting_timer = None

    def _forget_ungreeted(self, connection: Ending) -> None:
        _, place = self._ungreeted.pop(connection, (0.0, None))
        if place is not None:
            self._ungreeted_of[place] -= 1
            if not self._ungreeted_of[place]:
                del self._ungreeted_of[place]

    def _arm_greeting_timer(self) -> None:
        """Have one timer for all, which runs for the earliest."""
        if self._ungreeted and self._greeting_timer is None:
            deadline, _ = next(iter(self._ungreeted.values()))
            self._greeting_timer = asyncio.get_running_loop().call_at(deadline, self._on_greeting_timer)

    def _on_greeting_timer(self) -> None:
        """The loop runs timers before it reads: read once more, then end those that are still late."""
        self._greeting_timer = asyncio.get_running_loop().call_later(GREETING_GRACE_S, self._end_late)

    def _end_late(self) -> None:
        self._greeting_timer = None
        now = asyncio.get_running_loop().time()
        first = list(islice(self._ungreeted.items(), GREETINGS_PER_STEP_MAX))
        for connection in [connection for connection, (deadline, _) in first if deadline <= now]:
            self._forget_ungreeted(connection)
            connection.on_greeting_late()
        self._arm_greeting_timer()

    @property
    def write_buffer_bytes(self) -> int:
        """Unsent reply bytes that one more connection may have before it is not read any more."""
        share = UNSENT_BYTES_MAX // max(len(self._connections), 1)
        return min(max(share, WRITE_BUFFER_BYTES_MIN), WRITE_BUFFER_BYTES_MAX)

    def remove(self, connection: Ending) -> None:
        """Take notice that a connection is gone."""
        self._connections.discard(connection)
        self.note_greeted(connection)
        self._note_count()
        if not self._connections:
            self._all_gone.set()

    def _note_count(self) -> None:
        """Connections came or went."""

    async def end_all(self, wait_idle: Callable[[], Awaitable[None]]) -> None:
        """End every connection: what came in is answered, and the clients have STOP_S_MAX to read it.

        `wait_idle` returns when everything that came in has been answered.
        """
        self._for_all(lambda connection: connection.stop())
        await wait_idle()
        try:
            async with asyncio.timeout(STOP_S_MAX):
                await self._all_gone.wait()
        except TimeoutError:
            self._for_all(lambda connection: connection.abort())
            await self._all_gone.wait()

    def check_access(self) -> None:
        """End the connections of those who would not be let in any more."""
        self._for_all(lambda connection: connection.check_access())

    def abort(self) -> None:
        """Close every connection at once."""
        self._for_all(lambda connection: connection.abort())

    def _for_all(self, action: Callable[[Ending], None]) -> None:
        for connection in tuple(self._connections):
            action(connection)


def files_for_connections() -> int:
    """Raise this process's limit of open files as far as the system lets it; return what that leaves for clients."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = CONNECTIONS_MAX + FILES_RESERVED
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return CONNECTIONS_MAX
    limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    return max(limit - FILES_RESERVED, 1)
