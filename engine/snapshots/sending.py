"""The leader's side: its newest checkpoint, held open as long as anybody copies it, and to whom it is offered.

The files stay readable while they are open, whatever the next checkpoint removes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from bezant.engine.checkpoints.file import PAGE_SIZE, Manifest, read_manifest
from bezant.engine.checkpoints.folder import CheckpointFolder, checkpoint_name
from bezant.engine.ids.run import run_name
from bezant.engine.log.storage import Directory, LogFile
from bezant.engine.snapshots.jobs import Jobs
from bezant.protocol.errors import StorageError
from bezant.protocol.transfer_messages import (
    FAILED,
    INSTALLED,
    PART_SIZE_MAX,
    UNWANTED,
    PartRequest,
    SnapshotReply,
    checksum_of,
)

OFFER_TICKS: Final = 25
"""Ticks between two offers that nobody has answered."""
SILENCE_TICKS_MAX: Final = 1_000
"""Ticks after which a member that says nothing has given up."""
PAUSE_TICKS: Final = 500
"""Ticks before the next attempt, after one that has failed."""


class OpenState:
    """A checkpoint and the files that it lists, open."""

    def __init__(self, directory: Directory, index: int) -> None:
        """Raises `StorageError`, OSError if a file is gone: then there is a newer checkpoint."""
        self.files: dict[int, LogFile] = {}
        try:
            self.manifest: Manifest = read_manifest(directory, checkpoint_name(index))
            self.files[0] = directory.open(checkpoint_name(index), writable=False)
            for info in self.manifest.runs:
                self.files[info.number] = directory.open(run_name(info.number), writable=False)
            self.name = checksum_of(self.files[0].read(PAGE_SIZE, 0))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let the files go."""
        for file in self.files.values():
            file.close()


@dataclass
class _Receiver:
    """A member that the state is offered to."""

    offered_ticks: int
    heard_ticks: int
    has_answered: bool = False


class Sender:
    """One leadership's offers. `offer` sends one to a member; `on_done` is told (node id, index or None)."""

    def __init__(
        self,
        folder: CheckpointFolder,
        jobs: Jobs,
        offer: Callable[[int, OpenState], None],
        on_done: Callable[[int, int | None], None],
        warn: Callable[[str], None],
    ) -> None:
        self._folder = folder
        self._jobs = jobs
        self._offer = offer
        self._on_done = on_done
        self._warn = warn
        self._now_ticks = 0
        self._state: OpenState | None = None
        self._opened: OpenState | None = None
        self._receivers: dict[int, _Receiver] = {}
        self._paused_until: dict[int, int] = {}

    def may_begin(self, node_id: int) -> bool:
        """Whether it is time for an attempt with a member."""
        return self._paused_until.get(node_id, 0) <= self._now_ticks

    def begin(self, node_id: int) -> None:
        """Offer the state to a member, until it has answered."""
        self._receivers[node_id] = _Receiver(self._now_ticks - OFFER_TICKS, self._now_ticks)

    def on_tick(self) -> None:
        """Offer, and give up."""
        self._now_ticks += 1
        if not self._receivers:
            self._close_state()
            return
        for node_id in list(self._receivers):
            if not self.may_begin(node_id):
                self._end(node_id, None)
        if self._receivers and self._has_state():
            for node_id, receiver in list(self._receivers.items()):
                self._go_on(node_id, receiver)

    def _go_on(self, node_id: int, receiver: _Receiver) -> None:
        if self._now_ticks - receiver.heard_ticks > SILENCE_TICKS_MAX:
            self._end(node_id, None)
        elif not receiver.has_answered and self._now_ticks - receiver.offered_ticks >= OFFER_TICKS:
            receiver.offered_ticks = self._now_ticks
            if self._state is not None:
                self._offer(node_id, self._state)

    def _has_state(self) -> bool:
        """Have the newest checkpoint opened; whether it is."""
        if self._state is not None:
            return True
        try:
            self._jobs.poll()
            if self._jobs.is_idle and self._opened is None:
                self._jobs.add(self._open)
            if self._jobs.is_idle:
                self._state, self._opened = self._opened, None
        except (StorageError, OSError) as error:
            self._warn(f"the newest checkpoint cannot be sent: {error}")
            for node_id in list(self._receivers):
                self._end(node_id, None)
        return self._state is not None

    def _open(self) -> None:
        indexes = self._folder.indexes()
        if not indexes:
            raise StorageError(f"{self._folder.directory.path} holds no checkpoint")
        self._opened = OpenState(self._folder.directory, indexes[-1])

    def on_reply(self, message: SnapshotReply) -> None:
        """A member says how it stands."""
        receiver, state = self._receivers.get(message.sender), self._state
        if receiver is None or state is None or message.snapshot != state.name:
            return
        receiver.heard_ticks, receiver.has_answered = self._now_ticks, True
        if message.state == INSTALLED:
            self._end(message.sender, state.manifest.point.index)
        elif message.state in (UNWANTED, FAILED):
            if message.problem:
                self._warn(f"node {message.sender} has not taken the state of the group: {message.problem}")
            self._end(message.sender, None)

    def read(self, request: PartRequest) -> list[tuple[int, bytes]] | None:
        """(offset, bytes) of the parts that are asked for; None if they are of no state that this member is offered."""
        receiver, state = self._receivers.get(request.sender), self._state
        if receiver is None or state is None or request.snapshot != state.name or request.run not in state.files:
            return None
        receiver.heard_ticks, receiver.has_answered = self._now_ticks, True
        file, end = state.files[request.run], request.offset + request.size
        parts = []
        for offset in range(request.offset, end, PART_SIZE_MAX):
            part = file.read(min(PART_SIZE_MAX, end - offset), offset)
            if part:
                parts.append((offset, part))
        return parts

    def _end(self, node_id: int, index: int | None) -> None:
        self._receivers.pop(node_id, None)
        if index is None and self.may_begin(node_id):
            self._paused_until[node_id] = self._now_ticks + PAUSE_TICKS
        self._on_done(node_id, index)

    def close(self) -> None:
        """This node leads no more."""
        self._receivers.clear()
        self._paused_until.clear()
        self._close_state()

    def _close_state(self) -> None:
        if not self._jobs.is_idle:
            self._jobs.drop()
        for state in (self._state, self._opened):
            if state is not None:
                state.close()
        self._state = self._opened = None
