"""Safeguards, each switched off by taking one method away: does the simulator notice?"""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import msgspec
import pytest

from bezant.engine.log import log as log_module
from bezant.engine.log.log import Log
from bezant.engine.log.vote import VOTE_SLOT_SIZE, VoteFile, _encode
from bezant.engine.member import Member
from bezant.engine.replica import Replica

from ..engine.raft import test_ablations as raft
from .checkpoints import InlineCheckpoints
from .disk import Folder, SimulatedFile
from .frames import Answer, Outcome
from .node import Node
from .simulation import Simulation

Patch = pytest.MonkeyPatch


class Found(NamedTuple):
    """Which seed it took, and what was noticed."""

    seed: int
    what: str


MISTAKES = (AttributeError, NameError, ImportError)
"""What says that a safeguard is not where it was when it was to be switched off, and nothing of the simulator."""


def votes_are_not_written(patch: Patch) -> None:
    def write(self: Any, state: Any) -> None:
        self._state = state

    patch.setattr(VoteFile, "write", write)


def votes_are_written_to_one_slot(patch: Patch) -> None:
    def write(self: Any, state: Any) -> None:
        self._file.write_durably([_encode(self._shard, self._write_count + 1, state)], self._newest * VOTE_SLOT_SIZE)
        self._write_count += 1
        self._state = state

    patch.setattr(VoteFile, "_write", write)


def groups_are_not_synced(patch: Patch) -> None:
    patch.setattr(SimulatedFile, "write_durably", SimulatedFile.write)


def failed_syncs_are_ignored(patch: Patch) -> None:
    whole = Node._write

    def write(self: Any, group: Any) -> None:
        try:
            whole(self, group)
        except OSError:
            self.synced_index = group.last_header.index

    patch.setattr(Node, "_write", write)


def answers_do_not_wait_for_the_commit(patch: Patch) -> None:
    def reply(self: Any) -> None:
        while self._waiting:
            batch = self._waiting.popleft()
            for frame, body in batch.answers:
                self._answer(frame, Answer(Outcome.DONE, body, batch.index, self.node_id))

    patch.setattr(Node, "_reply", reply)


def lost_leaders_answer_what_they_have(patch: Patch) -> None:
    patch.setattr(Node, "_abandon", raft.nothing)


def retries_get_new_ids(patch: Patch) -> None:
    whole = Node._take_frame

    def take_frame(self: Any, frame: Any) -> None:
        commands = frame.commands.copy()
        commands["id_tail"] += frame.sending << 32
        whole(self, frame._replace(commands=commands))

    patch.setattr(Node, "_take_frame", take_frame)


def terms_begin_without_an_entry(patch: Patch) -> None:
    patch.setattr(Replica, "append_first_of_term", raft.nothing)


def abandoned_states_are_kept(patch: Patch) -> None:
    whole = Member._write_accepted

    def write_accepted(self: Any, accepted: Any) -> None:
        if accepted.truncate_to is not None:
            self.replica.applied_index = min(self.replica.applied_index, accepted.truncate_to)
        whole(self, accepted)

    patch.setattr(Member, "_write_accepted", write_accepted)


def cuts_leave_no_intent(patch: Patch) -> None:
    patch.setattr(Log, "_begin_cut", raft.nothing)


def cuts_are_not_written(patch: Patch) -> None:
    patch.setattr(log_module, "zero_behind", raft.nothing)
    patch.setattr(Log, "_begin_cut", raft.nothing)


def groups_under_way_are_cut(patch: Patch) -> None:
    patch.setattr(Node, "_settle_group", raft.nothing)


def the_hint_of_the_commit_is_too_high(patch: Patch) -> None:
    whole = Log._write_watermark

    def write(self: Any, **fields: Any) -> None:
        self.commit_index, kept = self.durable_index, self.commit_index
        whole(self, **fields)
        self.commit_index = kept

    patch.setattr(Log, "_write_watermark", write)


def checkpoints_do_not_wait_for_the_commit(patch: Patch) -> None:
    whole = InlineCheckpoints.make_if_due

    def make_if_due(self: Any) -> None:
        log = self._replica.log
        kept, log.commit_index = log.commit_index, log.last_index
        whole(self)
        log.commit_index = kept

    patch.setattr(InlineCheckpoints, "make_if_due", make_if_due)


def checkpoints_are_not_synced(patch: Patch) -> None:
    whole = Folder.write_file_stepwise

    def write(self: Any, name: str, chunks: Any) -> Any:
        yield from whole(self, name, chunks)
        self.durable[name] = bytes(len(self.durable[name]))

    patch.setattr(Folder, "write_file_stepwise", write)


def blank_disks_vote(patch: Patch) -> None:
    whole = Member._read_hard_state

    def read(self: Any, last_term: int) -> Any:
        return msgspec.structs.replace(whole(self, last_term), barred=False)

    patch.setattr(Member, "_read_hard_state", read)


class Row(NamedTuple):
    """A safeguard that is switched off, and under which profile and within how many seeds that must be noticed.

    `known_seed` is the first that did notice: a test begins with it.
    """

    switch_off: Callable[[Patch], None]
    profile: str
    seeds_max: int
    known_seed: int = 0

    @property
    def seeds(self) -> list[int]:
        """All of them, the one that is known to notice first."""
        return [self.known_seed, *(seed for seed in range(self.seeds_max) if seed != self.known_seed)]


ROWS = (
    Row(votes_are_not_written, "disk", 5),
    Row(votes_are_written_to_one_slot, "disk", 5, 1),
    Row(groups_are_not_synced, "disk", 5),
    Row(answers_do_not_wait_for_the_commit, "stormy", 5),
    Row(retries_get_new_ids, "stormy", 5),
    Row(abandoned_states_are_kept, "stormy", 30, 9),
    Row(the_hint_of_the_commit_is_too_high, "disk", 10, 2),
    Row(checkpoints_are_not_synced, "disk", 200, 14),
    Row(blank_disks_vote, "disk", 20, 3),
    Row(raft.acknowledges_before_the_sync, "disk", 10, 1),
    Row(raft.leader_counts_what_it_has_not_synced, "disk", 20, 4),
    Row(raft.every_append_cuts_the_log, "stormy", 40),
    Row(raft.a_full_window_waits_for_ever, "stormy", 30, 1),
    Row(raft.lost_disks_vote, "disk", 30, 2),
    Row(checkpoints_do_not_wait_for_the_commit, "stormy", 40, 9),
)
RARE = (
    Row(failed_syncs_are_ignored, "disk", 150),
    Row(lost_leaders_answer_what_they_have, "stormy", 150),
    Row(cuts_are_not_written, "disk", 150),
    Row(terms_begin_without_an_entry, "calm", 150),
    Row(groups_under_way_are_cut, "stormy", 150),
    Row(cuts_leave_no_intent, "disk", 150),
    Row(raft.any_sync_of_the_same_entry_counts, "stormy", 150),
    Row(raft.any_sync_counts, "stormy", 150),
    Row(raft.entries_of_earlier_terms_commit_by_counting, "stormy", 150),
    Row(raft.the_leaders_commit_index_is_believed, "stormy", 150),
    Row(raft.longer_logs_win, "stormy", 150),
    Row(raft.reads_do_not_wait_for_a_quorum, "stormy", 150),
    Row(raft.reads_do_not_wait_for_the_term, "stormy", 150),
    Row(raft.a_joint_quorum_is_one_over_the_union, "stormy", 150),
    Row(raft.a_configuration_survives_its_entry, "stormy", 150),
)
"""Noticed too seldom to be waited for in a test, or not at all yet."""


def search(row: Row, seeds: Iterable[int], make: Callable[[int, str], Any] = Simulation) -> Found | None:
    """The first of these seeds that fails without the safeguard; None if none does. `make`: what a seed is run by."""
    with pytest.MonkeyPatch.context() as patch:
        row.switch_off(patch)
        for seed in seeds:
            try:
                make(seed, row.profile).run()
            except MISTAKES:
                raise
            except Exception as error:
                return Found(seed, f"{type(error).__name__}: {error}")
    return None
