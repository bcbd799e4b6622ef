"""What must hold, checked from outside after every step: by what nodes send, store and answer."""

import struct
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from msgspec.structs import astuple

from bezant.engine.log.entry import Entry, entry_hash
from bezant.engine.raft.hard_state import HardState
from bezant.engine.raft.membership import is_joint
from bezant.engine.raft.roles import Role
from bezant.engine.skimming import split_span
from bezant.protocol.kinds import EntryKind
from bezant.protocol.metadata import BLOB_HEAD_SIZE, BLOB_STATE_ERASED, blob_content
from bezant.protocol.raft_messages import AppendReply, VoteReply
from bezant.protocol.records import ENTRY_INDEX_FIRST, VOTE_SLOT, VOTE_SLOT_SIZE
from bezant.protocol.transfer_messages import PeerMessage

from .schedule import Schedule, Violation

if TYPE_CHECKING:
    from .node import Node

DIGEST_EVERY = 16
"""Entries between two comparisons of ledgers: a digest costs as much as executing some batches."""
_VOTE_FIELDS = struct.Struct("<qq")
_TERM_AT = (VOTE_SLOT.fields or {})["term"][1]


class Committed(NamedTuple):
    """One entry of the canonical history."""

    entry: Entry
    digest: bytes
    at_us: int
    """When the first node knew."""
    term: int
    """Of that node: the entry was committed in this term or before."""


class Checks:
    """What has been true once and must stay true, over all nodes and all their lives."""

    def __init__(self, schedule: Schedule, counts: Counter[str]) -> None:
        self._schedule = schedule
        self._counts = counts
        self.history: list[Committed] = []
        self._seen_commit: dict[int, tuple[int, int]] = {}
        self.hard_states: dict[int, HardState] = {}
        self._leaders: dict[int, int] = {}
        self._votes: dict[tuple[int, int], int] = {}
        self._digests: dict[tuple[int, bytes], tuple[str, int]] = {}
        self._next_digest: dict[int, int] = {}
        self._cuts: dict[int, tuple[int, int]] = {}
        self._seen: dict[int, tuple[object, ...]] = {}

    @property
    def commit_index(self) -> int:
        """Up to where anybody knows that entries are committed."""
        return len(self.history)

    def forget(self, node: "Node") -> None:
        """It has another disk now."""
        for of_disk in (self.hard_states, self._next_digest, self._seen):
            of_disk.pop(node.node_id, None)

    # ---- after each step ----

    def look(self, node: "Node") -> None:
        """Check a node that has just done something, unless nothing has changed that is looked at."""
        member = node.member
        if member is not None:
            core = member.core
            seen = (
                node.boot,
                node.hard_state,
                member.committed_index,
                member.replica.applied_index,
                member.role,
                member.term,
                core.truncation_count,
            )
            if self._seen.get(node.node_id) == seen:
                return
            self._seen[node.node_id] = seen
        self._check_hard_state(node)
        self.check_committed(node)
        self._check_leading(node)
        self._count_cuts(node)
        self._compare_ledgers(node)

    def _check_hard_state(self, node: "Node") -> None:
        now, before = node.hard_state, self.hard_states.get(node.node_id, HardState())
        if now is before:
            return
        if now.term < before.term or (now.term == before.term and before.voted_for not in {0, now.voted_for}):
            raise Violation(f"node {node.node_id} went from {before} back to {now}")
        self.hard_states[node.node_id] = now

    def check_committed(self, node: "Node") -> None:
        """One canonical history: what is committed anywhere is committed everywhere, to the byte, and for ever."""
        member = node.member
        if member is None:
            return
        boot, seen = self._seen_commit.get(node.node_id, (0, 0))
        index = member.committed_index
        if boot == node.boot and index == seen:
            return
        if boot != node.boot:
            self._check_start(node, index)
            seen = 0
        if index < seen:
            raise Violation(f"node {node.node_id} takes back the commit of {index + 1} to {seen}")
        if index > seen:
            first = max(seen + 1, member.replica.log.first_index)
            for entry in split_span(member.replica.log.read_encoded(first, index)):
                self._note_committed(node, entry)
            self._schedule.note("committed", node.node_id, index, self.history[index - 1].digest.hex()[:16])
        self._seen_commit[node.node_id] = (node.boot, index)

    def check_history(self, node: "Node") -> None:
        """All of the history of a node is the canonical one, whichever way it has come."""
        if node.member is not None:
            for entry in split_span(node.member.replica.log.read_encoded(ENTRY_INDEX_FIRST, len(self.history))):
                self._note_committed(node, entry)

    def check_metadata(self, node: "Node") -> None:
        """What has not been superseded is there, and of all else nothing is."""
        if node.member is None:
            return
        replica = node.member.replica
        kept = set(replica.ledger.metadata.records()["index"].tolist())
        for entry in split_span(replica.log.read_encoded(ENTRY_INDEX_FIRST, len(self.history))):
            if entry.header.kind != EntryKind.BLOB or entry.header.body_size == BLOB_HEAD_SIZE:
                continue
            rest = bytes(entry.body[BLOB_HEAD_SIZE:])
            if entry.header.index in kept:
                self._counts["metadata kept"] += 1
                if blob_content(bytes(entry.body)) is None:
                    raise Violation(f"node {node.node_id} has lost the metadata of entry {entry.header.index}")
            elif rest != bytes((BLOB_STATE_ERASED,)) * len(rest):
                raise Violation(f"node {node.node_id} has not erased the metadata of entry {entry.header.index}")
            else:
                self._counts["metadata found erased"] += 1

    def _check_start(self, node: "Node", index: int) -> None:
        """What a start takes for committed is a hint from the disk: perhaps old, never too high. A sole voter needs
        none: what it finds on its disk is committed."""
        is_sole = node.configuration.voters == [node.node_id] and not is_joint(node.configuration)
        if not is_sole and index > max(self.commit_index, ENTRY_INDEX_FIRST):
            raise Violation(f"node {node.node_id} starts with {index} committed, and {self.commit_index} are")

    def _note_committed(self, node: "Node", entry: Entry) -> None:
        digest = entry_hash(entry.encoded, entry.body)
        index = entry.header.index
        if index <= len(self.history):
            known = self.history[index - 1]
            if known.digest != digest:
                raise Violation(
                    f"node {node.node_id} has another committed entry {index}, of term {entry.header.term}, than the "
                    f"one of term {known.entry.header.term} that was committed at {known.at_us} us"
                )
            return
        if index != len(self.history) + 1:
            raise Violation(f"node {node.node_id} commits entry {index}, and {len(self.history)} are known")
        kept = Entry(entry.header, entry.encoded, bytes(entry.body))
        term = node.member.core.term if node.member is not None else 0
        self.history.append(Committed(kept, digest, self._schedule.now_us, term))

    def _check_leading(self, node: "Node") -> None:
        """At most one leader a term, and it has all that was committed in earlier terms: one that hears late of having
        won need not have what a later one has committed meanwhile."""
        member = node.member
        if member is None or member.role is not Role.LEADER:
            return
        known = self._leaders.get(member.term)
        if known is not None:
            if known != node.node_id:
                raise Violation(f"nodes {known} and {node.node_id} both lead term {member.term}")
            return
        self._leaders[member.term] = node.node_id
        self._counts["elections won"] += 1
        self._schedule.note("leads", node.node_id, member.term)
        index, log = self.commit_index, member.replica.log
        while index and self.history[index - 1].term >= member.term:
            index -= 1
        if not index:
            return
        found = split_span(log.read_encoded(index, index))[0] if log.last_index >= index else None
        if found is None or entry_hash(found.encoded, found.body) != self.history[index - 1].digest:
            raise Violation(f"node {node.node_id} leads term {member.term} without the committed entry {index}")

    def _count_cuts(self, node: "Node") -> None:
        member = node.member
        if member is not None:
            boot, before = self._cuts.get(node.node_id, (0, 0))
            now = member.core.truncation_count
            if boot != node.boot or now != before:
                self._counts["logs cut"] += now - (before if boot == node.boot else 0)
                self._cuts[node.node_id] = (node.boot, now)

    def _compare_ledgers(self, node: "Node") -> None:
        """The same history gives the same state."""
        member = node.member
        if member is None:
            return
        index, last = member.replica.applied_index, self._next_digest.get(node.node_id, 0)
        if index - last < DIGEST_EVERY:
            self._next_digest[node.node_id] = min(last, index)
            return
        self._next_digest[node.node_id] = index
        self.compare_ledger(node)

    def compare_ledger(self, node: "Node") -> None:
        """Compare the state of a node with that of all others that stood at the same entry."""
        member = node.member
        if member is None or not member.replica.applied_index:
            return
        index = member.replica.applied_index
        entry = split_span(member.replica.log.read_encoded(index, index))[0]
        digest = member.replica.ledger.digest()
        known = self._digests.setdefault((index, entry_hash(entry.encoded, entry.body)), (digest, node.node_id))
        self._counts["ledgers compared"] += known[1] != node.node_id
        if known[0] != digest:
            raise Violation(f"nodes {node.node_id} and {known[1]} have different ledgers at entry {index}")

    # ---- what is sent ----

    def sent(self, node: "Node", message: PeerMessage) -> None:
        """Check what a node promises others: it must be on its disk."""
        if isinstance(message, AppendReply) and not message.rejected and message.match_index > node.synced_index:
            raise Violation(
                f"node {node.node_id} acknowledges {message.match_index}, and {node.synced_index} are on its disk"
            )
        if isinstance(message, VoteReply) and message.granted and not message.is_pre:
            self._check_vote(node, message)
        self._schedule.note("sends", type(message).__name__, *astuple(message))

    def _check_vote(self, node: "Node", message: VoteReply) -> None:
        voted = self._votes.setdefault((node.node_id, message.term), message.receiver)
        if voted != message.receiver:
            raise Violation(f"node {node.node_id} votes for {voted} and {message.receiver} in term {message.term}")
        slots = node.directory.durable["vote"]
        for slot in (0, 1):
            found = _VOTE_FIELDS.unpack_from(slots, slot * VOTE_SLOT_SIZE + _TERM_AT)
            if found != (message.term, message.receiver):
                raise Violation(f"node {node.node_id} tells of a vote in term {message.term}; its disk says {found}")
