"""The reactor: from frames to batches to the log, and back to replies. Single-threaded, on one event loop.

    collecting -> (kernel) -> executed -> (group: write + sync) -> replies

While one group is being synced, frames collect in the next batch, and that is executed in memory when it is large
enough for the wait to be worth using. When the sync returns, everything executed goes into the next group: group
commit. A lone small group is written and synced on the loop itself, because handing it to the thread and back costs
as much as the sync. A few tries of transfers to other shards wait for what is written next (`deferring.py`).

Bounds: a batch has BATCH_COMMANDS_MAX commands; there are BATCHES_MAX batches; connections stop reading when their own
bytes in flight or those of all together reach their limits. A step of the loop spends STEP_S_MAX on requests.

When enough ids are in memory they are frozen, and a child process makes a checkpoint (`checkpointing.py`). Should the
next ones fill the memory before it is done, commands wait.

Who waits is told in the order of the log, but for what other shards keep waiting (`telling.py`).

Transfers to accounts of other shards are carried on by a coordinator (`coordinating.py`); what coordinators ask for,
this one and those of other shards, has a lane of its own past the clients' batches (`legs.py`).

Holds that fall due while nothing comes in expire in an entry of their own (`expiry.py`).

What is committed and durable is published (`engine/publication.py`), so that other processes can read on in the log.

An exception in the pipeline is a bug, and leaves requests that nobody would ever answer: the process ends.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

import numpy as np

from bezant.engine.log.group import Group
from bezant.engine.member import Member
from bezant.engine.publication import make_publisher
from bezant.engine.transactions.times import check_floor
from bezant.net.server.batch import Batch, Request
from bezant.net.server.batch_times import note_begun, note_executed, note_synced
from bezant.net.server.checkpointing import Checkpointing
from bezant.net.server.coordinating import Coordinator
from bezant.net.server.deferring import Deferral
from bezant.net.server.dropping import Dropping
from bezant.net.server.expiry import ExpiryTimer
from bezant.net.server.failure import or_end
from bezant.net.server.guarding import Guarding
from bezant.net.server.legs import LegsLane, Respond
from bezant.net.server.moved_legs import without_legs_elsewhere
from bezant.net.server.moving import Moving
from bezant.net.server.placing import Placing
from bezant.net.server.requests import AnsweredElsewhere, answer_request
from bezant.net.server.statistics import Counters
from bezant.net.server.syncing import SyncThread, write_or_die
from bezant.net.server.telling import Telling
from bezant.protocol.errors import CorruptLog, RemoteProtocolError, StorageError, UsageError
from bezant.protocol.frames import FrameError
from bezant.protocol.raft_messages import RaftMessage
from bezant.protocol.records import EVENT_SIZE, RESULT, Records

CONNECTION_BYTES_IN_FLIGHT_MAX: Final = 8 << 20
TOTAL_BYTES_IN_FLIGHT_MAX: Final = 64 << 20
BATCHES_MAX: Final = 6
"""Batches in memory, of 5 MiB each: the one that collects, and those that are executed and wait for the log."""
EXECUTE_EARLY_COMMANDS_MIN: Final = 2048
"""Commands that make it worth executing a batch while a sync is under way; fewer wait for company."""
INLINE_SYNC_BYTES_MAX: Final = 16 << 10
INLINE_SYNC_S_MAX: Final = 0.001
"""A group is synced on the loop if it is this small and such syncs have lately been this quick."""
INLINE_SYNC_WEIGHT: Final = 0.1
"""Weight of the newest sync in the running mean."""
DISK_HANG_S_MAX: Final = 1.0
"""Seconds that a group may take to be written; a member whose disk takes longer leads no more until it is done."""
STEP_S_MAX: Final = 0.005
"""Seconds after which requests, and connections that wait for room, are left for the next step of the loop."""

_WHY: Final = {
    FrameError.NOT_LEADER: "this node does not lead its group, and has not executed anything of this",
    FrameError.OUTCOME_UNKNOWN: "this node led its group until now, and does not know whether this will be committed",
}


class Waiter(Protocol):
    """A connection that found no room and wants to be called when there is some."""

    def resume(self) -> None:
        """Go on reading."""
        ...


class Reactor:
    """Drives one replica from one event loop."""

    def __init__(self, member: Member, loop: asyncio.AbstractEventLoop) -> None:
        self.member = member
        self.replica = replica = member.replica
        member.settle_group = self._settle_group
        self.flush_messages: Callable[[], None] = lambda: None
        """Lets messages to other members go that wait for the end of a step; a group of one sends none."""
        self.counters = Counters()
        self.bytes_in_flight = 0
        self._loop = loop
        self._sync_thread = SyncThread(loop, or_end(self._on_synced))
        self._run_pump = or_end(self._pump)
        self.on_tick = or_end(self._on_tick)
        self._spare = [Batch() for _ in range(BATCHES_MAX - 1)]
        self._collecting = Batch()
        self.legs = LegsLane(member, lambda: self.placing)
        self.coordinator: Coordinator | None = None
        """Carries on transfers to other shards; None if there are none."""
        self.moving: Moving | None = None
        """Moves slots to other shards, and takes those that come; None if there are none."""
        self._executed: list[Batch] = []
        self._telling = Telling(member, self.counters, self._spare, loop.call_later, or_end(self._on_late))
        self._group: Group | None = None
        self._pump_scheduled = False
        self._waiters: deque[Waiter] = deque()
        self._inline_sync_s = self._sync_started_s = 0.0
        self._deferral = Deferral(loop, self.schedule)
        self._tidy_scheduled = False
        self._run_tidy = or_end(self._tidy)
        self._has_ended = False
        self._idle = asyncio.Event()
        self._idle.set()
        self.placing: Placing | None = None
        """Which slots are this shard's own, if its group is one of several."""
        self.guarding: Guarding | None = None
        """Who may have what executed; None if everybody may everything."""
        self._checkpointing = Checkpointing(replica, loop, self.schedule)
        self._dropping = Dropping(replica, loop)
        self.publisher = make_publisher(Path(replica.checkpoints.directory.path).parent, replica.log.log_id)
        self._publish()
        self._expiry = ExpiryTimer(loop, replica.ledger, self.schedule)
        self._expiry.arm()

    # ---- what comes in ----

    @property
    def collecting(self) -> Batch:
        """The batch that takes commands now. Whoever adds to it calls `schedule`."""
        return self._collecting

    def schedule(self) -> None:
        """Have the collected batch executed when every readable connection has been read once."""
        if not self._pump_scheduled:
            self._pump_scheduled = True
            self._idle.clear()
            self._loop.call_soon(self._run_pump)

    def submit(self, commands: Records, future: "asyncio.Future[Records]") -> bool:
        """Add commands of a client in this process; False if there is no room now (wait with `add_waiter`)."""
        if not self._collecting.has_room(len(commands)):
            return False
        self._collecting.add_submission(commands, future)
        self.schedule()
        return True

    def submit_legs(self, commands: Records, respond: Respond) -> None:
        """Add commands of another shard's coordinator, past what clients have asked for."""
        try:
            check_floor(commands, self.replica.clock_ns)
        except UsageError as error:
            respond(error)
            return
        if self.placing is not None and self.member.is_leader:
            commands, respond = without_legs_elsewhere(self.placing, self.replica.ledger, commands, respond)
            if not len(commands):
                respond(np.zeros(0, RESULT))
                return
        self.legs.add(commands, respond)
        self.schedule()

    def ask_past_clients(self, answer: Callable[[], bytes], respond: Callable[[bytes | Exception], None]) -> None:
        """Add a coordinator's question, past what clients have asked for: those may wait for its answer."""
        self.legs.ask(answer, respond)
        self.schedule()

    def request(self, request: Request) -> None:
        """Add a request that is answered in its place among the commands."""
        self._collecting.requests.append(request)
        self.schedule()

    def add_waiter(self, waiter: Waiter) -> None:
        """Have a connection called once there is room again."""
        self._waiters.append(waiter)
        self.schedule()

    @property
    def batch_count(self) -> int:
        """Batches that are in use, the one that collects among them."""
        return BATCHES_MAX - len(self._spare)

    @property
    def waiter_count(self) -> int:
        """Connections that wait for room."""
        return len(self._waiters)

    @property
    def has_room(self) -> bool:
        """Whether connections may read on."""
        return self.bytes_in_flight < TOTAL_BYTES_IN_FLIGHT_MAX

    # ---- the pipeline ----

    def _pump(self) -> None:
        started = time.perf_counter()
        self._pump_scheduled = False
        if self._has_ended:
            return
        if self.member.is_leader:
            self.legs.answer()
        if self._must_write and not (self._deferral.is_on and self._must_execute):
            self._start_group()
        elif self._must_execute:
            self._execute_and_write()
        if self.replica.checkpoint_is_due:
            self.replica.freeze()
            self._checkpointing.on_committed()
        if self.member.work() or (self._must_write and not self._deferral.is_on) or self._must_execute:
            # A large batch is executed in one step of the loop and handed to the disk in the next.
            self.schedule()
        self._reply()
        self._wake_waiters()
        self._expiry.arm()
        if self._is_idle():
            self._idle.set()
        self.counters.note_step(time.perf_counter() - started)

    def _execute_and_write(self) -> None:
        """Execute what is due, and have it written: at once if it is small, unless something is to leave before."""
        is_large = self._execute_next() >= EXECUTE_EARLY_COMMANDS_MIN
        if self.coordinator is None or not self.coordinator.take_departure():
            self._deferral.end()
            if not is_large and self._group is None:
                self._start_group()
        elif self._can_defer():
            self._deferral.begin()
        else:
            # It leaves before the disk is waited for: what the socket had no room for, while the loop turns.
            self._deferral.end()
            self._pump_scheduled = True
            self._loop.call_soon(self._loop.call_soon, self._run_pump)

    def _can_defer(self) -> bool:
        """Whether nobody waits for what is unwritten but for another shard, and a sync of it would keep the loop."""
        if self._group is not None or self.legs.awaits_commit or not all(one.undecided_count for one in self._executed):
            return False
        return self._syncs_inline(EVENT_SIZE * sum(batch.command_count for batch in self._executed))

    def _syncs_inline(self, size_bytes: int) -> bool:
        return size_bytes <= INLINE_SYNC_BYTES_MAX and self._inline_sync_s <= INLINE_SYNC_S_MAX

    @property
    def _must_write(self) -> bool:
        return self._has_unwritten and self._group is None

    @property
    def _must_execute(self) -> bool:
        return self._should_execute_legs() or self._should_execute()

    @property
    def _has_unwritten(self) -> bool:
        return bool(self._executed) or self.replica.log.has_unwritten

    def _should_execute(self) -> bool:
        member = self.member
        if not self._spare or member.is_handing_over or (self._collecting.is_empty and not self._expiry.is_due):
            return False
        if member.is_leader and self._must_wait_for_checkpoint(self._collecting.command_count):
            return False
        if self._group is not None and member.is_leader:
            return self._collecting.command_count >= EXECUTE_EARLY_COMMANDS_MIN
        return (self._expiry.is_due and member.is_leader) or not self._collecting.is_empty

    def _should_execute_legs(self) -> bool:
        count = self.legs.next_count
        if count == 0 or not self.member.is_leader:
            return count > 0  # Who does not lead sends them to the leader.
        if self.member.is_handing_over or self._must_wait_for_checkpoint(count):
            return False
        return self._group is None or count >= EXECUTE_EARLY_COMMANDS_MIN

    def _must_wait_for_checkpoint(self, commands: int) -> bool:
        """Whether the ids of so many commands have no room, and the checkpoint that makes some is under way."""
        return not self.replica.has_room_for_batch(commands) and not self._checkpointing.failing

    def _execute_next(self) -> int:
        """Execute the legs of transactions, and the collected batch unless they were many; returns the commands."""
        count = self._execute_legs() if self._should_execute_legs() else 0
        # Together they wait for the disk once. And legs that come at every turn do not keep clients waiting for ever.
        if count < EXECUTE_EARLY_COMMANDS_MIN and self._should_execute():
            count += self._collecting.command_count
            self._execute()
        return count

    def _execute_legs(self) -> int:
        started = time.perf_counter()
        count = self.legs.next_count
        if not self.member.is_leader:
            self.legs.refuse(self._elsewhere(FrameError.NOT_LEADER), self._elsewhere(FrameError.OUTCOME_UNKNOWN))
            return 0
        events = self.legs.execute()
        self._expiry.on_executed(events)
        self.counters.commands += count
        self.counters.events += events
        self.counters.add("execute", time.perf_counter() - started)
        return count

    def _execute(self) -> None:
        """Execute the collected batch in memory, or send those who wait for it to the leader."""
        started = time.perf_counter()
        batch = self._collecting
        self._collecting = self._spare.pop()
        if not self.member.is_leader:
            self._refuse(batch, FrameError.NOT_LEADER)
            return
        count = batch.command_count
        index = self.replica.log.last_index
        if count or self._expiry.is_due:
            preset = batch.preset(time.monotonic_ns())
            if self.placing is not None:
                preset = self.placing.preset(batch.frames, batch.frame_count, batch.command_words, count, preset)
            if self.guarding is not None:
                preset = self.guarding.preset(batch, preset)
            if self.coordinator is not None:
                preset = self.coordinator.prepare(batch, preset)
            executed = self.member.execute(batch.commands[:count], preset)
            self._expiry.on_executed(executed.event_count)
            batch.results = executed.results
            if self.coordinator is not None:
                self.coordinator.on_executed(batch, executed.events)
            self.counters.commands += count
            self.counters.events += executed.event_count
        self._answer_requests(batch)
        self.member.note_appended()
        batch.index = self.replica.log.last_index
        if batch.answers and batch.index == index and not self.member.is_alone:
            # Nothing that is committed later on shows that this node still led when it answered.
            batch.read_ticket = self.member.request_read()
        self._executed.append(batch)
        note_executed(self.counters, batch, started, has_appended=batch.index > index)

    def _refuse(self, batch: Batch, code: FrameError) -> None:
        """Send those who wait for a batch to the leader."""
        batch.refuse(self._elsewhere(code))
        batch.clear()
        self._spare.append(batch)

    def _elsewhere(self, code: FrameError) -> AnsweredElsewhere:
        return AnsweredElsewhere(code, _WHY[code], self.member.leader_address)

    def _answer_requests(self, batch: Batch) -> None:
        """Answer the requests of a batch, or as many as there is time for; the rest goes to the next batch."""
        started = time.perf_counter()
        requests, batch.requests = batch.requests, []  # Each is in one place, and answered once, whatever comes.
        for number, request in enumerate(requests):
            if number and time.perf_counter() - started > STEP_S_MAX:
                self._collecting.requests.extend(requests[number:])
                self.schedule()
                return
            batch.answers.append((request, self._answer(request)))

    def _answer(self, request: Request) -> bytes | Exception:
        """What a request is answered, also if it is the client's fault or the disk's; bugs and rot propagate."""
        try:
            if self.placing is not None:
                self.placing.check_request(request.operation, request.body)
            if self.guarding is not None:
                self.guarding.check(request)
            answer = answer_request(self.replica, request.operation, request.body)
            return answer if self.guarding is None else self.guarding.told(request, answer)
        except CorruptLog:
            raise
        except (RemoteProtocolError, UsageError, StorageError) as error:
            if self.guarding is not None:
                self.guarding.refused(request.principal, request.operation, request.body, error)
            return error

    def _start_group(self) -> None:
        """Make everything appended durable: inline if it is small, else on the thread."""
        self._deferral.end()
        group = self.member.begin_group()
        batches, self._executed = self._executed, []
        self._telling.waiting.extend(batches)
        if group is None:
            return
        self._group, self._sync_started_s = group, time.perf_counter()
        note_begun(self.counters, batches, self._sync_started_s)
        self.flush_messages()  # The others write at the same time.
        self.counters.syncs += 1
        if self._syncs_inline(group.bytes_count):
            self.counters.syncs_inline += 1
            self._prepare_replies(batches)
            self._finish_group(group, write_or_die(group))
            return
        self._sync_thread.write(group)
        self._prepare_replies(batches)
        started = time.perf_counter()
        self.replica.log.settle_hash()
        self.counters.add("hash", time.perf_counter() - started)

    def _prepare_replies(self, batches: list[Batch]) -> None:
        """Encode the replies while, or before, the disk is waited for; none is sent yet."""
        started = time.perf_counter()
        for batch in batches:
            if not batch.undecided_count:
                batch.encode_replies()
        self.counters.add("encode", time.perf_counter() - started)

    def _on_synced(self, group: Group, seconds: float) -> None:
        """The thread is done."""
        if group is not self._group:
            return  # It has been waited for.
        started = time.perf_counter()
        self.counters.add("sync_handover_wait", started - self._sync_started_s - seconds)
        self._finish_group(group, seconds)
        self.schedule()
        self.counters.note_step(time.perf_counter() - started)

    def _settle_group(self) -> None:
        """Wait for the group that is being written: what follows may cut it off the log."""
        if self._group is not None:
            self._finish_group(self._group, self._sync_thread.wait())

    def _finish_group(self, group: Group, seconds: float) -> None:
        self.counters.add("write_and_sync", seconds)
        self.counters.sync.observe(int(1e9 * seconds))
        self._inline_sync_s += INLINE_SYNC_WEIGHT * (seconds - self._inline_sync_s)
        self._group = None
        note_synced(self.counters, self._telling.waiting)
        self.member.finish_group(group)
        self.flush_messages()  # An acknowledgement: the leader, and its clients, wait for nothing else here.
        self._publish()
        self._reply()
        if not self._tidy_scheduled:
            self._tidy_scheduled = True
            self._loop.call_soon(self._run_tidy)  # What was told is sent before.
        if not self._collecting.is_empty or self._has_unwritten or self._waiters or self.legs.command_count:
            self.schedule()

    def _tidy(self) -> None:
        self._tidy_scheduled = False
        if self._has_ended:
            return
        started = time.perf_counter()
        self.replica.tidy()
        self._checkpointing.on_committed()
        self.counters.add("tidy", time.perf_counter() - started)
        self.counters.note_step(time.perf_counter() - started)

    def end(self) -> None:
        """Do nothing more, whatever was left for the next turn of the loop: who opens the log next finds it."""
        self._has_ended = True

    def _publish(self) -> None:
        """Let other processes read what is both committed and durable here."""
        if self.publisher is not None:
            self.publisher.publish(min(self.member.committed_index, self.replica.durable_index))

    def _reply(self) -> None:
        """Tell the results of everything that has been committed."""
        member, telling = self.member, self._telling
        telling.note_confirmed()
        if self.coordinator is not None or not self.legs.is_empty:
            self._reply_to_coordinators()
        if telling.is_empty and member.is_leader:
            return
        started = time.perf_counter()
        if not member.is_leader and (self._executed or not telling.is_empty):
            self._abandon()
        telling.tell()
        self.counters.add("reply", time.perf_counter() - started)

    def _on_late(self) -> None:
        if not self._has_ended:
            self._reply()
            self.schedule()

    def _reply_to_coordinators(self) -> None:
        """Have what is committed carried on, here and in other shards."""
        if self.member.is_leader:
            self.legs.reply(self.member.committed_index, self._telling.confirmed_ticket)
            if self.coordinator is not None:
                self.coordinator.on_committed()
            if self.moving is not None:
                self.moving.on_committed()
            return
        if not self.legs.is_empty:
            self.legs.refuse(self._elsewhere(FrameError.NOT_LEADER), self._elsewhere(FrameError.OUTCOME_UNKNOWN))
        if self.coordinator is not None:
            self.coordinator.lose()
        if self.moving is not None:
            self.moving.lose()

    def _abandon(self) -> None:
        """This node leads no more: nobody knows whether what it has executed and not seen committed will be."""
        self._telling.waiting.extend(self._executed)
        self._executed = []
        self._telling.abandon(self._elsewhere(FrameError.OUTCOME_UNKNOWN))
        if not self._collecting.is_empty and self._spare:
            # Now, and not when this node may lead again: of one connection nothing may overtake what was refused.
            self._execute()

    # ---- the other members ----

    def on_message(self, message: RaftMessage, payload: memoryview) -> None:
        """Take a message of another member. Raises `RemoteProtocolError` for one that cannot be."""
        started = time.perf_counter()
        self.member.receive(message, payload)
        self.counters.add("replicate", time.perf_counter() - started)
        self._after_member(started)

    def _on_tick(self) -> None:
        """Let `TICK_S` pass."""
        started = time.perf_counter()
        self.member.tick()
        self.member.note_disk(hangs=self._group is not None and started - self._sync_started_s > DISK_HANG_S_MAX)
        self._after_member(started)

    def _after_member(self, started: float) -> None:
        """Do what the member has made possible: at once what others wait for."""
        self._publish()
        is_put_off = self._pump_scheduled or self._deferral.is_on
        if self._group is None and self.replica.log.has_unwritten and not is_put_off:
            self._start_group()
        if self._executed or not self._telling.is_empty or self.coordinator is not None or not self.legs.is_empty:
            self._reply()
        if self.member.has_work or not self._collecting.is_empty or self._waiters or self.legs.command_count:
            self.schedule()
        self.flush_messages()
        self._checkpointing.on_committed()
        self.counters.note_step(time.perf_counter() - started)

    def _wake_waiters(self) -> None:
        """Let those that found no room try again, in the order in which they came."""
        if not self._can_wake():
            return
        started = time.perf_counter()
        for _ in range(len(self._waiters)):
            self._waiters.popleft().resume()
            if time.perf_counter() - started > STEP_S_MAX:
                break
        if self._can_wake():
            self.schedule()

    def _can_wake(self) -> bool:
        return bool(self._waiters) and self.has_room and self._collecting.is_empty

    def _is_idle(self) -> bool:
        return (
            self._collecting.is_empty
            and not self._executed
            and self._telling.is_empty
            and self.legs.is_empty
            and (self.moving is None or self.moving.is_idle)
            and self._group is None
            and not self.member.has_work
            and not self._pump_scheduled
        )

    # ---- the end ----

    async def wait_idle(self) -> None:
        """Return when everything that came in has been answered."""
        self.schedule()
        await self._idle.wait()

    async def stop(self, *, settled: bool = True) -> None:
        """Answer everything that came in, then close the log. Nothing may be added meanwhile.

        Not `settled`: close at once what is to be opened again; nobody waits for anything any more.
        """
        self._expiry.stop()
        if settled:
            await self.wait_idle()
        if self.coordinator is not None:
            self.coordinator.stop()
        if self.moving is not None:
            self.moving.lose()
        self._settle_group()
        self.end()
        self._telling.stop()
        await self._checkpointing.stop()
        await self._dropping.stop()
        self._sync_thread.stop()
        if self.publisher is not None:
            self.publisher.close()
        self.member.close()
