"""Sends planned frames over several connections, each with several frames unanswered, until the node is gone."""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Final

import numpy as np

from bezant.net.client.link import Link, parse_address
from bezant.perf.crash.book import Book, Sent
from bezant.perf.crash.faults import RigFailed
from bezant.perf.crash.plan import Frame
from bezant.protocol.errors import BezantError, ConnectionFailed, RequestRefused
from bezant.protocol.frames import FrameHeader, Operation, encode_frame
from bezant.protocol.messages import ErrorMessage, decode_message
from bezant.protocol.records import RESULT

CONNECT_TIMEOUT_S: Final = 30.0
END_TIMEOUT_S: Final = 30.0


class Sender:
    """One connection: sends its frames in order, a few ahead of the answers, and books every answer.

    ``unanswered`` are the frames whose outcome is open once the connection has ended, ``sent`` all that went out.
    """

    def __init__(self, book: Book, frames: Sequence[Frame], in_flight_max: int) -> None:
        self._book = book
        self._waiting = deque(frames)
        self._in_flight_max = in_flight_max
        self._link = Link(self._on_frame, self._send_more, self._on_end)
        self._next_request_id = 1
        self._ended = asyncio.Event()
        self.sent: list[Sent] = []
        self.unanswered: deque[Sent] = deque()
        self.failure: BezantError | None = None
        self.is_done = asyncio.Event()
        """Set when everything is answered, or nothing will be any more."""

    async def connect(self, address: str) -> None:
        """Connect and greet. Raises `ConnectionFailed` and its like, OSError, TimeoutError."""
        host, port = parse_address(address)
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            await asyncio.get_running_loop().create_connection(lambda: self._link, host, port)
            await self._link.greet()

    def start(self) -> None:
        """Send the first frames."""
        self._send_more()

    def _send_more(self) -> None:
        while self._waiting and len(self.unanswered) < self._in_flight_max and self._link.is_writable:
            frame = self._waiting.popleft()
            sent = self._book.send(frame)
            self.sent.append(sent)
            self.unanswered.append(sent)
            self._link.write(encode_frame(Operation.COMMANDS, self._next_request_id, frame.body))
            self._next_request_id += 1

    def _on_frame(self, header: FrameHeader, body: memoryview) -> None:
        try:
            self._take(header, body)
        except BezantError:
            raise
        except Exception as error:
            # The event loop would report it as a lost connection, which is what a crash looks like.
            raise RigFailed(f"an answer could not be booked: {error!r}") from error

    def _take(self, header: FrameHeader, body: memoryview) -> None:
        if header.operation == Operation.ERROR:
            refusal = decode_message(body, ErrorMessage)
            raise RequestRefused(refusal.code, refusal.message)
        # Replies to commands come in the order of the requests.
        self._book.acknowledge(self.unanswered[0], np.frombuffer(bytes(body), RESULT))
        self.unanswered.popleft()
        self._send_more()
        if not self.unanswered:
            self.is_done.set()

    def _on_end(self, _link: Link, error: BezantError) -> None:
        self.failure = error
        self.is_done.set()
        self._ended.set()

    async def wait_ended(self) -> None:
        """Return when the node has closed the connection, or died, and everything it had sent is taken."""
        async with asyncio.timeout(END_TIMEOUT_S):
            await self._ended.wait()
            await self._link.wait_closed()

    async def close(self) -> None:
        """Close the connection."""
        self._link.end(ConnectionFailed("the sender has closed the connection"))
        await self.wait_ended()
