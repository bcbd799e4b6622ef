"""A channel over TCP to the leader of a group of nodes, or to a node alone, that survives its connections.

It keeps one connection, to whom it believes to lead, and sends again what is unanswered whenever that changes, in order
and with the same ids, until each request's own deadline:

    CONNECTING --welcomed by the leader--> READY --lost, or the node does not lead, or is silent--> WAITING
    CONNECTING --not reached, or not the leader--> WAITING --the next address, or backoff over--> CONNECTING
    CONNECTING --every address refuses us--> FAILED        READY --the protocol is broken--> FAILED
    any --close()--> CLOSED

- `Route` says which address is next. Backoff grows from round to round and is over with the first answer that only a
  leader gives; a greeting is none.
- Who is not the leader says so to every frame in flight. The first such answer is enough: nothing more is sent there,
  what has arrived together with it is still taken in, and the connection is left.
- A node that is silent (`Silence`) is not left for that: others are asked who leads, over a connection of its own
  that ends with the greeting, and only if they name another is the connection changed.

A frame whose connection was lost may have been executed or not, as may one that a node answers OUTCOME_UNKNOWN;
sending it again with the same ids gets the first outcome if it was. Two answers to such a second sending do not tell,
and count as unknown: a refusal that the node gives before it looks at ids (`certain_results`), and an error message
instead of results.
"""

import asyncio
import random
from collections.abc import Coroutine
from enum import Enum, unique
from typing import Any, Final

import numpy as np
from typing_extensions import Buffer

from bezant.net.access.credentials import Credentials, own_credentials
from bezant.net.client.channel import OutcomeUnknown, certain_results, check_timeout, unknown_results
from bezant.net.client.link import Link, dial, welcome_at
from bezant.net.client.pipeline import Pipeline, PutOut, Request
from bezant.net.client.route import Route, parse_addresses
from bezant.net.client.silence import TICK_S, Silence
from bezant.protocol.codes import ResultCode
from bezant.protocol.errors import (
    AccessDenied,
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
BACKOFF_S_MAX: Final = 0.2
"""Seconds between rounds of attempts to connect: doubled each time, less up to half of it by chance."""
DIAL_S_MAX: Final = 1.0
"""Seconds that one attempt to connect may take while there are other addresses to try."""

_NOT_NOW: Final = frozenset({FrameError.OVERLOADED, FrameError.NOT_LEADER, FrameError.OUTCOME_UNKNOWN})
"""Refusals of a greeting that say nothing about the next."""

_DEADLINE_GRAIN_S: Final = 0.001  # one timer serves every deadline that falls within this


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

    def __init__(
        self, addresses: str, timeout_s: float, shard: int | None = None, credentials: Credentials | None = None
    ) -> None:
        self._route = Route(parse_addresses(addresses))
        self._shard = shard
        self.credentials = own_credentials() if credentials is None else credentials
        """What is shown to every node."""
        self._address = ""  # of the node that we are connected to, or were last
        self._timeout_s = check_timeout(timeout_s)
        self._loop = asyncio.get_running_loop()
        self._pipeline = Pipeline()
        self._state = State.CONNECTING
        self._welcome: Welcome | None = None
        self._link: Link | None = None
        self._lost = asyncio.Event()
        self._backoff_s = 0.0
        self._is_searching = True
        self._silence = Silence()
        self._failure: BezantError | None = None
        self.was_put_out = False
        """Whether a node ended the connection because our token does not count any more; none has let us in since."""
        self._timer: asyncio.Handle | None = None
        self._timer_s = 0.0  # not asked of the handle: what uvloop gives for something due already has no time
        self._tick: asyncio.TimerHandle | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._probe: asyncio.Task[None] | None = None

    @classmethod
    async def open(
        cls, addresses: str, timeout_s: float, shard: int | None = None, credentials: Credentials | None = None
    ) -> "TcpChannel":
        """Connect to the leader of the group that the nodes at "host:port,host:port" are of, or to one node alone.

        With a `shard` no node of another one will do. `credentials`: what is shown to the nodes, if not what this
        process shows to everybody.
        `timeout_s` bounds the connecting and is the deadline of requests that bring none. Raises `ConnectionFailed` if
        nobody answers, or nobody leads within that time; with one address `RequestRefused` or `RemoteProtocolError` if
        whoever is there is no node for us.
        """
        channel = cls(addresses, timeout_s, shard, credentials)
        await channel._connect_first()
        channel._keeper = asyncio.create_task(channel._keep_connected(), name=f"bezant connection to {addresses}")
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
    def address(self) -> str:
        """Where the node is that the channel is connected to, or was last; "host:port"."""
        return self._address

    @property
    def node_addresses(self) -> list[str]:
        """Where the nodes are that are known, "host:port", the one that the channel is connected to first."""
        return list(dict.fromkeys([self._address, *self._route.known])) if self._address else self._route.known

    @property
    def bytes_in_flight(self) -> int:
        """Bytes of requests that the node has, or is being sent, and has not answered."""
        return self._pipeline.bytes_in_flight

    def go_by_map(self, shard: int, map_version: int) -> None:
        """Say in each request by which slot map it was sent, and to which shard."""
        self._pipeline.shard, self._pipeline.map_version = (shard, map_version) if map_version else (0, 0)

    @property
    def told_map_version(self) -> int:
        """The low bits of the version of the slot map that the nodes go by, as last told; 0 if that was not told."""
        return self._pipeline.told_map_version

    async def submit(self, commands: Records, timeout_s: float | None = None) -> Records:
        """Execute one frame of commands; see `Channel.submit`."""
        return await self.begin(commands, timeout_s)

    def begin(self, commands: Records, timeout_s: float | None = None) -> Coroutine[Any, Any, Records]:
        """Put one frame of commands behind those begun before; await what is returned for the results."""
        count = len(commands)
        # The type stubs do not say that an array is a buffer; this view is one without a copy.
        body = np.ascontiguousarray(commands).data
        request = self._add(Operation.COMMANDS, body, timeout_s, count * RESULT_SIZE)
        return self._results_of(commands, request)

    async def _results_of(self, commands: Records, request: Request) -> Records:
        count = len(commands)
        try:
            results: Records = np.frombuffer(await request.answer, RESULT)
        except (ConnectionFailed, ProtocolError) as error:
            raise OutcomeUnknown(
                f"{count} commands may have been executed or not: {error}", commands, unknown_results(count)
            ) from error
        except RequestRefused as refusal:
            if request.unsure_count:
                raise OutcomeUnknown(
                    f"{count} commands were sent, got no answer, and sent again they were refused: {refusal}",
                    commands,
                    unknown_results(count),
                ) from refusal
            if refusal.code != FrameError.OVERLOADED:
                raise
            results = np.zeros(count, RESULT)
            results["code"] = ResultCode.OVERLOADED
        if request.unsure_count:
            return certain_results(commands, results, follows_map=self._shard is not None)
        return results

    async def request(self, operation: Operation, body: bytes, timeout_s: float | None = None) -> bytes:
        """Ask anything but commands; see `Channel.request`."""
        return bytes(await self.begin_request(operation, body, timeout_s))

    def begin_request(
        self, operation: Operation, body: bytes, timeout_s: float | None = None
    ) -> "asyncio.Future[memoryview]":
        """As `request`, and it is on its way when this returns, if a connection stands."""
        return self._add(operation, body, timeout_s, None).answer

    async def close(self) -> None:
        """Close the connection; what is still unanswered ends unknown. May be called again."""
        if self._state is State.CLOSED:
            return
        self._become(State.CLOSED)
        self._stop_timers()
        tasks = [task for task in (self._keeper, self._probe) if task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
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
        if self._tick is None and self._route.has_several:
            self._start_ticking()
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
        error = self._pipeline.on_frame(header, body)
        if error is not None:
            self._on_not_leader(error.leader)
            return
        if self._is_searching:
            self._is_searching = False
            self._backoff_s = 0.0
        self._send_more()

    def _on_not_leader(self, leader: str) -> None:
        """Send nothing more to this node, and leave it once the answers that arrived together are taken in."""
        link, self._link = self._link, None
        if link is not None:
            self._loop.call_soon(self._leave, link, leader)

    def _on_end(self, link: Link, error: BezantError) -> None:
        if link is not self._link:
            return
        self.was_put_out = isinstance(error, PutOut)
        if not isinstance(error, ConnectionFailed):
            self._fail(error)
        elif self._state is State.READY:
            self._leave(link, "")

    def _leave(self, link: Link, leader: str) -> None:
        """Drop the connection that made us READY and look for the leader, who is said to be at `leader`."""
        self._link = None
        link.end(ConnectionFailed("the connection was left for the leader's"))
        if self._state is not State.READY:
            return  # closed or failed meanwhile
        self._pipeline.on_connection_lost()
        if not self._is_searching:
            self._is_searching = True
            self._route.start_search()
        self._route.on_named(leader)
        self._become(State.WAITING)
        self._lost.set()

    # Connecting.

    def _dial_s(self) -> float:
        return min(self._timeout_s, DIAL_S_MAX) if self._route.has_several else self._timeout_s

    async def _attempt(self, address: str, timeout_s: float) -> BezantError | None:
        """Try one address, and return why its node is not the one, or None if we are READY."""
        link = Link(self._on_frame, self._send_more, self._on_end)
        try:
            welcome = await dial(link, address, timeout_s, self.credentials)
            self._check_same_log(address, welcome)
        except (ConnectionFailed, RequestRefused, ProtocolError) as error:
            link.end(ConnectionFailed("the node is none for us"))
            if isinstance(error, ConnectionFailed) or (isinstance(error, RequestRefused) and error.code in _NOT_NOW):
                self._route.on_unreached(address)
            else:
                self._route.on_refused(address)
            return error
        self._route.on_welcome(address, welcome.leader, welcome.members)
        if not _leads(address, welcome):
            follower = ConnectionFailed(f"the node at {address} says that {welcome.leader or 'nobody yet'} leads")
            link.end(follower)
            return follower
        self._welcome = welcome
        self.was_put_out = False
        self._address = address
        self._link = link
        self._silence.on_connected(link.received_count)
        self._pipeline.bytes_in_flight_max = welcome.connection_bytes_in_flight_max
        self._become(State.READY)
        self._send_more()
        self._start_ticking()
        return None

    def _check_same_log(self, address: str, welcome: Welcome) -> None:
        """Refuse a node that keeps another ledger: ids used on the first mean nothing there."""
        if self._shard is not None and welcome.shard != self._shard:
            raise RemoteProtocolError(f"the node at {address} is of shard {welcome.shard} and not {self._shard}")
        if self._welcome is not None and self._welcome.log_id != welcome.log_id:
            raise RemoteProtocolError(
                f"the node at {address} now keeps log {welcome.log_id} and not {self._welcome.log_id}"
            )

    async def _connect_first(self) -> None:
        """Find the leader, or raise: at once if a whole round found no node, else when the time is over."""
        deadline_s = self._loop.time() + self._timeout_s
        errors: dict[str, BezantError] = {}
        dial_s = self._dial_s()
        while True:
            address = self._route.next()
            if address is not None:
                error = await self._attempt(address, dial_s)
                if error is None:
                    return
                errors[address] = error
            elif not self._route.is_answered or self._route.is_hopeless:
                raise _nobody(errors)
            else:
                await self._back_off(deadline_s - self._loop.time())
                self._route.start_round()
            dial_s = min(self._dial_s(), deadline_s - self._loop.time())
            if dial_s <= 0:
                raise _nobody(errors)

    async def _keep_connected(self) -> None:
        """Find the leader again whenever there is none, until closed or failed."""
        while True:
            await self._lost.wait()
            self._lost.clear()
            while self._state is State.WAITING:
                address = self._route.next()
                if address is None:
                    await self._back_off()
                    self._route.start_round()
                    continue
                self._become(State.CONNECTING)
                error = await self._attempt(address, self._dial_s())
                if error is None:
                    continue
                if not self._route.is_hopeless:
                    # Not lost on anybody: each request says so when its own deadline passes.
                    self._become(State.WAITING)
                elif isinstance(error, RequestRefused):
                    # No `RequestRefused`: that would say of what is unanswered that it was not executed.
                    denied = error if isinstance(error, AccessDenied) else None
                    self._fail(ConnectionFailed(f"the node at {address} refuses us: {error}"), denied)
                else:
                    self._fail(error)

    async def _back_off(self, most_s: float = BACKOFF_S_MAX) -> None:
        self._backoff_s = min(max(BACKOFF_S_MIN, self._backoff_s * 2), BACKOFF_S_MAX)
        await asyncio.sleep(min(self._backoff_s * random.uniform(0.5, 1.0), most_s))

    # A node that says nothing.

    def _start_ticking(self) -> None:
        """Tick while something is in flight and there is somebody else to ask."""
        if self._tick is None and self._route.has_several:
            self._tick = self._loop.call_later(TICK_S, self._on_tick)

    def _on_tick(self) -> None:
        self._tick = None
        link, oldest = self._link, self._pipeline.oldest_in_flight
        if link is None or oldest is None or self._state is not State.READY:
            return  # the next request, or the next connection, starts it again
        if self._probe is None and self._silence.on_tick(oldest, link.received_count):
            self._probe = asyncio.create_task(self._ask_others(link), name=f"bezant question about {self._address}")
            self._probe.add_done_callback(self._on_probed)
        self._start_ticking()

    async def _ask_others(self, silent: Link) -> None:
        """Ask the first node that can be reached who leads, and leave the silent one if it names another."""
        received_count = silent.received_count
        for address in self._route.others():
            try:
                welcome = await welcome_at(address, self._dial_s(), self.credentials)
                self._check_same_log(address, welcome)
            except (ConnectionFailed, RequestRefused, ProtocolError):
                continue  # it cannot help; the search will say what is wrong with it, should it come there
            if self._link is not silent or self._state is not State.READY or silent.received_count != received_count:
                return
            if not welcome.leader:
                self._silence.on_undecided()
            elif welcome.leader != self._address:
                self._leave(silent, welcome.leader)
            return

    def _on_probed(self, probe: "asyncio.Task[None]") -> None:
        self._probe = None
        if not probe.cancelled():
            probe.result()  # a fault in it is for the event loop to report

    def _become(self, state: State) -> None:
        if state not in TRANSITIONS[self._state]:
            raise RuntimeError(f"a channel does not go from {self._state.name} to {state.name}")
        self._state = state

    def _fail(self, error: BezantError, unsent_error: BezantError | None = None) -> None:
        """Give up for good: neither this connection nor another to the same node can help.

        `unsent_error` is for what was not sent, and never will be, if that is not the same.
        """
        if self._state in (State.FAILED, State.CLOSED):
            return
        self._become(State.FAILED)
        self._failure = unsent_error or error
        self._stop_timers()
        self._pipeline.end(error, unsent_error)

    # Deadlines.

    def _arm_timer(self, deadline_s: float) -> None:
        """Have one timer for the earliest deadline."""
        if self._timer is not None:
            if self._timer_s <= deadline_s + _DEADLINE_GRAIN_S:
                return
            self._timer.cancel()
        self._timer_s = deadline_s + _DEADLINE_GRAIN_S
        self._timer = self._loop.call_at(self._timer_s, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        deadline_s = self._pipeline.expire(self._loop.time())
        if deadline_s is not None:
            self._arm_timer(deadline_s)

    def _stop_timers(self) -> None:
        for timer in (self._timer, self._tick):
            if timer is not None:
                timer.cancel()
        self._timer = self._tick = None


def _leads(address: str, welcome: Welcome) -> bool:
    """Whether the node at `address`, which said this, leads. A node alone does, by whatever name it was reached."""
    leader = welcome.leader
    return welcome.node_id == 0 or leader == address or (leader != "" and welcome.members == [leader])


def _nobody(errors: dict[str, BezantError]) -> BezantError:
    """Make one error of what came of each address; nodes that are away do not hide that most let us not in."""
    reasons = list(errors.values())
    denied = [reason for reason in reasons if isinstance(reason, AccessDenied)]
    if len(reasons) == 1 or 2 * len(denied) > len(reasons):
        return (denied or reasons)[0]
    return ConnectionFailed(f"no leader was found: {'; '.join(str(reason) for reason in reasons)}")
