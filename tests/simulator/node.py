"""A simulated node: a real member on a simulated disk, driven in virtual time as the reactor drives it in real time.

    collecting -> executed -> (group: write + sync) -> waiting -> committed -> answered

The order of calls is that of `bezant.net.server.reactor`. What differs: a sync ends when the schedule says so, and a
node may stop at any write or sync of its disk, in the middle of whatever it does.
"""

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from bezant.engine.log.group import Group
from bezant.engine.member import Member, StateAbandoned
from bezant.engine.node_file import NodeFile
from bezant.engine.opening import open_member
from bezant.engine.raft.hard_state import HardState
from bezant.engine.raft.interface import NotLeader
from bezant.engine.raft.membership import MembershipChange
from bezant.engine.repair import repair_from_group
from bezant.engine.replica import Replica, shard_directory
from bezant.engine.snapshots.transfer import StateTransfer
from bezant.protocol.errors import CorruptLog, UsageError
from bezant.protocol.messages import Configuration
from bezant.protocol.records import Records
from bezant.protocol.transfer_messages import PeerMessage, TransferMessage

from ..engine.log.memory_disk import PowerCut
from .checkpoints import InlineCheckpoints
from .disk import STEPS_UNBOUNDED, Disk
from .frames import Answer, Frame, Outcome, count_for_batch, joined
from .metadata import maybe_set_metadata
from .schedule import Violation

if TYPE_CHECKING:
    from .simulation import Simulation

TICK_US = 10_000
PUMP_US = 300
EXECUTE_EARLY_FRAMES_MIN = 3
"""Frames that make it worth executing while a sync is under way: many times fewer than commands in the reactor."""
STEPS_TO_STOP_MAX = 12
CLOCK_START_NS = 1_800_000_000_000_000_000


class Batch:
    """Frames that were executed together, and what they are answered once that is committed."""

    def __init__(self, frames: list[Frame]) -> None:
        self.frames = frames
        self.answers: list[tuple[Frame, bytes]] = []
        self.index = 0
        self.read_ticket = 0


class Node:
    """See the module."""

    def __init__(self, simulation: "Simulation", file: NodeFile) -> None:
        self._simulation = simulation
        self._schedule = simulation.schedule
        self.counts = simulation.counts
        self.file = file
        self.node_id = file.node_id
        self.disk = Disk()
        self.member: Member | None = None
        self.boot = 0
        self.paused_until_us = 0
        self.clock_offset_ns = 0
        self.tick_us = TICK_US
        self.sync_us_max = simulation.sync_us_max
        self.stops_with_power = True
        self.is_rot_known = False
        self.last_configuration: Configuration | None = None
        """The configuration in force here, as of its last step."""
        self.synced_index = 0
        """The last entry that a sync has made durable, as far as this node's disk knows."""
        self._reset()

    def _reset(self) -> None:
        self._collecting: list[Frame] = []
        self._executed: list[Batch] = []
        self._waiting: deque[Batch] = deque()
        self._group: Group | None = None
        self._confirmed_ticket = 0
        self._is_pump_scheduled = False
        self._checkpoints: InlineCheckpoints | None = None
        self._transfer: StateTransfer | None = None

    # ---- life and death ----

    @property
    def is_up(self) -> bool:
        return self.member is not None

    @property
    def folder(self) -> str:
        """The name of the folder of its log, on its disk."""
        return f"shard-{self.file.shard:04d}"

    @property
    def directory(self) -> Any:
        return shard_directory(self.disk.root, self.file.shard)

    def clock_ns(self) -> int:
        return CLOCK_START_NS + 1_000 * self._schedule.now_us + self.clock_offset_ns

    def repair(self) -> None:
        """Give up what lies behind the damage in its log, and get it from the others."""
        self._guard(self._repair)

    def _repair(self) -> None:
        report = repair_from_group(self.disk.root, self.file)
        self.counts["logs repaired from the group"] += report is not None
        self._schedule.note("repaired", self.node_id, report and report.last_index)

    def wipe(self, file: NodeFile) -> None:
        """Begin with a blank disk, as the node that this file names."""
        self.disk = Disk()
        self.file = file
        self.is_rot_known = False
        self.synced_index = 0

    def knows(self, other: "Node") -> bool:
        """Whether it would talk to that disk: not if its group has another one by that number."""
        if self.member is None:
            return False
        members = {member.node_id: member.incarnation for member in self.member.configuration.members}
        return members.get(other.node_id, other.file.incarnation) == other.file.incarnation

    def start(self) -> None:
        """Open the disk."""
        if self.is_up:
            return
        self.boot += 1
        self._reset()
        self._guard(self._open)
        if self.member is not None:
            self._after(self._schedule.chance("tick").randrange(self.tick_us), self._on_tick)
            self._guard(self._step_done)

    def _open(self) -> None:
        simulation = self._simulation
        chance = self._schedule.chance(f"election of {self.node_id}")
        member = open_member(
            self.disk.root,
            self.file,
            log_id=simulation.log_id,
            shard=self.file.shard,
            settings=simulation.replica_settings,
            core_settings=simulation.core_settings,
            clock_ns=self.clock_ns,
            chance=chance,
        )
        member.send = self._send
        member.settle_group = self._settle_group
        self.member = member
        self.synced_index = member.replica.log.durable_index
        self._checkpoints = InlineCheckpoints(self.disk, member.replica, self.counts)
        self._transfer = StateTransfer(member, lambda problem: self._schedule.note("warns", self.node_id, problem))
        self._transfer.counts = self.counts
        self.counts["starts without the history"] += not member.replica.log.is_complete
        self.counts["starts that wait for history"] += bool(member.replica.stalled_index)
        report = member.replica.log.recovery
        self.counts["torn tails set aside"] += bool(report.torn_bytes)
        self.counts["starts behind a checkpoint"] += bool(member.replica.start_index)
        self._schedule.note("start", self.node_id, member.replica.log.last_index, member.committed_index)

    def stop(self, kind: str) -> None:
        """End at once. `kind`: "power" goes, or the process is killed ("kill") and its page cache stays."""
        chance = self._schedule.chance(f"disk of {self.node_id}")
        if not self._simulation.faults.is_rotten(self):
            self._simulation.checks.check_committed(self)  # It may have stopped in the middle of a step.
        group, self._group = self._group, None
        if group is not None and self.disk.steps_left > 0:
            self.disk.steps_left = chance.randrange(4)
            try:
                group.write_and_sync()
            except (PowerCut, OSError):
                self.counts["stopped while a group was being written"] += 1
        if kind == "power":
            self.disk.lose_power(chance)
        else:
            self.disk.kill()
        self._forget()
        self.counts[f"stops: {kind}"] += 1
        self._schedule.note("stop", self.node_id, kind)
        self._simulation.on_stopped(self)

    def _forget(self) -> None:
        member, self.member = self.member, None
        if member is not None:
            # Its last step may have been cut off behind an entry that changes members, and that entry may be there.
            self.last_configuration = member.configuration
            member.send = _say_nothing
            member.settle_group = _no_group
        self.boot += 1
        self.paused_until_us = 0
        self._reset()

    def stop_within(self, steps: int, *, with_power: bool) -> None:
        """Have the node stop in the middle of one of its next writes and syncs."""
        self.disk.steps_left = steps
        self.stops_with_power = with_power

    def _reopen(self) -> None:
        """The ledger has executed what was never committed: what the server does when `StateAbandoned` is raised."""
        self.counts["states abandoned"] += 1
        self._schedule.note("abandoned", self.node_id)
        member = self.member
        if member is None:
            raise Violation("a state was abandoned by a node that is not up")
        member.send = _say_nothing
        self._settle_group()
        self._moving.close()
        member.close()
        self._forget()
        self._schedule.after(1_000, self.start)

    def _guard(self, action: Callable[..., None], *arguments: Any) -> None:
        """Do something, and what its failure leads to."""
        try:
            action(*arguments)
        except PowerCut:
            self.counts["stopped at a write or sync"] += 1
            self.stop("power" if self.stops_with_power else "kill")
        except StateAbandoned:
            self._guard(self._reopen)
        except OSError as error:
            self.counts["failed syncs"] += 1
            self._schedule.note("failed", self.node_id, error.errno)
            self.stop("kill")
        except CorruptLog as error:
            if not self._simulation.faults.is_rotten(self):
                raise
            self.is_rot_known = True
            self.counts["rot found"] += 1
            self._schedule.note("rot", self.node_id, type(error).__name__)
            self.stop("kill")

    def _after(self, delay_us: int, action: Callable[..., None], *arguments: Any) -> None:
        """Have this node do something, if it has not stopped until then."""
        self._schedule.after(delay_us, self._wake, self.boot, action, arguments)

    def _wake(self, boot: int, action: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        if boot != self.boot or self.member is None:
            return
        paused_us = self.paused_until_us - self._schedule.now_us
        if paused_us > 0:
            self._schedule.after(paused_us, self._wake, boot, action, arguments)
            return
        self._guard(self._take_step, action, arguments)

    def _take_step(self, action: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        action(*arguments)
        self._step_done()

    def _step_done(self) -> None:
        if self.member is not None:
            self.last_configuration = self.member.configuration
            self._simulation.checks.look(self)

    # ---- what comes in ----

    def on_message(self, message: PeerMessage, payload: memoryview) -> None:
        """A message of another member has arrived."""
        self._wake(self.boot, self._receive, (message, payload))

    def _receive(self, message: PeerMessage, payload: memoryview) -> None:
        if isinstance(message, TransferMessage):
            self._moving.on_message(message, payload)
        else:
            self._live.receive(message, payload)
        self._after_member()

    def _on_tick(self) -> None:
        self._after(self.tick_us, self._on_tick)
        self._live.tick()
        self._after_member()
        self._moving.on_tick()
        self._after_member()

    def on_frame(self, frame: Frame) -> None:
        """A client's frame has arrived."""
        self._wake(self.boot, self._take_frame, (frame,))

    def _take_frame(self, frame: Frame) -> None:
        self._collecting.append(frame)
        self._schedule_pump()

    def on_link_down(self, node_id: int, *, is_reset: bool) -> None:
        """The connection to a member has ended."""
        self._wake(self.boot, self._lose_link, (node_id, is_reset))

    def _lose_link(self, node_id: int, is_reset: bool) -> None:
        member = self._live
        member.unreachable(node_id)
        if is_reset and node_id == member.leader_id:
            member.leader_lost()
            self.counts["leaders taken for lost"] += 1
        self._after_member()

    @property
    def is_reachable(self) -> bool:
        """Whether a connection to it can be made."""
        return self.is_up and self.paused_until_us <= self._schedule.now_us

    @property
    def is_blank(self) -> bool:
        return self._live.is_blank

    @property
    def term(self) -> int:
        return self._live.core.term

    def on_blank(self, node_id: int, term: int) -> None:
        """A node that has connected says that its disk is blank."""
        self._wake(self.boot, self._note_blank, (node_id, term))

    def _note_blank(self, node_id: int, term: int) -> None:
        self._live.note_blank(node_id, term)
        self._after_member()

    def operate(self, action: str, change: MembershipChange | int) -> None:
        """What an operator asks of this node."""
        self._wake(self.boot, self._operate, (action, change))

    def _operate(self, action: str, change: MembershipChange | int) -> None:
        member = self._live
        try:
            if isinstance(change, MembershipChange):
                nodes = self._simulation.nodes
                if any(nodes[added.node_id].file.member != added for added in change.add):
                    return  # It has another disk by now, and the operator sees it.
                member.change_membership(change)
            else:
                member.transfer_leadership(change)
        except (UsageError, NotLeader):
            self.counts["operations refused"] += 1
        else:
            self.counts[action] += 1
            self._schedule.note(action, self.node_id, change)
        self._after_member()

    @property
    def _live(self) -> Member:
        if self.member is None:
            raise Violation(f"node {self.node_id} is driven and not up")
        return self.member

    @property
    def _moving(self) -> StateTransfer:
        if self._transfer is None:
            raise Violation(f"node {self.node_id} is driven and not up")
        return self._transfer

    @property
    def hard_state(self) -> HardState:
        """What the vote file says."""
        vote_file = self.member._vote_file if self.member is not None else None
        if vote_file is None:
            raise Violation("a member of a group has no vote file, or is not up")
        return vote_file.read()

    @property
    def configuration(self) -> Configuration:
        return self._live.configuration

    # ---- the pipeline ----

    def _schedule_pump(self) -> None:
        if not self._is_pump_scheduled:
            self._is_pump_scheduled = True
            self._after(self._schedule.chance("pump").randrange(PUMP_US), self._pump)

    def _pump(self) -> None:
        self._is_pump_scheduled = False
        member = self._live
        if self._checkpoints is not None:
            self._checkpoints.freeze_when_due()
        if self._has_unwritten and self._group is None and not (self._is_deferred and self._has_executable):
            self._start_group()
        elif self._has_executable:
            is_large = self._execute_next() >= EXECUTE_EARLY_FRAMES_MIN
            if self._departs():
                self._write_after_departure()
            elif not is_large and self._group is None:
                self._start_group()
        has_more = member.work()
        if (self._has_unwritten and self._group is None and not self._is_deferred) or self._has_executable or has_more:
            self._schedule_pump()
        self._reply()

    def _departs(self) -> bool:
        """Whether something leaves for another shard before the disk is waited for."""
        return False

    def _write_after_departure(self) -> None:
        self._schedule_pump()

    @property
    def _is_deferred(self) -> bool:
        """Whether nobody waits yet for what is unwritten."""
        return False

    @property
    def _has_executable(self) -> bool:
        return self._should_execute()

    def _execute_next(self) -> int:
        """Execute what has collected, as far as a batch has room; returns how many frames."""
        count = len(self._collecting)
        self._execute()
        return count

    @property
    def _has_unwritten(self) -> bool:
        return bool(self._executed) or self._live.replica.log.has_unwritten

    @property
    def _is_expiry_due(self) -> bool:
        return self._live.is_leader and 0 < self._live.replica.ledger.next_deadline_ns <= self.clock_ns()

    def _should_execute(self) -> bool:
        member = self._live
        if member.is_handing_over:
            return False
        if self._group is not None and member.is_leader:
            return len(self._collecting) >= EXECUTE_EARLY_FRAMES_MIN
        return bool(self._collecting) or self._is_expiry_due

    def _execute(self) -> None:
        member = self._live
        frames, count = self._collecting, count_for_batch(self._collecting)
        batch, self._collecting = self._begin_batch(frames[:count]), frames[count:]
        if not member.is_leader:
            self._refuse(batch, Outcome.NOT_LEADER)
            return
        index = member.replica.log.last_index
        if any(frame.is_write for frame in batch.frames) or self._is_expiry_due:
            self._execute_commands(batch, joined(frame.commands for frame in batch.frames))
        reads = [frame for frame in batch.frames if not frame.is_write]
        batch.answers += [(frame, self._look_up(frame)) for frame in reads]
        self._maybe_set_metadata(member.replica)
        member.note_appended()
        batch.index = member.replica.log.last_index
        if reads and batch.index == index and not member.is_alone:
            batch.read_ticket = member.request_read()
        self._executed.append(batch)

    def _look_up(self, frame: Frame) -> bytes:
        return self._live.replica.ledger.lookup_accounts(frame.keys).tobytes()

    def _execute_commands(self, batch: Batch, commands: Records) -> None:
        self._keep_results(batch, self._live.execute(commands, np.zeros(0, np.int64)).results)

    def _maybe_set_metadata(self, replica: Replica) -> None:
        maybe_set_metadata(replica, self._schedule.chance("metadata"), self.boot, self.counts)

    def _keep_results(self, batch: Batch, results: Records) -> None:
        start = 0
        for frame in batch.frames:
            if frame.is_write:
                batch.answers.append((frame, results[start : start + len(frame.commands)].tobytes()))
                start += len(frame.commands)

    def _begin_batch(self, frames: list[Frame]) -> Batch:
        return Batch(frames)

    def _release(self, batch: Batch) -> None:
        """A batch has been answered."""

    def _refuse(self, batch: Batch, outcome: Outcome) -> None:
        for frame in batch.frames:
            self._answer(frame, Answer(outcome, b"", 0, self._live.leader_id))
        self._release(batch)

    def _answer(self, frame: Frame, answer: Answer) -> None:
        self._simulation.answer(self, frame, answer)

    def _start_group(self) -> None:
        group = self._live.begin_group()
        self._waiting.extend(self._executed)
        self._executed = []
        if group is None:
            return
        self._group = group
        sync_us = self._schedule.chance("sync").randrange(self.sync_us_max + 1)
        if sync_us == 0:
            self._write(group)
            self._finish_group(group)
        else:
            self._after(sync_us, self._on_synced, group)

    def _on_synced(self, group: Group) -> None:
        if group is self._group:
            self._write(group)
            self._finish_group(group)
            self._schedule_pump()

    def _write(self, group: Group) -> None:
        group.write_and_sync()
        self.synced_index = max(self.synced_index, group.last_header.index)

    def _settle_group(self) -> None:
        group = self._group
        if group is not None:
            self.counts["groups waited for before a cut"] += 1
            self._write(group)
            self._finish_group(group)

    def _finish_group(self, group: Group) -> None:
        self._group = None
        member = self._live
        member.finish_group(group)
        self._reply()
        member.replica.tidy()
        self._make_checkpoint()

    def _make_checkpoint(self) -> None:
        if self._checkpoints is not None:
            self._checkpoints.make_if_due()

    def _reply(self) -> None:
        member = self._live
        if member.reads_confirmed:
            self._confirmed_ticket = max(ticket for ticket, _ in member.reads_confirmed)
            member.reads_confirmed.clear()
        self._reply_to_coordinators()
        if (self._waiting or self._executed) and not member.is_leader:
            self._abandon()
        waiting = self._waiting
        while waiting and self._is_known(waiting[0]):
            batch = waiting.popleft()
            for frame, body in self._bodies(batch):
                self._answer(frame, Answer(Outcome.DONE, body, batch.index, self.node_id))
            self._release(batch)
        self._after_reply()

    def _reply_to_coordinators(self) -> None:
        """There are none in a group that is the only one."""

    def _after_reply(self) -> None:
        if self._collecting or self._has_unwritten:
            self._schedule_pump()

    def _bodies(self, batch: Batch) -> list[tuple[Frame, bytes]]:
        """What each frame of a batch is answered."""
        return batch.answers

    def _is_known(self, batch: Batch) -> bool:
        """Whether a batch may be answered."""
        return batch.index <= self._live.committed_index and batch.read_ticket <= self._confirmed_ticket

    def _abandon(self) -> None:
        self._waiting.extend(self._executed)
        self._executed = []
        kept: deque[Batch] = deque()
        for batch in self._waiting:
            if self._is_known(batch):
                kept.append(batch)
            else:
                self._refuse(batch, Outcome.UNKNOWN)
        self._waiting = kept
        if self._collecting:
            self._execute()

    def _after_member(self) -> None:
        member = self._live
        has_unwritten = self._group is None and member.replica.log.has_unwritten
        if has_unwritten and not (self._is_pump_scheduled or self._is_deferred):
            self._start_group()
        if self._waiting or self._executed:
            self._reply()
        if member.has_work or self._is_expiry_due:
            self._schedule_pump()
        self._make_checkpoint()

    # ---- what goes out ----

    def _send(self, message: PeerMessage, buffers: Any) -> None:
        self._simulation.checks.sent(self, message)
        self._simulation.network.send(message, buffers)

    @property
    def is_stopping(self) -> bool:
        """Whether it will stop at one of its next writes."""
        return self.disk.steps_left < STEPS_UNBOUNDED // 2


def _say_nothing(message: PeerMessage, buffers: Any) -> None:
    """A node that has stopped sends nothing."""


def _no_group() -> None:
    """Nor does it write."""
