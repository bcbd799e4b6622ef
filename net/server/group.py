"""What a node tells of its group, and how it changes it: the operations MEMBERS, JOIN and CHANGE_MEMBERS.

MEMBERS is answered by any node, as it sees things: a group in trouble has no leader to ask. So is JOIN, to members. A
change is the leader's; it is answered when it is committed and no second configuration is in force beside the new one.
"""

from collections.abc import Callable
from typing import Final, Literal, NamedTuple

from bezant.engine.member import Member
from bezant.engine.node_file import added_member, remark_on_voters
from bezant.engine.raft.interface import CoreStatus, NotLeader, NotYet
from bezant.engine.raft.interface import MemberStatus as CoreMemberStatus
from bezant.engine.raft.membership import MembershipChange, is_joint, is_voter
from bezant.engine.raft.roles import Role
from bezant.net.peers.transport import PeerStatus
from bezant.net.server.requests import AnsweredElsewhere
from bezant.protocol.errors import UsageError
from bezant.protocol.frames import FrameError
from bezant.protocol.messages import (
    ChangeMembers,
    Configuration,
    GroupFacts,
    MembersChanged,
    MembersStatus,
    MemberStatus,
    decode_message,
    encode_message,
)
from bezant.protocol.messages import Member as MemberRecord

CHANGES_WAITING_MAX: Final = 16
"""Requests for changes that wait to be committed."""

Respond = Callable[[bytes | Exception], None]


class _Waiting(NamedTuple):
    """Somebody who waits for a change."""

    respond: Respond
    change: ChangeMembers
    term: int
    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody needs here


class GroupOperations:
    """See the module. All methods on the loop."""

    def __init__(self, member: Member, peers: Callable[[], list[PeerStatus]]) -> None:
        """`peers` tells how the connections with the other members stand."""
        self._member = member
        self._peers = peers
        self._waiting: list[_Waiting] = []

    # ---- status ----

    def status(self) -> bytes:
        """The body of the reply to MEMBERS."""
        member = self._member
        core = member.core.status()
        peers = {peer.node_id: peer for peer in self._peers()}
        progress = {status.node_id: status for status in core.members}
        members = []
        for record in core.configuration.members:
            own = record.node_id == member.identity.node_id
            peer, known = peers.get(record.node_id), progress.get(record.node_id)
            match_index = core.durable_index if own else 0 if known is None else known.match_index
            members.append(
                MemberStatus(
                    node_id=record.node_id,
                    incarnation=record.incarnation,
                    peer_address=record.peer_address,
                    client_address=record.client_address,
                    role=self._role_of(record.node_id, known is not None),
                    voting=_voting(core.configuration, record.node_id),
                    term=core.term if own else 0,
                    match_index=match_index,
                    last_index=core.last_index if own else 0,
                    commit_index=core.commit_index if own else 0,
                    active=own or (known is not None and known.recent_active) or (peer is not None and peer.is_up),
                    lag_entries=max(core.last_index - match_index, 0) if own or known is not None else None,
                    history_percent=self._history_percent(core, match_index, own, known),
                    clock_offset_ns=0 if own else None if peer is None else peer.clock_offset_ns,
                    problem="" if peer is None else peer.reason,
                )
            )
        return encode_message(
            MembersStatus(
                node_id=member.identity.node_id,
                leader=core.leader_id,
                term=core.term,
                commit_index=core.commit_index,
                members=members,
                joint=is_joint(core.configuration),
                problem=self._problem(),
            )
        )

    def _history_percent(
        self, core: CoreStatus, match_index: int, own: bool, known: CoreMemberStatus | None
    ) -> float | None:
        """How many of the entries there are a member has on its disk; None if that is not known."""
        if not own and known is None:
            return None
        first_index = self._member.replica.log.history_index if own or known is None else known.first_index
        return 100.0 * max(match_index - first_index + 1, 0) / max(core.last_index, 1)

    def _problem(self) -> str:
        """Why this node does not vote, or should not be there; "" if it is as it should be."""
        members = self._member.configuration.members
        if members and all(record.node_id != self._member.identity.node_id for record in members):
            return "this node is no member of its group any more: stop it"
        if not self._member.core.is_barred:
            return ""
        if self._member.is_blank:
            return "this disk is blank: it votes when all first members are up and blank, or when it has caught up"
        return "this disk has lost entries, or never had them: it votes when it has caught up"

    def tell_member(self, body: bytes) -> bytes:
        """The body of the reply to JOIN. Raises `RemoteProtocolError`, and `UsageError` to who is no member."""
        asking, core = decode_message(body, MemberRecord), self._member.core
        disks = {(record.node_id, record.incarnation) for record in core.configuration.members}
        if (asking.node_id, asking.incarnation) not in disks:
            raise UsageError(f"node {asking.node_id}, with this disk, is no member of this group")
        log_id, shard = self._member.replica.log.log_id, self._member.replica.shard
        return encode_message(GroupFacts(log_id, shard, core.configuration_index, core.configuration))

    def _role_of(self, node_id: int, is_followed: bool) -> Literal["leader", "follower", "candidate", "unknown"]:
        member = self._member
        if node_id == member.leader_id:
            return "leader"
        if node_id == member.identity.node_id:
            return "candidate" if member.role in (Role.PRE_CANDIDATE, Role.CANDIDATE) else "follower"
        return "follower" if is_followed else "unknown"

    # ---- changes ----

    def change(self, body: bytes, respond: Respond) -> None:
        """Begin the change that CHANGE_MEMBERS asks for. Raises `RemoteProtocolError`; all else is responded."""
        change = decode_message(body, ChangeMembers)
        try:
            self._begin(change, respond)
        except NotLeader as error:
            respond(AnsweredElsewhere(FrameError.NOT_LEADER, str(error), self._member.leader_address))
        except UsageError as error:
            respond(error)

    def _begin(self, change: ChangeMembers, respond: Respond) -> None:
        member = self._member
        if not member.is_leader:
            raise NotLeader("this node does not lead its group")
        if change.expected_term not in (0, member.term):
            raise UsageError(f"the change is for term {change.expected_term}, and this is term {member.term}")
        if len(self._waiting) >= CHANGES_WAITING_MAX:
            raise UsageError("too many changes wait to be committed: try again later")
        index = 0
        if not _is_in_force(member.configuration, change, member.leader_id):
            if change.action == "transfer":
                member.transfer_leadership(change.node_id)
            else:
                index = member.change_membership(_membership_change(change))
        self._waiting.append(_Waiting(respond, change, member.term, index))
        self.on_step()

    def switch_rules(self, version: int) -> int:
        """Switch to later rules once every voter can execute them; see `Member.switch_rules`."""
        hellos = [peer.hello for peer in self._peers()]
        return self._member.switch_rules(version, {said.node_id: said.rules_version_max for said in hellos if said})

    def find_unready(self, version: int) -> str:
        """Why no entry that takes this version may be made; see `Member.find_unready`."""
        hellos = [peer.hello for peer in self._peers()]
        return self._member.find_unready(version, {said.node_id: said.entries_version for said in hellos if said})

    def on_step(self) -> None:
        """Answer those whose change is done, or can no more be done here."""
        waiting, self._waiting = self._waiting, []
        for item in waiting:
            answer = self._answer(item)
            if answer is None:
                self._waiting.append(item)
            else:
                item.respond(answer)

    def _answer(self, item: _Waiting) -> bytes | Exception | None:
        """What is to be answered now; None if nothing is yet."""
        member, configuration = self._member, self._member.configuration
        is_done = _is_in_force(configuration, item.change, member.leader_id)
        if item.change.action == "transfer":
            if member.is_leader and not is_done:
                if member.is_handing_over:
                    return None
                return NotYet(f"node {item.change.node_id} has not taken over within an election's time")
            if member.leader_id == 0:
                return None
        elif not member.is_leader or member.term != item.term:
            message = "this node led its group until now, and does not know what became of the change"
            return AnsweredElsewhere(FrameError.OUTCOME_UNKNOWN, message, member.leader_address)
        elif member.committed_index < item.index or not is_done:
            return None
        return encode_message(
            MembersChanged(
                leader=member.leader_id,
                term=member.term,
                index=item.index,
                configuration=configuration,
                remark=remark_on_voters(len(configuration.voters)),
            )
        )


def _membership_change(change: ChangeMembers) -> MembershipChange:
    """The same, for the core. Raises `UsageError`."""
    if change.action == "add":
        return MembershipChange(add=[added_member(change)])
    node_ids = [change.node_id]
    return {
        "remove": MembershipChange(remove=node_ids),
        "promote": MembershipChange(promote=node_ids),
        "demote": MembershipChange(demote=node_ids),
    }[change.action]


def _is_in_force(configuration: Configuration, change: ChangeMembers, leader_id: int) -> bool:
    """Whether there is nothing to be done for a change, so that it may be asked for again."""
    node_id = change.node_id
    if change.action == "transfer":
        return leader_id == node_id
    if is_joint(configuration):
        return False
    if change.action == "add":
        return added_member(change) in configuration.members
    if change.action == "remove":
        return all(member.node_id != node_id for member in configuration.members)
    return node_id in (configuration.voters if change.action == "promote" else configuration.learners)


def _voting(configuration: Configuration, node_id: int) -> Literal["voter", "learner", "leaving", "none"]:
    if node_id in configuration.voters:
        return "voter"
    if is_voter(configuration, node_id):
        return "leaving"
    return "learner" if node_id in configuration.learners else "none"


def addresses_of(configuration: Configuration) -> list[str]:
    """Where clients reach the members of a group."""
    return [member.client_address for member in configuration.members if member.client_address]
