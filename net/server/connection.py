"""One client's connection: from bytes to frames, and replies back.

Bytes that cannot be taken yet lie in the connection's inbox (`inbox.py`). The frames in what has arrived are taken into
the reactor's batch by one kernel call; only what is not a command goes through the interpreter a frame at a time.

States: greeting (HELLO must come first, and in time) -> open -> ending (nothing more is taken; closed when all is
answered). An ending begins with the end of the client's stream, with an error after which nothing can be trusted, or
with the node's stop. A connection that this side ends first is shut for writing and read on, into nothing, until the
client closes: closed at once, the bytes that it still sends could cost it the replies that are on their way.
"""

import asyncio
import socket
import time
from collections.abc import Callable
from functools import partial
from typing import Final, cast

from typing_extensions import Buffer

from bezant.net.access.addresses import place_of_peer
from bezant.net.access.guard import NOT_LET_IN, PUT_OUT
from bezant.net.access.tls import is_private, name_of_peer
from bezant.net.server.batch import Request, Run
from bezant.net.server.clients import Clients
from bezant.net.server.closing import closing_of
from bezant.net.server.frame_kernels import (
    CURSOR_FRAMES,
    CURSOR_LENGTH,
    CURSOR_OFFSET,
    CURSOR_VERIFIED,
    SCAN_BODY_MALFORMED,
    SCAN_CHECKSUM_WRONG,
    SCAN_FULL,
    SCAN_INCOMPLETE,
    SCAN_LONG,
    SCAN_OTHER_OPERATION,
    scan_frames,
)
from bezant.net.server.greeting import check_greeting
from bezant.net.server.inbox import Inbox, SkippedFrame, Unread
from bezant.net.server.open_connections import GREETING_S_MAX, UNSENT_BYTES_MAX
from bezant.net.server.placing import Placing
from bezant.net.server.reactor import CONNECTION_BYTES_IN_FLIGHT_MAX
from bezant.net.server.reporting import report
from bezant.net.server.requests import (
    AMONG_COMMANDS,
    AnsweredElsewhere,
    WrongShard,
    error_code,
    legs_of,
    reply_size_max,
    tries_of,
)
from bezant.net.server.scan_errors import SCAN_ERRORS
from bezant.protocol.access import ANYBODY
from bezant.protocol.errors import RemoteProtocolError, UsageError
from bezant.protocol.frames import (
    CLOSES_CONNECTION,
    FRAME_HEADER_SIZE,
    PROTOCOL_VERSION,
    FrameError,
    FrameFlag,
    FrameHeader,
    Operation,
    decode_header,
    encode_frame,
    frame_checksum,
)
from bezant.protocol.messages import ErrorMessage, Hello, decode_message, encode_message
from bezant.protocol.records import Bytes, Records

FRAMES_PER_STEP_MAX: Final = 64
"""Frames, other than commands, that a connection handles before it is others' turn."""
REPLY_BYTES_DUE_MAX: Final = 4 << 20
"""Bytes that the replies to a connection's requests, other than commands, may have before it is read on."""
REPLY_BYTES_DUE_MIN: Final = 64 << 10
"""What each of them counts for at least, since it costs more than its bytes."""
LARGE_FRAME_S_MAX: Final = 60.0
"""Seconds that a large frame has to arrive; its buffer is one that others wait for."""
WRITE_STALL_S_MAX: Final = 30.0
"""A client that leaves so much unread that it is not read any more is disconnected after so long; so is one that still
has not closed so long after this side has."""
ERROR_MESSAGE_SIZE_MAX: Final = 400
"""Characters of the text of an error; it may repeat what the client sent, which may be as long as a frame."""
_NAMES: Final = {int(operation): operation.name.lower() for operation in Operation}


class Connection(asyncio.BufferedProtocol):
    """Server side of one TCP connection."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients
        self._reactor = clients.reactor
        self._inbox = Inbox(clients.receive_buffer)
        self._transport: asyncio.Transport | None = None
        self._greeted = False
        self.principal = ANYBODY
        """Who is at the other end, once greeted."""
        self._is_coordinators = False
        """Whether another shard's coordinator is at the other end, which must never wait for clients."""
        self._ending = False
        self._client_ended = False
        self._finished = False
        self._last_words = b""
        self._bytes_in_flight = 0
        self._reply_bytes_due = 0
        self._unsent_bytes = 0
        self._reading = True
        self._write_paused = False
        self._queued = False
        self._stall_timer: asyncio.TimerHandle | None = None
        self._large_frame_timer: asyncio.TimerHandle | None = None

    # ---- asyncio's side ----

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has connected."""
        # Cast, not checked: the transports of uvloop are asyncio's by duck typing alone.
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=self._clients.write_buffer_bytes)
        # So that a client whose machine has gone without a word does not count as a connection for ever.
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if not self._clients.add(self, place_of_peer(transport.get_extra_info("peername"))):
            self._ending = True
            self._refuse(0, FrameError.OVERLOADED, "the node has as many connections as it takes; try again later")
            self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        """The client is gone. What it sent is executed all the same; the replies go nowhere."""
        self._ending = True
        self._transport = None
        self._inbox.drop()
        self._stop_timers()
        self._forget_unsent()
        self._clients.remove(self)

    def eof_received(self) -> bool:
        """The client sends no more; close when its replies are out."""
        self._client_ended = True
        if not self._finished:
            self._end()
        # False has the loop close the transport, which `_end` may have done already; TLS ends both ways.
        return not self._finished and not is_private(self._transport)

    def get_buffer(self, sizehint: int) -> Buffer:
        """Where the next bytes go."""
        return self._inbox.space()

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes have arrived."""
        started = time.perf_counter()
        counters = self._reactor.counters
        counters.bytes_in += nbytes
        if self._ending:
            return
        unread = self._inbox.add(nbytes, time.monotonic_ns())
        if unread is not None:
            self._scan(unread)
        elif self._inbox.skipped is not None and self._inbox.skipped.remaining == 0:
            self._on_skipped(self._inbox.skipped)
        self._watch_large_frame()
        seconds = time.perf_counter() - started
        counters.add("receive", seconds)
        counters.note_step(seconds)

    def pause_writing(self) -> None:
        """The client does not read its replies: read no more of its requests, and do not wait for ever."""
        self._write_paused = True
        self._update()
        self._arm_stall_timer()
        if self._transport is not None:
            self._note_unsent(self._transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        """The client reads again."""
        self._write_paused = False
        self._forget_unsent()
        if not self._finished:
            self._stop_stall_timer()
        self._update()

    # ---- frames ----

    def _scan(self, unread: Unread) -> None:
        """Take all whole frames; keep the rest."""
        buffer, offset, end, verified, received_ns = unread
        frames_left = FRAMES_PER_STEP_MAX
        while offset < end and not self._last_words:
            if not frames_left or not self._has_room:
                self._keep(Unread(buffer, offset, end, verified, received_ns))
                return
            status, offset = self._take_commands(buffer, offset, end, verified, received_ns)
            if status == SCAN_INCOMPLETE:
                self._keep_start(buffer, offset, end)
                return
            if status == SCAN_FULL:
                self._keep(Unread(buffer, offset, end, verified, received_ns))
                return
            length = int(self._reactor.collecting.cursor[CURSOR_LENGTH])
            if status in SCAN_ERRORS:
                self._refuse(0, *SCAN_ERRORS[status])
            elif status == SCAN_LONG:
                frame = buffer[offset : offset + length].data
                header = decode_header(frame)
                if frame_checksum(frame) != header.checksum:
                    self._refuse(0, *SCAN_ERRORS[SCAN_CHECKSUM_WRONG])
                elif header.operation == Operation.COMMANDS:
                    verified = offset
                else:
                    self._handle(frame, SCAN_OTHER_OPERATION)
                    offset += length
                    frames_left -= 1
            else:
                self._handle(buffer[offset : offset + length].data, status)
                offset += length
                frames_left -= 1

    def _take_commands(self, buffer: Bytes, offset: int, end: int, verified: int, received_ns: int) -> tuple[int, int]:
        """Let the kernel take what it can; returns why it stopped and where."""
        if not self._greeted:
            status, self._reactor.collecting.cursor[CURSOR_LENGTH] = check_greeting(buffer[offset:end].data)
            return status, offset
        batch = self._reactor.collecting
        cursor = batch.cursor
        frame_first = int(cursor[CURSOR_FRAMES])
        cursor[CURSOR_OFFSET] = offset
        cursor[CURSOR_VERIFIED] = verified
        status = scan_frames(buffer, end, batch.command_words, batch.frames, received_ns, cursor)
        stopped = int(cursor[CURSOR_OFFSET])
        frame_end = int(cursor[CURSOR_FRAMES])
        if frame_end > frame_first:
            batch.runs.append(Run(self, frame_first, frame_end, stopped - offset, received_ns))
            self._bytes_in_flight += stopped - offset
            self._reactor.bytes_in_flight += stopped - offset
            self._update()
            self._reactor.schedule()
        return status, stopped

    def _keep_start(self, buffer: Bytes, offset: int, end: int) -> None:
        """Keep the start of a frame whose rest has not arrived."""
        has_header = end - offset >= FRAME_HEADER_SIZE
        length = int(self._reactor.collecting.cursor[CURSOR_LENGTH]) if has_header else 0
        self._inbox.keep_start(buffer, offset, end, length)

    def _keep(self, unread: Unread) -> None:
        """Keep frames that there is no room for, or no time in this step, and read no more until there is."""
        self._inbox.keep(unread)
        self._update()

    def resume(self) -> None:
        """The reactor has room again."""
        self._queued = False
        if self._has_room:
            unread = self._inbox.take_kept()
            if unread is not None:
                self._scan(unread)
                self._watch_large_frame()
        self._update()
        if self._ending:
            self._maybe_finish()

    def _on_skipped(self, skipped: SkippedFrame) -> None:
        """A frame for which there was no memory has passed."""
        self._inbox.drop_unfinished()
        if skipped.is_whole:
            message = "too many large frames arrive at the same time; send smaller ones, or try again later"
            self._refuse(skipped.header.request_id, FrameError.OVERLOADED, message)
        else:
            self._refuse(0, *SCAN_ERRORS[SCAN_CHECKSUM_WRONG])

    def _watch_large_frame(self) -> None:
        """Have a timer exactly while a large frame is arriving."""
        awaits = self._inbox.awaits_large_frame
        if awaits and self._large_frame_timer is None:
            self._large_frame_timer = asyncio.get_running_loop().call_later(LARGE_FRAME_S_MAX, self.abort)
        elif not awaits and self._large_frame_timer is not None:
            self._large_frame_timer.cancel()
            self._large_frame_timer = None

    # ---- operations ----

    def _handle(self, frame: memoryview, status: int) -> None:
        """Handle a whole frame that is not a run of commands; its checksum is right."""
        header = decode_header(frame)
        body = bytes(frame[FRAME_HEADER_SIZE:])
        try:
            if not self._greeted and header.operation != Operation.HELLO:
                self._refuse(header.request_id, FrameError.HELLO_EXPECTED, "the first frame of a connection is HELLO")
            elif status == SCAN_BODY_MALFORMED or header.flags:
                raise RemoteProtocolError("a request has no flags, and COMMANDS a body of 1 to 8191 whole commands")
            elif not self._greeted:
                self._greet(header, body)
            elif why := self._clients.guard.refusal_of(self.principal, header.operation):
                self._refuse(header.request_id, FrameError.FORBIDDEN, why)
            else:
                self._dispatch(header, body)
        except RemoteProtocolError as error:
            self._refuse(header.request_id, FrameError.BODY_MALFORMED, str(error))

    def _greet(self, header: FrameHeader, body: bytes) -> None:
        hello = decode_message(body, Hello)
        if hello.protocol_version != PROTOCOL_VERSION:
            message = f"protocol version {hello.protocol_version} is not spoken here, only {PROTOCOL_VERSION}"
            self._refuse(header.request_id, FrameError.VERSION_UNSUPPORTED, message)
            return
        principal = self._clients.guard.admit(hello.token, name_of_peer(self._transport))
        if principal is None:
            self._refuse(header.request_id, FrameError.UNAUTHENTICATED, NOT_LET_IN)
            return
        self._greeted, self.principal = True, principal
        self._clients.note_greeted(self)
        self._reply(header, encode_message(self._clients.welcome()))

    def _dispatch(self, header: FrameHeader, body: bytes) -> None:
        operation = header.operation
        placing = self._reactor.placing
        if placing is not None and header.map_version and not self._is_meant(header, placing):
            return
        told = self._told_by_itself(operation)
        self._reactor.counters.note_request(_NAMES.get(operation, "unknown"))
        if told is not None:
            if body:
                raise RemoteProtocolError(f"{Operation(operation).name} has no body")
            self._reply(header, told)
        elif operation == Operation.PING:
            self._reply(header, body)
        elif operation == Operation.JOIN:
            self._tell_member(header, body)
        elif operation == Operation.CHANGE_MEMBERS:
            self._ask_apart(header, body, partial(self._clients.group.change, body))
        elif operation in AMONG_COMMANDS:
            self._request(Operation(operation), header, body)
        elif operation in (Operation.LEGS, Operation.TRIES) and self._reactor.coordinator is not None:
            self._take_coordinators(header, body)
        elif operation == Operation.CLOSE_TIME:
            self._ask_apart(header, body, partial(self._close_time, body))
        elif self._reactor.moving is not None and self._reactor.moving.takes(operation):
            self._ask_apart(header, body, partial(self._reactor.moving.ask, operation, body))
        elif operation == Operation.TRANSACT and self._reactor.coordinator is not None and placing is not None:
            ask = partial(self._reactor.coordinator.transactor.ask, body, placing.map_version)
            self._ask_apart(header, body, ask)
        else:
            message = f"operation {operation} is not one that a client may ask for here"
            self._refuse(header.request_id, FrameError.OPERATION_UNKNOWN, message)

    def _told_by_itself(self, operation: int) -> bytes | None:
        """What this node tells at once, whether it leads or not; None if the operation is another."""
        reactor, placing = self._reactor, self._reactor.placing
        if operation == Operation.MAP and placing is not None and placing.encoded:
            return placing.encoded
        if operation == Operation.STATISTICS:
            return encode_message(report(reactor, self._clients))
        return self._clients.group.status() if operation == Operation.MEMBERS else None

    def _is_meant(self, header: FrameHeader, placing: Placing) -> bool:
        """Whether the shard that a frame means is this one; else it has been refused."""
        try:
            placing.check_header(header)
        except WrongShard as error:
            self._respond(header, error)
            return False
        return True

    def _tell_member(self, header: FrameHeader, body: bytes) -> None:
        try:
            self._reply(header, self._clients.group.tell_member(body))
        except UsageError as error:
            self._refuse(header.request_id, error_code(error), str(error))

    def _request(self, operation: Operation, header: FrameHeader, body: bytes) -> None:
        """Have the reactor answer a request among the commands."""
        reply_bytes_due = max(reply_size_max(operation, body), REPLY_BYTES_DUE_MIN)

        def respond(answer: bytes | Exception) -> None:
            self._respond(header, answer)
            self._reply_bytes_due -= reply_bytes_due
            self._settle(header.length)

        self._reply_bytes_due += reply_bytes_due
        self._bytes_in_flight += header.length
        self._reactor.bytes_in_flight += header.length
        self._update()
        self._reactor.request(Request(operation, body, respond, self.principal))

    def _take_coordinators(self, header: FrameHeader, body: bytes) -> None:
        """Have done, past what clients ask for, what another shard's coordinator does."""
        commands = legs_of(body) if header.operation == Operation.LEGS else None
        answer_tries = tries_of(self._reactor.replica, body) if commands is None else None
        self._is_coordinators = True

        def respond(answer: Records | bytes | Exception) -> None:
            self._respond(header, answer if isinstance(answer, bytes | Exception) else answer.tobytes())
            self._settle(header.length)

        self._bytes_in_flight += header.length
        self._reactor.bytes_in_flight += header.length
        self._update()
        if commands is not None:
            self._reactor.submit_legs(commands, respond)
        elif answer_tries is not None:
            self._reactor.ask_past_clients(answer_tries, respond)

    def _ask_apart(
        self, header: FrameHeader, body: bytes, ask: Callable[[Callable[[bytes | Exception], None]], None]
    ) -> None:
        """Have a request answered that goes its own way, and not among the commands."""

        def respond(answer: bytes | Exception) -> None:
            self._respond(header, answer)
            self._settle(header.length)

        self._bytes_in_flight += header.length
        self._reactor.bytes_in_flight += header.length
        self._update()
        try:
            self._clients.guarding.ask(self.principal, header.operation, body, ask, respond)
        except RemoteProtocolError:
            self._settle(header.length)
            raise
        except (UsageError, AnsweredElsewhere) as error:
            respond(error)

    def _close_time(self, body: bytes, respond: Callable[[bytes | Exception], None]) -> None:
        """Have nothing dated at a time or before any more."""
        self._reactor.ask_past_clients(closing_of(self._reactor.replica, body), respond)

    def _respond(self, header: FrameHeader, answer: bytes | Exception) -> None:
        """Send what a request among the commands is answered."""
        if isinstance(answer, bytes):
            self._reply(header, answer)
        else:
            leader, map_version = "", 0
            if isinstance(answer, AnsweredElsewhere):
                leader = answer.leader
                self.send_elsewhere()
            elif isinstance(answer, WrongShard):
                map_version = answer.map_version
            self._refuse(header.request_id, error_code(answer), str(answer), leader, map_version)

    # ---- what goes out ----

    def send_replies(self, replies: bytes | memoryview, request_bytes: int) -> None:
        """Send encoded replies to frames that were `request_bytes` long together."""
        self._write(replies)
        self._settle(request_bytes)

    def send_elsewhere(self) -> None:
        """Take nothing more: what was refused is sent again elsewhere, and what follows must not come before it."""
        if not self._ending:
            self._inbox.drop()
            self._end()

    def _reply(self, header: FrameHeader, body: bytes) -> None:
        fields = self._header_fields if header.operation != Operation.HELLO else {}
        self._write(encode_frame(header.operation, header.request_id, body, flags=FrameFlag.REPLY, **fields))

    @property
    def _header_fields(self) -> dict[str, int]:
        """What the header of a reply says of the slot map."""
        placing = self._reactor.placing
        return {} if placing is None else placing.header_fields

    def _refuse(self, request_id: int, code: FrameError, message: str, leader: str = "", map_version: int = 0) -> None:
        """Answer with an ERROR frame; one that ends the connection comes after the replies to all before it."""
        body = encode_message(ErrorMessage(int(code), message[:ERROR_MESSAGE_SIZE_MAX], leader, map_version))
        frame = encode_frame(Operation.ERROR, request_id, body, flags=FrameFlag.REPLY, **self._header_fields)
        if code in CLOSES_CONNECTION:
            self._last_words = frame
            self._inbox.drop()
            self._end()
        else:
            self._write(frame)

    def _write(self, data: bytes | memoryview) -> None:
        if self._transport is None:
            return
        was_paused = self._write_paused
        self._reactor.counters.bytes_out += len(data)
        self._transport.write(data)
        if was_paused:
            self._note_unsent(len(data))

    def _note_unsent(self, size: int) -> None:
        """Count bytes that a client which does not read leaves with us; too many in all, and it has to go."""
        self._unsent_bytes += size
        self._clients.unsent_bytes += size
        if self._clients.unsent_bytes > UNSENT_BYTES_MAX:
            self.abort()

    def _forget_unsent(self) -> None:
        self._clients.unsent_bytes -= self._unsent_bytes
        self._unsent_bytes = 0

    # ---- the end ----

    def on_greeting_late(self) -> None:
        """End because HELLO has not come in time."""
        if not self._ending:
            self._refuse(0, FrameError.HELLO_EXPECTED, f"no HELLO has come within {GREETING_S_MAX:.0f} seconds")

    def check_access(self) -> None:
        """End if whoever is at the other end would not be let in any more."""
        if self._greeted and not self._ending and not self._clients.guard.counts(self.principal):
            self._refuse(0, FrameError.UNAUTHENTICATED, PUT_OUT)

    def stop(self) -> None:
        """Take no more requests; close when those that came are answered."""
        self._end()

    def abort(self) -> None:
        """Close at once; replies that are not sent are lost."""
        if self._transport is not None:
            self._transport.abort()

    def _end(self) -> None:
        """Take nothing more; finish when what came is answered."""
        self._ending = True
        self._inbox.drop_unfinished()
        self._watch_large_frame()
        self._update()
        self._maybe_finish()

    def _maybe_finish(self) -> None:
        """Say the last words and close, unless requests wait for their answers."""
        if self._transport is None or self._finished or self._bytes_in_flight or self._inbox.has_kept:
            return
        self._write(self._last_words)
        self._finished = True
        self._arm_stall_timer()
        if self._client_ended or not self._transport.can_write_eof():
            self._transport.close()
        elif not self._transport.is_closing():
            self._transport.write_eof()

    def _arm_stall_timer(self) -> None:
        if self._stall_timer is None:
            self._stall_timer = asyncio.get_running_loop().call_later(WRITE_STALL_S_MAX, self.abort)

    def _stop_stall_timer(self) -> None:
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None

    def _stop_timers(self) -> None:
        self._stop_stall_timer()
        if self._large_frame_timer is not None:
            self._large_frame_timer.cancel()
            self._large_frame_timer = None

    # ---- flow control ----

    @property
    def _has_room(self) -> bool:
        """Whether this client may have more requests under way."""
        return (
            not self._write_paused
            and self._bytes_in_flight < CONNECTION_BYTES_IN_FLIGHT_MAX
            and self._reply_bytes_due < REPLY_BYTES_DUE_MAX
        )

    def _settle(self, request_bytes: int) -> None:
        """Requests of so many bytes are answered, or would be if the client were still there."""
        self._bytes_in_flight -= request_bytes
        self._reactor.bytes_in_flight -= request_bytes
        if self._ending:
            self._maybe_finish()
        if not self._reading:
            self._update()

    def _update(self) -> None:
        """Read exactly while there is room: here, in the client's own replies, and in the node."""
        if self._transport is None:
            return
        has_room = self._has_room
        waits = self._inbox.has_kept or not (self._reactor.has_room or self._is_coordinators)
        if has_room and waits and not self._queued:
            self._queued = True
            if self._is_coordinators:
                asyncio.get_running_loop().call_soon(self.resume)  # Clients wait for the coordinators behind it.
            else:
                self._reactor.add_waiter(self)
        wanted = not self._client_ended if self._ending else has_room and not waits
        if wanted == self._reading:
            return
        self._reading = wanted
        if wanted:
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()
