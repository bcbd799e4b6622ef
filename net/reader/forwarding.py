"""Has the leader make what was acknowledged to this reader a part of the log: one request a second, for all names.

Nobody waits for it: what the reader has acknowledged is on its disk, and is sent until the log has it.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Final

from bezant.net.client.connection import TcpChannel
from bezant.net.reader.names import NamedPositions
from bezant.protocol.errors import BezantError
from bezant.protocol.frames import KEEP_POSITIONS_MAX, Operation
from bezant.protocol.messages import KeepPositions, encode_message
from bezant.protocol.records import position_of

FORWARD_S: Final = 1.0
"""Seconds between two requests."""
BACKOFF_S: Final = 10.0
"""Seconds before the next one, after one that has failed."""
TIMEOUT_S: Final = 5.0

_log = logging.getLogger("bezant")


class Forwarding:
    """See the module. All methods on the loop."""

    def __init__(
        self,
        names: NamedPositions,
        *,
        node: str,
        shard: int,
        public_log_id: str,
        on_failure: Callable[[Exception], None],
    ) -> None:
        """`node` is where clients connect: the leader is found by way of it."""
        self._names = names
        self._node = node
        self._shard = shard
        self._public_log_id = public_log_id
        self._on_failure = on_failure
        self._channel: TcpChannel | None = None
        self._is_failing = False
        self._task = asyncio.get_running_loop().create_task(self._run(), name="bezant named positions")

    async def _run(self) -> None:
        try:
            while True:
                await asyncio.sleep(BACKOFF_S if self._is_failing else FORWARD_S)
                pending = self._names.pending(KEEP_POSITIONS_MAX)
                if pending:
                    await self._forward(pending)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            self._on_failure(error)

    async def _forward(self, sequences: dict[str, int]) -> None:
        """Send what the log does not have; what fails is said once, and tried again."""
        positions = {
            name: position_of(self._shard, sequence) if sequence else 0 for name, sequence in sequences.items()
        }
        asked = encode_message(KeepPositions(positions, self._public_log_id))
        try:
            if self._channel is None:
                self._channel = await TcpChannel.open(self._node, TIMEOUT_S)
            await self._channel.request(Operation.KEEP_POSITIONS, asked, TIMEOUT_S)
            self._is_failing = False
        except BezantError as error:
            if not self._is_failing:
                _log.warning("bezant: named positions are kept on this node alone for now: %s", error)
            self._is_failing = True

    async def stop(self) -> None:
        """Send nothing more."""
        self._task.cancel()
        await asyncio.wait([self._task])
        if self._channel is not None:
            with contextlib.suppress(BezantError):
                await self._channel.close()
