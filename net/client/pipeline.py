"""The bookkeeping of a pipelined connection, without socket or clock: what is unanswered, unsent, in flight, overdue.

Rules:

- A request lives from `add` until its reply, its deadline or the end of the pipeline, whichever is first, and then its
  ``answer`` is done. It is sent in the order of `add`, at most once per connection.
- When a connection is lost or left, every request that still waits is unsent again and goes out on the next one with
  the same id and body. That is safe: ids of commands are idempotency keys, and all other requests may be repeated.
- A refusal because the node does not lead answers nothing: the request waits for the next connection.
- A sending leaves the outcome unsure if the connection ended under it or the node said that it does not know. One that
  was refused because the node does not lead is as if it had not been.
- Bytes in flight are those of frames sent and not yet answered on this connection, also of requests given up
  meanwhile: the node still works on them. They stay within ``bytes_in_flight_max``, but one frame may always go.
- A reply to something that was not asked on this connection breaks the protocol.
"""

import asyncio
import math
from collections import deque
from typing import Final

from typing_extensions import Buffer

from bezant.protocol.errors import (
    AccessDenied,
    BezantError,
    ConnectionFailed,
    LocalProtocolError,
    RemoteProtocolError,
    RequestRefused,
    RequestTimedOut,
)
from bezant.protocol.frames import (
    CLOSES_CONNECTION,
    FRAME_HEADER_SIZE,
    FRAME_SIZE_MAX,
    FrameError,
    FrameHeader,
    Operation,
    encode_frame,
)
from bezant.protocol.messages import ErrorMessage, decode_message

_OPERATION_ERROR: Final = int(Operation.ERROR)
_ASK_LEADER: Final = frozenset({FrameError.NOT_LEADER, FrameError.OUTCOME_UNKNOWN})


class Request:
    """One request until it is answered. ``unsure_count`` says how many sendings may have been executed, unanswered."""

    __slots__ = ("answer", "body", "deadline_s", "operation", "reply_size", "request_id", "size", "unsure_count")

    def __init__(
        self,
        request_id: int,
        operation: Operation,
        body: Buffer,
        *,
        deadline_s: float,
        reply_size: int | None,
        answer: asyncio.Future[memoryview],
    ) -> None:
        self.request_id = request_id
        self.operation = operation
        self.body = body
        self.size = FRAME_HEADER_SIZE + memoryview(body).nbytes
        self.deadline_s = deadline_s
        self.reply_size = reply_size
        self.answer = answer
        self.unsure_count = 0


class Pipeline:
    """See the module. All times are seconds of one monotonic clock, which the caller reads."""

    def __init__(self) -> None:
        self.bytes_in_flight_max = 0
        self.shard = self.map_version = 0
        """What the header of each request says; zeros where there is no slot map."""
        self.told_map_version = 0
        """What the header of the last reply said that said anything."""
        self._bytes_in_flight = 0
        self._request_id_last = 0
        # Every request whose answer is not done, in the order of their ids. Superset of the other two but for what
        # was given up: unsent requests that are done are skipped, sizes in flight stay until the node has replied.
        self._waiting: dict[int, Request] = {}
        self._unsent: deque[Request] = deque()
        self._size_in_flight: dict[int, int] = {}

    @property
    def bytes_in_flight(self) -> int:
        """Bytes of frames that were sent on this connection and are not answered."""
        return self._bytes_in_flight

    @property
    def oldest_in_flight(self) -> int | None:
        """Request id of the frame that has been in flight for longest."""
        return next(iter(self._size_in_flight), None)

    @property
    def waiting_count(self) -> int:
        """Requests without an answer."""
        return len(self._waiting)

    @property
    def unsent_count(self) -> int:
        """Requests in line for this connection or the next."""
        return len(self._unsent)

    def add(
        self,
        operation: Operation,
        body: Buffer,
        *,
        deadline_s: float,
        answer: asyncio.Future[memoryview],
        reply_size: int | None = None,
    ) -> Request:
        """Take on a request. `body` must stay as it is until the answer; a reply of another size than `reply_size`
        breaks the protocol. Raises `LocalProtocolError` if a frame cannot hold the body.
        """
        request = Request(
            self._request_id_last + 1, operation, body, deadline_s=deadline_s, reply_size=reply_size, answer=answer
        )
        if request.size > FRAME_SIZE_MAX:
            raise LocalProtocolError(f"a frame of {request.size} bytes is over the {FRAME_SIZE_MAX} that one may have")
        self._request_id_last = request.request_id
        self._waiting[request.request_id] = request
        self._unsent.append(request)
        return request

    def take(self, now_s: float) -> bytes | None:
        """Return the next frame to send, or None if there is none or no room for it in flight."""
        while self._unsent:
            request = self._unsent[0]
            if request.answer.done():
                # Given up before it went out, by its caller or by its deadline.
                self._unsent.popleft()
                continue
            if self._size_in_flight and self._bytes_in_flight + request.size > self.bytes_in_flight_max:
                return None
            self._unsent.popleft()
            self._size_in_flight[request.request_id] = request.size
            self._bytes_in_flight += request.size
            timeout_ms = max(1, math.ceil((request.deadline_s - now_s) * 1000))
            return encode_frame(
                request.operation,
                request.request_id,
                request.body,
                timeout_ms=timeout_ms,
                shard=self.shard,
                map_version=self.map_version,
            )
        return None

    def on_frame(self, header: FrameHeader, body: memoryview) -> ErrorMessage | None:
        """Take a reply in; returns an error if it says that the node does not lead and must be left for its leader.

        Raises `RemoteProtocolError` or `ConnectionFailed` when the connection must end.
        """
        size = self._size_in_flight.pop(header.request_id, None)
        if size is None:
            raise _unasked(header, body)
        self._bytes_in_flight -= size
        if header.map_version:
            self.told_map_version = header.map_version
        request = self._waiting.get(header.request_id)
        if header.operation == _OPERATION_ERROR:
            error = decode_message(body, ErrorMessage)
            if error.code in CLOSES_CONNECTION:
                raise _refused_connection(error)
            if error.code in _ASK_LEADER:
                if request is not None and error.code == FrameError.OUTCOME_UNKNOWN:
                    request.unsure_count += 1
                return error
            self._finish(request, refusal_of(error))
            return None
        if request is None:
            return None
        if header.operation != request.operation:
            raise RemoteProtocolError(
                f"request {header.request_id}, operation {request.operation.name}, was answered as {header.operation}"
            )
        if request.reply_size is not None and request.reply_size != len(body):
            raise RemoteProtocolError(
                f"a reply of {len(body)} bytes where {request.reply_size} belong ({request.operation.name})"
            )
        self._finish(request, body)
        return None

    def on_connection_lost(self) -> None:
        """Make every request that still waits unsent again, in order."""
        for request_id in self._size_in_flight:
            request = self._waiting.get(request_id)
            if request is not None:
                request.unsure_count += 1
        self._unsent = deque(self._waiting.values())
        self._size_in_flight.clear()
        self._bytes_in_flight = 0

    def expire(self, now_s: float) -> float | None:
        """End the requests whose deadline has passed, and return the next deadline, if any."""
        earliest_s = math.inf
        overdue: list[Request] = []
        for request in self._waiting.values():
            if request.deadline_s <= now_s or request.answer.done():
                overdue.append(request)
            else:
                earliest_s = min(earliest_s, request.deadline_s)
        for request in sorted(overdue, key=lambda request: request.deadline_s):
            self._finish(request, RequestTimedOut("no answer came before the deadline"))
        if overdue:
            # Also bounds the queue while there is no connection to take from it.
            self._unsent = deque(request for request in self._unsent if not request.answer.done())
        return None if earliest_s == math.inf else earliest_s

    def end(self, error: BezantError, unsent_error: BezantError | None = None) -> None:
        """End every request with this error; those that no node can have executed with `unsent_error`, if given."""
        for request in list(self._waiting.values()):
            is_unsent = not request.unsure_count and request.request_id not in self._size_in_flight
            self._finish(request, unsent_error if unsent_error is not None and is_unsent else error)
        self._unsent.clear()
        self._size_in_flight.clear()
        self._bytes_in_flight = 0

    def _finish(self, request: Request | None, outcome: memoryview | BezantError) -> None:
        if request is None:
            return
        del self._waiting[request.request_id]
        if request.answer.done():
            return
        if isinstance(outcome, BezantError):
            request.answer.set_exception(outcome)
        else:
            request.answer.set_result(outcome)


class PutOut(ConnectionFailed):
    """The node has ended the connection, because the token that it came with does not count any more."""


def _unasked(header: FrameHeader, body: memoryview) -> BezantError:
    if header.operation == _OPERATION_ERROR:
        # About the connection as a whole, or about a frame that did not arrive as it was sent.
        return _refused_connection(decode_message(body, ErrorMessage))
    return RemoteProtocolError(f"a reply to request {header.request_id}, which was not asked on this connection")


def refusal_of(error: ErrorMessage) -> RequestRefused:
    """What an ERROR frame is to who asked."""
    is_denied = error.code in (FrameError.FORBIDDEN, FrameError.UNAUTHENTICATED)
    return (AccessDenied if is_denied else RequestRefused)(error.code, error.message)


def _refused_connection(error: ErrorMessage) -> BezantError:
    if error.code == FrameError.UNAUTHENTICATED:
        # What is unanswered is sent again, and the next HELLO tells whether we are let in.
        return PutOut(f"the node has ended the connection: {error.message}")
    if error.code == FrameError.OVERLOADED:
        return ConnectionFailed(f"the node has no room for this connection: {error.message}")
    return RemoteProtocolError(f"the node ended the connection: {error.message} (error {error.code})")
