"""One client's connection: from bytes to frames, and replies back.

All connections share one receive buffer, since the loop reads one at a time: an idle connection holds no memory. Only
a large frame that arrives in pieces gets a buffer of its own, into which the rest is received directly. The frames in
what has arrived are taken into the reactor's batch by one kernel call.

States: greeting (HELLO must come first) -> open -> closing (an error was sent; nothing is read any more).
"""

import asyncio
import time
from typing import Final, cast

import msgspec
import numpy as np
from typing_extensions import Buffer

from bezant.net.server.batch import Request, Run
from bezant.net.server.frame_kernels import (
    CURSOR_FRAMES,
    CURSOR_LENGTH,
    CURSOR_OFFSET,
    CURSOR_VERIFIED,
    SCAN_BODY_MALFORMED,
    SCAN_CHECKSUM_WRONG,
    SCAN_FULL,
    SCAN_INCOMPLETE,
    SCAN_LENGTH_INVALID,
    SCAN_LONG,
    SCAN_OTHER_OPERATION,
    SCAN_VERSION_UNSUPPORTED,
    scan_frames,
)
from bezant.net.server.reactor import CONNECTION_BYTES_IN_FLIGHT_MAX, Reactor
from bezant.protocol.errors import RemoteProtocolError, UsageError
from bezant.protocol.frames import (
    BATCH_COUNT_MAX,
    CLOSES_CONNECTION,
    FRAME_HEADER_SIZE,
    FRAME_SIZE_MAX,
    PROTOCOL_VERSION,
    FrameError,
    FrameFlag,
    FrameHeader,
    Operation,
    decode_header,
    encode_frame,
    frame_checksum,
)
from bezant.protocol.messages import ErrorMessage, Hello, Welcome, decode_message, encode_message
from bezant.protocol.records import Bytes

RECEIVE_BUFFER_SIZE: Final = 1 << 20
LEFTOVER_SIZE_MAX: Final = 64 << 10
"""The start of an unfinished frame that is kept and copied back; a larger frame gets a buffer of its own."""
OWN_BUFFERS_BYTES_MAX: Final = 64 << 20
"""Bytes of such buffers of all connections together; who needs more is refused."""
WRITE_BUFFER_BYTES_MAX: Final = 1 << 20
"""Unsent reply bytes at which a connection is not read any more, until the client has read some."""
WRITE_STALL_S_MAX: Final = 30.0
"""A client that reads nothing for so long, while replies wait, is disconnected."""

_ERRORS: Final = {
    SCAN_CHECKSUM_WRONG: (FrameError.CHECKSUM_WRONG, "the checksum of the frame is wrong"),
    SCAN_LENGTH_INVALID: (
        FrameError.LENGTH_INVALID,
        f"a frame has {FRAME_HEADER_SIZE} to {FRAME_SIZE_MAX} bytes",
    ),
    SCAN_VERSION_UNSUPPORTED: (
        FrameError.VERSION_UNSUPPORTED,
        f"this node speaks protocol version {PROTOCOL_VERSION}",
    ),
}
_AMONG_COMMANDS: Final = frozenset(
    {
        Operation.LOOKUP_ACCOUNTS,
        Operation.LOOKUP_EVENTS,
        Operation.LIST_ACCOUNTS,
        Operation.LIST_CURRENCIES,
        Operation.REGISTER_CURRENCY,
    }
)


class ReceiveBuffer:
    """The buffer that all connections of a loop share, and the account of their own ones."""

    def __init__(self) -> None:
        self.bytes = np.zeros(RECEIVE_BUFFER_SIZE, np.uint8)
        self.view = memoryview(self.bytes)
        self.own_bytes = 0


class Connection(asyncio.BufferedProtocol):
    """Server side of one TCP connection."""

    def __init__(self, reactor: Reactor, shared: ReceiveBuffer, welcome: Welcome) -> None:
        self._reactor = reactor
        self._shared = shared
        self._welcome = welcome
        self._transport: asyncio.Transport | None = None
        self._greeted = False
        self._closing = False
        self._leftover = b""
        self._own: Bytes | None = None
        self._own_filled = 0
        self._bytes_in_flight = 0
        self._reading = True
        self._write_paused = False
        self._waiting = False
        self._queued = False
        self._stall_timer: asyncio.TimerHandle | None = None

    # ---- asyncio's side ----

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has connected."""
        # Cast, not checked: the transports of uvloop are asyncio's by duck typing alone.
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES_MAX)
        self._reactor.counters.connections += 1

    def connection_lost(self, error: Exception | None) -> None:
        """The client is gone. What it sent is executed all the same; the replies go nowhere."""
        self._closing = True
        self._transport = None
        self._drop_own()
        self._cancel_stall_timer()
        self._reactor.bytes_in_flight -= self._bytes_in_flight
        self._bytes_in_flight = 0
        self._reactor.counters.connections -= 1

    def eof_received(self) -> bool:
        """The client sends no more; close when its replies are out."""
        self._closing = True
        return self._bytes_in_flight > 0

    def get_buffer(self, sizehint: int) -> Buffer:
        """Where the next bytes go: behind the leftover in the shared buffer, or into the frame's own buffer."""
        if self._own is not None:
            return memoryview(self._own)[self._own_filled :]
        size = len(self._leftover)
        if size:
            self._shared.view[:size] = self._leftover
        return self._shared.view[size:]

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes have arrived."""
        started = time.perf_counter()
        self._reactor.counters.bytes_in += nbytes
        if self._closing:
            self._leftover = b""
            return
        if self._own is not None:
            self._own_filled += nbytes
            if self._own_filled < len(self._own):
                return
            own, self._own = self._own, None
            self._shared.own_bytes -= len(own)
            self._scan(own, len(own))
        else:
            end = len(self._leftover) + nbytes
            self._leftover = b""
            self._scan(self._shared.bytes, end)
        seconds = time.perf_counter() - started
        self._reactor.counters.add("receive", seconds)
        self._reactor.counters.note_step(seconds)

    def pause_writing(self) -> None:
        """The client does not read its replies: read no more of its requests, and do not wait for ever."""
        self._write_paused = True
        self._update_reading()
        loop = asyncio.get_running_loop()
        self._stall_timer = loop.call_later(WRITE_STALL_S_MAX, self._on_write_stall)

    def resume_writing(self) -> None:
        """The client reads again."""
        self._write_paused = False
        self._cancel_stall_timer()
        self._update_reading()

    def _on_write_stall(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _cancel_stall_timer(self) -> None:
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None

    # ---- frames ----

    def _scan(self, buffer: Bytes, end: int) -> None:
        """Take all whole frames from a buffer; keep the rest."""
        offset = 0
        verified = -1
        while not self._closing:
            status, offset = self._take_commands(buffer, offset, end, verified)
            verified = -1
            if status == SCAN_INCOMPLETE:
                self._keep(buffer, offset, end)
                return
            if status == SCAN_FULL:
                self._keep_all(buffer, offset, end)
                return
            length = int(self._reactor.collecting.cursor[CURSOR_LENGTH])
            if status in _ERRORS:
                self._refuse(0, *_ERRORS[status])
            elif status == SCAN_LONG:
                frame = memoryview(buffer)[offset : offset + length]
                if frame_checksum(frame) == decode_header(frame).checksum:
                    verified = offset
                else:
                    self._refuse(0, *_ERRORS[SCAN_CHECKSUM_WRONG])
            else:
                self._handle(memoryview(buffer)[offset : offset + length], status)
                offset += length

    def _take_commands(self, buffer: Bytes, offset: int, end: int, verified: int) -> tuple[int, int]:
        """Let the kernel take what it can; returns why it stopped and where."""
        if not self._greeted:
            return self._check_greeting(buffer, offset, end)
        batch = self._reactor.collecting
        cursor = batch.cursor
        frame_first = int(cursor[CURSOR_FRAMES])
        cursor[CURSOR_OFFSET] = offset
        cursor[CURSOR_VERIFIED] = verified
        status = scan_frames(buffer, end, batch.command_words, batch.frames, time.monotonic_ns(), cursor)
        stopped = int(cursor[CURSOR_OFFSET])
        frame_end = int(cursor[CURSOR_FRAMES])
        if frame_end > frame_first:
            batch.runs.append(Run(self, frame_first, frame_end, stopped - offset))
            self._bytes_in_flight += stopped - offset
            self._reactor.bytes_in_flight += stopped - offset
            self._update_reading()
            self._reactor.schedule()
        return status, stopped

    def _check_greeting(self, buffer: Bytes, offset: int, end: int) -> tuple[int, int]:
        """Before HELLO nothing but HELLO is looked at, and by no kernel."""
        cursor = self._reactor.collecting.cursor
        if end - offset < FRAME_HEADER_SIZE:
            return SCAN_INCOMPLETE, offset
        view = memoryview(buffer)
        header = decode_header(view[offset : offset + FRAME_HEADER_SIZE])
        cursor[CURSOR_LENGTH] = header.length
        if header.version != PROTOCOL_VERSION:
            return SCAN_VERSION_UNSUPPORTED, offset
        if not FRAME_HEADER_SIZE <= header.length <= FRAME_SIZE_MAX:
            return SCAN_LENGTH_INVALID, offset
        if end - offset < header.length:
            return SCAN_INCOMPLETE, offset
        if frame_checksum(view[offset : offset + header.length]) != header.checksum:
            return SCAN_CHECKSUM_WRONG, offset
        return SCAN_OTHER_OPERATION, offset

    def _keep(self, buffer: Bytes, offset: int, end: int) -> None:
        """Keep the start of a frame whose rest has not arrived."""
        size = end - offset
        length = int(self._reactor.collecting.cursor[CURSOR_LENGTH]) if size >= FRAME_HEADER_SIZE else 0
        if length <= LEFTOVER_SIZE_MAX:
            self._leftover = buffer[offset:end].tobytes()
            return
        if self._shared.own_bytes + length > OWN_BUFFERS_BYTES_MAX:
            self._refuse(0, FrameError.OVERLOADED, "too many large frames arrive at the same time; send smaller ones")
            self._close()
            return
        self._shared.own_bytes += length
        self._own = np.empty(length, np.uint8)
        self._own[:size] = buffer[offset:end]
        self._own_filled = size

    def _keep_all(self, buffer: Bytes, offset: int, end: int) -> None:
        """Keep whole frames that the batch has no room for, and read no more until it has."""
        self._leftover = buffer[offset:end].tobytes()
        self._waiting = True
        self._update_reading()
        if not self._queued:
            self._queued = True
            self._reactor.add_waiter(self)

    def resume(self) -> None:
        """The reactor has room again."""
        self._queued = False
        if not self._waiting:
            self._update_reading()
            return
        self._waiting = False
        kept = np.frombuffer(self._leftover, np.uint8).copy()
        self._leftover = b""
        if not self._closing:
            self._scan(kept, len(kept))
            self._update_reading()

    # ---- operations ----

    def _handle(self, frame: memoryview, status: int) -> None:
        """Handle a whole frame that is not a run of commands; its checksum is right."""
        header = decode_header(frame)
        body = bytes(frame[FRAME_HEADER_SIZE:])
        try:
            if not self._greeted:
                self._greet(header, body)
            elif status == SCAN_BODY_MALFORMED or header.flags:
                raise RemoteProtocolError("a request has no flags, and COMMANDS a body of 1 to 8191 whole commands")
            else:
                self._dispatch(header, body)
        except RemoteProtocolError as error:
            self._refuse(header.request_id, FrameError.BODY_MALFORMED, str(error))

    def _greet(self, header: FrameHeader, body: bytes) -> None:
        if header.operation != Operation.HELLO:
            self._refuse(header.request_id, FrameError.HELLO_EXPECTED, "the first frame of a connection is HELLO")
            return
        hello = decode_message(body, Hello)
        if hello.protocol_version != PROTOCOL_VERSION:
            message = f"protocol version {hello.protocol_version} is not spoken here, only {PROTOCOL_VERSION}"
            self._refuse(header.request_id, FrameError.VERSION_UNSUPPORTED, message)
            return
        self._greeted = True
        welcome = msgspec.structs.replace(self._welcome, clock_ns=time.time_ns())
        self._reply(header, encode_message(welcome))

    def _dispatch(self, header: FrameHeader, body: bytes) -> None:
        try:
            operation = Operation(header.operation)
        except ValueError:
            operation = Operation.ERROR
        if operation is Operation.PING:
            self._reply(header, body)
        elif operation is Operation.STATISTICS:
            statistics = self._reactor.counters.snapshot(self._reactor.bytes_in_flight)
            self._reply(header, encode_message(statistics))
        elif operation in _AMONG_COMMANDS:
            self._bytes_in_flight += header.length
            self._reactor.bytes_in_flight += header.length
            self._update_reading()
            self._reactor.request(Request(operation, body, lambda answer: self._respond(header, answer)))
        else:
            message = f"operation {header.operation} is not one that a client may ask for here"
            self._refuse(header.request_id, FrameError.OPERATION_UNKNOWN, message)

    def _respond(self, header: FrameHeader, answer: bytes | Exception) -> None:
        """Send what a request among the commands is answered."""
        if isinstance(answer, bytes):
            self._reply(header, answer)
        elif isinstance(answer, RemoteProtocolError):
            self._refuse(header.request_id, FrameError.BODY_MALFORMED, str(answer))
        else:
            code = FrameError.REQUEST_REFUSED if isinstance(answer, UsageError) else FrameError.OVERLOADED
            self._refuse(header.request_id, code, str(answer))
        self._settle(header.length)

    # ---- what goes out ----

    def send_replies(self, replies: memoryview, request_bytes: int) -> None:
        """Send encoded replies to frames that were `request_bytes` long together."""
        if self._transport is not None:
            self._transport.write(replies)
        self._settle(request_bytes)

    def _reply(self, header: FrameHeader, body: bytes) -> None:
        if self._transport is not None:
            self._transport.write(encode_frame(header.operation, header.request_id, body, flags=FrameFlag.REPLY))

    def _refuse(self, request_id: int, code: FrameError, message: str) -> None:
        """Answer with an ERROR frame, and close the connection if nothing after it can be trusted."""
        body = encode_message(ErrorMessage(int(code), message))
        if self._transport is not None:
            self._transport.write(encode_frame(Operation.ERROR, request_id, body, flags=FrameFlag.REPLY))
        if code in CLOSES_CONNECTION:
            self._close()

    def _close(self) -> None:
        """Read no more; close when the requests before this are answered."""
        self._closing = True
        self._leftover = b""
        self._drop_own()
        if self._transport is not None and self._reading:
            self._reading = False
            self._transport.pause_reading()
        self._maybe_close()

    def _maybe_close(self) -> None:
        """Close the transport, which sends what is buffered first, unless requests wait for their answers."""
        if self._transport is not None and self._bytes_in_flight == 0:
            self._transport.close()

    def _drop_own(self) -> None:
        if self._own is not None:
            self._shared.own_bytes -= len(self._own)
            self._own = None

    # ---- flow control ----

    def _settle(self, request_bytes: int) -> None:
        """Requests of so many bytes are answered."""
        if self._transport is None:
            return
        self._bytes_in_flight -= request_bytes
        self._reactor.bytes_in_flight -= request_bytes
        if self._closing:
            self._maybe_close()
        elif not self._reading:
            self._update_reading()

    def _update_reading(self) -> None:
        """Read exactly while there is room: here, in the client's own replies, and in the node."""
        if self._transport is None or self._closing:
            return
        node_has_room = self._reactor.has_room
        if not node_has_room and not self._queued:
            self._queued = True
            self._reactor.add_waiter(self)
        wanted = (
            not self._write_paused
            and not self._waiting
            and node_has_room
            and self._bytes_in_flight < CONNECTION_BYTES_IN_FLIGHT_MAX
        )
        if wanted == self._reading:
            return
        self._reading = wanted
        if wanted:
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()


def make_welcome(reactor: Reactor, server: str, kernel_digest: str, rules_version: int) -> Welcome:
    """What a node tells every client; `clock_ns` is set for each."""
    log_id = reactor.replica.log.log_id & (1 << 64) - 1
    return Welcome(
        server=server,
        protocol_version=PROTOCOL_VERSION,
        log_id=f"{log_id:016x}",
        shard=reactor.replica.shard,
        rules_version=rules_version,
        kernel_digest=kernel_digest,
        frame_size_max=FRAME_SIZE_MAX,
        batch_count_max=BATCH_COUNT_MAX,
        connection_bytes_in_flight_max=CONNECTION_BYTES_IN_FLIGHT_MAX,
        clock_ns=0,
    )
