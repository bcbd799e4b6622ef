"""The gateway's own way to the nodes: over it probes are answered, webhooks told, and the nodes looked at.

It is opened with the token of this process, which may come to count no more. Then all of that stands still, and the
gateway says so: to those who ask whether it is ready, in its metrics and in its log, once.

    served --the nodes let us in no more--> refused --the file of the token is read again, and let in--> served
                                               |--not--> a pause, and again
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from bezant.net.gateway.asking import Ledger
from bezant.protocol.errors import AccessDenied, BezantError, RemoteProtocolError, UsageError

WATCH_S: Final = 1.0
"""Seconds between two looks at whether the nodes serve us."""
REOPEN_S_MIN: Final = 1.0
REOPEN_S_MAX: Final = 15.0
"""Seconds between two attempts to be let in again: doubled each time."""
REFUSED: Final = "the nodes let this gateway in no more: its token does not count"

_log = logging.getLogger("bezant")


class OwnLedger:
    """See the module. `ledger` stays the same; what it stands over is replaced."""

    def __init__(self, ledger: Ledger, reopen: Callable[[], Awaitable[Ledger]]) -> None:
        """`reopen` connects anew, with the token that there is now; raises `BezantError`. `ledger` is closed here."""
        self.ledger = ledger
        self._reopen = reopen
        self._is_served = asyncio.Event()
        self._is_served.set()
        self.is_refused = False
        """Whether the nodes do not let us in."""

    async def ping(self, *, timeout_s: float) -> None:
        """Have a node answer. Raises `BezantError`."""
        await self.ledger.wallet.ping(timeout_s=timeout_s)

    async def served(self) -> None:
        """Return when the nodes serve us, as far as is known."""
        await self._is_served.wait()

    async def watch(self) -> None:
        """Notice when they do no more, and have them do so again, until cancelled."""
        while True:
            await asyncio.sleep(WATCH_S)
            if self.ledger.is_over:
                self._is_served.clear()
                try:
                    await self._be_served()
                finally:
                    self._is_served.set()

    async def _be_served(self) -> None:
        pause_s = REOPEN_S_MIN
        while self.ledger.is_over:  # A connection may find by itself that the token counts after all.
            try:
                await self._replace(await self._reopen())
                break
            except (AccessDenied, UsageError) as error:
                self._note_refused(str(error))
            except BezantError as error:
                _log.debug("bezant: the nodes are not reached just now: %s", error)
            except Exception:
                _log.exception("bezant: the connections of the gateway could not be made anew")
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, REOPEN_S_MAX)
        if self.is_refused:
            self.is_refused = False
            _log.warning("bezant: the nodes let this gateway in again")

    async def _replace(self, fresh: Ledger) -> None:
        old = self.ledger.wallet
        if fresh.wallet.welcome.log_id != old.welcome.log_id:
            await fresh.wallet.close()
            raise RemoteProtocolError("the nodes keep another ledger now: start the gateway again if that is meant")
        self.ledger.wallet = fresh.wallet
        await old.close()

    def _note_refused(self, reason: str) -> None:
        if not self.is_refused:
            self.is_refused = True
            _log.error(
                "bezant: %s. Probes, webhooks and the look at the nodes stand still until the file of its token"
                " (--token-file) has one that counts, which needs no restart: %s",
                REFUSED,
                reason,
            )

    async def close(self) -> None:
        """Close the connections."""
        await self.ledger.wallet.close()
