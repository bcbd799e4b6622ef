"""All that a member does about states and histories, its own and others': for whoever drives it, beside its messages.

Call `on_tick` every `bezant.engine.member.TICK_S` and `on_message` for each message of `TRANSFER_MESSAGES`. Both may
raise `StateAbandoned`: then the folder must be opened again, which installs what has arrived.
"""

from collections import Counter
from collections.abc import Callable
from typing import Final

from bezant.engine.log.storage import Directory
from bezant.engine.member import Member, StateAbandoned
from bezant.engine.raft.roles import Role
from bezant.engine.snapshots.backfill import Backfill, is_incomplete
from bezant.engine.snapshots.installing import FOLDER_NAME, clear, leave_intent
from bezant.engine.snapshots.jobs import Jobs
from bezant.engine.snapshots.receiving import Facts, Phase, Receiver
from bezant.engine.snapshots.sending import OpenState, Sender
from bezant.protocol.errors import ArchiveUnavailable, CorruptLog, RemoteProtocolError, StorageError, UsageError
from bezant.protocol.transfer_messages import (
    ENTRIES_SIZE_MAX,
    FAILED,
    INSTALLED,
    PROBLEM_LENGTH_MAX,
    UNWANTED,
    WANTED,
    EntriesReply,
    EntriesRequest,
    PartReply,
    PartRequest,
    SnapshotOffer,
    SnapshotReply,
    TransferMessage,
    checksum_of,
)

TELL_TICKS: Final = 100
"""Ticks after which a leader is told again that its state is being worked on."""
SMALL_STATE_BYTES: Final = 1 << 20
"""A state is not compared with what is lacking of the log if it is smaller."""


class StateTransfer:
    """See the module. `counts` says how often what happened."""

    def __init__(self, member: Member, warn: Callable[[str], None]) -> None:
        replica = member.replica
        self.counts: Counter[str] = Counter()
        self._member = member
        self._log = replica.log
        self._warn = warn
        self._node_id = member.identity.node_id
        self._snapshot: Directory = replica.log.directory.subdirectory(FOLDER_NAME)
        self._helper = replica.log.directory.helper("bezant-snapshot")
        self._facts = Facts(
            replica.log.log_id,
            replica.shard,
            replica.settings.segment_size,
            replica.settings.ledger_settings,
            replica.settings.free_space_floor,
        )
        self._sender = Sender(replica.checkpoints, Jobs(self._helper), self._offer, self._on_done, warn)
        self._receiver: Receiver | None = None
        self._backfill: Backfill | None = None
        if is_incomplete(replica.log):
            self._backfill = Backfill(
                replica.log,
                self._facts,
                Jobs(self._helper),
                ask=self._ask_entries,
                sources=self._sources,
                warn=warn,
                is_wanted=lambda blob, index: (
                    replica.ledger.metadata.index_of(blob.subject_kind, blob.subject) == index
                ),
                on_filled=replica.erasing.retry,
            )
        self._now_ticks = 0

    # ---- time ----

    def on_tick(self) -> None:
        """Go on with whatever there is. Raises `StateAbandoned`."""
        self._now_ticks += 1
        if self._member.role is Role.LEADER:
            self._lead()
        else:
            self._member.snapshot_needed.clear()
            self._sender.close()
        if self._receiver is not None:
            self._receive(self._receiver)
        elif self._backfill is not None:
            self._fill_in(self._backfill)

    def _fill_in(self, backfill: Backfill) -> None:
        filled, kept = backfill.segments_filled, backfill.segments_kept
        backfill.on_tick()
        self.counts["segments filled in"] += backfill.segments_filled - filled
        self.counts["segments kept"] += backfill.segments_kept - kept
        stalled_index = self._member.replica.stalled_index
        if stalled_index and self._log.first_index <= stalled_index:
            raise StateAbandoned(f"entry {self._member.replica.applied_index + 1} waited for history that is here now")

    # ---- the leader ----

    def _lead(self) -> None:
        for node_id in self._member.snapshot_needed:
            self._sender.begin(node_id)
        self._member.snapshot_needed.clear()
        self._consider()
        self._maybe_hand_over()
        self._sender.on_tick()

    def _consider(self) -> None:
        """Begin with members that lack so much of the log that the state is cheaper.

        At each tick: who is let in is sent the log at once, some hundred megabytes of it a second.
        """
        replica = self._member.replica
        index = replica.checkpoint_index
        for status in self._member.core.status().members:
            if status.state != "replicate" or not status.recent_active or not self._sender.may_begin(status.node_id):
                continue
            if status.match_index < index and self._is_worth_it(status.match_index, index):
                self._member.begin_snapshot(status.node_id, index)

    def _is_worth_it(self, match_index: int, index: int) -> bool:
        replica = self._member.replica
        lacking_bytes = self._log.bytes_between(match_index, index)
        state_bytes = replica.id_runs.size_bytes
        return lacking_bytes >= max(replica.settings.snapshot_behind_bytes, state_bytes - SMALL_STATE_BYTES)

    def _maybe_hand_over(self) -> None:
        """Who leads only for want of others, and lacks a part of the history, does so no longer than it must."""
        if not self._log.is_complete and not self._member.is_handing_over:
            try:
                self._member.transfer_leadership()
            except UsageError:
                return  # There is nobody who could lead.
            self.counts["leaderships not kept"] += 1

    def _offer(self, node_id: int, state: OpenState) -> None:
        point = state.manifest.point
        size = state.files[0].size()
        self._say(SnapshotOffer(self._node_id, node_id, self._member.term, state.name, point.index, point.term, size))

    def _on_done(self, node_id: int, index: int | None) -> None:
        self.counts["states sent" if index is not None else "states not sent"] += 1
        self._member.snapshot_done(node_id, index)

    # ---- messages ----

    def on_message(self, message: TransferMessage, payload: memoryview) -> None:
        """Take a message of another member. Raises `RemoteProtocolError` for one that cannot be, `StateAbandoned`."""
        if message.receiver != self._node_id:
            raise RemoteProtocolError(f"node {self._node_id} got a message for {message.receiver}")
        if not isinstance(message, PartReply | EntriesReply) and len(payload):
            raise RemoteProtocolError(f"{len(payload)} bytes beside a message that has none")
        match message:
            case SnapshotOffer():
                self._on_offer(message)
            case SnapshotReply():
                self._sender.on_reply(message)
            case PartRequest():
                self._on_part_request(message)
            case EntriesRequest():
                self._on_entries_request(message)
            case PartReply():
                if self._receiver is not None and self._receiver.offer.snapshot == message.snapshot:
                    corrupt = self._receiver.corrupt_parts
                    self._try(self._receiver, self._receiver.on_part, message, payload)
                    if self._receiver is not None and self._receiver.corrupt_parts > corrupt:
                        self._note_corrupt(message)
            case EntriesReply():
                self._on_entries(message, payload)

    def _note_corrupt(self, message: PartReply) -> None:
        self.counts["corrupt parts"] += 1
        self._warn(f"a part of the state of the group came damaged from node {message.sender}: it is asked for again")

    def _on_part_request(self, request: PartRequest) -> None:
        parts = self._sender.read(request)
        if not parts:  # Nothing: whoever asks should not wait.
            parts = [(request.offset, b"")]
        for offset, part in parts:
            checksum = checksum_of(part)
            reply = PartReply(
                self._node_id, request.sender, self._member.term, request.snapshot, request.run, offset, checksum
            )
            self._member.send(reply, (part,) if part else ())

    def _on_entries_request(self, request: EntriesRequest) -> None:
        """Give what is committed and durable here; nothing if that is not all there."""
        log, first_index = self._log, request.first_index
        reply = EntriesReply(self._node_id, request.sender, self._member.term, first_index)
        here = log.history_index <= first_index <= request.last_index <= min(log.durable_index, log.commit_index)
        if not here:
            self._say(reply)
            return
        try:
            last_index = min(log.end_of_span(first_index, ENTRIES_SIZE_MAX), request.last_index)
            pieces = log.read_encoded(first_index, last_index)
        except ArchiveUnavailable:
            self._say(reply)  # They are being fetched, and are here when the other asks again.
            return
        except CorruptLog as error:
            self._warn(f"entries that node {request.sender} asks for are damaged here: {error}")
            self._say(reply)
            return
        self._member.send(reply, pieces)

    def _say(self, message: TransferMessage) -> None:
        self._member.send(message, ())

    # ---- a member that is sent a state ----

    def _on_offer(self, offer: SnapshotOffer) -> None:
        receiver = self._receiver
        if receiver is not None and receiver.offer.snapshot == offer.snapshot and receiver.offer.sender == offer.sender:
            self._answer(offer, WANTED)
            return
        if offer.term < self._member.term or not self._member.wants_snapshot(offer.index, offer.index_term):
            self._answer(offer, UNWANTED)
            return
        if receiver is not None:
            self.counts["states given up"] += 1
            self._drop()
        try:
            self._receiver = self._begin(offer)
        except (StorageError, OSError) as error:
            self._fail(offer, error)
            return
        self.counts["states begun"] += 1
        self._answer(offer, WANTED)

    def _begin(self, offer: SnapshotOffer) -> Receiver:
        self._snapshot.create()
        clear(self._snapshot)
        term = self._member.term
        return Receiver(
            offer,
            self._snapshot,
            self._facts,
            Jobs(self._helper),
            ask_part=lambda run, offset, size: self._say(
                PartRequest(self._node_id, offer.sender, term, offer.snapshot, run, offset, size)
            ),
            ask_entries=lambda first, last: self._ask_entries(offer.sender, first, last),
        )

    def _answer(self, offer: SnapshotOffer, state: int, problem: str = "") -> None:
        problem = problem[:PROBLEM_LENGTH_MAX]
        self._say(SnapshotReply(self._node_id, offer.sender, self._member.term, offer.snapshot, state, problem))

    def _try(self, receiver: Receiver, action: Callable[..., None], *arguments: object) -> None:
        """Go on with a state; one that cannot be had is given up, and its sender told."""
        try:
            action(*arguments)
        except (RemoteProtocolError, StorageError, OSError) as error:
            self._fail(receiver.offer, error)

    def _receive(self, receiver: Receiver) -> None:
        if self._member.role is Role.LEADER or self._member.committed_index >= receiver.offer.index:
            self.counts["states overtaken"] += 1
            self._drop()
            return
        if self._now_ticks % TELL_TICKS == 0:
            self._answer(receiver.offer, WANTED)
        self._try(receiver, receiver.on_tick)
        if self._receiver is not None and receiver.phase is Phase.READY:
            self._install(receiver)

    def _install(self, receiver: Receiver) -> None:
        offer = receiver.offer
        if not self._member.wants_snapshot(offer.index, offer.index_term):
            self._answer(offer, UNWANTED)
            self._drop()
            return
        self._member.settle_group()
        leave_intent(self._snapshot, receiver.manifest)
        self._receiver = None
        self.counts["states installed"] += 1
        self._answer(offer, INSTALLED)
        raise StateAbandoned(f"the state of the group behind entry {offer.index} has come from node {offer.sender}")

    def _fail(self, offer: SnapshotOffer, error: Exception) -> None:
        self.counts["states failed"] += 1
        self._warn(f"the state of the group, which node {offer.sender} sends, cannot be had: {error}")
        self._answer(offer, FAILED, str(error))
        self._drop()

    def _drop(self) -> None:
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            receiver.discard()
        clear(self._snapshot)

    # ---- entries from before ----

    def _ask_entries(self, node_id: int, first_index: int, last_index: int) -> None:
        self._say(EntriesRequest(self._node_id, node_id, self._member.term, first_index, last_index))

    def _sources(self) -> list[int]:
        """Whom to ask for history: the leader first."""
        member = self._member
        others = [record.node_id for record in member.configuration.members if record.node_id != self._node_id]
        return sorted(others, key=lambda node_id: (node_id != member.leader_id, node_id))

    def _on_entries(self, message: EntriesReply, payload: memoryview) -> None:
        if self._receiver is not None:
            if message.sender == self._receiver.offer.sender:
                self._try(self._receiver, self._receiver.on_entries, message.first_index, payload)
        elif self._backfill is not None:
            self._backfill.on_entries(message.sender, message.first_index, payload)

    def close(self) -> None:
        """Stop, and wait for what the helper is about; what has not arrived whole is begun again."""
        self._sender.close()
        if self._receiver is not None:
            self._receiver.discard()
            self._receiver = None
        if self._backfill is not None:
            self._backfill.discard()
            self._backfill = None
        self._helper.shutdown(wait=True, cancel_futures=True)
