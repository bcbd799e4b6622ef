"""A channel to a node over TCP that survives its connections: it reconnects and sends again what is unanswered.

A frame whose connection was lost may have been executed or not; sending it again with the same ids gets the first
outcome if it was. Two answers to a second sending do not tell, and count as unknown: a refusal that the node gives
before it looks at ids (`_BEFORE_IDS`), and an error message instead of results.

    CONNECTING --welcome--> READY --lost--> WAITING --backoff over--> CONNECTING
    any but CLOSED --the protocol is broken--> FAILED        any --close()--> CLOSED
"""

import asyncio
import random
from enum import Enum, unique
from typing import Final

import numpy as np
from typing_extensions import Buffer

from bezant.net.client.channel import CODE_UNKNOWN, OutcomeUnknown, check_timeout, unknown_results
from bezant.net.client.link import Link, parse_address
from bezant.net.client.pipeline import Pipeline, Request
from bezant.protocol.codes import ResultCode
from bezant.protocol.errors import (
    BezantError,
    ConnectionFailed,
    ProtocolError,
    RemoteProtocolError,
    RequestRefused,
    UsageError,
)
from bezant.protocol.frames import FrameError, FrameHeader, Operation
from bezant.protocol.messages import Welcome
from bezant.protocol.records import RESULT, RESULT_SIZE, Records

BACKOFF_S_MIN: Final = 0.02
BACKOFF_S_MAX: Final = 1.0
"""Seconds between attempts to reconnect: doubled each time, less up to half of it by chance."""

_DEADLINE_GRAIN_S: Final = 0.001  # one timer serves every deadline that falls within this

_BEFORE_IDS: Final = np.array(
    [
        ResultCode.DEADLINE_PASSED,
        ResultCode.OVERLOADED,
        ResultCode.NOT_LEADER,
        ResultCode.WRONG_SHARD,
        ResultCode.STORAGE_FULL,
    ],
    dtype=np.int16,
)


@unique
class State(Enum):
    """Where a channel stands; see the module."""

    CONNECTING = "connecting"
    READY = "ready"
    WAITING = "waiting"
    FAILED = "failed"
    CLOSED = "closed"


TRANSITIONS: Final[dict[State, frozenset[State]]] = {
    State.CONNECTING: frozenset({State.READY, State.WAITING, State.FAILED, State.CLOSED}),
    State.READY: frozenset({State.WAITING, State.FAILED, State.CLOSED}),
    State.WAITING: frozenset({State.CONNECTING, State.CLOSED}),
    State.FAILED: frozenset({State.CLOSED}),
    State.CLOSED: frozenset(),
}


class TcpChannel:
    """A `Channel` over TCP. Made by `TcpChannel.open`."""

    def __init__(self, address: str, timeout_s: float) -> None:
        self._address = address
        self._host, self._port = parse_address(address)
        self._timeout_s = check_timeout(timeout_s)
        self._loop = asyncio.get_running_loop()
        self._pipeline = Pipeline()
        self._state = State.CONNECTING
        self._welcome: Welcome | None = None
        self._link: Link | None = None
        self._lost = asyncio.Event()
        self._backoff_s = 0.0
        self._failure: BezantError | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._keeper: asyncio.Task[None] | None = None

    @classmethod
    async def open(cls, address: str, timeout_s: float) -> "TcpChannel":
        """Connect to the node at "host:port".

        `timeout_s` bounds each attempt to connect and is the deadline of requests that bring none. Raises
        `ConnectionFailed` if nobody answers, `RequestRefused` or `RemoteProtocolError` if whoever does is no node
        for us.
        """
        channel = cls(address, timeout_s)
        await channel._dial()
        channel._keeper = asyncio.create_task(channel._keep_connected(), name=f"bezant connection to {address}")
        return channel

    @property
    def state(self) -> State:
        """Where the channel stands."""
        return self._state

    @property
    def welcome(self) -> Welcome:
        """What the node said at the last connection."""
        if self._welcome is None:
            raise UsageError("the channel has never been connected")
        return self._welcome

    @property
    def bytes_in_flight(self) -> int:
        """Bytes of requests that the node has, or is being sent, and has not answered."""
        return self._pipeline.bytes_in_flight

    async def submit(self, commands: Records, timeout_s: float | None = None) -> Records:
        """Execute one frame of commands; see `Channel.submit`."""
        count = len(commands)
        # The type stubs do not say that an array is a buffer; this view is one without a copy.
        body = np.ascontiguousarray(commands).data
        request = self._add(Operation.COMMANDS, body, timeout_s, count * RESULT_SIZE)
        try:
            results: Records = np.frombuffer(await request.answer, RESULT)
        except (ConnectionFailed, ProtocolError) as error:
            raise OutcomeUnknown(
                f"{count} commands may have been executed or not: {error}", commands, unknown_results(count)
            ) from error
        except RequestRefused as refusal:
            if request.sent_count > 1:
                raise OutcomeUnknown(
                    f"{count} commands were sent, the connection was lost, and sent again they were refused: {refusal}",
                    commands,
                    unknown_results(count),
                ) from refusal
            if refusal.code != FrameError.OVERLOADED:
                raise
            results = np.zeros(count, RESULT)
            results["code"] = ResultCode.OVERLOADED
        if request.sent_count > 1:
            return _certain_results(commands, results)
        return results

    async def request(self, operation: Operation, body: bytes, timeout_s: float | None = None) -> bytes:
        """Ask anything but commands; see `Channel.request`."""
        return bytes(await self._add(operation, body, timeout_s, None).answer)

    async def close(self) -> None:
        """Close the connection; what is still unanswered ends unknown. May be called again."""
        if self._state is State.CLOSED:
            return
        self._become(State.CLOSED)
        self._stop_timer()
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])
        closed = ConnectionFailed("the connection was closed by this side")
        self._pipeline.end(closed)
        if self._link is not None:
            self._link.end(closed)
            await self._link.wait_closed()

    def _add(self, operation: Operation, body: Buffer, timeout_s: float | None, reply_size: int | None) -> Request:
        if self._state is State.CLOSED:
            raise UsageError("the connection has been closed")
        if self._failure is not None:
            raise self._failure
        deadline_s = self._loop.time() + (self._timeout_s if timeout_s is None else check_timeout(timeout_s))
        answer: asyncio.Future[memoryview] = self._loop.create_future()
        request = self._pipeline.add(operation, body, deadline_s=deadline_s, answer=answer, reply_size=reply_size)
        self._arm_timer(deadline_s)
        self._send_more()
        return request

    def _send_more(self) -> None:
        """Write what there is room for, both in flight and in the system's buffers."""
        link = self._link
        while link is not None and link.is_writable:
            frame = self._pipeline.take(self._loop.time())
            if frame is None:
                return
            link.write(frame)

    # Events of a link.

    def _on_frame(self, header: FrameHeader, body: memoryview) -> None:
        self._pipeline.on_frame(header, body)
        self._backoff_s = 0.0
        self._send_more()

    def _on_end(self, link: Link, error: BezantError) -> None:
        if link is not self._link:
            return
        if isinstance(error, ConnectionFailed):
            if self._state is State.READY:
                self._link = None
                self._pipeline.on_connection_lost()
                self._become(State.WAITING)
                self._lost.set()
        else:
            self._fail(error)

    # Connecting.

    async def _dial(self) -> None:
        """Make one attempt to connect and greet."""
        link = Link(self._on_frame, self._send_more, self._on_end)
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._loop.create_connection(lambda: link, self._host, self._port)
                welcome = await link.greet()
            if link.has_ended:
                raise ConnectionFailed(f"the node at {self._address} welcomed us and went away")
            self._check_same_log(welcome)
        except TimeoutError as error:
            raise self._give_up(link, f"did not answer within {self._timeout_s} s") from error
        except OSError as error:
            raise self._give_up(link, f"cannot be reached: {error}") from error
        except BaseException:
            self._give_up(link, "was left while connecting")
            raise
        self._welcome = welcome
        self._link = link
        self._pipeline.bytes_in_flight_max = welcome.connection_bytes_in_flight_max
        self._become(State.READY)
        self._send_more()

    def _give_up(self, link: Link, reason: str) -> ConnectionFailed:
        error = ConnectionFailed(f"the node at {self._address} {reason}")
        link.end(error)
        return error

    def _check_same_log(self, welcome: Welcome) -> None:
        """Refuse a node that keeps another ledger: ids used on the first mean nothing there."""
        if self._welcome is not None and self._welcome.log_id != welcome.log_id:
            raise RemoteProtocolError(
                f"the node at {self._address} now keeps log {welcome.log_id} and not {self._welcome.log_id}"
            )

    async def _keep_connected(self) -> None:
        """Connect again whenever the connection is lost, until closed or failed."""
        while True:
            await self._lost.wait()
            self._lost.clear()
            while self._state is State.WAITING:
                await asyncio.sleep(self._backoff_s * random.uniform(0.5, 1.0))
                self._backoff_s = min(max(BACKOFF_S_MIN, self._backoff_s * 2), BACKOFF_S_MAX)
                self._become(State.CONNECTING)
                try:
                    await self._dial()
                except ConnectionFailed:
                    # Not lost on anybody: each request says so when its own deadline passes.
                    self._become(State.WAITING)
                except RequestRefused as refusal:
                    if refusal.code == FrameError.OVERLOADED:
                        self._become(State.WAITING)
                    else:
                        # No `RequestRefused`: that would say of what is unanswered that it was not executed.
                        self._fail(ConnectionFailed(f"the node at {self._address} refuses us: {refusal}"))
                except ProtocolError as error:
                    self._fail(error)

    def _become(self, state: State) -> None:
        if state not in TRANSITIONS[self._state]:
            raise RuntimeError(f"a channel does not go from {self._state.name} to {state.name}")
        self._state = state

    def _fail(self, error: BezantError) -> None:
        """Give up for good: neither this connection nor another to the same node can help."""
        if self._state in (State.FAILED, State.CLOSED):
            return
        self._become(State.FAILED)
        self._failure = error
        self._stop_timer()
        self._pipeline.end(error)

    # Deadlines.

    def _arm_timer(self, deadline_s: float) -> None:
        """Have one timer for the earliest deadline."""
        if self._timer is not None:
            if self._timer.when() <= deadline_s + _DEADLINE_GRAIN_S:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(deadline_s + _DEADLINE_GRAIN_S, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        deadline_s = self._pipeline.expire(self._loop.time())
        if deadline_s is not None:
            self._arm_timer(deadline_s)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _certain_results(commands: Records, results: Records) -> Records:
    """Return results of commands that were sent twice, or raise `OutcomeUnknown` where the answer does not tell."""
    unsure = np.isin(results["code"], _BEFORE_IDS)
    if not unsure.any():
        return results
    known = results.copy()
    known[unsure] = unknown_results(1)[0]
    known["code"][unsure] = CODE_UNKNOWN
    raise OutcomeUnknown(
        f"{int(unsure.sum())} of {len(commands)} commands were sent, the connection was lost, and sent again they "
        "reached the node too late to say what became of the first",
        commands,
        known,
    )
